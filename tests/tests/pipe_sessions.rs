//! Captured sessions of Pipe RPC: what deployed nodes said to each other, and what our sessions say in the place of either.
//!
//! The clock is masked, and so is the order between the two directions. Where we answer otherwise on purpose, [`ours`] says so.

use std::{
    collections::BTreeMap,
    fs,
    time::{Duration, Instant},
};

use bytes::Bytes;
use serde_json::Value as Json;
use towline_core::{
    epoch::Epoch,
    pipe::{
        binding::{Config, Event, PipeKey, Refused, SessionBinding},
        codec::{Codec, Receiver},
        message::{Abort, Close, Control, Message, Open, Part, PipeId},
        msgpack::MsgPack,
        receiver::Mode,
        session::Role,
        simple::Simple,
        sync::SyncConfig,
        value::Value,
    },
    testing::first_instant,
};
use towline_tests::vectors::{folder, hex};

fn codec(name: &str) -> Box<dyn Codec> {
    match name {
        "msgpack" => Box::<MsgPack>::default(),
        "simple" => Box::<Simple>::default(),
        other => panic!("unknown codec {other}"),
    }
}

/// A line of a scenario: bytes, or what was seen.
struct Line {
    direction: String,
    bytes: Bytes,
    meaning: String,
    conn: u64,
}

struct Scenario {
    codec: String,
    name: String,
    lines: Vec<Line>,
}

/// All scenarios; none if there are no vectors here.
fn scenarios() -> Vec<Scenario> {
    let Some(folder) = folder("pipe") else { return Vec::new() };
    let text = fs::read_to_string(folder.join("vectors.jsonl")).expect("vectors.jsonl");
    let mut scenarios: BTreeMap<(String, String), Vec<Line>> = BTreeMap::new();
    for line in text.lines() {
        // Half of a surrogate pair, in a codec's vector: no Rust program has text with one.
        let json: Json = serde_json::from_str(&line.replace(r"\ud800", "?")).expect("JSON");
        let text = |member: &str| json[member].as_str().unwrap_or_default().to_owned();
        if text("kind") != "codec" {
            let bytes = hex(&text("hex")).expect("hex digits").into();
            let conn = json["conn"].as_u64().expect("a number");
            let line = Line { direction: text("direction"), bytes, meaning: text("meaning"), conn };
            scenarios.entry((text("codec"), text("scenario"))).or_default().push(line);
        }
    }
    assert!(scenarios.len() > 80, "{} scenarios", scenarios.len());
    scenarios.into_iter().map(|((codec, name), lines)| Scenario { codec, name, lines }).collect()
}

impl Scenario {
    /// What was said in a direction, with the clock masked.
    fn said(&self, direction: &str, conn: u64) -> Vec<Message> {
        let mut receiver = Receiver::new(codec(&self.codec));
        let mut messages = Vec::new();
        for line in self.lines.iter().filter(|line| line.direction == direction && line.conn == conn) {
            receiver.push(line.bytes.clone());
            while let Some(message) = receiver.next_message().expect("a message") {
                messages.push(masked(message));
            }
        }
        messages
    }
}

fn masked(message: Message) -> Message {
    match &message {
        Message::Control(control) if control.code == Control::SYNC_CONFIG => {
            match SyncConfig::from_bytes(&control.data) {
                Ok(sync) => Control::from(SyncConfig { utc_ms: 0, ..sync }).into(),
                Err(_) => message,
            }
        }
        Message::Control(_) | Message::Open(_) | Message::Close(_) | Message::Block(_) => message,
    }
}

/// What we say where a deployed node said something else, and the section of the specification that has it.
fn ours(role: Role, scenario: &str, mut said: Vec<Message>) -> Vec<Message> {
    let abort = |pipe, code, message: &str| -> Message {
        Close { pipe: PipeId::new(pipe).expect("not 0"), result: Err(Abort::new(code, message)) }.into()
    };
    let is_about = |message: &Message, id: u16| message.pipe().is_some_and(|pipe| pipe.get() == id);
    match (role, scenario) {
        // 4.5: a service has abort codes of its own.
        (Role::Server, "session/rpc_failure") => {
            let place = said.iter_mut().find(|message| is_about(message, 5)).expect("the call of function 14");
            *place = abort(5, 77, "custom");
        }
        // 5: an old session is refused by a Control Close.
        (Role::Server, "probe/sync_nonzero_session") => said.push(Control::close().into()),
        // 6: ids have a side.
        (Role::Server, "probe/wrong_side_open") => {
            let place = said.iter_mut().find(|message| is_about(message, 0x8001)).expect("the call");
            *place = abort(0x8001, -1, "wrong pipe-id side: -32767");
        }
        (Role::Client, "client_probe/client_side_id_open") => {
            let place = said.iter_mut().find(|message| is_about(message, 1)).expect("the call");
            *place = abort(1, -1, "wrong pipe-id side: 1");
        }
        // 7: a client dials again only if it is told to.
        (Role::Client, "client_probe/drop_after_sync") => said.truncate(1),
        // 8.2: late blocks are dropped.
        (Role::Server, "probe/block_after_close") => {
            said.retain(|message| *message != abort(1, -1, "unknown pipe-id specified: 1"))
        }
        _ => {}
    }
    said
}

/// A call that the service answers.
struct Running {
    function: u16,
    sum: i64,
    bytes: Vec<u8>,
}

enum Job {
    Answer(PipeKey, Value),
    End { graceful: bool },
}

/// A node with the functions of the vectors' README.
struct Node {
    now: Instant,
    binding: SessionBinding<Box<dyn Codec>>,
    heard: Receiver<Box<dyn Codec>>,
    said: Vec<Message>,
    is_closed: bool,
    is_swapped: bool,
    running: BTreeMap<PipeKey, Running>,
    /// Calls of function 100, and whose result waits for them.
    asked: BTreeMap<PipeKey, PipeKey>,
    jobs: BTreeMap<(Instant, usize), Job>,
    own: BTreeMap<PipeId, PipeKey>,
    /// The call of function 26, which the test itself ends.
    kept: Option<PipeKey>,
}

impl Node {
    /// `sync` is what the node of this scenario says of itself.
    fn new(scenario: &Scenario, role: Role, sync: &SyncConfig) -> Self {
        let now = first_instant();
        let epoch = Epoch { instant: now, unix: Duration::from_secs(1_400_000_000) };
        let config = Config::new(role, sync.node_id, sync.session_id, epoch);
        let mut binding = SessionBinding::new(config, codec(&scenario.codec));
        binding.handle_connected(now);
        let mut node = Self {
            now,
            binding,
            heard: Receiver::new(codec(&scenario.codec)),
            said: Vec::new(),
            is_closed: false,
            is_swapped: false,
            running: BTreeMap::new(),
            asked: BTreeMap::new(),
            jobs: BTreeMap::new(),
            own: BTreeMap::new(),
            kept: None,
        };
        node.settle();
        node
    }

    fn hear(&mut self, bytes: &Bytes) {
        self.binding.handle_data(self.now, bytes.clone());
        self.settle();
    }

    fn hear_end(&mut self) {
        self.binding.handle_end(self.now);
        self.settle();
    }

    fn settle(&mut self) {
        loop {
            while let Some(event) = self.binding.poll_event() {
                self.on_event(event);
            }
            let Some(bytes) = self.binding.poll_write() else { return };
            self.heard.push(bytes);
            self.binding.handle_sent(self.now);
            while let Some(message) = self.heard.next_message().expect("a message") {
                self.said.push(masked(message));
            }
        }
    }

    /// Lets time pass until the next thing happens; says whether there is one.
    fn wait(&mut self) -> bool {
        let Some(((at, _), job)) = self.jobs.pop_first() else { return false };
        self.now = self.now.max(at);
        match job {
            Job::Answer(pipe, value) => self.answer(pipe, Ok(value)),
            Job::End { graceful } => self.binding.end(self.now, graceful),
        }
        self.settle();
        true
    }

    fn later(&mut self, ms: &Value, job: Job) {
        let Value::Int32(ms) = ms else { panic!("{ms:?}") };
        let at = self.now + Duration::from_millis(u64::try_from(*ms).expect("a time"));
        self.jobs.insert((at, self.jobs.len()), job);
    }

    fn answer(&mut self, pipe: PipeKey, result: Result<Value, Abort>) {
        self.running.remove(&pipe);
        // Its caller may have given up.
        let _ = self.binding.close(pipe, result);
    }

    fn on_event(&mut self, event: Event) {
        match event {
            Event::Called { pipe, function, params, .. } => self.on_call(pipe, function, params),
            Event::Block { pipe, loss, payload } => {
                let Some(call) = self.running.get_mut(&pipe) else { return };
                call.bytes.extend_from_slice(&payload);
                if call.function == 20 {
                    let text = std::str::from_utf8(&payload).expect("a decimal text");
                    call.sum += text.parse::<i64>().expect("a number");
                }
                if matches!(call.function, 20 | 25) {
                    self.binding.send(pipe, loss, payload).expect("room");
                }
            }
            Event::Eof { pipe } => {
                let Some(Running { function, sum, bytes }) = self.running.remove(&pipe) else { return };
                let result = match function {
                    20 => Value::Int32(sum as i32),
                    21 => Value::String(String::from_utf8(bytes).expect("text")),
                    23 => Value::Int64(bytes.len() as i64),
                    _ => {
                        self.binding.send_eof(pipe).expect("its first");
                        Value::Null
                    }
                };
                self.answer(pipe, Ok(result));
            }
            Event::Ended { pipe, result, .. } => {
                if let Some(waits) = self.asked.remove(&pipe) {
                    let result = result.map_err(|_| Abort::new(Abort::UNEXPECTED, "unexpected error"));
                    self.answer(waits, result);
                }
            }
            Event::Closed { .. } => self.is_closed = true,
            Event::Opened { .. } | Event::Readable { .. } | Event::Backpressure { .. } => {}
        }
    }

    fn on_call(&mut self, pipe: PipeKey, function: u16, params: Vec<Value>) {
        let takes_blocks = matches!(function, 20 | 21 | 23 | 25);
        let mode = if takes_blocks { Mode::Messages } else { Mode::Discard };
        self.binding.choose(pipe, mode).expect("the opening step");
        let text = |value: Option<&Value>| match value {
            Some(Value::String(text)) => text.clone(),
            other => panic!("{other:?}"),
        };
        match function {
            10 => {
                let word = if self.is_swapped { "bye" } else { "hello" };
                self.answer(pipe, Ok(Value::String(format!("{word}, {}", text(params.first())))));
            }
            _ if self.is_swapped => self.binding.refuse(pipe, Refused::UnknownFunction).expect("a call"),
            11 => self.answer(pipe, Ok(params.into_iter().next().unwrap_or_default())),
            12 => self.answer(pipe, Ok(Value::List(params))),
            13 => self.binding.refuse(pipe, Refused::Unexpected).expect("a call"),
            14 => match &*params {
                [Value::Int32(code), message] => self.answer(pipe, Err(Abort::new(*code, text(Some(message))))),
                other => panic!("{other:?}"),
            },
            15 | 18 => self.binding.refuse(pipe, Refused::Internal).expect("a call"),
            16 => self.later(&params[0], Job::Answer(pipe, params[1].clone())),
            17 => {}
            26 => self.kept = Some(pipe),
            20 | 21 | 23 | 25 => {
                self.running.insert(pipe, Running { function, sum: 0, bytes: Vec::new() });
            }
            22 => {
                let [Value::Int32(lines)] = *params else { panic!("{params:?}") };
                let log: String = (0..lines).map(|line| format!("log-{line}\n")).collect();
                self.binding.send(pipe, Default::default(), log.into()).expect("room");
                self.binding.send_eof(pipe).expect("its first");
                self.answer(pipe, Ok(Value::Null));
            }
            30 => {
                let asked = self.binding.open(self.now, 100, params, 0).expect("a call");
                self.binding.choose(asked, Mode::Discard).expect("the opening step");
                self.asked.insert(asked, pipe);
            }
            31 => {
                self.is_swapped = true;
                self.answer(pipe, Ok("swapped".into()));
            }
            32 => {
                self.later(&params[0], Job::End { graceful: params[1] == Value::Bool(true) });
                self.answer(pipe, Ok("closing".into()));
            }
            100 => self.answer(pipe, Ok(Value::String(text(params.first()).chars().rev().collect()))),
            _ => self.binding.refuse(pipe, Refused::UnknownFunction).expect("a call"),
        }
    }

    /// What the application of a captured client did.
    fn act(&mut self, message: Message) {
        match message {
            Message::Open(Open { pipe, priority, function, params }) => {
                let key = self.binding.open(self.now, function, params, priority).expect("a call");
                self.binding.choose(key, Mode::Messages).expect("the opening step");
                self.own.insert(pipe, key);
            }
            Message::Block(block) => {
                // An answer of the service goes by itself.
                let Some(&key) = self.own.get(&block.pipe) else { return };
                match block.part {
                    Part::Data { loss, payload } => self.binding.send(key, loss, payload).expect("room"),
                    Part::Eof => self.binding.send_eof(key).expect("its first"),
                }
            }
            Message::Close(Close { pipe, result }) => {
                if let Some(&key) = self.own.get(&pipe) {
                    self.binding.close(key, result).expect("a pipe");
                }
            }
            Message::Control(control) if control.code == Control::CLOSE => self.binding.end(self.now, true),
            Message::Control(_) => {}
        }
        self.settle();
    }
}

/// What the side of a direction says of itself.
fn sync_of(messages: &[Message]) -> SyncConfig {
    let sync = messages.iter().find_map(|message| match message {
        Message::Control(control) => SyncConfig::from_bytes(&control.data).ok(),
        Message::Open(_) | Message::Close(_) | Message::Block(_) => None,
    });
    sync.unwrap_or_else(|| SyncConfig::from_bytes(&[1; SyncConfig::LEN]).expect("50 bytes"))
}

fn replay_as_server(scenario: &Scenario, conn: u64) {
    let theirs = scenario.said("S>C", conn);
    let expected = ours(Role::Server, &scenario.name, theirs.clone());
    let mut node = Node::new(scenario, Role::Server, &sync_of(&theirs));
    let mut answers = 0;
    let at = |line: &Line| format!("{}/{}: {}", scenario.codec, scenario.name, line.meaning);
    for line in scenario.lines.iter().filter(|line| line.conn == conn) {
        match (&*line.direction, line.bytes.is_empty()) {
            ("C>S", false) => {
                // The line was held until both had closed.
                if scenario.name == "session/both_close_crossing"
                    && let Some(pipe) = node.kept.take()
                {
                    node.answer(pipe, Ok("from server".into()));
                }
                node.hear(&line.bytes);
            }
            ("S>C", false) => {
                answers += 1;
                while node.said.len() < answers.min(expected.len()) && node.wait() {}
            }
            _ if line.meaning.contains("FIN from client") || line.meaning.contains("client sends FIN") => {
                node.hear_end();
            }
            ("S>C", true) if line.meaning.contains("still open") => assert!(!node.is_closed, "{}", at(line)),
            ("S>C", true) => {
                while !node.is_closed && node.wait() {}
                assert!(node.is_closed, "{}", at(line));
            }
            _ => {}
        }
    }
    assert_eq!(node.said, expected, "{}/{}", scenario.codec, scenario.name);
}

fn replay_as_client(scenario: &Scenario) {
    let theirs = scenario.said("C>S", 1);
    let expected = ours(Role::Client, &scenario.name, theirs.clone());
    let mut node = Node::new(scenario, Role::Client, &sync_of(&theirs));
    let is_probe = scenario.name.starts_with("client_probe/");
    let mut acts = theirs.into_iter();
    let at = |line: &Line| format!("{}/{}: {}", scenario.codec, scenario.name, line.meaning);
    for line in scenario.lines.iter().filter(|line| line.conn < 2) {
        match (&*line.direction, line.bytes.is_empty()) {
            ("S>C", false) => node.hear(&line.bytes),
            ("C>S", false) if !is_probe => node.act(acts.next().expect("a message")),
            ("S>C", true) => node.hear_end(),
            ("note", _) if line.meaning.contains("drops TCP") => node.hear_end(),
            // The same ids come again behind the last one.
            ("note", _) if line.meaning.contains("calls left out") => {
                let said = node.said.len();
                for _ in 0..32_764 {
                    let pipe = node.binding.open(node.now, 10, Vec::new(), 0).expect("a call");
                    node.binding.cancel(pipe).expect("a pipe");
                    node.settle();
                }
                node.said.truncate(said);
            }
            ("C>S", true) if line.meaning.contains("still open") => assert!(!node.is_closed, "{}", at(line)),
            ("C>S", true) if is_probe => assert!(node.is_closed, "{}", at(line)),
            _ => {}
        }
    }
    assert_eq!(node.said, expected, "{}/{}", scenario.codec, scenario.name);
}

#[test]
fn a_server_of_ours_says_what_a_deployed_one_said() {
    let scenarios = scenarios();
    let replayed = scenarios.iter().filter(|scenario| !scenario.name.starts_with("client_probe/")).map(|scenario| {
        replay_as_server(scenario, 1);
        if scenario.lines.iter().any(|line| line.conn == 2) {
            replay_as_server(scenario, 2);
        }
    });
    println!("{} scenarios", replayed.count());
}

#[test]
fn a_client_of_ours_says_what_a_deployed_one_said() {
    let scenarios = scenarios();
    let replayed = scenarios.iter().filter(|scenario| !scenario.name.starts_with("probe/")).map(replay_as_client);
    println!("{} scenarios", replayed.count());
}
