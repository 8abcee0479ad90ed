//! Runs a machine from JSON lines, and says what it does in JSON lines.
//!
//! ```text
//! in:  {"at_ms": 0, "event": "open"}
//! out: {"at_ms":0,"action":{"dial":{"attempt":1}}}
//! in:  {"at_ms": 900, "event": {"lost": {"reason": "refused"}}}
//! in:  {"at_ms": 5000, "event": "advance"}
//! out: {"at_ms":1900,"action":{"dial":{"attempt":2}}}
//! ```
//!
//! Lines come in the order of their `at_ms`. Before a line's event, every timeout that is due by then fires, at its due time.
//! `advance` is not an event of the machine: it only moves time. After the last line nothing fires. Blank lines are skipped.

use std::{
    ops::ControlFlow,
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::machine::Describe;

/// The latest `at_ms` of a line: the largest integer that every JSON reader keeps exactly.
const LATEST_MS: u64 = (1 << 53) - 1;

/// How many timeouts may fire at one instant before the machine is taken for stuck.
const FIRINGS_AT_ONCE: u32 = 100_000;

/// What a script is run with.
#[derive(Debug, Clone, Copy)]
pub struct Settings<'a> {
    /// The instant that `at_ms` 0 means; any will do.
    pub start: Instant,
    /// The machine's configuration as JSON; without it, the defaults.
    pub config: Option<&'a str>,
    /// Feeds the machine's randomness, if it has any.
    pub seed: u64,
    /// Whether to say the state after each line, as `{"at_ms": N, "state": NAME}`.
    pub states: bool,
}

/// Why a script stopped before its end.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The configuration cannot be read.
    #[error("config: {0}")]
    Config(serde_json::Error),
    /// A line cannot be read or obeyed.
    #[error("line {line}: {why}")]
    Line {
        /// Counts from 1, blank lines included.
        line: usize,
        /// What is wrong with it.
        why: LineError,
    },
}

/// What is wrong with a line.
#[derive(Debug, thiserror::Error)]
pub enum LineError {
    /// Not of the form `{"at_ms": N, "event": …}`.
    #[error("expected {{\"at_ms\": N, \"event\": …}}: {0}")]
    Form(serde_json::Error),
    /// Not an event of this machine.
    #[error("event {tag}: {why}")]
    Event {
        /// Its name, when it has one, or all of it.
        tag: serde_json::Value,
        /// What is wrong with it.
        why: serde_json::Error,
    },
    /// Earlier than the line before.
    #[error("at_ms goes back from {before} to {at_ms}")]
    Backwards {
        /// The line before.
        before: u64,
        /// This line.
        at_ms: u64,
    },
    /// Beyond any use.
    #[error("at_ms is {0}, the latest is {LATEST_MS}")]
    TooLate(u64),
    /// The machine sets its timer to now, again and again.
    #[error("at {at_ms} ms the timer {timer} stays due, however often it fires")]
    Stuck {
        /// When.
        at_ms: u64,
        /// Which.
        timer: &'static str,
    },
    /// An action has no JSON form.
    #[error("an action cannot be written: {0}")]
    Action(serde_json::Error),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    at_ms: u64,
    event: serde_json::Value,
}

#[derive(Serialize)]
struct ActionLine<'a, A> {
    at_ms: u64,
    action: &'a A,
}

#[derive(Serialize)]
struct StateLine {
    at_ms: u64,
    state: &'static str,
}

/// Runs a new machine `M` over `lines`, and gives each line of output to `out` as soon as it is known.
///
/// `out` ends the run early, and without an error, by answering [`ControlFlow::Break`].
///
/// # Errors
/// On the first line that cannot be read; what came before it has been done.
pub fn run<M: Describe>(
    settings: Settings<'_>,
    lines: impl IntoIterator<Item = impl AsRef<[u8]>>,
    out: impl FnMut(&str) -> ControlFlow<()>,
) -> Result<(), Error> {
    let config = match settings.config {
        Some(json) => object(json).map_err(Error::Config)?,
        None => M::Config::default(),
    };
    let mut runner = Runner {
        machine: M::start(config, settings.seed),
        start: settings.start,
        at_ms: 0,
        states: settings.states,
        out,
    };
    let (mut line, mut lines) = (0, lines.into_iter());
    let mut step = runner.drain();
    // The next line is asked for only when this one is done: somebody may be typing them.
    while matches!(step, Ok(ControlFlow::Continue(())))
        && let Some(text) = lines.next()
    {
        line += 1;
        step = runner.line(text.as_ref());
    }
    step.map(|_| ()).map_err(|why| Error::Line { line, why })
}

/// A configuration: an object, for a list would name nothing.
fn object<T: DeserializeOwned>(json: &str) -> Result<T, serde_json::Error> {
    T::deserialize(serde_json::Value::Object(serde_json::from_str(json)?))
}

struct Runner<M, O> {
    machine: M,
    start: Instant,
    at_ms: u64,
    states: bool,
    out: O,
}

type Step = Result<ControlFlow<()>, LineError>;

/// Returns early when the output is closed or something is wrong.
macro_rules! go {
    ($step:expr) => {
        match $step {
            Ok(ControlFlow::Continue(())) => {}
            stop => return stop,
        }
    };
}

/// The name of an event, if it looks like one.
fn tag(event: serde_json::Value) -> serde_json::Value {
    match event.as_object().and_then(|object| object.keys().next()) {
        Some(name) => name.as_str().into(),
        None => event,
    }
}

impl<M: Describe, O: FnMut(&str) -> ControlFlow<()>> Runner<M, O> {
    fn line(&mut self, text: &[u8]) -> Step {
        if text.trim_ascii().is_empty() {
            return Ok(ControlFlow::Continue(()));
        }
        let Line { at_ms, event } = serde_json::from_slice(text).map_err(LineError::Form)?;
        if at_ms < self.at_ms {
            return Err(LineError::Backwards { before: self.at_ms, at_ms });
        }
        if at_ms > LATEST_MS {
            return Err(LineError::TooLate(at_ms));
        }
        let event = if event == "advance" {
            None
        } else {
            Some(M::Event::deserialize(&event).map_err(|why| LineError::Event { tag: tag(event), why })?)
        };
        go!(self.fire_until(at_ms));
        self.at_ms = at_ms;
        if let Some(event) = event {
            self.machine.handle_event(self.now(), event);
            go!(self.drain());
        }
        if self.states {
            let state = StateLine { at_ms, state: self.machine.state() };
            return self.say(&state);
        }
        Ok(ControlFlow::Continue(()))
    }

    fn now(&self) -> Instant {
        self.start + Duration::from_millis(self.at_ms)
    }

    /// Fires what is due until then, each at its own time.
    fn fire_until(&mut self, at_ms: u64) -> Step {
        let until = self.start + Duration::from_millis(at_ms);
        let (mut last, mut at_once) = (None, 0);
        while let Some(due) = self.machine.poll_timeout()
            && due <= until
        {
            // A deadline that a machine set into the past is due now.
            let due = due.max(self.now());
            at_once = if last == Some(due) { at_once + 1 } else { 0 };
            last = Some(due);
            // Between two milliseconds: the line carries the one that has passed.
            self.at_ms = u64::try_from((due - self.start).as_millis()).unwrap_or(LATEST_MS);
            if at_once >= FIRINGS_AT_ONCE {
                return Err(LineError::Stuck { at_ms: self.at_ms, timer: self.machine.due().unwrap_or("?") });
            }
            self.machine.handle_timeout(due);
            go!(self.drain());
        }
        Ok(ControlFlow::Continue(()))
    }

    fn drain(&mut self) -> Step {
        while let Some(action) = self.machine.poll_action() {
            go!(self.say(&ActionLine { at_ms: self.at_ms, action: &action }));
        }
        Ok(ControlFlow::Continue(()))
    }

    fn say(&mut self, line: &impl Serialize) -> Step {
        let line = serde_json::to_string(line).map_err(LineError::Action)?;
        Ok((self.out)(&line))
    }
}

#[cfg(test)]
mod tests;
