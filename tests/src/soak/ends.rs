//! Both ends of a connection: they write and read content, and compare every byte.

use std::{io, rc::Rc, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpStream,
        tcp::{ReadHalf, WriteHalf},
    },
    sync::watch,
    time::{Instant, sleep},
};

use super::{
    books::{Books, End, Kind},
    content::{Content, Direction, HEADER, header},
};
use crate::random::Random;

/// The most that is written or read at once.
const PIECE: usize = 16 << 10;

/// The failure of an end.
#[derive(Debug)]
pub(super) enum Failure {
    /// A reset.
    Reset(String),
    /// What came is not what was sent.
    Wrong(String),
}

impl Failure {
    /// How the end is booked.
    pub(super) fn end(self) -> End {
        match self {
            Self::Reset(what) => End::Reset(Instant::now(), what),
            Self::Wrong(what) => End::Wrong(Instant::now(), what),
        }
    }
}

fn reset(doing: &str) -> impl Fn(io::Error) -> Failure {
    move |error| Failure::Reset(format!("{doing}: {error}"))
}

/// Sleeps, but not longer than everything is to go on.
#[derive(Clone)]
pub(super) struct Clock {
    pub(super) is_enough: watch::Receiver<bool>,
}

impl Clock {
    pub(super) fn is_enough(&self) -> bool {
        *self.is_enough.borrow()
    }

    pub(super) async fn nap(&mut self, time: Duration) {
        tokio::select! {
            () = sleep(time) => {}
            _ = self.is_enough.wait_for(|enough| *enough) => {}
        }
    }
}

/// How much is written how fast.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    /// Bytes a second, on average.
    pub(super) rate: u64,
}

/// One end of a connection, and its sleeps.
pub(super) struct Place {
    pub(super) number: u32,
    pub(super) is_client: bool,
    pub(super) books: Rc<Books>,
    pub(super) clock: Clock,
    pub(super) random: Random,
    pub(super) pace: Pace,
}

impl Place {
    fn ways(&self) -> (Direction, Direction) {
        if self.is_client { (Direction::Up, Direction::Down) } else { (Direction::Down, Direction::Up) }
    }

    async fn nap(&mut self, time: Duration) {
        self.books.quiet(self.number, time);
        self.clock.nap(time).await;
        self.books.quiet(self.number, Duration::ZERO);
    }

    /// Everything that a client, or a service behind the header, does with a connection of this kind.
    pub(super) async fn run(mut self, kind: Kind, tcp: &mut TcpStream) -> Result<(), Failure> {
        let (out_way, in_way) = self.ways();
        let (read, write) = tcp.split();
        let (books, number) = (self.books.clone(), self.number);
        let mut output = Output { write, books: books.clone(), number, way: out_way, buffer: vec![0; PIECE], next: 0 };
        let mut input = Input { read, books, number, way: in_way, next: 0, buffer: vec![0; PIECE], wanted: Vec::new() };
        if self.is_client {
            output.raw(&header(number)).await?;
            self.client(kind, &mut output, &mut input).await
        } else {
            self.service(kind, &mut output, &mut input).await
        }
    }

    async fn client(&mut self, kind: Kind, output: &mut Output<'_>, input: &mut Input<'_>) -> Result<(), Failure> {
        match kind {
            Kind::PingPong => {
                let end = Instant::now() + self.between(20_000, 600_000);
                while Instant::now() < end && !self.clock.is_enough() {
                    self.ping(8_000, output, input).await?;
                    let pause = self.between(50, 3_000);
                    self.nap(pause).await;
                }
            }
            Kind::Idle => {
                for _ in 0..1 + self.random.below(3) {
                    self.ping(100, output, input).await?;
                    let pause = self.between(20_000, 400_000);
                    // A reset is to be seen when it comes.
                    tokio::select! {
                        () = self.nap(pause) => {}
                        came = input.some(1) => {
                            came?;
                            return Err(Failure::Wrong("a byte or an end that nobody has sent".to_owned()));
                        }
                    }
                    self.ping(100, output, input).await?;
                }
            }
            Kind::BulkUp => self.burst(500_000, 4_000_000, output).await?,
            Kind::BulkDown => return self.after(output, input).await,
            Kind::BulkBoth => {
                let sending = async {
                    self.burst(500_000, 3_000_000, output).await?;
                    output.finish().await
                };
                return tokio::try_join!(sending, input.rest()).map(|_| ());
            }
            Kind::HalfClosed => output.write(1 + self.random.below(100_000)).await?,
            Kind::Short => output.write(1 + self.random.below(2_000)).await?,
            Kind::SlowReader => {
                self.sip(input).await?;
                return self.after(output, input).await;
            }
            Kind::SlowService => output.write(50_000 + self.random.below(300_000)).await?,
        }
        output.finish().await?;
        input.rest().await
    }

    async fn service(&mut self, kind: Kind, output: &mut Output<'_>, input: &mut Input<'_>) -> Result<(), Failure> {
        match kind {
            Kind::PingPong | Kind::Idle => loop {
                match input.some(PIECE).await? {
                    0 => return output.finish().await,
                    length => output.write(length as u64).await?,
                }
            },
            Kind::BulkUp => {
                input.rest().await?;
                output.write(16).await?;
            }
            Kind::BulkDown => {
                self.burst(500_000, 4_000_000, output).await?;
                output.finish().await?;
                return input.rest().await;
            }
            Kind::BulkBoth => {
                let sending = async {
                    self.burst(500_000, 3_000_000, output).await?;
                    output.finish().await
                };
                return tokio::try_join!(sending, input.rest()).map(|_| ());
            }
            Kind::HalfClosed => {
                input.rest().await?;
                for _ in 0..10 {
                    output.write(1 + self.random.below(5_000)).await?;
                    let pause = self.between(100, 6_000);
                    self.nap(pause).await;
                }
            }
            Kind::Short => {
                // Half of them answer before they have read the question.
                if self.random.chance(50) {
                    output.write(1 + self.random.below(20_000)).await?;
                    output.finish().await?;
                    return input.rest().await;
                }
                input.rest().await?;
                output.write(1 + self.random.below(20_000)).await?;
            }
            Kind::SlowReader => {
                output.write(50_000 + self.random.below(300_000)).await?;
                output.finish().await?;
                return input.rest().await;
            }
            Kind::SlowService => {
                self.sip(input).await?;
                output.write(16).await?;
            }
        }
        output.finish().await
    }

    /// Between so many milliseconds, short times more often than long ones.
    fn between(&mut self, least: u64, most: u64) -> Duration {
        let share = self.random.below(1_000) as f64 / 1_000.0;
        Duration::from_millis((least as f64 * (most as f64 / least as f64).powf(share)) as u64)
    }

    /// A piece, and as much back.
    async fn ping(&mut self, most: u64, output: &mut Output<'_>, input: &mut Input<'_>) -> Result<(), Failure> {
        let length = 1 + self.random.below(most);
        output.write(length).await?;
        let mut left = length as usize;
        while left > 0 {
            match input.some(left).await? {
                0 => return Err(Failure::Wrong(format!("a clean end, and {left} bytes of an answer are missing"))),
                came => left -= came,
            }
        }
        Ok(())
    }

    /// Bursts as fast as they go, with pauses that make the average.
    async fn burst(&mut self, least: u64, most: u64, output: &mut Output<'_>) -> Result<(), Failure> {
        let mut left = least + self.random.below(most - least);
        while left > 0 && !self.clock.is_enough() {
            let burst = left.min(32_000 + self.random.below(500_000));
            output.write(burst).await?;
            left -= burst;
            let pause = Duration::from_millis(burst * 1_000 / self.pace.rate.max(1)).min(Duration::from_secs(30));
            self.nap(pause).await;
        }
        Ok(())
    }

    /// Reads a little at a time, to the end.
    async fn sip(&mut self, input: &mut Input<'_>) -> Result<(), Failure> {
        loop {
            if input.some(4_096).await? == 0 {
                return Ok(());
            }
            let pause = self.between(100, 2_000);
            self.nap(pause).await;
        }
    }

    /// Reads to the end, and ends then.
    async fn after(&mut self, output: &mut Output<'_>, input: &mut Input<'_>) -> Result<(), Failure> {
        if !input.is_over() {
            input.rest().await?;
        }
        output.finish().await
    }
}

struct Output<'a> {
    write: WriteHalf<'a>,
    books: Rc<Books>,
    number: u32,
    way: Direction,
    buffer: Vec<u8>,
    /// Offset of the next byte of content.
    next: u64,
}

impl Output<'_> {
    async fn raw(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.write.write_all(bytes).await.map_err(reset("write"))
    }

    async fn write(&mut self, length: u64) -> Result<(), Failure> {
        let content = Content::new(self.number, self.way);
        let mut left = length;
        while left > 0 {
            let piece = (self.buffer.len() as u64).min(left) as usize;
            content.fill(self.next, &mut self.buffer[..piece]);
            let written = self.write.write(&self.buffer[..piece]).await.map_err(reset("write"))?;
            self.next += written as u64;
            left -= written as u64;
            self.books.sent(self.number, self.way, written);
        }
        Ok(())
    }

    async fn finish(&mut self) -> Result<(), Failure> {
        // The book is updated first: the other end may see the FIN before this returns.
        self.books.whole(self.number, self.way);
        self.write.shutdown().await.map_err(reset("end"))
    }
}

struct Input<'a> {
    read: ReadHalf<'a>,
    books: Rc<Books>,
    number: u32,
    way: Direction,
    next: u64,
    buffer: Vec<u8>,
    wanted: Vec<u8>,
}

impl Input<'_> {
    fn whole(&self) -> Option<u64> {
        self.books.with(self.number, |entry| entry.whole[self.way as usize]).flatten()
    }

    fn is_over(&self) -> bool {
        self.whole() == Some(self.next)
    }

    /// Some bytes, all of them right; 0 at an end that is where it has to be.
    async fn some(&mut self, most: usize) -> Result<usize, Failure> {
        let most = most.min(self.buffer.len());
        let length = self.read.read(&mut self.buffer[..most]).await.map_err(reset("read"))?;
        if length == 0 {
            return match self.whole() {
                Some(whole) if whole == self.next => Ok(0),
                whole => {
                    let sent = self.books.with(self.number, |entry| entry.sent[self.way as usize]).unwrap_or_default();
                    let of = whole.map_or(format!("more than {sent}"), |whole| whole.to_string());
                    Err(Failure::Wrong(format!("a clean end after {} bytes of {of}", self.next)))
                }
            };
        }
        let content = Content::new(self.number, self.way);
        content.compare(self.next, &self.buffer[..length], &mut self.wanted).map_err(Failure::Wrong)?;
        self.next += length as u64;
        self.books.received(self.number, self.way, length);
        Ok(length)
    }

    async fn rest(&mut self) -> Result<(), Failure> {
        while self.some(PIECE).await? > 0 {}
        Ok(())
    }
}

/// Reads the header of a connection that a service has been given.
pub(super) async fn read_header(tcp: &mut TcpStream) -> Result<[u8; HEADER], Failure> {
    let (mut header, mut have) = ([0; HEADER], 0);
    while have < HEADER {
        match tcp.read(&mut header[have..]).await.map_err(reset("read"))? {
            0 => return Err(Failure::Wrong(format!("a clean end after {have} bytes of its number"))),
            length => have += length,
        }
    }
    Ok(header)
}
