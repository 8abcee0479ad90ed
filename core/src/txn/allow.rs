//! Which origins may be asked (docs/protocols/txn.md, Origins).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use serde::{Deserialize, Serialize};

/// What may be fetched. The default allows nothing.
///
/// A request passes when its server's name is allowed *and* so is the address that the name turns out to have. Where only one of the two
/// lists is given, the other asks nothing more of names, and of addresses that they are public.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Allow {
    /// Everything, but for the proxy itself.
    pub all: bool,
    /// Names.
    pub names: Vec<Name>,
    /// Networks; private ones must be named here.
    pub nets: Vec<Net>,
}

/// A pattern of names: `name`, or `*.suffix`. ASCII letters match in either case (RFC 4343).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Name(String);

/// A network: `ADDRESS/BITS`, or one address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Net {
    address: IpAddr,
    bits: u8,
}

/// What is wrong with a pattern.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// Not a name.
    #[error("expected a name or *.SUFFIX, found {0:?}")]
    Name(String),
    /// Not a network.
    #[error("expected ADDRESS/BITS, such as 10.0.0.0/8 or ::1/128, found {0:?}")]
    Net(String),
}

impl std::str::FromStr for Name {
    type Err = PatternError;

    fn from_str(text: &str) -> Result<Self, PatternError> {
        let name = text.strip_prefix("*.").unwrap_or(text);
        if name.is_empty() || name.contains(['*', ' ']) {
            return Err(PatternError::Name(text.to_owned()));
        }
        Ok(Self(text.to_owned()))
    }
}

impl Name {
    fn matches(&self, server: &[u8]) -> bool {
        match self.0.strip_prefix('*') {
            // Something must stand before the dot.
            Some(suffix) => server
                .len()
                .checked_sub(suffix.len())
                .filter(|&at| at > 0)
                .and_then(|at| server.get(at..))
                .is_some_and(|end| end.eq_ignore_ascii_case(suffix.as_bytes())),
            None => server.eq_ignore_ascii_case(self.0.as_bytes()),
        }
    }
}

impl std::str::FromStr for Net {
    type Err = PatternError;

    fn from_str(text: &str) -> Result<Self, PatternError> {
        let net = || {
            let (address, bits) = match text.split_once('/') {
                Some((address, bits)) => (address.parse().ok()?, Some(bits.parse().ok()?)),
                None => (text.parse().ok()?, None),
            };
            let most = if IpAddr::is_ipv4(&address) { 32 } else { 128 };
            Some(Self { address, bits: bits.unwrap_or(most) }).filter(|net| net.bits <= most)
        };
        net().ok_or_else(|| PatternError::Net(text.to_owned()))
    }
}

impl Net {
    fn contains(&self, address: IpAddr) -> bool {
        let same = |ours: u128, theirs: u128, width: u32| {
            let shift = width - u32::from(self.bits).min(width);
            ours.checked_shr(shift).unwrap_or(0) == theirs.checked_shr(shift).unwrap_or(0)
        };
        match (self.address, address) {
            (IpAddr::V4(ours), IpAddr::V4(theirs)) => same(ours.to_bits().into(), theirs.to_bits().into(), 32),
            (IpAddr::V6(ours), IpAddr::V6(theirs)) => same(ours.to_bits(), theirs.to_bits(), 128),
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
        }
    }
}

macro_rules! as_text {
    ($type:ty, $display:expr) => {
        impl TryFrom<String> for $type {
            type Error = PatternError;

            fn try_from(text: String) -> Result<Self, PatternError> {
                text.parse()
            }
        }

        impl From<$type> for String {
            fn from(pattern: $type) -> Self {
                ($display)(pattern)
            }
        }
    };
}

as_text!(Name, |name: Name| name.0);
as_text!(Net, |net: Net| format!("{}/{}", net.address, net.bits));

impl Allow {
    /// Everything: for a lab.
    #[must_use]
    pub fn everything() -> Self {
        Self { all: true, ..Self::default() }
    }

    /// Whether nothing at all can be fetched.
    #[must_use]
    pub fn is_nothing(&self) -> bool {
        !self.all && self.names.is_empty() && self.nets.is_empty()
    }

    /// Whether a server may be asked, as far as its name tells. An address in place of a name is
    /// judged as an address where networks are listed, and is a name like any other where they are not.
    #[must_use]
    pub fn allows_name(&self, server: &[u8]) -> bool {
        // Who lists names has not allowed every public address.
        let asks_nothing_of_names = self.names.is_empty() || literal(server).is_some();
        self.all || asks_nothing_of_names && !self.nets.is_empty() || self.names.iter().any(|name| name.matches(server))
    }

    /// Whether an address may be connected to. `own` are the addresses that the proxy itself listens on: asking itself would be a loop.
    #[must_use]
    pub fn allows_address(&self, address: SocketAddr, own: &[SocketAddr]) -> bool {
        let ip = address.ip().to_canonical();
        let is_own = own.iter().any(|own| {
            own.port() == address.port()
                && (own.ip().to_canonical() == ip || own.ip().is_unspecified() && ip.is_loopback())
        });
        // The unspecified address reaches this machine, and a group is no server.
        if is_own || ip.is_unspecified() || ip.is_multicast() || ip == IpAddr::V4(Ipv4Addr::BROADCAST) {
            return false;
        }
        match &*self.nets {
            _ if self.all => true,
            [] => !self.names.is_empty() && is_public(ip),
            nets => nets.iter().any(|net| net.contains(ip)),
        }
    }
}

/// The address that a server's name is, if it is one; IPv6 with or without brackets (rule P8).
#[must_use]
pub fn literal(server: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(server).ok()?;
    match text.strip_prefix('[').and_then(|text| text.strip_suffix(']')) {
        Some(inner) => inner.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
        None => text.parse().ok(),
    }
}

/// Whether an address is for everybody to reach (the IANA special-purpose registries, RFC 6890).
fn is_public(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => {
            let [a, b, ..] = ip.octets();
            let is_shared = a == 100 && b & 0xc0 == 64; // RFC 6598
            let is_benchmark = a == 198 && b & 0xfe == 18; // RFC 2544
            !(ip.is_loopback()
                || ip.is_private()
                || ip.is_link_local()
                || ip.is_documentation()
                || is_shared
                || is_benchmark
                || a == 0
                || a >= 240)
        }
        IpAddr::V6(ip) => {
            let [first, second, ..] = ip.segments();
            let is_documentation = first == 0x2001 && second == 0xdb8; // RFC 3849
            // Global unicast is 2000::/3 (RFC 4291 §2.4).
            first & 0xe000 == 0x2000 && !is_documentation
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allow(names: &[&str], nets: &[&str]) -> Allow {
        Allow {
            all: false,
            names: names.iter().map(|name| name.parse().unwrap()).collect(),
            nets: nets.iter().map(|net| net.parse().unwrap()).collect(),
        }
    }

    fn address(ip: &str) -> SocketAddr {
        SocketAddr::new(ip.parse().unwrap(), 80)
    }

    #[test]
    fn names() {
        let rules = allow(&["a.test", "*.b.test"], &[]);
        for (name, is_allowed) in [
            ("a.test", true),
            ("A.Test", true),
            ("x.a.test", false),
            ("b.test", false),
            ("x.b.test", true),
            ("x.y.B.test", true),
            (".b.test", false),
            ("xb.test", false),
            ("c.test", false),
        ] {
            assert_eq!(rules.allows_name(name.as_bytes()), is_allowed, "{name}");
        }
        assert!(!Allow::default().allows_name(b"a.test"));
        assert!(!Allow::default().allows_name(b"192.0.2.1"));
        assert!(Allow::everything().allows_name(b"a.test"));
        assert!(allow(&[], &["10.0.0.0/8"]).allows_name(b"a.test"));
        assert!(!rules.allows_name(b"8.8.8.8"), "an address is no way around the names");
        assert!(allow(&["8.8.8.8"], &[]).allows_name(b"8.8.8.8"));
        assert!(allow(&["a.test"], &["10.0.0.0/8"]).allows_name(b"10.1.2.3"));
        for bad in ["", "*.", "*", "a.*", "a b"] {
            assert_eq!(bad.parse::<Name>(), Err(PatternError::Name(bad.to_owned())));
        }
    }

    #[test]
    fn addresses() {
        let (public, private) = (allow(&["a.test"], &[]), allow(&["a.test"], &["10.0.0.0/8", "::1/128", "8.8.8.8"]));
        for (ip, by_name, by_net) in [
            ("1.1.1.1", true, false),
            ("8.8.8.8", true, true),
            ("2606:4700::1", true, false),
            ("::ffff:8.8.8.8", true, true),
            ("10.1.2.3", false, true),
            ("11.1.2.3", true, false),
            ("127.0.0.1", false, false),
            ("::1", false, true),
            ("169.254.1.1", false, false),
            ("100.64.0.1", false, false),
            ("fe80::1", false, false),
            ("fc00::1", false, false),
            ("0.0.0.0", false, false),
            ("224.0.0.1", false, false),
        ] {
            assert_eq!(public.allows_address(address(ip), &[]), by_name, "{ip}");
            assert_eq!(private.allows_address(address(ip), &[]), by_net, "{ip}");
        }
        assert!(!Allow::default().allows_address(address("1.1.1.1"), &[]));
        for bad in ["", "10.0.0.0/33", "::/129", "10.0.0/8", "10.0.0.0/x"] {
            assert_eq!(bad.parse::<Net>(), Err(PatternError::Net(bad.to_owned())));
        }
        assert!(allow(&[], &["0.0.0.0/0"]).allows_address(address("127.0.0.1"), &[]));
    }

    #[test]
    fn the_proxy_does_not_ask_itself() {
        let all = Allow::everything();
        assert!(!all.allows_address(address("127.0.0.1"), &[address("127.0.0.1")]));
        assert!(!all.allows_address(address("::1"), &[address("::")]));
        assert!(!all.allows_address(address("0.0.0.0"), &[]));
        assert!(all.allows_address(address("127.0.0.2"), &[address("127.0.0.1")]));
        assert!(all.allows_address(SocketAddr::new("127.0.0.1".parse().unwrap(), 81), &[address("127.0.0.1")]));
    }

    #[test]
    fn literals() {
        assert_eq!(literal(b"192.0.2.1"), "192.0.2.1".parse().ok());
        assert_eq!(literal(b"2001:db8::1"), "2001:db8::1".parse().ok());
        assert_eq!(literal(b"[2001:db8::1]"), "2001:db8::1".parse().ok());
        for name in [&b"[192.0.2.1]"[..], b"a.test", b"[::1", b"\xff"] {
            assert_eq!(literal(name), None);
        }
    }
}
