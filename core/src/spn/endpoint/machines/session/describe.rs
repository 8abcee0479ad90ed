//! What tools need of the endpoint session.

use std::time::Duration;

use super::{Closing, Config, Event, Live, Session, SessionTimer, State};
use crate::{
    machine::{Describe, Inspect as _},
    spn::{Protocol, Role, wire::code::SessionCode},
};

impl Describe for Session {
    const ABOUT: &'static str = "an endpoint's session with one hub address: dials, asks, retries, leaves";
    type Config = Config;

    fn start(config: Config, seed: u64) -> Self {
        Self::new(config, seed)
    }

    // With a limit, so that it is reached, and with deadlines that are not a thousand of each other.
    fn small() -> Config {
        let reserve = Duration::from_secs(30);
        Config { retry_limit: Some(1), notify: Duration::from_secs(2), reserve, ..Config::default() }
    }

    fn fingerprint(&self) -> String {
        let few = |live: Live| Live { open: live.open.min(2), ..live };
        let data = match *self.parts.state() {
            State::SessionConnecting { asked } => format!("{asked:?}"),
            State::Established(live) => format!("{:?}", few(live)),
            State::Closing(Closing { live, left, signalled }) => {
                format!("{:?} left {left} signalled {signalled}", few(live))
            }
            State::IpFound | State::Waiting | State::Reserve => String::new(),
            State::Closed | State::Failed => return self.state().to_owned(),
        };
        let tries = self.config.retry_limit.map(|limit| limit.saturating_add(1).saturating_sub(self.retries));
        let armed: Vec<_> = self.parts.timers.armed().collect();
        format!(
            "{:?} {data} weight {} {} {} {} tries {tries:?} {armed:?}",
            self.role, self.weight, self.retired, self.leaving, self.needed
        )
    }

    fn alphabet() -> Vec<Event> {
        vec![
            Event::Connect { role: Role::Consumer },
            Event::Connect { role: Role::Provider },
            Event::Connected { protocol: Protocol::Sc01 },
            Event::Connected { protocol: Protocol::Sc02 },
            Event::SessionAck { standby: false },
            Event::SessionAck { standby: true },
            Event::SessionReject { code: SessionCode::NO_PROVIDER, retry_after: Duration::from_secs(1) },
            Event::SessionShutdown { deadline: Duration::ZERO },
            Event::SessionClose { code: SessionCode::NOT_ENTITLED },
            Event::SessionState { standby: false },
            Event::SessionState { standby: true },
            Event::ProviderStopped,
            Event::SetWeightAck { weight: 0 },
            Event::SetWeightAck { weight: 50 },
            Event::Violation { code: SessionCode::MALFORMED },
            Event::Lost,
            Event::AddressLost,
            Event::SetWeight { weight: 0 },
            Event::SetWeight { weight: 50 },
            Event::LocalShutdown,
            Event::ConnectionOpened,
            Event::ConnectionEnded,
            Event::Needed { needed: true },
            Event::Needed { needed: false },
            Event::Elsewhere,
        ]
    }

    fn check(&self) -> Result<(), String> {
        let name = self.state();
        let due = self.due();
        match *self.parts.state() {
            State::IpFound => Ok(()),
            State::SessionConnecting { .. } | State::Waiting | State::Reserve if due.is_none() => {
                Err(format!("{name} without deadline"))
            }
            State::SessionConnecting { .. } | State::Waiting | State::Reserve => Ok(()),
            State::Established(live) if live.protocol == Protocol::Sc02 && self.is_spare(&live) => {
                Err("retired, yet it stays".to_owned())
            }
            State::Established(_) if self.leaving && !self.parts.timers.is_set(SessionTimer::Closing) => {
                Err("it ends, but not for certain".to_owned())
            }
            State::Established(_) => Ok(()),
            State::Closing(_) if due.is_none() => Err(format!("{name} without deadline")),
            State::Closing(Closing { live, left: false, .. }) if self.is_finished(&live) => {
                Err("drained, yet it stays".to_owned())
            }
            State::Closing(_) => Ok(()),
            State::Closed | State::Failed => match due {
                Some(timer) => Err(format!("{name} with timer {timer}")),
                None => Ok(()),
            },
        }
    }
}
