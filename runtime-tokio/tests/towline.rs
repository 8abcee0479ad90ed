//! The program `towline`, as a user runs it.

use std::{
    io::{BufRead, BufReader, Write},
    process::{Child, Command, Output, Stdio},
};

use towline_core::tools::catalog::{Entry, catalog};

fn start(arguments: &[&str]) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_towline"));
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().unwrap()
}

fn towline(arguments: &[&str], input: &str) -> Output {
    let mut child = start(arguments);
    // A program that does not read its input has closed it by now, perhaps.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    child.wait_with_output().unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

#[test]
fn list_names_every_machine() {
    let output = towline(&["machine", "list"], "");
    assert_eq!(output.status.code(), Some(0));
    let expected = catalog().iter().map(|Entry { name, about, .. }| format!("{name}\t{about}\n")).collect::<String>();
    assert_eq!((text(&output.stdout), text(&output.stderr)), (&*expected, ""));
}

#[test]
fn wrong_usage_is_2_and_says_what_to_do() {
    for arguments in [
        &[][..],
        &["machine"],
        &["machine", "graph"],
        &["machine", "graph", "nobody"],
        &["machine", "run", "nobody"],
        &["machine", "run", "nobody", "--seed", "x"],
    ] {
        let output = towline(arguments, "");
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert_eq!(text(&output.stdout), "", "{arguments:?}");
        let help = ["Usage: towline", "try '--help'", "`towline machine list`"];
        assert!(help.iter().any(|help| text(&output.stderr).contains(help)), "{arguments:?}: {}", text(&output.stderr));
    }
}

#[test]
fn every_machine_has_a_diagram() {
    for Entry { name, .. } in catalog() {
        let output = towline(&["machine", "graph", name], "");
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        assert!(text(&output.stdout).starts_with("stateDiagram-v2\n    [*] --> "), "{}", text(&output.stdout));
    }
}

#[test]
fn every_machine_answers_a_line_before_it_gets_the_next() {
    for Entry { name, .. } in catalog() {
        let mut child = start(&["machine", "run", name, "--states"]);
        let (mut input, output) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let mut output = BufReader::new(output).lines();
        for at_ms in [0, 1, 7] {
            writeln!(input, "{{\"at_ms\": {at_ms}, \"event\": \"advance\"}}").unwrap();
            let state = output.by_ref().map(Result::unwrap).find(|line| line.contains("\"state\"")).unwrap();
            assert!(state.starts_with(&format!("{{\"at_ms\":{at_ms},\"state\":\"")), "{name}: {state}");
        }
        drop(input);
        assert_eq!(child.wait().unwrap().code(), Some(0));
    }
}

#[test]
fn a_line_that_cannot_be_read_is_1_and_named() {
    for Entry { name, .. } in catalog() {
        let input = "{\"at_ms\": 0, \"event\": \"advance\"}\n{\"at_ms\": 0, \"event\": \"no such thing\"}\n";
        let output = towline(&["machine", "run", name], input);
        assert_eq!(output.status.code(), Some(1), "{name}");
        assert!(text(&output.stderr).starts_with("line 2: event \"no such thing\": "), "{}", text(&output.stderr));
    }
}

#[test]
fn a_configuration_that_cannot_be_read_is_2() {
    for Entry { name, .. } in catalog() {
        let output = towline(&["machine", "run", name, "--config", "{\"no such thing\": 1}"], "");
        assert_eq!(output.status.code(), Some(2), "{name}");
        assert!(
            text(&output.stderr).starts_with("--config: unknown field `no such thing`"),
            "{}",
            text(&output.stderr)
        );
    }
}

#[test]
fn a_reader_that_leaves_is_no_error() {
    for Entry { name, .. } in catalog() {
        let mut child = start(&["machine", "run", name, "--states"]);
        drop(child.stdout.take());
        let _ = child.stdin.take().unwrap().write_all(b"{\"at_ms\": 0, \"event\": \"advance\"}\n".repeat(9).as_slice());
        let output = child.wait_with_output().unwrap();
        assert_eq!((output.status.code(), text(&output.stderr)), (Some(0), ""), "{name}");
    }
}
