//! Two sessions with nothing lost between them, and applications that do anything at any time.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::pipe::{
    machines::{
        end::By,
        receiver::{self, Mode, Room},
    },
    policy::load::Limits,
    wire::message::{Abort, Loss, Part},
};

#[derive(Debug, Clone)]
enum Step {
    Open {
        priority: i8,
    },
    Choose(usize, Mode),
    Send(usize, usize),
    Eof(usize),
    Read(usize),
    Close(usize, bool),
    /// The application takes what has happened.
    Poll,
    /// A write leaves, or so many bytes of one arrive.
    Carry(usize),
    End,
}

fn step() -> impl Strategy<Value = (bool, Step)> {
    let pipe = || 0..6usize;
    let mode = prop_oneof![Just(Mode::Messages), Just(Mode::Stream), Just(Mode::Discard)];
    let step = prop_oneof![
        20 => (-1..2i8).prop_map(|priority| Step::Open { priority }),
        20 => (pipe(), mode).prop_map(|(pipe, mode)| Step::Choose(pipe, mode)),
        40 => (pipe(), 0..5usize).prop_map(|(pipe, tokens)| Step::Send(pipe, tokens)),
        10 => pipe().prop_map(Step::Eof),
        20 => pipe().prop_map(Step::Read),
        15 => (pipe(), any::<bool>()).prop_map(|(pipe, is_ok)| Step::Close(pipe, is_ok)),
        40 => Just(Step::Poll),
        80 => (1..40usize).prop_map(Step::Carry),
        1 => Just(Step::End),
    ];
    (any::<bool>(), step)
}

/// What an application knows of one of its pipes.
#[derive(Debug, Default)]
struct Known {
    /// The number of the call, which both ends know.
    call: u32,
    sent: Vec<u8>,
    received: Vec<u8>,
    mode: Option<Mode>,
    has_eof: bool,
    end: Option<(By, Result<Value, Abort>)>,
}

/// A side, its application, and what is on the way to it.
struct End {
    side: Side,
    pipes: BTreeMap<PipeKey, Known>,
    arriving: BytesMut,
    tokens: u32,
}

impl End {
    fn nth_live(&self, nth: usize) -> Option<PipeKey> {
        let live: Vec<_> = self.side.live.iter().collect();
        live.get(nth % live.len().max(1)).map(|pipe| **pipe)
    }

    fn known(&mut self, pipe: PipeKey) -> &mut Known {
        self.pipes.get_mut(&pipe).expect("a pipe that began")
    }

    fn poll(&mut self) {
        while let Some(event) = self.side.poll_one() {
            match event {
                Event::Called { pipe, params, .. } => {
                    let [Value::Int32(call)] = *params else { panic!("{params:?}") };
                    let known = Known { call: call.cast_unsigned(), ..Known::default() };
                    assert!(self.pipes.insert(pipe, known).is_none());
                }
                Event::Block { pipe, payload, .. } => {
                    let known = self.known(pipe);
                    assert!(known.mode == Some(Mode::Messages) && !known.has_eof);
                    known.received.extend_from_slice(&payload);
                }
                Event::Eof { pipe } => assert!(!std::mem::replace(&mut self.known(pipe).has_eof, true)),
                Event::Readable { pipe } => assert_eq!(self.known(pipe).mode, Some(Mode::Stream)),
                Event::Ended { pipe, by, result, unread } => {
                    assert_ne!(by, By::Overflow, "the peer was told to wait");
                    let known = self.known(pipe);
                    for part in unread {
                        match part {
                            Part::Data { payload, .. } => known.received.extend_from_slice(&payload),
                            Part::Eof => known.has_eof = true,
                        }
                    }
                    known.end = Some((by, result));
                }
                Event::Opened { .. } | Event::Backpressure { .. } | Event::Closed { .. } => {}
            }
        }
    }

    fn read(&mut self, pipe: PipeKey) {
        while let Ok(Read::Data(bytes)) = self.side.binding.read_stream(pipe) {
            self.known(pipe).received.extend_from_slice(&bytes);
        }
    }
}

struct World {
    now: Instant,
    ends: [End; 2],
    calls: u32,
    /// How often bytes have moved.
    moves: u64,
}

impl World {
    fn new(codec: fn() -> Box<dyn Codec>) -> Self {
        let now = first_instant();
        let end = |role| {
            let mut config = config(role, now);
            let (undecided, stream) = (Room { blocks: 3, bytes: 24 }, Room { blocks: 4, bytes: 30 });
            config.receiver = receiver::Config { undecided, stream };
            config.read = Limits { soft_messages: 8, soft_bytes: 60, ..Limits::READ };
            config.write = Limits { soft_messages: 12, soft_bytes: 200, ..Limits::WRITE };
            config.write_max = 50;
            End { side: Side::new(config, codec()), pipes: BTreeMap::new(), arriving: BytesMut::new(), tokens: 0 }
        };
        Self { now, ends: [end(Role::Client), end(Role::Server)], calls: 0, moves: 0 }
    }

    fn step(&mut self, is_server: bool, step: Step) {
        let Self { now, ends, calls, moves } = self;
        let at = usize::from(is_server);
        let end = &mut ends[at];
        match step {
            Step::Open { priority } => {
                let params = vec![Value::Int32(calls.cast_signed())];
                if let Ok(pipe) = end.side.binding.open(*now, 1, params, priority) {
                    end.side.live.insert(pipe);
                    end.pipes.insert(pipe, Known { call: *calls, ..Known::default() });
                    *calls += 1;
                }
            }
            Step::Choose(nth, mode) => {
                let Some(pipe) = end.nth_live(nth) else { return };
                match end.side.binding.choose(pipe, mode) {
                    Ok(()) => assert_eq!(end.known(pipe).mode.replace(mode), None),
                    Err(ChooseError::Decided) => assert_ne!(end.known(pipe).mode, None),
                    // Its end has not been polled yet.
                    Err(ChooseError::Gone) => {}
                }
            }
            Step::Send(nth, tokens) => {
                let Some(pipe) = end.nth_live(nth) else { return };
                end.tokens += 1;
                let payload = end.tokens.to_be_bytes().repeat(tokens);
                if end.side.binding.send(pipe, Loss::NEVER, payload.clone().into()).is_ok() {
                    end.known(pipe).sent.extend(payload);
                }
            }
            Step::Eof(nth) => {
                let Some(pipe) = end.nth_live(nth) else { return };
                let _ = end.side.binding.send_eof(pipe);
            }
            Step::Read(nth) => {
                let Some(pipe) = end.nth_live(nth) else { return };
                end.read(pipe);
            }
            Step::Close(nth, is_ok) => {
                let Some(pipe) = end.nth_live(nth) else { return };
                let result = if is_ok { Ok(Value::from(is_server)) } else { Err(Abort::new(at as i32, "no")) };
                let _ = end.side.binding.close(pipe, result);
            }
            Step::Poll => end.poll(),
            Step::Carry(len) => {
                if let Some(bytes) = end.side.binding.poll_write() {
                    *moves += 1;
                    ends[1 - at].arriving.extend_from_slice(&bytes);
                    ends[at].side.binding.handle_sent(*now);
                } else if end.side.binding.wants_read() && !end.arriving.is_empty() {
                    *moves += 1;
                    let bytes = end.arriving.split_to(len.min(end.arriving.len()));
                    end.side.binding.handle_data(*now, bytes.freeze());
                }
            }
            Step::End => end.side.binding.end(*now, true),
        }
    }

    /// Carries everything to its end, with applications that read.
    fn finish(&mut self) {
        for round in 0..10_000 {
            let before = self.moves;
            for is_server in [false, true] {
                self.step(is_server, Step::Poll);
                let end = &mut self.ends[usize::from(is_server)];
                for pipe in end.side.live.clone() {
                    if end.known(pipe).mode.is_none() && end.side.binding.choose(pipe, Mode::Discard).is_ok() {
                        end.known(pipe).mode = Some(Mode::Discard);
                    }
                    end.read(pipe);
                }
                self.step(is_server, Step::Poll);
                self.step(is_server, Step::Carry(1000));
                self.step(is_server, Step::Carry(1000));
            }
            let is_read = self.ends.iter().all(|end| end.side.binding.waiting() == (0, 0));
            if self.moves == before && is_read {
                return;
            }
            assert!(round < 9_999, "there is no end of it");
        }
    }

    /// What both ends know of each call.
    fn check(&self) {
        let [client, server] = &self.ends;
        for (this, other) in [(client, server), (server, client)] {
            let others: BTreeMap<u32, &Known> = other.pipes.values().map(|known| (known.call, known)).collect();
            assert_eq!(others.len(), other.pipes.len(), "no call comes twice");
            for known in this.pipes.values() {
                let (by, result) = known.end.as_ref().expect("each call ends");
                // A call that never arrived ended with its session.
                let Some(peer) = others.get(&known.call) else {
                    assert!(matches!(by, By::Session | By::Own));
                    continue;
                };
                let (peer_by, peer_result) = peer.end.as_ref().expect("each call ends");
                assert!(peer.sent.starts_with(&known.received), "in order, and nothing else");
                if *by == By::Peer {
                    assert_eq!((*peer_by, peer_result), (By::Own, result), "both agree where only one closes");
                    if known.mode.is_some_and(|mode| mode != Mode::Discard) {
                        assert_eq!(known.received, peer.sent, "all of it came before the Close");
                    }
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Each call ends exactly once at both ends, in any order of all that can happen.
    #[test]
    fn each_call_ends_once_at_both_ends(
        codec in 0..2usize,
        steps in proptest::collection::vec(step(), 0..400),
    ) {
        let mut world = World::new(codecs()[codec]);
        // So that most steps find an open session.
        world.finish();
        for (is_server, step) in steps {
            world.step(is_server, step);
        }
        world.finish();
        for end in &world.ends {
            prop_assert_eq!(end.side.binding.waiting(), (0, 0));
        }
        // Who is still there closes what is left; calls that both sides know are as many at both.
        if world.ends.iter().all(|end| end.side.closed.is_none()) {
            prop_assert_eq!(world.ends[0].side.live.len(), world.ends[1].side.live.len());
            for pipe in world.ends[0].side.live.clone() {
                world.ends[0].side.binding.close(pipe, Ok(Value::Null)).unwrap();
            }
            world.finish();
            prop_assert!(world.ends.iter().all(|end| end.side.binding.pipes() == 0));
        }
        world.step(false, Step::End);
        world.finish();
        prop_assert!(world.ends.iter().all(|end| end.side.closed.is_some()));
        world.check();
    }
}
