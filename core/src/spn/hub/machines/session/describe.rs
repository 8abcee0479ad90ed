//! The session on the hub for the explorer.

use std::time::Duration;

use super::{Config, Event, HubSession, State};
use crate::{
    machine::{Describe, Inspect as _, Machine as _},
    spn::wire::code::SessionCode,
};

impl Describe for HubSession {
    const ABOUT: &'static str = "a session as its hub sees it: admission, weight, drain, end";
    type Config = Config;

    fn start(config: Config, _seed: u64) -> Self {
        Self::new(config)
    }

    fn fingerprint(&self) -> String {
        self.parts.fingerprint()
    }

    fn alphabet() -> Vec<Event> {
        use Event as E;
        vec![
            E::ExtendedHandshake,
            E::LegacyAdmitted,
            E::LegacyRefused { code: SessionCode::NOT_ENTITLED },
            E::LegacyOccupied,
            E::OpenAdmitted { weight: 100 },
            E::OpenAdmitted { weight: 0 },
            E::OpenRefused { code: SessionCode::SERVICE_UNKNOWN },
            E::OpenOccupied { weight: 100 },
            E::OpenEarly { weight: 100 },
            E::ProviderCame,
            E::IncumbentAlive,
            E::IncumbentGone,
            E::ControlViolation { code: SessionCode::MALFORMED },
            E::SetWeight { weight: 0 },
            E::SetWeight { weight: 50 },
            E::NotifyShutdown,
            E::Drained,
            E::EntitlementLost,
            E::Replaced,
            E::Idle,
            E::HubDraining { deadline: Duration::from_secs(30), resumable: true },
            E::HubStopping,
            E::SessionClose { code: SessionCode::OK },
            E::SessionClose { code: SessionCode::PAUSED },
            E::ClosedByPeer { code: SessionCode::OK },
            E::Lost,
        ]
    }

    fn check(&self) -> Result<(), String> {
        let timed = match self.parts.state() {
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
