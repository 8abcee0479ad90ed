use std::{
    fs,
    io::{BufRead, BufReader, Read},
    os::fd::OwnedFd,
    sync::{Mutex, PoisonError},
};

use super::*;

/// Numbers, one a line, padded to a length.
struct Numbers(usize, Arc<Mutex<Vec<String>>>);

impl Numbers {
    fn new(length: usize) -> (Self, Arc<Mutex<Vec<String>>>) {
        let said = Arc::default();
        (Self(length, Arc::clone(&said)), said)
    }
}

impl Form for Numbers {
    type Item = u32;
    const ROOM: usize = 5000;

    fn head(&mut self) -> String {
        "head\n".to_owned()
    }

    fn text(&mut self, item: &u32) -> String {
        format!("{item:0length$}\n", length = self.0)
    }

    fn gap(&mut self, lost: u64) -> String {
        format!("lost {lost}\n")
    }

    fn trouble(&mut self, trouble: Trouble<'_>) {
        let kind = match trouble {
            Trouble::Write(_) => "write".to_owned(),
            Trouble::Reopen(_) => "reopen".to_owned(),
            Trouble::Lost(count) => format!("lost {count}"),
        };
        self.1.lock().unwrap_or_else(PoisonError::into_inner).push(kind);
    }
}

fn until(what: &str, is_so: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !is_so() {
        assert!(Instant::now() < deadline, "{what}");
        thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_renamed_file_is_opened_anew_and_so_is_one_that_is_removed() {
    let directory = tempfile::tempdir().unwrap();
    let (path, old) = (directory.path().join("log"), directory.path().join("log.1"));
    let lines = Lines::start(Some(&path), Numbers::new(1).0).unwrap();
    let text = |path: &Path| fs::read_to_string(path).unwrap_or_default();
    lines.sender().send(1);
    until("the first", || text(&path) == "head\n1\n");
    fs::rename(&path, &old).unwrap();
    lines.sender().send(2);
    until("the second", || text(&path) == "head\n2\n");
    fs::remove_file(&path).unwrap();
    lines.reopen();
    until("a new file, though there is nothing to write", || text(&path) == "head\n");
    drop(lines);
    assert_eq!(text(&old), "head\n1\n");
    let lines = Lines::start(Some(&path), Numbers::new(1).0).unwrap();
    lines.sender().send(3);
    drop(lines);
    assert_eq!(text(&path), "head\n3\n", "a file that is gone on with has its head");
}

#[test]
fn a_reader_that_stands_still_blocks_nobody_and_hears_how_much_it_has_missed() {
    let (reader, writer) = io::pipe().unwrap();
    let (form, said) = Numbers::new(100);
    let lines = Lines::to(Output::of(OwnedFd::from(writer)).unwrap(), form).unwrap();
    let (sender, began) = (lines.sender(), Instant::now());
    for number in 0..20_000 {
        sender.send(number);
    }
    assert!(!sender.flush(), "nobody reads");
    assert!(began.elapsed() < Duration::from_secs(5), "and nobody waits for long: {:?}", began.elapsed());
    let read = thread::spawn(move || BufReader::new(reader).lines().map(Result::unwrap).collect::<Vec<_>>());
    until("the loss is said", || said.lock().unwrap().iter().any(|said| said.starts_with("lost")));
    drop((lines, sender));
    let read = read.join().unwrap();
    let (gaps, good): (Vec<&String>, Vec<&String>) = read.iter().skip(1).partition(|line| line.starts_with("lost "));
    let lost: usize = gaps.iter().map(|gap| gap["lost ".len()..].parse::<usize>().unwrap()).sum();
    assert_eq!(good.len() + lost, 20_000, "{gaps:?}");
    assert!(lost > 0 && good.len() >= Numbers::ROOM && good.iter().all(|line| line.len() == 100));
}

#[test]
fn a_reader_that_has_gone_ends_nothing() {
    let (reader, writer) = io::pipe().unwrap();
    drop(reader);
    let (form, said) = Numbers::new(1);
    let lines = Lines::to(Output::of(OwnedFd::from(writer)).unwrap(), form).unwrap();
    for number in 0..100 {
        lines.sender().send(number);
        thread::sleep(Duration::from_millis(1));
    }
    drop(lines);
    assert_eq!(*said.lock().unwrap(), ["write"], "said once");
}

#[test]
fn a_named_pipe_is_opened_before_it_has_a_reader() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("pipe");
    assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
    let lines = Lines::start(Some(&path), Numbers::new(1).0).unwrap();
    lines.sender().send(7);
    let mut text = [0; 7];
    fs::File::open(&path).unwrap().read_exact(&mut text).unwrap();
    assert_eq!(&text, b"head\n7\n");
}

#[test]
fn a_full_disk_is_said_once() {
    let (form, said) = Numbers::new(99);
    let lines = Lines::start(Some(Path::new("/dev/full")), form).unwrap();
    lines.sender().send(1);
    until("that it cannot write", || !said.lock().unwrap().is_empty());
    lines.sender().send(2);
    drop(lines);
    assert_eq!(*said.lock().unwrap(), ["write"]);
}
