//! Which providers may have a connection of which nothing has been heard, and whether they have it
//! (docs/protocols/spn.md, A connection that was never confirmed, SEK-1 to SEK-3).
//!
//! A consumer must know every provider that could have its connections, or it could not tell later that none of them has one. So a provider
//! that comes gets none of its connections before PROVIDERS, which names it, has been answered.

use std::{collections::BTreeMap, time::Instant};

use super::registry::{Entry, UNLISTED};
use crate::{
    quic::Handle,
    spn::{
        ConnKey, Protocol, Role,
        hub::{Hub, machines::pairing::Event},
        wire::frame::{Frame, MAX_LIST, flag},
    },
};

/// The consumers' sessions that are sent the lists of providers, each with the newest list that it has acknowledged.
#[derive(Debug, Default)]
pub(in crate::spn::hub) struct Listeners {
    acknowledged: BTreeMap<Handle, u64>,
}

impl Listeners {
    /// A session is sent lists from now on.
    fn add(&mut self, session: Handle) {
        self.acknowledged.insert(session, 0);
    }

    /// A session has acknowledged a list; none is newer than `newest`. Says whether it is sent any.
    fn acknowledge(&mut self, session: Handle, number: u64, newest: u64) -> bool {
        let Some(known) = self.acknowledged.get_mut(&session) else { return false };
        *known = number.min(newest).max(*known);
        true
    }

    /// The newest list that limits which provider a session's connections get. None limits a session that is sent no lists.
    pub(in crate::spn::hub) fn newest_known(&self, session: Handle) -> u64 {
        self.acknowledged.get(&session).copied().unwrap_or(u64::MAX)
    }

    fn sessions(&self) -> impl Iterator<Item = Handle> {
        self.acknowledged.keys().copied()
    }

    /// A session has ended.
    pub(in crate::spn::hub) fn forget(&mut self, session: Handle) {
        self.acknowledged.remove(&session);
    }
}

/// What PROVIDERS says of the providers of a service. A provider that can be asked has its instance id, another one that is listed is among "others".
fn providers(number: u64, of_service: impl Iterator<Item = (bool, Option<[u8; 16]>)>) -> Frame {
    let (mut instances, mut retiring, mut flags) = (Vec::new(), Vec::new(), 0);
    for (is_listed, instance) in of_service {
        let list = if is_listed { &mut instances } else { &mut retiring };
        match instance.filter(|_| list.len() < MAX_LIST as usize) {
            Some(instance) => list.push(instance),
            None if is_listed => flags = flag::OTHERS,
            None => {}
        }
    }
    Frame::Providers { number, flags, instances, retiring }
}

impl Hub {
    fn providers(&self, entry: &Entry) -> Frame {
        let of_service = entry.providers.iter().filter_map(|provider| {
            let session = self.sessions.get(&provider.session)?;
            let can_be_asked = session.protocol == Protocol::Sc02 && session.can_resume && session.seeks;
            Some((provider.number != UNLISTED, can_be_asked.then_some(session.instance)))
        });
        providers(entry.number, of_service)
    }

    /// SESSION_ACK is on its way to a consumer: from now on it hears who serves it.
    pub(in crate::spn::hub) fn list_providers(&mut self, handle: Handle) {
        let Some(session) = self.sessions.get(&handle) else { return };
        if session.role != Role::Consumer || !session.seeks {
            return;
        }
        self.listeners.add(handle);
        let service = session.service;
        let Some(frame) = self.registry.get(service).map(|entry| self.providers(entry)) else { return };
        self.send(handle, &frame);
    }

    /// A provider has come or gone, is given up or heard again: its consumers hear of it.
    pub(in crate::spn::hub) fn providers_changed(&mut self, service: usize) {
        let Some(entry) = self.registry.get(service) else { return };
        let frame = self.providers(entry);
        let of_service = |handle: &Handle| self.sessions.get(handle).is_some_and(|session| session.service == service);
        for handle in self.listeners.sessions().filter(of_service).collect::<Vec<_>>() {
            self.send(handle, &frame);
        }
    }

    /// PROVIDERS_ACK.
    pub(in crate::spn::hub) fn providers_ack(&mut self, now: Instant, handle: Handle, number: u64) {
        let Some(session) = self.sessions.get(&handle) else { return };
        let service = session.service;
        let newest = self.registry.get(service).map(|entry| entry.number).unwrap_or_default();
        if self.listeners.acknowledge(handle, number, newest) {
            self.choose_for_waiting(now, service);
        }
    }

    /// SEEK: only for what the consumer has asked to resume, and each session of a provider is asked once.
    pub(in crate::spn::hub) fn seek(&mut self, now: Instant, handle: Handle, conn: ConnKey, instance: [u8; 16]) {
        let Some(session) = self.sessions.get(&handle) else { return };
        let providers = self.registry.get(session.service).map(|entry| entry.providers.as_slice()).unwrap_or_default();
        let is_it =
            |provider: &Handle| self.sessions.get(provider).is_some_and(|it| it.seeks && it.instance == instance);
        let Some(provider) = providers.iter().map(|provider| provider.session).find(is_it) else { return };
        self.pairing_event(now, conn, Event::Seek { session: handle.into(), provider: provider.into() });
    }

    /// ABSENT.
    pub(in crate::spn::hub) fn absent(&mut self, now: Instant, handle: Handle, conn: ConnKey) {
        self.pairing_event(now, conn, Event::Absent { provider: handle.into() });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_knows_what_it_has_acknowledged_and_no_more() {
        let (seeks, plain) = (Handle::of_test(1), Handle::of_test(2));
        let mut listeners = Listeners::default();
        listeners.add(seeks);
        assert_eq!((listeners.newest_known(seeks), listeners.newest_known(plain)), (0, u64::MAX));
        assert!(listeners.acknowledge(seeks, 3, 5) && !listeners.acknowledge(plain, 3, 5));
        listeners.acknowledge(seeks, 2, 5);
        assert_eq!(listeners.newest_known(seeks), 3, "an older answer is late");
        listeners.acknowledge(seeks, 9, 5);
        assert_eq!(listeners.newest_known(seeks), 5, "there is no newer list");
        assert_eq!(listeners.sessions().collect::<Vec<_>>(), [seeks]);
        listeners.forget(seeks);
        assert_eq!(listeners.newest_known(seeks), u64::MAX);
    }

    #[test]
    fn a_list_names_whom_it_can_and_says_that_there_are_others() {
        let instance = |n: u8| Some([n; 16]);
        let of_service = [(true, instance(1)), (false, instance(2)), (false, None), (true, instance(3))];
        let (instances, retiring) = (vec![[1; 16], [3; 16]], vec![[2; 16]]);
        let list = Frame::Providers { number: 7, flags: 0, instances, retiring };
        assert_eq!(providers(7, of_service.into_iter()), list);
        let cannot_be_asked = Frame::Providers { number: 7, flags: flag::OTHERS, instances: vec![], retiring: vec![] };
        assert_eq!(providers(7, [(true, None)].into_iter()), cannot_be_asked);
        let most = MAX_LIST as usize;
        match providers(7, std::iter::repeat_n((true, instance(1)), most + 1)) {
            Frame::Providers { flags: flag::OTHERS, instances, .. } => assert_eq!(instances.len(), most),
            other => panic!("{other:?}"),
        }
    }
}
