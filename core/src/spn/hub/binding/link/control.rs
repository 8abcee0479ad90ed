//! The control stream of a session, as the hub uses it: how fast it is read, and what waits to be written (docs/protocols/spn.md, Limits, LIM-16).

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use crate::{
    quic::{Endpoint, StreamId},
    spn::{
        ConnKey,
        wire::{
            code::SessionCode,
            control::{Control, ControlError},
            frame::{AckEntry, Frame, MAX_LIST},
        },
    },
};

/// So many times [`Limits::control_backlog`](crate::spn::hub::Limits) may wait for a session to read; then its control stream is taken for lost (LIM-16).
pub(crate) const UNREAD: usize = 16;
/// The control rate is counted over this time.
const SECOND: Duration = Duration::from_secs(1);

/// A session's control stream; without one, as on `sc01`, nothing is read or sent.
#[derive(Debug, Default)]
pub(crate) struct ControlLine {
    control: Option<Control>,
    gauge: Gauge,
    /// It is left unread until its peer has read our answers.
    is_paused: bool,
    /// It is to be flushed, and its owner knows.
    is_queued: bool,
    /// The newest report for each of its connections, as long as it waits.
    reports: BTreeMap<ConnKey, AckEntry>,
    /// What its partners have caused while it did not read: of each kind of frame the newest for each connection.
    latest: BTreeMap<ConnKey, Vec<Frame>>,
}

/// Control frames read in this second.
#[derive(Debug, Default)]
struct Gauge {
    second: Option<Instant>,
    count: u32,
    /// A reminder for the next second is set.
    is_reminded: bool,
}

/// What was found when the next frame was to be read.
#[derive(Debug)]
pub(crate) enum Next {
    Frame(Frame),
    /// None has come, or it is left unread.
    Nothing,
    /// Its rate is used up: it is to be read again at that time.
    Later(Instant),
    /// The stream is lost.
    Lost {
        code: SessionCode,
        error: ControlError,
    },
}

/// How much waits after a flush.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Backlog {
    /// So little that the session may be read on.
    Small {
        /// It was left unread until now.
        was_paused: bool,
    },
    /// As long as so much waits, the session is not read. `Writable` is the next sign.
    Large,
    /// So many bytes that the stream is taken for lost.
    Unread(usize),
}

impl Gauge {
    /// Whether another frame may be read in this second, of at most `rate`. If not: when to read again, if that is not arranged yet.
    fn may_read(&mut self, now: Instant, rate: u32) -> Result<(), Option<Instant>> {
        let next = *self.second.get_or_insert(now) + SECOND;
        if now >= next {
            (self.second, self.count) = (Some(now), 0);
        } else if self.count >= rate {
            let is_new = !std::mem::replace(&mut self.is_reminded, true);
            return Err(is_new.then_some(next));
        }
        Ok(())
    }
}

impl ControlLine {
    /// The session has opened its control stream.
    pub(crate) fn open(&mut self, control: Control) {
        self.control = Some(control);
    }

    /// Whether a stream is the control stream.
    pub(crate) fn is_on(&self, stream: StreamId) -> bool {
        self.control.as_ref().is_some_and(|control| control.stream() == stream)
    }

    /// Bytes that wait for the session to read.
    pub(crate) fn backlog(&self) -> usize {
        self.control.as_ref().map_or(0, Control::backlog)
    }

    /// It has left so much unread that no more is put on it by others.
    pub(crate) fn is_choked(&self, limit: usize) -> bool {
        !self.latest.is_empty() || self.backlog() > limit
    }

    /// The next frame, at most `rate` a second, and none while more than `backlog` bytes wait.
    pub(crate) fn next_frame(&mut self, now: Instant, quic: &mut Endpoint, rate: u32, backlog: usize) -> Next {
        let Some(control) = &mut self.control else { return Next::Nothing };
        if control.backlog() > backlog {
            self.is_paused = true;
            return Next::Nothing;
        }
        if let Err(again) = self.gauge.may_read(now, rate) {
            return again.map_or(Next::Nothing, Next::Later);
        }
        match control.next_frame(quic) {
            Ok(Some(frame)) => {
                self.gauge.count += 1;
                Next::Frame(frame)
            }
            Ok(None) => Next::Nothing,
            Err(error @ ControlError::Frame(_)) => Next::Lost { code: SessionCode::MALFORMED, error },
            Err(error @ ControlError::Ended) => Next::Lost { code: SessionCode::CONTROL_LOST, error },
        }
    }

    /// The time of [`Next::Later`] has come.
    pub(crate) fn reminded(&mut self) {
        self.gauge.is_reminded = false;
    }

    /// Queues a frame. Says whether it is to be flushed, and its owner does not know yet.
    #[must_use]
    pub(crate) fn send(&mut self, frame: &Frame) -> bool {
        let Some(control) = &mut self.control else { return false };
        control.send(frame);
        self.queue()
    }

    /// Queues a frame that the partner has caused. A session that leaves more than `limit` bytes unread keeps only the newest of each kind for each
    /// connection: whatever the partner sends, it cannot fill another one's control stream. The result is that of [`send`](Self::send).
    #[must_use]
    pub(crate) fn send_latest(&mut self, limit: usize, conn: ConnKey, frame: Frame) -> bool {
        if !self.is_choked(limit) {
            return self.send(&frame);
        }
        let waiting = self.latest.entry(conn).or_default();
        waiting.retain(|older| std::mem::discriminant(older) != std::mem::discriminant(&frame));
        waiting.push(frame);
        self.queue()
    }

    /// Queues a report; a newer one for the same connection takes its place, so that no reader can make the queue grow. The result is that of
    /// [`send`](Self::send).
    #[must_use]
    pub(crate) fn send_report(&mut self, entry: AckEntry) -> bool {
        let waiting = self.reports.entry(entry.conn).or_insert_with(|| entry.clone());
        waiting.received = waiting.received.max(entry.received);
        waiting.flags |= entry.flags;
        self.queue()
    }

    fn queue(&mut self) -> bool {
        !std::mem::replace(&mut self.is_queued, true)
    }

    /// Sends what has gathered, as much as the session takes.
    ///
    /// # Errors
    /// The stream is lost.
    pub(crate) fn flush(&mut self, quic: &mut Endpoint) -> Result<(), ControlError> {
        self.is_queued = false;
        let Some(control) = &mut self.control else { return Ok(()) };
        control.flush(quic)?;
        while control.backlog() == 0
            && let Some((_, frames)) = self.latest.pop_first()
        {
            frames.iter().for_each(|frame| control.send(frame));
            control.flush(quic)?;
        }
        if control.backlog() == 0 && !self.reports.is_empty() {
            let reports: Vec<_> = std::mem::take(&mut self.reports).into_values().collect();
            for entries in reports.chunks(MAX_LIST as usize) {
                control.send(&Frame::DataAck(entries.to_vec()));
            }
            control.flush(quic)?;
        }
        Ok(())
    }

    /// What follows from the bytes that still wait after a flush, where `limit` is the most for which the session is read.
    pub(crate) fn after_flush(&mut self, limit: usize) -> Backlog {
        let backlog = self.backlog();
        if backlog <= limit {
            Backlog::Small { was_paused: std::mem::take(&mut self.is_paused) }
        } else if backlog > limit.saturating_mul(UNREAD) {
            Backlog::Unread(backlog)
        } else {
            Backlog::Large
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spn::wire::{code::StreamCode, frame::Flags};
    use crate::{
        Epoch,
        quic::{Clock, EndpointConfig, Handle},
        testing::{first_instant, pki},
    };

    const KEY: ConnKey = ConnKey([7; 16]);

    fn line() -> (ControlLine, Endpoint) {
        let clock = Clock::new(Epoch { instant: first_instant(), unix: pki::UNIX });
        let mut quic = Endpoint::new(EndpointConfig::new([1; 32], clock), None);
        let mut line = ControlLine::default();
        line.open(Control::new(&mut quic, Handle::of_test(1), StreamId::of_test(0)));
        (line, quic)
    }

    #[test]
    fn a_session_is_read_at_its_rate_and_reminded_once() {
        let (now, mut gauge) = (first_instant(), Gauge::default());
        for _ in 0..2 {
            assert_eq!(gauge.may_read(now, 2), Ok(()));
            gauge.count += 1;
        }
        assert_eq!(gauge.may_read(now, 2), Err(Some(now + SECOND)));
        assert_eq!(gauge.may_read(now, 2), Err(None), "that is arranged");
        assert_eq!(gauge.may_read(now + SECOND, 2), Ok(()));
    }

    #[test]
    fn a_line_without_stream_sends_nothing() {
        let mut line = ControlLine::default();
        assert!(!line.send(&Frame::Drained));
        assert!(!line.is_on(StreamId::of_test(0)) && !line.is_choked(0));
    }

    #[test]
    fn a_choked_line_keeps_the_newest_of_each_kind() {
        let (mut line, _) = line();
        assert!(line.send(&Frame::CloseAck { conn: KEY }) && !line.send(&Frame::CloseAck { conn: KEY }));
        let before = line.backlog();
        for code in 0..3 {
            assert!(!line.send_latest(0, KEY, Frame::CloseReq { conn: KEY, code: StreamCode(code) }));
        }
        let _ = line.send_latest(usize::MAX, KEY, Frame::PauseReq { conn: KEY });
        assert_eq!(line.backlog(), before, "it stays choked until they are on their way");
        let newest = vec![Frame::CloseReq { conn: KEY, code: StreamCode(2) }, Frame::PauseReq { conn: KEY }];
        assert_eq!(line.latest.get(&KEY), Some(&newest));
    }

    #[test]
    fn what_waits_is_flushed_in_order_and_reports_last() {
        let (mut line, mut quic) = line();
        let _ = line.send_report(AckEntry { conn: KEY, received: 5, flags: Flags(1) });
        let _ = line.send_report(AckEntry { conn: KEY, received: 3, flags: Flags(2) });
        assert_eq!(line.reports.values().collect::<Vec<_>>(), [&AckEntry { conn: KEY, received: 5, flags: Flags(3) }]);
        assert_eq!(line.flush(&mut quic), Ok(()));
        assert!(line.reports.is_empty() && line.send(&Frame::Drained), "it may be queued again");
    }

    #[test]
    fn a_line_that_is_not_read_is_not_heard_and_at_last_lost() {
        let (mut line, mut quic) = line();
        let _ = line.send(&Frame::CloseAck { conn: KEY });
        let backlog = line.backlog();
        assert!(matches!(line.next_frame(first_instant(), &mut quic, 9, backlog - 1), Next::Nothing));
        assert_eq!(line.after_flush(backlog - 1), Backlog::Large);
        assert_eq!(line.after_flush(backlog), Backlog::Small { was_paused: true });
        assert_eq!(line.after_flush(backlog), Backlog::Small { was_paused: false });
        assert_eq!(line.after_flush(0), Backlog::Unread(backlog));
    }
}
