//! The Internet checksum (RFC 1071).

use std::net::IpAddr;

/// A sum that is being made. Bytes are added in the order in which they are sent.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Checksum {
    /// In the host's byte order, which RFC 1071 §2(B) allows: only the end is swapped.
    sum: u64,
    /// An odd number of bytes has been added.
    odd: bool,
}

impl Checksum {
    /// Adds bytes.
    pub(crate) fn add(mut self, bytes: &[u8]) -> Self {
        let sum = u64::from(fold(sum_of(bytes)));
        // At an odd offset each byte is the other half of its word.
        self.sum += if self.odd {
            u64::from(u16::try_from(sum).unwrap_or(0).swap_bytes())
        } else {
            sum
        };
        self.odd ^= bytes.len() % 2 == 1;
        self
    }

    /// Adds the pseudo-header of RFC 9293 §3.1 or of RFC 8200 §8.1.
    pub(crate) fn add_pseudo(self, src: IpAddr, dst: IpAddr, protocol: u8, len: usize) -> Self {
        let sum = match (src, dst) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => self.add(&src.octets()).add(&dst.octets()),
            (IpAddr::V6(src), IpAddr::V6(dst)) => self.add(&src.octets()).add(&dst.octets()),
            // No packet has addresses of two kinds.
            _ => self,
        };
        // The same for both: zeros do not count, and no packet is longer than 2^32.
        let len = u32::try_from(len).unwrap_or(u32::MAX);
        sum.add(&len.to_be_bytes()).add(&[0, protocol])
    }

    /// The sum without the last complement: what is written where the guest is to finish it.
    pub(crate) fn partial(self) -> u16 {
        u16::from_be(fold(self.sum))
    }

    /// The checksum.
    pub(crate) fn finish(self) -> u16 {
        !self.partial()
    }

    /// The checksum of a UDP datagram, of which 0 would mean that there is none (RFC 768).
    pub(crate) fn finish_udp(self) -> u16 {
        match self.finish() {
            0 => 0xffff,
            sum => sum,
        }
    }

    /// Whether what was added, with its checksum, is intact.
    pub(crate) fn is_intact(self) -> bool {
        self.finish() == 0
    }
}

/// Four bytes at once: the compiler turns it into vectors. 2^32 of them do not overflow.
fn sum_of(bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks::<4>();
    let mut sum = 0_u64;
    for word in words {
        sum += u64::from(u32::from_ne_bytes(*word));
    }
    let mut last = [0; 4];
    for (to, from) in last.iter_mut().zip(rest) {
        *to = *from;
    }
    sum + u64::from(u32::from_ne_bytes(last))
}

fn fold(mut sum: u64) -> u16 {
    while let Err(_too_large) = u16::try_from(sum) {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    u16::try_from(sum).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As RFC 1071 §4.1 has it.
    fn slow(bytes: &[u8]) -> u16 {
        let mut sum = 0_u32;
        for pair in bytes.chunks(2) {
            let low = pair.get(1).copied().unwrap_or(0);
            sum += u32::from(u16::from_be_bytes([pair[0], low]));
        }
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        !u16::try_from(sum).unwrap()
    }

    #[test]
    fn the_example_of_rfc_1071_has_its_sum() {
        let bytes = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
        assert_eq!(Checksum::default().add(&bytes).partial(), 0xddf2);
    }

    #[test]
    fn pieces_of_any_length_have_the_sum_of_the_whole() {
        let bytes: Vec<u8> = (0..1000_u32)
            .map(|i| u8::try_from(i * i % 251).unwrap())
            .collect();
        for first in 0..9 {
            for second in first..20 {
                let sum = Checksum::default()
                    .add(&bytes[..first])
                    .add(&bytes[first..second])
                    .add(&bytes[second..]);
                assert_eq!(sum.finish(), slow(&bytes));
            }
        }
    }

    #[test]
    fn a_datagram_never_has_the_sum_that_means_none() {
        assert_eq!(Checksum::default().add(&[0xff, 0xff]).finish_udp(), 0xffff);
        assert_eq!(Checksum::default().add(&[0xff, 0xfe]).finish_udp(), 1);
    }
}
