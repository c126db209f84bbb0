//! A frame from the guest.

use std::io::Read;
use std::mem;

use super::Network;
use crate::checksum::Checksum;
use crate::frame::TxOffload;
use crate::host::Host;
use crate::packet::{self, ETHERNET, Fragment, HEADERS, Ip, MAX_FRAME, protocol};
use crate::stats::Dropped;

impl<H: Host> Network<H> {
    pub(super) fn take_frame(
        &mut self,
        len: usize,
        frame: &mut impl Read,
        offload: TxOffload,
    ) -> Result<(), Dropped> {
        if !(ETHERNET..=MAX_FRAME).contains(&len) {
            return Err(Dropped::Malformed);
        }
        let mut head = [0; HEADERS];
        let head = head.get_mut(..len.min(HEADERS)).unwrap_or_default();
        frame.read_exact(head).map_err(|_| Dropped::Malformed)?;
        let kind = self.take_ethernet(head)?;
        let network = packet::network(head, kind, len)?;
        if let packet::Network::Ip(ip) = network
            && ip.protocol == protocol::TCP
            && ip.fragment.is_none()
        {
            return self.take_segment(head, ip, frame, offload);
        }
        let mut scratch = mem::take(&mut self.scratch);
        let result = read_whole(&mut scratch, head, len, frame)
            .and_then(|frame| self.take_whole(frame, network, offload));
        self.scratch = scratch;
        result
    }

    /// Looks from whom and to whom a frame is, and says what it carries.
    fn take_ethernet(&mut self, head: &[u8]) -> Result<smoltcp::wire::EthernetProtocol, Dropped> {
        let ethernet = packet::ethernet(head)?;
        let (src, dst) = (ethernet.src_addr(), ethernet.dst_addr());
        if !src.is_unicast() {
            return Err(Dropped::Malformed);
        }
        if dst.is_unicast() && dst.0 != self.config.mac {
            return Err(Dropped::NotForUs);
        }
        if self.guest_mac.replace(src.0).is_none() {
            self.guest_is_there();
        }
        Ok(ethernet.ethertype())
    }

    /// Takes a frame that is no segment of TCP, or not plainly one.
    fn take_whole(
        &mut self,
        frame: &[u8],
        network: packet::Network,
        offload: TxOffload,
    ) -> Result<(), Dropped> {
        let packet::Network::Ip(ip) = network else {
            return self.take_arp(frame);
        };
        let ip = ip.skip_extensions(frame)?;
        match ip.fragment {
            Some(fragment) => self.take_fragment(ip, fragment, ip.payload(frame)?),
            None => self.take_packet(ip, frame, offload),
        }
    }

    /// Takes a piece of a packet.
    fn take_fragment(&mut self, ip: Ip, fragment: Fragment, piece: &[u8]) -> Result<(), Dropped> {
        let taken = self.reassembly.take(&ip, fragment, piece, self.now);
        self.stats.fragments_lost += taken.lost;
        let Some(whole) = taken.whole else {
            return Ok(());
        };
        let ip = Ip {
            start: 0,
            len: whole.len(),
            fragment: None,
            ..ip
        };
        // No card completes the checksum of what comes in pieces.
        self.take_packet(ip, &whole, TxOffload::default())
    }

    /// Takes a packet that is whole, in a buffer with whatever before it.
    pub(super) fn take_packet(
        &mut self,
        ip: Ip,
        frame: &[u8],
        offload: TxOffload,
    ) -> Result<(), Dropped> {
        let payload = ip.payload(frame)?;
        match ip.protocol {
            // All of it is before our eyes, and nothing is left to read.
            protocol::TCP => self.take_segment(frame, ip, &mut std::io::empty(), offload),
            protocol::UDP => self.take_udp(ip, payload, offload),
            protocol::ICMP if ip.src.is_ipv4() => self.take_icmp(ip, payload),
            protocol::ICMPV6 if ip.src.is_ipv6() => self.take_icmpv6(ip, payload),
            protocol::NO_NEXT if ip.src.is_ipv6() => Ok(()),
            _ => {
                self.answer_unknown_protocol(&ip, payload);
                Err(Dropped::Protocol)
            }
        }
    }
}

/// Reads the rest of a frame behind its head. The scratch is allocated once, for the longest that there are.
fn read_whole<'a>(
    scratch: &'a mut Vec<u8>,
    head: &[u8],
    len: usize,
    frame: &mut impl Read,
) -> Result<&'a [u8], Dropped> {
    if scratch.is_empty() {
        *scratch = vec![0; MAX_FRAME];
    }
    let whole = scratch.get_mut(..len).ok_or(Dropped::Malformed)?;
    let (first, rest) = whole
        .split_at_mut_checked(head.len())
        .ok_or(Dropped::Malformed)?;
    first.copy_from_slice(head);
    frame.read_exact(rest).map_err(|_| Dropped::Malformed)?;
    Ok(whole)
}

/// Checks the checksum of a payload of UDP, TCP or ICMPv6, of which `pieces` are all bytes.
pub(super) fn verify(ip: &Ip, pieces: &[&[u8]]) -> Result<(), Dropped> {
    let sum = Checksum::default().add_pseudo(ip.src, ip.dst, ip.protocol, ip.len);
    let sum = pieces.iter().fold(sum, |sum, piece| sum.add(piece));
    if sum.is_intact() {
        Ok(())
    } else {
        Err(Dropped::Checksum)
    }
}
