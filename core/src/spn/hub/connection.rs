//! A connection, as the hub sees it: a consumer's stream and a provider's stream (docs/protocols/spn.md, Hub connection).
//!
//! The bytes themselves are moved by the relay (`relay.rs`); this machine decides what follows from everything that is not a byte.
//!
//! Diagram: `docs/states/spn.hub_connection.md`.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::{
    machine::{Actions, Describe, Machine, Timer, Timers},
    spn::{Side, code, record::DisconnectReason},
};

/// Times of a connection on a hub.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// How long a connection waits for a provider, in milliseconds.
    pub choosing_ms: u32,
    /// How long CLOSE_ACK may take, in milliseconds.
    pub closing_ms: u32,
}

impl Default for Config {
    fn default() -> Self {
        Self { choosing_ms: 60_000, closing_ms: 5_000 }
    }
}

/// How each direction stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Flow {
    /// From the consumer: over.
    up_over: bool,
    /// From the provider: over.
    down_over: bool,
    /// One of them was aborted.
    aborted: bool,
}

impl Flow {
    fn end(&mut self, source: Side) {
        match source {
            Side::Consumer => self.up_over = true,
            Side::Provider => self.down_over = true,
        }
    }

    fn is_over(self, source: Side) -> bool {
        match source {
            Side::Consumer => self.up_over,
            Side::Provider => self.down_over,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Nothing has come.
    Idle,
    /// No provider yet.
    Choosing,
    Relaying {
        flow: Flow,
    },
    /// One end asked for the end of both directions; the other has not answered.
    Closing {
        flow: Flow,
        asked_by: Side,
        code: u64,
    },
    Ended,
}

/// What happened to the connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// The consumer's stream, with its preamble if it has one.
    ConnectStream,
    /// A provider session was chosen, and its stream is open.
    ProviderChosen,
    /// There is none that could take it.
    NoneAvailable,
    /// A session went away.
    SessionLost {
        /// Whose.
        side: Side,
    },
    /// Everything from this side has been passed on, and it finished.
    Fin {
        /// The source.
        side: Side,
    },
    /// This side aborted its direction.
    Reset {
        /// The source.
        side: Side,
        /// The code to pass on.
        code: u64,
    },
    /// This side wants no more of the other's direction.
    Stop {
        /// The reader that left.
        side: Side,
        /// The code to pass on.
        code: u64,
    },
    /// CLOSE_REQ.
    CloseReq {
        /// Who asks.
        side: Side,
        /// Its code.
        code: u64,
        /// The other side has a control stream, and can be asked.
        askable: bool,
    },
    /// CLOSE_ACK.
    CloseAck {
        /// Who answers.
        side: Side,
    },
    /// The hub is leaving.
    HubDraining,
}

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// A provider has it: forward the preamble, tell the consumer (CONNECTED), write the start record, and move bytes.
    Begin,
    /// Finish the stream to this side.
    Finish {
        /// The reader.
        to: Side,
    },
    /// Abort the direction to this side (RESET_STREAM).
    Abort {
        /// The reader.
        to: Side,
        /// With this code.
        code: u64,
    },
    /// Ask this side to end its direction (STOP_SENDING).
    StopSending {
        /// The source.
        to: Side,
        /// With this code.
        code: u64,
    },
    /// Forward CLOSE_REQ.
    SendCloseReq {
        /// Who is asked.
        to: Side,
        /// With this code.
        code: u64,
    },
    /// Send CLOSE_ACK.
    SendCloseAck {
        /// Who had asked.
        to: Side,
    },
    /// It is over; forget it. With a reason there is a start record that wants its end.
    End {
        /// What the record says.
        reason: Option<DisconnectReason>,
    },
}

/// The timers of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConnectionTimer {
    /// A provider should have been found.
    Choosing,
    /// CLOSE_ACK should have come.
    Closing,
}

impl Timer for ConnectionTimer {
    const ALL: &'static [Self] = &[Self::Choosing, Self::Closing];

    fn index(self) -> usize {
        self as usize
    }

    fn name(self) -> &'static str {
        match self {
            Self::Choosing => "choosing",
            Self::Closing => "closing",
        }
    }
}

/// A connection on the hub.
#[derive(Debug, Clone)]
pub struct HubConnection {
    config: Config,
    state: State,
    timers: Timers<ConnectionTimer, 2>,
    actions: Actions<Action, 6>,
}

impl HubConnection {
    /// A connection of which nothing has come yet.
    #[must_use]
    pub fn new(config: Config) -> Self {
        Self { config, state: State::Idle, timers: Timers::default(), actions: Actions::default() }
    }

    /// Whether it still looks for a provider.
    #[must_use]
    pub fn is_choosing(&self) -> bool {
        self.state == State::Choosing
    }

    /// Whether bytes from `source` are still to be moved.
    #[must_use]
    pub fn is_flowing(&self, source: Side) -> bool {
        match self.state {
            State::Relaying { flow } | State::Closing { flow, .. } => !flow.is_over(source),
            State::Idle | State::Choosing | State::Ended => false,
        }
    }

    fn idle(&mut self, now: Instant, event: &Event) {
        match event {
            Event::ConnectStream => {
                self.state = State::Choosing;
                self.timers.set(ConnectionTimer::Choosing, now + Duration::from_millis(self.config.choosing_ms.into()));
            }
            Event::ProviderChosen
            | Event::NoneAvailable
            | Event::SessionLost { .. }
            | Event::Fin { .. }
            | Event::Reset { .. }
            | Event::Stop { .. }
            | Event::CloseReq { .. }
            | Event::CloseAck { .. }
            | Event::HubDraining => {}
        }
    }

    fn choosing(&mut self, event: Event) {
        match event {
            Event::ProviderChosen => {
                self.timers.stop_all();
                self.state = State::Relaying { flow: Flow::default() };
                self.actions.push(Action::Begin);
            }
            Event::Reset { side: Side::Consumer, code } | Event::Stop { side: Side::Consumer, code } => {
                self.end_consumer(code);
            }
            Event::CloseReq { side: Side::Consumer, code, .. } => {
                self.actions.push(Action::SendCloseAck { to: Side::Consumer });
                self.end_consumer(code);
            }
            Event::SessionLost { side: Side::Consumer } => self.end(None),
            // Nothing has reached a provider: the consumer may open it again, here or elsewhere.
            Event::HubDraining => self.end_consumer(code::NOT_STARTED),
            Event::ConnectStream
            | Event::NoneAvailable
            | Event::SessionLost { side: Side::Provider }
            | Event::Fin { .. }
            | Event::Reset { side: Side::Provider, .. }
            | Event::Stop { side: Side::Provider, .. }
            | Event::CloseReq { side: Side::Provider, .. }
            | Event::CloseAck { .. } => {}
        }
    }

    fn relaying(&mut self, now: Instant, flow: Flow, event: Event) {
        match event {
            Event::CloseReq { side, code, askable: true } => {
                self.state = State::Closing { flow, asked_by: side, code };
                self.timers.set(ConnectionTimer::Closing, now + Duration::from_millis(self.config.closing_ms.into()));
                self.actions.push(Action::SendCloseReq { to: side.other(), code });
            }
            Event::CloseReq { code, askable: false, .. } => self.close(flow, code),
            Event::Fin { .. } | Event::Reset { .. } | Event::Stop { .. } => {
                let flow = self.pass_on(flow, event);
                self.flowing(flow, State::Relaying { flow });
            }
            Event::SessionLost { side } => self.lost(flow, side),
            // Without pause a connection of a leaving hub runs until its end or the hub's.
            Event::HubDraining
            | Event::ConnectStream
            | Event::ProviderChosen
            | Event::NoneAvailable
            | Event::CloseAck { .. } => {}
        }
    }

    fn closing(&mut self, flow: Flow, asked_by: Side, code: u64, event: Event) {
        match event {
            Event::CloseAck { side } if side != asked_by => self.close(flow, code),
            Event::CloseReq { side, .. } => self.actions.push(Action::SendCloseAck { to: side }),
            Event::Fin { .. } | Event::Reset { .. } | Event::Stop { .. } => {
                let flow = self.pass_on(flow, event);
                self.flowing(flow, State::Closing { flow, asked_by, code });
            }
            Event::SessionLost { side } => self.lost(flow, side),
            Event::CloseAck { .. }
            | Event::HubDraining
            | Event::ConnectStream
            | Event::ProviderChosen
            | Event::NoneAvailable => {}
        }
    }

    /// Ends one direction as its source or its reader wants it, and leaves the other alone.
    fn pass_on(&mut self, mut flow: Flow, event: Event) -> Flow {
        match event {
            Event::Fin { side } if !flow.is_over(side) => {
                self.actions.push(Action::Finish { to: side.other() });
                flow.end(side);
            }
            Event::Reset { side, code } if !flow.is_over(side) => {
                self.actions.push(Action::Abort { to: side.other(), code });
                flow.end(side);
                flow.aborted = true;
            }
            Event::Stop { side, code } if !flow.is_over(side.other()) => {
                self.actions.push(Action::StopSending { to: side.other(), code });
                // QUIC wants an answer to STOP_SENDING (RFC 9000 §3.5).
                self.actions.push(Action::Abort { to: side, code });
                flow.end(side.other());
                flow.aborted = true;
            }
            // Over is over; and the rest is no direction's end.
            Event::Fin { .. }
            | Event::Reset { .. }
            | Event::Stop { .. }
            | Event::ConnectStream
            | Event::ProviderChosen
            | Event::NoneAvailable
            | Event::SessionLost { .. }
            | Event::CloseReq { .. }
            | Event::CloseAck { .. }
            | Event::HubDraining => {}
        }
        flow
    }

    fn flowing(&mut self, flow: Flow, state: State) {
        if flow.up_over && flow.down_over {
            let reason = if flow.aborted { DisconnectReason::ClosedByPeer } else { DisconnectReason::Closed };
            self.end(Some(reason));
        } else {
            self.state = state;
        }
    }

    /// CLOSE_REQ has been answered: the provider's stream ends first, then the consumer's.
    fn close(&mut self, flow: Flow, code: u64) {
        for to in [Side::Provider, Side::Consumer] {
            if code != code::OK {
                self.abort(flow, to, code);
            } else if !flow.is_over(to.other()) {
                self.actions.push(Action::Finish { to });
            }
        }
        self.end(Some(if code == code::OK { DisconnectReason::Closed } else { DisconnectReason::ClosedByPeer }));
    }

    fn lost(&mut self, flow: Flow, side: Side) {
        self.abort(flow, side.other(), code::PARTNER_LOST);
        self.end(Some(DisconnectReason::Error));
    }

    fn end_consumer(&mut self, code: u64) {
        self.abort(Flow::default(), Side::Consumer, code);
        self.end(None);
    }

    /// Aborts what is not over yet of the stream to this side.
    fn abort(&mut self, flow: Flow, to: Side, code: u64) {
        if !flow.is_over(to.other()) {
            self.actions.push(Action::Abort { to, code });
        }
        if !flow.is_over(to) {
            self.actions.push(Action::StopSending { to, code });
        }
    }

    fn end(&mut self, reason: Option<DisconnectReason>) {
        self.timers.stop_all();
        self.state = State::Ended;
        self.actions.push(Action::End { reason });
    }
}

impl Machine for HubConnection {
    type Event = Event;
    type Action = Action;

    fn handle_event(&mut self, now: Instant, event: Event) {
        match self.state {
            State::Idle => self.idle(now, &event),
            State::Choosing => self.choosing(event),
            State::Relaying { flow } => self.relaying(now, flow, event),
            State::Closing { flow, asked_by, code } => self.closing(flow, asked_by, code, event),
            State::Ended => {}
        }
    }

    fn handle_timeout(&mut self, now: Instant) {
        if let Some(timer) = self.timers.expire(now) {
            match (timer, self.state) {
                (ConnectionTimer::Choosing, _) => self.end_consumer(code::NOT_STARTED),
                (ConnectionTimer::Closing, State::Closing { flow, code, .. }) => {
                    self.abort(flow, Side::Provider, code);
                    self.abort(flow, Side::Consumer, code);
                    self.end(Some(DisconnectReason::ClosedByPeer));
                }
                (ConnectionTimer::Closing, _) => {}
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

impl Describe for HubConnection {
    const NAME: &'static str = "spn.hub_connection";
    const ABOUT: &'static str = "a connection as its hub sees it: choosing a provider, relaying, end";
    type Config = Config;

    fn start(config: Config, _seed: u64) -> Self {
        Self::new(config)
    }

    fn state(&self) -> &'static str {
        match self.state {
            State::Idle => "Idle",
            State::Choosing => "Choosing",
            State::Relaying { .. } => "Relaying",
            State::Closing { .. } => "Closing",
            State::Ended => "Ended",
        }
    }

    fn due(&self) -> Option<&'static str> {
        self.timers.next().map(|(_, timer)| timer.name())
    }

    fn fingerprint(&self) -> String {
        format!("{:?} {:?}", self.state, self.timers.armed().collect::<Vec<_>>())
    }

    fn alphabet() -> Vec<Event> {
        use Event as E;
        let of = |side| {
            [
                E::SessionLost { side },
                E::Fin { side },
                E::Reset { side, code: code::PEER_ABORTED },
                E::Stop { side, code: code::PEER_ABORTED },
                E::CloseReq { side, code: code::OK, askable: true },
                E::CloseReq { side, code: code::PEER_ABORTED, askable: true },
                E::CloseReq { side, code: code::PEER_ABORTED, askable: false },
                E::CloseAck { side },
            ]
        };
        [E::ConnectStream, E::ProviderChosen, E::NoneAvailable, E::HubDraining]
            .into_iter()
            .chain(of(Side::Consumer))
            .chain(of(Side::Provider))
            .collect()
    }

    fn check(&self) -> Result<(), String> {
        let timed = match self.state {
            State::Choosing | State::Closing { .. } => true,
            State::Idle | State::Relaying { .. } | State::Ended => false,
        };
        if self.poll_timeout().is_some() != timed {
            return Err(format!("{}: deadline is {:?}", self.state(), self.due()));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
