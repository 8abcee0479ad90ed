//! Connections that outlive the hub that carries them: the real programs, killed and restarted.

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{IpAddr, Shutdown, SocketAddr, TcpStream},
    os::unix::fs::PermissionsExt,
    process::{Command, Stdio},
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::Duration,
};

use towline_tests::{
    needs,
    programs::{
        On::{self, Smol, Tokio},
        Program, Realm, Ways, free_tcp_address,
    },
    random::Random,
    servers::{NameServer, Nat, connect, echo, serve},
};

/// Both directions of one connection, until `enough`: random pieces, each of which must come back as it was. Returns how many bytes it moved.
fn ping_pong(mut tcp: TcpStream, seed: u64, enough: &AtomicBool, moved: &AtomicU64) -> Result<(), String> {
    let mut random = Random::new(seed);
    while !enough.load(Ordering::Relaxed) {
        let piece: Vec<u8> = (0..1 + random.below(20_000)).map(|_| random.number() as u8).collect();
        tcp.write_all(&piece).map_err(|error| format!("{seed}: write: {error}"))?;
        let mut got = vec![0; piece.len()];
        tcp.read_exact(&mut got).map_err(|error| format!("{seed}: read: {error}"))?;
        if got != piece {
            return Err(format!("{seed}: other bytes have come back"));
        }
        moved.fetch_add(piece.len() as u64, Ordering::Relaxed);
        thread::sleep(Duration::from_millis(random.below(30)));
    }
    tcp.shutdown(Shutdown::Write).map_err(|error| format!("{seed}: end: {error}"))?;
    match tcp.read_to_end(&mut Vec::new()) {
        Ok(0) => Ok(()),
        Ok(more) => Err(format!("{seed}: {more} bytes too many")),
        Err(error) => Err(format!("{seed}: last read: {error}")),
    }
}

/// Runs so many connections while `trouble` happens; none may notice.
fn undisturbed(address: SocketAddr, connections: u64, trouble: impl FnOnce(&AtomicU64)) {
    let (enough, moved) = (AtomicBool::new(false), AtomicU64::new(0));
    let faults: Vec<String> = thread::scope(|scope| {
        let runs: Vec<_> = (0..connections)
            .map(|seed| {
                let (tcp, enough, moved) = (connect(address), &enough, &moved);
                scope.spawn(move || ping_pong(tcp, seed, enough, moved))
            })
            .collect();
        trouble(&moved);
        enough.store(true, Ordering::Relaxed);
        runs.into_iter().filter_map(|run| run.join().expect("no panic").err()).collect()
    });
    assert!(faults.is_empty(), "{} of {connections}: {faults:#?}", faults.len());
}

/// Waits until so many more bytes have moved.
fn wait_for(moved: &AtomicU64, bytes: u64) {
    let from = moved.load(Ordering::Relaxed);
    for _ in 0..3000 {
        if moved.load(Ordering::Relaxed) >= from + bytes {
            return;
        }
        thread::sleep(Duration::from_millis(10));
    }
    panic!("nothing moves any more");
}

fn ten_hubs_die([hub, provider, consumer]: [On; 3]) {
    let mut realm = Realm::start_on(hub, "127.0.0.1", |inventory| inventory);
    let _provider = realm.provider_on(provider, "p", serve(echo), Ways::default());
    let (_consumer, address) = realm.consumer_on(consumer, "c", Ways::default());
    undisturbed(address, 200, |moved| {
        for _ in 0..10 {
            wait_for(moved, 5_000_000);
            realm.restart_hub();
        }
        wait_for(moved, 5_000_000);
    });
}

#[test]
fn two_hundred_connections_outlive_ten_hubs() {
    ten_hubs_die([Tokio, Tokio, Tokio]);
}

#[test]
fn two_hundred_connections_outlive_ten_hubs_on_smol() {
    ten_hubs_die([Smol, Smol, Smol]);
}

#[test]
fn two_hundred_connections_between_runtimes_outlive_ten_hubs() {
    ten_hubs_die([Smol, Tokio, Smol]);
    ten_hubs_die([Tokio, Smol, Tokio]);
}

#[test]
fn agents_that_end_do_so_with_their_connections_not_with_their_hub() {
    let mut realm = Realm::start(|inventory| inventory);
    let mut provider = realm.provider("p", serve(echo));
    let (mut consumer, address) = realm.consumer("c");
    undisturbed(address, 50, |moved| {
        wait_for(moved, 500_000);
        for agent in [&provider, &consumer] {
            agent.signal("TERM");
            agent.err_line("SIGTERM");
        }
        for _ in 0..2 {
            realm.restart_hub();
            wait_for(moved, 500_000);
        }
    });
    for agent in [&mut provider, &mut consumer] {
        assert_eq!(agent.wait().code(), Some(0));
    }
}

#[test]
fn half_closed_connections_outlive_a_hub() {
    let mut realm = Realm::start(|inventory| inventory);
    let provider = realm.provider(
        "p",
        serve(|mut tcp| {
            let mut question = Vec::new();
            tcp.read_to_end(&mut question)?;
            // The answer begins when the question has ended, and takes its time.
            for byte in question {
                tcp.write_all(&[byte])?;
                thread::sleep(Duration::from_millis(10));
            }
            tcp.shutdown(Shutdown::Write)
        }),
    );
    let (_consumer, address) = realm.consumer("c");
    let mut tcp = connect(address);
    let question: Vec<u8> = (0..=255).collect();
    tcp.write_all(&question).unwrap();
    tcp.shutdown(Shutdown::Write).unwrap();
    let mut answer = [0];
    tcp.read_exact(&mut answer).unwrap();
    realm.restart_hub();
    let mut rest = Vec::new();
    tcp.read_to_end(&mut rest).unwrap();
    assert_eq!([&answer[..], &rest].concat(), question);
    drop(provider);
}

/// Two hubs of one name, at 127.0.0.1 and 127.0.0.2.
struct Hubs {
    realm: Realm,
    second: Program,
    names: NameServer,
}

const FIRST: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(127, 0, 0, 1));
const SECOND: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(127, 0, 0, 2));

impl Hubs {
    fn start(on: On) -> Self {
        let at = |inventory: String, address: &str| {
            assert!(inventory.contains("serverAddress: \"0.0.0.0\""), "{inventory}");
            inventory.replace("\"0.0.0.0\"", address)
        };
        let realm = Realm::start_on(on, "hub.test", |inventory| at(inventory, "127.0.0.1"));
        let first = fs::read_to_string(realm.file("inventory.yaml")).unwrap();
        fs::write(realm.file("second.yaml"), first.replace("127.0.0.1", "127.0.0.2")).unwrap();
        let second = realm.hub("second.yaml");
        let names = NameServer::start("hub.test", &[FIRST, SECOND]);
        Self { realm, second, names }
    }

    fn agents(&self, provider: On, consumer: On) -> (Program, Program, SocketAddr) {
        let resolver = self.names.address.to_string();
        let ways = Ways { resolver: Some(&resolver), ..Ways::default() };
        let provider = self.realm.provider_on(provider, "p", serve(echo), ways);
        let (consumer, address) = self.realm.consumer_on(consumer, "c", ways);
        for agent in [&provider, &consumer] {
            agent.err_line("session established remote=127.0.0.1");
            agent.err_line("session established remote=127.0.0.2");
        }
        (provider, consumer, address)
    }
}

/// SIGTERM ends it at once and in order: nothing in its records is an error.
fn roll(hub: &mut Program) {
    hub.signal("TERM");
    assert_eq!(hub.wait().code(), Some(0));
    let errors: Vec<_> = hub.out().into_iter().filter(|line| line.contains("error")).collect();
    assert!(errors.is_empty(), "{errors:#?}");
}

fn two_hubs_are_rolled([hub, provider, consumer]: [On; 3]) {
    let mut hubs = Hubs::start(hub);
    let (_provider, _consumer, address) = hubs.agents(provider, consumer);
    undisturbed(address, 200, |moved| {
        for _ in 0..3 {
            wait_for(moved, 5_000_000);
            roll(&mut hubs.realm.hub);
            hubs.realm.hub = hubs.realm.hub("inventory.yaml");
            for role in ["serviceProvider", "serviceConsumer"] {
                hubs.realm.hub.out_line(role);
            }
            wait_for(moved, 5_000_000);
            roll(&mut hubs.second);
            hubs.second = hubs.realm.hub("second.yaml");
            for role in ["serviceProvider", "serviceConsumer"] {
                hubs.second.out_line(role);
            }
        }
        wait_for(moved, 5_000_000);
    });
}

#[test]
fn hubs_are_rolled_in_turn_and_nothing_breaks() {
    two_hubs_are_rolled([Tokio, Tokio, Tokio]);
}

#[test]
fn hubs_on_smol_are_rolled_in_turn_and_nothing_breaks() {
    two_hubs_are_rolled([Smol, Smol, Smol]);
}

#[test]
fn connections_leave_an_address_that_dns_lists_no_more() {
    let mut hubs = Hubs::start(Tokio);
    let (provider, consumer, address) = hubs.agents(Tokio, Tokio);
    undisturbed(address, 40, |moved| {
        wait_for(moved, 2_000_000);
        hubs.names.list(&[SECOND]);
        // The loss of a hub is a reason to look; so is time.
        hubs.realm.hub.signal("KILL");
        for agent in [&provider, &consumer] {
            agent.err_line("session ended");
        }
        wait_for(moved, 2_000_000);
    });
    hubs.second.signal("TERM");
    hubs.second.wait();
}

fn the_consumers_address_changes([hub, provider, consumer]: [On; 3]) {
    let realm = Realm::start_on(hub, "127.0.0.1", |inventory| inventory);
    let nat = Nat::start(SocketAddr::new(FIRST, realm.port));
    let port = nat.address.port().to_string();
    let _provider = realm.provider_on(provider, "p", serve(echo), Ways::default());
    let (_consumer, address) = realm.consumer_on(consumer, "c", Ways { port: Some(&port), ..Ways::default() });
    undisturbed(address, 200, |moved| {
        for _ in 0..5 {
            wait_for(moved, 5_000_000);
            nat.change();
        }
        wait_for(moved, 5_000_000);
    });
}

#[test]
fn a_consumer_whose_address_changes_goes_on() {
    the_consumers_address_changes([Tokio, Tokio, Tokio]);
}

#[test]
fn a_consumer_on_smol_whose_address_changes_goes_on() {
    the_consumers_address_changes([Smol, Smol, Smol]);
}

#[test]
fn an_ssh_session_stays_usable() {
    let Some(sshd) = needs::program("sshd", "openssh-server") else { return };
    let (Some(keygen), Some(ssh)) =
        (needs::program("ssh-keygen", "openssh-client"), needs::program("ssh", "openssh-client"))
    else {
        return;
    };
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    for key in ["host", "user"] {
        let made = Command::new(&keygen).args(["-q", "-t", "ed25519", "-N", "", "-f", &file(key)]).status();
        assert!(made.unwrap().success());
    }
    fs::copy(file("user.pub"), file("authorized")).unwrap();
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o700)).unwrap();
    let server = free_tcp_address();
    let config = format!(
        "ListenAddress {server}\nHostKey {}\nAuthorizedKeysFile {}\nPidFile none\nStrictModes no\nUsePAM no\n\
         PermitRootLogin yes\nPasswordAuthentication no\n",
        file("host"),
        file("authorized")
    );
    fs::write(file("sshd_config"), config).unwrap();
    // sshd needs its directory, and its absolute path.
    let _ = fs::create_dir_all("/run/sshd");
    let sshd = Program::spawn(Command::new(sshd).args(["-D", "-e", "-f", &file("sshd_config")]));
    sshd.err_line("Server listening");
    let mut realm = Realm::start(|inventory| inventory);
    let _provider = realm.provider("p", server);
    let (_consumer, address) = realm.consumer("c");
    let user = String::from_utf8(Command::new("id").arg("-un").output().unwrap().stdout).unwrap();
    let port = address.port().to_string();
    let mut options = vec!["-F", "none", "-i"];
    let (key, host) = (file("user"), format!("{}@127.0.0.1", user.trim()));
    options.extend([&key, "-p", &port]);
    for option in ["StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "LogLevel=ERROR", "BatchMode=yes"] {
        options.extend(["-o", option]);
    }
    let mut ssh = Command::new(ssh)
        .args(options)
        .args([&host, "cat"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let (mut stdin, mut stdout) = (ssh.stdin.take().unwrap(), BufReader::new(ssh.stdout.take().unwrap()));
    let mut say = |text: &str| {
        stdin.write_all(text.as_bytes()).unwrap();
        let mut line = String::new();
        stdout.read_line(&mut line).unwrap();
        assert_eq!(line, text);
    };
    say("before\n");
    realm.restart_hub();
    say("after\n");
    roll(&mut realm.hub);
    realm.hub = realm.hub("inventory.yaml");
    say("and again\n");
    drop(stdin);
    assert!(ssh.wait().unwrap().success());
}
