//! Frames about connections that outlive their streams, and requests to resume that have waited too long (docs/protocols/spn.md, Pause and
//! resume).

use std::time::Duration;

use super::Intake;
use crate::{
    quic::Handle,
    spn::{
        ConnKey, Side, Tag,
        hub::{
            binding::{conn::relay::Leg, exchange::pairing_actions::Offered},
            context::{Context, Due},
            machines::{
                connection,
                pairing::{Admission, End, Event, Values},
            },
        },
        wire::{
            code::StreamCode,
            frame::{AckEntry, Flags, ResumeReq},
            preamble::Preamble,
        },
    },
};

/// How often a session's requests are looked through for those that have waited too long, at most.
const LOOK_EVERY: Duration = Duration::from_secs(1);

impl Intake {
    /// RESUME_REQ.
    pub(crate) fn resume_req(
        &mut self,
        cx: &mut Context<'_>,
        session: Handle,
        values: &ResumeReq,
        partner: Option<Tag>,
    ) {
        let is_listening = self.exchange.is_listening();
        let parts = self.exchange.parts();
        let Some(link) = parts.links.get(session) else { return };
        let &ResumeReq { conn: key, generation, received, flags, code, .. } = values;
        let admission = if !is_listening {
            Admission::Leaving
        } else if parts.connections.is_foreign(parts.links, session, key) {
            Admission::Foreign
        } else if link.requests().len() >= cx.config.limits.connections_per_session as usize {
            Admission::Full
        } else {
            Admission::Free
        };
        let event = Event::ResumeReq {
            session: session.into(),
            end: End { partner, ..link.party.end() },
            values: Values { generation, received, flags, code },
            admission,
            owners: parts.connections.owners(parts.links, key),
            paused: parts.services.get(link.party.service).is_some_and(|entry| entry.is_paused()),
        };
        self.exchange.begin_pairing(cx, key, event);
    }

    /// A consumer's stream begins with RESUME. The code refuses it.
    pub(super) fn resume(
        &mut self,
        cx: &mut Context<'_>,
        consumer: Leg,
        preamble: Preamble,
    ) -> Result<u64, StreamCode> {
        let &Preamble::Resume { conn: key, generation, .. } = &preamble else { return Err(StreamCode::MALFORMED) };
        let generation = u64::from(generation);
        let is_listening = self.exchange.is_listening();
        let parts = self.exchange.parts();
        let Some(link) = parts.links.get(consumer.session) else { return Err(StreamCode::NOT_ENTITLED) };
        let event = Event::ResumeStream {
            session: consumer.session.into(),
            end: link.party.end(),
            generation,
            admission: parts.connections.admission(parts.links, is_listening, consumer.session, key),
            yields: parts.connections.by_key(key).is_some_and(|leg| leg.machine().may_be_superseded()),
        };
        self.exchange.decide_stream(cx, key, event, Some(&Offered { leg: consumer, generation, preamble }))
    }

    /// CLOSE_REQ for a connection that has no leg of this session.
    pub(super) fn close_request(&mut self, cx: &mut Context<'_>, session: Handle, key: ConnKey, code: StreamCode) {
        let Some(link) = self.exchange.parts().links.get(session) else { return };
        let (service, end) = (link.party.service, link.party.end());
        self.exchange.begin_pairing(cx, key, Event::CloseReq { session: session.into(), end, code });
        self.exchange.update_managed(cx, service);
    }

    /// DATA_ACK: what an end has taken is reported to the other.
    pub(super) fn data_ack(&mut self, cx: &mut Context<'_>, session: Handle, entries: Vec<AckEntry>) {
        for entry in entries {
            let parts = self.exchange.parts();
            let Some((id, side)) = parts.connections.own(parts.links, session, entry.conn) else { continue };
            let Some(connection) = parts.connections.get_mut(id).filter(|it| it.machine().is_routed()) else {
                continue;
            };
            let Some(to) = connection.leg(side.other()) else { continue };
            // On a later leg the provider's preamble goes before its reports.
            if side == Side::Provider && connection.answered() {
                self.exchange.connection_event(cx, id, connection::Event::Answered);
            }
            let is_over = entry.flags.contains(Flags::OVER);
            self.exchange.parts().links.send_report(to.session, entry);
            if is_over {
                self.exchange.connection_event(cx, id, connection::Event::Reported { side });
            }
        }
    }

    /// PROVIDERS_ACK.
    pub(super) fn providers_ack(&mut self, cx: &mut Context<'_>, session: Handle, number: u64) {
        let parts = self.exchange.parts();
        if let Some(service) = parts.services.acknowledge(parts.links, session, number) {
            self.exchange.choose_for_waiting(cx, service);
        }
    }

    /// SEEK: only for what the consumer has asked to resume, and each session of a provider is asked once.
    pub(super) fn seek(&mut self, cx: &mut Context<'_>, session: Handle, conn: ConnKey, instance: [u8; 16]) {
        let parts = self.exchange.parts();
        if let Some(provider) = parts.services.sought(parts.links, session, instance) {
            self.exchange.pairing_event(cx, conn, Event::Seek { session: session.into(), provider: provider.into() });
        }
    }

    /// Lets the requests of a session that have waited too long expire.
    pub(super) fn requests_timeout(&mut self, cx: &mut Context<'_>, session: Handle) {
        let parts = self.exchange.parts();
        let Some(link) = parts.links.get_mut(session) else { return };
        link.requests_mut().set_reminded(false);
        let service = link.party.service;
        let is_late = |key: &ConnKey| parts.pairings.due(*key).is_some_and(|at| at <= cx.now);
        for key in link.requests().iter().filter(is_late).collect::<Vec<_>>() {
            let actions = self.exchange.parts().pairings.expire(cx.now, key);
            self.exchange.perform_pairing(cx, key, actions);
        }
        // The oldest request of a connection may have been another session's.
        let parts = self.exchange.parts();
        let Some(link) = parts.links.get_mut(session) else { return };
        if let Some(next) = link.requests().iter().filter_map(|key| parts.pairings.due(key)).min() {
            link.requests_mut().set_reminded(true);
            cx.remind(next.max(cx.now + LOOK_EVERY), Due::Parked(session));
        }
        self.exchange.update_managed(cx, service);
    }
}
