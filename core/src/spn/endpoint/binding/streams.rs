//! A provider's new streams: from the hub's opening to the call.

use std::time::Instant;

use bytes::Bytes;

use super::link::Opening;
use crate::{
    quic::{Handle, ReadOutcome, StreamId},
    spn::{
        ConnKey, Protocol, Role, Tag,
        endpoint::{
            Due, Endpoint,
            carrier::{Carrier, LinkId},
            machines::{connection, session},
        },
        wire::{code, frame::flag, preamble::Preamble},
    },
};

impl Endpoint {
    /// The hub opened a stream.
    pub(super) fn on_stream_opened(&mut self, now: Instant, id: LinkId, stream: StreamId) {
        let Some(wire) = self.links.get_mut(&id).and_then(|link| link.wire.as_mut()) else { return };
        if self.config.role == Role::Consumer {
            return self.refuse(id, stream, code::MALFORMED);
        }
        // Before SESSION_ACK it has overtaken it: streams do not keep order among each other. QUIC's credit bounds how many.
        wire.openings.insert(stream, Opening::default());
        wire.opened = wire.opened.max(stream.index() + 1);
        self.read_preamble(now, id, stream);
        self.note_weighed(id);
        self.listen(now, id);
        self.grant(id);
    }

    /// `sc01`: there is no preamble, the stream is the connection, and a server that speaks first is dialled at once. But a stream is open as soon
    /// as a later one is (RFC 9000 §2.1); it is a connection from its first own byte, or its end.
    fn read_first(&mut self, now: Instant, id: LinkId, stream: StreamId, handle: Handle) {
        let mut chunks = Vec::new();
        let outcome = self.quic.read(handle, stream, &mut chunks, 1);
        let ended = match (chunks.is_empty(), outcome) {
            (false, _) => false,
            (true, ReadOutcome::Finished) => true,
            (true, ReadOutcome::More | ReadOutcome::Blocked) => return,
            (true, ReadOutcome::Reset(code)) => return self.refuse(id, stream, code),
            (true, ReadOutcome::Gone) => return self.refuse(id, stream, code::PEER_ABORTED),
        };
        if let Some(wire) = self.links.get_mut(&id).and_then(|link| link.wire.as_mut()) {
            wire.openings.remove(&stream);
        }
        self.call(now, id, stream, None, (chunks.pop().unwrap_or_default(), ended));
    }

    /// SESSION_ACK is in, or a hold is over: looks at the streams that came before it.
    pub(in crate::spn::endpoint) fn serve_early_streams(&mut self, now: Instant, id: LinkId) {
        let Some(wire) = self.links.get(&id).and_then(|link| link.wire.as_ref()) else { return };
        let early: Vec<_> = wire.openings.keys().copied().collect();
        for stream in early {
            self.read_preamble(now, id, stream);
        }
    }

    /// Reads on at a preamble that is not complete.
    pub(super) fn read_preamble(&mut self, now: Instant, id: LinkId, stream: StreamId) {
        let mut chunks = Vec::new();
        loop {
            let Some(wire) = self.links.get_mut(&id).and_then(|link| link.wire.as_mut()) else { return };
            if !wire.up || wire.hold.is_some() {
                return;
            }
            let Some(opening) = wire.openings.get_mut(&stream) else { return };
            if wire.protocol == Protocol::Sc01 {
                let handle = wire.handle;
                return self.read_first(now, id, stream, handle);
            }
            // One chunk at a time, so that the end of the stream is left for the connection to find.
            let outcome = self.quic.read(wire.handle, stream, &mut chunks, 1);
            let Some(mut chunk) = chunks.pop() else {
                return match outcome {
                    ReadOutcome::More | ReadOutcome::Blocked => {}
                    ReadOutcome::Finished | ReadOutcome::Reset(_) | ReadOutcome::Gone => {
                        self.refuse(id, stream, code::MALFORMED);
                    }
                };
            };
            let is_first = opening.collector.is_empty();
            match opening.collector.take(&mut chunk) {
                // Before its first byte a stream may be open because a later one is.
                Ok(None) if is_first => {
                    self.deadlines.push(now + self.config.limits.preamble, Due::Preamble(id, stream));
                }
                Ok(None) => {}
                Ok(Some(preamble)) => {
                    let owner = opening.collector.owner();
                    return self.on_preamble(now, id, stream, preamble, owner, chunk);
                }
                Err(error) => {
                    tracing::debug!(%error, "stream refused");
                    return self.refuse(id, stream, code::MALFORMED);
                }
            }
        }
    }

    fn on_preamble(
        &mut self,
        now: Instant,
        id: LinkId,
        stream: StreamId,
        preamble: Preamble,
        owner: Option<Tag>,
        rest: Bytes,
    ) {
        let Some(wire) = self.links.get_mut(&id).and_then(|link| link.wire.as_mut()) else { return };
        wire.openings.remove(&stream);
        match preamble {
            Preamble::Connect { .. } if wire.left => self.refuse(id, stream, code::NOT_STARTED),
            // It has said that it does not have it.
            Preamble::Connect { conn, .. } if self.refused.contains(&conn) => {
                self.refuse(id, stream, code::NOT_STARTED)
            }
            Preamble::Connect { conn, .. } if self.spent.has(&conn) => self.refuse(id, stream, code::CONN_IN_USE),
            Preamble::Connect { conn, .. } if self.by_key.contains_key(&conn) => {
                self.refuse(id, stream, code::CONN_IN_USE);
            }
            Preamble::Connect { conn, flags } => {
                let resumable = self.config.resume && flags & flag::RESUMABLE != 0;
                self.call(now, id, stream, Some((conn, resumable, owner)), (rest, false));
            }
            Preamble::Resume { .. } if wire.left => self.refuse(id, stream, code::PAUSED),
            Preamble::Resume { conn, .. } if self.is_of_another(conn, owner) => {
                self.refuse(id, stream, code::NOT_ENTITLED);
            }
            // It has ended here, and somebody still holds an older request of ours.
            Preamble::Resume { conn, .. } if self.tombs.contains_key(&conn) => {
                self.repeat_tomb(conn);
                self.refuse(id, stream, code::PAUSED);
            }
            Preamble::Resume { .. } => {
                let taken = self.take_leg(now, id, stream, &preamble, rest);
                if let Err(code) = taken {
                    return self.refuse(id, stream, code);
                }
                // It may have begun through a hub of an earlier release, which names nobody.
                if let Some(conn) = self.by_key.get(&preamble.conn()).copied().and_then(|id| self.conn_mut(id)) {
                    conn.partner = conn.partner.or(owner);
                }
            }
        }
    }

    /// Somebody calls.
    fn call(
        &mut self,
        now: Instant,
        id: LinkId,
        stream: StreamId,
        key: Option<(ConnKey, bool, Option<Tag>)>,
        (ahead, ahead_end): (Bytes, bool),
    ) {
        if self.open >= self.config.limits.connections {
            return self.refuse(id, stream, code::CONNECTION_LIMIT);
        }
        let conn = self.add_conn();
        let Some(wire) = self.links.get_mut(&id).and_then(|link| link.wire.as_mut()) else { return };
        wire.streams.insert(stream, conn);
        let (handle, protocol) = (wire.handle, wire.protocol);
        if let Some((key, ..)) = key {
            self.by_key.insert(key, conn);
        }
        if let Some(conn) = self.conn_mut(conn) {
            conn.carrier = Some(Carrier { link: id, handle, stream, protocol });
            conn.key = key.map(|(key, ..)| key);
            conn.partner = key.and_then(|(.., owner)| owner);
            (conn.ahead, conn.ahead_end) = (ahead, ahead_end);
        }
        self.link_event(now, id, session::Event::ConnectionOpened);
        self.conn_event(now, conn, connection::Event::Incoming { protocol });
        if key.is_some_and(|(_, resumable, _)| resumable) {
            self.begin_ledger(now, conn);
        }
    }

    /// Lets the hub open more streams before it runs out of them, whatever they begin with: what waits for its next stream may come back here.
    /// Each costs memory as soon as it is allowed, so not all at once.
    pub(super) fn grant(&mut self, id: LinkId) {
        if self.config.role == Role::Consumer {
            return;
        }
        let most = u32::try_from(self.config.limits.connections).unwrap_or(u32::MAX);
        let paused = self.paused;
        let Some(wire) = self.links.get_mut(&id).and_then(|link| link.wire.as_mut()) else { return };
        let used = (wire.streams.len() + wire.openings.len() + paused) as u64;
        let before = wire.granted;
        while wire.granted < most && used * 4 >= u64::from(wire.granted) * 3 {
            wire.granted = wire.granted.saturating_mul(2).clamp(1, most);
        }
        if wire.granted > before {
            self.quic.set_max_streams(wire.handle, wire.granted);
        }
    }

    /// The hub reads no more of a stream that is no connection yet. What has moved to another provider must not begin here, too.
    pub(super) fn on_opening_stopped(&mut self, id: LinkId, stream: StreamId, code: u64) {
        if code == code::NOT_STARTED {
            self.refuse(id, stream, code);
        }
    }

    /// The preamble has had its time. The windows of a busy session may have held it up: its partner may try again (DAT-5).
    pub(in crate::spn::endpoint) fn expire_preamble(&mut self, id: LinkId, stream: StreamId) {
        let Some(wire) = self.links.get(&id).and_then(|link| link.wire.as_ref()) else { return };
        if wire.openings.contains_key(&stream) {
            self.refuse(id, stream, code::PAUSED);
            self.note_weighed(id);
        }
    }

    fn refuse(&mut self, id: LinkId, stream: StreamId, code: u64) {
        let Some(wire) = self.links.get_mut(&id).and_then(|link| link.wire.as_mut()) else { return };
        wire.openings.remove(&stream);
        self.quic.reset(wire.handle, stream, code);
        self.quic.stop(wire.handle, stream, code);
    }
}
