//! A web server without an open port, and its client, without agents: hyper over SPN streams.
//!
//! `cargo run -p towline-tokio --example web` starts, with temporary certificates, a hub on this machine, a provider that serves HTTP, and
//! a consumer that fetches a page. Between two requests the hub is replaced: the connection survives.

mod throwaway;

use std::error::Error;

use http_body_util::{BodyExt, Empty, Full};
use hyper::{Request, Response, body::Bytes, client, server, service::service_fn};
use hyper_util::rt::TokioIo;
use throwaway::Realm;
use towline_core::spn::Role;
use towline_tokio::endpoint::{Consumer, Provider};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut realm = Realm::start()?;

    // The service: HTTP on each stream.
    let mut provider = Provider::listen(realm.endpoint(Role::Provider)?, realm.port())?;
    tokio::spawn(async move {
        while let Some(stream) = provider.accept().await {
            let hello = service_fn(|request: Request<hyper::body::Incoming>| async move {
                Ok::<_, hyper::Error>(Response::new(Full::new(Bytes::from(format!("you asked for {}", request.uri())))))
            });
            tokio::spawn(server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), hello));
        }
    });

    // The user: one connection, and several requests on it.
    let consumer = Consumer::start(realm.endpoint(Role::Consumer)?, realm.port())?;
    let (mut requests, connection) = client::conn::http1::handshake(TokioIo::new(consumer.connect().await?)).await?;
    tokio::spawn(connection);
    for path in ["/before", "/after"] {
        let request = Request::get(path).header("host", "service").body(Empty::<Bytes>::new())?;
        let answer = requests.send_request(request).await?;
        let status = answer.status();
        println!("{status}: {}", String::from_utf8_lossy(&answer.into_body().collect().await?.to_bytes()));
        if path == "/before" {
            realm.replace_hub().await?;
            println!("the hub was replaced");
        }
    }
    Ok(())
}
