//! Silence: a hub that says nothing is asked for a sign of life (docs/protocols/spn.md, Pause and resume, RES-22).

use std::time::{Duration, Instant};

use super::LinkId;
use crate::spn::{
    Protocol, Role,
    endpoint::{ConnId, Due, Endpoint, binding::conn::Conn},
};

/// An endpoint whose hub has said nothing for so long asks for a sign of life: a provider while it is in use, a consumer while what it has
/// sent may be unheard. A hub that was restarted answers with a stateless reset, and the connections go on. QUIC's own probes come later and
/// later.
const SILENCE: Duration = Duration::from_millis(500);
/// A provider counts as in use for so long after its last connection: a consumer may look for it. Thousands may be idle, so these ask only
/// when not even keep-alives are answered,
const IN_USE: Duration = Duration::from_secs(10);
/// for so long after one was due (RES-22).
const OVERDUE: Duration = Duration::from_secs(1);

impl Endpoint {
    /// Something is being said, or a provider's session is up: from now on silence is looked for.
    pub(in crate::spn::endpoint::binding) fn listen(&mut self, now: Instant, id: LinkId) {
        let Some(wire) = self.links.get_mut(&id).and_then(|link| link.wire.as_mut()) else { return };
        wire.used_at = Some(now);
        if wire.listened.is_none() && wire.protocol == Protocol::Sc02 {
            wire.heard_at = Some(now);
            wire.listened = Some(self.quic.received_datagrams(wire.handle));
            self.deadlines.push(now + SILENCE, Due::Silence(id));
        }
    }

    pub(in crate::spn::endpoint) fn expire_silence(&mut self, now: Instant, id: LinkId) {
        let Some(wire) = self.links.get_mut(&id).and_then(|link| link.wire.as_mut()) else { return };
        let Some(before) = wire.listened else { return };
        let heard = self.quic.received_datagrams(wire.handle);
        // The hub's QUIC may have had it all, and its partner nothing.
        let waits = |id: &ConnId| {
            let conn = self.conns.get(id.index as usize).and_then(Option::as_ref);
            let ledger = |conn: &Conn| conn.ledger.as_ref().is_some_and(|ledger| ledger.kept() > 0);
            conn.is_some_and(|conn| conn.id == *id && (!conn.heard || ledger(conn)))
        };
        if self.config.role == Role::Consumer && heard > before && !wire.streams.values().any(waits) {
            wire.listened = None;
            return;
        }
        if self.paused > 0 || !wire.streams.is_empty() || !wire.openings.is_empty() {
            wire.used_at = Some(now);
        }
        let since = |at: Option<Instant>| at.map_or(Duration::ZERO, |at| now.saturating_duration_since(at));
        let keep_alive = Duration::from_millis(self.config.transport.keep_alive_ms.into());
        let is_idle = self.config.role == Role::Provider && since(wire.used_at) >= IN_USE;
        if heard > before {
            wire.heard_at = Some(now);
        } else if !is_idle || since(wire.heard_at) >= keep_alive + OVERDUE {
            self.quic.ping(wire.handle);
        }
        wire.listened = Some(heard);
        self.deadlines.push(now + SILENCE, Due::Silence(id));
    }
}
