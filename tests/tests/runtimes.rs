//! Hub, provider and consumer on tokio and on smol, in all mixtures.

use std::{
    io::{self, Read, Write},
    net::{Shutdown, SocketAddr, UdpSocket},
    sync::mpsc,
    thread,
    time::Duration,
};

use futures_lite::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::{io::AsyncWriteExt as _, runtime::Runtime as Tokio};
use towline_core::spn::{Role, endpoint::Config, hub, wire::code::StreamCode};
use towline_tests::{
    ours::Realm,
    programs::{On, free_udp_port},
    servers::{Pattern, connect, digest, echo, send, serve},
};

const BOTH: [On; 2] = [On::Tokio, On::Smol];

/// A running hub of either.
enum Hub {
    Tokio(towline_tokio::hub::HubHandle),
    Smol(towline_smol::hub::HubHandle),
}

impl Hub {
    /// Starts it; its address may not be free yet.
    fn start(on: On, config: &hub::Config) -> Self {
        for _ in 0..500 {
            let started = match on {
                On::Tokio => towline_tokio::hub::HubHandle::start(config.clone(), |_| {}).map(Self::Tokio).ok(),
                On::Smol => towline_smol::hub::HubHandle::start(config.clone(), |_| {}).map(Self::Smol).ok(),
            };
            if let Some(hub) = started {
                return hub;
            }
            thread::sleep(Duration::from_millis(10));
        }
        panic!("no hub at {}", config.bind);
    }

    fn stop(&self) {
        match self {
            Self::Tokio(hub) => hub.stop(),
            Self::Smol(hub) => hub.stop(),
        }
    }
}

fn provide(on: On, tokio: &Tokio, config: Config, port: u16, forward: SocketAddr) {
    let forward = forward.to_string();
    match on {
        On::Tokio => {
            let _context = tokio.enter();
            let (_, task) = towline_tokio::endpoint::provider_agent(config, port, forward, |_| {}).unwrap();
            tokio.spawn(task);
        }
        On::Smol => {
            let (_, task) = towline_smol::endpoint::provider_agent(config, port, forward, |_| {}).unwrap();
            smol::spawn(task).detach();
        }
    }
}

fn consume(on: On, tokio: &Tokio, config: Config, port: u16) -> SocketAddr {
    let bind = SocketAddr::from(([127, 0, 0, 1], 0));
    match on {
        On::Tokio => {
            let agent = towline_tokio::endpoint::consumer_agent(config, port, bind, |_| {});
            let (_, local, task) = tokio.block_on(agent).unwrap();
            tokio.spawn(task);
            local
        }
        On::Smol => {
            let (_, local, task) = towline_smol::endpoint::consumer_agent(config, port, bind, |_| {}).unwrap();
            smol::spawn(task).detach();
            local
        }
    }
}

#[test]
fn every_mixture_carries_bytes_and_outlives_its_hub() {
    const LENGTH: u64 = 3_000_000;
    let (realm, tokio) = (Realm::new(), Tokio::new().unwrap());
    for hub in BOTH {
        for provider in BOTH {
            for consumer in BOTH {
                let mixture = format!("hub on {hub:?}, provider on {provider:?}, consumer on {consumer:?}");
                let record = realm.hub(SocketAddr::from(([127, 0, 0, 1], free_udp_port())));
                let (first, port) = (Hub::start(hub, &record), record.bind.port());
                provide(provider, &tokio, realm.endpoint(Role::Provider, "p"), port, serve(echo));
                let address = consume(consumer, &tokio, realm.endpoint(Role::Consumer, "c"), port);
                // Large, both ways at once, and each direction ends by itself.
                let tcp = connect(address);
                let sent = thread::scope(|scope| {
                    let sender = scope.spawn(|| {
                        send(&tcp, Pattern::new(7, LENGTH)).unwrap();
                        tcp.shutdown(Shutdown::Write).unwrap();
                    });
                    let got = digest(&tcp).unwrap();
                    sender.join().unwrap();
                    got
                });
                assert_eq!(sent, digest(Pattern::new(7, LENGTH)).unwrap(), "{mixture}");
                // The hub goes, and another one comes.
                let mut held = connect(address);
                held.write_all(b"before").unwrap();
                held.read_exact(&mut [0; 6]).unwrap();
                first.stop();
                held.write_all(b"during").unwrap();
                let second = Hub::start(hub, &record);
                let mut got = [0; 6];
                held.read_exact(&mut got).expect(&mixture);
                assert_eq!(&got, b"during", "{mixture}");
                held.shutdown(Shutdown::Write).unwrap();
                assert_eq!(held.read(&mut got).unwrap(), 0, "{mixture}");
                second.stop();
            }
        }
    }
}

/// The library, without an agent: streams with the traits of each runtime.
#[test]
fn streams_of_both_libraries_meet() {
    let (realm, tokio) = (Realm::new(), Tokio::new().unwrap());
    let record = realm.hub(SocketAddr::from(([127, 0, 0, 1], free_udp_port())));
    let (_hub, port) = (Hub::start(On::Tokio, &record), record.bind.port());
    // A provider on smol that answers with what it was asked, twice; and one connection is broken off.
    let mut provider = towline_smol::endpoint::Provider::listen(realm.endpoint(Role::Provider, "p"), port).unwrap();
    smol::spawn(async move {
        while let Some(mut stream) = provider.accept().await {
            let mut question = Vec::new();
            stream.read_to_end(&mut question).await?;
            if question == b"break" {
                stream.reset(StreamCode::PEER_ABORTED);
                continue;
            }
            stream.write_all(&question).await?;
            stream.write_all(&question).await?;
            stream.close().await?;
        }
        io::Result::Ok(())
    })
    .detach();
    tokio.block_on(async {
        let consumer = towline_tokio::endpoint::Consumer::start(realm.endpoint(Role::Consumer, "c"), port).unwrap();
        for question in ["a", "bc"] {
            let mut stream = consumer.connect().await.unwrap();
            tokio::io::AsyncWriteExt::write_all(&mut stream, question.as_bytes()).await.unwrap();
            stream.shutdown().await.unwrap();
            let mut answer = String::new();
            tokio::io::AsyncReadExt::read_to_string(&mut stream, &mut answer).await.unwrap();
            assert_eq!(answer, question.repeat(2));
        }
    });
    // And a consumer on smol.
    smol::block_on(async {
        let consumer = towline_smol::endpoint::Consumer::start(realm.endpoint(Role::Consumer, "c"), port).unwrap();
        let mut stream = consumer.connect().await.unwrap();
        futures_lite::AsyncWriteExt::write_all(&mut stream, b"break").await.unwrap();
        stream.close().await.unwrap();
        let error = futures_lite::AsyncReadExt::read_to_end(&mut stream, &mut Vec::new()).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset, "{error}");
    });
}

#[test]
fn a_hub_that_has_stopped_has_left_its_address() {
    let realm = Realm::new();
    for on in BOTH {
        let config = realm.hub(SocketAddr::from(([127, 0, 0, 1], free_udp_port())));
        let (address, (told, free)) = (config.bind, mpsc::channel());
        // Bound in the hub's own thread, when the notice arrives.
        let tell = move |notice| {
            if matches!(notice, hub::Notice::Stopped) {
                told.send(UdpSocket::bind(address).map(drop)).unwrap();
            }
        };
        match on {
            On::Tokio => towline_tokio::hub::HubHandle::start(config, tell).unwrap().stop(),
            On::Smol => towline_smol::hub::HubHandle::start(config, tell).unwrap().stop(),
        }
        free.recv_timeout(Duration::from_secs(10)).unwrap().unwrap_or_else(|error| panic!("{on:?}: {error}"));
    }
}
