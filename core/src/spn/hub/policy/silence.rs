//! Providers that say nothing (docs/protocols/spn.md, Choosing a provider, PRV-12 to PRV-15).
//!
//! QUIC takes a peer for dead after its idle timeout. Long before, a provider that acknowledges nothing gets no new connection while another
//! one answers; and what it got, and has not acknowledged, goes to another one.

use std::time::{Duration, Instant};

use super::registry::{Provider, UNLISTED};
use crate::{
    quic::Handle,
    spn::{
        Protocol, Side,
        hub::{Due, Hub, machines::connection::Event},
        patience::{LATE, patience},
    },
};

/// After such a silence a provider's connections go to another one.
const GIVEN_UP: Duration = Duration::from_secs(2);

/// A provider's session that owes an acknowledgement.
#[derive(Debug, Clone, Copy)]
pub(in crate::spn::hub) struct Watch {
    since: Instant,
    /// Datagrams that had come from it by then.
    heard: u64,
}

impl Provider {
    /// It would be given a connection.
    fn answers(&self) -> bool {
        !self.is_silent && !self.out_of_credit && self.weight > 0
    }
}

impl Hub {
    /// A provider has got a new connection: it owes an acknowledgement.
    pub(in crate::spn::hub) fn watch_provider(&mut self, now: Instant, id: u64, handle: Handle) {
        let heard = self.quic.received_datagrams(handle);
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.heard = Some(heard);
        }
        self.watch(now, handle, heard);
    }

    fn watch(&mut self, now: Instant, handle: Handle, heard: u64) {
        let Some(session) = self.sessions.get_mut(&handle) else { return };
        if session.watch.is_none() {
            session.watch = Some(Watch { since: now, heard });
            self.remind_of_silence(now, handle);
        }
    }

    fn remind_of_silence(&mut self, now: Instant, handle: Handle) {
        let rtt = self.quic.rtt(handle);
        self.remind(now + patience(rtt), Due::Silence(handle));
    }

    /// Looks whether a provider has said anything since it got something.
    pub(in crate::spn::hub) fn silence_timeout(&mut self, now: Instant, at: Instant, handle: Handle) {
        let heard = self.quic.received_datagrams(handle);
        let Some(session) = self.sessions.get_mut(&handle) else { return };
        let Some(watch) = session.watch else { return };
        // A look that comes late is none.
        if now >= at + LATE {
            session.watch = Some(Watch { since: now, heard });
            return self.remind_of_silence(now, handle);
        }
        let service = session.service;
        let is_silent = heard == watch.heard;
        if !is_silent {
            let connections = &self.connections;
            let is_owed = |id| connections.get(id).is_some_and(|it| it.heard == Some(heard) && !it.answered);
            let owes = session.connections.iter().rev().any(is_owed);
            session.watch = owes.then_some(Watch { since: now, heard });
        }
        if session.watch.is_some() {
            self.remind_of_silence(now, handle);
        }
        let Some(entry) = self.registry.get_mut(service) else { return };
        let Some(provider) = entry.provider(handle) else { return };
        let was_silent = std::mem::replace(&mut provider.is_silent, is_silent);
        if is_silent || was_silent {
            // Nothing else may be on its way that would show that it is back; and once it is, what was lost is found by the answer to this:
            // QUIC's own probes come ever later.
            self.quic.ping(handle);
        }
        if is_silent {
            let others: Vec<Provider> = entry.providers.iter().copied().filter(|it| it.session != handle).collect();
            // It may be the hub that nobody hears: that the others answer has to be seen, too.
            for other in &others {
                self.quic.ping(other.session);
                let heard = self.quic.received_datagrams(other.session);
                self.watch(now, other.session, heard);
            }
            if now >= watch.since + GIVEN_UP && others.iter().any(Provider::answers) {
                self.list(service, handle, false);
                self.move_connections(now, handle, heard);
            }
        } else if was_silent {
            let gets_some = provider.weight > 0;
            self.list(service, handle, gets_some);
            self.choose_for_waiting(now, service);
        }
    }

    /// Puts a provider on the list of those that get connections, or takes it off, since it is given up or retires: no connection that is begun
    /// from then on waits for its answer.
    pub(in crate::spn::hub) fn list(&mut self, service: usize, handle: Handle, is_listed: bool) {
        let Some(entry) = self.registry.get_mut(service) else { return };
        let number = entry.number + 1;
        let Some(provider) = entry.provider(handle).filter(|it| (it.number != UNLISTED) != is_listed) else { return };
        provider.number = if is_listed { number } else { UNLISTED };
        entry.number = number;
        self.providers_changed(service);
    }

    /// What a provider got since it was heard of last goes to another one. The consumer has it all, and begins again; a deployed one would not.
    fn move_connections(&mut self, now: Instant, handle: Handle, heard: u64) {
        let Some(session) = self.sessions.get(&handle) else { return };
        let begins_again = |id: &u64| {
            let connection = self.connections.get(id).filter(|it| it.heard == Some(heard) && !it.answered);
            let consumer = connection.and_then(|it| self.sessions.get(&it.leg(Side::Consumer)?.session));
            consumer.is_some_and(|session| session.protocol == Protocol::Sc02)
        };
        for id in session.connections.iter().copied().filter(begins_again).collect::<Vec<_>>() {
            self.connection_event(now, id, Event::ProviderSilent);
        }
    }
}
