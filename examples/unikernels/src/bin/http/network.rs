//! The interface and its address.

use goldcrest_guest::time;
use goldcrest_guest::virtio::{Entropy, Net};
use smoltcp::iface::{
    Config, Interface, PollIngressSingleResult, PollResult, SocketHandle, SocketSet,
};
use smoltcp::socket::dhcpv4;
use smoltcp::time::Instant;
use smoltcp::wire::{EthernetAddress, IpCidr, Ipv4Address, Ipv4Cidr};

use crate::arguments::Arguments;
use crate::gate::Gate;

/// TCP/IP on a network card.
pub struct Network {
    interface: Interface,
    pub sockets: SocketSet<'static>,
    dhcp: Option<SocketHandle>,
}

impl Network {
    pub fn new(card: &mut Net, arguments: &Arguments) -> Self {
        let mut config = Config::new(EthernetAddress(card.mac()).into());
        config.random_seed = seed();
        let mut network = Self {
            interface: Interface::new(config, card, Net::now()),
            sockets: SocketSet::new(alloc::vec::Vec::new()),
            dhcp: None,
        };
        match arguments.ip {
            Some(ip) => network.set_address(Some((ip, arguments.gateway))),
            None => network.dhcp = Some(network.sockets.add(dhcpv4::Socket::new())),
        }
        network
    }

    /// The server's address, once it has one.
    pub fn address(&self) -> Option<Ipv4Address> {
        self.interface.ipv4_addr()
    }

    /// Takes in what has arrived, at most so many frames.
    pub fn take_in(&mut self, gate: &mut Gate<'_>, now: Instant, most: usize) {
        for _ in 0..most {
            let sockets = &mut self.sockets;
            match self.interface.poll_ingress_single(now, gate, sockets) {
                PollIngressSingleResult::None => break,
                _ => continue,
            }
        }
        self.configure();
    }

    /// Sends what there is to send, a packet for each socket at most. Says whether there was anything.
    pub fn send(&mut self, gate: &mut Gate<'_>, now: Instant) -> bool {
        let result = self.interface.poll_egress(now, gate, &mut self.sockets);
        result != PollResult::None
    }

    /// When there will be something to send if nothing arrives.
    pub fn next_event(&mut self, now: Instant) -> Option<Instant> {
        self.interface.poll_at(now, &self.sockets)
    }

    /// Does as DHCP says.
    fn configure(&mut self) {
        let Some(dhcp) = self.dhcp else { return };
        match self.sockets.get_mut::<dhcpv4::Socket>(dhcp).poll() {
            Some(dhcpv4::Event::Configured(config)) => {
                let (address, router) = (config.address, config.router);
                self.set_address(Some((address, router)));
            }
            Some(dhcpv4::Event::Deconfigured) => self.set_address(None),
            None => {}
        }
    }

    fn set_address(&mut self, address: Option<(Ipv4Cidr, Option<Ipv4Address>)>) {
        self.interface.update_ip_addrs(|addresses| {
            addresses.clear();
            if let Some((ip, _)) = address {
                // There is room: the list was just cleared.
                let _ = addresses.push(IpCidr::Ipv4(ip));
            }
        });
        let routes = self.interface.routes_mut();
        routes.remove_default_ipv4_route();
        if let Some((_, Some(gateway))) = address {
            let _ = routes.add_default_ipv4_route(gateway);
        }
    }
}

/// Something that nobody guesses, if the machine has a source of entropy; else something that differs from run to run.
fn seed() -> u64 {
    let mut bytes = [0; 8];
    let random = Entropy::first().and_then(|mut source| source.fill(&mut bytes));
    match random {
        Ok(()) => u64::from_le_bytes(bytes),
        Err(_) => time::tsc() ^ time::wall_clock_ns().unwrap_or(0).rotate_left(32),
    }
}
