//! The header of a packet.

use crate::spec::{HEADER_SIZE, kind};

/// `struct virtio_vsock_hdr` (§5.10.6), which begins every packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Who sends it.
    pub src_cid: u64,
    /// For whom it is.
    pub dst_cid: u64,
    /// The sender's port.
    pub src_port: u32,
    /// The receiver's port.
    pub dst_port: u32,
    /// Bytes of payload that follow.
    pub len: u32,
    /// `type`: what kind of socket it is of, [`kind`].
    pub kind: u16,
    /// What it is, [`op`](crate::spec::op).
    pub op: u16,
    /// What else, which depends on `op`.
    pub flags: u32,
    /// How many bytes the sender can hold for this stream.
    pub buf_alloc: u32,
    /// How many bytes of this stream have left the sender's buffer, modulo 2^32.
    pub fwd_cnt: u32,
}

impl Default for Header {
    /// All zeros, but of a stream.
    fn default() -> Self {
        Self {
            src_cid: 0,
            dst_cid: 0,
            src_port: 0,
            dst_port: 0,
            len: 0,
            kind: kind::STREAM,
            op: 0,
            flags: 0,
            buf_alloc: 0,
            fwd_cnt: 0,
        }
    }
}

impl Header {
    /// As it lies in memory.
    #[inline]
    pub fn from_bytes(bytes: &[u8; HEADER_SIZE]) -> Self {
        let (words, _) = bytes.as_chunks::<4>();
        let word = |index: usize| words.get(index).map_or(0, |word| u32::from_le_bytes(*word));
        let long = |index| u64::from(word(index)) | u64::from(word(index + 1)) << 32;
        let [a, b, c, d] = word(7).to_le_bytes();
        Self {
            src_cid: long(0),
            dst_cid: long(2),
            src_port: word(4),
            dst_port: word(5),
            len: word(6),
            kind: u16::from_le_bytes([a, b]),
            op: u16::from_le_bytes([c, d]),
            flags: word(8),
            buf_alloc: word(9),
            fwd_cnt: word(10),
        }
    }

    /// As [`from_bytes`](Self::from_bytes) takes it.
    #[inline]
    pub fn to_bytes(&self) -> [u8; HEADER_SIZE] {
        let mut bytes = [0; HEADER_SIZE];
        let (words, _) = bytes.as_chunks_mut::<4>();
        let ([a, b], [c, d]) = (self.kind.to_le_bytes(), self.op.to_le_bytes());
        let [src_low, src_high] = halves(self.src_cid);
        let [dst_low, dst_high] = halves(self.dst_cid);
        let values = [
            src_low,
            src_high,
            dst_low,
            dst_high,
            self.src_port,
            self.dst_port,
            self.len,
            u32::from_le_bytes([a, b, c, d]),
            self.flags,
            self.buf_alloc,
            self.fwd_cnt,
        ];
        for (word, value) in words.iter_mut().zip(values) {
            *word = value.to_le_bytes();
        }
        bytes
    }
}

#[inline]
fn halves(number: u64) -> [u32; 2] {
    let [a, b, c, d, e, f, g, h] = number.to_le_bytes();
    [[a, b, c, d], [e, f, g, h]].map(u32::from_le_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_have_the_specifications_layout() {
        let mut bytes = [0; HEADER_SIZE];
        for (byte, value) in bytes.iter_mut().zip(1..) {
            *byte = value;
        }
        let header = Header::from_bytes(&bytes);
        assert_eq!(header.src_cid, 0x0807_0605_0403_0201);
        assert_eq!(header.dst_cid, 0x100f_0e0d_0c0b_0a09);
        assert_eq!(
            (header.src_port, header.dst_port),
            (0x1413_1211, 0x1817_1615)
        );
        assert_eq!(header.len, 0x1c1b_1a19);
        assert_eq!((header.kind, header.op), (0x1e1d, 0x201f));
        assert_eq!(header.flags, 0x2423_2221);
        assert_eq!(
            (header.buf_alloc, header.fwd_cnt),
            (0x2827_2625, 0x2c2b_2a29)
        );
        assert_eq!(header.to_bytes(), bytes);
    }
}
