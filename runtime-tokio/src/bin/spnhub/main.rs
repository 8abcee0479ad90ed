//! `spnhub`: connects the consumers of services to their providers.

mod control;
mod demo;
mod records;
mod supervisor;

use std::{
    io::{self, Write},
    path::PathBuf,
    process::ExitCode,
};

use clap::{Args, Parser, Subcommand};
use towline_core::{
    quic::Congestion,
    spn::inventory::{Severity, count},
};
use towline_tokio::{
    cli::{
        inventory::{LoadError, Source},
        log, pki, process,
    },
    hub::StartError,
};

/// Connects the consumers of services to their providers, over QUIC with mutual TLS.
///
/// Without a subcommand it runs the hubs of an inventory:
///
///     spnhub pki pki --realm home --hub hub.example.net --service web --provider web-1 --consumer laptop
///     spnhub -c pki/inventory.yaml
///
/// Records of sessions and connections go to stdout, one JSON object a line; diagnostics to stderr.
/// SIGTERM drains the hubs and ends, SIGINT ends at once. SIGUSR1 and SIGHUP reload the inventory and reopen the file of records.
/// SPNHUB_INVENTORY_TOKEN, if set, is sent to an HTTP inventory as a bearer token.
#[derive(Parser)]
#[command(name = "spnhub", version, verbatim_doc_comment, args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    run: RunArgs,
}

#[derive(Subcommand)]
enum Command {
    /// Check an inventory and list all its faults. Exit code 0: all of it is usable; 1: not all of it; 2: it cannot be read.
    Check(SourceArgs),
    #[command(about = "Write certificates, inventory and settings for a realm", long_about = pki::HELP)]
    Pki(pki::PkiArgs),
    /// Control a running hub: show its status, pause or unpause a service, drain, reload.
    Ctl(control::CtlArgs),
    /// Run a hub, a provider and a consumer on this machine, with temporary certificates.
    Demo(demo::DemoArgs),
}

#[derive(Args)]
struct RunArgs {
    #[command(flatten)]
    source: SourceArgs,
    /// Append records to this file instead of writing them to stdout.
    #[arg(long, value_name = "FILE")]
    records: Option<PathBuf>,
    /// Listen for `spnhub ctl` on this Unix socket, which only this user can open.
    #[arg(long, value_name = "PATH", env = "SPNHUB_CONTROL")]
    control: Option<PathBuf>,
    /// Directory of the commands that start and stop providers: `clusterManagerUrn: exec:NAME` runs NAME in this directory, as
    /// `NAME start|stop SERVICE_ID`, with the rest of the service's availabilityManagement as JSON on its stdin.
    #[arg(long, value_name = "DIR", env = "SPNHUB_CLUSTER_COMMANDS")]
    cluster_commands: Option<PathBuf>,
    /// Congestion control of what the hub sends: bbr fills paths with random loss and keeps queues short, cubic takes each loss for
    /// congestion.
    #[arg(long, value_name = "cubic|bbr", env = "SPNHUB_CONGESTION", default_value_t)]
    congestion: Congestion,
    /// Format of diagnostics on stderr; RUST_LOG sets their level.
    #[arg(long, value_enum, default_value_t)]
    log_format: log::Format,
}

#[derive(Args)]
struct SourceArgs {
    /// The inventory: a YAML or JSON file, or the base URL of an HTTP inventory.
    #[arg(
        short = 'c',
        long,
        visible_alias = "inventory-url",
        value_name = "FILE_OR_URL",
        env = "SPNHUB_INVENTORY_URL",
        default_value = "http://localhost:8080"
    )]
    config: String,
    /// Sent to an HTTP inventory as a bearer token.
    #[arg(skip = std::env::var("SPNHUB_INVENTORY_TOKEN").ok().filter(|token| !token.is_empty()))]
    token: Option<String>,
}

#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("{0}\ngive the inventory with -c FILE_OR_URL or SPNHUB_INVENTORY_URL; `spnhub pki` creates one")]
    Load(#[from] LoadError),
    #[error("no hub in {0} can run; `spnhub check -c {0}` lists the faults")]
    NothingToRun(Source),
    #[error("cannot start: {0}")]
    Start(StartError),
    #[error("cannot write records to {}: {error}", path.display())]
    Records { path: PathBuf, error: io::Error },
    #[error(transparent)]
    Control(#[from] control::ControlError),
    #[error(transparent)]
    Pki(#[from] pki::PkiError),
    #[error(transparent)]
    Demo(#[from] demo::DemoError),
    #[error("{0}")]
    Io(#[from] io::Error),
}

impl Error {
    /// 1: invalid inventory, certificates or configuration. 2: usage, or an error of the system.
    fn exit_code(&self) -> ExitCode {
        ExitCode::from(match self {
            Self::Load(LoadError::Syntax { .. } | LoadError::TooMuch { .. })
            | Self::NothingToRun(_)
            | Self::Start(StartError::Config(_)) => 1,
            Self::Pki(pki::PkiError::Inventory { .. } | pki::PkiError::Certificate(_)) => 1,
            Self::Load(_)
            | Self::Start(_)
            | Self::Records { .. }
            | Self::Control(_)
            | Self::Pki(_)
            | Self::Demo(_)
            | Self::Io(_) => 2,
        })
    }
}

fn main() -> ExitCode {
    let cli: Cli = match log::arguments() {
        Ok(cli) => cli,
        Err(code) => return code,
    };
    let format = cli.run.log_format;
    let _log = log::init(format);
    match process::run(run(cli)) {
        Ok(code) => code,
        Err(error) => {
            log::fatal(format, "spnhub", &error);
            error.exit_code()
        }
    }
}

async fn run(cli: Cli) -> Result<ExitCode, Error> {
    match cli.command {
        None => supervisor::run(cli.run).await,
        Some(Command::Check(args)) => check(&args).await,
        Some(Command::Ctl(args)) => Ok(control::run(args).await?),
        Some(Command::Pki(args)) => {
            say(&pki::run(&args)?)?;
            Ok(ExitCode::SUCCESS)
        }
        Some(Command::Demo(args)) => Ok(demo::run(args).await?),
    }
}

/// Writes to stdout. A reader that closes early, such as `head`, is no error.
fn say(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result,
    }
}

async fn check(args: &SourceArgs) -> Result<ExitCode, Error> {
    let source = Source::parse(&args.config);
    let loaded = source.load(args.token.as_deref()).await?;
    say(&loaded.findings.iter().map(|finding| format!("{finding}\n")).collect::<String>())?;
    let errors = count(&loaded.findings, Severity::Error);
    let realms = &loaded.inventory.realms;
    let hubs = || realms.iter().flat_map(|realm| &realm.hubs);
    log::say(&format!(
        "{source}: {errors} errors, {} warnings; usable: {} realms, {} hubs, {} services\n",
        count(&loaded.findings, Severity::Warning),
        realms.len(),
        hubs().count(),
        hubs().flat_map(|hub| &hub.services).count()
    ));
    Ok(ExitCode::from(u8::from(errors > 0)))
}
