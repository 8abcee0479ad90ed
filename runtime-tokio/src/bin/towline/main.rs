//! `towline`: tools for people who read, test and debug protocols, and the caching proxy.

mod failure;
mod machine;
mod pipe;
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
    /// Pipe RPC: its messages as bytes and as JSON
    #[command(subcommand)]
    Pipe(pipe::Tool),
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
        Tool::Pipe(tool) => pipe::main(tool),
        Tool::Proxy(arguments) => proxy::main(*arguments),
    }
}
