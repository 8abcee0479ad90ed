//! All connections of the hub: by number and by key, and the queue of directions that may have something to move.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Instant,
};

use bytes::Bytes;

use super::{Conn, Origin, Place, Turn, relay::Leg};
use crate::{
    quic::Handle,
    spn::{
        ConnKey, Side,
        hub::{
            binding::link::links::Links,
            context::{Context, Due},
            machines::{
                connection::{Action, Event, HubConnection},
                pairing::{Admission, Owners},
            },
        },
        wire::code::StreamCode,
    },
};

/// The connections of a hub.
#[derive(Default)]
pub(crate) struct Conns {
    connections: BTreeMap<u64, Conn>,
    keys: BTreeMap<ConnKey, u64>,
    next: u64,
    /// Directions that may have something to move: each is in here once.
    ready: VecDeque<(u64, Side)>,
}

impl Conns {
    pub(crate) fn len(&self) -> usize {
        self.connections.len()
    }

    pub(crate) fn get(&self, id: u64) -> Option<&Conn> {
        self.connections.get(&id)
    }

    pub(crate) fn get_mut(&mut self, id: u64) -> Option<&mut Conn> {
        self.connections.get_mut(&id)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (u64, &Conn)> {
        self.connections.iter().map(|(id, connection)| (*id, connection))
    }

    /// The connections of which `is_meant` is true, oldest first.
    pub(crate) fn filter(&self, is_meant: impl Fn(&Conn) -> bool) -> Vec<u64> {
        self.iter().filter(|(_, connection)| is_meant(connection)).map(|(id, _)| id).collect()
    }

    pub(crate) fn contains_key(&self, key: ConnKey) -> bool {
        self.keys.contains_key(&key)
    }

    pub(crate) fn keys(&self) -> impl Iterator<Item = (ConnKey, u64)> {
        self.keys.iter().map(|(key, id)| (*key, *id))
    }

    /// The number of the connection with this key.
    pub(crate) fn id(&self, key: ConnKey) -> Option<u64> {
        self.keys.get(&key).copied()
    }

    pub(crate) fn by_key(&self, key: ConnKey) -> Option<&Conn> {
        self.get(self.id(key)?)
    }

    /// The connection that a session calls `key`, if it is one of its own, and which side of it the session is.
    pub(crate) fn own(&self, links: &Links, session: Handle, key: ConnKey) -> Option<(u64, Side)> {
        let id = self.id(key)?;
        let side = links.get(session)?.party.side();
        (self.get(id)?.leg(side)?.session == session).then_some((id, side))
    }

    /// A stream of a consumer's session becomes a connection, with RESUME if it goes on with one.
    ///
    /// # Errors
    /// The code that refuses it.
    pub(crate) fn add(
        &mut self,
        cx: &Context<'_>,
        links: &mut Links,
        consumer: Leg,
        key: ConnKey,
        origin: Origin,
    ) -> Result<u64, StreamCode> {
        let link = links.get_mut(consumer.session).ok_or(StreamCode::INTERNAL)?;
        if link.connections().len() >= cx.config.limits.connections_per_session as usize {
            return Err(origin.over_limit());
        }
        let id = self.next;
        self.next += 1;
        let machine = HubConnection::new(cx.config.connection);
        let connection = Conn::new(machine, key, (consumer, &link.party), origin);
        link.board(consumer.stream, id);
        self.connections.insert(id, connection);
        self.keys.insert(key, id);
        Ok(id)
    }

    /// Whether a connection has a leg that is another identity's, or another service's, than this session's (OWN-4).
    pub(crate) fn is_foreign(&self, links: &Links, session: Handle, key: ConnKey) -> bool {
        let Some(link) = links.get(session) else { return true };
        self.by_key(key).is_some_and(|leg| leg.is_foreign(&link.party, links))
    }

    /// Whether a stream of a session may ask for a connection, as far as the hub and the present leg are concerned.
    pub(crate) fn admission(&self, links: &Links, is_listening: bool, session: Handle, key: ConnKey) -> Admission {
        if self.is_foreign(links, session, key) {
            Admission::Foreign
        } else if is_listening {
            Admission::Free
        } else {
            Admission::Leaving
        }
    }

    /// Consumer and provider of a connection that has a leg here.
    pub(crate) fn owners(&self, links: &Links, key: ConnKey) -> Option<Owners> {
        let connection = self.by_key(key)?;
        let tag = |side| Some(links.get(connection.leg(side)?.session)?.party.tag);
        Some(Owners { consumer: tag(Side::Consumer)?, provider: tag(Side::Provider)? })
    }

    /// A code from one end, as the other end is to see it.
    pub(crate) fn passed_on(&self, links: &Links, id: u64, from: Side, code: StreamCode) -> StreamCode {
        self.get(id).map_or(code, |connection| connection.passed_on(links, from, code))
    }

    /// A leg waits no longer for a stream of its provider.
    pub(crate) fn stop_waiting(&mut self, links: &mut Links, id: u64) {
        let provider = self.get_mut(id).and_then(Conn::stop_waiting);
        if let Some(link) = provider.and_then(|provider| links.get_mut(provider)) {
            link.remove_leg(id);
        }
    }

    /// Takes a connection out of the books, and off its sessions.
    pub(crate) fn remove(&mut self, links: &mut Links, id: u64) -> Option<Conn> {
        self.stop_waiting(links, id);
        let connection = self.connections.remove(&id)?;
        self.keys.remove(&connection.key());
        for leg in connection.legs() {
            if let Some(link) = links.get_mut(leg.session) {
                link.leave(id);
            }
        }
        Some(connection)
    }

    // ---- the machine ----

    pub(crate) fn handle_event(&mut self, cx: &Context<'_>, id: u64, event: Event) {
        if let Some(connection) = self.get_mut(id) {
            connection.handle_event(cx.now, event);
        }
    }

    /// A connection's deadline that was due `at` has come. Returns whether its machine is to be drained.
    pub(crate) fn expire(&mut self, cx: &Context<'_>, at: Instant, id: u64) -> bool {
        self.get_mut(id).is_some_and(|connection| connection.expire(cx.now, at))
    }

    /// The next action of a connection, which may use the connection.
    pub(crate) fn next_action(&mut self, cx: &mut Context<'_>, id: u64) -> Option<(Action, &mut Conn)> {
        let connection = self.get_mut(id)?;
        let action = connection.next_action(cx.deadlines, Due::Connection(id))?;
        Some((action, connection))
    }

    // ---- payload ----

    /// A direction may be able to move something. Preambles go before payload: when a session's window is exhausted, and what becomes free is
    /// taken by those that come first, a resumed connection must not wait for its preamble until `pause_max` has passed.
    pub(crate) fn ready(&mut self, id: u64, source: Side) {
        match self.get_mut(id).and_then(|connection| connection.queue(source)) {
            Some(Place::Back) => self.ready.push_back((id, source)),
            Some(Place::Front) => self.ready.push_front((id, source)),
            None => {}
        }
    }

    pub(crate) fn count_ready(&self) -> usize {
        self.ready.len()
    }

    /// The next direction that may have something to move.
    pub(crate) fn next_ready(&mut self) -> Option<(u64, Side)> {
        self.ready.pop_front()
    }

    /// Numbers of the connections that may have something to move, in order.
    #[cfg(test)]
    pub(crate) fn ready_ids(&self) -> Vec<u64> {
        self.ready.iter().map(|(id, _)| *id).collect()
    }

    /// One turn of one direction.
    pub(crate) fn pump(&mut self, cx: &mut Context<'_>, links: &mut Links, id: u64, source: Side) -> Option<Turn> {
        self.get_mut(id)?.pump(cx, links, id, source)
    }

    /// Payload that came together with the consumer's preamble; `is_end`: and nothing follows.
    pub(crate) fn first_bytes(&mut self, cx: &mut Context<'_>, id: u64, chunk: Bytes, is_end: bool) {
        if let Some(connection) = self.get_mut(id) {
            connection.hold(chunk, is_end);
        }
        self.ready(id, Side::Consumer);
        self.stall_while_held(cx, id);
    }

    /// Without a provider nothing is read: that is a target without room, too.
    pub(crate) fn stall_while_held(&mut self, cx: &mut Context<'_>, id: u64) {
        if let Some(connection) = self.get_mut(id).filter(|connection| connection.is_held()) {
            connection.stall(cx, id, Side::Consumer);
        }
    }

    /// A direction has been stalled for a while.
    pub(crate) fn look_at_stall(&mut self, cx: &mut Context<'_>, links: &mut Links, id: u64, source: Side) {
        if let Some(connection) = self.get_mut(id) {
            connection.look_at_stall(cx, links, id, source);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        quic::StreamId,
        spn::{
            Role,
            hub::{binding::link::links::testing, context::testing::Surroundings},
        },
    };

    const KEY: ConnKey = ConnKey([7; 16]);

    fn key(n: u8) -> ConnKey {
        ConnKey([n; 16])
    }

    /// A consumer's session, and connections on it of which the first `count` have a provider's stream.
    fn relaying(around: &mut Surroundings, links: &mut Links, count: u8) -> (Conns, Handle) {
        let mut cx = around.cx();
        let consumer = testing::add(links, &mut cx, 1, Role::Consumer, "c");
        let provider = testing::add(links, &mut cx, 2, Role::Provider, "p");
        let mut connections = Conns::default();
        for n in 0..count {
            let leg = Leg { session: consumer, stream: StreamId::of_test(n.into()) };
            let id = connections.add(&cx, links, leg, key(n), Origin::New { offers_resume: true }).unwrap();
            connections.handle_event(&cx, id, Event::ConnectStream);
            connections.get_mut(id).unwrap().board(Leg { session: provider, stream: StreamId::of_test(n.into()) });
            connections.handle_event(&cx, id, Event::ProviderChosen { resumable: true });
            while connections.next_action(&mut cx, id).is_some() {}
        }
        (connections, consumer)
    }

    #[test]
    fn a_connection_is_in_all_books_or_in_none() {
        let (mut around, mut links) = (Surroundings::new(), Links::new(0));
        around.config.limits.connections_per_session = 1;
        let consumer = testing::add(&mut links, &mut around.cx(), 1, Role::Consumer, "c");
        let mut connections = Conns::default();
        let leg = Leg { session: consumer, stream: StreamId::of_test(1) };
        let origin = Origin::New { offers_resume: false };
        let id = connections.add(&around.cx(), &mut links, leg, KEY, origin.clone()).unwrap();
        assert_eq!(
            (connections.id(KEY), connections.own(&links, consumer, KEY)),
            (Some(id), Some((id, Side::Consumer)))
        );
        assert!(links.get(consumer).unwrap().connections().contains(&id));
        assert_eq!(connections.add(&around.cx(), &mut links, leg, key(8), origin), Err(StreamCode::CONNECTION_LIMIT));
        assert!(connections.remove(&mut links, id).is_some() && connections.remove(&mut links, id).is_none());
        assert_eq!((connections.len(), connections.contains_key(KEY)), (0, false));
        assert!(links.get(consumer).unwrap().connections().is_empty());
    }

    #[test]
    fn a_connection_belongs_to_its_ends() {
        let (mut around, mut links) = (Surroundings::new(), Links::new(0));
        let (connections, consumer) = relaying(&mut around, &mut links, 1);
        let thief = testing::add(&mut links, &mut around.cx(), 3, Role::Consumer, "c2");
        let again = testing::add(&mut links, &mut around.cx(), 4, Role::Provider, "p");
        for (session, is_foreign) in [(consumer, false), (thief, true), (again, false), (Handle::of_test(9), true)] {
            assert_eq!(connections.is_foreign(&links, session, key(0)), is_foreign, "{session:?}");
        }
        assert!(!connections.is_foreign(&links, thief, key(5)), "that one has no leg here");
        assert_eq!(connections.own(&links, again, key(0)), None);
        assert_eq!(connections.admission(&links, false, consumer, key(0)), Admission::Leaving);
        links.get_mut(consumer).unwrap().party.service = 1;
        assert_eq!(connections.admission(&links, true, consumer, key(0)), Admission::Foreign, "another service's");
    }

    #[test]
    fn each_direction_is_queued_once_and_preambles_first() {
        let (mut around, mut links) = (Surroundings::new(), Links::new(0));
        let (mut connections, _) = relaying(&mut around, &mut links, 3);
        connections.get_mut(2).unwrap().expect_preamble();
        for id in [0, 1, 0, 2, 9] {
            connections.ready(id, Side::Consumer);
        }
        assert_eq!(connections.ready_ids(), [2, 0, 1]);
        assert_eq!((connections.next_ready(), connections.count_ready()), (Some((2, Side::Consumer)), 2));
        connections.ready(2, Side::Consumer);
        assert_eq!(connections.count_ready(), 2, "it has not had its turn yet");
        let turn = connections.pump(&mut around.cx(), &mut links, 2, Side::Consumer).unwrap();
        assert!(!turn.is_answer);
        connections.ready(2, Side::Consumer);
        assert_eq!(connections.count_ready(), 3);
    }

    #[test]
    fn a_leg_that_waits_for_a_stream_is_known_to_the_provider() {
        let (mut around, mut links) = (Surroundings::new(), Links::new(0));
        let (mut connections, _) = relaying(&mut around, &mut links, 1);
        let provider = Handle::of_test(2);
        connections.get_mut(0).unwrap().wait_for(provider);
        links.get_mut(provider).unwrap().add_leg(0);
        connections.stop_waiting(&mut links, 0);
        assert!(links.get(provider).unwrap().legs().is_empty());
    }
}
