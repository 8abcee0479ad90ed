//! Our programs with those of `sc01`, in both directions (docs/protocols/spn.md, Legacy protocol). What each side may rely on, line by line:
//! `checklist.rs`.

use std::io;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, IsCa, KeyPair, date_time_ymd,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use towline_core::spn::{Role, hub::Notice, record::RecordEvent};
use towline_tests::{
    legacy,
    ours::{OurHub, Realm, echo, is_session_end, server, soon},
};
use towline_tokio::{
    cli::pki::Pair,
    endpoint::{Consumer, Provider, provider_agent},
};

/// A megabyte there and back, with a half-close in between.
async fn round_trip(mut stream: impl AsyncRead + AsyncWrite + Unpin) {
    let data: Vec<u8> = (0..1_000_000u32).map(|i| (i % 251) as u8).collect();
    let expected = data.clone();
    let (mut read, mut write) = tokio::io::split(&mut stream);
    let up = async {
        write.write_all(&data).await.unwrap();
        write.shutdown().await.unwrap();
    };
    let down = async {
        let mut got = Vec::new();
        read.read_to_end(&mut got).await.unwrap();
        got
    };
    let ((), got) = soon(async { tokio::join!(up, down) }).await;
    assert!(got == expected, "{} bytes came back", got.len());
}

#[tokio::test]
async fn our_hub_between_their_agents() {
    let realm = Realm::new();
    let hub = OurHub::start(&realm, false);
    let provider = legacy::provider_agent(&realm.pair("p"), realm.ca(), hub.address(), echo().await);
    hub.session_of(Role::Provider).await;
    let (consumer, address) = legacy::consumer_agent(&realm.pair("c"), realm.ca(), hub.address()).await;
    hub.session_of(Role::Consumer).await;
    for _ in 0..3 {
        round_trip(TcpStream::connect(address).await.unwrap()).await;
    }
    // SIGTERM: the control datagram, their answer, their close.
    hub.handle.shutdown();
    soon(provider.journal.wait("word: notify_shutdown")).await;
    soon(consumer.journal.wait("word: notify_shutdown")).await;
    soon(hub.wait("end", |notice| matches!(notice, Notice::Stopped))).await;
    assert_eq!(hub.notices().iter().filter(|notice| is_session_end(notice)).count(), 2);
}

#[tokio::test]
async fn more_connections_of_theirs_than_credit_wait_in_order() {
    let realm = Realm::new();
    let hub = OurHub::start(&realm, false);
    let _provider = legacy::provider_agent(&realm.pair("p"), realm.ca(), hub.address(), echo().await);
    hub.session_of(Role::Provider).await;
    let (_consumer, address) = legacy::consumer_agent(&realm.pair("c"), realm.ca(), hub.address()).await;
    hub.session_of(Role::Consumer).await;
    // Their provider allows 100 at once; the others are served as those end.
    let mut held = Vec::new();
    for _ in 0..150 {
        let mut tcp = TcpStream::connect(address).await.unwrap();
        tcp.write_all(b"x").await.unwrap();
        held.push(tcp);
    }
    for mut tcp in held {
        let mut got = [0];
        soon(tcp.read_exact(&mut got)).await.unwrap();
    }
}

#[tokio::test]
async fn our_endpoints_with_their_hub() {
    let realm = Realm::new();
    let hub = legacy::Hub::start(&realm.hub_pair(), realm.ca(), 0);
    let port = hub.address().port();
    let config = realm.endpoint(Role::Provider, "p");
    let (control, task) = provider_agent(config, port, echo().await.to_string(), |_| {}).unwrap();
    tokio::spawn(task);
    soon(hub.journal.wait("session: sc01-provider")).await;
    let consumer = Consumer::start(realm.endpoint(Role::Consumer, "c"), port).unwrap();
    round_trip(consumer.connect().await.unwrap()).await;
    soon(hub.journal.wait("word: request_provider_start")).await;
    round_trip(consumer.connect().await.unwrap()).await;
    // The control datagram makes our endpoints leave cleanly.
    hub.say("notify_shutdown");
    soon(hub.journal.wait("word: notify_shutdown")).await;
    control.close();
}

#[tokio::test]
async fn their_consumer_with_our_provider() {
    let realm = Realm::new();
    let hub = OurHub::start(&realm, false);
    let mut ours = Provider::listen(realm.endpoint(Role::Provider, "p"), hub.address().port()).unwrap();
    hub.session_of(Role::Provider).await;
    let (_theirs, address) = legacy::consumer_agent(&realm.pair("c"), realm.ca(), hub.address()).await;
    hub.session_of(Role::Consumer).await;
    tokio::spawn(async move {
        while let Some(mut stream) = ours.accept().await {
            tokio::spawn(async move {
                let (mut read, mut write) = tokio::io::split(&mut stream);
                tokio::io::copy(&mut read, &mut write).await.unwrap();
                write.shutdown().await.unwrap();
            });
        }
    });
    round_trip(TcpStream::connect(address).await.unwrap()).await;
}

#[tokio::test]
async fn our_consumer_with_their_provider() {
    let realm = Realm::new();
    let hub = OurHub::start(&realm, false);
    let _theirs = legacy::provider_agent(&realm.pair("p"), realm.ca(), hub.address(), echo().await);
    hub.session_of(Role::Provider).await;
    let ours = Consumer::start(realm.endpoint(Role::Consumer, "c"), hub.address().port()).unwrap();
    round_trip(ours.connect().await.unwrap()).await;
}

#[tokio::test]
async fn a_server_that_speaks_first_is_heard_without_a_byte_from_the_client() {
    let realm = Realm::new();
    let hub = OurHub::start(&realm, false);
    let greeting = server(|mut tcp| async move {
        tcp.write_all(b"220 hello\r\n").await?;
        tcp.shutdown().await
    })
    .await;
    let config = realm.endpoint(Role::Provider, "p");
    let (_control, task) = provider_agent(config, hub.address().port(), greeting.to_string(), |_| {}).unwrap();
    tokio::spawn(task);
    hub.session_of(Role::Provider).await;
    let consumer = Consumer::start(realm.endpoint(Role::Consumer, "c"), hub.address().port()).unwrap();
    let mut stream = consumer.connect().await.unwrap();
    let mut got = vec![0; 11];
    soon(stream.read_exact(&mut got)).await.unwrap();
    assert_eq!(got, b"220 hello\r\n");
}

#[tokio::test]
async fn their_provider_that_cannot_dial_is_a_reset_for_our_consumer() {
    let realm = Realm::new();
    let hub = OurHub::start(&realm, false);
    let nowhere = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let _theirs = legacy::provider_agent(&realm.pair("p"), realm.ca(), hub.address(), nowhere);
    hub.session_of(Role::Provider).await;
    let consumer = Consumer::start(realm.endpoint(Role::Consumer, "c"), hub.address().port()).unwrap();
    let mut stream = consumer.connect().await.unwrap();
    stream.write_all(b"x").await.unwrap();
    let error = soon(stream.read(&mut [0; 8])).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn strangers_are_refused_on_sc01_too() {
    let realm = Realm::new();
    let hub = OurHub::start(&realm, false);
    let somewhere = echo().await;
    // A name that is not in the inventory.
    let stranger = legacy::provider_agent(&realm.pair("x"), realm.ca(), hub.address(), somewhere);
    soon(stranger.journal.wait("identity not entitled")).await;
    // A consumer's certificate in the provider's role.
    let impostor = legacy::provider_agent(&realm.pair("c"), realm.ca(), hub.address(), somewhere);
    soon(impostor.journal.wait("identity not entitled")).await;
    // Another realm's certificate.
    let _foreign = legacy::provider_agent(&Realm::new().pair("p"), realm.ca(), hub.address(), somewhere);
    hub.refusal("UnknownIssuer").await;
    hub.refusal("(sc01-provider) \"CN=c\": identity not entitled").await;
}

#[tokio::test]
async fn a_singletons_second_provider_is_refused() {
    let realm = Realm::new();
    let hub = OurHub::start(&realm, true);
    let somewhere = echo().await;
    let first = legacy::provider_agent(&realm.pair("p"), realm.ca(), hub.address(), somewhere);
    hub.session_of(Role::Provider).await;
    let second = legacy::provider_agent(&realm.pair("p2"), realm.ca(), hub.address(), somewhere);
    soon(second.journal.wait("singleton")).await;
    hub.refusal("code 0x17").await;
    // It redials, and so becomes a stand-by.
    first.endpoint.close(0u32.into(), b"shutting down");
    drop(first);
    let is_second = |notice: &Notice| {
        matches!(notice, Notice::Record(record)
            if matches!(&record.event, RecordEvent::StartSession(session) if session.end_point == "CN=p2"))
    };
    soon(hub.wait("the second", is_second)).await;
}

#[tokio::test]
async fn a_consumer_of_theirs_waits_for_a_provider_and_keeps_its_session() {
    let realm = Realm::new();
    let hub = OurHub::start(&realm, false);
    let (_consumer, address) = legacy::consumer_agent(&realm.pair("c"), realm.ca(), hub.address()).await;
    hub.session_of(Role::Consumer).await;
    let mut early = TcpStream::connect(address).await.unwrap();
    early.write_all(b"early").await.unwrap();
    let _provider = legacy::provider_agent(&realm.pair("p"), realm.ca(), hub.address(), echo().await);
    let mut got = [0; 5];
    soon(early.read_exact(&mut got)).await.unwrap();
    assert_eq!(&got, b"early");
    round_trip(TcpStream::connect(address).await.unwrap()).await;
}

#[tokio::test]
async fn a_provider_of_theirs_that_comes_back_serves_the_very_next_connection() {
    let realm = Realm::new();
    let hub = OurHub::start(&realm, false);
    let somewhere = echo().await;
    let provider = legacy::provider_agent(&realm.pair("p"), realm.ca(), hub.address(), somewhere);
    hub.session_of(Role::Provider).await;
    let (_consumer, address) = legacy::consumer_agent(&realm.pair("c"), realm.ca(), hub.address()).await;
    round_trip(TcpStream::connect(address).await.unwrap()).await;
    provider.endpoint.close(0u32.into(), b"shutting down");
    drop(provider);
    soon(hub.wait("the provider's end", is_session_end)).await;
    let _again = legacy::provider_agent(&realm.pair("p"), realm.ca(), hub.address(), somewhere);
    round_trip(TcpStream::connect(address).await.unwrap()).await;
}

#[tokio::test]
async fn certificates_that_are_none_are_refused_by_name() {
    // A CA of its own, for certificates that no good one would make.
    let params = |name: &str| {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        if !name.is_empty() {
            params.distinguished_name.push(DnType::CommonName, name);
        }
        params
    };
    let mut root = params("odd ca");
    root.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca = CertifiedIssuer::self_signed(root, KeyPair::generate().unwrap()).unwrap();
    let sign = |params: CertificateParams| {
        let key = KeyPair::generate().unwrap();
        Pair { certificate: params.signed_by(&key, &ca).unwrap().pem(), key: key.serialize_pem() }
    };
    let expired = {
        let mut params = params("c");
        params.not_after = date_time_ymd(2020, 1, 1);
        sign(params)
    };
    let (nameless, good) = (sign(params("")), sign(params("c")));
    let realm = Realm::new();
    let hub = OurHub::start_for(&realm, false, &ca.pem());
    let attempt = async |pair| legacy::attempt("sc01-consumer", pair, realm.ca(), hub.address()).await;
    assert_eq!(attempt(Some(&good)).await, "established");
    assert!(attempt(Some(&expired)).await.contains("expired"));
    hub.refusal("certificate expired").await;
    assert!(attempt(None).await.contains("certificate"));
    hub.refusal("peer sent no certificates").await;
    let reason = attempt(Some(&nameless)).await;
    assert!(reason.contains("no Common Name") && reason.contains("1"), "{reason}");
    hub.refusal("code 0x1").await;
    // And a client that offers neither protocol.
    let reason = legacy::attempt("sc03-consumer", Some(&good), realm.ca(), hub.address()).await;
    assert_ne!(reason, "established");
    hub.refusal("0x178").await;
}
