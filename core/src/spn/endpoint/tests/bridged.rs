//! Bridges to local ends that the test plays, over our hub: what a TCP peer sees, and what it makes the other side see.

use std::{
    cell::RefCell,
    collections::VecDeque,
    io::{self, IoSlice},
    rc::Rc,
    sync::Arc,
    task::{Context, Poll},
};

use super::{played::Played, *};
use crate::host::{Bridge, ConnWaker, LocalEnd, LocalTcp, Turn, Wakes, pair};

const HUB: &str = "192.0.2.1:4433";
const BROKEN: Option<End> = Some(End::Reset(StreamCode::PEER_ABORTED));

/// A TCP socket, as its peer sees it.
#[derive(Debug, Default)]
struct Far {
    /// What the peer has said, and how it has ended.
    said: VecDeque<Bytes>,
    talks_on: bool,
    finished: bool,
    broken: bool,
    /// Reads that brought something.
    reads: usize,
    /// What the peer was shown.
    heard: Vec<u8>,
    heard_end: bool,
    /// The socket takes nothing more.
    is_full: bool,
    /// The kernel has not sent everything.
    is_behind: bool,
    /// Closed, and whether in order.
    closed: Option<bool>,
    in_order: bool,
}

#[derive(Debug)]
struct Socket(Rc<RefCell<Far>>);

impl LocalTcp for Socket {
    type Buffer = ();

    fn poll_read(&mut self, _: &mut Context<'_>, (): &mut ()) -> Poll<io::Result<Bytes>> {
        let mut far = self.0.borrow_mut();
        if far.talks_on {
            far.said.push_back(Bytes::from_static(b"data: 1\n\n"));
        }
        match far.said.pop_front() {
            Some(chunk) => {
                far.reads += 1;
                Poll::Ready(Ok(chunk))
            }
            None if far.broken => Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())),
            None if far.finished => Poll::Ready(Ok(Bytes::new())),
            None => Poll::Pending,
        }
    }

    fn poll_write(&mut self, _: &mut Context<'_>, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let mut far = self.0.borrow_mut();
        if far.broken {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        if far.is_full {
            return Poll::Pending;
        }
        let chunk = slices.first().map_or(&[][..], |slice| slice);
        far.heard.extend_from_slice(chunk);
        Poll::Ready(Ok(chunk.len()))
    }

    fn finish(&mut self) {
        self.0.borrow_mut().heard_end = true;
    }

    fn close(&mut self) {
        self.0.borrow_mut().in_order = true;
    }

    fn is_drained(&self) -> bool {
        !self.0.borrow().is_behind
    }

    fn take_error(&self) -> Option<io::Error> {
        self.0.borrow().broken.then(|| io::ErrorKind::ConnectionReset.into())
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        let mut far = self.0.borrow_mut();
        far.closed = Some(far.in_order);
    }
}

/// A bridge of an endpoint, and the host's loop around it.
struct Bridged {
    at: SocketAddr,
    id: ConnId,
    bridge: Option<Bridge<Socket>>,
    far: Rc<RefCell<Far>>,
    is_told: bool,
}

impl Bridged {
    fn new(at: SocketAddr, id: ConnId) -> Self {
        let far = Rc::new(RefCell::new(Far::default()));
        let waker = ConnWaker::new(&Arc::new(Wakes::default()), id);
        let bridge = Bridge::new(LocalEnd::Tcp(Socket(far.clone())), waker);
        Self { at, id, bridge: Some(bridge), far, is_told: false }
    }

    /// What the notices have said so far.
    fn show(&mut self, now: Instant, flow: &Flow) {
        let Some(bridge) = &mut self.bridge else { return };
        if let Some(code) = flow.stopped {
            bridge.stopped(code);
        }
        let is_over = match flow.end {
            Some(_) if std::mem::replace(&mut self.is_told, true) => false,
            Some(End::Clean) => {
                bridge.ended();
                false
            }
            Some(End::Reset(code)) => !bridge.break_off(now, code),
            None => false,
        };
        if is_over {
            self.bridge = None;
        }
    }

    /// One turn of the host's loop.
    fn turn(&mut self, world: &mut World) -> Turn {
        let now = world.now;
        let peer = world.peer(self.at);
        self.show(now, peer.flows.entry(self.id).or_default());
        let Some(bridge) = &mut self.bridge else { return Turn::Over };
        let turn = bridge.turn(now, &mut peer.endpoint, self.id, &mut (), &mut Vec::new());
        if turn == Turn::Over {
            self.bridge = None;
        }
        turn
    }

    /// Turns until there is nothing to do at once, and so on with the network for a while.
    fn serve(&mut self, world: &mut World) {
        for _ in 0..3 {
            for _ in 0..10 {
                if self.turn(world) != Turn::Again {
                    break;
                }
            }
            world.run();
        }
        let _ = self.turn(world);
    }

    fn say(&self, text: &'static str) {
        self.far.borrow_mut().said.push_back(Bytes::from_static(text.as_bytes()));
    }

    fn far<T>(&self, what: impl FnOnce(&mut Far) -> T) -> T {
        what(&mut self.far.borrow_mut())
    }
}

/// A call that has said `request`, and its provider's bridge.
fn called(resume: bool, request: &[u8], finish: bool) -> (World, SocketAddr, ConnId, Bridged) {
    let mut world = World { resume, ..World::new() };
    let hub = world.add_hub(HUB);
    let provider = world.provider(0, &[hub]);
    world.peer(provider).reads_nothing = true;
    world.run();
    let consumer = world.consumer(&[hub]);
    world.run();
    let id = world.call(consumer, request, finish);
    world.run();
    let bridged = Bridged::new(provider, world.peer(provider).only());
    (world, consumer, id, bridged)
}

#[test]
fn a_service_to_which_nobody_listens_or_talks_any_more_is_reset_at_once() {
    for resume in [true, false] {
        let (mut world, consumer, id, mut bridged) = called(resume, b"GET /events", true);
        bridged.far(|far| far.talks_on = true);
        bridged.serve(&mut world);
        assert_eq!(bridged.far(|far| (far.heard.clone(), far.heard_end)), (b"GET /events".to_vec(), true));
        let now = world.now;
        world.peer(consumer).endpoint.stop_reading(now, id, StreamCode::PEER_ABORTED);
        world.run();
        let before = bridged.far(|far| far.reads);
        bridged.serve(&mut world);
        assert_eq!(bridged.far(|far| far.closed), Some(false), "a reset, with resume: {resume}");
        assert!(bridged.far(|far| far.reads) <= before + 2);
        assert_eq!(world.peer(bridged.at).endpoint.connections(), 0);
    }
}

#[test]
fn who_is_not_listened_to_has_one_read_a_turn_while_it_is_talked_to() {
    let (mut world, consumer, id, mut bridged) = called(true, b"upload", false);
    bridged.far(|far| far.talks_on = true);
    bridged.serve(&mut world);
    let now = world.now;
    world.peer(consumer).endpoint.stop_reading(now, id, StreamCode::PEER_ABORTED);
    world.run();
    let _ = bridged.turn(&mut world);
    let before = bridged.far(|far| far.reads);
    assert_eq!(bridged.turn(&mut world), Turn::Again);
    assert_eq!(bridged.far(|far| far.reads), before + 1);
    world.say(consumer, id, b" goes on", true);
    bridged.serve(&mut world);
    assert_eq!(bridged.far(|far| far.heard.clone()), b"upload goes on");
    assert_eq!(bridged.far(|far| far.closed), Some(false));
}

#[test]
fn what_a_service_said_before_it_broke_off_arrives_before_the_reset() {
    for resume in [true, false] {
        // It breaks off while it is read, while it is written to, and after its own end.
        for (by_write, finished) in [(false, false), (true, false), (true, true)] {
            let (mut world, consumer, id, mut bridged) = called(resume, b"PUT /large", false);
            bridged.serve(&mut world);
            bridged.say("413 ");
            bridged.say("too large");
            bridged.far(|far| far.finished = finished);
            if finished {
                let _ = bridged.turn(&mut world);
            }
            bridged.far(|far| far.broken = true);
            if by_write {
                world.say(consumer, id, b"more and more", false);
                world.run();
            }
            bridged.serve(&mut world);
            world.wait(Duration::from_secs(4));
            let case = format!("resume {resume}, by write {by_write}, finished {finished}");
            let flow = world.peer(consumer).flow(id);
            assert_eq!(flow.got, b"413 too large", "{case}");
            // Behind an end in good order, only the other direction is left to be broken off.
            let shown = if finished { (Some(End::Clean), Some(StreamCode::PEER_ABORTED)) } else { (BROKEN, None) };
            assert_eq!((flow.finished, (flow.end, flow.stopped)), (finished, shown), "{case}");
            assert_eq!(bridged.far(|far| far.closed), Some(false), "{case}");
        }
    }
}

#[test]
fn a_reset_waits_for_a_reader_but_not_for_ever() {
    for resume in [true, false] {
        let (mut world, consumer, id, mut bridged) = called(resume, b"GET", false);
        world.peer(consumer).flow(id).reads_nothing = true;
        bridged.say("answer");
        bridged.far(|far| far.broken = true);
        for _ in 0..10 {
            let _ = bridged.turn(&mut world);
        }
        let began = world.now;
        world.wait(Duration::from_millis(400));
        assert_eq!(world.peer(consumer).flow(id).end, None, "resume {resume}");
        while world.peer(consumer).flow(id).end.is_none() {
            world.run();
            assert!(world.now < began + Duration::from_millis(3500), "resume {resume}");
        }
        assert_eq!(world.peer(consumer).flow(id).end, BROKEN);
    }
}

#[test]
fn a_reset_that_has_nothing_to_wait_for_comes_at_once() {
    for resume in [true, false] {
        let (mut world, consumer, id, mut bridged) = called(resume, b"GET", false);
        bridged.say("answer");
        bridged.serve(&mut world);
        world.wait(Duration::from_secs(3));
        bridged.far(|far| far.broken = true);
        let _ = bridged.turn(&mut world);
        world.wait(Duration::from_millis(50));
        assert_eq!(world.peer(consumer).flow(id).end, BROKEN, "resume {resume}");
    }
}

#[test]
fn a_reset_does_not_overtake_what_the_local_peer_has_not_got() {
    let (mut world, consumer, id, mut bridged) = called(true, b"first", false);
    bridged.far(|far| far.is_full = true);
    bridged.serve(&mut world);
    let now = world.now;
    world.peer(consumer).endpoint.reset(now, id, StreamCode::PEER_ABORTED);
    world.run();
    bridged.serve(&mut world);
    assert_eq!(bridged.far(|far| far.closed), None);
    bridged.far(|far| (far.is_full, far.is_behind) = (false, true));
    bridged.serve(&mut world);
    assert_eq!(bridged.far(|far| (far.heard.clone(), far.closed)), (b"first".to_vec(), None));
    bridged.far(|far| far.is_behind = false);
    let _ = bridged.turn(&mut world);
    assert_eq!(bridged.far(|far| (far.heard_end, far.closed)), (false, Some(false)));

    // One that takes nothing is waited for, but not for ever.
    let (mut world, consumer, id, mut bridged) = called(true, b"first", false);
    bridged.far(|far| far.is_full = true);
    bridged.serve(&mut world);
    let now = world.now;
    world.peer(consumer).endpoint.reset(now, id, StreamCode::PEER_ABORTED);
    world.run();
    bridged.serve(&mut world);
    assert!(bridged.bridge.as_mut().unwrap().wants_watch());
    world.wait(Duration::from_secs(3));
    assert_eq!(bridged.turn(&mut world), Turn::Over);
    assert_eq!(bridged.far(|far| far.closed), Some(false));
}

#[test]
fn a_local_peer_that_has_finished_and_then_breaks_off_is_noticed() {
    let (mut world, consumer, id, mut bridged) = called(true, b"question", false);
    bridged.say("half an answer");
    bridged.far(|far| far.finished = true);
    bridged.serve(&mut world);
    assert_eq!(world.peer(consumer).flow(id).end, None);
    let (now, bridge) = (world.now, bridged.bridge.as_mut().unwrap());
    assert!(bridge.wants_watch() && !bridge.wants_watch(), "once");
    assert!(bridge.watch(now));
    bridged.far(|far| far.broken = true);
    assert!(bridged.bridge.as_mut().unwrap().watch(now));
    assert_eq!(bridged.turn(&mut world), Turn::Over);
    world.wait(Duration::from_secs(1));
    let flow = world.peer(consumer).flow(id);
    assert_eq!((flow.finished, flow.stopped, flow.end), (true, Some(StreamCode::PEER_ABORTED), Some(End::Clean)));
}

#[test]
fn only_an_orderly_end_takes_the_reset_back() {
    let (mut world, consumer, id, mut bridged) = called(true, b"question", true);
    bridged.say("answer");
    bridged.serve(&mut world);
    assert_eq!(bridged.far(|far| (far.heard_end, far.in_order)), (true, false));
    bridged.far(|far| far.finished = true);
    bridged.serve(&mut world);
    assert_eq!(bridged.far(|far| far.closed), Some(true));
    assert_eq!(
        (world.peer(consumer).flow(id).got.clone(), world.peer(consumer).flow(id).end),
        (b"answer".to_vec(), Some(End::Clean))
    );
}

#[test]
fn a_user_that_drops_its_stream_is_noticed_though_nothing_is_read_from_it() {
    let (mut world, consumer, id, mut bridged) = called(true, b"GET", false);
    world.peer(consumer).flow(id).reads_nothing = true;
    let (user, half) = pair();
    let waker = ConnWaker::new(&Arc::new(Wakes::default()), bridged.id);
    bridged.bridge = Some(Bridge::new(LocalEnd::Stream(half), waker));
    let mut cx = Context::from_waker(std::task::Waker::noop());
    // More than the other side takes, which reads nothing.
    while bridged.bridge.as_mut().is_some_and(|bridge| !bridge.wants_watch()) {
        assert!(user.poll_write(&mut cx, &[7; 100_000]).is_ready());
        bridged.serve(&mut world);
    }
    drop(user);
    let now = world.now;
    assert!(bridged.bridge.as_mut().unwrap().watch(now));
    world.wait(Duration::from_secs(4));
    assert!(bridged.bridge.as_mut().unwrap().watch(now + Duration::from_secs(4)));
    assert_eq!(bridged.turn(&mut world), Turn::Over);
    world.run();
    assert_eq!(world.peer(consumer).flow(id).end, BROKEN);
}

#[test]
fn on_sc01_too_nobody_is_listened_to_for_nothing_and_a_reset_overtakes_no_answer() {
    let mut played = Played::legacy(Role::Provider);
    let (peer, session) = (played.peer, played.session);
    played.world.peer(peer).reads_nothing = true;
    let stream = played.open(b"GET /events");
    played.finish(stream);
    let mut bridged = Bridged::new(peer, played.caller());
    bridged.far(|far| far.talks_on = true);
    bridged.serve(&mut played.world);
    played.quic().stop(session, stream, 0);
    played.run();
    bridged.serve(&mut played.world);
    assert_eq!(bridged.far(|far| (far.heard_end, far.closed)), (true, Some(false)));

    let stream = played.open(b"PUT");
    let mut bridged = Bridged::new(peer, played.caller());
    bridged.serve(&mut played.world);
    bridged.say("413 too large");
    bridged.far(|far| far.broken = true);
    assert_eq!(bridged.turn(&mut played.world), Turn::Over);
    played.run();
    assert_eq!(played.read(stream), (b"413 too large".to_vec(), ReadOutcome::Blocked));
    played.wait(Duration::from_secs(2));
    assert_eq!(played.read(stream).1, ReadOutcome::Reset(StreamCode::PEER_ABORTED.0));
}
