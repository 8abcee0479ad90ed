//! `towline proxy`: the caching proxy for transactions.

use std::{
    fs, io,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use clap::{Args, ValueEnum};
use tokio::signal::unix::{SignalKind, signal};
use towline_core::txn::{
    allow::{Allow, Name, Net},
    hosts::{Hosts, HostsError},
    proxy::{Config, Counters, Notice},
    record::{self, Lookup, Record},
    transaction::{KeyMode, Serve},
};
use towline_tokio::{
    hub::epoch,
    lines::Lines,
    log,
    proxy::{ListenError, Names, serve},
    resolve::Resolver,
};

pub(crate) const ABOUT: &str = "Fetches files for clients, and keeps them: a caching proxy";

pub(crate) const HELP: &str = "\
Fetches files for clients, and keeps them: a caching proxy.

A client sends `SERVER FILE`, a space, and CR LF CR LF; it gets the file's bytes, and then the end. Nothing is fetched from servers that
are not allowed:

    towline proxy --listen 127.0.0.1:4666 --origin-port 8175 --allow files.example.net
    printf 'files.example.net hello.txt \\r\\n\\r\\n' | nc -N 127.0.0.1 4666

What was done goes to --log; diagnostics to stderr. SIGTERM accepts nothing more and ends with the last transaction; SIGINT ends at once.";

#[derive(Args)]
pub(crate) struct Arguments {
    /// Where to listen; may be given several times, and port 0 takes a free one
    #[arg(long, required = true, num_args = 1.., value_name = "IP:PORT")]
    listen: Vec<SocketAddr>,
    /// TCP port of all servers
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    origin_port: u16,
    /// `sample` does as the original: one key for each file name, whole objects stored before they are sent, no waiting for another's fetch,
    /// every server allowed unless --allow says otherwise, and its log
    #[arg(long, value_enum)]
    compat: Option<Compat>,
    /// What makes two requests ask for the same thing [default: server-and-file]
    #[arg(long, value_enum)]
    key: Option<Key>,
    /// Send a file while it is fetched, or when it is stored [default: streamed]
    #[arg(long, value_enum)]
    serve: Option<Delivery>,
    /// Refuse heads with more than two names
    #[arg(long)]
    strict_head: bool,
    /// Whether a request waits while another one fetches the same [default: on]
    #[arg(long, value_enum)]
    single_flight: Option<Switch>,
    /// Servers that may be asked: names, or *.SUFFIX
    #[arg(long, num_args = 1.., value_name = "NAME|*.SUFFIX")]
    allow: Vec<Name>,
    /// Networks that may be asked; private ones only if they are named as such: 0.0.0.0/0 does not open 10.0.0.0/8
    #[arg(long, num_args = 1.., value_name = "CIDR")]
    allow_net: Vec<Net>,
    /// Every server may be asked: for a lab
    #[arg(long, conflicts_with_all = ["allow", "allow_net"])]
    allow_all: bool,
    /// Bytes that the cache may hold [default: 268435456]
    #[arg(long, value_name = "BYTES")]
    cache_size: Option<u64>,
    /// Transactions at once; more clients wait [default: 1024]
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    max_transactions: Option<usize>,
    /// Transactions at once of one client address; more are closed at once, but for loopback [default: 64]
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    max_per_client: Option<usize>,
    /// How long a client may take for its head [default: 10]
    #[arg(long, value_name = "S", value_parser = seconds)]
    head_timeout: Option<Duration>,
    /// How long a server may be silent [default: 30]
    #[arg(long, value_name = "S", value_parser = seconds)]
    origin_timeout: Option<Duration>,
    /// How long a name may take to resolve [default: 5]
    #[arg(long, value_name = "S", value_parser = seconds)]
    resolve_timeout: Option<Duration>,
    /// The only names there are, `NAME ADDRESS…` a line; DNS is not asked
    #[arg(long, value_name = "FILE", conflicts_with = "resolver")]
    hosts: Option<PathBuf>,
    /// The DNS server to ask, rather than those of the system
    #[arg(long, value_name = "IP:PORT")]
    resolver: Option<SocketAddr>,
    /// Where to write what was done: a file, appended, or - for stdout
    #[arg(long, value_name = "FILE|-", default_value = "-")]
    log: PathBuf,
    /// One JSON object for each transaction, or the original's text for each lookup [default: json; with --compat: compat]
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
    #[error("no connection can be accepted any more; see above")]
    Accept,
}

/// 1: what was given is bad. 2: usage, or the machine.
fn exit_code(error: &Error) -> ExitCode {
    ExitCode::from(match error {
        Error::Hosts { .. } => 1,
        Error::ReadHosts { .. } | Error::Listen(_) | Error::Log { .. } | Error::Io(_) | Error::Accept => 2,
    })
}

pub(crate) fn main(arguments: Arguments) -> ExitCode {
    log::init(log::Format::Text);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Error::from);
    match runtime.and_then(|runtime| runtime.block_on(run(arguments))) {
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
    let log = start_log(&arguments)?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let is_idle = config.transaction.allow.is_nothing();
    let mut teller = log.teller();
    let (ended, mut end) = tokio::sync::oneshot::channel();
    let mut ended = Some(ended);
    let (control, local, proxy) = serve(config, &arguments.listen, names, move |proxy, notice| {
        let entry = match notice {
            Notice::Lookup(lookup) => Entry::Lookup(lookup),
            Notice::Finished(record) => Entry::Finished(record),
            Notice::StopListening => return,
            Notice::Stopped { error } => {
                teller = None;
                if let Some(ended) = ended.take() {
                    let _ = ended.send((error, proxy.counters()));
                }
                return;
            }
        };
        if let Some(teller) = &teller {
            teller.tell(entry);
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
                    tracing::info!("SIGTERM: ending with the last transaction; again, or SIGINT, ends at once");
                    control.drain();
                }
            }
            _ = interrupt.recv() => control.stop(),
        }
    }
    drop(log);
    match end.try_recv() {
        Ok((None, counters)) => {
            tell(&counters);
            Ok(())
        }
        Ok((Some(_), _)) | Err(_) => Err(Error::Accept),
    }
}

fn tell(counters: &Counters) {
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
    config.accept.max_transactions = arguments.max_transactions.unwrap_or(config.accept.max_transactions);
    config.max_per_client = arguments.max_per_client.unwrap_or(config.max_per_client);
    config.cache.max_bytes = arguments.cache_size.unwrap_or(config.cache.max_bytes);
    config
}

fn names(arguments: &Arguments) -> Result<Names, Error> {
    if let Some(path) = &arguments.hosts {
        let read = fs::read_to_string(path).map_err(|error| Error::ReadHosts { path: path.clone(), error })?;
        let hosts = Hosts::parse(&read).map_err(|error| Error::Hosts { path: path.clone(), error })?;
        return Ok(Names::Hosts(Arc::new(hosts)));
    }
    Ok(Names::Dns(arguments.resolver.map_or_else(Resolver::system, Resolver::at)))
}

/// What is written down.
enum Entry {
    Header,
    Lookup(Lookup),
    Finished(Record),
}

fn start_log(arguments: &Arguments) -> Result<Lines<Entry>, Error> {
    let format = arguments.log_format.unwrap_or(match arguments.compat {
        Some(Compat::Sample) => LogFormat::Compat,
        None => LogFormat::Json,
    });
    let path = &arguments.log;
    let file = (path != Path::new("-")).then_some(path.as_path());
    // A log that is gone on with has its header.
    let is_new = file.is_none_or(|file| fs::metadata(file).map_or(true, |file| file.len() == 0));
    // The clocks are read for each: the wall clock may be set at any time.
    let text = move |entry: &Entry| match (format, entry) {
        (LogFormat::Json, Entry::Finished(record)) => record.json(epoch()) + "\n",
        (LogFormat::Compat, Entry::Lookup(lookup)) => lookup.compat(epoch()),
        (LogFormat::Compat, Entry::Header) => record::COMPAT_HEADER.to_owned(),
        (LogFormat::Json, Entry::Header | Entry::Lookup(_)) | (LogFormat::Compat, Entry::Finished(_)) => String::new(),
    };
    let lines = Lines::start(file, text).map_err(|error| Error::Log { path: path.clone(), error })?;
    if is_new && let Some(teller) = lines.teller() {
        teller.tell(Entry::Header);
    }
    Ok(lines)
}
