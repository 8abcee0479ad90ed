//! A web server without an open port, and its client, without agents: hyper over SPN streams.
//!
//! `cargo run -p towline-tokio --example web` makes certificates that are thrown away, a hub on this machine, a provider that serves HTTP, and
//! a consumer that fetches a page. In the middle the hub is replaced: the connection does not notice.

use std::{error::Error, net::SocketAddr};

use http_body_util::{BodyExt, Empty, Full};
use hyper::{Request, Response, body::Bytes, client, server, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::sync::mpsc;
use towline_core::{
    quic::{Identity, Roots},
    spn::{
        Role,
        endpoint::Config,
        hub::{self, Notice, Service},
    },
};
use towline_tokio::{
    endpoint::{Consumer, Provider},
    hub::HubHandle,
    pki::{Authority, Pair},
};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let authority = Authority::new("example")?;
    let mut record = record(&authority)?;
    let (told, mut stopped) = mpsc::unbounded_channel();
    let first = HubHandle::start(record.clone(), move |notice| {
        if matches!(notice, Notice::Stopped) {
            let _ = told.send(());
        }
    })?;
    record.bind = first.local_addr();
    let port = record.bind.port();

    // The service: what is read from a stream is HTTP.
    let mut provider = Provider::listen(endpoint(&authority, Role::Provider, "server")?, port)?;
    tokio::spawn(async move {
        while let Some(stream) = provider.accept().await {
            let hello = service_fn(|request: Request<hyper::body::Incoming>| async move {
                Ok::<_, hyper::Error>(Response::new(Full::new(Bytes::from(format!("you asked for {}", request.uri())))))
            });
            tokio::spawn(server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), hello));
        }
    });

    // Its user: a connection that is kept, and requests on it.
    let consumer = Consumer::start(endpoint(&authority, Role::Consumer, "client")?, port)?;
    let (mut requests, connection) = client::conn::http1::handshake(TokioIo::new(consumer.connect().await?)).await?;
    tokio::spawn(connection);
    for path in ["/before", "/after"] {
        let request = Request::get(path).header("host", "service").body(Empty::<Bytes>::new())?;
        let answer = requests.send_request(request).await?;
        let status = answer.status();
        println!("{status}: {}", String::from_utf8_lossy(&answer.into_body().collect().await?.to_bytes()));
        if path == "/before" {
            first.stop();
            // Its address is free when it has stopped.
            stopped.recv().await;
            HubHandle::start(record.clone(), |_| {})?;
            println!("the hub was replaced");
        }
    }
    Ok(())
}

fn record(authority: &Authority) -> Result<hub::Config, Box<dyn Error>> {
    let Pair { certificate, key } = authority.hub(&["127.0.0.1".to_owned()])?;
    let mut record = hub::Config::new("example", "hub", SocketAddr::from(([127, 0, 0, 1], 0)));
    (record.certificate, record.key, record.client_ca) = (certificate, key, authority.certificate.clone());
    record.services = vec![Service {
        urn: "urn:example:web".to_owned(),
        providers: vec!["server".to_owned()],
        consumers: vec!["client".to_owned()],
        singleton: false,
        availability: None,
    }];
    Ok(record)
}

fn endpoint(authority: &Authority, role: Role, name: &str) -> Result<Config, Box<dyn Error>> {
    let Pair { certificate, key } = authority.endpoint(name)?;
    let identity = Identity::from_pem(&certificate, &key)?;
    Ok(Config::new(role, "127.0.0.1", identity, Roots::from_pem(&authority.certificate)?))
}
