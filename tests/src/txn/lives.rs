//! Random lives of a proxy: many clients, good and bad, origins with habits, names that do not come; all from one seed.

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use bytes::Bytes;
use towline_core::txn::{
    allow::Allow,
    proxy::Config,
    transaction::{KeyMode, Outcome, Serve},
};

use super::world::{Client, Dial, End, Fate, Outside, Step, Then, World};
use crate::random::Random;

/// The end of a run: by then all clients have come, and T9 has passed for each of them.
const LONGEST: Duration = Duration::from_secs(700);

/// An honest client's head, T10, names and addresses (of which one is silent, for T3), and what it takes to take a file.
const SLACK: Duration = Duration::from_secs(25);

const GOOD: [&str; 3] = ["a.test", "b.test", "two.test"];
const BAD: [&str; 5] = ["none.test", "silent.test", "refuses.test", "deaf.test", "inside.test"];

/// Names and origins; what they do follows from what they are asked.
#[derive(Clone)]
struct Habits {
    seed: u64,
    /// With file-only keys a file is the same wherever it is asked for.
    by_file: bool,
}

impl Habits {
    fn chance(&self, server: &[u8], file: &[u8]) -> Random {
        let name = if self.by_file { [b"", file].concat() } else { [server, b" ", file].concat() };
        Random::new(name.iter().fold(self.seed, |hash, &byte| hash.wrapping_mul(0x100_0000_01b3) ^ u64::from(byte)))
    }

    /// The whole file, and the steps in which it comes; one that is broken or stalls has none.
    fn file(&self, server: &[u8], file: &[u8]) -> (Option<Bytes>, Vec<Step>) {
        let mut random = self.chance(server, file);
        let fails = file.starts_with(b"broken") || file.starts_with(b"stalls");
        let length = if file.starts_with(b"empty") { 0 } else { random.below(30_000) + 1 };
        let body: Bytes = (0..length).map(|_| random.number() as u8).collect();
        let mut steps = Vec::new();
        let mut rest = body.clone();
        while !rest.is_empty() {
            let piece = rest.split_to(rest.len().min(random.below(9000) as usize + 1));
            steps.push(Step::Send(piece));
            if random.chance(50) {
                steps.push(Step::Sleep(Duration::from_millis(random.below(2000))));
            }
        }
        if fails {
            steps.truncate(random.below(steps.len() as u64 + 1) as usize);
        }
        if file.starts_with(b"broken") {
            steps.push(Step::Reset);
        } else if !fails {
            steps.push(Step::Fin);
        }
        ((!fails).then_some(body), steps)
    }
}

impl Habits {
    /// How long the origin of a file makes its clients wait.
    fn sleeps(&self, wish: &Wish) -> Duration {
        let (_, steps) = self.file(wish.server.as_bytes(), wish.file.as_bytes());
        let sleep = |step| if let Step::Sleep(time) = step { time } else { Duration::ZERO };
        steps.into_iter().map(sleep).sum()
    }
}

fn names_of(head: &[u8]) -> (&[u8], &[u8]) {
    let mut names = head.split(|&byte| matches!(byte, b' ' | b'\r')).filter(|name| !name.is_empty());
    (names.next().unwrap_or_default(), names.next().unwrap_or_default())
}

impl Outside for Habits {
    fn name(&self, name: &[u8]) -> Option<(Duration, Vec<IpAddr>)> {
        let addresses: &[[u8; 4]] = match std::str::from_utf8(name).unwrap_or_default() {
            "a.test" => &[[198, 18, 0, 1]],
            "b.test" => &[[198, 18, 0, 2]],
            // The first refuses, the second does not answer.
            "two.test" => &[[198, 18, 0, 66], [198, 18, 0, 67], [198, 18, 0, 1]],
            "refuses.test" => &[[198, 18, 0, 66]],
            "deaf.test" => &[[198, 18, 0, 67]],
            "inside.test" => &[[127, 0, 0, 1]],
            "silent.test" => return None,
            _ => &[],
        };
        Some((Duration::from_millis(20), addresses.iter().map(|&address| address.into()).collect()))
    }

    fn dial(&self, address: SocketAddr) -> Dial {
        let wait = Duration::from_millis(30);
        assert!(!address.ip().is_loopback(), "{address} is not allowed");
        match address.ip() {
            IpAddr::V4(ip) if ip.octets()[3] == 66 => Dial::Refuses(wait),
            IpAddr::V4(ip) if ip.octets()[3] == 67 => Dial::Silent,
            _ => Dial::Accepts(wait),
        }
    }

    fn reply(&self, head: &[u8]) -> Vec<Step> {
        assert!(head.ends_with(b"\r\n\r\n") && head.len() <= 2050, "a whole head, and nothing else");
        let (server, file) = names_of(head);
        self.file(server, file).1
    }
}

/// What a client asked for, and whether nothing stands in the way of its getting it.
struct Wish {
    server: String,
    file: String,
    is_honest: bool,
}

fn client(random: &mut Random) -> (Client, Wish) {
    let is_bad = random.chance(40);
    let pick = |random: &mut Random, of: &[&str]| of[random.below(of.len() as u64) as usize].to_owned();
    let servers: &[&str] = if is_bad && random.chance(40) { &BAD } else { &GOOD };
    let server = pick(random, servers);
    let kind = if is_bad { pick(random, &["file", "broken", "stalls", "empty"]) } else { "file".to_owned() };
    let file = format!("{kind}{}", random.below(4));
    let mut head = format!("{server} {file}{}\r\n\r\n", if random.chance(50) { " " } else { "" }).into_bytes();
    let mut then = Then::Waits;
    let mut takes = Some(Duration::from_millis(random.below(20)));
    let mut is_honest = !is_bad;
    if is_bad {
        match random.below(10) {
            0 => head = vec![b'x'; random.below(4000) as usize],
            1 => head.insert(random.below(head.len() as u64) as usize, 0),
            2 => head.truncate(random.below(head.len() as u64) as usize),
            3 => then = Then::Resets(Duration::from_millis(random.below(5000))),
            4 => takes = None,
            5 => takes = Some(Duration::from_secs(random.below(40))),
            _ => {}
        }
    }
    if random.chance(20) {
        // It means nothing.
        head.extend(vec![b' '; random.below(if is_bad { 100_000 } else { 1000 }) as usize]);
    }
    if then == Then::Waits && random.chance(30) {
        then = Then::HalfCloses;
        // Unless it did so before its head was complete.
        is_honest &= head.windows(4).any(|bytes| bytes == b"\r\n\r\n");
    }
    let mut pieces = Vec::new();
    let mut rest = Bytes::from(head);
    while !rest.is_empty() {
        let most = if random.chance(50) { 10 } else { 100_000 };
        let piece = rest.split_to(rest.len().min(random.below(most) as usize + 1));
        let most = if is_bad { 2000 } else { 50 };
        pieces.push((Duration::from_millis(random.below(most)), piece));
        if pieces.len() > 100 {
            pieces.push((Duration::ZERO, std::mem::take(&mut rest)));
        }
    }
    let from = [192, 0, 2, random.below(if is_bad { 2 } else { 200 }) as u8].into();
    let comes = Duration::from_millis(random.below(60_000));
    (Client { comes, from, pieces, then, takes }, Wish { server, file, is_honest })
}

fn config(random: &mut Random) -> Config {
    let mut config = Config::default();
    let transaction = &mut config.transaction;
    transaction.allow = Allow {
        all: false,
        names: vec!["*.test".parse().expect("a pattern")],
        nets: vec!["198.18.0.0/24".parse().expect("a network")],
    };
    if random.chance(50) {
        transaction.serve = Serve::Stored;
    }
    if random.chance(30) {
        transaction.key_mode = KeyMode::File;
    }
    transaction.finish_fetch = random.chance(70);
    transaction.single_flight = random.chance(80);
    transaction.chunk = random.below(9000) as usize + 100;
    if random.chance(30) {
        transaction.flight_timeout = LONGEST;
    }
    if random.chance(30) {
        config.cache.max_bytes = 60_000;
    }
    if random.chance(20) {
        config.cache.max_entries = 2;
    }
    config
}

/// Runs one life. Returns its journal.
///
/// # Errors
/// The invariant that was broken.
pub fn run(seed: u64) -> Result<Vec<String>, String> {
    let mut random = Random::new(seed);
    let config = config(&mut random);
    let (clients, wishes): (Vec<_>, Vec<_>) = (0..random.below(80) + 1).map(|_| client(&mut random)).unzip();
    let drains = random.chance(30).then(|| Duration::from_millis(random.below(90_000)));
    let habits = Habits { seed, by_file: config.transaction.key_mode == KeyMode::File };
    let mut world = World::new(config.clone(), habits.clone(), clients.clone());
    if let Some(after) = drains {
        world.drain_after(after);
    }
    world.run(LONGEST);
    if world.time() >= LONGEST {
        return Err("it has not come to its end".to_owned());
    }
    if world.is_over != drains.is_some() {
        return Err(format!("drained: {drains:?}, ended: {}", world.is_over));
    }
    let counters = world.proxy().counters();
    let is_open = counters.live != 0 || counters.longest_queue != 0 || world.open() != 0;
    if is_open || world.proxy().cache().bytes() > config.cache.max_bytes {
        return Err(format!("something is left: {counters:?}, {} connections", world.open()));
    }
    let roomy = config.cache.max_bytes > 1_000_000 && config.cache.max_entries > 100;
    // Each object is fetched once, as long as nothing is evicted and nothing fails.
    let mut fetched = BTreeSet::new();
    for head in &world.heads {
        let (server, file) = names_of(head);
        let key = (if habits.by_file { &b""[..] } else { server }, file);
        let is_patient = config.transaction.serve == Serve::Stored || config.transaction.flight_timeout == LONGEST;
        let waits = config.transaction.single_flight && config.transaction.finish_fetch && is_patient;
        let is_stored = file.starts_with(b"file") && roomy && waits;
        if !fetched.insert(key) && is_stored && drains.is_none() {
            return Err(format!("fetched twice: {}", head.escape_ascii()));
        }
    }
    for (nth, ((fate, wish), client)) in world.fates.iter().zip(&wishes).zip(&clients).enumerate() {
        check(fate, wish, &habits)
            .and_then(|()| {
                let is_served =
                    fate.record.as_ref().is_some_and(|record| matches!(record.outcome, Outcome::Served { .. }));
                // Without waiting for each other, who comes while another one writes is not served in `stored` mode (E4).
                let is_alone = config.transaction.single_flight || config.transaction.serve == Serve::Streamed;
                let fits = roomy || config.transaction.serve == Serve::Streamed;
                if !wish.is_honest || drains.is_some() || !is_alone || !fits {
                    return Ok(());
                }
                if !is_served {
                    return Err("an honest client was not served".to_owned());
                }
                // Whatever others do, it waits for the origin of its file, for T10, and for a few seconds of its own.
                let origin: Duration = habits.sleeps(wish);
                let is_held_up =
                    fate.record.as_ref().is_some_and(|record| Duration::from_millis(record.ms) > origin + SLACK);
                let may_wait =
                    config.transaction.serve == Serve::Stored || config.transaction.flight_timeout == LONGEST;
                if is_held_up && !may_wait {
                    return Err("an honest client was held up".to_owned());
                }
                Ok(())
            })
            .map_err(|fault| format!("client {nth}: {fault}\n{client:?}\n{fate:?}\n{config:?}"))?;
    }
    Ok(world.journal)
}

/// What holds for every client, good or bad.
fn check(fate: &Fate, wish: &Wish, habits: &Habits) -> Result<(), String> {
    let Some((end, _)) = fate.end else { return Err("it waits for ever".to_owned()) };
    let (body, steps) = habits.file(wish.server.as_bytes(), wish.file.as_bytes());
    let sent = steps.iter().filter_map(|step| match step {
        Step::Send(bytes) => Some(bytes.clone()),
        Step::Sleep(_) | Step::Fin | Step::Reset => None,
    });
    let sent: Vec<u8> = sent.flatten().collect();
    if !sent.starts_with(&fate.received) {
        return Err("what it was given is not what the origin has".to_owned());
    }
    let has_all = body.as_ref().is_some_and(|body| *body == fate.received);
    let outcome = fate.record.as_ref().map(|record| record.outcome);
    let is_served = matches!(outcome, Some(Outcome::Served { .. }));
    match end {
        End::Fin if is_served && !has_all => Err("served, it says".to_owned()),
        End::Fin if !is_served && !fate.received.is_empty() => Err("a piece looks like the whole".to_owned()),
        End::Reset if is_served => Err("served, and reset".to_owned()),
        End::Fin | End::Reset | End::Left => Ok(()),
    }
}
