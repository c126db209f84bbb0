//! The adder's registers: what the device and its drivers agree on. All are 32 bits wide.

/// Where the device is: the port of its first register.
pub(crate) const PORT: u16 = 0x1000;

/// Write: the guest-physical address of the bytes to add up. Here and below, an offset from [`PORT`].
pub(crate) const ADDRESS: u16 = 0;
/// Write: how many bytes, at most [`MAX_LENGTH`]. They are added up before the write is over.
pub(crate) const LENGTH: u16 = 4;
/// Read: what became of it, [`DONE`] or [`REFUSED`]; 0 before the first time.
pub(crate) const STATUS: u16 = 8;
/// Read: the sum, if the status is [`DONE`].
pub(crate) const SUM: u16 = 12;

/// The sum is there.
pub(crate) const DONE: u32 = 1;
/// There were too many bytes, or not all of them were in memory.
pub(crate) const REFUSED: u32 = 2;

/// The most bytes that are added up at a time.
pub(crate) const MAX_LENGTH: u32 = 64 * 1024;
