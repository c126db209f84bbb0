//! What can go wrong.

use crate::spec::ring;

/// How a driver misused a queue.
///
/// The device sets DEVICE_NEEDS_RESET and does nothing more until it is reset (VIRTIO 1.3 §2.1.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum QueueError {
    /// A size that a queue cannot have.
    #[error("queue size {size} is not a power of two from 1 to {max}")]
    Size {
        /// What the driver set.
        size: u32,
        /// The greatest size.
        max: u16,
    },
    /// A part of the queue at an address that it cannot have.
    #[error("{part} at {address:#x} is not aligned to {align} bytes")]
    Misaligned {
        /// Which part.
        part: &'static str,
        /// Guest-physical address.
        address: u64,
        /// What it should be aligned to.
        align: u64,
    },
    /// A part of the queue where there is no RAM.
    #[error("{part} at {address:#x}, {len} bytes long, does not lie in RAM")]
    OutsideRam {
        /// Which part.
        part: &'static str,
        /// Guest-physical address.
        address: u64,
        /// Its bytes.
        len: usize,
    },
    /// More available buffers than the queue has entries.
    #[error("available index is {ahead} ahead, the queue has {size} entries")]
    AvailableIndex {
        /// How far ahead.
        ahead: u16,
        /// The queue's size.
        size: u16,
    },
    /// A descriptor number beyond the table.
    #[error("descriptor {index} is beyond the table's {len}")]
    DescriptorIndex {
        /// The number.
        index: u16,
        /// How many descriptors there are.
        len: u16,
    },
    /// A chain that is in use was made available again.
    #[error("descriptor {0} is made available while it is in use")]
    HeadInUse(u16),
    /// A chain with more descriptors than the queue has entries, or with a loop.
    #[error("descriptor chain is longer than the queue's {0} entries, or loops")]
    ChainLength(u16),
    /// A chain of more than 4 GiB.
    #[error("descriptor chain describes more than 4 GiB")]
    ChainBytes,
    /// A buffer to read behind one to write.
    #[error("a device-readable buffer follows a device-writable one")]
    ReadableAfterWritable,
    /// An indirect descriptor although that was not agreed on, in an indirect table, or with a successor.
    #[error("an indirect descriptor is not allowed here")]
    Indirect,
    /// An indirect table of an impossible size.
    #[error(
        "indirect table has {0} bytes, not a multiple of {size} for up to the queue's size",
        size = ring::DESCRIPTOR_SIZE
    )]
    IndirectSize(u32),
    /// A buffer where there is no RAM.
    #[error("buffer at {address:#x}, {len} bytes long, does not lie in RAM")]
    Buffer {
        /// Guest-physical address.
        address: u64,
        /// Its bytes.
        len: usize,
    },
    /// A buffer that is too short for what must be in it.
    #[error("buffers are {missing} bytes too short")]
    TooShort {
        /// How many bytes more were needed.
        missing: u64,
    },
}

/// Why a device cannot go on without being reset.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DeviceError {
    /// The driver misused a queue.
    #[error("queue {queue}: {source}")]
    Queue {
        /// Which.
        queue: u16,
        /// How.
        source: QueueError,
    },
    /// The driver broke a rule of this type of device.
    #[error("{0}")]
    Driver(&'static str),
    /// The host failed the device.
    #[error("cannot {what}")]
    Host {
        /// What was tried.
        what: &'static str,
        /// Why.
        source: std::io::Error,
    },
}

/// Why a device cannot begin to work.
#[derive(Debug, thiserror::Error)]
#[error("cannot {what}")]
pub struct ActivateError {
    /// What was tried.
    pub what: &'static str,
    /// Why.
    #[source]
    pub source: std::io::Error,
}
