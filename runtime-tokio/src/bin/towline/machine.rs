//! `towline machine`: lists, draws and runs the state machines.

use std::{
    io::{self, BufRead, Write},
    ops::ControlFlow,
    process::ExitCode,
    time::Instant,
};

use clap::Subcommand;
use towline_core::tools::{
    catalog::{Entry, catalog},
    explore::{self, Bounds, Violation},
    script,
};

use crate::failure::{self, Failure};

#[derive(Subcommand)]
pub(crate) enum Tool {
    /// Lists all machines, one per line: its name, a tab, and a description
    List,
    /// Prints the diagram of a machine, as a Mermaid stateDiagram-v2
    Graph {
        /// Name of the machine, as in `towline machine list`
        name: String,
    },
    /// Reads events from standard input and prints actions
    #[command(after_help = RUN_HELP)]
    Run {
        /// Name of the machine, as in `towline machine list`
        name: String,
        /// Configuration of the machine, one JSON object; missing members have their defaults
        #[arg(long, value_name = "JSON")]
        config: Option<String>,
        /// Seed of the machine's random numbers, if it has any
        #[arg(long, value_name = "N", default_value_t = 0)]
        seed: u64,
        /// Also print {"at_ms", "state"} after each event
        #[arg(long)]
        states: bool,
    },
}

const RUN_HELP: &str = "\
Each line of input is {\"at_ms\": N, \"event\": E}. E is a string if the event has no payload, else an object with one key.
Each line of output is {\"at_ms\": N, \"action\": A}. Lines are in order of at_ms; between two lines, each timeout that is
due fires at its time. The event \"advance\" only moves time. At the end of input no timer fires.

Exit code: 0 success, 1 a line that cannot be read or a fault of the machine, 2 wrong usage or I/O error.";

/// Why the tool failed.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("{0}")]
    Script(script::Error),
    #[error("{0}\nThis is a fault of the machine, not of the input; please report it.")]
    Violation(Violation),
    #[error("unknown machine {0:?}; `towline machine list` lists them all")]
    Unknown(String),
    #[error("--{0}; give one JSON object, for example --config '{{}}'")]
    Config(script::Error),
    #[error("cannot read standard input: {0}")]
    Read(io::Error),
    #[error("cannot write to standard output: {0}")]
    Write(io::Error),
}

impl Failure for Error {
    fn exit_code(&self) -> u8 {
        match self {
            Self::Script(_) | Self::Violation(_) => 1,
            Self::Unknown(_) | Self::Config(_) | Self::Read(_) | Self::Write(_) => 2,
        }
    }

    fn of_output(&self) -> Option<&io::Error> {
        match self {
            Self::Write(error) => Some(error),
            Self::Script(_) | Self::Violation(_) | Self::Unknown(_) | Self::Config(_) | Self::Read(_) => None,
        }
    }
}

pub(crate) fn main(tool: Tool) -> ExitCode {
    let ran = machine(tool, &catalog(), &mut io::stdin().lock(), &mut io::stdout().lock());
    failure::exit_code(ran.map(|()| ExitCode::SUCCESS))
}

fn machine(tool: Tool, machines: &[Entry], input: &mut dyn BufRead, output: &mut dyn Write) -> Result<(), Error> {
    let find = |name: String| machines.iter().find(|entry| entry.name == name).ok_or(Error::Unknown(name));
    match tool {
        Tool::List => {
            for Entry { name, about, .. } in machines {
                writeln!(output, "{name}\t{about}").map_err(Error::Write)?;
            }
        }
        Tool::Graph { name } => {
            let found = find(name)?.explore(Instant::now(), Bounds::default()).map_err(Error::Violation)?;
            output.write_all(explore::graph(&found).as_bytes()).map_err(Error::Write)?;
        }
        Tool::Run { name, config, seed, states } => {
            let settings = script::Settings { start: Instant::now(), config: config.as_deref(), seed, states };
            run(find(name)?, settings, input, output)?;
        }
    }
    output.flush().map_err(Error::Write)
}

fn run(
    machine: &Entry,
    settings: script::Settings<'_>,
    input: &mut dyn BufRead,
    output: &mut dyn Write,
) -> Result<(), Error> {
    let (mut read, mut written) = (Ok(()), Ok(()));
    let mut lines = input.split(b'\n').map_while(|line| line.map_err(|error| read = Err(Error::Read(error))).ok());
    // Each line is flushed, so that a person or a program can respond to it.
    let mut out = |line: &str| match writeln!(output, "{line}").and_then(|()| output.flush()) {
        Ok(()) => ControlFlow::Continue(()),
        Err(error) => {
            written = Err(Error::Write(error));
            ControlFlow::Break(())
        }
    };
    let ran = machine.run(settings, &mut lines, &mut out);
    written?;
    drop(lines);
    read?;
    ran.map_err(|error| match error {
        script::Error::Config(_) => Error::Config(error),
        script::Error::Line { .. } => Error::Script(error),
    })
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;
    use towline_core::machine::example::Redial;

    use super::*;

    #[derive(clap::Parser)]
    struct Arguments {
        #[command(subcommand)]
        tool: Tool,
    }

    fn tool(arguments: &[&str], input: &str) -> (String, Result<(), Error>) {
        let arguments = ["towline machine"].iter().chain(arguments);
        let Arguments { tool } = Arguments::try_parse_from(arguments).unwrap();
        let mut output = Vec::new();
        let result = machine(tool, &[Entry::of::<Redial>()], &mut input.as_bytes(), &mut output);
        (String::from_utf8(output).unwrap(), result)
    }

    #[test]
    fn list_has_a_tab() {
        let (output, result) = tool(&["list"], "");
        assert!(result.is_ok());
        assert_eq!(output, "example.redial\tkeeps one connection up\n");
    }

    #[test]
    fn graph_is_the_diagram_and_nothing_else() {
        let (output, result) = tool(&["graph", "example.redial"], "");
        assert!(result.is_ok());
        assert!(output.starts_with("stateDiagram-v2\n    [*] --> Idle\n"), "{output}");
        assert!(output.ends_with("    Ended --> [*]\n"), "{output}");
    }

    #[test]
    fn run_takes_configuration_and_states() {
        let (output, result) = tool(
            &["run", "example.redial", "--states", "--seed", "3", "--config", r#"{"failures": 1}"#],
            "{\"at_ms\": 5, \"event\": \"open\"}\r\n{\"at_ms\": 6, \"event\": {\"lost\": {\"reason\": \"no\"}}}",
        );
        assert!(result.is_ok());
        let lines = [
            r#"{"at_ms":5,"action":{"dial":{"attempt":1}}}"#,
            r#"{"at_ms":5,"state":"Dialling"}"#,
            r#"{"at_ms":6,"action":{"gave_up":{"reason":"no"}}}"#,
            r#"{"at_ms":6,"state":"Ended"}"#,
        ];
        assert_eq!(output.lines().collect::<Vec<_>>(), lines);
    }

    #[test]
    fn errors_have_their_exit_codes() {
        for (arguments, input, code, text) in [
            (&["run", "example.redial"][..], "{}", 1, "line 1: expected {\"at_ms\": N"),
            (&["run", "example.redial", "--config", "[]]"], "", 2, "--config: "),
            (&["run", "redial"], "", 2, "unknown machine \"redial\"; `towline machine list`"),
            (&["graph", "redial"], "", 2, "unknown machine \"redial\"; `towline machine list`"),
        ] {
            let error = tool(arguments, input).1.unwrap_err();
            assert_eq!(error.exit_code(), code, "{error}");
            assert!(error.to_string().starts_with(text), "{error}");
        }
    }
}
