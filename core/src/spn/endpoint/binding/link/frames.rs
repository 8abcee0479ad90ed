//! What an endpoint says to its hub on the control stream or, on `sc01`, by control datagrams, and what it hears there.

use std::time::{Duration, Instant};

use bytes::Bytes;

use super::LinkId;
use crate::{
    quic::one_line,
    spn::{
        Protocol, Role,
        endpoint::{
            Endpoint, Work,
            machines::{connection, session::Event},
        },
        wire::{
            code,
            control::{Control, ControlError},
            frame::{Frame, MAX_LIST, SessionAck, SessionOpen, VERSION, flag},
        },
    },
};

impl Endpoint {
    pub(super) fn send_session_open(&mut self, id: LinkId, weight: u16) {
        let live = self.links.values().filter(|link| link.live).filter_map(|link| link.hub);
        let hubs: Vec<_> = live.take(MAX_LIST as usize).collect();
        let Some(wire) = self.links.get_mut(&id).and_then(|link| link.wire.as_mut()) else { return };
        // The first stream that we open is stream 0 (Control stream).
        let Some(stream) = self.quic.open(wire.handle) else {
            return self.violation(id, code::CONTROL_LOST, "the hub allows no control stream".to_owned());
        };
        wire.control = Some(Control::new(&mut self.quic, wire.handle, stream));
        wire.listed.clone_from(&hubs);
        let open = SessionOpen {
            version: VERSION,
            role: self.config.role,
            service: self.config.service.clone(),
            instance: self.instance,
            weight,
            flags: if self.config.resume { flag::RESUMABLE | flag::PARTNERS | flag::SEEKS } else { 0 },
            hubs,
        };
        self.send(id, &Frame::SessionOpen(open));
    }

    /// Queues a control frame.
    pub(in crate::spn::endpoint) fn send(&mut self, id: LinkId, frame: &Frame) {
        if let Some(control) = self.links.get_mut(&id).and_then(|link| link.wire.as_mut()?.control.as_mut()) {
            control.send(frame);
            self.flush = true;
        }
    }

    pub(super) fn send_control_datagram(&mut self, id: LinkId, word: &'static [u8]) {
        if let Some(wire) = self.links.get(&id).and_then(|link| link.wire.as_ref()) {
            self.quic.send_datagram(wire.handle, Bytes::from_static(word));
        }
    }

    pub(super) fn violation(&mut self, id: LinkId, code: u64, reason: String) {
        if let Some(link) = self.links.get_mut(&id) {
            link.reason = reason;
            self.work.push_back(Work::Link(id, Event::Violation { code }));
        }
    }

    /// Sends what control streams have. There are as many as addresses: few.
    pub(in crate::spn::endpoint) fn flush_controls(&mut self, now: Instant) {
        self.send_reports();
        let mut todo = Vec::new();
        for (id, link) in &mut self.links {
            let Some(wire) = &mut link.wire else { continue };
            let Some(control) = &mut wire.control else { continue };
            let flushed = control.flush(&mut self.quic);
            if flushed.is_err() || std::mem::take(&mut wire.control_paused) {
                todo.push((*id, flushed));
            }
        }
        for (id, flushed) in todo {
            match flushed {
                Ok(()) => self.read_control(now, id),
                Err(error) => self.violation(id, code::CONTROL_LOST, error.to_string()),
            }
            self.settle(now);
        }
    }

    /// `sc01` says it by control datagrams; the comparison is exact, and unknown ones are ignored (Legacy protocol, Control datagrams).
    pub(super) fn on_control_datagram(&mut self, id: LinkId, word: &[u8]) {
        let Some(link) = self.links.get_mut(&id) else { return };
        if link.wire.as_ref().is_none_or(|wire| wire.protocol != Protocol::Sc01) {
            return;
        }
        let event = match word {
            b"notify_shutdown" => {
                "the hub is shutting down".clone_into(&mut link.reason);
                Event::SessionShutdown { deadline: Duration::ZERO }
            }
            b"notify_standby" => Event::SessionState { standby: true },
            b"notify_active" => Event::SessionState { standby: false },
            b"notify_provider_stopped" => Event::ProviderStopped,
            _ => return,
        };
        self.work.push_back(Work::Link(id, event));
    }

    /// Reads control frames until there are none, or until the hub leaves our answers unread.
    pub(super) fn read_control(&mut self, now: Instant, id: LinkId) {
        while let Some(wire) = self.links.get_mut(&id).and_then(|link| link.wire.as_mut()) {
            let Some(control) = &mut wire.control else { return };
            if control.backlog() > self.config.limits.control_backlog {
                wire.control_paused = true;
                return;
            }
            match control.next_frame(&mut self.quic) {
                Ok(Some(frame)) => self.on_frame(now, id, frame),
                Ok(None) => return,
                Err(error) => {
                    let code = match error {
                        ControlError::Frame(_) => code::MALFORMED,
                        ControlError::Ended => code::CONTROL_LOST,
                    };
                    self.violation(id, code, error.to_string());
                    return self.settle(now);
                }
            }
            self.settle(now);
        }
    }

    fn on_frame(&mut self, now: Instant, id: LinkId, frame: Frame) {
        let Some(link) = self.links.get_mut(&id) else { return };
        let Some(wire) = &mut link.wire else { return };
        let consumer = self.config.role == Role::Consumer;
        let event = match frame {
            Frame::SessionAck(ack) if ack.state == SessionAck::SPARE && link.machine.is_asking() => {
                return self.on_spare(id, ack.hub_instance);
            }
            Frame::SessionAck(ack) => {
                if link.machine.is_asking() {
                    link.hub = Some(ack.hub_instance);
                }
                wire.session_id = ack.session_id;
                wire.service = ack.service;
                wire.max_connections = ack.max_connections;
                self.work.push_back(Work::Link(id, Event::SessionAck { standby: ack.state != 0 }));
                return self.supersede(id, ack.hub_instance);
            }
            Frame::SessionReject { code, retry_after_ms, text } => {
                link.reason = format!("the hub refused the session with code 0x{code:x} ({})", one_line(&text));
                Event::SessionReject { code, retry_after: Duration::from_millis(retry_after_ms) }
            }
            Frame::SessionClose { code, text } => {
                wire.disowned = code == code::NOT_ENTITLED;
                link.reason = format!("the hub closed the session with code 0x{code:x} ({})", one_line(&text));
                Event::SessionClose { code }
            }
            Frame::SessionShutdown { flags: _, deadline_ms } => {
                "the hub is shutting down".clone_into(&mut link.reason);
                Event::SessionShutdown { deadline: Duration::from_millis(deadline_ms) }
            }
            Frame::SessionState { state } => Event::SessionState { standby: state != 0 },
            Frame::ProviderStopped if consumer => Event::ProviderStopped,
            Frame::SetWeightAck { weight, streams } if !consumer => {
                wire.weighed = Some((weight, streams));
                return self.note_weighed(id);
            }
            Frame::CloseReq { conn, code } if wire.up => {
                if let Some(paused) = self.paused_by_key(conn) {
                    self.conn_event(now, paused, connection::Event::CloseReq { code });
                }
                return match self.conn_by_key(id, conn) {
                    Some(known) => self.conn_event(now, known, connection::Event::CloseReq { code }),
                    None => self.send(id, &Frame::CloseAck { conn }),
                };
            }
            Frame::CloseAck { conn } if wire.up => return self.on_close_ack(now, id, conn),
            Frame::Connected { conn, flags } if wire.up && consumer => return self.on_connected(now, id, conn, flags),
            // Of these nothing follows when this end has not said that it can resume.
            Frame::PauseReq { .. } | Frame::ResumeAck(_) | Frame::DataAck(_) if wire.up && !self.config.resume => {
                return;
            }
            Frame::Partner { conn, partner } if wire.up && consumer => return self.on_partner(id, conn, partner),
            Frame::PauseReq { conn } if wire.up => return self.on_pause_req(now, id, conn),
            Frame::ResumeAck(ack) if wire.up => return self.on_resume_ack(now, id, ack),
            Frame::DataAck(entries) if wire.up => return self.on_data_ack(now, entries),
            Frame::Providers { number, flags, instances, retiring } if wire.up && consumer => {
                return self.on_providers(id, number, flags, instances, retiring);
            }
            Frame::Absent { conn, instance } if wire.up && consumer => return self.on_absent(conn, instance),
            Frame::Seek { conn, .. } if wire.up && !consumer => return self.on_seek(now, id, conn),
            // In the wrong direction, or before SESSION_ACK.
            Frame::SessionOpen(_)
            | Frame::SessionOpenVersion { .. }
            | Frame::SessionOpenRole { .. }
            | Frame::CloseReq { .. }
            | Frame::CloseAck { .. }
            | Frame::PauseReq { .. }
            | Frame::PauseAck { .. }
            | Frame::ResumeReq(_)
            | Frame::ResumeReqWith { .. }
            | Frame::ResumeAck(_)
            | Frame::DataAck(_)
            | Frame::Connected { .. }
            | Frame::Partner { .. }
            | Frame::SetWeight { .. }
            | Frame::SetWeightAck { .. }
            | Frame::Drained
            | Frame::ProviderStart
            | Frame::Providers { .. }
            | Frame::ProvidersAck { .. }
            | Frame::Seek { .. }
            | Frame::Absent { .. }
            | Frame::ProviderStopped => {
                "the hub sent a control frame that it must not send now".clone_into(&mut link.reason);
                Event::Violation { code: code::MALFORMED }
            }
        };
        self.work.push_back(Work::Link(id, event));
    }

    /// SET_WEIGHT_ACK overtakes streams that the hub has opened before it: the session has not heard of its weight before they are known, or it
    /// would end under them.
    pub(in crate::spn::endpoint::binding) fn note_weighed(&mut self, id: LinkId) {
        let Some(wire) = self.links.get_mut(&id).and_then(|link| link.wire.as_mut()) else { return };
        let Some((weight, streams)) = wire.weighed else { return };
        // The session hears of a connection before its opening is forgotten.
        let is_known = wire.opened >= streams && wire.openings.keys().all(|stream| stream.index() >= streams);
        if is_known {
            wire.weighed = None;
            self.work.push_back(Work::Link(id, Event::SetWeightAck { weight }));
        }
    }
}
