//! New sessions, and their requests for admission (docs/protocols/spn.md, Control stream, CTL-14, and Hub session).
//!
//! Whether there is room for them is decided in [`Services`](crate::spn::hub::binding::services::Services).

use std::time::Instant;

use bytes::Bytes;

use super::Intake;
use crate::{
    quic::{Handle, PeerIdentity},
    spn::{
        Protocol, Role, Side,
        hub::{
            binding::{
                link::{Link, NOTIFY_SHUTDOWN, REQUEST_PROVIDER_START},
                services::{Vacancy, Verdict},
            },
            context::Context,
            machines::{connection, managed, session::Event},
        },
        wire::{
            code::SessionCode,
            frame::{Frame, SessionAck, SessionOpen},
        },
    },
};

impl Intake {
    pub(super) fn connected(&mut self, cx: &mut Context<'_>, session: Handle, alpn: &[u8], peer: PeerIdentity) {
        let Some(link) = self.exchange.parts().links.get_mut(session) else { return };
        let party = &mut link.party;
        party.peer = peer;
        // TLS agreed on one of ours, so there is always a role.
        let Some((role, protocol)) = Role::from_alpn(alpn) else {
            let refused = Event::LegacyRefused { code: SessionCode::ROLE_UNSUPPORTED };
            return self.exchange.session_event(cx, session, refused);
        };
        (party.role, party.protocol) = (role, protocol);
        let event = match protocol {
            Protocol::Sc02 => Event::ExtendedHandshake,
            Protocol::Sc01 if party.names().is_empty() => Event::LegacyRefused { code: SessionCode::NO_IDENTITY },
            Protocol::Sc01 => match self.admit(cx, session, "", None) {
                Ok(Vacancy::Free) => Event::LegacyAdmitted,
                Ok(Vacancy::Occupied) => Event::LegacyOccupied,
                Ok(Vacancy::Early) => Event::LegacyRefused { code: SessionCode::NO_PROVIDER },
                Err(code) => Event::LegacyRefused { code },
            },
        };
        self.exchange.session_event(cx, session, event);
    }

    /// SESSION_OPEN, well-formed (CTL-14: the order of the tests).
    pub(super) fn session_open(&mut self, cx: &mut Context<'_>, session: Handle, open: &SessionOpen) {
        let links = self.exchange.parts().links;
        let Some(link) = links.get_mut(session) else { return };
        // Another address of ours: the process has its session already and, knowing that, goes or asks again (Several hubs).
        if link.machine().awaits_open() && open.hubs.contains(&cx.id) {
            let (session_id, service) = (String::new(), String::new());
            let (hub_instance, state) = (cx.id, SessionAck::SPARE);
            let ack = SessionAck { session_id, service, hub_instance, max_connections: 0, state };
            return links.send(session, &Frame::SessionAck(ack));
        }
        link.party.take_flags(open);
        let event = if open.role != link.party.role {
            Event::OpenRefused { code: SessionCode::ROLE_MISMATCH }
        } else {
            match self.admit(cx, session, &open.service, Some(open.instance)) {
                Ok(Vacancy::Free) => Event::OpenAdmitted { weight: open.weight },
                Ok(Vacancy::Occupied) => Event::OpenOccupied { weight: open.weight },
                Ok(Vacancy::Early) => Event::OpenEarly { weight: open.weight },
                Err(code) => Event::OpenRefused { code },
            }
        };
        self.exchange.session_event(cx, session, event);
    }

    /// Tests whether a session may come in, and notes its service.
    fn admit(
        &mut self,
        cx: &mut Context<'_>,
        session: Handle,
        urn: &str,
        instance: Option<[u8; 16]>,
    ) -> Result<Vacancy, SessionCode> {
        let parts = self.exchange.parts();
        let link = parts.links.get_mut(session).ok_or(SessionCode::INTERNAL)?;
        parts.services.identify(cx, link, urn, instance)?;
        if link.party.role == Role::Provider && instance.is_some() {
            let older = parts.services.older_of_process(parts.links, session);
            self.exchange.each_session_event(cx, older, Event::Replaced);
        }
        let parts = self.exchange.parts();
        let link = parts.links.get(session).ok_or(SessionCode::INTERNAL)?;
        parts.services.admit(parts.cluster, session, link)
    }

    /// A violation: `detail` is for the diagnostic.
    pub(super) fn violation(&mut self, cx: &mut Context<'_>, session: Handle, code: SessionCode, detail: String) {
        if let Some(link) = self.exchange.parts().links.get_mut(session) {
            link.set_detail(detail);
        }
        self.exchange.session_event(cx, session, Event::ControlViolation { code });
    }

    pub(super) fn control_datagram(&mut self, cx: &mut Context<'_>, session: Handle, datagram: &Bytes) {
        let Some(link) = self.exchange.parts().links.get(session) else { return };
        match (link.party.protocol, link.party.role, datagram.trim_ascii()) {
            (Protocol::Sc01, Role::Provider, NOTIFY_SHUTDOWN) => {
                self.exchange.session_event(cx, session, Event::NotifyShutdown);
            }
            (Protocol::Sc01, Role::Consumer, REQUEST_PROVIDER_START) => self.provider_start(cx, session),
            // `sc02` has a control stream; control datagrams are ignored there. The others of `sc01` ask for nothing here.
            _ => {}
        }
    }

    /// A consumer's payload is about to come.
    pub(super) fn provider_start(&mut self, cx: &mut Context<'_>, session: Handle) {
        let Some(link) = self.exchange.parts().links.get_mut(session) else { return };
        let service = link.party.service;
        if link.may_start_provider(cx.now) {
            self.exchange.managed_event(cx, service, managed::Event::PayloadAnnounced);
        }
    }

    /// Checks whether a provider has acknowledged anything since it received something. Connections that a provider was given since its last
    /// datagram go to another one when it is given up: their consumers have all bytes, and begin again; deployed consumers would not.
    pub(super) fn silence_timeout(&mut self, cx: &mut Context<'_>, at: Instant, session: Handle) {
        let parts = self.exchange.parts();
        let is_owed = |id: &u64, heard| parts.connections.get(*id).is_some_and(|it| it.is_owed_answer(heard));
        let owes = |link: &Link, heard| link.connections().iter().rev().any(|id| is_owed(id, heard));
        match parts.services.look_at_silence(cx, parts.links, at, session, owes) {
            Some(Verdict::GivenUp { heard }) => {
                let begins_again = |id: &u64| {
                    let connection = parts.connections.get(*id).filter(|it| it.is_owed_answer(heard));
                    let consumer = connection.and_then(|it| parts.links.get(it.leg(Side::Consumer)?.session));
                    consumer.is_some_and(|link| !link.party.is_legacy_consumer())
                };
                let Some(link) = parts.links.get(session) else { return };
                let ids = link.connections().iter().copied().filter(begins_again).collect();
                self.exchange.each_connection_event(cx, ids, connection::Event::ProviderSilent);
            }
            Some(Verdict::HeardAgain { service }) => self.exchange.choose_for_waiting(cx, service),
            None => {}
        }
    }
}
