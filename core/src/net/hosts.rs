//! Names and addresses in a file: `NAME ADDRESS…` a line, `#` before a comment.

use std::{collections::BTreeMap, net::IpAddr};

/// The only names there are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Hosts(BTreeMap<Vec<u8>, Vec<IpAddr>>);

/// What is wrong with a line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: expected NAME ADDRESS…, found {found:?}, which is no IP address")]
pub struct HostsError {
    /// Counts from 1.
    pub line: usize,
    /// What stands in place of an address.
    pub found: String,
}

impl Hosts {
    /// Reads the text of a file. A name on several lines has all their addresses; one without addresses does not exist.
    ///
    /// # Errors
    /// On the first word that is no address.
    pub fn parse(text: &str) -> Result<Self, HostsError> {
        let mut hosts = BTreeMap::<_, Vec<_>>::new();
        // A byte-order mark, as some editors leave it, is no part of a name.
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        for (index, line) in text.lines().enumerate() {
            let line = line.split('#').next().unwrap_or_default();
            let mut words = line.split_whitespace();
            let Some(name) = words.next() else { continue };
            let addresses =
                words.map(|word| word.parse().map_err(|_| HostsError { line: index + 1, found: word.to_owned() }));
            let addresses: Vec<IpAddr> = addresses.collect::<Result<_, _>>()?;
            hosts.entry(name.to_ascii_lowercase().into_bytes()).or_default().extend(addresses);
        }
        Ok(Self(hosts))
    }

    /// The addresses of a name, in the file's order; none when it does not exist.
    #[must_use]
    pub fn addresses(&self, name: &[u8]) -> &[IpAddr] {
        self.0.get(&name.to_ascii_lowercase()).map_or(&[], Vec::as_slice)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_the_addresses_of_all_their_lines() {
        let hosts = Hosts::parse("# test\na.test 192.0.2.1 2001:db8::1\n\nA.test 192.0.2.2 # more\nb.test\n").unwrap();
        let expected: Vec<IpAddr> =
            ["192.0.2.1", "2001:db8::1", "192.0.2.2"].iter().map(|text| text.parse().unwrap()).collect();
        assert_eq!(hosts.addresses(b"a.TEST"), expected);
        assert!(hosts.addresses(b"b.test").is_empty());
        assert!(hosts.addresses(b"c.test").is_empty());
        let windows = Hosts::parse("\u{feff}a.test 192.0.2.1\r\nb.test 192.0.2.2\r\n").unwrap();
        assert_eq!(windows.addresses(b"a.test"), &expected[..1]);
        assert_eq!(windows.addresses(b"b.test"), &expected[2..]);
        assert_eq!(Hosts::parse("a 192.0.2.1\nb x").unwrap_err(), HostsError { line: 2, found: "x".to_owned() });
    }
}
