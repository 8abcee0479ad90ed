//! The vectors of transactions, in the terms of the test that plays them.

use std::{collections::BTreeMap, fs, net::IpAddr, path::Path, time::Duration};

use bytes::Bytes;
use serde_json::Value;
use towline_core::txn::{proxy::Config, transaction::KeyMode};

use super::world::{End, Step};
use crate::vectors::{cases, hex};

/// A case.
#[derive(Debug, Clone)]
pub struct Vector {
    /// Its name.
    pub name: String,
    /// Cases to play before it, with the same proxy.
    pub before: Vec<String>,
    /// How the proxy is configured.
    pub mode: Mode,
    /// What the resolver knows.
    pub names: BTreeMap<Vec<u8>, Vec<IpAddr>>,
    /// Where the origin listens.
    pub origin: IpAddr,
    /// How many clients come, and how much later each is.
    pub clients: (usize, Duration),
    /// What each sends.
    pub pieces: Vec<(Duration, Bytes)>,
    /// Whether it then ends its direction.
    pub half_closes: bool,
    /// Whether and when it breaks off.
    pub leaves: Option<Duration>,
    /// What the origin does.
    pub steps: Vec<Step>,
    /// What must come of it.
    pub expect: Expect,
}

/// The choices of the sample, and what is different.
#[derive(Debug, Clone, Default)]
pub struct Mode {
    server_and_file: bool,
    is_strict: bool,
    allow: Vec<String>,
    idle: Option<Duration>,
}

/// What must come of a case.
#[derive(Debug, Clone)]
pub struct Expect {
    /// How each client's connection ends; not at all, while the client waits.
    pub end: Option<End>,
    /// Length and SHA-256 of what each client is given.
    pub received: (usize, Vec<u8>),
    /// Lookups.
    pub lookups: Vec<String>,
    /// How often the origin is asked.
    pub fetches: usize,
    /// What it is asked.
    pub head: Option<Vec<u8>>,
}

impl Mode {
    /// The configuration for an embedded proxy.
    #[must_use]
    pub fn config(&self) -> Config {
        let mut config = Config::default();
        config.transaction = config.transaction.sample();
        let transaction = &mut config.transaction;
        if self.server_and_file {
            transaction.key_mode = KeyMode::ServerAndFile;
        }
        transaction.strict_head = self.is_strict;
        if !self.allow.is_empty() {
            transaction.allow.all = false;
            transaction.allow.names = self.allow.iter().map(|name| name.parse().expect("a pattern")).collect();
        }
        if let Some(idle) = self.idle {
            (transaction.head_timeout, transaction.origin_idle_timeout) = (idle, idle);
        }
        config
    }

    /// The options for `towline proxy`.
    #[must_use]
    pub fn arguments(&self) -> Vec<String> {
        let mut arguments = vec!["--compat".to_owned(), "sample".to_owned()];
        let mut add = |words: &[&str]| arguments.extend(words.iter().map(|&word| word.to_owned()));
        if self.server_and_file {
            add(&["--key", "server-and-file"]);
        }
        if self.is_strict {
            add(&["--strict-head"]);
        }
        for name in &self.allow {
            add(&["--allow", name]);
        }
        if let Some(idle) = self.idle {
            let seconds = idle.as_secs_f64().to_string();
            add(&["--head-timeout", &seconds, "--origin-timeout", &seconds]);
        }
        arguments
    }
}

/// All cases of a folder, by name.
#[must_use]
pub fn read(folder: &Path) -> BTreeMap<String, Vector> {
    let vectors = cases(&folder.to_owned()).into_iter().map(|case| Vector::read(folder, &case));
    vectors.map(|vector| (vector.name.clone(), vector)).collect()
}

impl Vector {
    fn read(folder: &Path, case: &Value) -> Self {
        let name = text(&case["case"]).to_owned();
        let client = &case["client"];
        let segments = list(&client["segments_hex"]).iter().map(|piece| hex(text(piece)).expect("hexadecimal"));
        let segments: Vec<Bytes> = segments.filter(|piece| !piece.is_empty()).map(Bytes::from).collect();
        let gap = millis(&client["gap_ms"]).unwrap_or_default();
        let head = segments.concat();
        let (names, origin) = names(text(&case["dns"]), &head);
        let expect = &case["expect"];
        Self {
            before: list(&case["pre"]).iter().map(|name| text(name).to_owned()).collect(),
            mode: mode(text(&case["mode"]), &case["config"]["idle_timeout_s"]),
            names,
            origin,
            clients: (
                client["connections"].as_u64().unwrap_or(1) as usize,
                millis(&client["stagger_ms"]).unwrap_or_default(),
            ),
            pieces: segments
                .into_iter()
                .enumerate()
                .map(|(nth, piece)| (if nth == 0 { Duration::ZERO } else { gap }, piece))
                .collect(),
            half_closes: client["half_close_after_send"] == true,
            leaves: millis(&client["close_after_ms"]),
            steps: steps(folder, &case["origin"]),
            expect: Expect {
                end: match text(&expect["client_end"]) {
                    "fin" => Some(End::Fin),
                    "rst" => Some(End::Reset),
                    "open" => None,
                    other => panic!("{name}: no such end: {other}"),
                },
                received: (
                    expect["client_rx_len"].as_u64().expect("a length") as usize,
                    hex(text(&expect["client_rx_sha256"])).expect("a digest"),
                ),
                lookups: list(&expect["log"]).iter().map(|line| text(line).to_owned()).collect(),
                fetches: expect["origin_connections"].as_u64().expect("a number") as usize,
                head: expect["origin_request_hex"].as_str().and_then(hex),
            },
            name,
        }
    }

    /// What each client sends, in one piece.
    #[must_use]
    pub fn sent(&self) -> Vec<u8> {
        self.pieces.iter().flat_map(|(_, piece)| piece.clone()).collect()
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("expected a text, found {value}"))
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn millis(value: &Value) -> Option<Duration> {
    value.as_u64().map(Duration::from_millis)
}

fn mode(text: &str, idle: &Value) -> Mode {
    // What stands in brackets only says again what the choices of the sample are.
    let text: String = text.split(['(', ')']).step_by(2).collect();
    Mode {
        server_and_file: text.contains("key_mode = server_and_file"),
        is_strict: text.contains("strict"),
        allow: text
            .strip_prefix("allow names ")
            .map(|names| names.split(", ").map(str::to_owned).collect())
            .unwrap_or_default(),
        idle: idle.as_f64().map(Duration::from_secs_f64),
    }
}

/// `NAME -> ADDRESS`, `AAAA ADDRESS only`, or nothing that a resolver knows; and where an origin listens, should there be one.
fn names(text: &str, head: &[u8]) -> (BTreeMap<Vec<u8>, Vec<IpAddr>>, IpAddr) {
    let words: Vec<&str> = text.split([' ', ',']).collect();
    let asked = head.split(|&byte| byte == b' ').find(|word| !word.is_empty()).unwrap_or_default();
    let found = match words[..] {
        [name, "->", address, ..] => Some((name.as_bytes(), address)),
        ["AAAA", address, "only", ..] => Some((asked, address)),
        _ => None,
    };
    let listens = || text.split("listens on ").nth(1).and_then(|address| address.parse().ok());
    match found.map(|(name, address)| (name.to_vec(), address.parse().expect("an address"))) {
        Some((name, address)) => (BTreeMap::from([(name, vec![address])]), address),
        None => (BTreeMap::new(), listens().unwrap_or([127, 0, 0, 1].into())),
    }
}

fn steps(folder: &Path, origin: &Value) -> Vec<Step> {
    let file = origin["tx_file"].as_str().map(|name| fs::read(folder.join(name)).expect("a readable file"));
    let mut rest = &file.unwrap_or_default()[..];
    let mut steps = Vec::new();
    for step in list(&origin["script"]) {
        steps.push(match text(&step[0]) {
            "send" => {
                let what = text(&step[1]);
                let inline = hex(what);
                let of_file =
                    || what.split_once(" bytes").and_then(|(length, _)| length.parse().ok()).expect("a length");
                let (now, later) = rest.split_at(inline.as_ref().map_or_else(of_file, Vec::len));
                assert!(inline.is_none_or(|inline| inline == now), "the script and the file say the same");
                rest = later;
                Step::Send(Bytes::copy_from_slice(now))
            }
            "sleep" => Step::Sleep(Duration::from_secs_f64(step[1].as_f64().expect("seconds"))),
            "fin" => Step::Fin,
            "rst" => Step::Reset,
            other => panic!("no such step: {other}"),
        });
    }
    assert!(rest.is_empty(), "everything is sent");
    steps
}
