//! The data streams of one session: those that carry connections, those that are no connection yet, and how many there may be.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    quic::StreamId,
    spn::{ConnKey, endpoint::config::ConnId, wire::preamble::Collector},
};

/// The data streams of a session.
#[derive(Debug)]
pub(in crate::spn::endpoint) struct Streams {
    /// Connections by their streams.
    conns: BTreeMap<StreamId, ConnId>,
    /// Streams of the hub whose preamble is not complete, or that have overtaken SESSION_ACK.
    openings: BTreeMap<StreamId, Collector>,
    /// Streams that the hub has opened, as far as they have come.
    opened: u64,
    /// Streams that the hub may have open.
    granted: u32,
    /// A provider's: SET_WEIGHT_ACK, and how many streams the hub had opened by then, as long as some of them have not said what they are.
    weighed: Option<(u16, u64)>,
    /// Connections that may go on here as soon as there is stream credit.
    legs: BTreeSet<ConnId>,
    /// Connections that PAUSE_REQ has spoken of before their stream has come.
    stray_pauses: BTreeSet<ConnKey>,
}

/// What is to be done about a PAUSE_REQ that names no known connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::spn::endpoint) enum StrayPause {
    /// Its stream has some time to come.
    Wait,
    /// It waits already.
    Waits,
    /// Too many wait: it is answered at once.
    Full,
}

impl Streams {
    /// Of a session whose hub may open so many.
    pub(super) fn new(granted: u32) -> Self {
        Self {
            conns: BTreeMap::new(),
            openings: BTreeMap::new(),
            opened: 0,
            granted,
            weighed: None,
            legs: BTreeSet::new(),
            stray_pauses: BTreeSet::new(),
        }
    }

    /// The connection on a stream.
    pub(in crate::spn::endpoint) fn conn(&self, stream: StreamId) -> Option<ConnId> {
        self.conns.get(&stream).copied()
    }

    pub(in crate::spn::endpoint) fn conns(&self) -> impl Iterator<Item = ConnId> {
        self.conns.values().copied()
    }

    /// Connections on streams.
    pub(in crate::spn::endpoint) fn count(&self) -> usize {
        self.conns.len()
    }

    /// Whether there is no stream, of whatever kind.
    pub(in crate::spn::endpoint) fn is_empty(&self) -> bool {
        self.conns.is_empty() && self.openings.is_empty()
    }

    /// A connection goes onto a stream.
    pub(in crate::spn::endpoint) fn add(&mut self, stream: StreamId, conn: ConnId) {
        self.conns.insert(stream, conn);
    }

    /// A connection has left its stream. Says whether it was still there.
    pub(super) fn remove(&mut self, stream: StreamId) -> bool {
        self.conns.remove(&stream).is_some()
    }

    /// The session is lost: takes its connections off it.
    pub(super) fn lose(&mut self) -> Vec<ConnId> {
        self.openings.clear();
        self.legs.clear();
        std::mem::take(&mut self.conns).into_values().collect()
    }

    /// The hub has opened a stream.
    pub(in crate::spn::endpoint) fn open(&mut self, stream: StreamId) {
        self.openings.insert(stream, Collector::of_hub());
        self.opened = self.opened.max(stream.index() + 1);
    }

    /// The preamble of a stream that is no connection yet, as far as it has come.
    pub(in crate::spn::endpoint) fn opening(&mut self, stream: StreamId) -> Option<&mut Collector> {
        self.openings.get_mut(&stream)
    }

    /// The streams that are no connections yet.
    pub(in crate::spn::endpoint) fn openings(&self) -> impl Iterator<Item = StreamId> {
        self.openings.keys().copied()
    }

    /// A stream has said what it is, or is refused.
    pub(in crate::spn::endpoint) fn close_opening(&mut self, stream: StreamId) {
        self.openings.remove(&stream);
    }

    /// SET_WEIGHT_ACK: the weight in force, when the hub had opened so many streams.
    pub(super) fn weigh(&mut self, weight: u16, streams: u64) {
        self.weighed = Some((weight, streams));
    }

    /// SET_WEIGHT_ACK overtakes streams that the hub has opened before it: the session hears of its weight when they are known, or it would end
    /// under them.
    pub(super) fn take_weight(&mut self) -> Option<u16> {
        let (weight, streams) = self.weighed?;
        // The session hears of a connection before its opening is forgotten.
        let is_known = self.opened >= streams && self.openings.keys().all(|stream| stream.index() >= streams);
        is_known.then(|| {
            self.weighed = None;
            weight
        })
    }

    /// How many streams the hub may have open from now on, if that is more than before. It gets more before it runs out of them, whatever they
    /// begin with: the `paused` connections may come back here. Each costs memory as soon as it is allowed, so not all at once, and `most` at most.
    pub(super) fn grant(&mut self, most: u32, paused: usize) -> Option<u32> {
        let used = (self.conns.len() + self.openings.len() + paused) as u64;
        let before = self.granted;
        while self.granted < most && used * 4 >= u64::from(self.granted) * 3 {
            self.granted = self.granted.saturating_mul(2).clamp(1, most);
        }
        (self.granted > before).then_some(self.granted)
    }

    /// The hub gets no more.
    pub(super) fn stop_granting(&mut self) {
        self.granted = u32::MAX;
    }

    /// There is no stream credit for the next leg of a connection: it waits.
    pub(in crate::spn::endpoint) fn await_credit(&mut self, conn: ConnId) {
        self.legs.insert(conn);
    }

    /// A connection asks again, and waits for the answer.
    pub(in crate::spn::endpoint) fn forget_leg(&mut self, conn: ConnId) {
        self.legs.remove(&conn);
    }

    /// There is stream credit: the connection that goes on first.
    pub(in crate::spn::endpoint) fn take_leg(&mut self) -> Option<ConnId> {
        self.legs.pop_first()
    }

    /// Whether a connection waits for stream credit.
    pub(in crate::spn::endpoint) fn awaits_credit(&self, conn: ConnId) -> bool {
        self.legs.contains(&conn)
    }

    /// PAUSE_REQ has named a connection that is not known; at most `most` wait.
    pub(in crate::spn::endpoint) fn note_stray_pause(&mut self, key: ConnKey, most: usize) -> StrayPause {
        if self.stray_pauses.len() >= most {
            return StrayPause::Full;
        }
        if self.stray_pauses.insert(key) { StrayPause::Wait } else { StrayPause::Waits }
    }

    /// The stream of such a connection has had its time. Says whether it was waited for.
    pub(in crate::spn::endpoint) fn take_stray_pause(&mut self, key: &ConnKey) -> bool {
        self.stray_pauses.remove(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn conn(index: u32) -> ConnId {
        ConnId { index, generation: 0 }
    }

    /// The hub's stream of that index.
    fn stream(index: u64) -> StreamId {
        StreamId::of_test(index)
    }

    #[test]
    fn set_weight_ack_waits_for_the_streams_before_it() {
        let mut streams = Streams::new(100);
        streams.weigh(0, 2);
        assert_eq!(streams.take_weight(), None, "two streams are still to come");
        streams.open(stream(1));
        assert_eq!(streams.take_weight(), None, "they may say anything");
        streams.open(stream(0));
        streams.close_opening(stream(0));
        assert_eq!(streams.take_weight(), None);
        // A later one does not count.
        streams.open(stream(2));
        streams.close_opening(stream(1));
        assert_eq!((streams.take_weight(), streams.take_weight()), (Some(0), None));
    }

    #[test]
    fn the_hub_gets_more_streams_before_it_runs_out_of_them() {
        let mut streams = Streams::new(4);
        streams.open(stream(0));
        streams.add(stream(1), conn(1));
        assert_eq!(streams.grant(12, 0), None);
        assert_eq!(streams.grant(12, 1), Some(8), "one may come back");
        assert_eq!(streams.grant(12, 4), Some(12), "and no more than the limit");
        assert_eq!(streams.grant(12, 100), None);
        streams.stop_granting();
        assert_eq!(streams.grant(1000, 1000), None);
    }

    #[test]
    fn a_lost_session_leaves_nothing() {
        let mut streams = Streams::new(4);
        streams.open(stream(0));
        streams.add(stream(1), conn(1));
        streams.add(stream(2), conn(2));
        streams.await_credit(conn(3));
        assert!(streams.remove(stream(1)) && !streams.remove(stream(1)));
        assert_eq!(streams.lose(), [conn(2)]);
        assert!(streams.is_empty() && streams.take_leg().is_none() && !streams.remove(stream(2)));
    }

    #[test]
    fn connections_wait_for_stream_credit_in_order() {
        let mut streams = Streams::new(4);
        for index in [3, 1, 2] {
            streams.await_credit(conn(index));
        }
        streams.forget_leg(conn(1));
        assert_eq!(streams.take_leg(), Some(conn(2)));
        assert!(streams.awaits_credit(conn(3)) && !streams.awaits_credit(conn(2)));
    }

    #[test]
    fn so_many_streams_may_still_come_that_a_pause_has_named() {
        let mut streams = Streams::new(4);
        let [one, two] = [1, 2].map(|n| ConnKey([n; 16]));
        assert_eq!(streams.note_stray_pause(one, 2), StrayPause::Wait);
        assert_eq!(streams.note_stray_pause(one, 2), StrayPause::Waits);
        assert_eq!(streams.note_stray_pause(two, 1), StrayPause::Full);
        assert!(streams.take_stray_pause(&one) && !streams.take_stray_pause(&one));
    }
}
