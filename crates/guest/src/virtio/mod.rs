//! Drivers for virtio devices (VIRTIO 1.3), with memory-mapped registers: disks ([`Block`]), network cards ([`Net`]),
//! sockets to the host ([`Vsock`]), consoles ([`Console`]), sources of entropy ([`Entropy`]).
//!
//! ```no_run
//! use goldcrest_guest::virtio::{Block, Error};
//!
//! fn increment() -> Result<(), Error> {
//!     let mut disk = Block::first()?;
//!     let mut sector = [0; 512];
//!     disk.read(0, &mut sector)?;
//!     sector[0] = sector[0].wrapping_add(1);
//!     disk.write(0, &sector)?;
//!     disk.flush()
//! }
//! ```
//!
//! The host announces the devices ([`devices`]); a driver takes one, and its device is reset when the driver is dropped.
//! Requests wait for their completion. Where the host completes them while it is notified, as many do, there is no
//! interrupt to wait for, and none is set up; else the processor halts until there is one, as
//! [`ring0::wait_for_interrupt`](crate::ring0::wait_for_interrupt) does, and whatever interrupts the program has handlers
//! for are handled meanwhile. The vectors 0x60 to 0x77 are the drivers', 0x78 is that of the [`alarm`](crate::alarm).
//!
//! This module takes memory from the heap: a program has the feature `heap`, or an allocator of its own. What it does not
//! use of it is not linked.
//!
//! # A device that misbehaves
//!
//! What a device says is checked before it is believed. One that completes what it was not given, claims to have written
//! more than there was room for or asks to be reset (§2.1.2) is shut down by a reset, so that it can no longer write to
//! memory, and gives an [`Error`]; every later request is refused by [`Error::Broken`]. A request that a device never
//! completes is waited for without end, and a device that does not let itself be reset ends the machine by a panic.

mod block;
mod buffers;
mod console;
mod discovery;
mod entropy;
mod error;
#[cfg(test)]
mod fake;
mod interrupt;
mod memory;
mod net;
mod queue;
mod registers;
mod spec;
mod transport;
pub mod vsock;

pub use block::{Block, Completion, Rejected, Ticket};
pub use console::Console;
pub use discovery::{Device, devices, is_announcement};
pub use entropy::Entropy;
pub use error::Error;
pub use net::{Checksum, Frame, Net};
pub use registers::{Mmio, Registers};
pub use spec::{id, register};
pub use vsock::Vsock;

/// The first device of this kind, one of [`id`].
///
/// # Errors
///
/// [`Error::NotFound`].
pub fn first(id: u32) -> Result<Device, Error> {
    devices()
        .find(|device| device.id() == id)
        .ok_or(Error::NotFound { id })
}
