//! What can go wrong.

use std::io;
use std::path::PathBuf;

use crate::config::{MAX_QUEUE_SIZE, MAX_QUEUES};
use crate::spec::{SECTOR_SIZE, request::ID_SIZE};

/// Why a disk cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DiskError {
    /// The image cannot be opened.
    #[error("cannot open disk image {}{}", path.display(), hint(source))]
    Open {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The image is something that has no sectors.
    #[error("disk image {} is {what}, not a file or a block device", path.display())]
    Kind {
        /// Which.
        path: PathBuf,
        /// What it is.
        what: &'static str,
    },
    /// The image ends within a sector.
    #[error("disk image {}: size {size} is not a multiple of {SECTOR_SIZE}", path.display())]
    Size {
        /// Which.
        path: PathBuf,
        /// Its bytes.
        size: u64,
    },
    /// The image has no sectors.
    #[error("disk image {} is empty", path.display())]
    Empty {
        /// Which.
        path: PathBuf,
    },
    /// Another disk, of this machine or another, writes to the image, or reads it while this one is to write.
    #[error(
        "disk image {} is in use; only disks that are all read-only can share one",
        path.display()
    )]
    InUse {
        /// Which.
        path: PathBuf,
    },
    /// The image's file system or device cannot be reached past the page cache.
    #[error("disk image {} cannot be used with direct input and output", path.display())]
    Direct {
        /// Which.
        path: PathBuf,
        /// Why, if the kernel said so.
        source: Option<io::Error>,
    },
    /// A disk in the place of another that is not used alike.
    #[error(
        "{}",
        if *read_only { "a disk that is only read cannot be replaced by one that is written" }
        else { "a disk that is written cannot be replaced by one that is only read" }
    )]
    Access {
        /// Whether the guest can only read.
        read_only: bool,
    },
    /// A number of queues that a disk cannot have.
    #[error("disk with {0} queues, not 1 to {MAX_QUEUES}")]
    Queues(u16),
    /// A size that a disk's queue cannot have.
    #[error("disk's queue size {0} is not a power of two from 4 to {MAX_QUEUE_SIZE}")]
    QueueSize(u16),
    /// A name that a driver has no room for.
    #[error("disk name {id:?} has {} bytes, the limit is {ID_SIZE}", id.len())]
    Id {
        /// The name.
        id: String,
    },
    /// A physical block that is out of proportion.
    #[error("disk with a physical block of 2^{exponent} logical blocks, the limit is 2^{max}")]
    PhysicalBlock {
        /// The exponent.
        exponent: u8,
        /// The greatest.
        max: u8,
    },
}

fn hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            " (if it may only be read, attach it read-only)"
        }
        _ => "",
    }
}
