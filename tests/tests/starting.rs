//! Providers that the hub starts and stops, with the real programs: the cluster manager is a shell script that runs `spnagent` (MNG-14, MNG-15).

use std::{
    fs,
    io::{Read, Write},
    net::SocketAddr,
    os::unix::fs::PermissionsExt,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use towline_tests::{
    programs::{PATIENCE, Program, Realm, path_of},
    servers::{connect, echo, serve},
};

/// A realm whose service `s` has its provider started by a command.
struct World {
    realm: Realm,
}

/// `start` runs an agent and leaves it behind, `stop` ends it; both have nothing to do twice.
const COMMAND: &str = r#"#!/bin/sh
set -eu
cd "$(dirname "$0")/.."
echo "$@" >> asked
cat > input
pid=$(cat "$2.pid" 2> /dev/null || true)
case $1 in
start)
    test ! -e broken || { echo "it is broken" >&2; exit 7; }
    kill -0 $pid 2> /dev/null && exit 0
    AGENT provider --env-file p.env --forward-address FORWARD >> agent.log 2>&1 &
    echo $! > "$2.pid" ;;
stop)
    kill $pid 2> /dev/null || exit 0
    while kill -0 $pid 2> /dev/null && ! grep -q "^State:.Z" /proc/$pid/status; do sleep 0.05; done
    rm "$2.pid" ;;
esac
"#;

impl World {
    fn start(settings: &str, forward: SocketAddr, prepare: impl FnOnce(&Realm)) -> Self {
        let mut realm = Realm::start(|inventory| {
            let manages =
                format!("availabilityManagement: {{clusterManagerUrn: \"exec:run\", serviceId: s-1, {settings}}}");
            let at = inventory.find("singleton: ").expect("a service");
            let indent = at - inventory[..at].rfind('\n').expect("a line") - 1;
            format!("{}{manages}\n{:indent$}{}", &inventory[..at], "", &inventory[at..])
        });
        // That one had no commands; the next one has.
        realm.hub.signal("KILL");
        realm.hub.wait();
        fs::create_dir(realm.file("commands")).unwrap();
        let command = realm.file("commands/run");
        let text =
            COMMAND.replace("AGENT", path_of("spnagent").to_str().unwrap()).replace("FORWARD", &forward.to_string());
        fs::write(&command, text).unwrap();
        fs::set_permissions(&command, fs::Permissions::from_mode(0o755)).unwrap();
        prepare(&realm);
        realm.hub = Self::hub(&realm);
        Self { realm }
    }

    fn hub(realm: &Realm) -> Program {
        let file = |name: &str| realm.file(name);
        let options =
            ["-c", &file("inventory.yaml"), "--cluster-commands", &file("commands"), "--control", &file("control")];
        let hub = Program::start("spnhub", &options);
        hub.err_line("listening on");
        hub
    }

    /// What the command was asked.
    fn asked(&self) -> Vec<String> {
        let text = fs::read_to_string(self.realm.file("asked")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    fn status(&self) -> String {
        let options = ["ctl", "--control", &self.realm.file("control"), "status"];
        let output = Command::new(path_of("spnhub")).args(options).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    }

    fn wait_for_status(&self, part: &str) {
        let deadline = Instant::now() + PATIENCE;
        while !self.status().contains(part) {
            assert!(Instant::now() < deadline, "no {part} in {}; {}", self.status(), self.realm.hub.err().join("\n"));
            thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        // The agents are not our children.
        let _ = Command::new(self.realm.file("commands/run"))
            .args(["stop", "s-1"])
            .stdin(std::process::Stdio::null())
            .status();
    }
}

fn says(address: SocketAddr, text: &str) -> String {
    let mut tcp = connect(address);
    tcp.set_read_timeout(Some(PATIENCE)).unwrap();
    tcp.write_all(text.as_bytes()).unwrap();
    let mut answer = vec![0; text.len()];
    tcp.read_exact(&mut answer).expect("an answer");
    String::from_utf8(answer).unwrap()
}

#[test]
fn a_provider_is_started_for_a_connection_that_waits_and_stopped_when_nobody_uses_it() {
    let world = World::start("ondemandStartOnPayload: true, idleTimeout: 2", serve(echo), |_| {});
    let (consumer, address) = world.realm.consumer("c");
    assert!(world.asked().is_empty(), "a consumer's session alone starts nothing: {:?}", world.asked());
    assert!(world.status().contains("managed: Stopped"), "{}", world.status());
    for _ in 0..2 {
        assert_eq!(says(address, "anybody there?"), "anybody there?");
        world.wait_for_status("managed: Running");
        world.wait_for_status("managed: Stopped");
    }
    assert_eq!(world.asked(), ["start s-1", "stop s-1", "start s-1", "stop s-1"]);
    let input: serde_json::Value =
        serde_json::from_str(&fs::read_to_string(world.realm.file("input")).unwrap()).unwrap();
    assert_eq!((&input["serviceUrn"], &input["serviceId"]), (&"urn:chip-in:service:r:hub:s".into(), &"s-1".into()));
    let errors: Vec<_> = world.realm.hub.err().into_iter().filter(|line| line.contains("ERROR")).collect();
    assert_eq!(errors, Vec::<String>::new());
    assert!(!world.realm.hub.out().iter().any(|line| line.contains("\"error\"")), "{:?}", world.realm.hub.out());
    drop(consumer);
}

#[test]
fn a_provider_that_outlives_its_hub_is_taken_over_and_its_connection_goes_on() {
    let mut world = World::start("ondemandStart: true, idleTimeout: 2", serve(echo), |_| {});
    let (_consumer, address) = world.realm.consumer("c");
    let mut tcp = connect(address);
    tcp.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut says = |text: &str| {
        tcp.write_all(text.as_bytes()).unwrap();
        let mut answer = vec![0; text.len()];
        tcp.read_exact(&mut answer).expect("an answer");
        assert_eq!(answer, text.as_bytes());
    };
    says("before");
    world.realm.hub.signal("KILL");
    world.realm.hub.wait();
    world.realm.hub = World::hub(&world.realm);
    says("after");
    thread::sleep(Duration::from_secs(3));
    says("and it is in use, so it stays");
    assert!(world.asked().iter().all(|asked| asked == "start s-1"), "{:?}", world.asked());
    drop(tcp);
    world.wait_for_status("managed: Stopped");
}

#[test]
fn what_runs_from_the_load_on_runs_before_the_hub_listens() {
    let world = World::start("ondemandStart: false", serve(echo), |_| {});
    let err = world.realm.hub.err();
    let place = |part: &str| err.iter().position(|line| line.contains(part)).expect(part);
    assert!(place("started the provider of urn:chip-in:service:r:hub:s") < place("listening on"));
    world.wait_for_status("managed: Running");
    let (_consumer, address) = world.realm.consumer("c");
    assert_eq!(says(address, "hello"), "hello");
    world.realm.hub.signal("TERM");
    thread::sleep(Duration::from_secs(1));
    assert_eq!(world.asked(), ["start s-1"], "a hub that leaves stops nobody");
}

#[test]
fn a_command_that_fails_is_said_and_tried_again() {
    let world = World::start("ondemandStart: true", serve(echo), |realm| {
        fs::write(realm.file("broken"), "").unwrap();
    });
    let (_consumer, address) = world.realm.consumer("c");
    world.realm.hub.err_line("it is broken");
    world.realm.hub.err_line("/run: exit status: 7; its output is above");
    assert!(world.status().contains("managed: Failed"), "{}", world.status());
    fs::remove_file(world.realm.file("broken")).unwrap();
    let began = Instant::now();
    assert_eq!(says(address, "it was worth waiting for"), "it was worth waiting for");
    assert!(began.elapsed() > Duration::from_secs(5), "not at once again: {:?}", began.elapsed());
    assert_eq!(world.asked(), ["start s-1", "start s-1"]);
}

#[test]
fn a_schedule_starts_it() {
    let at = time::OffsetDateTime::now_utc() + Duration::from_secs(4);
    let start =
        format!("ondemandStartOnConsumer: true, startAt: \"{} {} {} * * *\"", at.second(), at.minute(), at.hour());
    let world = World::start(&start, serve(echo), |_| {});
    assert!(world.asked().is_empty());
    world.wait_for_status("managed: Running");
    assert_eq!(world.asked(), ["start s-1"]);
}

#[test]
fn a_back_end_that_is_missing_is_said_and_harms_nothing_else() {
    let world = World::start("ondemandStart: false", serve(echo), |realm| {
        let file = realm.file("inventory.yaml");
        let text = fs::read_to_string(&file).unwrap();
        fs::write(&file, text.replace("exec:run", "docker:")).unwrap();
    });
    let line = world.realm.hub.err_line("cannot be started");
    assert!(line.contains("no cluster manager for `docker:`; available: exec"), "{line}");
    let _provider = world.realm.provider("p", serve(echo));
    let (_consumer, address) = world.realm.consumer("c");
    assert_eq!(says(address, "started by hand"), "started by hand");
    let check =
        Command::new(path_of("spnhub")).args(["check", "-c", &world.realm.file("inventory.yaml")]).output().unwrap();
    assert_eq!(check.status.code(), Some(0), "it can be used");
}
