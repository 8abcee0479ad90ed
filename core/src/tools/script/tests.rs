use super::*;
use crate::machine::{Actions, Inspect, Machine, example::Redial};

fn run_with<M: Describe>(config: Option<&str>, states: bool, input: &str) -> (Vec<String>, Result<(), String>) {
    let mut output = Vec::new();
    let settings = Settings { start: crate::testing::first_instant(), config, seed: 0, states };
    let result = run::<M>(settings, input.lines(), |line| {
        output.push(line.to_owned());
        ControlFlow::Continue(())
    });
    (output, result.map_err(|error| error.to_string()))
}

fn redial(input: &str) -> (Vec<String>, Result<(), String>) {
    run_with::<Redial>(None, false, input)
}

#[test]
fn timeouts_between_two_lines_fire_at_their_own_times() {
    let (output, result) = redial(
        r#"{"at_ms": 0, "event": "open"}

           {"at_ms": 900, "event": {"lost": {"reason": "refused"}}}
           {"at_ms": 9000, "event": "advance"}"#,
    );
    assert_eq!(result, Ok(()));
    assert_eq!(
        output,
        [
            r#"{"at_ms":0,"action":{"dial":{"attempt":1}}}"#,
            r#"{"at_ms":1900,"action":{"dial":{"attempt":2}}}"#,
            r#"{"at_ms":6900,"action":"hang_up"}"#,
            r#"{"at_ms":8900,"action":{"dial":{"attempt":3}}}"#,
        ]
    );
}

#[test]
fn a_timeout_fires_before_the_event_of_the_same_time_and_not_after_the_last_line() {
    let (output, result) = redial(
        r#"{"at_ms": 0, "event": "open"}
           {"at_ms": 5000, "event": "connected"}"#,
    );
    assert_eq!(result, Ok(()));
    assert_eq!(output, [r#"{"at_ms":0,"action":{"dial":{"attempt":1}}}"#, r#"{"at_ms":5000,"action":"hang_up"}"#]);
}

#[test]
fn states_are_said_after_each_line() {
    let (output, result) = run_with::<Redial>(
        Some(r#"{"attempt_ms": 10, "failures": 1}"#),
        true,
        r#"{"at_ms": 3, "event": "open"}
           {"at_ms": 20, "event": "advance"}"#,
    );
    assert_eq!(result, Ok(()));
    assert_eq!(
        output,
        [
            r#"{"at_ms":3,"action":{"dial":{"attempt":1}}}"#,
            r#"{"at_ms":3,"state":"Dialling"}"#,
            r#"{"at_ms":13,"action":"hang_up"}"#,
            r#"{"at_ms":13,"action":{"gave_up":{"reason":"no answer"}}}"#,
            r#"{"at_ms":20,"state":"Ended"}"#,
        ]
    );
}

#[test]
fn a_line_that_cannot_be_read_is_named_and_ends_the_run() {
    for (line, why) in [
        (r#"{"at_ms": 1"#, "line 3: expected {\"at_ms\": N, \"event\": …}: EOF while parsing"),
        (r#"{"at_ms": 1}"#, "missing field `event`"),
        (r#"{"at_ms": 1, "action": "hang_up"}"#, "unknown field `action`, expected `at_ms` or `event`"),
        (r#"{"at_ms": 1.5, "event": "close"}"#, "invalid type: floating point `1.5`, expected u64"),
        (r#"{"at_ms": -1, "event": "close"}"#, "invalid value: integer `-1`, expected u64"),
        (r#"{"at_ms": 1, "event": "shut"}"#, "line 3: event \"shut\": unknown variant `shut`, expected one of"),
        (r#"{"at_ms": 1, "event": 7}"#, "line 3: event 7: invalid type: "),
        (r#"{"at_ms": 1, "event": {"lost": {}}}"#, "line 3: event \"lost\": missing field `reason`"),
        (r#"{"at_ms": 1, "event": {"lost": {"reason": "", "x": 1}}}"#, "unknown field `x`"),
        (r#"{"at_ms": 0, "event": "close"}"#, "line 3: at_ms goes back from 1 to 0"),
        (r#"{"at_ms": 9007199254740992, "event": "close"}"#, "line 3: at_ms is 9007199254740992, the latest is"),
    ] {
        let input = format!("{{\"at_ms\": 1, \"event\": \"open\"}}\n\n{line}\n{{\"at_ms\": 1, \"event\": \"close\"}}");
        let (output, result) = redial(&input);
        let error = result.expect_err(line);
        assert!(error.starts_with("line 3: ") && error.contains(why), "{line}: {error}");
        assert_eq!(output, [r#"{"at_ms":1,"action":{"dial":{"attempt":1}}}"#], "{line}");
    }
}

#[test]
fn bytes_that_are_no_text_are_named_too() {
    let settings = Settings { start: crate::testing::first_instant(), config: None, seed: 0, states: false };
    let error = run::<Redial>(settings, [b"\xff\xfe"], |_| ControlFlow::Continue(())).unwrap_err();
    assert!(error.to_string().starts_with("line 1: expected {"), "{error}");
}

#[test]
fn a_configuration_that_cannot_be_read_is_an_error() {
    for (config, why) in [
        ("{", "config: EOF"),
        ("[]", "config: invalid type: sequence"),
        (r#"{"attempt": 1}"#, "config: unknown field `attempt`, expected one of `attempt_ms`"),
    ] {
        let (_, result) = run_with::<Redial>(Some(config), false, "");
        let error = result.expect_err(config);
        assert!(error.starts_with(why), "{error}");
    }
}

#[test]
fn no_line_is_asked_for_once_the_output_is_closed() {
    let lines = [r#"{"at_ms": 0, "event": "open"}"#].into_iter().chain(std::iter::from_fn(|| panic!("asked for more")));
    let settings = Settings { start: crate::testing::first_instant(), config: None, seed: 0, states: false };
    assert!(run::<Redial>(settings, lines, |_| ControlFlow::Break(())).is_ok());
}

#[test]
fn the_latest_time_can_be_reached() {
    let (output, result) = redial(
        r#"{"at_ms": 9007199254740991, "event": "open"}
           {"at_ms": 9007199254740991, "event": "close"}"#,
    );
    assert_eq!(result, Ok(()));
    assert_eq!(output.len(), 2);
}

/// Sets its only timer to the time at which it fires.
#[derive(Debug, Clone)]
struct Stuck(Actions<(), 1>, Option<Instant>);

impl Machine for Stuck {
    type Event = ();
    type Action = ();

    fn handle_event(&mut self, now: Instant, (): ()) {
        self.1 = Some(now);
    }

    fn handle_timeout(&mut self, _: Instant) {}

    fn poll_action(&mut self) -> Option<()> {
        self.0.pop()
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.1
    }
}

impl Inspect for Stuck {
    const NAME: &'static str = "stuck";

    fn state(&self) -> &'static str {
        "Stuck"
    }

    fn due(&self) -> Option<&'static str> {
        self.1.map(|_| "again")
    }

    fn is_overrun(&self) -> bool {
        self.0.is_overrun()
    }
}

impl Describe for Stuck {
    const ABOUT: &'static str = "never comes to an end";
    type Config = ();

    fn start((): (), _: u64) -> Self {
        Self(Actions::default(), None)
    }

    fn fingerprint(&self) -> String {
        format!("{:?}", self.1.is_some())
    }

    fn alphabet() -> Vec<()> {
        vec![()]
    }

    fn check(&self) -> Result<(), String> {
        Ok(())
    }
}

#[test]
fn a_timer_that_stays_due_does_not_hang_the_run() {
    let (_, result) =
        run_with::<Stuck>(None, false, "{\"at_ms\": 7, \"event\": null}\n{\"at_ms\": 8, \"event\": \"advance\"}");
    assert_eq!(result, Err("line 2: at 7 ms the timer again stays due, however often it fires".to_owned()));
}
