//! A hub of ours in the test's own process, certificates for it, and TCP servers, for tests against the programs of `sc01`.

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    net::{TcpListener, TcpStream},
    time::timeout,
};
use towline_core::{
    quic::{Identity, Roots},
    spn::{
        Role,
        endpoint::Config as EndpointConfig,
        hub::{Config, Notice, Service},
        record::RecordEvent,
    },
};
use towline_tokio::{
    cli::pki::{Authority, Pair},
    hub::HubHandle,
};

/// Certificates of a realm.
pub struct Realm {
    authority: Authority,
}

impl Default for Realm {
    fn default() -> Self {
        Self::new()
    }
}

impl Realm {
    /// A new certificate authority.
    #[must_use]
    pub fn new() -> Self {
        Self { authority: Authority::new("r").expect("an authority") }
    }

    /// An endpoint's certificate and key.
    #[must_use]
    pub fn pair(&self, name: &str) -> Pair {
        self.authority.endpoint(name).expect("a certificate")
    }

    /// The authority's certificate.
    #[must_use]
    pub fn ca(&self) -> &str {
        &self.authority.certificate
    }

    /// A hub's certificate and key, for an IP address and a name.
    #[must_use]
    pub fn hub_pair(&self) -> Pair {
        self.authority.hub(&["127.0.0.1".to_owned(), "localhost".to_owned()]).expect("a certificate")
    }

    /// The record of a hub with one service, its providers `p` and `p2`, and its consumer `c`.
    #[must_use]
    pub fn hub(&self, bind: SocketAddr) -> Config {
        let pair = self.hub_pair();
        let mut config = Config::new("r", "hub", bind);
        (config.certificate, config.key) = (pair.certificate, pair.key);
        config.client_ca = self.ca().to_owned();
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        config.services = vec![Service {
            urn: "urn:s".to_owned(),
            providers: names(&["p", "p2"]),
            consumers: names(&["c"]),
            singleton: false,
            availability: None,
        }];
        config
    }

    /// Settings of an endpoint of ours.
    #[must_use]
    pub fn endpoint(&self, role: Role, name: &str) -> EndpointConfig {
        let pair = self.pair(name);
        let identity = Identity::from_pem(&pair.certificate, &pair.key).expect("a pair");
        EndpointConfig::new(role, "127.0.0.1", identity, Roots::from_pem(self.ca()).expect("a CA"))
    }
}

/// Our hub, with its notices.
pub struct OurHub {
    /// Its control.
    pub handle: HubHandle,
    notices: Arc<Mutex<Vec<Notice>>>,
}

impl OurHub {
    /// With one service, its providers `p` and `p2`, and its consumer `c`.
    #[must_use]
    pub fn start(realm: &Realm, singleton: bool) -> Self {
        Self::start_for(realm, singleton, realm.ca())
    }

    /// The same, for endpoints of another authority.
    #[must_use]
    pub fn start_for(realm: &Realm, singleton: bool, client_ca: &str) -> Self {
        let mut config = realm.hub(SocketAddr::from(([127, 0, 0, 1], 0)));
        config.client_ca = client_ca.to_owned();
        config.services.iter_mut().for_each(|service| service.singleton = singleton);
        let notices = Arc::new(Mutex::new(Vec::new()));
        let collected = notices.clone();
        let collect = move |notice| collected.lock().unwrap_or_else(PoisonError::into_inner).push(notice);
        Self { handle: HubHandle::start(config, collect).expect("a hub"), notices }
    }

    /// Its UDP address.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.handle.local_addr()
    }

    /// All notices so far.
    #[must_use]
    pub fn notices(&self) -> Vec<Notice> {
        self.notices.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits for a notice.
    pub async fn wait(&self, what: &str, is_it: impl Fn(&Notice) -> bool) {
        for _ in 0..2000 {
            if self.notices().iter().any(&is_it) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("no {what} in {:#?}", self.notices());
    }

    /// Waits for a session.
    pub async fn session_of(&self, role: Role) {
        self.wait("session", |notice| {
            matches!(notice, Notice::Record(record)
                if matches!(&record.event, RecordEvent::StartSession(session) if session.role == role))
        })
        .await;
    }

    /// Waits for a refusal.
    pub async fn refusal(&self, text: &str) {
        self.wait(text, |notice| matches!(notice, Notice::Refused(refusal) if refusal.to_string().contains(text)))
            .await;
    }
}

/// Whether a notice is a session's end record.
#[must_use]
pub fn is_session_end(notice: &Notice) -> bool {
    matches!(notice, Notice::Record(record) if matches!(record.event, RecordEvent::EndSession { .. }))
}

/// A TCP server that sends everything back.
pub async fn echo() -> SocketAddr {
    server(|mut tcp| async move {
        let (mut read, mut write) = tcp.split();
        tokio::io::copy(&mut read, &mut write).await.map(drop)
    })
    .await
}

/// A TCP server that runs `habit` on each connection.
pub async fn server<F: Future<Output = io::Result<()>> + Send + 'static>(
    habit: impl Fn(TcpStream) -> F + Send + 'static,
) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a listener");
    let address = listener.local_addr().expect("its address");
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            tokio::spawn(habit(tcp));
        }
    });
    address
}

/// Waits for a future that must end soon.
pub async fn soon<T>(what: impl Future<Output = T>) -> T {
    timeout(Duration::from_secs(20), what).await.expect("in time")
}
