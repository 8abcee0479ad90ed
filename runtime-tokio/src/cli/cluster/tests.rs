use std::{fs, os::unix::fs::PermissionsExt, sync::Arc};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use towline_core::spn::hub::Availability;

use super::*;

fn script(directory: &TempDir, name: &str, text: &str) {
    let path = directory.path().join(name);
    fs::write(&path, format!("#!/bin/sh\ncd {}\n{text}", directory.path().display())).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
}

fn task(urn: &str, service_id: &str) -> ClusterTask {
    let availability = Availability {
        cluster_manager: urn.to_owned(),
        service_id: service_id.to_owned(),
        image: "img".to_owned(),
        command: vec!["run".to_owned(), "--it".to_owned()],
        env: [("K".to_owned(), "v".to_owned())].into(),
        mount_points: vec![(3, "/data".to_owned())],
        ..Availability::default()
    };
    ClusterTask { id: 1, service: "urn:s".into(), availability: Arc::new(availability) }
}

#[tokio::test]
async fn a_command_gets_the_deed_the_service_and_the_rest_as_json() {
    let directory = TempDir::new().unwrap();
    script(&directory, "it", "echo \"$@\" >> args\ncat > input\n");
    let commands = Commands::new(directory.path().to_owned());
    commands.start(&task("exec:it", "s-1")).await.unwrap();
    commands.stop(&task("exec:it", "s-1")).await.unwrap();
    assert_eq!(fs::read_to_string(directory.path().join("args")).unwrap(), "start s-1\nstop s-1\n");
    let input: serde_json::Value = serde_json::from_slice(&fs::read(directory.path().join("input")).unwrap()).unwrap();
    let expected = json!({
        "serviceUrn": "urn:s", "clusterManagerUrn": "exec:it", "serviceId": "s-1", "image": "img",
        "command": ["run", "--it"], "options": [], "env": {"K": "v"},
        "mountPoints": [{"volumeSize": 3, "target": "/data"}],
    });
    assert_eq!(input, expected);
}

#[tokio::test]
async fn a_command_that_reads_nothing_and_leaves_a_process_behind_is_done_when_it_has_ended() {
    let directory = TempDir::new().unwrap();
    script(&directory, "it", "sleep 60 &\necho $! > pid\n");
    let commands = Commands::new(directory.path().to_owned());
    let mut task = task("exec:it", "s-1");
    Arc::get_mut(&mut task.availability).unwrap().command = vec!["x".repeat(1 << 20)];
    timeout(Duration::from_secs(20), commands.start(&task)).await.expect("in time").unwrap();
    let pid = fs::read_to_string(directory.path().join("pid")).unwrap();
    let pid = Pid::from_raw(pid.trim().parse().unwrap()).unwrap();
    assert_eq!(kill_process(pid, Signal::TERM), Ok(()), "it runs on");
}

#[tokio::test]
async fn what_goes_wrong_is_said() {
    let directory = TempDir::new().unwrap();
    script(&directory, "fails", "exit 3\n");
    fs::write(directory.path().join("data"), "no program").unwrap();
    let commands = Commands::new(directory.path().to_owned());
    let at = directory.path().display();
    for (urn, id, expected) in [
        ("exec:fails", "s", format!("{at}/fails: exit status: 3; its output is above")),
        ("exec:data", "s", format!("cannot run {at}/data: Permission denied (os error 13)")),
        ("exec:nothing", "s", format!("cannot run {at}/nothing: No such file or directory (os error 2)")),
        ("exec:", "s", format!("`exec:`: expected exec:NAME, with the name of a file in {at}")),
        ("exec:../sh", "s", format!("`exec:../sh`: expected exec:NAME, with the name of a file in {at}")),
        (
            "exec:fails",
            "-v",
            "serviceId `-v`: expected a name that is not empty and does not begin with `-`".to_owned(),
        ),
    ] {
        assert_eq!(commands.start(&task(urn, id)).await.unwrap_err().to_string(), expected);
    }
}

#[tokio::test]
async fn a_command_that_does_not_end_is_killed_with_what_it_has_started() {
    let directory = TempDir::new().unwrap();
    script(&directory, "it", "sleep 600 &\necho $! > pid\nwait\n");
    let commands = Commands::new(directory.path().to_owned()).with_limit(Duration::from_secs(2));
    let error = commands.start(&task("exec:it", "s-1")).await.unwrap_err();
    assert!(error.to_string().ends_with("did not end within 2 s and was killed"), "{error}");
    let pid = fs::read_to_string(directory.path().join("pid")).unwrap();
    let is_there = || {
        // A zombie has ended, and is not reaped yet.
        let state = fs::read_to_string(format!("/proc/{}/stat", pid.trim())).unwrap_or_default();
        !state.is_empty() && !state.contains(") Z")
    };
    for _ in 0..100 {
        if !is_there() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("{pid} runs on");
}
