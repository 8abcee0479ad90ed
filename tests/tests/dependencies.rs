//! What `Cargo.lock` brings in: its licences and sources are those that deny.toml allows, and no crate needs a newer Rust than we declare.
//!
//! `cargo deny check` looks at the same and at advisories (CONTRIBUTING.md, Dependencies); its installation takes too long for each run of CI.

use std::{env, fs, path::Path, process::Command};

use serde_json::Value;

fn read(file: &str) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace");
    fs::read_to_string(root.join(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
}

/// All packages that a build for this machine may take, as `cargo metadata` describes them.
fn packages() -> Vec<Value> {
    let platform = format!("{}-unknown-linux-gnu", env::consts::ARCH);
    let output = Command::new(env!("CARGO"))
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .args(["metadata", "--format-version", "1", "--locked", "--filter-platform", &platform])
        .output()
        .expect("cargo");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let mut metadata: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let Value::Array(packages) = metadata["packages"].take() else { panic!("no packages") };
    assert!(packages.len() > 50, "only {} packages", packages.len());
    packages
}

/// The strings of a list in deny.toml.
fn allowed(list: &str) -> Vec<String> {
    let rules = read("deny.toml");
    let (_, rest) = rules.split_once(&format!("\n{list} = [")).unwrap_or_else(|| panic!("deny.toml has no {list}"));
    let (inside, _) = rest.split_once(']').expect("the end of the list");
    inside.split('"').skip(1).step_by(2).map(str::to_owned).collect()
}

/// An SPDX expression, word by word; `/` is the older form of OR.
struct Expression<'a> {
    words: Vec<&'a str>,
    allowed: &'a [String],
}

impl<'a> Expression<'a> {
    fn is_allowed(licence: &'a str, allowed: &'a [String]) -> bool {
        let spaced = licence.replace('(', " ( ").replace(')', " ) ").replace('/', " OR ");
        let mut words: Vec<&str> = spaced.split_whitespace().collect();
        words.reverse();
        let mut expression = Expression { words, allowed };
        expression.alternatives() == Some(true) && expression.words.is_empty()
    }

    fn takes(&mut self, word: &str) -> bool {
        let is_next = self.words.last() == Some(&word);
        if is_next {
            self.words.pop();
        }
        is_next
    }

    /// `None`: malformed.
    fn alternatives(&mut self) -> Option<bool> {
        let mut is_allowed = self.all()?;
        while self.takes("OR") {
            is_allowed |= self.all()?;
        }
        Some(is_allowed)
    }

    fn all(&mut self) -> Option<bool> {
        let mut is_allowed = self.one()?;
        while self.takes("AND") {
            is_allowed &= self.one()?;
        }
        Some(is_allowed)
    }

    fn one(&mut self) -> Option<bool> {
        if self.takes("(") {
            let is_allowed = self.alternatives()?;
            return self.takes(")").then_some(is_allowed);
        }
        let licence = self.words.pop()?;
        // Each exception is a licence of its own.
        let exception = if self.takes("WITH") { Some(self.words.pop()?) } else { None };
        Some(exception.is_none() && self.allowed.iter().any(|allowed| allowed == licence))
    }
}

#[test]
fn licences_are_those_of_deny_toml() {
    let allowed = allowed("allow");
    let is_bad = |package: &&Value| !Expression::is_allowed(package["license"].as_str().unwrap_or_default(), &allowed);
    let packages = packages();
    let faults: Vec<String> =
        packages.iter().filter(is_bad).map(|package| format!("{}: {}", package["name"], package["license"])).collect();
    assert!(faults.is_empty(), "{faults:#?}");
    let is_needed = |licence: &&String| {
        packages.iter().any(|package| package["license"].as_str().unwrap_or_default().contains(&***licence))
    };
    let unused: Vec<&String> = allowed.iter().filter(|licence| !is_needed(licence)).collect();
    assert!(unused.is_empty(), "no package needs {unused:?}");
}

#[test]
fn sources_are_those_of_deny_toml() {
    let registries: Vec<String> =
        allowed("allow-registry").iter().map(|registry| format!("registry+{registry}")).collect();
    for package in packages() {
        let source = package["source"].as_str();
        let is_ours = source.is_none() && package["name"].as_str().is_some_and(|name| name.starts_with("towline-"));
        assert!(is_ours || registries.iter().any(|known| Some(&**known) == source), "{}: {source:?}", package["name"]);
    }
}

#[test]
fn no_package_needs_a_newer_rust_than_we_declare() {
    let version = |package: &Value| {
        let version = package["rust_version"].as_str().unwrap_or("0");
        let mut numbers = version.split('.').map(|number| number.parse::<u32>().expect("a number"));
        [(); 3].map(|()| numbers.next().unwrap_or(0))
    };
    let packages = packages();
    let (ours, others): (Vec<&Value>, Vec<&Value>) = packages.iter().partition(|package| package["source"].is_null());
    let declared = version(ours.first().expect("a package of ours"));
    assert!(ours.iter().all(|package| version(package) == declared), "our packages declare different versions");
    for package in others {
        assert!(version(package) <= declared, "{} needs Rust {}", package["name"], package["rust_version"]);
    }
}

#[test]
fn licence_expressions_are_read_as_spdx_means_them() {
    let allowed = ["MIT", "ISC"].map(str::to_owned);
    for (expression, is_allowed) in [
        ("MIT", true),
        ("GPL-3.0-only", false),
        ("", false),
        ("GPL-3.0-only OR MIT", true),
        ("Unlicense/MIT", true),
        ("MIT AND GPL-3.0-only", false),
        ("GPL-3.0-only OR MIT AND ISC", true),
        ("(GPL-3.0-only OR MIT) AND (ISC OR Zlib)", true),
        ("(MIT OR ISC) AND Zlib", false),
        ("(GPL-3.0-only AND Zlib) OR MIT", true),
        ("MIT WITH LLVM-exception", false),
        ("MIT OR (ISC", false),
    ] {
        assert_eq!(Expression::is_allowed(expression, &allowed), is_allowed, "{expression}");
    }
}

/// A program that embeds a library does not compile the programs' dependencies; one that embeds the core compiles no sockets.
#[test]
fn libraries_bring_nothing_of_the_programs() {
    let brought = |arguments: &[&str]| {
        let output = Command::new(env!("CARGO"))
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .args(["tree", "--locked", "--edges", "normal", "--prefix", "none", "--format", "{p}"])
            .args(arguments)
            .output()
            .expect("cargo");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8(output.stdout).expect("UTF-8");
        let names: std::collections::BTreeSet<_> =
            text.lines().filter_map(|line| line.split(' ').next().map(str::to_owned)).collect();
        assert!(names.contains("towline-core"), "{names:?}");
        names
    };
    let programs = ["clap", "hyper", "rcgen", "serde-saphyr", "tracing-subscriber"];
    let sockets = ["hickory-resolver", "quinn-udp", "smol", "socket2", "tokio"];
    for (arguments, unwanted) in [
        (&["-p", "towline-tokio", "--no-default-features"][..], &programs[..]),
        (&["-p", "towline-smol"], &programs),
        (&["-p", "towline-core"], &[programs, sockets].concat()),
        (&["-p", "towline-core", "--no-default-features"], &["quinn-proto", "rustls"]),
    ] {
        let brought = brought(arguments);
        let there: Vec<_> = unwanted.iter().filter(|name| brought.contains(**name)).collect();
        assert!(there.is_empty(), "{arguments:?} brings {there:?}");
    }
    let everything = brought(&["-p", "towline-tokio"]);
    assert!(programs.iter().all(|name| everything.contains(*name)), "{everything:?}");
}
