//! File input and output straight to and from guest RAM.
//!
//! [`read_at`] and [`write_at`] take [`Segment`]s of guest RAM, as descriptors of a virtual disk's requests name them;
//! [`read_vectored_at`] and [`write_vectored_at`] take slices; [`read`] and [`write()`] are for frames, [`receive`] and [`send`]
//! for sockets. No byte is copied on the way and nothing is allocated.
//! [`punch_hole`], [`zero_range`], [`write_zeros`], [`sync_data`] and [`direct_alignment`] are what else a disk needs of a
//! file. With the feature `io-uring` there is `Ring`, which does all of that without waiting for it.
//!
//! ```
//! use goldcrest_memory::io::{Durability, Segment, read_at, write_at};
//! use goldcrest_memory::{GuestRam, MemoryConfig};
//!
//! let ram = GuestRam::new(&MemoryConfig::default())?;
//! let file = tempfile::tempfile()?;
//! ram.write(0x1000, b"hello")?;
//! let hello = Segment { address: 0x1000, len: 5 };
//! assert_eq!(write_at(&file, ram.memory(), &[hello], 0, Durability::WriteThrough)?, 5);
//! let elsewhere = [Segment { address: 0x2003, len: 1 }, Segment { address: 0x3000, len: 4 }];
//! assert_eq!(read_at(&file, ram.memory(), &elsewhere, 0)?, 5);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod direct;
mod fallocate;
#[cfg(feature = "io-uring")]
mod ring;
mod segment;
mod vectored;

pub use direct::{DirectAlignment, direct_alignment};
pub use fallocate::{Deallocate, punch_hole, sync_data, write_zeros, zero_range};
#[cfg(feature = "io-uring")]
pub use ring::{PrepareError, Ring};
pub use segment::Segment;
pub use vectored::{
    Durability, MAX_PARTS, read, read_at, read_vectored_at, receive, send, write, write_at,
    write_vectored_at,
};
