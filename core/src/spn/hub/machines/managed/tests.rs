use super::*;
use crate::{machine::Machine as _, testing::first_instant};

fn on_demand() -> Config {
    Config { idle: Duration::from_secs(30), ..Config::default() }
}

fn from_load_on() -> Config {
    Config { on_consumer: false, on_payload: false, ..on_demand() }
}

/// What each event causes, and the state after it.
fn run(config: Config, events: &[Event]) -> (ManagedProvider, Vec<(Vec<Action>, &'static str)>) {
    run_at(first_instant(), config, events)
}

fn run_at(now: Instant, config: Config, events: &[Event]) -> (ManagedProvider, Vec<(Vec<Action>, &'static str)>) {
    let mut machine = ManagedProvider::new(config);
    let steps = events.iter().map(|event| {
        machine.handle_event(now, *event);
        machine.check().unwrap();
        (actions(&mut machine), machine.state())
    });
    let steps = steps.collect();
    (machine, steps)
}

fn actions(machine: &mut ManagedProvider) -> Vec<Action> {
    std::iter::from_fn(|| machine.poll_action()).collect()
}

/// How long after `now` its timer fires, and what it causes.
fn timeout(now: Instant, machine: &mut ManagedProvider) -> (Duration, Vec<Action>, &'static str) {
    let due = machine.poll_timeout().unwrap();
    machine.handle_timeout(due);
    machine.check().unwrap();
    (due - now, actions(machine), machine.state())
}

const STARTED: Event = Event::ClusterDone { ok: true };
const NOT: Event = Event::ClusterDone { ok: false };

#[test]
fn what_starts_it() {
    let (both, load) = (on_demand(), from_load_on());
    let (consumer, payload) = (Config { on_payload: false, ..both }, Config { on_consumer: false, ..both });
    let starts = |config, event| run(config, &[event]).1[0].0 == [Action::ClusterStart];
    for (event, expected) in [
        (Event::Loaded, [false, false, false, true]),
        (Event::ConsumerCame, [true, true, false, false]),
        (Event::PayloadAnnounced, [true, false, true, false]),
        (Event::ConnectionWaits, [true, true, true, false]),
        (Event::ScheduledStart, [true; 4]),
        (Event::ProviderCame, [false; 4]),
    ] {
        assert_eq!([both, consumer, payload, load].map(|config| starts(config, event)), expected, "{event:?}");
    }
}

#[test]
fn it_comes_is_used_and_is_stopped_when_nobody_has_used_it_for_long_enough() {
    let events = [Event::ConnectionWaits, STARTED, Event::ProviderCame, Event::Busy, Event::Idle];
    let now = first_instant();
    let (mut machine, steps) = run_at(now, on_demand(), &events);
    assert_eq!(
        steps.iter().map(|step| step.1).collect::<Vec<_>>(),
        ["Starting", "Joining", "Running", "Running", "Running"]
    );
    let idle = (Duration::from_secs(30), vec![Action::CloseProviders, Action::ClusterStop], "Stopping");
    assert_eq!(timeout(now, &mut machine), idle);
    machine.handle_event(now, Event::ProviderGone);
    machine.handle_event(now, STARTED);
    assert_eq!((actions(&mut machine), machine.state()), (vec![Action::TellStopped], "Stopped"));
}

#[test]
fn only_one_that_is_started_on_demand_is_stopped_when_idle() {
    let events = [Event::Loaded, STARTED, Event::ProviderCame, Event::Idle];
    assert_eq!(run(from_load_on(), &events).0.poll_timeout(), None);
    let never = Config { idle: Duration::ZERO, ..on_demand() };
    assert_eq!(run(never, &[Event::ProviderCame]).0.poll_timeout(), None);
    assert!(run(on_demand(), &[Event::ProviderCame]).0.poll_timeout().is_some(), "however it was started");
    assert_eq!(run(on_demand(), &[Event::ProviderCame, Event::Busy]).0.poll_timeout(), None);
}

#[test]
fn a_failed_start_is_tried_again_ever_more_slowly() {
    let now = first_instant();
    let (mut machine, _) = run_at(now, from_load_on(), &[Event::Loaded]);
    let mut waits = Vec::new();
    for _ in 0..7 {
        machine.handle_event(now, NOT);
        let (wait, actions, state) = timeout(now, &mut machine);
        assert_eq!((actions, state), (vec![Action::ClusterStart], "Starting"));
        waits.push(wait.as_secs());
    }
    assert_eq!(waits, [10, 20, 40, 80, 160, 320, 320]);
    for event in [STARTED, Event::ProviderCame, Event::ProviderGone, Event::ScheduledStart, NOT] {
        machine.handle_event(now, event);
    }
    assert_eq!(machine.poll_timeout(), Some(now + Duration::from_secs(10)), "it had run in between");
}

#[test]
fn a_failed_start_on_demand_needs_a_new_demand() {
    let (now, ten) = (first_instant(), Duration::from_secs(10));
    let after = |events: &[Event]| timeout(now, &mut run_at(now, on_demand(), events).0);
    assert_eq!(after(&[Event::ConsumerCame, NOT]), (ten, vec![], "Stopped"));
    let again = [Event::ConsumerCame, NOT, Event::ConnectionWaits];
    assert_eq!(after(&again), (ten, vec![Action::ClusterStart], "Starting"));
    let given_up = [&again[..], &[Event::ScheduledStop]].concat();
    assert_eq!(after(&given_up), (ten, vec![], "Stopped"));
}

#[test]
fn one_that_was_started_and_does_not_come_may_be_asked_for_again() {
    let now = first_instant();
    let (mut machine, _) = run_at(now, on_demand(), &[Event::ConnectionWaits, STARTED, Event::ConnectionWaits]);
    assert_eq!(timeout(now, &mut machine), (Duration::from_secs(60), vec![], "Stopped"));
    machine.handle_event(now, Event::ConnectionWaits);
    assert_eq!(actions(&mut machine), [Action::ClusterStart]);
}

#[test]
fn a_stop_waits_for_the_start_and_a_start_for_the_stop() {
    let (_, steps) = run(on_demand(), &[Event::ScheduledStart, Event::ScheduledStop, STARTED]);
    assert_eq!(steps[1], (vec![], "Starting"));
    assert_eq!(steps[2], (vec![Action::ClusterStop], "Stopping"));
    let again = [Event::ScheduledStart, Event::ScheduledStop, Event::ConnectionWaits, STARTED];
    assert_eq!(run(on_demand(), &again).1[3], (vec![], "Joining"), "it is wanted after all");
    let stopped = [Event::ProviderCame, Event::ScheduledStop, Event::ConnectionWaits, Event::ProviderGone, STARTED];
    let (_, steps) = run(on_demand(), &stopped);
    assert_eq!(steps[1], (vec![Action::ClusterStop], "Stopping"));
    assert_eq!(steps[4], (vec![Action::TellStopped, Action::ClusterStart], "Starting"));
}

#[test]
fn one_that_could_not_be_stopped_is_still_there_or_comes_back() {
    let stays = [Event::ProviderCame, Event::ScheduledStop, NOT];
    assert_eq!(run(on_demand(), &stays).1[2], (vec![], "Running"));
    let back = [Event::ProviderCame, Event::ScheduledStop, Event::ProviderGone, NOT, Event::ProviderCame];
    let (machine, steps) = run(on_demand(), &back);
    assert_eq!((steps[3].1, steps[4].1), ("Stopped", "Running"));
    assert!(machine.poll_timeout().is_some(), "and may be idle again");
}

#[test]
fn somebody_else_may_have_started_it() {
    let (_, steps) = run(on_demand(), &[Event::ConsumerCame, Event::ProviderCame, NOT]);
    assert_eq!((steps[1].1, steps[2].1), ("Starting", "Running"));
    let (_, steps) = run(from_load_on(), &[Event::Loaded, NOT, Event::ProviderCame]);
    assert_eq!(steps[2], (vec![], "Running"));
}
