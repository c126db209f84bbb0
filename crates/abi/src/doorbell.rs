//! Doorbells: the ports by which a guest speaks to the monitor itself rather than to a device.
//!
//! Each is a 32-bit port. A guest that was not started by direct entry reads [`IDENT`] first: where no Goldcrest
//! listens, the bus reads all ones.

/// The first port of the doorbells.
pub const BASE: u16 = 0xe00;
/// How many ports the doorbells take.
pub const LEN: u16 = 16;

/// Read: [`IDENT_VALUE`].
pub const IDENT: u16 = BASE;
/// What [`IDENT`] reads: `GCR` and the version.
pub const IDENT_VALUE: u32 = u32::from_le_bytes([b'G', b'C', b'R', 1]);

/// Write: end the machine with this status. 0 is success; a status over 255 reaches the shell as 255.
pub const EXIT: u16 = BASE + 4;

/// Write: the guest-physical address of a [`ConsoleWrite`] below 4 GiB; its bytes go to the serial output, in order.
pub const CONSOLE: u16 = BASE + 8;

/// The most bytes that one [`CONSOLE`] doorbell writes; what a request has beyond them is not written.
pub const CONSOLE_MAX: u32 = 64 * 1024;

/// The request behind the [`CONSOLE`] doorbell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct ConsoleWrite {
    /// Guest-physical address of the bytes.
    pub address: u64,
    /// How many bytes, at most [`CONSOLE_MAX`].
    pub len: u32,
    /// Zero.
    pub reserved: u32,
}

const _: () = assert!(size_of::<ConsoleWrite>() == 16);
