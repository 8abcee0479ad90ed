//! What the programs of `sc01` rely on at a hub and at endpoints of ours, one by one (docs/protocols/spn.md, Legacy protocol).

use std::{io, time::Duration};

use quinn::{ConnectionError, ReadError, VarInt};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{sleep, timeout},
};
use towline_core::spn::Role;
use towline_tests::{
    legacy::{self, Session},
    ours::{OurHub, Realm, echo, server, soon},
};
use towline_tokio::endpoint::{Consumer, Provider, provider_agent};

/// Long enough for whatever would come to have come.
const A_WHILE: Duration = Duration::from_millis(300);

async fn session(realm: &Realm, hub: &OurHub, alpn: &str, name: &str) -> Session {
    Session::dial(&[alpn], &realm.pair(name), realm.ca(), hub.address(), "127.0.0.1").await
}

#[tokio::test]
async fn the_hub_shows_its_name_and_its_address() {
    let realm = Realm::new();
    let hub = OurHub::start(&realm, false);
    for name in ["127.0.0.1", "localhost"] {
        let session = Session::dial(&["sc01-provider"], &realm.pair("p"), realm.ca(), hub.address(), name).await;
        assert_eq!(session.alpn(), "sc01-provider", "{name}");
    }
}

#[tokio::test]
async fn the_hub_prefers_sc02_and_then_the_provider() {
    let realm = Realm::new();
    let hub = OurHub::start(&realm, false);
    for (offered, chosen) in [
        (&["sc01-consumer"][..], "sc01-consumer"),
        (&["sc01-consumer", "sc01-provider"], "sc01-provider"),
        (&["sc01-provider", "sc01-consumer", "sc02-consumer"], "sc02-consumer"),
        (&["sc02-consumer", "sc02-provider"], "sc02-provider"),
    ] {
        let session = Session::dial(offered, &realm.pair("c"), realm.ca(), hub.address(), "127.0.0.1").await;
        assert_eq!(session.alpn(), chosen, "{offered:?}");
    }
}

#[tokio::test]
async fn the_hub_takes_words_100_streams_and_no_unidirectional_one() {
    let realm = Realm::new();
    let hub = OurHub::start(&realm, false);
    let session = session(&realm, &hub, "sc01-consumer", "c").await;
    assert!(session.connection.max_datagram_size().is_some());
    assert!(timeout(A_WHILE, session.connection.open_uni()).await.is_err());
    let mut held = Vec::new();
    for _ in 0..100 {
        held.push(timeout(A_WHILE, session.connection.open_bi()).await.expect("credit").unwrap());
    }
    assert!(timeout(A_WHILE, session.connection.open_bi()).await.is_err(), "none of them is in use yet");
    // Credit grows with use.
    for (send, _) in &mut held {
        send.write_all(b"x").await.unwrap();
    }
    soon(session.connection.open_bi()).await.unwrap();
}

#[tokio::test]
async fn a_stream_at_the_provider_comes_with_its_first_byte_and_nothing_before_it() {
    let realm = Realm::new();
    let hub = OurHub::start(&realm, false);
    let provider = session(&realm, &hub, "sc01-provider", "p").await;
    let consumer = session(&realm, &hub, "sc01-consumer", "c").await;
    let (mut send, mut recv) = consumer.connection.open_bi().await.unwrap();
    assert!(timeout(A_WHILE, provider.connection.accept_bi()).await.is_err(), "nothing was sent");
    send.write_all(b"first").await.unwrap();
    let (mut to_consumer, mut from_consumer) = soon(provider.connection.accept_bi()).await.unwrap();
    let mut got = [0; 5];
    soon(from_consumer.read_exact(&mut got)).await.unwrap();
    assert_eq!(&got, b"first", "raw bytes, no preamble");
    // An end in each direction, for itself.
    send.finish().unwrap();
    assert_eq!(soon(from_consumer.read(&mut got)).await.unwrap(), None);
    to_consumer.write_all(b"last").await.unwrap();
    to_consumer.finish().unwrap();
    assert_eq!(soon(recv.read_to_end(100)).await.unwrap(), b"last");
}

#[tokio::test]
async fn a_provider_opens_no_streams() {
    let realm = Realm::new();
    let hub = OurHub::start(&realm, false);
    let provider = session(&realm, &hub, "sc01-provider", "p").await;
    let (mut send, mut recv) = provider.connection.open_bi().await.unwrap();
    send.write_all(b"x").await.unwrap();
    assert_eq!(soon(recv.read(&mut [0])).await, Err(ReadError::Reset(VarInt::from_u32(0x10))));
    assert!(provider.connection.close_reason().is_none(), "the session lives");
}

#[tokio::test]
async fn a_leaving_hub_says_the_exact_word_and_closes_with_0() {
    let realm = Realm::new();
    let hub = OurHub::start(&realm, false);
    let session = session(&realm, &hub, "sc01-provider", "p").await;
    hub.session_of(Role::Provider).await;
    hub.handle.shutdown();
    assert_eq!(&soon(session.connection.read_datagram()).await.unwrap()[..], b"notify_shutdown");
    assert!(timeout(A_WHILE, session.connection.closed()).await.is_err(), "it has 30 s to leave by itself");
    hub.handle.stop();
    let ConnectionError::ApplicationClosed(close) = soon(session.connection.closed()).await else { panic!() };
    assert_eq!(close.error_code, VarInt::from_u32(0));
}

#[tokio::test]
async fn our_provider_serves_100_streams_of_their_hub_at_once() {
    let realm = Realm::new();
    let hub = legacy::Hub::start(&realm.hub_pair(), realm.ca(), 0);
    let port = hub.address().port();
    let (_control, task) =
        provider_agent(realm.endpoint(Role::Provider, "p"), port, echo().await.to_string(), |_| {}).unwrap();
    tokio::spawn(task);
    soon(hub.journal.wait("session: sc01-provider")).await;
    let (_consumer, address) = legacy::consumer_agent(&realm.pair("c"), realm.ca(), hub.address()).await;
    let mut held = Vec::new();
    for nth in 0..100u8 {
        let mut tcp = TcpStream::connect(address).await.unwrap();
        tcp.write_all(&[nth]).await.unwrap();
        held.push(tcp);
    }
    for (nth, tcp) in (0..100u8).zip(&mut held) {
        assert_eq!(soon(tcp.read_u8()).await.unwrap(), nth);
    }
}

#[tokio::test]
async fn our_consumer_asks_for_the_provider_once_a_session_and_again_when_it_was_stopped() {
    let realm = Realm::new();
    let hub = legacy::Hub::start(&realm.hub_pair(), realm.ca(), 0);
    let _provider = legacy::provider_agent(&realm.pair("p"), realm.ca(), hub.address(), echo().await);
    soon(hub.journal.wait("session: sc01-provider")).await;
    let consumer = Consumer::start(realm.endpoint(Role::Consumer, "c"), hub.address().port()).unwrap();
    let asked = || hub.journal.all().iter().filter(|line| *line == "word: request_provider_start").count();
    let echo = async || {
        let mut stream = consumer.connect().await.unwrap();
        stream.write_all(b"x").await.unwrap();
        assert_eq!(soon(stream.read_u8()).await.unwrap(), b'x');
    };
    echo().await;
    echo().await;
    sleep(A_WHILE).await;
    assert_eq!(asked(), 1);
    hub.say("notify_provider_stopped");
    sleep(A_WHILE).await;
    echo().await;
    sleep(A_WHILE).await;
    assert_eq!(asked(), 2);
}

#[tokio::test]
async fn our_consumer_obeys_standby_and_active_and_ignores_other_words() {
    let realm = Realm::new();
    let hub = legacy::Hub::start(&realm.hub_pair(), realm.ca(), 0);
    let _provider = legacy::provider_agent(&realm.pair("p"), realm.ca(), hub.address(), echo().await);
    soon(hub.journal.wait("session: sc01-provider")).await;
    let consumer = Consumer::start(realm.endpoint(Role::Consumer, "c"), hub.address().port()).unwrap();
    soon(hub.journal.wait("session: sc01-consumer")).await;
    hub.say("notify_standby");
    hub.say("notify_active ");
    hub.say("notify_something");
    sleep(A_WHILE).await;
    let mut stream = consumer.connect().await.unwrap();
    stream.write_all(b"x").await.unwrap();
    assert!(timeout(A_WHILE, stream.read_u8()).await.is_err(), "no new streams on a session that stands by");
    hub.say("notify_active");
    assert_eq!(soon(stream.read_u8()).await.unwrap(), b'x');
}

#[tokio::test]
async fn our_provider_retires_with_the_word_drains_and_closes_with_0() {
    let realm = Realm::new();
    let hub = legacy::Hub::start(&realm.hub_pair(), realm.ca(), 0);
    let port = hub.address().port();
    let (control, task) =
        provider_agent(realm.endpoint(Role::Provider, "p"), port, echo().await.to_string(), |_| {}).unwrap();
    let agent = tokio::spawn(task);
    soon(hub.journal.wait("session: sc01-provider")).await;
    let (_consumer, address) = legacy::consumer_agent(&realm.pair("c"), realm.ca(), hub.address()).await;
    let mut tcp = TcpStream::connect(address).await.unwrap();
    tcp.write_all(b"x").await.unwrap();
    assert_eq!(soon(tcp.read_u8()).await.unwrap(), b'x');
    control.close();
    soon(hub.journal.wait("word: notify_shutdown")).await;
    tcp.write_all(b"y").await.unwrap();
    assert_eq!(soon(tcp.read_u8()).await.unwrap(), b'y', "what is open goes on");
    assert!(!hub.journal.all().iter().any(|line| line.starts_with("closed")), "{:?}", hub.journal.all());
    drop(tcp);
    soon(hub.journal.wait("closed: closed by peer: ")).await;
    assert!(
        hub.journal.all().iter().any(|line| line.starts_with("closed") && line.contains('0')),
        "{:?}",
        hub.journal.all()
    );
    soon(agent).await.unwrap();
}

/// A hub of theirs whose consumer session, ours, is bound to a provider that has gone; another one is there.
async fn bound_to_nobody() -> (legacy::Hub, Consumer) {
    let realm = Realm::new();
    let hub = legacy::Hub::start(&realm.hub_pair(), realm.ca(), 0);
    let port = hub.address().port();
    let mut first = Provider::listen(realm.endpoint(Role::Provider, "p"), port).unwrap();
    soon(hub.journal.wait("session: sc01-provider")).await;
    let consumer = Consumer::start(realm.endpoint(Role::Consumer, "c"), port).unwrap();
    let mut stream = consumer.connect().await.unwrap();
    stream.write_all(b"x").await.unwrap();
    let served = soon(first.accept()).await.unwrap();
    first.control().stop();
    soon(hub.journal.wait("closed")).await;
    drop((served, stream, first));
    let greeting = server(|mut tcp| async move { tcp.write_all(b"220 hello\r\n").await }).await;
    let config = realm.endpoint(Role::Provider, "p");
    let (_control, task) = provider_agent(config, port, greeting.to_string(), |_| {}).unwrap();
    tokio::spawn(task);
    soon(hub.journal.wait_for("session: sc01-provider", 2)).await;
    (hub, consumer)
}

#[tokio::test]
async fn an_empty_end_out_of_their_hub_is_a_reset_when_something_was_sent() {
    let (_hub, consumer) = bound_to_nobody().await;
    let mut stream = consumer.connect().await.unwrap();
    stream.write_all(b"GET").await.unwrap();
    let error = soon(stream.read(&mut [0; 8])).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset, "not to be said twice, and no clean end");
}

#[tokio::test]
async fn an_empty_end_out_of_their_hub_is_tried_once_more_when_nothing_was_sent() {
    let (_hub, consumer) = bound_to_nobody().await;
    let mut stream = consumer.connect().await.unwrap();
    stream.shutdown().await.unwrap();
    let mut got = Vec::new();
    soon(stream.read_to_end(&mut got)).await.unwrap();
    assert_eq!(got, b"220 hello\r\n");
}
