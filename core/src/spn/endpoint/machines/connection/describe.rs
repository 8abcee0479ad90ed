//! What tools need of the endpoint connection.

use super::{Config, Connection, ConnectionTimer, Event, State};
use crate::{
    machine::{Describe, Inspect as _},
    spn::{Protocol, wire::code::StreamCode},
};

impl Describe for Connection {
    const ABOUT: &'static str = "one connection at an endpoint: finds a session, opens its stream, ends in order";
    type Config = Config;

    fn start(config: Config, seed: u64) -> Self {
        Self::new(config, seed)
    }

    fn fingerprint(&self) -> String {
        let Self { parts, role, protocol, flow, refused, spent, empty_once, closing, .. } = self;
        let state = parts.state();
        if matches!(state, State::Disconnected) {
            return String::new();
        }
        let armed: Vec<_> = parts.timers.armed().collect();
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
            Event::LocalStop { code: StreamCode::PEER_ABORTED },
            Event::LocalAbort { code: StreamCode::OK },
            Event::LocalAbort { code: StreamCode::PEER_ABORTED },
            Event::StreamFinished,
            Event::StreamReset { code: StreamCode::PEER_ABORTED },
            Event::StreamReset { code: StreamCode::PAUSED },
            Event::StreamReset { code: StreamCode::NOT_STARTED },
            Event::StreamStopped { code: StreamCode::PEER_ABORTED },
            Event::StreamStopped { code: StreamCode::PAUSED },
            Event::StreamStopped { code: StreamCode::NOT_STARTED },
            Event::StreamAcked,
            Event::StreamClosed,
            Event::CloseReq { code: StreamCode::OK },
            Event::CloseReq { code: StreamCode::PEER_ABORTED },
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
            Event::ResumeAborted { code: StreamCode::PEER_ABORTED },
            Event::ResumeAborted { code: StreamCode::NOT_STARTED },
            Event::Resumed,
            Event::PartnerResumed,
            Event::SentOver,
            Event::Mismatch,
        ]
    }

    fn check(&self) -> Result<(), String> {
        let name = self.state();
        let due = self.due();
        let over = self.flow.is_over();
        match self.parts.state() {
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
            State::Pausing if !self.parts.timers.is_set(ConnectionTimer::Pausing) => {
                Err(format!("{name} without deadline"))
            }
            State::Paused | State::Resuming if !self.parts.timers.is_set(ConnectionTimer::Pause) => {
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
