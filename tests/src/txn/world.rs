//! A proxy in a box: clients, origins and a resolver in one thread, on virtual time, around the binding.
//!
//! The host here fulfils its contract, and checks that the proxy requests nothing that a host cannot do (`towline_core::net`): no second read
//! or write before the first is answered, no reply that ends in good order before it is given, each connection closed once.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use bytes::{Bytes, BytesMut};
use towline_core::{
    net::{Close, Command, ConnId, Event, Fault, StreamBinding},
    quic::Epoch,
    testing::first_instant,
    txn::{
        proxy::{Config, Notice, Proxy},
        record::Record,
    },
};

/// A client: comes, sends its pieces, each some time after the one before, and does something after the last.
#[derive(Debug, Clone)]
pub struct Client {
    /// When it comes.
    pub comes: Duration,
    /// Its address.
    pub from: IpAddr,
    /// What it sends, and how long it waits before.
    pub pieces: Vec<(Duration, Bytes)>,
    /// What it does after the last piece.
    pub then: Then,
    /// How long it needs for each piece that it is given; never, if there is no time.
    pub takes: Option<Duration>,
}

/// What a client does when it has sent everything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Then {
    /// Waits for the end.
    Waits,
    /// Ends its direction.
    HalfCloses,
    /// Breaks off after some time.
    Resets(Duration),
}

/// How a client's connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// In good order.
    Fin,
    /// With a reset by the proxy.
    Reset,
    /// The client broke it off itself.
    Left,
}

/// The fate of a client.
#[derive(Debug, Default)]
pub struct Fate {
    /// What it was given.
    pub received: Vec<u8>,
    /// How its connection ended, and when.
    pub end: Option<(End, Duration)>,
    /// Its log record, if it was not refused.
    pub record: Option<Record>,
}

/// What an origin does next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Sends.
    Send(Bytes),
    /// Waits.
    Sleep(Duration),
    /// Ends in good order.
    Fin,
    /// Breaks off.
    Reset,
}

/// Whether an address accepts connections; always after some time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dial {
    /// It does.
    Accepts(Duration),
    /// It does not.
    Refuses(Duration),
    /// Nobody answers.
    Silent,
}

/// The resolver, the network and the origins.
pub trait Outside {
    /// The addresses of a name, and how long it takes to find them; `None`: nobody answers.
    fn name(&self, name: &[u8]) -> Option<(Duration, Vec<IpAddr>)>;
    /// Whether an address accepts.
    fn dial(&self, address: SocketAddr) -> Dial;
    /// What an origin does once it has read a head. At the end of the steps it just stays.
    fn reply(&self, head: &[u8]) -> Vec<Step>;
}

/// What one side has sent that the proxy has not read yet.
#[derive(Default)]
struct Inbox {
    bytes: BytesMut,
    is_ended: bool,
    is_broken: bool,
    credit: Option<usize>,
}

impl Inbox {
    fn allow(&mut self, max: usize) {
        assert!(max > 0 && self.credit.replace(max).is_none(), "one read at a time, of at least a byte");
    }

    fn poll(&mut self) -> Option<Event> {
        let max = self.credit?;
        let read = if self.is_broken {
            Event::Error { fault: Fault::Reset }
        } else if !self.bytes.is_empty() {
            Event::Data { bytes: self.bytes.split_to(max.min(self.bytes.len())).freeze() }
        } else if self.is_ended {
            Event::End
        } else {
            return None;
        };
        self.credit = None;
        Some(read)
    }
}

#[derive(Default)]
struct Origin {
    inbox: Inbox,
    head: Vec<u8>,
    steps: VecDeque<Step>,
}

/// The peer of a connection.
enum Far {
    Client(usize),
    /// Nobody yet: its name is asked for,
    Asked,
    /// or has been answered,
    Known,
    /// or its address is dialled.
    Dialled,
    Origin(Origin),
}

/// A connection, as its host sees it.
struct Link {
    far: Far,
    writing: Option<Bytes>,
}

impl Link {
    fn new(far: Far) -> Self {
        Self { far, writing: None }
    }

    fn is_of(&self, nth: usize) -> bool {
        matches!(self.far, Far::Client(client) if client == nth)
    }

    fn origin(&mut self) -> Option<&mut Origin> {
        match &mut self.far {
            Far::Origin(origin) => Some(origin),
            Far::Client(_) | Far::Asked | Far::Known | Far::Dialled => None,
        }
    }
}

enum Happening {
    Comes(usize),
    Sends(usize, Bytes),
    Ends(usize),
    Breaks(usize),
    Takes(ConnId),
    Answers(ConnId, Vec<IpAddr>),
    Dialled(ConnId, bool),
    OriginActs(ConnId),
    Drain,
}

/// The box.
pub struct World<O> {
    outside: O,
    proxy: Proxy,
    start: Instant,
    now: Instant,
    clients: Vec<Client>,
    inboxes: Vec<Inbox>,
    /// Those that the proxy has not accepted yet; none, when it does not listen any more.
    backlog: Option<VecDeque<usize>>,
    links: BTreeMap<ConnId, Link>,
    /// Whose connections they are, also when they are closed.
    clients_by_conn: BTreeMap<ConnId, usize>,
    ready: BTreeSet<ConnId>,
    agenda: BTreeMap<(Instant, u64), Happening>,
    numbers: u64,
    /// The fate of each client.
    pub fates: Vec<Fate>,
    /// Lookups: `file server 1` or `0`.
    pub lookups: Vec<String>,
    /// Heads that origins have got.
    pub heads: Vec<Vec<u8>>,
    /// Everything that was done.
    pub journal: Vec<String>,
    /// Whether the proxy has reported its end.
    pub is_over: bool,
    /// Most fetches at a time.
    pub most_fetches: usize,
}

impl<O: Outside> World<O> {
    /// A proxy, and the clients that will come.
    #[must_use]
    pub fn new(config: Config, outside: O, clients: Vec<Client>) -> Self {
        let start = first_instant();
        let mut proxy = Proxy::new(config);
        proxy.start(start);
        let mut world = Self {
            outside,
            proxy,
            start,
            now: start,
            inboxes: clients.iter().map(|_| Inbox::default()).collect(),
            backlog: Some(VecDeque::new()),
            links: BTreeMap::new(),
            clients_by_conn: BTreeMap::new(),
            ready: BTreeSet::new(),
            agenda: BTreeMap::new(),
            numbers: 0,
            fates: clients.iter().map(|_| Fate::default()).collect(),
            clients: Vec::new(),
            lookups: Vec::new(),
            heads: Vec::new(),
            journal: Vec::new(),
            is_over: false,
            most_fetches: 0,
        };
        for (nth, client) in clients.iter().enumerate() {
            let mut at = client.comes;
            world.plan(at, Happening::Comes(nth));
            for (wait, piece) in &client.pieces {
                at += *wait;
                world.plan(at, Happening::Sends(nth, piece.clone()));
            }
            match client.then {
                Then::Waits => {}
                Then::HalfCloses => world.plan(at, Happening::Ends(nth)),
                Then::Resets(wait) => world.plan(at + wait, Happening::Breaks(nth)),
            }
        }
        world.clients = clients;
        world
    }

    /// The proxy is to end after this time.
    pub fn drain_after(&mut self, time: Duration) {
        self.plan(time, Happening::Drain);
    }

    /// The proxy.
    #[must_use]
    pub fn proxy(&self) -> &Proxy {
        &self.proxy
    }

    /// Connections that are not closed.
    #[must_use]
    pub fn open(&self) -> usize {
        self.links.len()
    }

    /// The current time.
    #[must_use]
    pub fn time(&self) -> Duration {
        self.now - self.start
    }

    /// Lets everything happen until nothing is left to happen, or until `limit`.
    pub fn run(&mut self, limit: Duration) {
        loop {
            self.settle();
            let due = self.agenda.first_key_value().map(|(&(at, _), _)| at);
            let Some(next) = due.into_iter().chain(self.proxy.poll_timeout()).min() else { return };
            if next > self.start + limit {
                self.now = self.start + limit;
                return;
            }
            self.now = self.now.max(next);
            if self.proxy.poll_timeout().is_some_and(|due| due <= self.now) {
                self.proxy.handle_timeout(self.now);
            } else if let Some((_, happening)) = self.agenda.pop_first() {
                self.happen(happening);
            }
        }
    }

    fn plan(&mut self, after_start: Duration, happening: Happening) {
        self.numbers += 1;
        self.agenda.insert((self.start + after_start, self.numbers), happening);
    }

    fn plan_in(&mut self, wait: Duration, happening: Happening) {
        self.plan(self.time() + wait, happening);
    }

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Comes(client) => match &mut self.backlog {
                Some(backlog) => backlog.push_back(client),
                None => self.end(client, End::Reset),
            },
            Happening::Sends(client, piece) => self.inbox(client, |inbox| inbox.bytes.extend_from_slice(&piece)),
            Happening::Ends(client) => self.inbox(client, |inbox| inbox.is_ended = true),
            Happening::Breaks(client) => {
                if self.fates[client].end.is_none() {
                    self.fates[client].end = Some((End::Left, self.time()));
                    self.inbox(client, |inbox| inbox.is_broken = true);
                    // A host also learns of a reset by a write.
                    let link = self.links.iter_mut().find(|(_, link)| link.is_of(client));
                    if let Some((&conn, link)) = link
                        && link.writing.take().is_some()
                    {
                        self.notify(conn, Event::Error { fault: Fault::Reset });
                    }
                }
            }
            Happening::Takes(conn) => {
                let Some(link) = self.links.get_mut(&conn) else { return };
                let Some(bytes) = link.writing.take() else { return };
                match &mut link.far {
                    Far::Client(client) if self.fates[*client].end.is_some() => return,
                    Far::Client(client) => self.fates[*client].received.extend_from_slice(&bytes),
                    Far::Origin(origin) => {
                        origin.head.extend_from_slice(&bytes);
                        if origin.head.ends_with(b"\r\n\r\n") {
                            origin.steps = self.outside.reply(&origin.head).into();
                            self.heads.push(std::mem::take(&mut origin.head));
                            self.plan_in(Duration::ZERO, Happening::OriginActs(conn));
                        }
                    }
                    Far::Asked | Far::Known | Far::Dialled => unreachable!("nobody takes anything there"),
                }
                self.notify(conn, Event::Sent { len: bytes.len() as u64 });
            }
            Happening::Answers(conn, addresses) => {
                if let Some(link) = self.links.get_mut(&conn) {
                    link.far = Far::Known;
                    let event = if addresses.is_empty() {
                        Event::ResolveFailed { fault: Fault::NoSuchName }
                    } else {
                        Event::Resolved { addresses }
                    };
                    self.notify(conn, event);
                }
            }
            Happening::Dialled(conn, accepts) => {
                let Some(link) = self.links.get_mut(&conn) else { return };
                if !accepts {
                    return self.notify(conn, Event::ConnectFailed { fault: Fault::Refused });
                }
                link.far = Far::Origin(Origin::default());
                let fetches = self.links.values().filter(|link| matches!(link.far, Far::Origin(_))).count();
                self.most_fetches = self.most_fetches.max(fetches);
                self.notify(conn, Event::Connected);
            }
            Happening::OriginActs(conn) => {
                let Some(origin) = self.links.get_mut(&conn).and_then(Link::origin) else { return };
                let Some(step) = origin.steps.pop_front() else { return };
                let mut wait = Duration::ZERO;
                match step {
                    Step::Send(bytes) => origin.inbox.bytes.extend_from_slice(&bytes),
                    Step::Sleep(time) => wait = time,
                    Step::Fin => origin.inbox.is_ended = true,
                    Step::Reset => origin.inbox.is_broken = true,
                }
                self.ready.insert(conn);
                self.plan_in(wait, Happening::OriginActs(conn));
            }
            Happening::Drain => self.proxy.drain(self.now),
        }
    }

    fn inbox(&mut self, client: usize, change: impl FnOnce(&mut Inbox)) {
        change(&mut self.inboxes[client]);
        self.ready.extend(self.links.iter().filter(|(_, link)| link.is_of(client)).map(|(&conn, _)| conn));
    }

    fn notify(&mut self, conn: ConnId, event: Event) {
        self.proxy.handle_event(self.now, conn, event);
        self.obey();
    }

    /// Everything that can be done now.
    fn settle(&mut self) {
        loop {
            self.obey();
            if self.proxy.wants_accept()
                && let Some(client) = self.backlog.as_mut().and_then(VecDeque::pop_front)
            {
                let from = SocketAddr::new(self.clients[client].from, 999);
                let conn = self.proxy.handle_incoming(self.now, from);
                self.links.insert(conn, Link::new(Far::Client(client)));
                self.clients_by_conn.insert(conn, client);
                continue;
            }
            let Some(conn) = self.ready.pop_first() else { return };
            while let Some(event) = self.read(conn) {
                self.notify(conn, event);
            }
        }
    }

    fn read(&mut self, conn: ConnId) -> Option<Event> {
        match &mut self.links.get_mut(&conn)?.far {
            Far::Client(client) => self.inboxes[*client].poll(),
            Far::Origin(origin) => origin.inbox.poll(),
            Far::Asked | Far::Known | Far::Dialled => None,
        }
    }

    fn end(&mut self, client: usize, end: End) {
        let time = self.time();
        self.fates[client].end.get_or_insert((end, time));
    }

    fn obey(&mut self) {
        while let Some(command) = self.proxy.poll_command() {
            self.journal.push(format!("{:?} {command:?}", self.time()));
            self.perform(command);
        }
        self.listen();
    }

    fn listen(&mut self) {
        let epoch = Epoch { instant: self.start, unix: Duration::ZERO };
        while let Some(notice) = self.proxy.poll_notice() {
            assert!(!self.is_over, "nothing comes after the end: {notice:?}");
            match notice {
                Notice::Lookup(lookup) => {
                    let entry = lookup.compat(epoch);
                    let entry = entry.trim_end().split_once(' ').expect("a stamp, and more").1.to_owned();
                    self.journal.push(entry.clone());
                    self.lookups.push(entry);
                }
                Notice::Finished { client, record } => {
                    self.journal.push(record.json(epoch));
                    assert!(!self.links.contains_key(&client), "its connection is closed");
                    let nth = self.clients_by_conn[&client];
                    assert!(self.fates[nth].end.is_some(), "the client of a finished transaction has seen no end");
                    assert!(self.fates[nth].record.replace(record).is_none(), "a record of each end");
                }
                Notice::Stopped { error } => {
                    assert_eq!(error, None);
                    self.is_over = true;
                }
                other => panic!("{other:?}"),
            }
        }
    }

    fn perform(&mut self, command: Command) {
        match command {
            Command::Resolve { conn, name } => {
                assert!(self.links.insert(conn, Link::new(Far::Asked)).is_none(), "a new connection");
                if let Some((wait, addresses)) = self.outside.name(&name) {
                    self.plan_in(wait, Happening::Answers(conn, addresses));
                }
            }
            Command::Connect { conn, address } => {
                let was = self.links.insert(conn, Link::new(Far::Dialled));
                assert!(was.is_none_or(|link| matches!(link.far, Far::Known)), "a new connection, or a known name");
                match self.outside.dial(address) {
                    Dial::Accepts(wait) => self.plan_in(wait, Happening::Dialled(conn, true)),
                    Dial::Refuses(wait) => self.plan_in(wait, Happening::Dialled(conn, false)),
                    Dial::Silent => {}
                }
            }
            Command::Read { conn, max } => {
                match &mut self.links.get_mut(&conn).expect("a connection that is there").far {
                    Far::Client(client) => self.inboxes[*client].allow(max),
                    Far::Origin(origin) => origin.inbox.allow(max),
                    Far::Asked | Far::Known | Far::Dialled => panic!("it is not open"),
                }
                self.ready.insert(conn);
            }
            Command::Write { conn, bytes } => {
                let link = self.links.get_mut(&conn).expect("a connection that is there");
                assert!(!bytes.is_empty(), "something");
                assert!(link.writing.replace(bytes).is_none(), "one write at a time");
                let takes = match link.far {
                    Far::Client(client) => self.clients[client].takes,
                    Far::Origin(_) => Some(Duration::ZERO),
                    Far::Asked | Far::Known | Far::Dialled => panic!("it is not open"),
                };
                if let Some(time) = takes {
                    self.plan_in(time, Happening::Takes(conn));
                }
            }
            Command::Close { conn, how, .. } => {
                let link = self.links.remove(&conn).expect("a connection that is there");
                let Far::Client(client) = link.far else { return };
                self.inboxes[client].credit = None;
                match how {
                    Close::Fin => {
                        assert_eq!(link.writing, None, "not before everything is written");
                        self.end(client, End::Fin);
                    }
                    Close::Abort => self.end(client, End::Reset),
                }
            }
            Command::StopListening => {
                for client in self.backlog.take().into_iter().flatten() {
                    self.end(client, End::Reset);
                }
            }
            Command::Stop => assert!(self.links.is_empty(), "nothing is left open"),
        }
    }
}
