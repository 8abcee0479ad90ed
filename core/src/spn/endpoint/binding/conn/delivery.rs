//! The reset that waits for what was written before it (docs/protocols/spn.md, Endpoint connection, EPC-14 to EPC-16).
//!
//! RESET_STREAM destroys what is not acknowledged yet, and at the receiver what is not read yet. A service that answers and then breaks off has
//! nevertheless answered: its last bytes go first, for as long as the limit allows.

use std::time::{Duration, Instant};

use super::Conn;
use crate::spn::wire::code::StreamCode;

/// Without reports of a partner, nobody says what has been delivered: then what was written so long ago counts as delivered, and four round
/// trips at least,
const SETTLE_MIN: Duration = Duration::from_millis(500);
/// but no more than this.
const SETTLE_MAX: Duration = Duration::from_secs(2);

/// A connection that is to be reset.
#[derive(Debug, Clone, Copy)]
pub(super) struct Parting {
    code: StreamCode,
    /// Then at the latest.
    until: Instant,
}

/// Whether the partner has what was written.
enum Delivery {
    Done,
    /// Its report will say so.
    Reported,
    /// No report will come: what was written then was the last.
    Since(Instant),
}

/// When a connection that is to be reset is reset.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::spn::endpoint) enum Reset {
    /// Now, with this code.
    Now(StreamCode),
    /// Not before that time, unless its partner reports.
    At(Instant),
}

impl Conn {
    /// It is to be reset, but not before the partner has what was written, or that time.
    pub(in crate::spn::endpoint) fn part(&mut self, code: StreamCode, until: Instant) {
        self.parting.get_or_insert(Parting { code, until });
    }

    /// Bytes of the host were given to its stream.
    pub(in crate::spn::endpoint) fn note_sent(&mut self, now: Instant) {
        self.last_sent = Some(now);
    }

    /// The code with which it is to be reset, if it is and the partner has what was written.
    pub(in crate::spn::endpoint) fn delivered(&self) -> Option<StreamCode> {
        let Parting { code, .. } = self.parting?;
        matches!(self.delivery(), Delivery::Done).then_some(code)
    }

    /// When it is reset, if it is to be: the round-trip time is its session's, and a pause is looked at again after `pause`.
    pub(in crate::spn::endpoint) fn due_reset(
        &self,
        now: Instant,
        rtt: Option<Duration>,
        pause: Duration,
    ) -> Option<Reset> {
        let Parting { code, until } = self.parting?;
        let settle = rtt.map_or(SETTLE_MIN, |rtt| (rtt * 4).clamp(SETTLE_MIN, SETTLE_MAX));
        let is_paused = self.machine().can_resume() && !self.machine().is_connected();
        let due = match self.delivery() {
            Delivery::Done => None,
            // Nothing can be delivered before the next stream, and the pause has a limit of its own.
            Delivery::Reported | Delivery::Since(_) if is_paused => Some(now + pause),
            Delivery::Reported => Some(until),
            Delivery::Since(written) => Some(until.min(written + settle)),
        };
        Some(due.filter(|due| *due > now).map_or(Reset::Now(code), Reset::At))
    }

    fn delivery(&self) -> Delivery {
        let (machine, has_queued) = (self.machine(), !self.output.is_empty());
        if machine.is_looking_up() || machine.is_over() || machine.has_delivered() {
            return Delivery::Done;
        }
        match (&self.ledger, self.last_sent) {
            (Some(ledger), _) if ledger.kept() > 0 || has_queued || ledger.is_finished() => Delivery::Reported,
            (Some(_), _) => Delivery::Done,
            (None, Some(sent)) if !has_queued && !machine.is_finishing() => Delivery::Since(sent),
            // Its FIN will be acknowledged.
            (None, _) if has_queued || machine.is_finishing() => Delivery::Reported,
            (None, _) => Delivery::Done,
        }
    }
}
