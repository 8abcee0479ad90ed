//! A connection, as the hub sees it: a consumer's stream and a provider's stream (docs/protocols/spn.md, Hub connection, HBC-1).
//!
//! The bytes themselves are moved by the relay (`binding/relay.rs`), and requests to resume are kept beside it (`binding/resume.rs`); this machine decides what
//! follows from everything that is not a byte. A connection that is resumed is a new one here: the next *leg*.
//!
//! Diagram: `docs/states/spn.hub_connection.md`.

mod describe;
mod ends;
mod events;

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

pub use self::events::{Action, Event, Loss, Timer};
use crate::{
    machine::{Actions, Machine, Timers},
    spn::{Side, record::DisconnectReason, wire::code},
};

/// Times of a connection on a hub.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// How long a connection waits for a provider, or the next leg for a stream of its provider, in milliseconds.
    pub choosing_ms: u32,
    /// How long CLOSE_ACK may take, in milliseconds.
    pub closing_ms: u32,
    /// How long PAUSE_ACK may take, in milliseconds.
    pub pausing_ms: u32,
}

impl Default for Config {
    fn default() -> Self {
        Self { choosing_ms: 60_000, closing_ms: 5_000, pausing_ms: 2_000 }
    }
}

/// Something of each side.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Sides {
    consumer: bool,
    provider: bool,
}

impl Sides {
    fn only(side: Side) -> Self {
        Self { consumer: side == Side::Consumer, provider: side == Side::Provider }
    }

    fn set(&mut self, side: Side) {
        match side {
            Side::Consumer => self.consumer = true,
            Side::Provider => self.provider = true,
        }
    }

    fn has(self, side: Side) -> bool {
        match side {
            Side::Consumer => self.consumer,
            Side::Provider => self.provider,
        }
    }

    fn both(self) -> bool {
        self.consumer && self.provider
    }
}

/// How a direction was cut short.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Cut {
    /// Its reader left.
    Stopped,
    /// Its source aborted.
    Reset,
}

/// How the two directions stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Flow {
    /// Whose direction is over.
    over: Sides,
    /// The worst end that one of them had.
    cut: Option<Cut>,
    /// Who has reported the other's direction over.
    reported: Sides,
    /// The provider knows the connection.
    answered: bool,
}

impl Flow {
    fn reason(self) -> DisconnectReason {
        if self.cut.is_some() { DisconnectReason::ClosedByPeer } else { DisconnectReason::Closed }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Nothing has come.
    Idle,
    /// No provider yet.
    Choosing,
    /// The next leg, for which the provider's session has no stream credit at the moment.
    Waiting {
        /// Its consumer reads no more, with this code.
        stopped: Option<u64>,
    },
    Relaying {
        flow: Flow,
    },
    /// PAUSE_REQ is out.
    Pausing {
        flow: Flow,
        /// Who has answered, or left the stream anyway.
        answered: Sides,
        /// Whose stream is no more.
        gone: Option<Side>,
        reason: DisconnectReason,
    },
    /// The streams are gone; the ends' last reports pass.
    Finishing {
        reported: Sides,
    },
    /// One end asked for the end of both directions; the other has not answered.
    Closing {
        flow: Flow,
        asked_by: Side,
        code: u64,
    },
    Ended,
}

/// A connection on the hub.
#[derive(Debug, Clone)]
pub struct HubConnection {
    config: Config,
    state: State,
    resumable: bool,
    timers: Timers<Timer>,
    actions: Actions<Action>,
}

impl HubConnection {
    /// A connection of which nothing has come yet.
    #[must_use]
    pub fn new(config: Config) -> Self {
        let (timers, actions) = (Timers::default(), Actions::default());
        Self { config, state: State::Idle, resumable: false, timers, actions }
    }

    /// Whether it still looks for a provider.
    #[must_use]
    pub fn is_choosing(&self) -> bool {
        self.state == State::Choosing
    }

    /// Whether it is a next leg that waits for a stream of its provider.
    #[must_use]
    pub fn is_waiting(&self) -> bool {
        matches!(self.state, State::Waiting { .. })
    }

    /// Whether both ends can resume it.
    #[must_use]
    pub fn is_resumable(&self) -> bool {
        self.resumable
    }

    /// Whether bytes from `source` are still to be moved.
    #[must_use]
    pub fn is_flowing(&self, source: Side) -> bool {
        match self.state {
            State::Relaying { flow } | State::Closing { flow, .. } | State::Pausing { flow, gone: None, .. } => {
                !flow.over.has(source)
            }
            State::Idle
            | State::Choosing
            | State::Waiting { .. }
            | State::Pausing { .. }
            | State::Finishing { .. }
            | State::Ended => false,
        }
    }

    /// Whether reports are forwarded.
    #[must_use]
    pub fn is_routed(&self) -> bool {
        self.resumable && !matches!(self.state, State::Ended)
    }

    /// Whether the next leg may take its place.
    #[must_use]
    pub fn may_be_superseded(&self) -> bool {
        self.is_waiting() || self.resumable && matches!(self.state, State::Relaying { .. } | State::Finishing { .. })
    }

    fn idle(&mut self, now: Instant, event: &Event) {
        match event {
            Event::ConnectStream => {
                self.state = State::Choosing;
                self.arm(now, Timer::Choosing, self.config.choosing_ms);
            }
            Event::ResumeStream => self.resume(),
            Event::ResumeWaits => {
                self.state = State::Waiting { stopped: None };
                self.arm(now, Timer::Choosing, self.config.choosing_ms);
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
            | Event::Superseded => {}
        }
    }

    fn choosing(&mut self, event: &Event) {
        match *event {
            Event::ProviderChosen { resumable } => self.begin(resumable, Flow::default()),
            Event::Reset { side: Side::Consumer, code } => self.end_consumer(code),
            // It reads no more, and may have finished: then it hears nothing of its stream's end.
            Event::Stop { side: Side::Consumer, code } => {
                self.actions.push(Action::SendCloseReq { to: Side::Consumer, code: aborted(code) });
                self.end_consumer(code);
            }
            Event::CloseReq { side: Side::Consumer, code, .. } => {
                self.actions.push(Action::SendCloseAck { to: Side::Consumer });
                self.end_consumer(code);
            }
            Event::SessionLost { side: Side::Consumer, .. } => self.end(None),
            // Nothing has reached a provider: the consumer may open it again, here or elsewhere.
            Event::PauseWanted => self.end_consumer(code::NOT_STARTED),
            Event::ResumeReq { side: Side::Consumer } => {
                self.actions.push(Action::RefuseResume { to: Side::Consumer, code: code::NOT_STARTED });
                self.end_consumer(code::NOT_STARTED);
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
            | Event::Superseded => {}
        }
    }

    /// Nothing of this leg has gone to the provider: whoever leaves it, its consumer asks for the next one.
    fn waiting(&mut self, stopped: Option<u64>, event: &Event) {
        match *event {
            Event::ResumeStream => {
                self.resume();
                if let Some(code) = stopped {
                    let flow = Flow { answered: true, ..Flow::default() };
                    let flow = self.pass_on(flow, &Event::Stop { side: Side::Consumer, code });
                    self.state = State::Relaying { flow };
                }
            }
            Event::Reset { side: Side::Consumer, code }
            | Event::Stop { side: Side::Consumer, code: code @ code::PAUSED } => {
                self.end_consumer(code);
            }
            Event::Stop { side: Side::Consumer, code } => self.state = State::Waiting { stopped: Some(code) },
            // It tells the provider by RESUME_REQ: there is no stream that could.
            Event::CloseReq { side: Side::Consumer, code, .. } => {
                self.actions.push(Action::SendCloseAck { to: Side::Consumer });
                self.end_consumer(aborted(code));
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
            | Event::PauseAck { .. } => {}
        }
    }

    fn stop_waiting(&mut self, stopped: Option<u64>) {
        // Who reads no more, and has finished, hears nothing of its stream's end.
        if stopped.is_some() {
            self.actions.push(Action::SendPauseReq { to: Side::Consumer });
        }
        self.end_consumer(code::PAUSED);
    }

    fn relaying(&mut self, now: Instant, mut flow: Flow, event: &Event) {
        match *event {
            Event::CloseReq { side, code, askable } => self.close_req(now, flow, side, code, askable),
            // The endpoint moves to another hub.
            Event::Reset { side, code: code::PAUSED } | Event::Stop { side, code: code::PAUSED } if self.resumable => {
                self.abort(flow, side, code::PAUSED);
                self.left(now, flow, side, DisconnectReason::Closed);
            }
            Event::Fin { .. } | Event::Reset { .. } | Event::Stop { .. } => {
                let flow = self.pass_on(flow, event);
                if !flow.over.both() {
                    self.state = State::Relaying { flow };
                } else if self.is_reported(flow) {
                    self.end(Some(flow.reason()));
                } else {
                    self.state = State::Finishing { reported: flow.reported };
                    self.actions.push(Action::Finished { reason: flow.reason() });
                }
            }
            Event::SessionLost { side, loss: Loss::Away } if self.resumable => {
                self.left(now, flow, side, DisconnectReason::Error);
            }
            Event::SessionLost { side: Side::Provider, loss: Loss::Drained } if self.resumable && !flow.answered => {
                self.never_had(flow, DisconnectReason::Closed);
            }
            Event::SessionLost { side, loss } => self.lost(flow, side, loss),
            // It may have the connection all the same: it is to forget it.
            Event::ProviderSilent if !flow.answered => {
                self.tell(flow, Side::Provider, code::NOT_STARTED);
                self.never_had(flow, DisconnectReason::Error);
            }
            // Without pause a connection of a leaving hub runs until its end or the hub's.
            Event::PauseWanted if self.resumable => {
                for to in [Side::Provider, Side::Consumer] {
                    self.actions.push(Action::SendPauseReq { to });
                }
                self.pausing_for(now, flow, Sides::default(), None, DisconnectReason::Closed);
            }
            Event::ResumeReq { side } if self.resumable => {
                self.abort(flow, side, code::PAUSED);
                self.left(now, flow, side, DisconnectReason::Error);
            }
            Event::Superseded if self.resumable => self.end_both(flow, code::PAUSED, DisconnectReason::Error),
            Event::Answered if self.resumable => {
                flow.answered = true;
                self.state = State::Relaying { flow };
            }
            Event::Reported { side } if self.resumable => {
                flow.reported.set(side);
                self.state = State::Relaying { flow };
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
            | Event::Superseded => {}
        }
    }

    fn pausing(
        &mut self,
        now: Instant,
        (mut flow, mut answered, gone, reason): (Flow, Sides, Option<Side>, DisconnectReason),
        event: &Event,
    ) {
        match *event {
            Event::PauseAck { side }
            | Event::ResumeReq { side }
            | Event::Reset { side, code: code::PAUSED }
            | Event::Stop { side, code: code::PAUSED } => {
                answered.set(side);
                if answered.both() {
                    return self.paused(flow, gone, reason);
                }
                self.state = State::Pausing { flow, answered, gone, reason };
            }
            Event::Fin { .. } | Event::Reset { .. } | Event::Stop { .. } if gone.is_none() => {
                let flow = self.pass_on(flow, event);
                if flow.over.both() && self.is_reported(flow) {
                    return self.end(Some(flow.reason()));
                }
                self.state = State::Pausing { flow, answered, gone, reason };
            }
            Event::Reported { side } => {
                flow.reported.set(side);
                if flow.over.both() && self.is_reported(flow) {
                    return self.end(Some(flow.reason()));
                }
                self.state = State::Pausing { flow, answered, gone, reason };
            }
            Event::SessionLost { side, .. } if gone == Some(side.other()) => self.end(Some(reason)),
            Event::SessionLost { side, loss: Loss::Away | Loss::Unstarted } => {
                answered.set(side);
                if answered.both() {
                    return self.paused(flow, Some(side), reason);
                }
                self.state = State::Pausing { flow, answered, gone: Some(side), reason };
            }
            // It would have answered PAUSE_REQ if it knew the connection, and now it takes no stream any more.
            Event::SessionLost { side: Side::Provider, loss: Loss::Drained }
                if self.resumable && !flow.answered && !answered.provider =>
            {
                self.never_had(flow, reason);
            }
            Event::SessionLost { side, loss } => self.lost(flow, side, loss),
            Event::Answered => {
                flow.answered = true;
                self.state = State::Pausing { flow, answered, gone, reason };
            }
            Event::CloseReq { side, code, .. } if gone == Some(side.other()) => {
                // Nobody is there to be told: the one who asks has to do it itself.
                self.actions.push(Action::SendCloseAck { to: side });
                self.abort(flow, side, aborted(code));
                self.end(Some(DisconnectReason::ClosedByPeer));
            }
            Event::CloseReq { side, code, .. } if gone == Some(side) => {
                self.actions.push(Action::SendCloseReq { to: side.other(), code });
                self.actions.push(Action::SendCloseAck { to: side });
                self.abort(flow, side.other(), aborted(code));
                self.end(Some(DisconnectReason::ClosedByPeer));
            }
            Event::CloseReq { side, code, askable } => {
                self.timers.stop_all();
                self.close_req(now, flow, side, code, askable);
            }
            Event::ConnectStream
            | Event::ProviderChosen { .. }
            | Event::ResumeStream
            | Event::ResumeWaits
            | Event::NoneAvailable
            | Event::ProviderSilent
            | Event::Fin { .. }
            | Event::Reset { .. }
            | Event::Stop { .. }
            | Event::CloseAck { .. }
            | Event::PauseWanted
            | Event::Superseded => {}
        }
    }

    fn finishing(&mut self, mut reported: Sides, event: &Event) {
        match *event {
            Event::Reported { side } => {
                reported.set(side);
                if reported.both() {
                    self.end(None);
                } else {
                    self.state = State::Finishing { reported };
                }
            }
            Event::SessionLost { side, loss: Loss::Left | Loss::Drained } => {
                self.actions.push(Action::SendCloseReq { to: side.other(), code: code::PARTNER_LOST });
                self.end(None);
            }
            // There is no stream left that a reset could speak of.
            Event::SessionLost { side, .. } | Event::ResumeReq { side } => {
                self.actions.push(Action::SendPauseReq { to: side.other() });
                self.end(None);
            }
            Event::PauseWanted => {
                for to in [Side::Provider, Side::Consumer] {
                    self.actions.push(Action::SendPauseReq { to });
                }
                self.end(None);
            }
            Event::CloseReq { side, code, .. } => {
                self.actions.push(Action::SendCloseReq { to: side.other(), code });
                self.actions.push(Action::SendCloseAck { to: side });
                self.end(None);
            }
            Event::Superseded => self.end(None),
            Event::ConnectStream
            | Event::ProviderChosen { .. }
            | Event::ResumeStream
            | Event::ResumeWaits
            | Event::NoneAvailable
            | Event::ProviderSilent
            | Event::Answered
            | Event::Fin { .. }
            | Event::Reset { .. }
            | Event::Stop { .. }
            | Event::CloseAck { .. }
            | Event::PauseAck { .. } => {}
        }
    }

    fn closing(&mut self, flow: Flow, asked_by: Side, code: u64, event: &Event) {
        match *event {
            Event::CloseAck { side } if side != asked_by => self.close(flow, code),
            Event::CloseReq { side, .. } => self.actions.push(Action::SendCloseAck { to: side }),
            // The partner has not heard of the end, and will ask for the next stream: CLOSE_ACK lets the one who asked tell it there.
            Event::Reset { side, code: code::PAUSED } | Event::Stop { side, code: code::PAUSED }
                if self.resumable && side != asked_by =>
            {
                self.abort(flow, side, code::PAUSED);
                self.leave_closing(flow, asked_by);
            }
            Event::SessionLost { side, loss: Loss::Away } if self.resumable && side != asked_by => {
                self.leave_closing(flow, asked_by);
            }
            Event::SessionLost { side, loss: Loss::Away } if self.resumable => {
                self.abort(flow, side.other(), aborted(code));
                self.end(Some(DisconnectReason::Error));
            }
            Event::SessionLost { side, loss } => self.lost(flow, side, loss),
            Event::Fin { .. } | Event::Reset { .. } | Event::Stop { .. } => {
                let flow = self.pass_on(flow, event);
                if flow.over.both() {
                    self.end(Some(flow.reason()));
                } else {
                    self.state = State::Closing { flow, asked_by, code };
                }
            }
            Event::ResumeReq { side } if self.resumable => {
                self.actions.push(Action::RefuseResume { to: side, code: aborted(code) });
                self.end_both(flow, aborted(code), DisconnectReason::ClosedByPeer);
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
            | Event::Superseded => {}
        }
    }

    fn arm(&mut self, now: Instant, timer: Timer, ms: u32) {
        self.timers.set(timer, now + Duration::from_millis(ms.into()));
    }

    /// The provider has asked for it, so it knows it.
    fn resume(&mut self) {
        self.begin(true, Flow { answered: true, ..Flow::default() });
    }

    fn begin(&mut self, resumable: bool, flow: Flow) {
        self.timers.stop_all();
        self.resumable = resumable;
        self.state = State::Relaying { flow };
        self.actions.push(Action::Begin);
    }

    /// Whether nobody has to be told anything any more.
    fn is_reported(&self, flow: Flow) -> bool {
        // A reset ends a connection for whoever sees it.
        !self.resumable || flow.cut == Some(Cut::Reset) || flow.reported.both()
    }

    /// Ends one direction as its source or its reader wants it, and leaves the other alone (HBC-6, HBC-7).
    fn pass_on(&mut self, mut flow: Flow, event: &Event) -> Flow {
        match *event {
            Event::Fin { side } if !flow.over.has(side) => {
                self.actions.push(Action::Finish { to: side.other() });
                flow.over.set(side);
            }
            Event::Reset { side, code } if !flow.over.has(side) => {
                self.actions.push(Action::Abort { to: side.other(), code });
                flow.over.set(side);
                flow.cut = Some(Cut::Reset);
            }
            Event::Stop { side, code } if !flow.over.has(side.other()) => {
                self.actions.push(Action::StopSending { to: side.other(), code });
                // QUIC wants an answer to STOP_SENDING (RFC 9000 §3.5).
                self.actions.push(Action::Abort { to: side, code });
                flow.over.set(side.other());
                flow.cut = flow.cut.max(Some(Cut::Stopped));
            }
            // Over is over; and the rest is no direction's end.
            Event::Fin { .. }
            | Event::Reset { .. }
            | Event::Stop { .. }
            | Event::ConnectStream
            | Event::ProviderChosen { .. }
            | Event::ResumeStream
            | Event::ResumeWaits
            | Event::NoneAvailable
            | Event::ProviderSilent
            | Event::SessionLost { .. }
            | Event::Answered
            | Event::Reported { .. }
            | Event::CloseReq { .. }
            | Event::CloseAck { .. }
            | Event::PauseWanted
            | Event::PauseAck { .. }
            | Event::ResumeReq { .. }
            | Event::Superseded => {}
        }
        flow
    }
}

/// The code of a connection that one end wants no more, whatever it called it.
fn aborted(code: u64) -> u64 {
    if code == code::OK { code::PEER_ABORTED } else { code }
}

impl Machine for HubConnection {
    type Event = Event;
    type Action = Action;

    fn handle_event(&mut self, now: Instant, event: Event) {
        match self.state {
            State::Idle => self.idle(now, &event),
            State::Choosing => self.choosing(&event),
            State::Waiting { stopped } => self.waiting(stopped, &event),
            State::Relaying { flow } => self.relaying(now, flow, &event),
            State::Pausing { flow, answered, gone, reason } => {
                self.pausing(now, (flow, answered, gone, reason), &event)
            }
            State::Finishing { reported } => self.finishing(reported, &event),
            State::Closing { flow, asked_by, code } => self.closing(flow, asked_by, code, &event),
            State::Ended => {}
        }
    }

    fn handle_timeout(&mut self, now: Instant) {
        if let Some(timer) = self.timers.expire(now) {
            match (timer, self.state) {
                (Timer::Choosing, State::Waiting { stopped }) => self.stop_waiting(stopped),
                (Timer::Choosing, _) => self.end_consumer(code::NOT_STARTED),
                (Timer::Closing, State::Closing { flow, code, .. }) => {
                    self.end_both(flow, code, DisconnectReason::ClosedByPeer);
                }
                (Timer::Pausing, State::Pausing { flow, gone, reason, .. }) => self.paused(flow, gone, reason),
                (Timer::Closing | Timer::Pausing, _) => {}
            }
        }
    }

    fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop()
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.timers.next().map(|(at, _)| at)
    }
}

#[cfg(test)]
mod tests;
