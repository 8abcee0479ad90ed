//! Names to addresses, by DNS.

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "a host reads what the system says about name servers; machines and bindings get names resolved"
)]

use std::{
    fmt,
    fs::{self, File},
    net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use hickory_resolver::{
    Hosts,
    config::{ConnectionConfig, LookupIpStrategy, NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts},
    net::{NetError, runtime::RuntimeProvider},
    system_conf::parse_resolv_conf,
};

/// Where the system says which servers are asked,
const RESOLV_CONF: &str = "/etc/resolv.conf";
/// and which names need none.
const HOSTS: &str = "/etc/hosts";
/// How long an answer is believed at most, whatever it says of itself.
const BELIEVED: Duration = Duration::from_secs(60);
/// The same of a "no": an operator who has just made a name does not want to wait.
const NO_BELIEVED: Duration = Duration::from_secs(1);
/// The time limit of a server on this machine that no setting has named.
const LOCAL_ANSWERS: Duration = Duration::from_secs(1);

/// The DNS library over the transport `P`.
type Asker<P> = hickory_resolver::Resolver<P>;

/// Asks name servers for the addresses of names. It keeps an answer for as long as that says, but for a minute at most, and a "no" for a second.
///
/// What it takes from the system is read again when it has changed: a laptop moves, and a machine may start before its network.
/// `P` is the runtime's transport for DNS.
#[derive(Clone)]
pub struct Resolver<P: RuntimeProvider> {
    source: Arc<Source>,
    /// Answers are kept.
    keeps: bool,
    asker: Arc<Mutex<Option<Built<P>>>>,
}

impl<P: RuntimeProvider> fmt::Debug for Resolver<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Resolver").field("source", &self.source).field("keeps", &self.keeps).finish_non_exhaustive()
    }
}

/// Which servers are asked.
#[derive(Debug)]
enum Source {
    /// This one.
    Server(SocketAddr),
    /// Those of two files of the system.
    Files { resolv_conf: PathBuf, hosts: PathBuf },
}

/// What was made of the settings of a moment.
#[derive(Clone)]
struct Built<P: RuntimeProvider> {
    asker: Arc<Asker<P>>,
    /// The files as they were.
    stamps: [Option<Stamp>; 2],
    /// The settings name no server.
    has_no_server: bool,
}

/// A file, as far as a change shows: device, inode, length, and the times of its last changes.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Stamp([u64; 3], [i64; 4]);

/// Why a name has no addresses.
#[derive(Debug, thiserror::Error)]
pub enum ResolveError {
    /// The system names no server, and the one that is asked then has not answered.
    #[error("{} names no DNS server, and none answers on this machine: {error}", .path.display())]
    NoServer {
        /// The file that should name some.
        path: PathBuf,
        /// What came of it.
        error: NetError,
    },
    /// No server has answered for so long that a new attempt is better.
    #[error("no answer within 10 s")]
    NoAnswer,
    /// There is no such name, or it has no addresses.
    #[error("the name does not exist")]
    NoSuchName,
    /// No server has answered, or not with what was asked.
    #[error(transparent)]
    Failed(NetError),
}

impl<P: RuntimeProvider + Default> Resolver<P> {
    /// Asks the servers that the system asks; if it names none, the one on this machine (resolv.conf(5)).
    #[must_use]
    pub fn system() -> Self {
        Self::of_files(RESOLV_CONF, HOSTS)
    }

    /// The same, with other files than `/etc/resolv.conf` and `/etc/hosts`.
    #[must_use]
    pub fn of_files(resolv_conf: impl Into<PathBuf>, hosts: impl Into<PathBuf>) -> Self {
        Self::new(Source::Files { resolv_conf: resolv_conf.into(), hosts: hosts.into() })
    }

    /// Asks the server at `address` and no other.
    #[must_use]
    pub fn at(address: SocketAddr) -> Self {
        Self::new(Source::Server(address))
    }

    fn new(source: Source) -> Self {
        Self { source: Arc::new(source), keeps: true, asker: Arc::default() }
    }

    /// The same, but it keeps no answer: each question is asked.
    #[must_use]
    pub fn fresh(self) -> Self {
        Self { keeps: false, asker: Arc::default(), ..self }
    }

    /// The addresses of a name, of both families, in the order of the answers.
    ///
    /// # Errors
    /// The name has no addresses, or no server answers.
    pub async fn addresses(&self, name: &str) -> Result<Vec<IpAddr>, ResolveError> {
        let Built { asker, has_no_server, .. } = self.current().map_err(ResolveError::Failed)?;
        match (asker.lookup_ip(name).await, &*self.source) {
            (Ok(found), _) => Ok(found.iter().collect()),
            (Err(error), _) if error.is_no_records_found() => Err(ResolveError::NoSuchName),
            (Err(error), Source::Files { resolv_conf, .. }) if has_no_server => {
                Err(ResolveError::NoServer { path: resolv_conf.clone(), error })
            }
            (Err(error), _) => Err(ResolveError::Failed(error)),
        }
    }

    /// What the settings of now make.
    fn current(&self) -> Result<Built<P>, NetError> {
        let mut built = self.asker.lock().unwrap_or_else(PoisonError::into_inner);
        // Looked at before they are read: a change behind our back is seen the next time.
        let stamps = match &*self.source {
            Source::Server(_) => [None, Stamp::of(Path::new(HOSTS))],
            Source::Files { resolv_conf, hosts } => [Stamp::of(resolv_conf), Stamp::of(hosts)],
        };
        if let Some(built) = built.as_ref().filter(|built| built.stamps == stamps) {
            return Ok(built.clone());
        }
        let made = self.build(stamps)?;
        Ok(built.insert(made).clone())
    }

    fn build(&self, stamps: [Option<Stamp>; 2]) -> Result<Built<P>, NetError> {
        let mut has_no_server = false;
        let (config, mut options, hosts) = match &*self.source {
            Source::Server(address) => {
                let config = ResolverConfig::from_name_servers(vec![name_server(*address)]);
                (config, ResolverOpts::default(), system_hosts(Path::new(HOSTS)))
            }
            Source::Files { resolv_conf, hosts } => {
                let (config, options) =
                    fs::read(resolv_conf).map_err(NetError::from).and_then(parse_resolv_conf).unwrap_or_else(|_| {
                        has_no_server = true;
                        let local = name_server(SocketAddr::from((Ipv4Addr::LOCALHOST, 53)));
                        // Mostly there is none, and the settings are about to come.
                        let mut options = ResolverOpts::default();
                        (options.timeout, options.attempts) = (LOCAL_ANSWERS, 1);
                        (ResolverConfig::from_name_servers(vec![local]), options)
                    });
                (config, options, system_hosts(hosts))
            }
        };
        options.ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
        options.use_hosts_file = ResolveHosts::Never; // read above
        (options.positive_max_ttl, options.negative_max_ttl) = (Some(BELIEVED), Some(NO_BELIEVED));
        if !self.keeps {
            (options.positive_max_ttl, options.negative_max_ttl) = (Some(Duration::ZERO), Some(Duration::ZERO));
            options.cache_size = 0;
        }
        let builder = hickory_resolver::Resolver::builder_with_config(config, P::default());
        let mut asker = builder.with_options(options).build()?;
        asker.set_hosts(Arc::new(hosts));
        Ok(Built { asker: Arc::new(asker), stamps, has_no_server })
    }
}

impl Stamp {
    /// `None` for a file that is not there.
    fn of(path: &Path) -> Option<Self> {
        let found = fs::metadata(path).ok()?;
        let times = [found.mtime(), found.mtime_nsec(), found.ctime(), found.ctime_nsec()];
        Some(Self([found.dev(), found.ino(), found.len()], times))
    }
}

fn system_hosts(path: &Path) -> Hosts {
    let mut hosts = Hosts::default();
    // A file that is not there, or breaks off, is one without more names.
    let _ = File::open(path).and_then(|file| hosts.read_hosts_conf(file));
    hosts
}

/// A server that is asked over UDP, and over TCP for what UDP cannot carry (RFC 7766 §5).
fn name_server(address: SocketAddr) -> NameServerConfig {
    let at_port = |mut connection: ConnectionConfig| {
        connection.port = address.port();
        connection
    };
    let connections = vec![at_port(ConnectionConfig::udp()), at_port(ConnectionConfig::tcp())];
    // A "no" of the one server there is to ask is to be believed.
    NameServerConfig::new(address.ip(), true, connections)
}

/// Whether this machine has a way to an address: a name may have addresses of a family that it has not.
#[must_use]
pub fn is_usable(address: SocketAddr) -> bool {
    let any: IpAddr = if address.is_ipv6() { [0; 16].into() } else { Ipv4Addr::UNSPECIFIED.into() };
    // On UDP, to connect is to look for a route; nothing is sent.
    UdpSocket::bind((any, 0)).and_then(|socket| socket.connect(address)).is_ok()
}
