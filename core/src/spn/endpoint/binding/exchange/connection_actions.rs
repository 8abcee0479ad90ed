//! What a connection's machine asks for: `run_conn` carries out each action. Then what it takes to leave a stream, and to be counted among those that
//! wait for one.

use std::time::Instant;

use super::{Exchange, Parts};
use crate::spn::{
    ConnKey, Protocol,
    endpoint::{
        binding::conn::{conns::Progressed, ledger::Mismatch},
        carrier::Carrier,
        config::{ConnId, Notice},
        context::Context,
        machines::{
            connection::{Action, Event},
            session,
        },
        ports::Due,
    },
    wire::{
        code::StreamCode,
        frame::{Flags, Frame},
        preamble::Preamble,
    },
};

impl Exchange {
    /// Forgets a connection.
    pub(in crate::spn::endpoint) fn remove_conn(&mut self, cx: &mut Context<'_>, id: ConnId) {
        self.parts.detach(cx, id);
        let before = self.parts.conns.waiting();
        let Some(mut conn) = self.parts.conns.remove(id) else { return };
        if let Some(ticket) = conn.take_ticket() {
            self.parts.queue.leave(ticket);
        }
        self.note_waiting(cx, before);
    }

    pub(in crate::spn::endpoint) fn expire_conn(&mut self, cx: &mut Context<'_>, at: Instant, id: ConnId) {
        if self.parts.conns.get_mut(id).is_some_and(|conn| conn.expire(cx.now, at)) {
            self.run_conn(cx, id);
        }
    }

    /// A session has room: the connection goes onto this stream.
    pub(super) fn carry(&mut self, cx: &mut Context<'_>, id: ConnId, carrier: Carrier) {
        let Some(conn) = self.parts.conns.get_mut(id) else { return };
        conn.board(carrier);
        if let Some(ticket) = conn.take_ticket() {
            self.parts.queue.leave(ticket);
        }
        self.conn_event(cx, id, Event::SessionFound { protocol: carrier.protocol });
    }

    /// Does what the connection's machine asks for.
    pub(super) fn run_conn(&mut self, cx: &mut Context<'_>, id: ConnId) {
        while let Some(conn) = self.parts.conns.get_mut(id) {
            let Some(action) = conn.next_action(cx.ports) else { break };
            match action {
                Action::LookUp => {
                    conn.queue(self.parts.queue.join(id));
                    cx.ports.note_room();
                }
                Action::Announce => cx.ports.notify(Notice::Incoming(id)),
                Action::OpenStream => {
                    self.set_waits(cx, id, false);
                    self.begin_stream(cx, id);
                }
                Action::SendHeld => {
                    conn.send_held();
                    conn.flush(cx.ports);
                    self.parts.conns.account(id, cx.ports);
                }
                Action::SendPauseAck => self.parts.send_of(cx, id, |conn| Frame::PauseAck { conn }),
                // While the endpoint ends, it makes sessions also for those that look for their first one.
                Action::ForgetStream => {
                    self.parts.detach(cx, id);
                    let is_ending = cx.phase.is_ending();
                    self.set_waits(cx, id, is_ending);
                }
                Action::LeaveStream => {
                    self.parts.leave(cx, id);
                    self.set_waits(cx, id, true);
                }
                Action::AskResume => self.parts.ask_resume(cx, id),
                Action::SendKept => {
                    conn.send_kept();
                    conn.note_writable(cx.ports);
                    self.set_waits(cx, id, false);
                }
                Action::LeaveAbort { code } => {
                    conn.local.cut();
                    self.parts.leave_abort(cx, id, code);
                }
                Action::FinishStream => {
                    conn.finish();
                    conn.flush(cx.ports);
                }
                Action::ResetStream { code } => {
                    conn.reset(code, cx.ports);
                    self.note_stream_end(cx, id);
                }
                Action::StopStream { code } => {
                    conn.stop(code, cx.ports);
                    self.note_stream_end(cx, id);
                }
                Action::AwaitStreamEnd => {
                    conn.halves.await_end();
                    self.note_stream_end(cx, id);
                }
                Action::SendCloseReq { code } => {
                    conn.local.cut();
                    self.parts.send_of(cx, id, |conn| Frame::CloseReq { conn, code });
                }
                Action::SendCloseAck => self.parts.send_of(cx, id, |conn| Frame::CloseAck { conn }),
                Action::LocalReset { code } => conn.local.reset(code),
                Action::LocalStopped { code } => conn.local.stop(code, cx.ports),
                Action::Disconnected => self.end_conn(cx, id),
            }
        }
    }

    /// A connection waits for a stream, or no more.
    pub(in crate::spn::endpoint) fn set_waits(&mut self, cx: &mut Context<'_>, id: ConnId, waits: bool) {
        let before = self.parts.conns.waiting();
        self.parts.conns.set_waits(id, waits);
        self.note_waiting(cx, before);
    }

    /// There are other connections that wait for a stream than before: sessions are needed for them, or no more.
    fn note_waiting(&mut self, cx: &mut Context<'_>, before: usize) {
        let needed = self.parts.conns.waiting() > 0;
        if (before > 0) != needed {
            self.parts.links.post_all(&session::Event::Needed { needed }, cx.ports);
            self.begin_sessions(cx);
        }
    }

    /// The stream is there: says whose it is.
    fn begin_stream(&mut self, cx: &mut Context<'_>, id: ConnId) {
        let key = cx.setup.conn_key();
        let resume = cx.setup.config().resume;
        let Some(carrier) = self.parts.conns.get(id).and_then(|conn| conn.carrier()) else { return };
        if carrier.protocol == Protocol::Sc02 {
            self.parts.conns.bind(id, key);
            if let Some(conn) = self.parts.conns.get_mut(id) {
                let flags = Flags::RESUMABLE.only_if(resume);
                conn.output.push(Preamble::Connect { conn: key, flags }.to_bytes());
            }
            if resume {
                self.begin_ledger(cx, id);
            }
        }
        let roster = self.parts.links.wire(carrier.link).and_then(|wire| wire.roster());
        if let Some(conn) = self.parts.conns.get_mut(id) {
            conn.claim.begin(roster.map_or(0, |roster| roster.number()));
            conn.handle_event(cx.now, Event::Opened);
            conn.note_writable(cx.ports);
        }
    }

    pub(in crate::spn::endpoint) fn on_reset(&mut self, cx: &mut Context<'_>, id: ConnId, code: StreamCode) {
        if let Some(conn) = self.parts.conns.get_mut(id) {
            conn.halves.end_receiving();
            self.conn_event(cx, id, Event::StreamReset { code });
        }
    }

    /// One half of the stream is gone, or the machine asks for the end of both.
    pub(in crate::spn::endpoint) fn note_stream_end(&mut self, cx: &mut Context<'_>, id: ConnId) {
        if self.parts.conns.get_mut(id).is_some_and(|conn| conn.halves.take_end()) {
            self.conn_event(cx, id, Event::StreamClosed);
        }
    }

    /// The machine is at its end: the host hears of it, and the partner finds what it may need.
    fn end_conn(&mut self, cx: &mut Context<'_>, id: ConnId) {
        let Some(conn) = self.parts.conns.get(id) else { return };
        if !conn.local.is_reset() && conn.machine().is_resumable() {
            self.parts.leave_tombstone(cx, id);
        }
        let Some(conn) = self.parts.conns.get(id) else { return };
        let is_broken = conn.local.is_broken() || conn.machine().abort_code() != StreamCode::OK;
        if let Some(key) = conn.key()
            && !cx.setup.is_consumer()
            && is_broken
            && conn.ledger.is_some()
            && let Some(until) = self.parts.spent.add_broken(cx.now, key)
        {
            cx.ports.remind(until, Due::Spent(key));
        }
        conn.local.end(cx.ports);
        self.remove_conn(cx, id);
    }

    /// The connection can be resumed, if the partner can do it, too.
    pub(in crate::spn::endpoint) fn begin_ledger(&mut self, cx: &mut Context<'_>, id: ConnId) {
        self.parts.conns.begin_ledger(id, &cx.setup.config().limits);
        self.conn_event(cx, id, Event::Resumable);
    }

    /// Takes the partner's report of what it has. Says whether the connection is still there.
    pub(in crate::spn::endpoint) fn acknowledge(
        &mut self,
        cx: &mut Context<'_>,
        id: ConnId,
        received: u64,
        flags: Flags,
    ) -> bool {
        match self.parts.conns.acknowledge(cx.now, id, received, flags, cx.ports) {
            None => return self.parts.conns.get(id).is_some(),
            Some(Err(Mismatch)) => self.conn_event(cx, id, Event::Mismatch),
            Some(Ok(Progressed::Over)) => self.conn_event(cx, id, Event::SentOver),
            Some(Ok(Progressed::On)) => {}
        }
        self.parts.note_delivered(cx, id);
        self.parts.conns.get(id).is_some()
    }

    /// The partner has been heard of: it has the connection.
    pub(in crate::spn::endpoint) fn note_heard(&mut self, cx: &mut Context<'_>, id: ConnId) {
        let Some(conn) = self.parts.conns.get_mut(id) else { return };
        if conn.claim.hear() && conn.held.release() && conn.local.has_written() {
            self.conn_event(cx, id, Event::BytesReleased);
        }
    }
}

impl Parts {
    /// Takes a connection off its stream for good: the next one, if any, carries a new one.
    fn detach(&mut self, cx: &mut Context<'_>, id: ConnId) {
        self.leave(cx, id);
        self.conns.drop_ledger(id, cx.ports);
        if let Some(conn) = self.conns.get_mut(id) {
            conn.set_partner(None);
            conn.claim.forget();
        }
        self.conns.unbind(id);
    }

    /// Takes a connection off its stream. What has come and was not read counts as not come.
    pub(in crate::spn::endpoint) fn leave(&mut self, cx: &mut Context<'_>, id: ConnId) {
        self.note_read(cx, id, false);
        let Some(conn) = self.conns.get_mut(id) else { return };
        if let Some(Carrier { link, handle, .. }) = conn.carrier() {
            let wire = self.links.wire_at(link, handle);
            conn.lose_stream(wire.and_then(|wire| wire.roster()));
        }
        if let Some(carrier) = conn.leave() {
            self.links.release(carrier, cx.ports);
        }
    }

    /// Sends a control frame about a connection on the session that carries it.
    fn send_of(&mut self, cx: &mut Context<'_>, id: ConnId, frame: impl FnOnce(ConnKey) -> Frame) {
        let Some(conn) = self.conns.get(id) else { return };
        if let (Some(carrier), Some(key)) = (conn.carrier(), conn.key()) {
            self.links.send(carrier.link, &frame(key), cx.ports);
        }
    }

    /// The host has read; `left`: not everything.
    pub(in crate::spn::endpoint) fn note_read(&mut self, cx: &mut Context<'_>, id: ConnId, left: bool) {
        let Some(conn) = self.conns.get_mut(id) else { return };
        if left {
            return conn.note_unread(cx.now, cx.ports);
        }
        conn.unread_mut().end();
        if let Some((link, handle)) = conn.unread_mut().unpark()
            && let Some(wire) = self.links.wire_at(link, handle)
        {
            wire.flow_mut().unstall(cx.ports);
        }
    }

    /// The host may have left something unread for long enough.
    pub(in crate::spn::endpoint) fn expire_stall(&mut self, cx: &mut Context<'_>, id: ConnId) {
        let Some(conn) = self.conns.get_mut(id) else { return };
        if let Some(Carrier { link, handle, .. }) = conn.look_at_unread(cx.now, cx.ports)
            && let Some(wire) = self.links.wire_at(link, handle)
        {
            wire.flow_mut().stall(cx.now, cx.ports);
        }
    }

    /// Something may have been delivered of a connection that is to be reset.
    pub(in crate::spn::endpoint) fn note_delivered(&mut self, cx: &mut Context<'_>, id: ConnId) {
        if let Some(code) = self.conns.get(id).and_then(|conn| conn.delivered()) {
            cx.ports.post_conn(id, Event::LocalAbort { code });
        }
    }
}
