//! Faults around a program: its output is not read, the disk is full, file descriptors run out, an inventory is not available yet or hangs, a
//! command hangs. None of these ends or blocks a program.

use std::{
    collections::BTreeMap,
    fs,
    io::{self, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use towline_tests::{
    programs::{On, PATIENCE, Program, Realm, Ways, free_tcp_address, free_udp_port, path_of},
    servers::{connect, echo, serve},
};
use towline_tokio::cli::pki::Authority;

fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "{what}");
        thread::sleep(Duration::from_millis(20));
    }
}

fn end(child: &mut Child) -> ExitStatus {
    let mut status = None;
    until("it ends", || {
        status = child.try_wait().expect("its status");
        status.is_some()
    });
    status.expect("it has ended")
}

fn says(address: SocketAddr, text: &str) -> io::Result<()> {
    let mut tcp = connect(address);
    tcp.write_all(text.as_bytes())?;
    let mut answer = vec![0; text.len()];
    tcp.read_exact(&mut answer)?;
    assert_eq!(answer, text.as_bytes());
    Ok(())
}

fn signal(pid: u32, name: &str) {
    assert!(Command::new("kill").args([&format!("-{name}"), &pid.to_string()]).status().unwrap().success());
}

fn mkfifo(path: &str) {
    assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
}

/// A pipe into which nothing goes any more, and its reader.
fn full_pipe() -> (io::PipeReader, io::PipeWriter) {
    let (reader, mut writer) = io::pipe().unwrap();
    // The default capacity of a pipe.
    writer.write_all(&[b'.'; 65536]).unwrap();
    (reader, writer)
}

#[test]
fn readers_that_have_gone_end_no_program() {
    let mut realm = Realm::start(|inventory| inventory);
    realm.hub.signal("KILL");
    realm.hub.wait();
    let gone = || {
        let (reader, writer) = io::pipe().unwrap();
        drop(reader);
        writer
    };
    let inventory = realm.file("inventory.yaml");
    let start = |program: &str, arguments: &[&str]| {
        Command::new(path_of(program))
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(gone())
            .stderr(gone())
            .spawn()
            .unwrap()
    };
    let mut hub = start("spnhub", &["-c", &inventory]);
    // A service that is not there is a line for each connection.
    let (nowhere, file) = (free_tcp_address().to_string(), realm.file("p.env"));
    let mut provider = start("spnagent", &["provider", "--env-file", &file, "--forward-address", &nowhere]);
    let (_consumer, address) = realm.consumer("c");
    for _ in 0..30 {
        let _ = says(address, "x");
        signal(hub.id(), "USR1");
    }
    signal(provider.id(), "HUP");
    thread::sleep(Duration::from_millis(200));
    assert_eq!(provider.try_wait().unwrap(), None, "it lives");
    signal(provider.id(), "INT");
    assert_eq!(end(&mut provider).code(), Some(0));
    let mut other =
        start("spnagent", &["provider", "--env-file", &file, "--forward-address", &serve(echo).to_string()]);
    until("a connection", || says(address, "hello").is_ok());
    for child in [&mut other, &mut hub] {
        assert_eq!(child.try_wait().unwrap(), None, "it lives");
        signal(child.id(), "INT");
        assert_eq!(end(child).code(), Some(0));
    }
}

#[test]
fn a_reader_that_stands_still_holds_up_no_end() {
    let realm = Realm::start(|inventory| inventory);
    let inventory = realm.file("inventory.yaml");
    for (program, arguments, code) in [
        ("spnhub", &["-c", "/nowhere/at/all"][..], 2),
        ("spnhub", &["--no-such-option"], 2),
        ("spnagent", &["consumer"], 2),
        ("towline", &["proxy"], 2),
        // Its address is taken.
        ("spnhub", &["-c", inventory.as_str()], 2),
    ] {
        let (_reader, writer) = full_pipe();
        let mut child =
            Command::new(path_of(program)).args(arguments).stdout(Stdio::null()).stderr(writer).spawn().unwrap();
        assert_eq!(end(&mut child).code(), Some(code), "{program} {arguments:?}");
    }
}

#[test]
fn lines_wait_for_their_reader_and_nothing_else_does() {
    let mut realm = Realm::start(|inventory| inventory);
    realm.hub.signal("KILL");
    realm.hub.wait();
    let (mut reader, writer) = full_pipe();
    let mut hub = Command::new(path_of("spnhub"))
        .args(["-c", &realm.file("inventory.yaml"), "--control", &realm.file("control")])
        .env("RUST_LOG", "trace")
        .stdout(Stdio::null())
        .stderr(writer)
        .spawn()
        .unwrap();
    let _provider = realm.provider("p", serve(echo));
    let (_consumer, address) = realm.consumer("c");
    let ctl = || {
        let options = ["ctl", "--control", &realm.file("control"), "status"];
        Command::new(path_of("spnhub")).args(options).output().unwrap().status.success()
    };
    for _ in 0..200 {
        says(address, "hello").unwrap();
    }
    assert!(ctl(), "it answers");
    let mut said = vec![0; 65536];
    reader.read_exact(&mut said).unwrap();
    let read = thread::spawn(move || {
        let mut text = String::new();
        reader.read_to_string(&mut text).map(|_| text)
    });
    signal(hub.id(), "INT");
    assert_eq!(end(&mut hub).code(), Some(0));
    let text = read.join().unwrap().unwrap();
    assert!(text.contains("listening on"), "the first lines are there");
    assert!(text.ends_with('\n'), "whole lines");
}

#[test]
fn on_a_full_disk_records_are_whole_and_the_lost_ones_are_counted() {
    let mut realm = Realm::start(|inventory| inventory);
    realm.hub.signal("KILL");
    realm.hub.wait();
    let records = realm.file("records");
    let (inventory, hub) = (realm.file("inventory.yaml"), path_of("spnhub"));
    let options = ["--fsize=3000:unlimited", hub.to_str().unwrap(), "-c", &inventory, "--records", &records];
    realm.hub = Program::spawn(Command::new("prlimit").args(options));
    realm.hub.err_line("listening on");
    let _provider = realm.provider("p", serve(echo));
    let (_consumer, address) = realm.consumer("c");
    let mut connections = 0;
    until("a full disk", || {
        says(address, "hello").unwrap();
        connections += 1;
        realm.hub.err().iter().any(|line| line.contains("cannot write records"))
    });
    for _ in 0..10 {
        says(address, "hello").unwrap();
        connections += 1;
    }
    let lines = || -> Vec<Value> {
        let text = fs::read_to_string(&records).unwrap();
        assert!(text.is_empty() || text.ends_with('\n'), "whole lines: {text:?}");
        text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{line}: {error}"))).collect()
    };
    let before = lines().len();
    assert!(before > 2, "some were written");
    let unlimited = ["--pid", &realm.hub.id().to_string(), "--fsize=unlimited"];
    assert!(Command::new("prlimit").args(unlimited).status().unwrap().success());
    // Said without a further record.
    realm.hub.err_line("records were lost");
    says(address, "hello").unwrap();
    connections += 1;
    realm.hub.signal("INT");
    assert_eq!(realm.hub.wait().code(), Some(0));
    let (lost, kept): (Vec<Value>, Vec<Value>) =
        lines().into_iter().partition(|line| line["eventType"] == "lostRecords");
    let count: u64 = lost.iter().map(|line| line["lostRecordCount"].as_u64().unwrap()).sum();
    assert!(count > 0 && lost.iter().all(|line| line["timestamp"].is_string()), "{lost:?}");
    // Each session and each connection has a start and an end.
    assert_eq!(count + kept.len() as u64, 2 * (connections + 2), "{lost:?}");
}

#[test]
fn records_follow_their_file_and_both_signals_reload_both_programs() {
    let mut realm = Realm::start(|inventory| inventory);
    realm.hub.signal("KILL");
    realm.hub.wait();
    let (records, old, inventory) = (realm.file("records"), realm.file("records.1"), realm.file("inventory.yaml"));
    realm.hub = Program::start("spnhub", &["-c", &inventory, "--records", &records]);
    realm.hub.err_line("listening on");
    let provider = realm.provider("p", serve(echo));
    let count = |path: &str| fs::read_to_string(path).unwrap_or_default().lines().count();
    until("the provider's", || count(&records) == 1);
    fs::rename(&records, &old).unwrap();
    let (consumer, _) = realm.consumer("c");
    until("the consumer's, in a new file", || count(&records) == 1);
    assert_eq!(count(&old), 1);
    fs::rename(&records, &old).unwrap();
    realm.hub.signal("HUP");
    until("a new file at once", || Path::new(&records).exists());
    realm.hub.err_line("SIGHUP: loading the inventory again");
    realm.hub.signal("USR1");
    realm.hub.err_line("SIGUSR1: loading the inventory again");
    for (agent, what) in [(&provider, "certificates and weight"), (&consumer, "certificates")] {
        for (name, word) in [("HUP", "SIGHUP"), ("USR1", "SIGUSR1")] {
            agent.signal(name);
            agent.err_line(&format!("{word}: {what} reloaded"));
        }
    }
}

fn floods(on: On) -> Vec<String> {
    let realm = Realm::start(|inventory| inventory);
    let mut provider = realm.provider_on(on, "p", free_tcp_address(), Ways::default());
    let (_consumer, address) = realm.consumer("c");
    for _ in 0..100 {
        // Reset, each of them.
        let _ = says(address, "x");
    }
    if on == On::Tokio {
        provider.signal("INT");
        provider.wait();
    } else {
        provider.err_line(" more times in ");
    }
    provider.err()
}

#[test]
fn a_line_that_comes_again_and_again_is_counted() {
    for on in [On::Tokio, On::Smol] {
        let lines = floods(on);
        let is_said = |line: &&String| line.contains("cannot reach the service") && !line.contains(" more times in ");
        let said = lines.iter().filter(is_said).count();
        let counted = lines.iter().filter_map(|line| line.split_once(" more times in ")).map(|(before, _)| {
            before.rsplit(' ').next().and_then(|count| count.parse::<usize>().ok()).expect("a count")
        });
        let counted: usize = counted.sum();
        assert!((20..60).contains(&said) && said + counted >= 60, "{on:?}: {said}, {counted}: {lines:#?}");
        assert!(on == On::Smol || said + counted >= 100, "the last ones are counted at the end: {said}, {counted}");
    }
}

#[test]
fn without_files_accepting_waits_and_goes_on() {
    let realm = Realm::start(|inventory| inventory);
    let _provider = realm.provider("p", serve(echo));
    let (agent, file) = (path_of("spnagent"), realm.file("c.env"));
    let options = ["--nofile=64:64", agent.to_str().unwrap(), "consumer", "--env-file", &file];
    let consumer = Program::spawn(Command::new("prlimit").args(options).args(["--bind-address", "127.0.0.1:0"]));
    let line = consumer.err_line("listening on ");
    let address: SocketAddr = line.rsplit("listening on ").next().unwrap().split(' ').next().unwrap().parse().unwrap();
    consumer.err_line("session established");
    let mut first = connect(address);
    first.write_all(b"a").unwrap();
    first.read_exact(&mut [0]).unwrap();
    let crowd: Vec<TcpStream> = (0..100).map(|_| connect(address)).collect();
    consumer.err_line("cannot accept a TCP connection");
    thread::sleep(Duration::from_millis(500));
    first.write_all(b"b").unwrap();
    first.read_exact(&mut [0]).expect("who is there is served");
    let said = consumer.err().iter().filter(|line| line.contains("cannot accept")).count();
    assert_eq!(said, 1, "{:#?}", consumer.err());
    drop(crowd);
    until("accepting goes on", || says(address, "hello").is_ok());
    consumer.err_line("TCP connections are accepted again");
}

#[test]
fn the_soft_limit_of_files_is_raised() {
    let realm = Realm::start(|inventory| inventory);
    let (agent, file) = (path_of("spnagent"), realm.file("c.env"));
    let options = ["--nofile=64:4096", agent.to_str().unwrap(), "consumer", "--env-file", &file];
    let consumer = Program::spawn(Command::new("prlimit").args(options).args(["--bind-address", "127.0.0.1:0"]));
    consumer.err_line("listening on ");
    let limits = fs::read_to_string(format!("/proc/{}/limits", consumer.id())).unwrap();
    let files = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    assert_eq!(files.split_whitespace().nth(3), Some("4096"), "{files}");
}

/// An HTTP inventory of one realm with one hub and no service.
fn pages(port: u16) -> BTreeMap<&'static str, String> {
    let authority = Authority::new("r").unwrap();
    let hub = authority.hub(&["localhost".to_owned()]).unwrap();
    let realm = json!([{"name": "a", "cacert": authority.certificate}]);
    let hub = json!([{"name": "h", "serverAddress": "127.0.0.1", "serverPort": port, "serverCert": hub.certificate,
        "serverCertKey": hub.key}]);
    [("/realms", realm), ("/realms/a/hubs", hub), ("/realms/a/hubs/h/services", json!([]))]
        .into_iter()
        .map(|(path, value)| (path, value.to_string()))
        .collect()
}

fn serve_pages(listener: TcpListener, pages: BTreeMap<&'static str, String>) {
    thread::spawn(move || {
        for mut tcp in listener.incoming().map_while(Result::ok) {
            let mut head = vec![0; 4096];
            let length = tcp.read(&mut head).unwrap_or_default();
            let head = String::from_utf8_lossy(&head[..length]).into_owned();
            let body = pages.get(head.split(' ').nth(1).unwrap_or_default()).cloned().unwrap_or_default();
            let _ = write!(tcp, "HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}", body.len());
        }
    });
}

#[test]
fn an_inventory_that_is_not_there_yet_is_waited_for() {
    let address = free_tcp_address();
    let url = format!("http://{address}");
    let mut leaves = Program::start("spnhub", &["-c", &url]);
    leaves.err_line("no inventory yet");
    leaves.signal("TERM");
    assert_eq!(leaves.wait().code(), Some(0));
    let mut hub = Program::start("spnhub", &["-c", &url]);
    hub.err_line("no inventory yet");
    serve_pages(TcpListener::bind(address).unwrap(), pages(free_udp_port()));
    hub.err_line("listening on");
    hub.signal("INT");
    assert_eq!(hub.wait().code(), Some(0));
}

#[test]
fn an_inventory_that_hangs_blocks_nothing_and_gives_way_to_a_newer_one() {
    let mut realm = Realm::start(|inventory| inventory);
    realm.hub.signal("KILL");
    realm.hub.wait();
    let (inventory, control) = (realm.file("inventory.yaml"), realm.file("control"));
    realm.hub = Program::start("spnhub", &["-c", &inventory, "--control", &control]);
    realm.hub.err_line("listening on");
    let text = fs::read_to_string(&inventory).unwrap();
    let hang = || {
        fs::remove_file(&inventory).unwrap();
        mkfifo(&inventory);
        realm.hub.signal("USR1");
    };
    hang();
    realm.hub.err_line("SIGUSR1: loading the inventory again");
    let status = Command::new(path_of("spnhub")).args(["ctl", "--control", &control, "status"]).output().unwrap();
    assert!(status.status.success(), "{status:?}");
    fs::remove_file(&inventory).unwrap();
    fs::write(&inventory, text).unwrap();
    realm.hub.signal("USR1");
    realm.hub.err_line("the pending reload is replaced by a newer one");
    realm.hub.err_line("unchanged");
    hang();
    until("the third", || realm.hub.err().iter().filter(|line| line.contains("SIGUSR1: loading")).count() == 3);
    realm.hub.signal("TERM");
    assert_eq!(realm.hub.wait().code(), Some(0));
}

#[test]
fn a_taken_port_is_the_only_fault_that_is_told() {
    let realm = Realm::start(|inventory| inventory);
    let mut second = Program::start("spnhub", &["-c", &realm.file("inventory.yaml")]);
    assert_eq!(second.wait().code(), Some(2));
    let lines = second.err().join("\n");
    assert!(lines.contains("is another hub running there?") && !lines.contains("no hub to run"), "{lines}");
}

/// A realm whose provider is started by a script, before its hub listens.
fn with_command(script: &str) -> Realm {
    let mut realm = Realm::start(|inventory| {
        let manages = "availabilityManagement: {clusterManagerUrn: \"exec:run\", serviceId: s-1}";
        let at = inventory.find("singleton: ").expect("a service");
        let indent = at - inventory[..at].rfind('\n').expect("a line") - 1;
        format!("{}{manages}\n{:indent$}{}", &inventory[..at], "", &inventory[at..])
    });
    realm.hub.signal("KILL");
    realm.hub.wait();
    fs::create_dir(realm.file("commands")).unwrap();
    fs::write(realm.file("commands/run"), format!("#!/bin/sh\ncd \"$(dirname \"$0\")/..\"\n{script}\n")).unwrap();
    fs::set_permissions(realm.file("commands/run"), fs::Permissions::from_mode(0o755)).unwrap();
    realm
}

#[test]
fn a_command_that_hangs_does_not_outlive_the_hub() {
    let mut realm = with_command("sleep 1000 & echo $! > pid; wait");
    let (inventory, commands) = (realm.file("inventory.yaml"), realm.file("commands"));
    realm.hub = Program::start("spnhub", &["-c", &inventory, "--cluster-commands", &commands]);
    let pid = || fs::read_to_string(realm.file("pid")).ok()?.trim().parse::<u32>().ok();
    until("it is started", || pid().is_some());
    let pid = pid().unwrap();
    let lives = || fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "));
    assert!(lives());
    realm.hub.signal("INT");
    assert_eq!(realm.hub.wait().code(), Some(0));
    until("its end", || !lives());
}

#[test]
fn as_the_first_process_a_hub_waits_for_what_commands_leave_behind() {
    const CONTAINER: [&str; 4] = ["--pid", "--fork", "--kill-child", "--mount-proc"];
    if !Command::new("unshare").args(CONTAINER).arg("true").status().is_ok_and(|status| status.success()) {
        eprintln!("SKIPPED: no right to make a PID namespace (util-linux `unshare`, as root)");
        return;
    }
    let mut realm = with_command("(sleep 0.2; echo > left) & (setsid sleep 0.3 &)");
    let (inventory, commands) = (realm.file("inventory.yaml"), realm.file("commands"));
    let mut command = Command::new("unshare");
    command.args(CONTAINER).arg(path_of("spnhub")).args(["-c", &inventory, "--cluster-commands", &commands]);
    realm.hub = Program::spawn(&mut command);
    realm.hub.err_line("listening on");
    until("what was left behind", || Path::new(&realm.file("left")).exists());
    let stats = || {
        let all = fs::read_dir("/proc").unwrap().flatten();
        all.filter_map(|entry| fs::read_to_string(entry.path().join("stat")).ok()).collect::<Vec<_>>()
    };
    let parent = |stat: &str| stat.rsplit_once(") ").and_then(|(_, rest)| rest.split(' ').nth(1)?.parse::<u32>().ok());
    let hub = stats().iter().find(|stat| parent(stat) == Some(realm.hub.id())).expect("the hub").clone();
    let hub: u32 = hub.split(' ').next().unwrap().parse().unwrap();
    // Its two children are orphans that have ended by then, or end.
    until("no child is left, dead or alive", || !stats().iter().any(|stat| parent(stat) == Some(hub)));
    signal(hub, "INT");
    assert_eq!(realm.hub.wait().code(), Some(0));
}
