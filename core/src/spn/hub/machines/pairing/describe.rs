//! The requests to resume a connection for the explorer.

use super::{Admission, Config, End, Event, Pairing, SessionRef, State, Values, requests::Request};
use crate::{
    machine::{Describe, Inspect as _, Machine as _},
    spn::{Side, Tag, wire::code::StreamCode, wire::frame::Flags},
};

/// The sessions of the alphabet: the two ends of the connection, a second session of its consumer, and a stranger that knows its id.
const CONSUMER: u64 = 1;
const STRANGER: u64 = 2;
const PROVIDER: u64 = 3;
const SECOND: u64 = 4;

fn end(session: u64) -> End {
    let (side, partner) = if session == PROVIDER { (Side::Provider, CONSUMER) } else { (Side::Consumer, PROVIDER) };
    let tag = |session: u64| Tag([session as u8; 16]);
    let own = if session == SECOND { CONSUMER } else { session };
    End { service: 0, side, tag: tag(own), partner: Some(tag(partner)) }
}

fn request(session: u64, flags: Flags, admission: Admission, paused: bool) -> Event {
    let values = Values { generation: 0, received: 0, flags, code: StreamCode::OK };
    Event::ResumeReq { session: SessionRef(session), end: end(session), values, admission, owners: None, paused }
}

fn stream(session: u64, generation: u64, admission: Admission, yields: bool) -> Event {
    Event::ResumeStream { session: SessionRef(session), end: end(session), generation, admission, yields }
}

impl Describe for Pairing {
    const ABOUT: &'static str = "the requests to resume one connection on a hub: parked, paired, served";
    type Config = Config;

    fn start(config: Config, _seed: u64) -> Self {
        Self::new(config)
    }

    fn fingerprint(&self) -> String {
        let due = self.poll_timeout();
        let of = |it: &Request| {
            let (values, is_first) = (it.values, Some(it.until) == due);
            let said = (it.session.0, values.generation, values.flags);
            format!("{said:?} {} {} {is_first}", it.paused, it.sought.len())
        };
        let leg = match *self.parts.state() {
            State::Carried { generation, .. } => Some(generation),
            State::Idle { leg } => leg,
            State::Parked(_) | State::Held(_) | State::Paired(_) | State::Ended => None,
        };
        let requests = self.parts.state().requests().into_iter().flat_map(|requests| requests.iter().map(of));
        format!("{leg:?} {:?}", requests.collect::<Vec<_>>())
    }

    fn alphabet() -> Vec<Event> {
        use Event as E;
        let of = |session: u64| {
            [
                request(session, Flags::NONE, Admission::Free, false),
                E::CloseReq { session: SessionRef(session), end: end(session), code: StreamCode::PEER_ABORTED },
                E::SessionEnded { session: SessionRef(session) },
            ]
        };
        let mut events = vec![
            E::LegFound { generation: 0 },
            request(PROVIDER, Flags::ABORTED, Admission::Free, false),
            request(CONSUMER, Flags::NONE, Admission::Full, false),
            request(CONSUMER, Flags::NONE, Admission::Foreign, false),
            request(CONSUMER, Flags::NONE, Admission::Leaving, false),
            request(CONSUMER, Flags::NONE, Admission::Free, true),
            stream(CONSUMER, 1, Admission::Free, false),
            stream(CONSUMER, 1, Admission::Foreign, false),
            stream(CONSUMER, 2, Admission::Free, true),
            E::ConnectStream { session: SessionRef(CONSUMER), end: end(CONSUMER), admission: Admission::Free },
            E::LegRefused { generation: 1 },
            E::ProviderAnswered,
            E::LegAnswered { side: Side::Consumer },
            E::Seek { session: SessionRef(CONSUMER), provider: SessionRef(PROVIDER) },
            E::Absent { provider: SessionRef(PROVIDER) },
            E::ServicePaused { service: 0 },
            E::ServiceUnpaused { service: 0 },
            E::HubLeaving,
        ];
        events.extend([CONSUMER, STRANGER, PROVIDER, SECOND].into_iter().flat_map(of));
        events.extend([0, 1, 2].map(|generation| E::LegEnded { generation }));
        events
    }

    fn check(&self) -> Result<(), String> {
        let requests = self.parts.state().requests();
        if self.poll_timeout() != requests.and_then(super::Requests::due) {
            return Err(format!("{}: deadline is {:?}", self.state(), self.due()));
        }
        let Some(requests) = requests else { return Ok(()) };
        let pair = requests.pair();
        let is_right = match self.parts.state() {
            State::Carried { .. } => !requests.is_empty(),
            State::Parked(_) => !requests.is_empty() && pair.is_none(),
            State::Held(_) => pair.is_some_and(|(consumer, _)| consumer.paused),
            State::Paired(_) => pair.is_some_and(|(consumer, _)| !consumer.paused),
            State::Idle { .. } | State::Ended => false,
        };
        if !is_right {
            return Err(format!("{}, with {} requests", self.state(), requests.len()));
        }
        if let Some((consumer, provider)) = pair {
            let names = |from: End, to: End| from.partner.is_none_or(|tag| tag == to.tag);
            let (c, p) = (consumer.end, provider.end);
            if (c.side, p.side) != (Side::Consumer, Side::Provider) || c.service != p.service {
                return Err(format!("{c:?} and {p:?} are no two ends"));
            }
            if !names(c, p) || !names(p, c) {
                return Err(format!("{c:?} and {p:?} do not name each other"));
            }
        }
        let mut sessions: Vec<_> = self.sessions().collect();
        sessions.sort_unstable();
        sessions.dedup();
        if sessions.len() != requests.len() {
            return Err("a session has two requests".to_owned());
        }
        Ok(())
    }
}
