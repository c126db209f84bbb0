//! Checksums of TCP and UDP (RFC 1071), of which the host can take care (virtio 1.3 §5.1.6.2 and §5.1.6.4).

use super::spec::{ETHERNET, header};

/// What is known of the checksum of what a frame carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Checksum {
    /// Sent: it is in the frame, or there is none. Received: nobody has looked at it.
    Complete,
    /// It is to be completed: over all bytes from `start` on, stored `offset` bytes further on, where the sum over the
    /// pseudo-header is. Such a frame comes from the host itself or one of its guests, and needs no look.
    Partial {
        /// Offset in the frame of the TCP or UDP header.
        start: u16,
        /// Offset in that header of the checksum.
        offset: u16,
    },
    /// Received: the host has found it to be right.
    Valid,
}

impl Checksum {
    /// What a header of virtio says.
    pub(super) fn from_header(bytes: &[u8]) -> Self {
        let flags = bytes.get(header::FLAGS).copied().unwrap_or(0);
        if flags & header::F_NEEDS_CSUM != 0 {
            Self::Partial {
                start: u16_le(bytes, header::CSUM_START),
                offset: u16_le(bytes, header::CSUM_OFFSET),
            }
        } else if flags & header::F_DATA_VALID != 0 {
            Self::Valid
        } else {
            Self::Complete
        }
    }

    /// Writes a header of virtio.
    pub(super) fn to_header(self, bytes: &mut [u8]) {
        bytes.fill(0);
        if let Self::Partial { start, offset } = self {
            put(bytes, header::FLAGS, &[header::F_NEEDS_CSUM]);
            put(bytes, header::CSUM_START, &start.to_le_bytes());
            put(bytes, header::CSUM_OFFSET, &offset.to_le_bytes());
        }
    }
}

/// The TCP or UDP packet in a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Packet {
    /// Offset in the frame of its header.
    start: usize,
    /// Bytes of header and payload.
    len: usize,
    /// Offset in the header of the checksum.
    offset: usize,
    /// A checksum of 0 says that there is none.
    optional: bool,
    /// Sum over the pseudo-header.
    pseudo: u32,
}

/// IP protocols, and where their headers have the checksum.
const TCP: (u8, usize) = (6, 16);
const UDP: (u8, usize) = (17, 6);

impl Packet {
    /// Finds the packet; `None` if the frame carries something else, or a fragment.
    pub(super) fn find(frame: &[u8]) -> Option<Self> {
        let (ethernet, ip) = frame.split_at_checked(ETHERNET)?;
        let (addresses, protocol, at, total) = match ethernet.get(12..)? {
            [0x08, 0x00] => {
                let at = usize::from(ip.first()? & 0x0f) * 4;
                let fragment = u16_be(ip, 6) & 0x3fff != 0;
                let total = usize::from(u16_be(ip, 2));
                (!fragment).then_some((ip.get(12..20)?, *ip.get(9)?, at.max(20), total))?
            }
            // Extension headers are left to whoever reads them: the checksum of what follows is not looked for.
            [0x86, 0xdd] => {
                let total = 40 + usize::from(u16_be(ip, 4));
                (ip.get(8..40)?, *ip.get(6)?, 40, total)
            }
            _ => return None,
        };
        let (_, offset) = [TCP, UDP].into_iter().find(|(number, _)| *number == protocol)?;
        let len = total.checked_sub(at)?;
        (total <= ip.len() && len >= offset + 2).then_some(Self {
            start: ETHERNET + at,
            len,
            offset,
            optional: protocol == UDP.0,
            pseudo: sum(addresses) + u32::from(protocol) + u32::try_from(len).unwrap_or(0),
        })
    }

    /// Leaves the checksum to the host: puts the sum over the pseudo-header where it belongs.
    pub(super) fn leave_to_host(self, frame: &mut [u8]) -> Checksum {
        let folded = fold(self.pseudo);
        put(frame, self.start + self.offset, &folded.to_be_bytes());
        match (u16::try_from(self.start), u16::try_from(self.offset)) {
            (Ok(start), Ok(offset)) => Checksum::Partial { start, offset },
            _ => Checksum::Complete,
        }
    }

    /// Whether the checksum is right.
    pub(super) fn is_right(self, frame: &[u8]) -> bool {
        let bytes = frame.get(self.start..self.start + self.len);
        let bytes = bytes.unwrap_or_default();
        if self.optional && u16_be(bytes, self.offset) == 0 {
            return true;
        }
        fold(sum(bytes).saturating_add(self.pseudo)) == 0xffff
    }
}

/// The sum of 16-bit numbers, most significant byte first, with a zero after an odd end. A frame is too short for it to
/// overflow.
fn sum(bytes: &[u8]) -> u32 {
    let (pairs, rest) = bytes.as_chunks::<2>();
    let last = rest.first().map_or(0, |byte| u32::from(*byte) << 8);
    pairs
        .iter()
        .fold(last, |sum, pair| sum + u32::from(u16::from_be_bytes(*pair)))
}

/// The ones' complement sum of both halves.
fn fold(sum: u32) -> u16 {
    let once = (sum >> 16) + (sum & 0xffff);
    let twice = (once >> 16) + (once & 0xffff);
    u16::try_from(twice).unwrap_or(u16::MAX)
}

fn u16_be(bytes: &[u8], at: usize) -> u16 {
    let field = bytes.get(at..).and_then(|bytes| bytes.first_chunk());
    field.map_or(0, |field| u16::from_be_bytes(*field))
}

fn u16_le(bytes: &[u8], at: usize) -> u16 {
    u16_be(bytes, at).swap_bytes()
}

fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    if let Some(field) = bytes.get_mut(at..at + value.len()) {
        field.copy_from_slice(value);
    }
}
