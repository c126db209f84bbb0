//! Requests to a disk (virtio 1.3 §5.2.6).

use super::super::Error;
use super::super::memory::Shared;
use super::super::queue::Segment;

/// Bytes of shared memory for each request: its header, then its status.
pub(super) const SLOT: usize = 32;
const STATUS: usize = 16;

/// A status that is none: the device did not write one.
const NO_STATUS: u8 = 0xff;

/// Features (§5.2.3).
pub(super) mod feature {
    pub(crate) const SIZE_MAX: u64 = 1 << 1;
    pub(crate) const RO: u64 = 1 << 5;
    pub(crate) const BLK_SIZE: u64 = 1 << 6;
    pub(crate) const FLUSH: u64 = 1 << 9;
    pub(crate) const DISCARD: u64 = 1 << 13;
    pub(crate) const WRITE_ZEROES: u64 = 1 << 14;
    /// What the driver makes use of.
    pub(crate) const WANTED: u64 = SIZE_MAX | RO | BLK_SIZE | FLUSH | DISCARD | WRITE_ZEROES;
}

/// Fields of the configuration (§5.2.4).
pub(super) mod offset {
    pub(crate) const CAPACITY: u32 = 0;
    pub(crate) const SIZE_MAX: u32 = 8;
    pub(crate) const BLK_SIZE: u32 = 20;
    pub(crate) const MAX_DISCARD_SECTORS: u32 = 36;
    pub(crate) const MAX_WRITE_ZEROES_SECTORS: u32 = 48;
}

/// What is asked for: `VIRTIO_BLK_T_*`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub(super) enum Kind {
    In = 0,
    Out = 1,
    Flush = 4,
    GetId = 8,
    Discard = 11,
    WriteZeroes = 13,
}

/// `struct virtio_blk_discard_write_zeroes`.
pub(super) struct Range {
    pub(super) sector: u64,
    /// Sectors.
    pub(super) count: u32,
    pub(super) unmap: bool,
}

impl Range {
    pub(super) fn to_bytes(&self) -> [u8; 16] {
        let low = u64::from(self.count) | u64::from(self.unmap) << 32;
        (u128::from(low) << 64 | u128::from(self.sector)).to_le_bytes()
    }
}

/// Writes the header of request `number`. Gives where the header and the status are.
pub(super) fn prepare(shared: &mut Shared, number: u16, kind: Kind, sector: u64) -> [Segment; 2] {
    let at = SLOT * usize::from(number);
    shared.write(at, kind as u32);
    shared.write(at + 4, 0_u32);
    shared.write(at + 8, sector);
    shared.write(at + STATUS, NO_STATUS);
    [
        Segment {
            address: shared.address(at),
            len: 16,
            write: false,
        },
        Segment {
            address: shared.address(at + STATUS),
            len: 1,
            write: true,
        },
    ]
}

/// What the status of request `number` says: `VIRTIO_BLK_S_*`.
pub(super) fn result(shared: &Shared, number: u16) -> Result<(), Error> {
    match shared.read::<u8>(SLOT * usize::from(number) + STATUS) {
        0 => Ok(()),
        1 => Err(Error::Io),
        2 => Err(Error::Unsupported),
        found => Err(Error::Answer {
            found: found.into(),
        }),
    }
}
