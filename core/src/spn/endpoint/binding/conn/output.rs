//! What goes onto a connection's stream before the host's next byte, and the end of our direction behind it.

use std::collections::VecDeque;

use bytes::Bytes;

use crate::{
    quic::{self, WriteOutcome},
    spn::endpoint::carrier::Carrier,
};

/// Bytes that wait for room in the stream: the preamble, what is sent again.
#[derive(Debug, Default)]
pub(in crate::spn::endpoint) struct Output {
    chunks: VecDeque<Bytes>,
    /// FIN follows them.
    finishes: bool,
}

impl Output {
    pub(in crate::spn::endpoint) fn push(&mut self, chunk: Bytes) {
        self.chunks.push_back(chunk);
    }

    pub(in crate::spn::endpoint) fn extend(&mut self, chunks: impl IntoIterator<Item = Bytes>) {
        self.chunks.extend(chunks);
    }

    /// Our direction ends behind what is here.
    pub(in crate::spn::endpoint) fn finish(&mut self) {
        self.finishes = true;
    }

    /// The stream takes no more, or is left.
    pub(in crate::spn::endpoint) fn clear(&mut self) {
        self.chunks.clear();
        self.finishes = false;
    }

    pub(in crate::spn::endpoint) fn is_empty(&self) -> bool {
        self.chunks.is_empty()
    }

    /// Writes what there is room for. Says whether all of it is written.
    pub(in crate::spn::endpoint) fn flush(&mut self, carrier: Carrier, quic: &mut quic::Endpoint) -> bool {
        let Carrier { handle, stream, .. } = carrier;
        while !self.chunks.is_empty() {
            match quic.write(handle, stream, self.chunks.make_contiguous()) {
                WriteOutcome::Written { .. } => self.chunks.clear(),
                WriteOutcome::Blocked { chunks, .. } => {
                    self.chunks.drain(..chunks);
                    return false;
                }
                // The events that say so are on their way.
                WriteOutcome::Stopped(_) | WriteOutcome::Gone => return false,
            }
        }
        if std::mem::take(&mut self.finishes) {
            quic.finish(handle, stream);
        }
        true
    }
}
