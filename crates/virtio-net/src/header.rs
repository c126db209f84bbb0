//! What precedes a frame.

use crate::spec::header;

/// `struct virtio_net_hdr` (§5.1.6), as bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Header(pub [u8; header::SIZE]);

impl Header {
    /// `flags`.
    #[inline]
    pub const fn flags(&self) -> u8 {
        let [flags, ..] = self.0;
        flags
    }

    /// `gso_type`.
    #[inline]
    pub const fn gso_type(&self) -> u8 {
        let [_, gso_type, ..] = self.0;
        gso_type
    }

    /// `hdr_len`: how much of the frame is headers, in bytes; a hint, which nobody must believe.
    pub const fn hdr_len(&self) -> u16 {
        let [_, _, a, b, ..] = self.0;
        u16::from_le_bytes([a, b])
    }

    /// `gso_size`: the payload of each part that the frame is cut into, in bytes.
    pub const fn gso_size(&self) -> u16 {
        let [_, _, _, _, a, b, ..] = self.0;
        u16::from_le_bytes([a, b])
    }

    /// `csum_start`: where in the frame the sum begins, in bytes.
    pub const fn csum_start(&self) -> u16 {
        let [_, _, _, _, _, _, a, b, ..] = self.0;
        u16::from_le_bytes([a, b])
    }

    /// `csum_offset`: where behind that it is put, in bytes.
    pub const fn csum_offset(&self) -> u16 {
        let [.., a, b, _, _] = self.0;
        u16::from_le_bytes([a, b])
    }

    /// Whether the frame is complete and not to be cut.
    #[inline]
    pub const fn is_plain(&self) -> bool {
        let [flags, gso_type, ..] = self.0;
        flags == 0 && gso_type == header::GSO_NONE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_where_the_specification_has_them() {
        let header = Header([1, 4, 2, 0, 3, 1, 34, 0, 16, 0, 9, 9]);
        assert_eq!((header.flags(), header.gso_type()), (1, 4));
        assert_eq!((header.hdr_len(), header.gso_size()), (2, 0x103));
        assert_eq!((header.csum_start(), header.csum_offset()), (34, 16));
        assert!(!header.is_plain() && Header::default().is_plain());
    }
}
