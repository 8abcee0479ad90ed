//! The machine of one TLS connection under an adaptor: handshake, admission to the inner binding, and the ends.
//!
//! The inner binding never sees a handshake. A connection that came in is offered to it when the handshake is over, and one that it opens is
//! connected when the peer's certificate has been judged. So a peer that is slow, wrong or hostile before that costs the inner protocol nothing.
//!
//! An end in good order is `close_notify` (RFC 8446 §6.1). A transport that ends without it may have been cut by anybody: that is an error.
//!
//! The diagram is `docs/states/tls.connection.md`, the table `docs/protocols/tls-states.md`.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::{
    machine::{self, Automaton, Describe, Parts, ms},
    net::{Close, Fault},
};

/// Time limits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The limit of a handshake, from the open transport on.
    #[serde(rename = "handshake_timeout_ms", with = "ms")]
    pub handshake_timeout: Duration,
    /// The limit for `close_notify` or an alert to leave.
    #[serde(rename = "close_timeout_ms", with = "ms")]
    pub close_timeout: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self { handshake_timeout: Duration::from_secs(10), close_timeout: Duration::from_secs(2) }
    }
}

/// The states of docs/protocols/tls-states.md.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum State {
    /// The machine has not begun.
    Start,
    /// The transport is not open yet.
    Dialing,
    /// The handshake of a connection that the inner binding opens.
    DialHandshake,
    /// The handshake of a connection that came in.
    AcceptHandshake,
    /// The inner binding has not taken it yet.
    Secured,
    /// Plaintext goes both ways.
    Open,
    /// The peer has ended its direction.
    ReadClosed,
    /// It is broken, and the inner binding is about to close it.
    Failed,
    /// The inner binding is gone, or never was: `close_notify` or an alert leaves.
    Closing,
    /// It is over.
    #[default]
    Closed,
}

impl machine::State for State {
    fn name(&self) -> &'static str {
        match self {
            Self::Start => "Start",
            Self::Dialing => "Dialing",
            Self::DialHandshake => "DialHandshake",
            Self::AcceptHandshake => "AcceptHandshake",
            Self::Secured => "Secured",
            Self::Open => "Open",
            Self::ReadClosed => "ReadClosed",
            Self::Failed => "Failed",
            Self::Closing => "Closing",
            Self::Closed => "Closed",
        }
    }
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Event {
    /// A transport was accepted.
    Accepted,
    /// The inner binding opens a connection.
    Dial,
    /// The transport of a dialled connection is open.
    Connected,
    /// The handshake is over.
    Secured,
    /// The inner binding has taken the connection.
    Admitted,
    /// TLS refuses the peer's bytes. An alert may be among the bytes to send.
    Refused,
    /// The peer has sent `close_notify`, and all before it was delivered.
    PeerClosed,
    /// The transport has ended without `close_notify`.
    WireEnd,
    /// The transport broke.
    WireError {
        /// The reason.
        fault: Fault,
    },
    /// A newcomer needs its place.
    GiveWay,
    /// The inner binding closes the connection.
    Close {
        /// In good order or with a reset.
        how: Close,
    },
    /// The transport has taken all bytes.
    Flushed,
}

/// What to do about it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// Begin the handshake.
    StartHandshake,
    /// Offer the connection to the inner binding.
    Offer,
    /// Report to the inner binding that it is connected.
    ReportConnected,
    /// Report to the inner binding that it is not.
    ReportConnectFailed {
        /// The reason.
        fault: Fault,
    },
    /// Report the peer's end in good order to the inner binding.
    ReportEnd,
    /// Report a broken connection to the inner binding.
    ReportError {
        /// The reason.
        fault: Fault,
    },
    /// Report to the owner that there was no handshake.
    ReportHandshakeFailed {
        /// The reason.
        fault: Fault,
    },
    /// Send `close_notify`.
    SendCloseNotify,
    /// Report by [`Event::Flushed`] when the transport has taken all bytes.
    Flush,
    /// Close the transport. It is the last action.
    CloseWire {
        /// In good order or with a reset.
        how: Close,
    },
}

/// The timers of docs/protocols/tls-states.md.
#[derive(Debug, Clone, Copy)]
pub enum Timer {
    /// The handshake has had its time.
    Handshake,
    /// The last bytes have had theirs.
    Close,
}

impl machine::Timer for Timer {
    const ALL: &'static [Self] = &[Self::Handshake, Self::Close];

    fn index(self) -> usize {
        self as usize
    }

    fn name(self) -> &'static str {
        match self {
            Self::Handshake => "handshake",
            Self::Close => "close",
        }
    }
}

/// The machine. See the top of the file for what it is for.
#[derive(Debug, Clone)]
pub struct Connection {
    config: Config,
    parts: Parts<State, Timer, Action>,
}

impl Automaton for Connection {
    const NAME: &'static str = "tls.connection";
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
            State::Start => self.start(now, event),
            State::Dialing => self.dialing(now, event),
            State::DialHandshake => self.dial_handshake(now, event),
            State::AcceptHandshake => self.accept_handshake(now, event),
            State::Secured => self.secured(event),
            State::Open | State::ReadClosed => self.open(now, state, event),
            State::Failed => self.failed(now, event),
            State::Closing => self.closing(event),
            State::Closed => self.parts.ignore(State::Closed),
        }
    }

    fn on_timeout(&mut self, _now: Instant, state: State, timer: Timer) -> State {
        match (timer, state) {
            (Timer::Handshake, State::DialHandshake) => self.fail_dial(Fault::TimedOut),
            (Timer::Handshake | Timer::Close, _) => {
                if state == State::AcceptHandshake {
                    self.parts.act(Action::ReportHandshakeFailed { fault: Fault::TimedOut });
                }
                self.close_wire(Close::Abort)
            }
        }
    }
}

impl Connection {
    /// A machine that has not begun: [`Event::Accepted`] or [`Event::Dial`] does.
    #[must_use]
    pub fn new(config: Config) -> Self {
        Self { config, parts: Parts::new(State::Start) }
    }

    /// Whether the peer's bytes are read for the handshake.
    #[must_use]
    pub fn is_handshaking(&self) -> bool {
        matches!(self.parts.state(), State::DialHandshake | State::AcceptHandshake)
    }

    /// Whether the peer's bytes are read for the inner binding, as far as that gives credit.
    #[must_use]
    pub fn is_open(&self) -> bool {
        matches!(self.parts.state(), State::Open)
    }

    /// Whether the last bytes leave.
    #[must_use]
    pub fn is_closing(&self) -> bool {
        matches!(self.parts.state(), State::Closing)
    }

    fn start(&mut self, now: Instant, event: Event) -> State {
        match event {
            Event::Accepted => self.start_handshake(now, State::AcceptHandshake),
            Event::Dial => State::Dialing,
            Event::Connected
            | Event::Secured
            | Event::Admitted
            | Event::Refused
            | Event::PeerClosed
            | Event::WireEnd
            | Event::WireError { .. }
            | Event::GiveWay
            | Event::Close { .. }
            | Event::Flushed => self.parts.ignore(State::Start),
        }
    }

    fn dialing(&mut self, now: Instant, event: Event) -> State {
        match event {
            Event::Connected => self.start_handshake(now, State::DialHandshake),
            Event::Close { .. } => self.close_wire(Close::Abort),
            Event::Accepted
            | Event::Dial
            | Event::Secured
            | Event::Admitted
            | Event::Refused
            | Event::PeerClosed
            | Event::WireEnd
            | Event::WireError { .. }
            | Event::GiveWay
            | Event::Flushed => self.parts.ignore(State::Dialing),
        }
    }

    fn dial_handshake(&mut self, now: Instant, event: Event) -> State {
        match event {
            Event::Secured => {
                self.parts.timers.stop(Timer::Handshake);
                self.parts.act(Action::ReportConnected);
                State::Open
            }
            Event::Refused => self.fail_dial(Fault::Tls),
            Event::PeerClosed | Event::WireEnd => self.fail_dial(Fault::Reset),
            Event::WireError { fault } => self.fail_dial(fault),
            Event::Close { .. } => self.flush(now),
            Event::Accepted | Event::Dial | Event::Connected | Event::Admitted | Event::GiveWay | Event::Flushed => {
                self.parts.ignore(State::DialHandshake)
            }
        }
    }

    fn accept_handshake(&mut self, now: Instant, event: Event) -> State {
        match event {
            Event::Secured => {
                self.parts.timers.stop(Timer::Handshake);
                self.parts.act(Action::Offer);
                State::Secured
            }
            Event::Refused => {
                self.parts.act(Action::ReportHandshakeFailed { fault: Fault::Tls });
                self.flush(now)
            }
            Event::PeerClosed | Event::WireEnd => self.refuse(Fault::Reset),
            Event::WireError { fault } => self.refuse(fault),
            Event::GiveWay => self.refuse(Fault::TimedOut),
            Event::Accepted
            | Event::Dial
            | Event::Connected
            | Event::Admitted
            | Event::Close { .. }
            | Event::Flushed => self.parts.ignore(State::AcceptHandshake),
        }
    }

    fn secured(&mut self, event: Event) -> State {
        match event {
            Event::Admitted => State::Open,
            Event::WireError { fault } => self.refuse(fault),
            Event::GiveWay => self.close_wire(Close::Abort),
            Event::Accepted
            | Event::Dial
            | Event::Connected
            | Event::Secured
            | Event::Refused
            | Event::PeerClosed
            | Event::WireEnd
            | Event::Close { .. }
            | Event::Flushed => self.parts.ignore(State::Secured),
        }
    }

    fn open(&mut self, now: Instant, state: State, event: Event) -> State {
        match event {
            Event::Refused => self.fail(Fault::Tls),
            Event::WireError { fault } => self.fail(fault),
            Event::PeerClosed if state == State::Open => {
                self.parts.act(Action::ReportEnd);
                State::ReadClosed
            }
            Event::WireEnd if state == State::Open => self.fail(Fault::Reset),
            Event::Close { how: Close::Fin } => {
                self.parts.act(Action::SendCloseNotify);
                self.flush(now)
            }
            Event::Close { how: Close::Abort } => self.close_wire(Close::Abort),
            Event::Accepted
            | Event::Dial
            | Event::Connected
            | Event::Secured
            | Event::Admitted
            | Event::PeerClosed
            | Event::WireEnd
            | Event::GiveWay
            | Event::Flushed => self.parts.ignore(state),
        }
    }

    fn failed(&mut self, now: Instant, event: Event) -> State {
        match event {
            Event::Close { .. } => self.flush(now),
            Event::Accepted
            | Event::Dial
            | Event::Connected
            | Event::Secured
            | Event::Admitted
            | Event::Refused
            | Event::PeerClosed
            | Event::WireEnd
            | Event::WireError { .. }
            | Event::GiveWay
            | Event::Flushed => self.parts.ignore(State::Failed),
        }
    }

    fn closing(&mut self, event: Event) -> State {
        match event {
            Event::Flushed => self.close_wire(Close::Fin),
            Event::WireError { .. } => self.close_wire(Close::Abort),
            Event::Accepted
            | Event::Dial
            | Event::Connected
            | Event::Secured
            | Event::Admitted
            | Event::Refused
            | Event::PeerClosed
            | Event::WireEnd
            | Event::GiveWay
            | Event::Close { .. } => self.parts.ignore(State::Closing),
        }
    }

    fn start_handshake(&mut self, now: Instant, next: State) -> State {
        self.parts.timers.set_after(Timer::Handshake, now, self.config.handshake_timeout);
        self.parts.act(Action::StartHandshake);
        next
    }

    /// No handshake on a connection that the inner binding opens.
    fn fail_dial(&mut self, fault: Fault) -> State {
        self.parts.timers.stop_all();
        self.parts.act(Action::ReportHandshakeFailed { fault });
        self.parts.act(Action::ReportConnectFailed { fault });
        State::Failed
    }

    /// No handshake on a connection that came in, and nothing to tell the peer.
    fn refuse(&mut self, fault: Fault) -> State {
        self.parts.act(Action::ReportHandshakeFailed { fault });
        self.close_wire(Close::Abort)
    }

    fn fail(&mut self, fault: Fault) -> State {
        self.parts.act(Action::ReportError { fault });
        State::Failed
    }

    /// The last bytes leave, and then the transport ends.
    fn flush(&mut self, now: Instant) -> State {
        self.parts.timers.stop_all();
        self.parts.timers.set_after(Timer::Close, now, self.config.close_timeout);
        self.parts.act(Action::Flush);
        State::Closing
    }

    fn close_wire(&mut self, how: Close) -> State {
        self.parts.timers.stop_all();
        self.parts.act(Action::CloseWire { how });
        State::Closed
    }
}

impl Describe for Connection {
    const ABOUT: &'static str = "one TLS connection between a transport and a binding: handshake, admission, ends";
    type Config = Config;

    fn start(config: Config, _seed: u64) -> Self {
        Self::new(config)
    }

    fn fingerprint(&self) -> String {
        self.parts.fingerprint()
    }

    fn alphabet() -> Vec<Event> {
        vec![
            Event::Accepted,
            Event::Dial,
            Event::Connected,
            Event::Secured,
            Event::Admitted,
            Event::Refused,
            Event::PeerClosed,
            Event::WireEnd,
            Event::WireError { fault: Fault::Reset },
            Event::GiveWay,
            Event::Close { how: Close::Fin },
            Event::Close { how: Close::Abort },
            Event::Flushed,
        ]
    }

    fn check(&self) -> Result<(), String> {
        let state = *self.parts.state();
        let expected = match state {
            State::DialHandshake | State::AcceptHandshake => Some("handshake"),
            State::Closing => Some("close"),
            State::Start
            | State::Dialing
            | State::Secured
            | State::Open
            | State::ReadClosed
            | State::Failed
            | State::Closed => None,
        };
        if self.parts.timers.armed().eq(expected) {
            return Ok(());
        }
        Err(format!("{state:?} needs the timer {expected:?}"))
    }
}

#[cfg(test)]
mod tests;
