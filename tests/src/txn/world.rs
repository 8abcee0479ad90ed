//! A proxy in a box: clients, origins and a resolver in one thread, on virtual time, around the binding.
//!
//! The host played here does what a host must, and checks that it is asked for no more than a host can do: no second read or write before the
//! first is answered, no reply that ends in good order before it is given.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use bytes::{Bytes, BytesMut};
use towline_core::{
    quic::Epoch,
    testing::first_instant,
    txn::{
        proxy::{Command, Config, ConnId, Notice, Proxy},
        record::Record,
        transaction::{Close, Event, Fault},
    },
};

/// A client: comes, sends its pieces, each some time after the one before, and does something after the last.
#[derive(Debug, Clone)]
pub struct Client {
    /// When it comes.
    pub comes: Duration,
    /// Whence.
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

/// What became of a client.
#[derive(Debug, Default)]
pub struct Fate {
    /// What it was given.
    pub received: Vec<u8>,
    /// How its connection ended, and when.
    pub end: Option<(End, Duration)>,
    /// What was written down about it, if it was not refused.
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

/// All that is not the proxy and not a client.
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

enum Read {
    Data(Bytes),
    Eof,
    Broken,
}

impl Inbox {
    fn allow(&mut self, max: usize) {
        assert!(max > 0 && self.credit.replace(max).is_none(), "one read at a time, of at least a byte");
    }

    fn poll(&mut self) -> Option<Read> {
        let max = self.credit?;
        let read = if self.is_broken {
            Read::Broken
        } else if !self.bytes.is_empty() {
            Read::Data(self.bytes.split_to(max.min(self.bytes.len())).freeze())
        } else if self.is_ended {
            Read::Eof
        } else {
            return None;
        };
        self.credit = None;
        Some(read)
    }
}

struct Origin {
    /// Which fetch it serves: numbers are not used again.
    fetch: u64,
    inbox: Inbox,
    is_written: bool,
    head: Vec<u8>,
    steps: VecDeque<Step>,
}

/// A connection, as its host sees it.
struct Link {
    client: usize,
    writing: Option<Bytes>,
    is_closed: bool,
    asked: Option<u64>,
    dialled: Option<u64>,
    origin: Option<Origin>,
}

enum Happening {
    Comes(usize),
    Sends(usize, Bytes),
    Ends(usize),
    Breaks(usize),
    Takes(ConnId),
    Answers(ConnId, u64, Vec<IpAddr>),
    Dialled(ConnId, u64, bool),
    OriginTakes(ConnId, u64, Bytes),
    OriginActs(ConnId, u64),
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
    ready: BTreeSet<ConnId>,
    agenda: BTreeMap<(Instant, u64), Happening>,
    numbers: u64,
    records: VecDeque<Record>,
    /// What became of each client.
    pub fates: Vec<Fate>,
    /// Lookups: `file server 1` or `0`.
    pub lookups: Vec<String>,
    /// Heads that origins have got.
    pub heads: Vec<Vec<u8>>,
    /// Everything that was done.
    pub journal: Vec<String>,
    /// The proxy has said that it is over.
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
            ready: BTreeSet::new(),
            agenda: BTreeMap::new(),
            numbers: 0,
            records: VecDeque::new(),
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

    /// What time it is.
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
                    // A write is what tells a host of it, too.
                    let writing = self.links.iter().find(|(_, link)| link.client == client && link.writing.is_some());
                    if let Some((&conn, _)) = writing {
                        self.tell(conn, Event::ClientError { kind: Fault::Reset });
                    }
                }
            }
            Happening::Takes(conn) => {
                let Some(link) = self.links.get_mut(&conn) else { return };
                let Some(bytes) = link.writing.take() else { return };
                let client = link.client;
                if self.fates[client].end.is_some() {
                    return;
                }
                self.fates[client].received.extend_from_slice(&bytes);
                self.tell(conn, Event::ClientSent { len: bytes.len() as u64 });
            }
            Happening::Answers(conn, seq, addrs) => {
                if self.links.get_mut(&conn).is_some_and(|link| link.asked.take_if(|asked| *asked == seq).is_some()) {
                    let seq = Some(seq);
                    self.tell(
                        conn,
                        if addrs.is_empty() {
                            Event::ResolveFailed { why: Fault::NoSuchName, seq }
                        } else {
                            Event::Resolved { addrs, seq }
                        },
                    );
                }
            }
            Happening::Dialled(conn, seq, accepts) => {
                let Some(link) = self.links.get_mut(&conn) else { return };
                if link.dialled.take_if(|dialled| *dialled == seq).is_none() {
                    return;
                }
                let seq = Some(seq);
                if !accepts {
                    return self.tell(conn, Event::ConnectFailed { why: Fault::Refused, seq });
                }
                self.numbers += 1;
                let (fetch, inbox) = (self.numbers, Inbox::default());
                link.origin =
                    Some(Origin { fetch, inbox, is_written: false, head: Vec::new(), steps: VecDeque::new() });
                let fetches = self.links.values().filter(|link| link.origin.is_some()).count();
                self.most_fetches = self.most_fetches.max(fetches);
                self.tell(conn, Event::Connected { seq });
            }
            Happening::OriginTakes(conn, fetch, bytes) => {
                let Some(origin) = self.origin(conn, fetch) else { return };
                origin.is_written = false;
                origin.head.extend_from_slice(&bytes);
                let head = origin.head.ends_with(b"\r\n\r\n").then(|| origin.head.clone());
                if let Some(head) = head {
                    let steps = self.outside.reply(&head).into();
                    self.heads.push(head);
                    if let Some(origin) = self.origin(conn, fetch) {
                        origin.steps = steps;
                    }
                    self.plan_in(Duration::ZERO, Happening::OriginActs(conn, fetch));
                }
                self.tell(conn, Event::OriginSent { len: bytes.len() as u64 });
            }
            Happening::OriginActs(conn, fetch) => {
                let Some(origin) = self.origin(conn, fetch) else { return };
                let Some(step) = origin.steps.pop_front() else { return };
                let mut wait = Duration::ZERO;
                match step {
                    Step::Send(bytes) => origin.inbox.bytes.extend_from_slice(&bytes),
                    Step::Sleep(time) => wait = time,
                    Step::Fin => origin.inbox.is_ended = true,
                    Step::Reset => origin.inbox.is_broken = true,
                }
                self.ready.insert(conn);
                self.plan_in(wait, Happening::OriginActs(conn, fetch));
            }
            Happening::Drain => self.proxy.drain(self.now),
        }
    }

    fn origin(&mut self, conn: ConnId, fetch: u64) -> Option<&mut Origin> {
        self.links.get_mut(&conn)?.origin.as_mut().filter(|origin| origin.fetch == fetch)
    }

    fn inbox(&mut self, client: usize, change: impl FnOnce(&mut Inbox)) {
        change(&mut self.inboxes[client]);
        self.ready.extend(self.links.iter().filter(|(_, link)| link.client == client).map(|(&conn, _)| conn));
    }

    fn tell(&mut self, conn: ConnId, event: Event) {
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
                match self.proxy.handle_incoming(self.now, from) {
                    Some(conn) => {
                        let (asked, dialled, origin) = (None, None, None);
                        let link = Link { client, writing: None, is_closed: false, asked, dialled, origin };
                        self.links.insert(conn, link);
                        self.ready.insert(conn);
                    }
                    None => self.end(client, End::Fin),
                }
                continue;
            }
            let Some(conn) = self.ready.pop_first() else { return };
            while let Some(event) = self.read(conn) {
                self.tell(conn, event);
            }
        }
    }

    fn read(&mut self, conn: ConnId) -> Option<Event> {
        let link = self.links.get_mut(&conn)?;
        if let Some(read) = self.inboxes[link.client].poll() {
            return Some(match read {
                Read::Data(bytes) => Event::ClientData { bytes },
                Read::Eof => Event::ClientEof,
                Read::Broken => Event::ClientError { kind: Fault::Reset },
            });
        }
        Some(match link.origin.as_mut()?.inbox.poll()? {
            Read::Data(bytes) => Event::OriginData { bytes },
            Read::Eof => Event::OriginEof,
            Read::Broken => Event::OriginError { kind: Fault::Reset },
        })
    }

    fn end(&mut self, client: usize, end: End) {
        let time = self.time();
        self.fates[client].end.get_or_insert((end, time));
    }

    fn obey(&mut self) {
        while let Some(command) = self.proxy.poll_command() {
            self.journal.push(format!("{:?} {command:?}", self.time()));
            // Notices of an end come with its last command.
            self.listen();
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
                Notice::Finished(record) => {
                    self.journal.push(record.json(epoch));
                    self.records.push_back(record);
                }
                Notice::StopListening => {
                    for client in self.backlog.take().into_iter().flatten() {
                        self.end(client, End::Reset);
                    }
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
        let of = match &command {
            Command::ReadClient { conn, .. }
            | Command::WriteClient { conn, .. }
            | Command::CloseClient { conn, .. }
            | Command::Resolve { conn, .. }
            | Command::CancelResolve { conn }
            | Command::Connect { conn, .. }
            | Command::CancelConnect { conn }
            | Command::WriteOrigin { conn, .. }
            | Command::ReadOrigin { conn, .. }
            | Command::CloseOrigin { conn, .. }
            | Command::Forget { conn } => *conn,
        };
        let link = self.links.get_mut(&of).expect("a connection that is there");
        let client = link.client;
        self.ready.insert(of);
        match command {
            Command::ReadClient { max, .. } => self.inboxes[client].allow(max),
            Command::WriteClient { bytes, .. } => {
                assert!(!bytes.is_empty() && !link.is_closed, "something, to somebody");
                assert!(link.writing.replace(bytes).is_none(), "one write at a time");
                if let Some(time) = self.clients[client].takes {
                    self.plan_in(time, Happening::Takes(of));
                }
            }
            Command::CloseClient { how, .. } => {
                assert!(!std::mem::replace(&mut link.is_closed, true), "once");
                self.inboxes[client].credit = None;
                let left = link.writing.take();
                match how {
                    Close::Fin => {
                        assert_eq!(left, None, "not before everything is written");
                        self.end(client, End::Fin);
                    }
                    Close::Abort => self.end(client, End::Reset),
                }
            }
            Command::Resolve { name, seq, .. } => {
                assert!(link.asked.replace(seq).is_none() && link.origin.is_none(), "one question at a time");
                if let Some((wait, addrs)) = self.outside.name(&name) {
                    self.plan_in(wait, Happening::Answers(of, seq, addrs));
                }
            }
            Command::CancelResolve { .. } => assert!(link.asked.take().is_some(), "what was asked"),
            Command::Connect { address, seq, .. } => {
                assert!(link.dialled.replace(seq).is_none() && link.origin.is_none(), "one connection at a time");
                match self.outside.dial(address) {
                    Dial::Accepts(wait) => self.plan_in(wait, Happening::Dialled(of, seq, true)),
                    Dial::Refuses(wait) => self.plan_in(wait, Happening::Dialled(of, seq, false)),
                    Dial::Silent => {}
                }
            }
            Command::CancelConnect { .. } => assert!(link.dialled.take().is_some(), "what was dialled"),
            Command::WriteOrigin { bytes, .. } => {
                let origin = link.origin.as_mut().expect("an origin");
                assert!(!std::mem::replace(&mut origin.is_written, true), "one write at a time");
                let fetch = origin.fetch;
                self.plan_in(Duration::ZERO, Happening::OriginTakes(of, fetch, bytes));
            }
            Command::ReadOrigin { max, .. } => link.origin.as_mut().expect("an origin").inbox.allow(max),
            Command::CloseOrigin { .. } => assert!(link.origin.take().is_some(), "an origin"),
            Command::Forget { .. } => {
                let record = self.records.pop_front().expect("a record of each end");
                self.fates[client].record = Some(record);
                let link = self.links.remove(&of).expect("it was there");
                assert!(
                    link.origin.is_none() && link.asked.is_none() && link.dialled.is_none(),
                    "nothing is left open"
                );
                assert!(
                    link.is_closed || self.fates[client].end.is_some_and(|(end, _)| end == End::Left),
                    "a client that is there is told"
                );
            }
        }
    }
}
