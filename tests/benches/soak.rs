//! The soak of docs/reliability.md: `cargo bench -p towline-tests --bench soak -- --minutes 60 --connections 2000 --seed 1`.
//!
//! Wants the programs: `cargo build --release --workspace --bins` first; `--examples`, too, for `--smol`.
//! The table is written to stdout, what happens to stderr. Exit code 1: a connection ended as no limit explains, or a program failed;
//! 2: it could not be started.

use std::{process::ExitCode, str::FromStr, time::Duration};

use towline_tests::soak::{Options, plan::Trouble, run};

const USAGE: &str = "options, each with its default:
  --minutes 2          how long there is trouble; it ends some minutes later
  --connections 200    connections at once
  --seed 1             load and troubles follow from it
  --rate 8000000       bytes a second of all bulk connections together
  --without A,B        leave these troubles out
  --only A,B           leave all others out
  --smol               the second provider and the second consumer are those of towline-smol
  --directory DIR      keep logs and records there
troubles:";

fn main() -> ExitCode {
    let options = match options(std::env::args().skip(1)) {
        Ok(options) => options,
        Err(error) => {
            eprintln!("soak: {error}\n{USAGE}");
            for (name, what) in Trouble::NAMES {
                eprintln!("  {name:<20} {what}");
            }
            return ExitCode::from(2);
        }
    };
    match run(&options) {
        Ok(report) => {
            println!("{}", report.text);
            for fault in report.tally.faults.iter().take(50) {
                // The whole of it is in the file.
                eprintln!("{}", fault.chars().take(400).collect::<String>());
            }
            if report.is_good() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(error) => {
            eprintln!("soak: {error}");
            ExitCode::from(2)
        }
    }
}

fn options(mut words: impl Iterator<Item = String>) -> Result<Options, String> {
    let mut options = Options::default();
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or(format!("{word} wants a value"));
        match word.as_str() {
            // Cargo says so.
            "--bench" => {}
            "--smol" => options.is_smol = true,
            "--minutes" => options.time = Duration::from_secs_f64(number::<f64>(&value()?)?.max(0.0) * 60.0),
            "--connections" => options.connections = number(&value()?)?,
            "--seed" => options.seed = number(&value()?)?,
            "--rate" => options.rate = number(&value()?)?,
            "--without" => options.without = troubles(&value()?)?,
            "--only" => options.only = troubles(&value()?)?,
            "--directory" => options.directory = Some(value()?.into()),
            _ => return Err(format!("there is no {word}")),
        }
    }
    Ok(options)
}

fn number<T: FromStr>(text: &str) -> Result<T, String> {
    text.parse().map_err(|_| format!("{text} is no number that can be used"))
}

fn troubles(text: &str) -> Result<Vec<String>, String> {
    let names = text.split(',').map(str::to_owned).collect::<Vec<_>>();
    match names.iter().find(|name| !Trouble::NAMES.iter().any(|(known, _)| known == name)) {
        Some(unknown) => Err(format!("there is no trouble {unknown}")),
        None => Ok(names),
    }
}
