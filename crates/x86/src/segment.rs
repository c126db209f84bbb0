//! Segments and their descriptors (SDM §3.4.5, §8.2).

use serde::{Deserialize, Serialize};

/// A segment register with its hidden part.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Segment {
    /// The selector, with the requested privilege level.
    pub selector: u16,
    /// Linear address of the first byte.
    pub base: u64,
    /// The last offset, in bytes whatever the granularity.
    pub limit: u32,
    /// The type field, 4 bits.
    pub kind: u8,
    /// S: code or data, not a system segment.
    pub code_or_data: bool,
    /// DPL, 0 to 3.
    pub privilege: u8,
    /// P.
    pub present: bool,
    /// L: 64-bit code.
    pub long: bool,
    /// D/B: 32-bit operands.
    pub default_32: bool,
    /// G: the limit counts pages.
    pub granularity: bool,
    /// AVL.
    pub available: bool,
    /// The register cannot be used (a null selector was loaded).
    pub unusable: bool,
}

/// Type: code, execute and read, accessed.
const CODE: u8 = 0xb;
/// Type: data, read and write, accessed.
const DATA: u8 = 0x3;
/// Type: 32- or 64-bit task state segment, busy.
const TSS_BUSY: u8 = 0xb;

impl Segment {
    /// Flat 64-bit code at `privilege`.
    pub const fn code64(selector: u16, privilege: u8) -> Self {
        Self {
            long: true,
            default_32: false,
            ..Self::flat(selector, CODE, privilege)
        }
    }

    /// Flat 32-bit code in ring 0.
    pub const fn code32(selector: u16) -> Self {
        Self::flat(selector, CODE, 0)
    }

    /// Code of real mode: 64 KiB from 16 times `selector`.
    pub const fn code16(selector: u16) -> Self {
        Self::real(selector, CODE)
    }

    /// Data and stack of real mode: 64 KiB from 16 times `selector`.
    pub const fn data16(selector: u16) -> Self {
        Self::real(selector, DATA)
    }

    /// Flat data and stack at `privilege`.
    pub const fn data(selector: u16, privilege: u8) -> Self {
        Self::flat(selector, DATA, privilege)
    }

    /// A busy task state segment; `limit` is the last offset (0x67 for a bare one).
    pub const fn tss(selector: u16, base: u64, limit: u32) -> Self {
        Self {
            selector,
            base,
            limit,
            kind: TSS_BUSY,
            code_or_data: false,
            privilege: 0,
            present: true,
            long: false,
            default_32: false,
            granularity: false,
            available: false,
            unusable: false,
        }
    }

    /// A register that cannot be used.
    pub const fn unusable() -> Self {
        Self {
            present: false,
            unusable: true,
            ..Self::flat(0, DATA, 0)
        }
    }

    const fn real(selector: u16, kind: u8) -> Self {
        Self {
            base: (selector as u64) << 4,
            limit: 0xffff,
            default_32: false,
            granularity: false,
            ..Self::flat(selector, kind, 0)
        }
    }

    const fn flat(selector: u16, kind: u8, privilege: u8) -> Self {
        Self {
            selector,
            base: 0,
            limit: 0xffff_ffff,
            kind,
            code_or_data: true,
            privilege,
            present: true,
            long: false,
            default_32: true,
            granularity: true,
            available: false,
            unusable: false,
        }
    }

    /// The 8-byte descriptor that loads this segment; base bits above 31 are left out (see
    /// [`descriptor_high`](Self::descriptor_high)). A TSS is given as busy if it is.
    pub const fn descriptor(&self) -> u64 {
        let limit = if self.granularity {
            self.limit >> 12
        } else {
            self.limit
        } as u64;
        (limit & 0xffff)
            | (self.base & 0xff_ffff) << 16
            | (self.kind as u64 & 0xf) << 40
            | (self.code_or_data as u64) << 44
            | (self.privilege as u64 & 3) << 45
            | (self.present as u64) << 47
            | (limit >> 16 & 0xf) << 48
            | (self.available as u64) << 52
            | (self.long as u64) << 53
            | (self.default_32 as u64) << 54
            | (self.granularity as u64) << 55
            | (self.base >> 24 & 0xff) << 56
    }

    /// The second half of a 16-byte system descriptor in 64-bit mode (SDM §8.2.3): base bits 63:32.
    pub const fn descriptor_high(&self) -> u64 {
        self.base >> 32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptors_are_the_well_known_ones() {
        assert_eq!(Segment::code64(8, 0).descriptor(), 0x00af_9b00_0000_ffff);
        assert_eq!(Segment::code64(0x23, 3).descriptor(), 0x00af_fb00_0000_ffff);
        assert_eq!(Segment::code32(8).descriptor(), 0x00cf_9b00_0000_ffff);
        assert_eq!(Segment::data(0x10, 0).descriptor(), 0x00cf_9300_0000_ffff);
        assert_eq!(Segment::data(0x1b, 3).descriptor(), 0x00cf_f300_0000_ffff);
    }

    #[test]
    fn real_mode_has_segments_of_64_kib() {
        assert_eq!(Segment::code16(0xf000).descriptor(), 0x0000_9b0f_0000_ffff);
        assert_eq!(Segment::data16(0).descriptor(), 0x0000_9300_0000_ffff);
        assert_eq!(Segment::code16(0x7c0).base, 0x7c00);
    }

    #[test]
    fn a_tss_has_a_byte_limit_and_a_64_bit_base() {
        let tss = Segment::tss(0x28, 0x1234_5678_9abc_def0, 0x67);
        assert_eq!(tss.descriptor(), 0x9a00_8bbc_def0_0067);
        assert_eq!(tss.descriptor_high(), 0x1234_5678);
    }
}
