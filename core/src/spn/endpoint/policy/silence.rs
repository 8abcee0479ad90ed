//! Silence: a hub that says nothing is asked for a sign of life (docs/protocols/spn.md, Pause and resume, RES-22).

use std::time::{Duration, Instant};

use crate::spn::Role;

/// An endpoint whose hub has said nothing for so long asks for a sign of life: a provider while it is in use, a consumer while what it has
/// sent may not have arrived. A hub that was restarted answers with a stateless reset, and the connections go on. QUIC's own probes come later and
/// later.
const SILENCE: Duration = Duration::from_millis(500);
/// A provider counts as in use for so long after its last connection: a consumer may look for it. Thousands may be idle, so these ask only
/// when not even keep-alives are answered,
const IN_USE: Duration = Duration::from_secs(10);
/// for so long after one was due (RES-22).
const OVERDUE: Duration = Duration::from_secs(1);

/// Whether the hub of one session says anything.
#[derive(Debug, Default)]
pub(in crate::spn::endpoint) struct Silence {
    /// Datagrams that had come at the last look, while anybody looks.
    heard: Option<u64>,
    /// When there were more than at the look before,
    heard_at: Option<Instant>,
    /// and when there was a reason to look.
    used_at: Option<Instant>,
}

/// What a look at a session knows of it.
#[derive(Debug, Clone, Copy)]
pub(in crate::spn::endpoint) struct Sight {
    pub(in crate::spn::endpoint) role: Role,
    /// Datagrams that have come.
    pub(in crate::spn::endpoint) heard: u64,
    /// What a consumer has sent may not have arrived at its partner.
    pub(in crate::spn::endpoint) waits: bool,
    /// Connections use the session, or wait for one.
    pub(in crate::spn::endpoint) in_use: bool,
    /// How often QUIC sends keep-alives.
    pub(in crate::spn::endpoint) keep_alive: Duration,
}

/// What is to be done after a look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::spn::endpoint) enum Look {
    /// Nobody looks, or need look any more.
    Over,
    /// Look again at that time, and before it, maybe, ask for a sign of life.
    Again { at: Instant, asks: bool },
}

impl Silence {
    /// Something is being sent, or a provider's session is up: from now on silence is looked for. `heard` datagrams have come. When to look, if
    /// nobody looks yet.
    pub(in crate::spn::endpoint) fn begin(&mut self, now: Instant, heard: impl FnOnce() -> u64) -> Option<Instant> {
        self.used_at = Some(now);
        if self.heard.is_some() {
            return None;
        }
        self.heard_at = Some(now);
        self.heard = Some(heard());
        Some(now + SILENCE)
    }

    /// Whether anybody looks.
    pub(in crate::spn::endpoint) fn is_looked_for(&self) -> bool {
        self.heard.is_some()
    }

    /// Looks whether the hub has said anything since the last look.
    pub(in crate::spn::endpoint) fn look(&mut self, now: Instant, sight: Sight) -> Look {
        let Sight { role, heard, waits, in_use, keep_alive } = sight;
        let Some(before) = self.heard else { return Look::Over };
        // The hub's QUIC may have had it all, and its partner nothing.
        if role == Role::Consumer && heard > before && !waits {
            self.heard = None;
            return Look::Over;
        }
        if in_use {
            self.used_at = Some(now);
        }
        let since = |at: Option<Instant>| at.map_or(Duration::ZERO, |at| now.saturating_duration_since(at));
        let is_idle = role == Role::Provider && since(self.used_at) >= IN_USE;
        if heard > before {
            self.heard_at = Some(now);
        }
        let asks = heard <= before && (!is_idle || since(self.heard_at) >= keep_alive + OVERDUE);
        self.heard = Some(heard);
        Look::Again { at: now + SILENCE, asks }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::first_instant;

    fn sight(role: Role, heard: u64) -> Sight {
        Sight { role, heard, waits: true, in_use: true, keep_alive: Duration::from_secs(5) }
    }

    #[test]
    fn a_consumer_asks_while_what_it_has_sent_may_not_have_arrived() {
        let now = first_instant();
        let mut silence = Silence::default();
        assert_eq!(silence.begin(now, || 5), Some(now + SILENCE));
        assert_eq!(silence.begin(now, || unreachable!("it is looked for already")), None);
        let at = now + SILENCE;
        assert_eq!(silence.look(now, sight(Role::Consumer, 5)), Look::Again { at, asks: true });
        assert_eq!(silence.look(now, sight(Role::Consumer, 6)), Look::Again { at, asks: false });
        let arrived = Sight { waits: false, ..sight(Role::Consumer, 6) };
        assert_eq!(silence.look(now, arrived), Look::Again { at, asks: true }, "the hub has said nothing since");
        assert_eq!(silence.look(now, Sight { heard: 7, ..arrived }), Look::Over);
        assert!(!silence.is_looked_for());
        assert_eq!(silence.look(now, arrived), Look::Over);
    }

    #[test]
    fn an_idle_provider_asks_when_not_even_keep_alives_are_answered() {
        let now = first_instant();
        let mut silence = Silence::default();
        silence.begin(now, || 5);
        let idle = |heard| Sight { in_use: false, ..sight(Role::Provider, heard) };
        let mut asks = |after: u64, sight| match silence.look(now + Duration::from_millis(after), sight) {
            Look::Again { asks, .. } => asks,
            Look::Over => panic!("a provider looks for as long as its session is up"),
        };
        assert!(asks(9_900, idle(5)), "a consumer may look for it");
        assert!(!asks(10_000, idle(6)));
        assert!(!asks(15_900, idle(6)));
        assert!(asks(16_000, idle(6)));
        assert!(asks(16_500, sight(Role::Provider, 6)), "it is in use");
    }
}
