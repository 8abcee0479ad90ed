//! Lives at random, under the eyes of a host that checks docs/protocols/txn-states.md, Invariants.

use proptest::prelude::*;

use super::*;

fn serves() -> impl Strategy<Value = Serve> {
    prop_oneof![Just(Serve::Stored), Just(Serve::Streamed)]
}

#[derive(Debug, Clone)]
enum Step {
    /// One of the answers that are due, if there is one.
    Answer(usize),
    /// Anything.
    Event(usize),
    /// An answer to some question.
    Late(usize, u64),
    Fire,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        12 => any::<usize>().prop_map(Step::Answer),
        2 => any::<usize>().prop_map(Step::Event),
        2 => (any::<usize>(), 0u64..9).prop_map(|(which, seq)| Step::Late(which, seq)),
        1 => Just(Step::Fire),
    ];
    proptest::collection::vec(step, 0..80)
}

/// The events that may come at any time without being the host's fault, or that answer an old question.
fn noise(which: usize, seq: u64) -> Event {
    let seq = Some(seq);
    let late = [
        Event::CacheHit { len: 2, seq },
        Event::CacheMiss { seq },
        Event::CacheWriteReady { seq },
        Event::CacheWriteRefused { why: WriteRefusal::Failed, seq },
        Event::Resolved { addrs: vec!["::1".parse().unwrap()], seq },
        Event::ResolveFailed { why: Fault::Other, seq },
        Event::Connected { seq },
        Event::ConnectFailed { why: Fault::Other, seq },
    ];
    late[which % late.len()].clone()
}

proptest! {
    /// A host that does its work, in any order: all invariants hold.
    #[test]
    fn invariants_hold_with_an_honest_host(
        serve in serves(),
        single_flight: bool,
        finish_fetch: bool,
        body in proptest::collection::vec(any::<u8>(), 0..9),
        picks in proptest::collection::vec((any::<usize>(), 0usize..4), 0..60),
    ) {
        let config = Config { single_flight, finish_fetch, ..config(serve) };
        let mut life = Life::new(config.clone());
        let mut again = life.clone();
        for event in [Event::Accepted, client(HEAD)] {
            life.on(event.clone()).map_err(TestCaseError::fail)?;
            again.on(event).map_err(TestCaseError::fail)?;
        }
        for (pick, cut) in picks {
            let answers = life.host.answers(&body, cut);
            // Mostly what goes on; a failure now and then.
            let Some(event) = answers.get(pick % answers.len().max(1)) else { break };
            if matches!(event, Event::CacheHit { .. }) && body.is_empty() {
                continue; // the cache has no such object
            }
            life.on(event.clone()).map_err(TestCaseError::fail)?;
            again.on(event.clone()).map_err(TestCaseError::fail)?;
            prop_assert_eq!(&life.host, &again.host, "the same events, other actions");
        }
        life.run_out(&config).map_err(TestCaseError::fail)?;
        life.host.judge(&body).map_err(TestCaseError::fail)?;
        prop_assert_eq!(life.machine.unexpected_events(), 0);
    }

    /// Whatever comes, in whatever order: it checks out, it ends once, and what is over stays over.
    #[test]
    fn whatever_comes_it_ends_once(serve in serves(), steps in steps()) {
        let config = config(serve);
        let mut machine = Transaction::new(Arc::new(config.clone()));
        let mut now = first_instant();
        let (mut finished, mut outstanding) = (0, Host::default());
        for step in steps {
            let alphabet = Transaction::alphabet();
            match step {
                Step::Answer(which) => {
                    let answers = outstanding.answers(b"abcdef", which % 4);
                    let event = answers.get(which % answers.len().max(1)).cloned().unwrap_or(Event::Accepted);
                    outstanding.said(&event);
                    machine.handle_event(now, event);
                }
                Step::Event(which) => machine.handle_event(now, alphabet[which % alphabet.len()].clone()),
                Step::Late(which, seq) => machine.handle_event(now, noise(which, seq)),
                Step::Fire => {
                    now = machine.poll_timeout().unwrap_or(now).max(now);
                    machine.handle_timeout(now);
                }
            }
            while let Some(action) = machine.poll_action() {
                prop_assert_eq!(finished, 0, "an action after the last: {:?}", action);
                finished += u32::from(matches!(action, Action::Finished { .. }));
                // The books are only to find plausible events; with impossible ones among them they prove nothing.
                let _ = outstanding.obey(action);
            }
            prop_assert_eq!(machine.check(), Ok(()));
            prop_assert_eq!(machine.state() == "done", finished == 1);
        }
        for _ in 0..1000 {
            let Some(due) = machine.poll_timeout() else { break };
            now = now.max(due);
            machine.handle_timeout(now);
            while let Some(action) = machine.poll_action() {
                finished += u32::from(matches!(action, Action::Finished { .. }));
            }
        }
        prop_assert!(machine.state() == "start" && finished == 0 || machine.state() == "done" && finished == 1);
    }

    /// Invariant 2: however everything is cut, the same comes of it.
    #[test]
    fn pieces_do_not_matter(
        serve in serves(),
        is_hit: bool,
        body in proptest::collection::vec(any::<u8>(), 1..7),
        cuts in proptest::collection::vec(0usize..4, 1..12),
        head_cuts in proptest::collection::vec(1usize..7, 0..4),
    ) {
        let run = |cuts: &[usize], head_cuts: &[usize]| -> Result<Host, String> {
            let mut life = Life::new(config(serve));
            life.on(Event::Accepted)?;
            let mut from = 0;
            let mut ends: Vec<usize> = head_cuts.to_vec();
            ends.sort_unstable();
            ends.dedup();
            for end in ends.into_iter().chain([HEAD.len()]) {
                life.on(client(&HEAD[from..end]))?;
                from = end;
            }
            for cut in cuts.iter().cycle() {
                // The answers of a world in which all goes well.
                let is_stored = life.host.fetches > 0;
                let next = life.host.answers(&body, *cut).into_iter().find(|event| match event {
                    Event::CacheHit { .. } => is_hit || is_stored,
                    Event::CacheMiss { .. } => !(is_hit || is_stored),
                    Event::ClientSent { .. } | Event::CacheData { .. } | Event::CacheWriteReady { .. }
                    | Event::CacheStored { .. } | Event::CacheCommitted | Event::Resolved { .. }
                    | Event::Connected { .. } | Event::OriginSent { .. } | Event::OriginData { .. }
                    | Event::OriginEof => true,
                    Event::Accepted | Event::ClientData { .. } | Event::ClientEof | Event::ClientError { .. }
                    | Event::CacheReadFailed | Event::CacheWriteRefused { .. } | Event::CacheWriteFailed
                    | Event::FlightDone(_) | Event::ResolveFailed { .. } | Event::ConnectFailed { .. }
                    | Event::OriginError { .. } | Event::GiveWay | Event::Shutdown => false,
                });
                let Some(event) = next else { break };
                life.on(event)?;
            }
            life.host.judge(&body)?;
            Ok(life.host)
        };
        let whole = run(&[9], &[]).map_err(TestCaseError::fail)?;
        let pieces = run(&cuts, &head_cuts).map_err(TestCaseError::fail)?;
        prop_assert_eq!(&pieces.given, &body);
        prop_assert_eq!(pieces.outcome, whole.outcome);
        prop_assert_eq!(pieces.log, whole.log);
        prop_assert_eq!(pieces.fetches, u32::from(!is_hit));
    }
}
