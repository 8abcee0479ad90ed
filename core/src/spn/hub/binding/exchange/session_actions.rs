//! Carries out what the machines of sessions ask for.

use std::time::{Duration, Instant};

use bytes::Bytes;

use super::Exchange;
use crate::{
    quic::Handle,
    spn::{
        Role, Side,
        hub::{
            binding::link::NOTIFY_SHUTDOWN,
            context::Context,
            machines::{
                connection::{self, Loss},
                managed, pairing,
                session::{Action, Event},
            },
        },
        wire::{
            code::SessionCode,
            frame::{Flags, Frame},
        },
    },
};

impl Exchange {
    pub(crate) fn session_event(&mut self, cx: &mut Context<'_>, session: Handle, event: Event) {
        self.links.handle_event(cx, session, event);
        self.perform_session(cx, session);
    }

    pub(crate) fn each_session_event(
        &mut self,
        cx: &mut Context<'_>,
        sessions: impl IntoIterator<Item = Handle>,
        event: Event,
    ) {
        for session in sessions {
            self.session_event(cx, session, event.clone());
        }
    }

    pub(crate) fn session_timeout(&mut self, cx: &mut Context<'_>, at: Instant, session: Handle) {
        if self.links.expire(cx, at, session) {
            self.perform_session(cx, session);
        }
    }

    fn perform_session(&mut self, cx: &mut Context<'_>, session: Handle) {
        while let Some(action) = self.links.next_action(cx, session) {
            match action {
                Action::Begin { weight } => self.begin_session(cx, session, weight),
                Action::End { reason, loss } => {
                    self.end_session(cx, session, loss);
                    let record = self.links.get_mut(session).and_then(|link| link.end_record(cx.now, reason));
                    record.into_iter().for_each(|record| cx.record(record));
                }
                Action::ProbeIncumbent => self.services.hold(cx, &self.links, session),
                Action::EvictIncumbent => {
                    let incumbent = self.services.incumbent_of(&self.links, session);
                    self.services.release(&self.links, session);
                    self.each_session_event(cx, incumbent, Event::Replaced);
                }
                Action::SendAck => {
                    if let Some(ack) = self.services.ack(cx, &self.links, session) {
                        self.links.send(session, &ack);
                    }
                    self.services.listen(&mut self.links, session);
                }
                Action::SendReject { code, retry_after } => {
                    self.services.turn_away(cx, &mut self.links, session, code);
                    let text = code.text().to_owned();
                    self.links
                        .send(session, &Frame::SessionReject { code, retry_after_ms: wire_ms(retry_after), text });
                }
                Action::SendClose { code } => {
                    self.links.send(session, &Frame::SessionClose { code, text: code.text().to_owned() });
                }
                Action::SendShutdown { deadline, resumable } => {
                    let can_resume = self.links.get(session).is_some_and(|link| link.party.can_resume);
                    let flags = Flags::RESUMABLE.only_if(resumable && can_resume);
                    self.links.send(session, &Frame::SessionShutdown { flags, deadline_ms: wire_ms(deadline) });
                }
                Action::SendNotifyShutdown => cx.quic.send_datagram(session, Bytes::from_static(NOTIFY_SHUTDOWN)),
                Action::SetWeight { weight } => {
                    let Some(service) = self.links.get(session).map(|link| link.party.service) else { continue };
                    self.services.set_weight(&mut self.links, service, session, weight);
                    let newcomer = self.services.take_newcomer(service);
                    self.each_session_event(cx, newcomer, Event::IncumbentGone);
                    self.choose_for_waiting(cx, service);
                }
                Action::SendWeightAck { weight } => {
                    let streams = self.links.get(session).map_or(0, |link| link.streams().count_opened());
                    self.links.send(session, &Frame::SetWeightAck { weight, streams });
                }
                Action::Close { code } => {
                    self.services.turn_away(cx, &mut self.links, session, code);
                    let reason = if code == SessionCode::OK { "server shutting down" } else { code.text() };
                    cx.quic.close(cx.now, session, code.0, reason);
                }
            }
        }
        self.has_acted = true;
    }

    fn begin_session(&mut self, cx: &mut Context<'_>, session: Handle, weight: u16) {
        if !self.services.enter(cx, &mut self.links, session, weight) {
            return;
        }
        let Some(party) = self.links.get(session).map(|link| &link.party) else { return };
        let service = party.service;
        match party.role {
            Role::Provider => {
                self.update_managed(cx, service);
                let early = self.services.take_early(service);
                self.each_session_event(cx, early, Event::ProviderCame);
                self.choose_for_waiting(cx, service);
            }
            Role::Consumer if self.services.get(service).is_some_and(|entry| entry.roster().is_empty()) => {
                self.managed_event(cx, service, managed::Event::ConsumerCame);
            }
            Role::Consumer => {}
        }
    }

    /// A session has ended: its requests to resume, its connections and its service lose it.
    fn end_session(&mut self, cx: &mut Context<'_>, session: Handle, loss: Loss) {
        let Some(link) = self.links.get_mut(session) else { return };
        for key in link.requests_mut().take() {
            self.pairing_event(cx, key, pairing::Event::SessionEnded { session: session.into() });
        }
        let Some(link) = self.links.get_mut(session) else { return };
        let side = link.party.side();
        link.streams_mut().clear();
        for id in link.take_legs() {
            self.connection_event(cx, id, connection::Event::SessionLost { side, loss });
        }
        let Some(link) = self.links.get_mut(session) else { return };
        let service = link.party.service;
        for id in link.take_connections() {
            let Some(connection) = self.connections.get(id) else { continue };
            let speaks_for_itself = loss == Loss::Drained && connection.machine().is_resumable();
            let is_unstarted = connection.is_unstarted() && side == Side::Provider && !speaks_for_itself;
            let loss = if is_unstarted { Loss::Unstarted } else { loss };
            self.connection_event(cx, id, connection::Event::SessionLost { side, loss });
        }
        self.services.leave(&mut self.links, session);
        let newcomer = self.services.take_newcomer(service);
        self.each_session_event(cx, newcomer, Event::IncumbentGone);
        self.update_managed(cx, service);
    }
}

/// A duration in a frame, in whole milliseconds, and at most some 50 days.
fn wire_ms(duration: Duration) -> u64 {
    u32::try_from(duration.as_millis()).unwrap_or(u32::MAX).into()
}
