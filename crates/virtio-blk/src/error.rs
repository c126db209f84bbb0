//! What can go wrong.

use std::io;
use std::path::PathBuf;

use crate::spec::SECTOR_SIZE;

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
}

fn hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            " (if it may only be read, attach it read-only)"
        }
        _ => "",
    }
}
