//! `towline proxy`: the caching proxy for transactions.

use std::{
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
    time::{Duration, Instant},
};

use clap::{Args, ValueEnum};
use tokio::signal::unix::{SignalKind, signal};
use towline_core::{
    net::{Hosts, HostsError},
    txn::{
        accept,
        allow::{Allow, Name, Net},
        proxy::{Config, Counters, Notice},
        record::{self, Lookup, Record},
        transaction::{KeyMode, Serve},
    },
};
use towline_tokio::{
    cli::{
        lines::{Form, Lines, Trouble},
        log, process,
        settings::read_text,
    },
    hub::epoch,
    proxy::{ListenError, Names, serve},
    resolve::Resolver,
};

pub(crate) const ABOUT: &str = "Runs the caching proxy: fetches files for clients and stores them";

pub(crate) const HELP: &str = "\
Runs the caching proxy: fetches files for clients and stores them.

A client sends `SERVER FILE`, a space, and CR LF CR LF. The reply is the file's bytes, then the connection ends. Files are fetched only from
servers that are allowed:

    towline proxy --listen 127.0.0.1:4666 --origin-port 8175 --allow files.example.net
    printf 'files.example.net hello.txt \\r\\n\\r\\n' | nc -N 127.0.0.1 4666

Transactions are logged to --log, diagnostics to stderr. SIGTERM stops accepting and ends with the last transaction; SIGINT ends at
once. SIGHUP and SIGUSR1 reopen the log; a log that was renamed is also reopened for the next entry.";

#[derive(Args)]
pub(crate) struct Arguments {
    /// Address to listen on; may be given several times; port 0 chooses a free port
    #[arg(long, required = true, num_args = 1.., value_name = "IP:PORT")]
    listen: Vec<SocketAddr>,
    /// TCP port of all servers
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    origin_port: u16,
    /// `sample` behaves as the original: a key is a file name alone, objects are stored before they are sent, a request does not wait for
    /// another one's fetch, each server is allowed unless an --allow option is given, and the log has its format
    #[arg(long, value_enum)]
    compat: Option<Compat>,
    /// Key of an object in the cache [default: server-and-file]
    #[arg(long, value_enum)]
    key: Option<Key>,
    /// Send a file while it is fetched, or after it is stored [default: streamed]
    #[arg(long, value_enum)]
    serve: Option<Delivery>,
    /// Refuse request heads with more than two names
    #[arg(long)]
    strict_head: bool,
    /// Whether a request waits while another one fetches the same object [default: on]
    #[arg(long, value_enum)]
    single_flight: Option<Switch>,
    /// Servers from which files may be fetched: names, or *.SUFFIX
    #[arg(long, num_args = 1.., value_name = "NAME|*.SUFFIX")]
    allow: Vec<Name>,
    /// Networks from which files may be fetched; private networks only if they are named: 0.0.0.0/0 does not open 10.0.0.0/8
    #[arg(long, num_args = 1.., value_name = "CIDR")]
    allow_net: Vec<Net>,
    /// Allow each server and each network; for a lab
    #[arg(long, conflicts_with_all = ["allow", "allow_net"])]
    allow_all: bool,
    /// Size limit of the cache in bytes [default: 268435456]
    #[arg(long, value_name = "BYTES")]
    cache_size: Option<u64>,
    /// Limit of concurrent transactions; further clients wait [default: 1024]
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    max_transactions: Option<usize>,
    /// Limit of concurrent transactions per client address; further ones are closed at once; loopback has no limit [default: 64]
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    max_per_client: Option<usize>,
    /// Seconds that a client may take for its request head [default: 10]
    #[arg(long, value_name = "S", value_parser = seconds)]
    head_timeout: Option<Duration>,
    /// Seconds that a server may be silent [default: 30]
    #[arg(long, value_name = "S", value_parser = seconds)]
    origin_timeout: Option<Duration>,
    /// Seconds that resolving a name may take [default: 5]
    #[arg(long, value_name = "S", value_parser = seconds)]
    resolve_timeout: Option<Duration>,
    /// File of names, one `NAME ADDRESS…` per line, used instead of DNS
    #[arg(long, value_name = "FILE", conflicts_with = "resolver")]
    hosts: Option<PathBuf>,
    /// DNS server; default: those of the system
    #[arg(long, value_name = "IP:PORT")]
    resolver: Option<SocketAddr>,
    /// Log of transactions: a file, to which entries are appended, or - for stdout
    #[arg(long, value_name = "FILE|-", default_value = "-")]
    log: PathBuf,
    /// Format of the log: a JSON object per transaction, or the original's text per lookup [default: json; with --compat: compat]
    #[arg(long, value_enum)]
    log_format: Option<LogFormat>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Compat {
    Sample,
}

#[derive(Clone, Copy, ValueEnum)]
enum Key {
    File,
    ServerAndFile,
}

#[derive(Clone, Copy, ValueEnum)]
enum Delivery {
    Stored,
    Streamed,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Switch {
    On,
    Off,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum LogFormat {
    Json,
    Compat,
}

fn seconds(text: &str) -> Result<Duration, String> {
    let number = text.parse().ok().filter(|seconds: &f64| *seconds > 0.0);
    number
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
        .ok_or_else(|| "expected a number of seconds above 0".to_owned())
}

fn at_least_one(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|&number| number > 0).ok_or_else(|| "expected a number above 0".to_owned())
}

#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("cannot read {}: {error}", path.display())]
    ReadHosts { path: PathBuf, error: io::Error },
    #[error("{}, {error}", path.display())]
    Hosts { path: PathBuf, error: HostsError },
    #[error(transparent)]
    Listen(#[from] ListenError),
    #[error("cannot write to {}: {error}", path.display())]
    Log { path: PathBuf, error: io::Error },
    #[error("cannot start: {0}")]
    Io(#[from] io::Error),
    #[error("accepting connections has failed for good; the log above says why")]
    Accept,
}

/// 1: an invalid file of hosts. 2: usage, or an error of the system.
fn exit_code(error: &Error) -> ExitCode {
    ExitCode::from(match error {
        Error::Hosts { .. } => 1,
        Error::ReadHosts { .. } | Error::Listen(_) | Error::Log { .. } | Error::Io(_) | Error::Accept => 2,
    })
}

pub(crate) fn main(arguments: Arguments) -> ExitCode {
    let _log = log::init(log::Format::Text);
    match process::run(run(arguments)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            log::fatal(log::Format::Text, "towline proxy", &error);
            exit_code(&error)
        }
    }
}

async fn run(arguments: Arguments) -> Result<(), Error> {
    let config = config(&arguments);
    let names = names(&arguments)?;
    let format = log_format(&arguments);
    let log = start_log(&arguments, format)?;
    let is_json = format == LogFormat::Json;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hang_up = signal(SignalKind::hangup())?;
    let mut user = signal(SignalKind::user_defined1())?;
    let is_idle = config.transaction.allow.is_nothing();
    let mut sender = Some(log.sender());
    let (ended, mut end) = tokio::sync::oneshot::channel();
    let mut ended = Some(ended);
    let (control, local, proxy) = serve(config, &arguments.listen, names, move |proxy, notice| {
        let entry = match notice {
            Notice::Lookup(lookup) if !is_json => Entry::Lookup(lookup),
            Notice::Finished { record, .. } if is_json => Entry::Finished(record),
            Notice::Stopped { error } => {
                sender = None;
                if let Some(ended) = ended.take() {
                    let _ = ended.send((error, proxy.counters()));
                }
                return;
            }
            _ => return,
        };
        if let Some(sender) = &sender {
            sender.send(entry);
        }
    })?;
    for address in local {
        tracing::info!("listening on {address}");
    }
    if is_idle {
        tracing::warn!("nothing will be fetched: no server is allowed; give --allow, --allow-net or --allow-all");
    }
    tokio::pin!(proxy);
    let mut is_draining = false;
    loop {
        tokio::select! {
            () = &mut proxy => break,
            _ = terminate.recv() => {
                if std::mem::replace(&mut is_draining, true) {
                    control.stop();
                } else {
                    tracing::info!("SIGTERM: no new transactions; ending with the last one. A second SIGTERM or SIGINT ends at once");
                    control.drain();
                }
            }
            _ = interrupt.recv() => control.stop(),
            _ = hang_up.recv() => log.reopen(),
            _ = user.recv() => log.reopen(),
        }
    }
    drop(log);
    match end.try_recv() {
        Ok((None, counters)) => {
            log_counters(&counters);
            Ok(())
        }
        Ok((Some(_), _)) | Err(_) => Err(Error::Accept),
    }
}

fn log_counters(counters: &Counters) {
    let Counters { accepted, refused, malformed, hits, misses, coalesced, fetches, bytes_in, bytes_out, .. } = counters;
    tracing::info!(accepted, refused, malformed, hits, misses, coalesced, fetches, bytes_in, bytes_out, "ended");
}

fn config(arguments: &Arguments) -> Config {
    let mut config = Config::default();
    if let Some(Compat::Sample) = arguments.compat {
        config.transaction = config.transaction.sample();
    }
    let transaction = &mut config.transaction;
    transaction.origin_port = arguments.origin_port;
    if let Some(key) = arguments.key {
        transaction.key_mode = match key {
            Key::File => KeyMode::File,
            Key::ServerAndFile => KeyMode::ServerAndFile,
        };
    }
    if let Some(delivery) = arguments.serve {
        transaction.serve = match delivery {
            Delivery::Stored => Serve::Stored,
            Delivery::Streamed => Serve::Streamed,
        };
    }
    transaction.strict_head |= arguments.strict_head;
    if let Some(switch) = arguments.single_flight {
        transaction.single_flight = switch == Switch::On;
    }
    let Arguments { allow, allow_net, allow_all, .. } = arguments;
    if *allow_all || !allow.is_empty() || !allow_net.is_empty() {
        transaction.allow = Allow { all: *allow_all, names: allow.clone(), nets: allow_net.clone() };
    }
    for (time, given) in [
        (&mut transaction.head_timeout, arguments.head_timeout),
        (&mut transaction.origin_idle_timeout, arguments.origin_timeout),
        (&mut transaction.resolve_timeout, arguments.resolve_timeout),
    ] {
        *time = given.unwrap_or(*time);
    }
    if let Some(places) = arguments.max_transactions {
        config.accept.max_transactions = places;
        config.accept.max_heads = accept::Config::share_of_heads(places);
    }
    config.max_per_client = arguments.max_per_client.unwrap_or(config.max_per_client);
    config.cache.max_bytes = arguments.cache_size.unwrap_or(config.cache.max_bytes);
    config
}

fn names(arguments: &Arguments) -> Result<Names, Error> {
    if let Some(path) = &arguments.hosts {
        let read = read_text(path).map_err(|error| Error::ReadHosts { path: path.clone(), error })?;
        let hosts = Hosts::parse(&read).map_err(|error| Error::Hosts { path: path.clone(), error })?;
        return Ok(Names::Hosts(Arc::new(hosts)));
    }
    Ok(Names::Dns(arguments.resolver.map_or_else(Resolver::system, Resolver::at)))
}

/// An entry of the log.
enum Entry {
    Lookup(Lookup),
    Finished(Record),
}

/// Entries in the form of docs/protocols/txn.md, Log. The clocks are read for each entry: the wall clock may be set at any time.
struct Entries {
    format: LogFormat,
}

impl Form for Entries {
    type Item = Entry;
    const ROOM: usize = 100_000;

    fn head(&mut self) -> String {
        match self.format {
            LogFormat::Json => String::new(),
            LogFormat::Compat => record::COMPAT_HEADER.to_owned(),
        }
    }

    fn text(&mut self, entry: &Entry) -> String {
        match (self.format, entry) {
            (LogFormat::Json, Entry::Finished(record)) => record.json(epoch()) + "\n",
            (LogFormat::Compat, Entry::Lookup(lookup)) => lookup.compat(epoch()),
            (LogFormat::Json, Entry::Lookup(_)) | (LogFormat::Compat, Entry::Finished(_)) => String::new(),
        }
    }

    fn gap(&mut self, lost: u64) -> String {
        match self.format {
            LogFormat::Json => {
                let at = epoch().rfc3339_at(Instant::now());
                format!("{}\n", serde_json::json!({"at": at, "outcome": "lost", "count": lost}))
            }
            // The original's log has no such entry.
            LogFormat::Compat => String::new(),
        }
    }

    fn trouble(&mut self, trouble: Trouble<'_>) {
        match trouble {
            Trouble::Write(error) => {
                tracing::error!(%error, "cannot write the log; entries are lost until writing succeeds again")
            }
            Trouble::Reopen(error) => tracing::error!(%error, "cannot reopen the log; still writing to the old file"),
            Trouble::Lost(count) => tracing::error!(count, "entries of the log were lost"),
        }
    }

    fn unwritten() {
        tracing::error!("the last entries of the log were not written: their reader has stalled or gone");
    }
}

fn log_format(arguments: &Arguments) -> LogFormat {
    arguments.log_format.unwrap_or(match arguments.compat {
        Some(Compat::Sample) => LogFormat::Compat,
        None => LogFormat::Json,
    })
}

fn start_log(arguments: &Arguments, format: LogFormat) -> Result<Lines<Entries>, Error> {
    let path = &arguments.log;
    let file = (path != Path::new("-")).then_some(path.as_path());
    Lines::start(file, Entries { format }).map_err(|error| Error::Log { path: path.clone(), error })
}
