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
    /// Leaves the checksum of the TCP or UDP packet in a frame to the host: puts the sum over the pseudo-header where it
    /// belongs. Nothing is done with a frame that has no such packet, or a fragment.
    ///
    /// ```no_run
    /// # use goldcrest_guest::virtio::{Checksum, Error, Net};
    /// fn send(card: &mut Net, packet: &[u8]) -> Result<(), Error> {
    ///     let completes = card.completes_checksums();
    ///     card.transmit_with(packet.len(), |frame| {
    ///         frame.copy_from_slice(packet);
    ///         let checksum = if completes { Checksum::leave_to_host(frame) } else { Checksum::Complete };
    ///         (checksum, ())
    ///     })
    /// }
    /// ```
    pub fn leave_to_host(frame: &mut [u8]) -> Self {
        Packet::find(frame).map_or(Self::Complete, |packet| packet.leave_to_host(frame))
    }

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

/// Whether a TCP or UDP packet in a frame has the checksum that it should have, as far as it has one.
pub(super) fn is_right(frame: &[u8]) -> bool {
    Packet::find(frame).is_none_or(|packet| packet.is_right(frame))
}

/// The TCP or UDP packet in a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Packet {
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
    fn find(frame: &[u8]) -> Option<Self> {
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
        let (_, offset) = [TCP, UDP]
            .into_iter()
            .find(|(number, _)| *number == protocol)?;
        let len = total.checked_sub(at)?;
        (total <= ip.len() && len >= offset + 2).then_some(Self {
            start: ETHERNET + at,
            len,
            offset,
            optional: protocol == UDP.0,
            pseudo: sum(addresses) + u32::from(protocol) + u32::try_from(len).unwrap_or(0),
        })
    }

    fn leave_to_host(self, frame: &mut [u8]) -> Checksum {
        let folded = fold(self.pseudo);
        put(frame, self.start + self.offset, &folded.to_be_bytes());
        match (u16::try_from(self.start), u16::try_from(self.offset)) {
            (Ok(start), Ok(offset)) => Checksum::Partial { start, offset },
            _ => Checksum::Complete,
        }
    }

    /// Whether the checksum is right.
    fn is_right(self, frame: &[u8]) -> bool {
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

/// What a host does with a checksum that is left to it (§5.1.6.2.1).
#[cfg(test)]
pub(super) fn complete(frame: &mut [u8], start: u16, offset: u16) {
    let (_, packet) = frame.split_at_mut(start.into());
    let found = !fold(sum(packet));
    put(packet, offset.into(), &found.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use std::vec;
    use std::vec::Vec;

    use proptest::prelude::*;

    use super::*;

    /// A frame with a packet of this protocol, whose checksum is 0.
    fn frame(version: u8, protocol: u8, payload: &[u8]) -> Vec<u8> {
        let transport = if protocol == TCP.0 { 20 } else { 8 };
        let len = u16::try_from(transport + payload.len()).unwrap_or(0);
        let mut frame = vec![0; 12];
        if version == 4 {
            frame.extend([0x08, 0x00, 0x45, 0]);
            frame.extend((20 + len).to_be_bytes());
            frame.extend([
                0, 0, 0x40, 0, 64, protocol, 0, 0, 10, 0, 2, 15, 192, 168, 1, 255,
            ]);
        } else {
            frame.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
            frame.extend(len.to_be_bytes());
            frame.extend([protocol, 64]);
            frame.extend((0..32).map(|byte| byte * 7));
        }
        frame.extend((0..transport).map(|_| 0));
        frame.extend(payload);
        frame
    }

    #[test]
    fn a_checksum_is_what_comes_out_by_hand() {
        // A query to 8.8.8.8 for the address of "a.".
        let mut frame = frame(
            4,
            UDP.0,
            b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x01a\x00\x00\x01\x00\x01",
        );
        put(&mut frame, 30, &[8, 8, 8, 8]);
        put(&mut frame, 34, &[0xc0, 0x00, 0x00, 53, 0, 27]);
        let expected = [
            0x0a00 + 0x020f + 0x0808 + 0x0808 + 17 + 27 + 0xc000 + 53 + 27,
            0x1234 + 0x0100 + 1 + 0x0161 + 0x0100 + 0x0100,
        ];
        let by_hand = !fold(expected.iter().sum());
        put(&mut frame, 40, &by_hand.to_be_bytes());
        assert!(is_right(&frame));
        put(&mut frame, 40, &(by_hand ^ 1).to_be_bytes());
        assert!(!is_right(&frame));
        put(&mut frame, 40, &[0, 0]);
        assert!(is_right(&frame), "UDP may have none");
    }

    #[test]
    fn what_has_no_checksum_is_left_alone() {
        let fragment = |at: usize, bits| {
            let mut frame = frame(4, TCP.0, &[1; 8]);
            put(&mut frame, at, &[bits]);
            frame
        };
        for mut frame in [
            vec![0; 14],
            vec![0xff; 60],
            frame(4, 1, &[1; 16]),
            frame(6, 58, &[1; 16]),
            fragment(20, 0x20),
            fragment(21, 1),
        ] {
            let before = frame.clone();
            assert!(is_right(&frame));
            assert_eq!(Checksum::leave_to_host(&mut frame), Checksum::Complete);
            assert_eq!(frame, before);
        }
    }

    proptest! {
        #[test]
        fn what_is_left_to_the_host_is_right_once_it_is_completed(
            payload in prop::collection::vec(any::<u8>(), 0..1400), tcp: bool, new: bool, flip in 34_usize..1500,
        ) {
            let protocol = if tcp { TCP.0 } else { UDP.0 };
            let mut frame = frame(if new { 6 } else { 4 }, protocol, &payload);
            let Checksum::Partial { start, offset } = Checksum::leave_to_host(&mut frame) else {
                panic!("it is left to nobody");
            };
            complete(&mut frame, start, offset);
            prop_assert!(is_right(&frame));
            // An address, or anything after it, but for the length.
            if let Some(byte) = frame.get_mut(if new { flip + 20 } else { flip }) {
                *byte ^= 0x10;
                prop_assert!(!is_right(&frame));
            }
        }

        #[test]
        fn no_frame_does_any_harm(mut frame in prop::collection::vec(any::<u8>(), 0..100), ethertype in 0_usize..3) {
            let ethertype = [[0x08, 0], [0x86, 0xdd], [0, 0]].get(ethertype).copied().unwrap_or_default();
            put(&mut frame, 12, &ethertype);
            let (before, _) = (frame.len(), is_right(&frame));
            Checksum::leave_to_host(&mut frame);
            prop_assert_eq!(frame.len(), before);
        }
    }
}
