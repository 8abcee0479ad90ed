use proptest::prelude::*;

use super::*;
use crate::machine::{Describe as _, Inspect as _, Machine as _};

/// A machine and its time.
struct Bench {
    machine: Connection,
    now: Instant,
}

const SC01: Protocol = Protocol::Sc01;
const SC02: Protocol = Protocol::Sc02;
const ABORT: Event = Event::LocalAbort { code: StreamCode::PEER_ABORTED };

const fn reset(code: StreamCode) -> Event {
    Event::StreamReset { code }
}

const fn stopped(code: StreamCode) -> Event {
    Event::StreamStopped { code }
}

impl Bench {
    fn new() -> Self {
        Self { machine: Connection::new(Config::default(), 0), now: crate::testing::first_instant() }
    }

    /// After these events, whatever they caused.
    fn after(events: &[Event]) -> Self {
        let mut bench = Self::new();
        for event in events {
            bench.feed(event.clone());
        }
        bench
    }

    fn consumer(protocol: Protocol) -> Self {
        Self::after(&[Event::Connect, Event::SessionFound { protocol }, Event::Opened])
    }

    fn provider(protocol: Protocol) -> Self {
        Self::after(&[Event::Incoming { protocol }, Event::Opened])
    }

    fn drain(&mut self) -> Vec<Action> {
        let actions = std::iter::from_fn(|| self.machine.poll_action()).collect();
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

    /// Fires the next timer, which must be the one named and take so long.
    #[track_caller]
    fn fire(&mut self, timer: &str, waited_ms: u128, state: &str, actions: &[Action]) {
        assert_eq!(self.machine.due(), Some(timer));
        let due = self.machine.poll_timeout().unwrap();
        match timer {
            // It is scattered by a fifth.
            "again" => {
                let range = waited_ms * 4 / 5..=waited_ms * 6 / 5;
                assert!(range.contains(&(due - self.now).as_millis()), "{:?}, not {waited_ms} ms", due - self.now);
            }
            _ => assert_eq!((due - self.now).as_millis(), waited_ms),
        }
        self.machine.handle_timeout(due - Duration::from_millis(1));
        assert_eq!(self.drain(), [], "an early call does nothing");
        self.now += Duration::from_millis(waited_ms as u64);
        self.machine.handle_timeout(due);
        assert_eq!((self.drain().as_slice(), self.machine.state()), (actions, state));
    }
}

#[test]
fn a_consumer_finds_a_session_and_opens_a_stream() {
    let mut bench = Bench::new();
    bench.expect(&[Event::Connect], "LookingUpSession", &[Action::LookUp]);
    bench.expect(&[Event::SessionFound { protocol: SC02 }], "Connecting", &[Action::OpenStream]);
    bench.expect(&[Event::Opened], "Connected", &[]);
}

#[test]
fn a_provider_begins_with_a_stream() {
    let mut bench = Bench::new();
    bench.expect(&[Event::Incoming { protocol: SC02 }], "Connecting", &[Action::Announce]);
    bench.expect(&[Event::Opened], "Connected", &[]);
    assert_eq!(bench.machine.due(), None);
}

#[test]
fn looking_up_ends_after_10_s() {
    let mut bench = Bench::after(&[Event::Connect]);
    let over = [Action::LocalReset { code: StreamCode::NOT_STARTED }, Action::Disconnected];
    bench.fire("lookup", 10_000, "Disconnected", &over);
}

#[test]
fn a_provider_that_does_not_dial_is_given_up() {
    let mut bench = Bench::after(&[Event::Incoming { protocol: SC02 }]);
    let code = StreamCode::PEER_ABORTED;
    let over =
        [Action::ResetStream { code }, Action::StopStream { code }, Action::LocalReset { code }, Action::Disconnected];
    bench.fire("dial", 60_000, "Disconnected", &over);
}

#[test]
fn what_the_local_side_does_early_is_made_good() {
    let mut bench = Bench::after(&[Event::Connect]);
    bench.expect(&[Event::LocalFinish, Event::LocalStop { code: StreamCode(7) }], "LookingUpSession", &[]);
    bench.expect(
        &[Event::SessionFound { protocol: SC02 }, Event::Opened],
        "Connected",
        &[Action::FinishStream, Action::StopStream { code: StreamCode(7) }],
    );
    bench.expect(&[Event::StreamAcked], "Disconnected", &[Action::Disconnected]);

    Bench::after(&[Event::Connect]).expect(&[ABORT], "Disconnected", &[Action::Disconnected]);
}

#[test]
fn it_ends_when_both_directions_have() {
    for protocol in [SC01, SC02] {
        let mut bench = Bench::consumer(protocol);
        bench.expect(
            &[Event::BytesSent, Event::BytesReceived, Event::LocalFinish],
            "Connected",
            &[Action::FinishStream],
        );
        bench.expect(&[Event::LocalFinish], "Connected", &[]);
        bench.expect(&[Event::StreamFinished], "Connected", &[]);
        bench.expect(&[Event::StreamAcked], "Disconnected", &[Action::Disconnected]);

        let mut bench = Bench::provider(protocol);
        bench.expect(&[Event::LocalFinish, Event::StreamAcked], "Connected", &[]);
        bench.expect(&[Event::StreamFinished], "Disconnected", &[Action::Disconnected]);
    }
}

#[test]
fn stop_sending_ends_only_that_direction() {
    for protocol in [SC01, SC02] {
        let mut bench = Bench::provider(protocol);
        let said = [Action::ResetStream { code: StreamCode(0x20) }, Action::LocalStopped { code: StreamCode(0x20) }];
        bench.expect(&[stopped(StreamCode(0x20))], "Connected", &said);
        bench.expect(&[Event::LocalFinish], "Connected", &[]);
        bench.expect(&[Event::StreamFinished], "Disconnected", &[Action::Disconnected]);

        // The local side reads no more: the other direction lives on.
        let mut bench = Bench::provider(protocol);
        bench.expect(
            &[Event::LocalStop { code: StreamCode(9) }],
            "Connected",
            &[Action::StopStream { code: StreamCode(9) }],
        );
        bench.expect(&[Event::LocalFinish], "Connected", &[Action::FinishStream]);
        bench.expect(&[Event::StreamAcked], "Disconnected", &[Action::Disconnected]);
    }
    // After the local end, nobody is to hear of it.
    let mut bench = Bench::provider(SC02);
    bench.expect(
        &[Event::LocalFinish, stopped(StreamCode(0))],
        "Connected",
        &[Action::ResetStream { code: StreamCode(0) }],
    );
}

#[test]
fn reset_ends_the_connection() {
    for (protocol, code) in [
        (SC01, StreamCode::DIAL_FAILED),
        (SC01, StreamCode::PAUSED),
        (SC01, StreamCode::NOT_STARTED),
        (SC02, StreamCode::PARTNER_LOST),
    ] {
        let over = [Action::ResetStream { code }, Action::LocalReset { code }, Action::Disconnected];
        Bench::consumer(protocol).expect(&[Event::BytesSent, reset(code)], "Disconnected", &over);
        Bench::provider(protocol).expect(&[reset(code)], "Disconnected", &over);
    }
    // Also when our direction has ended: the other one has not come through.
    let mut bench = Bench::consumer(SC02);
    bench.expect(
        &[Event::LocalFinish, Event::StreamAcked, reset(StreamCode(0x20))],
        "Disconnected",
        &[Action::LocalReset { code: StreamCode(0x20) }, Action::Disconnected],
    );
}

#[test]
fn a_refused_connection_is_tried_again_with_its_bytes() {
    let mut bench = Bench::consumer(SC02);
    bench.feed(Event::BytesSent);
    bench.feed(Event::LocalFinish);
    bench.feed(Event::StreamAcked);
    bench.expect(&[reset(StreamCode::NOT_STARTED)], "LookingUpSession", &[Action::ForgetStream]);
    bench.fire("again", 100, "LookingUpSession", &[Action::LookUp]);
    bench.expect(&[Event::SessionFound { protocol: SC02 }], "Connecting", &[Action::OpenStream]);
    bench.expect(&[Event::Opened], "Connected", &[Action::SendHeld, Action::FinishStream]);
    // The pauses grow.
    let drop = Action::ResetStream { code: StreamCode::NOT_STARTED };
    bench.expect(&[reset(StreamCode::NOT_STARTED)], "LookingUpSession", &[drop.clone(), Action::ForgetStream]);
    bench.fire("again", 200, "LookingUpSession", &[Action::LookUp]);

    // STOP_SENDING may come first; the local side hears nothing of it.
    let mut bench = Bench::consumer(SC02);
    bench.expect(
        &[stopped(StreamCode::NOT_STARTED)],
        "LookingUpSession",
        &[drop, Action::StopStream { code: StreamCode::NOT_STARTED }, Action::ForgetStream],
    );
}

#[test]
fn what_cannot_be_said_again_is_not_tried_again() {
    let code = StreamCode::NOT_STARTED;
    let over = [Action::ResetStream { code }, Action::LocalReset { code }, Action::Disconnected];
    let stopped_before = [Action::LocalReset { code }, Action::Disconnected];
    for (events, actions) in [
        (&[Event::BytesSent, Event::BytesReleased][..], &over[..]),
        (&[Event::BytesReceived], &over),
        (&[stopped(StreamCode(0x20))], &stopped_before),
    ] {
        let mut bench = Bench::consumer(SC02);
        for event in events {
            bench.feed(event.clone());
        }
        bench.expect(&[reset(code)], "Disconnected", actions);
    }
    Bench::provider(SC02).expect(&[reset(code)], "Disconnected", &over);
}

#[test]
fn tries_end_60_s_after_the_first() {
    let mut bench = Bench::consumer(SC02);
    bench.now += Duration::from_secs(55);
    let refused = [Action::ResetStream { code: StreamCode::NOT_STARTED }, Action::ForgetStream];
    bench.expect(&[reset(StreamCode::NOT_STARTED)], "LookingUpSession", &refused);
    bench.fire("again", 100, "LookingUpSession", &[Action::LookUp]);
    let over = [Action::LocalReset { code: StreamCode::NOT_STARTED }, Action::Disconnected];
    bench.fire("total", 4_900, "Disconnected", &over);

    let mut bench = Bench::consumer(SC02);
    bench.fire("total", 60_000, "Connected", &[]);
    bench.expect(
        &[reset(StreamCode::NOT_STARTED)],
        "Disconnected",
        &[Action::ResetStream { code: StreamCode::NOT_STARTED }, over[0].clone(), Action::Disconnected],
    );
}

#[test]
fn a_lost_session_is_replaced_while_no_byte_has_moved() {
    for protocol in [SC01, SC02] {
        let over = [Action::LocalReset { code: StreamCode::PARTNER_LOST }, Action::Disconnected];
        let mut connecting = Bench::after(&[Event::Connect, Event::SessionFound { protocol }]);
        connecting.expect(&[Event::SessionLost], "LookingUpSession", &[Action::ForgetStream, Action::LookUp]);
        let mut untouched = Bench::consumer(protocol);
        untouched.fire("total", 60_000, "Connected", &[]);
        untouched.expect(&[Event::SessionLost], "LookingUpSession", &[Action::ForgetStream, Action::LookUp]);
        Bench::consumer(protocol).expect(&[Event::BytesSent, Event::SessionLost], "Disconnected", &over);
        Bench::consumer(protocol).expect(&[Event::BytesReceived, Event::SessionLost], "Disconnected", &over);
        Bench::provider(protocol).expect(&[Event::SessionLost], "Disconnected", &over);
        Bench::after(&[Event::Incoming { protocol }]).expect(&[Event::SessionLost], "Disconnected", &over);
    }
    // What a refused try had sent may be sent again; it was not, yet.
    let mut bench = Bench::consumer(SC02);
    bench.feed(Event::BytesSent);
    bench.feed(reset(StreamCode::NOT_STARTED));
    bench.fire("again", 100, "LookingUpSession", &[Action::LookUp]);
    bench.feed(Event::SessionFound { protocol: SC02 });
    bench.expect(&[Event::SessionLost], "LookingUpSession", &[Action::ForgetStream, Action::LookUp]);
}

#[test]
fn reset_0x27_is_a_lost_session() {
    let code = StreamCode::PAUSED;
    let again = [Action::ResetStream { code }, Action::ForgetStream, Action::LookUp];
    let mut bench = Bench::consumer(SC02);
    bench.expect(&[reset(code)], "LookingUpSession", &again);
    let mut bench = Bench::consumer(SC02);
    bench.expect(
        &[Event::BytesSent, stopped(code)],
        "Disconnected",
        &[
            Action::ResetStream { code },
            Action::StopStream { code },
            Action::LocalReset { code: StreamCode::PARTNER_LOST },
            Action::Disconnected,
        ],
    );
}

#[test]
fn abort_is_close_req_with_resets_on_sc02() {
    let code = StreamCode::PEER_ABORTED;
    let closing = [
        Action::SendCloseReq { code },
        Action::ResetStream { code },
        Action::StopStream { code },
        Action::AwaitStreamEnd,
    ];
    for mut bench in [
        Bench::consumer(SC02),
        Bench::provider(SC02),
        Bench::after(&[Event::Incoming { protocol: SC02 }]),
        Bench::after(&[Event::Connect, Event::SessionFound { protocol: SC02 }]),
    ] {
        bench.expect(&[ABORT], "Disconnecting", &closing);
        let mut patient = Bench { machine: bench.machine.clone(), now: bench.now };
        bench.expect(&[Event::StreamClosed], "Disconnected", &[Action::Disconnected]);
        patient.expect(&[Event::CloseReq { code: StreamCode(0) }], "Disconnecting", &[Action::SendCloseAck]);
        patient.fire("closing", 5_000, "Disconnected", &[Action::Disconnected]);
    }
}

#[test]
fn abort_is_a_reset_on_sc01() {
    let code = StreamCode::PEER_ABORTED;
    let over = |code| [Action::ResetStream { code }, Action::StopStream { code }, Action::Disconnected];
    Bench::consumer(SC01).expect(&[ABORT], "Disconnected", &over(code));
    Bench::provider(SC01).expect(&[ABORT], "Disconnected", &over(code));
    // A dial that failed has a code of its own.
    Bench::after(&[Event::Incoming { protocol: SC01 }]).expect(
        &[ABORT],
        "Disconnected",
        &over(StreamCode::DIAL_FAILED),
    );
}

#[test]
fn an_orderly_close_waits_for_the_ends() {
    let mut bench = Bench::consumer(SC02);
    bench.feed(Event::BytesSent);
    bench.expect(
        &[Event::LocalAbort { code: StreamCode(0) }],
        "Disconnecting",
        &[
            Action::SendCloseReq { code: StreamCode(0) },
            Action::FinishStream,
            Action::StopStream { code: StreamCode(0) },
            Action::AwaitStreamEnd,
        ],
    );
    bench.expect(&[Event::StreamAcked], "Disconnected", &[Action::Disconnected]);
}

#[test]
fn close_req_is_answered() {
    let ack = Action::SendCloseAck;
    let code = StreamCode::PEER_ABORTED;
    // While connecting, it is over at once.
    let mut bench = Bench::after(&[Event::Connect, Event::SessionFound { protocol: SC02 }]);
    bench.expect(
        &[Event::CloseReq { code }],
        "Disconnected",
        &[
            ack.clone(),
            Action::ResetStream { code },
            Action::StopStream { code },
            Action::LocalReset { code },
            Action::Disconnected,
        ],
    );
    // With a code, it is a reset.
    let mut bench = Bench::provider(SC02);
    bench.expect(
        &[Event::CloseReq { code }],
        "Disconnecting",
        &[
            ack.clone(),
            Action::ResetStream { code },
            Action::StopStream { code },
            Action::LocalReset { code },
            Action::AwaitStreamEnd,
        ],
    );
    bench.expect(&[Event::StreamClosed], "Disconnected", &[Action::Disconnected]);
    // Without, what has been written is delivered, and the hub ends the stream.
    let mut bench = Bench::provider(SC02);
    bench.expect(
        &[Event::CloseReq { code: StreamCode(0) }],
        "Disconnecting",
        &[ack, Action::LocalStopped { code: StreamCode(0) }, Action::FinishStream, Action::AwaitStreamEnd],
    );
    bench.expect(&[Event::StreamFinished], "Disconnecting", &[]);
    bench.expect(&[Event::StreamAcked], "Disconnected", &[Action::Disconnected]);
}

#[test]
fn a_session_lost_while_disconnecting_ends_it() {
    let mut bench = Bench::consumer(SC02);
    bench.feed(ABORT);
    bench.expect(&[Event::SessionLost], "Disconnected", &[Action::Disconnected]);
}

#[test]
fn an_empty_end_from_an_sc01_hub_is_a_failure() {
    let code = StreamCode::PARTNER_LOST;
    // Nothing sent: safe to try again, once.
    let mut bench = Bench::consumer(SC01);
    bench.feed(Event::LocalFinish);
    bench.feed(Event::StreamAcked);
    let drop = Action::StopStream { code: StreamCode(0) };
    bench.expect(&[Event::StreamFinished], "LookingUpSession", &[drop, Action::ForgetStream, Action::LookUp]);
    bench.expect(&[Event::SessionFound { protocol: SC01 }, Event::Opened], "Connected", &[Action::FinishStream]);
    let over =
        [Action::ResetStream { code }, Action::StopStream { code }, Action::LocalReset { code }, Action::Disconnected];
    bench.expect(&[Event::StreamFinished], "Disconnected", &over);
    // The same when the hub refuses our end before it shows its own.
    let mut bench = Bench::consumer(SC01);
    bench.feed(Event::LocalFinish);
    bench.expect(&[Event::StreamStopped { code: StreamCode(0) }], "Connected", &[]);
    let cut = [
        Action::ResetStream { code: StreamCode(0) },
        Action::StopStream { code: StreamCode(0) },
        Action::ForgetStream,
        Action::LookUp,
    ];
    bench.expect(&[Event::StreamFinished], "LookingUpSession", &cut);
    // Something sent: a reset, never a clean end.
    Bench::consumer(SC01).expect(&[Event::BytesSent, Event::StreamFinished], "Disconnected", &over);
    // An end after payload is an end, and sc02 shows what happened.
    Bench::consumer(SC01).expect(&[Event::BytesSent, Event::BytesReceived, Event::StreamFinished], "Connected", &[]);
    Bench::consumer(SC02).expect(&[Event::BytesSent, Event::StreamFinished], "Connected", &[]);
    Bench::provider(SC01).expect(&[Event::StreamFinished], "Connected", &[]);
}

/// With a provider that can resume, and a byte each way.
fn resumable(role: Role) -> Bench {
    let begin = match role {
        Role::Consumer => &[Event::Connect, Event::SessionFound { protocol: SC02 }][..],
        Role::Provider => &[Event::Incoming { protocol: SC02 }],
    };
    let mut bench = Bench::after(begin);
    for event in [Event::Resumable, Event::Opened, Event::Confirmed { resumable: true }, Event::BytesSent] {
        bench.feed(event);
    }
    bench.feed(Event::BytesReceived);
    bench
}

#[test]
fn a_lost_session_is_a_pause_when_both_ends_can_resume() {
    for role in [Role::Consumer, Role::Provider] {
        let mut bench = resumable(role);
        bench.expect(&[Event::SessionLost], "Paused", &[Action::LeaveStream, Action::AskResume]);
        bench.expect(&[Event::ResumeAsked], "Resuming", &[]);
        bench.expect(&[Event::ResumeUnasked], "Paused", &[]);
        bench.expect(&[Event::ResumeAsked], "Resuming", &[]);
        bench.expect(&[Event::LocalFinish], "Resuming", &[]);
        bench.expect(&[Event::Resumed], "Connected", &[Action::SendKept, Action::FinishStream]);
        bench.expect(&[Event::PartnerResumed], "Connected", &[]);
        // The hub's acknowledgement of our end does not count, only the partner's report.
        bench.expect(&[Event::StreamAcked, Event::StreamFinished], "Connected", &[]);
        bench.expect(&[Event::SentOver], "Disconnected", &[Action::Disconnected]);
    }
}

#[test]
fn a_pause_ends_after_120_s() {
    let code = StreamCode::PAUSE_TIMEOUT;
    let over = [Action::LeaveAbort { code }, Action::LocalReset { code }, Action::Disconnected];
    let asked = [Action::LeaveStream, Action::AskResume];
    let mut bench = resumable(Role::Consumer);
    bench.expect(&[Event::SessionLost, Event::ResumeAsked], "Resuming", &[]);
    bench.fire("pause", 120_000, "Disconnected", &over);
    // A stream on which the partner says nothing does not count,
    let mut bench = resumable(Role::Consumer);
    bench.feed(Event::SessionLost);
    bench.now += Duration::from_secs(115);
    bench.feed(Event::Resumed);
    bench.now += Duration::from_secs(1);
    bench.expect(&[Event::SessionLost], "Paused", &[Action::LeaveStream]);
    bench.fire("again", 200, "Paused", &[Action::AskResume]);
    bench.fire("pause", 3_800, "Disconnected", &over);
    // nor does a partner that nobody has heard of get so long.
    let mut bench = Bench::after(&[Event::Connect, Event::SessionFound { protocol: SC02 }, Event::Resumable]);
    bench.expect(&[Event::Opened, Event::BytesSent, Event::SessionLost], "Paused", &asked);
    bench.fire("pause", 15_000, "Disconnected", &over);
    // That somebody has asked for it proves that somebody has it.
    let mut bench = Bench::after(&[Event::Connect, Event::SessionFound { protocol: SC02 }, Event::Resumable]);
    bench.expect(&[Event::Opened, Event::BytesSent, Event::SessionLost], "Paused", &asked);
    bench.now += Duration::from_secs(10);
    bench.expect(&[Event::ResumeAsked, Event::Resumed], "Connected", &[Action::SendKept]);
    bench.now += Duration::from_secs(1);
    bench.expect(&[Event::SessionLost], "Paused", &[Action::LeaveStream]);
    bench.fire("again", 200, "Paused", &[Action::AskResume]);
    bench.fire("pause", 118_800, "Disconnected", &over);
    // What is complete for the local side was no failure.
    let mut bench = resumable(Role::Consumer);
    bench.expect(&[Event::LocalFinish, Event::StreamFinished, Event::SessionLost], "Paused", &asked);
    bench.fire("pause", 120_000, "Disconnected", &[Action::Disconnected]);
}

#[test]
fn requests_that_are_refused_are_repeated_later_and_later() {
    let mut bench = resumable(Role::Consumer);
    bench.expect(&[Event::SessionLost, Event::ResumeAsked], "Resuming", &[]);
    for pause in [100, 200, 400, 800, 1_600, 3_200, 5_000, 5_000] {
        bench.expect(&[Event::ResumeRefused], "Resuming", &[]);
        bench.fire("again", pause, "Resuming", &[Action::AskResume]);
    }
    // Until a stream has lasted.
    bench.feed(Event::Resumed);
    bench.feed(Event::PartnerResumed);
    bench.fire("settled", 10_000, "Connected", &[]);
    bench.expect(&[Event::SessionLost], "Paused", &[Action::LeaveStream, Action::AskResume]);
}

#[test]
fn the_hub_may_ask_for_a_pause() {
    let code = StreamCode::PAUSED;
    let left = [Action::ResetStream { code }, Action::StopStream { code }, Action::LeaveStream, Action::AskResume];
    let mut bench = resumable(Role::Provider);
    bench.expect(&[Event::PauseReq], "Pausing", &[Action::SendPauseAck]);
    bench.expect(&[Event::PauseReq], "Pausing", &[Action::SendPauseAck]);
    bench.expect(&[Event::LocalFinish, Event::BytesReceived], "Pausing", &[]);
    bench.expect(&[reset(code)], "Paused", &left);
    bench.expect(&[Event::Resumed], "Connected", &[Action::SendKept, Action::FinishStream]);
    bench.feed(Event::PauseReq);
    bench.fire("pausing", 5_000, "Paused", &left[..3]);
    for event in [reset(code), stopped(code)] {
        resumable(Role::Consumer).expect(&[event], "Paused", &left);
    }
    // No provider has had it: as if it had never been opened.
    let mut bench = Bench::after(&[Event::Connect, Event::SessionFound { protocol: SC02 }, Event::Resumable]);
    bench.expect(&[Event::Opened, Event::PauseReq], "Pausing", &[Action::SendPauseAck]);
    let dropped = [Action::ResetStream { code: StreamCode::NOT_STARTED }, Action::ForgetStream, Action::LookUp];
    bench.expect(&[reset(StreamCode::NOT_STARTED)], "LookingUpSession", &dropped);
}

#[test]
fn an_abort_without_a_stream_is_left_for_the_partner() {
    let code = StreamCode::PEER_ABORTED;
    let mut bench = resumable(Role::Consumer);
    bench.feed(Event::SessionLost);
    bench.expect(&[ABORT], "Disconnected", &[Action::LeaveAbort { code }, Action::Disconnected]);
    // Also when the session is lost before the hub could answer.
    let mut bench = resumable(Role::Consumer);
    bench.feed(ABORT);
    bench.expect(&[Event::SessionLost], "Disconnected", &[Action::LeaveAbort { code }, Action::Disconnected]);
    // The partner hears of it so.
    let mut bench = resumable(Role::Provider);
    bench.expect(&[Event::SessionLost, Event::ResumeAsked], "Resuming", &[]);
    let over = [Action::LocalReset { code }, Action::Disconnected];
    bench.expect(&[Event::ResumeAborted { code }], "Disconnected", &over);
}

#[test]
fn connected_says_that_a_provider_cannot_resume() {
    let mut bench = Bench::after(&[Event::Connect, Event::SessionFound { protocol: SC02 }, Event::Resumable]);
    bench.expect(&[Event::Opened, Event::BytesSent, Event::LocalFinish], "Connected", &[Action::FinishStream]);
    bench.expect(&[Event::StreamFinished, Event::StreamAcked], "Connected", &[]);
    bench.expect(&[Event::Confirmed { resumable: false }], "Disconnected", &[Action::Disconnected]);
}

#[test]
fn offsets_that_cannot_be_break_it() {
    let code = StreamCode::CONN_IN_USE;
    resumable(Role::Consumer).expect(
        &[Event::Mismatch],
        "Disconnecting",
        &[
            Action::SendCloseReq { code },
            Action::ResetStream { code },
            Action::StopStream { code },
            Action::LocalReset { code },
            Action::AwaitStreamEnd,
        ],
    );
    resumable(Role::Consumer).expect(
        &[Event::SessionLost, Event::Mismatch],
        "Disconnected",
        &[Action::LeaveAbort { code }, Action::LocalReset { code }, Action::Disconnected],
    );
}

#[test]
fn a_script_reads_and_writes_plain_names() {
    let event: Event = serde_json::from_str(r#"{"session_found":{"protocol":"sc01"}}"#).unwrap();
    assert_eq!(event, Event::SessionFound { protocol: SC01 });
    assert_eq!(serde_json::from_str::<Event>(r#""stream_acked""#).unwrap(), Event::StreamAcked);
    assert_eq!(serde_json::to_string(&Action::SendCloseAck).unwrap(), r#""send_close_ack""#);
    assert_eq!(serde_json::from_str::<Config>(r#"{"lookup_ms":10000}"#).unwrap(), Config::default());
}

/// What no host may be asked for.
#[derive(Default)]
struct Audit {
    stream: bool,
    finished: bool,
    shown_reset: bool,
    over: bool,
}

impl Audit {
    fn see(&mut self, event: Option<&Event>, action: &Action) {
        assert!(!self.over, "{action:?} after the end");
        match action {
            Action::LookUp => assert!(!self.shown_reset),
            Action::Announce => self.stream = true,
            Action::OpenStream => {
                assert!(!self.shown_reset);
                (self.stream, self.finished) = (true, false);
            }
            Action::SendHeld => assert!(self.stream && !self.finished),
            Action::FinishStream => {
                assert!(self.stream && !self.finished, "finished twice");
                self.finished = true;
            }
            Action::ResetStream { .. } | Action::StopStream { .. } => assert!(self.stream),
            Action::SendCloseReq { .. } => {
                assert!(matches!(event, Some(Event::LocalAbort { .. } | Event::Mismatch)));
            }
            Action::SendCloseAck => assert!(matches!(event, Some(Event::CloseReq { .. }))),
            Action::SendPauseAck => assert!(matches!(event, Some(Event::PauseReq))),
            Action::ForgetStream | Action::LeaveStream => assert!(self.stream && !self.shown_reset),
            Action::AwaitStreamEnd => assert!(self.stream),
            Action::AskResume => assert!(!self.shown_reset),
            Action::SendKept => {
                assert!(matches!(event, Some(Event::Resumed)));
                (self.stream, self.finished) = (true, false);
            }
            Action::LeaveAbort { .. } => assert!(self.stream),
            Action::LocalReset { .. } => {
                assert!(!self.shown_reset, "reset twice");
                assert!(!matches!(event, Some(Event::LocalAbort { .. })), "the local side is shown its own abort");
                self.shown_reset = true;
            }
            Action::LocalStopped { .. } => assert!(!self.finished, "stopped after its end"),
            Action::Disconnected => self.over = true,
        }
    }
}

proptest! {
    #[test]
    fn random_events_keep_the_contract(
        steps in proptest::collection::vec((0usize..Connection::alphabet().len() + 1, 0u64..2_000), 0..60),
    ) {
        let mut bench = Bench::new();
        let mut audit = Audit::default();
        for (event, wait) in steps {
            bench.now += Duration::from_millis(wait);
            while bench.machine.poll_timeout().is_some_and(|due| due <= bench.now) {
                bench.machine.handle_timeout(bench.now);
                bench.drain().iter().for_each(|action| audit.see(None, action));
            }
            let event = Connection::alphabet().get(event).cloned();
            let actions = match &event {
                Some(event) => bench.feed(event.clone()),
                None => {
                    bench.now = bench.machine.poll_timeout().unwrap_or(bench.now);
                    bench.machine.handle_timeout(bench.now);
                    bench.drain()
                }
            };
            actions.iter().for_each(|action| audit.see(event.as_ref(), action));
            prop_assert_eq!(audit.over, bench.machine.state() == "Disconnected");
        }
    }
}
