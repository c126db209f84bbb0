//! Segments as they are read.

use std::net::SocketAddr;

use smoltcp::wire::{TcpOption, TcpPacket};

use super::{FlowKey, distance, flag};
use crate::packet::Ip;
use crate::stats::Dropped;

/// What a segment's header says.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Segment {
    pub(crate) key: FlowKey,
    pub(crate) seq: u32,
    pub(crate) ack: u32,
    pub(crate) flags: u8,
    /// As the header has it, not scaled.
    pub(crate) window: u16,
    /// Bytes of data.
    pub(crate) len: u32,
    /// Where in the frame the data is.
    pub(crate) data: usize,
    /// The greatest segment that the sender takes, if it says so.
    pub(crate) mss: Option<u16>,
    /// How the sender's window is scaled, if it can be.
    pub(crate) scale: Option<u8>,
}

impl Segment {
    /// Reads a segment's header from the beginning of a frame.
    pub(crate) fn parse(head: &[u8], ip: &Ip) -> Result<Self, Dropped> {
        let bytes = head.get(ip.start..).unwrap_or_default();
        let bytes = bytes.get(..bytes.len().min(ip.len)).unwrap_or_default();
        let tcp = TcpPacket::new_checked(bytes).map_err(|_| Dropped::Malformed)?;
        let header = usize::from(tcp.header_len());
        let flags = bytes.get(13).copied().unwrap_or(0);
        if tcp.src_port() == 0 || tcp.dst_port() == 0 || !ip.is_unicast() {
            return Err(Dropped::Malformed);
        }
        let mut segment = Self {
            key: FlowKey {
                guest: SocketAddr::new(ip.src, tcp.src_port()),
                remote: SocketAddr::new(ip.dst, tcp.dst_port()),
            },
            seq: u32::from_be_bytes(word(bytes, 4)),
            ack: u32::from_be_bytes(word(bytes, 8)),
            flags,
            window: tcp.window_len(),
            len: distance(ip.len - header),
            data: ip.start + header,
            mss: None,
            scale: None,
        };
        if segment.is(flag::SYN) {
            segment.parse_options(tcp.options());
        }
        Ok(segment)
    }

    fn parse_options(&mut self, mut options: &[u8]) {
        // What cannot be read ends them (RFC 9293 §3.1 wants no more than that nobody comes to harm).
        while let Ok((rest, option)) = TcpOption::parse(options) {
            match option {
                TcpOption::EndOfList => break,
                TcpOption::MaxSegmentSize(mss) => self.mss = Some(mss),
                // More than 14 counts as 14 (RFC 7323 §2.3).
                TcpOption::WindowScale(scale) => self.scale = Some(scale.min(14)),
                _ => {}
            }
            options = rest;
        }
    }

    pub(crate) fn is(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// What it takes of the sequence numbers: SYN and FIN count as a byte each.
    pub(crate) fn sequence_len(&self) -> u32 {
        let flags = u32::from(self.is(flag::SYN)) + u32::from(self.is(flag::FIN));
        self.len.wrapping_add(flags)
    }
}

fn word(bytes: &[u8], at: usize) -> [u8; 4] {
    bytes
        .get(at..)
        .and_then(|rest| rest.first_chunk())
        .copied()
        .unwrap_or_default()
}
