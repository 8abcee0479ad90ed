//! One session: bytes in, bytes out, calls.

use std::{collections::VecDeque, mem, time::Instant};

use bytes::Bytes;
use uuid::Uuid;

use super::{
    calls::{Calls, Outlet},
    config::Config,
    error::{ChooseError, CloseError, OpenError, ReadError, SendError},
    event::{Event, PipeKey, Read, Refused},
    inbound::{Arrival, Inbound},
    outbound::Outbound,
};
use crate::{
    epoch::Epoch,
    machine::Machine as _,
    net,
    pipe::{
        machines::{
            receiver::Mode,
            session::{self, Offer, Role, Session, Why},
        },
        policy::{aborts, ids::Ids, load::Load},
        wire::{
            codec::{Codec, DecodeError},
            message::{Abort, Control, Loss, Message, Part},
            sync::SyncConfig,
            value::Value,
        },
    },
};

/// One session over any byte stream.
///
/// # Contract
///
/// 1. [`handle_connected`](Self::handle_connected) comes first.
/// 2. After any other call, take all of [`poll_event`](Self::poll_event) until it gives `None`. What has come is decoded there, so a call's opening step
///    can be over before its blocks are looked at.
/// 3. Then write what [`poll_write`](Self::poll_write) gives, if it gives anything; report [`handle_sent`](Self::handle_sent) when all of it has left. There is one
///    write at a time.
/// 4. Then, if [`wants_read`](Self::wants_read), read once, and report [`handle_data`](Self::handle_data), [`handle_end`](Self::handle_end) or [`handle_error`](Self::handle_error).
///    Who reads without being asked can overflow queues (RCV-5).
/// 5. Call [`handle_timeout`](Self::handle_timeout) at [`poll_timeout`](Self::poll_timeout) or later. It may change after any call.
/// 6. At [`Event::Closed`] close the byte stream. Calls have no effect any more.
///
/// What belongs to a pipe has a [`PipeKey`]. From [`Event::Ended`] on, it finds nothing.
#[derive(Debug)]
pub struct SessionBinding<C> {
    role: Role,
    node_id: Uuid,
    epoch: Epoch,
    machine: Session,
    inbound: Inbound<C>,
    outbound: Outbound,
    calls: Calls,
    events: VecDeque<Event>,
    /// The time of the last call that told it.
    now: Instant,
    /// Who the peer says it is.
    peer: Uuid,
    /// What the machine knows of [`Calls::is_held`].
    is_held: bool,
    is_overloaded: bool,
    /// The machine wants to know when all has left.
    is_flushing: bool,
    is_over: bool,
    how: net::Close,
    fault: Option<DecodeError>,
}

impl<C: Codec> SessionBinding<C> {
    /// A session whose byte stream is not there yet.
    #[must_use]
    pub fn new(config: Config, codec: C) -> Self {
        let ids = Ids::new(config.role == Role::Server, config.closed_ids);
        Self {
            role: config.role,
            node_id: config.node_id,
            epoch: config.epoch,
            machine: Session::new(config.session),
            inbound: Inbound::new(codec, config.unread_max),
            outbound: Outbound::new(config.write, config.write_max),
            calls: Calls::new(ids, config.callee, config.receiver, Load::new(config.read)),
            events: VecDeque::new(),
            now: config.epoch.instant,
            peer: Uuid::nil(),
            is_held: false,
            is_overloaded: false,
            is_flushing: false,
            is_over: false,
            how: net::Close::Abort,
            fault: None,
        }
    }

    /// The byte stream is there.
    pub fn handle_connected(&mut self, now: Instant) {
        self.now = now;
        self.tell_machine(session::Event::WireUp { role: self.role }, None);
    }

    /// Bytes have come.
    pub fn handle_data(&mut self, now: Instant, bytes: Bytes) {
        self.now = now;
        if !self.is_over {
            self.inbound.push(bytes);
        }
    }

    /// The write has left.
    pub fn handle_sent(&mut self, now: Instant) {
        self.now = now;
        let report = self.outbound.on_sent();
        self.outlet().1.say(report);
        self.tell_machine(session::Event::Sent, None);
        self.settle();
    }

    /// The peer has ended its direction. What came before still counts.
    pub fn handle_end(&mut self, now: Instant) {
        self.now = now;
        self.inbound.end();
    }

    /// The byte stream broke.
    pub fn handle_error(&mut self, now: Instant) {
        self.now = now;
        self.tell_machine(session::Event::WireFailed, None);
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.now = now;
        self.machine.handle_timeout(now);
        self.perform(None);
        self.settle();
    }

    /// When to call [`handle_timeout`](Self::handle_timeout).
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.machine.poll_timeout()
    }

    /// Whether more bytes are wanted: all that has come was taken, and nothing is full (LOD-1).
    #[must_use]
    pub fn wants_read(&self) -> bool {
        !self.is_over && self.inbound.wants_more() && !self.calls.is_held()
    }

    /// Bytes to write, of as many messages as fit; none while a write is under way.
    #[must_use]
    pub fn poll_write(&mut self) -> Option<Bytes> {
        if self.is_over { None } else { self.outbound.poll_write() }
    }

    /// What has happened, until there is nothing.
    #[must_use]
    pub fn poll_event(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.events.pop_front() {
                return Some(event);
            }
            if !self.decode() {
                return None;
            }
        }
    }

    /// Calls a function of the peer. How its blocks are received is to be [chosen](Self::choose).
    ///
    /// # Errors
    /// When it is not called.
    pub fn open(
        &mut self,
        now: Instant,
        function: u16,
        params: Vec<Value>,
        priority: i8,
    ) -> Result<PipeKey, OpenError> {
        self.now = now;
        let (calls, mut out) = self.outlet();
        let opened = calls.open(&mut out, function, params, priority);
        self.settle();
        opened
    }

    /// Ends the opening step of a pipe: what becomes of its blocks (RCV-1).
    ///
    /// # Errors
    /// When that was decided before, or the pipe is over.
    pub fn choose(&mut self, pipe: PipeKey, mode: Mode) -> Result<(), ChooseError> {
        let (calls, mut out) = self.outlet();
        let chosen = calls.choose(&mut out, pipe, mode);
        self.settle();
        chosen
    }

    /// Sends a block.
    ///
    /// # Errors
    /// When it is not sent.
    pub fn send(&mut self, pipe: PipeKey, loss: Loss, payload: Bytes) -> Result<(), SendError> {
        self.send_part(pipe, Part::Data { loss, payload })
    }

    /// Sends EOF: this side has nothing more for the pipe.
    ///
    /// # Errors
    /// When it was sent before, or the pipe is over.
    pub fn send_eof(&mut self, pipe: PipeKey) -> Result<(), SendError> {
        self.send_part(pipe, Part::Eof)
    }

    fn send_part(&mut self, pipe: PipeKey, part: Part) -> Result<(), SendError> {
        let (calls, mut out) = self.outlet();
        let sent = calls.send(&mut out, pipe, part);
        self.settle();
        sent
    }

    /// Reads from a pipe whose blocks are a byte stream.
    ///
    /// # Errors
    /// When they are not, or the pipe is over.
    pub fn read_stream(&mut self, pipe: PipeKey) -> Result<Read, ReadError> {
        let (calls, mut out) = self.outlet();
        let read = calls.read(&mut out, pipe);
        self.settle();
        read
    }

    /// Ends a pipe, as caller or callee, with the result of the function or of the caller's handler (PIP-2, PIP-5).
    ///
    /// # Errors
    /// When it is over already, or the result cannot be sent.
    pub fn close(&mut self, pipe: PipeKey, result: Result<Value, Abort>) -> Result<(), CloseError> {
        let (calls, mut out) = self.outlet();
        let closed = calls.close(&mut out, pipe, result);
        self.settle();
        closed
    }

    /// Gives up a call (ABT-11).
    ///
    /// # Errors
    /// When it is over already.
    pub fn cancel(&mut self, pipe: PipeKey) -> Result<(), CloseError> {
        self.close(pipe, Err(aborts::cancelled()))
    }

    /// Refuses a call of the peer.
    ///
    /// # Errors
    /// When it is over already.
    pub fn refuse(&mut self, pipe: PipeKey, why: Refused) -> Result<(), CloseError> {
        let function = self.calls.function(pipe).ok_or(CloseError::Gone)?;
        self.close(pipe, Err(why.abort(function)))
    }

    /// Ends the session: in good order, when what is queued has left (SES-4), or at once.
    pub fn end(&mut self, now: Instant, graceful: bool) {
        self.now = now;
        self.tell_machine(session::Event::End { graceful }, None);
        self.settle();
    }

    /// How many pipes there are, called and calling.
    #[must_use]
    pub fn pipes(&self) -> usize {
        self.calls.len()
    }

    /// Blocks, EOFs among them, and bytes that wait for the application.
    #[must_use]
    pub fn waiting(&self) -> (usize, usize) {
        self.calls.waiting()
    }

    fn outlet(&mut self) -> (&mut Calls, Outlet<'_, C>) {
        let Self { inbound, outbound, calls, events, now, is_overloaded, .. } = self;
        (calls, Outlet { now: *now, codec: inbound.codec(), outbound, events, is_overloaded })
    }

    /// Takes the next message out of what has come; says whether it did anything.
    fn decode(&mut self) -> bool {
        if self.is_over {
            return false;
        }
        let Some(arrival) = self.inbound.next_arrival(self.calls.is_held()) else { return false };
        match arrival {
            Arrival::Message(message) => self.on_message(message),
            Arrival::End => self.tell_machine(session::Event::WireEnded, None),
            Arrival::NoMessage(error) => {
                self.fault = Some(error);
                self.tell_machine(session::Event::BadBytes, None);
            }
        }
        self.settle();
        true
    }

    fn on_message(&mut self, message: Message) {
        let event = match &message {
            Message::Control(control) => self.on_control(control),
            Message::Open(_) | Message::Close(_) | Message::Block(_) => session::Event::Message,
        };
        self.tell_machine(event, Some(message));
    }

    fn on_control(&mut self, control: &Control) -> session::Event {
        match control.code {
            Control::SYNC_CONFIG => match SyncConfig::from_bytes(&control.data) {
                Ok(SyncConfig { version, node_id, session_id, ping, timeout, .. }) => {
                    self.peer = node_id;
                    session::Event::Sync(Offer { version, session_id, ping, timeout })
                }
                Err(_) => session::Event::SyncShort,
            },
            Control::CLOSE => session::Event::ControlClose,
            Control::PING => session::Event::Ping,
            code => session::Event::UnknownControl { code },
        }
    }

    fn tell_machine(&mut self, event: session::Event, message: Option<Message>) {
        self.machine.handle_event(self.now, event);
        self.perform(message);
    }

    /// Does what the session machine asks for. `message` is the one that came.
    fn perform(&mut self, mut message: Option<Message>) {
        while let Some(action) = self.machine.poll_action() {
            match action {
                session::Action::SendSync(offer) => self.send_control(self.sync(offer).into()),
                session::Action::SendPing => self.send_control(Control::ping()),
                session::Action::SendClose => self.send_control(Control::close()),
                session::Action::Opened(agreed) => {
                    self.calls.begin();
                    self.events.push_back(Event::Opened { node_id: self.peer, agreed });
                }
                session::Action::HandOn => {
                    let (calls, mut out) = self.outlet();
                    if let Some(message) = message.take() {
                        calls.incoming(&mut out, message);
                    }
                }
                session::Action::EndPipes => {
                    let (calls, mut out) = self.outlet();
                    calls.end_all(&mut out);
                }
                session::Action::DropQueue => {
                    let report = self.outbound.drop_queue();
                    self.outlet().1.say(report);
                }
                session::Action::Flush => self.is_flushing = true,
                session::Action::CloseWire { graceful } => {
                    self.how = if graceful { net::Close::Fin } else { net::Close::Abort };
                }
                session::Action::Closed { why } => self.on_closed(why),
            }
        }
    }

    fn on_closed(&mut self, why: Why) {
        self.is_over = true;
        self.is_flushing = false;
        // There is no one to tell any more.
        let _ = self.outbound.drop_queue();
        self.events.push_back(Event::Closed { why, how: self.how, fault: self.fault.take() });
    }

    /// Tells the machine what has come of the last step.
    fn settle(&mut self) {
        if mem::take(&mut self.is_overloaded) {
            self.tell_machine(session::Event::Overload, None);
        }
        let is_held = self.calls.is_held();
        if mem::replace(&mut self.is_held, is_held) != is_held {
            let event = if is_held { session::Event::ReadHeld } else { session::Event::ReadResumed };
            self.tell_machine(event, None);
        }
        if self.is_flushing && self.outbound.is_idle() {
            self.is_flushing = false;
            self.tell_machine(session::Event::Flushed, None);
        }
    }

    fn sync(&self, Offer { version, session_id, ping, timeout }: Offer) -> SyncConfig {
        let utc_ms = i64::try_from(self.epoch.unix_at(self.now).as_millis()).unwrap_or(i64::MAX);
        SyncConfig { version, node_id: self.node_id, session_id, utc_ms, ping, timeout }
    }

    fn send_control(&mut self, control: Control) {
        // A codec whose limits do not even allow this has nothing to say; the handshake's time limit ends such a session.
        let _ = self.outlet().1.send(0, &control.into());
    }
}
