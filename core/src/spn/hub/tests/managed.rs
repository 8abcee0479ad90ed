//! Providers that the hub starts and stops, with a test in the place of the cluster manager (MNG).

use super::*;
use crate::spn::{
    record::TerminateReason,
    wire::{code::SessionCode, frame::Flags},
};

fn availability(change: impl FnOnce(&mut Availability)) -> Option<Availability> {
    let mut availability =
        Availability { cluster_manager: "test:".to_owned(), service_id: "s-1".to_owned(), ..Availability::default() };
    change(&mut availability);
    Some(availability)
}

/// Started by either demand, and stopped after a minute.
fn on_demand(config: &mut Config) {
    config.services[0].availability =
        availability(|it| (it.on_consumer, it.on_payload, it.idle_timeout_s) = (true, true, 60));
}

fn from_load_on(config: &mut Config) {
    config.services[0].availability = availability(|_| {});
}

impl Bench {
    /// What cluster managers have been asked for since the last look, and is answered now.
    fn asked(&mut self, ok: bool) -> Vec<&'static str> {
        self.settle();
        let tasks = std::mem::take(&mut self.tasks);
        for (_, task) in &tasks {
            assert_eq!((&*task.service, &task.availability.service_id[..]), ("urn:s", "s-1"));
            self.hub.cluster_done(self.now, task.id, ok);
        }
        self.settle();
        tasks.into_iter().map(|(what, _)| what).collect()
    }

    fn managed(&self) -> Option<String> {
        self.hub.status().services.into_iter().find_map(|service| service.managed)
    }

    fn reload(&mut self, change: impl FnOnce(&mut Config)) -> Vec<String> {
        let mut config = self.hub.config.clone();
        change(&mut config);
        let changes = self.hub.reload(self.now, config).unwrap();
        self.settle();
        changes
    }
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[test]
fn what_runs_from_the_load_on_is_started_before_anybody_is_heard() {
    let mut bench = Bench::new(from_load_on);
    let provider = bench.dial(b"sc02-provider", "p");
    assert_eq!(bench.hands[provider].events, [], "nobody is heard");
    assert!(bench.hub.is_starting());
    assert_eq!(bench.asked(true), ["start"]);
    assert!(!bench.hub.is_starting());
    bench.wait(seconds(2));
    bench.open(provider, Role::Provider, "", 100, 1);
    assert!(matches!(bench.frames(provider)[..], [Frame::SessionAck(_)]), "QUIC has tried again");
    assert_eq!(bench.managed().unwrap(), "Running");
    bench.wait(seconds(100));
    assert_eq!(bench.asked(true), [""; 0], "it is never idle");
}

#[test]
fn a_start_that_fails_or_takes_long_does_not_keep_the_hub_from_listening() {
    let mut bench = Bench::new(from_load_on);
    assert_eq!(bench.asked(false), ["start"]);
    assert!(!bench.hub.is_starting());
    bench.wait(seconds(10));
    assert_eq!(bench.asked(false), ["start"], "once more");
    bench.wait(seconds(19));
    assert_eq!(bench.asked(true), [""; 0]);
    bench.wait(seconds(1));
    assert_eq!(bench.asked(true), ["start"]);

    let mut bench = Bench::new(from_load_on);
    bench.wait(seconds(9));
    assert!(bench.hub.is_starting());
    bench.wait(seconds(1));
    assert!(!bench.hub.is_starting());
    bench.session(Role::Provider, "p");
}

#[test]
fn a_hub_may_be_stopped_while_it_starts() {
    let mut bench = Bench::new(from_load_on);
    bench.hub.shutdown(bench.now);
    bench.settle();
    assert!(bench.stopped);
}

#[test]
fn a_connection_waits_for_the_provider_that_it_has_called_for() {
    let mut bench = Bench::new(|config| {
        on_demand(config);
        config.services[0].availability.as_mut().unwrap().on_consumer = false;
    });
    let consumer = bench.session(Role::Consumer, "c");
    assert_eq!(bench.asked(true), [""; 0], "a session alone asks for nothing");
    let stream = bench.connect(consumer, 7, b"hello");
    assert_eq!(bench.asked(true), ["start"]);
    assert_eq!(bench.managed().unwrap(), "Joining");
    bench.wait(seconds(30));
    let provider = bench.session(Role::Provider, "p");
    let served = bench.opened(provider)[0];
    assert_eq!(&bench.read(provider, served).0[18..], b"hello");
    bench.write(provider, served, b"world");
    assert_eq!(bench.read(consumer, stream).0, b"world");
    // In use, it is never idle; and idle, not at once.
    bench.wait(seconds(100));
    bench.finish(consumer, stream);
    bench.finish(provider, served);
    bench.read(provider, served);
    bench.read(consumer, stream);
    bench.wait(seconds(59));
    assert_eq!(bench.asked(true), [""; 0]);
    bench.wait(seconds(1));
    assert!(
        bench
            .frames(provider)
            .contains(&Frame::SessionClose { code: SessionCode(0), text: SessionCode::OK.text().to_owned() })
    );
    assert_eq!(bench.asked(true), ["stop"]);
    assert!(bench.frames(consumer).contains(&Frame::ProviderStopped));
    assert_eq!(bench.managed().unwrap(), "Stopped");
    let closed = |record: &RecordEvent| match record {
        RecordEvent::EndSession { session, reason, .. } => Some((session.role, *reason)),
        _ => None,
    };
    assert_eq!(bench.records.iter().find_map(closed), Some((Role::Provider, TerminateReason::Shutdown)));
    // And from the beginning.
    bench.connect(consumer, 8, b"again");
    assert_eq!(bench.asked(true), ["start"]);
}

#[test]
fn a_connection_waits_for_a_provider_that_is_not_the_hubs_to_start_now() {
    let mut bench = Bench::new(from_load_on);
    assert_eq!(bench.asked(true), ["start"]);
    let provider = bench.session(Role::Provider, "p");
    let consumer = bench.session(Role::Consumer, "c");
    bench.send(provider, &Frame::SessionClose { code: SessionCode(0), text: String::new() });
    bench.connect(consumer, 7, b"hello");
    assert_eq!((bench.asked(true), bench.managed().unwrap()), (vec![], "Stopped".to_owned()));
    let back = bench.session(Role::Provider, "p");
    let served = bench.opened(back)[0];
    assert_eq!(&bench.read(back, served).0[18..], b"hello");
}

#[test]
fn a_connection_does_not_wait_for_ever() {
    let mut bench = Bench::new(on_demand);
    let consumer = bench.session(Role::Consumer, "c");
    assert_eq!(bench.asked(false), ["start"], "its session has asked");
    let stream = bench.connect(consumer, 7, b"hello");
    let mut starts = 0;
    for _ in 0..60 {
        bench.wait(seconds(1));
        starts += bench.asked(false).len();
    }
    assert_eq!(starts, 2, "after 10 s and 20 s more");
    assert_eq!(bench.reset_code(consumer, stream), Some(0x28));
    assert_eq!(bench.close_code(consumer), None);
}

#[test]
fn the_word_and_the_frame_ask_for_a_start_once_in_ten_seconds() {
    let on_payload = |config: &mut Config| {
        on_demand(config);
        config.services[0].availability.as_mut().unwrap().on_consumer = false;
    };
    let mut bench = Bench::new(on_payload);
    let consumer = bench.session(Role::Consumer, "c");
    for expected in [&["start"][..], &[]] {
        bench.send(consumer, &Frame::ProviderStart);
        assert_eq!(bench.asked(true), expected);
        // It came and went.
        let provider = bench.session(Role::Provider, "p");
        bench.send(provider, &Frame::SessionClose { code: SessionCode(0), text: String::new() });
        assert_eq!(bench.managed().unwrap(), "Stopped");
    }
    bench.wait(seconds(10));
    bench.send(consumer, &Frame::ProviderStart);
    assert_eq!(bench.asked(true), ["start"]);

    let mut bench = Bench::new(on_payload);
    let consumer = bench.dial(b"sc01-consumer", "c");
    let hand = &mut bench.hands[consumer];
    hand.quic.send_datagram(hand.session, Bytes::from_static(b"request_provider_start"));
    assert_eq!(bench.asked(true), ["start"]);
    bench.session(Role::Provider, "p");
    bench.wait(seconds(60));
    assert_eq!(bench.asked(true), ["stop"]);
    let word = quic::Event::Datagram(Bytes::from_static(b"notify_provider_stopped"));
    assert!(bench.hands[consumer].events.contains(&word));
}

#[test]
fn neither_asks_where_only_the_session_may() {
    let mut bench = Bench::new(|config| {
        on_demand(config);
        config.services[0].availability.as_mut().unwrap().on_payload = false;
    });
    let consumer = bench.session(Role::Consumer, "c");
    assert_eq!(bench.asked(true), ["start"]);
    let provider = bench.session(Role::Provider, "p");
    bench.kill(provider);
    bench.wait(seconds(60));
    bench.send(consumer, &Frame::ProviderStart);
    assert_eq!(bench.asked(true), [""; 0]);
    bench.connect(consumer, 7, b"hello");
    assert_eq!(bench.asked(true), ["start"], "its search is a new one");
}

#[test]
fn one_that_is_to_be_resumed_keeps_its_provider() {
    let mut bench = Bench::new(on_demand);
    bench.flags = Flags(1);
    let provider = bench.session(Role::Provider, "p");
    let consumer = bench.session(Role::Consumer, "c");
    bench.connect(consumer, 7, b"hello");
    let served = bench.opened(provider)[0];
    bench.kill(consumer);
    bench.wait(seconds(45));
    assert!(
        bench.frames(provider).contains(&Frame::PauseReq { conn: ConnKey([7; 16]) })
            || bench.was_stopped(provider, served, StreamCode(0x27))
    );
    let conn = ConnKey([7; 16]);
    let request = crate::spn::wire::frame::ResumeReq {
        conn,
        generation: 1,
        received: 5,
        sent: 0,
        flags: Flags::NONE,
        code: StreamCode(0),
    };
    bench.send(provider, &Frame::ResumeReq(request));
    bench.wait(seconds(149));
    assert_eq!(bench.asked(true), [""; 0], "the consumer may yet come back");
    bench.wait(seconds(62));
    assert_eq!(bench.asked(true), ["stop"]);
}

#[test]
fn a_provider_without_reason_to_stay_is_stopped_whoever_has_started_it() {
    let mut bench = Bench::new(on_demand);
    let first = bench.session(Role::Provider, "p");
    let second = bench.session(Role::Provider, "p2");
    bench.wait(seconds(60));
    assert_eq!(bench.asked(true), ["stop"]);
    for provider in [first, second] {
        assert!(
            bench
                .frames(provider)
                .iter()
                .any(|frame| matches!(frame, Frame::SessionClose { code: SessionCode(0), .. }))
        );
    }
}

#[test]
fn a_reload_starts_what_is_new_and_touches_nothing_else() {
    let mut bench = Bench::new(|_| {});
    assert_eq!(bench.asked(true), [""; 0]);
    assert_eq!(bench.reload(from_load_on), ["service urn:s changed"]);
    assert_eq!(bench.asked(true), ["start"]);
    bench.session(Role::Provider, "p");
    assert_eq!(bench.reload(|_| {}), [""; 0]);
    assert_eq!(bench.asked(true), [""; 0]);
    // Now it may be idle.
    bench.reload(on_demand);
    bench.wait(seconds(60));
    assert_eq!(bench.asked(true), [""; 0], "it counts from the next decision on");
    let consumer = bench.session(Role::Consumer, "c");
    let stream = bench.connect(consumer, 7, b"hello");
    let hand = &mut bench.hands[consumer];
    hand.quic.reset(hand.session, stream, 0);
    hand.quic.stop(hand.session, stream, 0);
    bench.wait(seconds(61));
    assert_eq!(bench.asked(true), ["stop"]);
    bench.reload(|config| config.services[0].availability = None);
    assert_eq!(bench.managed(), None);
}

#[test]
fn an_answer_that_comes_too_late_is_nobodys() {
    let mut bench = Bench::new(from_load_on);
    bench.settle();
    let (_, old) = bench.tasks.pop().unwrap();
    bench.reload(|config| config.services[0].availability = None);
    assert!(!bench.hub.is_starting(), "nothing to wait for");
    bench.reload(from_load_on);
    bench.hub.cluster_done(bench.now, old.id, false);
    assert_eq!(bench.managed().unwrap(), "Starting");
    assert_eq!(bench.asked(true), ["start"]);
}

#[test]
fn a_schedule_starts_and_stops() {
    // The tests' time begins at pki::UNIX.
    let unix = pki::UNIX.as_secs();
    let minute = |minutes: u64| {
        let date = time::OffsetDateTime::from_unix_timestamp((unix + minutes * 60) as i64).unwrap();
        format!("{} {} * * *", date.minute(), date.hour())
    };
    let (start, stop) = (minute(10), minute(20));
    let mut bench = Bench::new(|_| {});
    bench.reload(|config| {
        config.services[0].availability =
            availability(|it| (it.start_at, it.stop_at) = (start.parse().ok(), stop.parse().ok()));
    });
    let mut notified = Vec::new();
    for minutes in 0..(24 * 60 + 15) {
        notified.extend(bench.asked(true).into_iter().map(|what| (minutes, what)));
        bench.wait(seconds(60));
    }
    assert_eq!(notified, [(10, "start"), (20, "stop"), (24 * 60 + 10, "start")]);
}

#[test]
fn a_schedule_follows_a_clock_that_is_set() {
    let mut bench = Bench::new(|_| {});
    bench.reload(|config| {
        let (start, stop) = ("0 8 * * *".parse().ok(), "0 18 * * *".parse().ok());
        config.services[0].availability = availability(|it| (it.start_at, it.stop_at) = (start, stop));
    });
    // The tests' time begins at midnight.
    let set = |bench: &mut Bench, hours: u64| {
        let epoch = Epoch { instant: bench.now, unix: pki::UNIX + seconds(hours * 3600) };
        bench.hub.set_epoch(bench.now, epoch);
    };
    assert_eq!(bench.asked(true), [""; 0]);
    set(&mut bench, 9);
    assert_eq!(bench.asked(true), ["start"]);
    set(&mut bench, 17);
    bench.wait(seconds(3590));
    assert_eq!(bench.asked(true), [""; 0]);
    bench.wait(seconds(20));
    assert_eq!(bench.asked(true), ["stop"]);
    set(&mut bench, 17);
    assert_eq!(bench.asked(true), ["start"], "its hours have not ended yet");
    // A clock that is slowed down a little at a time does not make it early, nor twice.
    let mut notified = Vec::new();
    let begin = (bench.now, pki::UNIX + seconds(17 * 3600));
    for second in 1..=3700 {
        bench.wait(seconds(1));
        let unix = begin.1 + seconds(second) - Duration::from_millis(second * 5);
        bench.hub.set_epoch(bench.now, Epoch { instant: bench.now, unix });
        notified.extend(bench.asked(true).into_iter().map(|what| (unix.as_secs() - begin.1.as_secs(), what)));
    }
    assert!(matches!(notified[..], [(3600..=3602, "stop")]), "{notified:?}");
}

#[test]
fn out_of_hours_a_load_starts_nothing() {
    let unix = pki::UNIX.as_secs();
    let date = time::OffsetDateTime::from_unix_timestamp((unix - 600) as i64).unwrap();
    let ago = format!("{} {} * * *", date.minute(), date.hour());
    let mut bench = Bench::new(|_| {});
    bench.reload(|config| {
        config.services[0].availability =
            availability(|it| (it.start_at, it.stop_at) = ("0 0 1 12 *".parse().ok(), ago.parse().ok()));
    });
    assert_eq!((bench.asked(true), bench.managed().unwrap()), (vec![], "Stopped".to_owned()));
}

#[test]
fn a_hub_that_leaves_stops_no_provider() {
    let mut bench = Bench::new(on_demand);
    let provider = bench.session(Role::Provider, "p");
    bench.hub.shutdown(bench.now);
    bench.settle();
    bench.wait(seconds(20));
    assert!(bench.frames(provider).iter().any(|frame| matches!(frame, Frame::SessionShutdown { .. })));
    bench.wait(seconds(20));
    assert!(bench.stopped);
    assert_eq!(bench.asked(true), [""; 0]);
}
