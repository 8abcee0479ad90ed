//! The state of each connection, as reported by both of its ends.

use std::{cell::RefCell, time::Duration};

use tokio::{task::AbortHandle, time::Instant};

use super::content::Direction;

/// What a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A random piece there, one of the same length back, a pause.
    PingPong,
    /// Megabytes in bursts to the service.
    BulkUp,
    /// The same from the service.
    BulkDown,
    /// The same both ways at once.
    BulkBoth,
    /// The client ends its half, then the answer comes slowly.
    HalfClosed,
    /// Silent for minutes, then a few bytes there and back.
    Idle,
    /// A question and an answer; some services answer before they have read all.
    Short,
    /// The client takes a few bytes at a time, with a small buffer.
    SlowReader,
    /// The service does.
    SlowService,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::PingPong,
        Self::BulkUp,
        Self::BulkDown,
        Self::BulkBoth,
        Self::HalfClosed,
        Self::Idle,
        Self::Short,
        Self::SlowReader,
        Self::SlowService,
    ];

    /// Its name in tables.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::PingPong => "ping-pong",
            Self::BulkUp => "bulk up",
            Self::BulkDown => "bulk down",
            Self::BulkBoth => "bulk both ways",
            Self::HalfClosed => "half-closed request",
            Self::Idle => "long idle",
            Self::Short => "short",
            Self::SlowReader => "slow reader",
            Self::SlowService => "slow service",
        }
    }

    /// That of a slot: of twenty in a row each kind has its share.
    #[must_use]
    pub fn of_slot(slot: usize) -> Self {
        match slot % 20 {
            0..7 => Self::PingPong,
            7 => Self::BulkUp,
            8 => Self::BulkDown,
            9 => Self::BulkBoth,
            10 | 11 => Self::HalfClosed,
            12..16 => Self::Idle,
            16 | 17 => Self::Short,
            18 => Self::SlowReader,
            _ => Self::SlowService,
        }
    }
}

/// The state of an end of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// It goes on.
    Open,
    /// Both directions have ended in order, and every byte was right.
    Clean(Instant),
    /// A reset, or what the kernel makes of one.
    Reset(Instant, String),
    /// A wrong byte, or a clean end too early.
    Wrong(Instant, String),
    /// Nothing went on for longer than any limit explains.
    Hung(Instant),
}

/// The service's end.
#[derive(Debug, Clone)]
pub struct Served {
    /// Which provider has brought it.
    pub provider: usize,
    /// When its TCP connection came.
    pub accepted: Instant,
    /// Its state.
    pub end: End,
}

/// One connection.
#[derive(Debug)]
pub struct Entry {
    /// What it is for.
    pub kind: Kind,
    /// Over which consumer it goes.
    pub consumer: usize,
    /// When the consumer's TCP listener had taken it.
    pub begun: Instant,
    /// The client's end.
    pub client: End,
    /// The service's, once the number is known there.
    pub service: Option<Served>,
    /// A second TCP connection has brought the same number to a service.
    pub is_twice: Option<Instant>,
    /// Bytes written so far, by [`Direction`].
    pub sent: [u64; 2],
    /// Bytes that came and were right.
    pub received: [u64; 2],
    /// The whole length, once its sender has ended.
    pub whole: [Option<u64>; 2],
    /// When something went on, or will: an end that sleeps on purpose says until when.
    pub moved: Instant,
    tasks: Vec<AbortHandle>,
}

impl Entry {
    /// Neither end goes on.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.client != End::Open && self.service.as_ref().is_none_or(|served| served.end != End::Open)
    }

    /// Its ends; the client's is first.
    pub fn ends(&self) -> impl Iterator<Item = (&'static str, &End)> {
        [("client", &self.client)].into_iter().chain(self.service.iter().map(|served| ("service", &served.end)))
    }
}

/// All connections, by number.
#[derive(Debug, Default)]
pub struct Books {
    entries: RefCell<Vec<Entry>>,
    strays: RefCell<Vec<(Instant, usize, String)>>,
    silent: RefCell<u64>,
}

impl Books {
    /// A new one.
    ///
    /// # Panics
    /// After 2³² of them.
    pub fn begin(&self, kind: Kind, consumer: usize) -> u32 {
        let mut entries = self.entries.borrow_mut();
        let number = u32::try_from(entries.len()).expect("fewer than 2³² connections");
        let now = Instant::now();
        entries.push(Entry {
            kind,
            consumer,
            begun: now,
            client: End::Open,
            service: None,
            is_twice: None,
            sent: [0; 2],
            received: [0; 2],
            whole: [None; 2],
            moved: now,
            tasks: Vec::new(),
        });
        number
    }

    /// A service has read this number. Returns the kind of the connection.
    ///
    /// # Errors
    /// The number is unknown, or another service has it: the connection must not be served.
    pub fn serve(&self, number: u32, provider: usize, accepted: Instant) -> Result<Kind, &'static str> {
        let mut entries = self.entries.borrow_mut();
        let Some(entry) = entries.get_mut(number as usize) else { return Err("the number of no connection") };
        if entry.service.is_some() {
            entry.is_twice = Some(Instant::now());
            return Err("a connection that a service has already");
        }
        entry.service = Some(Served { provider, accepted, end: End::Open });
        entry.moved = Instant::now();
        Ok(entry.kind)
    }

    /// Something with an entry.
    pub fn with<T>(&self, number: u32, something: impl FnOnce(&mut Entry) -> T) -> Option<T> {
        self.entries.borrow_mut().get_mut(number as usize).map(something)
    }

    /// So many bytes more were written.
    pub fn sent(&self, number: u32, direction: Direction, bytes: usize) {
        self.with(number, |entry| {
            entry.sent[direction as usize] += bytes as u64;
            entry.moved = entry.moved.max(Instant::now());
        });
    }

    /// So many bytes more came, and were right.
    pub fn received(&self, number: u32, direction: Direction, bytes: usize) {
        self.with(number, |entry| {
            entry.received[direction as usize] += bytes as u64;
            entry.moved = entry.moved.max(Instant::now());
        });
    }

    /// A direction ends here.
    pub fn whole(&self, number: u32, direction: Direction) {
        self.with(number, |entry| entry.whole[direction as usize] = Some(entry.sent[direction as usize]));
    }

    /// Nothing is expected for so long.
    pub fn quiet(&self, number: u32, time: Duration) {
        self.with(number, |entry| entry.moved = entry.moved.max(Instant::now() + time));
    }

    /// An end is over.
    pub fn over(&self, number: u32, is_client: bool, end: End) {
        self.with(number, |entry| {
            entry.moved = Instant::now();
            match (is_client, &mut entry.service) {
                (true, _) => entry.client = end,
                (false, Some(served)) => served.end = end,
                (false, None) => {}
            }
        });
    }

    /// Adds a task that is aborted when the connection hangs.
    pub fn task(&self, number: u32, task: AbortHandle) {
        self.with(number, |entry| entry.tasks.push(task));
    }

    /// A service's TCP connection that ended in order before its number was there.
    pub fn stray(&self, provider: usize, what: String) {
        self.strays.borrow_mut().push((Instant::now(), provider, what));
    }

    /// One that was reset before that: nothing has been served, so nothing is wrong.
    pub fn silent(&self) {
        *self.silent.borrow_mut() += 1;
    }

    /// Ends what has not moved for so long. Returns how many connections go on.
    pub fn watch(&self, patience: Duration) -> usize {
        let (now, mut open) = (Instant::now(), 0);
        for entry in self.entries.borrow_mut().iter_mut().filter(|entry| !entry.is_over()) {
            if now.saturating_duration_since(entry.moved) <= patience {
                open += 1;
                continue;
            }
            for end in [Some(&mut entry.client), entry.service.as_mut().map(|served| &mut served.end)] {
                if let Some(end @ End::Open) = end {
                    *end = End::Hung(entry.moved);
                }
            }
            entry.tasks.drain(..).for_each(|task| task.abort());
        }
        open
    }

    /// All entries.
    pub fn entries<T>(&self, something: impl FnOnce(&[Entry]) -> T) -> T {
        something(&self.entries.borrow())
    }

    /// When and by which provider, TCP connections came to a service and ended in order without a number.
    pub fn strays<T>(&self, something: impl FnOnce(&[(Instant, usize, String)]) -> T) -> T {
        something(&self.strays.borrow())
    }

    /// How many were reset before their number came.
    #[must_use]
    pub fn silent_ones(&self) -> u64 {
        *self.silent.borrow()
    }
}
