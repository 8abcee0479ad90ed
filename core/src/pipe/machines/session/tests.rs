//! Every row of the table `pipe.session` in docs/protocols/pipe-states.md.

use uuid::Uuid;

use super::*;
use crate::{
    machine::{Describe as _, Inspect as _, Machine as _},
    pipe::machines::play::Play,
};

const NEW: Uuid = Uuid::from_u128(0x5e55);

fn config() -> Config {
    Config { session_id: NEW, ..Config::default() }
}

fn towline() -> Config {
    Config { peer: Peer::Towline, ..config() }
}

fn play(config: Config, way: &[Event]) -> Play<Session> {
    Play::new(config, way)
}

fn up(role: Role) -> Event {
    Event::WireUp { role }
}

fn offer(version: u16, session_id: Uuid) -> Offer {
    Offer { version, session_id, ping: 3, timeout: 1800 }
}

fn asks(version: u16) -> Event {
    Event::Sync(offer(version, Uuid::nil()))
}

fn answers(version: u16) -> Event {
    Event::Sync(offer(version, NEW))
}

/// The ways into an open session, of either version and side, and one into each other state.
fn ways() -> Vec<(&'static str, Config, Vec<Event>)> {
    let open = || vec![up(Role::Server), asks(1)];
    let then = |event: Event| [open(), vec![event]].concat();
    vec![
        ("AwaitSync", config(), vec![up(Role::Client)]),
        ("AwaitSync", config(), vec![up(Role::Server)]),
        ("Open", config(), open()),
        ("Open", config(), vec![up(Role::Client), answers(1)]),
        ("Open", towline(), vec![up(Role::Server), asks(2)]),
        ("Open", towline(), vec![up(Role::Client), answers(2)]),
        ("Draining", config(), then(Event::End { graceful: true })),
        ("Closing", config(), then(Event::SyncShort)),
    ]
}

fn violation(violation: Violation) -> Why {
    Why::Violation(violation)
}

/// What a violation leads to; and the reason, which is told at the end.
#[track_caller]
fn expect_violation(mut play: Play<Session>, event: Event, why: Violation) {
    play.expect(event, "Closing", &[Action::EndPipes, Action::SendClose, Action::Flush]);
    let closed = Action::Closed { why: violation(why) };
    play.expect(Event::Flushed, "Closed", &[Action::CloseWire { graceful: true }, closed]);
}

#[test]
fn idle() {
    play(config(), &[]).expect(up(Role::Server), "AwaitSync", &[]);
    let wish = |version| [Action::SendSync(offer(version, Uuid::nil()))];
    play(config(), &[]).expect(up(Role::Client), "AwaitSync", &wish(1));
    play(towline(), &[]).expect(up(Role::Client), "AwaitSync", &wish(2));
    for (graceful, why) in [(true, Why::Ended), (false, Why::Forced)] {
        play(config(), &[]).expect(Event::End { graceful }, "Closed", &[Action::Closed { why }]);
    }
    for event in Session::alphabet() {
        if !matches!(event, Event::WireUp { .. } | Event::End { .. }) {
            play(config(), &[]).expect(event, "Idle", &[]);
        }
    }
}

#[test]
fn a_server_answers_with_its_version_its_id_and_its_limits() {
    for (asked, answered, wish, limited) in [
        (1, 1, (3, 1800), (3, 1800)),
        (2, 2, (3, 1800), (3, 1800)),
        (99, 1, (0, 0), (1, 60)),
        (1, 1, (i32::MIN, -1), (1, 60)),
        (1, 1, (i32::MAX, i32::MAX), (60, 3600)),
    ] {
        let asks = Event::Sync(Offer { version: asked, session_id: Uuid::nil(), ping: wish.0, timeout: wish.1 });
        let answer = Offer { version: answered, session_id: NEW, ping: limited.0, timeout: limited.1 };
        play(config(), &[up(Role::Server)]).expect(asks, "Open", &[Action::SendSync(answer), Action::Opened(answer)]);
    }
}

#[test]
fn a_client_adopts_the_answer() {
    for (config, version) in [(config(), 1), (config(), 2), (towline(), 1), (towline(), 2)] {
        let mut play = play(config.clone(), &[up(Role::Client)]);
        play.expect(answers(version), "Open", &[Action::Opened(offer(version, NEW))]);
        let is_watched = config.peer == Peer::Towline && version == 2;
        assert_eq!(play.machine.poll_timeout().is_some(), is_watched, "{config:?} {version}");
    }
}

#[test]
fn whatever_is_no_sync_is_a_violation() {
    for role in [Role::Client, Role::Server] {
        for event in [Event::Message, Event::Ping, Event::UnknownControl { code: 90 }, Event::ControlClose] {
            expect_violation(play(config(), &[up(role)]), event, Violation::NoSync);
        }
        expect_violation(play(config(), &[up(role)]), Event::SyncShort, Violation::ShortSync);
        for event in [up(role), Event::Sent, Event::Flushed, Event::ReadHeld, Event::ReadResumed] {
            play(config(), &[up(role)]).expect(event, "AwaitSync", &[]);
        }
        let end = [Action::EndPipes, Action::CloseWire { graceful: true }, Action::Closed { why: Why::Ended }];
        play(config(), &[up(role)]).expect(Event::End { graceful: true }, "Closed", &end);
    }
    expect_violation(play(config(), &[up(Role::Client)]), asks(1), Violation::NilSession);
    expect_violation(play(config(), &[up(Role::Server)]), answers(1), Violation::OldSession);
    expect_violation(play(config(), &[up(Role::Client)]), answers(0x0100), Violation::Version(0x0100));
    expect_violation(play(config(), &[up(Role::Server)]), asks(0xff01), Violation::Version(0xff01));
}

#[test]
fn a_handshake_has_its_time() {
    for role in [Role::Client, Role::Server] {
        let mut play = play(config(), &[up(role)]);
        assert_eq!(play.wait(Duration::from_millis(9_999)), []);
        let closing = [Action::EndPipes, Action::SendClose, Action::Flush];
        assert_eq!(play.wait(Duration::from_millis(1)), closing);
        // The peer does not even take that.
        assert_eq!(play.wait(Duration::from_millis(4_999)), []);
        let why = violation(Violation::HandshakeTimeout);
        assert_eq!(
            play.wait(Duration::from_millis(1)),
            [Action::CloseWire { graceful: false }, Action::Closed { why }]
        );
    }
}

#[test]
fn open() {
    for (state, config, way) in ways() {
        if state != "Open" {
            continue;
        }
        let is_watched = way.contains(&asks(2)) || way.contains(&answers(2));
        let play = || play(config.clone(), &way);
        play().expect(Event::Message, "Open", &[Action::HandOn]);
        for event in [up(Role::Client), Event::Sent, Event::Flushed, Event::ReadHeld, Event::ReadResumed] {
            play().expect(event, "Open", &[]);
        }
        match (is_watched, &way[0]) {
            (false, _) => expect_violation(play(), Event::Ping, Violation::Ping),
            (true, Event::WireUp { role: Role::Client }) => play().expect(Event::Ping, "Open", &[Action::SendPing]),
            (true, _) => play().expect(Event::Ping, "Open", &[]),
        }
        expect_violation(play(), asks(1), Violation::SecondSync);
        expect_violation(play(), Event::SyncShort, Violation::SecondSync);
        expect_violation(play(), Event::UnknownControl { code: 90 }, Violation::UnknownControl(90));
        let why = Why::PeerClosed;
        let end = [Action::EndPipes, Action::CloseWire { graceful: true }, Action::Closed { why }];
        play().expect(Event::ControlClose, "Closed", &end);
        play().expect(Event::End { graceful: true }, "Draining", &[Action::EndPipes, Action::Flush]);
    }
}

#[test]
fn draining_sends_what_is_queued_then_the_close() {
    let (_, config, way) = ways().into_iter().find(|(state, ..)| *state == "Draining").unwrap();
    let play = || play(config.clone(), &way);
    let closed = |graceful| [Action::CloseWire { graceful }, Action::Closed { why: Why::Ended }];
    let mut all = play();
    all.expect(Event::Flushed, "Closing", &[Action::SendClose, Action::Flush]);
    all.expect(Event::Flushed, "Closed", &closed(true));

    let mut slow = play();
    assert_eq!(slow.wait(Duration::from_millis(4_999)), []);
    let anyway = [Action::DropQueue, Action::SendClose, Action::Flush];
    assert_eq!(slow.wait(Duration::from_millis(1)), anyway);
    assert_eq!(slow.machine.state(), "Closing");
    assert_eq!(slow.wait(Duration::from_millis(4_999)), []);
    assert_eq!(slow.wait(Duration::from_millis(1)), closed(false));

    play().expect(Event::ControlClose, "Closed", &closed(true));
    for event in Session::alphabet() {
        match event {
            Event::Flushed | Event::ControlClose => {}
            Event::WireEnded => play().expect(event, "Closed", &closed(true)),
            Event::WireFailed | Event::Overload => play().expect(event, "Closed", &closed(false)),
            Event::End { graceful: false } => play().expect(event, "Closed", &closed(false)),
            Event::WireUp { .. }
            | Event::Sync(_)
            | Event::SyncShort
            | Event::Message
            | Event::Ping
            | Event::UnknownControl { .. }
            | Event::BadBytes
            | Event::Sent
            | Event::ReadHeld
            | Event::ReadResumed
            | Event::End { graceful: true } => play().expect(event, "Draining", &[]),
        }
    }
}

#[test]
fn closing_waits_for_the_close_alone() {
    let (_, config, way) = ways().into_iter().find(|(state, ..)| *state == "Closing").unwrap();
    let play = || play(config.clone(), &way);
    let why = violation(Violation::SecondSync);
    let closed = |graceful| [Action::CloseWire { graceful }, Action::Closed { why }];
    for event in Session::alphabet() {
        match event {
            Event::Flushed | Event::ControlClose => play().expect(event, "Closed", &closed(true)),
            Event::WireFailed | Event::Overload | Event::End { graceful: false } => {
                play().expect(event, "Closed", &closed(false));
            }
            Event::WireUp { .. }
            | Event::Sync(_)
            | Event::SyncShort
            | Event::Message
            | Event::Ping
            | Event::UnknownControl { .. }
            | Event::BadBytes
            | Event::Sent
            | Event::ReadHeld
            | Event::ReadResumed
            | Event::WireEnded
            | Event::End { graceful: true } => play().expect(event, "Closing", &[]),
        }
    }
}

/// The same in both states in which the session has begun: nothing more is sent, and the pipes end before the session does.
#[test]
fn ends_at_once() {
    for (event, graceful, why) in [
        (Event::WireEnded, true, Why::PeerLeft),
        (Event::WireFailed, false, Why::Lost),
        (Event::BadBytes, true, Why::Undecodable),
        (Event::Overload, false, Why::Overload),
        (Event::End { graceful: false }, false, Why::Forced),
    ] {
        for (state, config, way) in ways() {
            if ["AwaitSync", "Open"].contains(&state) {
                let end = [Action::EndPipes, Action::CloseWire { graceful }, Action::Closed { why }];
                play(config, &way).expect(event.clone(), "Closed", &end);
            }
        }
    }
}

#[test]
fn closed_is_for_good() {
    let mut play = play(config(), &[up(Role::Server), asks(1), Event::ControlClose]);
    for event in Session::alphabet() {
        play.expect(event, "Closed", &[]);
    }
    assert_eq!(play.machine.poll_timeout(), None);
}

mod alive {
    use super::*;

    fn server() -> Play<Session> {
        play(towline(), &[up(Role::Server), asks(2)])
    }

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_server_pings_when_one_direction_is_quiet() {
        let mut play = server();
        assert_eq!(play.wait(seconds(2)), []);
        // Only one direction is busy.
        play.expect(Event::Message, "Open", &[Action::HandOn]);
        assert_eq!(play.wait(seconds(1)), [Action::SendPing]);
        play.expect(Event::Sent, "Open", &[]);
        play.expect(Event::Ping, "Open", &[]);
        assert_eq!(play.wait(Duration::from_millis(2_999)), []);
        // Both are.
        play.expect(Event::Message, "Open", &[Action::HandOn]);
        play.expect(Event::Sent, "Open", &[]);
        assert_eq!(play.wait(Duration::from_millis(2_999)), []);
        assert_eq!(play.wait(Duration::from_millis(1)), [Action::SendPing]);
    }

    #[test]
    fn a_peer_that_does_not_answer_gets_a_ping_an_interval() {
        let mut play = server();
        for _ in 0..10 {
            assert_eq!(play.wait(seconds(3)), [Action::SendPing]);
            assert_eq!(play.on(Event::Sent), []);
        }
    }

    #[test]
    fn silence_ends_the_session_at_both_ends() {
        let end = [Action::EndPipes, Action::CloseWire { graceful: false }, Action::Closed { why: Why::Silent }];
        let mut client = play(towline(), &[up(Role::Client), answers(2)]);
        assert_eq!(client.wait(seconds(1799)), []);
        client.expect(Event::Ping, "Open", &[Action::SendPing]);
        assert_eq!(client.wait(seconds(1799)), []);
        assert_eq!(client.wait(seconds(1)), end);

        let mut server = server();
        server.now += seconds(1800);
        assert_eq!(server.wait(Duration::ZERO), [Action::SendPing], "the earlier deadline first");
        assert_eq!(server.wait(Duration::ZERO), end);
    }

    #[test]
    fn nobody_is_silent_while_nothing_is_read() {
        let mut client = play(towline(), &[up(Role::Client), answers(2), Event::ReadHeld]);
        assert_eq!(client.wait(seconds(5000)), []);
        client.expect(Event::ReadResumed, "Open", &[]);
        assert_eq!(client.wait(seconds(1799)), []);
        assert_ne!(client.wait(seconds(1)), []);
    }
}
