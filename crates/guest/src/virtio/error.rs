//! What can go wrong with a device.

use core::fmt;

/// Why a device cannot be driven, or did not do what it was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Error {
    /// The machine has no device of this kind.
    NotFound {
        /// The kind, one of [`id`](super::id).
        id: u32,
    },
    /// The device is of another kind.
    Kind {
        /// The device's.
        found: u32,
        /// The driver's.
        expected: u32,
    },
    /// The device does not offer, or does not accept, what the driver cannot do without.
    Features {
        /// What the device offers.
        offered: u64,
        /// What the driver asked for.
        wanted: u64,
    },
    /// The device has no such queue, or it is in use, or too small for a request.
    Queue {
        /// Which.
        index: u16,
    },
    /// There is not enough memory.
    OutOfMemory,
    /// The queue has no room for another request before one is completed.
    Full,
    /// There is nothing to wait for.
    Nothing,
    /// The interrupt is not an input of the first IOAPIC, so that the driver cannot wait for it.
    Interrupt {
        /// Its number.
        number: u32,
    },
    /// The device asks to be reset (§2.1.2).
    NeedsReset,
    /// The device claims to have completed more requests than it was given.
    UsedIndex {
        /// Requests that it claims.
        claimed: u16,
        /// Requests that it was given.
        given: u16,
    },
    /// The device claims to have completed a request that it was not given.
    UsedId {
        /// Its number.
        id: u32,
    },
    /// The device claims to have written more than there is room for.
    UsedLength {
        /// Bytes that it claims.
        len: u32,
        /// Bytes of room.
        limit: u32,
    },
    /// The device claims to have written less than every answer has.
    Short {
        /// Bytes that it claims.
        len: u32,
        /// Bytes that there have to be.
        limit: u32,
    },
    /// What is to be sent is longer than the device takes.
    TooLong {
        /// Bytes.
        len: usize,
        /// The most.
        limit: usize,
    },
    /// There is no such stream.
    NoStream,
    /// The stream takes nothing more: one of both sides has said that it is done, or reset it.
    Ended,
    /// The device gave an answer that has no meaning.
    Answer {
        /// The answer.
        found: u32,
    },
    /// The device was shut down after an earlier error.
    Broken,
    /// The device failed (`VIRTIO_BLK_S_IOERR`).
    Io,
    /// The device does not do this: it did not offer it, or refused it (`VIRTIO_BLK_S_UNSUPP`).
    Unsupported,
    /// The disk can only be read.
    ReadOnly,
    /// A length in bytes is not that of whole blocks.
    Unaligned {
        /// Bytes.
        len: usize,
        /// Bytes of a block.
        block: u32,
    },
    /// The request goes beyond the end of the disk.
    OutOfRange {
        /// The first sector.
        sector: u64,
        /// How many.
        count: u64,
        /// Sectors that the disk has.
        capacity: u64,
    },
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::NotFound { id } => write!(f, "there is no virtio device of kind {id}"),
            Self::Kind { found, expected } => {
                write!(f, "the virtio device is of kind {found}, not {expected}")
            }
            Self::Features { offered, wanted } => write!(
                f,
                "the device offers the features {offered:#x} and refuses {wanted:#x}"
            ),
            Self::Queue { index } => write!(f, "the device has no queue {index} to give"),
            Self::OutOfMemory => f.write_str("there is not enough memory"),
            Self::Full => f.write_str("the queue is full"),
            Self::Nothing => f.write_str("there is no request to wait for"),
            Self::Interrupt { number } => {
                write!(f, "interrupt {number} is none of the first IOAPIC's")
            }
            Self::NeedsReset => f.write_str("the device asks to be reset"),
            Self::UsedIndex { claimed, given } => write!(
                f,
                "the device claims to have completed {claimed} requests of {given}"
            ),
            Self::UsedId { id } => write!(
                f,
                "the device completed request {id}, which it was not given"
            ),
            Self::UsedLength { len, limit } => write!(
                f,
                "the device claims to have written {len} bytes, where {limit} have room"
            ),
            Self::Short { len, limit } => write!(
                f,
                "the device claims to have written {len} bytes, where {limit} are the least"
            ),
            Self::TooLong { len, limit } => {
                write!(f, "{len} bytes are more than the {limit} that can be sent")
            }
            Self::NoStream => f.write_str("there is no such stream"),
            Self::Ended => f.write_str("the stream has ended"),
            Self::Answer { found } => write!(f, "the device answered {found}"),
            Self::Broken => f.write_str("the device was shut down after an earlier error"),
            Self::Io => f.write_str("the device failed"),
            Self::Unsupported => f.write_str("the device does not do this"),
            Self::ReadOnly => f.write_str("the disk is read-only"),
            Self::Unaligned { len, block } => {
                write!(f, "{len} bytes are not whole blocks of {block} bytes")
            }
            Self::OutOfRange {
                sector,
                count,
                capacity,
            } => write!(
                f,
                "{count} sectors from {sector} go beyond the {capacity} of the disk"
            ),
        }
    }
}

impl core::error::Error for Error {}
