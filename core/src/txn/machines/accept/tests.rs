//! Every row of the table `txn.accept` in docs/protocols/txn-states.md.

use super::*;
use crate::{machine::Machine, testing::first_instant};

struct Play {
    machine: Accept,
    now: Instant,
}

impl Play {
    fn new(events: &[Event]) -> Self {
        Self::with(Config { accept_port: 4666, max_transactions: 2, ..Config::default() }, events)
    }

    fn with(config: Config, events: &[Event]) -> Self {
        let mut play = Self { machine: Accept::new(config), now: first_instant() };
        for event in events {
            play.on(event.clone());
        }
        play
    }

    fn on(&mut self, event: Event) -> Vec<Action> {
        self.machine.handle_event(self.now, event);
        self.drain()
    }

    fn wait(&mut self, time: Duration) -> Vec<Action> {
        self.now += time;
        self.machine.handle_timeout(self.now);
        self.drain()
    }

    fn drain(&mut self) -> Vec<Action> {
        assert_eq!(self.machine.check(), Ok(()));
        std::iter::from_fn(|| self.machine.poll_action()).collect()
    }
}

fn incoming(conn: u64) -> Event {
    Event::Incoming { conn }
}

fn complete(conn: u64) -> Event {
    Event::HeadComplete { conn }
}

fn ended(conn: u64) -> Event {
    Event::Ended { conn }
}

fn failed(kind: AcceptFault) -> Event {
    Event::AcceptFailed { kind }
}

/// The way into each state.
fn way(state: &str) -> Vec<Event> {
    match state {
        "idle" => vec![],
        "listening" => vec![Event::Start],
        "listening, one" => vec![Event::Start, incoming(1)],
        "paused" => vec![Event::Start, incoming(1), incoming(2)],
        "backing_off" => vec![Event::Start, failed(AcceptFault::Files)],
        "backing_off, one" => vec![Event::Start, incoming(1), failed(AcceptFault::Memory)],
        "draining" => vec![Event::Start, incoming(1), incoming(2), Event::Drain],
        "draining, the last" => vec![Event::Start, incoming(1), Event::Drain],
        "stopped" => vec![Event::Drain],
        other => panic!("{other}"),
    }
}

const SITUATIONS: [&str; 9] = [
    "idle",
    "listening",
    "listening, one",
    "paused",
    "backing_off",
    "backing_off, one",
    "draining",
    "draining, the last",
    "stopped",
];

#[test]
fn rows() {
    use Action::{AcceptMore, Listen, Refuse, Spawn, StopListening};
    let finished = || Action::Finished { error: None };
    let rows = vec![
        ("idle", Event::Start, "listening", vec![Listen { port: 4666 }, AcceptMore]),
        ("idle", incoming(1), "idle", vec![Refuse { conn: 1 }]),
        ("idle", Event::Drain, "stopped", vec![finished()]),
        //
        ("listening", incoming(1), "listening", vec![Spawn { conn: 1 }, AcceptMore]),
        ("listening", failed(AcceptFault::Aborted), "listening", vec![AcceptMore]),
        ("listening", failed(AcceptFault::Interrupted), "listening", vec![AcceptMore]),
        ("listening", failed(AcceptFault::Files), "backing_off", vec![]),
        ("listening", failed(AcceptFault::Memory), "backing_off", vec![]),
        (
            "listening",
            failed(AcceptFault::Other),
            "stopped",
            vec![StopListening, Action::Finished { error: Some(AcceptFault::Other) }],
        ),
        ("listening", Event::Drain, "stopped", vec![StopListening, finished()]),
        //
        ("listening, one", incoming(1), "listening", vec![]),
        ("listening, one", incoming(2), "paused", vec![Spawn { conn: 2 }]),
        ("listening, one", failed(AcceptFault::Aborted), "listening", vec![AcceptMore]),
        ("listening, one", complete(1), "listening", vec![]),
        ("listening, one", ended(1), "listening", vec![]),
        ("listening, one", Event::Drain, "draining", vec![StopListening]),
        //
        ("paused", incoming(2), "paused", vec![]),
        ("paused", incoming(3), "paused", vec![Refuse { conn: 3 }]),
        ("paused", complete(1), "paused", vec![]),
        ("paused", ended(1), "listening", vec![AcceptMore]),
        ("paused", Event::Drain, "draining", vec![StopListening]),
        //
        ("backing_off", incoming(3), "backing_off", vec![Refuse { conn: 3 }]),
        ("backing_off", Event::Drain, "stopped", vec![StopListening, finished()]),
        ("backing_off, one", incoming(3), "backing_off", vec![Refuse { conn: 3 }]),
        ("backing_off, one", complete(1), "backing_off", vec![]),
        ("backing_off, one", ended(1), "backing_off", vec![]),
        ("backing_off, one", Event::Drain, "draining", vec![StopListening]),
        //
        ("draining", incoming(3), "draining", vec![Refuse { conn: 3 }]),
        ("draining", complete(1), "draining", vec![]),
        ("draining", ended(1), "draining", vec![]),
        ("draining, the last", complete(1), "draining", vec![]),
        ("draining, the last", incoming(3), "draining", vec![Refuse { conn: 3 }]),
        ("draining, the last", ended(1), "stopped", vec![finished()]),
        //
        ("stopped", incoming(1), "stopped", vec![Refuse { conn: 1 }]),
    ];
    for (situation, event, next, actions) in &rows {
        let mut play = Play::new(&way(situation));
        assert_eq!(play.on(event.clone()), *actions, "in {situation:?} on {event:?}");
        assert_eq!(play.machine.state(), *next, "in {situation:?} on {event:?}");
    }
    // What no row names changes nothing; out of place, it is counted (D14).
    let kind = |event: &Event| std::mem::discriminant(event);
    for situation in SITUATIONS {
        let named = |event: &Event| rows.iter().any(|(other, on, ..)| *other == situation && kind(on) == kind(event));
        for event in Accept::alphabet().into_iter().filter(|event| !named(event)) {
            let mut play = Play::new(&way(situation));
            let before = (play.machine.state(), play.machine.fingerprint());
            assert_eq!(play.on(event.clone()), vec![], "in {situation:?} on {event:?}");
            assert_eq!((play.machine.state(), play.machine.fingerprint()), before, "in {situation:?} on {event:?}");
            let is_counted =
                situation != "stopped" || matches!(event, Event::Ended { .. } | Event::HeadComplete { .. });
            assert_eq!(play.machine.parts.ignored(), u64::from(is_counted), "in {situation:?} on {event:?}");
        }
    }
}

#[test]
fn a_pause_when_files_run_out() {
    for situation in ["backing_off", "backing_off, one"] {
        let mut play = Play::new(&way(situation));
        assert_eq!(play.wait(Duration::from_millis(99)), vec![]);
        assert_eq!(play.wait(Duration::from_millis(1)), [Action::AcceptMore]);
        assert_eq!((play.machine.state(), play.machine.poll_timeout()), ("listening", None));
    }
}

const MS: Duration = Duration::from_millis(1);

#[test]
fn where_all_places_are_taken_the_oldest_slow_head_gives_way() {
    let mut play = Play::new(&way("listening, one"));
    play.now += 300 * MS;
    assert_eq!(play.on(incoming(2)), [Action::Spawn { conn: 2 }]);
    assert_eq!(play.wait(199 * MS), vec![], "its head may still come");
    assert_eq!(play.wait(MS), [Action::GiveWay { conn: 1 }]);
    assert_eq!(play.machine.poll_timeout(), None, "one place is enough");
    assert_eq!(play.on(ended(1)), [Action::AcceptMore]);
    // The next one takes the free place; then it is the turn of the second.
    assert_eq!(play.on(incoming(3)), [Action::Spawn { conn: 3 }]);
    assert_eq!(play.wait(300 * MS), [Action::GiveWay { conn: 2 }]);
    play.on(ended(2));
    // Whose head is slow when somebody comes gives way at once.
    play.now += 10_000 * MS;
    assert_eq!(play.on(incoming(4)), [Action::Spawn { conn: 4 }, Action::GiveWay { conn: 3 }]);
}

#[test]
fn one_at_a_time_gives_way() {
    let config = Config { max_transactions: 3, ..Config::default() };
    let mut play = Play::with(config, &[Event::Start, incoming(1), incoming(2), incoming(3)]);
    assert_eq!(play.wait(500 * MS), [Action::GiveWay { conn: 1 }]);
    assert_eq!(play.on(complete(2)), vec![], "the place of the first is enough");
    assert_eq!(play.on(ended(1)), [Action::AcceptMore]);
    assert_eq!(play.on(incoming(4)), [Action::Spawn { conn: 4 }, Action::GiveWay { conn: 3 }]);
}

#[test]
fn who_has_said_what_it_wants_keeps_its_place() {
    let mut play = Play::new(&way("paused"));
    play.on(complete(1));
    assert_eq!(play.wait(500 * MS), [Action::GiveWay { conn: 2 }]);
    play.on(ended(2));
    play.on(incoming(3));
    play.on(complete(3));
    assert_eq!((play.machine.state(), play.machine.poll_timeout()), ("paused", None));
    assert_eq!(play.wait(100_000 * MS), vec![]);
}

#[test]
fn heads_do_not_take_all_places() {
    let config = Config { max_transactions: 100, max_heads: 2, ..Config::default() };
    let mut play = Play::with(config, &[Event::Start, incoming(1)]);
    assert_eq!(play.on(incoming(2)), [Action::Spawn { conn: 2 }], "as many heads as there may be");
    assert_eq!(play.machine.state(), "paused");
    assert_eq!(play.on(complete(1)), [Action::AcceptMore]);
    play.on(incoming(3));
    assert_eq!(play.wait(500 * MS), [Action::GiveWay { conn: 2 }]);
    assert_eq!(play.on(ended(2)), [Action::AcceptMore]);
    let mut play = Play::new(&way("paused"));
    play.on(Event::Drain);
    assert_eq!(play.wait(29_999 * MS), vec![], "nobody comes any more who needs a place");
}

#[test]
fn the_drain_time_ends() {
    let mut play = Play::new(&way("draining"));
    assert_eq!(play.wait(Duration::from_millis(29_999)), vec![]);
    assert_eq!(play.wait(Duration::from_millis(1)), [Action::KillAll, Action::Finished { error: None }]);
    assert_eq!(play.machine.state(), "stopped");
    assert_eq!(play.on(ended(1)), vec![], "it ends afterwards");
}
