//! What devices are fuzzed with: a bus without a machine, and a virtio driver that misbehaves on purpose.
//!
//! All of it turns bytes into a guest: the same bytes do the same again, in one thread, without KVM and without files. A
//! fuzzer finds the bytes; a test can replay them. What does not hold is a panic.
//!
//! A virtio device (VIRTIO 1.3) of one's own is fuzzed by one call, [`virtio`], which plays the driver, and in the end
//! resets the device and wants it to work. A device with registers alone is put on a [`FuzzBus`].
//!
//! ```
//! use goldcrest_virtio::{DeviceError, DeviceIo, DeviceSpec, Mmio, VirtioDevice};
//!
//! /// Gives each buffer back as it came.
//! struct Sink;
//!
//! impl VirtioDevice for Sink {
//!     fn spec(&self) -> DeviceSpec {
//!         DeviceSpec { id: 42, features: 0, queue_sizes: vec![16] }
//!     }
//!     fn read_config(&self, _offset: u64, _data: &mut [u8]) {}
//!     fn process_queue(&mut self, index: u16, io: &mut DeviceIo<'_>) -> Result<(), DeviceError> {
//!         let Some(mut queue) = io.queue(index) else { return Ok(()) };
//!         let misused = |source| DeviceError::Queue { queue: index, source };
//!         while let Some(chain) = queue.pop().map_err(misused)? {
//!             let head = chain.head;
//!             queue.push(head, 0);
//!         }
//!         Ok(())
//!     }
//!     fn reset(&mut self) {}
//! }
//!
//! // In a fuzz target, `data` is what the fuzzer gives it.
//! let data = [2, 0xff, 0, 9, 0, 0x21, 8, 11, 0];
//! goldcrest_device_fuzz::virtio(&data, |memory, line| Mmio::new(Sink, memory, line));
//! ```
//!
//! # What must hold
//!
//! After each thing that the driver does: the interrupt line is up exactly while `InterruptStatus` has a bit; for one
//! call no queue takes more chains than it has entries, nor gives back more than it had; what is in flight is what was
//! taken and not given back; a device that has given up waits for nothing. In the end, after a reset, nothing is in
//! flight, a correct driver can set the device up, and it runs. And whatever the device itself asserts.
//!
//! # What the driver does
//!
//! Sets the device up, well or badly, to the end or not; writes any register by any width, the status in any order;
//! lays rings on top of each other, across regions of RAM, outside of it and where addresses wrap, with any size; makes
//! descriptors loop and indirect tables refer to themselves; has indexes jump; notifies queues that do not exist; resets
//! the device and its queues while they are at work; has the device save its state and goes on with another one that was
//! given it. By an [`Interference`] it changes memory while the device works, and [`Faults`] are for the device's
//! backend to draw from.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "what is used by fuzzers and tests alone reports by panicking"
)]

mod access;
mod action;
mod bus;
mod driver;
mod host;
mod place;
mod watch;

pub use access::{Access, Outcome};
pub use bus::FuzzBus;
pub use driver::{HostileDriver, RoundTrip};
pub use host::{Faults, Interference};

use goldcrest_irq::IrqLine;
use goldcrest_virtio::{Mmio, VirtioDevice};
use vm_memory::GuestMemoryMmap;

/// Has a driver that is made from `data` misuse the device that `make` makes, and checks what must hold.
///
/// [`HostileDriver`] can do more: save and restore, and have backends fail.
///
/// # Panics
///
/// If something does not hold, or in the device.
pub fn virtio<D: VirtioDevice>(data: &[u8], make: impl FnMut(GuestMemoryMmap, IrqLine) -> Mmio<D>) {
    HostileDriver::new(data).run(make);
}

/// The code in the how-to compiles.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/fuzzing.md")]
struct HowTo;
