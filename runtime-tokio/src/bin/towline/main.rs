//! `towline`: tools for people who read, test and debug protocols, and the caching proxy.

mod machine;
mod proxy;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use towline_tokio::cli::log;

/// Tools for the state machines of Towline's protocols, and the caching proxy.
#[derive(Parser)]
#[command(name = "towline", version)]
struct Arguments {
    #[command(subcommand)]
    tool: Tool,
}

#[derive(Subcommand)]
enum Tool {
    /// The protocols' state machines
    #[command(subcommand)]
    Machine(machine::Tool),
    #[command(about = proxy::ABOUT, long_about = proxy::HELP)]
    Proxy(Box<proxy::Arguments>),
}

fn main() -> ExitCode {
    let arguments: Arguments = match log::arguments() {
        Ok(arguments) => arguments,
        Err(code) => return code,
    };
    match arguments.tool {
        Tool::Machine(tool) => machine::main(tool),
        Tool::Proxy(arguments) => proxy::main(*arguments),
    }
}
