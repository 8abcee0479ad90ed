//! The cache, and who waits for whom: tables without I/O (docs/protocols/txn-states.md, Cache).

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::{Bytes, BytesMut};
use lru::LruCache;
use serde::{Deserialize, Serialize};

use crate::machine::ms;

/// Smaller pieces are gathered into chunks of this size: a few bytes must not keep a whole read buffer alive, nor have a chunk to themselves.
/// Half a buffer: so the cache takes at most twice the memory that it counts.
const KEEP_FROM: usize = 32 * 1024;

/// Bounds of the cache.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Bytes of all objects, those included that are being written, with their keys.
    pub max_bytes: u64,
    /// Bytes of one object.
    pub max_object: u64,
    /// Objects.
    pub max_entries: usize,
    /// How long an object is served; without it for ever, as there is no freshness in this protocol.
    #[serde(rename = "max_age_ms", with = "ms::option")]
    pub max_age: Option<Duration>,
    /// Transactions that may wait for the fetch of one object.
    pub max_waiters: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            max_bytes: 256 * 1024 * 1024,
            max_object: 16 * 1024 * 1024,
            max_entries: 100_000,
            max_age: None,
            max_waiters: 256,
        }
    }
}

/// A stored object: the chunks in which it came.
#[derive(Debug)]
struct Object {
    chunks: Vec<Bytes>,
    len: u64,
    stored: Instant,
}

/// An object that is being read. It stays readable when the cache drops it.
#[derive(Debug, Clone)]
pub struct Reader {
    object: Arc<Object>,
    chunk: usize,
    offset: usize,
}

impl Reader {
    /// Bytes of the object.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.object.len
    }

    /// Whether it has none, which no stored object has.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The next bytes, at most `max`; `None` at the end.
    pub fn read(&mut self, max: usize) -> Option<Bytes> {
        let chunk = self.object.chunks.get(self.chunk)?;
        let end = chunk.len().min(self.offset.saturating_add(max));
        let bytes = chunk.slice(self.offset..end);
        self.offset = end;
        if end == chunk.len() {
            (self.chunk, self.offset) = (self.chunk + 1, 0);
        }
        Some(bytes)
    }
}

#[derive(Debug, Default)]
struct Writing {
    chunks: Vec<Bytes>,
    /// Small pieces, not yet a chunk.
    tail: BytesMut,
    len: u64,
}

impl Writing {
    fn add(&mut self, bytes: Bytes) {
        self.len += bytes.len() as u64;
        if bytes.len() >= KEEP_FROM {
            self.end_tail();
            self.chunks.push(bytes);
            return;
        }
        self.tail.extend_from_slice(&bytes);
        if self.tail.len() >= KEEP_FROM {
            self.end_tail();
        }
    }

    fn end_tail(&mut self) {
        if !self.tail.is_empty() {
            // Without the room that it has grown beyond its bytes.
            self.chunks.push(Bytes::copy_from_slice(&self.tail));
            self.tail.clear();
        }
    }
}

/// Why a write does not go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WriteError {
    /// Another one writes the same object.
    #[error("another transaction is writing it")]
    Locked,
    /// There is no room, whatever is evicted.
    #[error("no room in the cache")]
    Full,
    /// The object is larger than any may be.
    #[error("larger than an object may be")]
    TooLarge,
    /// No transaction has begun to write it.
    #[error("nobody has begun to write it")]
    NotBegun,
}

/// Objects by key, the least recently used out first.
///
/// An object that is being written is visible to no reader, and is never evicted.
#[derive(Debug)]
pub struct Cache {
    config: Config,
    // Bounded by bytes and entries here; the crate keeps the order.
    objects: LruCache<Bytes, Arc<Object>>,
    writing: BTreeMap<Bytes, Writing>,
    bytes: u64,
    evictions: u64,
}

impl Cache {
    /// An empty cache.
    #[must_use]
    pub fn new(config: Config) -> Self {
        Self { config, objects: LruCache::unbounded(), writing: BTreeMap::new(), bytes: 0, evictions: 0 }
    }

    /// Bytes in it, those included that are being written, with their keys.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Objects in it.
    #[must_use]
    pub fn entries(&self) -> usize {
        self.objects.len()
    }

    /// Objects that had to go for others.
    #[must_use]
    pub fn evictions(&self) -> u64 {
        self.evictions
    }

    /// Finds an object, which is now the most recently used.
    pub fn open_read(&mut self, now: Instant, key: &Bytes) -> Option<Reader> {
        let object = self.objects.get(key)?;
        if self.config.max_age.is_some_and(|age| now.saturating_duration_since(object.stored) > age) {
            self.purge(key);
            return None;
        }
        Some(Reader { object: object.clone(), chunk: 0, offset: 0 })
    }

    /// Begins to write an object.
    ///
    /// # Errors
    /// Another one writes it, or its key alone is too much.
    pub fn open_write(&mut self, key: &Bytes) -> Result<(), WriteError> {
        if self.writing.contains_key(key) {
            return Err(WriteError::Locked);
        }
        self.reserve(key.len() as u64)?;
        // Not the piece of a read buffer that it came in.
        self.writing.insert(Bytes::copy_from_slice(key), Writing::default());
        Ok(())
    }

    /// Adds to an object.
    ///
    /// # Errors
    /// There is no room, the object is too large, or no transaction has begun it. What was written stays until [`abort`](Self::abort).
    pub fn write(&mut self, key: &Bytes, bytes: Bytes) -> Result<(), WriteError> {
        let len = bytes.len() as u64;
        let writing = self.writing.get(key).ok_or(WriteError::NotBegun)?;
        if writing.len + len > self.config.max_object {
            return Err(WriteError::TooLarge);
        }
        self.reserve(len)?;
        let writing = self.writing.get_mut(key).ok_or(WriteError::NotBegun)?;
        writing.add(bytes);
        Ok(())
    }

    /// Shows a complete object to everybody, in place of an older one.
    ///
    /// # Errors
    /// No transaction has begun to write it.
    pub fn commit(&mut self, now: Instant, key: &Bytes) -> Result<(), WriteError> {
        let (key, mut writing) = self.writing.remove_entry(key).ok_or(WriteError::NotBegun)?;
        writing.end_tail();
        let Writing { mut chunks, len, .. } = writing;
        chunks.shrink_to_fit();
        self.purge(&key);
        self.objects.put(key, Arc::new(Object { chunks, len, stored: now }));
        while self.objects.len() > self.config.max_entries {
            self.evict();
        }
        Ok(())
    }

    /// Forgets what was written of an object.
    pub fn abort(&mut self, key: &Bytes) {
        if let Some((key, writing)) = self.writing.remove_entry(key) {
            self.bytes -= key.len() as u64 + writing.len;
        }
    }

    /// Forgets a stored object; says whether there was one.
    pub fn purge(&mut self, key: &Bytes) -> bool {
        match self.objects.pop_entry(key) {
            Some((key, object)) => {
                self.bytes -= key.len() as u64 + object.len;
                true
            }
            None => false,
        }
    }

    /// Makes room, by evicting what has not been used for longest.
    fn reserve(&mut self, len: u64) -> Result<(), WriteError> {
        while self.bytes + len > self.config.max_bytes {
            if !self.evict() {
                return Err(WriteError::Full);
            }
        }
        self.bytes += len;
        Ok(())
    }

    fn evict(&mut self) -> bool {
        let Some((key, object)) = self.objects.pop_lru() else { return false };
        self.bytes -= key.len() as u64 + object.len;
        self.evictions += 1;
        true
    }
}

/// Who waits for the fetch of which object, in order (rule P3).
#[derive(Debug)]
pub struct Flights<W> {
    max_waiters: usize,
    waiting: BTreeMap<Bytes, VecDeque<W>>,
}

impl<W: PartialEq> Flights<W> {
    /// No transaction waits; at most so many may, for one object.
    #[must_use]
    pub fn new(max_waiters: usize) -> Self {
        Self { max_waiters, waiting: BTreeMap::new() }
    }

    /// Adds a waiting transaction; returns whether there was room.
    #[must_use]
    pub fn join(&mut self, key: &Bytes, who: W) -> bool {
        let has_room = self.waiting.get(key).map_or(0, VecDeque::len) < self.max_waiters;
        if has_room {
            self.waiting.entry(key.clone()).or_default().push_back(who);
        }
        has_room
    }

    /// A transaction waits no longer.
    pub fn leave(&mut self, key: &Bytes, who: &W) {
        if let Some(waiting) = self.waiting.get_mut(key) {
            waiting.retain(|other| other != who);
            if waiting.is_empty() {
                self.waiting.remove(key);
            }
        }
    }

    /// The fetch is over: everybody who has waited for it, in order.
    #[must_use]
    pub fn land(&mut self, key: &Bytes) -> VecDeque<W> {
        self.waiting.remove(key).unwrap_or_default()
    }

    /// The longest queue.
    #[must_use]
    pub fn longest(&self) -> usize {
        self.waiting.values().map(VecDeque::len).max().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing::first_instant;

    fn key(name: u8) -> Bytes {
        Bytes::from(vec![b'k', name])
    }

    fn store(cache: &mut Cache, now: Instant, name: u8, body: &[u8]) -> Result<(), WriteError> {
        cache.open_write(&key(name))?;
        if let Err(error) = cache.write(&key(name), Bytes::copy_from_slice(body)) {
            cache.abort(&key(name));
            return Err(error);
        }
        cache.commit(now, &key(name))
    }

    fn read(cache: &mut Cache, now: Instant, name: u8, max: usize) -> Option<Vec<u8>> {
        let mut reader = cache.open_read(now, &key(name))?;
        let mut body = Vec::new();
        while let Some(bytes) = reader.read(max) {
            assert!(!bytes.is_empty() && bytes.len() <= max);
            body.extend_from_slice(&bytes);
        }
        assert_eq!(body.len() as u64, reader.len());
        Some(body)
    }

    #[test]
    fn the_least_recently_used_goes_first_and_what_is_written_never() {
        let now = first_instant();
        let mut cache = Cache::new(Config { max_bytes: 20, ..Config::default() });
        store(&mut cache, now, 1, b"12345").unwrap();
        store(&mut cache, now, 2, b"12345").unwrap();
        assert_eq!(cache.bytes(), 14);
        assert!(read(&mut cache, now, 1, 2).is_some());
        cache.open_write(&key(3)).unwrap();
        cache.write(&key(3), Bytes::from_static(b"123456")).unwrap();
        assert!(read(&mut cache, now, 2, 2).is_none(), "evicted");
        assert!(read(&mut cache, now, 3, 2).is_none(), "not yet to be seen");
        assert!(read(&mut cache, now, 1, 2).is_some());
        assert_eq!(cache.write(&key(3), Bytes::from(vec![0; 13])), Err(WriteError::Full));
        assert_eq!((cache.entries(), cache.evictions()), (0, 2), "it tried");
        cache.abort(&key(3));
        assert_eq!(cache.bytes(), 0);
    }

    #[test]
    fn a_reader_keeps_what_the_cache_drops() {
        let now = first_instant();
        let mut cache = Cache::new(Config::default());
        store(&mut cache, now, 1, b"12345").unwrap();
        let mut reader = cache.open_read(now, &key(1)).unwrap();
        assert!(cache.purge(&key(1)));
        assert_eq!(reader.read(3).as_deref(), Some(&b"123"[..]));
        assert_eq!(reader.read(3).as_deref(), Some(&b"45"[..]));
        assert_eq!(reader.read(3), None);
    }

    #[test]
    fn bounds_and_locks() {
        let now = first_instant();
        let config =
            Config { max_object: 4, max_entries: 2, max_age: Some(Duration::from_secs(9)), ..Config::default() };
        let mut cache = Cache::new(config);
        assert_eq!(store(&mut cache, now, 1, b"12345"), Err(WriteError::TooLarge));
        for name in 1..=3 {
            store(&mut cache, now, name, b"1").unwrap();
        }
        assert_eq!(cache.entries(), 2);
        cache.open_write(&key(3)).unwrap();
        assert_eq!(cache.open_write(&key(3)), Err(WriteError::Locked));
        assert_eq!(cache.write(&key(4), Bytes::from_static(b"1")), Err(WriteError::NotBegun));
        assert_eq!(cache.commit(now, &key(4)), Err(WriteError::NotBegun));
        assert!(read(&mut cache, now + Duration::from_secs(9), 2, 1).is_some());
        assert!(read(&mut cache, now + Duration::from_secs(10), 2, 1).is_none(), "too old");
        assert_eq!(cache.entries(), 1);
    }

    #[test]
    fn small_pieces_are_gathered() {
        let now = first_instant();
        let mut cache = Cache::new(Config::default());
        cache.open_write(&key(1)).unwrap();
        let mut expected = Vec::new();
        for nth in 0..80_000u32 {
            let piece = [nth as u8];
            expected.extend(piece);
            cache.write(&key(1), Bytes::copy_from_slice(&piece)).unwrap();
        }
        let large = Bytes::from(vec![7; KEEP_FROM]);
        cache.write(&key(1), large.clone()).unwrap();
        expected.extend(&large);
        cache.commit(now, &key(1)).unwrap();
        let mut reader = cache.open_read(now, &key(1)).unwrap();
        let chunks: Vec<_> = std::iter::from_fn(|| reader.read(usize::MAX)).collect();
        assert_eq!(
            chunks.iter().map(Bytes::len).collect::<Vec<_>>(),
            [KEEP_FROM, KEEP_FROM, 80_000 - 2 * KEEP_FROM, KEEP_FROM]
        );
        assert_eq!(chunks.last().map(|chunk| chunk.as_ptr()), Some(large.as_ptr()), "a large one is not copied");
        assert_eq!(chunks.concat(), expected);
    }

    #[test]
    fn flights_land_in_order() {
        let mut flights = Flights::new(2);
        assert!(flights.join(&key(1), 'a') && flights.join(&key(1), 'b') && flights.join(&key(2), 'd'));
        assert!(!flights.join(&key(1), 'c'));
        assert_eq!(flights.longest(), 2);
        let mut nobody = Flights::new(0);
        assert!(!nobody.join(&key(1), 'a') && nobody.waiting.is_empty());
        flights.leave(&key(1), &'a');
        assert!(flights.join(&key(1), 'c'));
        assert_eq!(flights.land(&key(1)), ['b', 'c']);
        assert_eq!(flights.land(&key(1)), Vec::<char>::new());
        flights.leave(&key(2), &'d');
        assert_eq!(flights.longest(), 0);
    }

    /// A cache as one would write it without a thought for speed.
    #[derive(Default)]
    struct Naive {
        /// Least recently used first.
        objects: Vec<(u8, Vec<u8>)>,
        writing: BTreeMap<u8, Vec<u8>>,
    }

    impl Naive {
        fn bytes(&self) -> usize {
            let sizes = self.objects.iter().map(|(_, body)| body).chain(self.writing.values());
            sizes.map(|body| 2 + body.len()).sum()
        }

        fn fit(&mut self, len: usize, max: usize) -> bool {
            while self.bytes() + len > max {
                if self.objects.is_empty() {
                    return false;
                }
                self.objects.remove(0);
            }
            true
        }
    }

    #[derive(Debug, Clone)]
    enum Step {
        Read(u8),
        Open(u8),
        Write(u8, usize),
        Commit(u8),
        Abort(u8),
        Purge(u8),
    }

    fn step() -> impl Strategy<Value = Step> {
        let name = 0u8..4;
        prop_oneof![
            name.clone().prop_map(Step::Read),
            name.clone().prop_map(Step::Open),
            (name.clone(), 1usize..12).prop_map(|(name, len)| Step::Write(name, len)),
            name.clone().prop_map(Step::Commit),
            name.clone().prop_map(Step::Abort),
            name.prop_map(Step::Purge),
        ]
    }

    proptest! {
        #[test]
        fn does_what_a_naive_one_does(steps in proptest::collection::vec(step(), 0..120)) {
            const MAX: usize = 40;
            const ENTRIES: usize = 3;
            let now = first_instant();
            let mut cache = Cache::new(Config {
                max_bytes: MAX as u64, max_object: 16, max_entries: ENTRIES, ..Config::default()
            });
            let mut naive = Naive::default();
            let mut fill = 0u8;
            for step in steps {
                match step {
                    Step::Read(name) => {
                        let at = naive.objects.iter().position(|(other, _)| *other == name);
                        let expected = at.map(|at| {
                            let object = naive.objects.remove(at);
                            naive.objects.push(object.clone());
                            object.1
                        });
                        prop_assert_eq!(read(&mut cache, now, name, 5), expected);
                    }
                    Step::Open(name) => {
                        let expected = if naive.writing.contains_key(&name) {
                            Err(WriteError::Locked)
                        } else if naive.fit(2, MAX) {
                            naive.writing.insert(name, Vec::new());
                            Ok(())
                        } else {
                            Err(WriteError::Full)
                        };
                        prop_assert_eq!(cache.open_write(&key(name)), expected);
                    }
                    Step::Write(name, len) => {
                        fill = fill.wrapping_add(1);
                        let expected = match naive.writing.get(&name).map(Vec::len) {
                            None => Err(WriteError::NotBegun),
                            Some(written) if written + len > 16 => Err(WriteError::TooLarge),
                            Some(_) if naive.fit(len, MAX) => {
                                naive.writing.get_mut(&name).unwrap().extend(vec![fill; len]);
                                Ok(())
                            }
                            Some(_) => Err(WriteError::Full),
                        };
                        prop_assert_eq!(cache.write(&key(name), Bytes::from(vec![fill; len])), expected);
                    }
                    Step::Commit(name) => {
                        let expected = match naive.writing.remove(&name) {
                            None => Err(WriteError::NotBegun),
                            Some(body) => {
                                naive.objects.retain(|(other, _)| *other != name);
                                naive.objects.push((name, body));
                                let over = naive.objects.len().saturating_sub(ENTRIES);
                                naive.objects.drain(..over);
                                Ok(())
                            }
                        };
                        prop_assert_eq!(cache.commit(now, &key(name)), expected);
                    }
                    Step::Abort(name) => {
                        naive.writing.remove(&name);
                        cache.abort(&key(name));
                    }
                    Step::Purge(name) => {
                        let before = naive.objects.len();
                        naive.objects.retain(|(other, _)| *other != name);
                        prop_assert_eq!(cache.purge(&key(name)), naive.objects.len() < before);
                    }
                }
                prop_assert_eq!(cache.bytes(), naive.bytes() as u64);
                prop_assert_eq!(cache.entries(), naive.objects.len());
            }
        }
    }
}
