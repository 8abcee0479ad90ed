//! What the programs promise on the command line: sources, exit codes, signals, stdout and stderr.

use std::{
    fs,
    io::{self, BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream, UdpSocket},
    process::{Command, Output, Stdio},
    sync::{Arc, Mutex, mpsc},
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use towline_tests::{
    programs::{Program, Realm, free_tcp_address, free_udp_port, path_of},
    servers::{connect, echo, serve},
};
use towline_tokio::cli::pki::Authority;

fn run(program: &str, arguments: &[&str]) -> Output {
    Command::new(path_of(program)).args(arguments).env_remove("RUST_LOG").output().expect("it runs")
}

fn out(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn err(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// An HTTP inventory. `answer` gives status and body for a path.
fn http(answer: impl Fn(&str) -> (u16, String) + Send + Sync + Clone + 'static) -> String {
    let address = serve(move |tcp: TcpStream| {
        let mut request = String::new();
        let mut reader = BufReader::new(&tcp);
        reader.read_line(&mut request)?;
        let mut header = String::new();
        while reader.read_line(&mut header)? > 2 {
            header.clear();
        }
        let (status, body) = answer(request.split(' ').nth(1).unwrap_or_default());
        let length = body.len();
        (&tcp).write_all(
            format!("HTTP/1.1 {status} -\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}").as_bytes(),
        )
    });
    format!("http://{address}/v1")
}

#[test]
fn versions_and_usage() {
    for program in ["spnhub", "spnagent", "towline"] {
        let output = run(program, &["--version"]);
        assert_eq!((output.status.code(), out(&output)), (Some(0), format!("{program} 0.1.0\n")));
        let output = run(program, &["--nonsense"]);
        assert_eq!((output.status.code(), out(&output)), (Some(2), String::new()), "{}", err(&output));
    }
    for (arguments, says) in [
        (&["provider"][..], "SPN_HUB_HOSTNAME"),
        (&["provider", "--spn-hub-hostname", "h"], "--spn-agent-trust-cert-ca"),
        (&["consumer", "--spn-hub-hostname", "a b"], "--spn-hub-hostname or SPN_HUB_HOSTNAME is `a b`: expected"),
        (&["consumer", "--spn-hub-hostname", "h", "--spn-hub-port", "0"], "SPN_HUB_PORT is `0`: expected a UDP port"),
        (&["consumer", "--spn-hub-url", "https://:4433"], "SPN_HUB_URL is `https://:4433`: expected https://HOST:PORT"),
        (&["consumer", "--env-file", "/nowhere"], "cannot read /nowhere"),
    ] {
        let output = run("spnagent", arguments);
        assert_eq!((output.status.code(), out(&output)), (Some(2), String::new()));
        assert!(err(&output).contains(says), "{arguments:?}: {}", err(&output));
    }
    let output = run("spnhub", &["demo", "--to", "nowhere"]);
    assert_eq!(output.status.code(), Some(2), "{}", err(&output));
}

#[test]
fn every_spelling_of_the_inventorys_source() {
    let realm = Realm::start(|inventory| inventory);
    let file = realm.file("inventory.yaml");
    let url = format!("file://{file}");
    for arguments in [["-c", &file], ["--config", &url], ["--inventory-url", &file]] {
        let output = run("spnhub", &[&["check"], &arguments[..]].concat());
        assert_eq!((output.status.code(), out(&output)), (Some(0), String::new()), "{}", err(&output));
    }
    let by_variable =
        |text: &str| Command::new(path_of("spnhub")).arg("check").env("SPNHUB_INVENTORY_URL", text).output().unwrap();
    assert_eq!(by_variable(&file).status.code(), Some(0));
    assert_eq!(by_variable("/nowhere").status.code(), Some(2));
}

#[test]
fn an_http_inventory_with_holes() {
    let realm = Realm::start(|inventory| inventory);
    let pem = |name: &str| fs::read_to_string(realm.file(name)).unwrap().replace('\n', "\\n");
    let (ca, consumer) = (pem("ca.pem"), pem("c.pem"));
    let base = http(move |path| {
        match path {
        "/v1/realms" => (200, format!(r#"[{{"name": "a", "cacert": "{ca}"}}, {{"name": "b", "cacert": ""}}, {{"name": "off", "cacert": "", "disabled": true}}]"#)),
        "/v1/realms/a/hubs" => (200, format!(r#"[{{"name": "h0"}}, {{"name": "h1", "serverPort": 1, "serverCert": "{consumer}", "serverCertKey": "x"}}]"#)),
        "/v1/realms/a/hubs/h0/services" => (404, r#"{"message": "no such hub"}"#.to_owned()),
        "/v1/realms/a/hubs/h1/services" => (200, r#"[{"name": "s", "availabilityManagement": {"clusterManagerUrn": "docker:", "serviceId": "x", "mountPoints": [{"volume_size": 5, "target": "/"}]}}]"#.to_owned()),
        _ => (500, r#"{"message": "broken"}"#.to_owned()),
    }
    });
    let output = run("spnhub", &["check", "-c", &base]);
    assert_eq!(output.status.code(), Some(1), "{}", err(&output));
    let told = out(&output);
    for said in [
        "realms[0].hubs[0].services: GET http://",
        "404 Not Found no such hub",
        "realms[0].hubs[1].serverCertKey: no private key",
        "realms[0].hubs[1].services[0].provider: missing",
        "realms[0].hubs[1].services[0].consumers: missing",
        "realms[1].cacert: no certificate",
        "realms[1].hubs: GET http://",
    ] {
        assert!(told.contains(said), "{said} in {told}");
    }
    assert!(!told.contains("/off/hubs"), "a realm that is off is not asked for: {told}");
    let output = run("spnhub", &["check", "-c", &http(|_| (500, String::new()))]);
    assert_eq!(output.status.code(), Some(2), "no list of realms, no inventory");
}

#[test]
fn machines_can_read_every_line_of_stderr() {
    let mut realm = Realm::start(|inventory| inventory);
    let file = realm.file("inventory.yaml");
    // The address is taken: that is I/O, and nothing of the inventory.
    let output = run("spnhub", &["-c", &file, "--log-format", "json"]);
    assert_eq!(output.status.code(), Some(2), "{}", err(&output));
    assert!(err(&output).contains("is another hub running there?"), "{}", err(&output));
    let mut lines = err(&output);
    let output = run("spnhub", &["-c", "/nowhere", "--log-format", "json"]);
    lines.push_str(&err(&output));
    let output = run("spnagent", &["consumer", "--log-format", "json"]);
    lines.push_str(&err(&output));
    realm.hub.signal("INT");
    realm.hub.wait();
    let mut hub = Program::start("spnhub", &["-c", &file, "--log-format", "json"]);
    hub.err_line("listening on");
    hub.signal("USR1");
    hub.err_line("unchanged");
    hub.signal("TERM");
    assert_eq!(hub.wait().code(), Some(0));
    lines.push_str(&hub.err().join("\n"));
    assert!(lines.lines().count() >= 8, "{lines}");
    for line in lines.lines() {
        let value: serde_json::Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        assert!(value["message"].is_string() && value["level"].is_string(), "{line}");
    }
}

#[test]
fn records_go_to_a_file_and_stdout_stays_empty() {
    let mut realm = Realm::start(|inventory| inventory);
    realm.hub.signal("INT");
    realm.hub.wait();
    let (file, records) = (realm.file("inventory.yaml"), realm.file("records"));
    fs::write(&records, "before\n").unwrap();
    let mut hub = Program::start("spnhub", &["-c", &file, "--records", &records]);
    hub.err_line("listening on");
    let mut agent = realm.provider("p", free_tcp_address());
    agent.signal("TERM");
    assert_eq!(agent.wait().code(), Some(0));
    hub.signal("INT");
    assert_eq!(hub.wait().code(), Some(0));
    assert_eq!(hub.out(), Vec::<String>::new());
    let written = fs::read_to_string(&records).unwrap();
    assert!(written.starts_with("before\n{"), "appended: {written}");
    assert_eq!(written.matches("endSpnSession").count(), 1);
    let output = run("spnhub", &["-c", &file, "--records", "/nowhere/records"]);
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn a_hub_without_hubs_waits_for_the_next_reload() {
    let mut realm = Realm::start(|inventory| inventory);
    let file = realm.file("inventory.yaml");
    let good = fs::read_to_string(&file).unwrap();
    let reload = |realm: &Realm, text: &str, says: &str| {
        fs::write(&file, text).unwrap();
        realm.hub.signal("USR1");
        realm.hub.err_line(says);
    };
    let disabled = good.replace("name: r\n", "name: r\n  disabled: true\n");
    assert_ne!(disabled, good);
    reload(&realm, &disabled, "the inventory has no hub to run");
    // It has gone: its address is free.
    let began = Instant::now();
    while UdpSocket::bind(("127.0.0.1", realm.port)).is_err() {
        assert!(began.elapsed() < Duration::from_secs(10));
        thread::sleep(Duration::from_millis(20));
    }
    fs::write(&file, &good).unwrap();
    realm.hub.signal("USR1");
    let _provider = realm.provider("p", free_tcp_address());
    // An inventory without any realm is a failed load, not the end of everything.
    reload(&realm, "realms: []\n", "no realm of the inventory is usable; the hubs keep their configuration");
    reload(&realm, &disabled, "the inventory has no hub to run");
    realm.hub.signal("TERM");
    assert_eq!(realm.hub.wait().code(), Some(0));
}

/// The inventory of a realm, and a copy of it as a realm `r2` whose hub listens elsewhere.
fn twice(inventory: &str, port: u16, other: u16) -> String {
    let copy = inventory.replace("realms:\n", "").replace("name: r\n", "name: r2\n");
    inventory.to_owned() + &copy.replace(&format!("serverPort: {port}"), &format!("serverPort: {other}"))
}

#[test]
fn a_hub_that_cannot_be_bound_harms_no_other() {
    let realm = Realm::start(|inventory| inventory);
    let _provider = realm.provider("p", serve(echo));
    let (_consumer, address) = realm.consumer("c");
    let file = realm.file("inventory.yaml");
    let good = fs::read_to_string(&file).unwrap();
    let taken = UdpSocket::bind("127.0.0.1:0").unwrap();
    fs::write(&file, twice(&good, realm.port, taken.local_addr().unwrap().port())).unwrap();
    realm.hub.signal("USR1");
    let line = realm.hub.err_line("cannot start");
    assert!(line.contains("r2") && line.contains("is another hub running there?"), "{line}");
    let mut tcp = connect(address);
    tcp.write_all(b"x").unwrap();
    tcp.read_exact(&mut [0]).unwrap();
    // With the address free, the next reload starts it.
    drop(taken);
    realm.hub.signal("USR1");
    realm.hub.err_line("realm=\"r2\" hub=\"hub\"");
    tcp.write_all(b"y").unwrap();
    tcp.read_exact(&mut [0]).unwrap();
}

#[test]
fn a_realm_that_is_enabled_again_waits_for_its_address() {
    let realm = Realm::start(|inventory| inventory);
    let _provider = realm.provider("p", serve(echo));
    let (_consumer, address) = realm.consumer("c");
    let mut held = connect(address);
    held.write_all(b"x").unwrap();
    held.read_exact(&mut [0]).unwrap();
    let file = realm.file("inventory.yaml");
    let good = fs::read_to_string(&file).unwrap();
    fs::write(&file, good.replace("name: r\n", "name: r\n  disabled: true\n")).unwrap();
    realm.hub.signal("USR1");
    realm.hub.err_line("the realm is disabled; the hub drains");
    fs::write(&file, &good).unwrap();
    realm.hub.signal("USR1");
    realm.hub.err_line("the next attempt follows when a draining hub has ended");
    held.write_all(b"y").unwrap();
    held.read_exact(&mut [0]).unwrap();
    let lines = |realm: &Realm, part: &str| realm.hub.err().iter().filter(|line| line.contains(part)).count();
    thread::sleep(Duration::from_millis(300));
    assert_eq!((lines(&realm, "listening on"), lines(&realm, "cannot start")), (1, 1));
    drop(held);
    let began = Instant::now();
    while lines(&realm, "listening on") < 2 {
        assert!(began.elapsed() < Duration::from_secs(10), "{:#?}", realm.hub.err());
        thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_reload_that_is_asked_for_during_a_reload_is_not_lost() {
    let authority = Authority::new("r").unwrap();
    let hub = authority.hub(&["127.0.0.1".to_owned()]).unwrap();
    let realms = serde_json::json!([{"name": "r", "cacert": authority.certificate}]).to_string();
    let hubs = serde_json::json!([{"name": "h", "serverAddress": "127.0.0.1", "serverPort": free_udp_port(),
        "serverCert": hub.certificate, "serverCertKey": hub.key}])
    .to_string();
    let services = Arc::new(Mutex::new("[]".to_owned()));
    let (requests, asked) = mpsc::channel();
    let now = services.clone();
    let base = http(move |path| {
        let services = now.lock().unwrap().clone();
        match path {
            "/v1/realms" => (200, realms.clone()),
            "/v1/realms/r/hubs" => (200, hubs.clone()),
            _ => {
                // What is answered is as of the question.
                let _ = requests.send(());
                thread::sleep(Duration::from_millis(700));
                (200, services)
            }
        }
    });
    let hub = Program::start("spnhub", &["-c", &base]);
    hub.err_line("listening on");
    asked.recv().unwrap();
    hub.signal("USR1");
    asked.recv_timeout(Duration::from_secs(10)).unwrap();
    *services.lock().unwrap() = r#"[{"name": "new", "provider": "p", "consumers": ["c"]}]"#.to_owned();
    hub.signal("USR1");
    hub.err_line("service urn:chip-in:service:r:h:new added");
}

#[test]
fn the_demo_listens_where_it_is_told_and_goes_where_it_is_told() {
    let (listen, server) = (free_tcp_address(), serve(echo));
    let mut demo = Program::start("spnhub", &["demo", "--listen", &listen.to_string(), "--to", &server.to_string()]);
    demo.err_line(&format!("listening on {listen}"));
    let mut tcp = connect(listen);
    tcp.write_all(b"ping").unwrap();
    tcp.read_exact(&mut [0; 4]).unwrap();
    let began = Instant::now();
    demo.out_line("startSpnConnection");
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    // The end comes with a connection open, and all records do.
    let began = Instant::now();
    demo.signal("TERM");
    assert_eq!(demo.wait().code(), Some(0));
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    assert!(
        !demo.err().iter().any(|line| line.contains("no session")),
        "a wanted end is no warning: {:#?}",
        demo.err()
    );
    for event in ["endSpnConnection", "endSpnSession"] {
        assert!(demo.out().iter().any(|line| line.contains(event)), "{event} in {:#?}", demo.out());
    }
    for line in demo.out() {
        assert!(serde_json::from_str::<serde_json::Value>(&line).is_ok_and(|value| value.is_object()), "{line}");
    }
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let output = run("spnhub", &["demo", "--listen", &taken.local_addr().unwrap().to_string()]);
    assert_eq!(output.status.code(), Some(2), "{}", err(&output));
}

/// In the background of a script without job control SIGINT is ignored, and what is started there inherits that.
#[test]
fn the_demo_ends_by_sigint_in_the_background_of_a_script() {
    let script = r#"
        "$0" demo >"$1" 2>"$2" &
        demo=$!
        for i in $(seq 200); do grep -q listening "$2" && break; sleep 0.05; done
        kill -INT $demo
        wait $demo
        echo "exit $?"
    "#;
    let directory = tempfile::tempdir().unwrap();
    let (records, told) = (directory.path().join("out"), directory.path().join("err"));
    let began = Instant::now();
    let output =
        Command::new("sh").args(["-c", script]).arg(path_of("spnhub")).args([&records, &told]).output().unwrap();
    assert_eq!(out(&output), "exit 0\n", "{}", fs::read_to_string(told).unwrap_or_default());
    assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
    assert_eq!(fs::read_to_string(records).unwrap().matches("endSpnSession").count(), 2);
}

#[test]
fn the_demo_ends_though_nobody_reads_its_records() {
    let mut child = Command::new(path_of("spnhub"))
        .args(["demo", "--to", &serve(echo).to_string()])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut told = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    told.read_line(&mut line).unwrap();
    let address = line.trim().strip_prefix("listening on ").unwrap().parse().unwrap();
    thread::spawn(move || io::copy(&mut told, &mut io::sink()));
    // More records than a pipe holds.
    for _ in 0..300 {
        let mut tcp = connect(address);
        tcp.write_all(b"x").unwrap();
        tcp.read_exact(&mut [0]).unwrap();
    }
    let began = Instant::now();
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if began.elapsed() > Duration::from_secs(5) {
            child.kill().unwrap();
            panic!("it does not end");
        }
        thread::sleep(Duration::from_millis(20));
    };
    assert_eq!(status.code(), Some(0));
}

#[test]
fn an_agent_takes_both_families_of_settings() {
    let realm = Realm::start(|inventory| inventory);
    let pem = |name: &str| fs::read_to_string(realm.file(name)).unwrap();
    let agent = |change: &dyn Fn(&mut Command)| {
        let mut command = Command::new(path_of("spnagent"));
        command.args(["provider", "--forward-address", "127.0.0.1:1"]);
        change(&mut command);
        Program::spawn(&mut command)
    };
    // The older names: a URL, and PEM text.
    let url = format!("spn://127.0.0.1:{}/ignored", realm.port);
    let older = agent(&|command| {
        command.env("SPN_HUB_URL", &url).env("SPN_CERTIFICATE", pem("p.pem")).env("SPN_CERTIFICATE_KEY", pem("p.key"));
        command.env("SPN_AGENT_TRUST_CERTIFICATE_ROOT", realm.file("ca.pem"));
        command.env("SPN_SERVICE_URN", "urn:chip-in:service:r:hub:s");
    });
    older.err_line("session established");
    // The newer ones.
    let newer = agent(&|command| {
        command.env("SPN_HUB_HOSTNAME", "127.0.0.1").env("SPN_HUB_PORT", realm.port.to_string());
        command.env("SPN_AGENT_TRUST_CERTIFICATE_ROOT", realm.file("ca.pem"));
        command.env("SPN_AGENT_CLIENT_CERTIFICATE", realm.file("p.pem"));
        command.env("SPN_AGENT_CLIENT_CERTIFICATE_KEY", realm.file("p.key"));
    });
    newer.err_line("session established");
    // What is stronger counts, under whichever name: options before the environment before the file.
    let file = realm.file("p.env");
    let mixed = agent(&|command| {
        command.args(["--env-file", &file, "--spn-hub-url", &url]);
        command.env("SPN_HUB_HOSTNAME", "nowhere.invalid").env("SPN_CERTIFICATE", pem("p.pem"));
        command.env("SPN_CERTIFICATE_KEY", pem("p.key"));
    });
    mixed.err_line("session established");
    let overridden = agent(&|command| {
        command
            .args(["--env-file", &file])
            .env("SPN_CERTIFICATE", pem("c.pem"))
            .env("SPN_CERTIFICATE_KEY", pem("c.key"));
    });
    overridden.err_line("code 0x15");
}
