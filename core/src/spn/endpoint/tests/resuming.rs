//! Connections that outlive their session, against a hub that the test plays and that loses everything between two sessions (RES).

use super::{
    played::{Played, ack},
    *,
};
use crate::spn::{
    Tag,
    wire::{
        frame::Flags,
        frame::{AckEntry, Frame, ResumeAck, ResumeReq},
        preamble::{CONNECT_LEN, Preamble, RESUME_LEN},
    },
};

const KEY: ConnKey = ConnKey([7; 16]);

fn connect() -> Vec<u8> {
    Preamble::Connect { conn: KEY, flags: Flags(1) }.to_bytes().to_vec()
}

fn resume(conn: ConnKey, flags: u8, generation: u32, offset: u64, received: u64) -> Vec<u8> {
    Preamble::Resume { conn, flags: Flags(flags), generation, offset, received }.to_bytes().to_vec()
}

fn answer(conn: ConnKey, received: u64, flags: u8) -> Frame {
    Frame::ResumeAck(ResumeAck { conn, status: StreamCode(0), generation: 0, received, flags: Flags(flags) })
}

fn report(conn: ConnKey, received: u64, flags: u8) -> Frame {
    Frame::DataAck(vec![AckEntry { conn, received, flags: Flags(flags) }])
}

impl Played {
    /// A consumer's connection, confirmed, with what it has sent.
    fn called(&mut self, bytes: &[u8], finish: bool) -> (ConnId, ConnKey, StreamId) {
        let id = self.call(bytes, finish);
        let stream = self.opened();
        let said = self.read(stream).0;
        let (preamble, payload) = said.split_at(CONNECT_LEN);
        assert_eq!((preamble[0], preamble[17], payload), (1, 1, bytes));
        let key = ConnKey(preamble[1..17].try_into().unwrap());
        self.send(&Frame::Connected { conn: key, flags: Flags(1) });
        self.frames();
        (id, key, stream)
    }

    /// The hub forgets the session; the endpoint comes back.
    fn restart(&mut self) {
        self.lose();
        self.come_back();
    }

    fn lose(&mut self) {
        let (now, session) = (self.world.now, self.session);
        self.quic().close(now, session, 0, "");
        self.run();
    }

    fn come_back(&mut self) {
        let before = self.session;
        self.world.wait(Duration::from_secs(2));
        self.events.clear();
        while let Some((handle, event)) = self.world.played(self.hub).poll_event() {
            if handle != before {
                self.session = handle;
                self.events.push(event);
            }
        }
        assert_ne!(self.session, before, "it has not dialled again");
        self.accept();
        self.send(&ack(1000));
    }

    fn reset_of(&mut self, id: ConnId) -> Option<StreamCode> {
        match self.flow(id).end {
            Some(End::Reset(code)) => Some(code),
            Some(End::Clean) | None => None,
        }
    }
}

#[test]
fn a_consumer_goes_on_where_its_partner_has_stopped() {
    let mut played = Played::resumable(Role::Consumer);
    let (id, key, stream) = played.called(b"0123456789", true);
    played.write(stream, b"abc");
    played.run();
    assert_eq!(played.frames(), [report(key, 3, 0)]);
    played.send(&report(key, 4, 0));

    played.restart();
    let request =
        |generation| ResumeReq { conn: key, generation, received: 3, sent: 10, flags: Flags(1), code: StreamCode(0) };
    assert_eq!(played.frames(), [Frame::ResumeReq(request(0))]);
    played.send(&answer(key, 6, 0));
    let stream = played.opened();
    assert_eq!(played.read(stream), ([resume(key, 1, 1, 6, 3), b"6789".to_vec()].concat(), ReadOutcome::Finished));

    // Lost again before the partner has answered.
    played.restart();
    assert_eq!(played.frames(), [Frame::ResumeReq(request(1))]);
    played.send(&answer(key, 8, 0));
    let stream = played.opened();
    assert_eq!(played.read(stream).0, [resume(key, 1, 2, 8, 3), b"89".to_vec()].concat());
    // What comes again is skipped, however it is cut.
    let said = [resume(key, 0, 2, 1, 8), b"bcdef".to_vec()].concat();
    played.write(stream, &said[..30]);
    played.write(stream, &said[30..RESUME_LEN + 1]);
    played.write(stream, &said[RESUME_LEN + 1..]);
    assert_eq!(played.flow(id).got, b"abcdef");
    played.finish(stream);
    assert_eq!(played.flow(id).end, None, "the partner has not said that it has all");
    played.send(&report(key, 10, 2));
    played.assert_answered(id, b"abcdef");
    assert_eq!(played.frames().last(), Some(&report(key, 6, 2)));

    // The report may have been lost with the session: it can still be asked for.
    played.restart();
    let last = ResumeReq { conn: key, generation: 2, received: 6, sent: 10, flags: Flags(3), code: StreamCode(0) };
    assert_eq!(played.frames(), [Frame::ResumeReq(last)]);
    played.wait(Duration::from_secs(31));
    played.restart();
    assert_eq!(played.frames(), []);
}

#[test]
fn a_provider_takes_the_next_leg_and_none_before_it() {
    let mut played = Played::resumable(Role::Provider);
    let first = played.open(&[connect(), b"hello".to_vec()].concat());
    let id = played.caller();
    let peer = played.peer;
    played.world.say(peer, id, b"WORLD", false);
    played.run();
    assert_eq!(played.read(first).0, b"WORLD");
    assert_eq!(played.frames(), [report(KEY, 5, 0)]);

    played.restart();
    let request = ResumeReq { conn: KEY, generation: 0, received: 5, sent: 5, flags: Flags::NONE, code: StreamCode(0) };
    assert_eq!(played.frames(), [Frame::ResumeReq(request)]);
    let second = played.open(&[resume(KEY, 0, 2, 3, 4), b"lo!".to_vec()].concat());
    assert_eq!(played.flow(id).got, b"hello!");
    assert_eq!(played.read(second).0, [resume(KEY, 0, 2, 4, 5), b"D".to_vec()].concat());

    // A leg that was late is not read,
    let late = played.open(&[resume(KEY, 0, 1, 5, 5), b"???".to_vec()].concat());
    assert_eq!(played.refused(late), (Some(StreamCode::PAUSED), ReadOutcome::Reset(StreamCode::PAUSED.0)));
    // the next one counts at once, even though the last still stands.
    let third = played.open(&[resume(KEY, 1, 3, 6, 5), b"?".to_vec()].concat());
    assert_eq!(played.refused(second).0, Some(StreamCode::PAUSED));
    played.finish(third);
    played.world.say(peer, id, b"", true);
    played.run();
    assert_eq!(played.read(third), (resume(KEY, 0, 3, 5, 6), ReadOutcome::Finished));
    played.send(&report(KEY, 5, 2));
    played.assert_answered(id, b"hello!?");
}

#[test]
fn a_leg_that_repeats_what_is_here_brings_no_empty_chunks() {
    let mut played = Played::resumable(Role::Provider);
    played.open(&[connect(), b"hello".to_vec()].concat());
    let id = played.caller();
    played.restart();
    // With the preamble, and behind it: all of it is known.
    let leg = played.open(&[resume(KEY, 0, 1, 0, 0), b"hel".to_vec()].concat());
    let session = played.session;
    for (more, got) in [("l", "hello"), ("o", "hello"), ("!", "hello!")] {
        played.quic().write(session, leg, &mut [Bytes::from(more)]);
        played.run();
        assert_eq!(played.flow(id).got, got.as_bytes());
    }
}

#[test]
fn a_gap_or_too_much_acknowledged_breaks_it_at_both_ends() {
    let code = StreamCode::CONN_IN_USE;
    let mut played = Played::resumable(Role::Provider);
    played.open(&[connect(), b"hello".to_vec()].concat());
    let id = played.caller();
    played.restart();
    let gap = played.open(&resume(KEY, 0, 1, 6, 0));
    assert_eq!(played.refused(gap), (Some(code), ReadOutcome::Reset(code.0)));
    assert_eq!(played.reset_of(id), Some(code));
    let left = ResumeReq { conn: KEY, generation: 0, received: 5, sent: 0, flags: Flags(4), code };
    assert_eq!(played.frames().last(), Some(&Frame::ResumeReq(left)));

    let mut played = Played::resumable(Role::Consumer);
    let (_, key, stream) = played.called(b"0123", false);
    played.send(&report(key, 5, 0));
    assert_eq!(played.frames(), [Frame::CloseReq { conn: key, code }]);
    assert_eq!(played.refused(stream).0, Some(code));
}

#[test]
fn an_abort_while_nobody_listens_is_told_later() {
    let mut played = Played::resumable(Role::Consumer);
    let (id, key, _) = played.called(b"0123", false);
    played.lose();
    let (now, peer) = (played.world.now, played.peer);
    played.world.peer(peer).endpoint.reset(now, id, StreamCode::PEER_ABORTED);
    played.come_back();
    let left =
        ResumeReq { conn: key, generation: 0, received: 0, sent: 4, flags: Flags(4), code: StreamCode::PEER_ABORTED };
    assert_eq!(played.frames(), [Frame::ResumeReq(left)]);
    // Once it is known, it is not repeated.
    played.send(&answer(key, 0, 0));
    played.restart();
    assert_eq!(played.frames(), []);

    // The other way round.
    let (id, key, _) = played.called(b"0123", false);
    played.restart();
    let refusal =
        ResumeAck { conn: key, status: StreamCode::PEER_ABORTED, generation: 0, received: 0, flags: Flags(4) };
    played.send(&Frame::ResumeAck(refusal));
    assert_eq!(played.reset_of(id), Some(StreamCode::PEER_ABORTED));
    // What is not known is answered so.
    played.frames();
    played.send(&answer(key, 0, 0));
    assert_eq!(played.frames(), [Frame::CloseReq { conn: key, code: StreamCode::RESUME_PARTNER_MISSING }]);
}

#[test]
fn a_partner_that_never_comes_back_is_given_up() {
    let mut played = Played::resumable(Role::Consumer);
    let (id, _, _) = played.called(b"0123", false);
    played.restart();
    played.wait(Duration::from_secs(115));
    assert_eq!(played.reset_of(id), None);
    played.wait(Duration::from_secs(6));
    assert_eq!(played.reset_of(id), Some(StreamCode::PAUSE_TIMEOUT));
}

#[test]
fn without_a_provider_that_can_resume_a_loss_is_a_reset() {
    let mut played = Played::resumable(Role::Consumer);
    let id = played.call(b"0123", false);
    let stream = played.opened();
    let said = played.read(stream).0;
    let key = ConnKey(said[1..17].try_into().unwrap());
    played.send(&Frame::Connected { conn: key, flags: Flags::NONE });
    played.lose();
    assert_eq!(played.reset_of(id), Some(StreamCode::PARTNER_LOST));
}

#[test]
fn a_connection_that_was_refused_is_another_one_with_the_same_bytes() {
    let mut played = Played::resumable(Role::Consumer);
    let (id, refused, stream) = played.called(b"0123", true);
    played.cut(stream, StreamCode::NOT_STARTED);
    played.wait(Duration::from_secs(1));
    let stream = played.opened();
    let said = played.read(stream).0;
    let key = ConnKey(said[1..17].try_into().unwrap());
    assert_ne!(key, refused);
    played.send(&Frame::Connected { conn: key, flags: Flags(1) });
    played.send(&report(key, 3, 0));
    played.restart();
    let request = ResumeReq { conn: key, generation: 0, received: 0, sent: 4, flags: Flags(1), code: StreamCode(0) };
    assert_eq!(played.frames(), [Frame::ResumeReq(request)]);
    played.send(&answer(key, 3, 0));
    let stream = played.opened();
    assert_eq!(played.read(stream).0, [resume(key, 1, 1, 3, 0), b"3".to_vec()].concat());
    played.write(stream, &resume(key, 0, 1, 0, 4));
    played.finish(stream);
    played.send(&report(key, 4, 2));
    played.assert_answered(id, b"");
}

#[test]
fn an_identity_without_rights_resumes_nothing() {
    let mut played = Played::resumable(Role::Consumer);
    let (id, _, _) = played.called(b"0123", false);
    let (now, session) = (played.world.now, played.session);
    played.quic().close(now, session, StreamCode::NOT_ENTITLED.0, "");
    played.run();
    assert_eq!(played.reset_of(id), Some(StreamCode::NOT_ENTITLED));
}

#[test]
fn the_hub_may_ask_for_a_pause() {
    let mut played = Played::resumable(Role::Consumer);
    let (id, key, stream) = played.called(b"0123", false);
    played.send(&Frame::PauseReq { conn: key });
    assert_eq!(played.frames(), [Frame::PauseAck { conn: key }]);
    // Nothing is sent any more, and what comes is still read.
    let peer = played.peer;
    played.world.say(peer, id, b"45", false);
    played.write(stream, b"ab");
    assert_eq!((played.read(stream).0, played.flow(id).got.clone()), (vec![], b"ab".to_vec()));
    played.frames();
    played.cut(stream, StreamCode::PAUSED);
    let request = ResumeReq { conn: key, generation: 0, received: 2, sent: 4, flags: Flags::NONE, code: StreamCode(0) };
    assert_eq!(played.frames(), [Frame::ResumeReq(request)]);
    played.send(&answer(key, 4, 0));
    let stream = played.opened();
    assert_eq!(played.read(stream).0, [resume(key, 0, 1, 4, 2), b"45".to_vec()].concat());
    // Of a connection that is not known, its stream may be late.
    played.send(&Frame::PauseReq { conn: KEY });
    assert_eq!(played.frames(), []);
    played.wait(Duration::from_secs(1));
    assert_eq!(played.frames(), [Frame::PauseAck { conn: KEY }]);
}

#[test]
fn what_nobody_acknowledges_is_kept_up_to_a_limit() {
    const LIMIT: usize = 1024 * 1024;
    let mut played = Played::resumable(Role::Consumer);
    let bytes: Vec<u8> = (0..2 * LIMIT).map(|n| (n % 251) as u8).collect();
    let (id, peer) = (played.call(&bytes, true), played.peer);
    let stream = played.opened();
    let mut said = Vec::new();
    let read_all = |played: &mut Played, said: &mut Vec<u8>| loop {
        let part = played.read(stream).0;
        played.run();
        if part.is_empty() {
            break;
        }
        said.extend(part);
    };
    read_all(&mut played, &mut said);
    assert_eq!(said.len(), CONNECT_LEN + LIMIT);
    let key = ConnKey(said[1..17].try_into().unwrap());
    played.send(&Frame::Connected { conn: key, flags: Flags(1) });
    played.send(&report(key, 1000, 0));
    read_all(&mut played, &mut said);
    assert_eq!(said.len(), CONNECT_LEN + LIMIT + 1000);
    assert_eq!(played.world.peer(peer).endpoint.intake.exchange().parts_ref().conns.retained(), LIMIT as u64);
    // All of it goes again, byte for byte.
    played.restart();
    played.send(&answer(key, 1000, 0));
    let stream = played.opened();
    let mut again = Vec::new();
    while again.len() < RESUME_LEN + LIMIT {
        again.extend(played.read(stream).0);
        played.run();
    }
    assert!(again[RESUME_LEN..] == bytes[1000..LIMIT + 1000]);
    let now = played.world.now;
    played.world.peer(peer).endpoint.reset(now, id, StreamCode::PEER_ABORTED);
    assert_eq!(played.reset_of(id), None, "it has said so itself");
    played.wait(Duration::from_secs(6));
    assert_eq!(played.world.peer(peer).endpoint.intake.exchange().parts_ref().conns.retained(), 0);
}

#[test]
fn a_provider_resumes_for_the_consumer_that_has_begun() {
    let (owner, thief) = (Tag::of("owner"), Tag::of("thief"));
    let of = |tag: Tag, preamble: &[u8]| [&[3][..], &tag.0, preamble].concat();
    let mut played = Played::resumable(Role::Provider);
    played.open(&[of(owner, &connect()), b"hello".to_vec()].concat());
    let id = played.caller();
    played.run();
    played.frames();
    played.restart();
    let values = ResumeReq { conn: KEY, generation: 0, received: 5, sent: 0, flags: Flags::NONE, code: StreamCode(0) };
    assert_eq!(played.frames(), [Frame::ResumeReqWith { values, partner: owner }]);
    let stolen = played.open(&[of(thief, &resume(KEY, 0, 1, 5, 0)), b"?".to_vec()].concat());
    assert_eq!(
        played.refused(stolen),
        (Some(StreamCode::NOT_ENTITLED), ReadOutcome::Reset(StreamCode::NOT_ENTITLED.0))
    );
    let second = played.open(&[of(owner, &resume(KEY, 0, 1, 5, 0)), b"!".to_vec()].concat());
    assert_eq!(played.flow(id).got, b"hello!");
    assert_eq!(played.read(second).0, resume(KEY, 0, 1, 0, 5));
    // What is left of it after its end is not the thief's, either; the owner hears that it has ended.
    played.finish(second);
    let peer = played.peer;
    played.world.say(peer, id, b"", true);
    played.run();
    played.send(&report(KEY, 0, 2));
    assert_eq!(played.flow(id).end, Some(End::Clean));
    played.frames();
    let stolen = played.open(&of(thief, &resume(KEY, 0, 2, 5, 0)));
    assert_eq!(played.refused(stolen).0, Some(StreamCode::NOT_ENTITLED));
    assert_eq!(played.frames(), []);
    let late = played.open(&of(owner, &resume(KEY, 0, 2, 5, 0)));
    assert_eq!(played.refused(late).0, Some(StreamCode::PAUSED));
    let values = ResumeReq { conn: KEY, generation: 1, received: 6, sent: 0, flags: Flags(3), code: StreamCode(0) };
    assert_eq!(played.frames(), [Frame::ResumeReqWith { values, partner: owner }]);
}

#[test]
fn a_consumer_names_the_provider_that_partner_has_named() {
    let mut played = Played::resumable(Role::Consumer);
    let (id, key, _) = played.called(b"0123", false);
    played.send(&Frame::Partner { conn: ConnKey([1; 16]), partner: Tag::of("another") });
    played.send(&Frame::Partner { conn: key, partner: Tag::of("p") });
    played.restart();
    let request = |flags, code| Frame::ResumeReqWith {
        values: ResumeReq { conn: key, generation: 0, received: 0, sent: 4, flags, code },
        partner: Tag::of("p"),
    };
    assert_eq!(played.frames(), [request(Flags::NONE, StreamCode::OK)]);
    let (now, peer) = (played.world.now, played.peer);
    played.world.peer(peer).endpoint.reset(now, id, StreamCode::PEER_ABORTED);
    played.run();
    assert_eq!(
        played.frames().last(),
        Some(&request(Flags::ABORTED, StreamCode::PEER_ABORTED)),
        "also what is left of it"
    );
}

#[test]
fn a_provider_that_never_saw_a_connection_says_so_and_takes_it_no_more() {
    let mut played = Played::resumable(Role::Provider);
    let peer = played.peer;
    let instance = played.world.peer(peer).endpoint.setup.instance();
    let seek = |conn| Frame::Seek { conn, instance };
    played.send(&seek(KEY));
    assert_eq!(played.frames(), [Frame::Absent { conn: KEY, instance }]);
    let late = played.open(&[connect(), b"late".to_vec()].concat());
    assert_eq!(played.refused(late).0, Some(StreamCode::NOT_STARTED));
    // Asked again, it says it again.
    played.send(&seek(KEY));
    assert_eq!(played.frames(), [Frame::Absent { conn: KEY, instance }]);
    // One that it has, it leaves, and asks for the next stream.
    let other = ConnKey([8; 16]);
    let bytes = Preamble::Connect { conn: other, flags: Flags(1) }.to_bytes().to_vec();
    let stream = played.open(&[bytes, b"hello".to_vec()].concat());
    let id = played.caller();
    played.run();
    played.frames();
    played.send(&seek(other));
    assert_eq!(played.refused(stream).0, Some(StreamCode::PAUSED));
    let request =
        ResumeReq { conn: other, generation: 0, received: 5, sent: 0, flags: Flags::NONE, code: StreamCode(0) };
    assert_eq!(played.frames(), [Frame::ResumeReq(request)]);
    // One that it has broken off, it never says that it did not have, however late it is asked.
    let now = played.world.now;
    played.world.peer(peer).endpoint.reset(now, id, StreamCode::PEER_ABORTED);
    played.run();
    played.frames();
    played.wait(Duration::from_secs(125));
    played.send(&seek(other));
    assert_eq!(played.frames(), []);
}

/// The hub of a session that connections have left may not know yet that their streams are lost: a provider that it lists from then on must not get
/// one of them, as nobody would ask that provider (SEK-2, I5).
#[test]
fn a_session_that_connections_have_left_acknowledges_no_list_of_providers() {
    let mut played = Played::resumable(Role::Consumer);
    let list = |number, instances| Frame::Providers { number, flags: Flags::NONE, instances, retiring: vec![] };
    let (one, newcomer) = ([1; 16], [2; 16]);
    played.send(&list(1, vec![one]));
    assert_eq!(played.frames(), [Frame::ProvidersAck { number: 1 }]);
    // Of two connections one cannot go on elsewhere: the session stays for it.
    let stays = played.call(b"stays", false);
    let stream = played.opened();
    let said = played.read(stream).0;
    played.send(&Frame::Connected { conn: ConnKey(said[1..17].try_into().unwrap()), flags: Flags::NONE });
    played.call(b"leaves", false);
    let left = played.opened();
    let (now, peer) = (played.world.now, played.peer);
    played.world.peer(peer).endpoint.handle_addresses(now, &[address("192.0.2.9:4433")]);
    played.run();
    assert_eq!(played.refused(left).0, Some(StreamCode::PAUSED));
    played.frames();
    played.send(&list(2, vec![one, newcomer]));
    assert_eq!(played.frames(), []);
    played.write(stream, b"answer");
    assert_eq!(played.flow(stays).got, b"answer");
}
