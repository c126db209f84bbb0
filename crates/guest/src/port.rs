//! Port access. Ring 3 may do it because the machine is entered with IOPL 3 (SDM vol. 1 §19.5.1).
#![allow(unsafe_code, reason = "port instructions exist in assembly only")]

use core::arch::asm;

/// Writes a byte to `port`.
///
/// # Safety
///
/// What the device behind `port` does with it must be sound: a device may write to memory.
pub unsafe fn write_u8(port: u16, value: u8) {
    // SAFETY: the instruction itself touches no memory; the caller answers for the device.
    unsafe { asm!("out dx, al", in("dx") port, in("al") value, options(nostack, preserves_flags)) };
}

/// Writes 32 bits to `port`.
///
/// # Safety
///
/// As for [`write_u8`].
pub unsafe fn write_u32(port: u16, value: u32) {
    // SAFETY: as in `write_u8`. Without `nomem`, all that was stored before is in memory when the device looks.
    unsafe {
        asm!("out dx, eax", in("dx") port, in("eax") value, options(nostack, preserves_flags))
    };
}

/// Reads a byte from `port`.
///
/// # Safety
///
/// As for [`write_u8`]: reading may have effects too.
pub unsafe fn read_u8(port: u16) -> u8 {
    let value;
    // SAFETY: as in `write_u8`.
    unsafe { asm!("in al, dx", in("dx") port, out("al") value, options(nostack, preserves_flags)) };
    value
}

/// Reads 32 bits from `port`.
///
/// # Safety
///
/// As for [`write_u8`]: reading may have effects too.
pub unsafe fn read_u32(port: u16) -> u32 {
    let value;
    // SAFETY: as in `write_u8`.
    unsafe {
        asm!("in eax, dx", in("dx") port, out("eax") value, options(nostack, preserves_flags))
    };
    value
}
