use proptest::prelude::*;

use super::*;
use crate::{
    machine::{Describe, Inspect, Machine},
    spn::{Tag, wire::frame::Flags},
    testing::first_instant,
};

use Action as A;
use Event as E;

const C: SessionRef = SessionRef(1);
const STRANGER: SessionRef = SessionRef(2);
const P: SessionRef = SessionRef(11);
/// The same process as `C`, on another session.
const C2: SessionRef = SessionRef(21);

fn tag(who: u8) -> Tag {
    Tag([who; 16])
}

fn end_of(session: SessionRef) -> End {
    let (side, who, partner) = match session {
        P => (Side::Provider, 11, 1),
        STRANGER => (Side::Consumer, 2, 11),
        _ => (Side::Consumer, 1, 11),
    };
    End { service: 0, side, tag: tag(who), partner: Some(tag(partner)) }
}

fn values(generation: u64, received: u64) -> Values {
    Values { generation, received, flags: Flags::NONE, code: StreamCode(0) }
}

fn request(session: SessionRef, values: Values) -> Event {
    let (end, admission) = (end_of(session), Admission::Free);
    E::ResumeReq { session, end, values, admission, owners: None, paused: false }
}

fn asks(session: SessionRef, generation: u64) -> Event {
    request(session, values(generation, 0))
}

/// A request of generation 0.
fn asks_if(session: SessionRef, admission: Admission, paused: bool) -> Event {
    E::ResumeReq { session, end: end_of(session), values: values(0, 0), admission, owners: None, paused }
}

fn stream(session: SessionRef, generation: u64) -> Event {
    E::ResumeStream { session, end: end_of(session), generation, admission: Admission::Free, yields: true }
}

fn connect(session: SessionRef) -> Event {
    E::ConnectStream { session, end: end_of(session), admission: Admission::Free }
}

fn close(session: SessionRef) -> Event {
    E::CloseReq { session, end: end_of(session), code: StreamCode(0x20) }
}

fn drain(machine: &mut Pairing) -> Vec<Action> {
    machine.check().unwrap();
    std::iter::from_fn(|| machine.poll_action()).collect()
}

fn after(events: &[Event]) -> Pairing {
    let mut machine = Pairing::new(Config::default());
    for event in events {
        machine.handle_event(first_instant(), event.clone());
        drain(&mut machine);
    }
    machine
}

#[track_caller]
fn assert_step(before: &[Event], event: Event, state: &str, actions: &[Action]) {
    let mut machine = after(before);
    machine.handle_event(first_instant(), event);
    assert_eq!((drain(&mut machine).as_slice(), machine.state()), (actions, state));
}

fn answer(session: SessionRef, generation: u64, received: u64) -> Action {
    A::Answer { session, status: StreamCode(0), generation, received, flags: Flags::NONE }
}

fn unpark(sessions: &[SessionRef]) -> Action {
    A::Unpark { sessions: sessions.to_vec() }
}

fn refuse(sessions: &[SessionRef], code: u64) -> Action {
    A::Refuse { sessions: sessions.to_vec(), code: StreamCode(code) }
}

fn park(session: SessionRef) -> Action {
    A::Park { session }
}

#[test]
fn two_ends_that_belong_together_are_answered_with_each_others_values() {
    let waits = [request(P, values(3, 40))];
    assert_step(&[], waits[0].clone(), "Parked", &[park(P)]);
    let both = [answer(C, 3, 40), answer(P, 2, 7)];
    assert_step(&waits, request(C, values(2, 7)), "Paired", &[&[park(C)][..], &both].concat());
    // A newer request takes the place of the older one, and both are answered again.
    let paired = [asks(P, 0), asks(C, 0)];
    assert_step(&paired, request(C, values(2, 7)), "Paired", &[park(C), answer(C, 0, 0), answer(P, 2, 7)]);
    // One side alone is not answered, on however many sessions it asks.
    assert_step(&[asks(C, 0)], asks(C2, 0), "Parked", &[park(C2)]);
}

#[test]
fn an_abort_is_reported_to_the_partner_and_ends_the_requests_of_both() {
    let aborted = |code| Values { flags: Flags::ABORTED, code, ..values(0, 0) };
    for (code, status) in
        [(StreamCode::PAUSE_TIMEOUT, StreamCode::PAUSE_TIMEOUT), (StreamCode::OK, StreamCode::PEER_ABORTED)]
    {
        let notified = A::Answer { session: P, status, generation: 0, received: 0, flags: Flags::ABORTED };
        let actions = [park(C), answer(C, 0, 0), notified, unpark(&[P, C]), A::End];
        assert_step(&[asks(P, 0)], request(C, aborted(code)), "Ended", &actions);
    }
    // A stranger's request is not forgotten with them.
    let (session, end, admission) = (STRANGER, End { service: 1, ..end_of(STRANGER) }, Admission::Free);
    let other = E::ResumeReq { session, end, values: values(0, 0), admission, owners: None, paused: false };
    let mut machine = after(&[other, asks(P, 0), request(C, aborted(StreamCode::OK))]);
    assert_eq!((machine.state(), machine.sessions().collect::<Vec<_>>()), ("Parked", vec![STRANGER]));
    drain(&mut machine);
}

#[test]
fn what_does_not_belong_to_the_sender_is_refused() {
    // Which end is the stranger is not known yet; the provider's request shows it.
    let found_out = [park(P), unpark(&[STRANGER]), refuse(&[STRANGER], 0x15)];
    assert_step(&[asks(STRANGER, 0)], asks(P, 0), "Parked", &found_out);
    assert_step(&[asks(P, 0)], asks(STRANGER, 0), "Parked", &[refuse(&[STRANGER], 0x15)]);
    let reset = [A::RefuseStream { code: StreamCode(0x15) }];
    assert_step(&[asks(P, 0)], stream(STRANGER, 1), "Parked", &reset);
    assert_step(&[asks(P, 0)], connect(STRANGER), "Parked", &reset);
    assert_step(&[asks(P, 0)], close(STRANGER), "Parked", &[A::SendCloseAck { session: STRANGER }]);
    // The present leg says it, too.
    let foreign = asks_if(STRANGER, Admission::Foreign, false);
    assert_step(&[E::LegFound { generation: 0 }], foreign, "Ended", &[refuse(&[STRANGER], 0x15), A::End]);
}

#[test]
fn requests_are_refused_at_a_limit_and_by_a_hub_that_leaves() {
    let full = |session| asks_if(session, Admission::Full, false);
    assert_step(&[asks(P, 0)], full(C), "Parked", &[refuse(&[C], 0x19)]);
    assert_step(&[asks(C, 0)], full(C), "Parked", &[park(C)]);
    assert_step(&[asks(P, 0)], full(STRANGER), "Parked", &[refuse(&[STRANGER], 0x15)]);
    let leaving = asks_if(C, Admission::Leaving, false);
    assert_step(&[], leaving, "Ended", &[refuse(&[C], 0x27), A::End]);
    let all = [unpark(&[C, P]), refuse(&[C, P], 0x27), A::End];
    assert_step(&[asks(C, 0), asks(P, 0)], E::HubLeaving, "Ended", &all);
    let carried = [E::LegFound { generation: 0 }, asks(C, 0)];
    assert_step(&carried, E::HubLeaving, "Ended", &[unpark(&[C]), refuse(&[C], 0x27), A::End]);
}

#[test]
fn a_resume_stream_becomes_the_next_leg() {
    let paired = [asks(P, 0), asks(C, 0)];
    let opened = [unpark(&[C]), A::OpenLeg { provider: P }];
    assert_step(&paired, stream(C, 1), "Carried", &opened);
    // The consumer's requests of all its sessions are served; and it needs none of its own.
    let twice = [asks(P, 0), asks(C2, 0), asks(C, 0)];
    assert_step(&twice, stream(C, 1), "Carried", &[unpark(&[C2, C]), A::OpenLeg { provider: P }]);
    assert_step(&[asks(P, 0)], stream(C, 1), "Carried", &[A::OpenLeg { provider: P }]);
    // The newest session of the provider gets it.
    let paused = [A::RefuseStream { code: StreamCode(0x27) }];
    assert_step(&[], stream(C, 1), "Ended", &[A::RefuseStream { code: StreamCode(0x27) }, A::End]);
    assert_step(&[asks(C, 0)], stream(C, 1), "Parked", &paused);
    // A stream that its sender has given up.
    assert_step(&[asks(P, 0), asks(C, 1)], stream(C, 1), "Paired", &paused);
    assert_step(&[asks(P, 0), asks(C2, 1)], stream(C, 1), "Paired", &paused);
    // The session of the consumer has too many connections: nothing was opened.
    let refused = [&paired[..], &[stream(C, 1)]].concat();
    assert_step(&refused, E::LegRefused { generation: 1 }, "Parked", &[]);
}

#[test]
fn the_providers_request_stays_until_its_preamble_has_come() {
    let carried = [asks(P, 0), asks(C, 0), stream(C, 1)];
    assert_step(&carried, E::ProviderAnswered, "Ended", &[unpark(&[P]), A::End]);
    // The leg dies before: the provider is paired again without having asked.
    let died = [&carried[..], &[asks(C, 1), E::LegEnded { generation: 1 }]].concat();
    assert_eq!(after(&died).state(), "Paired");
    // A request of the present generation is not served by it.
    let again = [&carried[..], &[asks(P, 1)]].concat();
    assert_step(&again, E::ProviderAnswered, "Carried", &[]);
}

#[test]
fn a_leg_that_its_end_has_lost_makes_room() {
    let carried = [asks(P, 0), asks(C, 0), stream(C, 1)];
    let lost = [park(C), A::LoseLeg { side: Side::Consumer }];
    assert_step(&carried, asks(C, 1), "Carried", &lost);
    assert_step(&carried, asks(C, 0), "Carried", &[park(C)]);
    let waits = [&carried[..], &[asks(C, 1)]].concat();
    assert_step(&waits, E::LegEnded { generation: 0 }, "Carried", &[]);
    assert_step(&waits, E::LegEnded { generation: 1 }, "Paired", &[answer(C, 0, 0), answer(P, 1, 0)]);
    // The leg has answered the request itself.
    assert_step(&waits, E::LegAnswered { side: Side::Consumer }, "Carried", &[unpark(&[C])]);
    // A leg that was here before the first request.
    let found = [E::LegFound { generation: 4 }];
    assert_step(&found, asks(C, 3), "Carried", &[park(C)]);
    assert_step(&found, asks(C, 4), "Carried", &[park(C), A::LoseLeg { side: Side::Consumer }]);
}

#[test]
fn a_newer_stream_supersedes_a_leg_that_gives_way() {
    let carried = [asks(P, 0), asks(C, 0), stream(C, 1)];
    let superseded = [A::SupersedeLeg, A::OpenLeg { provider: P }];
    assert_step(&carried, stream(C, 2), "Carried", &superseded);
    // The end of the older leg changes nothing any more.
    let newer = [&carried[..], &[stream(C, 2)]].concat();
    assert_step(&newer, E::LegEnded { generation: 1 }, "Carried", &[]);
    let refused = [A::RefuseStream { code: StreamCode(0x27) }];
    assert_step(&carried, stream(C, 1), "Carried", &refused);
    let (session, end, admission) = (C, end_of(C), Admission::Free);
    let stays = E::ResumeStream { session, end, generation: 2, admission, yields: false };
    assert_step(&carried, stays, "Carried", &refused);
}

#[test]
fn a_known_connection_is_not_begun() {
    let in_use = A::RefuseStream { code: StreamCode(0x23) };
    assert_step(&[asks(P, 0)], connect(C), "Parked", std::slice::from_ref(&in_use));
    assert_step(&[E::LegFound { generation: 0 }], connect(C), "Ended", &[in_use, A::End]);
    assert_step(&[], connect(C), "Ended", &[A::End]);
}

#[test]
fn close_req_reaches_the_partner_and_ends_the_requests_of_both() {
    let ack = A::SendCloseAck { session: C };
    assert_step(&[], close(C), "Ended", &[ack.clone(), A::End]);
    assert_step(&[asks(C, 0)], close(C), "Ended", &[ack.clone(), unpark(&[C]), A::End]);
    let notified = A::SendCloseReq { session: P, code: StreamCode(0x20) };
    let both = [ack.clone(), notified, unpark(&[P, C]), A::End];
    assert_step(&[asks(P, 0), asks(C, 0)], close(C), "Ended", &both);
    // A session without a leg of its own may not end another one's.
    assert_step(&[E::LegFound { generation: 1 }, asks(C, 0)], close(C), "Carried", &[ack]);
}

#[test]
fn a_paused_service_answers_when_its_pause_ends() {
    let held = |session| asks_if(session, Admission::Free, true);
    let both = [answer(C, 0, 0), answer(P, 0, 0)];
    assert_step(&[held(P)], held(C), "Held", &[park(C)]);
    assert_step(&[held(P), held(C)], stream(C, 1), "Held", &[A::RefuseStream { code: StreamCode(0x27) }]);
    assert_step(&[held(P), held(C)], E::ServiceUnpaused { service: 0 }, "Paired", &both);
    assert_step(&[asks(P, 0), asks(C, 0)], E::ServicePaused { service: 0 }, "Held", &[]);
    assert_step(&[asks(P, 0), asks(C, 0)], E::ServicePaused { service: 1 }, "Paired", &[]);
    let paused_leg = [asks(P, 0), asks(C, 0), stream(C, 1), asks(C, 1), E::ServicePaused { service: 0 }];
    assert_step(&paused_leg, E::LegEnded { generation: 1 }, "Held", &[]);
}

#[test]
fn a_session_takes_its_request_with_it() {
    let paired = [asks(P, 0), asks(C2, 0), asks(C, 0)];
    let gone = |session| E::SessionEnded { session };
    assert_step(&paired, gone(C), "Paired", &[unpark(&[C]), answer(C2, 0, 0), answer(P, 0, 0)]);
    assert_step(&paired, gone(P), "Parked", &[unpark(&[P])]);
    assert_step(&paired, gone(STRANGER), "Paired", &[]);
    assert_step(&[asks(C, 0)], gone(C), "Ended", &[unpark(&[C]), A::End]);
}

#[test]
fn each_provider_is_sought_once_for_each_request() {
    let seek = |session| E::Seek { session, provider: P };
    let sent = [A::SendSeek { provider: P }];
    assert_step(&[asks(C, 0)], seek(C), "Parked", &sent);
    assert_step(&[asks(C, 0), seek(C)], seek(C), "Parked", &[]);
    assert_step(&[asks(C, 0), seek(C), asks(C, 0)], seek(C), "Parked", &sent);
    assert_step(&[asks(C, 0)], seek(STRANGER), "Parked", &[]);
    assert_step(&[asks(P, 0)], seek(P), "Parked", &[]);
    let absent = E::Absent { provider: P };
    assert_step(&[asks(C, 0), seek(C)], absent.clone(), "Parked", &[A::SendAbsent { consumers: vec![C], provider: P }]);
    assert_step(&[asks(C, 0)], absent, "Parked", &[]);
}

#[test]
fn a_request_waits_for_its_time_and_no_longer() {
    let (start, wait) = (first_instant(), Config::default().resume_wait);
    let later = start + Duration::from_secs(5);
    let mut machine = Pairing::new(Config::default());
    machine.handle_event(start, asks(P, 0));
    machine.handle_event(later, asks(C, 0));
    machine.handle_event(later, asks(C2, 0));
    drain(&mut machine);
    assert_eq!(machine.poll_timeout(), Some(start + wait));
    machine.handle_timeout(start + wait - Duration::from_millis(1));
    assert_eq!((drain(&mut machine), machine.state()), (vec![], "Paired"));
    machine.handle_timeout(start + wait);
    assert_eq!((drain(&mut machine), machine.state()), (vec![unpark(&[P]), refuse(&[P], 0x24)], "Parked"));
    // A newer request of a session waits from its own time on.
    machine.handle_event(start + wait, asks(C, 0));
    drain(&mut machine);
    machine.handle_timeout(later + wait);
    assert_eq!(drain(&mut machine), [unpark(&[C2]), refuse(&[C2], 0x24)]);
    machine.handle_timeout(start + wait + wait);
    let last = vec![unpark(&[C]), refuse(&[C], 0x24), A::End];
    assert_eq!((drain(&mut machine), machine.state(), machine.poll_timeout()), (last, "Ended", None));
}

/// A host of the machine that knows only events and actions.
#[derive(Default)]
struct Host {
    /// The sessions with a request, and that request.
    parked: Vec<(SessionRef, End, Instant)>,
    leg: Option<u64>,
    is_over: bool,
}

impl Host {
    fn end_of(&self, session: SessionRef) -> Option<End> {
        self.parked.iter().find(|(other, ..)| *other == session).map(|(_, end, _)| *end)
    }

    /// Performs actions; `asked` is the request that caused them, `stream` the generation of the stream.
    fn perform(
        &mut self,
        now: Instant,
        actions: Vec<Action>,
        asked: Option<(SessionRef, End)>,
        stream: Option<u64>,
        wait: Duration,
    ) {
        let mut answers = Vec::new();
        let (mut decisions, mut superseded) = (0, false);
        for action in actions {
            assert!(!self.is_over, "{action:?} after the end");
            match action {
                A::Park { session } => {
                    let (from, end) = asked.expect("only a request is parked");
                    assert_eq!(session, from);
                    self.parked.retain(|(other, ..)| *other != session);
                    self.parked.push((session, end, now));
                }
                A::Unpark { sessions } => {
                    for session in sessions {
                        assert!(self.end_of(session).is_some(), "{session:?} has a request that can end");
                        self.parked.retain(|(other, ..)| *other != session);
                    }
                }
                A::Refuse { sessions, code } => {
                    for session in &sessions {
                        let is_new = asked.is_some_and(|(from, _)| from == *session);
                        assert!(is_new || self.end_of(*session).is_none(), "{session:?} still has a request");
                    }
                    assert!(matches!(code.0, 0x15 | 0x19 | 0x24 | 0x27), "{code}");
                }
                A::Answer { session, .. } => {
                    assert!(self.leg.is_none() || superseded, "an answer while there is a leg");
                    answers.push(self.end_of(session).expect("an answer to a request"));
                }
                A::SupersedeLeg => {
                    assert!(self.leg.take() < stream);
                    superseded = true;
                }
                A::LoseLeg { side } => {
                    assert_eq!(asked.map(|(_, end)| end.side), Some(side));
                    assert!(self.leg.is_some());
                }
                A::OpenLeg { provider } => {
                    assert_eq!(self.leg, None, "one leg at a time");
                    assert_eq!(self.end_of(provider).map(|end| end.side), Some(Side::Provider));
                    self.leg = stream;
                    decisions += 1;
                }
                A::RefuseStream { .. } => decisions += 1,
                A::End => self.is_over = true,
                A::SendCloseReq { session, .. } => assert!(self.end_of(session).is_some()),
                A::SendSeek { .. } => {}
                A::SendAbsent { consumers, .. } => {
                    let is_consumer =
                        |session: &SessionRef| self.end_of(*session).is_some_and(|it| it.side == Side::Consumer);
                    assert!(consumers.iter().all(is_consumer));
                }
                A::SendCloseAck { .. } => {}
            }
        }
        if let [consumer, provider] = answers[..] {
            assert_eq!((consumer.side, provider.side), (Side::Consumer, Side::Provider));
            assert_eq!(consumer.service, provider.service);
            assert!(consumer.partner.is_none_or(|tag| tag == provider.tag));
            assert!(provider.partner.is_none_or(|tag| tag == consumer.tag));
        } else {
            assert!(answers.is_empty(), "two are answered, or none");
        }
        assert_eq!(decisions, usize::from(stream.is_some()), "each stream is decided once");
        assert!(self.parked.iter().all(|(_, _, at)| now <= *at + wait), "a request has waited too long");
    }
}

#[derive(Debug, Clone)]
enum Step {
    Ask { session: u64, partner: Option<u8>, generation: u64, aborted: bool, admission: Admission },
    Stream { session: u64, generation: u64, yields: bool, fails: bool },
    Close { session: u64 },
    SessionEnded { session: u64 },
    LegEnded,
    ProviderAnswered,
    LegAnswered { side: Side },
    Seek { session: u64 },
    Absent,
    Pause { service: u32, paused: bool },
    HubLeaving,
    Wait { s: u64 },
}

fn side() -> impl Strategy<Value = Side> {
    prop_oneof![Just(Side::Consumer), Just(Side::Provider)]
}

fn step() -> impl Strategy<Value = Step> {
    let admission = prop_oneof![
        8 => Just(Admission::Free),
        1 => Just(Admission::Full),
        1 => Just(Admission::Foreign),
        1 => Just(Admission::Leaving),
    ];
    let partner = proptest::option::weighted(0.7, 0..8u8);
    prop_oneof![
        16 => (0..8u64, partner, 0..4u64, proptest::bool::weighted(0.1), admission)
            .prop_map(|(session, partner, generation, aborted, admission)| Step::Ask { session, partner, generation, aborted, admission }),
        8 => (0..4u64, 0..5u64, any::<bool>(), proptest::bool::weighted(0.2))
            .prop_map(|(session, generation, yields, fails)| Step::Stream { session, generation, yields, fails }),
        1 => (0..8u64).prop_map(|session| Step::Close { session }),
        2 => (0..8u64).prop_map(|session| Step::SessionEnded { session }),
        4 => Just(Step::LegEnded),
        2 => Just(Step::ProviderAnswered),
        1 => side().prop_map(|side| Step::LegAnswered { side }),
        2 => (0..8u64).prop_map(|session| Step::Seek { session }),
        1 => Just(Step::Absent),
        2 => (0..2u32, any::<bool>()).prop_map(|(service, paused)| Step::Pause { service, paused }),
        1 => Just(Step::HubLeaving),
        4 => (0..80u64).prop_map(|s| Step::Wait { s }),
    ]
}

/// Sessions 0 to 3 are consumers, of three identities; 4 to 7 are providers, of three; the last of each is of another service.
fn random_end(session: u64, partner: Option<u8>) -> End {
    let side = if session < 4 { Side::Consumer } else { Side::Provider };
    let service = u32::from(session % 4 == 3);
    let who = if session % 4 == 1 { session - 1 } else { session };
    End { service, side, tag: tag(who as u8), partner: partner.map(tag) }
}

proptest! {
    /// Whatever happens, only two ends of one service that name each other are joined, and each request ends once.
    #[test]
    fn requests_are_paired_answered_and_forgotten_once(
        steps in proptest::collection::vec(step(), 1..80), leg in proptest::option::of(0..3u64)
    ) {
        let (mut now, wait) = (first_instant(), Config::default().resume_wait);
        let (mut machine, mut host) = (Pairing::new(Config::default()), Host::default());
        let mut paused = [false; 2];
        for step in steps {
            if host.is_over || machine.state() == "Idle" {
                // The next machine of the same connection, as its owner makes it.
                (machine, host) = (Pairing::new(Config::default()), Host { leg, ..Host::default() });
                if let Some(generation) = leg {
                    machine.handle_event(now, E::LegFound { generation });
                }
            }
            let (mut asked, mut stream) = (None, None);
            let mut fails = false;
            let event = match step {
                Step::Ask { session, partner, generation, aborted, admission } => {
                    let end = random_end(session, partner);
                    let session = SessionRef(session);
                    asked = Some((session, end));
                    let flags = Flags::ABORTED.only_if(aborted);
                    let values = Values { generation, received: 0, flags, code: StreamCode(0) };
                    let paused = paused.get(end.service as usize).copied().unwrap_or_default();
                    Some(E::ResumeReq { session, end, values, admission, owners: None, paused })
                }
                Step::Stream { session, generation, yields, fails: fail } => {
                    (stream, fails) = (Some(generation), fail);
                    let (end, admission) = (random_end(session, None), Admission::Free);
                    Some(E::ResumeStream { session: SessionRef(session), end, generation, admission, yields })
                }
                Step::Close { session } => {
                    Some(E::CloseReq { session: SessionRef(session), end: random_end(session, None), code: StreamCode(0x20) })
                }
                Step::SessionEnded { session } => Some(E::SessionEnded { session: SessionRef(session) }),
                Step::LegEnded => host.leg.take().map(|generation| E::LegEnded { generation }),
                Step::ProviderAnswered => Some(E::ProviderAnswered),
                Step::LegAnswered { side } => Some(E::LegAnswered { side }),
                Step::Seek { session } => Some(E::Seek { session: SessionRef(session), provider: SessionRef(5) }),
                Step::Absent => Some(E::Absent { provider: SessionRef(5) }),
                Step::Pause { service, paused: to } => {
                    paused[service as usize] = to;
                    Some(if to { E::ServicePaused { service } } else { E::ServiceUnpaused { service } })
                }
                Step::HubLeaving => Some(E::HubLeaving),
                Step::Wait { s } => {
                    let until = now + Duration::from_secs(s);
                    while let Some(due) = machine.poll_timeout().filter(|due| *due <= until) {
                        now = now.max(due);
                        machine.handle_timeout(now);
                        host.perform(now, drain(&mut machine), None, None, wait);
                    }
                    now = until;
                    None
                }
            };
            if let Some(event) = event {
                machine.handle_event(now, event);
                host.perform(now, drain(&mut machine), asked, stream, wait);
            }
            if fails && stream.is_some() && host.leg == stream && !host.is_over {
                host.leg = None;
                let generation = stream.unwrap_or_default();
                machine.handle_event(now, E::LegRefused { generation });
                host.perform(now, drain(&mut machine), None, None, wait);
            }
            let (mut known, mut there): (Vec<_>, Vec<_>) =
                (host.parked.iter().map(|(session, ..)| *session).collect(), machine.sessions().collect());
            known.sort_unstable();
            there.sort_unstable();
            prop_assert_eq!(known, there);
            prop_assert_eq!(host.is_over, machine.state() == "Ended");
            prop_assert!(machine.state() == "Idle" || host.is_over || machine.is_carried() == host.leg.is_some());
        }
    }
}
