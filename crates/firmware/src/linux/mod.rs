//! Linux's 64-bit boot protocol (Linux, `Documentation/arch/x86/boot.rst`), from the loader's side.

mod header;
mod params;

use core::fmt;

pub use header::{ENTRY_64, Header};
pub use params::{BootParams, Handover, MemoryRange};

use crate::disk::ReadError;

/// Why a kernel cannot be started.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum KernelError {
    /// It cannot be read.
    Read(ReadError),
    /// It has so few bytes that it cannot be a bzImage.
    Short(u64),
    /// It is no bzImage: it has this where `HdrS` should be.
    Magic(u32),
    /// Its boot protocol is older than 2.12.
    Version(u16),
    /// It has no 64-bit entry point; these are its `xloadflags`.
    No64BitEntry(u16),
    /// It cannot be loaded where there is memory.
    NotRelocatable,
    /// `kernel_alignment` is no power of two, or larger than 1 GiB.
    Alignment(u32),
    /// `init_size` is larger than 2 GiB, or smaller than the kernel.
    InitSize(u32),
    /// `pref_address` is above 4 GiB.
    Address(u64),
    /// The header ends here, beyond what it has room for, or too early.
    HeaderEnd(usize),
    /// The command line is longer than the kernel takes.
    CommandLine {
        /// Bytes.
        len: usize,
        /// The most.
        limit: u32,
    },
    /// The command line has a zero.
    CommandLineZero,
    /// The initial RAM disks are larger than there is room for.
    Initrd {
        /// Bytes.
        size: u64,
        /// The most.
        limit: u64,
    },
}

impl From<ReadError> for KernelError {
    fn from(error: ReadError) -> Self {
        Self::Read(error)
    }
}

impl fmt::Display for KernelError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Read(error) => write!(f, "{error}"),
            Self::Short(size) => write!(f, "{size} bytes are too few for a bzImage"),
            Self::Magic(found) => write!(
                f,
                "it is no bzImage: there is {found:#x} where HdrS should be"
            ),
            Self::Version(version) => write!(
                f,
                "its boot protocol is {}.{}, and 2.12 is needed",
                version >> 8,
                version & 0xff
            ),
            Self::No64BitEntry(flags) => write!(
                f,
                "it has no 64-bit entry point (its xloadflags are {flags:#x})"
            ),
            Self::NotRelocatable => f.write_str("it is not relocatable"),
            Self::Alignment(alignment) => {
                write!(
                    f,
                    "its alignment is {alignment:#x}, no power of two up to 1 GiB"
                )
            }
            Self::InitSize(size) => write!(
                f,
                "its init_size is {size:#x}, not between its size and 2 GiB"
            ),
            Self::Address(address) => {
                write!(f, "it prefers the address {address:#x}, above 1 GiB")
            }
            Self::HeaderEnd(end) => {
                write!(
                    f,
                    "its header ends at {end:#x}, not between 0x264 and 0x290"
                )
            }
            Self::CommandLine { len, limit } => write!(
                f,
                "its command line has {len} bytes, of which it takes {limit}"
            ),
            Self::CommandLineZero => f.write_str("its command line has a zero in it"),
            Self::Initrd { size, limit } => write!(
                f,
                "its initial RAM disks have {size} bytes, of which {limit} are the most"
            ),
        }
    }
}

impl core::error::Error for KernelError {}
