//! virtio devices (VIRTIO 1.3): the device trait, what all transports share, split queues, the MMIO transport.
//!
//! A device implements [`VirtioDevice`] and knows queues of [`Chain`]s, nothing else. [`Core`] is the rest of what the
//! specification asks of every device: status, features, queue set-up, configuration. [`Mmio`] is a thin face on it,
//! which a bus takes as a device.
//!
//! ```
//! use goldcrest_bus::Device;
//! use goldcrest_irq::IrqLine;
//! use goldcrest_virtio::{DeviceError, DeviceIo, DeviceSpec, Mmio, QueueError, VirtioDevice, spec};
//! use vm_memory::{GuestAddress, GuestMemoryMmap};
//!
//! /// Fills every buffer with zeros: not the best source of entropy.
//! struct Zeros;
//!
//! impl VirtioDevice for Zeros {
//!     fn spec(&self) -> DeviceSpec {
//!         DeviceSpec { id: spec::device_id::ENTROPY, features: 0, queue_sizes: vec![64] }
//!     }
//!     fn read_config(&self, _offset: u64, _data: &mut [u8]) {}
//!     fn process_queue(&mut self, index: u16, io: &mut DeviceIo<'_>) -> Result<(), DeviceError> {
//!         let Some(mut queue) = io.queue(index) else { return Ok(()) };
//!         let misused = |source| DeviceError::Queue { queue: index, source };
//!         while let Some(mut chain) = queue.pop().map_err(misused)? {
//!             let (head, mut written) = (chain.head, 0);
//!             while let Some(room) = chain.writable.take(64).map_err(misused)? {
//!                 room.copy_from(&[0_u8; 64][..room.len()]);
//!                 written += room.len() as u32;
//!             }
//!             queue.push(head, written);
//!         }
//!         Ok(())
//!     }
//!     fn reset(&mut self) {}
//! }
//!
//! let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 0x10000)])?;
//! let mut device = Mmio::new(Zeros, memory, IrqLine::detached());
//! let mut id = [0; 4];
//! device.read(spec::mmio::DEVICE_ID, &mut id);
//! assert_eq!(u32::from_le_bytes(id), spec::device_id::ENTROPY);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Why not `virtio-queue`
//!
//! Its iterator over a chain ends in the same way at the chain's end and at a descriptor that is wrong, so that a device
//! cannot tell; and it looks every access up in RAM anew. Here rings are found once, when a queue is made ready, a chain
//! is read once and checked as a whole, and what is wrong with it has a name ([`QueueError`]).
//!
//! # A hostile guest
//!
//! Registers of a running device cannot be rewritten, queues are checked before they are used, descriptors are read
//! once. A driver that breaks a rule that matters makes its device set DEVICE_NEEDS_RESET, and a reset mends it; other
//! misuse is ignored; all of it is counted ([`Core::misuses`]). A call does work for as many chains as a queue has
//! entries, and no more. Memory is allocated when a queue is made ready, bounded by its greatest size, and not after.

mod chain;
mod descriptor;
mod device;
#[cfg(feature = "driver")]
pub mod driver;
mod error;
mod interrupt;
mod mmio;
mod queue;
mod ram;
mod rings;
pub mod spec;
mod state;
mod transport;

pub use chain::{Chain, Reader, Writer};
pub use device::{DeviceIo, DeviceSpec, Features, Served, VirtioDevice, Waits, Work};
pub use error::{ActivateError, DeviceError, QueueError};
pub use goldcrest_memory::Window;
pub use goldcrest_memory::io::Segment;
pub use interrupt::Interrupt;
pub use mmio::{Mmio, notified_queue};
pub use queue::{ActiveQueue, Queue, QueueLayout};
pub use ram::Ram;
pub use state::{MmioState, QueueState};
pub use transport::{Cause, Core};
