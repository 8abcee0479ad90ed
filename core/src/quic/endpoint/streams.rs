//! What can be done with a connection and its streams.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use bytes::Bytes;
use quinn_proto::{Dir, FinishError, ReadError, WriteError};

use super::{Endpoint, Handle, varint};
use crate::quic::{CloseReason, ReadOutcome, StreamId, WriteOutcome, config::CID_LEN};

/// Bytes of a packet that are no payload of streams: first byte, connection id, packet number, tag; type and id of a frame.
const PACKET_LEAST: u64 = 1 + CID_LEN as u64 + 1 + 16 + 2;

impl Endpoint {
    /// Opens a bidirectional stream; `None` while the peer gives no credit ([`Event::StreamsAvailable`](crate::quic::Event::StreamsAvailable) reports more).
    pub fn open(&mut self, handle: Handle) -> Option<StreamId> {
        self.conns.live(handle)?.quic.streams().open(Dir::Bi).map(StreamId)
    }

    /// Takes up to `max` chunks of what has arrived in order, appending them to `chunks`.
    pub fn read(&mut self, handle: Handle, id: StreamId, chunks: &mut Vec<Bytes>, max: usize) -> ReadOutcome {
        let Some(conn) = self.conns.live(handle) else { return ReadOutcome::Gone };
        let mut stream = conn.quic.recv_stream(id.0);
        let Ok(mut arrived) = stream.read(true) else { return ReadOutcome::Gone };
        let mut left = max;
        let outcome = loop {
            if left == 0 {
                break ReadOutcome::More;
            }
            match arrived.next(usize::MAX) {
                Ok(Some(chunk)) => {
                    chunks.push(chunk.bytes);
                    left -= 1;
                }
                Ok(None) => break ReadOutcome::Finished,
                Err(ReadError::Blocked) => break ReadOutcome::Blocked,
                Err(ReadError::Reset(code)) => break ReadOutcome::Reset(code.into_inner()),
            }
        };
        if arrived.finalize().should_transmit() {
            self.conns.wants_to_send(handle);
        }
        outcome
    }

    /// Writes chunks, uncopied, as far as there is room.
    pub fn write(&mut self, handle: Handle, id: StreamId, chunks: &mut [Bytes]) -> WriteOutcome {
        let Some(conn) = self.conns.live(handle) else { return WriteOutcome::Gone };
        let mut stream = conn.quic.send_stream(id.0);
        let (mut bytes, mut whole) = (0, 0);
        let outcome = loop {
            let rest = chunks.get_mut(whole..).unwrap_or_default();
            if rest.is_empty() {
                break WriteOutcome::Written { bytes };
            }
            match stream.write_chunks(rest) {
                Ok(written) => {
                    bytes += written.bytes;
                    whole += written.chunks;
                }
                Err(WriteError::Blocked) => break WriteOutcome::Blocked { bytes, chunks: whole },
                Err(WriteError::Stopped(code)) => break WriteOutcome::Stopped(code.into_inner()),
                Err(WriteError::ClosedStream) => break WriteOutcome::Gone,
            }
        };
        if bytes > 0 {
            self.conns.wants_to_send(handle);
        }
        outcome
    }

    /// The code with which the peer aborted a stream that is not being read, reported once.
    pub fn received_reset(&mut self, handle: Handle, id: StreamId) -> Option<u64> {
        let code = self.conns.live(handle)?.quic.recv_stream(id.0).received_reset().ok()??;
        self.conns.wants_to_send(handle);
        Some(code.into_inner())
    }

    /// Ends our direction in good order.
    pub fn finish(&mut self, handle: Handle, id: StreamId) {
        if let Some(conn) = self.conns.live(handle) {
            // It fails when the stream was stopped or is closed already: events have reported both.
            let _ = conn.quic.send_stream(id.0).finish();
            self.conns.wants_to_send(handle);
        }
    }

    /// Ends our direction in good order even though it is cut short, unless the peer has stopped it: that must be answered by a reset.
    pub fn finish_or_reset(&mut self, handle: Handle, id: StreamId, code: u64) {
        if let Some(conn) = self.conns.live(handle) {
            let mut stream = conn.quic.send_stream(id.0);
            if matches!(stream.finish(), Err(FinishError::Stopped(_))) {
                let _ = stream.reset(varint(code));
            }
            self.conns.wants_to_send(handle);
        }
    }

    /// Aborts our direction (RESET_STREAM).
    pub fn reset(&mut self, handle: Handle, id: StreamId, code: u64) {
        if let Some(conn) = self.conns.live(handle) {
            // It fails when everything has been acknowledged: then there is nothing to abort.
            let _ = conn.quic.send_stream(id.0).reset(varint(code));
            self.conns.wants_to_send(handle);
        }
    }

    /// Asks the peer to end its direction (STOP_SENDING); nothing can be read any more.
    pub fn stop(&mut self, handle: Handle, id: StreamId, code: u64) {
        if let Some(conn) = self.conns.live(handle) {
            // It fails when everything has been read: then there is nothing to stop.
            let _ = conn.quic.recv_stream(id.0).stop(varint(code));
            self.conns.wants_to_send(handle);
        }
    }

    /// Streams of higher priority are sent first; 0 at first.
    pub fn set_priority(&mut self, handle: Handle, id: StreamId, priority: i32) {
        if let Some(conn) = self.conns.live(handle) {
            let _ = conn.quic.send_stream(id.0).set_priority(priority);
        }
    }

    /// Sends a DATAGRAM frame (RFC 9221): best effort, and nothing at all to a peer that takes none.
    pub fn send_datagram(&mut self, handle: Handle, data: Bytes) {
        if let Some(conn) = self.conns.live(handle) {
            let _ = conn.quic.datagrams().send(data, true);
            self.conns.wants_to_send(handle);
        }
    }

    /// Closes a connection at once: what is unsent is lost. [`Event::Closed`](crate::quic::Event::Closed) with [`CloseReason::Local`] follows.
    pub fn close(&mut self, now: Instant, handle: Handle, code: u64, reason: &str) {
        if let Some(conn) = self.conns.live(handle) {
            conn.quic.close(now, varint(code), Bytes::copy_from_slice(reason.as_bytes()));
            self.report_closed(handle, CloseReason::Local);
            self.conns.touch(handle);
        }
    }

    /// Lets the peer have `streams` bidirectional streams open at once.
    pub fn set_max_streams(&mut self, handle: Handle, streams: u32) {
        if let Some(conn) = self.conns.live(handle) {
            conn.quic.set_max_concurrent_streams(Dir::Bi, streams.into());
            self.conns.wants_to_send(handle);
        }
    }

    /// Bytes the peer may send ahead on this connection from now on.
    pub fn set_receive_window(&mut self, handle: Handle, bytes: u64) {
        if let Some(conn) = self.conns.live(handle) {
            conn.quic.set_receive_window(varint(bytes));
            self.conns.wants_to_send(handle);
        }
    }

    /// Bytes we may have sent without acknowledgement on this connection from now on.
    pub fn set_send_window(&mut self, handle: Handle, bytes: u64) {
        if let Some(conn) = self.conns.live(handle) {
            conn.quic.set_send_window(bytes);
            self.conns.wants_to_send(handle);
        }
    }

    /// Uses another of the peer's connection ids from now on, or from when one has come. For packets with the one of the handshake our servers send no
    /// stateless reset after a restart: it would only hurry those who do harm then (docs/protocols/spn.md, Legacy protocol, LEG-30 and LEG-33).
    pub fn change_id(&mut self, handle: Handle) {
        if let Some(conn) = self.conns.live(handle) {
            conn.wants_id = true;
            self.use_new_id(handle);
        }
    }

    pub(super) fn use_new_id(&mut self, handle: Handle) {
        if let Some(conn) = self.conns.live(handle).filter(|conn| conn.wants_id)
            && conn.quic.stats().frame_rx.new_connection_id > 0
        {
            conn.wants_id = false;
            conn.quic.local_address_changed();
            self.conns.wants_to_send(handle);
        }
    }

    /// Sends a PING: proof of life, if the peer answers.
    pub fn ping(&mut self, handle: Handle) {
        if let Some(conn) = self.conns.live(handle) {
            conn.quic.ping();
            self.conns.wants_to_send(handle);
        }
    }

    /// Datagrams that have come from the peer: it lives as long as this grows.
    pub fn received_datagrams(&mut self, handle: Handle) -> u64 {
        self.conns.get(handle).map_or(0, |conn| conn.quic.stats().udp_rx.datagrams)
    }

    /// Bytes of streams that have come from the peer at most, those included that came twice: what its datagrams held beside what every
    /// packet of a connection has around its frames. What has not been read of them is unread.
    pub fn arrived(&mut self, handle: Handle) -> u64 {
        self.conns.get(handle).map_or(0, |conn| {
            let arrived = conn.quic.stats().udp_rx;
            arrived.bytes.saturating_sub(arrived.datagrams.saturating_mul(PACKET_LEAST))
        })
    }

    /// The smoothed round-trip time.
    pub fn rtt(&mut self, handle: Handle) -> Option<Duration> {
        self.conns.get(handle).map(|conn| conn.quic.rtt())
    }

    /// The peer's address.
    pub fn remote(&mut self, handle: Handle) -> Option<SocketAddr> {
        self.conns.get(handle).map(|conn| conn.quic.remote_address())
    }

    /// Hex of our first connection id on it.
    pub fn id(&mut self, handle: Handle) -> Option<&str> {
        self.conns.get(handle).map(|conn| conn.id.as_str())
    }
}
