//! What can go wrong.

use std::io;

use bytesize::ByteSize;

/// Why guest RAM could not be made or used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MemoryError {
    /// A text that is not a size.
    #[error("{0:?} is not a size; write for example 128M, 2G or 512MiB")]
    Parse(String),
    /// A size that is not possible.
    #[error("memory of {size} bytes ({}) is not possible: {limit}", ByteSize(*size))]
    Size {
        /// The size in bytes.
        size: u64,
        /// What it should be.
        limit: &'static str,
    },
    /// The host does not give the memory.
    #[error("cannot {what} {} of guest memory", ByteSize(*size))]
    Host {
        /// What was tried ("map").
        what: &'static str,
        /// Bytes.
        size: u64,
        /// Why.
        source: io::Error,
    },
    /// An address range that is not RAM.
    #[error("guest-physical {start:#x} and the {len:#x} bytes from there are not all RAM")]
    OutsideRam {
        /// First byte.
        start: u64,
        /// Bytes.
        len: u64,
    },
    /// RAM could not be written to or made from a file.
    #[error("cannot {what} the memory image")]
    Image {
        /// What was tried ("write").
        what: &'static str,
        /// Why.
        source: io::Error,
    },
    /// A file that is not the image that is wanted.
    #[error("the memory image {0}")]
    NotTheImage(String),
    /// Runs of pages that no image can have.
    #[error("runs of pages of the memory image: {len:#x} bytes from {start:#x} {limit}")]
    Extents {
        /// Offset in the image.
        start: u64,
        /// Bytes.
        len: u64,
        /// What they should be.
        limit: &'static str,
    },
    /// A part of a file that could not be placed in RAM.
    #[error("cannot load {len:#x} bytes at file offset {offset:#x}")]
    File {
        /// Offset in the file.
        offset: u64,
        /// Bytes.
        len: u64,
        /// Why.
        source: io::Error,
    },
}
