//! Sessions by the bytes that go between them.

mod ends;
mod hostile;
mod limits;
mod random;

use std::{collections::BTreeSet, time::Instant};

use bytes::{Bytes, BytesMut};
use uuid::Uuid;

use super::*;
use crate::{
    epoch::Epoch,
    pipe::{
        machines::session::{Offer, Role, Why},
        wire::{
            codec::{Codec, Receiver, msgpack::MsgPack, simple::Simple},
            message::{Close, Control, Message, Open, PipeId},
            sync::SyncConfig,
            value::Value,
        },
    },
    testing::first_instant,
};

const SESSION: Uuid = Uuid::from_u128(0x5e55);

type Session = SessionBinding<Box<dyn Codec>>;

fn codecs() -> [fn() -> Box<dyn Codec>; 2] {
    [|| Box::<MsgPack>::default(), || Box::<Simple>::default()]
}

fn config(role: Role, now: Instant) -> Config {
    let epoch = Epoch { instant: now, unix: std::time::Duration::from_secs(1_000) };
    Config::new(role, Uuid::from_u128(role as u128 + 1), SESSION, epoch)
}

/// One side, and what its application has seen. It checks what must hold of every application.
struct Side {
    binding: Session,
    events: Vec<Event>,
    /// Pipes that have not ended.
    live: BTreeSet<PipeKey>,
    closed: Option<Why>,
}

impl Side {
    fn new(config: Config, codec: Box<dyn Codec>) -> Self {
        let now = config.epoch.instant;
        let mut binding = SessionBinding::new(config, codec);
        binding.handle_connected(now);
        Self { binding, events: Vec::new(), live: BTreeSet::new(), closed: None }
    }

    /// Takes all events.
    fn poll(&mut self) {
        while let Some(event) = self.binding.poll_event() {
            self.see(&event);
            self.events.push(event);
        }
    }

    /// Takes one.
    fn poll_one(&mut self) -> Option<Event> {
        let event = self.binding.poll_event()?;
        self.see(&event);
        Some(event)
    }

    fn see(&mut self, event: &Event) {
        assert_eq!(self.closed, None, "{event:?} after the end");
        match event {
            Event::Called { pipe, .. } => assert!(self.live.insert(*pipe), "{pipe:?} begins twice"),
            Event::Block { pipe, .. } | Event::Eof { pipe } | Event::Readable { pipe } => {
                assert!(self.live.contains(pipe), "{event:?} after its end");
            }
            Event::Ended { pipe, .. } => assert!(self.live.remove(pipe), "{pipe:?} ends twice"),
            Event::Closed { why, .. } => {
                assert!(self.live.is_empty(), "pipes outlive their session");
                assert_eq!((self.binding.pipes(), self.binding.waiting()), (0, (0, 0)));
                self.closed = Some(*why);
            }
            Event::Opened { .. } | Event::Backpressure { .. } => {}
        }
    }

    fn open(&mut self, now: Instant, function: u16, params: Vec<Value>) -> PipeKey {
        let pipe = self.binding.open(now, function, params, 0).unwrap();
        assert!(self.live.insert(pipe));
        pipe
    }

    fn take(&mut self) -> Vec<Event> {
        self.poll();
        std::mem::take(&mut self.events)
    }

    /// The pipe of the only call that has come.
    fn called(&mut self) -> PipeKey {
        let called = self
            .take()
            .into_iter()
            .filter_map(|event| if let Event::Called { pipe, .. } = event { Some(pipe) } else { None });
        let pipes: Vec<_> = called.collect();
        assert_eq!(pipes.len(), 1);
        pipes[0]
    }
}

/// A client and a server, and nothing lost between them.
struct Pair {
    now: Instant,
    client: Side,
    server: Side,
}

impl Pair {
    fn new(codec: fn() -> Box<dyn Codec>) -> Self {
        let mut pair = Self::begun(codec, |_| {});
        pair.exchange();
        for side in [&mut pair.client, &mut pair.server] {
            assert!(matches!(*side.take(), [Event::Opened { .. }]));
        }
        pair
    }

    fn begun(codec: fn() -> Box<dyn Codec>, change: fn(&mut Config)) -> Self {
        let now = first_instant();
        let side = |role| {
            let mut config = config(role, now);
            change(&mut config);
            Side::new(config, codec())
        };
        Self { now, client: side(Role::Client), server: side(Role::Server) }
    }

    /// Carries bytes until nothing moves.
    fn exchange(&mut self) {
        let Self { now, client, server } = self;
        while carry(*now, client, server) | carry(*now, server, client) {}
    }
}

/// Carries one write, if there is one that is wanted.
fn carry(now: Instant, from: &mut Side, to: &mut Side) -> bool {
    from.poll();
    to.poll();
    if !to.binding.wants_read() {
        return false;
    }
    let Some(bytes) = from.binding.poll_write() else { return false };
    to.binding.handle_data(now, bytes);
    from.binding.handle_sent(now);
    from.poll();
    to.poll();
    true
}

/// A peer that does as it likes, and a server.
struct Raw {
    now: Instant,
    server: Side,
    codec: Box<dyn Codec>,
    answers: Receiver<Box<dyn Codec>>,
}

impl Raw {
    /// After the handshake.
    fn new(codec: fn() -> Box<dyn Codec>) -> Self {
        Self::with(codec, |_| {})
    }

    fn with(codec: fn() -> Box<dyn Codec>, change: impl FnOnce(&mut Config)) -> Self {
        let mut raw = Self::silent(codec, change);
        let answers = raw.says(&[sync(SyncConfig::DEPLOYED)]);
        assert!(matches!(&*answers, [Message::Control(control)] if control.code == Control::SYNC_CONFIG));
        assert!(matches!(*raw.server.take(), [Event::Opened { .. }]));
        raw
    }

    /// Before it.
    fn silent(codec: fn() -> Box<dyn Codec>, change: impl FnOnce(&mut Config)) -> Self {
        let now = first_instant();
        let mut config = config(Role::Server, now);
        change(&mut config);
        Self { now, server: Side::new(config, codec()), codec: codec(), answers: Receiver::new(codec()) }
    }

    /// Sends these in one piece, and says what comes back.
    fn says(&mut self, messages: &[Message]) -> Vec<Message> {
        let mut bytes = BytesMut::new();
        for message in messages {
            self.codec.encode(message, &mut bytes).unwrap();
        }
        self.says_bytes(bytes.freeze())
    }

    fn says_bytes(&mut self, bytes: Bytes) -> Vec<Message> {
        self.server.binding.handle_data(self.now, bytes);
        self.hears()
    }

    fn hears(&mut self) -> Vec<Message> {
        self.server.poll();
        while let Some(bytes) = self.server.binding.poll_write() {
            self.answers.push(bytes);
            self.server.binding.handle_sent(self.now);
            self.server.poll();
        }
        std::iter::from_fn(|| self.answers.next_message().unwrap()).collect()
    }

    /// Its session lives: a call is answered.
    #[track_caller]
    fn expect_alive(&mut self) {
        assert_eq!(self.says(&[open(0x7000, 10)]), []);
        let pipe = self.server.called();
        self.server.binding.close(pipe, Ok(Value::from(7i8))).unwrap();
        assert_eq!(self.hears(), [close(0x7000, Ok(Value::from(7i8)))]);
    }
}

fn id(id: u16) -> PipeId {
    PipeId::new(id).unwrap()
}

fn sync(version: u16) -> Message {
    let (node_id, session_id) = (Uuid::from_u128(9), Uuid::nil());
    Control::from(SyncConfig { version, node_id, session_id, utc_ms: 0, ping: 3, timeout: 1800 }).into()
}

fn open(pipe: u16, function: u16) -> Message {
    Open { pipe: id(pipe), priority: 0, function, params: Vec::new() }.into()
}

fn close(pipe: u16, result: Result<Value, crate::pipe::message::Abort>) -> Message {
    Close { pipe: id(pipe), result }.into()
}

/// The agreement of a session with the default settings.
fn agreed() -> Offer {
    Offer { version: 1, session_id: SESSION, ping: 3, timeout: 1800 }
}
