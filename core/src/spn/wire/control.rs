//! The control stream of a session: frames in, frames out, over QUIC stream 0 (docs/protocols/spn.md, Control stream, CTL-5).

use bytes::Bytes;

use super::frame::{Decoder, Frame, FrameError};
use crate::quic::{Endpoint, Handle, ReadOutcome, StreamId, WriteOutcome};

/// Above every data stream: control is never blocked by payload (CTL-15).
const PRIORITY: i32 = 1;
/// Chunks read at once.
const BATCH: usize = 8;

/// Why a control stream is lost.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ControlError {
    /// A frame that must not be: close with 0x10.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// It ended without SESSION_CLOSE: close with 0x13.
    #[error("the control stream ended")]
    Ended,
}

/// One end of a control stream.
#[derive(Debug)]
pub struct Control {
    session: Handle,
    stream: StreamId,
    decoder: Decoder,
    ended: bool,
    out: Vec<u8>,
    scratch: Vec<Bytes>,
}

impl Control {
    /// Takes over a stream that was just opened or accepted.
    pub fn new(quic: &mut Endpoint, session: Handle, stream: StreamId) -> Self {
        quic.set_priority(session, stream, PRIORITY);
        Self { session, stream, decoder: Decoder::default(), ended: false, out: Vec::new(), scratch: Vec::new() }
    }

    /// Its stream.
    #[must_use]
    pub fn stream(&self) -> StreamId {
        self.stream
    }

    /// Queues a frame; [`flush`](Self::flush) sends it.
    pub fn send(&mut self, frame: &Frame) {
        frame.encode(&mut self.out);
    }

    /// Bytes that wait for the peer to read. What grows it must stop while it is over a limit.
    #[must_use]
    pub fn backlog(&self) -> usize {
        self.out.len()
    }

    /// Writes as much as the peer takes; call it again when the stream is writable.
    ///
    /// # Errors
    /// The peer stopped the stream.
    pub fn flush(&mut self, quic: &mut Endpoint) -> Result<(), ControlError> {
        if self.out.is_empty() {
            return Ok(());
        }
        let mut chunks = [Bytes::from(std::mem::take(&mut self.out))];
        let outcome = quic.write(self.session, self.stream, &mut chunks);
        match outcome {
            WriteOutcome::Written { .. } => Ok(()),
            WriteOutcome::Blocked { .. } => {
                let [rest] = chunks;
                self.out.extend_from_slice(&rest);
                Ok(())
            }
            WriteOutcome::Stopped(_) => Err(ControlError::Ended),
            // The session's own end says why.
            WriteOutcome::Gone => Ok(()),
        }
    }

    /// The next frame that has arrived, if one is complete.
    ///
    /// # Errors
    /// The stream is lost; the session must be closed.
    pub fn next_frame(&mut self, quic: &mut Endpoint) -> Result<Option<Frame>, ControlError> {
        loop {
            if let Some(frame) = self.decoder.next_frame()? {
                return Ok(Some(frame));
            }
            if self.ended {
                return Err(ControlError::Ended);
            }
            let outcome = quic.read(self.session, self.stream, &mut self.scratch, BATCH);
            let nothing = self.scratch.is_empty();
            for chunk in self.scratch.drain(..) {
                self.decoder.push(&chunk);
            }
            match outcome {
                ReadOutcome::More => {}
                ReadOutcome::Blocked if nothing => return Ok(None),
                ReadOutcome::Blocked => {}
                ReadOutcome::Finished | ReadOutcome::Reset(_) => self.ended = true,
                ReadOutcome::Gone => return Ok(None),
            }
        }
    }
}
