use proptest::prelude::*;

use super::*;
use crate::{
    machine::{Describe as _, Inspect as _, Machine as _},
    testing::first_instant,
};

fn after(events: &[Event]) -> HubConnection {
    let mut connection = HubConnection::new(Config::default());
    for event in events {
        connection.handle_event(first_instant(), event.clone());
        while connection.poll_action().is_some() {}
    }
    connection
}

fn step(before: &[Event], event: Event) -> (&'static str, Vec<Action>) {
    let mut connection = after(before);
    connection.handle_event(first_instant(), event);
    let actions = std::iter::from_fn(|| connection.poll_action()).collect();
    (connection.state(), actions)
}

fn expire(before: &[Event]) -> (&'static str, Vec<Action>) {
    let mut connection = after(before);
    let due = connection.poll_timeout().expect("a deadline");
    connection.handle_timeout(due);
    let actions = std::iter::from_fn(|| connection.poll_action()).collect();
    (connection.state(), actions)
}

use Action as A;
use Event as E;
use Side::{Consumer, Provider};

const CHOOSING: &[Event] = &[E::ConnectStream];
const CHOSEN: Event = E::ProviderChosen { resumable: false };
const RELAYING: &[Event] = &[E::ConnectStream, CHOSEN];
const CLOSING: &[Event] =
    &[E::ConnectStream, CHOSEN, E::CloseReq { side: Consumer, code: StreamCode(0x20), askable: true }];
/// Both ends can resume, and the provider knows the connection.
const RESUMABLE: &[Event] = &[E::ConnectStream, E::ProviderChosen { resumable: true }, E::Answered];

fn both(code: u64) -> Vec<Action> {
    vec![
        A::Abort { to: Provider, code: StreamCode(code) },
        A::StopSending { to: Provider, code: StreamCode(code) },
        A::Abort { to: Consumer, code: StreamCode(code) },
        A::StopSending { to: Consumer, code: StreamCode(code) },
    ]
}

fn consumer(code: u64) -> Vec<Action> {
    vec![
        A::Abort { to: Consumer, code: StreamCode(code) },
        A::StopSending { to: Consumer, code: StreamCode(code) },
        A::End { reason: None },
    ]
}

#[test]
fn what_a_provider_that_leaves_in_good_order_has_never_had_may_begin_again() {
    let drained = E::SessionLost { side: Provider, loss: Loss::Drained };
    let fresh = [E::ConnectStream, E::ProviderChosen { resumable: true }];
    let again = |code| {
        let notified = [A::Abort { to: Consumer, code }, A::StopSending { to: Consumer, code }];
        let reason = if code == StreamCode::NOT_STARTED { DisconnectReason::Closed } else { DisconnectReason::Error };
        ("Ended", [&notified[..], &[A::End { reason: Some(reason) }]].concat())
    };
    assert_eq!(step(&fresh, drained.clone()), again(StreamCode(0x28)));
    let pausing = [&fresh[..], &[E::PauseWanted]].concat();
    assert_eq!(step(&pausing, drained.clone()), again(StreamCode(0x28)));
    // It has spoken of it.
    assert_eq!(step(RESUMABLE, drained.clone()), again(StreamCode(0x21)));
    for event in [E::PauseAck { side: Provider }, E::Answered] {
        assert_eq!(step(&[&pausing[..], &[event]].concat(), drained.clone()), again(StreamCode(0x21)));
    }
    // Without resume it is not known what it has done.
    assert_eq!(step(RELAYING, drained), again(StreamCode(0x21)));
}

#[test]
fn a_leg_waits_for_a_stream_of_its_provider() {
    let waiting = &[E::ResumeWaits];
    assert_eq!(step(&[], E::ResumeWaits), ("Waiting", vec![]));
    assert_eq!(step(waiting, E::ResumeStream), ("Relaying", vec![A::Begin]));
    let again = ("Ended", consumer(0x27));
    let lost = |side| E::SessionLost { side, loss: Loss::Away };
    for event in [lost(Provider), E::PauseWanted, E::ResumeReq { side: Consumer }, E::Superseded] {
        assert_eq!(step(waiting, event), again);
    }
    assert_eq!(expire(waiting), again);
    assert_eq!(step(waiting, lost(Consumer)), ("Ended", vec![A::End { reason: None }]));
    assert_eq!(step(waiting, E::Reset { side: Consumer, code: StreamCode(0x27) }), again);
    let mut closed = vec![A::SendCloseAck { to: Consumer }];
    closed.extend(consumer(0x20));
    assert_eq!(step(waiting, E::CloseReq { side: Consumer, code: StreamCode(0x20), askable: true }), ("Ended", closed));
    assert!(after(waiting).may_be_superseded());
    // A reader that has left is remembered for the provider, and informed of the end on its control stream.
    let stopped = &[E::ResumeWaits, E::Stop { side: Consumer, code: StreamCode(0x20) }];
    let passed = [
        A::Begin,
        A::StopSending { to: Provider, code: StreamCode(0x20) },
        A::Abort { to: Consumer, code: StreamCode(0x20) },
    ];
    assert_eq!(step(stopped, E::ResumeStream), ("Relaying", passed.to_vec()));
    let mut notified = vec![A::SendPauseReq { to: Consumer }];
    notified.extend(consumer(0x27));
    assert_eq!(step(stopped, lost(Provider)), ("Ended", notified.clone()));
    assert_eq!(expire(stopped), ("Ended", notified));
}

#[test]
fn choosing() {
    assert_eq!(step(CHOOSING, CHOSEN), ("Relaying", vec![A::Begin]));
    assert_eq!(step(CHOOSING, E::NoneAvailable), ("Choosing", vec![]));
    assert_eq!(step(CHOOSING, E::PauseWanted), ("Ended", consumer(0x28)));
    assert_eq!(step(CHOOSING, E::Reset { side: Consumer, code: StreamCode(0x20) }), ("Ended", consumer(0x20)));
    assert_eq!(
        step(CHOOSING, E::SessionLost { side: Consumer, loss: Loss::Away }),
        ("Ended", vec![A::End { reason: None }])
    );
    let (state, actions) = step(CHOOSING, E::CloseReq { side: Consumer, code: StreamCode(0), askable: true });
    assert_eq!((state, &actions[0]), ("Ended", &A::SendCloseAck { to: Consumer }));
    assert_eq!(expire(CHOOSING), ("Ended", consumer(0x28)), "60 s without a provider");
}

#[test]
fn both_ends_finish() {
    let (state, actions) = step(RELAYING, E::Fin { side: Consumer });
    assert_eq!((state, actions), ("Relaying", vec![A::Finish { to: Provider }]), "half-closed");
    let before = [RELAYING, &[E::Fin { side: Consumer }]].concat();
    let end = A::End { reason: Some(DisconnectReason::Closed) };
    assert_eq!(step(&before, E::Fin { side: Provider }), ("Ended", vec![A::Finish { to: Consumer }, end]));
}

#[test]
fn a_reset_ends_its_direction_only() {
    let (state, actions) = step(RELAYING, E::Reset { side: Provider, code: StreamCode(0x20) });
    assert_eq!((state, actions), ("Relaying", vec![A::Abort { to: Consumer, code: StreamCode(0x20) }]));
    let before = [RELAYING, &[E::Reset { side: Provider, code: StreamCode(0x20) }]].concat();
    let end = A::End { reason: Some(DisconnectReason::ClosedByPeer) };
    assert_eq!(step(&before, E::Fin { side: Consumer }), ("Ended", vec![A::Finish { to: Provider }, end]));
    assert_eq!(step(&before, E::Fin { side: Provider }), ("Relaying", vec![]), "over is over");
}

#[test]
fn a_stop_is_passed_on_one_way_and_answered() {
    let (state, actions) = step(RELAYING, E::Stop { side: Consumer, code: StreamCode(7) });
    let expected =
        vec![A::StopSending { to: Provider, code: StreamCode(7) }, A::Abort { to: Consumer, code: StreamCode(7) }];
    assert_eq!((state, actions), ("Relaying", expected), "the consumer may still send");
}

#[test]
fn a_lost_session_resets_the_partner() {
    for (side, loss) in [(Consumer, Loss::Away), (Provider, Loss::Left)] {
        let to = side.other();
        let expected = vec![
            A::Abort { to, code: StreamCode(0x21) },
            A::StopSending { to, code: StreamCode(0x21) },
            A::End { reason: Some(DisconnectReason::Error) },
        ];
        assert_eq!(step(RELAYING, E::SessionLost { side, loss }), ("Ended", expected.clone()));
        assert_eq!(step(CLOSING, E::SessionLost { side, loss }), ("Ended", expected));
    }
}

#[test]
fn close_request() {
    let asked = E::CloseReq { side: Provider, code: StreamCode(0), askable: true };
    assert_eq!(step(RELAYING, asked.clone()), ("Closing", vec![A::SendCloseReq { to: Consumer, code: StreamCode(0) }]));
    let before = [RELAYING, &[asked]].concat();
    let closed =
        vec![A::Finish { to: Provider }, A::Finish { to: Consumer }, A::End { reason: Some(DisconnectReason::Closed) }];
    assert_eq!(step(&before, E::CloseAck { side: Consumer }), ("Ended", closed), "provider first");
    assert_eq!(step(&before, E::CloseAck { side: Provider }), ("Closing", vec![]), "only the other's answer counts");
    let mut aborted = both(0x20);
    aborted.push(A::End { reason: Some(DisconnectReason::ClosedByPeer) });
    assert_eq!(step(CLOSING, E::CloseAck { side: Provider }), ("Ended", aborted.clone()));
    assert_eq!(expire(CLOSING), ("Ended", aborted.clone()), "5 s without an answer");
    let unaskable = E::CloseReq { side: Consumer, code: StreamCode(0x20), askable: false };
    assert_eq!(step(RELAYING, unaskable), ("Ended", aborted), "sc01 has no CLOSE_REQ");
}

#[test]
fn both_ask_at_once() {
    let other = E::CloseReq { side: Provider, code: StreamCode(0x20), askable: true };
    assert_eq!(step(CLOSING, other), ("Closing", vec![A::SendCloseAck { to: Provider }]));
}

#[test]
fn a_drain_leaves_relaying_connections_alone() {
    assert_eq!(step(RELAYING, E::PauseWanted), ("Relaying", vec![]));
}

fn closed(reason: DisconnectReason) -> Action {
    A::End { reason: Some(reason) }
}

/// Resets what is open towards one side.
fn cut(to: Side, code: u64) -> Vec<Action> {
    vec![A::Abort { to, code: StreamCode(code) }, A::StopSending { to, code: StreamCode(code) }]
}

fn with(before: &[Event], more: &[Event]) -> Vec<Event> {
    [before, more].concat()
}

#[test]
fn a_provider_that_dies_before_any_byte_costs_a_new_try() {
    let lost = E::SessionLost { side: Provider, loss: Loss::Unstarted };
    let expected = [cut(Consumer, 0x28), vec![closed(DisconnectReason::Error)]].concat();
    assert_eq!(step(RELAYING, lost.clone()), ("Ended", expected.clone()));
    assert_eq!(step(RESUMABLE, lost), ("Ended", expected));
}

#[test]
fn a_lost_session_pauses_the_partner() {
    for side in [Consumer, Provider] {
        let away = E::SessionLost { side, loss: Loss::Away };
        let expected = [cut(side.other(), 0x27), vec![closed(DisconnectReason::Error)]].concat();
        assert_eq!(step(RESUMABLE, away), ("Ended", expected));
        let left = E::SessionLost { side, loss: Loss::Left };
        let expected = [cut(side.other(), 0x21), vec![closed(DisconnectReason::Error)]].concat();
        assert_eq!(step(RESUMABLE, left), ("Ended", expected), "it will not come back");
    }
}

#[test]
fn a_partner_whose_own_direction_may_have_come_in_whole_is_informed_by_a_frame() {
    let half = with(RESUMABLE, &[E::Fin { side: Provider }]);
    let away = E::SessionLost { side: Provider, loss: Loss::Away };
    let stop = |code| A::StopSending { to: Consumer, code };
    let expected = vec![stop(StreamCode(0x27)), A::SendPauseReq { to: Consumer }, closed(DisconnectReason::Error)];
    assert_eq!(step(&half, away), ("Ended", expected));
    let left = E::SessionLost { side: Provider, loss: Loss::Left };
    let expected = vec![
        stop(StreamCode(0x21)),
        A::SendCloseReq { to: Consumer, code: StreamCode(0x21) },
        closed(DisconnectReason::Error),
    ];
    assert_eq!(step(&half, left), ("Ended", expected));
}

#[test]
fn a_provider_that_may_not_know_the_connection_yet_is_asked_before_its_stream_is_reset() {
    let fresh = [E::ConnectStream, E::ProviderChosen { resumable: true }];
    let away = E::SessionLost { side: Consumer, loss: Loss::Away };
    assert_eq!(step(&fresh, away.clone()), ("Pausing", vec![A::SendPauseReq { to: Provider }]));
    let before = with(&fresh, &[away]);
    let expected = [cut(Provider, 0x27), vec![closed(DisconnectReason::Error)]].concat();
    assert_eq!(step(&before, E::PauseAck { side: Provider }), ("Ended", expected.clone()));
    assert_eq!(expire(&before), ("Ended", expected), "2 s");
    let gone = E::SessionLost { side: Provider, loss: Loss::Away };
    assert_eq!(step(&before, gone.clone()), ("Ended", vec![closed(DisconnectReason::Error)]));
    // The consumer's own stream is left at once.
    let expected = [cut(Consumer, 0x27), vec![A::SendPauseReq { to: Provider }]].concat();
    assert_eq!(step(&fresh, E::ResumeReq { side: Consumer }), ("Pausing", expected));
    // A lost provider is no reason to wait.
    let expected = [cut(Consumer, 0x27), vec![closed(DisconnectReason::Error)]].concat();
    assert_eq!(step(&fresh, gone), ("Ended", expected));
    let asks = E::CloseReq { side: Provider, code: StreamCode(0x20), askable: true };
    let expected =
        [vec![A::SendCloseAck { to: Provider }], cut(Provider, 0x20), vec![closed(DisconnectReason::ClosedByPeer)]]
            .concat();
    assert_eq!(step(&before, asks), ("Ended", expected), "CLOSE_ACK: the partner was not informed");
}

#[test]
fn the_next_leg() {
    assert_eq!(step(&[], E::ResumeStream), ("Relaying", vec![A::Begin]));
    let away = E::SessionLost { side: Consumer, loss: Loss::Away };
    assert_eq!(step(&[E::ResumeStream], away).0, "Ended", "its provider knows it");
    let both_ended = [both(0x27), vec![closed(DisconnectReason::Error)]].concat();
    for side in [Consumer, Provider] {
        let expected = [cut(side, 0x27), cut(side.other(), 0x27), vec![closed(DisconnectReason::Error)]].concat();
        assert_eq!(step(RESUMABLE, E::ResumeReq { side }), ("Ended", expected), "who asks has lost its stream");
    }
    assert_eq!(step(RESUMABLE, E::Superseded), ("Ended", both_ended));
    assert_eq!(step(RELAYING, E::Superseded), ("Relaying", vec![]));
}

#[test]
fn a_pause_waits_for_both() {
    let asked = vec![A::SendPauseReq { to: Provider }, A::SendPauseReq { to: Consumer }];
    assert_eq!(step(RESUMABLE, E::PauseWanted), ("Pausing", asked.clone()));
    let pausing = with(RESUMABLE, &[E::PauseWanted]);
    let paused = [both(0x27), vec![closed(DisconnectReason::Closed)]].concat();
    assert_eq!(step(&pausing, E::PauseAck { side: Consumer }), ("Pausing", vec![]));
    assert_eq!(step(&pausing, E::PauseWanted), ("Pausing", vec![]), "said once");
    let one = with(&pausing, &[E::PauseAck { side: Consumer }]);
    assert_eq!(step(&one, E::PauseAck { side: Consumer }), ("Pausing", vec![]));
    assert_eq!(step(&one, E::PauseAck { side: Provider }), ("Ended", paused.clone()));
    assert_eq!(step(&one, E::ResumeReq { side: Provider }), ("Ended", paused.clone()));
    assert_eq!(step(&one, E::Stop { side: Provider, code: StreamCode(0x27) }), ("Ended", paused.clone()));
    assert_eq!(expire(&one), ("Ended", paused), "2 s");
    let lost = E::SessionLost { side: Provider, loss: Loss::Away };
    let rest = [cut(Consumer, 0x27), vec![closed(DisconnectReason::Closed)]].concat();
    assert_eq!(step(&one, lost.clone()), ("Ended", rest));
    assert_eq!(step(&pausing, lost), ("Pausing", vec![]), "the consumer has not answered");
    // Payload, ends and requests still pass.
    assert_eq!(step(&pausing, E::Fin { side: Provider }), ("Pausing", vec![A::Finish { to: Consumer }]));
    let asks = E::CloseReq { side: Consumer, code: StreamCode(0x20), askable: true };
    assert_eq!(step(&pausing, asks), ("Closing", vec![A::SendCloseReq { to: Provider, code: StreamCode(0x20) }]));
    let over = [E::Fin { side: Provider }, E::Fin { side: Consumer }, E::Reported { side: Provider }];
    let before = with(&pausing, &over);
    let end = ("Ended", vec![closed(DisconnectReason::Closed)]);
    assert_eq!(step(&before, E::Reported { side: Consumer }), end, "nothing is left to resume");
}

#[test]
fn reports_pass_after_the_streams() {
    let over = with(RESUMABLE, &[E::Fin { side: Consumer }]);
    let finished = A::Finished { reason: DisconnectReason::Closed };
    assert_eq!(
        step(&over, E::Fin { side: Provider }),
        ("Finishing", vec![A::Finish { to: Consumer }, finished.clone()])
    );
    let finishing = with(&over, &[E::Fin { side: Provider }]);
    assert_eq!(step(&finishing, E::Reported { side: Consumer }), ("Finishing", vec![]));
    let one = with(&finishing, &[E::Reported { side: Consumer }]);
    assert_eq!(step(&one, E::Reported { side: Consumer }), ("Finishing", vec![]));
    assert_eq!(step(&one, E::Reported { side: Provider }), ("Ended", vec![A::End { reason: None }]));
    // What was reported before counts.
    let early = with(RESUMABLE, &[E::Fin { side: Consumer }, E::Reported { side: Provider }]);
    let ended = vec![A::Finish { to: Consumer }, finished];
    assert_eq!(step(&early, E::Fin { side: Provider }), ("Finishing", ended));
    let early = with(&early, &[E::Reported { side: Consumer }]);
    let ended = vec![A::Finish { to: Consumer }, closed(DisconnectReason::Closed)];
    assert_eq!(step(&early, E::Fin { side: Provider }), ("Ended", ended));
}

#[test]
fn a_stop_is_reported_but_a_reset_needs_no_report() {
    let stopped = with(RESUMABLE, &[E::Stop { side: Consumer, code: StreamCode(0x20) }]);
    let finished = A::Finished { reason: DisconnectReason::ClosedByPeer };
    assert_eq!(step(&stopped, E::Fin { side: Consumer }), ("Finishing", vec![A::Finish { to: Provider }, finished]));
    let reset = with(RESUMABLE, &[E::Reset { side: Provider, code: StreamCode(0x20) }]);
    let ended = vec![A::Finish { to: Provider }, closed(DisconnectReason::ClosedByPeer)];
    assert_eq!(step(&reset, E::Fin { side: Consumer }), ("Ended", ended));
}

#[test]
fn finishing_without_streams_is_spoken_of_in_frames() {
    let finishing = with(RESUMABLE, &[E::Fin { side: Consumer }, E::Fin { side: Provider }]);
    let end = A::End { reason: None };
    for side in [Consumer, Provider] {
        let to = side.other();
        let pause = vec![A::SendPauseReq { to }, end.clone()];
        assert_eq!(step(&finishing, E::SessionLost { side, loss: Loss::Away }), ("Ended", pause.clone()));
        assert_eq!(step(&finishing, E::ResumeReq { side }), ("Ended", pause));
        let over = vec![A::SendCloseReq { to, code: StreamCode(0x21) }, end.clone()];
        assert_eq!(step(&finishing, E::SessionLost { side, loss: Loss::Left }), ("Ended", over));
        let asked = vec![A::SendCloseReq { to, code: StreamCode(0x20) }, A::SendCloseAck { to: side }, end.clone()];
        assert_eq!(step(&finishing, E::CloseReq { side, code: StreamCode(0x20), askable: true }), ("Ended", asked));
    }
    let pause = vec![A::SendPauseReq { to: Provider }, A::SendPauseReq { to: Consumer }, end.clone()];
    assert_eq!(step(&finishing, E::PauseWanted), ("Ended", pause));
    assert_eq!(step(&finishing, E::Superseded), ("Ended", vec![end]));
}

#[test]
fn an_endpoint_that_moves_away_takes_its_connections_with_it() {
    for event in
        [E::Reset { side: Provider, code: StreamCode(0x27) }, E::Stop { side: Provider, code: StreamCode(0x27) }]
    {
        let expected = [cut(Provider, 0x27), cut(Consumer, 0x27), vec![closed(DisconnectReason::Closed)]].concat();
        assert_eq!(step(RESUMABLE, event.clone()), ("Ended", expected));
        assert_eq!(step(RELAYING, event).0, "Relaying", "nothing to resume");
    }
}

#[test]
fn an_end_that_the_partner_cannot_be_informed_of_comes_back() {
    let ask = E::CloseReq { side: Consumer, code: StreamCode(0x20), askable: true };
    let closing = with(RESUMABLE, &[ask]);
    let back = [cut(Consumer, 0x27), vec![A::SendCloseAck { to: Consumer }, closed(DisconnectReason::Error)]].concat();
    assert_eq!(step(&closing, E::SessionLost { side: Provider, loss: Loss::Away }), ("Ended", back.clone()));
    let left = [cut(Provider, 0x27), back].concat();
    assert_eq!(step(&closing, E::Reset { side: Provider, code: StreamCode(0x27) }), ("Ended", left));
    let notified = [cut(Provider, 0x20), vec![closed(DisconnectReason::Error)]].concat();
    assert_eq!(step(&closing, E::SessionLost { side: Consumer, loss: Loss::Away }), ("Ended", notified));
    for side in [Consumer, Provider] {
        let answered = [
            vec![A::RefuseResume { to: side, code: StreamCode(0x20) }],
            both(0x20),
            vec![closed(DisconnectReason::ClosedByPeer)],
        ]
        .concat();
        assert_eq!(step(&closing, E::ResumeReq { side }), ("Ended", answered), "no request stays without an answer");
    }
}

#[test]
fn a_request_for_what_has_no_provider_yet_begins_anew() {
    let expected = [vec![A::RefuseResume { to: Consumer, code: StreamCode(0x28) }], consumer(0x28)].concat();
    assert_eq!(step(CHOOSING, E::ResumeReq { side: Consumer }), ("Ended", expected));
}

proptest! {
    #[test]
    fn one_start_one_end(events in proptest::collection::vec(proptest::sample::select(HubConnection::alphabet()), 0..40)) {
        let (mut connection, now) = (HubConnection::new(Config::default()), first_instant());
        let (mut begun, mut recorded, mut ended, mut finished, mut aborted) = (0, 0, 0, [0, 0], [0, 0]);
        for event in events {
            connection.handle_event(now, event);
            while let Some(action) = connection.poll_action() {
                prop_assert_eq!(ended, 0, "an action after the end");
                match action {
                    A::Begin => begun += 1,
                    A::Finished { .. } => recorded += 1,
                    A::End { reason } => {
                        recorded += usize::from(reason.is_some());
                        prop_assert_eq!(recorded, begun, "an end record for each start record");
                        ended += 1;
                    }
                    A::Finish { to } => finished[to as usize] += 1,
                    A::Abort { to, .. } => aborted[to as usize] += 1,
                    A::StopSending { .. }
                    | A::SendCloseReq { .. }
                    | A::SendCloseAck { .. }
                    | A::SendPauseReq { .. }
                    | A::RefuseResume { .. } => {}
                }
            }
            prop_assert!(connection.check().is_ok());
            prop_assert_eq!(ended == 1, connection.state() == "Ended");
        }
        prop_assert!(begun <= 1 && recorded <= begun && ended <= 1);
        for side in [Consumer, Provider] {
            prop_assert!(finished[side as usize] + aborted[side as usize] <= 1, "one end a direction");
        }
    }
}
