//! Wide-area paths on one machine: network namespaces, and links between them that delay, lose, reorder and queue.
//!
//! A link is a TUN device in each of two namespaces, and a thread that carries packets from one to the other, each in its time. So TCP and UDP meet
//! the same path, whatever the kernel can do by itself. It needs root, `ip`, and /dev/net/tun; nothing outside the namespaces changes.

use std::{
    cmp::Reverse,
    collections::BinaryHeap,
    fs::File,
    io,
    os::fd::AsFd,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    thread::{LinkNameSpaceType, move_into_link_name_space},
};
use tun_rs::{DeviceBuilder, Layer, SyncDevice};

use crate::random::Random;

/// Packets that a link carries at once, each way.
const MOST: usize = 1 << 16;

/// What a link does to packets, each way.
#[derive(Debug, Clone, Copy, Default)]
pub struct Path {
    /// There and back.
    pub round_trip: Duration,
    /// Packets of a million that are lost.
    pub loss: u64,
    /// Packets of a million that are late, and by how much.
    pub late: (u64, Duration),
    /// Bytes a second; 0 is as much as the machine can.
    pub rate: u64,
    /// Bytes that wait for it at most.
    pub queue: u64,
}

fn ip(arguments: &str) -> io::Result<()> {
    let output = Command::new("ip").args(arguments.split(' ')).output()?;
    if output.status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&output.stderr);
    Err(io::Error::other(format!("ip {arguments}: {}", text.trim())))
}

/// A network namespace; gone when it is dropped.
pub struct Namespace(String);

impl Namespace {
    /// A new one.
    ///
    /// # Errors
    /// There is no `ip`, or no right to do it.
    pub fn new(name: &str) -> io::Result<Self> {
        let name = format!("towline-{}-{name}", std::process::id());
        ip(&format!("netns add {name}"))?;
        let namespace = Self(name);
        namespace.ip("link set lo up")?;
        Ok(namespace)
    }

    /// Runs `ip` for it.
    ///
    /// # Errors
    /// What `ip` says.
    pub fn ip(&self, arguments: &str) -> io::Result<()> {
        ip(&format!("-n {} {arguments}", self.0))
    }

    /// A program that will run in it.
    #[must_use]
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.0, program]);
        command
    }

    /// A thread whose sockets are in it.
    ///
    /// # Panics
    /// The namespace cannot be entered.
    pub fn spawn<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
        let name = self.0.clone();
        thread::spawn(move || {
            enter(&name).expect("the namespace is there");
            work()
        })
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = ip(&format!("netns del {}", self.0));
    }
}

/// Moves this thread into a namespace.
fn enter(name: &str) -> io::Result<()> {
    let file = File::open(format!("/var/run/netns/{name}"))?;
    Ok(move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))?)
}

/// A link between two namespaces; gone when it is dropped.
pub struct Link {
    stop: Arc<AtomicBool>,
    carrier: Option<JoinHandle<()>>,
}

impl Link {
    /// Lays a link that is called `name` in both: the first end is 10.SUBNET.0.1, the second 10.SUBNET.0.2.
    ///
    /// # Errors
    /// No TUN device, or no right to make one.
    pub fn new(ends: [&Namespace; 2], name: &str, subnet: u8, path: Path) -> io::Result<Self> {
        let device = |end: &Namespace| {
            let (namespace, name) = (end.0.clone(), name.to_owned());
            let made = thread::spawn(move || {
                enter(&namespace)?;
                let device = DeviceBuilder::new().name(name).layer(Layer::L3).build_sync()?;
                device.set_nonblocking(true)?;
                Ok(device)
            });
            made.join().unwrap_or_else(|_| Err(io::Error::other("no TUN device")))
        };
        let [one, two] = ends;
        let devices: [SyncDevice; 2] = [device(one)?, device(two)?];
        for (end, host) in [(one, 1), (two, 2)] {
            end.ip(&format!("addr add 10.{subnet}.0.{host}/24 dev {name}"))?;
            end.ip(&format!("link set {name} mtu 1500 txqueuelen 20000 up"))?;
        }
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let carrier = thread::spawn(move || carry(&devices, path, &stopped));
        Ok(Self { stop, carrier: Some(carrier) })
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(carrier) = self.carrier.take() {
            let _ = carrier.join();
        }
    }
}

/// One way of a link.
struct Way {
    /// Packets on their way, by the time when they arrive, and by their number.
    order: BinaryHeap<Reverse<(Instant, u64, usize)>>,
    packets: Vec<Vec<u8>>,
    unused: Vec<usize>,
    sent: u64,
    free: Instant,
}

fn carry(devices: &[SyncDevice; 2], path: Path, stop: &AtomicBool) {
    let mut random = Random::new(7);
    let mut buffer = vec![0; 2048];
    let mut ways = [(); 2].map(|()| Way {
        order: BinaryHeap::new(),
        packets: Vec::new(),
        unused: Vec::new(),
        sent: 0,
        free: Instant::now(),
    });
    while !stop.load(Ordering::Relaxed) {
        let mut busy = false;
        for (n, way) in ways.iter_mut().enumerate() {
            let (from, to) = (&devices[n], &devices[1 - n]);
            let now = Instant::now();
            for _ in 0..256 {
                let Ok(length) = from.recv(&mut buffer) else { break };
                busy = true;
                way.send(now, path, &mut random, &buffer[..length]);
            }
            let now = Instant::now();
            while let Some(&Reverse((_, _, slot))) = way.order.peek().filter(|Reverse((at, _, _))| *at <= now) {
                way.order.pop();
                // A full device loses it, as a full queue does.
                let _ = to.send(&way.packets[slot]);
                way.unused.push(slot);
                busy = true;
            }
        }
        if busy {
            continue;
        }
        let due = ways.iter().filter_map(|way| way.order.peek()).map(|Reverse((at, _, _))| *at).min();
        let wait = due.map_or(Duration::from_millis(20), |due| due.saturating_duration_since(Instant::now()));
        let timeout = Timespec::try_from(wait.min(Duration::from_millis(20))).ok();
        let mut fds = [PollFd::new(&devices[0], PollFlags::IN), PollFd::new(&devices[1], PollFlags::IN)];
        let _ = poll(&mut fds, timeout.as_ref());
    }
}

impl Way {
    fn send(&mut self, now: Instant, path: Path, random: &mut Random, packet: &[u8]) {
        if random.below(1_000_000) < path.loss || self.order.len() >= MOST {
            return;
        }
        let mut at = now;
        if path.rate > 0 {
            let start = self.free.max(now);
            if (start - now).as_secs_f64() * path.rate as f64 > path.queue as f64 {
                return;
            }
            self.free = start + Duration::from_secs_f64(packet.len() as f64 / path.rate as f64);
            at = self.free;
        }
        at += path.round_trip / 2;
        if random.below(1_000_000) < path.late.0 {
            at += path.late.1;
        }
        let slot = self.unused.pop().unwrap_or_else(|| {
            self.packets.push(Vec::with_capacity(1500));
            self.packets.len() - 1
        });
        self.packets[slot].clear();
        self.packets[slot].extend_from_slice(packet);
        self.order.push(Reverse((at, self.sent, slot)));
        self.sent += 1;
    }
}
