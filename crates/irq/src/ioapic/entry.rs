//! A redirection table entry (82093AA data sheet §3.2.4) and the message that it makes.

use crate::Msi;

const VECTOR: u64 = 0xff;
const DELIVERY_MODE: u64 = 0b111 << 8;
const DESTINATION_MODE_LOGICAL: u64 = 1 << 11;
const POLARITY_LOW: u64 = 1 << 13;
const REMOTE_IRR: u64 = 1 << 14;
const TRIGGER_LEVEL: u64 = 1 << 15;
const MASK: u64 = 1 << 16;
/// Bits 14:8 of the destination, where guest and hypervisor agree on it (KVM's `KVM_FEATURE_MSI_EXT_DEST_ID`);
/// reserved in the data sheet.
const EXTENDED_DESTINATION: u64 = 0x7f << 49;
const DESTINATION: u64 = 0xff << 56;

/// What software can write. Delivery status (bit 12) is not stored either: delivery is immediate, so it is always 0.
const WRITABLE: u64 = VECTOR
    | DELIVERY_MODE
    | DESTINATION_MODE_LOGICAL
    | POLARITY_LOW
    | TRIGGER_LEVEL
    | MASK
    | EXTENDED_DESTINATION
    | DESTINATION;

/// Where messages go (Intel SDM vol. 3A §11.11.1).
const MSI_ADDRESS: u32 = 0xfee0_0000;
const MSI_ADDRESS_LOGICAL: u32 = 1 << 2;
/// §11.11.2: level, asserted.
const MSI_DATA_LEVEL: u32 = 0b11 << 14;

/// One entry of the redirection table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RedirectionEntry(u64);

impl RedirectionEntry {
    /// Masked, all else 0.
    pub(super) const RESET: Self = Self(MASK);

    /// The entry that software finds when it reads `bits`, if there is one.
    pub(super) fn from_bits(bits: u64) -> Option<Self> {
        let entry = Self(bits);
        let possible = bits & !(WRITABLE | REMOTE_IRR) == 0;
        (possible && (entry.is_level() || !entry.remote_irr())).then_some(entry)
    }

    pub(super) const fn bits(self) -> u64 {
        self.0
    }

    /// The entry after software has written those bits of `value` that `select` has.
    ///
    /// An entry that becomes edge-triggered forgets its remote IRR. Operating systems rely on it to get out of a lost
    /// end of interrupt.
    #[must_use]
    pub(super) const fn written(self, value: u64, select: u64) -> Self {
        let select = select & WRITABLE;
        Self((self.0 & !select) | (value & select)).with_remote_irr(self.remote_irr())
    }

    /// Whether the pin is served as level-triggered. Only fixed and lowest-priority delivery can be: the other modes
    /// have no end of interrupt, and are edge-triggered whatever the trigger mode says.
    pub(super) const fn is_level(self) -> bool {
        const LOWEST_PRIORITY: u64 = 1 << 8;
        self.0 & TRIGGER_LEVEL != 0 && self.0 & DELIVERY_MODE <= LOWEST_PRIORITY
    }

    pub(super) const fn is_masked(self) -> bool {
        self.0 & MASK != 0
    }

    pub(super) fn has_vector(self, vector: u8) -> bool {
        self.0 & VECTOR == u64::from(vector)
    }

    /// Whether a level-triggered interrupt was sent and its end is awaited.
    pub(super) const fn remote_irr(self) -> bool {
        self.0 & REMOTE_IRR != 0
    }

    #[must_use]
    pub(super) const fn with_remote_irr(self, remote_irr: bool) -> Self {
        if remote_irr && self.is_level() {
            Self(self.0 | REMOTE_IRR)
        } else {
            Self(self.0 & !REMOTE_IRR)
        }
    }

    /// The message in the compatibility format: destination in address bits 19:12, its extension in bits 11:5.
    pub(super) fn message(self) -> Msi {
        let destination = self.field(DESTINATION) << 12;
        let extension = self.field(EXTENDED_DESTINATION) << 5;
        let logical = self.field(DESTINATION_MODE_LOGICAL) * MSI_ADDRESS_LOGICAL;
        let level = if self.is_level() { MSI_DATA_LEVEL } else { 0 };
        Msi {
            address_hi: 0,
            address_lo: MSI_ADDRESS | destination | extension | logical,
            data: self.field(VECTOR) | self.field(DELIVERY_MODE) << 8 | level,
        }
    }

    /// The value of the field under `mask`, which is at most 8 bits wide.
    fn field(self, mask: u64) -> u32 {
        u32::try_from((self.0 & mask) >> mask.trailing_zeros()).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn section_3_2_4_reserved_and_read_only_bits_do_not_change() {
        let entry = RedirectionEntry::RESET.written(u64::MAX, u64::MAX);
        assert_eq!(entry.bits(), 0xfffe_0000_0001_afff);
        assert_eq!(RedirectionEntry::from_bits(entry.bits()), Some(entry));
        for reserved in [12, 17, 31, 48] {
            assert_eq!(RedirectionEntry::from_bits(1 << reserved), None);
        }
        assert_eq!(RedirectionEntry::from_bits(REMOTE_IRR), None);
    }

    #[test]
    fn message_carries_modes_and_destination() {
        let bits = 0xa5 << 56 | 0x15 << 49 | DESTINATION_MODE_LOGICAL | 0x131;
        let fixed = RedirectionEntry(bits);
        assert_eq!(fixed.message().address_lo, 0xfeea_52a4);
        assert_eq!(
            (fixed.message().address_hi, fixed.message().data),
            (0, 0x131)
        );
        let level = fixed.written(TRIGGER_LEVEL, TRIGGER_LEVEL);
        assert_eq!(level.message().data, 0xc131);
    }

    #[test]
    fn nmi_and_its_like_are_never_level() {
        for mode in 0..8 {
            let entry = RedirectionEntry(TRIGGER_LEVEL | mode << 8);
            assert_eq!(entry.is_level(), mode <= 1, "delivery mode {mode}");
            assert_eq!(entry.with_remote_irr(true).remote_irr(), mode <= 1);
        }
    }
}
