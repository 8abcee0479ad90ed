use proptest::prelude::*;

use super::*;
use crate::{
    machine::{Describe as _, Inspect as _, Machine as _},
    testing::first_instant,
};

use Action as A;
use Event as E;

fn after(events: &[Event]) -> HubSession {
    let mut session = HubSession::new(Config::default());
    for event in events {
        session.handle_event(first_instant(), event.clone());
        while session.poll_action().is_some() {}
    }
    session
}

fn step(before: &[Event], event: Event) -> (&'static str, Vec<Action>) {
    let mut session = after(before);
    session.handle_event(first_instant(), event);
    let actions = std::iter::from_fn(|| session.poll_action()).collect();
    (session.state(), actions)
}

fn expire(before: &[Event]) -> (&'static str, Vec<Action>) {
    let mut session = after(before);
    let due = session.poll_timeout().expect("a deadline");
    session.handle_timeout(due);
    let actions = std::iter::from_fn(|| session.poll_action()).collect();
    (session.state(), actions)
}

const OPEN: &[Event] = &[E::ExtendedHandshake];
const ACTIVE: &[Event] = &[E::ExtendedHandshake, E::OpenAdmitted { weight: 100 }];
const LEGACY: &[Event] = &[E::LegacyAdmitted];
const HELD: &[Event] = &[E::ExtendedHandshake, E::OpenOccupied { weight: 100 }];
const DRAINING: &[Event] = &[E::ExtendedHandshake, E::OpenAdmitted { weight: 100 }, HUB_DRAINING];
const HUB_DRAINING: Event = E::HubDraining { deadline: Duration::from_secs(30), resumable: true };

/// The session ends, and may come back.
fn end(reason: TerminateReason) -> Action {
    A::End { reason, loss: Loss::Away }
}

/// It ends for good.
fn leave(reason: TerminateReason) -> Action {
    A::End { reason, loss: Loss::Left }
}

#[test]
fn handshaking() {
    assert_eq!(step(&[], E::ExtendedHandshake), ("AwaitOpen", vec![]));
    assert_eq!(step(&[], E::LegacyAdmitted), ("Active", vec![A::Begin { weight: 100 }]));
    for code in [SessionCode::NO_IDENTITY, SessionCode::NOT_ENTITLED] {
        assert_eq!(step(&[], E::LegacyRefused { code }), ("Closed", vec![A::Close { code }]));
    }
    assert_eq!(step(&[], E::LegacyOccupied), ("Held", vec![A::ProbeIncumbent]));
    assert_eq!(step(&[], HUB_DRAINING), ("Closed", vec![A::Close { code: SessionCode(0) }]));
    assert_eq!(step(&[], E::Lost), ("Closed", vec![]), "nothing began, nothing is recorded");
}

#[test]
fn session_open() {
    let begun = vec![A::SendAck, A::Begin { weight: 7 }];
    assert_eq!(step(OPEN, E::OpenAdmitted { weight: 7 }), ("Active", begun));
    assert_eq!(step(OPEN, E::OpenAdmitted { weight: 0 }).0, "Retiring");
    for (code, secs) in [(0x14, 0), (0x15, 0), (0x16, 0), (100, 1), (0x19, 0)] {
        let code = SessionCode(code);
        let reject = vec![A::SendReject { code, retry_after: Duration::from_secs(secs) }];
        assert_eq!(step(OPEN, E::OpenRefused { code }), ("Closing", reject));
    }
    for code in [SessionCode(0x10), SessionCode(0x12), SessionCode(0x13)] {
        assert_eq!(step(OPEN, E::ControlViolation { code }), ("Closed", vec![A::Close { code }]));
    }
    assert_eq!(expire(OPEN), ("Closed", vec![A::Close { code: SessionCode(0x11) }]));
    let reject = vec![A::SendReject { code: SessionCode(0x18), retry_after: Duration::ZERO }];
    assert_eq!(step(OPEN, HUB_DRAINING), ("Closing", reject));
}

#[test]
fn a_singletons_second_provider_is_refused() {
    assert_eq!(step(OPEN, E::OpenOccupied { weight: 100 }), ("Held", vec![A::ProbeIncumbent]));
    let reject = vec![A::SendReject { code: SessionCode(0x17), retry_after: Duration::from_secs(5) }];
    assert_eq!(step(HELD, E::IncumbentAlive), ("Closing", reject));
    assert_eq!(step(&[E::LegacyOccupied], E::IncumbentAlive), ("Closed", vec![A::Close { code: SessionCode(0x17) }]));
}

#[test]
fn a_dead_singleton_is_replaced() {
    let begun = vec![A::SendAck, A::Begin { weight: 100 }];
    assert_eq!(step(HELD, E::IncumbentGone), ("Active", begun.clone()));
    let evicted = [vec![A::EvictIncumbent], begun].concat();
    assert_eq!(expire(HELD), ("Active", evicted), "3 s without an answer");
}

#[test]
fn a_consumer_waits_a_moment_for_the_first_provider() {
    let early = [OPEN, &[E::OpenEarly { weight: 100 }]].concat();
    assert_eq!(step(OPEN, E::OpenEarly { weight: 100 }), ("Early", vec![]));
    assert_eq!(step(&early, E::ProviderCame), ("Active", vec![A::SendAck, A::Begin { weight: 100 }]));
    let reject = |code, secs| ("Closing", vec![A::SendReject { code, retry_after: Duration::from_secs(secs) }]);
    assert_eq!(expire(&early), reject(SessionCode(100), 1));
    assert_eq!(step(&early, E::EntitlementLost), reject(SessionCode(0x15), 0));
    assert_eq!(step(&early, HUB_DRAINING), reject(SessionCode(0x18), 0));
    for event in [E::SetWeight { weight: 1 }, E::OpenEarly { weight: 1 }, E::OpenAdmitted { weight: 1 }] {
        assert_eq!(step(&early, event), ("Closed", vec![A::Close { code: SessionCode(0x10) }]));
    }
    assert_eq!(
        step(&early, E::ControlViolation { code: SessionCode(0x12) }),
        ("Closed", vec![A::Close { code: SessionCode(0x12) }])
    );
    assert_eq!(
        step(&early, E::SessionClose { code: SessionCode(0) }),
        ("Closed", vec![A::Close { code: SessionCode(0) }])
    );
    assert_eq!(step(&early, E::HubStopping), ("Closed", vec![A::Close { code: SessionCode(0) }]));
    assert_eq!(step(&early, E::Lost), ("Closed", vec![]));
}

#[test]
fn weight() {
    let set = |weight| vec![A::SetWeight { weight }, A::SendWeightAck { weight }];
    assert_eq!(step(ACTIVE, E::SetWeight { weight: 5 }), ("Active", set(5)));
    assert_eq!(step(ACTIVE, E::SetWeight { weight: 0 }), ("Retiring", set(0)));
    let retiring = [ACTIVE, &[E::SetWeight { weight: 0 }]].concat();
    assert_eq!(step(&retiring, E::SetWeight { weight: 1 }), ("Active", set(1)));
    assert_eq!(step(LEGACY, E::NotifyShutdown), ("Retiring", vec![A::SetWeight { weight: 0 }]));
    assert_eq!(step(DRAINING, E::SetWeight { weight: 1 }), ("Draining", set(1)));
}

#[test]
fn ends() {
    use TerminateReason as R;
    assert_eq!(
        step(ACTIVE, E::SessionClose { code: SessionCode(0) }),
        ("Closed", vec![leave(R::TerminatedByPeer), A::Close { code: SessionCode(0) }])
    );
    assert_eq!(
        step(ACTIVE, E::SessionClose { code: SessionCode(0x27) }),
        ("Closed", vec![end(R::TerminatedByPeer), A::Close { code: SessionCode(0x27) }]),
        "it goes on elsewhere"
    );
    assert_eq!(step(ACTIVE, E::ClosedByPeer { code: SessionCode(0) }), ("Closed", vec![leave(R::TerminatedByPeer)]));
    assert_eq!(step(ACTIVE, E::ClosedByPeer { code: SessionCode(0x10) }), ("Closed", vec![end(R::TerminatedByPeer)]));
    assert_eq!(step(ACTIVE, E::Lost), ("Closed", vec![end(R::Error)]));
    assert_eq!(
        step(ACTIVE, E::ControlViolation { code: SessionCode(0x10) }),
        ("Closed", vec![end(R::Error), A::Close { code: SessionCode(0x10) }])
    );
    assert_eq!(
        step(ACTIVE, E::OpenAdmitted { weight: 1 }),
        ("Closed", vec![end(R::Error), A::Close { code: SessionCode(0x10) }]),
        "a second SESSION_OPEN"
    );
    assert_eq!(
        step(ACTIVE, E::EntitlementLost),
        ("Closing", vec![A::SendClose { code: SessionCode(0x15) }, leave(R::Shutdown)])
    );
    assert_eq!(
        step(LEGACY, E::EntitlementLost),
        ("Closed", vec![leave(R::Shutdown), A::Close { code: SessionCode(0x15) }])
    );
    for event in [E::Replaced, E::Idle] {
        assert_eq!(step(ACTIVE, event), ("Closing", vec![A::SendClose { code: SessionCode(0) }, end(R::Shutdown)]));
    }
    assert_eq!(step(ACTIVE, E::HubStopping), ("Closed", vec![end(R::Shutdown), A::Close { code: SessionCode(0) }]));
    let rejected = [OPEN, &[E::OpenRefused { code: SessionCode(0x16) }]].concat();
    assert_eq!(
        expire(&rejected),
        ("Closed", vec![A::Close { code: SessionCode(0x16) }]),
        "3 s for the endpoint to close"
    );
    assert_eq!(step(&rejected, E::ClosedByPeer { code: SessionCode(0x16) }), ("Closed", vec![]));
}

#[test]
fn drain() {
    let shutdown = vec![A::SendShutdown { deadline: Duration::from_secs(30), resumable: true }];
    assert_eq!(step(ACTIVE, HUB_DRAINING), ("Draining", shutdown));
    assert_eq!(step(LEGACY, HUB_DRAINING), ("Draining", vec![A::SendNotifyShutdown]));
    assert_eq!(step(DRAINING, HUB_DRAINING), ("Draining", vec![]), "said once");
    let drained = |reason| A::End { reason, loss: Loss::Drained };
    assert_eq!(
        step(DRAINING, E::SessionClose { code: SessionCode(0) }),
        ("Closed", vec![drained(TerminateReason::Shutdown), A::Close { code: SessionCode(0) }]),
        "the endpoint left because it was asked to"
    );
    let shut_down = leave(TerminateReason::Shutdown);
    assert_eq!(step(DRAINING, E::ClosedByPeer { code: SessionCode(0) }), ("Closed", vec![shut_down]));
    // And one that retires says so itself, unless it has thought better of it.
    let retired = [ACTIVE, &[E::SetWeight { weight: 0 }, E::Drained]].concat();
    let left = |loss| {
        let end = A::End { reason: TerminateReason::TerminatedByPeer, loss };
        ("Closed", vec![end, A::Close { code: SessionCode(0) }])
    };
    assert_eq!(step(&retired, E::SessionClose { code: SessionCode(0) }), left(Loss::Drained));
    let back = [&retired[..], &[E::SetWeight { weight: 1 }]].concat();
    assert_eq!(step(&back, E::SessionClose { code: SessionCode(0) }), left(Loss::Left));
    assert_eq!(step(DRAINING, E::Lost), ("Closed", vec![end(TerminateReason::Error)]));
}

proptest! {
    #[test]
    fn what_begins_ends_once(events in proptest::collection::vec(proptest::sample::select(HubSession::alphabet()), 0..40), late in any::<bool>()) {
        let (mut session, mut now) = (HubSession::new(Config::default()), first_instant());
        let (mut begun, mut ended, mut closed) = (0, 0, false);
        for event in events {
            session.handle_event(now, event);
            if late && let Some(due) = session.poll_timeout() {
                now = now.max(due);
                session.handle_timeout(now);
            }
            while let Some(action) = session.poll_action() {
                prop_assert!(!closed, "an action after the close: {:?}", action);
                match action {
                    A::Begin { .. } => begun += 1,
                    A::End { .. } => ended += 1,
                    A::Close { .. } => closed = true,
                    A::SetWeight { .. } => prop_assert!(begun == 1 && ended == 0),
                    _ => {}
                }
            }
            prop_assert!(session.check().is_ok(), "{:?}", session.check());
            prop_assert_eq!(session.is_established(), begun == 1 && ended == 0);
        }
        prop_assert!(begun <= 1 && ended <= begun);
    }
}
