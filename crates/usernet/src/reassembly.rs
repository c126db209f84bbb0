//! Packets that the guest sends in pieces (RFC 815, RFC 8200 §4.5).

use std::net::IpAddr;
use std::time::Duration;

use crate::packet::{Fragment, Ip};

/// How many packets can be in pieces at once. Another takes the place of the oldest.
const PACKETS: usize = 4;
/// How many holes there can be in one: whoever makes more does not mean to fill them.
const HOLES: usize = 64;
/// The longest payload.
const MAX_LEN: usize = 65535;
/// How long the pieces are waited for (RFC 1122 §3.3.2 allows any time; on this link they come at once).
const PATIENCE: Duration = Duration::from_secs(15);

/// The pieces that have come.
#[derive(Debug, Default)]
pub(crate) struct Reassembly {
    packets: Vec<Packet>,
}

/// What is known of a packet.
#[derive(Debug)]
struct Packet {
    key: Key,
    since: Duration,
    bytes: Vec<u8>,
    /// What is missing, as far as is known: from the first byte to the last, without it.
    holes: Vec<(usize, usize)>,
    /// How many pieces there are.
    pieces: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Key {
    src: IpAddr,
    dst: IpAddr,
    protocol: u8,
    ident: u32,
}

/// What a piece has led to.
#[derive(Debug)]
pub(crate) struct Taken {
    /// The packet is whole: its payload.
    pub(crate) whole: Option<Vec<u8>>,
    /// So many pieces are lost.
    pub(crate) lost: u64,
}

impl Reassembly {
    /// Takes a piece.
    pub(crate) fn take(
        &mut self,
        ip: &Ip,
        fragment: Fragment,
        piece: &[u8],
        now: Duration,
    ) -> Taken {
        let mut lost = self.forget_old(now);
        let key = Key {
            src: ip.src,
            dst: ip.dst,
            protocol: ip.protocol,
            ident: fragment.ident,
        };
        let index = match self.packets.iter().position(|packet| packet.key == key) {
            Some(index) => index,
            None => {
                if self.packets.len() >= PACKETS {
                    lost += self.packets.remove(0).pieces;
                }
                self.packets.push(Packet::new(key, now));
                self.packets.len() - 1
            }
        };
        let Some(packet) = self.packets.get_mut(index) else {
            return Taken { whole: None, lost };
        };
        packet.pieces += 1;
        let fits = packet.add(fragment, piece);
        let is_whole = packet.holes.is_empty();
        if fits && !is_whole {
            return Taken { whole: None, lost };
        }
        let packet = self.packets.remove(index);
        if fits {
            Taken {
                whole: Some(packet.bytes),
                lost,
            }
        } else {
            Taken {
                whole: None,
                lost: lost + packet.pieces,
            }
        }
    }

    fn forget_old(&mut self, now: Duration) -> u64 {
        let is_old = |packet: &Packet| now.saturating_sub(packet.since) > PATIENCE;
        let lost = self.packets.iter().filter(|packet| is_old(packet));
        let lost = lost.map(|packet| packet.pieces).sum();
        self.packets.retain(|packet| !is_old(packet));
        lost
    }
}

impl Packet {
    fn new(key: Key, since: Duration) -> Self {
        Self {
            key,
            since,
            bytes: Vec::new(),
            holes: vec![(0, usize::MAX)],
            pieces: 0,
        }
    }

    /// Adds a piece, which must lie in a hole as a whole: one that overlaps others is a lie, or a repetition, for which
    /// RFC 8200 has the packet dropped.
    fn add(&mut self, fragment: Fragment, piece: &[u8]) -> bool {
        let (first, end) = (fragment.offset, fragment.offset + piece.len());
        if piece.is_empty() || end > MAX_LEN || fragment.more && !piece.len().is_multiple_of(8) {
            return false;
        }
        let hole = self
            .holes
            .iter()
            .position(|(from, to)| *from <= first && end <= *to);
        let Some((from, to)) = hole.map(|hole| self.holes.swap_remove(hole)) else {
            return false;
        };
        if first > from {
            self.holes.push((from, first));
        }
        // Behind the last piece nothing is missing, and there must be nothing.
        if fragment.more && end < to {
            self.holes.push((end, to));
        } else if !fragment.more && to != usize::MAX {
            return false;
        }
        if self.bytes.len() < end {
            self.bytes.resize(end, 0);
        }
        if let Some(place) = self.bytes.get_mut(first..end) {
            place.copy_from_slice(piece);
        }
        self.holes.len() <= HOLES
    }
}
