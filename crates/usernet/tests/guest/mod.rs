//! A guest: an independent TCP/IP stack, on a wire to a network.
#![allow(dead_code, reason = "each test uses a part of it")]

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use goldcrest_usernet::{
    FrameInfo, Host, HostSockets, Network, NetworkConfig, RxOffload, TxOffload,
};
use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::phy::{Checksum, Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::socket::{tcp, udp};
use smoltcp::time::Instant as SmolInstant;
use smoltcp::wire::{EthernetAddress, HardwareAddress, IpCidr};

pub(crate) const MAC: [u8; 6] = [0x02, 0, 0, 0, 0, 0x15];
pub(crate) const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 15);
pub(crate) const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 2);
pub(crate) const DNS: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 3);
pub(crate) const ADDRESS_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x676f, 0x6c64, 0, 0, 0, 0, 0x15);
pub(crate) const GATEWAY_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x676f, 0x6c64, 0, 0, 0, 0, 2);

/// A configuration whose guest reaches the host's loopback by the gateway.
pub(crate) fn open() -> NetworkConfig {
    NetworkConfig {
        host_loopback: true,
        dns: goldcrest_usernet::DnsConfig::None,
        seed: Some([7; 16]),
        ..NetworkConfig::default()
    }
}

/// What becomes of frames on the wire.
pub(crate) type Wire = Box<dyn FnMut(Vec<u8>, &mut VecDeque<Vec<u8>>)>;

pub(crate) fn perfect() -> Wire {
    Box::new(|frame, queue| queue.push_back(frame))
}

/// The guest's network card.
pub(crate) struct Card {
    pub(crate) received: VecDeque<Vec<u8>>,
    pub(crate) sent: VecDeque<Vec<u8>>,
    pub(crate) mtu: usize,
    pub(crate) checksums: bool,
}

pub(crate) struct Guest<H: Host = HostSockets> {
    pub(crate) network: Network<H>,
    pub(crate) card: Card,
    pub(crate) iface: Interface,
    pub(crate) sockets: SocketSet<'static>,
    pub(crate) rx: RxOffload,
    /// The room that the guest has for a frame.
    pub(crate) room: usize,
    /// The guest takes frames.
    pub(crate) takes: bool,
    pub(crate) to_guest: Wire,
    pub(crate) from_guest: Wire,
    started: Instant,
    /// The time, if it is not the host's.
    pub(crate) manual: Option<Duration>,
}

impl Guest {
    pub(crate) fn new(config: NetworkConfig) -> Self {
        Self::with_network(Network::new(config.clone()).unwrap(), config.mtu)
    }
}

impl<H: Host> Guest<H> {
    pub(crate) fn with_network(network: Network<H>, mtu: u16) -> Self {
        Self::with_card(network, mtu, true)
    }

    /// A guest that looks at checksums, or not.
    pub(crate) fn with_card(network: Network<H>, mtu: u16, checksums: bool) -> Self {
        let mut card = Card {
            received: VecDeque::new(),
            sent: VecDeque::new(),
            mtu: usize::from(mtu) + 14,
            checksums,
        };
        let mut config = Config::new(HardwareAddress::Ethernet(EthernetAddress(MAC)));
        config.random_seed = 0x1234_5678;
        let mut iface = Interface::new(config, &mut card, SmolInstant::ZERO);
        iface.update_ip_addrs(|addresses| {
            addresses
                .push(IpCidr::new(IpAddr::from(ADDRESS).into(), 24))
                .unwrap();
            addresses
                .push(IpCidr::new(IpAddr::from(ADDRESS_V6).into(), 64))
                .unwrap();
        });
        iface.routes_mut().add_default_ipv4_route(GATEWAY).unwrap();
        iface
            .routes_mut()
            .add_default_ipv6_route(GATEWAY_V6)
            .unwrap();
        Self {
            network,
            card,
            iface,
            sockets: SocketSet::new(Vec::new()),
            rx: RxOffload::default(),
            room: 65550,
            takes: true,
            to_guest: perfect(),
            from_guest: perfect(),
            started: Instant::now(),
            manual: None,
        }
    }

    pub(crate) fn now(&self) -> Duration {
        self.manual.unwrap_or_else(|| self.started.elapsed())
    }

    pub(crate) fn tcp(&mut self, buffer: usize) -> SocketHandle {
        let buffer = || tcp::SocketBuffer::new(vec![0; buffer]);
        self.sockets.add(tcp::Socket::new(buffer(), buffer()))
    }

    pub(crate) fn udp(&mut self, port: u16) -> SocketHandle {
        let buffer = || udp::PacketBuffer::new(vec![udp::PacketMetadata::EMPTY; 8], vec![0; 65535]);
        let mut socket = udp::Socket::new(buffer(), buffer());
        socket.bind(port).unwrap();
        self.sockets.add(socket)
    }

    pub(crate) fn connect(&mut self, to: SocketAddr, from: u16) -> SocketHandle {
        self.connect_with(to, from, 64 << 10)
    }

    pub(crate) fn connect_with(
        &mut self,
        to: SocketAddr,
        from: u16,
        buffer: usize,
    ) -> SocketHandle {
        let handle = self.tcp(buffer);
        let socket = self.sockets.get_mut::<tcp::Socket<'_>>(handle);
        socket.set_ack_delay(None);
        socket.connect(self.iface.context(), to, from).unwrap();
        handle
    }

    pub(crate) fn socket(&mut self, handle: SocketHandle) -> &mut tcp::Socket<'static> {
        self.sockets.get_mut(handle)
    }

    /// Lets everybody do what there is to do.
    pub(crate) fn step(&mut self) {
        let now = self.now();
        self.network.process(now);
        let millis = i64::try_from(now.as_micros()).unwrap();
        let instant = SmolInstant::from_micros(millis);
        self.iface.poll(instant, &mut self.card, &mut self.sockets);
        let mut frames = VecDeque::new();
        for frame in self.card.sent.drain(..) {
            (self.from_guest)(frame, &mut frames);
        }
        for frame in frames {
            self.network
                .send(frame.len(), &mut &frame[..], TxOffload::default());
        }
        self.network.flush();
        self.fetch();
    }

    /// Takes what the network has.
    pub(crate) fn fetch(&mut self) {
        while self.takes && self.network.has_frame() {
            let Some((_, frame)) = self.receive() else {
                break;
            };
            (self.to_guest)(frame, &mut self.card.received);
        }
    }

    pub(crate) fn receive(&mut self) -> Option<(FrameInfo, Vec<u8>)> {
        let mut frame = Vec::new();
        let info = self.network.receive(self.room, self.rx, &mut frame)?;
        assert_eq!(info.len, frame.len());
        assert!(info.len <= self.room);
        Some((info, frame))
    }

    pub(crate) fn until(&mut self, what: &str, mut done: impl FnMut(&mut Self) -> bool) {
        let limit = Instant::now() + Duration::from_secs(20);
        while !done(self) {
            assert!(Instant::now() < limit, "{what}: {:?}", self.network.stats());
            self.step();
        }
    }
}

impl Device for Card {
    type RxToken<'a> = Received;
    type TxToken<'a> = Sent<'a>;

    fn receive(&mut self, _timestamp: SmolInstant) -> Option<(Received, Sent<'_>)> {
        let frame = self.received.pop_front()?;
        Some((Received(frame), Sent(&mut self.sent)))
    }

    fn transmit(&mut self, _timestamp: SmolInstant) -> Option<Sent<'_>> {
        (self.sent.len() < 256).then_some(Sent(&mut self.sent))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = self.mtu;
        if !self.checksums {
            capabilities.checksum.tcp = Checksum::Tx;
            capabilities.checksum.udp = Checksum::Tx;
        }
        capabilities
    }
}

pub(crate) struct Received(Vec<u8>);

impl RxToken for Received {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(&self.0)
    }
}

pub(crate) struct Sent<'a>(&'a mut VecDeque<Vec<u8>>);

impl TxToken for Sent<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        let mut frame = vec![0; len];
        let result = f(&mut frame);
        self.0.push_back(frame);
        result
    }
}

/// Bytes that repeat themselves only after long.
pub(crate) fn pattern(from: usize, len: usize) -> Vec<u8> {
    (from..from + len)
        .map(|i| u8::try_from((i ^ i >> 8 ^ i >> 16).wrapping_mul(31) & 0xff).unwrap())
        .collect()
}
