//! The reset that waits for what was written before it (docs/protocols/spn.md, Endpoint connection, EPC-14 to EPC-16).
//!
//! RESET_STREAM destroys what is not acknowledged yet, and at the receiver what is not read yet. A service that answers and then breaks off has
//! nevertheless answered: its last bytes go first, for as long as the limit allows.

use std::time::{Duration, Instant};

use super::conn::{Conn, Parting};
use crate::spn::endpoint::{ConnId, Due, Endpoint, Work, carrier::Carrier, machines::connection::Event};

/// Without reports of a partner, nobody says what has been delivered: then what was written so long ago counts as delivered, and four round
/// trips at least,
const SETTLE_MIN: Duration = Duration::from_millis(500);
/// but no more than this.
const SETTLE_MAX: Duration = Duration::from_secs(2);

/// Whether the partner has what was written.
enum Delivery {
    Done,
    /// It will tell.
    Reported,
    /// It cannot tell: what was written then was the last.
    Since(Instant),
}

impl Endpoint {
    /// Breaks the connection off as [`reset`](Self::reset) does, but not before the partner has what was written, or
    /// [`Limits::parting`](crate::spn::endpoint::Limits::parting) has passed. The host is done with the connection: it neither reads nor writes any more.
    pub fn reset_delivered(&mut self, now: Instant, id: ConnId, code: u64) {
        let limit = self.config.limits.parting;
        let Some(conn) = self.conn_mut(id) else { return };
        conn.parting.get_or_insert(Parting { code, until: now + limit });
        self.part(now, id);
        self.settle(now);
    }

    /// Something may have been delivered of a connection that is to be reset.
    pub(super) fn note_delivered(&mut self, id: ConnId) {
        if let Some(conn) = self.conn_mut(id)
            && let Some(Parting { code, .. }) = conn.parting
            && matches!(conn.delivery(), Delivery::Done)
        {
            self.work.push_back(Work::Conn(id, Event::LocalAbort { code }));
        }
    }

    /// Resets the connection, or looks again later.
    pub(in crate::spn::endpoint) fn part(&mut self, now: Instant, id: ConnId) {
        let limit = self.config.limits.parting;
        let Some(conn) = self.conn_mut(id) else { return };
        let Some(Parting { code, until }) = conn.parting else { return };
        let (delivery, carrier) = (conn.delivery(), conn.carrier);
        let settle = carrier.map_or(SETTLE_MIN, |Carrier { handle, .. }| {
            (self.quic.rtt(handle).unwrap_or_default() * 4).clamp(SETTLE_MIN, SETTLE_MAX)
        });
        let Some(conn) = self.conn_mut(id) else { return };
        let is_paused = conn.machine.can_resume() && !conn.machine.is_connected();
        let due = match delivery {
            Delivery::Done => None,
            // Nothing can be delivered before the next stream, and the pause has a limit of its own.
            Delivery::Reported | Delivery::Since(_) if is_paused => Some(now + limit),
            Delivery::Reported => Some(until),
            Delivery::Since(written) => Some(until.min(written + settle)),
        };
        match due.filter(|due| *due > now) {
            Some(due) => self.deadlines.push(due, Due::Parting(id)),
            None => self.conn_event(now, id, Event::LocalAbort { code }),
        }
    }
}

impl Conn {
    fn delivery(&self) -> Delivery {
        let has_queued = !self.out.is_empty();
        if self.machine.is_looking_up() || self.machine.is_over() || self.machine.has_delivered() {
            return Delivery::Done;
        }
        match (&self.ledger, self.last_sent) {
            (Some(ledger), _) if ledger.kept() > 0 || has_queued || ledger.is_finished() => Delivery::Reported,
            (Some(_), _) => Delivery::Done,
            (None, Some(sent)) if !has_queued && !self.machine.is_finishing() => Delivery::Since(sent),
            // Its FIN will be acknowledged.
            (None, _) if has_queued || self.machine.is_finishing() => Delivery::Reported,
            (None, _) => Delivery::Done,
        }
    }
}
