//! An endpoint and what its application does with connections.
//!
//! A connection's id is its first 8 bytes, and everything else that either end does follows from it: how much each sends, and whether it then finishes or breaks off.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    time::{Duration, Instant},
};

use bytes::Bytes;
use towline_core::{
    quic::{ReadOutcome, WriteOutcome},
    spn::{
        Role,
        endpoint::{ConnId, Endpoint, Notice, Progress},
        wire::code::StreamCode,
    },
};

use crate::random::Random;

/// Bytes written at once.
const PIECE: usize = 3000;

/// One end's habits on one connection.
struct Plan {
    seed: u64,
    length: usize,
    breaks_off: bool,
    /// It reads nothing for so long.
    deaf: Duration,
}

impl Plan {
    fn of(id: u64, role: Role) -> Self {
        let mut random = Random::new(id ^ if role == Role::Provider { 0x5555 } else { 0 });
        let length = match random.below(10) {
            0 => 0,
            1..8 => random.below(20_000),
            _ => random.below(2_000_000),
        };
        Self {
            seed: random.number(),
            // A consumer's bytes begin with the id.
            length: length as usize + 8,
            breaks_off: random.chance(10),
            deaf: Duration::from_millis(if random.chance(20) { random.below(3000) } else { 0 }),
        }
    }

    /// Byte `at` of what this end sends.
    fn byte(&self, id: u64, at: usize) -> u8 {
        match id.to_be_bytes().get(at) {
            Some(byte) => *byte,
            None => (self.seed.wrapping_add(at as u64).wrapping_mul(0x2545_f491_4f6c_dd1d) >> 56) as u8,
        }
    }

    fn piece(&self, id: u64, from: usize) -> Bytes {
        (from..(from + PIECE).min(self.length)).map(|at| self.byte(id, at)).collect::<Vec<_>>().into()
    }
}

/// How a connection ended for one end.
#[derive(Debug)]
pub(super) struct Ends {
    pub(super) role: Role,
    /// It ended its own direction in good order, after everything.
    pub(super) has_finished: bool,
    pub(super) saw_clean_end: bool,
    /// It has broken it off itself.
    pub(super) has_broken_off: bool,
    /// The reset that it was shown.
    pub(super) reset: Option<StreamCode>,
}

struct Flow {
    /// Unknown at a provider until 8 bytes have come.
    id: Option<u64>,
    header: Vec<u8>,
    began: Instant,
    sent: usize,
    received: usize,
    pending: Option<Bytes>,
    ends: Ends,
    is_over: bool,
    reads_over: bool,
    writes_over: bool,
}

/// An endpoint, its address and its application.
pub(super) struct Peer {
    name: &'static str,
    pub(super) address: SocketAddr,
    role: Role,
    pub(super) endpoint: Endpoint,
    flows: BTreeMap<ConnId, Flow>,
    /// Flows that have work: woken by a notice, or by time.
    ready: Vec<ConnId>,
    deaf: Vec<(Instant, ConnId)>,
    start: Option<Instant>,
    is_stopped: bool,
}

impl Peer {
    pub(super) fn new(name: &'static str, address: SocketAddr, role: Role, endpoint: Endpoint) -> Self {
        Self {
            name,
            address,
            role,
            endpoint,
            flows: BTreeMap::new(),
            ready: Vec::new(),
            deaf: Vec::new(),
            start: None,
            is_stopped: false,
        }
    }

    pub(super) fn is_consumer(&self) -> bool {
        self.role == Role::Consumer
    }

    /// Every connection of it has ended.
    pub(super) fn is_quiet(&self) -> bool {
        self.flows.values().all(|flow| flow.is_over)
    }

    pub(super) fn describe(&self) -> String {
        let open = self.flows.values().filter(|flow| !flow.is_over);
        let flows: Vec<_> =
            open.map(|flow| (flow.id, flow.sent, flow.received, flow.reads_over, flow.writes_over)).collect();
        format!("{} {:?} {flows:?}", self.name, self.endpoint.sessions().collect::<Vec<_>>())
    }

    /// How far those of its connections are that can be resumed, by their names.
    pub(super) fn progress(&self) -> impl Iterator<Item = (u64, Progress)> {
        let kept = self.flows.iter().filter(|(_, flow)| !flow.ends.has_broken_off);
        kept.filter_map(|(conn, flow)| Some((flow.id?, self.endpoint.progress(*conn)?)))
    }

    pub(super) fn ends(&self) -> impl Iterator<Item = (u64, &Ends)> {
        self.flows.values().filter_map(|flow| Some((flow.id?, &flow.ends)))
    }

    fn flow(&self, now: Instant, id: Option<u64>) -> Flow {
        Flow {
            id,
            header: Vec::new(),
            began: now,
            sent: 0,
            received: 0,
            pending: None,
            ends: Ends {
                role: self.role,
                has_finished: false,
                saw_clean_end: false,
                has_broken_off: false,
                reset: None,
            },
            is_over: false,
            reads_over: false,
            writes_over: false,
        }
    }

    pub(super) fn connect(&mut self, now: Instant, id: u64) {
        // An endpoint that was stopped opens none.
        if let Ok(conn) = self.endpoint.connect(now) {
            let flow = self.flow(now, Some(id));
            self.flows.insert(conn, flow);
            self.ready.push(conn);
        }
    }

    pub(super) fn stop(&mut self, now: Instant) {
        self.is_stopped = true;
        self.endpoint.stop(now);
    }

    pub(super) fn next_due(&self) -> Option<Instant> {
        self.deaf.iter().map(|(at, _)| *at).chain(self.endpoint.poll_timeout()).min()
    }

    pub(super) fn handle_timeout(&mut self, now: Instant) {
        if self.endpoint.poll_timeout().is_some_and(|due| due <= now) {
            self.endpoint.handle_timeout(now);
        }
        let (woken, deaf) = self.deaf.drain(..).partition(|(at, _)| *at <= now);
        self.deaf = deaf;
        let woken: Vec<(Instant, ConnId)> = woken;
        self.ready.extend(woken.into_iter().map(|(_, conn)| conn));
    }

    /// Takes notices and serves connections; says whether there was anything.
    pub(super) fn work(&mut self, now: Instant, journal: &mut Vec<String>) -> Result<bool, String> {
        let start = *self.start.get_or_insert(now);
        let at = (now - start).as_micros();
        let mut progress = false;
        while let Some(notice) = self.endpoint.poll_notice() {
            progress = true;
            match notice {
                Notice::Incoming(conn) => {
                    let flow = self.flow(now, None);
                    self.flows.insert(conn, flow);
                    self.ready.push(conn);
                }
                Notice::Readable(conn) | Notice::Writable(conn) => self.ready.push(conn),
                Notice::Stopped(conn, code) => {
                    journal.push(format!("{at} {} stopped {code}", self.name));
                    if let Some(flow) = self.flows.get_mut(&conn) {
                        flow.writes_over = true;
                    }
                }
                Notice::Reset(conn, code) => {
                    if let Some(flow) = self.flows.get_mut(&conn) {
                        flow.ends.reset = Some(code);
                    }
                    self.over(conn, journal, &format!("{at} {} reset {code}", self.name))?;
                }
                Notice::Ended(conn) => self.over(conn, journal, &format!("{at} {} ended", self.name))?,
                other => journal.push(format!("{at} {} {other:?}", self.name)),
            }
        }
        for conn in std::mem::take(&mut self.ready) {
            progress = true;
            self.serve(now, conn)?;
        }
        Ok(progress)
    }

    fn over(&mut self, conn: ConnId, journal: &mut Vec<String>, what: &str) -> Result<(), String> {
        let Some(flow) = self.flows.get_mut(&conn) else {
            return Err(format!("{what}: a connection that nobody knows"));
        };
        if std::mem::replace(&mut flow.is_over, true) {
            return Err(format!("{what}: it was over already"));
        }
        journal.push(format!("{what} {:?} sent {} received {}", flow.id, flow.sent, flow.received));
        Ok(())
    }

    fn serve(&mut self, now: Instant, conn: ConnId) -> Result<(), String> {
        let partner = if self.role == Role::Provider { Role::Consumer } else { Role::Provider };
        let Some(flow) = self.flows.get_mut(&conn).filter(|flow| !flow.is_over) else { return Ok(()) };
        // Read, unless the end is in its time without reads.
        let deaf = flow.id.map_or(Duration::ZERO, |id| Plan::of(id, self.role).deaf);
        if now < flow.began + deaf {
            if !self.deaf.iter().any(|(_, waiting)| *waiting == conn) {
                self.deaf.push((flow.began + deaf, conn));
            }
        } else {
            let mut chunks = Vec::new();
            while !flow.reads_over {
                let outcome = self.endpoint.read(now, conn, &mut chunks, 8);
                for byte in chunks.drain(..).flatten() {
                    if flow.received < 8 && flow.id.is_none() {
                        flow.header.push(byte);
                        if let Ok(id) = <[u8; 8]>::try_from(&flow.header[..]) {
                            flow.id = Some(u64::from_be_bytes(id));
                        }
                    } else if let Some(id) = flow.id {
                        let expected = Plan::of(id, partner).byte(id, flow.received);
                        if byte != expected {
                            return Err(format!("connection {id}: byte {} is {byte}, not {expected}", flow.received));
                        }
                    }
                    flow.received += 1;
                }
                match outcome {
                    ReadOutcome::More => {}
                    ReadOutcome::Blocked => break,
                    ReadOutcome::Finished => {
                        flow.reads_over = true;
                        flow.ends.saw_clean_end = true;
                        let whole = flow.id.map(|id| Plan::of(id, partner).length);
                        if whole.is_some_and(|whole| whole != flow.received) {
                            return Err(format!("a clean end after {} of {whole:?} bytes", flow.received));
                        }
                    }
                    ReadOutcome::Reset(_) | ReadOutcome::Gone => flow.reads_over = true,
                }
            }
        }
        // Write, once the content is known.
        let Some(id) = flow.id else { return Ok(()) };
        let plan = Plan::of(id, self.role);
        while !flow.writes_over {
            if flow.pending.is_none() {
                if plan.breaks_off && flow.sent >= plan.length / 2 {
                    flow.writes_over = true;
                    flow.ends.has_broken_off = true;
                    self.endpoint.reset(now, conn, StreamCode::PEER_ABORTED);
                    return Ok(());
                }
                if flow.sent >= plan.length {
                    flow.writes_over = true;
                    flow.ends.has_finished = true;
                    self.endpoint.finish(now, conn);
                    return Ok(());
                }
            }
            let piece = flow.pending.take().unwrap_or_else(|| plan.piece(id, flow.sent));
            let mut chunks = [piece];
            match self.endpoint.write(now, conn, &mut chunks) {
                WriteOutcome::Written { bytes } => flow.sent += bytes,
                WriteOutcome::Blocked { bytes, .. } => {
                    flow.sent += bytes;
                    let [rest] = chunks;
                    flow.pending = Some(rest);
                    return Ok(());
                }
                WriteOutcome::Stopped(_) | WriteOutcome::Gone => flow.writes_over = true,
            }
        }
        Ok(())
    }
}
