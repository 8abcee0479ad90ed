//! Control frames that come to the hub.

use super::Intake;
use crate::{
    quic::Handle,
    spn::{
        ConnKey, Protocol, Role, Side,
        hub::{
            binding::link::control::Next,
            context::{Context, Due},
            machines::{connection, pairing, session},
        },
        wire::{
            code::{SessionCode, StreamCode},
            frame::Frame,
        },
    },
};

impl Intake {
    /// Reads the control stream until it is empty, its rate is used up, or its peer does not read our answers.
    pub(super) fn read_control(&mut self, cx: &mut Context<'_>, session: Handle) {
        loop {
            match self.exchange.parts().links.next_frame(cx, session) {
                Next::Frame(frame) => self.frame(cx, session, frame),
                Next::Nothing => return,
                Next::Later(at) => return cx.remind(at, Due::Control(session)),
                Next::Lost { code, error } => return self.violation(cx, session, code, error.to_string()),
            }
        }
    }

    /// A session's control stream may be read again.
    pub(super) fn control_timeout(&mut self, cx: &mut Context<'_>, session: Handle) {
        if let Some(link) = self.exchange.parts().links.get_mut(session) {
            link.control_mut().reminded();
            self.read_control(cx, session);
        }
    }

    fn frame(&mut self, cx: &mut Context<'_>, session: Handle, frame: Frame) {
        let Some(link) = self.exchange.parts().links.get_mut(session) else { return };
        let (is_open, role) = (link.machine().is_established(), link.party.role);
        match frame {
            Frame::SessionOpen(open) => self.session_open(cx, session, &open),
            Frame::SessionOpenVersion { version } => {
                link.set_detail(format!("SESSION_OPEN of version {version}, expected 1"));
                self.exchange.session_event(cx, session, session::Event::OpenRefused { code: SessionCode::MALFORMED });
            }
            Frame::SessionOpenRole { role } => {
                let detail = format!("SESSION_OPEN with role {role}, expected 1 (provider) or 2 (consumer)");
                self.violation(cx, session, SessionCode::MALFORMED, detail);
            }
            Frame::SessionClose { code, .. } => {
                link.settle();
                self.exchange.session_event(cx, session, session::Event::SessionClose { code });
            }
            Frame::CloseReq { conn, code } if is_open => self.close_req(cx, session, conn, code),
            Frame::CloseAck { conn } if is_open => {
                self.leg_frame(cx, session, conn, |side| connection::Event::CloseAck { side })
            }
            Frame::SetWeight { weight } if is_open && role == Role::Provider => {
                self.exchange.session_event(cx, session, session::Event::SetWeight { weight });
            }
            Frame::ResumeReq(values) if is_open => self.resume_req(cx, session, &values, None),
            Frame::ResumeReqWith { values, partner } if is_open => {
                self.resume_req(cx, session, &values, Some(partner));
            }
            Frame::PauseAck { conn } if is_open => {
                self.leg_frame(cx, session, conn, |side| connection::Event::PauseAck { side })
            }
            Frame::DataAck(entries) if is_open => self.data_ack(cx, session, entries),
            Frame::Drained if is_open && role == Role::Provider => {
                self.exchange.session_event(cx, session, session::Event::Drained);
            }
            Frame::ProviderStart if is_open && role == Role::Consumer => self.provider_start(cx, session),
            Frame::ProvidersAck { number } if is_open && role == Role::Consumer => {
                self.providers_ack(cx, session, number)
            }
            Frame::Seek { conn, instance } if is_open && role == Role::Consumer => {
                self.seek(cx, session, conn, instance)
            }
            Frame::Absent { conn, .. } if is_open && role == Role::Provider => {
                self.exchange.pairing_event(cx, conn, pairing::Event::Absent { provider: session.into() })
            }
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
                self.violation(cx, session, SessionCode::MALFORMED, detail);
            }
        }
    }

    fn close_req(&mut self, cx: &mut Context<'_>, session: Handle, conn: ConnKey, code: StreamCode) {
        let parts = self.exchange.parts();
        let Some((id, side)) = parts.connections.own(parts.links, session, conn) else {
            return self.close_request(cx, session, conn, code);
        };
        let partner = parts.connections.get(id).and_then(|connection| connection.leg(side.other()));
        let askable = partner.and_then(|leg| parts.links.protocol(leg.session)) == Some(Protocol::Sc02);
        self.exchange.connection_event(cx, id, connection::Event::CloseReq { side, code, askable });
    }

    /// A frame about a connection that counts only if the session has a leg of it.
    fn leg_frame(
        &mut self,
        cx: &mut Context<'_>,
        session: Handle,
        conn: ConnKey,
        event: fn(Side) -> connection::Event,
    ) {
        let parts = self.exchange.parts();
        if let Some((id, side)) = parts.connections.own(parts.links, session, conn) {
            self.exchange.connection_event(cx, id, event(side));
        }
    }
}
