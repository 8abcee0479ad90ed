//! The connections of the hub as they are on the wire: their streams, the payload between them, and the preambles and frames with which they
//! begin.
//!
//! A [`Conn`] is one connection, [`Conns`] are all of them. What a connection's [machine](HubConnection) decides is carried out by
//! the [exchange](super::exchange).

pub(super) mod conns;
pub(super) mod relay;

use std::{sync::Arc, time::Instant};

use self::relay::{Direction, Found, Leg};
use super::link::{Party, links::Links};
use crate::{
    machine::{Deadlines, Hosted, Machine as _},
    quic::Handle,
    spn::{
        ConnKey, Protocol, Side,
        flow::stall::{Look, Stall},
        hub::{
            context::{Context, Due},
            machines::connection::{Action, Event, HubConnection},
        },
        record::{ConnectionRecord, DisconnectReason, RecordEvent},
        wire::{
            code::StreamCode,
            frame::{Flags, Frame},
            preamble::{Preamble, RESUME_LEN},
        },
    },
};

/// One direction, and where it stands between two turns.
#[derive(Debug, Default)]
struct Flow {
    direction: Direction,
    is_queued: bool,
    /// Its target has no room.
    stall: Stall,
    /// What it leaves unread comes on top of the session's window.
    is_parked: bool,
}

/// Where a direction that may have something to move is put.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Its preamble has yet to be sent.
    Front,
    Back,
}

/// What a turn of a direction has shown, beyond what was moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Turn {
    pub(crate) found: Found,
    /// The first bytes have come from the provider.
    pub(crate) is_answer: bool,
}

/// What a consumer's stream begins.
#[derive(Debug, Clone)]
pub(crate) enum Origin {
    /// A new connection.
    New {
        /// The consumer's end can resume it.
        offers_resume: bool,
    },
    /// The next leg of a connection.
    Resumed {
        /// Its number.
        generation: u64,
        /// RESUME.
        preamble: Preamble,
    },
}

impl Origin {
    /// The code that refuses it when its session has too many connections.
    fn over_limit(&self) -> StreamCode {
        match self {
            Self::New { .. } => StreamCode::CONNECTION_LIMIT,
            Self::Resumed { .. } => StreamCode::PAUSED,
        }
    }
}

/// A connection on the hub: of one that is resumed, one leg.
pub(crate) struct Conn {
    machine: Hosted<HubConnection>,
    key: ConnKey,
    service: usize,
    /// The identity that the key belongs to.
    identity: Arc<str>,
    consumer: Leg,
    provider: Option<Leg>,
    /// The consumer's end can resume.
    offers_resume: bool,
    /// RESUME, if it began with that.
    resume: Option<Preamble>,
    /// The provider's session that has no stream for it at the moment.
    waits_for: Option<Handle>,
    /// Number of the leg.
    generation: u64,
    /// Something has come back from the provider.
    is_answered: bool,
    /// Datagrams that had come from its provider when it was given the connection; `None` for a later leg.
    heard: Option<u64>,
    began: Option<(Instant, ConnectionRecord)>,
    /// Consumer to provider.
    up: Flow,
    /// Provider to consumer.
    down: Flow,
}

impl Conn {
    /// What begins on a consumer's stream.
    fn new(machine: HubConnection, key: ConnKey, (leg, consumer): (Leg, &Party), origin: Origin) -> Self {
        let (offers_resume, generation, resume) = match origin {
            Origin::New { offers_resume } => (offers_resume, 0, None),
            Origin::Resumed { generation, preamble } => (true, generation, Some(preamble)),
        };
        Self {
            machine: Hosted::new(machine),
            key,
            service: consumer.service,
            identity: consumer.identity.clone(),
            consumer: leg,
            provider: None,
            offers_resume,
            resume,
            waits_for: None,
            generation,
            is_answered: false,
            heard: None,
            began: None,
            up: Flow::default(),
            down: Flow::default(),
        }
    }

    pub(crate) fn machine(&self) -> &HubConnection {
        &self.machine
    }

    pub(crate) fn handle_event(&mut self, now: Instant, event: Event) {
        self.machine.handle_event(now, event);
    }

    /// A deadline of its machine that was due `at` has come. Returns whether the machine is to be drained.
    pub(crate) fn expire(&mut self, now: Instant, at: Instant) -> bool {
        self.machine.expire(now, at)
    }

    /// The next action of its machine. When there is none, its deadline is noted under `due`.
    pub(crate) fn next_action(&mut self, deadlines: &mut Deadlines<Due>, due: Due) -> Option<Action> {
        self.machine.next_action(deadlines, due)
    }

    pub(crate) fn key(&self) -> ConnKey {
        self.key
    }

    pub(crate) fn service(&self) -> usize {
        self.service
    }

    pub(crate) fn generation(&self) -> u64 {
        self.generation
    }

    pub(crate) fn leg(&self, side: Side) -> Option<Leg> {
        match side {
            Side::Consumer => Some(self.consumer),
            Side::Provider => self.provider,
        }
    }

    /// The streams that it has.
    pub(crate) fn legs(&self) -> impl Iterator<Item = Leg> {
        [Some(self.consumer), self.provider].into_iter().flatten()
    }

    /// The consumer's end can resume.
    pub(crate) fn offers_resume(&self) -> bool {
        self.offers_resume
    }

    /// There is no stream to a provider yet: nothing is read.
    pub(crate) fn is_held(&self) -> bool {
        self.machine.is_choosing() || self.machine.is_waiting()
    }

    /// No payload has gone either way.
    pub(crate) fn is_unstarted(&self) -> bool {
        self.resume.is_none() && self.up.direction.relayed() == 0 && self.down.direction.relayed() == 0
    }

    /// Whether it is another identity's, or another service's, than this session's (OWN-4).
    pub(crate) fn is_foreign(&self, party: &Party, links: &Links) -> bool {
        let owner = match party.side() {
            Side::Consumer => Some(&self.identity),
            Side::Provider => {
                self.provider.and_then(|leg| links.get(leg.session)).map(|provider| &provider.party.identity)
            }
        };
        self.service != party.service || owner.is_some_and(|owner| *owner != party.identity)
    }

    /// A provider's session has a stream for it.
    pub(crate) fn board(&mut self, provider: Leg) {
        self.provider = Some(provider);
    }

    /// A provider's session has no stream for it at the moment.
    pub(crate) fn wait_for(&mut self, provider: Handle) {
        self.waits_for = Some(provider);
    }

    /// It waits no longer for a stream of a provider. Returns whose.
    pub(crate) fn stop_waiting(&mut self) -> Option<Handle> {
        self.waits_for.take()
    }

    /// Its provider was given it after so many datagrams had come from there.
    pub(crate) fn given_after(&mut self, heard: u64) {
        self.heard = Some(heard);
    }

    /// Whether its provider was given it after so many datagrams, and has sent nothing back on it.
    pub(crate) fn is_owed_answer(&self, heard: u64) -> bool {
        self.heard == Some(heard) && !self.is_answered
    }

    /// Something has come back from the provider. Says whether it is the first.
    pub(crate) fn answered(&mut self) -> bool {
        !std::mem::replace(&mut self.is_answered, true)
    }

    /// Payload that came with the consumer's preamble; `is_end`: and nothing follows.
    pub(crate) fn hold(&mut self, chunk: bytes::Bytes, is_end: bool) {
        self.up.direction.hold(chunk);
        if is_end {
            self.up.direction.end();
        }
    }

    /// Its provider waits for a preamble that never comes, as if the window of its session had been exhausted.
    #[cfg(test)]
    pub(crate) fn expect_preamble(&mut self) {
        self.up.direction.expect(usize::MAX);
    }

    /// A code from one end, as the other end is to see it.
    pub(crate) fn passed_on(&self, links: &Links, from: Side, code: StreamCode) -> StreamCode {
        let protocol = |side| links.protocol(self.leg(side)?.session);
        match (protocol(from), protocol(from.other())) {
            (Some(from), Some(to)) => code.passed_on(from, to),
            _ => code,
        }
    }

    /// A provider has it: the preamble goes ahead of the payload, the consumer is sent CONNECTED, and the start is recorded. Says whether the
    /// consumer's preamble reports that it is over for its end.
    pub(crate) fn begin(&mut self, cx: &mut Context<'_>, links: &mut Links) -> bool {
        let (consumer, key) = (self.consumer, self.key);
        let Some(provider) = self.provider else { return false };
        let record = ConnectionRecord {
            id: format!("{}-{}", u64::from(consumer.stream), u64::from(provider.stream)),
            consumer: cx.session_id(consumer.session),
            provider: cx.session_id(provider.session),
        };
        self.began = Some((cx.now, record.clone()));
        tracing::trace!(service = self.service, ?key, "provider chosen");
        let flags = Flags::RESUMABLE.only_if(self.machine.is_resumable());
        let resume = self.resume.clone();
        let is_new = resume.is_none();
        // The provider reads it in the preamble; the consumer may have ended by the time it could repeat it.
        let is_over = matches!(resume, Some(Preamble::Resume { flags, .. }) if flags.contains(Flags::OVER));
        // Who the ends are, for those that want to know: only these two are joined again, also by a hub that remembers nothing.
        let name = |leg: Leg| {
            let party = &links.get(leg.session)?.party;
            Some((party.tag, party.wants_partners && flags.contains(Flags::RESUMABLE)))
        };
        let (owner, consumer_asks) = name(consumer).unwrap_or_default();
        let (partner, provider_asks) = name(provider).unwrap_or_default();
        if links.protocol(provider.session) == Some(Protocol::Sc02) {
            let preamble = resume.unwrap_or(Preamble::Connect { conn: key, flags });
            if !is_new {
                // The provider answers with its own.
                self.down.direction.expect(RESUME_LEN);
            }
            let bytes = if provider_asks { preamble.to_bytes_of(owner) } else { preamble.to_bytes() };
            self.up.direction.prefix(bytes);
        }
        if let Some(link) = links.get_mut(consumer.session) {
            link.count_connection();
        }
        if is_new {
            links.send(consumer.session, &Frame::Connected { conn: key, flags });
            if consumer_asks {
                links.send(consumer.session, &Frame::Partner { conn: key, partner });
            }
        }
        cx.record(RecordEvent::StartConnection(record));
        is_over
    }

    /// Records its end, if it had begun.
    pub(crate) fn record_end(&mut self, cx: &mut Context<'_>, reason: DisconnectReason) {
        let Some((began, connection)) = self.began.take() else { return };
        cx.record(RecordEvent::EndConnection {
            connection,
            sent: self.up.direction.relayed(),
            received: self.down.direction.relayed(),
            elapsed_ms: cx.now.saturating_duration_since(began).as_millis() as u64,
            reason,
        });
    }

    /// The direction from `source` may be able to move something. Where it is to be put in the queue, if it flows and is in none.
    fn queue(&mut self, source: Side) -> Option<Place> {
        if !self.machine.is_flowing(source) {
            return None;
        }
        let flow = self.flow(source);
        if std::mem::replace(&mut flow.is_queued, true) {
            return None;
        }
        Some(if flow.direction.has_passed_preamble() { Place::Back } else { Place::Front })
    }

    /// One turn of the direction from `source`. None if nothing flows that way.
    fn pump(&mut self, cx: &mut Context<'_>, links: &mut Links, id: u64, source: Side) -> Option<Turn> {
        let is_flowing = self.machine.is_flowing(source);
        let (from, to) = (self.leg(source), self.leg(source.other()));
        let flow = self.flow(source);
        flow.is_queued = false;
        let (Some(from), Some(to), true) = (from, to, is_flowing) else { return None };
        let merge = links.get(to.session).is_some_and(|link| link.windows().sends_more());
        let before = flow.direction.relayed();
        let found = flow.direction.pump(cx.quic, from, to, cx.scratch, merge);
        let moved = flow.direction.relayed() - before;
        let has_read = flow.direction.has_read();
        links.pass_windows(cx, from.session, to.session, moved);
        match found {
            Found::Wait { stalled: true } => self.stall(cx, id, source),
            Found::Wait { stalled: false } => self.unstall(cx, links, source),
            Found::Again | Found::Fin | Found::Reset(_) | Found::Stop(_) | Found::Gone => {}
        }
        Some(Turn { found, is_answer: source == Side::Provider && has_read && self.answered() })
    }

    /// A direction's target has no room. If that lasts, what is unread must not eat its neighbours' credit.
    pub(crate) fn stall(&mut self, cx: &mut Context<'_>, id: u64, source: Side) {
        let flow = self.flow(source);
        if let Some(at) = flow.stall.begin(cx.now, flow.direction.relayed(), flow.is_parked) {
            cx.remind(at, Due::Stall(id, source));
        }
    }

    /// A direction has been stalled for a while.
    fn look_at_stall(&mut self, cx: &mut Context<'_>, links: &mut Links, id: u64, source: Side) {
        let from = self.leg(source);
        let flow = self.flow(source);
        match flow.stall.look(cx.now, flow.direction.relayed(), from.is_some()) {
            Look::Over => {}
            Look::Again(at) => cx.remind(at, Due::Stall(id, source)),
            Look::Stalled => flow.is_parked |= from.is_some_and(|from| links.stall(cx, from.session)),
        }
    }

    /// A direction has been read empty, or is over.
    pub(crate) fn unstall(&mut self, cx: &mut Context<'_>, links: &mut Links, source: Side) {
        let from = self.leg(source);
        let flow = self.flow(source);
        flow.stall.end();
        if std::mem::take(&mut flow.is_parked)
            && let Some(from) = from
        {
            links.unstall(cx, from.session);
        }
    }

    /// It leaves its streams: nothing moves any more.
    pub(crate) fn leave_streams(&mut self, cx: &mut Context<'_>, links: &mut Links) {
        self.unstall(cx, links, Side::Consumer);
        self.unstall(cx, links, Side::Provider);
        for leg in self.legs() {
            if let Some(link) = links.get_mut(leg.session) {
                link.streams_mut().remove(leg.stream);
            }
        }
    }

    /// The direction whose source is `side`.
    fn flow(&mut self, side: Side) -> &mut Flow {
        match side {
            Side::Consumer => &mut self.up,
            Side::Provider => &mut self.down,
        }
    }
}
