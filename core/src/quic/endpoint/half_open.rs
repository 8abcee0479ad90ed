//! Handshakes that clients have begun and not finished (docs/protocols/spn.md, Limits, LIM-10 to LIM-13, LIM-20).
//!
//! Handshakes have a table of their own, so they never take the places of connections. A client with an unvalidated address enters the table only
//! while it is nearly empty; beyond that the client has to retry (RFC 9000 §8.1.2), which costs nothing here. Clients with validated addresses share
//! the rest, each address a part; when the table is full, the oldest handshakes give way to newcomers: an honest handshake is done by then.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use super::Handle;

/// A handshake keeps its place for at least so long.
const GRACE: Duration = Duration::from_secs(1);
/// One source may have this part of the handshakes that are accepted without Retry.
const UNVALIDATED_SHARE: usize = 4;

/// What handshakes may use up.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// Handshakes at once.
    pub(super) total: usize,
    /// Handshakes of one source at once.
    pub(super) per_source: usize,
    /// Handshakes at once above which clients with unvalidated addresses have to retry.
    pub(super) retry_above: usize,
    /// The time limit of a handshake.
    pub(super) time: Duration,
}

/// The source that an address belongs to: an IPv4 address, or the 64-bit network of an IPv6 address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Source(u128);

impl Source {
    pub(super) fn of(remote: SocketAddr) -> Self {
        match remote.ip().to_canonical() {
            // Mapped addresses are no network's: the two kinds do not meet.
            IpAddr::V4(ip) => Self(ip.to_ipv6_mapped().to_bits()),
            IpAddr::V6(ip) => Self(ip.to_bits() >> 64 << 64),
        }
    }
}

/// What is to be done with a newcomer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Accept,
    /// In the place of this one.
    Replace(Handle),
    /// It is to prove its address first.
    Retry,
    /// There is no room now: it comes again by itself.
    Drop,
}

#[derive(Debug)]
struct Entry {
    handle: Handle,
    source: Source,
    began: Instant,
}

/// The table. Numbers grow with time.
#[derive(Debug)]
pub(super) struct HalfOpen {
    limits: Limits,
    entries: BTreeMap<u64, Entry>,
    by_handle: BTreeMap<Handle, u64>,
    by_source: BTreeMap<Source, BTreeSet<u64>>,
    unvalidated: BTreeSet<u64>,
    next: u64,
}

impl HalfOpen {
    pub(super) fn new(limits: Limits) -> Self {
        let (entries, by_handle, by_source) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        Self { limits, entries, by_handle, by_source, unvalidated: BTreeSet::new(), next: 0 }
    }

    /// Judges a newcomer.
    pub(super) fn judge(&self, now: Instant, remote: SocketAddr, validated: bool) -> Verdict {
        let of_source = self.by_source.get(&Source::of(remote));
        let count = of_source.map_or(0, BTreeSet::len);
        let limits = &self.limits;
        if !validated && (self.entries.len() >= limits.retry_above || count >= limits.retry_above / UNVALIDATED_SHARE) {
            return Verdict::Retry;
        }
        let oldest = if count >= limits.per_source {
            of_source.and_then(|numbers| self.entries.get(numbers.first()?))
        } else if self.entries.len() >= limits.total {
            let unvalidated = self.unvalidated.first().and_then(|number| self.entries.get(number));
            unvalidated.or_else(|| self.entries.values().next())
        } else {
            return Verdict::Accept;
        };
        match oldest {
            Some(oldest) if now >= oldest.began + GRACE => Verdict::Replace(oldest.handle),
            Some(_) | None => Verdict::Drop,
        }
    }

    pub(super) fn add(&mut self, now: Instant, handle: Handle, remote: SocketAddr, validated: bool) {
        let (number, source) = (self.next, Source::of(remote));
        self.next += 1;
        self.entries.insert(number, Entry { handle, source, began: now });
        if !validated {
            self.unvalidated.insert(number);
        }
        self.by_handle.insert(handle, number);
        self.by_source.entry(source).or_default().insert(number);
    }

    /// Done, or over.
    pub(super) fn remove(&mut self, handle: Handle) {
        let Some(number) = self.by_handle.remove(&handle) else { return };
        self.unvalidated.remove(&number);
        let Some(entry) = self.entries.remove(&number) else { return };
        if let Some(numbers) = self.by_source.get_mut(&entry.source) {
            numbers.remove(&number);
            if numbers.is_empty() {
                self.by_source.remove(&entry.source);
            }
        }
    }

    /// When the oldest has had its time.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.entries.values().next().map(|entry| entry.began + self.limits.time)
    }

    /// One that has had its time.
    pub(super) fn expired(&self, now: Instant) -> Option<Handle> {
        let oldest = self.entries.values().next()?;
        (now >= oldest.began + self.limits.time).then_some(oldest.handle)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::first_instant;

    const LIMITS: Limits = Limits { total: 40, per_source: 16, retry_above: 8, time: Duration::from_secs(10) };

    fn from(source: u8, port: u16) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, source], port))
    }

    #[test]
    fn a_network_is_one_source() {
        let source = |ip: &str| Source::of(SocketAddr::new(ip.parse().unwrap(), 1));
        assert_eq!(source("2001:db8:1:2::1"), source("2001:db8:1:2:ffff::"));
        assert_ne!(source("2001:db8:1:2::1"), source("2001:db8:1:3::1"));
        assert_eq!(source("192.0.2.1"), source("::ffff:192.0.2.1"));
        assert_ne!(source("192.0.2.1"), source("192.0.2.2"));
        assert_ne!(source("192.0.2.1"), source("::"));
    }

    #[test]
    fn strangers_prove_their_address_when_many_are_half_open() {
        let (now, mut table) = (first_instant(), HalfOpen::new(LIMITS));
        for n in 0..2 {
            assert_eq!(table.judge(now, from(1, n), false), Verdict::Accept);
            table.add(now, Handle::of_test(n.into()), from(1, n), false);
        }
        assert_eq!(table.judge(now, from(1, 9), false), Verdict::Retry, "one source has its share");
        assert_eq!(table.judge(now, from(2, 9), false), Verdict::Accept);
        for n in 2..8 {
            table.add(now, Handle::of_test(n.into()), from(n as u8, n), false);
        }
        assert_eq!(table.judge(now, from(200, 9), false), Verdict::Retry);
        assert_eq!(table.judge(now, from(200, 9), true), Verdict::Accept);
        // However long it is quiet: they count, not their rate.
        let later = now + Duration::from_secs(9);
        assert_eq!((table.judge(later, from(200, 9), false), table.expired(later)), (Verdict::Retry, None));
        table.remove(Handle::of_test(0));
        assert_eq!(table.judge(now, from(200, 9), false), Verdict::Accept);
    }

    #[test]
    fn the_oldest_gives_way_but_not_at_once() {
        let (now, mut table) = (first_instant(), HalfOpen::new(LIMITS));
        let fill = |table: &mut HalfOpen, source, handles: std::ops::Range<u32>| {
            handles.for_each(|n| table.add(now, Handle::of_test(n), from(source, n as u16), true));
        };
        fill(&mut table, 1, 0..16);
        let later = now + GRACE;
        assert_eq!(table.judge(now, from(1, 99), true), Verdict::Drop, "the source has no more");
        assert_eq!(table.judge(later, from(1, 99), true), Verdict::Replace(Handle::of_test(0)));
        assert_eq!(table.judge(now, from(2, 99), true), Verdict::Accept, "others do not notice");
        fill(&mut table, 2, 16..32);
        table.add(now, Handle::of_test(32), from(3, 1), false);
        fill(&mut table, 4, 33..40);
        assert_eq!(table.judge(now, from(5, 99), true), Verdict::Drop);
        let verdict = Verdict::Replace(Handle::of_test(32));
        assert_eq!(table.judge(later, from(5, 99), true), verdict, "one whose address may be anybody's goes first");
        table.remove(Handle::of_test(32));
        table.add(now, Handle::of_test(41), from(6, 1), true);
        assert_eq!(table.judge(later, from(5, 99), true), Verdict::Replace(Handle::of_test(0)));
    }

    #[test]
    fn each_has_its_time_in_all() {
        let (now, mut table) = (first_instant(), HalfOpen::new(LIMITS));
        table.add(now, Handle::of_test(1), from(1, 1), true);
        table.add(now + Duration::from_secs(1), Handle::of_test(2), from(1, 2), true);
        let due = now + LIMITS.time;
        assert_eq!((table.next_due(), table.expired(due)), (Some(due), Some(Handle::of_test(1))));
        table.remove(Handle::of_test(1));
        assert_eq!(table.expired(due), None);
        table.remove(Handle::of_test(2));
        assert_eq!((table.next_due(), table.by_source.len()), (None, 0));
    }
}
