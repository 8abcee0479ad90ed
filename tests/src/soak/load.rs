//! Clients and services, all in one thread: so many connections at once, a new one for each that ends.

use std::{
    io,
    net::{SocketAddr, TcpListener as Blocking},
    rc::Rc,
    time::Duration,
};

use socket2::SockRef;
use tokio::{
    net::{TcpListener, TcpSocket, TcpStream},
    sync::watch,
    task::{JoinHandle, spawn_local},
    time::{Instant, sleep},
};

use super::{
    books::{Books, End, Kind},
    content::number,
    ends::{Clock, Failure, Pace, Place, read_header},
};
use crate::random::Random;

/// A receive buffer that is soon full.
const SMALL: u32 = 8 << 10;
/// A client whose agent is away tries again after this.
const AGAIN: Duration = Duration::from_millis(200);
/// The first connections come so long after each other.
const RAMP: Duration = Duration::from_millis(5);

/// How much load there is.
#[derive(Debug, Clone, Copy)]
pub struct Size {
    /// Connections at once.
    pub connections: usize,
    /// Bytes a second of all bulk connections together.
    pub rate: u64,
    /// Of all that is chosen by chance.
    pub seed: u64,
    /// No connection stands still for longer.
    pub patience: Duration,
}

/// The load.
pub struct Load {
    books: Rc<Books>,
    size: Size,
    enough: watch::Sender<bool>,
    slots: Vec<JoinHandle<()>>,
}

impl Load {
    /// Services, one for each provider, and where they are. To be called inside a `LocalSet`.
    ///
    /// # Errors
    /// No socket.
    pub fn start(size: Size, providers: usize) -> io::Result<(Self, Vec<SocketAddr>)> {
        let load = Self { books: Rc::default(), size, enough: watch::channel(false).0, slots: Vec::new() };
        let mut addresses = Vec::new();
        for provider in 0..providers {
            let listener = Blocking::bind("127.0.0.1:0")?;
            listener.set_nonblocking(true)?;
            addresses.push(listener.local_addr()?);
            let listener = TcpListener::from_std(listener)?;
            let (books, clock, pace) = (load.books.clone(), load.clock(), load.pace());
            spawn_local(async move {
                loop {
                    let Ok((tcp, _)) = listener.accept().await else {
                        sleep(AGAIN).await;
                        continue;
                    };
                    let (books, clock) = (books.clone(), clock.clone());
                    spawn_local(async move { serve(tcp, provider, books, clock, pace, size.seed).await });
                }
            });
        }
        Ok((load, addresses))
    }

    /// Begins connections over these consumers.
    pub fn begin(&mut self, consumers: &[SocketAddr]) {
        for slot in 0..self.size.connections {
            let (consumer, books, mut clock, pace) =
                (slot % consumers.len(), self.books.clone(), self.clock(), self.pace());
            let (address, size) = (consumers[consumer], self.size);
            self.slots.push(spawn_local(async move {
                let mut random = Random::new(size.seed ^ (slot as u64) << 32);
                clock.nap(RAMP * slot as u32).await;
                while !clock.is_enough() {
                    // Neighbours are of the same kind, and over different consumers.
                    let kind = Kind::of_slot(slot / 2);
                    client(kind, consumer, address, &books, &clock, pace, size.seed).await;
                    let most = if kind == Kind::Short { 4_000 } else { 2_000 };
                    clock.nap(Duration::from_millis(200 + random.below(most))).await;
                }
            }));
        }
    }

    fn clock(&self) -> Clock {
        Clock { is_enough: self.enough.subscribe() }
    }

    /// Bulk connections are three of twenty.
    fn pace(&self) -> Pace {
        Pace { rate: self.size.rate / (self.size.connections as u64 * 3 / 20).max(1) }
    }

    /// The books.
    #[must_use]
    pub fn books(&self) -> &Rc<Books> {
        &self.books
    }

    /// Looks for connections that stand still. Returns how many go on.
    pub fn watch(&self) -> usize {
        self.books.watch(self.size.patience)
    }

    /// No new connections; those that are there come to their ends as soon as they can.
    pub async fn end(&mut self) {
        self.enough.send_replace(true);
        // A slot that is just being connected begins one more.
        while self.watch() > 0 || self.slots.iter().any(|slot| !slot.is_finished()) {
            sleep(Duration::from_millis(200)).await;
        }
    }
}

async fn client(
    kind: Kind,
    consumer: usize,
    address: SocketAddr,
    books: &Rc<Books>,
    clock: &Clock,
    pace: Pace,
    seed: u64,
) {
    let Some(mut tcp) = connect(kind, address, clock).await else { return };
    let number = books.begin(kind, consumer);
    let place = place(number, true, books, clock, pace, seed);
    let (books, book) = (books.clone(), books.clone());
    let task = spawn_local(async move {
        let end = ended(place.run(kind, &mut tcp).await, &tcp);
        books.over(number, true, end);
    });
    book.task(number, task.abort_handle());
    let _ = task.await;
}

/// A connection, as soon as the agent takes one; `None` when it is enough.
async fn connect(kind: Kind, address: SocketAddr, clock: &Clock) -> Option<TcpStream> {
    while !clock.is_enough() {
        let Ok(socket) = TcpSocket::new_v4() else { return None };
        if kind == Kind::SlowReader {
            let _ = socket.set_recv_buffer_size(SMALL);
        }
        match socket.connect(address).await {
            Ok(tcp) => return Some(tcp),
            Err(_) => sleep(AGAIN).await,
        }
    }
    None
}

async fn serve(mut tcp: TcpStream, provider: usize, books: Rc<Books>, clock: Clock, pace: Pace, seed: u64) {
    let accepted = Instant::now();
    let number = match read_header(&mut tcp).await {
        Ok(header) => match number(header) {
            Some(number) => number,
            None => return books.stray(provider, format!("{header:02x?} in the place of a number")),
        },
        Err(Failure::Wrong(what)) => return books.stray(provider, what),
        Err(Failure::Reset(_)) => return books.silent(),
    };
    let kind = match books.serve(number, provider, accepted) {
        Ok(kind) => kind,
        Err(why) => {
            let _ = SockRef::from(&tcp).set_linger(Some(Duration::ZERO));
            return books.stray(provider, format!("{why}: {number}"));
        }
    };
    if kind == Kind::SlowService {
        let _ = SockRef::from(&tcp).set_recv_buffer_size(SMALL as usize);
    }
    let place = place(number, false, &books, &clock, pace, seed);
    let book = books.clone();
    let task = spawn_local(async move {
        let end = ended(place.run(kind, &mut tcp).await, &tcp);
        books.over(number, false, end);
    });
    book.task(number, task.abort_handle());
}

fn place(number: u32, is_client: bool, books: &Rc<Books>, clock: &Clock, pace: Pace, seed: u64) -> Place {
    let random = Random::new(seed.rotate_left(17) ^ u64::from(number) << 1 ^ u64::from(is_client));
    Place { number, is_client, books: books.clone(), clock: clock.clone(), random, pace }
}

fn ended(result: Result<(), Failure>, tcp: &TcpStream) -> End {
    match result {
        Ok(()) => End::Clean(Instant::now()),
        Err(failure) => {
            // A reset: the peer must not see a clean end.
            let _ = SockRef::from(tcp).set_linger(Some(Duration::ZERO));
            failure.end()
        }
    }
}
