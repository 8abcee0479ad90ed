//! What the hub says on the control stream, and to which connections it goes.

use std::time::Instant;

use crate::spn::{
    endpoint::{Endpoint, carrier::LinkId, machines::connection::Event, parts::link::Request},
    wire::{
        code,
        frame::{Frame, MAX_LIST},
    },
};

impl Endpoint {
    /// Sends what control streams have, with the reports that are due; those of a session share frames.
    pub(in crate::spn::endpoint) fn flush_controls(&mut self, now: Instant) {
        for (link, entries) in self.conns.take_reports() {
            for entries in entries.chunks(MAX_LIST as usize) {
                self.links.send(link, &Frame::DataAck(entries.to_vec()), &mut self.ports);
            }
        }
        for (id, flushed) in self.links.flush(&mut self.ports) {
            match flushed {
                Ok(()) => self.read_control(now, id),
                Err(error) => self.links.violation(id, code::CONTROL_LOST, error.to_string(), &mut self.ports),
            }
            self.settle(now);
        }
    }

    /// Reads control frames until there are none, or until the hub leaves our answers unread.
    pub(super) fn read_control(&mut self, now: Instant, id: LinkId) {
        while let Some(wire) = self.links.wire_mut(id) {
            match wire.next_frame(self.setup.config().limits.control_backlog, &mut self.ports) {
                Ok(Some(frame)) => {
                    if let Some(request) = self.links.take_frame(id, frame, &self.setup, &mut self.ports) {
                        self.on_request(now, id, request);
                    }
                }
                Ok(None) => return,
                Err(error) => {
                    self.links.lose_control(id, &error, &mut self.ports);
                    return self.settle(now);
                }
            }
            self.settle(now);
        }
    }

    /// The hub says something of connections.
    fn on_request(&mut self, now: Instant, id: LinkId, request: Request) {
        match request {
            Request::CloseReq { conn, code } => {
                if let Some(paused) = self.conns.paused(&conn) {
                    self.conn_event(now, paused, Event::CloseReq { code });
                }
                match self.conns.on_link(id, &conn) {
                    Some(known) => self.conn_event(now, known, Event::CloseReq { code }),
                    None => self.links.send(id, &Frame::CloseAck { conn }, &mut self.ports),
                }
            }
            Request::CloseAck(conn) => self.on_close_ack(now, id, conn),
            Request::Connected { conn, flags } => self.on_connected(now, id, conn, flags),
            Request::Partner { conn, partner } => {
                if let Some(conn) = self.conns.on_link(id, &conn).and_then(|conn| self.conns.get_mut(conn)) {
                    conn.set_partner(Some(partner));
                }
            }
            Request::PauseReq(conn) => self.on_pause_req(now, id, conn),
            Request::ResumeAck(ack) => self.on_resume_ack(now, id, ack),
            Request::DataAck(entries) => self.on_data_ack(now, entries),
            Request::Listed => self.on_listed(id),
            Request::Seek(conn) => self.on_seek(now, id, conn),
            Request::Absent { conn, instance } => self.on_absent(conn, instance),
        }
    }
}
