//! Where the guest may connect to.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::UsernetError;

/// What is done with a connection that a rule is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Action {
    /// It is made.
    Allow,
    /// It is refused.
    Deny,
}

/// What has ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Protocol {
    /// The Transmission Control Protocol.
    Tcp,
    /// The User Datagram Protocol.
    Udp,
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        })
    }
}

/// A network: all addresses that begin with the same bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "(IpAddr, u8)", into = "(IpAddr, u8)")]
pub struct IpNet {
    address: IpAddr,
    prefix: u8,
}

impl From<(IpAddr, u8)> for IpNet {
    fn from((address, prefix): (IpAddr, u8)) -> Self {
        Self::new(address, prefix)
    }
}

impl From<IpNet> for (IpAddr, u8) {
    fn from(net: IpNet) -> Self {
        (net.address, net.prefix)
    }
}

impl IpNet {
    /// The network of `address` whose first `prefix` bits count; all of them, if there are not so many.
    pub const fn new(address: IpAddr, prefix: u8) -> Self {
        let most = match address {
            IpAddr::V4(_) => 32,
            IpAddr::V6(_) => 128,
        };
        Self {
            address,
            prefix: if prefix < most { prefix } else { most },
        }
    }

    /// Whether the address is in it.
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address) {
            (IpAddr::V4(net), IpAddr::V4(address)) => {
                let differ = net.to_bits() ^ address.to_bits();
                differ.leading_zeros() >= u32::from(self.prefix)
            }
            (IpAddr::V6(net), IpAddr::V6(address)) => {
                let differ = net.to_bits() ^ address.to_bits();
                differ.leading_zeros() >= u32::from(self.prefix)
            }
            _ => false,
        }
    }
}

impl fmt::Display for IpNet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

/// Says of some destinations whether the guest may connect to them.
///
/// Its text is an address or a network, with or without ports, and with or without the protocol before it:
/// `10.0.0.0/8`, `192.168.1.7:80-90`, `[fd00::1]:53`, `udp:[fd00::/64]:53`. Behind `!` it denies, else it allows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rule {
    /// What is done.
    pub action: Action,
    /// Which addresses it is about.
    pub net: IpNet,
    /// Which ports; all if none are named. An echo request has no port, and is not meant where ports are named.
    pub ports: Option<RangeInclusive<u16>>,
    /// Which protocol; all, and echo requests, if none is named.
    pub protocol: Option<Protocol>,
}

impl Rule {
    fn is_about(&self, to: Destination) -> bool {
        self.net.contains(to.address)
            && self.protocol.is_none_or(|only| Some(only) == to.protocol)
            && match (&self.ports, to.port) {
                (Some(ports), Some(port)) => ports.contains(&port),
                (Some(_), None) => false,
                (None, _) => true,
            }
    }
}

/// Where the guest wants to connect to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Destination {
    pub(crate) address: IpAddr,
    /// None for echo requests.
    pub(crate) port: Option<u16>,
    /// None for echo requests.
    pub(crate) protocol: Option<Protocol>,
}

/// The rules in their order: the first that is about a destination decides.
#[derive(Debug, Clone, Default)]
pub(crate) struct Policy {
    rules: Vec<Rule>,
    loopback: bool,
}

impl Policy {
    pub(crate) fn new(rules: Vec<Rule>, loopback: bool) -> Self {
        Self { rules, loopback }
    }

    pub(crate) fn allows(&self, to: Destination) -> bool {
        // What an address of IPv6 has within it is reached by it, so it is judged by both.
        let inner = embedded(to.address).map(|address| Destination { address, ..to });
        self.allows_plain(to) && inner.is_none_or(|inner| self.allows_plain(inner))
    }

    fn allows_plain(&self, to: Destination) -> bool {
        if never(to.address) {
            return false;
        }
        match self.rules.iter().find(|rule| rule.is_about(to)) {
            Some(rule) => rule.action == Action::Allow,
            None if to.address.is_loopback() => self.loopback,
            None => !is_local(to.address),
        }
    }
}

/// What nobody can connect to, and what Linux takes for its own loopback although it is not.
fn never(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => {
            address.is_unspecified() || address.is_multicast() || address.is_broadcast()
        }
        IpAddr::V6(address) => address.is_unspecified() || address.is_multicast(),
    }
}

/// What is denied unless a rule allows it.
fn is_local(address: IpAddr) -> bool {
    match address {
        // All of 0.0.0.0/8 is "this network" (RFC 6890), of 240.0.0.0/4 reserved.
        IpAddr::V4(address) => {
            let [first, ..] = address.octets();
            address.is_loopback() || address.is_link_local() || first == 0 || first >= 240
        }
        // fec0::/10 was for sites, and is used no more (RFC 3879).
        IpAddr::V6(address) => {
            let [first, ..] = address.segments();
            address.is_loopback() || first & 0xff80 == 0xfe80
        }
    }
}

/// The address of IPv4 that is reached by one of IPv6: mapped and compatible ones (RFC 4291 §2.5.5), those of
/// translators (RFC 6052 §2.1, RFC 8215), of 6to4 (RFC 3056 §2) and of Teredo (RFC 4380 §4).
fn embedded(address: IpAddr) -> Option<IpAddr> {
    let IpAddr::V6(address) = address else {
        return None;
    };
    let bits = address.to_bits();
    let low = u32::try_from(bits & 0xffff_ffff).unwrap_or(0);
    let inner = match address.segments() {
        // The unspecified address and the loopback have none.
        [0, 0, 0, 0, 0, 0, 0, 0 | 1] => return None,
        [0, 0, 0, 0, 0, 0 | 0xffff, _, _] | [0, 0, 0, 0, 0xffff, 0, _, _] => low,
        [0x64, 0xff9b, 0, 0, 0, 0, _, _] | [0x64, 0xff9b, 1, _, _, _, _, _] => low,
        [0x2002, high, next, ..] => u32::from(high) << 16 | u32::from(next),
        [0x2001, 0, ..] => !low,
        _ => return None,
    };
    Some(IpAddr::V4(Ipv4Addr::from_bits(inner)))
}

impl FromStr for Rule {
    type Err = UsernetError;

    /// Reads a rule as [`Rule`] describes it.
    ///
    /// # Errors
    ///
    /// [`UsernetError::Rule`].
    fn from_str(text: &str) -> Result<Self, UsernetError> {
        parse(text).map_err(|why| UsernetError::Rule {
            text: text.to_owned(),
            why,
        })
    }
}

impl fmt::Display for Rule {
    /// Writes what [`from_str`](Self::from_str) reads.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.action == Action::Deny {
            f.write_str("!")?;
        }
        if let Some(protocol) = self.protocol {
            write!(f, "{protocol}:")?;
        }
        match (&self.ports, self.net.address) {
            (None, _) => write!(f, "{}", self.net),
            (Some(ports), IpAddr::V4(_)) => {
                write!(f, "{}:{}-{}", self.net, ports.start(), ports.end())
            }
            (Some(ports), IpAddr::V6(_)) => {
                write!(f, "[{}]:{}-{}", self.net, ports.start(), ports.end())
            }
        }
    }
}

fn parse(text: &str) -> Result<Rule, &'static str> {
    let (action, rest) = match text.strip_prefix('!') {
        Some(rest) => (Action::Deny, rest),
        None => (Action::Allow, text),
    };
    let (protocol, rest) = match (rest.strip_prefix("tcp:"), rest.strip_prefix("udp:")) {
        (Some(rest), _) => (Some(Protocol::Tcp), rest),
        (_, Some(rest)) => (Some(Protocol::Udp), rest),
        _ => (None, rest),
    };
    let (net, ports) = split_ports(rest)?;
    Ok(Rule {
        action,
        net: parse_net(net)?,
        ports: ports.map(parse_ports).transpose()?,
        protocol,
    })
}

/// Parts `10.0.0.0/8:80` and `[fd00::/8]:80`; what has several colons and no brackets is an address of IPv6.
fn split_ports(text: &str) -> Result<(&str, Option<&str>), &'static str> {
    if let Some(rest) = text.strip_prefix('[') {
        let (net, rest) = rest.split_once(']').ok_or("] is missing")?;
        return match (rest.is_empty(), rest.strip_prefix(':')) {
            (true, _) => Ok((net, None)),
            (_, Some(ports)) => Ok((net, Some(ports))),
            _ => Err("behind ] there is neither : nor the end"),
        };
    }
    Ok(match text.split_once(':') {
        Some((net, ports)) if !ports.contains(':') => (net, Some(ports)),
        _ => (text, None),
    })
}

fn parse_net(text: &str) -> Result<IpNet, &'static str> {
    let (address, prefix) = match text.split_once('/') {
        Some((address, prefix)) => (address, Some(prefix)),
        None => (text, None),
    };
    let address: IpAddr = address
        .parse()
        .map_err(|_| "not an address: write 10.0.0.0/8, 192.168.1.7:80-90 or [fd00::1]:53")?;
    let most = match address {
        IpAddr::V4(_) => 32,
        IpAddr::V6(_) => 128,
    };
    let prefix = match prefix {
        None => most,
        Some(prefix) => prefix
            .parse()
            .ok()
            .filter(|prefix| *prefix <= most)
            .ok_or("the prefix is longer than the address, or not a number")?,
    };
    Ok(IpNet::new(address, prefix))
}

fn parse_ports(text: &str) -> Result<RangeInclusive<u16>, &'static str> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let port = |text: &str| {
        text.parse::<u16>()
            .map_err(|_| "a port is not a number from 0 to 65535")
    };
    let (first, last) = (port(first)?, port(last)?);
    if first > last {
        return Err("the last port is before the first");
    }
    Ok(first..=last)
}

/// The loopback address of the same kind.
pub(crate) fn loopback_like(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(rules: &[&str], loopback: bool) -> Policy {
        let rules = rules.iter().map(|rule| rule.parse().unwrap()).collect();
        Policy::new(rules, loopback)
    }

    fn tcp(address: &str, port: u16) -> Destination {
        Destination {
            address: address.parse().unwrap(),
            port: Some(port),
            protocol: Some(Protocol::Tcp),
        }
    }

    #[test]
    fn without_rules_the_world_is_allowed_and_what_is_the_hosts_own_is_not() {
        let policy = policy(&[], false);
        for allowed in [
            "1.1.1.1",
            "10.1.2.3",
            "192.0.2.2",
            "2001:db8::1",
            "fd00::1",
            "::ffff:1.1.1.1",
            "64:ff9b::1.1.1.1",
            "2002:101:101::1",
        ] {
            assert!(policy.allows(tcp(allowed, 80)), "{allowed}");
        }
        for denied in [
            "127.0.0.1",
            "127.9.9.9",
            "0.0.0.0",
            "0.1.2.3",
            "169.254.169.254",
            "224.0.0.1",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "fe80::1",
            "fec0::1",
            "ff02::1",
            "::ffff:127.0.0.1",
            "::127.0.0.1",
            "::ffff:0:127.0.0.1",
            "::ffff:0.0.0.0",
            "::ffff:169.254.169.254",
            "64:ff9b::127.0.0.1",
            "64:ff9b:1::127.0.0.1",
            "2002:7f00:1::",
            "2001:0:1:2:3:4:80ff:fffe",
        ] {
            assert!(!policy.allows(tcp(denied, 80)), "{denied}");
        }
    }

    #[test]
    fn the_first_rule_that_fits_decides() {
        let policy = policy(
            &[
                "!10.0.0.0/8:1-1023",
                "10.0.0.5",
                "!tcp:10.0.0.0/8",
                "127.0.0.1:8080",
                "!0.0.0.0/0:25",
            ],
            false,
        );
        let allowed = [("10.0.0.5", 1024), ("127.0.0.1", 8080), ("8.8.8.8", 80)];
        let denied = [
            ("10.0.0.5", 80),
            ("10.0.0.6", 1024),
            ("127.0.0.1", 8081),
            ("8.8.8.8", 25),
            ("::ffff:8.8.8.8", 25),
        ];
        for (address, port) in allowed {
            assert!(policy.allows(tcp(address, port)), "{address}:{port}");
        }
        for (address, port) in denied {
            assert!(!policy.allows(tcp(address, port)), "{address}:{port}");
        }
        let udp = Destination {
            protocol: Some(Protocol::Udp),
            ..tcp("10.0.0.6", 1024)
        };
        assert!(policy.allows(udp));
        let echo = Destination {
            protocol: None,
            port: None,
            ..udp
        };
        assert!(policy.allows(echo));
    }

    #[test]
    fn the_loopback_is_allowed_as_a_whole_and_the_unspecified_address_never() {
        let policy = policy(&["0.0.0.0/0", "::/0"], true);
        assert!(policy.allows(tcp("127.0.0.1", 1)) && policy.allows(tcp("::1", 1)));
        assert!(policy.allows(tcp("169.254.169.254", 80)));
        assert!(!policy.allows(tcp("0.0.0.0", 1)) && !policy.allows(tcp("::", 1)));
    }

    #[test]
    fn rules_are_written_as_they_are_read() {
        for (text, again) in [
            ("10.0.0.0/8", "10.0.0.0/8"),
            ("!192.168.1.7:80-90", "!192.168.1.7/32:80-90"),
            ("[fd00::1]:53", "[fd00::1/128]:53-53"),
            ("fd00::1", "fd00::1/128"),
            ("[::/0]", "::/0"),
            ("udp:1.2.3.4:5", "udp:1.2.3.4/32:5-5"),
            ("!tcp:[fe80::/10]:1-2", "!tcp:[fe80::/10]:1-2"),
        ] {
            let rule: Rule = text.parse().unwrap();
            assert_eq!(rule.to_string(), again);
            assert_eq!(again.parse::<Rule>().unwrap(), rule);
        }
    }

    #[test]
    fn what_is_no_rule_is_refused_with_the_reason() {
        for (text, why) in [
            ("", "not an address"),
            ("example.org:80", "not an address"),
            ("10.0.0.0/33", "prefix"),
            ("::/129", "prefix"),
            ("10.0.0.0/x", "prefix"),
            ("10.0.0.1:", "port"),
            ("10.0.0.1:65536", "port"),
            ("10.0.0.1:9-8", "before the first"),
            ("[::1", "] is missing"),
            ("[::1]80", "neither"),
        ] {
            let error = text.parse::<Rule>().unwrap_err().to_string();
            assert!(
                error.contains(why) && error.contains(&format!("{text:?}")),
                "{error}"
            );
        }
    }
}
