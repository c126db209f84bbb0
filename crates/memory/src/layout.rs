//! The guest-physical address map of a PC.

use crate::Region;

/// RAM below 4 GiB ends here at the latest; devices' registers lie from here to [`HOLE_END`].
pub const HOLE_START: u64 = 0xc000_0000;
/// RAM that did not fit below the hole goes on here.
pub const HOLE_END: u64 = 1 << 32;

/// The IOAPIC's registers.
pub const IOAPIC: u64 = 0xfec0_0000;
/// Every CPU's local APIC.
pub const LOCAL_APIC: u64 = 0xfee0_0000;

/// The most RAM a guest can have, in bytes: 4 TiB.
pub const MAX_SIZE: u64 = 4 << 40;

/// Where `size` bytes of RAM lie: from 0, around the hole.
pub(crate) fn regions(size: u64) -> impl Iterator<Item = Region> {
    let low = size.min(HOLE_START);
    let high = size - low;
    [(0, low), (HOLE_END, high)]
        .into_iter()
        .filter(|(_, len)| *len > 0)
        .map(|(start, len)| Region { start, len })
}
