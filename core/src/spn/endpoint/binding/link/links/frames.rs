//! What an endpoint says to its hub on the control stream or, on `sc01`, by control datagrams, and what it hears there of the session.

use std::time::{Duration, Instant};

use super::Links;
use crate::{
    quic::one_line,
    spn::{
        ConnKey, Protocol, Role, Tag,
        endpoint::{carrier::LinkId, machines::session::Event, policy::seek::Instance, ports::Ports, setup::Setup},
        wire::{
            code::{SessionCode, StreamCode},
            control::ControlError,
            frame::Flags,
            frame::{AckEntry, Frame, MAX_LIST, ResumeAck, SessionAck},
        },
    },
};

/// What the hub says of connections.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::spn::endpoint) enum Request {
    CloseReq {
        conn: ConnKey,
        code: StreamCode,
    },
    CloseAck(ConnKey),
    Connected {
        conn: ConnKey,
        flags: Flags,
    },
    Partner {
        conn: ConnKey,
        partner: Tag,
    },
    PauseReq(ConnKey),
    ResumeAck(ResumeAck),
    DataAck(Vec<AckEntry>),
    /// PROVIDERS was taken: connections may have another provider to ask.
    Listed,
    Seek(ConnKey),
    Absent {
        conn: ConnKey,
        instance: Instance,
    },
}

impl Links {
    pub(super) fn open_session(&mut self, id: LinkId, weight: u16, setup: &Setup, ports: &mut Ports) {
        let live = self.links.values().filter(|link| link.is_live).filter_map(|link| link.hub);
        let hubs: Vec<_> = live.take(MAX_LIST as usize).collect();
        let Some(wire) = self.wire_mut(id) else { return };
        if !wire.open_control(ports) {
            let reason = "the hub allows no control stream".to_owned();
            return self.violation(id, SessionCode::CONTROL_LOST, reason, ports);
        }
        wire.hubs.clone_from(&hubs);
        self.send(id, &Frame::SessionOpen(setup.session_open(weight, hubs)), ports);
    }

    /// Queues a control frame.
    pub(in crate::spn::endpoint) fn send(&mut self, id: LinkId, frame: &Frame, ports: &mut Ports) {
        if let Some(wire) = self.wire_mut(id) {
            wire.send(frame, ports);
        }
    }

    pub(super) fn send_datagram(&self, id: LinkId, text: &'static [u8], ports: &mut Ports) {
        if let Some(wire) = self.wire(id) {
            wire.send_datagram(text, ports);
        }
    }

    /// Whether RESUME_REQ may go to a session.
    pub(in crate::spn::endpoint) fn is_askable(&self, id: LinkId) -> bool {
        self.links.get(&id).is_some_and(|link| link.is_askable())
    }

    /// Sessions that may be asked to resume something.
    pub(in crate::spn::endpoint) fn askable(&self) -> Vec<LinkId> {
        self.links.iter().filter(|(_, link)| link.is_askable()).map(|(&id, _)| id).collect()
    }

    /// Queues a request to resume for every session that may be asked.
    pub(in crate::spn::endpoint) fn send_everywhere(&mut self, request: &Frame, ports: &mut Ports) {
        for link in self.askable() {
            self.send(link, request, ports);
        }
    }

    /// The hub breaks the protocol.
    pub(in crate::spn::endpoint) fn violation(
        &mut self,
        id: LinkId,
        code: SessionCode,
        reason: String,
        ports: &mut Ports,
    ) {
        if let Some(link) = self.links.get_mut(&id) {
            link.reason = reason;
            ports.post_link(id, Event::Violation { code });
        }
    }

    /// The control stream cannot be read or written any more.
    pub(in crate::spn::endpoint) fn lose_control(&mut self, id: LinkId, error: &ControlError, ports: &mut Ports) {
        let code = match error {
            ControlError::Frame(_) => SessionCode::MALFORMED,
            ControlError::Ended => SessionCode::CONTROL_LOST,
        };
        self.violation(id, code, error.to_string(), ports);
    }

    /// Sends what control streams have. There are as many as addresses: few. The sessions whose control stream is to be read on, or is lost.
    pub(in crate::spn::endpoint) fn flush(&mut self, ports: &mut Ports) -> Vec<(LinkId, Result<(), ControlError>)> {
        let wires = self.links.iter_mut().filter_map(|(id, link)| Some((*id, link.wire.as_mut()?)));
        wires.filter_map(|(id, wire)| Some((id, wire.flush(ports)?))).collect()
    }

    /// The handshake is done: the session may ask, if the hub chose a protocol of this role.
    pub(in crate::spn::endpoint) fn take_handshake(
        &mut self,
        now: Instant,
        id: LinkId,
        alpn: &[u8],
        ports: &mut Ports,
    ) {
        match Role::from_alpn(alpn) {
            Some((role, protocol)) if role == self.role => {
                let Some(wire) = self.wire_mut(id) else { return };
                wire.protocol = protocol;
                match protocol {
                    Protocol::Sc02 => self.turns.wait(now, id),
                    // It asks for nothing, and says nothing of its hub.
                    Protocol::Sc01 => ports.post_link(id, Event::Connected { protocol }),
                }
            }
            Some(_) | None => {
                let Some(link) = self.links.get_mut(&id) else { return };
                link.reason = format!("the hub chose the protocol `{}`", alpn.escape_ascii());
                if let Some(handle) = self.drop_wire(id, ports) {
                    ports.quic.close(now, handle, SessionCode::ROLE_MISMATCH.0, SessionCode::ROLE_MISMATCH.text());
                }
                ports.post_link(id, Event::Lost);
            }
        }
    }

    /// `sc01` says it by control datagrams; the comparison is exact, and unknown ones are ignored (Legacy protocol, Control datagrams).
    pub(in crate::spn::endpoint) fn take_datagram(&mut self, id: LinkId, text: &[u8], ports: &mut Ports) {
        let Some(link) = self.links.get_mut(&id) else { return };
        if link.wire.as_ref().is_none_or(|wire| wire.protocol != Protocol::Sc01) {
            return;
        }
        let event = match text {
            b"notify_shutdown" => {
                "the hub is shutting down".clone_into(&mut link.reason);
                Event::SessionShutdown { deadline: Duration::ZERO }
            }
            b"notify_standby" => Event::SessionState { standby: true },
            b"notify_active" => Event::SessionState { standby: false },
            b"notify_provider_stopped" => Event::ProviderStopped,
            _ => return,
        };
        ports.post_link(id, event);
    }

    /// Takes a control frame. What it says of connections is returned.
    pub(in crate::spn::endpoint) fn take_frame(
        &mut self,
        id: LinkId,
        frame: Frame,
        setup: &Setup,
        ports: &mut Ports,
    ) -> Option<Request> {
        let link = self.links.get_mut(&id)?;
        let is_asking = link.is_asking();
        let wire = link.wire.as_mut()?;
        let consumer = self.role == Role::Consumer;
        let event = match frame {
            Frame::SessionAck(ack) if ack.state == SessionAck::SPARE && is_asking => {
                self.note_spare(id, ack.hub_instance, ports);
                return None;
            }
            Frame::SessionAck(ack) => {
                let (hub, standby) = (ack.hub_instance, ack.state != 0);
                wire.acknowledge(ack);
                if is_asking {
                    link.hub = Some(hub);
                }
                ports.post_link(id, Event::SessionAck { standby });
                self.supersede(id, hub, ports);
                return None;
            }
            Frame::SessionReject { code, retry_after_ms, text } => {
                link.reason = format!("the hub refused the session with code 0x{:x} ({})", code.0, one_line(&text));
                Event::SessionReject { code, retry_after: Duration::from_millis(retry_after_ms) }
            }
            Frame::SessionClose { code, text } => {
                wire.is_disowned = code == SessionCode::NOT_ENTITLED;
                link.reason = format!("the hub closed the session with code 0x{:x} ({})", code.0, one_line(&text));
                Event::SessionClose { code }
            }
            Frame::SessionShutdown { flags: _, deadline_ms } => {
                "the hub is shutting down".clone_into(&mut link.reason);
                Event::SessionShutdown { deadline: Duration::from_millis(deadline_ms) }
            }
            Frame::SessionState { state } => Event::SessionState { standby: state != 0 },
            Frame::ProviderStopped if consumer => Event::ProviderStopped,
            Frame::SetWeightAck { weight, streams } if !consumer => {
                wire.streams_mut().weigh(weight, streams);
                self.note_weight(id, ports);
                return None;
            }
            Frame::CloseReq { conn, code } if wire.is_up => return Some(Request::CloseReq { conn, code }),
            Frame::CloseAck { conn } if wire.is_up => return Some(Request::CloseAck(conn)),
            Frame::Connected { conn, flags } if wire.is_up && consumer => {
                return Some(Request::Connected { conn, flags });
            }
            // Of these nothing follows when this end has not said that it can resume.
            Frame::PauseReq { .. } | Frame::ResumeAck(_) | Frame::DataAck(_)
                if wire.is_up && !setup.config().resume =>
            {
                return None;
            }
            Frame::Partner { conn, partner } if wire.is_up && consumer => {
                return Some(Request::Partner { conn, partner });
            }
            Frame::PauseReq { conn } if wire.is_up => return Some(Request::PauseReq(conn)),
            Frame::ResumeAck(ack) if wire.is_up => return Some(Request::ResumeAck(ack)),
            Frame::DataAck(entries) if wire.is_up => return Some(Request::DataAck(entries)),
            Frame::Providers { number, flags, instances, retiring } if wire.is_up && consumer => {
                return wire.list(number, flags, instances, retiring, ports).then_some(Request::Listed);
            }
            Frame::Absent { conn, instance } if wire.is_up && consumer => {
                return Some(Request::Absent { conn, instance });
            }
            Frame::Seek { conn, .. } if wire.is_up && !consumer => return Some(Request::Seek(conn)),
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
                Event::Violation { code: SessionCode::MALFORMED }
            }
        };
        ports.post_link(id, event);
        None
    }

    /// The streams before a SET_WEIGHT_ACK may all be known now: then the session hears of it.
    pub(in crate::spn::endpoint) fn note_weight(&mut self, id: LinkId, ports: &mut Ports) {
        if let Some(weight) = self.wire_mut(id).and_then(|wire| wire.streams_mut().take_weight()) {
            ports.post_link(id, Event::SetWeightAck { weight });
        }
    }
}
