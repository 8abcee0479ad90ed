//! The deployed programs of `sc01`, played on the `quinn` crate (docs/protocols/spn.md, Legacy protocol, LEG-23, LEG-24, LEG-27, LEG-42).
//!
//! Their faults are imitated where a peer can see them: the provider waits for a byte before it dials, and a broken direction
//! ends like a complete one. The consumer continues with a client on another stream when its stream breaks.

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use bytes::Bytes;
use quinn::{
    ClientConfig, Connection, Endpoint, IdleTimeout, RecvStream, SendStream, ServerConfig, TransportConfig, VarInt,
    crypto::rustls::{HandshakeData, QuicClientConfig, QuicServerConfig},
};
use rustls::{
    RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::WebPkiClientVerifier,
};
use tokio::{
    io::AsyncWriteExt,
    net::{TcpListener, TcpStream},
};
use towline_tokio::cli::pki::Pair;

/// The wait before an agent dials again.
const REDIAL: Duration = Duration::from_secs(5);

fn transport() -> Arc<TransportConfig> {
    let mut transport = TransportConfig::default();
    transport
        .max_concurrent_bidi_streams(100u32.into())
        .max_concurrent_uni_streams(0u32.into())
        .max_idle_timeout(Some(IdleTimeout::from(VarInt::from_u32(20_000))))
        .keep_alive_interval(Some(Duration::from_secs(5)))
        .datagram_receive_buffer_size(Some(1 << 20));
    Arc::new(transport)
}

fn chain(pem: &str) -> Vec<CertificateDer<'static>> {
    CertificateDer::pem_slice_iter(pem.as_bytes()).map(|certificate| certificate.expect("PEM")).collect()
}

fn roots(pem: &str) -> RootCertStore {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(chain(pem));
    roots
}

fn key(pair: &Pair) -> PrivateKeyDer<'static> {
    PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).expect("a key")
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

/// The events that an agent has logged.
#[derive(Debug, Default)]
pub struct Journal(Mutex<Vec<String>>);

impl Journal {
    fn note(&self, what: impl Into<String>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(what.into());
    }

    /// All of it so far.
    #[must_use]
    pub fn all(&self) -> Vec<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits until something has been seen.
    pub async fn wait(&self, part: &str) {
        self.wait_for(part, 1).await;
    }

    /// Waits until something has been seen so many times.
    pub async fn wait_for(&self, part: &str, times: usize) {
        for _ in 0..2000 {
            if self.all().iter().filter(|line| line.contains(part)).count() >= times {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("no `{part}` in {:#?}", self.all());
    }
}

/// A running agent; dropping it kills it, as SIGKILL would.
pub struct Agent {
    /// What it has seen.
    pub journal: Arc<Journal>,
    /// Its UDP socket.
    pub endpoint: Endpoint,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn client(alpn: &[&str], pair: Option<&Pair>, ca: &str) -> ClientConfig {
    let builder = rustls::ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("TLS 1.3")
        .with_root_certificates(roots(ca));
    let mut tls = match pair {
        Some(pair) => builder.with_client_auth_cert(chain(&pair.certificate), key(pair)).expect("a certificate"),
        None => builder.with_no_client_auth(),
    };
    tls.alpn_protocols = alpn.iter().map(|alpn| (*alpn).into()).collect();
    let mut config = ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls).expect("a QUIC suite")));
    config.transport_config(transport());
    config
}

/// Dials again and again, and does `work` on each session.
fn agent<W, F>(alpn: &'static str, pair: &Pair, ca: &str, hub: SocketAddr, work: W) -> Agent
where
    W: Fn(Connection, Arc<Journal>) -> F + Send + 'static,
    F: Future<Output = ()> + Send,
{
    let mut endpoint = Endpoint::client(([127, 0, 0, 1], 0).into()).expect("a socket");
    endpoint.set_default_client_config(client(&[alpn], Some(pair), ca));
    let journal = Arc::new(Journal::default());
    let (dialler, seen) = (endpoint.clone(), journal.clone());
    let task = tokio::spawn(async move {
        loop {
            match dialler.connect(hub, "127.0.0.1").expect("a dial").await {
                Ok(connection) => {
                    seen.note("session");
                    // The work ends when the session does, and either may be seen first.
                    work(connection.clone(), seen.clone()).await;
                    if let Some(reason) = connection.close_reason() {
                        seen.note(format!("closed: {reason}"));
                    }
                }
                Err(error) => seen.note(format!("failed: {error}")),
            }
            tokio::time::sleep(REDIAL).await;
        }
    });
    Agent { journal, endpoint, task }
}

/// A provider agent in front of a TCP service.
#[must_use]
pub fn provider_agent(pair: &Pair, ca: &str, hub: SocketAddr, forward: SocketAddr) -> Agent {
    agent("sc01-provider", pair, ca, hub, move |connection: Connection, journal: Arc<Journal>| async move {
        loop {
            tokio::select! {
                stream = connection.accept_bi() => match stream {
                    Ok((send, recv)) => drop(tokio::spawn(serve(send, recv, forward))),
                    Err(_) => return,
                },
                word = connection.read_datagram() => {
                    let Ok(word) = word else { return };
                    journal.note(format!("word: {}", String::from_utf8_lossy(&word)));
                    if &word[..] == b"notify_shutdown" {
                        // No streams any more; answer; the streams end; close.
                        connection.set_max_concurrent_bi_streams(0u32.into());
                        connection.send_datagram(Bytes::from_static(b"notify_shutdown")).expect("a word");
                        tokio::time::sleep(Duration::from_millis(300)).await;
                        connection.close(0u32.into(), b"Graceful Shutdown: Completed");
                    }
                }
            }
        }
    })
}

/// One stream: a byte, then the dial, then everything.
async fn serve(mut send: SendStream, mut recv: RecvStream, forward: SocketAddr) {
    let Ok(Some(first)) = recv.read_chunk(1, true).await else { return };
    let Ok(mut tcp) = TcpStream::connect(forward).await else {
        let _ = send.reset(1u32.into());
        return;
    };
    if tcp.write_all(&first.bytes).await.is_err() {
        let _ = send.reset(2u32.into());
        return;
    }
    splice(tcp, send, recv).await;
}

/// Copies both directions. A broken direction is finished, not reset, as in the original.
async fn splice(tcp: TcpStream, mut send: SendStream, mut recv: RecvStream) {
    let (mut from_tcp, mut to_tcp) = tcp.into_split();
    tokio::join!(
        async {
            let _ = tokio::io::copy(&mut from_tcp, &mut send).await;
            let _ = send.finish();
        },
        async {
            let _ = tokio::io::copy(&mut recv, &mut to_tcp).await;
            let _ = to_tcp.shutdown().await;
        }
    );
}

/// Starts a consumer agent. Returns its TCP address.
pub async fn consumer_agent(pair: &Pair, ca: &str, hub: SocketAddr) -> (Agent, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a listener");
    let address = listener.local_addr().expect("its address");
    let listener = Arc::new(listener);
    let agent = agent("sc01-consumer", pair, ca, hub, move |connection, journal| {
        consume(connection, journal, listener.clone())
    });
    (agent, address)
}

async fn consume(connection: Connection, journal: Arc<Journal>, listener: Arc<TcpListener>) {
    let mut is_first = true;
    loop {
        tokio::select! {
            tcp = listener.accept() => {
                let (tcp, _) = tcp.expect("a connection");
                if std::mem::take(&mut is_first) {
                    connection.send_datagram(Bytes::from_static(b"request_provider_start")).expect("a word");
                }
                tokio::spawn(carry(tcp, connection.clone(), journal.clone()));
            }
            word = connection.read_datagram() => {
                let Ok(word) = word else { return };
                journal.note(format!("word: {}", String::from_utf8_lossy(&word)));
                if &word[..] == b"notify_shutdown" {
                    connection.send_datagram(Bytes::from_static(b"notify_shutdown")).expect("a word");
                    tokio::time::sleep(Duration::from_millis(300)).await;
                    connection.close(0u32.into(), b"Graceful Shutdown: Completed");
                }
            }
        }
    }
}

/// A client's connection. A broken stream counts as a failed try, whatever has passed on it: another stream continues in its place.
async fn carry(tcp: TcpStream, connection: Connection, journal: Arc<Journal>) {
    let (mut from_tcp, mut to_tcp) = tcp.into_split();
    let began = Instant::now();
    for attempt in 0..4 {
        if attempt > 0 {
            journal.note("another stream for the same client");
            tokio::time::sleep(Duration::from_secs(2)).await;
        }
        if began.elapsed() > Duration::from_secs(30) {
            return;
        }
        let Ok((mut send, mut recv)) = connection.open_bi().await else { continue };
        let up = async {
            tokio::io::copy(&mut from_tcp, &mut send).await?;
            let _ = send.finish();
            Ok::<_, io::Error>(())
        };
        let down = async {
            tokio::io::copy(&mut recv, &mut to_tcp).await?;
            to_tcp.shutdown().await
        };
        if tokio::try_join!(up, down).is_ok() {
            return;
        }
    }
}

/// A hub: the oldest provider serves, and each consumer keeps the one it found.
pub struct Hub {
    /// What it has seen.
    pub journal: Arc<Journal>,
    /// Its UDP socket.
    pub endpoint: Endpoint,
    sessions: Arc<Mutex<Vec<Connection>>>,
}

impl Hub {
    /// Starts it on a free port, or on the one given.
    #[must_use]
    pub fn start(pair: &Pair, ca: &str, port: u16) -> Self {
        let verifier =
            WebPkiClientVerifier::builder_with_provider(roots(ca).into(), provider()).build().expect("a verifier");
        let mut tls = rustls::ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .expect("TLS 1.3")
            .with_client_cert_verifier(verifier)
            .with_single_cert(chain(&pair.certificate), key(pair))
            .expect("a certificate");
        tls.alpn_protocols = vec![b"sc01-provider".to_vec(), b"sc01-consumer".to_vec()];
        let mut config = ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(tls).expect("a QUIC suite")));
        config.transport_config(transport());
        let endpoint = Endpoint::server(config, ([127, 0, 0, 1], port).into()).expect("a socket");
        let (journal, sessions) = (Arc::new(Journal::default()), Arc::new(Mutex::new(Vec::new())));
        let providers: Arc<Mutex<Vec<Connection>>> = Arc::default();
        let (listener, seen, all) = (endpoint.clone(), journal.clone(), sessions.clone());
        tokio::spawn(async move {
            while let Some(incoming) = listener.accept().await {
                let (seen, all, providers) = (seen.clone(), all.clone(), providers.clone());
                tokio::spawn(async move {
                    let Ok(connection) = incoming.await else { return };
                    all.lock().unwrap_or_else(PoisonError::into_inner).push(connection.clone());
                    let data = connection.handshake_data().and_then(|data| data.downcast::<HandshakeData>().ok());
                    let alpn = data.and_then(|data| data.protocol.clone()).unwrap_or_default();
                    seen.note(format!("session: {}", String::from_utf8_lossy(&alpn)));
                    tokio::spawn(listen(connection.clone(), seen.clone()));
                    if alpn == b"sc01-provider" {
                        providers.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
                    } else {
                        consumer(connection, &providers).await;
                    }
                });
            }
        });
        Self { journal, endpoint, sessions }
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.endpoint.local_addr().expect("its address")
    }

    /// Sends a control datagram to every session.
    pub fn say(&self, word: &'static str) {
        for session in self.sessions.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            let _ = session.send_datagram(Bytes::from_static(word.as_bytes()));
        }
    }
}

async fn listen(connection: Connection, journal: Arc<Journal>) {
    loop {
        match connection.read_datagram().await {
            Ok(word) => journal.note(format!("word: {}", String::from_utf8_lossy(&word))),
            Err(reason) => return journal.note(format!("closed: {reason}")),
        }
    }
}

async fn consumer(connection: Connection, providers: &Mutex<Vec<Connection>>) {
    let live = || {
        let providers = providers.lock().unwrap_or_else(PoisonError::into_inner);
        providers.iter().find(|provider| provider.close_reason().is_none()).cloned()
    };
    let mut bound = None;
    while let Ok((send, recv)) = connection.accept_bi().await {
        while bound.is_none() {
            bound = live();
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let Some(provider) = &bound else { return };
        match provider.open_bi().await {
            Ok((to, from)) => {
                tokio::spawn(glue(recv, to));
                tokio::spawn(glue(from, send));
            }
            // The stream is lost: it ends without a byte.
            Err(_) => bound = None,
        }
    }
}

async fn glue(mut from: RecvStream, mut to: SendStream) {
    let _ = tokio::io::copy(&mut from, &mut to).await;
    let _ = to.finish();
}

/// A session that a test drives by hand, byte by byte.
pub struct Session {
    /// The QUIC connection.
    pub connection: Connection,
    _endpoint: Endpoint,
}

impl Session {
    /// Dials a hub as `name`, offering these protocols.
    pub async fn dial(alpn: &[&str], pair: &Pair, ca: &str, hub: SocketAddr, name: &str) -> Self {
        let mut endpoint = Endpoint::client(([127, 0, 0, 1], 0).into()).expect("a socket");
        endpoint.set_default_client_config(client(alpn, Some(pair), ca));
        let connection = endpoint.connect(hub, name).expect("a dial").await.expect("a session");
        Self { connection, _endpoint: endpoint }
    }

    /// The protocol that the hub chose.
    #[must_use]
    pub fn alpn(&self) -> String {
        let data = self.connection.handshake_data().and_then(|data| data.downcast::<HandshakeData>().ok());
        let alpn = data.and_then(|data| data.protocol.clone()).unwrap_or_default();
        String::from_utf8_lossy(&alpn).into_owned()
    }
}

/// A consumer that only sends control datagrams, as fast as it can.
pub async fn flood(pair: &Pair, ca: &str, hub: SocketAddr, words: usize) {
    let mut endpoint = Endpoint::client(([127, 0, 0, 1], 0).into()).expect("a socket");
    endpoint.set_default_client_config(client(&["sc01-consumer"], Some(pair), ca));
    let connection = endpoint.connect(hub, "127.0.0.1").expect("a dial").await.expect("a session");
    for _ in 0..words {
        connection.send_datagram_wait(Bytes::from_static(b"hello, is anybody there?")).await.expect("a word");
    }
    connection.close(0u32.into(), b"done");
    endpoint.wait_idle().await;
}

/// Tries a session with any certificate, or none. Returns how the session ended within its first second.
pub async fn attempt(alpn: &str, pair: Option<&Pair>, ca: &str, hub: SocketAddr) -> String {
    let mut endpoint = Endpoint::client(([127, 0, 0, 1], 0).into()).expect("a socket");
    endpoint.set_default_client_config(client(&[alpn], pair, ca));
    match endpoint.connect(hub, "127.0.0.1").expect("a dial").await {
        // In TLS 1.3 a client learns of its refusal only after its own handshake.
        Ok(connection) => match tokio::time::timeout(Duration::from_secs(1), connection.closed()).await {
            Ok(reason) => reason.to_string(),
            Err(_) => "established".to_owned(),
        },
        Err(error) => error.to_string(),
    }
}
