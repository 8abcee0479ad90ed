//! The machines of the requests to resume, one for each connection that has such requests (docs/protocols/spn.md, Hub connection, HBC-14).

use std::{collections::BTreeMap, time::Instant};

use crate::{
    machine::Machine,
    quic::Handle,
    spn::{
        ConnKey,
        hub::machines::pairing::{Action, Config, Event, Pairing, SessionRef},
    },
};

impl From<Handle> for SessionRef {
    fn from(handle: Handle) -> Self {
        Self(handle.to_bits())
    }
}

impl From<SessionRef> for Handle {
    fn from(SessionRef(bits): SessionRef) -> Self {
        Self::from_bits(bits)
    }
}

/// A service, as machines number it.
pub(crate) fn number(service: usize) -> u32 {
    u32::try_from(service).unwrap_or(u32::MAX)
}

/// The requests to resume of a hub, by connection. There is a machine only while there are requests.
#[derive(Debug, Default)]
pub(crate) struct Pairings {
    machines: BTreeMap<ConnKey, Pairing>,
}

impl Pairings {
    /// How many connections have requests.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.machines.len()
    }

    /// How many of them have no leg here.
    pub(crate) fn without_leg(&self) -> usize {
        self.machines.values().filter(|machine| !machine.is_carried()).count()
    }

    pub(crate) fn contains(&self, key: ConnKey) -> bool {
        self.machines.contains_key(&key)
    }

    pub(crate) fn keys(&self) -> Vec<ConnKey> {
        self.machines.keys().copied().collect()
    }

    /// Each connection, whether its machine knows of a leg, and the sessions that have a request.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (ConnKey, bool, Vec<SessionRef>)> {
        self.machines.iter().map(|(key, machine)| (*key, machine.is_carried(), machine.sessions().collect()))
    }

    /// When the oldest request of a connection has waited long enough.
    pub(crate) fn due(&self, key: ConnKey) -> Option<Instant> {
        self.machines.get(&key)?.poll_timeout()
    }

    /// An event that may be the first of a connection; `leg` is the generation of its leg. Returns all that is to be done.
    pub(crate) fn begin(
        &mut self,
        now: Instant,
        key: ConnKey,
        (config, leg): (Config, Option<u64>),
        event: Event,
    ) -> Vec<Action> {
        self.machines.entry(key).or_insert_with(|| {
            let mut machine = Pairing::new(config);
            if let Some(generation) = leg {
                machine.handle_event(now, Event::LegFound { generation });
            }
            machine
        });
        self.on(now, key, event)
    }

    /// An event that matters only to a connection with requests. Returns all that is to be done.
    pub(crate) fn on(&mut self, now: Instant, key: ConnKey, event: Event) -> Vec<Action> {
        self.drain(key, |machine| machine.handle_event(now, event))
    }

    /// Answers the requests of a connection that have waited too long. Returns all that is to be done.
    pub(crate) fn expire(&mut self, now: Instant, key: ConnKey) -> Vec<Action> {
        self.drain(key, |machine| machine.handle_timeout(now))
    }

    /// The actions are complete before the first is performed: what one of them causes may come back as the next event.
    fn drain(&mut self, key: ConnKey, what: impl FnOnce(&mut Pairing)) -> Vec<Action> {
        let Some(machine) = self.machines.get_mut(&key) else { return Vec::new() };
        what(machine);
        let mut actions: Vec<_> = std::iter::from_fn(|| machine.poll_action()).collect();
        if actions.pop_if(|action| *action == Action::End).is_some() {
            self.machines.remove(&key);
        }
        actions
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spn::wire::{code::StreamCode, frame::Flags};
    use crate::{
        spn::{
            Side, Tag,
            hub::machines::pairing::{Admission, End, Values},
        },
        testing::first_instant,
    };

    const KEY: ConnKey = ConnKey([7; 16]);

    fn request(session: u64, side: Side) -> Event {
        Event::ResumeReq {
            session: SessionRef(session),
            end: End { service: 0, side, tag: Tag([session as u8; 16]), partner: None },
            values: Values { generation: 0, received: 0, flags: Flags::NONE, code: StreamCode(0) },
            admission: Admission::Free,
            owners: None,
            paused: false,
        }
    }

    #[test]
    fn there_is_a_machine_only_while_there_are_requests() {
        let (now, config) = (first_instant(), Config::default());
        let mut pairings = Pairings::default();
        assert_eq!(pairings.on(now, KEY, request(1, Side::Consumer)), [], "it may only begin on purpose");
        let begun = pairings.begin(now, KEY, (config, Some(4)), request(1, Side::Consumer));
        assert_eq!(begun, [Action::Park { session: SessionRef(1) }], "its leg is newer");
        assert_eq!((pairings.len(), pairings.without_leg(), pairings.contains(KEY)), (1, 0, true));
        pairings.on(now, KEY, Event::LegEnded { generation: 4 });
        assert_eq!((pairings.len(), pairings.without_leg()), (1, 1));
        let due = pairings.due(KEY).unwrap();
        assert_eq!(due, now + config.resume_wait);
        let sessions = vec![SessionRef(1)];
        let gone = [Action::Unpark { sessions: sessions.clone() }, Action::Refuse { sessions, code: StreamCode(0x24) }];
        assert_eq!((pairings.expire(due, KEY), pairings.len()), (gone.to_vec(), 0));
        let unknown = Event::CloseReq {
            session: SessionRef(1),
            end: End { service: 0, side: Side::Consumer, tag: Tag([1; 16]), partner: None },
            code: StreamCode(0x20),
        };
        let answer = [Action::SendCloseAck { session: SessionRef(1) }];
        assert_eq!((pairings.begin(now, KEY, (config, None), unknown), pairings.len()), (answer.to_vec(), 0));
    }
}
