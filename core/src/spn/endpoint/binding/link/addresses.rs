//! The addresses that DNS lists for the hub's name.

use std::{collections::BTreeSet, net::SocketAddr};

/// The addresses that want a session.
#[derive(Debug, Default)]
pub(super) struct Addresses {
    listed: BTreeSet<SocketAddr>,
}

impl Addresses {
    /// The name has these addresses now; the first `most` count. Says how many there are, if that is more.
    pub(super) fn set(&mut self, addresses: &[SocketAddr], most: usize) -> Option<usize> {
        self.listed = addresses.iter().copied().collect();
        let count = self.listed.len();
        let is_cut = count > most;
        if is_cut {
            self.listed = addresses.iter().copied().take(most).collect();
        }
        is_cut.then_some(count)
    }

    pub(super) fn has(&self, address: &SocketAddr) -> bool {
        self.listed.contains(address)
    }

    /// Those that are not among the `busy` ones.
    pub(super) fn missing(&self, busy: impl Iterator<Item = SocketAddr>) -> Vec<SocketAddr> {
        let busy: BTreeSet<_> = busy.collect();
        self.listed.difference(&busy).copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_addresses_count_and_those_without_a_session_are_missing() {
        let [a, b, c] = [3, 1, 2].map(|n| SocketAddr::from(([192, 0, 2, n], 4433)));
        let mut addresses = Addresses::default();
        assert_eq!(addresses.set(&[a, b, a], 2), None, "one is said twice");
        assert_eq!(addresses.missing([b, c].into_iter()), [a]);
        assert_eq!(addresses.set(&[a, b, c], 2), Some(3));
        assert!(addresses.has(&a) && addresses.has(&b) && !addresses.has(&c));
    }
}
