//! The session on the hub for the explorer.

use super::{Config, Event, HubSession, State};
use crate::{
    machine::{Describe, Inspect, Machine, Timer as _},
    spn::wire::code,
};

impl Inspect for HubSession {
    const NAME: &'static str = "spn.hub_session";

    fn state(&self) -> &'static str {
        match self.state {
            State::Handshaking => "Handshaking",
            State::AwaitOpen => "AwaitOpen",
            State::Held { .. } => "Held",
            State::Early { .. } => "Early",
            State::Active { .. } => "Active",
            State::Retiring { .. } => "Retiring",
            State::Draining { .. } => "Draining",
            State::Closing { .. } => "Closing",
            State::Closed => "Closed",
        }
    }

    fn due(&self) -> Option<&'static str> {
        self.timers.next().map(|(_, timer)| timer.name())
    }

    fn is_overrun(&self) -> bool {
        self.actions.is_overrun()
    }
}

impl Describe for HubSession {
    const ABOUT: &'static str = "a session as its hub sees it: admission, weight, drain, end";
    type Config = Config;

    fn start(config: Config, _seed: u64) -> Self {
        Self::new(config)
    }

    fn fingerprint(&self) -> String {
        format!("{:?} {} {:?}", self.state, self.drained, self.timers.armed().collect::<Vec<_>>())
    }

    fn alphabet() -> Vec<Event> {
        use Event as E;
        vec![
            E::ExtendedHandshake,
            E::LegacyAdmitted,
            E::LegacyRefused { code: code::NOT_ENTITLED },
            E::LegacyOccupied,
            E::OpenAdmitted { weight: 100 },
            E::OpenAdmitted { weight: 0 },
            E::OpenRefused { code: code::SERVICE_UNKNOWN },
            E::OpenOccupied { weight: 100 },
            E::OpenEarly { weight: 100 },
            E::ProviderCame,
            E::IncumbentAlive,
            E::IncumbentGone,
            E::ControlViolation { code: code::MALFORMED },
            E::SetWeight { weight: 0 },
            E::SetWeight { weight: 50 },
            E::NotifyShutdown,
            E::Drained,
            E::EntitlementLost,
            E::Replaced,
            E::Idle,
            E::HubDraining { deadline_ms: 30_000, resumable: true },
            E::HubStopping,
            E::SessionClose { code: code::OK },
            E::SessionClose { code: code::PAUSED },
            E::ClosedByPeer { code: code::OK },
            E::Lost,
        ]
    }

    fn check(&self) -> Result<(), String> {
        let timed = match self.state {
            State::AwaitOpen | State::Held { .. } | State::Early { .. } | State::Closing { .. } => true,
            // QUIC's own handshake and idle timers end the others.
            State::Handshaking
            | State::Active { .. }
            | State::Retiring { .. }
            | State::Draining { .. }
            | State::Closed => false,
        };
        if self.poll_timeout().is_some() != timed {
            return Err(format!("{}: deadline is {:?}", self.state(), self.due()));
        }
        Ok(())
    }
}
