//! The state tables of the documents, and their comparison with machines.
//!
//! A section `## NAME` holds one or more Markdown tables whose first head is `state \ event`, whose other heads are events and `timer:NAME`s,
//! and whose cells are `—` (stays, and does nothing) or `Next or Other / what it does`; among the next states, `—` means "or nothing".

use std::collections::{BTreeMap, BTreeSet};

use towline_core::tools::explore::{Edge, Exploration};

/// What a machine may do, by state and event.
#[derive(Debug, Default)]
pub struct Table {
    states: Vec<String>,
    events: Vec<String>,
    /// Next states; `None` stands for `—`.
    cells: BTreeMap<(String, String), Vec<Option<String>>>,
}

impl Table {
    /// The tables of a machine's section.
    ///
    /// # Errors
    /// When there are none, or one is malformed.
    pub fn of(machine: &str, reference: &str) -> Result<Self, String> {
        let mut table = Self::default();
        let mut heads: Option<Vec<String>> = None;
        let mut lines = reference.lines().skip_while(|line| heading(line) != Some(machine)).peekable();
        if lines.next().is_none() {
            return Err(format!("there is no section `## {machine}`"));
        }
        for line in lines.take_while(|line| heading(line).is_none()) {
            let cells = line.trim().strip_prefix('|').map(row).unwrap_or_default();
            let Some((first, cells)) = cells.split_first() else {
                heads = None;
                continue;
            };
            match &heads {
                None if first.replace(' ', "") == r"state\event" => {
                    for event in cells {
                        if table.events.contains(event) {
                            return Err(format!("{machine}: two columns `{event}`"));
                        }
                        table.events.push(event.clone());
                    }
                    heads = Some(cells.to_vec());
                }
                // Some other table.
                None => heads = Some(Vec::new()),
                Some(heads) if heads.is_empty() || first.trim_matches([':', '-']).is_empty() => {}
                Some(heads) => table.add(first, heads, cells).map_err(|error| format!("{machine}: {error}"))?,
            }
        }
        table.check_names().map_err(|error| format!("{machine}: {error}"))?;
        if table.cells.is_empty() {
            return Err(format!(r"section `## {machine}` has no table `state \ event`"));
        }
        Ok(table)
    }

    fn add(&mut self, state: &str, heads: &[String], cells: &[String]) -> Result<(), String> {
        if heads.len() != cells.len() {
            return Err(format!("row `{state}` has {} cells, its table has {} columns", cells.len(), heads.len()));
        }
        if !self.states.iter().any(|other| other == state) {
            self.states.push(state.to_owned());
        }
        for (event, cell) in heads.iter().zip(cells) {
            let (next, _) = cell.split_once(" / ").unwrap_or((cell, ""));
            let next = next.split(" or ").map(str::trim).map(|state| (state != "—").then(|| state.to_owned()));
            let next = next.collect::<Vec<_>>();
            if self.cells.insert((state.to_owned(), event.clone()), next).is_some() {
                return Err(format!("two rows `{state}` for `{event}`"));
            }
        }
        Ok(())
    }

    /// A state is what has a row.
    fn check_names(&self) -> Result<(), String> {
        for ((state, event), cell) in &self.cells {
            if let Some(word) = cell.iter().flatten().find(|word| !self.states.contains(word) && !is_name(word)) {
                return Err(format!("`{state}`, `{event}`: {word:?} is not a state; write `—` or `Next or Other / …`"));
            }
        }
        Ok(())
    }

    /// Everything in which the table and the machine differ; nothing when they agree.
    #[must_use]
    pub fn differences(&self, found: &Exploration) -> Vec<String> {
        let mut faults = Vec::new();
        let on = found.events.iter().chain(&found.timers).map(String::as_str);
        list(&mut faults, on, &self.events, "column", "an event of the machine");
        list(&mut faults, found.states.iter().copied(), &self.states, "row", "a state that is reached");

        let mut reached = BTreeSet::new();
        for edge in &found.edges {
            let Some((key, cell)) = self.cells.get_key_value(&(edge.from.to_owned(), edge.on.clone())) else {
                continue; // its row or column is missing, as said above
            };
            let nothing = edge.is_ignored() && cell.contains(&None);
            let next = if nothing { None } else { Some(edge.to.to_owned()) };
            if cell.contains(&next) {
                reached.insert((key, next));
            } else {
                faults.push(format!(
                    "in `{}` on `{}`: {}, but the table says {}",
                    edge.from,
                    edge.on,
                    did(edge),
                    say(cell)
                ));
            }
        }
        for (key @ (state, event), cell) in &self.cells {
            // What never happens is ignored too: a timer that is not set, a row that was named above.
            let named = cell.iter().filter(|next| cell.len() > 1 || next.is_some());
            for next in named.filter(|next| !reached.contains(&(key, (*next).clone()))) {
                let cell = std::slice::from_ref(next);
                faults.push(format!("in `{state}` on `{event}`: the table says {}, but that never happens", say(cell)));
            }
        }
        faults
    }
}

fn heading(line: &str) -> Option<&str> {
    line.strip_prefix("## ").map(|name| name.trim().trim_matches('`'))
}

/// The cells of a row, without its first bar.
fn row(line: &str) -> Vec<String> {
    let mut cells = vec![String::new()];
    let mut escaped = false;
    for c in line.trim_end().chars() {
        match cells.last_mut() {
            Some(cell) if c != '|' || escaped => cell.push(c),
            _ => cells.push(String::new()),
        }
        escaped = c == '\\' && !escaped;
    }
    // What follows the last bar is no cell.
    if cells.last().is_some_and(|cell| cell.trim().is_empty()) {
        cells.pop();
    }
    cells.iter().map(|cell| cell.replace(['`', '*'], "").trim().to_owned()).collect()
}

/// What looks like a state, although it has no row.
fn is_name(word: &str) -> bool {
    word.starts_with(|c: char| c.is_ascii_uppercase()) && word.chars().all(|c| c.is_ascii_alphanumeric())
}

fn list<'a>(faults: &mut Vec<String>, found: impl Iterator<Item = &'a str>, named: &[String], what: &str, is: &str) {
    let found = found.collect::<Vec<_>>();
    for name in found.iter().filter(|name| !named.iter().any(|other| other == *name)) {
        faults.push(format!("`{name}` is {is}, but has no {what}"));
    }
    for name in named.iter().filter(|name| !found.contains(&name.as_str())) {
        faults.push(format!("{what} `{name}` is not {is}"));
    }
}

fn say(cell: &[Option<String>]) -> String {
    let cell = cell.iter().map(|next| format!("`{}`", next.as_deref().unwrap_or("—")));
    cell.collect::<Vec<_>>().join(" or ")
}

fn did(edge: &Edge) -> String {
    let next = if edge.from == edge.to { "stays".to_owned() } else { format!("goes to `{}`", edge.to) };
    match &*edge.actions {
        [] => next,
        actions => format!("{next} and does {}", actions.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use towline_core::{
        machine::example::Redial,
        testing::first_instant,
        tools::explore::{Bounds, explore},
    };

    use super::*;

    const REFERENCE: &str = r"
# States

| not | ours |
|---|---|
| a | b |

## `example.redial`

Keeps one connection up.

| what | else |
|---|---|
| x | y |

| state \ event | open | connected | lost | close |
|---|---|:-:|---|---|
| `Idle` | Dialling / begins an attempt | — | — | Ended / and that was it |
| `Dialling` | — | Up / good | Waiting or Ended / pauses, or gives up: `a \| b` | Ended / hangs up |
| `Up` | — | — | Dialling / at once | Ended / hangs up |
| `Waiting` | — | — | — | Ended |
| `Ended` | — | — | — | — |

Timers:

| state \ event | timer:attempt | timer:pause |
|---|---|---|
| Idle | — | — |
| Dialling | Waiting or Ended / hangs up | — |
| Up | — | — |
| Waiting | — | Dialling |
| Ended | — | — |

## example.other

| state \ event | open |
|---|---|
| Idle | — |
";

    fn differences(reference: &str) -> Vec<String> {
        let found = explore::<Redial>(first_instant(), Bounds::default()).unwrap();
        Table::of("example.redial", reference).unwrap().differences(&found)
    }

    #[test]
    fn a_table_that_tells_the_truth_passes() {
        assert_eq!(differences(REFERENCE), Vec::<String>::new());
    }

    #[test]
    fn every_lie_is_found() {
        for (truth, lie, fault) in [
            (
                "Dialling / at once",
                "Waiting / at once",
                "in `Up` on `lost`: goes to `Dialling` and does dial, but the table says `Waiting`",
            ),
            ("Dialling / at once", "—", "in `Up` on `lost`: goes to `Dialling` and does dial, but the table says `—`"),
            (
                "Waiting or Ended / hangs up",
                "Waiting / hangs up",
                "in `Dialling` on `timer:attempt`: goes to `Ended` and does hang_up, gave_up, but the table says `Waiting`",
            ),
            (
                "Dialling / at once",
                "Dialling or Up / at once",
                "in `Up` on `lost`: the table says `Up`, but that never happens",
            ),
            (
                "Dialling / at once",
                "Dialling or — / at once",
                "in `Up` on `lost`: the table says `—`, but that never happens",
            ),
            (
                "| Idle | — | — |",
                "| Idle | — | Idle / x |",
                "in `Idle` on `timer:pause`: the table says `Idle`, but that never happens",
            ),
            ("| connected | lost", "| connect | lost", "`connected` is an event of the machine, but has no column"),
            ("| connected | lost", "| connect | lost", "column `connect` is not an event of the machine"),
            ("| timer:pause |", "| timer:paws |", "`timer:pause` is an event of the machine, but has no column"),
            ("| `Ended` | — | — | — | — |", "| `Over` | — | — | — | — |", "row `Over` is not a state that is reached"),
        ] {
            let reference = REFERENCE.replacen(truth, lie, 1);
            assert_ne!(reference, REFERENCE, "{truth}");
            let faults = differences(&reference);
            assert!(faults.iter().any(|found| found == fault), "{fault}\n{faults:#?}");
        }
    }

    #[test]
    fn a_missing_row_is_found() {
        let reference = REFERENCE.replace("| `Up` | — | — | Dialling / at once | Ended / hangs up |\n", "");
        let reference = reference.replace("| Up | — | — |\n", "");
        assert_eq!(differences(&reference), ["`Up` is a state that is reached, but has no row"]);
    }

    #[test]
    fn staying_and_doing_something_is_not_nothing() {
        let mut found = explore::<Redial>(first_instant(), Bounds::default()).unwrap();
        for edge in &mut found.edges {
            if edge.from == "Up" && edge.on == "open" {
                edge.actions.push("dial".to_owned());
            }
        }
        let table = Table::of("example.redial", REFERENCE).unwrap();
        assert_eq!(table.differences(&found), ["in `Up` on `open`: stays and does dial, but the table says `—`"]);
        let reference = REFERENCE.replace("| `Up` | — |", "| `Up` | Up / dials |");
        let table = Table::of("example.redial", &reference).unwrap();
        assert_eq!(table.differences(&found), Vec::<String>::new());
    }

    #[test]
    fn a_table_that_is_not_there_or_malformed_is_an_error() {
        let error = |machine, reference: &str| Table::of(machine, reference).unwrap_err();
        assert_eq!(error("example.red", REFERENCE), "there is no section `## example.red`");
        assert_eq!(error("a", "## a\n\ntext\n## b"), r"section `## a` has no table `state \ event`");
        let head = "## a\n| state \\ event | x | y |\n|---|---|---|\n";
        assert_eq!(error("a", head), r"section `## a` has no table `state \ event`");
        let row = |row: &str| error("a", &format!("{head}| A | — | — |\n{row}\n"));
        assert_eq!(row("| B | — |"), "a: row `B` has 1 cells, its table has 2 columns");
        assert_eq!(row("| B | stays | — |"), "a: `B`, `x`: \"stays\" is not a state; write `—` or `Next or Other / …`");
        assert_eq!(row("| B |  | — |"), "a: `B`, `x`: \"\" is not a state; write `—` or `Next or Other / …`");
        assert_eq!(row("| A | — | — |"), "a: two rows `A` for `x`");
        assert_eq!(error("a", "## a\n| state \\ event | x | x |\n|---|---|---|\n"), "a: two columns `x`");
    }
}
