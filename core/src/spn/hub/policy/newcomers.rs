//! The second provider of a singleton: it waits while the first one is asked for a sign of life (docs/protocols/spn.md, Choosing a provider, PRV-1 to
//! PRV-4).
//!
//! A singleton's second provider is refused in these steps. [`Roster::incumbent`](super::roster::Roster::incumbent) finds the first one in the
//! way. If another newcomer waits already, the second one is refused at once, with 0x17 (`SINGLETON_OCCUPIED`). Otherwise its
//! [machine](crate::spn::hub::machines::session) holds it, and the incumbent is probed here: if that answers within the probe time, the
//! newcomer is refused with 0x17; if not, the incumbent is replaced.

use std::{collections::BTreeMap, time::Duration};

use crate::quic::Handle;

/// How often it is looked whether the incumbent has answered its PING (PRV-4).
pub(crate) const PROBE_EVERY: Duration = Duration::from_millis(50);

/// A provider's session that waits for the end of another one.
#[derive(Debug, Clone, Copy)]
struct Newcomer {
    session: Handle,
    incumbent: Handle,
    /// Datagrams that had come from the incumbent when it was asked for a sign of life.
    heard: u64,
}

/// The newcomers of all singletons: at most one for each service.
#[derive(Debug, Default)]
pub(crate) struct Newcomers {
    waiting: BTreeMap<usize, Newcomer>,
}

impl Newcomers {
    /// Whether one waits already.
    pub(crate) fn is_waiting(&self, service: usize) -> bool {
        self.waiting.contains_key(&service)
    }

    /// A newcomer waits; so many datagrams have come from the incumbent.
    pub(crate) fn hold(&mut self, service: usize, session: Handle, incumbent: Handle, heard: u64) {
        self.waiting.insert(service, Newcomer { session, incumbent, heard });
    }

    /// The incumbent that a newcomer waits for.
    pub(crate) fn incumbent(&self, service: usize, session: Handle) -> Option<Handle> {
        self.get(service, session).map(|newcomer| newcomer.incumbent)
    }

    /// Whether a datagram has come from the incumbent since it was asked; `heard` says how many datagrams have come from a session. `None` for
    /// a session that does not wait.
    pub(crate) fn has_answered(
        &self,
        service: usize,
        session: Handle,
        heard: impl FnOnce(Handle) -> u64,
    ) -> Option<bool> {
        self.get(service, session).map(|newcomer| heard(newcomer.incumbent) > newcomer.heard)
    }

    /// A session waits no longer.
    pub(crate) fn release(&mut self, service: usize, session: Handle) {
        if self.get(service, session).is_some() {
            self.waiting.remove(&service);
        }
    }

    /// No incumbent is left: who has waited for that.
    pub(crate) fn take(&mut self, service: usize) -> Option<Handle> {
        self.waiting.remove(&service).map(|newcomer| newcomer.session)
    }

    fn get(&self, service: usize, session: Handle) -> Option<&Newcomer> {
        self.waiting.get(&service).filter(|newcomer| newcomer.session == session)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_newcomer_waits_until_its_incumbent_answers_or_has_gone() {
        let (first, second, third) = (Handle::of_test(1), Handle::of_test(2), Handle::of_test(3));
        let mut newcomers = Newcomers::default();
        newcomers.hold(0, second, first, 5);
        assert!(newcomers.is_waiting(0) && !newcomers.is_waiting(1));
        assert_eq!(newcomers.incumbent(0, second), Some(first));
        let heard = |count| move |session| if session == first { count } else { unreachable!() };
        assert_eq!(newcomers.has_answered(0, second, heard(5)), Some(false));
        assert_eq!(newcomers.has_answered(0, second, heard(6)), Some(true));
        assert_eq!(newcomers.has_answered(0, third, heard(6)), None);
        newcomers.release(0, third);
        assert!(newcomers.is_waiting(0), "that one did not wait");
        assert_eq!((newcomers.take(0), newcomers.take(0)), (Some(second), None));
        newcomers.hold(0, third, first, 6);
        newcomers.release(0, third);
        assert_eq!(newcomers.take(0), None);
    }
}
