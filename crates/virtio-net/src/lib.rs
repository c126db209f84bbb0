//! A network card of a virtual machine: the virtio network device (VIRTIO 1.3 §5.1).
//!
//! A [`NetBackend`] is the network that it is connected to: [`Tap`], an interface of the host's; [`Loopback`] in memory,
//! for tests and fuzzers. Frames move between it and guest RAM without being copied on the way. A [`Net`] is the device
//! on it, which a transport of [`goldcrest_virtio`] shows to the guest.
//!
//! ```
//! use goldcrest_irq::IrqLine;
//! use goldcrest_virtio::driver::{self, Buffer, DriverQueue};
//! use goldcrest_virtio::{Mmio, spec::feature::VERSION_1};
//! use goldcrest_virtio_net::{Loopback, Net, NetConfig, spec::header};
//! use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};
//!
//! let memory = GuestMemoryMmap::<()>::from_ranges(&[(GuestAddress(0), 0x10000)])?;
//! let config = NetConfig { mac: Some("02:00:00:00:00:01".parse()?), ..NetConfig::default() };
//! let net = Net::new(Loopback::new(4), &config)?;
//! let mut device = Mmio::new(net, memory.clone(), IrqLine::detached());
//!
//! // The guest's side: a driver with room for a frame sends one, which comes back.
//! let mut receive = DriverQueue::new(&memory, 0x1000, 16);
//! let mut transmit = DriverQueue::new(&memory, 0x2000, 16);
//! driver::initialise(&mut device, VERSION_1, &[&receive, &transmit]);
//! receive.add(&[Buffer::Writable(0x8000, 1526)]);
//! memory.write_slice(b"hello, hello, hello", GuestAddress(0x4000 + header::SIZE as u64))?;
//! transmit.add(&[Buffer::Readable(0x4000, header::SIZE as u32 + 19)]);
//! driver::notify(&mut device, 1);
//! assert_eq!(transmit.used(), Some((0, 0)));
//! assert_eq!(receive.used(), Some((0, header::SIZE as u32 + 19)));
//! let mut bytes = [0; 5];
//! memory.read_slice(&mut bytes, GuestAddress(0x8000 + header::SIZE as u64))?;
//! assert_eq!(&bytes, b"hello");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # The flow of frames
//!
//! No call waits. A frame of the guest's that the network does not take, or that the [rate](NetConfig::tx_rate) holds
//! back, stays in the driver's ring; a frame for the guest stays with the network until there is a buffer for it.
//! Nothing is lost in between: whichever side was full, the other goes on when it is not, by the driver's notification
//! or by what the device [waits](goldcrest_virtio::VirtioDevice::waits) for.
//!
//! Receive buffers are taken from the driver ahead of the frames, so that a chain is parsed once and not for each frame
//! that is tried: as many as the longest frame may fill. They are put back before the device is saved. A frame in
//! several buffers is given to the driver as one: it sees all of them or none.
//!
//! What a driver agrees to of sums left out and frames not cut, the backend does; the device looks at no frame but for
//! its address, where the driver has said which it wants.
//!
//! # A hostile guest
//!
//! A frame's header is read once, and the backend is given what was checked: a frame asks for nothing that was not agreed
//! on, its sum lies within it, its length is that of a frame. What is wrong is dropped and counted by its reason
//! ([`NetStats`]). A receive buffer without room for a header, or outside of RAM, makes the device need a reset, as does
//! a command that cannot be answered; other commands that are wrong are refused. One call moves no more frames than a
//! queue has entries; lists of addresses have 64 entries each, and who wants more gets all frames. A reset brings no more
//! of what a rate limits.
//!
//! # A hostile network
//!
//! A frame may have any length. One that is longer than the driver's buffers waits for more, a tenth of a second, if the
//! driver merges buffers, and is dropped otherwise: it does not keep those behind it from ever being received.

pub mod spec;

mod backend;
mod config;
mod control;
mod device;
mod error;
mod filter;
mod header;
mod mac;
mod receive;
mod room;
mod segments;
mod state;
mod stats;
mod transmit;

pub use backend::{Loopback, NetBackend, PlainTap, Tap, TapConfig, TapError};
pub use config::NetConfig;
pub use device::Net;
pub use error::NetError;
pub use filter::Filter;
pub use header::Header;
pub use mac::MacAddress;
pub use segments::{gather, scatter, total};
pub use state::NetState;
pub use stats::NetStats;
