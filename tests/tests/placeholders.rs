//! An inventory as the original programs bring it along: texts in place of what they never read. It runs, and says what it assumes.

use std::{
    io::{Read, Write},
    net::Shutdown,
    process::Command,
};

use towline_tests::{
    programs::{Realm, path_of},
    servers::{connect, echo, serve},
};

#[test]
fn texts_in_place_of_times_refuse_nothing() {
    let realm = Realm::start(|inventory| {
        let realm = inventory.replace("  name: r\n", "  name: r\n  expiredAt: expired time\n");
        let management = "      name: s\n      availabilityManagement:\n        clusterManagerUrn: 'exec:nothing'\n        \
             serviceId: s\n        ondemandStartOnConsumer: true\n        startAt: start time\n        stopAt: stop time\n";
        realm.replace("      name: s\n", management)
    });
    let file = realm.file("inventory.yaml");
    let output = Command::new(path_of("spnhub")).args(["check", "-c", &file]).output().unwrap();
    let told = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0), "{told}");
    for (path, assumed) in [
        ("realms[0].expiredAt: `expired time`", "THE REALM IS TAKEN AS NOT EXPIRED"),
        ("realms[0].hubs[0].services[0].availabilityManagement.startAt: `start time`", "does not start the provider"),
        ("realms[0].hubs[0].services[0].availabilityManagement.stopAt: `stop time`", "does not stop the provider"),
    ] {
        let is_said = |line: &str| line.starts_with(&format!("warning: {path}")) && line.contains(assumed);
        assert!(told.lines().any(is_said), "{path} in {told}");
    }
    assert!(String::from_utf8_lossy(&output.stderr).contains("0 errors, 3 warnings; usable: 1 realms, 1 hubs, 1 serv"));
    // And it serves.
    let _provider = realm.provider("p", serve(echo));
    let (_consumer, address) = realm.consumer("c");
    let mut tcp = connect(address);
    tcp.write_all(b"hello").unwrap();
    tcp.shutdown(Shutdown::Write).unwrap();
    let mut reply = Vec::new();
    tcp.read_to_end(&mut reply).unwrap();
    assert_eq!(reply, b"hello");
}
