//! Packets as they are read.

use std::net::IpAddr;

use smoltcp::wire::{EthernetFrame, EthernetProtocol, Ipv4Packet, Ipv6Packet};

use crate::checksum::Checksum;
use crate::stats::Dropped;

/// The length of an Ethernet header.
pub(crate) const ETHERNET: usize = 14;
/// So many bytes hold the longest headers of Ethernet, IPv4 and TCP.
pub(crate) const HEADERS: usize = ETHERNET + 60 + 60;
/// The longest frame: a packet cannot be longer than its length can say, nor a payload of IPv6.
pub(crate) const MAX_FRAME: usize = ETHERNET + 40 + 65535;

/// Numbers of protocols over IP (IANA, Assigned Internet Protocol Numbers).
pub(crate) mod protocol {
    pub(crate) const HOP_BY_HOP: u8 = 0;
    pub(crate) const ICMP: u8 = 1;
    pub(crate) const TCP: u8 = 6;
    pub(crate) const UDP: u8 = 17;
    pub(crate) const ROUTING: u8 = 43;
    pub(crate) const FRAGMENT: u8 = 44;
    pub(crate) const ICMPV6: u8 = 58;
    pub(crate) const NO_NEXT: u8 = 59;
    pub(crate) const DESTINATION: u8 = 60;
}

/// What is over Ethernet.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Network {
    Arp,
    Ip(Ip),
}

/// What an IP header says.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ip {
    pub(crate) src: IpAddr,
    pub(crate) dst: IpAddr,
    pub(crate) protocol: u8,
    /// Where in the frame the payload is.
    pub(crate) start: usize,
    pub(crate) len: usize,
    pub(crate) hop_limit: u8,
    pub(crate) fragment: Option<Fragment>,
}

/// A part of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Fragment {
    pub(crate) ident: u32,
    /// In bytes.
    pub(crate) offset: usize,
    pub(crate) more: bool,
}

/// Reads the Ethernet header: from whom, to whom, what.
pub(crate) fn ethernet(head: &[u8]) -> Result<EthernetFrame<&[u8]>, Dropped> {
    EthernetFrame::new_checked(head).map_err(|_| Dropped::Malformed)
}

/// Reads the IP header, from the beginning of a frame of `frame_len` bytes.
pub(crate) fn network(
    head: &[u8],
    kind: EthernetProtocol,
    frame_len: usize,
) -> Result<Network, Dropped> {
    let packet = head.get(ETHERNET..).unwrap_or_default();
    let len = frame_len.saturating_sub(ETHERNET);
    match kind {
        EthernetProtocol::Ipv4 => ipv4(packet, len).map(Network::Ip),
        EthernetProtocol::Ipv6 => ipv6(packet, len).map(Network::Ip),
        EthernetProtocol::Arp => Ok(Network::Arp),
        EthernetProtocol::Unknown(_) => Err(Dropped::Protocol),
    }
}

fn ipv4(packet: &[u8], len: usize) -> Result<Ip, Dropped> {
    if packet.len() < 20 {
        return Err(Dropped::Malformed);
    }
    let ip = Ipv4Packet::new_unchecked(packet);
    let (header, total) = (usize::from(ip.header_len()), usize::from(ip.total_len()));
    let options = packet.get(..header).ok_or(Dropped::Malformed)?;
    if ip.version() != 4 || header < 20 || total < header || total > len {
        return Err(Dropped::Malformed);
    }
    if !Checksum::default().add(options).is_intact() {
        return Err(Dropped::Checksum);
    }
    let fragment = Fragment {
        ident: ip.ident().into(),
        offset: ip.frag_offset().into(),
        more: ip.more_frags(),
    };
    Ok(Ip {
        src: ip.src_addr().into(),
        dst: ip.dst_addr().into(),
        protocol: ip.next_header().into(),
        start: ETHERNET + header,
        len: total - header,
        hop_limit: ip.hop_limit(),
        fragment: (fragment.more || fragment.offset > 0).then_some(fragment),
    })
}

fn ipv6(packet: &[u8], len: usize) -> Result<Ip, Dropped> {
    if packet.len() < 40 {
        return Err(Dropped::Malformed);
    }
    let ip = Ipv6Packet::new_unchecked(packet);
    let payload = usize::from(ip.payload_len());
    if ip.version() != 6 || payload + 40 > len {
        return Err(Dropped::Malformed);
    }
    Ok(Ip {
        src: ip.src_addr().into(),
        dst: ip.dst_addr().into(),
        protocol: ip.next_header().into(),
        start: ETHERNET + 40,
        len: payload,
        hop_limit: ip.hop_limit(),
        fragment: None,
    })
}

/// Headers that IPv6 may have between its own and what it carries. More are nobody's who means well.
const MAX_EXTENSIONS: usize = 8;

impl Ip {
    /// What it carries, in the whole frame.
    pub(crate) fn payload<'a>(&self, frame: &'a [u8]) -> Result<&'a [u8], Dropped> {
        frame
            .get(self.start..self.start + self.len)
            .ok_or(Dropped::Malformed)
    }

    /// Goes over the extension headers of IPv6 (RFC 8200 §4), in the whole frame.
    pub(crate) fn skip_extensions(mut self, frame: &[u8]) -> Result<Self, Dropped> {
        if self.src.is_ipv4() {
            return Ok(self);
        }
        for _ in 0..MAX_EXTENSIONS {
            let payload = self.payload(frame)?;
            let len = match self.protocol {
                protocol::HOP_BY_HOP | protocol::ROUTING | protocol::DESTINATION => {
                    8 + 8 * usize::from(*payload.get(1).ok_or(Dropped::Malformed)?)
                }
                protocol::FRAGMENT => 8,
                _ => return Ok(self),
            };
            let header = payload.get(..len).ok_or(Dropped::Malformed)?;
            let [next, _, high, low, a, b, c, d, ..] = header else {
                return Err(Dropped::Malformed);
            };
            let was = self.protocol;
            self.protocol = *next;
            self.start += len;
            self.len -= len;
            if was == protocol::FRAGMENT {
                let bits = u16::from_be_bytes([*high, *low]);
                let fragment = Fragment {
                    ident: u32::from_be_bytes([*a, *b, *c, *d]),
                    offset: usize::from(bits & 0xfff8),
                    more: bits & 1 != 0,
                };
                self.fragment = (fragment.more || fragment.offset > 0).then_some(fragment);
                // What follows is in the first fragment only.
                return Ok(self);
            }
        }
        Err(Dropped::Malformed)
    }

    /// Whether both ends can be of a conversation: neither is everyone, nobody or, as the source, the loopback.
    pub(crate) fn is_unicast(&self) -> bool {
        is_unicast(self.src) && !self.src.is_loopback() && !is_group(self.dst)
    }
}

fn is_unicast(address: IpAddr) -> bool {
    !address.is_unspecified() && !is_group(address)
}

fn is_group(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_multicast() || address.is_broadcast(),
        IpAddr::V6(address) => address.is_multicast(),
    }
}
