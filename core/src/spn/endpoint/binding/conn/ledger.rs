//! The bytes of one resumable connection at one end, over all its legs (docs/protocols/spn.md, Pause and resume, RES-4 to RES-11).
//!
//! Payload is counted from the start of the connection. Of what we send, everything from *acknowledged* on is kept, large pieces as the same [`Bytes`]; of
//! what we receive, the local side gets each byte once, whatever a new leg repeats.

use std::time::{Duration, Instant};

use bytes::{Buf, Bytes};

use crate::spn::{
    ConnKey,
    endpoint::{config::Limits, policy::retain::Retain},
    flow::kept::{Kept, OF_READS},
    wire::{
        code::StreamCode,
        frame::{Flags, ResumeReq},
        preamble::Preamble,
    },
};

/// A receiver reports when the local side has taken so many bytes since the last report,
const REPORT_BYTES: u64 = 64 * 1024;
/// or so long after the first unreported one.
pub(super) const REPORT_AFTER: Duration = Duration::from_millis(100);

/// The two ends disagree about what has been sent: the connection is broken (code 0x23).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::spn::endpoint) struct Mismatch;

/// How far a resumable connection is, in bytes of payload since it began, over all its legs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Number of the present leg, or of the last one.
    pub generation: u32,
    /// Given to streams, at least once.
    pub sent: u64,
    /// Taken by the partner's local side, as it has reported; what was sent from there on is kept.
    pub acknowledged: u64,
    /// Taken by the local side here.
    pub received: u64,
}

/// Offsets of both directions, and what is kept of ours.
#[derive(Debug, Clone)]
pub(in crate::spn::endpoint) struct Ledger {
    /// Number of the last leg.
    generation: u32,
    sent: u64,
    acknowledged: u64,
    kept: Kept,
    /// How much may be kept.
    retain: Retain,
    finished: bool,
    received: u64,
    /// What the present leg repeats.
    repeated: u64,
    over: bool,
    reported: u64,
    is_over_reported: bool,
}

impl Ledger {
    pub(in crate::spn::endpoint) fn new(limits: &Limits) -> Self {
        Self {
            generation: 0,
            sent: 0,
            acknowledged: 0,
            kept: Kept::default(),
            retain: Retain::new(limits),
            finished: false,
            received: 0,
            repeated: 0,
            over: false,
            reported: 0,
            is_over_reported: false,
        }
    }

    /// How much may be kept at most.
    pub(in crate::spn::endpoint) fn most(&self) -> u64 {
        self.retain.most()
    }

    /// Number of the last leg.
    pub(in crate::spn::endpoint) fn generation(&self) -> u32 {
        self.generation
    }

    /// What is kept has just been sent.
    pub(in crate::spn::endpoint) fn note_sent(&mut self, now: Instant) {
        self.retain.sent(now, self.sent);
    }

    /// What had been acknowledged up to `before` has been acknowledged further.
    pub(in crate::spn::endpoint) fn note_acknowledged(&mut self, now: Instant, before: u64) {
        self.retain.acknowledged(now, self.acknowledged, self.acknowledged - before);
    }

    /// Bytes that are kept.
    pub(in crate::spn::endpoint) fn kept(&self) -> u64 {
        self.sent - self.acknowledged
    }

    #[cfg(test)]
    fn received(&self) -> u64 {
        self.received
    }

    #[cfg(test)]
    fn sent(&self) -> u64 {
        self.sent
    }

    pub(in crate::spn::endpoint) fn acknowledged(&self) -> u64 {
        self.acknowledged
    }

    pub(in crate::spn::endpoint) fn progress(&self) -> Progress {
        let &Self { generation, sent, acknowledged, received, .. } = self;
        Progress { generation, sent, acknowledged, received }
    }

    /// Keeps what has just been given to a stream for the first time.
    pub(in crate::spn::endpoint) fn keep(&mut self, chunks: impl IntoIterator<Item = Bytes>) {
        for chunk in chunks {
            self.sent += chunk.len() as u64;
            self.kept.push(chunk, OF_READS);
        }
    }

    /// Whether our direction ends at what has been sent.
    pub(in crate::spn::endpoint) fn is_finished(&self) -> bool {
        self.finished
    }

    /// Our direction ends at what has been sent.
    pub(in crate::spn::endpoint) fn finish(&mut self) {
        self.finished = true;
    }

    /// The partner's local side has taken our bytes up to there. A lower value is only late.
    pub(in crate::spn::endpoint) fn acknowledge(&mut self, offset: u64) -> Result<(), Mismatch> {
        if offset > self.sent {
            return Err(Mismatch);
        }
        let fresh = usize::try_from(offset.saturating_sub(self.acknowledged)).unwrap_or(usize::MAX);
        self.acknowledged += self.kept.advance(fresh) as u64;
        Ok(())
    }

    /// Our direction is over for the partner: nothing of it will be asked for again.
    pub(in crate::spn::endpoint) fn release(&mut self) {
        self.kept.clear();
        self.acknowledged = self.sent;
    }

    /// What a new leg begins with: everything from *acknowledged* on.
    pub(in crate::spn::endpoint) fn again(&mut self) -> impl Iterator<Item = Bytes> {
        self.kept.all()
    }

    /// Consumer: the next leg is opened.
    pub(in crate::spn::endpoint) fn open_leg(&mut self) {
        self.generation = self.generation.saturating_add(1);
    }

    /// Provider: a leg of that number, which is higher than the last one's, has come; the partner begins at `offset`.
    pub(in crate::spn::endpoint) fn take_leg(&mut self, generation: u32, offset: u64) -> Result<(), Mismatch> {
        self.begin_leg(offset)?;
        self.generation = generation;
        Ok(())
    }

    /// A new leg, on which the partner begins at `offset`. What was read of it before is skipped.
    pub(in crate::spn::endpoint) fn begin_leg(&mut self, offset: u64) -> Result<(), Mismatch> {
        if offset > self.received && !self.over {
            return Err(Mismatch);
        }
        self.repeated = self.received.saturating_sub(offset);
        Ok(())
    }

    /// Takes chunks off a leg: leaves in them what is new, and says how many bytes that is.
    pub(in crate::spn::endpoint) fn take(&mut self, chunks: &mut [Bytes]) -> u64 {
        let before = self.received;
        for chunk in chunks {
            let skip = usize::try_from(self.repeated).unwrap_or(usize::MAX).min(chunk.len());
            chunk.advance(skip);
            self.repeated -= skip as u64;
            self.received += chunk.len() as u64;
        }
        self.received - before
    }

    /// The partner's direction is over here: its end was shown, or nobody reads on.
    pub(in crate::spn::endpoint) fn end(&mut self) {
        self.over = true;
    }

    /// Whether there is anything to report, and whether it cannot wait.
    pub(in crate::spn::endpoint) fn wants_report(&self) -> Option<bool> {
        let fresh = self.received - self.reported;
        let ended = self.over && !self.is_over_reported;
        (fresh > 0 || ended).then_some(ended || fresh >= REPORT_BYTES)
    }

    /// The values of a report, which is on its way now.
    pub(in crate::spn::endpoint) fn report(&mut self) -> (u64, Flags) {
        self.reported = self.received;
        self.is_over_reported = self.over;
        (self.received, Flags::OVER.only_if(self.over))
    }

    /// A report may have died with its session: it is to be repeated.
    pub(in crate::spn::endpoint) fn doubt_reports(&mut self) {
        self.reported = 0;
        self.is_over_reported = false;
    }

    /// The flags of RESUME_REQ and RESUME.
    fn flags(&self) -> Flags {
        (Flags::FINISHED.only_if(self.finished)) | Flags::OVER.only_if(self.over)
    }

    /// What RESUME_REQ says of this end.
    pub(in crate::spn::endpoint) fn request(&self, conn: ConnKey) -> ResumeReq {
        ResumeReq {
            conn,
            generation: self.generation.into(),
            received: self.received,
            sent: self.sent,
            flags: self.flags(),
            code: StreamCode::OK,
        }
    }

    /// What a new leg begins with.
    pub(in crate::spn::endpoint) fn preamble(&self, conn: ConnKey) -> Preamble {
        Preamble::Resume {
            conn,
            flags: self.flags(),
            generation: self.generation,
            offset: self.acknowledged,
            received: self.received,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::*;

    fn ledger() -> Ledger {
        Ledger::new(&Limits::default())
    }

    fn bytes(from: u64, length: u64) -> Bytes {
        (from..from + length).map(|n| (n * 7 + n / 256) as u8).collect()
    }

    #[test]
    fn acknowledged_bytes_are_let_go_and_others_are_not() {
        let mut ledger = ledger();
        ledger.keep([bytes(0, 10), Bytes::new(), bytes(10, 10)]);
        assert_eq!((ledger.sent(), ledger.kept()), (20, 20));
        ledger.acknowledge(13).unwrap();
        assert_eq!(ledger.again().collect::<Vec<_>>(), [bytes(13, 7)]);
        // Late, and harmless.
        ledger.acknowledge(5).unwrap();
        assert_eq!(ledger.acknowledged(), 13);
        assert_eq!(ledger.acknowledge(21), Err(Mismatch));
        assert_eq!(ledger.kept(), 7);
        ledger.release();
        assert_eq!((ledger.kept(), ledger.again().count()), (0, 0));
    }

    #[test]
    fn a_leg_that_leaves_a_gap_is_refused() {
        let mut ledger = ledger();
        ledger.take(&mut [bytes(0, 10)]);
        assert_eq!(ledger.begin_leg(11), Err(Mismatch));
        ledger.begin_leg(10).unwrap();
        ledger.end();
        ledger.begin_leg(11).unwrap();
    }

    #[test]
    fn reports_are_due_after_64_kib_at_the_end_and_after_a_loss() {
        let mut ledger = ledger();
        assert_eq!(ledger.wants_report(), None);
        ledger.take(&mut [bytes(0, 1)]);
        assert_eq!(ledger.wants_report(), Some(false));
        ledger.take(&mut [bytes(1, REPORT_BYTES - 1)]);
        assert_eq!(ledger.wants_report(), Some(true));
        assert_eq!((ledger.report(), ledger.wants_report()), ((REPORT_BYTES, Flags::NONE), None));
        ledger.end();
        assert_eq!(ledger.wants_report(), Some(true));
        assert_eq!((ledger.report(), ledger.wants_report()), ((REPORT_BYTES, Flags::OVER), None));
        ledger.doubt_reports();
        assert_eq!(ledger.wants_report(), Some(true));
        ledger.finish();
        assert_eq!(ledger.flags(), Flags::FINISHED | Flags::OVER);
    }

    /// What happens to one direction of a connection.
    #[derive(Debug, Clone)]
    enum Step {
        Send(u64),
        Arrive(usize),
        Report,
        /// The leg is lost, with what is in flight; the next begins with values that may be old.
        Lose {
            stale: bool,
        },
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            (0u64..5_000).prop_map(Step::Send),
            (0usize..5).prop_map(Step::Arrive),
            Just(Step::Report),
            any::<bool>().prop_map(|stale| Step::Lose { stale }),
        ];
        proptest::collection::vec(step, 0..80)
    }

    proptest! {
        #[test]
        fn every_byte_arrives_once_and_in_order(steps in steps()) {
            let (mut sender, mut receiver) = (ledger(), ledger());
            let mut flight = VecDeque::new();
            let mut got = Vec::new();
            let mut last = 0;
            let finale = [Step::Lose { stale: true }, Step::Arrive(usize::MAX), Step::Report];
            for step in steps.into_iter().chain(finale) {
                match step {
                    Step::Send(length) => {
                        let chunk = bytes(sender.sent(), length);
                        flight.push_back(chunk.clone());
                        sender.keep([chunk]);
                    }
                    Step::Arrive(count) => {
                        let mut chunks: Vec<_> = (0..count.min(flight.len())).filter_map(|_| flight.pop_front()).collect();
                        let fresh = receiver.take(&mut chunks);
                        prop_assert_eq!(fresh, chunks.iter().map(|chunk| chunk.len() as u64).sum::<u64>());
                        got.extend(chunks.concat());
                    }
                    Step::Report => {
                        last = receiver.report().0;
                        sender.acknowledge(last).unwrap();
                    }
                    Step::Lose { stale } => {
                        sender.acknowledge(if stale { last } else { receiver.received() }).unwrap();
                        receiver.begin_leg(sender.acknowledged()).unwrap();
                        flight = sender.again().collect();
                    }
                }
                prop_assert!(sender.acknowledged() <= receiver.received() && receiver.received() <= sender.sent());
                prop_assert_eq!(sender.kept(), sender.again().map(|chunk| chunk.len() as u64).sum::<u64>());
            }
            prop_assert_eq!(&got, &bytes(0, sender.sent()));
            prop_assert_eq!(sender.kept(), 0);
        }
    }
}
