//! Which transactions may ask for the addresses of a name, and which wait: names without an answer do not delay others.
//!
//! Names that have had addresses before are asked for in a pool of their own. In each pool so many questions are under way at a time, and
//! so many of one client address; who comes later waits for its turn. Clients take turns; of one client's, the oldest and the youngest do, so
//! that behind a heap of slow names a client is served at once. While one waits, a question that has had its time gives way, and when too
//! many wait, the oldest of the client that has most.
//!
//! Pure state, as the cache is: the proxy asks it, and does what [`Lookups::poll`] says.

use std::{
    collections::{BTreeMap, VecDeque},
    fmt::Debug,
    net::IpAddr,
    num::NonZeroUsize,
    time::{Duration, Instant},
};

use bytes::Bytes;
use lru::LruCache;
use serde::{Deserialize, Serialize};

use crate::machine::ms;

/// Limits and times.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Questions under way at a time, in each of the two pools.
    pub max_asking: usize,
    /// Those among them of one client address. Loopback has no such limit: it is this machine, and may stand for many clients.
    pub max_per_client: usize,
    /// Those that wait for their turn, in each of the two pools.
    pub max_waiting: usize,
    /// A question without an answer after so long is slow, and gives way where others wait.
    #[serde(rename = "slow_name_ms", with = "ms")]
    pub slow_name: Duration,
    /// How long one waits for its turn.
    #[serde(rename = "longest_wait_ms", with = "ms")]
    pub longest_wait: Duration,
    /// Names that are remembered as having addresses.
    pub max_known: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            // Each may take half a dozen sockets: two kinds of addresses, asked for again and again.
            max_asking: 64,
            max_per_client: 16,
            max_waiting: 256,
            slow_name: Duration::from_millis(500),
            longest_wait: Duration::from_secs(4),
            max_known: 4096,
        }
    }
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Order<Id> {
    /// Ask for a name.
    Ask {
        /// For whom.
        id: Id,
        /// The name.
        name: Bytes,
        /// To be given back with the answer.
        seq: u64,
    },
    /// End this one: it is slow, and others wait, or it has waited too long.
    GiveWay {
        /// Whom.
        id: Id,
    },
}

#[derive(Debug, Clone)]
struct Question<Id> {
    id: Id,
    name: Bytes,
    seq: u64,
    since: Instant,
}

/// Who asks, and who waits, for one kind of names.
#[derive(Debug)]
struct Pool<Id> {
    /// In the order of their questions.
    asking: VecDeque<(Id, IpAddr, Instant)>,
    asking_of: BTreeMap<IpAddr, usize>,
    waiting: BTreeMap<IpAddr, VecDeque<Question<Id>>>,
    /// Clients with waiting questions, in turn.
    turns: VecDeque<IpAddr>,
    /// Whose turn it is among those of one client.
    is_turn_of_youngest: bool,
}

/// The table. See the top of the file for what it does.
#[derive(Debug)]
pub struct Lookups<Id> {
    config: Config,
    known: LruCache<Bytes, ()>,
    /// For names that are known, and for others.
    pools: [Pool<Id>; 2],
}

impl<Id> Default for Pool<Id> {
    fn default() -> Self {
        Self {
            asking: VecDeque::new(),
            asking_of: BTreeMap::new(),
            waiting: BTreeMap::new(),
            turns: VecDeque::new(),
            is_turn_of_youngest: false,
        }
    }
}

impl<Id: Copy + Eq + Debug> Lookups<Id> {
    /// An empty table.
    #[must_use]
    pub fn new(config: Config) -> Self {
        let known = LruCache::new(NonZeroUsize::new(config.max_known).unwrap_or(NonZeroUsize::MIN));
        Self { config, known, pools: [Pool::default(), Pool::default()] }
    }

    /// A transaction wants the addresses of a name. [`poll`](Self::poll) says when it is its turn.
    pub fn want(&mut self, now: Instant, id: Id, client: IpAddr, name: Bytes, seq: u64) {
        let [known, unknown] = &mut self.pools;
        let pool = if self.known.get(&name).is_some() { known } else { unknown };
        let waiting = pool.waiting.entry(client).or_default();
        if waiting.is_empty() {
            pool.turns.push_back(client);
        }
        waiting.push_back(Question { id, name, seq, since: now });
    }

    /// Whether a name has addresses, as has turned out.
    pub fn learn(&mut self, name: &Bytes, has_addresses: bool) {
        if has_addresses {
            // A copy: a part of a head would keep the whole of it in memory.
            self.known.put(Bytes::copy_from_slice(name), ());
        } else {
            self.known.pop(name);
        }
    }

    /// It has its answer, or does not want it any more.
    pub fn end(&mut self, id: Id) {
        for pool in &mut self.pools {
            pool.end(id);
        }
    }

    /// The next thing to do, until there is none.
    pub fn poll(&mut self, now: Instant) -> Option<Order<Id>> {
        let config = &self.config;
        self.pools.iter_mut().find_map(|pool| pool.poll(config, now))
    }

    /// When to [`poll`](Self::poll) again, if nothing else happens.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.pools.iter().filter_map(|pool| pool.poll_timeout(&self.config)).min()
    }

    /// How many wait for their turn.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.pools.iter().map(Pool::waiting).sum()
    }
}

impl<Id: Copy + Eq + Debug> Pool<Id> {
    fn waiting(&self) -> usize {
        self.waiting.values().map(VecDeque::len).sum()
    }

    fn end(&mut self, id: Id) {
        if let Some(at) = self.asking.iter().position(|(other, ..)| *other == id) {
            self.asked(at);
        }
        let queued = self.waiting.iter().find_map(|(&client, waiting)| {
            waiting.iter().position(|question| question.id == id).map(|at| (client, at))
        });
        if let Some((client, at)) = queued {
            self.take(client, at);
        }
    }

    /// Takes a question that was under way out of the table.
    fn asked(&mut self, at: usize) -> Option<Id> {
        let (id, client, _) = self.asking.remove(at)?;
        if let Some(count) = self.asking_of.get_mut(&client) {
            *count -= 1;
            if *count == 0 {
                self.asking_of.remove(&client);
            }
        }
        Some(id)
    }

    /// Takes a question that waits out of the table.
    fn take(&mut self, client: IpAddr, at: usize) -> Option<Question<Id>> {
        let waiting = self.waiting.get_mut(&client)?;
        let question = waiting.remove(at);
        if waiting.is_empty() {
            self.waiting.remove(&client);
            self.turns.retain(|other| *other != client);
        }
        question
    }

    fn may_ask(&self, client: IpAddr, config: &Config) -> bool {
        client.is_loopback() || self.asking_of.get(&client).copied().unwrap_or(0) < config.max_per_client
    }

    fn poll(&mut self, config: &Config, now: Instant) -> Option<Order<Id>> {
        // Too many, or for too long.
        if self.waiting() > config.max_waiting {
            let most = self.waiting.iter().max_by_key(|(_, waiting)| waiting.len()).map(|(&client, _)| client)?;
            return self.take(most, 0).map(|question| Order::GiveWay { id: question.id });
        }
        if let Some((client, _)) = self.oldest_waiting().filter(|(_, since)| *since + config.longest_wait <= now) {
            return self.take(client, 0).map(|question| Order::GiveWay { id: question.id });
        }
        let next = self.turns.iter().position(|&client| self.may_ask(client, config))?;
        if self.asking.len() >= config.max_asking {
            let is_slow = self.asking.front().is_some_and(|(.., since)| *since + config.slow_name <= now);
            return if is_slow { self.asked(0).map(|id| Order::GiveWay { id }) } else { None };
        }
        let client = self.turns.remove(next)?;
        let last = self.waiting.get(&client).map_or(0, |waiting| waiting.len().saturating_sub(1));
        let at = if self.is_turn_of_youngest { last } else { 0 };
        self.is_turn_of_youngest ^= last > 0;
        let Question { id, name, seq, .. } = self.take(client, at)?;
        if self.waiting.contains_key(&client) {
            self.turns.push_back(client);
        }
        self.asking.push_back((id, client, now));
        *self.asking_of.entry(client).or_default() += 1;
        Some(Order::Ask { id, name, seq })
    }

    fn oldest_waiting(&self) -> Option<(IpAddr, Instant)> {
        let oldest = |(&client, waiting): (&IpAddr, &VecDeque<Question<Id>>)| Some((client, waiting.front()?.since));
        self.waiting.iter().filter_map(oldest).min_by_key(|(_, since)| *since)
    }

    fn poll_timeout(&self, config: &Config) -> Option<Instant> {
        let (_, oldest) = self.oldest_waiting()?;
        let slow = self.asking.front().filter(|_| self.turns.iter().any(|&client| self.may_ask(client, config)));
        let slow = slow.map(|(.., since)| *since + config.slow_name);
        slow.into_iter().chain([oldest + config.longest_wait]).min()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing::first_instant;

    const MS: Duration = Duration::from_millis(1);

    fn config() -> Config {
        Config { max_asking: 4, max_per_client: 2, max_waiting: 6, max_known: 2, ..Config::default() }
    }

    fn client(last: u8) -> IpAddr {
        [192, 0, 2, last].into()
    }

    struct Bench {
        lookups: Lookups<u32>,
        now: Instant,
    }

    impl Bench {
        fn new() -> Self {
            Self { lookups: Lookups::new(config()), now: first_instant() }
        }

        fn want(&mut self, id: u32, from: u8, name: &'static str) -> Vec<String> {
            self.lookups.want(self.now, id, client(from), Bytes::from_static(name.as_bytes()), 7);
            self.does()
        }

        fn end(&mut self, id: u32) -> Vec<String> {
            self.lookups.end(id);
            self.does()
        }

        fn wait(&mut self, time: Duration) -> Vec<String> {
            self.now += time;
            self.does()
        }

        fn does(&mut self) -> Vec<String> {
            let orders = std::iter::from_fn(|| self.lookups.poll(self.now));
            let text = |order| match order {
                Order::Ask { id, name, seq: 7 } => format!("ask {id} {}", name.escape_ascii()),
                Order::Ask { .. } => panic!("{order:?}"),
                Order::GiveWay { id } => format!("give way {id}"),
            };
            orders.map(text).collect()
        }
    }

    #[test]
    fn one_client_leaves_room_for_others() {
        let mut bench = Bench::new();
        assert_eq!(bench.want(1, 1, "a"), ["ask 1 a"]);
        assert_eq!(bench.want(2, 1, "b"), ["ask 2 b"]);
        assert!(bench.want(3, 1, "c").is_empty(), "two of a client at a time");
        assert_eq!(bench.want(4, 2, "d"), ["ask 4 d"]);
        assert_eq!(bench.end(1), ["ask 3 c"]);
        assert!(bench.end(1).is_empty() && bench.end(9).is_empty());
        assert_eq!(bench.lookups.poll_timeout(), None, "nobody waits");
    }

    #[test]
    fn this_machine_may_be_many() {
        let mut bench = Bench::new();
        for id in 0..4 {
            bench.lookups.want(bench.now, id, [127, 0, 0, 1].into(), Bytes::from_static(b"x"), 7);
        }
        assert_eq!(bench.does().len(), 4);
    }

    #[test]
    fn slow_names_give_way_to_those_who_wait() {
        let mut bench = Bench::new();
        for id in 1..=4 {
            assert_eq!(bench.want(id, id as u8, "slow").len(), 1);
        }
        assert!(bench.wait(10_000 * MS).is_empty(), "nobody needs its place");
        let mut bench = Bench::new();
        for id in 1..=4 {
            bench.want(id, id as u8, "slow");
        }
        assert!(bench.want(5, 5, "good").is_empty());
        assert_eq!(bench.lookups.poll_timeout(), Some(bench.now + 500 * MS));
        assert!(bench.wait(499 * MS).is_empty());
        assert_eq!(bench.wait(MS), ["give way 1", "ask 5 good"]);
        assert_eq!(bench.lookups.poll_timeout(), None);
    }

    #[test]
    fn names_with_addresses_do_not_wait_for_others() {
        let mut bench = Bench::new();
        bench.lookups.learn(&Bytes::from_static(b"good"), true);
        for id in 1..=4 {
            bench.want(id, id as u8, "slow");
        }
        assert_eq!(bench.want(5, 5, "good"), ["ask 5 good"]);
        bench.lookups.learn(&Bytes::from_static(b"good"), false);
        assert!(bench.want(6, 6, "good").is_empty(), "it has none any more");
    }

    #[test]
    fn clients_take_turns_and_of_one_the_oldest_and_the_youngest() {
        let mut bench = Bench::new();
        for id in 1..=4 {
            bench.want(id, id as u8, "slow");
        }
        for (id, from) in [(11, 7), (12, 7), (13, 7), (21, 8)] {
            assert!(bench.want(id, from, "x").is_empty());
        }
        let mut asked = Vec::new();
        for id in 1..=4 {
            asked.extend(bench.end(id));
        }
        assert_eq!(asked, ["ask 11 x", "ask 21 x", "ask 13 x"], "two of a client, and one is left");
        assert_eq!(bench.end(11), ["ask 12 x"]);
    }

    #[test]
    fn too_many_and_too_long() {
        let mut bench = Bench::new();
        for id in 1..=4 {
            bench.want(id, id as u8, "slow");
        }
        for id in 11..=16 {
            assert!(bench.want(id, 9, "x").is_empty());
        }
        assert_eq!(bench.want(21, 8, "y"), ["give way 11"], "the oldest of whoever has most");
        let mut bench = Bench::new();
        bench.want(1, 1, "a");
        bench.want(2, 1, "b");
        bench.want(3, 1, "c");
        assert_eq!(bench.lookups.poll_timeout(), Some(bench.now + 4000 * MS));
        assert_eq!(bench.wait(4000 * MS), ["give way 3"]);
    }

    proptest! {
        /// No question is lost, none is answered twice, and no limit is broken.
        #[test]
        fn everybody_is_told_once(
            steps in proptest::collection::vec((0u32..40, 0u8..4, 0u8..5, 0u64..700), 1..200),
        ) {
            let mut bench = Bench::new();
            let (mut wanted, mut asking) = (BTreeMap::new(), BTreeMap::new());
            for (nth, (which, from, kind, time)) in steps.into_iter().enumerate() {
                match kind {
                    0..=2 => {
                        let name = if which % 2 == 0 { "known" } else { "other" };
                        bench.lookups.want(bench.now, nth as u32, client(from), Bytes::from_static(name.as_bytes()), 7);
                        wanted.insert(nth as u32, from);
                    }
                    3 => {
                        bench.lookups.learn(&Bytes::from_static(b"known"), which % 3 > 0);
                        let ids = wanted.keys().chain(asking.keys());
                        if let Some(id) = ids.copied().nth(which as usize % (wanted.len() + asking.len()).max(1)) {
                            bench.lookups.end(id);
                            wanted.remove(&id);
                            asking.remove(&id);
                        }
                    }
                    _ => bench.now += Duration::from_millis(time),
                }
                while let Some(order) = bench.lookups.poll(bench.now) {
                    match order {
                        Order::Ask { id, .. } => {
                            let from = wanted.remove(&id).expect("somebody who waits");
                            asking.insert(id, from);
                        }
                        Order::GiveWay { id } => prop_assert!(wanted.remove(&id).or(asking.remove(&id)).is_some()),
                    }
                }
                prop_assert_eq!(bench.lookups.waiting(), wanted.len());
                prop_assert!(wanted.len() <= 12 && asking.len() <= 8);
                for from in 0..4 {
                    prop_assert!(asking.values().filter(|&&other| other == from).count() <= 4);
                }
                prop_assert!(wanted.is_empty() || bench.lookups.poll_timeout().is_some_and(|due| due > bench.now));
            }
        }
    }
}
