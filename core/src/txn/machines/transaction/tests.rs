//! Every row of the tables in docs/protocols/txn-states.md, what they do not say, and lives at random.

mod random;
mod shared;
mod stored;
mod streamed;
mod times;

use std::{net::IpAddr, sync::Arc, time::Duration};

use bytes::Bytes;

use super::{
    played::{HEAD, Host, Life, config},
    *,
};
use crate::{
    machine::{Describe, Inspect, Machine},
    testing::first_instant,
};

#[test]
fn a_port_of_0_is_refused() {
    let error = serde_json::from_str::<Config>(r#"{"origin_port": 0}"#).unwrap_err().to_string();
    assert!(error.contains("a nonzero u16"), "{error}");
    assert_eq!(serde_json::from_str::<Config>("{}").unwrap(), Config::default());
}

/// A machine, and the time.
#[derive(Clone)]
struct Play {
    machine: Transaction,
    now: Instant,
}

impl Play {
    fn new(config: Config) -> Self {
        Self { machine: Transaction::new(Arc::new(config)), now: first_instant() }
    }

    /// Tells it what happened; what it wants done, as text.
    fn on(&mut self, event: Event) -> String {
        self.machine.handle_event(self.now, event);
        self.drain()
    }

    fn after(mut self, events: impl IntoIterator<Item = Event>) -> Self {
        for event in events {
            self.on(event);
        }
        self
    }

    /// Lets so much time pass, and fires what is due then.
    fn wait(&mut self, time: Duration) -> String {
        self.now += time;
        self.machine.handle_timeout(self.now);
        self.drain()
    }

    fn drain(&mut self) -> String {
        let actions: Vec<_> = std::iter::from_fn(|| self.machine.poll_action()).map(|action| say(&action)).collect();
        assert_eq!(self.machine.check(), Ok(()));
        actions.join("; ")
    }

    fn state(&self) -> &'static str {
        self.machine.state()
    }
}

/// An action in few words.
fn say(action: &Action) -> String {
    let text = |bytes: &Bytes| bytes.escape_ascii().to_string();
    match action {
        Action::ReadClient { max } => format!("read_client {max}"),
        Action::WriteClient { bytes } => format!("write_client {}", text(bytes)),
        Action::CloseClient { how: Close::Fin } => "close_client fin".to_owned(),
        Action::CloseClient { how: Close::Abort } => "close_client abort".to_owned(),
        Action::OpenCacheRead { key, seq } => format!("open_cache_read {} #{seq}", text(key)),
        Action::ReadCache { max } => format!("read_cache {max}"),
        Action::CloseCache => "close_cache".to_owned(),
        Action::OpenCacheWrite { key, seq } => format!("open_cache_write {} #{seq}", text(key)),
        Action::WriteCache { bytes } => format!("write_cache {}", text(bytes)),
        Action::CommitCache => "commit_cache".to_owned(),
        Action::AbortCache => "abort_cache".to_owned(),
        Action::LeaveFlight => "leave_flight".to_owned(),
        Action::Resolve { name, seq } => format!("resolve {} #{seq}", text(name)),
        Action::CancelResolve => "cancel_resolve".to_owned(),
        Action::Connect { addr, port, seq } => format!("connect {addr} {port} #{seq}"),
        Action::CancelConnect => "cancel_connect".to_owned(),
        Action::WriteOrigin { bytes } => format!("write_origin {}", text(bytes)),
        Action::ReadOrigin { max } => format!("read_origin {max}"),
        Action::CloseOrigin { how: Close::Fin } => "close_origin fin".to_owned(),
        Action::CloseOrigin { how: Close::Abort } => "close_origin abort".to_owned(),
        Action::Log { file, server, hit } => format!("log {} {} {}", text(file), text(server), u8::from(*hit)),
        Action::Finished { outcome: Outcome::Served { hit, bytes } } => {
            format!("finished served {} {bytes}", if *hit { "hit" } else { "miss" })
        }
        Action::Finished { outcome: Outcome::TimedOut { which } } => format!("finished timed_out {which:?}"),
        Action::Finished { outcome: Outcome::Malformed { why } } => format!("finished malformed {why:?}"),
        Action::Finished { outcome } => format!("finished {outcome}"),
    }
}

/// Events in few words; answers answer the current question.
mod events {
    use super::*;

    pub(super) fn client(text: &str) -> Event {
        Event::ClientData { bytes: Bytes::copy_from_slice(text.as_bytes()) }
    }
    pub(super) fn client_error() -> Event {
        Event::ClientError { kind: Fault::Reset }
    }
    pub(super) fn client_sent(len: u64) -> Event {
        Event::ClientSent { len }
    }
    pub(super) fn hit(len: u64) -> Event {
        Event::CacheHit { len, seq: None }
    }
    pub(super) fn miss() -> Event {
        Event::CacheMiss { seq: None }
    }
    pub(super) fn cached(text: &str) -> Event {
        Event::CacheData { bytes: Bytes::copy_from_slice(text.as_bytes()) }
    }
    pub(super) fn ready() -> Event {
        Event::CacheWriteReady { seq: None }
    }
    pub(super) fn refused(why: WriteRefusal) -> Event {
        Event::CacheWriteRefused { why, seq: None }
    }
    pub(super) fn stored(len: u64) -> Event {
        Event::CacheStored { len }
    }
    pub(super) fn resolved(addrs: &[&str]) -> Event {
        let addrs: Vec<IpAddr> = addrs.iter().map(|addr| addr.parse().unwrap()).collect();
        Event::Resolved { addrs, seq: None }
    }
    pub(super) fn resolve_failed() -> Event {
        Event::ResolveFailed { why: Fault::NoSuchName, seq: None }
    }
    pub(super) fn connected() -> Event {
        Event::Connected { seq: None }
    }
    pub(super) fn connect_failed() -> Event {
        Event::ConnectFailed { why: Fault::Refused, seq: None }
    }
    pub(super) fn origin_sent(len: u64) -> Event {
        Event::OriginSent { len }
    }
    pub(super) fn origin(text: &str) -> Event {
        Event::OriginData { bytes: Bytes::copy_from_slice(text.as_bytes()) }
    }
    pub(super) fn origin_error() -> Event {
        Event::OriginError { kind: Fault::Reset }
    }
}
use events::*;

/// Rows of a table: in this situation, on this event, to this state, doing this.
type Rows = Vec<(&'static str, Event, &'static str, &'static str)>;

/// How each situation is reached: from another one, by these events. The first comes from nowhere.
type Ways = Vec<(&'static str, &'static str, Vec<Event>)>;

fn reach(config: &Config, ways: &Ways, situation: &str) -> Play {
    let (_, from, events) = ways.iter().find(|(name, ..)| *name == situation).expect(situation);
    let play = if from.is_empty() { Play::new(config.clone()) } else { reach(config, ways, from) };
    let play = play.after(events.iter().cloned());
    let state = situation.split(',').next().unwrap();
    assert_eq!(play.state(), state, "the way to {situation:?}");
    play
}

/// Plays every row; and what no row names must change nothing but a count.
fn play_rows(config: &Config, ways: &Ways, rows: &Rows) {
    for (situation, event, next, actions) in rows {
        let mut play = reach(config, ways, situation);
        assert_eq!(play.on(event.clone()), *actions, "in {situation:?} on {event:?}");
        assert_eq!(play.state(), *next, "in {situation:?} on {event:?}");
        if *next == "done" {
            assert!(actions.rsplit("; ").next().is_some_and(|last| last.starts_with("finished")), "{actions}");
        }
    }
    let kind = |event: &Event| std::mem::discriminant(event);
    for (situation, ..) in ways {
        let before = reach(config, ways, situation);
        let named = |event: &Event| rows.iter().any(|(other, on, ..)| other == situation && kind(on) == kind(event));
        for event in Transaction::alphabet().into_iter().filter(|event| !named(event)) {
            let mut play = before.clone();
            assert_eq!(play.on(event.clone()), "", "in {situation:?} on {event:?}");
            assert_eq!(play.state(), before.state(), "in {situation:?} on {event:?}");
            assert_eq!(play.machine.fingerprint(), before.machine.fingerprint(), "in {situation:?} on {event:?}");
            let is_counted = !(before.state() == "done"
                || matches!(event, Event::ClientEof) && before.machine.parts.state().is_past_head()
                || matches!(event, Event::ClientError { .. }) && before.machine.client.is_closed);
            let counted = play.machine.unexpected_events() - before.machine.unexpected_events();
            assert_eq!(counted, u64::from(is_counted), "in {situation:?} on {event:?}");
        }
    }
}

/// The states in which a client that has asked may send more, which is thrown away.
fn discarding(situations: &[&'static str], rows: &mut Rows) {
    for &situation in situations {
        let state = situation.split(',').next().unwrap();
        rows.push((situation, client("abcd"), state, "read_client 4"));
        rows.push((situation, client("abcde"), state, ""));
    }
}
