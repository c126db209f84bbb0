//! The virtio entropy device (VIRTIO 1.3 §5.4): a driver hands over buffers, the device fills them with random bytes.
//!
//! [`Entropy`] is the device, [`Source`] is where its bytes come from: [`HostSource`] asks the host's kernel,
//! [`SeededSource`] repeats itself, for tests and fuzzers.
//!
//! ```
//! use goldcrest_irq::IrqLine;
//! use goldcrest_virtio::driver::{Buffer, DriverQueue, initialise, notify};
//! use goldcrest_virtio::{Mmio, spec::feature};
//! use goldcrest_virtio_rng::{Entropy, HostSource, QUEUE_SIZE};
//! use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};
//!
//! let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 0x10000)])?;
//! let mut device = Mmio::new(Entropy::new(HostSource), memory.clone(), IrqLine::detached());
//!
//! // A driver asks for 32 bytes.
//! let mut queue = DriverQueue::new(&memory, 0, QUEUE_SIZE);
//! initialise(&mut device, feature::VERSION_1, &[&queue]);
//! let head = queue.add(&[Buffer::Writable(0x8000, 32)]);
//! notify(&mut device, 0);
//! assert_eq!(queue.used(), Some((head, 32)));
//! assert_ne!(memory.read_obj::<[u8; 32]>(GuestAddress(0x8000))?, [0; 32]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # A hostile guest
//!
//! A request gets at most [`MAX_REQUEST`] bytes, whatever its length (§5.4.6.2 allows that), in pieces of
//! a buffer that is allocated once and wiped after each request. A [rate](Entropy::with_rate) bounds what a guest draws
//! from the host over time; resetting the device does not bring its tokens back. Buffers to read are not looked at, and
//! a request without room, which §5.4.6.1 forbids, makes the device need a reset.

mod device;
mod source;
pub mod spec;
mod state;

pub use device::{Entropy, MAX_REQUEST};
pub use source::{HostSource, SeededSource, Source};
pub use spec::QUEUE_SIZE;
pub use state::RngState;
