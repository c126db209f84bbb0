//! Guest RAM of an x86-64 virtual machine.
//!
//! [`GuestRam`] reserves address space for a guest's memory and nothing more: pages come from the host when they are
//! first touched. It lays RAM around the hole below 4 GiB ([`layout`]), backs it by anonymous memory or a shareable
//! memfd, with huge pages on request, and maps page-aligned parts of an image file over it instead of reading them
//! ([`GuestRam::load_file`]): a kernel of any size costs one system call, and all guests share its page cache.
//!
//! Module [`image`] writes RAM to a file, all of it or what has changed, which a [`Tracker`] sees;
//! [`GuestRam::from_image`] and [`GuestRam::from_layers`] map it from there.
//!
//! Module [`userfault`] has pages come from another process instead, which gives them when they are touched.
//!
//! Module [`working_set`] has pages of an image be there before they are touched, by which ones another run has touched.
//!
//! [`discard`] gives pages that the guest does not need back to the host.
//!
//! Module [`io`] moves bytes between files and guest RAM without copying them, waiting for it or by io_uring.
//!
//! Access goes through [`vm_memory`], so that devices of the rust-vmm world work on it unchanged. A [`Window`] is for
//! what is looked up once and accessed often, such as the rings of a queue.
//!
//! ```
//! use goldcrest_memory::{GuestRam, MemoryConfig};
//!
//! let ram = GuestRam::new(&MemoryConfig {
//!     size: goldcrest_memory::parse_size("64M")?,
//!     ..MemoryConfig::default()
//! })?;
//! ram.write(0x1000, b"hello")?;
//! let mut bytes = [0; 5];
//! ram.view().read(0x1000, &mut bytes)?;
//! assert_eq!(&bytes, b"hello");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # What can go wrong
//!
//! Addresses are checked against the regions; nothing a guest or an image says reaches outside them. A mapped image
//! file that is *truncated* by someone else while the guest runs ends the guest with an error when it touches the
//! missing part, or the process with `SIGBUS` when a device does: replace image files by renaming, do not truncate them.

pub mod image;
pub mod io;
pub mod layout;
pub mod userfault;
pub mod working_set;

mod config;
mod discard;
mod error;
mod mapping;
mod ram;
mod track;
mod view;
mod window;

pub use config::{Backing, HugePages, MemoryConfig, parse_size};
pub use discard::{Contents, discard};
pub use error::MemoryError;
pub use ram::{GuestRam, Placed, Region};
pub use track::Tracker;
pub use view::GuestView;
pub use window::Window;

/// Bytes of a page.
pub const PAGE_SIZE: u64 = 4096;
