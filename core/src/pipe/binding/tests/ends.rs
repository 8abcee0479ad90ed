//! How calls and sessions begin, go on and end.

use std::time::Duration;

use super::*;
use crate::{
    net,
    pipe::{
        machines::{
            end::By,
            receiver::Mode,
            session::{Peer, Violation},
        },
        policy::load::Limits,
        wire::message::{Abort, Loss, Part},
    },
};

fn ended(pipe: PipeKey, by: By, result: Result<Value, Abort>) -> Event {
    Event::Ended { pipe, by, result, unread: [].into() }
}

fn text(text: &str) -> Value {
    Value::from(text)
}

#[test]
fn both_sides_call_and_serve() {
    for codec in codecs() {
        let mut pair = Pair::new(codec);
        let Pair { now, .. } = pair;
        let asked = pair.client.open(now, 10, vec![text("towline")]);
        pair.exchange();
        let events = pair.server.take();
        let [Event::Called { pipe, id: of, function: 10, priority: 0, params }] = &*events else {
            panic!("{events:?}")
        };
        assert_eq!((of.get(), &**params), (1, &[text("towline")][..]));
        // It calls back before it answers.
        let back = pair.server.open(now, 100, Vec::new());
        pair.exchange();
        let called = pair.client.called();
        pair.client.binding.close(called, Ok(text("back"))).unwrap();
        pair.exchange();
        assert_eq!(pair.server.take(), [ended(back, By::Peer, Ok(text("back")))]);
        pair.server.binding.close(*pipe, Ok(text("hello"))).unwrap();
        pair.exchange();
        assert_eq!(pair.server.take(), [ended(*pipe, By::Own, Ok(text("hello")))]);
        let ends = [ended(called, By::Own, Ok(text("back"))), ended(asked, By::Peer, Ok(text("hello")))];
        assert_eq!(pair.client.take(), ends);
        assert_eq!(pair.client.binding.cancel(asked), Err(CloseError::Gone));
    }
}

#[test]
fn what_was_agreed_is_told() {
    let mut pair = Pair::begun(codecs()[0], |_| {});
    pair.exchange();
    let opened = |role: Role| Event::Opened { node_id: Uuid::from_u128(role as u128 + 1), agreed: agreed() };
    assert_eq!(pair.client.take(), [opened(Role::Server)]);
    assert_eq!(pair.server.take(), [opened(Role::Client)]);
}

#[test]
fn when_both_close_each_keeps_its_own() {
    let mut pair = Pair::new(codecs()[0]);
    let asked = pair.client.open(pair.now, 26, Vec::new());
    pair.exchange();
    let called = pair.server.called();
    pair.client.binding.close(asked, Ok(text("from client"))).unwrap();
    pair.server.binding.close(called, Ok(text("from server"))).unwrap();
    pair.exchange();
    assert_eq!(pair.client.take(), [ended(asked, By::Own, Ok(text("from client")))]);
    assert_eq!(pair.server.take(), [ended(called, By::Own, Ok(text("from server")))]);
}

#[test]
fn a_graceful_end_sends_what_is_queued() {
    for codec in codecs() {
        let mut pair = Pair::new(codec);
        let (first, second) = (pair.client.open(pair.now, 17, vec![]), pair.client.open(pair.now, 17, vec![]));
        pair.client.binding.close(first, Err(Abort::new(5, "enough"))).unwrap();
        pair.client.binding.end(pair.now, true);
        assert_eq!(pair.client.binding.open(pair.now, 10, vec![], 0), Err(OpenError::NotOpen));
        pair.exchange();
        let closing = Err(Abort::new(-2, "session closing"));
        let closed = |why| Event::Closed { why, how: net::Close::Fin, fault: None };
        assert_eq!(
            pair.client.take(),
            [
                ended(first, By::Own, Err(Abort::new(5, "enough"))),
                ended(second, By::Session, closing.clone()),
                closed(Why::Ended)
            ]
        );
        let events = pair.server.take();
        let [Event::Called { .. }, Event::Called { pipe, .. }, Event::Ended { by: By::Peer, .. }, end, over] = &*events
        else {
            panic!("{events:?}")
        };
        assert_eq!((end, over), (&ended(*pipe, By::Session, closing), &closed(Why::PeerClosed)));
    }
}

#[test]
fn a_graceful_end_does_not_wait_for_a_peer_that_takes_nothing() {
    let mut pair = Pair::new(codecs()[0]);
    let pipe = pair.client.open(pair.now, 17, vec![]);
    assert!(pair.client.binding.poll_write().is_some(), "it never leaves");
    pair.client.binding.end(pair.now, true);
    assert_eq!(pair.client.take(), [ended(pipe, By::Session, Err(Abort::new(-2, "session closing")))]);
    for _ in 0..2 {
        let due = pair.now + Duration::from_secs(5);
        assert_eq!(pair.client.binding.poll_timeout(), Some(due));
        pair.now = due;
        pair.client.binding.handle_timeout(due);
    }
    assert_eq!(pair.client.take(), [Event::Closed { why: Why::Ended, how: net::Close::Abort, fault: None }]);
}

#[test]
fn a_forced_end_sends_nothing() {
    let mut pair = Pair::new(codecs()[0]);
    pair.client.open(pair.now, 17, vec![]);
    pair.client.binding.end(pair.now, false);
    assert_eq!(pair.client.binding.poll_write(), None);
    let events = pair.client.take();
    assert!(matches!(*events, [Event::Ended { .. }, Event::Closed { why: Why::Forced, how: net::Close::Abort, .. }]));
}

#[test]
fn a_stream_is_read_to_its_end_although_its_pipe_is_over() {
    let mut pair = Pair::new(codecs()[0]);
    let asked = pair.client.open(pair.now, 22, vec![]);
    pair.client.binding.choose(asked, Mode::Stream).unwrap();
    assert_eq!(pair.client.binding.choose(asked, Mode::Stream), Err(ChooseError::Decided));
    pair.exchange();
    let called = pair.server.called();
    for block in ["log-0\n", "", "log-1\n"] {
        pair.server.binding.send(called, Loss::NEVER, block.into()).unwrap();
    }
    pair.exchange();
    assert_eq!(pair.client.take(), [Event::Readable { pipe: asked }]);
    assert_eq!(pair.client.binding.waiting(), (3, 12));
    let read = |pair: &mut Pair| pair.client.binding.read_stream(asked);
    assert_eq!(read(&mut pair), Ok(Read::Data("log-0\n".into())));
    assert_eq!(read(&mut pair), Ok(Read::Data("log-1\n".into())));
    assert_eq!(read(&mut pair), Ok(Read::Later));
    pair.server.binding.send(called, Loss::NEVER, "log-2\n".into()).unwrap();
    pair.server.binding.send_eof(called).unwrap();
    assert_eq!(pair.server.binding.send_eof(called), Err(SendError::AfterEof));
    assert_eq!(pair.server.binding.send(called, Loss::NEVER, "x".into()), Err(SendError::AfterEof));
    pair.server.binding.close(called, Ok(Value::Null)).unwrap();
    assert_eq!(pair.server.binding.send_eof(called), Err(SendError::Gone));
    pair.exchange();
    let unread = [Part::Data { loss: Loss::NEVER, payload: "log-2\n".into() }, Part::Eof].into();
    let end = Event::Ended { pipe: asked, by: By::Peer, result: Ok(Value::Null), unread };
    assert_eq!(pair.client.take(), [Event::Readable { pipe: asked }, end]);
    assert_eq!(pair.client.binding.waiting(), (0, 0), "it no longer counts");
    assert_eq!(read(&mut pair), Err(ReadError::Gone));
}

#[test]
fn the_end_of_a_stream_can_be_read_again_and_again() {
    let mut pair = Pair::new(codecs()[1]);
    let asked = pair.client.open(pair.now, 21, vec![]);
    pair.client.binding.send_eof(asked).unwrap();
    pair.exchange();
    let called = pair.server.called();
    assert_eq!(pair.server.binding.read_stream(called), Err(ReadError::NotStream));
    pair.server.binding.choose(called, Mode::Stream).unwrap();
    for _ in 0..3 {
        assert_eq!(pair.server.binding.read_stream(called), Ok(Read::End));
    }
}

#[test]
fn pings_go_between_peers_that_both_know_them() {
    let towline = |config: &mut Config| config.session.peer = Peer::Towline;
    let mut pair = Pair::begun(codecs()[0], towline);
    pair.exchange();
    let events = pair.client.take();
    assert!(matches!(&*events, [Event::Opened { agreed, .. }] if agreed.version == 2), "{events:?}");
    for _ in 0..1000 {
        pair.now = pair.server.binding.poll_timeout().unwrap();
        pair.server.binding.handle_timeout(pair.now);
        pair.exchange();
    }
    assert_eq!((pair.client.closed, pair.server.closed), (None, None), "50 minutes, and both are there");
    // The client hears nothing more.
    pair.now = pair.client.binding.poll_timeout().unwrap();
    pair.client.binding.handle_timeout(pair.now);
    pair.client.poll();
    assert_eq!(pair.client.closed, Some(Why::Silent));
}

#[test]
fn a_client_refuses_what_a_server_must_not_say() {
    for (answer, violation) in [
        (sync(1), Violation::NilSession),
        (Control::close().into(), Violation::NoSync),
        (open(0x8000, 10), Violation::NoSync),
    ] {
        let mut pair = Pair::begun(codecs()[0], |_| {});
        assert!(pair.client.binding.poll_write().is_some());
        pair.client.binding.handle_sent(pair.now);
        let mut bytes = BytesMut::new();
        codecs()[0]().encode(&answer, &mut bytes).unwrap();
        pair.client.binding.handle_data(pair.now, bytes.freeze());
        pair.client.poll();
        assert_eq!(pair.client.binding.poll_write().as_deref(), Some(&b"*C\xa0"[..]));
        pair.client.binding.handle_sent(pair.now);
        pair.client.poll();
        assert_eq!(pair.client.closed, Some(Why::Violation(violation)));
    }
}

#[test]
fn urgent_messages_overtake_others_and_a_pipe_keeps_its_order() {
    let mut pair = Pair::new(codecs()[0]);
    for (function, priority) in [(1, 0), (2, -128), (3, 127), (4, 5)] {
        let pipe = pair.client.binding.open(pair.now, function, vec![], priority).unwrap();
        pair.client.live.insert(pipe);
        pair.client.binding.send_eof(pipe).unwrap();
    }
    pair.exchange();
    let functions = pair.server.take().into_iter().map(|event| match event {
        Event::Called { function, priority, .. } => (function, priority),
        other => panic!("{other:?}"),
    });
    assert_eq!(functions.collect::<Vec<_>>(), [(3, 127), (4, 5), (1, 0), (2, -128)]);
}

#[test]
fn back_pressure_is_said_once_each_way_and_holds() {
    let mut pair = Pair::begun(codecs()[0], |config| config.write = Limits { soft_messages: 2, ..Limits::WRITE });
    pair.exchange();
    pair.client.take();
    let pipe = pair.client.open(pair.now, 20, vec![]);
    pair.client.binding.send(pipe, Loss::NEVER, "1".into()).unwrap();
    assert_eq!(pair.client.binding.send(pipe, Loss::NEVER, "2".into()), Err(SendError::Full));
    assert_eq!(pair.client.binding.open(pair.now, 20, vec![], 0), Err(OpenError::Full));
    pair.client.binding.send_eof(pipe).unwrap();
    assert_eq!(pair.client.take(), [Event::Backpressure { is_on: true }]);
    pair.exchange();
    assert_eq!(pair.client.take(), [Event::Backpressure { is_on: false }]);
    pair.client.open(pair.now, 20, vec![]);
}
