//! docs/writing-a-machine.md: its code is the code that is tested here.

use std::{
    fs,
    io::{self, Read, Write},
    net::{Shutdown, SocketAddr},
    ops::ControlFlow,
    path::{Path, PathBuf},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use towline_core::{
    machine::{Describe, Machine},
    testing::first_instant,
    tools::{
        explore::{Bounds, explore_with},
        script,
    },
};
use towline_tests::{
    greet::{
        fuzz,
        machine::{Action, Config, Event, Greet, Outcome},
        on_smol, on_tokio,
    },
    random::Random,
    servers::connect,
    tables::Table,
};

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

fn greeted_by(serve: impl FnOnce(std::net::TcpListener) -> Outcome + Send + 'static) -> (Outcome, String) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address: SocketAddr = listener.local_addr().unwrap();
    listener.set_nonblocking(true).unwrap();
    let (tell, told) = mpsc::channel();
    thread::spawn(move || tell.send(serve(listener)));
    let mut tcp = connect(address);
    let greeting = (|| {
        tcp.write_all(b"Ada")?;
        tcp.write_all(b" Lovelace\n")?;
        tcp.shutdown(Shutdown::Write)?;
        let mut greeting = String::new();
        tcp.read_to_string(&mut greeting)?;
        io::Result::Ok(greeting)
    })();
    (told.recv().expect("an outcome"), greeting.expect("a greeting"))
}

#[test]
fn both_runtimes_greet() {
    let expected = (Outcome::Greeted, "hello Ada Lovelace\n".to_owned());
    let by_tokio = greeted_by(|listener| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            let (tcp, _) = listener.accept().await.unwrap();
            on_tokio::serve(tcp, Config::default()).await
        })
    });
    assert_eq!(by_tokio, expected);
    let by_smol = greeted_by(|listener| {
        smol::block_on(async {
            let listener = smol::net::TcpListener::try_from(listener).unwrap();
            let (tcp, _) = listener.accept().await.unwrap();
            on_smol::serve(tcp, Config::default()).await
        })
    });
    assert_eq!(by_smol, expected);
}

#[test]
fn any_bytes_are_a_life() {
    let mut random = Random::new(1);
    for _ in 0..10_000 {
        let length = random.below(200);
        let life: Vec<u8> = (0..length).map(|_| random.number() as u8).collect();
        fuzz::connection(&life);
    }
}
