//! A provider that has stood still (docs/protocols/spn.md, Choosing a provider, PRV-16).
//!
//! A process is stopped and goes on, a machine sleeps and wakes up. What the hub sent first stands at the head of the queue then, and that it has
//! been taken back stands at its end, or is still on its way. So what is new waits until the hub has been heard.

use std::time::{Duration, Instant};

use crate::{
    quic::Handle,
    spn::{
        Role,
        endpoint::{Due, Endpoint, Work, carrier::LinkId},
        patience::{LATE, LEAST, patience},
    },
};

/// A provider with sessions wants to be called so often; one that is called [`LATE`] has stood still. A hub waits longer before it gives its
/// connections to another one.
const TICK: Duration = Duration::from_secs(1);

/// A session whose new streams wait.
#[derive(Debug, Clone, Copy)]
pub(in crate::spn::endpoint) struct Hold {
    /// Datagrams that had come when the wait was over; the next one lets the streams in.
    heard: Option<u64>,
}

impl Endpoint {
    /// To be called whenever the host is here, before anything new is looked at.
    pub(in crate::spn::endpoint) fn watch_standstill(&mut self, now: Instant) {
        let Some(due) = self.tick.filter(|due| now >= *due) else { return };
        let wires =
            self.links.iter().filter_map(|(id, link)| Some((*id, link.wire.as_ref().filter(|wire| wire.up)?.handle)));
        let up: Vec<_> = wires.collect();
        self.tick = (!up.is_empty()).then(|| now + TICK);
        if now >= due + LATE {
            for (id, handle) in up {
                self.hold(now, id, handle);
            }
        }
    }

    /// A session is up.
    pub(in crate::spn::endpoint) fn begin_ticking(&mut self, now: Instant) {
        if self.config.role == Role::Provider {
            self.tick.get_or_insert(now + TICK);
        }
    }

    fn hold(&mut self, now: Instant, id: LinkId, handle: Handle) {
        let Some(wire) = self.wire_mut(id, handle) else { return };
        wire.hold = Some(Hold { heard: None });
        tracing::debug!("stood still: new connections wait until the hub is heard");
        let rtt = self.quic.rtt(handle);
        self.ask_for_sign(now + patience(rtt), id, handle);
    }

    /// Asks the hub to say something, and looks whether it has, at that time.
    fn ask_for_sign(&mut self, at: Instant, id: LinkId, handle: Handle) {
        self.quic.ping(handle);
        self.deadlines.push(at, Due::Hold(id, handle));
    }

    pub(in crate::spn::endpoint) fn expire_hold(&mut self, now: Instant, id: LinkId, handle: Handle) {
        let heard = self.quic.received_datagrams(handle);
        let Some(wire) = self.wire_mut(id, handle) else { return };
        match wire.hold {
            None => {}
            Some(Hold { heard: Some(before) }) if heard > before => {
                wire.hold = None;
                self.work.push_back(Work::Early(id));
            }
            Some(_) => {
                wire.hold = Some(Hold { heard: Some(heard) });
                self.ask_for_sign(now + LEAST, id, handle);
            }
        }
    }
}
