//! What outlives a session: reports, and requests to resume (docs/protocols/spn.md, Pause and resume, RES-25 to RES-36).

use std::time::Duration;

use super::{Intake, Parts};
use crate::spn::{
    ConnKey,
    endpoint::{
        binding::link::streams::StrayPause, carrier::LinkId, context::Context, machines::connection::Event, ports::Due,
    },
    wire::{
        code::StreamCode,
        frame::{AckEntry, Flags, Frame, ResumeAck},
    },
};

/// PAUSE_REQ may overtake the stream that it speaks of (RES-14).
const STRAY_PAUSE: Duration = Duration::from_secs(1);

impl Intake {
    /// DATA_ACK: what the partner has taken.
    pub(super) fn on_data_ack(&mut self, cx: &mut Context<'_>, entries: Vec<AckEntry>) {
        for AckEntry { conn, received, flags } in entries {
            if let Some(id) = self.parts().conns.by_key(&conn) {
                self.exchange.conn_event(cx, id, Event::Confirmed { resumable: true });
                self.exchange.note_heard(cx, id);
                self.exchange.acknowledge(cx, id, received, flags);
            }
        }
    }

    /// CONNECTED.
    pub(super) fn on_connected(&mut self, cx: &mut Context<'_>, link: LinkId, key: ConnKey, flags: Flags) {
        if let Some(id) = self.parts().conns.on_link(link, &key) {
            let resumable = flags.contains(Flags::RESUMABLE);
            self.exchange.conn_event(cx, id, Event::Confirmed { resumable });
            if resumable {
                self.parts().conns.note_progress(cx.now, id, cx.ports);
            } else {
                self.parts().conns.drop_ledger(id, cx.ports);
            }
        }
    }

    /// PAUSE_REQ. What is not known is answered when its stream has had time to come.
    pub(super) fn on_pause_req(&mut self, cx: &mut Context<'_>, link: LinkId, conn: ConnKey) {
        if let Some(id) = self.parts().conns.on_link(link, &conn) {
            return self.exchange.conn_event(cx, id, Event::PauseReq);
        }
        if self.parts().tombstones.has(&conn) {
            self.parts().links.send(link, &Frame::PauseAck { conn }, cx.ports);
            return self.parts().repeat_tombstone(cx, conn);
        }
        let Parts { links, conns, .. } = self.parts();
        if conns.paused(&conn).is_some() {
            return links.send(link, &Frame::PauseAck { conn }, cx.ports);
        }
        let Some(wire) = links.wire_mut(link) else { return };
        match wire.streams_mut().note_stray_pause(conn, cx.setup.config().limits.connections) {
            StrayPause::Wait => cx.ports.remind(cx.now + STRAY_PAUSE, Due::StrayPause(link, conn)),
            StrayPause::Waits => {}
            StrayPause::Full => links.send(link, &Frame::PauseAck { conn }, cx.ports),
        }
    }

    pub(super) fn expire_stray_pause(&mut self, cx: &mut Context<'_>, link: LinkId, conn: ConnKey) {
        if self.parts().links.wire_mut(link).is_some_and(|wire| wire.streams_mut().take_stray_pause(&conn)) {
            match self.parts().conns.on_link(link, &conn) {
                Some(id) => self.exchange.conn_event(cx, id, Event::PauseReq),
                None => self.parts().links.send(link, &Frame::PauseAck { conn }, cx.ports),
            }
        }
    }

    /// CLOSE_ACK: the hub has no partner that it could inform.
    pub(super) fn on_close_ack(&mut self, cx: &mut Context<'_>, link: LinkId, key: ConnKey) {
        if let Some(id) = self.parts().conns.on_link(link, &key) {
            self.exchange.conn_event(cx, id, Event::CloseAck);
        } else if self.parts().tombstones.is_undelivered(&key, link) {
            self.parts().repeat_tombstone(cx, key);
        }
    }

    /// RESUME_ACK.
    pub(super) fn on_resume_ack(&mut self, cx: &mut Context<'_>, link: LinkId, ack: ResumeAck) {
        let ResumeAck { conn: key, status, generation, received, flags } = ack;
        let Some(id) = self.parts().conns.by_key(&key) else {
            // The partner has the values of its tombstone now.
            if !self.parts().tombstones.acknowledge(&key) && status == StreamCode::OK {
                let unknown = Frame::CloseReq { conn: key, code: StreamCode::RESUME_PARTNER_MISSING };
                self.parts().links.send(link, &unknown, cx.ports);
            }
            return;
        };
        let consumer = cx.setup.is_consumer();
        let Some(conn) = self.parts().conns.get(id) else { return };
        let Some(ledger) = &conn.ledger else { return };
        let is_paused = conn.machine().is_paused();
        match status {
            // The partner has lost the stream on which this end still is.
            StreamCode::OK if consumer && !is_paused => {
                if generation >= u64::from(ledger.generation()) {
                    self.exchange.conn_event(cx, id, Event::StreamReset { code: StreamCode::PAUSED });
                }
            }
            StreamCode::OK => {
                self.exchange.note_heard(cx, id);
                if self.exchange.acknowledge(cx, id, received, flags) && consumer && is_paused {
                    self.open_leg(cx, link, id);
                }
            }
            code if flags.contains(Flags::ABORTED) => self.exchange.conn_event(cx, id, Event::ResumeAborted { code }),
            StreamCode::RESUME_PARTNER_MISSING | StreamCode::TOO_MANY_SESSIONS => {
                self.exchange.conn_event(cx, id, Event::ResumeRefused)
            }
            StreamCode::NOT_ENTITLED | StreamCode::PAUSED => self.parts().unask(cx, id, link),
            code => self.exchange.conn_event(cx, id, Event::ResumeAborted { code }),
        }
    }

    /// SEEK: a consumer has lost its stream, and has heard nothing of this provider.
    pub(super) fn on_seek(&mut self, cx: &mut Context<'_>, link: LinkId, key: ConnKey) {
        if self.parts().tombstones.has(&key) {
            return self.parts().repeat_tombstone(cx, key);
        }
        if let Some(id) = self.parts().conns.by_key(&key) {
            // Its stream is no good any more; without one, it has asked for the next everywhere.
            if self.parts().conns.get(id).is_some_and(|conn| conn.ledger.is_some() && !conn.machine().is_paused()) {
                self.exchange.conn_event(cx, id, Event::StreamReset { code: StreamCode::PAUSED });
            }
            return;
        }
        if let Some(until) = self.parts().spent.refuse(cx.now, key) {
            cx.ports.remind(until, Due::Spent(key));
            let instance = cx.setup.instance();
            self.parts().links.send(link, &Frame::Absent { conn: key, instance }, cx.ports);
        }
    }
}
