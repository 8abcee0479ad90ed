//! What tools need of the endpoint session.

use std::time::Duration;

use super::{Config, Event, Live, Session, State, Timer};
use crate::{
    machine::{Actions, Describe, Inspect, Jitter, Timers},
    spn::{Protocol, Role, wire::code},
};

impl crate::machine::Timer for Timer {
    const ALL: &'static [Self] =
        &[Self::Handshake, Self::Ack, Self::Retry, Self::Settled, Self::Closing, Self::Linger, Self::Reserve];

    fn index(self) -> usize {
        self as usize
    }

    fn name(self) -> &'static str {
        match self {
            Self::Handshake => "handshake",
            Self::Ack => "ack",
            Self::Retry => "retry",
            Self::Settled => "settled",
            Self::Closing => "closing",
            Self::Linger => "linger",
            Self::Reserve => "reserve",
        }
    }
}

impl Inspect for Session {
    const NAME: &'static str = "spn.endpoint_session";

    fn state(&self) -> &'static str {
        match self.state {
            State::IpFound => "IPFound",
            State::SessionConnecting { .. } => "SessionConnecting",
            State::Waiting => "Waiting",
            State::Reserve => "Reserve",
            State::Established(_) => "Established",
            State::Closing { .. } => "Closing",
            State::Closed => "Closed",
            State::Failed => "Failed",
        }
    }

    fn due(&self) -> Option<&'static str> {
        self.timers.next().map(|(_, timer)| crate::machine::Timer::name(timer))
    }

    fn is_overrun(&self) -> bool {
        self.actions.is_overrun()
    }
}

impl Describe for Session {
    const ABOUT: &'static str = "an endpoint's session with one hub address: dials, asks, retries, leaves";
    type Config = Config;

    fn start(config: Config, seed: u64) -> Self {
        Self {
            role: Role::Consumer,
            weight: config.weight,
            config,
            state: State::IpFound,
            retired: false,
            leaving: false,
            needed: false,
            retries: 0,
            jitter: Jitter::new(seed),
            timers: Timers::default(),
            actions: Actions::default(),
        }
    }

    // With a limit, so that it is reached, and with deadlines that are not a thousand of each other.
    fn small() -> Config {
        let reserve = Duration::from_secs(30);
        Config { retry_limit: Some(1), word: Duration::from_secs(2), reserve, ..Config::default() }
    }

    fn fingerprint(&self) -> String {
        let few = |live: Live| Live { open: live.open.min(2), ..live };
        let data = match self.state {
            State::SessionConnecting { asked } => format!("{asked:?}"),
            State::Established(live) => format!("{:?}", few(live)),
            State::Closing { live, left, signalled } => format!("{:?} left {left} signalled {signalled}", few(live)),
            State::IpFound | State::Waiting | State::Reserve => String::new(),
            State::Closed | State::Failed => return self.state().to_owned(),
        };
        let tries = self.config.retry_limit.map(|limit| limit.saturating_add(1).saturating_sub(self.retries));
        let armed: Vec<_> = self.timers.armed().collect();
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
            Event::SessionReject { code: code::NO_PROVIDER, retry_after_ms: 1_000 },
            Event::SessionShutdown { deadline_ms: 0 },
            Event::SessionClose { code: code::NOT_ENTITLED },
            Event::SessionState { standby: false },
            Event::SessionState { standby: true },
            Event::ProviderStopped,
            Event::SetWeightAck { weight: 0 },
            Event::SetWeightAck { weight: 50 },
            Event::Violation { code: code::MALFORMED },
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
        if self.actions.is_overrun() {
            return Err("actions were lost".to_owned());
        }
        let due = self.due();
        match self.state {
            State::IpFound => Ok(()),
            State::SessionConnecting { .. } | State::Waiting | State::Reserve if due.is_none() => {
                Err(format!("{name} without deadline"))
            }
            State::SessionConnecting { .. } | State::Waiting | State::Reserve => Ok(()),
            State::Established(live) if live.protocol == Protocol::Sc02 && self.is_spare(&live) => {
                Err("retired, yet it stays".to_owned())
            }
            State::Established(_) if self.leaving && !self.timers.is_set(Timer::Closing) => {
                Err("it ends, but not for certain".to_owned())
            }
            State::Established(_) => Ok(()),
            State::Closing { .. } if due.is_none() => Err(format!("{name} without deadline")),
            State::Closing { live, left: false, .. } if self.is_finished(&live) => {
                Err("drained, yet it stays".to_owned())
            }
            State::Closing { .. } => Ok(()),
            State::Closed | State::Failed => match due {
                Some(timer) => Err(format!("{name} with timer {timer}")),
                None => Ok(()),
            },
        }
    }
}
