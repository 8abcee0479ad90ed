//! What the hub says on the control stream, and to which connections it goes.

use super::Intake;
use crate::spn::{
    endpoint::{binding::link::links::Request, carrier::LinkId, context::Context, machines::connection::Event},
    wire::{
        code::SessionCode,
        frame::{Frame, MAX_LIST},
    },
};

impl Intake {
    /// Sends what control streams have, with the reports that are due; those of a session share frames.
    pub(super) fn flush_controls(&mut self, cx: &mut Context<'_>) {
        for (link, entries) in self.parts().conns.take_reports() {
            for entries in entries.chunks(MAX_LIST as usize) {
                self.parts().links.send(link, &Frame::DataAck(entries.to_vec()), cx.ports);
            }
        }
        for (id, flushed) in self.parts().links.flush(cx.ports) {
            match flushed {
                Ok(()) => self.read_control(cx, id),
                Err(error) => self.parts().links.violation(id, SessionCode::CONTROL_LOST, error.to_string(), cx.ports),
            }
            self.settle(cx);
        }
    }

    /// Reads control frames until there are none, or until the hub leaves our answers unread.
    pub(super) fn read_control(&mut self, cx: &mut Context<'_>, id: LinkId) {
        while let Some(wire) = self.parts().links.wire_mut(id) {
            match wire.next_frame(cx.setup.config().limits.control_backlog, cx.ports) {
                Ok(Some(frame)) => {
                    if let Some(request) = self.parts().links.take_frame(id, frame, cx.setup, cx.ports) {
                        self.on_request(cx, id, request);
                    }
                }
                Ok(None) => return,
                Err(error) => {
                    self.parts().links.lose_control(id, &error, cx.ports);
                    return self.settle(cx);
                }
            }
            self.settle(cx);
        }
    }

    /// The hub says something of connections.
    fn on_request(&mut self, cx: &mut Context<'_>, id: LinkId, request: Request) {
        match request {
            Request::CloseReq { conn, code } => {
                if let Some(paused) = self.parts().conns.paused(&conn) {
                    self.exchange.conn_event(cx, paused, Event::CloseReq { code });
                }
                match self.parts().conns.on_link(id, &conn) {
                    Some(known) => self.exchange.conn_event(cx, known, Event::CloseReq { code }),
                    None => self.parts().links.send(id, &Frame::CloseAck { conn }, cx.ports),
                }
            }
            Request::CloseAck(conn) => self.on_close_ack(cx, id, conn),
            Request::Connected { conn, flags } => self.on_connected(cx, id, conn, flags),
            Request::Partner { conn, partner } => {
                if let Some(conn) =
                    self.parts().conns.on_link(id, &conn).and_then(|conn| self.parts().conns.get_mut(conn))
                {
                    conn.set_partner(Some(partner));
                }
            }
            Request::PauseReq(conn) => self.on_pause_req(cx, id, conn),
            Request::ResumeAck(ack) => self.on_resume_ack(cx, id, ack),
            Request::DataAck(entries) => self.on_data_ack(cx, entries),
            Request::Listed => self.parts().on_listed(cx, id),
            Request::Seek(conn) => self.on_seek(cx, id, conn),
            Request::Absent { conn, instance } => self.parts().on_absent(cx, conn, instance),
        }
    }
}
