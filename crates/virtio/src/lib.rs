//! virtio (VIRTIO 1.3): what devices and transports stand on.
//!
//! [`spec`] has the numbers of the specification, [`QueueError`] and [`DeviceError`] name what a driver can do wrong, and
//! [`Ram`] is guest RAM as devices reach it: by address and length, both the guest's, so both checked.
//!
//! ```
//! use goldcrest_virtio::Ram;
//! use vm_memory::{GuestAddress, GuestMemoryMmap};
//!
//! let memory = GuestMemoryMmap::<()>::from_ranges(&[(GuestAddress(0), 0x1000)])?;
//! let ram = Ram::new(&memory);
//! ram.write(0x10, b"virt")?;
//! assert!(ram.write(0xffe, b"virt").is_err());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # A hostile guest
//!
//! An address or a length that leads outside RAM is an error, also where the two add up to more than an address can be.
//! Nothing is allocated.

mod error;
mod ram;
pub mod spec;

pub use error::{ActivateError, DeviceError, QueueError};
pub use ram::Ram;
