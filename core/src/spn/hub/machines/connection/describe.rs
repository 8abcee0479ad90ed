//! The connection on the hub for the explorer.

use super::{Config, Event, HubConnection, Loss, State};
use crate::{
    machine::{Describe, Inspect, Machine, Timer as _},
    spn::{Side, wire::code},
};

impl Inspect for HubConnection {
    const NAME: &'static str = "spn.hub_connection";

    fn state(&self) -> &'static str {
        match self.state {
            State::Idle => "Idle",
            State::Choosing => "Choosing",
            State::Waiting { .. } => "Waiting",
            State::Relaying { .. } => "Relaying",
            State::Pausing { .. } => "Pausing",
            State::Finishing { .. } => "Finishing",
            State::Closing { .. } => "Closing",
            State::Ended => "Ended",
        }
    }

    fn due(&self) -> Option<&'static str> {
        self.timers.next().map(|(_, timer)| timer.name())
    }

    fn is_overrun(&self) -> bool {
        self.actions.is_overrun()
    }
}

impl Describe for HubConnection {
    const ABOUT: &'static str = "a connection as its hub sees it: choosing a provider, relaying, pause, end";
    type Config = Config;

    fn start(config: Config, _seed: u64) -> Self {
        Self::new(config)
    }

    fn fingerprint(&self) -> String {
        format!("{:?} {} {:?}", self.state, self.resumable, self.timers.armed().collect::<Vec<_>>())
    }

    fn alphabet() -> Vec<Event> {
        use Event as E;
        let of = |side| {
            [
                E::SessionLost { side, loss: Loss::Away },
                E::SessionLost { side, loss: Loss::Left },
                E::Fin { side },
                E::Reset { side, code: code::PEER_ABORTED },
                E::Reset { side, code: code::PAUSED },
                E::Stop { side, code: code::PEER_ABORTED },
                E::Stop { side, code: code::PAUSED },
                E::Reported { side },
                E::CloseReq { side, code: code::OK, askable: true },
                E::CloseReq { side, code: code::PEER_ABORTED, askable: true },
                E::CloseReq { side, code: code::PEER_ABORTED, askable: false },
                E::CloseAck { side },
                E::PauseAck { side },
                E::ResumeReq { side },
            ]
        };
        [
            E::ConnectStream,
            E::ProviderChosen { resumable: false },
            E::ProviderChosen { resumable: true },
            E::ResumeStream,
            E::ResumeWaits,
            E::NoneAvailable,
            E::ProviderSilent,
            E::SessionLost { side: Side::Provider, loss: Loss::Unstarted },
            E::SessionLost { side: Side::Provider, loss: Loss::Drained },
            E::Answered,
            E::PauseWanted,
            E::Superseded,
        ]
        .into_iter()
        .chain(of(Side::Consumer))
        .chain(of(Side::Provider))
        .collect()
    }

    fn check(&self) -> Result<(), String> {
        let timed = match self.state {
            State::Choosing | State::Waiting { .. } | State::Pausing { .. } | State::Closing { .. } => true,
            // The last ends with its sessions.
            State::Idle | State::Relaying { .. } | State::Finishing { .. } | State::Ended => false,
        };
        if self.poll_timeout().is_some() != timed {
            return Err(format!("{}: deadline is {:?}", self.state(), self.due()));
        }
        Ok(())
    }
}
