//! Programs and files that tests need, and that a machine with Rust and a C compiler may not have. Without them a test is skipped, with a line on
//! stderr, or fails if skips are forbidden.

use std::{
    env, fs,
    io::{self, Write},
    net::UdpSocket,
    path::{Path, PathBuf},
    thread,
};

/// If this variable is set, and not to 0, a skipped test fails. With `programs`, only missing vectors, which no package has, may be the reason of a
/// skip.
pub const FORBID: &str = "TOWLINE_TESTS_FORBID_SKIPS";

/// Directories of programs that are not in every user's `PATH` on Debian.
const MORE: [&str; 2] = ["/usr/sbin", "/usr/local/sbin"];

/// Reports that the current test is skipped, and the reason.
///
/// # Panics
/// Skips are forbidden.
pub fn skip(why: &str) {
    skip_unless(&["", "0"], why);
}

/// The same where vectors are missing.
///
/// # Panics
/// Such skips are forbidden.
pub fn skip_vectors(why: &str) {
    skip_unless(&["", "0", "programs"], why);
}

fn skip_unless(allowed: &[&str], why: &str) {
    let test = thread::current().name().unwrap_or("a test").to_owned();
    let forbid = env::var(FORBID).unwrap_or_default();
    assert!(allowed.contains(&forbid.as_str()), "{test}: {why}; {FORBID}={forbid} forbids to skip it");
    // Not by eprintln!, whose lines are hidden when a test passes.
    // In one write: other tests write to stderr as well.
    let _ = io::stderr().write_all(format!("SKIPPED {test}: {why}\n").as_bytes());
}

/// The path of a program. If it is missing, reports the Debian package that has it; the test then ends.
#[must_use]
pub fn program(name: &str, package: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let folders = env::split_paths(&path).chain(MORE.map(PathBuf::from));
    let found = folders.map(|folder| folder.join(name)).find(|file| is_program(file));
    if found.is_none() {
        skip(&missing(name, package));
    }
    found
}

/// The same for a program of PostgreSQL's server: of the newest of several.
#[must_use]
pub fn postgres(name: &str) -> Option<PathBuf> {
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut found: Vec<_> = versions.map(|version| version.path().join("bin").join(name)).collect();
    found.retain(|path| is_program(path));
    found.sort();
    if found.is_empty() {
        skip(&missing(name, "postgresql"));
    }
    found.pop()
}

/// Whether there is IPv6 on the loopback; if not, the test ends.
#[must_use]
pub fn ipv6() -> bool {
    let has_it = UdpSocket::bind("[::1]:0").is_ok();
    if !has_it {
        skip("this machine has no ::1 (sysctl net.ipv6.conf.lo.disable_ipv6=0)");
    }
    has_it
}

fn missing(name: &str, package: &str) -> String {
    format!("there is no program {name} (Debian: apt-get install {package})")
}

fn is_program(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    fs::metadata(path).is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    /// The two tests below are this test's own programs: what they print is what a user sees.
    #[test]
    #[ignore = "it is run by the next one"]
    fn a_test_that_needs_what_is_not_there() {
        assert_eq!(program("no-such-program", "no-such-package"), None);
    }

    #[test]
    fn a_skip_is_loud_or_forbidden() {
        let run = |forbid: &str| {
            Command::new(env::current_exe().unwrap())
                .args(["--ignored", "--exact", "needs::tests::a_test_that_needs_what_is_not_there"])
                .env(FORBID, forbid)
                .output()
                .unwrap()
        };
        let why = "there is no program no-such-program (Debian: apt-get install no-such-package)";
        for allowed in ["", "0"] {
            let output = run(allowed);
            let told = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(output.status.success());
            assert_eq!(told, format!("SKIPPED needs::tests::a_test_that_needs_what_is_not_there: {why}\n"));
        }
        for forbidden in ["1", "programs"] {
            let output = run(forbidden);
            let told = String::from_utf8_lossy(&output.stdout).into_owned();
            assert!(!output.status.success() && told.contains(why) && told.contains(FORBID), "{told}");
        }
    }

    #[test]
    fn what_is_there_is_found() {
        let shell = program("sh", "dash").expect("a shell");
        assert!(shell.is_absolute() && is_program(&shell));
        assert!(!is_program(Path::new("/etc/passwd")) && !is_program(Path::new("/usr/bin")));
    }
}
