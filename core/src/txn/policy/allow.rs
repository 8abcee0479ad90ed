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
    /// Networks. A special one (loopback, link-local, private, and so on) must be named as such: 0.0.0.0/0 does not open 10.0.0.0/8.
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
    const fn v4([a, b, c, d]: [u8; 4], bits: u8) -> Self {
        Self { address: IpAddr::V4(Ipv4Addr::new(a, b, c, d)), bits }
    }

    const fn v6([a, b, c, d]: [u16; 4], bits: u8) -> Self {
        Self { address: IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0)), bits }
    }

    /// Whether an address may be asked because of this network: a special one only if the network lies within what makes it special (P7), so
    /// that 0.0.0.0/0 opens no private network.
    fn names(&self, ip: IpAddr) -> bool {
        self.contains(ip) && special(ip).is_none_or(|special| self.bits >= special.bits)
    }

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

    /// Whether a server may be asked, judged by its name. An address in place of a name is
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
            [] => !self.names.is_empty() && special(ip).is_none(),
            nets => nets.iter().any(|net| net.names(ip)),
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

/// The special network that an address belongs to, if it is not one for everybody to reach (the IANA special-purpose registries, RFC 6890).
fn special(ip: IpAddr) -> Option<Net> {
    let listed = SPECIAL.iter().find(|net| net.contains(ip)).copied();
    // Global unicast is 2000::/3 (RFC 4291 §2.4).
    let is_global = ip.is_ipv4() || Net::v6([0x2000, 0, 0, 0], 3).contains(ip);
    // Unassigned ranges are listed address by address.
    listed.or_else(|| (!is_global).then_some(Net { address: ip, bits: 128 }))
}

const SPECIAL: [Net; 22] = [
    Net::v4([0, 0, 0, 0], 8),
    Net::v4([10, 0, 0, 0], 8),
    Net::v4([100, 64, 0, 0], 10),
    Net::v4([127, 0, 0, 0], 8),
    Net::v4([169, 254, 0, 0], 16),
    Net::v4([172, 16, 0, 0], 12),
    Net::v4([192, 0, 0, 0], 24),
    Net::v4([192, 0, 2, 0], 24),
    Net::v4([192, 88, 99, 0], 24),
    Net::v4([192, 168, 0, 0], 16),
    Net::v4([198, 18, 0, 0], 15),
    Net::v4([198, 51, 100, 0], 24),
    Net::v4([203, 0, 113, 0], 24),
    Net::v4([240, 0, 0, 0], 4),
    // Those that lead to an IPv4 address, whichever that is: NAT64, Teredo (and its neighbours), 6to4.
    Net::v6([0x64, 0xff9b, 0, 0], 96),
    Net::v6([0x64, 0xff9b, 1, 0], 48),
    Net::v6([0x2001, 0, 0, 0], 23),
    Net::v6([0x2002, 0, 0, 0], 16),
    Net::v6([0x2001, 0xdb8, 0, 0], 32),
    Net::v6([0x3fff, 0, 0, 0], 20),
    Net::v6([0xfc00, 0, 0, 0], 7),
    Net::v6([0xfe80, 0, 0, 0], 10),
];

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
        // Everything is not what is special.
        let everywhere = allow(&[], &["0.0.0.0/0", "::/0", "::/8", "e000::/3"]);
        let by_name = allow(&["a.test"], &[]);
        for ip in ["1.1.1.1", "172.32.0.1", "2606:4700::1", "192.0.1.1"] {
            assert!(everywhere.allows_address(address(ip), &[]) && by_name.allows_address(address(ip), &[]), "{ip}");
        }
        for (ip, net) in [
            ("127.0.0.1", "127.0.0.0/8"),
            ("10.0.0.1", "10.0.0.0/24"),
            ("172.31.0.1", "172.16.0.0/12"),
            ("192.168.1.1", "192.168.1.1"),
            ("169.254.169.254", "169.254.0.0/16"),
            ("192.0.0.8", "192.0.0.0/24"),
            ("::1", "::1"),
            ("fe80::1", "fe80::/10"),
            ("fd00::1", "fd00::/8"),
            ("::ffff:10.0.0.1", "10.0.0.0/8"),
            ("64:ff9b::a00:1", "64:ff9b::/96"),
            ("2002:a00:1::1", "2002::/16"),
            ("2001:0:a00:1::1", "2001::/32"),
            ("3fff::1", "3fff::/20"),
            ("fec0::1", "fec0::1"),
        ] {
            assert!(!everywhere.allows_address(address(ip), &[]), "{ip} by 0.0.0.0/0 or ::/0");
            assert!(!by_name.allows_address(address(ip), &[]), "{ip} by a name");
            assert!(allow(&[], &[net]).allows_address(address(ip), &[]), "{ip} by {net}");
        }
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
