use proptest::prelude::*;

use super::*;
use crate::testing::first_instant;

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
const RELAYING: &[Event] = &[E::ConnectStream, E::ProviderChosen];
const CLOSING: &[Event] =
    &[E::ConnectStream, E::ProviderChosen, E::CloseReq { side: Consumer, code: 0x20, askable: true }];

fn both(code: u64) -> Vec<Action> {
    vec![
        A::Abort { to: Provider, code },
        A::StopSending { to: Provider, code },
        A::Abort { to: Consumer, code },
        A::StopSending { to: Consumer, code },
    ]
}

fn consumer(code: u64) -> Vec<Action> {
    vec![A::Abort { to: Consumer, code }, A::StopSending { to: Consumer, code }, A::End { reason: None }]
}

#[test]
fn choosing() {
    assert_eq!(step(CHOOSING, E::ProviderChosen), ("Relaying", vec![A::Begin]));
    assert_eq!(step(CHOOSING, E::NoneAvailable), ("Choosing", vec![]));
    assert_eq!(step(CHOOSING, E::HubDraining), ("Ended", consumer(0x28)));
    assert_eq!(step(CHOOSING, E::Reset { side: Consumer, code: 0x20 }), ("Ended", consumer(0x20)));
    assert_eq!(step(CHOOSING, E::SessionLost { side: Consumer }), ("Ended", vec![A::End { reason: None }]));
    let (state, actions) = step(CHOOSING, E::CloseReq { side: Consumer, code: 0, askable: true });
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
    let (state, actions) = step(RELAYING, E::Reset { side: Provider, code: 0x20 });
    assert_eq!((state, actions), ("Relaying", vec![A::Abort { to: Consumer, code: 0x20 }]));
    let before = [RELAYING, &[E::Reset { side: Provider, code: 0x20 }]].concat();
    let end = A::End { reason: Some(DisconnectReason::ClosedByPeer) };
    assert_eq!(step(&before, E::Fin { side: Consumer }), ("Ended", vec![A::Finish { to: Provider }, end]));
    assert_eq!(step(&before, E::Fin { side: Provider }), ("Relaying", vec![]), "over is over");
}

#[test]
fn a_stop_is_passed_on_one_way_and_answered() {
    let (state, actions) = step(RELAYING, E::Stop { side: Consumer, code: 7 });
    let expected = vec![A::StopSending { to: Provider, code: 7 }, A::Abort { to: Consumer, code: 7 }];
    assert_eq!((state, actions), ("Relaying", expected), "the consumer may still send");
}

#[test]
fn a_lost_session_resets_the_partner() {
    for side in [Consumer, Provider] {
        let to = side.other();
        let expected = vec![
            A::Abort { to, code: 0x21 },
            A::StopSending { to, code: 0x21 },
            A::End { reason: Some(DisconnectReason::Error) },
        ];
        assert_eq!(step(RELAYING, E::SessionLost { side }), ("Ended", expected.clone()));
        assert_eq!(step(CLOSING, E::SessionLost { side }), ("Ended", expected));
    }
}

#[test]
fn close_request() {
    let asked = E::CloseReq { side: Provider, code: 0, askable: true };
    assert_eq!(step(RELAYING, asked.clone()), ("Closing", vec![A::SendCloseReq { to: Consumer, code: 0 }]));
    let before = [RELAYING, &[asked]].concat();
    let closed =
        vec![A::Finish { to: Provider }, A::Finish { to: Consumer }, A::End { reason: Some(DisconnectReason::Closed) }];
    assert_eq!(step(&before, E::CloseAck { side: Consumer }), ("Ended", closed), "provider first");
    assert_eq!(step(&before, E::CloseAck { side: Provider }), ("Closing", vec![]), "only the other's answer counts");
    let mut aborted = both(0x20);
    aborted.push(A::End { reason: Some(DisconnectReason::ClosedByPeer) });
    assert_eq!(step(CLOSING, E::CloseAck { side: Provider }), ("Ended", aborted.clone()));
    assert_eq!(expire(CLOSING), ("Ended", aborted.clone()), "5 s without an answer");
    let unaskable = E::CloseReq { side: Consumer, code: 0x20, askable: false };
    assert_eq!(step(RELAYING, unaskable), ("Ended", aborted), "sc01 has no CLOSE_REQ");
}

#[test]
fn both_ask_at_once() {
    let other = E::CloseReq { side: Provider, code: 0x20, askable: true };
    assert_eq!(step(CLOSING, other), ("Closing", vec![A::SendCloseAck { to: Provider }]));
}

#[test]
fn a_drain_leaves_relaying_connections_alone() {
    assert_eq!(step(RELAYING, E::HubDraining), ("Relaying", vec![]));
}

proptest! {
    #[test]
    fn one_start_one_end(events in proptest::collection::vec(proptest::sample::select(HubConnection::alphabet()), 0..40)) {
        let (mut connection, now) = (HubConnection::new(Config::default()), first_instant());
        let (mut begun, mut ended, mut finished, mut aborted) = (0, 0, [0, 0], [0, 0]);
        for event in events {
            connection.handle_event(now, event);
            while let Some(action) = connection.poll_action() {
                prop_assert_eq!(ended, 0, "an action after the end");
                match action {
                    A::Begin => begun += 1,
                    A::End { reason } => {
                        prop_assert_eq!(reason.is_some(), begun == 1, "an end record for each start record");
                        ended += 1;
                    }
                    A::Finish { to } => finished[to as usize] += 1,
                    A::Abort { to, .. } => aborted[to as usize] += 1,
                    A::StopSending { .. } | A::SendCloseReq { .. } | A::SendCloseAck { .. } => {}
                }
            }
            prop_assert!(connection.check().is_ok());
            prop_assert_eq!(ended == 1, connection.state() == "Ended");
        }
        prop_assert!(begun <= 1 && ended <= 1);
        for side in [Consumer, Provider] {
            prop_assert!(finished[side as usize] + aborted[side as usize] <= 1, "one end a direction");
        }
    }
}
