//! A panic is a line among the diagnostics, written by their thread: a reader that stands still does not hold it up.

use std::{
    env,
    io::{self, Write},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use towline_tokio::cli::log::{self, Format};

const NAME: &str = "a_panic_is_a_line_and_waits_for_nobody";

#[test]
fn a_panic_is_a_line_and_waits_for_nobody() {
    if env::var_os("TOWLINE_PANICS").is_some() {
        let _log = log::init(Format::Json);
        assert!(thread::spawn(|| panic!("on purpose")).join().is_err());
        return;
    }
    let ourselves = || {
        let mut command = Command::new(env::current_exe().unwrap());
        command.args(["--exact", NAME, "--nocapture"]).env("TOWLINE_PANICS", "1").stdout(Stdio::null());
        command
    };
    let output = ourselves().output().unwrap();
    assert!(output.status.success());
    let said = String::from_utf8(output.stderr).unwrap();
    let line = said.lines().find(|line| line.contains("on purpose")).expect("a line");
    let line: serde_json::Value = serde_json::from_str(line).expect("JSON, as the others");
    assert_eq!(line["level"], "ERROR");
    assert!(line["message"].as_str().unwrap().contains("panicked at "), "{line}");
    let (_reader, mut full) = io::pipe().unwrap();
    full.write_all(&[b'.'; 65536]).unwrap();
    let mut child = ourselves().stderr(full).spawn().unwrap();
    let deadline = Instant::now() + Duration::from_secs(30);
    while child.try_wait().unwrap().is_none() {
        assert!(Instant::now() < deadline, "it waits");
        thread::sleep(Duration::from_millis(10));
    }
    assert!(child.wait().unwrap().success());
}
