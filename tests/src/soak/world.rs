//! Two hubs of one name, two providers, two consumers, their name servers and address translators; and what is done to them.
//!
//! The first provider and the first consumer reach the hubs at 127.0.0.1 and 127.0.0.2. The second ones are behind address translators:
//! for them the hubs are at .1 and .2 of a network of their own, and .3 is a second address of the first hub.

use std::{
    cell::{Cell, RefCell},
    fs, io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    rc::Rc,
    time::Duration,
};

use rustix::process::Signal;
use tokio::{
    process::Command,
    sync::Mutex,
    time::{Instant, sleep, timeout},
};

use super::{
    plan::{Agent, Past, Trouble, Which},
    process::{Figures, Process},
};
use crate::{
    programs::{free_tcp_address, free_udp_port, path_of},
    servers::{NameServer, Nat},
};

/// What they are called.
const NAME: &str = "hub.test";
/// The service.
const URN: &str = "urn:chip-in:service:r:hub:s";
/// A program that ends in order has so long; its own limit is 30 s.
const ENDING: Duration = Duration::from_secs(45);
/// A program says so soon that it is there.
const STARTING: Duration = Duration::from_secs(30);
/// Agents are looked for so long at a hub that is back; they try again every 30 s at most, and a dial may last 20 s.
const BACK: Duration = Duration::from_secs(75);

/// Who can have a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seat {
    /// A hub.
    Hub(Which),
    /// An agent.
    Agent(Agent),
}

impl Seat {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Hub(0),
        Self::Hub(1),
        Self::Agent(Agent::Provider(0)),
        Self::Agent(Agent::Provider(1)),
        Self::Agent(Agent::Consumer(0)),
        Self::Agent(Agent::Consumer(1)),
    ];

    fn index(self) -> usize {
        match self {
            Self::Hub(which) => which,
            Self::Agent(Agent::Provider(which)) => 2 + which,
            Self::Agent(Agent::Consumer(which)) => 4 + which,
        }
    }

    /// Its name in tables and in the names of logs.
    #[must_use]
    pub fn name(self) -> String {
        match self {
            Self::Hub(which) => format!("hub{}", which + 1),
            Self::Agent(agent) => agent.to_string(),
        }
    }
}

/// A process, measured.
#[derive(Debug, Clone, Copy)]
pub struct Sample {
    /// Whose.
    pub seat: Seat,
    /// Which life of it.
    pub life: usize,
    /// How old that life was.
    pub age: Duration,
    /// What it took.
    pub figures: Figures,
}

/// Those behind an address translator.
struct Behind {
    names: NameServer,
    listed: [IpAddr; 3],
    /// Towards the first hub, the second, and the first by its second address.
    nats: [Nat; 3],
    port: u16,
}

/// All of it.
pub struct World {
    directory: PathBuf,
    records: bool,
    is_smol: bool,
    port: u16,
    seats: [RefCell<Option<Process>>; 6],
    lives: [Cell<usize>; 6],
    names: NameServer,
    behind: [Behind; 2],
    services: Vec<SocketAddr>,
    /// Where the consumers listen.
    pub consumers: [SocketAddr; 2],
    inventories: [String; 2],
    /// Held by whoever needs the names of the hubs, or takes them away.
    named: Mutex<()>,
    /// What went wrong besides connections.
    pub faults: RefCell<Vec<String>>,
    /// What was done.
    pub past: RefCell<Vec<Past>>,
    /// Measurements.
    pub samples: RefCell<Vec<Sample>>,
    /// The zero of all logged times.
    pub began: Instant,
}

const HUBS: [IpAddr; 2] = [IpAddr::V4(Ipv4Addr::new(127, 0, 0, 1)), IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2))];
/// An address without a host.
const STRANGER: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 99));

impl World {
    /// Everything, started and joined.
    ///
    /// # Errors
    /// What could not be started.
    pub async fn start(
        directory: &Path,
        records: bool,
        is_smol: bool,
        services: Vec<SocketAddr>,
    ) -> Result<Rc<Self>, String> {
        let port = free_udp_port();
        pki(directory, port).await?;
        let text = fs::read_to_string(directory.join("inventory.yaml")).map_err(|error| error.to_string())?;
        let inventories = ["127.0.0.1", "127.0.0.2"].map(|address| text.replace("\"0.0.0.0\"", address));
        let behind = [2, 3].map(|network| {
            let outer = free_udp_port();
            let listed = [1, 2, 3].map(|host| IpAddr::V4(Ipv4Addr::new(127, 0, network, host)));
            let nats = [(0, 0), (1, 1), (2, 0)].map(|(way, hub): (usize, usize)| {
                Nat::start_at(SocketAddr::new(listed[way], outer), SocketAddr::new(HUBS[hub], port))
            });
            Behind { names: NameServer::start(NAME, &listed[..2]), listed, nats, port: outer }
        });
        let world = Rc::new(Self {
            directory: directory.to_owned(),
            records,
            is_smol,
            port,
            seats: Default::default(),
            lives: Default::default(),
            names: NameServer::start(NAME, &HUBS),
            behind,
            services,
            consumers: [free_tcp_address(), free_tcp_address()],
            inventories,
            named: Mutex::default(),
            faults: RefCell::default(),
            past: RefCell::default(),
            samples: RefCell::default(),
            began: Instant::now(),
        });
        for hub in 0..2 {
            world.write_inventory(hub, 0)?;
        }
        for seat in Seat::ALL {
            world.sit(seat).await?;
        }
        for hub in 0..2 {
            world.back(hub).await.ok_or(format!("not all agents have come to hub{}", hub + 1))?;
        }
        Ok(world)
    }

    fn file(&self, name: &str) -> String {
        self.directory.join(name).to_string_lossy().into_owned()
    }

    fn fault(&self, text: String) {
        eprintln!("{:7.1} s FAULT: {text}", self.began.elapsed().as_secs_f64());
        self.faults.borrow_mut().push(format!("at {:.1} s: {text}", self.began.elapsed().as_secs_f64()));
    }

    fn on_smol(&self, seat: Seat) -> bool {
        self.is_smol && matches!(seat, Seat::Agent(Agent::Provider(1) | Agent::Consumer(1)))
    }

    fn command(&self, seat: Seat) -> (PathBuf, Vec<String>) {
        let text = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect::<Vec<_>>();
        let agent = match seat {
            Seat::Hub(which) => {
                let inventory = self.file(&format!("inventory-{which}.yaml"));
                let control = self.file(&format!("control-{which}"));
                return (path_of("spnhub"), text(&["-c", &inventory, "--control", &control]));
            }
            Seat::Agent(agent) => agent,
        };
        let (role, which, option, address) = match agent {
            Agent::Provider(which) => ("provider", which, "--forward-address", self.services[which]),
            Agent::Consumer(which) => ("consumer", which, "--bind-address", self.consumers[which]),
        };
        let (names, port) = match (which, agent) {
            (0, _) => (&self.names, self.port),
            (_, Agent::Provider(_)) => (&self.behind[0].names, self.behind[0].port),
            (_, Agent::Consumer(_)) => (&self.behind[1].names, self.behind[1].port),
        };
        let (names, port, address) = (names.address.to_string(), port.to_string(), address.to_string());
        let file = |extension: &str| self.file(&format!("{agent}.{extension}"));
        if self.on_smol(seat) {
            let (ca, certificate, key) = (self.file("ca.pem"), file("pem"), file("key"));
            let words = [role, NAME, &port, &ca, &certificate, &key, &address, &names];
            return (path_of("examples/agent"), text(&words));
        }
        let env = file("env");
        let words = [role, "--env-file", &env, option, &address, "--spn-hub-port", &port, "--resolver", &names];
        (path_of("spnagent"), text(&words))
    }

    /// A new process in a seat, which is there when this returns.
    async fn sit(&self, seat: Seat) -> Result<(), String> {
        let deadline = Instant::now() + ENDING;
        loop {
            let life = self.lives[seat.index()].get() + 1;
            let (program, arguments) = self.command(seat);
            let log = self.directory.join(format!("{}.{life}.log", seat.name()));
            let mut process = Process::start(&program, &arguments, log, life, self.records)
                .map_err(|error| format!("{}: {error}", program.display()))?;
            let words = match seat {
                Seat::Hub(_) => "listening on",
                Seat::Agent(_) => "session established",
            };
            if process.says(words, STARTING).await {
                self.lives[seat.index()].set(life);
                self.seats[seat.index()].replace(Some(process));
                return Ok(());
            }
            // A consumer beside a draining one cannot bind its address before the draining one has released it.
            if Instant::now() > deadline {
                return Err(format!("{} does not start: {}", seat.name(), process.log()));
            }
            sleep(Duration::from_millis(300)).await;
        }
    }

    async fn sit_again(&self, seat: Seat) {
        if let Err(error) = self.sit(seat).await {
            self.fault(error);
        }
    }

    fn signal(&self, seat: Seat, signal: Signal) {
        if let Some(process) = &*self.seats[seat.index()].borrow() {
            process.signal(signal);
        }
    }

    /// Removes the process from its seat: from now on its end is expected.
    fn stand(&self, seat: Seat) -> Option<Process> {
        let process = self.seats[seat.index()].take();
        if let Some(process) = &process {
            self.measure(seat, process);
        }
        process
    }

    fn measure(&self, seat: Seat, process: &Process) {
        if let Some(figures) = process.figures() {
            let (life, age) = (process.life, process.began.elapsed());
            self.samples.borrow_mut().push(Sample { seat, life, age, figures });
        }
    }

    /// Measures all processes.
    pub fn sample(&self) {
        for seat in Seat::ALL {
            if let Some(process) = &*self.seats[seat.index()].borrow() {
                self.measure(seat, process);
            }
        }
    }

    /// Looks for processes that have ended unexpectedly.
    pub async fn look(&self) {
        for seat in Seat::ALL {
            let ended = self.seats[seat.index()].borrow_mut().take_if(|process| process.has_ended().is_some());
            if let Some(process) = ended {
                self.fault(format!("{} has ended by itself; {}", seat.name(), last_lines(&process.log())));
                self.sit_again(seat).await;
            }
        }
    }

    /// Waits for the end of a process after SIGTERM.
    async fn await_end(&self, seat: Seat, mut process: Process, is_orderly: bool) {
        match process.end(ENDING).await {
            None => self.fault(format!("{} does not end; {}", seat.name(), last_lines(&process.log()))),
            Some(status) if is_orderly && !status.success() => {
                self.fault(format!("{} ends with {status}; {}", seat.name(), last_lines(&process.log())));
            }
            Some(_) => {}
        }
        if process.log().contains("panicked") {
            self.fault(format!("{} has panicked; {}", seat.name(), last_lines(&process.log())));
        }
    }

    async fn ctl(&self, hub: Which, words: &[&str]) -> Option<Vec<u8>> {
        let control = self.file(&format!("control-{hub}"));
        let mut command = Command::new(path_of("spnhub"));
        command.args(["ctl", "--control", &control]).args(words).kill_on_drop(true);
        let output = timeout(Duration::from_secs(10), command.output()).await.ok()?.ok()?;
        output.status.success().then_some(output.stdout)
    }

    /// Waits until all agents have their sessions with a hub, and says how long that took.
    async fn back(&self, hub: Which) -> Option<Duration> {
        let began = Instant::now();
        while began.elapsed() < BACK {
            if let Some(answer) = self.ctl(hub, &["--json", "status"]).await {
                let status: serde_json::Value = serde_json::from_slice(&answer).unwrap_or_default();
                let count = |what: &str| status["hubs"][0][what].as_u64().unwrap_or(0);
                if count("providers") >= 2 && count("consumers") >= 2 {
                    return Some(began.elapsed());
                }
            }
            sleep(Duration::from_millis(250)).await;
        }
        None
    }

    async fn both_back(&self) -> Option<Duration> {
        let (first, second) = tokio::join!(self.back(0), self.back(1));
        Some(first?.max(second?))
    }

    fn write_inventory(&self, hub: Which, others: u64) -> Result<(), String> {
        let text = &self.inventories[hub];
        let list = "    services:\n";
        let at = text.find(list).ok_or("the inventory has no services")? + list.len();
        let others: String = (0..others)
            .map(|n| format!("    - {{name: n{n}, urn: \"urn:n{n}\", provider: [other], consumers: [others]}}\n"))
            .collect();
        replace(&self.file(&format!("inventory-{hub}.yaml")), &format!("{}{others}{}", &text[..at], &text[at..]))
            .map_err(|error| error.to_string())
    }

    /// What DNS says, for agents in front of the translators and behind them.
    fn list(&self, hubs: &[Which], has_stranger: bool, has_alias: bool) {
        let stranger = has_stranger.then_some(STRANGER);
        self.names.list(&hubs.iter().map(|&hub| HUBS[hub]).chain(stranger).collect::<Vec<_>>());
        for behind in &self.behind {
            let alias = has_alias.then_some(behind.listed[2]);
            let listed = hubs.iter().map(|&hub| behind.listed[hub]).chain(stranger).chain(alias);
            behind.names.list(&listed.collect::<Vec<_>>());
        }
    }

    /// Causes a trouble, and records it when everything is as before.
    pub async fn make(&self, trouble: Trouble) {
        let needs_names = matches!(trouble, Trouble::Unnamed(_) | Trouble::AgentKill(..) | Trouble::AgentTerm(_));
        let _names = if needs_names { Some(self.named.lock().await) } else { None };
        let began = Instant::now();
        eprintln!("{:7.1} s {trouble:?}", self.began.elapsed().as_secs_f64());
        let back = match trouble.clone() {
            Trouble::HubKill(hub, away) => {
                self.kill(Seat::Hub(hub), away).await;
                self.back(hub).await
            }
            Trouble::HubTerm(hub, away) => {
                self.signal(Seat::Hub(hub), Signal::TERM);
                if let Some(process) = self.stand(Seat::Hub(hub)) {
                    self.await_end(Seat::Hub(hub), process, true).await;
                }
                sleep(away).await;
                self.sit_again(Seat::Hub(hub)).await;
                self.back(hub).await
            }
            Trouble::HubStop(hub, time) => {
                self.stop(Seat::Hub(hub), time).await;
                self.back(hub).await
            }
            Trouble::BothKill(away) => {
                tokio::join!(self.kill(Seat::Hub(0), away), self.kill(Seat::Hub(1), away));
                self.both_back().await
            }
            Trouble::Unlisted(hub, time) => {
                self.list(&[1 - hub], false, false);
                self.listed_after(time).await
            }
            Trouble::Unnamed(time) => {
                self.list(&[], false, false);
                self.listed_after(time).await
            }
            Trouble::Stranger(time) => {
                self.list(&[0, 1], true, false);
                self.listed_after(time).await
            }
            Trouble::Alias(time) => {
                self.list(&[0, 1], false, true);
                self.listed_after(time).await
            }
            Trouble::AgentStop(agent, time) => {
                self.stop(Seat::Agent(agent), time).await;
                self.both_back().await
            }
            Trouble::AgentKill(agent, away) => {
                self.kill(Seat::Agent(agent), away).await;
                self.both_back().await
            }
            Trouble::AgentTerm(agent) => {
                self.hand_over(Seat::Agent(agent)).await;
                self.both_back().await
            }
            Trouble::Weight(which, weight) => {
                self.weigh(which, weight);
                None
            }
            Trouble::Reload(hub, others) => {
                if let Err(error) = self.write_inventory(hub, others) {
                    self.fault(error);
                }
                if others % 2 == 0 {
                    self.signal(Seat::Hub(hub), Signal::USR1);
                } else {
                    self.ctl(hub, &["reload"]).await;
                }
                None
            }
            Trouble::Pause(hub, time) => {
                // A hub that dies meanwhile forgets the pause. A hub that did not answer in time may have executed it.
                self.ctl(hub, &["pause", URN]).await;
                sleep(time).await;
                self.unpause(hub).await;
                None
            }
            Trouble::Nat(agent, hub) => {
                let behind = usize::from(matches!(agent, Agent::Consumer(_)));
                self.behind[behind].nats[hub].change();
                None
            }
        };
        self.past.borrow_mut().push(Past { trouble, began, ended: Instant::now(), back });
    }

    /// A hub that stands still does not answer; one that has died in between is not paused.
    async fn unpause(&self, hub: Which) {
        for _ in 0..10 {
            if self.ctl(hub, &["unpause", URN]).await.is_some() {
                return;
            }
            sleep(Duration::from_secs(1)).await;
        }
        self.fault(format!("hub{} does not end its pause", hub + 1));
    }

    async fn listed_after(&self, time: Duration) -> Option<Duration> {
        sleep(time).await;
        self.list(&[0, 1], false, false);
        self.both_back().await
    }

    async fn kill(&self, seat: Seat, away: Duration) {
        self.signal(seat, Signal::KILL);
        if let Some(process) = self.stand(seat) {
            self.await_end(seat, process, false).await;
        }
        sleep(away).await;
        self.sit_again(seat).await;
    }

    async fn stop(&self, seat: Seat, time: Duration) {
        self.signal(seat, Signal::STOP);
        sleep(time).await;
        self.signal(seat, Signal::CONT);
    }

    /// SIGTERM, and a new process beside the one that drains.
    async fn hand_over(&self, seat: Seat) {
        self.signal(seat, Signal::TERM);
        let old = self.stand(seat);
        let ends = async {
            if let Some(process) = old {
                // The agents of the examples do not handle SIGTERM.
                self.await_end(seat, process, !self.on_smol(seat)).await;
            }
        };
        tokio::join!(ends, self.sit_again(seat));
    }

    fn weigh(&self, which: Which, weight: u16) {
        let agent = Agent::Provider(which);
        if self.on_smol(Seat::Agent(agent)) {
            return;
        }
        let file = self.file(&format!("{agent}.env"));
        let text = fs::read_to_string(&file).unwrap_or_default();
        let kept = text.lines().filter(|line| !line.starts_with("SPN_WEIGHT"));
        let text: String = kept.map(|line| format!("{line}\n")).collect();
        if let Err(error) = replace(&file, &format!("{text}SPN_WEIGHT={weight}\n")) {
            self.fault(error.to_string());
        }
        self.signal(Seat::Agent(agent), Signal::HUP);
    }

    /// The planned end of everything: consumers, then providers, then hubs.
    pub async fn end(&self) {
        for seat in Seat::ALL.into_iter().rev() {
            self.signal(seat, Signal::TERM);
            if let Some(process) = self.stand(seat) {
                self.await_end(seat, process, !self.on_smol(seat)).await;
            }
        }
    }
}

fn last_lines(log: &str) -> String {
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len().saturating_sub(5)..].join(" | ")
}

/// Writes a file atomically.
fn replace(path: &str, text: &str) -> io::Result<()> {
    let new = format!("{path}.new");
    fs::write(&new, text)?;
    fs::rename(&new, path)
}

/// Certificates, settings and an inventory for two providers and two consumers.
async fn pki(directory: &Path, port: u16) -> Result<(), String> {
    let (port, directory) = (port.to_string(), directory.to_string_lossy());
    let first =
        ["--port", &port, "--realm", "r", "--hub", NAME, "--service", "s", "--provider", "p1", "--consumer", "c1"];
    for words in [&first[..], &["--service", "s", "--provider", "p2", "--consumer", "c2"]] {
        let made = Command::new(path_of("spnhub")).args(["pki", &directory]).args(words).output().await;
        let made = made.map_err(|error| error.to_string())?;
        if !made.status.success() {
            return Err(String::from_utf8_lossy(&made.stderr).into_owned());
        }
    }
    Ok(())
}
