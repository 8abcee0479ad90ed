//! The data streams of a session on the hub, and how many it may have (docs/protocols/spn.md, Data streams).

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use crate::{
    quic::{Endpoint, Handle, ReadOutcome, StreamId},
    spn::wire::preamble::Collector,
};

/// What a session's data stream is at the moment.
pub(crate) enum DataStream {
    /// Its preamble is not complete.
    Preamble(Collector),
    /// `sc01`: it may be open only because a later one is (RFC 9000 §2.1). It is a connection from its first own byte, or its end.
    Silent,
    /// It belongs to this connection.
    Relayed(u64),
}

/// The data streams of a session.
pub(crate) struct DataStreams {
    open: BTreeMap<StreamId, DataStream>,
    /// `sc01`: streams whose further bytes are discarded.
    discarded: BTreeSet<StreamId>,
    /// Streams that the session may have open.
    credit: u32,
    /// Streams that the hub has opened on it.
    opened: u64,
}

impl DataStreams {
    /// None yet; QUIC permits so many.
    pub(crate) fn new(credit: u32) -> Self {
        Self { open: BTreeMap::new(), discarded: BTreeSet::new(), credit, opened: 0 }
    }

    pub(crate) fn get(&self, stream: StreamId) -> Option<&DataStream> {
        self.open.get(&stream)
    }

    /// What collects the preamble of a stream.
    pub(crate) fn collector(&mut self, stream: StreamId) -> Option<&mut Collector> {
        match self.open.get_mut(&stream)? {
            DataStream::Preamble(collector) => Some(collector),
            DataStream::Silent | DataStream::Relayed(_) => None,
        }
    }

    pub(crate) fn insert(&mut self, stream: StreamId, what: DataStream) {
        self.open.insert(stream, what);
    }

    pub(crate) fn remove(&mut self, stream: StreamId) {
        self.open.remove(&stream);
    }

    pub(crate) fn clear(&mut self) {
        self.open.clear();
    }

    /// The hub has opened a stream.
    pub(crate) fn opened(&mut self, stream: StreamId) {
        self.opened = self.opened.max(stream.index() + 1);
    }

    /// How many streams the hub has opened.
    pub(crate) fn count_opened(&self) -> u64 {
        self.opened
    }

    /// Raises the credit while it is being used up, or will be by `more` streams; `max` is the most. The new credit, if it changed.
    pub(crate) fn grant(&mut self, more: usize, max: u32) -> Option<u32> {
        let used = (self.open.len() + self.discarded.len() + more) as u64 + 1;
        let before = self.credit;
        while used * 4 > u64::from(self.credit) * 3 && self.credit < max {
            self.credit = self.credit.saturating_mul(2).clamp(1, max);
        }
        (self.credit > before).then_some(self.credit)
    }

    /// What still comes on a stream is read and thrown away from now on.
    pub(crate) fn discard(&mut self, stream: StreamId) {
        self.discarded.insert(stream);
    }

    /// Reads a stream whose bytes are discarded, and says whether it is such a stream. A stream window is the most that there is at once.
    pub(crate) fn read_discarded(
        &mut self,
        quic: &mut Endpoint,
        session: Handle,
        stream: StreamId,
        scratch: &mut Vec<Bytes>,
    ) -> bool {
        if !self.discarded.contains(&stream) {
            return false;
        }
        match quic.read(session, stream, scratch, usize::MAX) {
            ReadOutcome::More | ReadOutcome::Blocked => {}
            ReadOutcome::Finished | ReadOutcome::Reset(_) | ReadOutcome::Gone => {
                self.discarded.remove(&stream);
            }
        }
        scratch.clear();
        true
    }

    /// Whether there are streams whose bytes are discarded.
    #[cfg(test)]
    pub(crate) fn has_discarded(&self) -> bool {
        !self.discarded.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        Epoch,
        quic::{Clock, EndpointConfig},
        testing::{first_instant, pki},
    };

    #[test]
    fn credit_is_doubled_while_three_quarters_are_used() {
        let mut streams = DataStreams::new(4);
        assert_eq!(streams.grant(2, 100), None, "three of four");
        streams.insert(StreamId::of_test(1), DataStream::Silent);
        assert_eq!(streams.grant(2, 100), Some(8));
        assert_eq!((streams.grant(2, 100), streams.grant(50, 20)), (None, Some(20)));
        assert_eq!(streams.grant(50, 20), None, "that is the most");
        assert_eq!(DataStreams::new(0).grant(0, 9), Some(2));
    }

    #[test]
    fn a_stream_is_collected_relayed_or_gone() {
        let (mut streams, id) = (DataStreams::new(4), StreamId::of_test(3));
        streams.insert(id, DataStream::Preamble(Collector::default()));
        assert!(streams.collector(id).is_some());
        streams.insert(id, DataStream::Relayed(7));
        assert!(streams.collector(id).is_none() && matches!(streams.get(id), Some(DataStream::Relayed(7))));
        streams.remove(id);
        assert!(streams.get(id).is_none());
        streams.opened(id);
        streams.opened(StreamId::of_test(1));
        assert_eq!(streams.count_opened(), 4);
    }

    #[test]
    fn a_discarded_stream_is_forgotten_when_its_session_is_gone() {
        let clock = Clock::new(Epoch { instant: first_instant(), unix: pki::UNIX });
        let mut quic = Endpoint::new(EndpointConfig::new([1; 32], clock), None);
        let (mut streams, session, id) = (DataStreams::new(4), Handle::of_test(1), StreamId::of_test(0));
        let mut read = |streams: &mut DataStreams| streams.read_discarded(&mut quic, session, id, &mut Vec::new());
        assert!(!read(&mut streams));
        streams.discard(id);
        assert!(streams.has_discarded() && read(&mut streams) && !streams.has_discarded());
    }
}
