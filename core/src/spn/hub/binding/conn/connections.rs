//! All connections of the hub: by number and by key, and the queue of directions that may have something to move.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Instant,
};

use bytes::Bytes;

use super::{Connection, Origin, Queue, Turn, relay::Leg};
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
        wire::code,
    },
};

/// The connections of a hub.
#[derive(Default)]
pub(crate) struct Connections {
    connections: BTreeMap<u64, Connection>,
    keys: BTreeMap<ConnKey, u64>,
    next: u64,
    /// Directions that may have something to move: each is in here once.
    ready: VecDeque<(u64, Side)>,
}

impl Connections {
    pub(crate) fn len(&self) -> usize {
        self.connections.len()
    }

    pub(crate) fn get(&self, id: u64) -> Option<&Connection> {
        self.connections.get(&id)
    }

    pub(crate) fn get_mut(&mut self, id: u64) -> Option<&mut Connection> {
        self.connections.get_mut(&id)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (u64, &Connection)> {
        self.connections.iter().map(|(id, connection)| (*id, connection))
    }

    /// The connections of which `is_meant` is true, oldest first.
    pub(crate) fn filter(&self, is_meant: impl Fn(&Connection) -> bool) -> Vec<u64> {
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

    pub(crate) fn by_key(&self, key: ConnKey) -> Option<&Connection> {
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
    ) -> Result<u64, u64> {
        let link = links.get_mut(consumer.session).ok_or(code::INTERNAL)?;
        if link.connections().len() >= cx.config.limits.connections_per_session as usize {
            return Err(origin.over_limit());
        }
        let id = self.next;
        self.next += 1;
        let machine = HubConnection::new(cx.config.connection);
        let connection = Connection::new(machine, key, (consumer, &link.party), origin);
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
    pub(crate) fn passed_on(&self, links: &Links, id: u64, from: Side, code: u64) -> u64 {
        self.get(id).map_or(code, |connection| connection.passed_on(links, from, code))
    }

    /// A leg waits no longer for a stream of its provider.
    pub(crate) fn stop_waiting(&mut self, links: &mut Links, id: u64) {
        let provider = self.get_mut(id).and_then(Connection::stop_waiting);
        if let Some(link) = provider.and_then(|provider| links.get_mut(provider)) {
            link.remove_leg(id);
        }
    }

    /// Takes a connection out of the books, and off its sessions.
    pub(crate) fn remove(&mut self, links: &mut Links, id: u64) -> Option<Connection> {
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
    pub(crate) fn next_action(&mut self, cx: &mut Context<'_>, id: u64) -> Option<(Action, &mut Connection)> {
        let connection = self.get_mut(id)?;
        let action = connection.next_action(cx.deadlines, Due::Connection(id))?;
        Some((action, connection))
    }

    // ---- payload ----

    /// A direction may be able to move something. Preambles go before payload: when a session's window is exhausted, and what becomes free is
    /// taken by those that come first, a resumed connection must not wait for its preamble until `pause_max` has passed.
    pub(crate) fn ready(&mut self, id: u64, source: Side) {
        match self.get_mut(id).and_then(|connection| connection.queue(source)) {
            Some(Queue::Back) => self.ready.push_back((id, source)),
            Some(Queue::Front) => self.ready.push_front((id, source)),
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
