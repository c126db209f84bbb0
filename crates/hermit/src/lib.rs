//! The hypercalls of uhyve, the monitor of Hermit: what an unmodified Hermit guest asks of its host (crate
//! `uhyve-interface` 0.3, module `v1`: version 1 of the interface).
//!
//! A guest calls by writing the guest-physical address of a structure, 32 bits, to the hypercall's port; the answer is in
//! the structure when the instruction is over. [`Hypercalls::ports`] gives the devices at those ports.
//!
//! | hypercall | what it does |
//! |---|---|
//! | `SerialWriteByte`, `SerialWriteBuffer` | writes to the console |
//! | `Cmdsize`, `Cmdval` | tells the arguments; there is no environment |
//! | `Exit` | ends the guest with a status |
//! | `FileWrite` | writes to the console, if it is to standard output or standard error |
//! | `FileOpen`, `FileClose`, `FileRead`, `FileLseek`, `FileUnlink` | fails: there are no files |
//!
//! ```
//! use goldcrest_bus::{Bus, Effect};
//! use goldcrest_chipset::Output;
//! use goldcrest_hermit::{Hypercalls, spec};
//! use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};
//!
//! let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 0x20_0000)])?;
//! let (output, capture) = Output::capture();
//! let mut ports = Bus::new("port");
//! for (range, device) in Hypercalls::new(memory.clone(), output).ports() {
//!     ports.add("hermit", range, device)?;
//! }
//!
//! // The guest's side: `SerialWriteBufferParams`, five bytes at 1 MiB.
//! memory.write_slice(b"hello", GuestAddress(0x10_0000))?;
//! let params = [0x10_0000_u64, 5].map(u64::to_le_bytes);
//! memory.write_slice(params.as_flattened(), GuestAddress(0x11_0000))?;
//! let effect = ports.write(spec::port::SERIAL_WRITE_BUFFER.into(), &0x11_0000_u32.to_le_bytes());
//! assert!(matches!(effect, Effect::None));
//! assert_eq!(capture.take(), b"hello");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Addresses
//!
//! All addresses are physical but that of the bytes of `FileWrite`, which is virtual. It is looked up in the page tables
//! that the guest was started on, as uhyve does: Hermit keeps them.
//!
//! # A hostile guest
//!
//! Structures are read once, from bytes; addresses and lengths are checked against guest RAM, and page tables are walked
//! for four levels and no more. What has an answer gets one; what has none, an address outside of RAM, ends the guest
//! with [`Effect::Violation`](goldcrest_bus::Effect::Violation). A call allocates nothing.

mod device;
mod error;
mod memory;
pub mod spec;

pub use device::{Hypercalls, Port};
pub use error::Misuse;
