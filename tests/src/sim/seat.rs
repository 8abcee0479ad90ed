//! A place where a hub runs: it may be killed there, and started again.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    time::{Duration, Instant},
};

use towline_core::spn::{
    hub::{Config, Hub, Status},
    record::RecordEvent,
};

use super::epoch;
use crate::random::Random;

/// A hub's address, and the hub that is there at the moment.
pub(super) struct Seat {
    pub(super) address: SocketAddr,
    config: Config,
    pub(super) hub: Option<Hub>,
    /// When the next one starts, if none is there.
    back: Option<Instant>,
    /// What the present hub has recorded.
    counts: BTreeMap<&'static str, usize>,
    /// How long the next pause between two hubs is; none: there is no next one.
    pause: Option<Duration>,
    /// What was wrong with those that have ended.
    pub(super) faults: Vec<String>,
}

impl Seat {
    pub(super) fn new(now: Instant, address: SocketAddr, config: Config, seed: [u8; 32]) -> Self {
        let hub = Hub::new(now, config.clone(), seed, epoch()).expect("a hub");
        Self { address, config, hub: Some(hub), back: None, counts: BTreeMap::new(), pause: None, faults: Vec::new() }
    }

    /// No hub is there, and none will be.
    pub(super) fn is_over(&self) -> bool {
        self.hub.is_none() && self.back.is_none()
    }

    pub(super) fn status(&self) -> Option<Status> {
        self.hub.as_ref().map(Hub::status)
    }

    /// SIGKILL.
    pub(super) fn kill(&mut self, now: Instant, pause: Duration) {
        if self.hub.take().is_some() {
            self.counts.clear();
            self.back = Some(now + pause);
        }
    }

    /// SIGTERM, and another one when it has ended.
    pub(super) fn drain(&mut self, now: Instant, pause: Option<Duration>) {
        if let Some(hub) = &mut self.hub {
            self.pause = pause;
            hub.shutdown(now);
        }
    }

    /// SIGINT, for good.
    pub(super) fn stop(&mut self, now: Instant) {
        (self.back, self.pause) = (None, None);
        if let Some(hub) = &mut self.hub {
            hub.stop(now);
        }
    }

    pub(super) fn count(&mut self, event: &RecordEvent) {
        let what = match event {
            RecordEvent::StartSession(_) => "session started",
            RecordEvent::EndSession { .. } => "session ended",
            RecordEvent::StartConnection(_) => "connection started",
            RecordEvent::EndConnection { .. } => "connection ended",
        };
        *self.counts.entry(what).or_default() += 1;
    }

    /// The hub has ended, and has said so.
    pub(super) fn stopped(&mut self, now: Instant) {
        let Some(hub) = self.hub.take() else { return };
        for (start, end) in [("session started", "session ended"), ("connection started", "connection ended")] {
            let count = |what| self.counts.get(what).copied().unwrap_or(0);
            if count(start) != count(end) {
                self.faults.push(format!("{} times {start}, {} times {end}", count(start), count(end)));
            }
        }
        let status = hub.status();
        if (status.providers, status.consumers, status.connections, status.paused) != (0, 0, 0, 0) {
            self.faults.push(format!("the hub has ended and still has {status:?}"));
        }
        self.counts.clear();
        self.back = self.pause.take().map(|pause| now + pause);
    }

    pub(super) fn next_due(&self) -> Option<Instant> {
        match &self.hub {
            Some(hub) => hub.poll_timeout(),
            None => self.back,
        }
    }

    pub(super) fn handle_timeout(&mut self, now: Instant, random: &mut Random) {
        if let Some(hub) = &mut self.hub {
            if hub.poll_timeout().is_some_and(|due| due <= now) {
                hub.handle_timeout(now);
            }
        } else if self.back.is_some_and(|at| at <= now) {
            self.back = None;
            self.hub = Some(Hub::new(now, self.config.clone(), random.seed(), epoch()).expect("a hub"));
        }
    }
}
