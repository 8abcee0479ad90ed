//! `spnhub demo`: a hub, a provider and a consumer in one process, over real UDP on loopback.

use std::{
    convert::Infallible,
    net::SocketAddr,
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use clap::Args;
use http_body_util::Full;
use hyper::{Response, body::Bytes, header, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
    sync::{mpsc, oneshot},
};
use towline_core::{
    quic::{Identity, IdentityError, Roots},
    spn::{
        Role,
        endpoint::Config,
        hub::{self, Service},
    },
};
use towline_tokio::{
    cli::{
        log,
        pki::{Authority, PkiError},
        settings,
    },
    endpoint::{self, SessionNotice, consumer_agent, provider_agent},
    hub::HubHandle,
};

use super::records::Records;

const HUB: &str = "127.0.0.1";

#[derive(Args)]
pub(crate) struct DemoArgs {
    /// TCP address of the consumer; port 0 chooses a free port.
    #[arg(long, value_name = "IP:PORT", default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// TCP service behind the provider; default: a small HTTP page.
    #[arg(long, value_name = "HOST:PORT", value_parser = settings::host_and_port)]
    to: Option<String>,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum DemoError {
    #[error(transparent)]
    Pki(#[from] PkiError),
    #[error(transparent)]
    Identity(#[from] IdentityError),
    #[error(transparent)]
    Hub(#[from] towline_tokio::hub::StartError),
    #[error(transparent)]
    Endpoint(#[from] endpoint::StartError),
    #[error("cannot start: {0}")]
    Io(#[from] std::io::Error),
    #[error("no session within 10 s: is something filtering UDP on loopback?")]
    NoSession,
}

pub(crate) async fn run(args: DemoArgs) -> Result<ExitCode, DemoError> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let authority = Authority::new("demo")?;
    let records = Records::start(None)?;
    let (hub, stopped) = start_hub(&authority, &records)?;

    let forward = match &args.to {
        Some(to) => to.clone(),
        None => page().await?.to_string(),
    };
    let (up, mut ups) = mpsc::unbounded_channel();
    let port = hub.local_addr().port();
    let is_leaving = Arc::new(AtomicBool::new(false));
    let log_sessions = |up: mpsc::UnboundedSender<()>| {
        let is_leaving = is_leaving.clone();
        move |notice| match notice {
            // The demo may have ended meanwhile.
            SessionNotice::SessionUp { .. } => drop(up.send(())),
            SessionNotice::SessionWaiting { reason, .. } if !is_leaving.load(Ordering::Relaxed) => {
                tracing::warn!("no session: {reason}");
            }
            _ => {}
        }
    };
    let (provider, task) =
        provider_agent(endpoint_config(&authority, Role::Provider)?, port, forward.clone(), log_sessions(up.clone()))?;
    tokio::spawn(task);
    // The provider starts first: a hub refuses a consumer of a service without provider, which then tries again later.
    let is_up = ups.recv();
    tokio::time::timeout(Duration::from_secs(10), is_up).await.map_err(|_| DemoError::NoSession)?;
    let (consumer, local, task) =
        consumer_agent(endpoint_config(&authority, Role::Consumer)?, port, args.listen, log_sessions(up)).await?;
    tokio::spawn(task);
    tokio::time::timeout(Duration::from_secs(10), ups.recv()).await.map_err(|_| DemoError::NoSession)?;

    let hint = match args.to {
        None => format!("try: curl http://{local}/"),
        Some(_) => format!("try a client of {forward}, with the address {local} instead"),
    };
    log::say(&format!(
        "listening on {local}\nTCP to {local} goes through a hub on UDP 127.0.0.1:{port} to {forward}.\n{hint}\n"
    ));
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    is_leaving.store(true, Ordering::Relaxed);
    hub.stop();
    // When this returns, the hub's sessions have ended, and their records are in the queue.
    let _ = tokio::time::timeout(Duration::from_secs(3), stopped).await;
    provider.stop();
    consumer.stop();
    drop(records);
    Ok(ExitCode::SUCCESS)
}

fn start_hub(authority: &Authority, records: &Records) -> Result<(HubHandle, oneshot::Receiver<()>), DemoError> {
    let certificate = authority.hub(&[HUB.to_owned()])?;
    let mut config = hub::Config::new("demo", "hub", SocketAddr::from(([127, 0, 0, 1], 0)));
    config.certificate = certificate.certificate;
    config.key = certificate.key;
    config.client_ca.clone_from(&authority.certificate);
    config.services = vec![Service {
        urn: "urn:chip-in:service:demo:hub:demo".to_owned(),
        providers: vec!["provider".to_owned()],
        consumers: vec!["consumer".to_owned()],
        singleton: false,
        availability: None,
    }];
    let (ended, stopped) = oneshot::channel();
    let (mut reporter, mut ended) = (Some(records.reporter()), Some(ended));
    let hub = HubHandle::start(config, move |notice| {
        if reporter.as_ref().is_some_and(|reporter| reporter.report(notice)) {
            reporter = None;
            if let Some(ended) = ended.take() {
                let _ = ended.send(());
            }
        }
    })?;
    Ok((hub, stopped))
}

fn endpoint_config(authority: &Authority, role: Role) -> Result<Config, DemoError> {
    let pair = authority.endpoint(match role {
        Role::Provider => "provider",
        Role::Consumer => "consumer",
    })?;
    let identity = Identity::from_pem(&pair.certificate, &pair.key)?;
    Ok(Config::new(role, HUB, identity, Roots::from_pem(&authority.certificate)?))
}

/// Serves a small HTTP page. Returns its address.
async fn page() -> Result<SocketAddr, DemoError> {
    const PAGE: &str = "<!doctype html><title>Towline</title><p>This page came through an SPN hub: \
        TCP, consumer agent, hub, provider agent, TCP.\n";
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move {
        loop {
            let Ok((tcp, _)) = listener.accept().await else {
                // No file descriptor is free; a later attempt may succeed.
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            };
            let answer = service_fn(|_| async {
                let mut response = Response::new(Full::new(Bytes::from_static(PAGE.as_bytes())));
                let html = header::HeaderValue::from_static("text/html; charset=utf-8");
                response.headers_mut().insert(header::CONTENT_TYPE, html);
                Ok::<_, Infallible>(response)
            });
            // Errors of a client's connection are ignored.
            tokio::spawn(async move { http1::Builder::new().serve_connection(TokioIo::new(tcp), answer).await });
        }
    });
    Ok(address)
}
