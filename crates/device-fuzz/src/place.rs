//! Where things are in the guest's memory, and addresses and lengths from few bytes that are near to them.

use arbitrary::{Result, Unstructured};
use vm_memory::{GuestAddress, GuestMemoryMmap};

/// Regions of RAM: two that touch, the first with the queues; a hole; and a third.
const REGIONS: [(u64, usize); 3] = [(0, 0x4000), (0x4000, 0x4000), (0x1_0000, 0x1000)];
/// Where a device's queues are, unless they are laid elsewhere on purpose, and how many have a place.
pub(crate) const QUEUES: usize = 8;
const QUEUE_SPACE: u64 = 0x800;
/// The most entries that a queue has room for there.
pub(crate) const QUEUE_SIZE: u16 = 64;
/// Where buffers and indirect tables are.
const BUFFERS: u64 = 0x4000;
pub(crate) const TABLES: u64 = 0x5000;

/// Addresses where something begins or ends, and some that are nowhere.
const EDGES: [u64; 16] = [
    0,
    0x3ff8,
    0x3fff,
    0x7ff0,
    0x7fff,
    0x8000,
    0xfff8,
    0x1_0000,
    0x1_0ff0,
    0x1_0fff,
    0x1_1000,
    0xfee0_0000,
    1 << 32,
    1 << 52,
    u64::MAX - 15,
    u64::MAX,
];
const LENGTHS: [u32; 8] = [
    0,
    0x1000,
    0x4000,
    0x4001,
    0x1_0000,
    1 << 31,
    u32::MAX - 15,
    u32::MAX,
];
const SIZES: [u32; 8] = [0, 1, 2, 3, 0x8000, 0xffff, 0x1_0000, u32::MAX];

pub(crate) fn memory() -> GuestMemoryMmap {
    let regions = REGIONS.map(|(start, len)| (GuestAddress(start), len));
    GuestMemoryMmap::from_ranges(&regions).expect("the regions do not overlap")
}

pub(crate) const fn queue(index: usize) -> u64 {
    index as u64 * QUEUE_SPACE
}

/// Mostly buffers, the queues' parts, edges; else anywhere.
pub(crate) fn address(input: &mut Unstructured<'_>) -> Result<u64> {
    let choice: u8 = input.arbitrary()?;
    Ok(match choice {
        0..0x80 => BUFFERS + u64::from(choice) * 0x20,
        0x80..0xc0 => u64::from(choice & 0x3f) * 0x100,
        0xc0..0xd0 => EDGES[usize::from(choice & 0xf)],
        0xd0..0xf0 => input.arbitrary::<u16>()?.into(),
        _ => input.arbitrary()?,
    })
}

/// Mostly short.
pub(crate) fn length(input: &mut Unstructured<'_>) -> Result<u32> {
    let choice: u8 = input.arbitrary()?;
    Ok(match choice {
        0..0xc0 => choice.into(),
        0xc0..0xe0 => u32::from(choice & 0x1f) * 0x200,
        _ => LENGTHS[usize::from(choice & 7)],
    })
}

/// A size that a queue could have, or not.
pub(crate) fn size(input: &mut Unstructured<'_>) -> Result<u32> {
    let choice: u8 = input.arbitrary()?;
    Ok(match choice {
        0..0x80 => 1 << (choice & 0xf),
        _ => SIZES[usize::from(choice & 7)],
    })
}
