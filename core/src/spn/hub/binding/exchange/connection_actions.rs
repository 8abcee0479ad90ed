//! Gives connections to providers, moves what is on their streams, and carries out what their machines ask for.
//!
//! How a provider's FIN reaches the consumer: [`pump`](Exchange::pump) moves the provider's bytes to the consumer's stream and, behind the last of
//! them, finds the FIN. That is the event `Fin` of the [machine](crate::spn::hub::machines::connection), whose answer is the action `Finish`: the
//! consumer's stream is finished. Resets and STOP_SENDING go the same way.

use std::time::Instant;

use super::Exchange;
use crate::{
    quic::Handle,
    spn::{
        ConnKey, Side,
        hub::{
            binding::conn::{
                Conn, Origin,
                relay::{Found, Leg},
            },
            context::Context,
            machines::{
                connection::{Action, Event},
                managed, pairing,
            },
            policy::roster::Choice,
        },
        wire::{
            code::StreamCode,
            frame::{Flags, Frame},
        },
    },
};

/// What came of the search for a provider.
enum Search {
    Found,
    /// There is one, of which the consumer does not know yet.
    Unknown,
    /// There is none with room.
    Failed,
}

impl Exchange {
    // ---- the provider ----

    /// A consumer's stream asks for a provider. The code refuses it.
    pub(crate) fn connect(
        &mut self,
        cx: &mut Context<'_>,
        consumer: Leg,
        key: ConnKey,
        resumable: bool,
    ) -> Result<u64, StreamCode> {
        if !self.is_listening {
            return Err(StreamCode::NOT_STARTED);
        }
        if self.connections.contains_key(key) || self.pairings.contains(key) {
            return Err(self.refuse_connect(cx, consumer.session, key));
        }
        let can_resume = self.links.get(consumer.session).is_some_and(|link| link.party.can_resume);
        let origin = Origin::New { offers_resume: resumable && can_resume };
        let id = self.connections.add(cx, &mut self.links, consumer, key, origin)?;
        let service = self.connections.get(id).ok_or(StreamCode::INTERNAL)?.service();
        self.connections.handle_event(cx, id, Event::ConnectStream);
        if let Some(entry) = self.services.get_mut(service) {
            entry.add_waiting(id);
        }
        self.choose_for_waiting(cx, service);
        // Only now, since most have their provider by now, and no deadline any more.
        self.perform_connection(cx, id);
        Ok(id)
    }

    /// The next leg of a connection: a consumer's stream, and a provider that has asked for it. The code refuses it.
    pub(super) fn add_leg(
        &mut self,
        cx: &mut Context<'_>,
        consumer: Leg,
        provider: Handle,
        (key, origin): (ConnKey, Origin),
    ) -> Result<u64, StreamCode> {
        let id = self.connections.add(cx, &mut self.links, consumer, key, origin)?;
        if let Some(stream) = cx.quic.open(provider) {
            self.board_provider(cx, id, Leg { session: provider, stream });
            self.connection_event(cx, id, Event::ResumeStream);
        } else {
            if let Some(connection) = self.connections.get_mut(id) {
                connection.wait_for(provider);
            }
            if let Some(link) = self.links.get_mut(provider) {
                link.add_leg(id);
            }
            self.connection_event(cx, id, Event::ResumeWaits);
        }
        Ok(id)
    }

    /// A stream of a provider's session carries a connection from now on.
    pub(crate) fn board_provider(&mut self, cx: &mut Context<'_>, id: u64, leg: Leg) {
        let Some(connection) = self.connections.get_mut(id) else { return };
        connection.board(leg);
        let service = connection.service();
        if let Some(entry) = self.services.get_mut(service) {
            entry.roster_mut().opened(leg.session);
        }
        if let Some(link) = self.links.get_mut(leg.session) {
            link.board_opened(leg.stream, id);
        }
        self.update_managed(cx, service);
    }

    /// Gives waiting connections of a service to providers, in order, as long as there is one.
    pub(crate) fn choose_for_waiting(&mut self, cx: &mut Context<'_>, service: usize) {
        let mut from = 0;
        while let Some(id) = self.services.get(service).and_then(|entry| entry.next_waiting(from)) {
            let waits = self.connections.get(id).is_some_and(|connection| connection.machine().is_choosing());
            match if waits { self.choose(cx, service, id) } else { Search::Found } {
                Search::Found => {}
                Search::Unknown => {
                    // The consumers of later ones may know more providers.
                    from = id + 1;
                    continue;
                }
                Search::Failed => return,
            }
            if let Some(entry) = self.services.get_mut(service) {
                entry.remove_waiting(id);
            }
        }
    }

    /// Finds a provider for a connection (docs/protocols/spn.md, Choosing a provider, PRV-6, and Hub connection, HBC-4).
    fn choose(&mut self, cx: &mut Context<'_>, service: usize, id: u64) -> Search {
        let leg = self.connections.get(id).and_then(|connection| connection.leg(Side::Consumer));
        let Some(consumer) = leg.map(|leg| leg.session) else { return Search::Failed };
        loop {
            let session = match self.services.choose(cx, &self.links, service, consumer) {
                Choice::Provider(session) => session,
                Choice::Unknown => return Search::Unknown,
                Choice::None => {
                    let has_none = self.services.get(service).is_some_and(|entry| entry.roster().is_empty());
                    self.connection_event(cx, id, Event::NoneAvailable);
                    if has_none {
                        self.managed_event(cx, service, managed::Event::ConnectionWaits);
                    }
                    return Search::Failed;
                }
            };
            let Some(stream) = cx.quic.open(session) else {
                self.services.out_of_credit(service, session);
                continue;
            };
            let can_resume = self.links.get(session).is_some_and(|link| link.party.can_resume);
            let offers_resume = self.connections.get(id).is_some_and(Conn::offers_resume);
            self.board_provider(cx, id, Leg { session, stream });
            let heard = cx.quic.received_datagrams(session);
            if let Some(connection) = self.connections.get_mut(id) {
                connection.given_after(heard);
            }
            self.services.watch(cx, &self.links, session, heard);
            self.connection_event(cx, id, Event::ProviderChosen { resumable: offers_resume && can_resume });
            return Search::Found;
        }
    }

    // ---- payload ----

    /// One turn of one direction.
    pub(crate) fn pump(&mut self, cx: &mut Context<'_>, id: u64, source: Side) {
        let Some(turn) = self.connections.pump(cx, &mut self.links, id, source) else { return };
        if turn.is_answer
            && let Some(key) = self.connections.get(id).map(Conn::key)
        {
            // The provider knows which connection this leg belongs to.
            self.pairing_event(cx, key, pairing::Event::ProviderAnswered);
            self.connection_event(cx, id, Event::Answered);
        }
        match turn.found {
            Found::Again => self.connections.ready(id, source),
            Found::Fin => self.connection_event(cx, id, Event::Fin { side: source }),
            Found::Reset(code) => {
                let code = self.connections.passed_on(&self.links, id, source, code);
                self.connection_event(cx, id, Event::Reset { side: source, code });
            }
            Found::Stop(code) => self.stopped(cx, id, source.other(), code),
            // An event of QUIC says when to try again, and a session's own end follows.
            Found::Wait { .. } | Found::Gone => {}
        }
    }

    /// STOP_SENDING has come from one side.
    pub(crate) fn stopped(&mut self, cx: &mut Context<'_>, id: u64, side: Side, code: StreamCode) {
        let code = self.connections.passed_on(&self.links, id, side, code);
        self.connection_event(cx, id, Event::Stop { side, code });
    }

    // ---- the machine ----

    pub(crate) fn connection_event(&mut self, cx: &mut Context<'_>, id: u64, event: Event) {
        self.connections.handle_event(cx, id, event);
        self.perform_connection(cx, id);
    }

    pub(crate) fn each_connection_event(&mut self, cx: &mut Context<'_>, ids: Vec<u64>, event: Event) {
        for id in ids {
            self.connection_event(cx, id, event.clone());
        }
    }

    pub(crate) fn connection_timeout(&mut self, cx: &mut Context<'_>, at: Instant, id: u64) {
        if self.connections.expire(cx, at, id) {
            self.perform_connection(cx, id);
        }
    }

    fn perform_connection(&mut self, cx: &mut Context<'_>, id: u64) {
        while let Some((action, connection)) = self.connections.next_action(cx, id) {
            let links = &mut self.links;
            let (key, generation) = (connection.key(), connection.generation());
            let leg = |side| connection.leg(side);
            match action {
                Action::Begin => {
                    let is_over = connection.begin(cx, links);
                    if is_over {
                        self.connection_event(cx, id, Event::Reported { side: Side::Consumer });
                    }
                    self.connections.ready(id, Side::Consumer);
                    self.connections.ready(id, Side::Provider);
                }
                Action::Finish { to } => {
                    if let Some(leg) = leg(to) {
                        cx.quic.finish(leg.session, leg.stream);
                    }
                    connection.unstall(cx, links, to.other());
                }
                Action::Abort { to, code } => {
                    if let Some(leg) = leg(to) {
                        links.abort_stream(cx, leg.session, leg.stream, code);
                    }
                    connection.unstall(cx, links, to.other());
                }
                Action::StopSending { to, code } => {
                    if let Some(leg) = leg(to) {
                        links.stop_stream(cx, leg.session, leg.stream, code);
                    }
                }
                Action::SendCloseReq { to, code } => {
                    if let Some(leg) = leg(to) {
                        links.send_latest(cx, leg.session, key, Frame::CloseReq { conn: key, code });
                    }
                }
                Action::SendCloseAck { to } => {
                    if let Some(leg) = leg(to) {
                        links.send(leg.session, &Frame::CloseAck { conn: key });
                    }
                }
                Action::SendPauseReq { to } => {
                    if let Some(leg) = leg(to) {
                        links.send_latest(cx, leg.session, key, Frame::PauseReq { conn: key });
                    }
                }
                Action::RefuseResume { to, code } => {
                    if let Some(leg) = leg(to) {
                        let flags = Flags::ABORTED.only_if(code != StreamCode::NOT_STARTED);
                        self.pairing_event(cx, key, pairing::Event::LegAnswered { side: to });
                        self.links.refuse_resume(leg.session, key, code, flags);
                    }
                }
                Action::Finished { reason } => {
                    connection.leave_streams(cx, links);
                    connection.record_end(cx, reason);
                }
                Action::End { reason } => {
                    connection.leave_streams(cx, links);
                    if let Some(reason) = reason {
                        connection.record_end(cx, reason);
                    }
                    self.forget_connection(cx, id);
                    // A request for the next leg may be granted now.
                    self.pairing_event(cx, key, pairing::Event::LegEnded { generation });
                }
            }
        }
        self.has_acted = true;
    }

    /// Takes a connection out of everything that points to it.
    fn forget_connection(&mut self, cx: &mut Context<'_>, id: u64) {
        let Some(connection) = self.connections.remove(&mut self.links, id) else { return };
        let service = connection.service();
        if let Some(entry) = self.services.get_mut(service) {
            // It may be one that has gone without a provider.
            entry.remove_waiting(id);
            if let Some(leg) = connection.leg(Side::Provider) {
                entry.roster_mut().closed(leg.session);
            }
        }
        self.update_managed(cx, service);
    }
}
