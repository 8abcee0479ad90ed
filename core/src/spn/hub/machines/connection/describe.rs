//! The connection on the hub for the explorer.

use super::{Config, Event, HubConnection, Loss, State};
use crate::{
    machine::{Describe, Inspect as _, Machine as _},
    spn::{Side, wire::code::StreamCode},
};

impl Describe for HubConnection {
    const ABOUT: &'static str = "a connection as its hub sees it: choosing a provider, relaying, pause, end";
    type Config = Config;

    fn start(config: Config, _seed: u64) -> Self {
        Self::new(config)
    }

    fn fingerprint(&self) -> String {
        format!("{} {}", self.resumable, self.parts.fingerprint())
    }

    fn alphabet() -> Vec<Event> {
        use Event as E;
        let of = |side| {
            [
                E::SessionLost { side, loss: Loss::Away },
                E::SessionLost { side, loss: Loss::Left },
                E::Fin { side },
                E::Reset { side, code: StreamCode::PEER_ABORTED },
                E::Reset { side, code: StreamCode::PAUSED },
                E::Stop { side, code: StreamCode::PEER_ABORTED },
                E::Stop { side, code: StreamCode::PAUSED },
                E::Reported { side },
                E::CloseReq { side, code: StreamCode::OK, askable: true },
                E::CloseReq { side, code: StreamCode::PEER_ABORTED, askable: true },
                E::CloseReq { side, code: StreamCode::PEER_ABORTED, askable: false },
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
        let timed = match self.parts.state() {
            State::Choosing | State::Waiting { .. } | State::Pausing(_) | State::Closing(_) => true,
            // The last state ends with its sessions.
            State::Idle | State::Relaying { .. } | State::Finishing { .. } | State::Ended => false,
        };
        if self.poll_timeout().is_some() != timed {
            return Err(format!("{}: deadline is {:?}", self.state(), self.due()));
        }
        Ok(())
    }
}
