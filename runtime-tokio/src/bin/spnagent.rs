//! `spnagent`: puts a TCP service behind an SPN hub, or reaches one through it.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use clap::{Args, Parser, Subcommand};
use rustls::pki_types::ServerName;
use tokio::signal::unix::{SignalKind, signal};
use towline_core::{
    quic::{Congestion, Identity, IdentityError, Roots},
    spn::{Role, endpoint::Config},
};
use towline_tokio::{
    cli::{
        log, process,
        settings::{EnvFile, SettingsError, host_and_port, read_text},
    },
    endpoint::{Bind, Control, Forward, Hubs, KEEPALIVE, SessionNotice, StartError, consumer_agent, provider_agent},
};
use tracing::Instrument;

/// Puts a TCP service behind an SPN hub, or reaches one through it.
///
/// The provider agent runs beside the service: it dials out to the hub and needs no open port.
/// The consumer agent runs beside its users: they connect to it as if it were the service.
///
/// Each setting is an option, an environment variable or a line of the --env-file; the first of these that is given counts.
/// `spnhub pki` writes a complete file for each endpoint:
///
///     spnagent provider --env-file pki/PROVIDER.env
///     spnagent consumer --env-file pki/CONSUMER.env
#[derive(Parser)]
#[command(name = "spnagent", version, verbatim_doc_comment)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Provide a service: dial the local TCP service for each connection.
    Provider {
        #[command(flatten)]
        common: Common,
        /// The local TCP service, HOST:PORT [env: FORWARD_ADDRESS].
        #[arg(long, value_name = "HOST:PORT")]
        forward_address: Option<String>,
        /// Share of new connections among the providers of the service, 0 to 65535 [env: SPN_WEIGHT; default: 100].
        /// SIGHUP or SIGUSR1 reads it from the --env-file again. 0 retires the provider: it gets no new connections and ends with its last one.
        #[arg(long)]
        weight: Option<u16>,
    },
    /// Use a service: listen on a local TCP address and connect each client to a provider.
    Consumer {
        #[command(flatten)]
        common: Common,
        /// TCP address to listen on, IP:PORT; port 0 chooses a free port [env: BIND_ADDRESS].
        #[arg(long, value_name = "IP:PORT")]
        bind_address: Option<String>,
    },
}

#[derive(Args)]
struct Common {
    /// A file of KEY=value lines with the variables that are named here. Paths in it are relative to the file.
    #[arg(long, value_name = "FILE")]
    env_file: Option<PathBuf>,
    /// Name or IP address of the hub; the hub's certificate must contain it [env: SPN_HUB_HOSTNAME].
    #[arg(long, value_name = "HOST")]
    spn_hub_hostname: Option<String>,
    /// UDP port of the hub [env: SPN_HUB_PORT; default: 4433].
    #[arg(long, value_name = "PORT")]
    spn_hub_port: Option<String>,
    /// Host and port as https://HOST:PORT, instead of the two options above [env: SPN_HUB_URL].
    #[arg(long, value_name = "URL")]
    spn_hub_url: Option<String>,
    /// DNS server for the hub's name; default: those of the system.
    #[arg(long, value_name = "IP:PORT")]
    resolver: Option<SocketAddr>,
    /// CAs that are trusted to sign the hub's certificate, a PEM file [env: SPN_AGENT_TRUST_CERTIFICATE_ROOT].
    #[arg(long, alias = "spn-agent-trust-certificate-root", value_name = "FILE")]
    spn_agent_trust_cert_ca: Option<PathBuf>,
    /// Certificate chain of this endpoint, a PEM file [env: SPN_AGENT_CLIENT_CERTIFICATE; or the PEM text: SPN_CERTIFICATE].
    #[arg(long, alias = "spn-agent-client-certificate", value_name = "FILE")]
    spn_agent_client_cert: Option<PathBuf>,
    /// Private key of this endpoint, a PEM file [env: SPN_AGENT_CLIENT_CERTIFICATE_KEY; or the PEM text: SPN_CERTIFICATE_KEY].
    #[arg(long, alias = "spn-agent-client-certificate-key", value_name = "FILE")]
    spn_agent_client_cert_key: Option<PathBuf>,
    /// URN of the service; default: the first service of the inventory that lists this endpoint [env: SPN_SERVICE_URN].
    #[arg(long, value_name = "URN")]
    spn_service_urn: Option<String>,
    /// Speak sc02 only: do not connect to hubs that speak only sc01.
    #[arg(long)]
    require_sc02: bool,
    /// Seconds that a connection may be without a hub before its TCP end is reset; 0: reset as soon as its session is lost.
    #[arg(long, value_name = "SECONDS", default_value_t = 120)]
    pause_max: u32,
    /// Seconds that a local TCP peer may be silent before keep-alive probes are sent [env: SPN_TCP_KEEPALIVE; default: 60].
    /// A peer that does not answer for as long again is given up. 0: no probes.
    #[arg(long, value_name = "SECONDS")]
    tcp_keepalive: Option<String>,
    /// Congestion control of what this agent sends: bbr fills paths with random loss and keeps queues short, cubic takes each loss for
    /// congestion [env: SPN_CONGESTION; default: bbr].
    #[arg(long, value_name = "cubic|bbr")]
    congestion: Option<Congestion>,
    /// Format of diagnostics on stderr; RUST_LOG sets their level.
    #[arg(long, value_enum, default_value_t)]
    log_format: log::Format,
}

#[derive(Debug, thiserror::Error)]
enum Error {
    #[error(transparent)]
    Settings(#[from] SettingsError),
    #[error("{what}: {error}")]
    Identity { what: String, error: IdentityError },
    #[error(transparent)]
    Start(#[from] StartError),
    #[error("cannot start: {0}")]
    Io(#[from] std::io::Error),
}

fn main() -> ExitCode {
    let cli: Cli = match log::arguments() {
        Ok(cli) => cli,
        Err(code) => return code,
    };
    let (Command::Provider { common, .. } | Command::Consumer { common, .. }) = &cli.command;
    let format = common.log_format;
    let _log = log::init(format);
    match process::run(run(cli.command)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            log::fatal(format, "spnagent", &error);
            error.exit_code()
        }
    }
}

impl Error {
    /// 1: invalid certificates, key or configuration. 2: usage, or an error of the system.
    fn exit_code(&self) -> ExitCode {
        ExitCode::from(match self {
            Self::Identity { .. } | Self::Start(StartError::Config(_)) => 1,
            Self::Settings(_) | Self::Start(_) | Self::Io(_) => 2,
        })
    }
}

async fn run(command: Command) -> Result<(), Error> {
    match command {
        Command::Provider { common, forward_address, weight } => {
            let file = env_file(&common)?;
            let (mut config, hubs) = config(Role::Provider, &common, &file)?;
            config.session.weight = weight_of(weight, &file)?;
            let forward = required(
                file.text(forward_address.as_deref(), "FORWARD_ADDRESS"),
                ("the local TCP service", "forward-address", "FORWARD_ADDRESS"),
            )?;
            let forward = host_and_port(&forward)
                .map_err(|expected| value(("forward-address", "FORWARD_ADDRESS"), forward, expected))?;
            let span = tracing::error_span!("provider", hub = config.server_name);
            span.in_scope(|| tracing::info!(port = hubs.port, %forward, "providing"));
            let forward = Forward { keepalive: keepalive(&common, &file)?, ..forward.into() };
            let (control, agent) = provider_agent(config, hubs, forward, session_log())?;
            let read_again = move || {
                let file = env_file(&common)?;
                Ok((config_of(Role::Provider, &common, &file)?, Some(weight_of(weight, &file)?)))
            };
            until_signal(control, agent, read_again).instrument(span).await
        }
        Command::Consumer { common, bind_address } => {
            let file = env_file(&common)?;
            let (config, hubs) = config(Role::Consumer, &common, &file)?;
            let bind = required(
                file.text(bind_address.as_deref(), "BIND_ADDRESS"),
                ("the TCP address to listen on", "bind-address", "BIND_ADDRESS"),
            )?;
            let bind: SocketAddr =
                bind.parse().map_err(|_| value(("bind-address", "BIND_ADDRESS"), bind.clone(), "IP:PORT"))?;
            let bind = Bind { keepalive: keepalive(&common, &file)?, ..bind.into() };
            let (span, port) = (tracing::error_span!("consumer", hub = config.server_name), hubs.port);
            let (control, local, agent) = consumer_agent(config, hubs, bind, session_log()).await?;
            span.in_scope(|| tracing::info!(port, "listening on {local}"));
            let read_again = move || Ok((config_of(Role::Consumer, &common, &env_file(&common)?)?, None));
            until_signal(control, agent, read_again).instrument(span).await
        }
    }
}

/// The keep-alive of local sockets: 60 s by default, none for 0.
fn keepalive(common: &Common, file: &EnvFile) -> Result<Option<Duration>, Error> {
    let setting = ("tcp-keepalive", "SPN_TCP_KEEPALIVE");
    let Some(text) = file.text(common.tcp_keepalive.as_deref(), setting.1) else { return Ok(Some(KEEPALIVE)) };
    // The kernel accepts no larger value.
    let seconds = text.parse().ok().filter(|seconds| *seconds <= 32_767);
    let seconds: u64 = seconds.ok_or_else(|| value(setting, text, "seconds, 0 to 32767"))?;
    Ok((seconds > 0).then(|| Duration::from_secs(seconds)))
}

/// A provider's weight; 100 by default.
fn weight_of(option: Option<u16>, file: &EnvFile) -> Result<u16, Error> {
    match (option, file.text(None, "SPN_WEIGHT")) {
        (Some(weight), _) => Ok(weight),
        (None, Some(text)) => {
            text.parse().map_err(|_| value(("weight", "SPN_WEIGHT"), text, "a number from 0 to 65535"))
        }
        (None, None) => Ok(100),
    }
}

/// Reads the settings again, for a reload.
type ReadAgain = Arc<dyn Fn() -> Result<(Config, Option<u16>), Error> + Send + Sync>;

/// Runs the agent. SIGTERM ends it cleanly, SIGINT and SIGQUIT at once; SIGHUP and SIGUSR1 reload certificates, key and weight.
async fn until_signal(
    control: Control,
    agent: impl Future<Output = ()>,
    read_again: impl Fn() -> Result<(Config, Option<u16>), Error> + Send + Sync + 'static,
) -> Result<(), Error> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut quit = signal(SignalKind::quit())?;
    let mut hang_up = signal(SignalKind::hangup())?;
    let mut user = signal(SignalKind::user_defined1())?;
    let read_again: ReadAgain = Arc::new(read_again);
    tokio::pin!(agent);
    let mut reload = None;
    loop {
        let signal = tokio::select! {
            () = &mut agent => return Ok(()),
            () = async { match &mut reload { Some(reload) => reload.await, None => std::future::pending().await } } => {
                reload = None;
                continue;
            }
            _ = terminate.recv() => {
                tracing::info!("SIGTERM: no new connections; ending with the last one, after 30 s at most. A second SIGTERM or SIGINT ends at once");
                control.close();
                continue;
            }
            _ = interrupt.recv() => {
                control.stop();
                continue;
            }
            _ = quit.recv() => {
                control.stop();
                continue;
            }
            _ = hang_up.recv() => "SIGHUP",
            _ = user.recv() => "SIGUSR1",
        };
        // A newer reload replaces one that still waits for a file.
        reload = Some(Box::pin(reload_settings(signal, control.clone(), read_again.clone())));
    }
}

async fn reload_settings(signal: &'static str, control: Control, read_again: ReadAgain) {
    // In a thread beside the loop: reading a file may hang.
    let settings = process::beside(move || read_again()).await.map_err(Error::from).flatten();
    let (config, weight) = match settings {
        Ok(settings) => settings,
        Err(error) => return tracing::error!("{signal}: reload failed: {error}; the current settings stay in use"),
    };
    if let Err(error) = control.set_identity(config.identity, config.roots).await {
        return tracing::error!("{signal}: reload failed: {error}; the current settings stay in use");
    }
    match weight {
        Some(weight) => {
            control.set_weight(weight);
            tracing::info!(weight, "{signal}: certificates and weight reloaded");
        }
        None => tracing::info!("{signal}: certificates reloaded"),
    }
}

/// Logs events of sessions, each with the session id of the hub's records.
fn session_log() -> impl FnMut(SessionNotice) + Send + 'static {
    // The notice of a session's end has only the address.
    let mut ids: BTreeMap<SocketAddr, String> = BTreeMap::new();
    move |notice| match notice {
        SessionNotice::SessionUp { remote, protocol, session_id, service } => {
            tracing::info!(%remote, ?protocol, session_id, service, "session established");
            if !session_id.is_empty() {
                ids.insert(remote, session_id);
            }
        }
        SessionNotice::SessionWaiting { remote, reason, retry_ms } => {
            tracing::warn!(%remote, session_id = ids.remove(&remote), retry_ms, "no session: {reason}");
        }
        SessionNotice::SessionEnded { remote, reason } => {
            tracing::info!(%remote, session_id = ids.remove(&remote), "session ended: {reason}");
        }
        SessionNotice::SessionReserved { remote, through } => {
            tracing::info!(%remote, %through, session_id = ids.get(&through), "another address of the same hub; kept in reserve");
        }
        SessionNotice::Limit { what } => tracing::warn!("limit reached: {what}"),
        // Notices about connections, which the loop has handled.
        _ => {}
    }
}

/// All variables that an environment file may set.
const SETTINGS: [&str; 14] = [
    HOSTNAME.1,
    PORT.1,
    URL.1,
    "SPN_AGENT_TRUST_CERTIFICATE_ROOT",
    "SPN_AGENT_CLIENT_CERTIFICATE",
    "SPN_AGENT_CLIENT_CERTIFICATE_KEY",
    "SPN_CERTIFICATE",
    "SPN_CERTIFICATE_KEY",
    "SPN_SERVICE_URN",
    "BIND_ADDRESS",
    "FORWARD_ADDRESS",
    "SPN_WEIGHT",
    "SPN_TCP_KEEPALIVE",
    "SPN_CONGESTION",
];

fn env_file(common: &Common) -> Result<EnvFile, Error> {
    let Some(path) = common.env_file.as_deref() else { return Ok(EnvFile::default()) };
    let file = EnvFile::read(path)?;
    for (line, key) in file.unknown(&SETTINGS) {
        tracing::warn!("{}, line {line}: unknown setting {key}; it is ignored", path.display());
    }
    Ok(file)
}

fn congestion(common: &Common, file: &EnvFile) -> Result<Congestion, SettingsError> {
    let option = common.congestion.map(|congestion| congestion.to_string());
    let Some(value) = file.text(option.as_deref(), "SPN_CONGESTION") else { return Ok(Congestion::default()) };
    value.parse().map_err(|_| SettingsError::Value {
        option: "congestion",
        variable: "SPN_CONGESTION",
        value,
        expected: "cubic or bbr",
    })
}

/// The endpoint's configuration, without the hubs.
fn config_of(role: Role, common: &Common, file: &EnvFile) -> Result<Config, Error> {
    config(role, common, file).map(|(config, _)| config)
}

fn config(role: Role, common: &Common, file: &EnvFile) -> Result<(Config, Hubs), Error> {
    let (host, port) = hub(common, file)?;
    let roots = pem(
        file,
        common.spn_agent_trust_cert_ca.as_deref(),
        "SPN_AGENT_TRUST_CERTIFICATE_ROOT",
        None,
        ("CA of the hub's certificate", "spn-agent-trust-cert-ca"),
    )?;
    let certificate = pem(
        file,
        common.spn_agent_client_cert.as_deref(),
        "SPN_AGENT_CLIENT_CERTIFICATE",
        Some("SPN_CERTIFICATE"),
        ("certificate", "spn-agent-client-cert"),
    )?;
    let key = pem(
        file,
        common.spn_agent_client_cert_key.as_deref(),
        "SPN_AGENT_CLIENT_CERTIFICATE_KEY",
        Some("SPN_CERTIFICATE_KEY"),
        ("private key", "spn-agent-client-cert-key"),
    )?;
    let identity = Identity::from_pem(&certificate.text, &key.text).map_err(|error| {
        let what = format!("{} and {}", certificate.origin, key.origin);
        Error::Identity { what, error }
    })?;
    let roots = Roots::from_pem(&roots.text).map_err(|error| Error::Identity { what: roots.origin, error })?;
    let mut config = Config::new(role, &host, identity, roots);
    config.service = file.text(common.spn_service_urn.as_deref(), "SPN_SERVICE_URN").unwrap_or_default();
    config.require_sc02 = common.require_sc02;
    config.transport.congestion = congestion(common, file)?;
    config.resume = common.pause_max > 0;
    config.connection.pause = Duration::from_secs(common.pause_max.into());
    config.connection.unclaimed = config.connection.unclaimed.min(config.connection.pause);
    Ok((config, Hubs { port, resolver: common.resolver }))
}

const HOSTNAME: (&str, &str) = ("spn-hub-hostname", "SPN_HUB_HOSTNAME");
const PORT: (&str, &str) = ("spn-hub-port", "SPN_HUB_PORT");
const URL: (&str, &str) = ("spn-hub-url", "SPN_HUB_URL");
/// The UDP port of the hub if none is set.
const DEFAULT_PORT: u16 = 4433;

/// Host and port of the hub, from host and port settings or from a URL.
fn hub(common: &Common, file: &EnvFile) -> Result<(String, u16), Error> {
    let hub = file.first(&[(common.spn_hub_hostname.as_deref(), HOSTNAME.1), (common.spn_hub_url.as_deref(), URL.1)]);
    let Some(hub) = hub else {
        return Err(missing("the hub", HOSTNAME).into());
    };
    let port = file.first(&[(common.spn_hub_port.as_deref(), PORT.1)]);
    let port = port.map(|found| Ok::<_, Error>((number(PORT, &found.value)?, found.origin))).transpose()?;
    let (setting, host, url_port) = match hub.which {
        0 => (HOSTNAME, hub.value.as_str(), None),
        _ => {
            let (host, port) = url_parts(&hub.value).ok_or_else(|| value(URL, hub.value.clone(), URL_FORM))?;
            (URL, host, port.map(|port| number(URL, port)).transpose()?)
        }
    };
    if ServerName::try_from(host).is_err() {
        return Err(value(setting, hub.value.clone(), "the DNS name or IP address of the hub"));
    }
    let port = match (url_port, port) {
        // The port of a URL has the precedence of the URL.
        (Some(of_url), Some((port, origin))) => {
            if origin < hub.origin {
                port
            } else {
                of_url
            }
        }
        (Some(port), None) | (None, Some((port, _))) => port,
        (None, None) => DEFAULT_PORT,
    };
    Ok((host.to_owned(), port))
}

const URL_FORM: &str = "https://HOST:PORT";

/// The host and, if there is one, the port of a URL; `None` when there is no host.
fn url_parts(url: &str) -> Option<(&str, Option<&str>)> {
    let authority = url.split_once("://").map_or(url, |(_, rest)| rest);
    let authority = authority.split('/').next().unwrap_or_default();
    // An IPv6 address stands in brackets.
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (authority, None),
    };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    (!host.is_empty()).then_some((host, port))
}

fn number(setting: (&'static str, &'static str), text: &str) -> Result<u16, Error> {
    let port = text.parse().ok().filter(|port| *port > 0);
    port.ok_or_else(|| value(setting, text.to_owned(), "a UDP port, 1 to 65535"))
}

/// PEM text and its origin.
struct Pem {
    text: String,
    origin: String,
}

/// PEM from a file, or from a variable that holds the text itself.
fn pem(
    file: &EnvFile,
    option: Option<&Path>,
    variable: &'static str,
    text_variable: Option<&'static str>,
    (what, long): (&'static str, &'static str),
) -> Result<Pem, Error> {
    let found = file.first(&[(None, variable), (None, text_variable.unwrap_or(variable))]);
    let path = match (option, &found) {
        (Some(path), _) => path.to_owned(),
        (None, Some(found)) if found.which == 0 => file.path(found),
        (None, Some(found)) => {
            let origin = text_variable.unwrap_or(variable).to_owned();
            // Where a variable can have only one line, line breaks are written as `\n`.
            let text = if found.value.contains('\n') { found.value.clone() } else { found.value.replace("\\n", "\n") };
            return Ok(Pem { text, origin });
        }
        (None, None) => return Err(missing(what, (long, variable)).into()),
    };
    let text =
        read_text(&path).map_err(|error| SettingsError::Read { path: path.clone(), what: what.to_owned(), error })?;
    Ok(Pem { text, origin: path.display().to_string() })
}

fn required(
    value: Option<String>,
    (what, option, variable): (&'static str, &'static str, &'static str),
) -> Result<String, SettingsError> {
    value.ok_or(missing(what, (option, variable)))
}

fn missing(what: &'static str, (option, variable): (&'static str, &'static str)) -> SettingsError {
    SettingsError::Missing { what, option, variable }
}

fn value((option, variable): (&'static str, &'static str), value: String, expected: &'static str) -> Error {
    SettingsError::Value { option, variable, value, expected }.into()
}
