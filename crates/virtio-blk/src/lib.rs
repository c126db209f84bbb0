//! A disk of a virtual machine: the virtio block device (VIRTIO 1.3 §5.2).
//!
//! A [`Backend`] keeps the bytes: [`FileDisk`] in a file or on a block device, by io_uring where the host has it,
//! [`MemoryDisk`] in memory, for tests, fuzzers and scratch space. Bytes move between it and guest RAM without being
//! copied on the way. A [`Block`] is the device on it, which a transport of [`goldcrest_virtio`] shows to the guest.
//!
//! ```
//! use goldcrest_irq::IrqLine;
//! use goldcrest_virtio::driver::{self, Buffer, DriverQueue};
//! use goldcrest_virtio::{Mmio, spec::feature::VERSION_1};
//! use goldcrest_virtio_blk::spec::{request, status};
//! use goldcrest_virtio_blk::{Block, BlockConfig, MemoryDisk};
//! use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};
//!
//! let memory = GuestMemoryMmap::<()>::from_ranges(&[(GuestAddress(0), 0x10000)])?;
//! let config = BlockConfig { id: "root".into(), ..BlockConfig::default() };
//! let disk = Block::new(MemoryDisk::new(b"hello".to_vec()), &config)?;
//! let mut device = Mmio::new(disk, memory.clone(), IrqLine::detached());
//!
//! // The guest's side: a driver with a queue of 16 entries reads the first sector.
//! let mut queue = DriverQueue::new(&memory, 0x1000, 16);
//! driver::initialise(&mut device, VERSION_1, &[&queue]);
//! let (header, data, answer) = (0x4000, 0x5000, 0x6000);
//! memory.write_obj(request::IN, GuestAddress(header))?;
//! queue.add(&[
//!     Buffer::Readable(header, 16),
//!     Buffer::Writable(data, 512),
//!     Buffer::Writable(answer, 1),
//! ]);
//! driver::notify(&mut device, 0);
//! assert_eq!(queue.used(), Some((0, 513)));
//! assert_eq!(memory.read_obj::<u8>(GuestAddress(answer))?, status::OK);
//! let mut bytes = [0; 5];
//! memory.read_slice(&mut bytes, GuestAddress(data))?;
//! assert_eq!(&bytes, b"hello");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # What is under way
//!
//! A notification starts all requests that are there. Those that the backend has done at once are answered at once; the
//! others when its descriptor, which the device [waits](goldcrest_virtio::VirtioDevice::waits) for, says so. A request
//! that finds no room, or that the [rate](BlockConfig::rate) holds back, stays in the driver's ring.
//!
//! What is written is durable when a flush that came after it is answered. For a driver that has no flushes, or that
//! sets `writeback` to 0, it is durable when it is answered.
//!
//! # A hostile guest
//!
//! What a request touches is checked with arithmetic that cannot wrap, and what it holds in RAM is looked up in the
//! regions of RAM. A request that cannot be carried out ends with the status byte that the specification has for it; one
//! that cannot even be answered makes the device need a reset. There are never more than 256 operations under way. In
//! the steady state nothing is allocated; a list of segments is kept for each operation that can be under way. A reset
//! brings no more of what a rate limits.

pub mod spec;

mod backend;
mod config;
mod device;
mod error;
mod request;
mod serve;
mod slots;
mod state;

pub use backend::{Access, Backend, FileDisk, FileDiskConfig, MemoryDisk, Operation, Start};
pub use config::{BlockConfig, MAX_QUEUE_SIZE, MAX_QUEUES, Topology};
pub use device::Block;
pub use error::DiskError;
pub use request::{Limits, Range, Refusal, Request};
pub use state::BlockState;
