//! The pipes of one session: their machines, what waits in them, and their ids.

use std::{collections::VecDeque, time::Instant};

use super::{
    error::{ChooseError, CloseError, OpenError, ReadError, SendError},
    event::{Event, PipeKey, Read},
    outbound::Outbound,
};
use crate::{
    machine::Machine as _,
    net::Table,
    pipe::{
        machines::{
            callee::{self, Callee},
            caller::Caller,
            end::{self, By, Refusal},
            receiver::{self, Mode, Receiver},
        },
        policy::{
            aborts,
            ids::{Ids, Known},
            load::{Load, Report},
        },
        wire::{
            codec::{Codec, EncodeError},
            message::{Abort, Block, Close, Message, Open, Part, PipeId},
            value::Value,
        },
    },
};

/// Where pipes put what is to be sent and said.
pub(super) struct Outlet<'a, C> {
    pub(super) now: Instant,
    pub(super) codec: &'a C,
    pub(super) outbound: &'a mut Outbound,
    pub(super) events: &'a mut VecDeque<Event>,
    /// Set when a hard limit was reached.
    pub(super) is_overloaded: &'a mut bool,
}

impl<C: Codec> Outlet<'_, C> {
    pub(super) fn send(&mut self, priority: i8, message: &Message) -> Result<(), EncodeError> {
        let report = self.outbound.push(self.codec, priority, message)?;
        self.say(report);
        Ok(())
    }

    pub(super) fn say(&mut self, report: Option<Report>) {
        match report {
            None => {}
            Some(Report::On) => self.events.push_back(Event::Backpressure { is_on: true }),
            Some(Report::Off) => self.events.push_back(Event::Backpressure { is_on: false }),
            Some(Report::Broken) => *self.is_overloaded = true,
        }
    }

    fn refuse(&mut self, pipe: PipeId, with: Refusal) {
        let abort = match with {
            Refusal::Duplicate => aborts::duplicate_pipe(pipe),
            Refusal::Unknown => aborts::unknown_pipe(pipe),
            Refusal::WrongSide => aborts::wrong_side(pipe),
        };
        // A codec whose limits do not even allow this has nothing to say.
        let _ = self.send(0, &Close { pipe, result: Err(abort) }.into());
    }
}

/// One end of a pipe.
#[derive(Debug)]
enum End {
    Caller(Caller),
    Callee(Callee),
}

/// What a message or a wish has led to, beside what was sent.
#[derive(Debug)]
struct Step {
    is_offered: bool,
    is_received: bool,
    ended: Option<By>,
    outcome: Result<(), SendError>,
}

impl End {
    /// Hands in an event, and does what the machine asks for. `message` is the one that came, or that is to be sent.
    fn step<C: Codec>(
        &mut self,
        out: &mut Outlet<'_, C>,
        event: end::Event,
        (pipe, priority): (PipeId, i8),
        message: &mut Message,
    ) -> Step {
        match self {
            Self::Caller(machine) => machine.handle_event(out.now, event),
            Self::Callee(machine) => machine.handle_event(out.now, event),
        }
        let mut step = Step { is_offered: false, is_received: false, ended: None, outcome: Ok(()) };
        while let Some(action) = self.poll_action() {
            match action {
                end::Action::SendOpen | end::Action::SendBlock | end::Action::SendEof => {
                    step.outcome = out.send(priority, message).map_err(SendError::from);
                }
                end::Action::SendClose => {
                    if let Err(error) = out.send(priority, message) {
                        // The peer must not wait for a result that cannot be sent.
                        *message = Close { pipe, result: Err(aborts::unexpected()) }.into();
                        let _ = out.send(priority, message);
                        step.outcome = Err(error.into());
                    }
                }
                end::Action::Answer { with } => out.refuse(pipe, with),
                end::Action::Reject => step.outcome = Err(SendError::AfterEof),
                end::Action::Offer => step.is_offered = true,
                end::Action::Receive | end::Action::ReceiveEof => step.is_received = true,
                end::Action::End { by } => step.ended = Some(by),
            }
        }
        step
    }

    fn poll_action(&mut self) -> Option<end::Action> {
        match self {
            Self::Caller(machine) => machine.poll_action(),
            Self::Callee(machine) => machine.poll_action(),
        }
    }
}

#[derive(Debug)]
struct Pipe {
    id: PipeId,
    priority: i8,
    function: u16,
    end: End,
    receiver: Receiver,
    /// What the receiver keeps.
    waiting: VecDeque<Part>,
    /// Its byte stream was read to the end.
    is_read: bool,
}

/// The pipes of one session.
#[derive(Debug)]
pub(super) struct Calls {
    /// Boxed, so that a session that once had many is small again.
    pipes: Table<PipeKey, Box<Pipe>>,
    ids: Ids<PipeKey>,
    callee: callee::Config,
    receiver: receiver::Config,
    /// Whether there may be new pipes.
    is_open: bool,
    /// What waits in all pipes.
    read: Load,
    /// How many pipes have a full queue.
    full: usize,
}

impl Calls {
    pub(super) fn new(ids: Ids<PipeKey>, callee: callee::Config, receiver: receiver::Config, read: Load) -> Self {
        Self { pipes: Table::default(), ids, callee, receiver, is_open: false, read, full: 0 }
    }

    /// The handshake is over.
    pub(super) fn begin(&mut self) {
        self.is_open = true;
    }

    /// The session is over: each pipe ends, and there are no new ones (SES-5).
    pub(super) fn end_all<C: Codec>(&mut self, out: &mut Outlet<'_, C>) {
        self.is_open = false;
        let keys: Vec<_> = self.pipes.iter().map(|(key, pipe)| (key, pipe.id)).collect();
        for (key, pipe) in keys {
            let message = Close { pipe, result: Err(aborts::closing()) };
            // A pipe that is there has an end.
            let _ = self.drive(out, key, end::Event::SessionEnded, message.into());
        }
    }

    /// Whether nothing more is to be read, because too much waits.
    pub(super) fn is_held(&self) -> bool {
        self.full > 0 || self.read.is_on()
    }

    /// How many pipes there are, of both sides.
    pub(super) fn len(&self) -> usize {
        self.pipes.len()
    }

    /// Messages and bytes that wait for the application.
    pub(super) fn waiting(&self) -> (usize, usize) {
        (self.read.messages(), self.read.bytes())
    }

    pub(super) fn open<C: Codec>(
        &mut self,
        out: &mut Outlet<'_, C>,
        function: u16,
        params: Vec<Value>,
        priority: i8,
    ) -> Result<PipeKey, OpenError> {
        if !self.is_open {
            return Err(OpenError::NotOpen);
        }
        if out.outbound.is_full() {
            return Err(OpenError::Full);
        }
        let id = self.ids.next_free().ok_or(OpenError::NoFreePipe)?;
        let mut end = End::Caller(Caller::default());
        let mut message = Message::from(Open { pipe: id, priority, function, params });
        let step = end.step(out, end::Event::Call, (id, priority), &mut message);
        match step.outcome {
            Err(SendError::Encode(error)) => Err(error.into()),
            // It has sent no EOF, nor was its queue full a moment ago.
            Ok(()) | Err(SendError::Gone | SendError::AfterEof | SendError::Full) => {
                Ok(self.add(id, priority, function, end))
            }
        }
    }

    fn add(&mut self, id: PipeId, priority: i8, function: u16, end: End) -> PipeKey {
        let receiver = Receiver::new(self.receiver);
        let waiting = VecDeque::new();
        let pipe = Pipe { id, priority, function, end, receiver, waiting, is_read: false };
        let key = self.pipes.insert(Box::new(pipe));
        self.ids.use_for(id, key);
        key
    }

    /// A message about a pipe has come.
    pub(super) fn incoming<C: Codec>(&mut self, out: &mut Outlet<'_, C>, message: Message) {
        let (id, event) = match &message {
            Message::Open(open) => (open.pipe, end::Event::Open { is_ours: self.ids.is_ours(open.pipe) }),
            Message::Close(close) => (close.pipe, end::Event::Close),
            Message::Block(Block { pipe, part: Part::Data { .. } }) => (*pipe, end::Event::Block),
            Message::Block(Block { pipe, part: Part::Eof }) => (*pipe, end::Event::Eof),
            // The session has seen to it.
            Message::Control(_) => return,
        };
        let callee = match self.ids.get(id) {
            Known::Used(key) => {
                // A message that came has no outcome for anyone here.
                let _ = self.drive(out, key, event, message);
                return;
            }
            Known::Closed => Callee::closed(self.callee),
            Known::Free => Callee::new(self.callee),
        };
        self.without_pipe(out, (id, callee), event, message);
    }

    fn without_pipe<C: Codec>(
        &mut self,
        out: &mut Outlet<'_, C>,
        (id, callee): (PipeId, Callee),
        event: end::Event,
        mut message: Message,
    ) {
        let mut end = End::Callee(callee);
        let step = end.step(out, event, (id, 0), &mut message);
        if let Message::Open(Open { priority, function, params, .. }) = message
            && step.is_offered
        {
            let pipe = self.add(id, priority, function, end);
            out.events.push_back(Event::Called { pipe, id, function, priority, params });
        }
    }

    pub(super) fn send<C: Codec>(
        &mut self,
        out: &mut Outlet<'_, C>,
        key: PipeKey,
        part: Part,
    ) -> Result<(), SendError> {
        let pipe = self.pipes.get(key).ok_or(SendError::Gone)?.id;
        let event = match &part {
            // Each pipe has one EOF, so those may go beyond.
            Part::Eof => end::Event::SendEof,
            Part::Data { .. } if out.outbound.is_full() => return Err(SendError::Full),
            Part::Data { .. } => end::Event::Send,
        };
        self.drive(out, key, event, Block { pipe, part }.into())
    }

    pub(super) fn close<C: Codec>(
        &mut self,
        out: &mut Outlet<'_, C>,
        key: PipeKey,
        result: Result<Value, Abort>,
    ) -> Result<(), CloseError> {
        let pipe = self.pipes.get(key).ok_or(CloseError::Gone)?.id;
        self.drive(out, key, end::Event::Finish, Close { pipe, result }.into()).map_err(|error| match error {
            SendError::Encode(error) => error.into(),
            SendError::Gone | SendError::AfterEof | SendError::Full => CloseError::Gone,
        })
    }

    /// The function that a pipe calls.
    pub(super) fn function(&self, key: PipeKey) -> Option<u16> {
        self.pipes.get(key).map(|pipe| pipe.function)
    }

    pub(super) fn choose<C: Codec>(
        &mut self,
        out: &mut Outlet<'_, C>,
        key: PipeKey,
        mode: Mode,
    ) -> Result<(), ChooseError> {
        self.receive(out, key, receiver::Event::Choose(mode), None)
    }

    pub(super) fn read<C: Codec>(&mut self, out: &mut Outlet<'_, C>, key: PipeKey) -> Result<Read, ReadError> {
        loop {
            let pipe = self.pipes.get_mut(key).ok_or(ReadError::Gone)?;
            if !pipe.receiver.is_stream() {
                return Err(ReadError::NotStream);
            }
            if pipe.is_read {
                return Ok(Read::End);
            }
            let Some(part) = pipe.waiting.pop_front() else { return Ok(Read::Later) };
            pipe.is_read = part == Part::Eof;
            let len = len(&part);
            // Nothing was chosen.
            let _ = self.receive(out, key, receiver::Event::Taken { len }, None);
            match part {
                Part::Eof => return Ok(Read::End),
                Part::Data { payload, .. } if !payload.is_empty() => return Ok(Read::Data(payload)),
                Part::Data { .. } => {}
            }
        }
    }

    /// Hands an event to one end of a pipe, and does what it asks for.
    fn drive<C: Codec>(
        &mut self,
        out: &mut Outlet<'_, C>,
        key: PipeKey,
        event: end::Event,
        mut message: Message,
    ) -> Result<(), SendError> {
        let pipe = self.pipes.get_mut(key).ok_or(SendError::Gone)?;
        let step = pipe.end.step(out, event, (pipe.id, pipe.priority), &mut message);
        match message {
            Message::Block(Block { part, .. }) if step.is_received => {
                let event = match &part {
                    Part::Data { payload, .. } => receiver::Event::Block { len: payload.len() },
                    Part::Eof => receiver::Event::Eof,
                };
                // Nothing was chosen.
                let _ = self.receive(out, key, event, Some(part));
            }
            Message::Close(Close { result, .. }) => {
                if let Some(by) = step.ended {
                    self.end(out, key, by, result);
                }
            }
            Message::Block(_) | Message::Open(_) | Message::Control(_) => {}
        }
        step.outcome
    }

    /// A pipe is over for this end.
    fn end<C: Codec>(&mut self, out: &mut Outlet<'_, C>, key: PipeKey, by: By, result: Result<Value, Abort>) {
        // Nothing was chosen.
        let _ = self.receive(out, key, receiver::Event::PipeEnded, None);
        let Some(pipe) = self.pipes.remove(key) else { return };
        let (is_remembered, unread) = match by {
            By::Own | By::Overflow => (true, VecDeque::new()),
            By::Peer | By::Session => (false, pipe.waiting),
        };
        self.ids.free(pipe.id, is_remembered);
        out.events.push_back(Event::Ended { pipe: key, by, result, unread });
    }

    /// Hands an event to the receiving side of a pipe, and does what it asks for. `part` is the block that came.
    fn receive<C: Codec>(
        &mut self,
        out: &mut Outlet<'_, C>,
        key: PipeKey,
        event: receiver::Event,
        mut part: Option<Part>,
    ) -> Result<(), ChooseError> {
        let pipe = self.pipes.get_mut(key).ok_or(ChooseError::Gone)?;
        pipe.receiver.handle_event(out.now, event);
        let (mut outcome, mut is_due, mut is_over) = (Ok(()), false, false);
        while let Some(action) = pipe.receiver.poll_action() {
            match action {
                receiver::Action::Keep => {
                    if let Some(part) = part.take() {
                        // Only the hard limit is news: the soft one is asked for.
                        *out.is_overloaded |= self.read.add(len(&part)) == Some(Report::Broken);
                        pipe.waiting.push_back(part);
                    }
                }
                receiver::Action::Deliver => out.events.extend(part.take().map(|part| given(key, part))),
                receiver::Action::Readable => out.events.push_back(Event::Readable { pipe: key }),
                receiver::Action::DeliverWaiting => is_due = true,
                receiver::Action::Drop => part = None,
                receiver::Action::DropWaiting => pipe.waiting.clear(),
                receiver::Action::Credit { blocks, bytes } => {
                    let _ = self.read.sub(blocks, bytes);
                }
                receiver::Action::Hold => self.full += 1,
                receiver::Action::Release => self.full -= 1,
                receiver::Action::Overflow => is_over = true,
                receiver::Action::Reject => outcome = Err(ChooseError::Decided),
            }
        }
        if is_due {
            self.deliver_waiting(out, key);
        }
        if is_over && let Some(id) = self.pipes.get(key).map(|pipe| pipe.id) {
            let message = Close { pipe: id, result: Err(aborts::overflow()) };
            // Its text is short.
            let _ = self.drive(out, key, end::Event::Overflow, message.into());
        }
        outcome
    }

    fn deliver_waiting<C: Codec>(&mut self, out: &mut Outlet<'_, C>, key: PipeKey) {
        while let Some(part) = self.pipes.get_mut(key).and_then(|pipe| pipe.waiting.pop_front()) {
            let len = len(&part);
            out.events.push_back(given(key, part));
            // Nothing was chosen.
            let _ = self.receive(out, key, receiver::Event::Taken { len }, None);
        }
    }
}

fn given(pipe: PipeKey, part: Part) -> Event {
    match part {
        Part::Data { loss, payload } => Event::Block { pipe, loss, payload },
        Part::Eof => Event::Eof { pipe },
    }
}

fn len(part: &Part) -> usize {
    match part {
        Part::Data { payload, .. } => payload.len(),
        Part::Eof => 0,
    }
}
