//! `spnagent`: puts a TCP service behind an SPN hub, or reaches one through it.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use clap::{Args, Parser, Subcommand};
use rustls::pki_types::ServerName;
use tokio::signal::unix::{SignalKind, signal};
use towline_core::{
    quic::{Identity, IdentityError, Roots},
    spn::{Role, endpoint::Config},
};
use towline_tokio::{
    endpoint::{Control, Hubs, SessionNotice, StartError, consumer_agent, provider_agent},
    log,
    settings::{EnvFile, SettingsError, host_and_port},
};

/// Puts a TCP service behind an SPN hub, or reaches one through it.
///
/// The provider agent stands beside the service: it dials out to the hub, and needs no open port.
/// The consumer agent stands beside its users: they connect to it as if it were the service.
///
/// Every setting is an option, or a variable of the environment, or a line of the --env-file; in that order.
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
    /// Serve: for each connection, dial the local service.
    Provider {
        #[command(flatten)]
        common: Common,
        /// The local service, HOST:PORT [env: FORWARD_ADDRESS].
        #[arg(long, value_name = "HOST:PORT")]
        forward_address: Option<String>,
        /// Share of new connections among the providers of the service, 0 to 65535; 100 unless given [env: SPN_WEIGHT].
        /// In the --env-file it can be changed: SIGHUP reads it again. 0 retires: the agent ends with its last connection.
        #[arg(long)]
        weight: Option<u16>,
    },
    /// Use: listen on a local TCP address, and give each connection to a provider.
    Consumer {
        #[command(flatten)]
        common: Common,
        /// Where to listen, IP:PORT; port 0 takes a free one [env: BIND_ADDRESS].
        #[arg(long, value_name = "IP:PORT")]
        bind_address: Option<String>,
    },
}

#[derive(Args)]
struct Common {
    /// A file of KEY=value lines with the variables named here. Relative paths in it are relative to it.
    #[arg(long, value_name = "FILE")]
    env_file: Option<PathBuf>,
    /// Name or IP address of the hub; its certificate must show it [env: SPN_HUB_HOSTNAME].
    #[arg(long, value_name = "HOST")]
    spn_hub_hostname: Option<String>,
    /// UDP port of the hub; 4433 unless given [env: SPN_HUB_PORT].
    #[arg(long, value_name = "PORT")]
    spn_hub_port: Option<String>,
    /// Host and port in one, as https://HOST:PORT, in place of the two above [env: SPN_HUB_URL].
    #[arg(long, value_name = "URL")]
    spn_hub_url: Option<String>,
    /// The name server to ask for the hub's addresses; else those that the system asks.
    #[arg(long, value_name = "IP:PORT")]
    resolver: Option<SocketAddr>,
    /// CA of the hub's certificate, a PEM file [env: SPN_AGENT_TRUST_CERTIFICATE_ROOT].
    #[arg(long, alias = "spn-agent-trust-certificate-root", value_name = "FILE")]
    spn_agent_trust_cert_ca: Option<PathBuf>,
    /// This endpoint's certificate chain, a PEM file [env: SPN_AGENT_CLIENT_CERTIFICATE; or the text itself: SPN_CERTIFICATE].
    #[arg(long, alias = "spn-agent-client-certificate", value_name = "FILE")]
    spn_agent_client_cert: Option<PathBuf>,
    /// Its private key, a PEM file [env: SPN_AGENT_CLIENT_CERTIFICATE_KEY; or the text itself: SPN_CERTIFICATE_KEY].
    #[arg(long, alias = "spn-agent-client-certificate-key", value_name = "FILE")]
    spn_agent_client_cert_key: Option<PathBuf>,
    /// The service, when the certificate is entitled to several [env: SPN_SERVICE_URN].
    #[arg(long, value_name = "URN")]
    spn_service_urn: Option<String>,
    /// Speak sc02 only: refuse hubs that know nothing newer than sc01.
    #[arg(long)]
    require_sc02: bool,
    /// How long a connection may be without a hub before its TCP end is reset, in seconds; 0: as soon as its session is lost.
    #[arg(long, value_name = "SECONDS", default_value_t = 120)]
    pause_max: u32,
    /// How diagnostics are written to stderr; RUST_LOG chooses what is said.
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
    let cli = Cli::parse();
    let (Command::Provider { common, .. } | Command::Consumer { common, .. }) = &cli.command;
    let format = common.log_format;
    log::init(format);
    let result = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Error::from)
        .and_then(|runtime| runtime.block_on(run(cli.command)));
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            log::fatal(format, "spnagent", &error);
            error.exit_code()
        }
    }
}

impl Error {
    /// 1: what was given is bad. 2: usage, or the machine.
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
                ("the local service", "forward-address", "FORWARD_ADDRESS"),
            )?;
            let forward = host_and_port(&forward)
                .map_err(|expected| value(("forward-address", "FORWARD_ADDRESS"), forward, expected))?;
            tracing::info!(hub = %config.server_name, port = hubs.port, %forward, "providing");
            let (control, agent) = provider_agent(config, hubs, forward, tell)?;
            let again = || {
                let file = env_file(&common)?;
                Ok((config_of(Role::Provider, &common, &file)?, Some(weight_of(weight, &file)?)))
            };
            until_signal(control, agent, again).await
        }
        Command::Consumer { common, bind_address } => {
            let file = env_file(&common)?;
            let (config, hubs) = config(Role::Consumer, &common, &file)?;
            let bind = required(
                file.text(bind_address.as_deref(), "BIND_ADDRESS"),
                ("where to listen", "bind-address", "BIND_ADDRESS"),
            )?;
            let bind: SocketAddr =
                bind.parse().map_err(|_| value(("bind-address", "BIND_ADDRESS"), bind.clone(), "IP:PORT"))?;
            let hub = config.server_name.clone();
            let (control, local, agent) = consumer_agent(config, hubs, bind, tell).await?;
            tracing::info!(%hub, port = hubs.port, "listening on {local}");
            let again = || Ok((config_of(Role::Consumer, &common, &env_file(&common)?)?, None));
            until_signal(control, agent, again).await
        }
    }
}

/// A provider's weight: 100 unless it is said.
fn weight_of(option: Option<u16>, file: &EnvFile) -> Result<u16, Error> {
    match (option, file.text(None, "SPN_WEIGHT")) {
        (Some(weight), _) => Ok(weight),
        (None, Some(text)) => {
            text.parse().map_err(|_| value(("weight", "SPN_WEIGHT"), text, "a number from 0 to 65535"))
        }
        (None, None) => Ok(100),
    }
}

/// Runs the agent. SIGTERM ends it in good order, SIGINT and SIGQUIT at once; SIGHUP reads certificates, key and weight again.
async fn until_signal(
    control: Control,
    agent: impl Future<Output = ()>,
    again: impl Fn() -> Result<(Config, Option<u16>), Error>,
) -> Result<(), Error> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut quit = signal(SignalKind::quit())?;
    let mut hang_up = signal(SignalKind::hangup())?;
    tokio::pin!(agent);
    let mut reload = None;
    loop {
        tokio::select! {
            () = &mut agent => return Ok(()),
            () = async { match &mut reload { Some(reload) => reload.await, None => std::future::pending().await } } => {
                reload = None;
            }
            _ = terminate.recv() => {
                tracing::info!("SIGTERM: ending with the last connection; again, or SIGINT, ends at once");
                control.close();
            }
            _ = interrupt.recv() => control.stop(),
            _ = quit.recv() => control.stop(),
            _ = hang_up.recv() => reload = Some(Box::pin(take_again(control.clone(), again()))),
        }
    }
}

async fn take_again(control: Control, settings: Result<(Config, Option<u16>), Error>) {
    let (config, weight) = match settings {
        Ok(settings) => settings,
        Err(error) => return tracing::error!("SIGHUP: {error}; everything stays as it was"),
    };
    if let Err(error) = control.set_identity(config.identity, config.roots).await {
        return tracing::error!("SIGHUP: {error}; everything stays as it was");
    }
    match weight {
        Some(weight) => {
            control.set_weight(weight);
            tracing::info!(weight, "SIGHUP: certificates and weight are read again");
        }
        None => tracing::info!("SIGHUP: certificates are read again"),
    }
}

fn tell(notice: SessionNotice) {
    match notice {
        SessionNotice::SessionUp { remote, protocol, session_id, service } => {
            tracing::info!(%remote, ?protocol, session_id, service, "session established");
        }
        SessionNotice::SessionWaiting { remote, reason, retry_ms } => {
            tracing::warn!(%remote, retry_ms, "no session: {reason}");
        }
        SessionNotice::SessionEnded { remote, reason } => tracing::info!(%remote, "session ended: {reason}"),
        SessionNotice::SessionReserved { remote, through } => {
            tracing::info!(%remote, %through, "another address of the same hub: kept in reserve");
        }
        SessionNotice::Limit { what } => tracing::warn!("limit reached: {what}"),
        // About connections; the loop has dealt with them.
        _ => {}
    }
}

fn env_file(common: &Common) -> Result<EnvFile, Error> {
    Ok(common.env_file.as_deref().map(EnvFile::read).transpose()?.unwrap_or_default())
}

/// The settings alone.
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
    config.resume = common.pause_max > 0;
    config.connection.pause = Duration::from_secs(common.pause_max.into());
    config.connection.unclaimed = config.connection.unclaimed.min(config.connection.pause);
    Ok((config, Hubs { port, resolver: common.resolver }))
}

const HOSTNAME: (&str, &str) = ("spn-hub-hostname", "SPN_HUB_HOSTNAME");
const PORT: (&str, &str) = ("spn-hub-port", "SPN_HUB_PORT");
const URL: (&str, &str) = ("spn-hub-url", "SPN_HUB_URL");
/// The UDP port of a hub that names none.
const DEFAULT_PORT: u16 = 4433;

/// Host and port of the hub, from either family of settings.
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
        return Err(value(setting, hub.value.clone(), "a DNS name or an IP address of the hub"));
    }
    let port = match (url_port, port) {
        // The port of a URL is as strong as the URL.
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

/// PEM text and where it is from.
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
            return Ok(Pem { text: found.value.clone(), origin });
        }
        (None, None) => return Err(missing(what, (long, variable)).into()),
    };
    let text = fs::read_to_string(&path).map_err(|error| SettingsError::Read {
        path: path.clone(),
        what: what.to_owned(),
        error,
    })?;
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
