//! A connection, as the hub sees it: a consumer's stream and a provider's stream (docs/protocols/spn.md, Hub connection, HBC-1).
//!
//! The bytes themselves are moved by the relay (`binding/conn/relay.rs`), and requests to resume have a machine of their own
//! ([`pairing`](super::pairing)); this machine decides what follows from everything that is not payload. A connection
//! that is resumed is a new one here: the next *leg*.
//!
//! Diagram: `docs/states/spn.hub_connection.md`.

mod describe;
mod directions;
mod ends;
mod events;
mod leaving;

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use self::ends::aborted;
pub use self::{
    directions::{Flow, Sides},
    events::{Action, Event, Loss, Timer},
    leaving::{Close, Pause},
};
use crate::{
    machine::{self, Automaton, Parts},
    spn::{Side, record::DisconnectReason, wire::code::StreamCode},
};

/// Times of a connection on a hub. In JSON a duration is an integer whose name ends in `_ms`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// How long a connection waits for a provider, or the next leg for a stream of its provider.
    #[serde(rename = "choosing_ms", with = "machine::ms")]
    pub choosing: Duration,
    /// How long CLOSE_ACK may take.
    #[serde(rename = "closing_ms", with = "machine::ms")]
    pub closing: Duration,
    /// How long PAUSE_ACK may take.
    #[serde(rename = "pausing_ms", with = "machine::ms")]
    pub pausing: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self { choosing: Duration::from_secs(60), closing: Duration::from_secs(5), pausing: Duration::from_secs(2) }
    }
}

/// The states of a connection on the hub.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum State {
    /// No event has come yet.
    Idle,
    /// No provider yet.
    Choosing,
    /// The next leg, for which the provider's session has no stream credit at the moment.
    Waiting {
        /// Its consumer reads no more, with this code.
        stopped: Option<StreamCode>,
    },
    /// Both streams are there, and bytes are moved.
    Relaying {
        /// How the two directions stand.
        flow: Flow,
    },
    /// PAUSE_REQ is out.
    Pausing(Pause),
    /// The streams are gone; the ends' last reports pass.
    Finishing {
        /// Who has reported the other's direction over.
        reported: Sides,
    },
    /// One end asked for the end of both directions; the other has not answered.
    Closing(Close),
    /// It is over.
    #[default]
    Ended,
}

impl machine::State for State {
    fn name(&self) -> &'static str {
        match self {
            Self::Idle => "Idle",
            Self::Choosing => "Choosing",
            Self::Waiting { .. } => "Waiting",
            Self::Relaying { .. } => "Relaying",
            Self::Pausing(_) => "Pausing",
            Self::Finishing { .. } => "Finishing",
            Self::Closing(_) => "Closing",
            Self::Ended => "Ended",
        }
    }
}

/// A connection on the hub.
#[derive(Debug, Clone)]
pub struct HubConnection {
    config: Config,
    resumable: bool,
    parts: Parts<State, Timer, Action>,
}

impl HubConnection {
    /// A connection before its first event.
    #[must_use]
    pub fn new(config: Config) -> Self {
        Self { config, resumable: false, parts: Parts::new(State::Idle) }
    }

    /// Whether it still looks for a provider.
    #[must_use]
    pub fn is_choosing(&self) -> bool {
        *self.parts.state() == State::Choosing
    }

    /// Whether it is a next leg that waits for a stream of its provider.
    #[must_use]
    pub fn is_waiting(&self) -> bool {
        matches!(self.parts.state(), State::Waiting { .. })
    }

    /// Whether both ends can resume it.
    #[must_use]
    pub fn is_resumable(&self) -> bool {
        self.resumable
    }

    /// Whether bytes from `source` are still to be moved.
    #[must_use]
    pub fn is_flowing(&self, source: Side) -> bool {
        match self.parts.state() {
            State::Relaying { flow }
            | State::Closing(Close { flow, .. })
            | State::Pausing(Pause { flow, gone: None, .. }) => !flow.over.has(source),
            State::Idle
            | State::Choosing
            | State::Waiting { .. }
            | State::Pausing(_)
            | State::Finishing { .. }
            | State::Ended => false,
        }
    }

    /// Whether reports are forwarded.
    #[must_use]
    pub fn is_routed(&self) -> bool {
        self.resumable && *self.parts.state() != State::Ended
    }

    /// Whether the next leg may take its place.
    #[must_use]
    pub fn may_be_superseded(&self) -> bool {
        match self.parts.state() {
            State::Waiting { .. } => true,
            State::Relaying { .. } | State::Finishing { .. } => self.resumable,
            State::Idle | State::Choosing | State::Pausing(_) | State::Closing(_) | State::Ended => false,
        }
    }
}

impl Automaton for HubConnection {
    const NAME: &'static str = "spn.hub_connection";
    type State = State;
    type Timer = Timer;
    type Event = Event;
    type Action = Action;

    fn parts(&self) -> &Parts<State, Timer, Action> {
        &self.parts
    }

    fn parts_mut(&mut self) -> &mut Parts<State, Timer, Action> {
        &mut self.parts
    }

    fn on_event(&mut self, now: Instant, state: State, event: Event) -> State {
        match state {
            State::Idle => self.idle(now, event),
            State::Choosing => self.choosing(event),
            State::Waiting { stopped } => self.waiting(event, stopped),
            State::Relaying { flow } => self.relaying(now, event, flow),
            State::Pausing(pause) => self.pausing(now, event, pause),
            State::Finishing { reported } => self.finishing(event, reported),
            State::Closing(close) => self.closing(event, close),
            State::Ended => self.parts.ignore(State::Ended),
        }
    }

    fn on_timeout(&mut self, _now: Instant, state: State, timer: Timer) -> State {
        match (timer, state) {
            (Timer::Choosing, State::Choosing) => self.end_consumer(StreamCode::NOT_STARTED),
            (Timer::Choosing, State::Waiting { stopped }) => self.stop_waiting(stopped),
            (Timer::Closing, State::Closing(Close { flow, code, .. })) => {
                self.end_both(flow, code, DisconnectReason::ClosedByPeer)
            }
            (Timer::Pausing, State::Pausing(Pause { flow, gone, reason, .. })) => self.paused(flow, gone, reason),
            // A state's timer is stopped when the state is left.
            (Timer::Choosing | Timer::Closing | Timer::Pausing, state) => state,
        }
    }
}

/// The states until both streams are there, and the one in which they are; see `connection/leaving.rs` for the others.
impl HubConnection {
    fn idle(&mut self, now: Instant, event: Event) -> State {
        match event {
            Event::ConnectStream => {
                self.parts.timers.set_after(Timer::Choosing, now, self.config.choosing);
                State::Choosing
            }
            Event::ResumeStream => self.begin(true, Flow::known()),
            Event::ResumeWaits => {
                self.parts.timers.set_after(Timer::Choosing, now, self.config.choosing);
                State::Waiting { stopped: None }
            }
            Event::ProviderChosen { .. }
            | Event::NoneAvailable
            | Event::ProviderSilent
            | Event::SessionLost { .. }
            | Event::Answered
            | Event::Fin { .. }
            | Event::Reset { .. }
            | Event::Stop { .. }
            | Event::Reported { .. }
            | Event::CloseReq { .. }
            | Event::CloseAck { .. }
            | Event::PauseWanted
            | Event::PauseAck { .. }
            | Event::ResumeReq { .. }
            | Event::Superseded => self.parts.ignore(State::Idle),
        }
    }

    fn choosing(&mut self, event: Event) -> State {
        match event {
            Event::ProviderChosen { resumable } => self.begin(resumable, Flow::default()),
            Event::Reset { side: Side::Consumer, code } => self.end_consumer(code),
            // It reads no more, and may have finished: then it does not see the end of its stream.
            Event::Stop { side: Side::Consumer, code } => {
                self.parts.act(Action::SendCloseReq { to: Side::Consumer, code: aborted(code) });
                self.end_consumer(code)
            }
            Event::CloseReq { side: Side::Consumer, code, .. } => {
                self.parts.act(Action::SendCloseAck { to: Side::Consumer });
                self.end_consumer(code)
            }
            Event::SessionLost { side: Side::Consumer, .. } => self.end(None),
            // Nothing has reached a provider: the consumer may open it again, here or elsewhere.
            Event::PauseWanted => self.end_consumer(StreamCode::NOT_STARTED),
            Event::ResumeReq { side: Side::Consumer } => {
                self.parts.act(Action::RefuseResume { to: Side::Consumer, code: StreamCode::NOT_STARTED });
                self.end_consumer(StreamCode::NOT_STARTED)
            }
            Event::ConnectStream
            | Event::ResumeStream
            | Event::ResumeWaits
            | Event::NoneAvailable
            | Event::ProviderSilent
            | Event::SessionLost { side: Side::Provider, .. }
            | Event::Answered
            | Event::Fin { .. }
            | Event::Reset { side: Side::Provider, .. }
            | Event::Stop { side: Side::Provider, .. }
            | Event::Reported { .. }
            | Event::CloseReq { side: Side::Provider, .. }
            | Event::CloseAck { .. }
            | Event::PauseAck { .. }
            | Event::ResumeReq { side: Side::Provider }
            | Event::Superseded => self.parts.ignore(State::Choosing),
        }
    }

    /// Nothing of this leg has gone to the provider: whichever end leaves it, its consumer asks for the next one.
    fn waiting(&mut self, event: Event, stopped: Option<StreamCode>) -> State {
        match event {
            Event::ResumeStream => {
                let begun = self.begin(true, Flow::known());
                let Some(code) = stopped else { return begun };
                State::Relaying { flow: self.pass_stop(Flow::known(), Side::Consumer, code) }
            }
            Event::Reset { side: Side::Consumer, code }
            | Event::Stop { side: Side::Consumer, code: code @ StreamCode::PAUSED } => self.end_consumer(code),
            Event::Stop { side: Side::Consumer, code } => State::Waiting { stopped: Some(code) },
            // It reports that to the provider by RESUME_REQ: there is no stream for it.
            Event::CloseReq { side: Side::Consumer, code, .. } => {
                self.parts.act(Action::SendCloseAck { to: Side::Consumer });
                self.end_consumer(aborted(code))
            }
            Event::SessionLost { side: Side::Consumer, .. } => self.end(None),
            Event::SessionLost { side: Side::Provider, .. }
            | Event::PauseWanted
            | Event::ResumeReq { .. }
            | Event::Superseded => self.stop_waiting(stopped),
            Event::ConnectStream
            | Event::ProviderChosen { .. }
            | Event::ResumeWaits
            | Event::NoneAvailable
            | Event::ProviderSilent
            | Event::Answered
            | Event::Fin { .. }
            | Event::Reset { side: Side::Provider, .. }
            | Event::Stop { side: Side::Provider, .. }
            | Event::Reported { .. }
            | Event::CloseReq { side: Side::Provider, .. }
            | Event::CloseAck { .. }
            | Event::PauseAck { .. } => self.parts.ignore(State::Waiting { stopped }),
        }
    }

    fn stop_waiting(&mut self, stopped: Option<StreamCode>) -> State {
        // An end that reads no more, and has finished, does not see the end of its stream.
        if stopped.is_some() {
            self.parts.act(Action::SendPauseReq { to: Side::Consumer });
        }
        self.end_consumer(StreamCode::PAUSED)
    }

    fn begin(&mut self, resumable: bool, flow: Flow) -> State {
        self.parts.timers.stop_all();
        self.resumable = resumable;
        self.parts.act(Action::Begin);
        State::Relaying { flow }
    }

    fn relaying(&mut self, now: Instant, event: Event, flow: Flow) -> State {
        match event {
            Event::CloseReq { side, code, askable } => self.close_req(now, flow, side, code, askable),
            // The endpoint moves to another hub.
            Event::Reset { side, code: StreamCode::PAUSED } | Event::Stop { side, code: StreamCode::PAUSED }
                if self.resumable =>
            {
                self.abort(flow, side, StreamCode::PAUSED);
                self.left(now, flow, side, DisconnectReason::Closed)
            }
            Event::Fin { side } => {
                let flow = self.pass_fin(flow, side);
                self.passed(flow)
            }
            Event::Reset { side, code } => {
                let flow = self.pass_reset(flow, side, code);
                self.passed(flow)
            }
            Event::Stop { side, code } => {
                let flow = self.pass_stop(flow, side, code);
                self.passed(flow)
            }
            Event::SessionLost { side, loss: Loss::Away } if self.resumable => {
                self.left(now, flow, side, DisconnectReason::Error)
            }
            Event::SessionLost { side: Side::Provider, loss: Loss::Drained } if self.resumable && !flow.answered => {
                self.never_had(flow, DisconnectReason::Closed)
            }
            Event::SessionLost { side, loss } => self.lost(flow, side, loss),
            // It may have the connection nevertheless, and is to forget it.
            Event::ProviderSilent if !flow.answered => {
                self.notify(flow, Side::Provider, StreamCode::NOT_STARTED);
                self.never_had(flow, DisconnectReason::Error)
            }
            // Without pause a connection of a leaving hub runs until its end or the hub's.
            Event::PauseWanted if self.resumable => {
                for to in [Side::Provider, Side::Consumer] {
                    self.parts.act(Action::SendPauseReq { to });
                }
                let (answered, reason) = (Sides::default(), DisconnectReason::Closed);
                self.pause(now, Pause { flow, answered, gone: None, reason })
            }
            Event::ResumeReq { side } if self.resumable => {
                self.abort(flow, side, StreamCode::PAUSED);
                self.left(now, flow, side, DisconnectReason::Error)
            }
            Event::Superseded if self.resumable => self.end_both(flow, StreamCode::PAUSED, DisconnectReason::Error),
            Event::Answered if self.resumable => State::Relaying { flow: Flow { answered: true, ..flow } },
            Event::Reported { side } if self.resumable => {
                State::Relaying { flow: Flow { reported: flow.reported.with(side), ..flow } }
            }
            Event::ConnectStream
            | Event::ProviderChosen { .. }
            | Event::ResumeStream
            | Event::ResumeWaits
            | Event::NoneAvailable
            | Event::ProviderSilent
            | Event::Answered
            | Event::Reported { .. }
            | Event::CloseAck { .. }
            | Event::PauseWanted
            | Event::PauseAck { .. }
            | Event::ResumeReq { .. }
            | Event::Superseded => self.parts.ignore(State::Relaying { flow }),
        }
    }

    /// An end of a direction has been passed on; it may have been the second.
    fn passed(&mut self, flow: Flow) -> State {
        if !flow.over.both() {
            State::Relaying { flow }
        } else if self.is_reported(flow) {
            self.end(Some(flow.reason()))
        } else {
            self.parts.act(Action::Finished { reason: flow.reason() });
            State::Finishing { reported: flow.reported }
        }
    }
}

#[cfg(test)]
mod tests;
