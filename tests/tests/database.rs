//! A real PostgreSQL behind SPN: with its own client through agents, and with tokio-postgres through streams.

use std::{
    fs,
    net::SocketAddr,
    os::unix::fs::chown,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use rustix::process::getuid;
use tempfile::TempDir;
use towline_tests::{
    needs,
    programs::{Program, Realm, free_tcp_address},
};

/// A server of its own; dropped with its data.
struct Postgres {
    address: SocketAddr,
    _server: Program,
    _directory: TempDir,
}

impl Postgres {
    fn start(programs: &Programs) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let data = directory.path().join("data");
        fs::create_dir(&data).unwrap();
        if let Some((id, _)) = programs.user {
            for path in [directory.path(), &data] {
                chown(path, Some(id), None).unwrap();
            }
        }
        let data = data.to_str().unwrap();
        let made = programs
            .as_user(&programs.initdb)
            .args(["-D", data, "-U", "postgres", "-A", "trust", "-N", "--no-locale", "-E", "UTF8"])
            .output()
            .unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let address = free_tcp_address();
        let port = address.port().to_string();
        let mut command = programs.as_user(&programs.postgres);
        command.args(["-D", data, "-p", &port, "-h", "127.0.0.1", "-k", "", "-c", "fsync=off"]);
        let server = Program::spawn(&mut command);
        server.err_line("ready to accept connections");
        Self { address, _server: server, _directory: directory }
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        // On a signal the server ends its children first; SIGKILL would leave them behind for a moment.
        self._server.signal("INT");
        self._server.wait();
    }
}

/// What the tests start: the server's two programs, and its client's.
struct Programs {
    initdb: PathBuf,
    postgres: PathBuf,
    psql: PathBuf,
    /// The user of the server if the test runs as root, which the server refuses: its id, and the program that changes the user.
    user: Option<(u32, PathBuf)>,
}

impl Programs {
    fn find() -> Option<Self> {
        let (initdb, postgres) = (needs::postgres("initdb")?, needs::postgres("postgres")?);
        let psql = needs::postgres("psql")?;
        let mut user = None;
        if getuid().is_root() {
            let Some(id) = id_of("postgres") else {
                needs::skip("there is no user postgres (Debian: apt-get install postgresql)");
                return None;
            };
            user = Some((id, needs::program("setpriv", "util-linux")?));
        }
        Some(Self { initdb, postgres, psql, user })
    }

    fn as_user(&self, program: &Path) -> Command {
        let Some((_, setpriv)) = &self.user else { return Command::new(program) };
        let mut command = Command::new(setpriv);
        command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups", "--"]).arg(program);
        // The server's user may not have access to this directory.
        command.current_dir(Path::new("/"));
        command
    }

    fn psql(&self, address: SocketAddr, script: &str) -> Command {
        let mut psql = Command::new(&self.psql);
        let (host, port) = (address.ip().to_string(), address.port().to_string());
        psql.args(["-h", &host, "-p", &port, "-U", "postgres", "-v", "ON_ERROR_STOP=1", "-qAt", "-c", script]);
        psql
    }
}

/// The number of a user.
fn id_of(user: &str) -> Option<u32> {
    let users = fs::read_to_string("/etc/passwd").ok()?;
    let mut lines = users.lines().map(|line| line.split(':').collect::<Vec<_>>());
    lines.find(|line| line.first() == Some(&user)).and_then(|line| line.get(2)?.parse().ok())
}

fn text(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout.clone()).unwrap()
}

#[test]
fn tokio_postgres_goes_on_in_the_middle_of_a_transaction() {
    let Some(programs) = Programs::find() else { return };
    let postgres = Postgres::start(&programs);
    let mut example =
        Program::start("examples/postgres", &[&postgres.address.to_string(), "user=postgres dbname=postgres"]);
    assert_eq!(example.wait().code(), Some(0), "{:?}", example.err());
    assert_eq!(example.out(), ["the hub was replaced", "10 squares, 385 in all"]);
}

#[test]
fn psql_does_not_notice_that_the_hub_was_killed() {
    let Some(programs) = Programs::find() else { return };
    let postgres = Postgres::start(&programs);
    let mut realm = Realm::start(|inventory| inventory);
    let _provider = realm.provider("p", postgres.address);
    let (_consumer, address) = realm.consumer("c");
    // Rows come one after another for three seconds, and the hub dies in the first.
    let rows = "SELECT n, pg_sleep(0.01) FROM generate_series(1, 300) AS n";
    let running = programs.psql(address, rows).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    std::thread::sleep(std::time::Duration::from_millis(700));
    realm.restart_hub();
    let through = text(&running.wait_with_output().unwrap());
    assert_eq!(through.lines().count(), 300);
    assert_eq!(through, (1..=300).map(|n| format!("{n}|\n")).collect::<String>());
    // And a large answer is what it is without SPN.
    let large = "SELECT n, md5(n::text) FROM generate_series(1, 200000) AS n";
    let ask = |address| programs.psql(address, large).output().unwrap();
    let (direct, through) = (ask(postgres.address), ask(address));
    assert!(text(&direct) == text(&through), "not the same {} bytes", direct.stdout.len());
}
