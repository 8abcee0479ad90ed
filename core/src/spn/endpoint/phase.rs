//! How an endpoint's life goes: it runs, retires or ends (docs/protocols/spn.md, Endpoint session, EPS-10 to EPS-12; RES-36).

use std::time::{Duration, Instant};

use crate::spn::endpoint::machines::session::Event;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Running,
    /// A provider whose weight is 0: sessions that end are not begun again.
    Retired,
    /// It ends: sessions are begun only for connections that have lost theirs, until then.
    Ending {
        until: Instant,
    },
    Closing,
    Closed,
}

/// Where an endpoint stands in its life.
#[derive(Debug)]
pub(in crate::spn::endpoint) struct Phase {
    stage: Stage,
    /// [`Notice::Closed`](crate::spn::endpoint::Notice::Closed) was given.
    is_announced: bool,
}

/// An endpoint without sessions, which gets none any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::spn::endpoint) enum End {
    /// A provider that may come back.
    Retired,
    /// For good.
    Closed,
}

impl Phase {
    pub(in crate::spn::endpoint) fn new() -> Self {
        Self { stage: Stage::Running, is_announced: false }
    }

    /// Whether new connections may begin.
    pub(in crate::spn::endpoint) fn is_running(&self) -> bool {
        self.stage == Stage::Running
    }

    /// Whether it ends in good order: connections that look for a session count as waiting for one.
    pub(in crate::spn::endpoint) fn is_ending(&self) -> bool {
        matches!(self.stage, Stage::Ending { .. })
    }

    /// Whether it ends at once, or has ended.
    pub(in crate::spn::endpoint) fn is_over(&self) -> bool {
        matches!(self.stage, Stage::Closing | Stage::Closed)
    }

    /// Whether connections that lose their session now have no time left for another one.
    pub(in crate::spn::endpoint) fn is_out_of_time(&self, now: Instant) -> bool {
        match self.stage {
            Stage::Running | Stage::Retired => false,
            Stage::Ending { until } => until <= now,
            Stage::Closing | Stage::Closed => true,
        }
    }

    /// Whether sessions are to be made: a retired provider, or an endpoint that ends, needs one only to go on with what is paused.
    pub(in crate::spn::endpoint) fn wants_sessions(&self, now: Instant, paused: usize) -> bool {
        match self.stage {
            Stage::Running => true,
            Stage::Retired => paused > 0,
            Stage::Ending { until } => paused > 0 && now < until,
            Stage::Closing | Stage::Closed => false,
        }
    }

    /// What is left for a session that is made now, if the endpoint ends.
    pub(in crate::spn::endpoint) fn time_left(&self, now: Instant) -> Option<Duration> {
        match self.stage {
            Stage::Ending { until } => Some(until.saturating_duration_since(now)),
            Stage::Running | Stage::Retired | Stage::Closing | Stage::Closed => None,
        }
    }

    /// What a session that is made now has missed.
    pub(in crate::spn::endpoint) fn missed(&self) -> Option<Event> {
        match self.stage {
            Stage::Running | Stage::Closing | Stage::Closed => None,
            Stage::Retired => Some(Event::SetWeight { weight: 0 }),
            Stage::Ending { .. } => Some(Event::LocalShutdown),
        }
    }

    /// A provider gets another weight. Says whether it may.
    pub(in crate::spn::endpoint) fn set_weight(&mut self, weight: u16) -> bool {
        let may = matches!(self.stage, Stage::Running | Stage::Retired);
        if may {
            self.stage = if weight == 0 { Stage::Retired } else { Stage::Running };
            self.is_announced = false;
        }
        may
    }

    /// The endpoint is to end: in good order by `until`, unless this is the second signal, or at once. Says whether there is anything to end.
    pub(in crate::spn::endpoint) fn shut_down(&mut self, at_once: bool, until: Instant) -> bool {
        self.stage = match self.stage {
            Stage::Closed => return false,
            Stage::Running | Stage::Retired if !at_once => Stage::Ending { until },
            Stage::Running | Stage::Retired | Stage::Ending { .. } | Stage::Closing => Stage::Closing,
        };
        true
    }

    /// No session is left, and none will come. Says, once, what that means.
    pub(in crate::spn::endpoint) fn end(&mut self) -> Option<End> {
        if self.is_announced || self.stage == Stage::Running {
            return None;
        }
        self.is_announced = true;
        Some(match self.stage {
            Stage::Running | Stage::Retired => End::Retired,
            Stage::Ending { .. } | Stage::Closing | Stage::Closed => {
                self.stage = Stage::Closed;
                End::Closed
            }
        })
    }
}

impl std::fmt::Display for Phase {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self.stage {
            Stage::Running => "running",
            Stage::Retired => "retired",
            Stage::Ending { .. } => "ending",
            Stage::Closing => "closing",
            Stage::Closed => "closed",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::first_instant;

    #[test]
    fn a_retired_provider_says_so_once_and_may_come_back() {
        let now = first_instant();
        let mut phase = Phase::new();
        assert_eq!((phase.end(), phase.wants_sessions(now, 0)), (None, true));
        assert!(phase.set_weight(0));
        assert!(!phase.wants_sessions(now, 0) && phase.wants_sessions(now, 1));
        assert_eq!(phase.missed(), Some(Event::SetWeight { weight: 0 }));
        assert_eq!((phase.end(), phase.end()), (Some(End::Retired), None));
        assert!(phase.set_weight(7) && phase.is_running());
        assert!(phase.set_weight(0));
        assert_eq!(phase.end(), Some(End::Retired), "of each retirement");
    }

    #[test]
    fn an_endpoint_that_ends_has_its_time_and_a_second_signal_takes_it_away() {
        let now = first_instant();
        let until = now + Duration::from_secs(30);
        let mut phase = Phase::new();
        assert!(phase.shut_down(false, until) && phase.is_ending() && !phase.is_over());
        assert!(phase.wants_sessions(now, 1) && !phase.wants_sessions(now, 0) && !phase.wants_sessions(until, 1));
        assert!(!phase.is_out_of_time(now) && phase.is_out_of_time(until));
        assert_eq!(phase.time_left(now), Some(Duration::from_secs(30)));
        assert!(!phase.set_weight(7), "it is too late for another weight");
        assert!(phase.shut_down(false, until) && phase.is_over() && phase.is_out_of_time(now));
        assert_eq!((phase.end(), phase.end()), (Some(End::Closed), None));
        assert!(!phase.shut_down(true, until), "there is nothing left to end");
    }

    #[test]
    fn an_endpoint_that_is_stopped_ends_at_once() {
        let mut phase = Phase::new();
        phase.shut_down(true, first_instant());
        assert!(phase.is_over() && !phase.is_ending());
    }
}
