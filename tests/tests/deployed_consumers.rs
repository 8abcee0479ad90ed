//! What a deployed consumer's clients see when something breaks behind our hub: an end, at once, and never a second connection of the service in
//! the place of the first (docs/protocols/spn.md, Legacy protocol, LEG-27 to LEG-30).

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::timeout,
};
use towline_core::spn::Role;
use towline_tests::{
    legacy,
    ours::{OurHub, Realm},
};
use towline_tokio::endpoint::provider_agent;

/// Whose program the provider is.
#[derive(Debug, Clone, Copy)]
enum Whose {
    Ours,
    Theirs,
}

const BOTH: [Whose; 2] = [Whose::Ours, Whose::Theirs];

/// A provider that runs until it is dropped.
enum Running {
    Ours(tokio::task::JoinHandle<()>),
    Theirs(legacy::Agent),
}

impl Drop for Running {
    fn drop(&mut self) {
        match self {
            Self::Ours(task) => task.abort(),
            Self::Theirs(_) => {}
        }
    }
}

fn provider(whose: Whose, realm: &Realm, hub: SocketAddr, forward: SocketAddr) -> Running {
    match whose {
        Whose::Theirs => Running::Theirs(legacy::provider_agent(&realm.pair("p"), realm.ca(), hub, forward)),
        Whose::Ours => {
            let config = realm.endpoint(Role::Provider, "p");
            let (control, task) = provider_agent(config, hub.port(), forward.to_string(), |_| {}).unwrap();
            Running::Ours(tokio::spawn(async move {
                task.await;
                drop(control);
            }))
        }
    }
}

/// A deployed consumer, and our hub, in front of a service.
struct Chain {
    consumer: legacy::Agent,
    address: SocketAddr,
    provider: Running,
    _hub: OurHub,
}

async fn chain(whose: Whose, forward: SocketAddr) -> Chain {
    let realm = Realm::new();
    let hub = OurHub::start(&realm, false);
    let provider = provider(whose, &realm, hub.address(), forward);
    hub.session_of(Role::Provider).await;
    let (consumer, address) = legacy::consumer_agent(&realm.pair("c"), realm.ca(), hub.address()).await;
    hub.session_of(Role::Consumer).await;
    Chain { consumer, address, provider, _hub: hub }
}

impl Chain {
    /// What a client gets until the end, which it must see within two seconds; it does not end by itself.
    async fn end(&self, client: &mut TcpStream) -> Vec<u8> {
        let mut got = Vec::new();
        let end = timeout(Duration::from_secs(2), client.read_to_end(&mut got)).await;
        end.expect("an end within 2 s").expect("a clean one: it is all that a deployed program shows");
        got
    }

    /// It had its four tries' time: it has used none of them.
    async fn has_not_tried_again(&self) {
        tokio::time::sleep(Duration::from_secs(3)).await;
        let tries = self.consumer.journal.all().iter().filter(|line| line.contains("another stream")).count();
        assert_eq!(tries, 0);
    }
}

/// A service that says something to each client, and then resets the connection; and how many it has had.
async fn resetting() -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, count) = (listener.local_addr().unwrap(), Arc::new(AtomicUsize::new(0)));
    let seen = count.clone();
    tokio::spawn(async move {
        while let Ok((mut tcp, _)) = listener.accept().await {
            seen.fetch_add(1, Ordering::Relaxed);
            tokio::spawn(async move {
                let _ = tcp.read(&mut [0; 100]).await;
                let _ = tcp.write_all(b"half of it").await;
                // Time for the half to come through; what comes with the reset may be lost on the way here.
                tokio::time::sleep(Duration::from_millis(300)).await;
                tcp.set_zero_linger().unwrap();
            });
        }
    });
    (address, count)
}

#[tokio::test]
async fn a_service_that_resets_is_an_end_and_no_second_connection() {
    for whose in BOTH {
        let (service, connections) = resetting().await;
        let chain = chain(whose, service).await;
        let mut client = TcpStream::connect(chain.address).await.unwrap();
        client.write_all(b"hello").await.unwrap();
        assert_eq!(chain.end(&mut client).await, b"half of it", "{whose:?}");
        // It goes on for a while, and nobody is harmed.
        for _ in 0..20 {
            client.write_all(&[0; 100_000]).await.unwrap();
        }
        chain.has_not_tried_again().await;
        assert_eq!(connections.load(Ordering::Relaxed), 1, "{whose:?}");
    }
}

#[tokio::test]
async fn a_provider_that_cannot_dial_is_an_end() {
    for whose in BOTH {
        let nowhere = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let chain = chain(whose, nowhere).await;
        let mut client = TcpStream::connect(chain.address).await.unwrap();
        client.write_all(b"hello").await.unwrap();
        assert_eq!(chain.end(&mut client).await, b"", "{whose:?}");
        chain.has_not_tried_again().await;
    }
}

#[tokio::test]
async fn a_provider_that_leaves_is_an_end() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let chain = chain(Whose::Theirs, listener.local_addr().unwrap()).await;
    let mut client = TcpStream::connect(chain.address).await.unwrap();
    client.write_all(b"hello").await.unwrap();
    let (_held, _) = listener.accept().await.unwrap();
    let Running::Theirs(agent) = &chain.provider else { panic!("theirs") };
    agent.endpoint.close(0u32.into(), b"gone");
    assert_eq!(chain.end(&mut client).await, b"");
    chain.has_not_tried_again().await;
}

#[tokio::test]
async fn more_than_a_provider_takes_are_served_when_there_is_room() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let chain = chain(Whose::Theirs, listener.local_addr().unwrap()).await;
    tokio::spawn(async move {
        while let Ok((mut tcp, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut got = vec![0; 5];
                tcp.read_exact(&mut got).await.unwrap();
                // All of those that there is room for are here at once.
                tokio::time::sleep(Duration::from_millis(500)).await;
                let _ = tcp.write_all(&got).await;
            });
        }
    });
    let mut clients = Vec::new();
    for _ in 0..200 {
        let mut client = TcpStream::connect(chain.address).await.unwrap();
        client.write_all(b"hello").await.unwrap();
        clients.push(client);
    }
    for mut client in clients {
        let mut got = Vec::new();
        timeout(Duration::from_secs(30), client.read_to_end(&mut got)).await.expect("an end").unwrap();
        assert_eq!(got, b"hello");
    }
}
