//! The virtio memory balloon (VIRTIO 1.3 §5.5): memory that a guest does not need goes back to the host.
//!
//! It goes in three ways, which a [`BalloonConfig`] chooses from:
//!
//! - the guest puts pages into the balloon, as many as the host asks for, and does not touch them while they are there;
//! - the guest reports pages that it has freed, in large pieces and on its own account, and uses them again when it likes;
//! - the host asks for hints, once: the guest names all the pages that are free at that time.
//!
//! [`Balloon`] is the device. Its [`Pages`] take what the guest gives: [`HostPages`] gives it to the host's kernel, page
//! tables and all, and the guest's next touch brings a new page; [`RecordedPages`] is for tests and fuzzers. The host's
//! side is controlled by the device's own methods, or from elsewhere by a [`BalloonHandle`].
//!
//! ```
//! use goldcrest_irq::IrqLine;
//! use goldcrest_virtio::driver::{Buffer, DriverQueue, initialise, notify};
//! use goldcrest_virtio::{Mmio, spec::feature};
//! use goldcrest_virtio_balloon::{Balloon, BalloonConfig, HostPages};
//! use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};
//!
//! let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 1 << 20)])?;
//! let balloon = Balloon::new(HostPages, &BalloonConfig { target: 8192, ..BalloonConfig::default() })?;
//! let mut device = Mmio::new(balloon, memory.clone(), IrqLine::detached());
//!
//! // A driver gives pages 0x80 and 0x81, as it is asked to.
//! let (mut inflate, deflate) = (DriverQueue::new(&memory, 0, 16), DriverQueue::new(&memory, 0x1000, 16));
//! initialise(&mut device, feature::VERSION_1, &[&inflate, &deflate]);
//! memory.write_obj(0xff_u8, GuestAddress(0x80123))?;
//! memory.write_obj([0x80_u32, 0x81], GuestAddress(0x4000))?;
//! let head = inflate.add(&[Buffer::Readable(0x4000, 8)]);
//! notify(&mut device, 0);
//! assert_eq!(inflate.used(), Some((head, 0)));
//! assert_eq!(memory.read_obj::<u8>(GuestAddress(0x80123))?, 0);
//! assert_eq!(device.core().device().status().totals.returned, 8192);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # What the guest finds
//!
//! Anonymous memory comes back as zeros. Where an image is mapped over RAM the image's bytes come back, which are the
//! guest's own; it is told nothing else (§5.5.6.7: reported pages are uninitialised memory). A guest that fills free pages
//! says so by `VIRTIO_BALLOON_F_PAGE_POISON`, as Linux does with `init_on_free=1` or `page_poison=1`, and wants to find
//! what it filled them with: with zeros it finds zeros, an image or not; with anything else its reports are answered, and
//! its pages left alone. Pages in the balloon and those hinted at are filled again by the driver, so that all this is of
//! no concern there.
//!
//! `VIRTIO_BALLOON_F_MUST_TELL_HOST` is not offered: pages come back by being touched, and the driver need not wait for
//! an answer before it uses them.
//!
//! A hint may be out of date: the driver may take pages back before the device has seen the hint (§5.5.6.5.1). Drivers do
//! not, while they are notifying of it, and the notification is over when the hint is dealt with. Hints that were still in
//! the queue when the device was saved do not count, nor do those of a round that is over.
//!
//! # Queues
//!
//! By the specification reports have queue 4 always (§5.5.2). Linux, on all transports, counts only the queues that it
//! has agreed on, so that without statistics and hints reports have queue 2. The device has five queues, and takes either
//! way: they differ in whether a queue is ready that is beyond the last in Linux's count.
//!
//! # A hostile guest
//!
//! What is not RAM is not given away, whatever a request says, and what is is the guest's own. A request of page numbers
//! is looked at as far as its first 1024, sorted in a fixed array so that neighbours cost one system call; one of ranges
//! has as many as its queue has entries. So a call makes at most 16,384 system calls, if a driver scatters its pages on
//! purpose, on its own CPU. Nothing is allocated. What makes no sense is counted ([`Totals::ignored`]), and pages are not
//! counted twice, nor taken out that are not in. A host that refuses pages is counted too; they stay the guest's.
//! What the guest says of itself, statistics and `actual`, is passed on and not believed.

mod backend;
mod config;
mod configuration;
mod device;
mod error;
mod handle;
mod hinting;
mod poll;
mod queues;
mod spans;
pub mod spec;
mod state;
mod statistics;
mod status;
mod taker;

pub use backend::{HostPages, Pages, RecordedPages};
pub use config::{BalloonConfig, MAX_TARGET, MIN_INTERVAL};
pub use device::Balloon;
pub use error::BalloonError;
pub use goldcrest_memory::Contents;
pub use handle::BalloonHandle;
pub use state::BalloonState;
pub use statistics::Statistics;
pub use status::{BalloonStatus, Totals};
