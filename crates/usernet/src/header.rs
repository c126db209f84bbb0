//! Headers as they are written.

use std::net::IpAddr;

use crate::checksum::Checksum;
use crate::packet::{ETHERNET, protocol};

/// The hop limit of what is sent to the guest (RFC 1700: the default).
const HOP_LIMIT: u8 = 64;

/// Headers, one after another.
#[derive(Debug)]
pub(crate) struct Header {
    bytes: [u8; 128],
    len: usize,
}

/// The two ends of the link to the guest, as a frame to it has them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Link {
    /// The guest's address; everyone's as long as it is not known.
    pub(crate) guest: [u8; 6],
    pub(crate) gateway: [u8; 6],
}

impl Header {
    /// The headers of Ethernet and IP, for a payload of `len` bytes.
    pub(crate) fn ip(link: Link, src: IpAddr, dst: IpAddr, protocol: u8, len: usize) -> Self {
        let mut header = Self {
            bytes: [0; 128],
            len: 0,
        };
        header.push(&link.guest);
        header.push(&link.gateway);
        match (src, dst) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => {
                header.push(&[0x08, 0x00]);
                let [high, low] = length(len + 20);
                // An atomic packet, whose identification means nothing (RFC 6864 §4.1).
                header.push(&[0x45, 0, high, low, 0, 0, 0x40, 0, HOP_LIMIT, protocol, 0, 0]);
                header.push(&src.octets());
                header.push(&dst.octets());
                header.finish_ipv4();
            }
            (src, dst) => {
                header.push(&[0x86, 0xdd]);
                let [high, low] = length(len);
                let hop_limit = if protocol == protocol::ICMPV6 {
                    255
                } else {
                    HOP_LIMIT
                };
                header.push(&[0x60, 0, 0, 0, high, low, protocol, hop_limit]);
                header.push(&octets(src));
                header.push(&octets(dst));
            }
        }
        header
    }

    /// Makes the packet of IPv4 a fragment.
    pub(crate) fn set_fragment(&mut self, ident: u16, offset: usize, more: bool) {
        let bits = u16::try_from(offset / 8).unwrap_or(0) | u16::from(more) << 13;
        self.set(ETHERNET + 4, ident.to_be_bytes());
        self.set(ETHERNET + 6, bits.to_be_bytes());
        self.set(ETHERNET + 10, [0, 0]);
        self.finish_ipv4();
    }

    fn finish_ipv4(&mut self) {
        let ip = self.bytes.get(ETHERNET..ETHERNET + 20).unwrap_or_default();
        let sum = Checksum::default().add(ip).finish();
        self.set(ETHERNET + 10, sum.to_be_bytes());
    }

    /// Adds bytes. There is room for all headers that are ever made.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        if let Some(to) = self.bytes.get_mut(self.len..self.len + bytes.len()) {
            to.copy_from_slice(bytes);
            self.len += bytes.len();
        }
    }

    /// Replaces two bytes.
    pub(crate) fn set(&mut self, at: usize, bytes: [u8; 2]) {
        if let Some(to) = self.bytes.get_mut(at..at + 2) {
            to.copy_from_slice(&bytes);
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }

    /// What has been written from `start` on.
    pub(crate) fn since(&self, start: usize) -> &[u8] {
        self.bytes.get(start..self.len).unwrap_or_default()
    }
}

/// A length as a header has it.
pub(crate) fn length(len: usize) -> [u8; 2] {
    u16::try_from(len).unwrap_or(u16::MAX).to_be_bytes()
}

fn octets(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
        IpAddr::V6(address) => address.octets(),
    }
}
