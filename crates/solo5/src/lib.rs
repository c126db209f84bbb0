//! The hypercalls of Solo5's `hvt`: what an unmodified Solo5 guest asks of its host (Solo5, `include/hvt_abi.h`,
//! version 2).
//!
//! A guest calls by writing the guest-physical address of a structure, 32 bits, to port 0x500 and the hypercall's number;
//! the answer is in the structure when the instruction is over. [`Hypercalls`] is a [`Device`](goldcrest_bus::Device)
//! at those ports. It knows the guest's devices by their handles, which are their places in the guest's manifest.
//!
//! | hypercall | what it does |
//! |---|---|
//! | `WALLTIME` | tells the time |
//! | `PUTS` | writes to the console |
//! | `POLL` | waits until a frame is there, or for a time |
//! | `BLOCK_WRITE`, `BLOCK_READ` | moves bytes between a [`Storage`] and guest RAM |
//! | `NET_WRITE`, `NET_READ` | moves a frame between a [`Link`] and guest RAM, without waiting |
//! | `HALT` | ends the guest with a status |
//!
//! ```
//! use goldcrest_bus::{Device, Effect};
//! use goldcrest_chipset::Output;
//! use goldcrest_solo5::{Hypercalls, SystemHost, spec};
//! use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};
//!
//! let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 0x20_0000)])?;
//! let (output, capture) = Output::capture();
//! let mut hypercalls = Hypercalls::new(memory.clone(), output, SystemHost::new(|| false, None));
//!
//! // The guest's side: `struct hvt_hc_puts`, five bytes at 1 MiB.
//! memory.write_slice(b"hello", GuestAddress(0x10_0000))?;
//! let puts = [0x10_0000_u64, 5].map(u64::to_le_bytes);
//! memory.write_slice(puts.as_flattened(), GuestAddress(0x11_0000))?;
//! let effect = hypercalls.write(spec::hypercall::PUTS, &0x11_0000_u32.to_le_bytes());
//! assert!(matches!(effect, Effect::None));
//! assert_eq!(capture.take(), b"hello");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Waiting
//!
//! `POLL` blocks the CPU that calls it, as the interface has it: a Solo5 guest has one CPU and no interrupts. The [`Host`]
//! waits for it; it can end the wait early when the machine is to pause, and must when the machine is to end.
//!
//! # A hostile guest
//!
//! Structures are read once, from bytes. Addresses and lengths are checked against guest RAM before anything is done, and,
//! where the host would write, against the ranges that the guest itself cannot write: its code stays as it was loaded. What
//! has an answer gets one: a handle without a device, a transfer past the end of a disk, a frame that is too long. What has
//! none, an address outside of RAM or a call that does not exist, ends the guest with
//! [`Effect::Violation`](goldcrest_bus::Effect::Violation), as Solo5's own tender does. Nothing is allocated in proportion to
//! what a guest says.

mod block;
mod device;
mod error;
mod host;
mod memory;
mod net;
mod poll;
pub mod spec;

pub use block::Storage;
pub use device::{Attached, Hypercalls};
pub use error::Misuse;
pub use host::{Host, SystemHost, Wake};
pub use net::{Link, Net};
