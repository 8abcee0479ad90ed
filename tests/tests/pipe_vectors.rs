//! The vectors of Pipe RPC's codecs: bytes that deployed nodes wrote, read and refused (docs/protocols/pipe.md, Items, Messages and Values).
//!
//! Two are not as there, on purpose: a length of 128 MiB is refused, not waited for (CAP-1), and half of a surrogate pair is no text here (VAL-4),
//! so only what deployed nodes make of one is looked at.

use std::{
    fs,
    io::Write as _,
    process::{Command, Stdio},
    thread,
};

use serde_json::{Value as Json, json};
use sha2::{Digest, Sha256};
use towline_core::pipe::{
    codec::{Codec, DecodeError, Receiver},
    json,
    message::{Close, Message, Open, PipeId},
    msgpack::MsgPack,
    simple::Simple,
    value::{Struct, Value},
};
use towline_tests::{
    programs::path_of,
    vectors::{folder, hex},
};

const CODECS: [&str; 2] = ["msgpack", "simple"];

fn codec(name: &str) -> Box<dyn Codec> {
    match name {
        "msgpack" => Box::<MsgPack>::default(),
        "simple" => Box::<Simple>::default(),
        other => panic!("unknown codec {other}"),
    }
}

struct Vector {
    name: String,
    codec: String,
    json: Json,
}

impl Vector {
    fn text(&self, member: &str) -> &str {
        self.json[member].as_str().unwrap_or_default()
    }

    fn codec(&self) -> Box<dyn Codec> {
        codec(&self.codec)
    }

    /// The bytes, unless only their digest is there.
    fn bytes(&self) -> Option<Vec<u8>> {
        let is_whole = self.json.get("sha256").is_none();
        is_whole.then(|| hex(self.text("hex")).expect("hex digits"))
    }

    /// What the bytes mean.
    fn message(&self) -> Option<Message> {
        let message = self.json.get("decoded").or(self.json.get("msg"))?;
        let line = expanded(message.clone()).to_string();
        Some(json::from_line(&line).unwrap_or_else(|error| panic!("{}: {error}", self.name)))
    }

    fn encoded(&self, message: &Message) -> Vec<u8> {
        let mut out = bytes::BytesMut::new();
        self.codec().encode(message, &mut out).unwrap_or_else(|error| panic!("{}: {error}", self.name));
        out.to_vec()
    }

    /// Whether these are the bytes.
    fn is(&self, bytes: &[u8]) -> bool {
        self.bytes().map_or_else(
            || {
                Some(bytes.len() as u64) == self.json["len"].as_u64()
                    && bytes.starts_with(&hex(self.text("hex_prefix")).expect("hex digits"))
                    && Some(Sha256::digest(bytes).to_vec()) == hex(self.text("sha256"))
            },
            |expected| expected == bytes,
        )
    }
}

/// A message in its full form: vectors shorten what is long.
fn expanded(json: Json) -> Json {
    match json {
        Json::Array(values) => values.into_iter().map(expanded).collect(),
        Json::Object(members) => {
            let by_rule = |length: &Json| {
                let length = length.as_u64().expect("a length");
                (0..length).map(|nth| format!("{:02x}", (nth * 7 + 3) % 256)).collect::<String>()
            };
            if let Some(length) = members.get("len") {
                return json!({"t": "bin", "hex": by_rule(length)});
            }
            if let Some(count) = members.get("repeat").and_then(Json::as_u64) {
                return json!({"t": "list", "v": vec![expanded(members["of"].clone()); count as usize]});
            }
            members
                .into_iter()
                .map(|(name, member)| match &*name {
                    "payload_len" => ("payload".to_owned(), by_rule(&member).into()),
                    _ => (name, expanded(member)),
                })
                .collect()
        }
        other => other,
    }
}

/// All vectors; none if there are no vectors here.
fn vectors() -> Vec<Vector> {
    let Some(folder) = folder("pipe") else { return Vec::new() };
    let text = fs::read_to_string(folder.join("vectors.jsonl")).expect("vectors.jsonl");
    let read = |line: &str| {
        // Half of a surrogate pair, in what is only written: no Rust program has text with one.
        let line = line.replace(r"\ud800", "?");
        let json: Json = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{line}: {error}"));
        let text = |member: &str| json[member].as_str().expect("text").to_owned();
        Vector { name: text("name"), codec: text("codec"), json }
    };
    let vectors: Vec<Vector> = text.lines().map(read).collect();
    assert!(vectors.len() > 1000, "{} vectors", vectors.len());
    vectors
}

fn of_codecs() -> Vec<Vector> {
    let mut vectors = vectors();
    vectors.retain(|vector| vector.json["kind"] == "codec");
    vectors
}

/// What is read first of these pieces, and how many bytes that takes.
fn read(vector: &Vector, pieces: &[&[u8]]) -> Result<(Option<Message>, u64), DecodeError> {
    let mut receiver = Receiver::new(vector.codec());
    for piece in pieces {
        receiver.push(bytes::Bytes::copy_from_slice(piece));
        if let Some(message) = receiver.next_message()? {
            return Ok((Some(message), receiver.taken()));
        }
    }
    Ok((None, receiver.taken()))
}

/// The same, whole, byte by byte, and cut in two at each place; of long ones, which would take minutes, at some.
fn read_each_way(vector: &Vector, bytes: &[u8]) -> Result<(Option<Message>, u64), DecodeError> {
    let whole = read(vector, &[bytes]);
    let one_by_one: Vec<&[u8]> = bytes.chunks(1).collect();
    assert_eq!(read(vector, &one_by_one), whole, "{}: byte by byte", vector.name);
    let is_near_an_end = |at: usize| at < 64 || bytes.len() - at < 64;
    let is_tried = |at: &usize| bytes.len() < 5_000 || is_near_an_end(*at) || at.is_multiple_of(4_099);
    for at in (0..=bytes.len()).filter(is_tried) {
        let (first, second) = bytes.split_at(at);
        assert_eq!(read(vector, &[first, second]), whole, "{}: cut at {at}", vector.name);
    }
    whole
}

/// Does it with each in its turn, and says with how many.
fn each(vectors: &[Vector], check: impl Fn(&Vector) -> bool + Sync) {
    let halves = vectors.chunks(vectors.len().div_ceil(2).max(1));
    let checked: usize = thread::scope(|scope| {
        let halves = halves.map(|half| scope.spawn(|| half.iter().filter(|vector| check(vector)).count()));
        halves.collect::<Vec<_>>().into_iter().map(|half| half.join().expect("no panic")).sum()
    });
    println!("{checked} vectors");
    assert!(vectors.is_empty() || checked > 0);
}

#[test]
fn what_deployed_nodes_write_is_written_and_read() {
    each(&of_codecs(), |vector| {
        if vector.text("direction") != "encode+decode" {
            return false;
        }
        let message = vector.message().expect("a message");
        let bytes = vector.encoded(&message);
        assert!(vector.is(&bytes), "{}: {}", vector.name, vector.text("meaning"));
        assert_eq!(read_each_way(vector, &bytes), Ok((Some(message), bytes.len() as u64)), "{}", vector.name);
        true
    });
}

#[test]
fn what_deployed_nodes_read_is_read() {
    each(&of_codecs(), |vector| {
        if vector.text("direction") != "decode" {
            return false;
        }
        let found = read_each_way(vector, &vector.bytes().expect("bytes"));
        let is_as_expected = match vector.text("expect") {
            "ok" => found == Ok((vector.message(), vector.json["consumed"].as_u64().expect("a number"))),
            "incomplete" if vector.name == "msgpack/decode/raw32_128m" => {
                found.as_ref().is_err_and(|error| error.fault.name() == "too-large")
            }
            "incomplete" => found == Ok((None, 0)),
            "decode-error" => found.is_err(),
            other => panic!("{}: unknown expectation {other}", vector.name),
        };
        assert!(is_as_expected, "{}: {}: {found:?}", vector.name, vector.text("meaning"));
        true
    });
}

#[test]
fn what_deployed_nodes_refuse_to_write_is_refused() {
    let pipe = PipeId::new(1).expect("not 0");
    let open = |value: Value| Message::from(Open { pipe, priority: 0, function: 10, params: vec![value] });
    let bytes = |length: usize| Value::Binary(vec![0; length].into());
    each(&of_codecs(), |vector| {
        if vector.text("direction") != "encode-reject" {
            return false;
        }
        let (_, name) = vector.name.split_once('/').expect("a codec before the name");
        let message = match name {
            "value/list_65536" => open(Value::List(vec![Value::Null; 65_536])),
            "value/struct_256" => open(Struct { schema: "s".into(), fields: vec![Value::Null; 256] }.into()),
            "limit/close_bin_65510" => Close { pipe, result: Ok(bytes(65_510)) }.into(),
            "limit/open_bin_65536" => open(bytes(65_536)),
            // There is no such value here.
            "value/unsupported_bigint" => return true,
            other => panic!("{other}: {}", vector.text("meaning")),
        };
        let mut out = bytes::BytesMut::from(&b"before"[..]);
        assert!(vector.codec().encode(&message, &mut out).is_err(), "{}", vector.name);
        assert_eq!(out, "before", "{}", vector.name);
        true
    });
}

/// Captured sessions are messages, too.
#[test]
fn messages_of_sessions_are_read_and_written() {
    let mut vectors = vectors();
    vectors.retain(|vector| vector.json["kind"] != "codec" && vector.json.get("msg").is_some());
    each(&vectors, |vector| {
        let message = vector.message().expect("a message");
        let bytes = vector.encoded(&message);
        assert!(vector.is(&bytes), "{}: {}", vector.name, vector.text("meaning"));
        assert_eq!(read(vector, &[&bytes]), Ok((Some(message), bytes.len() as u64)), "{}", vector.name);
        true
    });
}

/// What `towline pipe TOOL` makes of the input, and its exit code.
fn towline(tool: &str, codec: &str, input: &[u8]) -> (Vec<u8>, Option<i32>) {
    let mut command = Command::new(path_of("towline"));
    command.args(["pipe", tool, "--codec", codec]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().expect("towline");
    let mut stdin = child.stdin.take().expect("its input");
    let output = thread::scope(|scope| {
        scope.spawn(move || stdin.write_all(input));
        child.wait_with_output().expect("its output")
    });
    (output.stdout, output.status.code())
}

#[test]
fn the_program_writes_and_reads_them() {
    let vectors = of_codecs();
    for codec in CODECS {
        let is_whole = |vector: &&Vector| vector.codec == codec && vector.text("direction") == "encode+decode";
        let (mut lines, mut bytes) = (String::new(), Vec::new());
        for vector in vectors.iter().filter(is_whole) {
            let message = vector.message().expect("a message");
            lines += &json::to_line(&message);
            lines.push('\n');
            bytes.extend(vector.encoded(&message));
        }
        assert!(towline("encode", codec, lines.as_bytes()) == (bytes.clone(), Some(0)), "{codec}");
        assert!(towline("decode", codec, &bytes) == (lines.into_bytes(), Some(0)), "{codec}");
    }
    // Messages as vectors show them are lines that the program prints: full, with `sync`, and nothing else.
    for vector in &vectors {
        let (true, Some(bytes)) = (vector.text("direction") == "encode+decode", vector.bytes()) else { continue };
        let Ok((Some(message), _)) = read(vector, &[&bytes]) else { panic!("{}", vector.name) };
        let printed: Json = serde_json::from_str(&json::to_line(&message)).expect("JSON");
        let shown = vector.json.get("decoded").unwrap_or(&vector.json["msg"]);
        assert_eq!(printed, expanded(shown.clone()), "{}", vector.name);
    }
}
