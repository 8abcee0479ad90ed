//! A provider's new streams: from the hub's opening to the call.

use bytes::Bytes;

use super::Intake;
use crate::{
    quic::{ReadOutcome, StreamId},
    spn::{
        ConnKey, Protocol, Tag,
        endpoint::{
            carrier::LinkId,
            context::Context,
            machines::{connection, session},
            policy::spent::Reason,
            ports::Due,
        },
        wire::{code::StreamCode, frame::Flags, preamble::Preamble},
    },
};

/// What a preamble says of a new connection.
struct Call {
    key: ConnKey,
    is_resumable: bool,
    owner: Option<Tag>,
}

impl Intake {
    /// The hub opened a stream.
    pub(super) fn on_stream_opened(&mut self, cx: &mut Context<'_>, id: LinkId, stream: StreamId) {
        if cx.setup.is_consumer() {
            return self.refuse(cx, id, stream, StreamCode::MALFORMED);
        }
        let Some(wire) = self.parts().links.wire_mut(id) else { return };
        // Before SESSION_ACK it has overtaken it: streams do not keep order among each other. QUIC's credit bounds how many.
        wire.streams_mut().open(stream);
        self.read_preamble(cx, id, stream);
        self.parts().links.note_weight(id, cx.ports);
        if let Some(wire) = self.parts().links.wire_mut(id) {
            wire.listen(cx.now, cx.ports);
        }
        self.parts().grant(cx, id);
    }

    /// SESSION_ACK is in, or a hold is over: looks at the streams that came before it.
    pub(in crate::spn::endpoint) fn serve_early_streams(&mut self, cx: &mut Context<'_>, id: LinkId) {
        let early: Vec<_> =
            self.parts().links.wire(id).into_iter().flat_map(|wire| wire.streams().openings()).collect();
        for stream in early {
            self.read_preamble(cx, id, stream);
        }
    }

    /// Reads on at a preamble that is not complete.
    pub(super) fn read_preamble(&mut self, cx: &mut Context<'_>, id: LinkId, stream: StreamId) {
        let mut chunks = Vec::new();
        loop {
            let Some(wire) = self.parts().links.wire_mut(id).filter(|wire| wire.serves_streams()) else { return };
            let (handle, protocol) = (wire.handle(), wire.protocol());
            let Some(preamble) = wire.streams_mut().opening(stream) else { return };
            // One chunk at a time, so that the end of the stream is left for the connection to find.
            let outcome = cx.ports.quic.read(handle, stream, &mut chunks, 1);
            if protocol == Protocol::Sc01 {
                return self.take_first(cx, id, stream, chunks.pop(), outcome);
            }
            let Some(mut chunk) = chunks.pop() else {
                return match outcome {
                    ReadOutcome::More | ReadOutcome::Blocked => {}
                    ReadOutcome::Finished | ReadOutcome::Reset(_) | ReadOutcome::Gone => {
                        self.refuse(cx, id, stream, StreamCode::MALFORMED);
                    }
                };
            };
            let is_first = preamble.is_empty();
            match preamble.take(&mut chunk) {
                // Before its first byte a stream may be open because a later one is.
                Ok(None) if is_first => {
                    let at = cx.now + cx.setup.config().limits.preamble;
                    cx.ports.remind(at, Due::Preamble(id, stream));
                }
                Ok(None) => {}
                Ok(Some(complete)) => {
                    let owner = preamble.owner();
                    return self.on_preamble(cx, id, stream, &complete, owner, chunk);
                }
                Err(error) => {
                    tracing::debug!(%error, "stream refused");
                    return self.refuse(cx, id, stream, StreamCode::MALFORMED);
                }
            }
        }
    }

    /// `sc01`: there is no preamble, the stream is the connection, and a server that speaks first is dialled at once. But a stream is open as soon
    /// as a later one is (RFC 9000 §2.1); it is a connection from its first own byte, or its end.
    fn take_first(
        &mut self,
        cx: &mut Context<'_>,
        id: LinkId,
        stream: StreamId,
        first: Option<Bytes>,
        outcome: ReadOutcome,
    ) {
        let ends = match (&first, outcome) {
            (Some(_), _) => false,
            (None, ReadOutcome::Finished) => true,
            (None, ReadOutcome::More | ReadOutcome::Blocked) => return,
            (None, ReadOutcome::Reset(code)) => return self.refuse(cx, id, stream, StreamCode(code)),
            (None, ReadOutcome::Gone) => return self.refuse(cx, id, stream, StreamCode::PEER_ABORTED),
        };
        self.call(cx, id, stream, None, first.unwrap_or_default(), ends);
    }

    fn on_preamble(
        &mut self,
        cx: &mut Context<'_>,
        id: LinkId,
        stream: StreamId,
        preamble: &Preamble,
        owner: Option<Tag>,
        rest: Bytes,
    ) {
        let Some(wire) = self.parts().links.wire_mut(id) else { return };
        wire.streams_mut().close_opening(stream);
        let has_left = wire.has_left();
        match *preamble {
            Preamble::Connect { .. } if has_left => self.refuse(cx, id, stream, StreamCode::NOT_STARTED),
            Preamble::Connect { conn: key, flags } => match self.parts().spent.reason(&key) {
                Some(Reason::Refused) => self.refuse(cx, id, stream, StreamCode::NOT_STARTED),
                Some(Reason::Broken) => self.refuse(cx, id, stream, StreamCode::CONN_IN_USE),
                None if self.parts().conns.by_key(&key).is_some() => {
                    self.refuse(cx, id, stream, StreamCode::CONN_IN_USE)
                }
                None => {
                    let is_resumable = cx.setup.config().resume && flags.contains(Flags::RESUMABLE);
                    self.call(cx, id, stream, Some(Call { key, is_resumable, owner }), rest, false);
                }
            },
            Preamble::Resume { .. } if has_left => self.refuse(cx, id, stream, StreamCode::PAUSED),
            Preamble::Resume { conn, .. } if self.parts().is_of_another(conn, owner) => {
                self.refuse(cx, id, stream, StreamCode::NOT_ENTITLED);
            }
            // The connection has ended here, and a hub still holds an older request of this end.
            Preamble::Resume { conn, .. } if self.parts().tombstones.has(&conn) => {
                self.parts().repeat_tombstone(cx, conn);
                self.refuse(cx, id, stream, StreamCode::PAUSED);
            }
            Preamble::Resume { .. } => {
                if let Err(code) = self.take_leg(cx, id, stream, preamble, rest) {
                    return self.refuse(cx, id, stream, code);
                }
                // The connection may have begun through a hub of an earlier release, which names no owner.
                let conn =
                    self.parts().conns.by_key(&preamble.conn()).and_then(|conn| self.parts().conns.get_mut(conn));
                if let Some(conn) = conn {
                    conn.set_partner(conn.partner().or(owner));
                }
            }
        }
    }

    /// Somebody calls: `ahead` came together with the preamble, and `ends` says whether the stream's end did.
    fn call(
        &mut self,
        cx: &mut Context<'_>,
        id: LinkId,
        stream: StreamId,
        call: Option<Call>,
        ahead: Bytes,
        ends: bool,
    ) {
        if self.parts().conns.len() >= cx.setup.config().limits.connections {
            return self.refuse(cx, id, stream, StreamCode::CONNECTION_LIMIT);
        }
        let conn = self.parts().conns.add(cx.setup.connection(), false);
        let Some(wire) = self.parts().links.wire_mut(id) else { return };
        let carrier = wire.carrier(stream);
        wire.streams_mut().close_opening(stream);
        wire.streams_mut().add(stream, conn);
        if let Some(it) = self.parts().conns.get_mut(conn) {
            it.board(carrier);
            it.set_partner(call.as_ref().and_then(|call| call.owner));
            it.input.begin(ahead, ends);
        }
        if let Some(call) = &call {
            self.parts().conns.bind(conn, call.key);
        }
        self.exchange.link_event(cx, id, session::Event::ConnectionOpened);
        self.exchange.conn_event(cx, conn, connection::Event::Incoming { protocol: carrier.protocol });
        if call.is_some_and(|call| call.is_resumable) {
            self.exchange.begin_ledger(cx, conn);
        }
    }

    /// The preamble has had its time. The windows of a busy session may have held it up: its partner may try again (DAT-5).
    pub(in crate::spn::endpoint) fn expire_preamble(&mut self, cx: &mut Context<'_>, id: LinkId, stream: StreamId) {
        if self.parts().links.wire_mut(id).is_some_and(|wire| wire.streams_mut().opening(stream).is_some()) {
            self.refuse(cx, id, stream, StreamCode::PAUSED);
            self.parts().links.note_weight(id, cx.ports);
        }
    }

    fn refuse(&mut self, cx: &mut Context<'_>, id: LinkId, stream: StreamId, code: StreamCode) {
        if let Some(wire) = self.parts().links.wire_mut(id) {
            wire.refuse(stream, code, cx.ports);
        }
    }
}
