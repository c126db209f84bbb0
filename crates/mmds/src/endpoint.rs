//! The service at its address, on one link.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use goldcrest_usernet::{
    DnsConfig, FrameInfo, Ipv4Config, Limits, Network, NetworkConfig, RxOffload, TxOffload,
};

use crate::error::MmdsError;
use crate::service::{MAX_CONNECTIONS, PORT, Service};
use crate::store::Mmds;

/// So many bytes of a frame tell whether it is the service's: Ethernet's header and a packet of ARP.
pub const HEAD: usize = 42;

/// The service's Ethernet address: locally administered (IEEE 802 §8.4).
const MAC: [u8; 6] = [0x52, 0x55, 0xa9, 0xfe, 0xa9, 0xfe];
/// The first addresses of 169.254.0.0/16 are nobody's (RFC 3927 §2.1): here they are those that a network has besides.
const GUEST: Ipv4Addr = Ipv4Addr::new(169, 254, 0, 1);
const RESOLVER: Ipv4Addr = Ipv4Addr::new(169, 254, 0, 2);
/// Connections of the network's, with those that are about to end: each waits some time for the guest's late segments.
const FLOWS: usize = 8 * MAX_CONNECTIONS;
/// What a connection holds in each direction at most, in bytes, and all of them.
const RING: usize = 64 << 10;
const RINGS: usize = FLOWS * RING;
/// When a connection that is idle is asked whether the guest is there.
const IDLE: Duration = Duration::from_secs(60);

/// The service on a link: it takes the frames that are for it, and gives frames for the guest.
///
/// It has the whole address for itself: also what is not for its port stays on this link, and reaches no service of that
/// address that the host's network may have. Nothing here waits, and there is no descriptor: what is to be sent is there
/// after [`send`](Self::send) or [`process`](Self::process).
#[derive(Debug)]
pub struct Endpoint {
    network: Network<Service>,
    address: [u8; 4],
}

impl Endpoint {
    /// The service, at the address that it has now.
    ///
    /// # Errors
    ///
    /// [`MmdsError`] if the host has no random numbers.
    pub fn new(mmds: Arc<Mmds>) -> Result<Self, MmdsError> {
        Self::with_seed(mmds, None)
    }

    /// The same with numbers that can be guessed: for tests and fuzzers.
    ///
    /// # Errors
    ///
    /// None but those of [`new`](Self::new).
    pub fn with_seed(mmds: Arc<Mmds>, seed: Option<[u8; 16]>) -> Result<Self, MmdsError> {
        let address = mmds.config().address;
        let mut rules = Vec::new();
        for rule in [format!("127.0.0.1:{PORT}"), "!0.0.0.0/0".to_owned()] {
            rules.push(rule.parse()?);
        }
        let config = NetworkConfig {
            ipv4: Ipv4Config {
                guest: GUEST,
                prefix: 16,
                gateway: address,
                dns: RESOLVER,
            },
            ipv6: None,
            mac: MAC,
            dns: DnsConfig::None,
            rules,
            limits: Limits {
                tcp_flows: FLOWS,
                udp_flows: 1,
                ring: RING,
                rings: RINGS,
                tcp_idle: IDLE,
                ..Limits::default()
            },
            seed,
            ..NetworkConfig::default()
        };
        Ok(Self {
            network: Network::with_host(config, Service::new(mmds))?,
            address: address.octets(),
        })
    }

    /// Whether a frame of the guest's is for the service, by its first [`HEAD`] bytes, or all if there are fewer:
    /// questions where the service is, and packets to it.
    pub fn wants(&self, head: &[u8]) -> bool {
        let target = match head.get(12..14) {
            Some([0x08, 0x00]) => head.get(30..34),
            Some([0x08, 0x06]) => head.get(38..42),
            _ => None,
        };
        target == Some(&self.address[..])
    }

    /// Takes a frame of `len` bytes, which are read from `frame`. `now` is the time since a moment that is the same for
    /// all cards that the service is served on.
    pub fn send(&mut self, len: usize, frame: &mut dyn Read, offload: TxOffload, now: Duration) {
        self.advance(now);
        // It goes to the router, where the guest has no route of its own to the service.
        let mut to = [0; 6];
        if frame.read_exact(&mut to).is_err() {
            return;
        }
        if to.first().is_some_and(|first| first & 1 == 0) {
            to = MAC;
        }
        let mut frame = (&to[..]).chain(frame);
        self.network.send(len, &mut frame, offload);
        self.network.process(now);
    }

    /// Writes the next frame for the guest to `out`, if there is one that fits: at most `room` bytes.
    pub fn receive(
        &mut self,
        room: usize,
        offload: RxOffload,
        mut out: &mut dyn Write,
        now: Duration,
    ) -> Option<FrameInfo> {
        self.advance(now);
        let info = self.network.receive(room, offload, &mut out);
        if self.network.host_mut().has_events() {
            self.network.process(now);
        }
        info
    }

    /// Whether [`receive`](Self::receive) may have a frame.
    pub fn has_frame(&self) -> bool {
        self.network.has_frame()
    }

    /// How long from `now` it is until [`process`](Self::process) is to be called at the latest.
    pub fn timeout(&self, now: Duration) -> Option<Duration> {
        self.network.timeout(now)
    }

    /// Does what it is time for.
    pub fn process(&mut self, now: Duration) {
        self.advance(now);
        self.network.process(now);
    }

    /// How many connections there are, with those that are about to end.
    pub fn connections(&self) -> usize {
        self.network.flows().0
    }

    /// Where it is.
    pub fn address(&self) -> IpAddr {
        IpAddr::from(self.address)
    }

    fn advance(&mut self, now: Duration) {
        self.network.advance(now);
        self.network.host_mut().advance(now);
    }
}
