//! What the guest is told of what cannot be done (RFC 792, RFC 4443).

use std::io::ErrorKind;
use std::net::IpAddr;

use super::Network;
use crate::header::Header;
use crate::host::Host;
use crate::packet::{ETHERNET, Ip, protocol};
use crate::replies::{Full, Replies, udp_header};
use crate::tcp::FlowKey;

/// Why something cannot be reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unreachable {
    Network,
    Host,
    Port,
    Protocol,
    /// It is forbidden.
    Prohibited,
}

impl Unreachable {
    /// Type and code, for IPv4 or IPv6.
    fn kind(self, is_ipv4: bool) -> [u8; 2] {
        match (self, is_ipv4) {
            (Self::Network, true) => [3, 0],
            (Self::Host, true) => [3, 1],
            (Self::Protocol, true) => [3, 2],
            (Self::Port, true) => [3, 3],
            (Self::Prohibited, true) => [3, 13],
            (Self::Network, false) => [1, 0],
            (Self::Prohibited, false) => [1, 1],
            (Self::Host, false) => [1, 3],
            (Self::Port, false) => [1, 4],
            // An unrecognized next header is a parameter problem.
            (Self::Protocol, false) => [4, 1],
        }
    }

    pub(super) fn of(why: ErrorKind) -> Option<Self> {
        match why {
            ErrorKind::NetworkUnreachable => Some(Self::Network),
            ErrorKind::HostUnreachable | ErrorKind::TimedOut => Some(Self::Host),
            ErrorKind::ConnectionRefused => Some(Self::Port),
            ErrorKind::PermissionDenied => Some(Self::Prohibited),
            _ => None,
        }
    }
}

impl<H: Host> Network<H> {
    /// Adds a frame for the guest, or counts that there is no room for it.
    pub(super) fn reply(&mut self, push: impl FnOnce(&mut Replies) -> Result<(), Full>) {
        if push(&mut self.replies).is_err() {
            self.stats.over_limit += 1;
        }
    }

    /// Says why the host could not connect, if that is more than a refusal, which a reset says as well.
    pub(super) fn send_unreachable(&mut self, key: FlowKey, seq: u32, why: ErrorKind) {
        let Some(unreachable) = Unreachable::of(why).filter(|why| *why != Unreachable::Port) else {
            return;
        };
        let ([a, b], [c, d]) = (
            key.guest.port().to_be_bytes(),
            key.remote.port().to_be_bytes(),
        );
        let [e, f, g, h] = seq.to_be_bytes();
        let ends = (key.guest.ip(), key.remote.ip());
        self.send_error(
            unreachable,
            ends,
            protocol::TCP,
            20,
            &[a, b, c, d, e, f, g, h],
        );
    }

    /// Says that a datagram of the guest could not be sent, or that it was refused.
    pub(super) fn send_udp_unreachable(&mut self, key: FlowKey, why: Unreachable) {
        let ports = (key.guest.port(), key.remote.port());
        let ends = (key.guest.ip(), key.remote.ip());
        self.send_error(why, ends, protocol::UDP, 8, &udp_header(ports, 8));
    }

    /// As the host said it.
    pub(super) fn send_udp_error(&mut self, key: FlowKey, why: ErrorKind) {
        if let Some(why) = Unreachable::of(why) {
            self.send_udp_unreachable(key, why);
        }
    }

    /// An error about a packet from the guest, of which is told the header and how its payload began.
    pub(super) fn send_error(
        &mut self,
        why: Unreachable,
        (src, dst): (IpAddr, IpAddr),
        number: u8,
        len: usize,
        payload: &[u8],
    ) {
        let link = self.link();
        let quoted = Header::ip(link, src, dst, number, len);
        let mut data = [0; 48];
        let header = quoted.since(ETHERNET);
        let quoted = header.iter().chain(payload.iter().take(8));
        let mut count = 0;
        for (to, from) in data.iter_mut().zip(quoted) {
            *to = *from;
            count += 1;
        }
        // An error comes from a router: who is asked for is not there.
        let router = self.router(src);
        // The next header is what is wrong with a packet of IPv6.
        let word = match (why, src) {
            (Unreachable::Protocol, IpAddr::V6(_)) => [0, 0, 0, 6],
            _ => [0; 4],
        };
        let kind = why.kind(src.is_ipv4());
        let data = data.get(..count).unwrap_or_default();
        self.reply(|replies| replies.push_icmp(link, (router, src), kind, word, data));
    }

    /// The gateway's address of the same kind.
    pub(super) fn router(&self, address: IpAddr) -> IpAddr {
        match (address, &self.config.ipv6) {
            (IpAddr::V6(_), Some(ipv6)) => ipv6.gateway.into(),
            _ => self.config.ipv4.gateway.into(),
        }
    }

    pub(super) fn answer_unknown_protocol(&mut self, ip: &Ip, payload: &[u8]) {
        if ip.is_unicast() {
            let ends = (ip.src, ip.dst);
            self.send_error(Unreachable::Protocol, ends, ip.protocol, ip.len, payload);
        }
    }
}
