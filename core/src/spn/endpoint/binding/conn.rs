//! A connection: what its machine asks for, and the stream that carries it.
//!
//! `Endpoint::run_conn` carries out each [`Action`] of the machine.

use std::time::Instant;

use crate::spn::{
    ConnKey, Protocol,
    endpoint::{
        ConnId, Endpoint, Notice,
        carrier::Carrier,
        machines::{
            connection::{Action, Event},
            session,
        },
    },
    wire::{
        frame::{Frame, flag},
        preamble::Preamble,
    },
};

impl Endpoint {
    /// Forgets a connection.
    pub(in crate::spn::endpoint) fn remove_conn(&mut self, now: Instant, id: ConnId) {
        self.detach(now, id);
        let before = self.conns.waiting();
        let Some(mut conn) = self.conns.remove(id) else { return };
        if let Some(ticket) = conn.take_ticket() {
            self.queue.leave(ticket);
        }
        self.note_waiting(now, before);
    }

    /// Takes a connection off its stream for good: the next one, if any, carries a new one.
    fn detach(&mut self, now: Instant, id: ConnId) {
        self.leave(now, id);
        self.conns.drop_ledger(id, &mut self.ports);
        if let Some(conn) = self.conns.get_mut(id) {
            conn.set_partner(None);
            conn.claim.forget();
        }
        self.conns.unbind(id);
    }

    /// Takes a connection off its stream. What has come and was not read counts as not come.
    pub(super) fn leave(&mut self, now: Instant, id: ConnId) {
        self.note_read(now, id, false);
        let Some(conn) = self.conns.get_mut(id) else { return };
        if let Some(Carrier { link, handle, .. }) = conn.carrier() {
            let wire = self.links.wire_at(link, handle);
            conn.lose_stream(wire.and_then(|wire| wire.roster()));
        }
        if let Some(carrier) = conn.leave() {
            self.links.release(carrier, &mut self.ports);
        }
    }

    pub(in crate::spn::endpoint) fn expire_conn(&mut self, now: Instant, at: Instant, id: ConnId) {
        if self.conns.get_mut(id).is_some_and(|conn| conn.expire(now, at)) {
            self.run_conn(now, id);
        }
    }

    /// A session has room: the connection goes onto this stream.
    pub(super) fn carry(&mut self, now: Instant, id: ConnId, carrier: Carrier) {
        let Some(conn) = self.conns.get_mut(id) else { return };
        conn.board(carrier);
        if let Some(ticket) = conn.take_ticket() {
            self.queue.leave(ticket);
        }
        self.conn_event(now, id, Event::SessionFound { protocol: carrier.protocol });
    }

    pub(in crate::spn::endpoint) fn conn_event(&mut self, now: Instant, id: ConnId, event: Event) {
        if let Some(conn) = self.conns.get_mut(id) {
            conn.handle_event(now, event);
            self.run_conn(now, id);
        }
    }

    /// Does what the connection's machine asks for.
    fn run_conn(&mut self, now: Instant, id: ConnId) {
        while let Some(conn) = self.conns.get_mut(id) {
            let Some(action) = conn.next_action(&mut self.ports) else { break };
            match action {
                Action::LookUp => {
                    conn.queue(self.queue.join(id));
                    self.ports.note_room();
                }
                Action::Announce => self.ports.notify(Notice::Incoming(id)),
                Action::OpenStream => {
                    self.set_waits(now, id, false);
                    self.begin_stream(now, id);
                }
                Action::SendHeld => {
                    conn.send_held();
                    conn.flush(&mut self.ports);
                    self.conns.account(id, &mut self.ports);
                }
                Action::SendPauseAck => self.send_of(id, |conn| Frame::PauseAck { conn }),
                // While the endpoint ends, it makes sessions also for those that look for their first one.
                Action::ForgetStream => {
                    self.detach(now, id);
                    self.set_waits(now, id, self.phase.is_ending());
                }
                Action::LeaveStream => {
                    self.leave(now, id);
                    self.set_waits(now, id, true);
                }
                Action::AskResume => self.ask_resume(id),
                Action::SendKept => {
                    conn.send_kept();
                    conn.note_writable(&mut self.ports);
                    self.set_waits(now, id, false);
                }
                Action::LeaveAbort { code } => {
                    conn.local.cut();
                    self.leave_abort(now, id, code);
                }
                Action::FinishStream => {
                    conn.finish();
                    conn.flush(&mut self.ports);
                }
                Action::ResetStream { code } => {
                    conn.reset(code, &mut self.ports);
                    self.note_stream_end(now, id);
                }
                Action::StopStream { code } => {
                    conn.stop(code, &mut self.ports);
                    self.note_stream_end(now, id);
                }
                Action::AwaitStreamEnd => {
                    conn.halves.await_end();
                    self.note_stream_end(now, id);
                }
                Action::SendCloseReq { code } => {
                    conn.local.cut();
                    self.send_of(id, |conn| Frame::CloseReq { conn, code });
                }
                Action::SendCloseAck => self.send_of(id, |conn| Frame::CloseAck { conn }),
                Action::LocalReset { code } => conn.local.reset(code),
                Action::LocalStopped { code } => conn.local.stop(code, &mut self.ports),
                Action::Disconnected => self.end_conn(now, id),
            }
        }
    }

    /// Sends a control frame about a connection on the session that carries it.
    fn send_of(&mut self, id: ConnId, frame: impl FnOnce(ConnKey) -> Frame) {
        let Some(conn) = self.conns.get(id) else { return };
        if let (Some(carrier), Some(key)) = (conn.carrier(), conn.key()) {
            self.links.send(carrier.link, &frame(key), &mut self.ports);
        }
    }

    /// A connection waits for a stream, or no more.
    pub(in crate::spn::endpoint) fn set_waits(&mut self, now: Instant, id: ConnId, waits: bool) {
        let before = self.conns.waiting();
        self.conns.set_waits(id, waits);
        self.note_waiting(now, before);
    }

    /// There are other connections that wait for a stream than before: sessions are needed for them, or no more.
    fn note_waiting(&mut self, now: Instant, before: usize) {
        let needed = self.conns.waiting() > 0;
        if (before > 0) != needed {
            self.links.post_all(&session::Event::Needed { needed }, &mut self.ports);
            self.begin_sessions(now);
        }
    }

    /// The stream is there: says whose it is.
    fn begin_stream(&mut self, now: Instant, id: ConnId) {
        let key = self.setup.conn_key();
        let resume = self.setup.config().resume;
        let Some(carrier) = self.conns.get(id).and_then(|conn| conn.carrier()) else { return };
        if carrier.protocol == Protocol::Sc02 {
            self.conns.bind(id, key);
            if let Some(conn) = self.conns.get_mut(id) {
                let flags = if resume { flag::RESUMABLE } else { 0 };
                conn.output.push(Preamble::Connect { conn: key, flags }.to_bytes());
            }
            if resume {
                self.begin_ledger(now, id);
            }
        }
        let roster = self.links.wire(carrier.link).and_then(|wire| wire.roster());
        if let Some(conn) = self.conns.get_mut(id) {
            conn.claim.begin(roster.map_or(0, |roster| roster.number()));
            conn.handle_event(now, Event::Opened);
            conn.note_writable(&mut self.ports);
        }
    }

    pub(super) fn on_readable(&mut self, now: Instant, id: ConnId) {
        let Some(conn) = self.conns.get_mut(id) else { return };
        // A reset must be heard of even when the host does not read.
        if let Some(code) = conn.received_reset(&mut self.ports) {
            return self.on_reset(now, id, code);
        }
        if !self.read_answer(now, id) {
            return;
        }
        if let Some(conn) = self.conns.get_mut(id) {
            conn.note_unread(now, &mut self.ports);
            conn.local.note_readable(&mut self.ports);
        }
    }

    pub(super) fn on_acked(&mut self, now: Instant, id: ConnId) {
        if let Some(conn) = self.conns.get_mut(id) {
            conn.halves.end_sending();
            self.conn_event(now, id, Event::StreamAcked);
            self.note_stream_end(now, id);
            self.note_delivered(id);
        }
    }

    pub(super) fn on_reset(&mut self, now: Instant, id: ConnId, code: u64) {
        if let Some(conn) = self.conns.get_mut(id) {
            conn.halves.end_receiving();
            self.conn_event(now, id, Event::StreamReset { code });
        }
    }

    /// One half of the stream is gone, or the machine asks for the end of both.
    pub(super) fn note_stream_end(&mut self, now: Instant, id: ConnId) {
        if self.conns.get_mut(id).is_some_and(|conn| conn.halves.take_end()) {
            self.conn_event(now, id, Event::StreamClosed);
        }
    }
}
