//! The program `towline`, as a user runs it.

use std::{
    io::{BufRead, BufReader, Write},
    process::{Child, Command, Output, Stdio},
    thread,
};

use towline_core::tools::catalog::{Entry, catalog};

fn start(arguments: &[&str]) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_towline"));
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().unwrap()
}

fn towline(arguments: &[&str], input: impl AsRef<[u8]> + Send) -> Output {
    let mut child = start(arguments);
    let mut stdin = child.stdin.take().unwrap();
    // Beside reading its output, which may be more than a pipe holds.
    thread::scope(|scope| {
        // A program that does not read its input has closed it by now, perhaps.
        scope.spawn(move || stdin.write_all(input.as_ref()).is_ok());
        child.wait_with_output().unwrap()
    })
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
        &["pipe"],
        &["pipe", "decode"],
        &["pipe", "encode", "--codec", "java"],
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

const CODECS: [&str; 2] = ["msgpack", "simple"];

#[test]
fn messages_become_bytes_and_messages_again() {
    let block = |nth: usize| {
        let payload = format!("{:02x}", nth % 256).repeat(40_000);
        format!("{{\"type\":\"block\",\"pipe_id\":{},\"eof\":false,\"loss\":0,\"payload\":\"{payload}\"}}\n", nth + 1)
    };
    // More than any buffer on the way holds.
    let messages: String = (0..50).map(block).collect();
    for codec in CODECS {
        for hex in [&["--hex"][..], &[]] {
            let encoded = towline(&[&["pipe", "encode", "--codec", codec], hex].concat(), &messages);
            assert_eq!((encoded.status.code(), text(&encoded.stderr)), (Some(0), ""));
            let decoded = towline(&[&["pipe", "decode", "--codec", codec], hex].concat(), &encoded.stdout);
            assert_eq!((decoded.status.code(), text(&decoded.stderr)), (Some(0), ""));
            assert!(text(&decoded.stdout) == messages, "{codec} {hex:?}");
        }
    }
}

#[test]
fn no_messages_are_no_bytes_and_no_bytes_no_messages() {
    for codec in CODECS {
        for tool in ["encode", "decode"] {
            for hex in [&["--hex"][..], &[]] {
                let output = towline(&[&["pipe", tool, "--codec", codec], hex].concat(), "");
                let found = (output.status.code(), text(&output.stdout), text(&output.stderr));
                assert_eq!(found, (Some(0), "", ""), "{tool} {codec}");
            }
        }
    }
}

#[test]
fn a_message_is_said_before_the_next_one_comes() {
    for (tool, line, answer) in [
        ("decode", "2a4300 00\n", "{\"type\":\"control\",\"code\":67,\"data\":\"\"}"),
        ("encode", "{\"type\":\"control\",\"code\":67,\"data\":\"\"}\n", "2a430000"),
    ] {
        let mut child = start(&["pipe", tool, "--codec", "simple", "--hex"]);
        let (mut input, output) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let mut output = BufReader::new(output).lines();
        for _ in 0..3 {
            input.write_all(line.as_bytes()).unwrap();
            assert_eq!(output.next().unwrap().unwrap(), answer);
        }
        drop(input);
        assert_eq!(child.wait().unwrap().code(), Some(0));
    }
}

#[test]
fn the_input_of_pipe_tools_has_its_exit_codes() {
    for (arguments, input, code, out, error) in [
        (&["decode", "--codec", "msgpack", "--hex"][..], "2a", 0, "{\"incomplete\":1,\"offset\":0}\n", ""),
        (&["decode", "--codec", "msgpack"], "*C\u{7f}", 1, "\"error\":\"wrong-item\",\"offset\":2", ""),
        (&["encode", "--codec", "simple"], "\n{}", 1, "", "line 2: missing field `type`"),
    ] {
        let output = towline(&[&["pipe"], arguments].concat(), input);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}");
        assert!(text(&output.stdout).contains(out) && text(&output.stderr).starts_with(error), "{output:?}");
        assert!(
            output.stdout.is_empty() == out.is_empty() && output.stderr.is_empty() == error.is_empty(),
            "{output:?}"
        );
    }
}

#[test]
fn a_reader_of_messages_that_leaves_is_no_error() {
    for (tool, input) in [
        ("decode", "2a430000\n".repeat(20_000)),
        ("encode", "{\"type\":\"control\",\"code\":67,\"data\":\"\"}\n".repeat(20_000)),
    ] {
        let mut child = start(&["pipe", tool, "--codec", "simple", "--hex"]);
        drop(child.stdout.take());
        let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
        let output = child.wait_with_output().unwrap();
        assert_eq!((output.status.code(), text(&output.stderr)), (Some(0), ""), "{tool}");
    }
}
