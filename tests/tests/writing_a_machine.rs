//! docs/writing-a-machine.md: its code is the code that is tested here.

use std::{
    fs,
    io::{self, Read, Write},
    net::Shutdown,
    ops::ControlFlow,
    path::{Path, PathBuf},
    pin::Pin,
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use towline_core::{
    host::Runtime,
    machine::{Describe, Machine},
    net::{self, Close, Command, StreamBinding},
    testing::first_instant,
    tools::{
        explore::{Bounds, explore_with},
        script,
    },
};
use towline_smol::Smol;
use towline_tests::{
    greet::{
        binding::{Ended, Greeter},
        fuzz,
        hex::Hex,
        host,
        machine::{Action, Config, Event, Greet, Outcome},
    },
    random::Random,
    servers::connect,
    tables::Table,
};
use towline_tokio::Tokio;

fn on(machine: &mut Greet, now: Instant, event: Event) -> Vec<Action> {
    machine.handle_event(now, event);
    std::iter::from_fn(|| machine.poll_action()).collect()
}

fn data(text: &'static str) -> Event {
    Event::ClientData { bytes: text.into() }
}

#[test]
fn a_name_that_drips_is_greeted() {
    let now = first_instant();
    let mut machine = Greet::start(Config::default(), 0);
    assert_eq!(on(&mut machine, now, Event::Accepted), [Action::ReadClient { max: 101 }]);
    assert_eq!(on(&mut machine, now, data("Ad")), [Action::ReadClient { max: 99 }]);
    assert_eq!(on(&mut machine, now, data("a\n")), [Action::WriteClient { bytes: "hello Ada\n".into() }]);
    assert_eq!(on(&mut machine, now, Event::ClientSent { len: 4 }), []);
    let outcome = Outcome::Greeted;
    assert_eq!(
        on(&mut machine, now, Event::ClientSent { len: 6 }),
        [Action::CloseClient, Action::Finished { outcome }]
    );
}

#[test]
fn every_wait_ends() {
    let start = first_instant();
    for (events, seconds) in [(&["accepted"][..], 10), (&["accepted", "name"], 30)] {
        let mut machine = Greet::start(Config::default(), 0);
        for &event in events {
            on(&mut machine, start, if event == "name" { data("Ada\n") } else { Event::Accepted });
        }
        let due = start + Duration::from_secs(seconds);
        machine.handle_timeout(due - Duration::from_millis(1));
        assert_eq!(machine.poll_action(), None, "too early");
        machine.handle_timeout(due);
        assert_eq!(machine.poll_action(), Some(Action::CloseClient));
        assert_eq!(machine.poll_action(), Some(Action::Finished { outcome: Outcome::TimedOut }));
    }
}

fn chapter() -> (PathBuf, String) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("docs").join("writing-a-machine.md");
    let text = fs::read_to_string(&path).expect("the chapter");
    (path, text)
}

#[test]
fn the_code_of_the_chapter_is_the_code_that_is_compiled() {
    let (_, chapter) = chapter();
    let mut pieces = 0;
    for piece in chapter.split("\n```rust ").skip(1) {
        let (file, piece) = piece.split_once('\n').expect("a name");
        let (piece, _) = piece.split_once("\n```").expect("an end");
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/greet").join(file);
        let code = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        assert!(code.contains(piece), "{file} is not as the chapter shows it:\n{piece}");
        pieces += 1;
    }
    assert!(pieces > 5, "{pieces} pieces of code");
}

#[test]
fn its_links_lead_somewhere() {
    let (path, chapter) = chapter();
    for link in chapter.split("](").skip(1) {
        let (target, _) = link.split_once(')').expect("an end");
        assert!(path.with_file_name(target).exists(), "{target}");
    }
}

#[test]
fn the_table_is_what_the_machine_does() {
    let (_, chapter) = chapter();
    let found = explore_with::<Greet>(Greet::small(), first_instant(), Bounds::default()).expect("the invariants hold");
    let table = Table::of("greet", &chapter.replace("### greet", "## greet")).expect("a table");
    assert_eq!(table.differences(&found), Vec::<String>::new());
}

#[test]
fn it_runs_from_a_script() {
    let lines = [r#"{"at_ms": 0, "event": "accepted"}"#, r#"{"at_ms": 10000, "event": "advance"}"#];
    let mut output = Vec::new();
    let note = |line: &str| {
        output.push(line.to_owned());
        ControlFlow::Continue(())
    };
    let settings = script::Settings { start: first_instant(), config: None, seed: 0, states: false };
    script::run::<Greet>(settings, lines, note).expect("it runs");
    let finished = r#"{"at_ms":10000,"action":{"finished":{"outcome":"timed_out"}}}"#;
    assert_eq!(output.last().map(String::as_str), Some(finished), "{output:?}");
}

/// What the binding wants of its host, after something has happened.
fn commands(greeter: &mut Greeter) -> Vec<Command> {
    std::iter::from_fn(|| greeter.poll_command()).collect()
}

#[test]
fn each_client_has_a_machine_of_its_own() {
    let now = first_instant();
    let mut greeter = Greeter::new(Config::default());
    let [ada, bob] = [1, 2].map(|port| greeter.handle_incoming(now, ([192, 0, 2, 1], port).into()));
    let reads = [ada, bob].map(|conn| Command::Read { conn, max: 101 });
    assert_eq!(commands(&mut greeter), reads);
    greeter.handle_event(now, bob, net::Event::Data { bytes: "Bob\n".into() });
    assert_eq!(commands(&mut greeter), [Command::Write { conn: bob, bytes: "hello Bob\n".into() }]);
    greeter.handle_event(now, bob, net::Event::Sent { len: 10 });
    assert_eq!(commands(&mut greeter), [Command::Close { conn: bob, how: Close::Fin, unread: 4096 }]);
    assert_eq!(greeter.poll_notice(), Some(Ended { conn: bob, outcome: Outcome::Greeted }));
    // It is over, and its number means nothing any more.
    greeter.handle_event(now, bob, net::Event::Data { bytes: "Bob\n".into() });
    assert_eq!(commands(&mut greeter), []);
    greeter.end();
    assert_eq!(commands(&mut greeter), [Command::StopListening]);
    greeter.handle_event(now, ada, net::Event::Error { fault: net::Fault::Reset });
    let close = Command::Close { conn: ada, how: Close::Abort, unread: 4096 };
    assert_eq!(commands(&mut greeter), [close, Command::Stop]);
}

#[test]
fn the_binding_has_the_deadlines_of_its_machines() {
    let start = first_instant();
    let mut greeter = Greeter::new(Config::default());
    greeter.handle_incoming(start, ([192, 0, 2, 1], 1).into());
    assert_eq!(greeter.poll_timeout(), Some(start + Duration::from_secs(10)));
    greeter.handle_accept_failed(start, net::AcceptFault::Files);
    assert!(!greeter.wants_accept());
    greeter.handle_timeout(start + Duration::from_millis(100));
    assert!(greeter.wants_accept());
    greeter.handle_timeout(start + Duration::from_secs(10));
    assert_eq!(greeter.poll_notice().map(|ended| ended.outcome), Some(Outcome::TimedOut));
    assert_eq!(greeter.clients(), 0);
}

/// The same binding over another transport: neither it nor its host knows of the adaptor between them.
#[test]
fn an_adaptor_changes_the_bytes_and_keeps_the_connections() {
    let now = first_instant();
    let mut hex = Hex::new(Greeter::new(Config::default()));
    let data = |digits: &'static str| net::Event::Data { bytes: digits.into() };
    let conn = hex.handle_incoming(now, ([192, 0, 2, 1], 1).into());
    assert_eq!(hex.poll_command(), Some(Command::Read { conn, max: 202 }));
    let mut commands = |event| {
        hex.handle_event(now, conn, event);
        std::iter::from_fn(|| hex.poll_command()).collect::<Vec<_>>()
    };
    assert_eq!(commands(data("4")), [Command::Read { conn, max: 201 }]);
    assert_eq!(commands(data("164")), [Command::Read { conn, max: 198 }]);
    let bytes = "68656c6c6f204164610a".into();
    assert_eq!(commands(data("610a")), [Command::Write { conn, bytes }]);
    let close = Command::Close { conn, how: Close::Fin, unread: 4096 };
    assert_eq!(commands(net::Event::Sent { len: 20 }), [close]);
    assert_eq!(hex.poll_notice(), Some(Ended { conn, outcome: Outcome::Greeted }));
}

/// The outcomes of a greeter on a runtime with two clients, one after the other.
fn greeted_by<R: Runtime>(run: impl FnOnce(Pin<Box<dyn Future<Output = ()>>>) + Send + 'static) {
    let (tell, told) = mpsc::channel();
    let (address_to, address_from) = mpsc::channel();
    let greeter = thread::spawn(move || {
        run(Box::pin(async move {
            let ended = move |greeter: &mut Greeter, ended: Ended| {
                tell.send(ended.outcome).unwrap();
                if ended.outcome == Outcome::Malformed {
                    greeter.end();
                }
            };
            let (local, task) = host::serve::<R>(Config::default(), ([127, 0, 0, 1], 0).into(), ended).unwrap();
            address_to.send(local[0]).unwrap();
            task.await;
        }));
    });
    let address = address_from.recv().expect("it listens");
    let ask = |pieces: &[&[u8]]| {
        let mut tcp = connect(address);
        for piece in pieces {
            tcp.write_all(piece)?;
        }
        tcp.shutdown(Shutdown::Write)?;
        let mut greeting = String::new();
        tcp.read_to_string(&mut greeting)?;
        io::Result::Ok(greeting)
    };
    assert_eq!(ask(&[b"Ada", b" Lovelace\n"]).expect("a greeting"), "hello Ada Lovelace\n");
    assert_eq!(ask(&[&[b'x'; 1000]]).expect("an end in good order"), "");
    assert_eq!(told.iter().collect::<Vec<_>>(), [Outcome::Greeted, Outcome::Malformed]);
    greeter.join().expect("it stops after the last client");
}

#[test]
fn both_runtimes_greet() {
    greeted_by::<Tokio>(|task| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(task);
    });
    greeted_by::<Smol>(smol::block_on);
}

#[test]
fn any_bytes_are_a_life() {
    let mut random = Random::new(1);
    for _ in 0..10_000 {
        let length = random.below(200);
        let life: Vec<u8> = (0..length).map(|_| random.number() as u8).collect();
        fuzz::clients(&life);
    }
}
