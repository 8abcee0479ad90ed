//! The windows of one session, and the memory that all sessions of one socket share for them.
//!
//! Windows grow where payload needs it, and what a stalled reader leaves unread takes no other stream's credit (docs/protocols/spn.md, Control stream).

use std::time::{Duration, Instant};

use super::{
    stall::STALL_TIME,
    window::{REST, Window},
};
use crate::quic::{Endpoint, Handle, TransportConfig};

/// What stalled streams hold is looked at at least so often.
const STALL_LOOK: Duration = Duration::from_millis(200);

/// Memory for the windows of all sessions.
#[derive(Debug)]
pub(crate) struct Budget {
    /// Bytes for what stalled streams hold; half as many are there for windows that grow.
    most: u64,
    parked: u64,
    grown: u64,
}

impl Budget {
    pub(crate) fn new(most: u64) -> Self {
        Self { most, parked: 0, grown: 0 }
    }

    /// The limit is another one from now on.
    pub(crate) fn set_most(&mut self, most: u64) {
        self.most = most;
    }

    /// Bytes that stalled streams may hold at the moment.
    pub(crate) fn parked(&self) -> u64 {
        self.parked
    }

    /// Bytes by which windows have grown beyond their base.
    pub(crate) fn grown(&self) -> u64 {
        self.grown
    }

    /// Payload has passed a window. The window's new total, when it changed.
    fn pass(&mut self, window: &mut Window, now: Instant, bytes: u64, rtt: impl FnOnce() -> Duration) -> Option<u64> {
        let (before, room) = (window.grown(), (self.most / 2).saturating_sub(self.grown));
        let total = window.pass(now, bytes, room, rtt)?;
        self.grown = self.grown - before + window.grown();
        Some(total)
    }

    /// A window may be too large by now. Its new total, when it changed.
    fn rest(&mut self, window: &mut Window, now: Instant) -> Option<u64> {
        let before = window.grown();
        let total = window.rest(now)?;
        self.grown = self.grown - before + window.grown();
        Some(total)
    }

    /// So much has arrived in all on a session with stalled streams. The window's new total, when it changed.
    fn park(&mut self, window: &mut Window, arrived: u64) -> Option<u64> {
        let (before, room) = (window.parked(), self.most.saturating_sub(self.parked));
        let total = window.park(arrived, room);
        self.parked = self.parked - before + window.parked();
        total
    }

    /// A stream is stalled no more. The window's new total, when it changed.
    fn unstall(&mut self, window: &mut Window) -> Option<u64> {
        let before = window.parked();
        let total = window.unstall();
        self.parked = self.parked - before + window.parked();
        total
    }
}

/// Both windows of one session.
#[derive(Debug)]
pub(crate) struct Windows {
    receive: Window,
    send: Window,
    /// A look at what its stalled streams hold is due.
    looks: bool,
    /// A look at windows that have grown is due.
    rests: bool,
}

impl Windows {
    /// Windows as `transport` has them, which grow up to `max`.
    pub(crate) fn new(transport: &TransportConfig, max: u32) -> Self {
        let window = |base: u32| Window::new(base.into(), max.into(), transport.stream_window.into());
        let (receive, send) = (window(transport.receive_window), window(transport.send_window));
        Self { receive, send, looks: false, rests: false }
    }

    /// Bytes that stalled streams may hold.
    pub(crate) fn parked(&self) -> u64 {
        self.receive.parked()
    }

    /// Bytes by which both windows have grown.
    pub(crate) fn grown(&self) -> u64 {
        self.receive.grown() + self.send.grown()
    }

    /// Whether there is more on its way to the peer than the base allows.
    pub(crate) fn sends_more(&self) -> bool {
        self.send.grown() > 0
    }

    /// Payload has come. When to call [`rest`](Self::rest), if no reminder is set.
    pub(crate) fn received(
        &mut self,
        now: Instant,
        bytes: u64,
        budget: &mut Budget,
        quic: &mut Endpoint,
        handle: Handle,
    ) -> Option<Instant> {
        let total = budget.pass(&mut self.receive, now, bytes, || quic.rtt(handle).unwrap_or_default())?;
        quic.set_receive_window(handle, total);
        self.next_rest(now)
    }

    /// Payload has gone. When to call [`rest`](Self::rest), if no reminder is set.
    pub(crate) fn sent(
        &mut self,
        now: Instant,
        bytes: u64,
        budget: &mut Budget,
        quic: &mut Endpoint,
        handle: Handle,
    ) -> Option<Instant> {
        let total = budget.pass(&mut self.send, now, bytes, || quic.rtt(handle).unwrap_or_default())?;
        quic.set_send_window(handle, total);
        self.next_rest(now)
    }

    fn next_rest(&mut self, now: Instant) -> Option<Instant> {
        (self.grown() > 0 && !std::mem::replace(&mut self.rests, true)).then(|| now + REST)
    }

    /// Windows that have grown and are not used are small again. When to call it next.
    pub(crate) fn rest(
        &mut self,
        now: Instant,
        budget: &mut Budget,
        quic: &mut Endpoint,
        handle: Handle,
    ) -> Option<Instant> {
        self.rests = false;
        if let Some(total) = budget.rest(&mut self.receive, now) {
            quic.set_receive_window(handle, total);
        }
        if let Some(total) = budget.rest(&mut self.send, now) {
            quic.set_send_window(handle, total);
        }
        self.next_rest(now)
    }

    /// A stream has stalled: what it leaves unread comes on top. When to call [`look`](Self::look), if no reminder is set.
    pub(crate) fn stall(
        &mut self,
        now: Instant,
        budget: &mut Budget,
        quic: &mut Endpoint,
        handle: Handle,
    ) -> Option<Instant> {
        self.receive.stall(quic.arrived(handle));
        self.park(now, budget, quic, handle)
    }

    /// What a session's stalled streams may hold comes on top of its window. It is looked at again soon while it changes.
    fn park(&mut self, now: Instant, budget: &mut Budget, quic: &mut Endpoint, handle: Handle) -> Option<Instant> {
        let total = budget.park(&mut self.receive, quic.arrived(handle));
        if let Some(total) = total {
            quic.set_receive_window(handle, total);
        }
        let next = if total.is_some() { STALL_TIME } else { STALL_LOOK };
        (!std::mem::replace(&mut self.looks, true)).then(|| now + next)
    }

    /// Looks again at what stalled streams hold. When to call it next.
    pub(crate) fn look(
        &mut self,
        now: Instant,
        budget: &mut Budget,
        quic: &mut Endpoint,
        handle: Handle,
    ) -> Option<Instant> {
        self.looks = false;
        if !self.receive.is_stalled() {
            return None;
        }
        self.park(now, budget, quic, handle)
    }

    /// A stalled stream has been read empty, or is over.
    pub(crate) fn unstall(&mut self, budget: &mut Budget, quic: &mut Endpoint, handle: Handle) {
        if let Some(total) = budget.unstall(&mut self.receive) {
            quic.set_receive_window(handle, total);
        }
    }

    /// The session is over: what its windows had is free.
    pub(crate) fn end(&self, budget: &mut Budget) {
        budget.parked -= self.parked();
        budget.grown -= self.grown();
    }
}
