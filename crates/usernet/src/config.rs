//! What a person sets.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{Forward, IpNet, Rule, UsernetError};

/// The smallest MTU: what every link of IPv6 carries (RFC 8200 §5).
pub const MIN_MTU: u16 = 1280;
/// The greatest MTU: what an IPv4 packet can be, in whole units of 16 bytes.
pub const MAX_MTU: u16 = 65520;
/// The least that a flow holds in each direction, in bytes.
pub(crate) const MIN_RING: usize = 16 << 10;
/// The most that [`Limits::ring`] can be: what windows of TCP are scaled for.
pub(crate) const MAX_RING: usize = 4 << 20;

/// A network for one guest.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct NetworkConfig {
    /// The addresses of IPv4.
    pub ipv4: Ipv4Config,
    /// The addresses of IPv6, or none.
    pub ipv6: Option<Ipv6Config>,
    /// The gateway's Ethernet address.
    pub mac: [u8; 6],
    /// The largest IP packet, in bytes: [`MIN_MTU`] to [`MAX_MTU`].
    pub mtu: u16,
    /// Where queries for names go.
    pub dns: DnsConfig,
    /// Where the guest may connect to: the first rule about a destination decides. What no rule is about is allowed,
    /// but for the host's loopback, link-local and reserved addresses.
    pub rules: Vec<Rule>,
    /// Whether the guest reaches all of the host's loopback, at the gateway's address. With `false`, the rules can still
    /// allow parts of it: `127.0.0.1:8080` opens port 8080 of the gateway.
    pub host_loopback: bool,
    /// Ports of the host that lead to the guest.
    pub forwards: Vec<Forward>,
    /// How much there can be of everything.
    pub limits: Limits,
    /// From which the numbers are made that others must not guess; from the host's randomness if none is given.
    pub seed: Option<[u8; 16]>,
}

/// The addresses of IPv4.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Ipv4Config {
    /// The guest's address, which DHCP gives it.
    pub guest: Ipv4Addr,
    /// How many bits of the address are the network's.
    pub prefix: u8,
    /// The gateway, which also is the DHCP server.
    pub gateway: Ipv4Addr,
    /// Where queries for names are sent to.
    pub dns: Ipv4Addr,
}

/// The addresses of IPv6.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Ipv6Config {
    /// The network, of 64 bits, in which the guest chooses its address.
    pub network: Ipv6Addr,
    /// The gateway.
    pub gateway: Ipv6Addr,
    /// Where queries for names are sent to.
    pub dns: Ipv6Addr,
}

/// Where queries for names go.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum DnsConfig {
    /// To the resolvers in the host's `/etc/resolv.conf`, which is read again when it changes. They may be on the host's
    /// loopback.
    Host,
    /// To this resolver.
    Upstream(SocketAddr),
    /// Nowhere: there is no resolver.
    None,
}

/// How much there can be of everything.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Limits {
    /// Connections of TCP.
    pub tcp_flows: usize,
    /// Flows of UDP and of echo requests: when there are more, the one that has been idle longest is forgotten.
    pub udp_flows: usize,
    /// Bytes that a connection holds in each direction.
    pub ring: usize,
    /// Bytes that all connections hold.
    pub rings: usize,
    /// How long the host may take to connect.
    pub connect: Duration,
    /// How long a flow of UDP lives that nothing is sent on.
    pub udp_idle: Duration,
    /// How long a connection may be idle before the guest is asked whether it is there.
    pub tcp_idle: Duration,
}

impl Default for NetworkConfig {
    fn default() -> Self {
        Self {
            ipv4: Ipv4Config::default(),
            ipv6: Some(Ipv6Config::default()),
            // Locally administered (IEEE 802 §8.4).
            mac: [0x52, 0x55, 0x0a, 0x00, 0x02, 0x02],
            mtu: 1500,
            dns: DnsConfig::Host,
            rules: Vec::new(),
            host_loopback: false,
            forwards: Vec::new(),
            limits: Limits::default(),
            seed: None,
        }
    }
}

impl Default for Ipv4Config {
    fn default() -> Self {
        Self {
            guest: Ipv4Addr::new(10, 0, 2, 15),
            prefix: 24,
            gateway: Ipv4Addr::new(10, 0, 2, 2),
            dns: Ipv4Addr::new(10, 0, 2, 3),
        }
    }
}

impl Default for Ipv6Config {
    fn default() -> Self {
        // A prefix of those who number their networks themselves (RFC 4193).
        let network = Ipv6Addr::new(0xfd00, 0x676f, 0x6c64, 0, 0, 0, 0, 0);
        Self {
            network,
            gateway: Ipv6Addr::from_bits(network.to_bits() | 2),
            dns: Ipv6Addr::from_bits(network.to_bits() | 3),
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            tcp_flows: 1024,
            udp_flows: 1024,
            ring: 256 << 10,
            rings: 64 << 20,
            connect: Duration::from_secs(60),
            udp_idle: Duration::from_secs(60),
            tcp_idle: Duration::from_secs(2 * 60 * 60),
        }
    }
}

impl Ipv4Config {
    /// The network.
    pub(crate) fn net(&self) -> IpNet {
        IpNet::new(self.gateway.into(), self.prefix)
    }

    /// The mask that says which bits are the network's.
    pub(crate) fn mask(&self) -> Ipv4Addr {
        let host = u32::MAX.checked_shr(self.prefix.into()).unwrap_or(0);
        Ipv4Addr::from_bits(!host)
    }

    /// The address for everyone in the network.
    pub(crate) fn broadcast(&self) -> Ipv4Addr {
        self.gateway | !self.mask()
    }
}

impl Ipv6Config {
    /// The network.
    pub(crate) fn net(&self) -> IpNet {
        IpNet::new(self.network.into(), 64)
    }
}

impl NetworkConfig {
    /// Checks all that can be checked without the host.
    pub(crate) fn check(&self) -> Result<(), UsernetError> {
        let [first, ..] = self.mac;
        if first & 1 != 0 {
            return Err(UsernetError::Mac(self.mac));
        }
        self.check_addresses()?;
        self.check_limits()?;
        for forward in &self.forwards {
            if let Some(guest) = forward.guest
                && guest.is_ipv6()
                && self.ipv6.is_none()
            {
                return Err(UsernetError::Guest((guest, forward.guest_port).into()));
            }
        }
        crate::forward::check(&self.forwards)
    }

    fn check_addresses(&self) -> Result<(), UsernetError> {
        let Ipv4Config {
            guest,
            gateway,
            dns,
            ..
        } = self.ipv4;
        if !(8..=30).contains(&self.ipv4.prefix) {
            return Err(limit("prefix of IPv4", self.ipv4.prefix.into(), 8, 30));
        }
        let mut addresses = vec![guest.into(), gateway.into(), dns.into()];
        let net = self.ipv4.net();
        let network = gateway & self.ipv4.mask();
        for address in [guest, gateway, dns] {
            if address == network || address == self.ipv4.broadcast() {
                let why = "it stands for the whole network";
                return Err(UsernetError::Address {
                    address: address.into(),
                    why,
                });
            }
        }
        check_net(&addresses, net)?;
        if let Some(ipv6) = self.ipv6 {
            check_net(&[ipv6.gateway.into(), ipv6.dns.into()], ipv6.net())?;
            addresses.extend([IpAddr::from(ipv6.gateway), ipv6.dns.into()]);
        }
        for (index, address) in addresses.iter().enumerate() {
            if addresses
                .iter()
                .skip(index + 1)
                .any(|other| other == address)
            {
                let why = "it is used twice";
                return Err(UsernetError::Address {
                    address: *address,
                    why,
                });
            }
        }
        Ok(())
    }

    fn check_limits(&self) -> Result<(), UsernetError> {
        let limits = self.limits;
        let flows = 1 << 16;
        for (what, value, least, most) in [
            ("MTU", self.mtu.into(), MIN_MTU.into(), MAX_MTU.into()),
            ("connections", limits.tcp_flows, 1, flows),
            ("flows of UDP", limits.udp_flows, 1, flows),
            ("buffer of a connection", limits.ring, MIN_RING, MAX_RING),
            ("buffers", limits.rings, 2 * MIN_RING, usize::MAX >> 1),
        ] {
            if !(least..=most).contains(&value) {
                return Err(limit(what, value, least, most));
            }
        }
        Ok(())
    }
}

fn limit(what: &'static str, value: usize, least: usize, most: usize) -> UsernetError {
    UsernetError::Limit {
        what,
        value,
        least,
        most,
    }
}

fn check_net(addresses: &[IpAddr], net: IpNet) -> Result<(), UsernetError> {
    match addresses.iter().find(|address| !net.contains(**address)) {
        Some(address) => Err(UsernetError::Address {
            address: *address,
            why: "it is not in the gateway's network",
        }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(change: impl FnOnce(&mut NetworkConfig)) -> String {
        let mut config = NetworkConfig::default();
        change(&mut config);
        config.check().unwrap_err().to_string()
    }

    #[test]
    fn what_is_set_by_default_fits_together() {
        NetworkConfig::default().check().unwrap();
        let ipv4 = Ipv4Config::default();
        assert_eq!(ipv4.mask(), Ipv4Addr::new(255, 255, 255, 0));
        assert_eq!(ipv4.broadcast(), Ipv4Addr::new(10, 0, 2, 255));
    }

    #[test]
    fn what_does_not_fit_is_refused_with_value_and_limit() {
        assert_eq!(
            refused(|c| c.mtu = 500),
            "network MTU: 500 is not from 1280 to 65520"
        );
        assert!(refused(|c| c.limits.ring = 1).contains("buffer of a connection: 1 is"));
        assert!(refused(|c| c.limits.tcp_flows = 0).contains("connections: 0 is"));
        assert!(refused(|c| c.ipv4.prefix = 31).contains("31 is not from 8 to 30"));
        let twice = refused(|c| c.ipv4.dns = c.ipv4.gateway);
        assert_eq!(twice, "network address 10.0.2.2: it is used twice");
        assert!(
            refused(|c| c.ipv4.guest = Ipv4Addr::new(10, 0, 3, 1))
                .contains("10.0.3.1: it is not in")
        );
        assert!(refused(|c| c.ipv4.guest = Ipv4Addr::new(10, 0, 2, 255)).contains("whole network"));
        assert!(
            refused(|c| c.ipv6 = Some(Ipv6Config {
                dns: Ipv6Addr::LOCALHOST,
                ..Ipv6Config::default()
            }))
            .contains("::1")
        );
        let v6 = refused(|c| {
            c.ipv6 = None;
            let mut forward: Forward = "tcp:80:80".parse().unwrap();
            forward.guest = Some(Ipv6Addr::LOCALHOST.into());
            c.forwards = vec![forward];
        });
        assert!(v6.contains("[::1]:80 is forwarded to"));
        let mac = refused(|c| c.mac = [0x33, 0x33, 0, 0, 0, 0xab]);
        assert_eq!(
            mac,
            "33:33:00:00:00:ab is the Ethernet address of a group, not of a gateway"
        );
        assert!(refused(|c| c.forwards = vec!["tcp:1:1".parse().unwrap(); 2]).contains("twice"));
    }
}
