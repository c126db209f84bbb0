//! The monitor: one configuration becomes one running machine.
//!
//! This crate composes the others and adds what is left: a thread for each CPU, an event loop for what waits on the
//! host, and an orderly end. The CPU 0 runs on the calling thread; a machine with one CPU whose guest never listens
//! to its serial port, and whose devices wait for nothing, needs no other thread.
//!
//! ```no_run
//! use goldcrest_monitor::{Image, MachineConfig, Outcome, run};
//! use goldcrest_vcpu::kvm::Kvm;
//!
//! let image = Image::open("vmlinuz")?;
//! let config = MachineConfig {
//!     cmdline: "console=ttyS0".into(),
//!     cpus: 2,
//!     ..MachineConfig::new(image)
//! };
//! match run(&Kvm::open()?, &config)? {
//!     Outcome::PowerOff => println!("powered off"),
//!     outcome => println!("ended otherwise: {outcome}"),
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! A [`CustomDevice`] is put into a machine by [`MachineConfig::devices`]; `examples/custom-device` has one.
//! [`Control`] stops or pauses a machine from another thread or a signal handler.
//!
//! What happens is told by events of the crate `tracing`: for [`GUEST`] see there.
//!
//! # A hostile guest
//!
//! can end its own machine and nothing else: whatever it does comes back as an [`Outcome`]. Its serial input is bounded
//! by the port's FIFO, and what is under way on its disks by their queues. It can keep the devices' loop, one thread,
//! busy with requests for as long as it makes them; a rate limit of a disk bounds that, too.

mod access;
mod balloon;
mod batching;
mod config;
mod console;
mod control;
mod counters;
mod cpu;
mod cpu_template;
mod custom;
mod device_loop;
mod disk;
mod error;
mod events;
mod generation;
mod histogram;
mod hypercalls;
#[cfg(test)]
#[path = "../../boot/tests/images/mod.rs"]
mod images;
mod input;
mod inventory;
mod machine;
mod metrics;
mod mmds;
mod net;
mod options;
mod outcome;
mod snapshot;
mod solo5;
mod template;
mod test_machine;
mod timeline;
mod user_net;
mod virtio;
mod vsock;

pub use access::DeviceAccessError;
pub use balloon::{balloon_device, parse_balloon};
pub use config::{Input, MachineConfig, MachineKind, Notice, OnReset};
pub use console::{ConsoleConfig, ConsolePort, console_device};
pub use control::{Control, StopReason};
pub use cpu_template::{CpuTemplate, CpuidChange, CpuidRegister, MsrChange};
pub use custom::{CustomDevice, Place, Wiring};
pub use disk::DiskConfig;
pub use error::MonitorError;
/// By which a memory file is known.
pub use goldcrest_memory::image::ImageId;
pub use histogram::{Histogram, LatencyMetrics};
pub use inventory::{Inventory, InventoryDevice};
pub use machine::{Machine, run};
pub use metrics::{DeviceMetrics, Metrics};
pub use net::{NetConfig, NetLink};
pub use options::OptionError;
pub use outcome::Outcome;
pub use snapshot::{
    ArchiveInfo, BaseInfo, DeviceInfo, PageServer, Rebinding, RestoreConfig, SnapshotError,
    SnapshotFiles, SnapshotInfo, SnapshotKind, SnapshotReport, WallClock, archive_info, flatten,
    memory_message, pack, pack_file, parse_working_set, unpack, verify_archive,
};
pub use solo5::{Solo5Backing, Solo5Config, parse_solo5_block, parse_solo5_net};
pub use template::{Blank, CloneConfig, Pool, Spent, Template};
pub use timeline::{Stage, Timeline};
pub use virtio::{
    DeviceFailure, MAX_VIRTIO_DEVICES, VirtioConfig, entropy_device, entropy_device_with,
};
pub use vsock::{parse_vsock, vsock_device};

/// What a configuration is made of, from the crates below.
pub use goldcrest_boot::{Announce, Image, Module, Protocol};
pub use goldcrest_chipset::Output;
pub use goldcrest_memory as memory;
/// The metadata service.
pub use goldcrest_mmds::{Mmds, MmdsConfig, MmdsError, MmdsVersion};
/// What a balloon does.
pub use goldcrest_virtio_balloon::BalloonConfig;
/// Sockets of a guest's.
pub use goldcrest_virtio_vsock::VsockConfig;

/// The target of those of this crate's events (by the crate `tracing`) that a guest can cause as often as it likes: who
/// writes them down must not write all of them.
pub const GUEST: &str = "goldcrest::guest";

/// The README's monitor of 30 lines compiles.
#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
struct Readme;
