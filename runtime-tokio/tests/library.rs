//! The library between two programs of its users, through a hub.

use std::{io, net::SocketAddr, sync::mpsc, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::timeout,
};
use towline_core::{
    quic::{Identity, Roots},
    spn::{
        Role,
        endpoint::Config,
        hub::{self, Notice, Service},
        record::RecordEvent,
        wire::code::StreamCode,
    },
};
use towline_tokio::{
    Stream,
    cli::pki::Authority,
    endpoint::{Consumer, Provider},
    hub::HubHandle,
};

/// A hub, a provider and a consumer; `pause` is the time that their connections wait for a lost hub.
async fn start(pause: Duration) -> (HubHandle, Provider, Consumer) {
    let authority = Authority::new("r").unwrap();
    let pair = authority.hub(&["127.0.0.1".to_owned()]).unwrap();
    let mut config = hub::Config::new("r", "hub", SocketAddr::from(([127, 0, 0, 1], 0)));
    (config.certificate, config.key) = (pair.certificate, pair.key);
    config.client_ca.clone_from(&authority.certificate);
    config.services = vec![Service {
        urn: "urn:s".to_owned(),
        providers: vec!["p".to_owned()],
        consumers: vec!["c".to_owned()],
        singleton: false,
        availability: None,
    }];
    let (sender, sessions) = mpsc::channel();
    let hub = HubHandle::start(config, move |notice| {
        if matches!(&notice, Notice::Record(record) if matches!(record.event, RecordEvent::StartSession(_))) {
            let _ = sender.send(());
        }
    })
    .unwrap();
    let endpoint = |role, name: &str| {
        let pair = authority.endpoint(name).unwrap();
        let identity = Identity::from_pem(&pair.certificate, &pair.key).unwrap();
        let mut config = Config::new(role, "127.0.0.1", identity, Roots::from_pem(&authority.certificate).unwrap());
        config.connection.pause = pause;
        config
    };
    let port = hub.local_addr().port();
    let provider = Provider::listen(endpoint(Role::Provider, "p"), port).unwrap();
    tokio::task::spawn_blocking(move || sessions.recv_timeout(Duration::from_secs(10)).unwrap()).await.unwrap();
    (hub, provider, Consumer::start(endpoint(Role::Consumer, "c"), port).unwrap())
}

async fn joined() -> (HubHandle, Provider, Consumer, Stream, Stream) {
    let (hub, mut provider, consumer) = start(Duration::from_secs(1)).await;
    let ours = consumer.connect().await.unwrap();
    let theirs = soon(provider.accept()).await.unwrap();
    (hub, provider, consumer, ours, theirs)
}

async fn soon<T>(what: impl Future<Output = T>) -> T {
    timeout(Duration::from_secs(15), what).await.expect("in time")
}

#[tokio::test]
async fn the_provider_may_speak_first_and_each_way_ends_for_itself() {
    let (_hub, _provider, _consumer, mut ours, mut theirs) = joined().await;
    theirs.write_all(b"welcome").await.unwrap();
    theirs.shutdown().await.unwrap();
    let mut got = Vec::new();
    soon(ours.read_to_end(&mut got)).await.unwrap();
    assert_eq!(got, b"welcome");
    ours.write_all(b"late").await.unwrap();
    ours.shutdown().await.unwrap();
    let mut got = Vec::new();
    soon(theirs.read_to_end(&mut got)).await.unwrap();
    assert_eq!(got, b"late");
    assert_eq!(ours.write(b"x").await.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
}

#[tokio::test]
async fn a_dropped_stream_is_no_clean_end() {
    let (_hub, _provider, _consumer, mut ours, mut theirs) = joined().await;
    ours.write_all(b"half of it").await.unwrap();
    ours.flush().await.unwrap();
    theirs.read_exact(&mut [0; 10]).await.unwrap();
    drop(ours);
    let error = soon(theirs.read(&mut [0; 8])).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn a_reset_carries_its_code() {
    let (_hub, _provider, _consumer, ours, mut theirs) = joined().await;
    ours.reset(StreamCode::INTERNAL);
    let error = soon(theirs.read(&mut [0; 8])).await.unwrap_err();
    assert!(error.to_string().contains("0x26"), "{error}");
}

#[tokio::test]
async fn a_slow_reader_holds_its_writer_back() {
    let (_hub, _provider, _consumer, mut ours, mut theirs) = joined().await;
    let block = vec![7; 1 << 20];
    let mut written = 0;
    while timeout(Duration::from_millis(500), ours.write_all(&block)).await.is_ok() {
        written += block.len();
        assert!(written < 64 << 20, "nothing holds the writer back");
    }
    // No byte is lost.
    let mut got = vec![0; written];
    soon(theirs.read_exact(&mut got)).await.unwrap();
    assert!(got.iter().all(|byte| *byte == 7));
}

#[tokio::test]
async fn a_hub_that_does_not_come_back_is_an_error_for_its_connections() {
    let (hub, _provider, _consumer, mut ours, mut theirs) = joined().await;
    theirs.write_all(b"x").await.unwrap();
    soon(ours.read_exact(&mut [0])).await.unwrap();
    hub.stop();
    for stream in [&mut ours, &mut theirs] {
        assert_eq!(soon(stream.read(&mut [0; 8])).await.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    }
}

#[tokio::test]
async fn a_closed_consumer_opens_nothing() {
    let (_hub, _provider, consumer) = start(Duration::from_secs(1)).await;
    consumer.control().stop();
    let refused = soon(async {
        loop {
            match consumer.connect().await {
                Err(error) => return error,
                // The endpoint has not stopped yet.
                Ok(_) => tokio::task::yield_now().await,
            }
        }
    });
    refused.await;
}
