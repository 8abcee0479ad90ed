//! What tools need of the endpoint connection.

use super::{Config, Connection, Event, Flow, Sending, State, Timer};
use crate::{
    machine::{Actions, Describe, Inspect, Jitter, Timers},
    spn::{Protocol, Role, wire::code},
};

impl crate::machine::Timer for Timer {
    const ALL: &'static [Self] =
        &[Self::Lookup, Self::Again, Self::Total, Self::Dial, Self::Pausing, Self::Pause, Self::Settled, Self::Closing];

    fn index(self) -> usize {
        self as usize
    }

    fn name(self) -> &'static str {
        match self {
            Self::Lookup => "lookup",
            Self::Again => "again",
            Self::Total => "total",
            Self::Dial => "dial",
            Self::Pausing => "pausing",
            Self::Pause => "pause",
            Self::Settled => "settled",
            Self::Closing => "closing",
        }
    }
}

impl Inspect for Connection {
    const NAME: &'static str = "spn.endpoint_connection";

    fn state(&self) -> &'static str {
        match self.state {
            State::LookingUpSession { .. } => "LookingUpSession",
            State::Connecting => "Connecting",
            State::Connected => "Connected",
            State::Pausing => "Pausing",
            State::Paused => "Paused",
            State::Resuming => "Resuming",
            State::Disconnecting => "Disconnecting",
            State::Disconnected => "Disconnected",
        }
    }

    fn due(&self) -> Option<&'static str> {
        self.timers.next().map(|(_, timer)| crate::machine::Timer::name(timer))
    }

    fn is_overrun(&self) -> bool {
        self.actions.is_overrun()
    }
}

impl Describe for Connection {
    const ABOUT: &'static str = "one connection at an endpoint: finds a session, opens its stream, ends in order";
    type Config = Config;

    fn start(config: Config, seed: u64) -> Self {
        Self {
            config,
            state: State::LookingUpSession { asked: false },
            role: Role::Consumer,
            protocol: Protocol::Sc02,
            flow: Flow {
                sending: Sending::Open,
                receiving: false,
                deaf: None,
                sent: false,
                held: false,
                received: false,
                resumable: false,
                confirmed: false,
                acked: false,
            },
            refused: 0,
            jitter: Jitter::new(seed),
            spent: false,
            empty_once: false,
            closing: code::OK,
            timers: Timers::default(),
            actions: Actions::default(),
        }
    }

    fn fingerprint(&self) -> String {
        let Self { state, role, protocol, flow, refused, spent, empty_once, closing, .. } = self;
        if matches!(state, State::Disconnected) {
            return String::new();
        }
        let armed: Vec<_> = self.timers.armed().collect();
        // Only a connection that can resume asks whether it has failed before, and with which code it closes.
        let tried = flow.resumable.then_some((*refused > 0, *closing));
        format!("{state:?} {role:?} {protocol:?} {flow:?} spent {spent} empty {empty_once} {tried:?} {armed:?}")
    }

    fn alphabet() -> Vec<Event> {
        vec![
            Event::Connect,
            Event::Incoming { protocol: Protocol::Sc01 },
            Event::Incoming { protocol: Protocol::Sc02 },
            Event::SessionFound { protocol: Protocol::Sc01 },
            Event::SessionFound { protocol: Protocol::Sc02 },
            Event::Opened,
            Event::BytesSent,
            Event::BytesReleased,
            Event::BytesReceived,
            Event::LocalFinish,
            Event::LocalStop { code: code::PEER_ABORTED },
            Event::LocalAbort { code: code::OK },
            Event::LocalAbort { code: code::PEER_ABORTED },
            Event::StreamFinished,
            Event::StreamReset { code: code::PEER_ABORTED },
            Event::StreamReset { code: code::PAUSED },
            Event::StreamReset { code: code::NOT_STARTED },
            Event::StreamStopped { code: code::PEER_ABORTED },
            Event::StreamStopped { code: code::PAUSED },
            Event::StreamStopped { code: code::NOT_STARTED },
            Event::StreamAcked,
            Event::StreamClosed,
            Event::CloseReq { code: code::OK },
            Event::CloseReq { code: code::PEER_ABORTED },
            Event::CloseAck,
            Event::SessionLost,
            Event::Resumable,
            Event::Confirmed { resumable: true },
            Event::Confirmed { resumable: false },
            Event::PauseReq,
            Event::ResumeAsked,
            Event::ResumeUnasked,
            Event::ResumeRefused,
            Event::Sought,
            Event::Absent,
            Event::ResumeAborted { code: code::PEER_ABORTED },
            Event::ResumeAborted { code: code::NOT_STARTED },
            Event::Resumed,
            Event::PartnerResumed,
            Event::SentOver,
            Event::Mismatch,
        ]
    }

    fn check(&self) -> Result<(), String> {
        let name = self.state();
        if self.actions.is_overrun() {
            return Err("actions were lost".to_owned());
        }
        let due = self.due();
        let over = !self.flow.receiving && matches!(self.flow.sending, Sending::Delivered | Sending::Stopped);
        match self.state {
            // Before the first event there is nothing to wait for.
            State::LookingUpSession { asked: false } => Ok(()),
            State::LookingUpSession { .. } | State::Connecting | State::Disconnecting if due.is_none() => {
                Err(format!("{name} without deadline"))
            }
            State::LookingUpSession { .. } if self.flow.received => Err("tries again after bytes came".to_owned()),
            State::LookingUpSession { .. } if self.flow.sent && !self.flow.held => {
                Err("tries again without the bytes that were sent".to_owned())
            }
            State::LookingUpSession { .. } | State::Connecting => Ok(()),
            State::Connected if over => Err("both directions are over, yet it stays".to_owned()),
            State::Connected => Ok(()),
            State::Pausing | State::Paused | State::Resuming if !self.flow.resumable => {
                Err(format!("{name}, but nobody could resume it"))
            }
            State::Pausing if !self.timers.is_set(Timer::Pausing) => Err(format!("{name} without deadline")),
            State::Paused | State::Resuming if !self.timers.is_set(Timer::Pause) => {
                Err(format!("{name} without deadline"))
            }
            State::Pausing | State::Paused | State::Resuming if over => {
                Err("both directions are over, yet it stays".to_owned())
            }
            State::Pausing | State::Paused | State::Resuming => Ok(()),
            State::Disconnecting if self.protocol == Protocol::Sc01 => Err(format!("{name} on sc01")),
            State::Disconnecting => Ok(()),
            State::Disconnected => match due {
                Some(timer) => Err(format!("{name} with timer {timer}")),
                None => Ok(()),
            },
        }
    }
}
