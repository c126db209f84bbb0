//! GUIDs (UEFI 2.10, appendix A).

use core::fmt;

use crate::fields::{bytes_at, u16_at, u32_at};

/// A GUID, as it lies on a disk: the first three fields are little-endian.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Guid(pub [u8; 16]);

impl Guid {
    /// Nothing: the type of an entry that is not in use.
    pub const NONE: Self = Self([0; 16]);

    /// The GUID that is written `a-b-c-d`, the last two groups as one number.
    pub(crate) const fn new(a: u32, b: u16, c: u16, d: u64) -> Self {
        let ([a0, a1, a2, a3], [b0, b1], [c0, c1]) =
            (a.to_le_bytes(), b.to_le_bytes(), c.to_le_bytes());
        let [d0, d1, d2, d3, d4, d5, d6, d7] = d.to_be_bytes();
        Self([
            a0, a1, a2, a3, b0, b1, c0, c1, d0, d1, d2, d3, d4, d5, d6, d7,
        ])
    }
}

impl fmt::Display for Guid {
    /// In lower case, as Linux has it in `PARTUUID=`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (a, b, c) = (u32_at(&self.0, 0), u16_at(&self.0, 4), u16_at(&self.0, 6));
        write!(f, "{a:08x}-{b:04x}-{c:04x}-")?;
        let [d0, d1, rest @ ..] = bytes_at::<8>(&self.0, 8);
        write!(f, "{d0:02x}{d1:02x}-")?;
        rest.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

#[cfg(test)]
mod tests {
    use alloc::string::ToString;

    use super::*;

    #[test]
    fn a_guid_is_written_as_the_specification_writes_it() {
        let esp = Guid::new(0xc12a_7328, 0xf81f, 0x11d2, 0xba4b_00a0_c93e_c93b);
        assert_eq!(esp.to_string(), "c12a7328-f81f-11d2-ba4b-00a0c93ec93b");
        assert_eq!(esp.0[..4], [0x28, 0x73, 0x2a, 0xc1]);
    }
}
