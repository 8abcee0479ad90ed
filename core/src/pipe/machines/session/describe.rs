//! What tools need of the machine.

use std::time::Duration;

use uuid::Uuid;

use super::{Alive, Config, Event, Offer, Peer, Role, Session, State};
use crate::machine::{Describe, Inspect as _, Parts};

impl Describe for Session {
    const ABOUT: &'static str = "one byte stream between two peers: the handshake, being alive, and the end";
    type Config = Config;

    fn start(config: Config, _seed: u64) -> Self {
        Self { config, parts: Parts::new(State::Idle) }
    }

    fn small() -> Config {
        // A session of version 0002, which is watched; one of 0001 comes of a peer that offers no more.
        Config { peer: Peer::Towline, drain: Duration::from_secs(2), ..Config::default() }
    }

    fn fingerprint(&self) -> String {
        let detail = match self.parts.state() {
            State::Idle | State::Closed => String::new(),
            State::AwaitSync(role) => format!("{role:?}"),
            State::Open(Alive::Unwatched) => "unwatched".to_owned(),
            State::Open(Alive::Answers { .. }) => "answers".to_owned(),
            State::Open(Alive::Pings { .. }) => "pings".to_owned(),
            State::Draining(why) | State::Closing(why) => format!("{why:?}"),
        };
        format!("{} {detail} {:?}", self.state(), self.parts.timers.armed().collect::<Vec<_>>())
    }

    fn alphabet() -> Vec<Event> {
        let (old, new) = (Uuid::nil(), Uuid::from_u128(7));
        let sync = |version, session_id| Event::Sync(Offer { version, session_id, ping: 3, timeout: 60 });
        vec![
            Event::WireUp { role: Role::Client },
            Event::WireUp { role: Role::Server },
            sync(1, old),
            sync(2, old),
            sync(1, new),
            sync(2, new),
            sync(0x0100, old),
            sync(0x0100, new),
            Event::SyncShort,
            Event::Message,
            Event::Ping,
            Event::UnknownControl { code: 90 },
            Event::ControlClose,
            Event::BadBytes,
            Event::Sent,
            Event::Flushed,
            Event::ReadHeld,
            Event::ReadResumed,
            Event::WireEnded,
            Event::WireFailed,
            Event::Overload,
            Event::End { graceful: true },
            Event::End { graceful: false },
        ]
    }

    fn check(&self) -> Result<(), String> {
        let armed: Vec<_> = self.parts.timers.armed().collect();
        let is_right = match self.parts.state() {
            State::Idle | State::Closed | State::Open(Alive::Unwatched) => armed.is_empty(),
            State::AwaitSync(_) => armed == ["handshake"],
            // Nobody is silent while nothing is read.
            State::Open(Alive::Answers { .. }) => armed == ["silence"] || armed.is_empty(),
            State::Open(Alive::Pings { .. }) => armed == ["silence", "ping"] || armed == ["ping"],
            State::Draining(_) => armed == ["drain"],
            State::Closing(_) => armed == ["flush"],
        };
        if is_right { Ok(()) } else { Err(format!("{} has the timers {armed:?}", self.state())) }
    }
}
