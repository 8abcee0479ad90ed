//! Providers that say nothing (docs/protocols/spn.md, Choosing a provider, PRV-12 to PRV-15).
//!
//! QUIC takes a peer for dead after its idle timeout. Long before, a provider that acknowledges nothing gets no new connection while another
//! one answers; and what it got, and has not acknowledged, goes to another one.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

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
struct Watch {
    since: Instant,
    /// Datagrams that had come from it by then.
    heard: u64,
}

/// The providers' sessions that owe an acknowledgement.
#[derive(Debug, Default)]
pub(in crate::spn::hub) struct Silence {
    watches: BTreeMap<Handle, Watch>,
}

/// What a look at a session shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Look {
    /// It came too late to show anything.
    Late,
    /// The session has said something.
    Heard,
    /// The session has said nothing.
    Silent {
        /// For so long that its connections are to go to another one.
        is_given_up: bool,
    },
}

impl Silence {
    /// A session owes an acknowledgement; `heard` datagrams have come from it. Says whether this is new: then a look is to be arranged.
    fn watch(&mut self, now: Instant, session: Handle, heard: u64) -> bool {
        let is_new = !self.watches.contains_key(&session);
        self.watches.entry(session).or_insert(Watch { since: now, heard });
        is_new
    }

    /// Whether a session owes an acknowledgement.
    fn is_watched(&self, session: Handle) -> bool {
        self.watches.contains_key(&session)
    }

    /// Looks, at `now`, whether a session has said anything since it got something; the look was due at `due`. If the session has said something,
    /// `owes` says whether it has got something since.
    fn look(
        &mut self,
        now: Instant,
        due: Instant,
        session: Handle,
        heard: u64,
        owes: impl FnOnce() -> bool,
    ) -> Option<Look> {
        let watch = self.watches.get_mut(&session)?;
        let renewed = Watch { since: now, heard };
        if now >= due + LATE {
            *watch = renewed;
            return Some(Look::Late);
        }
        if heard == watch.heard {
            return Some(Look::Silent { is_given_up: now >= watch.since + GIVEN_UP });
        }
        if owes() {
            *watch = renewed;
        } else {
            self.watches.remove(&session);
        }
        Some(Look::Heard)
    }

    /// A session has ended.
    pub(in crate::spn::hub) fn forget(&mut self, session: Handle) {
        self.watches.remove(&session);
    }
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
        if self.sessions.contains_key(&handle) && self.silence.watch(now, handle, heard) {
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
        let Some(session) = self.sessions.get(&handle) else { return };
        let connections = &self.connections;
        let is_owed = |id| connections.get(id).is_some_and(|it| it.heard == Some(heard) && !it.answered);
        let owes = || session.connections.iter().rev().any(is_owed);
        let Some(look) = self.silence.look(now, at, handle, heard, owes) else { return };
        let service = session.service;
        if self.silence.is_watched(handle) {
            self.remind_of_silence(now, handle);
        }
        let (is_silent, is_given_up) = match look {
            Look::Late => return,
            Look::Heard => (false, false),
            Look::Silent { is_given_up } => (true, is_given_up),
        };
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
            if is_given_up && others.iter().any(Provider::answers) {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::first_instant;

    fn session(n: u32) -> Handle {
        Handle::of_test(n)
    }

    #[test]
    fn a_session_that_says_nothing_is_silent_and_then_given_up() {
        let (now, it) = (first_instant(), session(1));
        let mut silence = Silence::default();
        assert!(silence.watch(now, it, 5), "a look is to be arranged");
        assert!(!silence.watch(now + GIVEN_UP, it, 9), "there is one already, and the first debt counts");
        let at = |ms| now + Duration::from_millis(ms);
        let mut look = |ms| silence.look(at(ms), at(ms), it, 5, || unreachable!("nothing was said"));
        assert_eq!(look(200), Some(Look::Silent { is_given_up: false }));
        assert_eq!(look(1999), Some(Look::Silent { is_given_up: false }));
        assert_eq!(look(2000), Some(Look::Silent { is_given_up: true }));
        assert_eq!(silence.look(now, now, session(2), 0, || false), None, "nobody watches that one");
    }

    #[test]
    fn a_session_that_says_something_owes_only_what_it_has_got_since() {
        let (now, it) = (first_instant(), session(1));
        let mut silence = Silence::default();
        silence.watch(now, it, 5);
        assert_eq!(silence.look(now, now, it, 6, || true), Some(Look::Heard));
        assert!(silence.is_watched(it));
        let later = now + GIVEN_UP;
        assert_eq!(silence.look(later, later, it, 6, || true), Some(Look::Silent { is_given_up: true }));
        assert_eq!(silence.look(later, later, it, 7, || false), Some(Look::Heard));
        assert!(!silence.is_watched(it));
    }

    #[test]
    fn a_late_look_shows_nothing() {
        let (now, it) = (first_instant(), session(1));
        let mut silence = Silence::default();
        silence.watch(now, it, 5);
        let late = now + GIVEN_UP + LATE;
        assert_eq!(silence.look(late, late - LATE, it, 5, || true), Some(Look::Late));
        assert_eq!(silence.look(late, late, it, 5, || true), Some(Look::Silent { is_given_up: false }), "from then on");
        silence.forget(it);
        assert!(!silence.is_watched(it));
    }
}
