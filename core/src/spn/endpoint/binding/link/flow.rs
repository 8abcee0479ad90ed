//! The windows of one session: they grow where payload needs it, and what the host leaves unread eats nobody's credit.

use std::time::Instant;

use crate::{
    quic::{Handle, TransportConfig},
    spn::{
        endpoint::{
            carrier::LinkId,
            ports::{Due, Ports},
        },
        flow::budget::Windows,
    },
};

/// The windows of a session's QUIC connection.
pub(in crate::spn::endpoint) struct Flow {
    link: LinkId,
    handle: Handle,
    windows: Windows,
}

impl Flow {
    pub(super) fn new(link: LinkId, handle: Handle, transport: &TransportConfig, window_max: u32) -> Self {
        Self { link, handle, windows: Windows::new(transport, window_max) }
    }

    /// Payload has come through.
    pub(in crate::spn::endpoint) fn received(&mut self, now: Instant, bytes: usize, ports: &mut Ports) {
        let at = self.windows.received(now, bytes as u64, &mut ports.budget, &mut ports.quic, self.handle);
        self.remind_rest(at, ports);
    }

    /// Payload has been taken.
    pub(in crate::spn::endpoint) fn sent(&mut self, now: Instant, bytes: usize, ports: &mut Ports) {
        let at = self.windows.sent(now, bytes as u64, &mut ports.budget, &mut ports.quic, self.handle);
        self.remind_rest(at, ports);
    }

    /// Windows that have grown and are not used are small again.
    pub(in crate::spn::endpoint) fn rest(&mut self, now: Instant, ports: &mut Ports) {
        let at = self.windows.rest(now, &mut ports.budget, &mut ports.quic, self.handle);
        self.remind_rest(at, ports);
    }

    fn remind_rest(&self, at: Option<Instant>, ports: &mut Ports) {
        if let Some(at) = at {
            ports.remind(at, Due::Rest(self.link, self.handle));
        }
    }

    /// The host leaves bytes of a connection unread: they come on top of the window.
    pub(in crate::spn::endpoint) fn stall(&mut self, now: Instant, ports: &mut Ports) {
        let at = self.windows.stall(now, &mut ports.budget, &mut ports.quic, self.handle);
        self.remind_look(at, ports);
    }

    /// Looks again at what stalled connections hold.
    pub(in crate::spn::endpoint) fn look(&mut self, now: Instant, ports: &mut Ports) {
        let at = self.windows.look(now, &mut ports.budget, &mut ports.quic, self.handle);
        self.remind_look(at, ports);
    }

    fn remind_look(&self, at: Option<Instant>, ports: &mut Ports) {
        if let Some(at) = at {
            ports.remind(at, Due::Stalled(self.link, self.handle));
        }
    }

    /// A stalled connection has been read empty, or has left.
    pub(in crate::spn::endpoint) fn unstall(&mut self, ports: &mut Ports) {
        self.windows.unstall(&mut ports.budget, &mut ports.quic, self.handle);
    }

    /// The QUIC connection is over: what its windows had is free.
    pub(super) fn end(&self, ports: &mut Ports) {
        self.windows.end(&mut ports.budget);
    }
}
