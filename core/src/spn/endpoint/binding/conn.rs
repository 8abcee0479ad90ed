//! One connection of an endpoint: its machine, the stream that carries it, and what is needed to go on on another one.

pub(in crate::spn::endpoint) mod conns;
mod delivery;
mod halves;
mod held;
mod input;
pub(in crate::spn::endpoint) mod ledger;
mod local;
mod output;
mod retention;
mod unread;

use std::time::Instant;

use bytes::Bytes;

use self::{
    delivery::Parting, halves::Halves, held::Held, input::Input, ledger::Ledger, local::Local, output::Output,
    unread::Unread,
};
pub(in crate::spn::endpoint) use self::{delivery::Reset, input::Answer, local::NoWrite};
use crate::{
    machine::{Hosted, Machine as _},
    quic::WriteOutcome,
    spn::{
        ConnKey, Tag,
        endpoint::{
            binding::queue::Ticket,
            carrier::{Asked, Carrier},
            config::ConnId,
            machines::connection::{Action, Connection, Event},
            policy::seek::{Claim, Roster},
            ports::{Due, Ports},
        },
        flow::stall::Look,
        wire::{code::StreamCode, frame::ResumeReq},
    },
};

/// A connection of the endpoint.
pub(in crate::spn::endpoint) struct Conn {
    id: ConnId,
    machine: Hosted<Connection>,
    /// Its place among those that look for a session.
    ticket: Option<Ticket>,
    carrier: Option<Carrier>,
    /// Its name on the wire; [`Conns`](conns::Conns) finds it by that.
    key: Option<ConnKey>,
    /// Who the partner is, if the hub has said so: nobody else goes on with the connection.
    partner: Option<Tag>,
    /// It is counted among those that wait for a stream.
    waits: bool,
    /// What of its ledger was counted as kept.
    retained: u64,
    /// A report is due some time.
    is_report_due: bool,
    /// What is needed to go on on another stream, as long as that is possible.
    pub(in crate::spn::endpoint) ledger: Option<Box<Ledger>>,
    pub(in crate::spn::endpoint) asked: Asked,
    pub(in crate::spn::endpoint) claim: Claim,
    pub(in crate::spn::endpoint) local: Local,
    pub(in crate::spn::endpoint) input: Input,
    pub(in crate::spn::endpoint) output: Output,
    pub(in crate::spn::endpoint) held: Held,
    pub(in crate::spn::endpoint) halves: Halves,
    unread: Unread,
    /// The last bytes were given to a stream then.
    last_sent: Option<Instant>,
    /// The host wants it reset, once they are delivered.
    parting: Option<Parting>,
}

impl Conn {
    /// A consumer's connection is begun by the host, and what is sent on it is held.
    fn new(id: ConnId, machine: Connection, is_consumer: bool) -> Self {
        Self {
            id,
            machine: Hosted::new(machine),
            ticket: None,
            carrier: None,
            key: None,
            partner: None,
            waits: false,
            retained: 0,
            is_report_due: false,
            ledger: None,
            asked: Asked::new(),
            claim: Claim::default(),
            local: Local::new(id, is_consumer),
            input: Input::default(),
            output: Output::default(),
            held: Held::new(is_consumer),
            halves: Halves::default(),
            unread: Unread::default(),
            last_sent: None,
            parting: None,
        }
    }

    pub(in crate::spn::endpoint) fn id(&self) -> ConnId {
        self.id
    }

    /// Its machine, to be asked.
    pub(in crate::spn::endpoint) fn machine(&self) -> &Connection {
        &self.machine
    }

    pub(in crate::spn::endpoint) fn handle_event(&mut self, now: Instant, event: Event) {
        self.machine.handle_event(now, event);
    }

    /// A deadline, due `at`, has come. Says whether the machine is to be drained.
    pub(in crate::spn::endpoint) fn expire(&mut self, now: Instant, at: Instant) -> bool {
        self.machine.expire(now, at)
    }

    pub(in crate::spn::endpoint) fn next_action(&mut self, ports: &mut Ports) -> Option<Action> {
        self.machine.next_action(&mut ports.deadlines, Due::Conn(self.id))
    }

    /// Its name on the wire.
    pub(in crate::spn::endpoint) fn key(&self) -> Option<ConnKey> {
        self.key
    }

    /// The stream that carries it.
    pub(in crate::spn::endpoint) fn carrier(&self) -> Option<Carrier> {
        self.carrier
    }

    /// Who the partner is, as far as a hub has said.
    pub(in crate::spn::endpoint) fn partner(&self) -> Option<Tag> {
        self.partner
    }

    pub(in crate::spn::endpoint) fn set_partner(&mut self, partner: Option<Tag>) {
        self.partner = partner;
    }

    /// It looks for a session.
    pub(in crate::spn::endpoint) fn queue(&mut self, ticket: Ticket) {
        self.ticket = Some(ticket);
    }

    /// It looks no more.
    pub(in crate::spn::endpoint) fn take_ticket(&mut self) -> Option<Ticket> {
        self.ticket.take()
    }

    /// Goes onto a stream.
    pub(in crate::spn::endpoint) fn board(&mut self, carrier: Carrier) {
        self.carrier = Some(carrier);
        self.halves = Halves::default();
    }

    /// Goes off its stream. What has come and was not read counts as not come.
    pub(in crate::spn::endpoint) fn leave(&mut self) -> Option<Carrier> {
        self.output.clear();
        self.input.forget_answer();
        if self.ledger.is_some() {
            self.input.forget_ahead();
        }
        self.carrier.take()
    }

    /// It is about to lose its stream on a session with these providers: if nothing was heard of it, it may be sought.
    pub(in crate::spn::endpoint) fn lose_stream(&mut self, roster: Option<&Roster>) {
        if self.ledger.is_some() && self.carrier.is_some() && self.key.is_some() {
            self.claim.lose_stream(roster);
        }
    }

    /// Whether its partner may not have all that was sent, as far as anybody has said.
    pub(in crate::spn::endpoint) fn is_unheard(&self) -> bool {
        !self.claim.is_heard() || self.ledger.as_ref().is_some_and(|ledger| ledger.kept() > 0)
    }

    /// What RESUME_REQ says of this end.
    pub(in crate::spn::endpoint) fn request(&self) -> Option<ResumeReq> {
        Some(self.ledger.as_ref()?.request(self.key?))
    }

    /// Begins the next stream with RESUME.
    pub(in crate::spn::endpoint) fn push_resume(&mut self) {
        if let (Some(key), Some(ledger)) = (self.key, &mut self.ledger) {
            ledger.doubt_reports();
            self.output.push(ledger.preamble(key).to_bytes());
        }
    }

    /// Sends the held bytes again.
    pub(in crate::spn::endpoint) fn send_held(&mut self) {
        self.output.extend(self.held.all());
        if let Some(ledger) = &mut self.ledger {
            ledger.keep(self.held.all());
        }
    }

    /// Sends again what is not acknowledged.
    pub(in crate::spn::endpoint) fn send_kept(&mut self) {
        if let Some(ledger) = &mut self.ledger {
            self.output.extend(ledger.again());
        }
    }

    /// Our direction ends behind what was written.
    pub(in crate::spn::endpoint) fn finish(&mut self) {
        if let Some(ledger) = &mut self.ledger {
            ledger.finish();
        }
        self.output.finish();
    }

    pub(in crate::spn::endpoint) fn reset(&mut self, code: StreamCode, ports: &mut Ports) {
        self.halves.end_sending();
        self.output.clear();
        if let Some(Carrier { handle, stream, .. }) = self.carrier {
            ports.quic.reset(handle, stream, code.0);
        }
    }

    pub(in crate::spn::endpoint) fn stop(&mut self, code: StreamCode, ports: &mut Ports) {
        self.halves.end_receiving();
        if let Some(Carrier { handle, stream, .. }) = self.carrier {
            ports.quic.stop(handle, stream, code.0);
        }
    }

    /// The reset that has come on its stream.
    pub(in crate::spn::endpoint) fn received_reset(&self, ports: &mut Ports) -> Option<StreamCode> {
        let Carrier { handle, stream, .. } = self.carrier?;
        ports.quic.received_reset(handle, stream).map(StreamCode)
    }

    /// Writes what goes before the host's bytes. Says whether all of it is written.
    pub(in crate::spn::endpoint) fn flush(&mut self, ports: &mut Ports) -> bool {
        self.carrier.is_some_and(|carrier| self.output.flush(carrier, &mut ports.quic))
    }

    /// There is room in its stream.
    pub(in crate::spn::endpoint) fn note_writable(&mut self, ports: &mut Ports) {
        if self.flush(ports) {
            self.local.note_writable(ports);
        }
    }

    /// Writes the host's bytes to its stream; with a ledger at most `room` of them, which are kept.
    pub(in crate::spn::endpoint) fn write(
        &mut self,
        now: Instant,
        chunks: &mut [Bytes],
        room: u64,
        ports: &mut Ports,
    ) -> WriteOutcome {
        let Some(Carrier { handle, stream, .. }) = self.carrier else { return WriteOutcome::Gone };
        let Some(ledger) = &mut self.ledger else { return ports.quic.write(handle, stream, chunks) };
        let mut room = usize::try_from(room).unwrap_or(usize::MAX);
        let mut offered = Vec::with_capacity(chunks.len());
        for chunk in &*chunks {
            let part = chunk.slice(..chunk.len().min(room));
            room -= part.len();
            offered.push(part);
        }
        let bytes = match ports.quic.write(handle, stream, &mut offered) {
            WriteOutcome::Written { bytes } | WriteOutcome::Blocked { bytes, .. } => bytes,
            outcome @ (WriteOutcome::Stopped(_) | WriteOutcome::Gone) => return outcome,
        };
        let (mut left, mut whole) = (bytes, 0);
        for chunk in chunks.iter_mut() {
            if chunk.len() > left {
                ledger.keep([chunk.split_to(left)]);
                break;
            }
            left -= chunk.len();
            whole += 1;
            ledger.keep([std::mem::take(chunk)]);
        }
        ledger.note_sent(now);
        if whole == chunks.len() {
            WriteOutcome::Written { bytes }
        } else {
            WriteOutcome::Blocked { bytes, chunks: whole }
        }
    }

    /// The host has taken chunks off its stream: those from `before` on. Takes off them what the partner has repeated.
    pub(in crate::spn::endpoint) fn take(&mut self, chunks: &mut Vec<Bytes>, before: usize, bytes: usize) {
        self.unread.take(bytes);
        let Some(ledger) = &mut self.ledger else { return };
        if ledger.take(chunks.get_mut(before..).unwrap_or_default()) < bytes as u64 {
            // Empty chunks are dropped: a host that writes chunks until none is left would never finish with an empty one.
            let mut place = 0;
            chunks.retain(|chunk| {
                place += 1;
                place <= before || !chunk.is_empty()
            });
        }
    }

    /// The partner's direction is over here: its end was shown, or nobody reads on.
    pub(in crate::spn::endpoint) fn end_receiving(&mut self) {
        if let Some(ledger) = &mut self.ledger {
            ledger.end();
        }
    }

    /// There is something to read.
    pub(in crate::spn::endpoint) fn note_unread(&mut self, now: Instant, ports: &mut Ports) {
        if let Some(at) = self.unread.begin(now) {
            ports.remind(at, Due::Stall(self.id));
        }
    }

    /// Where the host's unread bytes are counted: [`Unread`].
    pub(in crate::spn::endpoint) fn unread_mut(&mut self) -> &mut Unread {
        &mut self.unread
    }

    /// Looks whether the host leaves bytes unread. If so, they come on top of the window of the session whose stream is returned.
    pub(in crate::spn::endpoint) fn look_at_unread(&mut self, now: Instant, ports: &mut Ports) -> Option<Carrier> {
        match self.unread.look(now, self.carrier) {
            Look::Over => None,
            Look::Again(at) => {
                ports.remind(at, Due::Stall(self.id));
                None
            }
            Look::Stalled => self.carrier,
        }
    }
}
