//! The registers of a device, and the wait for its interrupt.
#![allow(unsafe_code, reason = "registers at an address")]

use core::arch::asm;

use super::interrupt::{self, Source};
use super::{Device, Error};
use crate::alarm;

/// How a driver reaches its device: [`Mmio`] in a machine, something simpler in a test.
pub trait Registers {
    /// Reads the 32-bit register at `offset`.
    fn read(&self, offset: u32) -> u32;

    /// Reads the byte at `offset`: a field of the configuration that has 8 bits is read so (§4.2.2.2).
    fn read_u8(&self, offset: u32) -> u8;

    /// Reads the 16 bits at `offset`: a field of the configuration that has as many is read so.
    fn read_u16(&self, offset: u32) -> u16;

    /// Writes the 32-bit register at `offset`. All that was stored before is in memory when the device looks.
    fn write(&mut self, offset: u32, value: u32);

    /// Waits for interrupts of the device until `done` says something. It is asked before every wait, when an
    /// interrupt that follows can no longer be missed. Gives `None` if the time of [`now_ns`](crate::time::now_ns)
    /// reaches `deadline` before.
    ///
    /// # Errors
    ///
    /// [`Error::Interrupt`] if the device's interrupt cannot be waited for.
    fn wait<T>(
        &mut self,
        deadline: Option<u64>,
        done: impl FnMut(&mut Self) -> Option<T>,
    ) -> Result<Option<T>, Error>
    where
        Self: Sized;
}

/// Memory-mapped registers (virtio 1.3 §4.2), accessed by 32-bit `mov`: the plainest instruction there is, as a host may
/// have to emulate it.
#[derive(Debug)]
pub struct Mmio {
    device: Device,
    /// The interrupt has a handler.
    routed: bool,
}

impl Mmio {
    /// The registers of a device. They exist and are mapped: a [`Device`] is only made of what the host announces.
    pub(super) fn new(device: Device) -> Self {
        Self {
            device,
            routed: false,
        }
    }
}

impl Registers for Mmio {
    fn read(&self, offset: u32) -> u32 {
        read(self.device.base(), offset)
    }

    fn read_u8(&self, offset: u32) -> u8 {
        let mut value = 0_u8;
        let address = address(self.device.base(), offset);
        // SAFETY: as in `read`.
        unsafe {
            asm!("mov {value}, [{address}]", address = in(reg) address, value = inout(reg_byte) value,
                options(nostack, preserves_flags));
        }
        value
    }

    fn read_u16(&self, offset: u32) -> u16 {
        let mut value = 0;
        let address = address(self.device.base(), offset);
        // SAFETY: as in `read`.
        unsafe {
            asm!("mov {value:x}, [{address}]", address = in(reg) address, value = inout(reg) value,
                options(nostack, preserves_flags));
        }
        value
    }

    fn write(&mut self, offset: u32, value: u32) {
        write(self.device.base(), offset, value);
    }

    fn wait<T>(
        &mut self,
        deadline: Option<u64>,
        mut done: impl FnMut(&mut Self) -> Option<T>,
    ) -> Result<Option<T>, Error> {
        if !self.routed {
            interrupt::route(Source {
                base: self.device.base(),
                pin: self.device.interrupt(),
                edge: self.device.is_edge_triggered(),
            })?;
            self.routed = true;
        }
        let _closed = interrupt::Closed::new();
        loop {
            if let Some(result) = done(self) {
                return Ok(Some(result));
            }
            if deadline.is_some_and(|deadline| !alarm::set(deadline)) {
                return Ok(None);
            }
            crate::ring0::wait_for_interrupt();
        }
    }
}

impl Drop for Mmio {
    fn drop(&mut self) {
        if self.routed {
            interrupt::unroute(self.device.interrupt());
        }
    }
}

/// Reads a register of the device at `base`.
pub(super) fn read(base: u32, offset: u32) -> u32 {
    let value;
    let address = address(base, offset);
    // SAFETY: the host announced a device's registers at this address and has them mapped; reading a register does not
    // reach memory, and what it does to the device is the driver's business.
    unsafe {
        asm!("mov {value:e}, [{address}]", address = in(reg) address, value = out(reg) value,
            options(nostack, preserves_flags));
    }
    value
}

/// Writes a register of the device at `base`.
pub(super) fn write(base: u32, offset: u32, value: u32) {
    let address = address(base, offset);
    // SAFETY: as in `read`. What the device then does to memory is in the buffers that the driver lent to it, which is
    // argued where a buffer is lent (`Queue::add`).
    unsafe {
        asm!("mov [{address}], {value:e}", address = in(reg) address, value = in(reg) value,
            options(nostack, preserves_flags));
    }
}

fn address(base: u32, offset: u32) -> u64 {
    u64::from(base) + u64::from(offset)
}
