//! The requests to resume one connection on a hub, and their pairing (docs/protocols/spn.md, Hub connection, HBC-14 to HBC-18, and Pause and resume,
//! RES-26 to RES-30).
//!
//! Each end of a connection that has lost its stream sends RESUME_REQ on each of its sessions. The machine keeps the requests of one connection, joins
//! the two ends that belong together, and lets the consumer's RESUME stream become the next leg. The leg itself is a [`connection`](super::connection).
//! A machine begins with the first request, and ends with the last one.
//!
//! Diagram: `docs/states/spn.hub_pairing.md`.

mod describe;
mod events;
mod requests;

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};

pub use self::events::{Action, Admission, End, Event, Owners, SessionRef, Timer, Values};
use self::requests::{Request, Requests, is_same_end};
use crate::{
    machine::{self, Automaton, Parts},
    spn::{Side, wire::code::StreamCode},
};

/// Times of requests to resume.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// How long a request waits for the partner's.
    #[serde(rename = "resume_wait_ms", with = "machine::ms")]
    pub resume_wait: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self { resume_wait: Duration::from_secs(150) }
    }
}

/// The states of the requests to resume a connection.
#[derive(Debug, Clone, Default)]
pub enum State {
    /// No request has come.
    Idle {
        /// The generation of the leg, if there is one.
        leg: Option<u64>,
    },
    /// The connection has a leg. The requests wait for its end, or for the first bytes of its provider.
    Carried {
        /// The generation of the leg.
        generation: u64,
        /// There is one at least.
        requests: Requests,
    },
    /// No leg, and no two requests that belong together.
    Parked(Requests),
    /// Two requests belong together, and their service is paused: the end of the pause is their answer.
    Held(Requests),
    /// Two requests belong together, and a RESUME stream of the consumer is due.
    Paired(Requests),
    /// No request is left.
    #[default]
    Ended,
}

impl machine::State for State {
    fn name(&self) -> &'static str {
        match self {
            Self::Idle { .. } => "Idle",
            Self::Carried { .. } => "Carried",
            Self::Parked(_) => "Parked",
            Self::Held(_) => "Held",
            Self::Paired(_) => "Paired",
            Self::Ended => "Ended",
        }
    }
}

impl State {
    fn requests(&self) -> Option<&Requests> {
        match self {
            Self::Carried { requests, .. } | Self::Parked(requests) | Self::Held(requests) | Self::Paired(requests) => {
                Some(requests)
            }
            Self::Idle { .. } | Self::Ended => None,
        }
    }
}

/// The requests to resume one connection.
#[derive(Debug, Clone)]
pub struct Pairing {
    config: Config,
    parts: Parts<State, Timer, Action>,
}

/// What the present leg does about a RESUME stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Room {
    /// There is no leg.
    Free,
    /// The leg gives way.
    Superseded,
    /// The leg stays.
    Taken,
}

/// RESUME_REQ, with what is known about its session.
struct Asked {
    session: SessionRef,
    end: End,
    values: Values,
    admission: Admission,
    owners: Option<Owners>,
    paused: bool,
}

impl Pairing {
    /// A connection without requests.
    #[must_use]
    pub fn new(config: Config) -> Self {
        Self { config, parts: Parts::new(State::Idle { leg: None }) }
    }

    /// Whether the connection has a leg, as far as the machine knows.
    #[must_use]
    pub fn is_carried(&self) -> bool {
        matches!(self.parts.state(), State::Carried { .. })
    }

    /// The sessions that have a request here, the oldest request first.
    pub fn sessions(&self) -> impl Iterator<Item = SessionRef> {
        self.parts.state().requests().into_iter().flat_map(|requests| requests.iter().map(|request| request.session))
    }
}

impl Automaton for Pairing {
    const NAME: &'static str = "spn.hub_pairing";
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
        let next = match state {
            State::Idle { leg } => self.idle(now, event, leg),
            State::Carried { generation, requests } => self.carried(now, event, generation, requests),
            State::Parked(requests) | State::Held(requests) | State::Paired(requests) => {
                self.waiting(now, event, requests)
            }
            State::Ended => self.parts.ignore(State::Ended),
        };
        self.arm(next)
    }

    fn on_timeout(&mut self, now: Instant, state: State, Timer::ResumeWait: Timer) -> State {
        let late = |request: &Request| request.until <= now;
        let next = match state {
            State::Carried { generation, mut requests } => {
                self.refuse(&mut requests, StreamCode::RESUME_PARTNER_MISSING, late);
                self.carried_by(generation, requests)
            }
            State::Parked(mut requests) | State::Held(mut requests) | State::Paired(mut requests) => {
                self.refuse(&mut requests, StreamCode::RESUME_PARTNER_MISSING, late);
                self.pair(requests)
            }
            State::Idle { .. } | State::Ended => state,
        };
        self.arm(next)
    }
}

impl Pairing {
    fn idle(&mut self, now: Instant, event: Event, leg: Option<u64>) -> State {
        match event {
            Event::LegFound { generation } => State::Idle { leg: Some(generation) },
            Event::ResumeReq { .. }
            | Event::ResumeStream { .. }
            | Event::ConnectStream { .. }
            | Event::CloseReq { .. } => match leg {
                Some(generation) => self.carried(now, event, generation, Requests::default()),
                None => self.waiting(now, event, Requests::default()),
            },
            // They concern requests, and there is none yet.
            Event::LegEnded { .. }
            | Event::LegRefused { .. }
            | Event::ProviderAnswered
            | Event::LegAnswered { .. }
            | Event::Seek { .. }
            | Event::Absent { .. }
            | Event::SessionEnded { .. }
            | Event::ServicePaused { .. }
            | Event::ServiceUnpaused { .. }
            | Event::HubLeaving => self.parts.ignore(State::Idle { leg }),
        }
    }

    /// Parked, Held and Paired differ in what their requests are to each other; an event means the same for all three.
    fn waiting(&mut self, now: Instant, event: Event, mut requests: Requests) -> State {
        match event {
            Event::ResumeReq { session, end, values, admission, owners, paused } => {
                let asked = Asked { session, end, values, admission, owners, paused };
                if !self.park(now, &mut requests, asked) {
                    return self.settle(requests);
                }
                self.refuse_foreign(&mut requests);
                self.pair(requests)
            }
            Event::ResumeStream { session, end, generation, admission, yields: _ } => {
                let end = requests.known(session, end);
                if self.open_leg(&mut requests, end, (generation, admission), Room::Free) {
                    self.carried_by(generation, requests)
                } else {
                    self.settle(requests)
                }
            }
            Event::ConnectStream { session, end, admission } => {
                if !requests.is_empty() {
                    self.refuse_connect(&requests, requests.known(session, end), admission);
                }
                self.settle(requests)
            }
            Event::CloseReq { session, end, code } => {
                self.parts.act(Action::SendCloseAck { session });
                let end = requests.known(session, end);
                self.close(&mut requests, end, code);
                self.settle(requests)
            }
            Event::SessionEnded { session } if requests.of(session).is_some() => {
                self.forget(&mut requests, |request| request.session == session);
                self.pair(requests)
            }
            Event::ServiceUnpaused { service } => {
                requests.set_paused(service, false);
                self.pair(requests)
            }
            Event::ServicePaused { service } => {
                requests.set_paused(service, true);
                self.settle(requests)
            }
            Event::Seek { session, provider } => {
                self.seek(&mut requests, session, provider);
                self.settle(requests)
            }
            Event::Absent { provider } => {
                self.absent(&requests, provider);
                self.settle(requests)
            }
            Event::HubLeaving => {
                self.refuse(&mut requests, StreamCode::PAUSED, |_| true);
                self.settle(requests)
            }
            // There is no leg, or the session has no request here.
            Event::LegFound { .. }
            | Event::LegEnded { .. }
            | Event::LegRefused { .. }
            | Event::ProviderAnswered
            | Event::LegAnswered { .. }
            | Event::SessionEnded { .. } => {
                let state = self.settle(requests);
                self.parts.ignore(state)
            }
        }
    }

    fn carried(&mut self, now: Instant, event: Event, generation: u64, mut requests: Requests) -> State {
        match event {
            Event::ResumeReq { session, end, values, admission, owners, paused } => {
                let asked = Asked { session, end, values, admission, owners, paused };
                if self.park(now, &mut requests, asked) {
                    self.refuse_foreign(&mut requests);
                    // The sender has lost this leg. A leg of a higher generation stays (RES-26).
                    if values.generation >= generation {
                        self.parts.act(Action::LoseLeg { side: end.side });
                    }
                }
                self.carried_by(generation, requests)
            }
            Event::ResumeStream { session, end, generation: next, admission, yields } => {
                let room = if yields && next > generation { Room::Superseded } else { Room::Taken };
                let end = requests.known(session, end);
                let opens = self.open_leg(&mut requests, end, (next, admission), room);
                self.carried_by(if opens { next } else { generation }, requests)
            }
            Event::ConnectStream { session, end, admission } => {
                self.refuse_connect(&requests, requests.known(session, end), admission);
                self.carried_by(generation, requests)
            }
            Event::CloseReq { session, .. } => {
                self.parts.act(Action::SendCloseAck { session });
                self.carried_by(generation, requests)
            }
            Event::LegEnded { generation: ended } if ended == generation => self.pair(requests),
            Event::LegRefused { generation: refused } if refused == generation => self.settle(requests),
            // The provider knows now which connection it is; an older request of it has been served (RES-28).
            Event::ProviderAnswered => {
                self.forget(&mut requests, |request| {
                    request.end.side == Side::Provider && request.values.generation < generation
                });
                self.carried_by(generation, requests)
            }
            Event::LegAnswered { side } => {
                self.forget(&mut requests, |request| request.end.side == side);
                self.carried_by(generation, requests)
            }
            Event::SessionEnded { session } => {
                self.forget(&mut requests, |request| request.session == session);
                self.carried_by(generation, requests)
            }
            Event::ServiceUnpaused { service } => {
                requests.set_paused(service, false);
                self.carried_by(generation, requests)
            }
            Event::ServicePaused { service } => {
                requests.set_paused(service, true);
                self.carried_by(generation, requests)
            }
            Event::Seek { session, provider } => {
                self.seek(&mut requests, session, provider);
                self.carried_by(generation, requests)
            }
            Event::Absent { provider } => {
                self.absent(&requests, provider);
                self.carried_by(generation, requests)
            }
            Event::HubLeaving => {
                self.refuse(&mut requests, StreamCode::PAUSED, |_| true);
                self.carried_by(generation, requests)
            }
            // The event belongs to another leg.
            Event::LegFound { .. } | Event::LegEnded { .. } | Event::LegRefused { .. } => {
                self.parts.ignore(State::Carried { generation, requests })
            }
        }
    }

    /// Parks a request, or refuses it (RES-28). Says which.
    fn park(&mut self, now: Instant, requests: &mut Requests, asked: Asked) -> bool {
        let Asked { session, end, values, admission, owners, paused } = asked;
        let is_foreign = || requests.is_foreign(requests.known(session, end));
        let refusal = match admission {
            Admission::Leaving => Some(StreamCode::PAUSED),
            Admission::Foreign => Some(StreamCode::NOT_ENTITLED),
            Admission::Free | Admission::Full if is_foreign() => Some(StreamCode::NOT_ENTITLED),
            Admission::Full if requests.of(session).is_none() => Some(StreamCode::TOO_MANY_SESSIONS),
            Admission::Free | Admission::Full => None,
        };
        if let Some(code) = refusal {
            self.parts.act(Action::Refuse { sessions: vec![session], code });
            return false;
        }
        let until = machine::later(now, self.config.resume_wait);
        requests.put(Request { session, end, values, until, paused, sought: BTreeSet::new() }, owners);
        requests.set_paused(end.service, paused);
        self.parts.act(Action::Park { session });
        true
    }

    /// Refuses the requests of ends that turn out not to own the connection (OWN-4).
    fn refuse_foreign(&mut self, requests: &mut Requests) {
        let foreign: Vec<_> = requests.iter().filter(|it| requests.is_foreign(it.end)).map(|it| it.session).collect();
        self.refuse(requests, StreamCode::NOT_ENTITLED, |request| foreign.contains(&request.session));
    }

    /// Answers the two ends that belong together, unless their service is paused (RES-27).
    fn answer(&mut self, requests: &mut Requests) {
        let Some((consumer, provider)) = requests.pair().filter(|(consumer, _)| !consumer.paused) else { return };
        for (to, from) in [(consumer, provider), (provider, consumer)] {
            let Values { generation, received, flags, .. } = from.values;
            let (session, status) = (to.session, from.values.status());
            self.parts.act(Action::Answer { session, status, generation, received, flags });
        }
        if consumer.values.is_aborted() || provider.values.is_aborted() {
            let both = [consumer.end, provider.end].map(|end| (end.service, end.tag));
            self.forget(requests, |request| both.contains(&(request.end.service, request.end.tag)));
        }
    }

    /// Something has changed, and there is no leg: both ends are answered (RES-27).
    fn pair(&mut self, mut requests: Requests) -> State {
        self.answer(&mut requests);
        self.settle(requests)
    }

    /// The state without a leg.
    fn settle(&mut self, requests: Requests) -> State {
        match requests.pair() {
            _ if requests.is_empty() => self.end(),
            None => State::Parked(requests),
            Some((consumer, _)) if consumer.paused => State::Held(requests),
            Some(_) => State::Paired(requests),
        }
    }

    /// The state with a leg of this generation.
    fn carried_by(&mut self, generation: u64, requests: Requests) -> State {
        if requests.is_empty() { self.end() } else { State::Carried { generation, requests } }
    }

    fn end(&mut self) -> State {
        self.parts.act(Action::End);
        State::Ended
    }

    /// A consumer's RESUME stream becomes the next leg, or is refused (RES-30). Says which.
    fn open_leg(&mut self, requests: &mut Requests, end: End, stream: (u64, Admission), room: Room) -> bool {
        let (generation, admission) = stream;
        let provider = match admission {
            Admission::Foreign => Err(StreamCode::NOT_ENTITLED),
            Admission::Free | Admission::Full | Admission::Leaving => requests.provider_for(end, generation),
        };
        let refusal = match provider {
            Err(code) => Err(code),
            Ok(_) if admission == Admission::Leaving || room == Room::Taken => Err(StreamCode::PAUSED),
            Ok(provider) => Ok(provider),
        };
        let provider = match refusal {
            Ok(provider) => provider,
            Err(code) => {
                self.parts.act(Action::RefuseStream { code });
                return false;
            }
        };
        // The provider's request stays until its preamble has come (RES-28).
        self.forget(requests, |request| is_same_end(request, end));
        if room == Room::Superseded {
            self.parts.act(Action::SupersedeLeg);
            self.answer(requests);
        }
        self.parts.act(Action::OpenLeg { provider });
        true
    }

    /// A connection that is known is not begun (HBC-3).
    fn refuse_connect(&mut self, requests: &Requests, end: End, admission: Admission) {
        let is_foreign = admission == Admission::Foreign || requests.is_foreign(end);
        let code = if is_foreign { StreamCode::NOT_ENTITLED } else { StreamCode::CONN_IN_USE };
        self.parts.act(Action::RefuseStream { code });
    }

    /// An end gives the connection up: its partner is notified, and the requests of both are forgotten.
    fn close(&mut self, requests: &mut Requests, end: End, code: StreamCode) {
        if requests.is_foreign(end) {
            return;
        }
        let partner = requests.partner_for(end).map(|request| (request.session, request.end.tag));
        if let Some((session, _)) = partner {
            self.parts.act(Action::SendCloseReq { session, code });
        }
        let both = [Some(end.tag), partner.map(|(_, tag)| tag)];
        self.forget(requests, |request| request.end.service == end.service && both.contains(&Some(request.end.tag)));
    }

    /// Each session of a provider is asked once for each request (SEK-3).
    fn seek(&mut self, requests: &mut Requests, consumer: SessionRef, provider: SessionRef) {
        if requests.note_sought(consumer, provider) {
            self.parts.act(Action::SendSeek { provider });
        }
    }

    fn absent(&mut self, requests: &Requests, provider: SessionRef) {
        let consumers = requests.seekers(provider);
        if !consumers.is_empty() {
            self.parts.act(Action::SendAbsent { consumers, provider });
        }
    }

    fn forget(&mut self, requests: &mut Requests, which: impl Fn(&Request) -> bool) {
        let sessions = requests.take(which);
        if !sessions.is_empty() {
            self.parts.act(Action::Unpark { sessions });
        }
    }

    fn refuse(&mut self, requests: &mut Requests, code: StreamCode, which: impl Fn(&Request) -> bool) {
        let sessions = requests.take(which);
        if !sessions.is_empty() {
            self.parts.act(Action::Unpark { sessions: sessions.clone() });
            self.parts.act(Action::Refuse { sessions, code });
        }
    }

    /// The timer is that of the oldest request.
    fn arm(&mut self, next: State) -> State {
        match next.requests().and_then(Requests::due) {
            Some(due) => self.parts.timers.set(Timer::ResumeWait, due),
            None => self.parts.timers.stop(Timer::ResumeWait),
        }
        next
    }
}

#[cfg(test)]
mod tests;
