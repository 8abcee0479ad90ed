//! Walks a machine through everything it can do, and draws what it found.
//!
//! From its first state on, each event of the machine's alphabet is tried twice in every situation: at once, and at the last moment
//! before the next timer. And time is let pass until the timers fire. Situations are told apart by their fingerprint and by the timer
//! that is due next; the walk ends when it finds no new one.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    fmt::Write as _,
    panic::{AssertUnwindSafe, catch_unwind},
    time::{Duration, Instant},
};

use serde::Serialize;

use crate::machine::Describe;

/// How far a walk goes.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// More situations than this mean that the fingerprint tells too much apart: an error.
    pub situations: usize,
    /// How often in a row timers fire without showing anything new, before the walk turns back.
    /// To be larger than the longest timer divided by the shortest.
    pub firings: usize,
    /// More actions than this after one event mean that there is no end of them: an error.
    pub actions: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { situations: 100_000, firings: 64, actions: 1_000 }
    }
}

/// What a walk found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exploration {
    /// The state in which the machine starts.
    pub first: &'static str,
    /// All states, in the order in which they were found.
    pub states: Vec<&'static str>,
    /// All events by name, in the order of the alphabet.
    pub events: Vec<String>,
    /// All timers that fired, as `timer:NAME`, in the order in which they first did.
    pub timers: Vec<String>,
    /// All edges, once each, in the order of their states, their events and timers, and their next states.
    pub edges: Vec<Edge>,
    /// How many situations were told apart.
    pub situations: usize,
}

/// One thing that a machine can do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Edge {
    /// In this state,
    pub from: &'static str,
    /// on this event, or on the firing of `timer:NAME`,
    pub on: String,
    /// it goes to this state,
    pub to: &'static str,
    /// and asks for these actions, by name.
    pub actions: Vec<String>,
}

impl Edge {
    /// Whether nothing happens: the state stays, and there is nothing to do.
    #[must_use]
    pub fn is_ignored(&self) -> bool {
        self.from == self.to && self.actions.is_empty()
    }
}

/// A machine did what it must not do.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{machine}: {what}\nafter:{}", .path.iter().map(|line| format!("\n{line}")).collect::<String>())]
pub struct Violation {
    /// Which machine.
    pub machine: &'static str,
    /// What it did.
    pub what: String,
    /// The way there, as lines of a script.
    pub path: Vec<String>,
}

/// Walks `M`, with its [small](Describe::small) configuration; `start` may be any instant.
///
/// # Errors
/// When an invariant of the machine or a rule of [`Machine`](crate::machine::Machine)'s contract is broken, a handler panics, or there is no end of situations.
pub fn explore<M: Describe>(start: Instant, bounds: Bounds) -> Result<Exploration, Violation> {
    explore_with::<M>(M::small(), start, bounds)
}

/// Walks `M` with another configuration, in which it is another machine; its bounds must be as small.
///
/// # Errors
/// Those of [`explore`].
pub fn explore_with<M: Describe>(config: M::Config, start: Instant, bounds: Bounds) -> Result<Exploration, Violation> {
    Walk::<M>::new(start, bounds).walk(config)
}

/// The machine in one situation.
struct Situation<M> {
    machine: M,
    now: Instant,
    /// Index into the walk's `steps`.
    step: usize,
}

/// How a situation was first reached.
#[derive(Clone, Copy)]
struct Step {
    before: Option<usize>,
    at: Instant,
    by: By,
}

#[derive(Clone, Copy)]
enum By {
    Start,
    /// Index into the alphabet.
    Event(usize),
    Timer,
}

struct Walk<M: Describe> {
    start: Instant,
    bounds: Bounds,
    alphabet: Vec<M::Event>,
    steps: Vec<Step>,
    seen: BTreeSet<(String, Option<&'static str>)>,
    queue: VecDeque<Situation<M>>,
    states: Vec<&'static str>,
    events: Vec<String>,
    timers: Vec<String>,
    edges: BTreeSet<(usize, usize, usize, Vec<String>)>,
}

/// Room for the alphabet in front of the timers, so that one number orders both.
const TIMERS_FROM: usize = 1 << 16;

impl<M: Describe> Walk<M> {
    fn new(start: Instant, bounds: Bounds) -> Self {
        Self {
            start,
            bounds,
            alphabet: M::alphabet(),
            steps: Vec::new(),
            seen: BTreeSet::new(),
            queue: VecDeque::new(),
            states: Vec::new(),
            events: Vec::new(),
            timers: Vec::new(),
            edges: BTreeSet::new(),
        }
    }

    fn walk(mut self, config: M::Config) -> Result<Exploration, Violation> {
        let step = Step { before: None, at: self.start, by: By::Start };
        let mut names = Vec::new();
        for event in &self.alphabet {
            names.push(name(event).map_err(|what| self.violation(step, what))?);
        }
        for name in &names {
            position(&mut self.events, name.clone());
        }

        let mut machine = M::start(config, 0);
        self.settle(&mut machine, step, |_| {})?;
        let first = machine.state();
        position(&mut self.states, first);
        self.meet(machine, step)?;
        while let Some(situation) = self.queue.pop_front() {
            for (index, name) in names.iter().enumerate() {
                self.try_event(&situation, index, name)?;
            }
            self.let_time_pass(situation)?;
        }

        let edges = self.edges.into_iter().filter_map(|(from, on, to, actions)| {
            let on = if on < TIMERS_FROM { self.events.get(on) } else { self.timers.get(on - TIMERS_FROM) };
            Some(Edge { from: self.states.get(from)?, on: on?.clone(), to: self.states.get(to)?, actions })
        });
        let edges = edges.collect();
        let situations = self.seen.len();
        Ok(Exploration { first, states: self.states, events: self.events, timers: self.timers, edges, situations })
    }

    /// One event, at once and at the last moment before the next timer.
    fn try_event(&mut self, situation: &Situation<M>, index: usize, name: &str) -> Result<(), Violation> {
        let last = situation.machine.poll_timeout().and_then(|due| due.checked_sub(Duration::from_millis(1)));
        let last = last.filter(|last| *last > situation.now);
        for at in [Some(situation.now), last].into_iter().flatten() {
            let Some(event) = self.alphabet.get(index).cloned() else { continue };
            let step = Step { before: Some(situation.step), at, by: By::Event(index) };
            let mut machine = situation.machine.clone();
            let actions = self.settle(&mut machine, step, |machine| machine.handle_event(at, event))?;
            let on = position(&mut self.events, name.to_owned());
            self.edge(situation.machine.state(), on, machine.state(), actions);
            self.meet(machine, step)?;
        }
        Ok(())
    }

    /// Fires timers until something new turns up, whose own turn then comes.
    fn let_time_pass(&mut self, situation: Situation<M>) -> Result<(), Violation> {
        let Situation { mut machine, mut now, step: mut before } = situation;
        for _ in 0..self.bounds.firings {
            let (Some(due), Some(timer)) = (machine.poll_timeout(), machine.due()) else { break };
            now = now.max(due);
            let step = Step { before: Some(before), at: now, by: By::Timer };
            let from = machine.state();
            let actions = self.settle(&mut machine, step, |machine| machine.handle_timeout(now))?;
            if machine.poll_timeout() == Some(due) && machine.due() == Some(timer) {
                return Err(self.violation(step, format!("the timer {timer} is still due after it fired")));
            }
            let on = TIMERS_FROM + position(&mut self.timers, format!("timer:{timer}"));
            self.edge(from, on, machine.state(), actions);
            if self.meet(machine.clone(), step)? {
                break;
            }
            before = self.steps.len();
            self.steps.push(step);
        }
        Ok(())
    }

    /// Does something to the machine, drains it, and checks what must hold then.
    fn settle(&self, machine: &mut M, step: Step, what: impl FnOnce(&mut M)) -> Result<Vec<String>, Violation> {
        // A panic is a finding like any other: its path is worth more than its backtrace.
        let settled = catch_unwind(AssertUnwindSafe(|| {
            what(machine);
            drain(machine, self.bounds.actions).and_then(|actions| checked(machine, step.at).map(|()| actions))
        }));
        settled.unwrap_or_else(|panic| Err(panic_text(&*panic))).map_err(|what| self.violation(step, what))
    }

    fn edge(&mut self, from: &'static str, on: usize, to: &'static str, actions: Vec<String>) {
        let from = position(&mut self.states, from);
        let to = position(&mut self.states, to);
        self.edges.insert((from, on, to, actions));
    }

    /// Queues the situation if it is new, and says whether it is.
    fn meet(&mut self, machine: M, step: Step) -> Result<bool, Violation> {
        if !self.seen.insert((format!("{} {}", machine.state(), machine.fingerprint()), machine.due())) {
            return Ok(false);
        }
        if self.seen.len() > self.bounds.situations {
            let what =
                format!("more than {} situations; the last is {}", self.bounds.situations, machine.fingerprint());
            return Err(self.violation(step, what));
        }
        self.queue.push_back(Situation { machine, now: step.at, step: self.steps.len() });
        self.steps.push(step);
        Ok(true)
    }

    fn violation(&self, last: Step, what: String) -> Violation {
        let mut path = Vec::new();
        let mut step = Some(last);
        while let Some(Step { before, at, by }) = step {
            let at_ms = (at - self.start).as_millis();
            let event = match by {
                By::Start => break,
                By::Event(index) => self.alphabet.get(index).and_then(|event| serde_json::to_string(event).ok()),
                By::Timer => Some("\"advance\"".to_owned()),
            };
            path.push(format!("{{\"at_ms\": {at_ms}, \"event\": {}}}", event.unwrap_or_default()));
            step = before.and_then(|index| self.steps.get(index)).copied();
        }
        path.reverse();
        Violation { machine: M::NAME, what, path }
    }
}

/// The names of all waiting actions.
fn drain<M: Describe>(machine: &mut M, bound: usize) -> Result<Vec<String>, String> {
    let due = machine.poll_timeout();
    let mut actions = Vec::new();
    while let Some(action) = machine.poll_action() {
        actions.push(name(&action)?);
        if actions.len() > bound {
            return Err(format!("more than {bound} actions at once"));
        }
    }
    if machine.poll_timeout() != due {
        return Err("poll_timeout changed while actions were polled".to_owned());
    }
    Ok(actions)
}

/// The machine's own invariants, and the contract's.
fn checked<M: Describe>(machine: &M, now: Instant) -> Result<(), String> {
    machine.check()?;
    if machine.is_overrun() {
        return Err("an event caused more actions than there is room for".to_owned());
    }
    let due = machine.poll_timeout();
    if due.is_some() != machine.due().is_some() {
        return Err(format!("poll_timeout says {due:?}, but the timer that is due is {:?}", machine.due()));
    }
    if due.is_some_and(|due| due <= now) {
        return Ok(());
    }
    let mut early = machine.clone();
    early.handle_timeout(now);
    if early.poll_action().is_some() || early.poll_timeout() != due || early.fingerprint() != machine.fingerprint() {
        return Err("an early handle_timeout did something".to_owned());
    }
    Ok(())
}

/// The external tag of an event or action.
fn name(value: &impl Serialize) -> Result<String, String> {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(name)) => Ok(name),
        Ok(serde_json::Value::Object(object)) if object.len() == 1 => {
            Ok(object.into_iter().map(|(name, _)| name).collect())
        }
        Ok(other) => Err(format!("neither a name nor an object with one key: {other}")),
        Err(error) => Err(format!("has no JSON form: {error}")),
    }
}

/// Where it is in the list, to which it is added if need be.
fn position<T: PartialEq>(list: &mut Vec<T>, item: T) -> usize {
    list.iter().position(|other| *other == item).unwrap_or_else(|| {
        list.push(item);
        list.len() - 1
    })
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    format!("panicked: {}", text.unwrap_or("without a message"))
}

/// The diagram, as Mermaid's `stateDiagram-v2`. What leaves the state as it is and does nothing is left out.
#[must_use]
pub fn graph(exploration: &Exploration) -> String {
    let order = |state| exploration.states.iter().position(|other| *other == state);
    let mut arrows = BTreeMap::<_, (&Edge, Vec<&str>)>::new();
    for edge in exploration.edges.iter().filter(|edge| !edge.is_ignored()) {
        let (_, labels) = arrows.entry((order(edge.from), order(edge.to))).or_insert_with(|| (edge, Vec::new()));
        position(labels, edge.on.as_str());
    }
    let mut text = format!("stateDiagram-v2\n    [*] --> {}\n", exploration.first);
    for (edge, labels) in arrows.values() {
        let _ = writeln!(text, "    {} --> {} : {}", edge.from, edge.to, labels.join("<br/>"));
    }
    for state in &exploration.states {
        if !arrows.values().any(|(edge, _)| edge.from == *state) {
            let _ = writeln!(text, "    {state} --> [*]");
        }
    }
    text
}

/// The transitions, as a Markdown table with a row for each state, event and next state.
#[must_use]
pub fn table(exploration: &Exploration) -> String {
    let mut rows = Vec::<(&Edge, Vec<String>)>::new();
    for edge in &exploration.edges {
        let actions = if edge.actions.is_empty() { "—".to_owned() } else { listed(&edge.actions) };
        match rows.last_mut() {
            Some((last, all)) if (last.from, &last.on, last.to) == (edge.from, &edge.on, edge.to) => {
                position(all, actions);
            }
            Some(_) | None => rows.push((edge, vec![actions])),
        }
    }
    let mut text = "| state | event | next | actions |\n|---|---|---|---|\n".to_owned();
    for state in &exploration.states {
        let mut ignored = Vec::new();
        for (edge, actions) in rows.iter().filter(|(edge, _)| edge.from == *state) {
            if edge.from == edge.to && actions.iter().all(|actions| actions == "—") {
                ignored.push(edge.on.as_str());
            } else {
                let _ = writeln!(text, "| {state} | {} | {} | {} |", edge.on, edge.to, actions.join("<br/>or "));
            }
        }
        if !ignored.is_empty() {
            let _ = writeln!(text, "| {state} | {} | — | — |", ignored.join(", "));
        }
    }
    text
}

/// `a, b ×3, c`.
fn listed(actions: &[String]) -> String {
    let groups = actions.chunk_by(|a, b| a == b).filter_map(|group| {
        let name = group.first()?;
        Some(if group.len() == 1 { name.clone() } else { format!("{name} ×{}", group.len()) })
    });
    groups.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests;
