//! State diagrams that cannot lie: every machine is walked through all it can do, and what is found is compared with
//! `docs/states/NAME.md` and with the tables in `docs/protocols/NAME-states.md`.
//!
//! `TOWLINE_BLESS=1 cargo test -p towline-tests --test states` writes `docs/states/`.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    time::Instant,
};

use towline_core::{
    tools::{
        catalog::{Entry, catalog},
        explore::{Bounds, Exploration, explore_with, graph, table},
    },
    txn::transaction::Transaction,
};
use towline_tests::tables::Table;

/// All of them: a machine that nobody registered must be missed.
const MACHINES: [&str; 14] = [
    "spn.hub",
    "spn.hub_session",
    "spn.hub_connection",
    "spn.hub_pairing",
    "spn.managed_provider",
    "spn.endpoint_session",
    "spn.endpoint_connection",
    "tls.connection",
    "txn.accept",
    "txn.transaction",
    "pipe.session",
    "pipe.caller",
    "pipe.callee",
    "pipe.receiver",
];

/// A machine, or a machine whose configuration makes it another one.
struct Subject {
    /// Its section of the reference, and its page.
    name: String,
    about: &'static str,
    found: Exploration,
}

fn subjects() -> Vec<Subject> {
    let of = |machine: Entry| Subject { name: machine.name.to_owned(), about: machine.about, found: walk(&machine) };
    let mut subjects: Vec<_> = catalog().into_iter().map(of).collect();
    let stored = explore_with::<Transaction>(Transaction::small_stored(), Instant::now(), Bounds::default());
    subjects.push(Subject {
        name: "txn.transaction-stored".to_owned(),
        about: "the same, when objects are stored before they are served",
        found: stored.unwrap_or_else(|violation| panic!("{violation}")),
    });
    subjects
}

const BLESS: &str = "TOWLINE_BLESS=1 cargo test -p towline-tests --test states";

fn docs() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("docs")
}

fn walk(machine: &Entry) -> Exploration {
    machine.explore(Instant::now(), Bounds::default()).unwrap_or_else(|violation| panic!("{violation}"))
}

fn page(Subject { name, about, found }: &Subject) -> String {
    let (graph, table) = (graph(found), table(found));
    format!(
        "# {name}: {about}\n\n<!-- Generated; do not edit. To write it again: {BLESS} -->\n\n```mermaid\n{graph}```\n\n{table}"
    )
}

#[test]
fn every_machine_is_known() {
    assert_eq!(catalog().iter().map(|machine| machine.name).collect::<Vec<_>>(), MACHINES);
}

#[test]
fn diagrams_show_what_the_code_does() {
    let states = docs().join("states");
    let bless = std::env::var_os("TOWLINE_BLESS").is_some();
    let mut faults = Vec::new();
    let subjects = subjects();
    for machine in &subjects {
        let path = states.join(&machine.name).with_added_extension("md");
        let page = page(machine);
        if bless {
            fs::create_dir_all(&states).unwrap();
            fs::write(&path, page).unwrap();
        } else if fs::read_to_string(&path).ok() != Some(page) {
            faults.push(format!("{} is stale", path.display()));
        }
    }
    let known = subjects.iter().map(|machine| format!("{}.md", machine.name)).collect::<BTreeSet<_>>();
    for file in fs::read_dir(&states).into_iter().flatten() {
        let file = file.unwrap();
        if !known.contains(&*file.file_name().to_string_lossy()) {
            faults.push(format!("{} is of no machine; remove it", file.path().display()));
        }
    }
    assert!(faults.is_empty(), "{}\nIf the change is meant: {BLESS}", faults.join("\n"));
}

#[test]
fn machines_do_what_the_reference_says() {
    let mut faults = Vec::new();
    for machine in subjects() {
        let family = machine.name.split('.').next().unwrap_or_default();
        let path = docs().join("protocols").join(format!("{family}-states.md"));
        let reference = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        match Table::of(&machine.name, &reference) {
            Ok(table) => {
                let differences = table.differences(&machine.found);
                faults.extend(differences.into_iter().map(|fault| format!("{}: {fault}", machine.name)));
            }
            Err(error) => faults.push(format!("{}: {error}", path.display())),
        }
    }
    assert!(faults.is_empty(), "the code and the reference differ:\n{}", faults.join("\n"));
}

#[test]
fn states_are_words_that_mermaid_takes() {
    for machine in subjects() {
        for state in machine.found.states {
            assert!(state.chars().all(|c| c.is_ascii_alphanumeric() || c == '_'), "{}: {state:?}", machine.name);
            let keywords =
                ["end", "state", "note", "class", "classdef", "default", "direction", "scale", "style", "click"];
            assert!(!keywords.contains(&&*state.to_ascii_lowercase()), "{}: {state:?}", machine.name);
        }
    }
}
