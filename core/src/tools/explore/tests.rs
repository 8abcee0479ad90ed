use super::*;
use crate::machine::{Actions, Inspect, Machine, example::Redial};

fn walk<M: Describe>() -> Result<Exploration, Violation> {
    explore::<M>(crate::testing::first_instant(), Bounds::default())
}

#[test]
fn the_example_is_walked_through_and_drawn() {
    let found = walk::<Redial>().unwrap();
    assert_eq!(found.states, ["Idle", "Dialling", "Ended", "Up", "Waiting"]);
    assert_eq!(found.events, ["open", "connected", "lost", "close"]);
    assert_eq!(found.timers, ["timer:attempt", "timer:pause"]);
    // Idle, Up, Ended, and an attempt and a pause for each count of failures in a row.
    assert_eq!(found.situations, 3 + 3 + 2);
    assert_eq!(
        graph(&found),
        "stateDiagram-v2
    [*] --> Idle
    Idle --> Dialling : open
    Idle --> Ended : close
    Dialling --> Ended : lost<br/>close<br/>timer:attempt
    Dialling --> Up : connected
    Dialling --> Waiting : lost<br/>timer:attempt
    Up --> Dialling : lost
    Up --> Ended : close
    Waiting --> Dialling : timer:pause
    Waiting --> Ended : close
    Ended --> [*]
"
    );
    assert_eq!(
        table(&found),
        "| state | event | next | actions |
|---|---|---|---|
| Idle | open | Dialling | dial |
| Idle | close | Ended | — |
| Idle | connected, lost | — | — |
| Dialling | connected | Up | — |
| Dialling | lost | Ended | gave_up |
| Dialling | lost | Waiting | — |
| Dialling | close | Ended | hang_up |
| Dialling | timer:attempt | Ended | hang_up, gave_up |
| Dialling | timer:attempt | Waiting | hang_up |
| Dialling | open | — | — |
| Ended | open, connected, lost, close | — | — |
| Up | lost | Dialling | dial |
| Up | close | Ended | hang_up |
| Up | open, connected | — | — |
| Waiting | close | Ended | — |
| Waiting | timer:pause | Dialling | dial |
| Waiting | open, connected, lost | — | — |
"
    );
}

#[test]
fn every_walk_is_the_same() {
    assert_eq!(walk::<Redial>().unwrap(), walk::<Redial>().unwrap());
}

/// A machine with one fault; `tick` comes each 5 s and changes nothing, `idle` ends it after 20 s without an event.
#[derive(Debug, Clone)]
struct Ticking<const FAULT: char> {
    tick: Option<Instant>,
    idle: Option<Instant>,
    events: u32,
    actions: Actions<&'static str, 4>,
}

const SOUND: char = ' ';
const ENDLESS: char = 'e';
const PANICS: char = 'p';
const BROKEN: char = 'b';
const EARLY: char = 'y';
const STUCK: char = 's';
const SILENT: char = 'u';
const MOVES: char = 'm';

impl<const FAULT: char> Machine for Ticking<FAULT> {
    type Event = String;
    type Action = &'static str;

    fn handle_event(&mut self, now: Instant, event: String) {
        if self.events > 0 && self.idle.is_none() {
            return;
        }
        if event == "word" {
            self.events += 1;
        }
        assert!(FAULT != PANICS || self.events < 2, "two words");
        self.tick = Some(now + Duration::from_secs(5));
        self.idle = Some(now + Duration::from_secs(20));
    }

    fn handle_timeout(&mut self, now: Instant) {
        if FAULT == EARLY && self.tick.is_some() {
            self.actions.push("early");
        }
        if self.tick.is_some_and(|at| at <= now) && self.tick <= self.idle {
            self.tick = Some(now + Duration::from_secs(if FAULT == STUCK { 0 } else { 5 }));
        } else if self.idle.is_some_and(|at| at <= now) {
            (self.tick, self.idle) = (None, None);
            self.actions.push("bye");
            self.actions.push("bye");
        }
    }

    fn poll_action(&mut self) -> Option<&'static str> {
        if FAULT == MOVES && self.events == 1 {
            self.idle = None;
            self.tick = None;
        }
        self.actions.pop()
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.tick.min(self.idle)
    }
}

impl<const FAULT: char> Inspect for Ticking<FAULT> {
    const NAME: &'static str = "ticking";

    fn state(&self) -> &'static str {
        match (self.idle, self.events) {
            (None, 0) => "New",
            (Some(_), _) => "Live",
            (None, _) => "Ended",
        }
    }

    fn due(&self) -> Option<&'static str> {
        let due = self.poll_timeout().filter(|_| FAULT != SILENT);
        due.map(|at| if Some(at) == self.tick { "tick" } else { "idle" })
    }

    fn is_overrun(&self) -> bool {
        self.actions.is_overrun()
    }
}

impl<const FAULT: char> Describe for Ticking<FAULT> {
    const ABOUT: &'static str = "has two timers";
    type Config = ();

    fn start((): (), _: u64) -> Self {
        Self { tick: None, idle: None, events: 0, actions: Actions::default() }
    }

    fn fingerprint(&self) -> String {
        let events = if FAULT == ENDLESS { self.events } else { self.events.min(2) };
        format!("{:?} {events}", self.tick.is_some())
    }

    fn alphabet() -> Vec<String> {
        vec!["word".to_owned()]
    }

    fn check(&self) -> Result<(), String> {
        if FAULT == BROKEN && self.state() == "Ended" { Err("it ended".to_owned()) } else { Ok(()) }
    }
}

#[test]
fn a_short_timer_does_not_hide_a_long_one() {
    let found = walk::<Ticking<SOUND>>().unwrap();
    let idle = Edge {
        from: "Live",
        on: "timer:idle".to_owned(),
        to: "Ended",
        actions: vec!["bye".to_owned(), "bye".to_owned()],
    };
    assert!(found.edges.contains(&idle), "{:#?}", found.edges);
    assert!(table(&found).contains("| Live | timer:idle | Ended | bye ×2 |\n"), "{}", table(&found));
}

#[test]
fn a_broken_invariant_comes_with_the_script_that_leads_to_it() {
    let violation = walk::<Ticking<BROKEN>>().unwrap_err();
    assert_eq!(
        violation.to_string(),
        r#"ticking: it ended
after:
{"at_ms": 0, "event": "word"}
{"at_ms": 5000, "event": "advance"}
{"at_ms": 10000, "event": "advance"}
{"at_ms": 15000, "event": "advance"}
{"at_ms": 20000, "event": "advance"}
{"at_ms": 20000, "event": "advance"}"#
    );
}

#[test]
fn a_panic_is_a_finding() {
    let violation = walk::<Ticking<PANICS>>().unwrap_err();
    assert_eq!(violation.what, "panicked: two words");
    assert_eq!(violation.path.len(), 2);
}

#[test]
fn a_fingerprint_that_never_repeats_is_found() {
    let bounds = Bounds { situations: 50, ..Bounds::default() };
    let violation = explore::<Ticking<ENDLESS>>(crate::testing::first_instant(), bounds).unwrap_err();
    assert!(violation.what.starts_with("more than 50 situations; the last is true "), "{violation}");
}

#[test]
fn the_contract_of_machines_is_checked() {
    assert_eq!(walk::<Ticking<EARLY>>().unwrap_err().what, "an early handle_timeout did something");
    assert_eq!(walk::<Ticking<STUCK>>().unwrap_err().what, "the timer tick is still due after it fired");
    assert_eq!(walk::<Ticking<MOVES>>().unwrap_err().what, "poll_timeout changed while actions were polled");
    let violation = walk::<Ticking<SILENT>>().unwrap_err();
    assert!(violation.what.ends_with("but the timer that is due is None"), "{violation}");
}

#[test]
fn names_are_external_tags() {
    let named = |json: &str| name(&serde_json::from_str::<serde_json::Value>(json).unwrap());
    assert_eq!(named(r#""open""#), Ok("open".to_owned()));
    assert_eq!(named(r#"{"lost": {"reason": ""}}"#), Ok("lost".to_owned()));
    assert_eq!(
        named(r#"{"a": 1, "b": 2}"#),
        Err(r#"neither a name nor an object with one key: {"a":1,"b":2}"#.to_owned())
    );
    assert!(named("7").is_err());
}
