//! The real programs, started and watched by tests.

use std::{
    fs,
    io::{BufRead, BufReader, Read},
    net::{SocketAddr, TcpListener, UdpSocket},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Condvar, Mutex, PoisonError},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};

/// Time limit of every wait.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// The directory of the built programs: beside this test's own directory.
#[must_use]
pub fn path_of(program: &str) -> PathBuf {
    let test = std::env::current_exe().expect("the test's own path");
    let directory = test.parent().and_then(Path::parent).expect("target/PROFILE");
    let path = directory.join(program);
    assert!(path.exists(), "{} is missing: run `cargo test --workspace`, which builds it", path.display());
    path
}

/// A free UDP port. Another process could take it before its use; this is unlikely.
#[must_use]
pub fn free_udp_port() -> u16 {
    UdpSocket::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).expect("a UDP port").port()
}

/// A free TCP address on loopback.
#[must_use]
pub fn free_tcp_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a TCP port")
}

/// Lines that a program has written so far.
#[derive(Default)]
struct Lines {
    lines: Mutex<Vec<String>>,
    more: Condvar,
}

impl Lines {
    fn collect(self: Arc<Self>, pipe: impl Read + Send + 'static) -> JoinHandle<()> {
        thread::spawn(move || {
            for line in BufReader::new(pipe).lines().map_while(Result::ok) {
                self.lines.lock().unwrap_or_else(PoisonError::into_inner).push(line);
                self.more.notify_all();
            }
        })
    }

    fn wait(&self, what: &str, is_it: impl Fn(&str) -> bool) -> String {
        let deadline = Instant::now() + PATIENCE;
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(line) = lines.iter().find(|line| is_it(line)) {
                return line.clone();
            }
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "no line with {what}; there are:\n{}", lines.join("\n"));
            lines = self.more.wait_timeout(lines, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn all(&self) -> Vec<String> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// A running program; killed when it is dropped.
pub struct Program {
    child: Child,
    out: Arc<Lines>,
    err: Arc<Lines>,
    readers: Vec<JoinHandle<()>>,
}

impl Program {
    /// Starts a program of this project.
    #[must_use]
    pub fn start(program: &str, arguments: &[&str]) -> Self {
        Self::spawn(Command::new(path_of(program)).args(arguments))
    }

    /// Starts any command.
    #[must_use]
    pub fn spawn(command: &mut Command) -> Self {
        let command = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).env("NO_COLOR", "1");
        let mut child = command.spawn().expect("the program starts");
        let (out, err) = (Arc::new(Lines::default()), Arc::new(Lines::default()));
        let readers = vec![
            out.clone().collect(child.stdout.take().expect("stdout")),
            err.clone().collect(child.stderr.take().expect("stderr")),
        ];
        Self { child, out, err, readers }
    }

    /// Waits for a line on stdout.
    pub fn out_line(&self, part: &str) -> String {
        self.out.wait(part, |line| line.contains(part))
    }

    /// Waits for a line on stderr.
    pub fn err_line(&self, part: &str) -> String {
        self.err.wait(part, |line| line.contains(part))
    }

    /// Everything on stdout so far.
    #[must_use]
    pub fn out(&self) -> Vec<String> {
        self.out.all()
    }

    /// Everything on stderr so far.
    #[must_use]
    pub fn err(&self) -> Vec<String> {
        self.err.all()
    }

    /// Sends a signal, e.g. `TERM`.
    pub fn signal(&self, name: &str) {
        let signal = match name {
            "HUP" => Signal::HUP,
            "INT" => Signal::INT,
            "QUIT" => Signal::QUIT,
            "KILL" => Signal::KILL,
            "USR1" => Signal::USR1,
            "USR2" => Signal::USR2,
            "TERM" => Signal::TERM,
            "CONT" => Signal::CONT,
            "STOP" => Signal::STOP,
            other => panic!("no signal {other} here"),
        };
        kill_process(Pid::from_child(&self.child), signal).expect("a process that is there");
    }

    /// Its process.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits for its end, and for its last line.
    pub fn wait(&mut self) -> ExitStatus {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().expect("its status") {
                for reader in self.readers.drain(..) {
                    reader.join().expect("a reader");
                }
                return status;
            }
            assert!(Instant::now() < deadline, "it does not end; stderr:\n{}", self.err().join("\n"));
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Its resident memory, in bytes.
    #[must_use]
    pub fn resident(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("its status");
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("VmRSS");
        let kib: u64 = line.split_whitespace().nth(1).and_then(|text| text.parse().ok()).expect("a number");
        kib * 1024
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            eprintln!("--- stderr of {}:\n{}", self.child.id(), self.err().join("\n"));
        }
    }
}

/// On which runtime a program is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum On {
    /// `spnhub` and `spnagent`.
    Tokio,
    /// The examples of `towline-smol`.
    Smol,
}

/// A realm made by `spnhub pki`, and the programs that run in it.
pub struct Realm {
    directory: tempfile::TempDir,
    on: On,
    /// The hub.
    pub hub: Program,
    /// UDP port of the hub.
    pub port: u16,
}

impl Realm {
    /// A hub with the service `s`, its provider `p` and its consumer `c`. `change` may edit the inventory first.
    #[must_use]
    pub fn start(change: impl FnOnce(String) -> String) -> Self {
        Self::start_as("127.0.0.1", change)
    }

    /// The same, with a hub of that name.
    #[must_use]
    pub fn start_as(host: &str, change: impl FnOnce(String) -> String) -> Self {
        Self::start_on(On::Tokio, host, change)
    }

    /// The same, with a hub on either runtime.
    #[must_use]
    pub fn start_on(on: On, host: &str, change: impl FnOnce(String) -> String) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let port = free_udp_port();
        let path = directory.path().to_str().expect("UTF-8").to_owned();
        let names = ["--realm", "r", "--hub", host, "--service", "s", "--provider", "p", "--consumer", "c"];
        let mut pki = Command::new(path_of("spnhub"));
        let made = pki.args(["pki", &path, "--port", &port.to_string()]).args(names).output().expect("spnhub pki");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let inventory = format!("{path}/inventory.yaml");
        let text = fs::read_to_string(&inventory).expect("an inventory");
        fs::write(&inventory, change(text)).expect("a changed inventory");
        let hub = start_hub(on, &inventory);
        Self { directory, on, hub, port }
    }

    /// A hub of this realm, with an inventory of that name.
    #[must_use]
    pub fn hub(&self, inventory: &str) -> Program {
        start_hub(self.on, &self.file(inventory))
    }

    /// A file of the realm.
    #[must_use]
    pub fn file(&self, name: &str) -> String {
        self.directory.path().join(name).to_str().expect("UTF-8").to_owned()
    }

    /// Runs `spnhub pki` again, to add to the realm.
    pub fn add(&self, arguments: &[&str]) {
        let path = self.directory.path().to_str().expect("UTF-8");
        let status = Command::new(path_of("spnhub")).args(["pki", path]).args(arguments).stdout(Stdio::null()).status();
        assert!(status.expect("spnhub pki").success());
    }

    /// SIGKILL for the hub, and a new one in its place, which is listening when this returns.
    pub fn restart_hub(&mut self) {
        self.hub.signal("KILL");
        self.hub.wait();
        self.hub = self.hub("inventory.yaml");
    }

    /// A provider agent on either runtime.
    #[must_use]
    pub fn provider_on(&self, on: On, name: &str, forward: SocketAddr, ways: Ways<'_>) -> Program {
        match on {
            On::Tokio => self.provider_with(name, forward, &ways.options()),
            On::Smol => self.smol_agent("provider", name, forward, ways),
        }
    }

    /// A consumer agent on either runtime.
    #[must_use]
    pub fn consumer_on(&self, on: On, name: &str, ways: Ways<'_>) -> (Program, SocketAddr) {
        match on {
            On::Tokio => self.consumer_with(name, &ways.options()),
            On::Smol => {
                let agent = self.smol_agent("consumer", name, SocketAddr::from(([127, 0, 0, 1], 0)), ways);
                let address = listening(&agent);
                (agent, address)
            }
        }
    }

    fn smol_agent(&self, role: &str, name: &str, address: SocketAddr, ways: Ways<'_>) -> Program {
        let settings = fs::read_to_string(self.file(&format!("{name}.env"))).expect("settings");
        let host = settings.lines().find_map(|line| line.strip_prefix("SPN_HUB_HOSTNAME=")).expect("a host");
        let port = ways.port.map_or(self.port.to_string(), str::to_owned);
        let file = |name: &str| self.file(name);
        let (ca, certificate, key) = (file("ca.pem"), file(&format!("{name}.pem")), file(&format!("{name}.key")));
        let address = address.to_string();
        let options = [role, host, &port, &ca, &certificate, &key, &address];
        let agent = Program::start("examples/agent", &[&options[..], ways.resolver.as_slice()].concat());
        agent.err_line("session established");
        agent
    }

    /// A provider agent in front of a TCP service, with its session.
    #[must_use]
    pub fn provider(&self, name: &str, forward: SocketAddr) -> Program {
        self.provider_with(name, forward, &[])
    }

    /// The same, with more options.
    #[must_use]
    pub fn provider_with(&self, name: &str, forward: SocketAddr, more: &[&str]) -> Program {
        let (file, forward) = (self.file(&format!("{name}.env")), forward.to_string());
        let options = ["provider", "--env-file", &file, "--forward-address", &forward];
        let agent = Program::start("spnagent", &[&options, more].concat());
        agent.err_line("session established");
        agent
    }

    /// A consumer agent with its session, and where it listens.
    #[must_use]
    pub fn consumer(&self, name: &str) -> (Program, SocketAddr) {
        self.consumer_with(name, &[])
    }

    /// The same, with more options.
    #[must_use]
    pub fn consumer_with(&self, name: &str, more: &[&str]) -> (Program, SocketAddr) {
        let file = self.file(&format!("{name}.env"));
        let options = ["consumer", "--env-file", &file, "--bind-address", "127.0.0.1:0"];
        let agent = Program::start("spnagent", &[&options, more].concat());
        let address = listening(&agent);
        agent.err_line("session established");
        (agent, address)
    }
}

/// How an agent finds its hubs, if it differs from its settings.
#[derive(Debug, Clone, Copy, Default)]
pub struct Ways<'a> {
    /// The hubs' port.
    pub port: Option<&'a str>,
    /// The name server.
    pub resolver: Option<&'a str>,
}

impl<'a> Ways<'a> {
    fn options(self) -> Vec<&'a str> {
        let named = [("--spn-hub-port", self.port), ("--resolver", self.resolver)];
        named.into_iter().filter_map(|(name, value)| Some([name, value?])).flatten().collect()
    }
}

fn start_hub(on: On, inventory: &str) -> Program {
    let hub = match on {
        On::Tokio => Program::start("spnhub", &["-c", inventory]),
        On::Smol => Program::start("examples/hub", &[inventory]),
    };
    hub.err_line("listening on");
    hub
}

/// The address on which a consumer agent logs that it listens.
fn listening(agent: &Program) -> SocketAddr {
    let line = agent.err_line("listening on ");
    let address = line.split("listening on ").nth(1).and_then(|rest| rest.split(' ').next());
    address.and_then(|text| text.parse().ok()).expect("an address")
}
