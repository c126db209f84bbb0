//! Where a destination of the guest's is.

use std::net::{IpAddr, SocketAddr};

use super::Network;
use crate::dns;
use crate::host::Host;
use crate::rules::{Destination, Protocol, loopback_like};
use crate::stats::Dropped;

/// Whose an address is, on the guest's network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    Gateway,
    Dns,
    /// Nobody's, or the guest's.
    Neighbour,
    /// Not on the guest's network.
    Beyond,
}

impl<H: Host> Network<H> {
    /// Where the host is to connect to, if the guest may.
    pub(super) fn route(
        &mut self,
        protocol: Option<Protocol>,
        to: SocketAddr,
    ) -> Result<SocketAddr, Dropped> {
        let target = match self.place(to.ip()) {
            Place::Dns if protocol.is_some() && to.port() == dns::PORT => {
                return self.resolvers.server(self.now).ok_or(Dropped::Denied);
            }
            Place::Gateway => SocketAddr::new(loopback_like(to.ip()), to.port()),
            Place::Dns => return Err(Dropped::Denied),
            Place::Neighbour => return Err(Dropped::NotForUs),
            Place::Beyond => to,
        };
        let destination = Destination {
            address: target.ip(),
            port: protocol.map(|_| target.port()),
            protocol,
        };
        if self.policy.allows(destination) {
            Ok(target)
        } else {
            Err(Dropped::Denied)
        }
    }

    pub(super) fn place(&self, address: IpAddr) -> Place {
        match address {
            IpAddr::V4(address) => {
                let ipv4 = &self.config.ipv4;
                match address {
                    _ if address == ipv4.gateway => Place::Gateway,
                    _ if address == ipv4.dns => Place::Dns,
                    _ if ipv4.net().contains(address.into()) => Place::Neighbour,
                    _ => Place::Beyond,
                }
            }
            IpAddr::V6(address) => match &self.config.ipv6 {
                Some(ipv6) if address == ipv6.gateway || address == self.link_local() => {
                    Place::Gateway
                }
                Some(ipv6) if address == ipv6.dns => Place::Dns,
                Some(ipv6)
                    if !ipv6.net().contains(address.into()) && !address.is_unicast_link_local() =>
                {
                    Place::Beyond
                }
                _ => Place::Neighbour,
            },
        }
    }
}
