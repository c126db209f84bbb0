//! A disk of a virtual machine: what a virtio block device (VIRTIO 1.3 §5.2) is made of.
//!
//! A [`Backend`] keeps the bytes: [`FileDisk`] in a file or on a block device, by io_uring where the host has it,
//! [`MemoryDisk`] in memory, for tests, fuzzers and scratch space. Bytes move between it and guest RAM without being
//! copied on the way. [`Request`] and [`Range`] read what a driver asks for from the bytes of its requests and check
//! it against the disk.
//!
//! ```
//! use goldcrest_memory::io::Segment;
//! use goldcrest_virtio_blk::{Backend, Limits, MemoryDisk, Operation, Request, Start};
//! use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};
//!
//! let memory = GuestMemoryMmap::<()>::from_ranges(&[(GuestAddress(0), 0x10000)])?;
//! let mut disk = MemoryDisk::new(b"hello".to_vec());
//! disk.attach(&memory, 1);
//!
//! // A driver reads the first sector: type 0, sector 0, and room for 512 bytes.
//! let limits = Limits { sectors: 1, read_only: false, range_sectors: 0 };
//! let Ok(Request::Read { offset }) = Request::parse(&[0; 16], 0, 512, &limits) else {
//!     unreachable!()
//! };
//! let segments = [Segment { address: 0x1000, len: 512 }];
//! let read = Operation::Read { offset, segments: &segments };
//! assert!(matches!(disk.start(&read, 0), Start::Done(Ok(()))));
//! let mut bytes = [0; 5];
//! memory.read_slice(&mut bytes, GuestAddress(0x1000))?;
//! assert_eq!(&bytes, b"hello");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # A hostile guest
//!
//! What a request touches is checked with arithmetic that cannot wrap, and what it holds in RAM is looked up in the
//! regions of RAM. A request that cannot be carried out ends with the status byte that the specification has for it.
//! In the steady state nothing is allocated; a list of segments is kept for each operation that can be under way.

pub mod spec;

mod backend;
mod error;
mod request;

pub use backend::{Access, Backend, FileDisk, FileDiskConfig, MemoryDisk, Operation, Start};
pub use error::DiskError;
pub use request::{Limits, Range, Refusal, Request};
