//! Control frames that come to the hub.

use std::time::{Duration, Instant};

use crate::{
    quic::Handle,
    spn::{
        ConnKey, Protocol, Role,
        hub::{
            Due, Hub,
            machines::{connection, session},
        },
        wire::{code, control::ControlError, frame::Frame},
    },
};

impl Hub {
    /// Reads the control stream until it is empty, its rate is used up, or its peer does not read our answers.
    pub(super) fn read_control(&mut self, now: Instant, handle: Handle) {
        let limits = (self.config.limits.control_rate, self.config.limits.control_backlog);
        let (rate, backlog) = limits;
        while let Some(session) = self.sessions.get_mut(&handle).filter(|session| !session.machine.is_over()) {
            let Some(control) = &mut session.control else { return };
            if control.backlog() > backlog {
                session.control_paused = true;
                return;
            }
            let gauge = &mut session.control_gauge;
            let second = *gauge.second.get_or_insert(now);
            if now >= second + Duration::from_secs(1) {
                (gauge.second, gauge.count) = (Some(now), 0);
            } else if gauge.count >= rate {
                if !std::mem::replace(&mut gauge.is_reminded, true) {
                    self.remind(second + Duration::from_secs(1), Due::Control(handle));
                }
                return;
            }
            match control.next_frame(&mut self.quic) {
                Ok(Some(frame)) => {
                    gauge.count += 1;
                    self.frame(now, handle, frame);
                }
                Ok(None) => return,
                Err(error @ ControlError::Frame(_)) => {
                    return self.violation(now, handle, code::MALFORMED, error.to_string());
                }
                Err(error @ ControlError::Ended) => {
                    return self.violation(now, handle, code::CONTROL_LOST, error.to_string());
                }
            }
        }
    }

    pub(in crate::spn::hub) fn control_timeout(&mut self, now: Instant, handle: Handle) {
        if let Some(session) = self.sessions.get_mut(&handle) {
            session.control_gauge.is_reminded = false;
            self.read_control(now, handle);
        }
    }

    fn frame(&mut self, now: Instant, handle: Handle, frame: Frame) {
        let Some(session) = self.sessions.get(&handle) else { return };
        let (is_open, role) = (session.machine.is_established(), session.role);
        match frame {
            Frame::SessionOpen(open) => self.session_open(now, handle, &open),
            Frame::SessionOpenVersion { version } => {
                if let Some(session) = self.sessions.get_mut(&handle) {
                    session.detail = format!("SESSION_OPEN of version {version}, expected 1");
                }
                self.session_event(now, handle, session::Event::OpenRefused { code: code::MALFORMED });
            }
            Frame::SessionOpenRole { role } => {
                let detail = format!("SESSION_OPEN with role {role}, expected 1 (provider) or 2 (consumer)");
                self.violation(now, handle, code::MALFORMED, detail);
            }
            Frame::SessionClose { code, .. } => self.session_close(now, handle, code),
            Frame::CloseReq { conn, code } if is_open => self.close_req(now, handle, conn, code),
            Frame::CloseAck { conn } if is_open => self.close_ack(now, handle, conn),
            Frame::SetWeight { weight } if is_open && role == Role::Provider => {
                self.session_event(now, handle, session::Event::SetWeight { weight });
            }
            Frame::ResumeReq(values) if is_open => self.resume_req(now, handle, values, None),
            Frame::ResumeReqWith { values, partner } if is_open => {
                self.resume_req(now, handle, values, Some(partner));
            }
            Frame::PauseAck { conn } if is_open => self.pause_ack(now, handle, conn),
            Frame::DataAck(entries) if is_open => self.data_ack(now, handle, entries),
            Frame::Drained if is_open && role == Role::Provider => {
                self.session_event(now, handle, session::Event::Drained);
            }
            Frame::ProviderStart if is_open && role == Role::Consumer => self.provider_start(now, handle),
            Frame::ProvidersAck { number } if is_open && role == Role::Consumer => {
                self.providers_ack(now, handle, number)
            }
            Frame::Seek { conn, instance } if is_open && role == Role::Consumer => {
                self.seek(now, handle, conn, instance)
            }
            Frame::Absent { conn, .. } if is_open && role == Role::Provider => self.absent(now, handle, conn),
            Frame::Providers { .. }
            | Frame::ProvidersAck { .. }
            | Frame::Seek { .. }
            | Frame::Absent { .. }
            | Frame::CloseReq { .. }
            | Frame::CloseAck { .. }
            | Frame::SetWeight { .. }
            | Frame::ResumeReq(_)
            | Frame::ResumeReqWith { .. }
            | Frame::PauseAck { .. }
            | Frame::DataAck(_)
            | Frame::Drained
            | Frame::ProviderStart
            | Frame::SessionAck(_)
            | Frame::SessionReject { .. }
            | Frame::SessionShutdown { .. }
            | Frame::PauseReq { .. }
            | Frame::ResumeAck(_)
            | Frame::Connected { .. }
            | Frame::Partner { .. }
            | Frame::SetWeightAck { .. }
            | Frame::SessionState { .. }
            | Frame::ProviderStopped => {
                let detail = format!("{} before SESSION_ACK, or in the wrong direction", frame.name());
                self.violation(now, handle, code::MALFORMED, detail);
            }
        }
    }

    fn close_req(&mut self, now: Instant, handle: Handle, conn: ConnKey, code: u64) {
        let Some((id, side)) = self.own_connection(handle, conn) else {
            self.close_parked(now, handle, conn, code);
            let service = self.sessions.get(&handle).map(|session| session.service);
            return service.into_iter().for_each(|service| self.look_at_provider(now, service));
        };
        let partner = self.connections.get(&id).and_then(|connection| connection.leg(side.other()));
        let askable = partner.is_some_and(|leg| {
            self.sessions.get(&leg.session).is_some_and(|session| session.protocol == Protocol::Sc02)
        });
        self.connection_event(now, id, connection::Event::CloseReq { side, code, askable });
    }

    fn close_ack(&mut self, now: Instant, handle: Handle, conn: ConnKey) {
        if let Some((id, side)) = self.own_connection(handle, conn) {
            self.connection_event(now, id, connection::Event::CloseAck { side });
        }
    }

    fn pause_ack(&mut self, now: Instant, handle: Handle, conn: ConnKey) {
        if let Some((id, side)) = self.own_connection(handle, conn) {
            self.connection_event(now, id, connection::Event::PauseAck { side });
        }
    }
}
