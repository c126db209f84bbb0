//! What can go wrong on the host's side.

use std::io;

use goldcrest_boot::BootError;
use goldcrest_bus::{BusError, Range};
use goldcrest_memory::MemoryError;
use goldcrest_vcpu::VcpuError;

use crate::SnapshotError;

/// Why a machine could not be made, or not be run to its end.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MonitorError {
    /// The image or what goes with it.
    #[error(transparent)]
    Boot(#[from] BootError),
    /// Guest RAM.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// The hypervisor.
    #[error(transparent)]
    Vcpu(#[from] VcpuError),
    /// Devices that are in each other's way.
    #[error(transparent)]
    Bus(#[from] BusError),
    /// A device where RAM is.
    #[error("memory range {range} of {name} overlaps RAM {ram}")]
    DeviceInRam {
        /// The device.
        name: String,
        /// Its range.
        range: Range,
        /// The RAM that it overlaps.
        ram: Range,
    },
    /// A device could not be made.
    #[error("{source}")]
    Device {
        /// The device.
        name: String,
        /// Why.
        source: crate::DeviceFailure,
    },
    /// More virtio devices than there is room for.
    #[error("{count} virtio devices are not possible: choose at most {max}")]
    VirtioDevices {
        /// How many were asked for.
        count: usize,
        /// How many are possible.
        max: usize,
    },
    /// The host gives no random numbers.
    #[error("cannot get random numbers from the host")]
    Random(#[source] io::Error),
    /// An impossible number of CPUs.
    #[error("{cpus} CPUs are not possible: choose from 1 to {max}")]
    Cpus {
        /// How many were asked for.
        cpus: u32,
        /// How many are possible.
        max: u32,
    },
    /// A template that changes what this processor does not have.
    #[error(
        "the processor has no CPUID leaf {leaf:#x}, subleaf {subleaf:#x}, that a template could change"
    )]
    CpuidLeaf {
        /// The leaf.
        leaf: u32,
        /// The subleaf.
        subleaf: u32,
    },
    /// A snapshot could not be restored.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// No CPU said how the machine ended.
    #[error("the machine ended without a CPU saying why")]
    NoCpu,
    /// The guest's output could not be written.
    #[error("cannot write the guest's output")]
    Output(#[source] io::Error),
    /// The event loop could not be set up, or failed.
    #[error("cannot {what}")]
    Events {
        /// What was tried.
        what: &'static str,
        /// Why.
        source: io::Error,
    },
}
