//! A real PostgreSQL behind SPN: with its own client through agents, and with tokio-postgres through streams.

use std::{
    fs,
    net::SocketAddr,
    os::unix::fs::chown,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use tempfile::TempDir;
use towline_tests::programs::{Program, Realm, free_tcp_address};

/// A server of its own; dropped with its data.
struct Postgres {
    address: SocketAddr,
    _server: Program,
    _directory: TempDir,
}

impl Postgres {
    fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let data = directory.path().join("data");
        fs::create_dir(&data).unwrap();
        if is_root() {
            // The server refuses to be root.
            for path in [directory.path(), &data] {
                chown(path, Some(id_of("postgres")), None).unwrap();
            }
        }
        let data = data.to_str().unwrap();
        let made = as_postgres("initdb")
            .args(["-D", data, "-U", "postgres", "-A", "trust", "-N", "--no-locale", "-E", "UTF8"])
            .output()
            .unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let address = free_tcp_address();
        let port = address.port().to_string();
        let mut command = as_postgres("postgres");
        command.args(["-D", data, "-p", &port, "-h", "127.0.0.1", "-k", "", "-c", "fsync=off"]);
        let server = Program::spawn(&mut command);
        server.err_line("ready to accept connections");
        Self { address, _server: server, _directory: directory }
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        // Its own children end when it is told to; a SIGKILL would leave them behind for a moment.
        self._server.signal("INT");
        self._server.wait();
    }
}

fn is_root() -> bool {
    id_of("") == 0
}

/// The number of a user; of ourselves, if it has no name.
fn id_of(user: &str) -> u32 {
    let mut id = Command::new("id");
    id.arg("-u").args(Some(user).filter(|user| !user.is_empty()));
    let output = id.output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    text.trim().parse().unwrap_or_else(|_| panic!("no user {user:?}; it comes with Debian's postgresql"))
}

/// Where Debian's package puts the server, or the newest of several.
fn program(name: &str) -> PathBuf {
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten();
    let mut found: Vec<_> = versions.map(|version| version.unwrap().path().join("bin").join(name)).collect();
    found.retain(|path| path.exists());
    found.sort();
    found.pop().unwrap_or_else(|| panic!("{name} is missing: install postgresql"))
}

fn as_postgres(name: &str) -> Command {
    if !is_root() {
        return Command::new(program(name));
    }
    let mut command = Command::new("setpriv");
    command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups", "--"]).arg(program(name));
    // Not every directory of ours is its to be in.
    command.current_dir(Path::new("/"));
    command
}

fn psql(address: SocketAddr, script: &str) -> Command {
    let mut psql = Command::new(program("psql"));
    let (host, port) = (address.ip().to_string(), address.port().to_string());
    psql.args(["-h", &host, "-p", &port, "-U", "postgres", "-v", "ON_ERROR_STOP=1", "-qAt", "-c", script]);
    psql
}

fn text(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout.clone()).unwrap()
}

#[test]
fn tokio_postgres_goes_on_in_the_middle_of_a_transaction() {
    let postgres = Postgres::start();
    let mut example =
        Program::start("examples/postgres", &[&postgres.address.to_string(), "user=postgres dbname=postgres"]);
    assert_eq!(example.wait().code(), Some(0), "{:?}", example.err());
    assert_eq!(example.out(), ["the hub was replaced", "10 squares, 385 in all"]);
}

#[test]
fn psql_does_not_notice_that_the_hub_was_killed() {
    let postgres = Postgres::start();
    let mut realm = Realm::start(|inventory| inventory);
    let _provider = realm.provider("p", postgres.address);
    let (_consumer, address) = realm.consumer("c");
    // Rows come one after another for three seconds, and the hub dies in the first.
    let rows = "SELECT n, pg_sleep(0.01) FROM generate_series(1, 300) AS n";
    let running = psql(address, rows).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    std::thread::sleep(std::time::Duration::from_millis(700));
    realm.restart_hub();
    let through = text(&running.wait_with_output().unwrap());
    assert_eq!(through.lines().count(), 300);
    assert_eq!(through, (1..=300).map(|n| format!("{n}|\n")).collect::<String>());
    // And a large answer is what it is without SPN.
    let large = "SELECT n, md5(n::text) FROM generate_series(1, 200000) AS n";
    let (direct, through) = (psql(postgres.address, large).output().unwrap(), psql(address, large).output().unwrap());
    assert!(text(&direct) == text(&through), "not the same {} bytes", direct.stdout.len());
}
