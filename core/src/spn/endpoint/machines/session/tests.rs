use proptest::prelude::*;

use super::*;
use crate::machine::{Describe as _, Inspect as _, Machine as _};

/// A machine and its time.
struct Bench {
    machine: Session,
    now: Instant,
}

const CONSUMER: Event = Event::Connect { role: Role::Consumer };
const PROVIDER: Event = Event::Connect { role: Role::Provider };

const SC01: Event = Event::Connected { protocol: Protocol::Sc01 };
const SC02: Event = Event::Connected { protocol: Protocol::Sc02 };
const ACK: Event = Event::SessionAck { standby: false };

impl Bench {
    fn new(config: Config) -> Self {
        Self { machine: Session::new(config, 7), now: crate::testing::first_instant() }
    }

    /// Everything the machine says, with the jitter of delays checked and taken out.
    fn drain(&mut self) -> Vec<Action> {
        let actions: Vec<_> = std::iter::from_fn(|| self.machine.poll_action()).collect();
        self.machine.check().unwrap();
        actions
    }

    fn feed(&mut self, event: Event) -> Vec<Action> {
        self.machine.handle_event(self.now, event);
        self.drain()
    }

    /// Feeds events and asserts the last one's complete answer and the state after it.
    #[track_caller]
    fn expect(&mut self, events: &[Event], state: &str, actions: &[Action]) {
        let mut said = Vec::new();
        for event in events {
            said = self.feed(event.clone());
        }
        assert_eq!((self.machine.state(), said.as_slice()), (state, actions), "after {events:?}");
    }

    /// Fires the next timer, which must be the one named, and says how long it took.
    #[track_caller]
    fn fire(&mut self, timer: &str) -> (u128, Vec<Action>) {
        assert_eq!(self.machine.due(), Some(timer));
        let due = self.machine.poll_timeout().unwrap();
        let waited = due - self.now;
        self.machine.handle_timeout(due - Duration::from_millis(1));
        assert_eq!(self.drain(), [], "an early call does nothing");
        self.now = due;
        self.machine.handle_timeout(due);
        (waited.as_millis(), self.drain())
    }

    /// Fails one try, and says the delay.
    fn fail(&mut self) -> u64 {
        let actions = self.feed(Event::Lost);
        let [Action::Waiting { retry }] = actions[..] else { panic!("{actions:?}") };
        let (waited, actions) = self.fire("retry");
        assert_eq!(actions, [Action::Dial]);
        assert_eq!(waited, retry.as_millis());
        ms(retry)
    }

    fn established(connect: Event, protocol: Protocol) -> Self {
        let mut bench = Self::new(Config::default());
        bench.feed(connect);
        bench.feed(Event::Connected { protocol });
        if protocol == Protocol::Sc02 {
            bench.feed(ACK);
        }
        assert_eq!(bench.machine.state(), "Established");
        bench
    }
}

fn ms(duration: Duration) -> u64 {
    duration.as_millis() as u64
}

fn in_range(delay: u64, middle: u64) {
    assert!((middle * 8 / 10..=middle * 12 / 10).contains(&delay), "{delay} is not {middle} ± 20 %");
}

#[test]
fn connect_asks_for_the_session_on_sc02() {
    let mut bench = Bench::new(Config::default());
    bench.expect(&[PROVIDER], "SessionConnecting", &[Action::Dial]);
    bench.expect(&[SC02], "SessionConnecting", &[Action::SendSessionOpen { weight: 100 }]);
    bench.expect(&[ACK], "Established", &[Action::Established { standby: false }]);
    assert_eq!(bench.machine.due(), None);
}

#[test]
fn the_handshake_is_all_on_sc01() {
    let mut bench = Bench::new(Config::default());
    bench.expect(&[CONSUMER, SC01], "Established", &[Action::Established { standby: false }]);
}

#[test]
fn standby_is_passed_on_when_it_changes() {
    let mut bench = Bench::new(Config::default());
    bench.expect(
        &[CONSUMER, SC02, Event::SessionAck { standby: true }],
        "Established",
        &[Action::Established { standby: true }],
    );
    bench.expect(&[Event::SessionState { standby: true }], "Established", &[]);
    bench.expect(&[Event::SessionState { standby: false }], "Established", &[Action::State { standby: false }]);
}

#[test]
fn what_is_not_established_ends_at_once() {
    for (event, state, action) in [
        (Event::AddressLost, "Failed", Action::Failed),
        (Event::LocalShutdown, "Closed", Action::Closed),
        (Event::SetWeight { weight: 0 }, "Closed", Action::Closed),
    ] {
        for (before, dialled) in [(&[PROVIDER, Event::Lost][..], false), (&[PROVIDER], true), (&[PROVIDER, SC02], true)]
        {
            let mut bench = Bench::new(Config::default());
            for event in before {
                bench.feed(event.clone());
            }
            let close = dialled.then_some(Action::Close { code: SessionCode(0) });
            let actions: Vec<_> = close.into_iter().chain([action.clone()]).collect();
            bench.expect(std::slice::from_ref(&event), state, &actions);
        }
    }
    Bench::new(Config::default()).expect(&[Event::AddressLost], "Failed", &[Action::Failed]);
    Bench::new(Config::default()).expect(&[Event::LocalShutdown], "Closed", &[Action::Closed]);
}

#[test]
fn a_handshake_without_answer_is_given_up_after_20_s() {
    let mut bench = Bench::new(Config::default());
    bench.feed(CONSUMER);
    let (waited, actions) = bench.fire("handshake");
    assert_eq!(waited, 20_000);
    assert!(matches!(actions[..], [Action::Close { code: SessionCode(0) }, Action::Waiting { .. }]), "{actions:?}");
    assert_eq!(bench.machine.state(), "Waiting");
}

#[test]
fn a_missing_session_ack_is_given_up_after_10_s() {
    let mut bench = Bench::new(Config::default());
    bench.feed(CONSUMER);
    bench.feed(SC02);
    let (waited, actions) = bench.fire("ack");
    assert_eq!(waited, 10_000);
    assert!(
        matches!(actions[..], [Action::Close { code: SessionCode::OPEN_TIMEOUT }, Action::Waiting { .. }]),
        "{actions:?}"
    );
}

#[test]
fn what_comes_instead_of_session_ack() {
    for (event, closed_with) in [
        (
            Event::SessionReject { code: SessionCode::NOT_ENTITLED, retry_after: Duration::ZERO },
            SessionCode::NOT_ENTITLED,
        ),
        (Event::SessionClose { code: SessionCode::HUB_REMOVED }, SessionCode::HUB_REMOVED),
        (Event::SessionShutdown { deadline: Duration::from_millis(1) }, SessionCode::OK),
        (Event::SessionState { standby: true }, SessionCode::MALFORMED),
        (Event::ProviderStopped, SessionCode::MALFORMED),
        (Event::SetWeightAck { weight: 1 }, SessionCode::MALFORMED),
        (Event::Violation { code: SessionCode::CONTROL_LOST }, SessionCode::CONTROL_LOST),
    ] {
        let mut bench = Bench::new(Config::default());
        bench.feed(CONSUMER);
        bench.feed(SC02);
        let actions = bench.feed(event.clone());
        assert_eq!(actions.first(), Some(&Action::Close { code: closed_with }), "{event:?}");
        assert_eq!((bench.machine.state(), actions.len()), ("Waiting", 2), "{event:?}");
    }
}

#[test]
fn retries_double_to_30_s_with_jitter() {
    let mut bench = Bench::new(Config::default());
    bench.feed(CONSUMER);
    for middle in [500, 1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000] {
        in_range(bench.fail(), middle);
    }
    // Another seed waits otherwise.
    let delays = |seed| {
        let mut bench = Bench { machine: Session::new(Config::default(), seed), now: crate::testing::first_instant() };
        bench.feed(CONSUMER);
        [bench.fail(), bench.fail(), bench.fail()]
    };
    assert_eq!(delays(1), delays(1));
    assert_ne!(delays(1), delays(2));
}

#[test]
fn session_ack_resets_the_retries() {
    let mut bench = Bench::new(Config::default());
    bench.feed(CONSUMER);
    for _ in 0..4 {
        bench.fail();
    }
    bench.expect(&[SC02, ACK], "Established", &[Action::Established { standby: false }]);
    let actions = bench.feed(Event::Lost);
    let [Action::SessionLost, Action::Waiting { retry }, Action::CallReserve] = actions[..] else {
        panic!("{actions:?}")
    };
    in_range(ms(retry), 500);
}

#[test]
fn an_sc01_session_counts_only_after_a_second() {
    let mut bench = Bench::new(Config::default());
    bench.feed(CONSUMER);
    in_range(bench.fail(), 500);
    for (settle, expected) in [(false, 1_000), (true, 500)] {
        bench.feed(SC01);
        if settle {
            assert_eq!(bench.fire("settled"), (1_000, vec![]));
        }
        let actions = bench.feed(Event::Lost);
        let [Action::SessionLost, Action::Waiting { retry }, Action::CallReserve] = actions[..] else {
            panic!("{actions:?}")
        };
        in_range(ms(retry), expected);
        bench.fire("retry");
    }
}

#[test]
fn retry_after_counts_when_it_is_longer() {
    for (retry_after_ms, least, most) in [(0, 400, 600), (9_000, 9_000, 9_000), (u64::MAX, 600_000, 600_000)] {
        let mut bench = Bench::new(Config::default());
        bench.feed(CONSUMER);
        bench.feed(SC02);
        let actions = bench.feed(Event::SessionReject {
            code: SessionCode::NO_PROVIDER,
            retry_after: Duration::from_millis(retry_after_ms),
        });
        let [Action::Close { code: SessionCode::NO_PROVIDER }, Action::Waiting { retry }] = actions[..] else {
            panic!("{actions:?}")
        };
        assert!((least..=most).contains(&ms(retry)), "{retry:?}");
    }
}

#[test]
fn a_retry_limit_ends_in_failed() {
    let mut bench = Bench::new(Config { retry_limit: Some(2), ..Config::default() });
    bench.feed(CONSUMER);
    bench.fail();
    bench.fail();
    bench.expect(&[Event::Lost], "Failed", &[Action::Failed]);
    bench.expect(&[CONSUMER], "Failed", &[]);
}

#[test]
fn a_retry_limit_counts_sc01_sessions_that_did_not_last() {
    let mut bench = Bench::new(Config { retry_limit: Some(1), ..Config::default() });
    bench.feed(CONSUMER);
    bench.feed(SC01);
    bench.feed(Event::Lost);
    bench.fire("retry");
    bench.feed(SC01);
    bench.feed(Event::Lost);
    assert_eq!(bench.machine.state(), "Waiting");
    assert_eq!(bench.fire("retry").1, [Action::Failed]);
}

#[test]
fn request_provider_start_goes_before_the_first_connection() {
    for protocol in [Protocol::Sc01, Protocol::Sc02] {
        let mut bench = Bench::established(CONSUMER, protocol);
        bench.expect(&[Event::ConnectionOpened], "Established", &[Action::SendProviderStart]);
        bench.expect(&[Event::ConnectionOpened], "Established", &[]);
        bench.expect(&[Event::ProviderStopped, Event::ConnectionOpened], "Established", &[Action::SendProviderStart]);
        let mut bench = Bench::established(PROVIDER, protocol);
        bench.expect(&[Event::ProviderStopped, Event::ConnectionOpened], "Established", &[]);
    }
}

#[test]
fn weights_go_one_by_one() {
    let mut bench = Bench::established(PROVIDER, Protocol::Sc02);
    bench.expect(&[Event::SetWeight { weight: 50 }], "Established", &[Action::SendSetWeight { weight: 50 }]);
    bench.expect(&[Event::SetWeight { weight: 60 }, Event::SetWeight { weight: 70 }], "Established", &[]);
    bench.expect(&[Event::SetWeightAck { weight: 50 }], "Established", &[Action::SendSetWeight { weight: 70 }]);
    bench.expect(&[Event::SetWeightAck { weight: 70 }], "Established", &[]);
    // A hub that keeps another weight is not asked for ever.
    bench.expect(&[Event::SetWeight { weight: 80 }], "Established", &[Action::SendSetWeight { weight: 80 }]);
    bench.expect(&[Event::SetWeightAck { weight: 70 }], "Established", &[]);
}

#[test]
fn a_weight_set_while_asking_follows_session_ack() {
    let mut bench = Bench::new(Config::default());
    bench.expect(&[Event::SetWeight { weight: 10 }, PROVIDER], "SessionConnecting", &[Action::Dial]);
    bench.expect(&[SC02], "SessionConnecting", &[Action::SendSessionOpen { weight: 10 }]);
    bench.expect(
        &[Event::SetWeight { weight: 20 }, ACK],
        "Established",
        &[Action::Established { standby: false }, Action::SendSetWeight { weight: 20 }],
    );
}

#[test]
fn weight_0_retires_without_deadline() {
    let mut bench = Bench::established(PROVIDER, Protocol::Sc02);
    bench.feed(Event::ConnectionOpened);
    bench.expect(&[Event::SetWeight { weight: 0 }], "Established", &[Action::SendSetWeight { weight: 0 }]);
    bench.expect(&[Event::SetWeightAck { weight: 0 }], "Established", &[]);
    assert_eq!(bench.machine.due(), None);
    bench.expect(
        &[Event::ConnectionEnded],
        "Closing",
        &[Action::Hide, Action::SendDrained, Action::SendSessionClose { code: SessionCode(0) }, Action::CallReserve],
    );
    bench.expect(&[Event::Lost], "Closed", &[Action::Closed]);
}

#[test]
fn weight_0_can_be_taken_back() {
    let mut bench = Bench::established(PROVIDER, Protocol::Sc02);
    bench.feed(Event::ConnectionOpened);
    bench.feed(Event::SetWeight { weight: 0 });
    bench.feed(Event::SetWeightAck { weight: 0 });
    bench.expect(&[Event::SetWeight { weight: 5 }], "Established", &[Action::SendSetWeight { weight: 5 }]);
    bench.expect(&[Event::ConnectionEnded, Event::SetWeightAck { weight: 5 }], "Established", &[]);
}

#[test]
fn an_empty_provider_retires_when_the_hub_has_heard() {
    let mut bench = Bench::established(PROVIDER, Protocol::Sc02);
    bench.expect(&[Event::SetWeight { weight: 0 }], "Established", &[Action::SendSetWeight { weight: 0 }]);
    bench.expect(
        &[Event::SetWeightAck { weight: 0 }],
        "Closing",
        &[Action::Hide, Action::SendDrained, Action::SendSessionClose { code: SessionCode(0) }, Action::CallReserve],
    );
}

#[test]
fn weight_0_on_sc01_is_a_control_datagram_and_a_close_100_ms_later() {
    let mut bench = Bench::established(PROVIDER, Protocol::Sc01);
    bench.expect(&[Event::SetWeight { weight: 50 }], "Established", &[]);
    bench.expect(
        &[Event::SetWeight { weight: 0 }],
        "Closing",
        &[Action::SendNotifyShutdown, Action::Hide, Action::CallReserve],
    );
    assert_eq!(bench.fire("linger"), (100, vec![Action::Close { code: SessionCode(0) }, Action::Closed]));
    assert_eq!(bench.machine.state(), "Closed");
}

#[test]
fn a_consumer_has_no_weight() {
    let mut bench = Bench::established(CONSUMER, Protocol::Sc02);
    bench.expect(&[Event::SetWeight { weight: 0 }], "Established", &[]);
}

#[test]
fn local_shutdown_drains() {
    // Consumer, sc02: nothing to say to the hub until the last connection has ended.
    let mut bench = Bench::established(CONSUMER, Protocol::Sc02);
    bench.feed(Event::ConnectionOpened);
    bench.feed(Event::ConnectionOpened);
    bench.expect(&[Event::LocalShutdown], "Closing", &[]);
    bench.expect(&[Event::ConnectionEnded], "Closing", &[]);
    bench.expect(
        &[Event::ConnectionEnded],
        "Closing",
        &[Action::SendSessionClose { code: SessionCode(0) }, Action::CallReserve],
    );
    // The hub closes QUIC; if it does not, we do.
    let mut impatient = Bench { machine: bench.machine.clone(), now: bench.now };
    bench.expect(&[Event::Lost], "Closed", &[Action::Closed]);
    assert_eq!(impatient.fire("linger"), (3_000, vec![Action::Close { code: SessionCode(0) }, Action::Closed]));

    // Provider, sc02: weight 0, and what was on its way is served.
    let mut bench = Bench::established(PROVIDER, Protocol::Sc02);
    bench.expect(&[Event::LocalShutdown], "Closing", &[Action::SendSetWeight { weight: 0 }, Action::Hide]);
    bench.expect(&[Event::ConnectionOpened, Event::SetWeightAck { weight: 0 }], "Closing", &[]);
    bench.expect(
        &[Event::ConnectionEnded],
        "Closing",
        &[Action::SendDrained, Action::SendSessionClose { code: SessionCode(0) }, Action::CallReserve],
    );

    // sc01: the control datagram, and the close not before 100 ms.
    let mut bench = Bench::established(CONSUMER, Protocol::Sc01);
    bench.feed(Event::ConnectionOpened);
    bench.expect(&[Event::LocalShutdown], "Closing", &[Action::SendNotifyShutdown, Action::Hide, Action::CallReserve]);
    let mut late = Bench { machine: bench.machine.clone(), now: bench.now };
    bench.expect(&[Event::ConnectionEnded], "Closing", &[]);
    assert_eq!(bench.fire("linger"), (100, vec![Action::Close { code: SessionCode(0) }, Action::Closed]));
    assert_eq!(late.fire("linger"), (100, vec![]));
    late.expect(&[Event::ConnectionEnded], "Closed", &[Action::Close { code: SessionCode(0) }, Action::Closed]);
}

#[test]
fn a_second_signal_forces_it() {
    for protocol in [Protocol::Sc01, Protocol::Sc02] {
        let mut bench = Bench::established(CONSUMER, protocol);
        bench.feed(Event::ConnectionOpened);
        bench.feed(Event::LocalShutdown);
        bench.expect(
            &[Event::LocalShutdown],
            "Closed",
            &[Action::SessionLost, Action::Close { code: SessionCode(0) }, Action::Closed],
        );
        // The hub's shutdown is no signal of ours.
        let mut bench = Bench::established(CONSUMER, protocol);
        bench.feed(Event::ConnectionOpened);
        bench.feed(Event::SessionShutdown { deadline: Duration::ZERO });
        bench.expect(&[Event::LocalShutdown], "Closing", &[]);
        bench.expect(
            &[Event::LocalShutdown],
            "Closed",
            &[Action::SessionLost, Action::Close { code: SessionCode(0) }, Action::Closed],
        );
    }
}

#[test]
fn the_hubs_shutdown_sets_the_deadline() {
    for (deadline_ms, expected) in [(0, 30_000), (7_000, 7_000), (u64::MAX, 600_000)] {
        let mut bench = Bench::established(PROVIDER, Protocol::Sc02);
        bench.feed(Event::ConnectionOpened);
        bench.expect(
            &[Event::SessionShutdown { deadline: Duration::from_millis(deadline_ms) }],
            "Closing",
            &[Action::Hide, Action::CallReserve],
        );
        bench.expect(&[Event::SessionShutdown { deadline: Duration::from_millis(1) }], "Closing", &[]);
        assert_eq!(
            bench.fire("closing"),
            (expected, vec![Action::SessionLost, Action::SendSessionClose { code: SessionCode(0) }])
        );
        bench.expect(&[Event::ConnectionEnded], "Closing", &[]);
        bench.expect(
            &[Event::SessionClose { code: SessionCode(0) }],
            "Closed",
            &[Action::Close { code: SessionCode(0) }, Action::Closed],
        );
    }
    let mut empty = Bench::established(PROVIDER, Protocol::Sc02);
    empty.expect(
        &[Event::SessionShutdown { deadline: Duration::from_millis(5) }],
        "Closing",
        &[Action::Hide, Action::SendSessionClose { code: SessionCode(0) }, Action::CallReserve],
    );
}

#[test]
fn notify_shutdown_is_answered() {
    let mut bench = Bench::established(PROVIDER, Protocol::Sc01);
    bench.feed(Event::ConnectionOpened);
    bench.expect(
        &[Event::SessionShutdown { deadline: Duration::ZERO }],
        "Closing",
        &[Action::RefuseStreams, Action::SendNotifyShutdown, Action::Hide, Action::CallReserve],
    );
    assert_eq!(bench.fire("linger"), (100, vec![]));
    assert_eq!(
        bench.fire("closing"),
        (29_900, vec![Action::SessionLost, Action::Close { code: SessionCode(0) }, Action::Closed])
    );
}

#[test]
fn a_lost_address_is_left_with_what_can_be_resumed_and_drained_of_the_rest() {
    let mut bench = Bench::established(CONSUMER, Protocol::Sc02);
    bench.feed(Event::ConnectionOpened);
    bench.expect(&[Event::AddressLost], "Closing", &[Action::MoveAway, Action::Hide, Action::CallReserve]);
    bench.expect(&[Event::ConnectionEnded], "Closing", &[Action::SendSessionClose { code: SessionCode::PAUSED }]);
    let mut bench = Bench::established(CONSUMER, Protocol::Sc02);
    bench.feed(Event::ConnectionOpened);
    bench.feed(Event::AddressLost);
    bench.expect(&[Event::Lost], "Closed", &[Action::SessionLost, Action::Closed]);
}

#[test]
fn a_retired_provider_is_there_for_as_long_as_something_waits_for_it() {
    let retire = Event::SetWeight { weight: 0 };
    let needed = |needed| Event::Needed { needed };
    // Established: it leaves when nothing is needed any more.
    let mut bench = Bench::established(PROVIDER, Protocol::Sc02);
    bench.feed(needed(true));
    bench.expect(std::slice::from_ref(&retire), "Established", &[Action::SendSetWeight { weight: 0 }]);
    bench.expect(&[Event::SetWeightAck { weight: 0 }], "Established", &[]);
    let leaves =
        [Action::Hide, Action::SendDrained, Action::SendSessionClose { code: SessionCode(0) }, Action::CallReserve];
    bench.expect(&[needed(false)], "Closing", &leaves);
    // Waiting: it dials for what is needed, and not when nothing is.
    let mut bench = Bench::established(PROVIDER, Protocol::Sc02);
    bench.feed(Event::Lost);
    bench.feed(needed(true));
    bench.expect(std::slice::from_ref(&retire), "Waiting", &[]);
    bench.fire("retry");
    assert_eq!(bench.machine.state(), "SessionConnecting");
    bench.expect(
        &[Event::Connected { protocol: Protocol::Sc02 }],
        "SessionConnecting",
        &[Action::SendSessionOpen { weight: 0 }],
    );
    bench.feed(ACK);
    bench.expect(&[needed(false)], "Closing", &leaves);
    let mut bench = Bench::established(PROVIDER, Protocol::Sc02);
    bench.feed(needed(true));
    bench.feed(retire);
    bench.feed(Event::Lost);
    bench.expect(&[needed(false)], "Closed", &[Action::Closed]);
}

#[test]
fn an_endpoint_that_ends_is_there_for_as_long_as_something_waits_for_it() {
    let needed = |needed| Event::Needed { needed };
    let leaves = |role: &Event| match role {
        Event::Connect { role: Role::Provider } => {
            vec![
                Action::Hide,
                Action::SendDrained,
                Action::SendSessionClose { code: SessionCode(0) },
                Action::CallReserve,
            ]
        }
        _ => vec![Action::Hide, Action::SendSessionClose { code: SessionCode(0) }, Action::CallReserve],
    };
    for role in [PROVIDER, CONSUMER] {
        // Established: what has lost another session may come, and no more when this hub goes, too.
        let mut bench = Bench::established(role.clone(), Protocol::Sc02);
        bench.feed(needed(true));
        bench.feed(Event::LocalShutdown);
        bench.feed(Event::SetWeightAck { weight: 0 });
        assert!(bench.machine.is_established());
        bench.expect(&[Event::ConnectionOpened, needed(false)], "Closing", &[]);
        let mut other = Bench { machine: bench.machine.clone(), now: bench.now };
        bench.expect(&[Event::ConnectionEnded], "Closing", &leaves(&role)[1..]);
        other.expect(
            &[needed(true), Event::SessionShutdown { deadline: Duration::ZERO }],
            "Closing",
            &[Action::CallReserve],
        );
        assert!(!other.machine.is_established());
        let left = leaves(&role);
        other.expect(&[Event::ConnectionEnded], "Closing", &left[1..left.len() - 1]);

        // Waiting: it dials for what is needed, asks for nothing new, and ends with the last that needed it, or with its time.
        let mut bench = Bench::established(role.clone(), Protocol::Sc02);
        bench.feed(Event::Lost);
        bench.feed(needed(true));
        bench.expect(&[Event::LocalShutdown], "Waiting", &[]);
        let start = bench.now;
        let mut other = Bench { machine: bench.machine.clone(), now: bench.now };
        other.expect(&[needed(false)], "Closed", &[Action::Closed]);
        assert_eq!(bench.fire("retry").1, [Action::Dial]);
        // `sc01` cannot help, and would bring new connections.
        let said = bench.feed(SC01);
        assert!(matches!(said[..], [Action::Close { code: SessionCode(0) }, Action::Waiting { .. }]), "{said:?}");
        bench.fire("retry");
        let weight = if role == PROVIDER { 0 } else { 100 };
        bench.expect(&[SC02], "SessionConnecting", &[Action::SendSessionOpen { weight }]);
        bench.expect(&[ACK], "Established", &[Action::Established { standby: false }]);
        bench.expect(&[Event::ConnectionOpened, needed(false)], "Established", &[]);
        let mut other = Bench { machine: bench.machine.clone(), now: bench.now };
        other.expect(&[Event::ConnectionEnded], "Closing", &leaves(&role));
        let mut other = Bench { machine: bench.machine.clone(), now: bench.now };
        let forced = [Action::SessionLost, Action::Close { code: SessionCode(0) }, Action::Closed];
        other.expect(&[Event::LocalShutdown], "Closed", &forced);
        // Lost again: it goes on, but not beyond its time.
        let mut other = Bench { machine: bench.machine.clone(), now: bench.now };
        other.feed(Event::Lost);
        other.feed(needed(true));
        while other.machine.due() != Some("closing") {
            let due = other.machine.due().unwrap();
            other.fire(due);
        }
        other.fire("closing");
        assert_eq!((other.machine.state(), (other.now - start).as_millis()), ("Closed", 30_000));
        assert_eq!(bench.machine.due(), Some("closing"));
        let (_, said) = bench.fire("closing");
        assert_eq!((said[0].clone(), said[1].clone()), (Action::Hide, Action::SessionLost));
        assert_eq!((said[2..].to_vec(), (bench.now - start).as_millis()), (leaves(&role)[1..].to_vec(), 30_000));
    }
    // Nothing needs it: it ends at once, and so it does the second time.
    for needs in [true, false] {
        let mut bench = Bench::established(CONSUMER, Protocol::Sc02);
        bench.feed(Event::Lost);
        bench.feed(needed(needs));
        bench.expect(&vec![Event::LocalShutdown; 1 + usize::from(needs)], "Closed", &[Action::Closed]);
    }
}

#[test]
fn an_established_session_breaks() {
    for (event, closed_with) in [
        (Event::SessionClose { code: SessionCode::NOT_ENTITLED }, SessionCode::NOT_ENTITLED),
        (Event::Violation { code: SessionCode::CONTROL_LOST }, SessionCode::CONTROL_LOST),
        (ACK, SessionCode::MALFORMED),
        (Event::SessionReject { code: SessionCode(1), retry_after: Duration::ZERO }, SessionCode::MALFORMED),
    ] {
        let mut bench = Bench::established(CONSUMER, Protocol::Sc02);
        let actions = bench.feed(event.clone());
        assert_eq!(actions[..2], [Action::SessionLost, Action::Close { code: closed_with }], "{event:?}");
        assert!(matches!(actions[2..], [Action::Waiting { .. }, Action::CallReserve]), "{event:?}");
        assert_eq!(bench.machine.state(), "Waiting");

        let mut closing = Bench::established(CONSUMER, Protocol::Sc02);
        closing.feed(Event::ConnectionOpened);
        closing.feed(Event::LocalShutdown);
        closing.expect(&[event], "Closed", &[Action::SessionLost, Action::Close { code: closed_with }, Action::Closed]);
    }
}

#[test]
fn an_address_whose_hub_has_a_session_elsewhere_is_in_reserve() {
    let aborted = [Action::Close { code: SessionCode(0) }, Action::Reserved];
    Bench::new(Config::default()).expect(&[PROVIDER, SC02, Event::Elsewhere], "Reserve", &aborted);
    Bench::new(Config::default()).expect(&[PROVIDER, Event::Elsewhere], "Reserve", &aborted);
    let mut bench = Bench::new(Config::default());
    bench.expect(&[PROVIDER, Event::Lost, Event::Elsewhere], "Reserve", &[Action::Reserved]);
    // It is looked at now and then, and dialled at once when it is wanted.
    let (waited, actions) = bench.fire("reserve");
    in_range(waited as u64, 300_000);
    assert_eq!(actions, [Action::Dial]);
    bench.expect(&[SC02, Event::Elsewhere, PROVIDER], "SessionConnecting", &[Action::Dial]);
    assert_eq!(bench.machine.due(), Some("handshake"));
    // Nothing keeps it when the address or the endpoint is not wanted.
    for (event, state, action) in [
        (Event::AddressLost, "Failed", Action::Failed),
        (Event::LocalShutdown, "Closed", Action::Closed),
        (Event::SetWeight { weight: 0 }, "Closed", Action::Closed),
    ] {
        Bench::new(Config::default()).expect(&[PROVIDER, Event::Elsewhere, event], state, &[action]);
    }
}

#[test]
fn a_surplus_session_ends_in_good_order_and_goes_into_reserve() {
    let surplus = || {
        let mut bench = Bench::established(PROVIDER, Protocol::Sc02);
        let said = [Action::MoveAway, Action::SendSetWeight { weight: 0 }, Action::Hide, Action::CallReserve];
        bench.expect(&[Event::ConnectionOpened, Event::Elsewhere], "Closing", &said);
        bench
    };
    let mut bench = surplus();
    let left = [Action::SendDrained, Action::SendSessionClose { code: SessionCode::PAUSED }];
    bench.expect(&[Event::SetWeightAck { weight: 0 }, Event::ConnectionEnded], "Closing", &left);
    bench.expect(&[Event::Lost], "Reserve", &[Action::Reserved]);
    // The hub was faster.
    let lost = [Action::SessionLost, Action::Close { code: SessionCode(0) }, Action::Reserved];
    surplus().expect(&[Event::SessionClose { code: SessionCode(0) }], "Reserve", &lost);
    // It is not kept where it is not wanted.
    for event in [Event::AddressLost, Event::LocalShutdown, Event::SetWeight { weight: 0 }] {
        surplus().expect(&[event, Event::Lost], "Closed", &[Action::SessionLost, Action::Closed]);
    }
}

#[test]
fn a_script_reads_and_writes_plain_names() {
    let event: Event = serde_json::from_str(r#"{"connected":{"protocol":"sc02"}}"#).unwrap();
    assert_eq!(event, SC02);
    assert_eq!(
        serde_json::to_string(&Action::Waiting { retry: Duration::from_millis(5) }).unwrap(),
        r#"{"waiting":{"retry_ms":5}}"#
    );
    assert_eq!(serde_json::from_str::<Config>("{}").unwrap(), Config::default());
}

/// What no host may be asked for.
#[derive(Default)]
struct Audit {
    dialled: bool,
    up: bool,
    /// It is established, and other addresses of its hub are in reserve.
    keeps_reserve: bool,
    over: bool,
}

impl Audit {
    fn see(&mut self, action: &Action) {
        assert!(!self.over, "{action:?} after the end");
        match action {
            Action::Dial => {
                assert!(!self.dialled, "dialled twice");
                self.dialled = true;
            }
            Action::Established { .. } => {
                assert!(self.dialled && !self.up && !self.keeps_reserve);
                (self.up, self.keeps_reserve) = (true, true);
            }
            Action::SendSessionOpen { .. } => assert!(self.dialled && !self.up),
            Action::State { .. }
            | Action::Hide
            | Action::RefuseStreams
            | Action::MoveAway
            | Action::SendProviderStart
            | Action::SendSetWeight { .. }
            | Action::SendDrained
            | Action::SendNotifyShutdown
            | Action::SendSessionClose { .. } => assert!(self.dialled && self.up, "{action:?} without a session"),
            Action::SessionLost => assert!(self.up),
            Action::CallReserve => assert!(std::mem::take(&mut self.keeps_reserve), "called twice"),
            Action::Close { .. } => {
                assert!(self.dialled, "closed what was not open");
                (self.dialled, self.up) = (false, false);
            }
            Action::Waiting { .. } | Action::Reserved => (self.dialled, self.up) = (false, false),
            Action::Closed | Action::Failed => self.over = true,
        }
    }
}

proptest! {
    #[test]
    fn random_events_keep_the_contract(
        retry_limit in proptest::option::of(0u32..3),
        connect in prop_oneof![Just(CONSUMER), Just(PROVIDER)],
        steps in proptest::collection::vec((0usize..Session::alphabet().len() + 1, 0u64..4_000), 0..60),
    ) {
        let mut bench = Bench::new(Config { retry_limit, ..Config::default() });
        let mut audit = Audit::default();
        bench.feed(connect).iter().for_each(|action| audit.see(action));
        for (event, wait) in steps {
            bench.now += Duration::from_millis(wait);
            while bench.machine.poll_timeout().is_some_and(|due| due <= bench.now) {
                bench.machine.handle_timeout(bench.now);
                bench.drain().iter().for_each(|action| audit.see(action));
            }
            let actions = match Session::alphabet().get(event) {
                Some(event) => bench.feed(event.clone()),
                // Everything that is due, however long it takes.
                None => {
                    bench.now = bench.machine.poll_timeout().unwrap_or(bench.now);
                    bench.machine.handle_timeout(bench.now);
                    bench.drain()
                }
            };
            actions.iter().for_each(|action| audit.see(action));
            prop_assert_eq!(audit.over, matches!(bench.machine.state(), "Closed" | "Failed"));
        }
    }
}
