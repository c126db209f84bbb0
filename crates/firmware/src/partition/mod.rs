//! Partition tables: GPT (UEFI 2.10 §5.3) and MBR (§5.2).

mod gpt;
mod guid;
mod mbr;

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

pub use guid::Guid;

use crate::disk::{Disk, ReadError, Volume};

/// The most partitions of a disk that are looked at.
pub const MAX_PARTITIONS: usize = 128;

/// A part of a disk, as its partition table has it.
#[derive(Debug, Clone)]
pub struct Partition {
    /// Its number, from 1: `vda1` is 1.
    pub number: u32,
    /// Where it is.
    pub volume: Volume,
    /// What it is for.
    pub kind: Kind,
    /// Its identity, as Linux has it in `PARTUUID=`.
    pub uuid: String,
}

/// What a partition is for, as its type says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Kind {
    /// An EFI system partition.
    EfiSystem,
    /// A partition for boot loader entries: XBOOTLDR, on an MBR type 0xea.
    BootLoader,
    /// A root file system for this processor (Discoverable Partitions Specification).
    Root,
    /// Anything else.
    Other,
}

/// Which table a disk has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    /// GUID partition table.
    Gpt,
    /// Master boot record.
    Mbr,
}

impl fmt::Display for Scheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Gpt => "GPT",
            Self::Mbr => "MBR",
        })
    }
}

/// A partition table.
#[derive(Debug, Clone)]
pub struct Table {
    /// Of which kind.
    pub scheme: Scheme,
    /// The partitions, in the order of the table.
    pub partitions: Vec<Partition>,
}

/// Why a partition table cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum TableError {
    /// It cannot be read.
    Read(ReadError),
    /// Neither header of a GPT is valid.
    Gpt {
        /// What is wrong with the primary one.
        primary: GptFault,
        /// What is wrong with the backup.
        backup: GptFault,
    },
}

/// What is wrong with a header of a GPT, or with the entries that it has.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum GptFault {
    /// It cannot be read.
    Read(ReadError),
    /// It does not begin with `EFI PART`.
    Signature,
    /// It says that it has so many bytes; from 92 to a block are possible.
    HeaderSize(u32),
    /// It has another checksum than it says.
    HeaderChecksum,
    /// It says that it is in another block.
    Place(u64),
    /// Its entries have so many bytes; 128 and its multiples by powers of two, up to 4096, are possible.
    EntrySize(u32),
    /// It says that there are so many entries; up to 1024 are read.
    EntryCount(u32),
    /// The entries have another checksum than the header says.
    EntriesChecksum,
}

impl fmt::Display for GptFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Read(error) => write!(f, "{error}"),
            Self::Signature => f.write_str("there is none"),
            Self::HeaderSize(size) => write!(f, "a header of {size} bytes"),
            Self::HeaderChecksum => f.write_str("its checksum is wrong"),
            Self::Place(block) => write!(f, "it says that it is block {block}"),
            Self::EntrySize(size) => write!(f, "entries of {size} bytes"),
            Self::EntryCount(count) => write!(f, "{count} entries, of which 1024 are the most"),
            Self::EntriesChecksum => f.write_str("the checksum of its entries is wrong"),
        }
    }
}

impl fmt::Display for TableError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Read(error) => write!(f, "its first block: {error}"),
            Self::Gpt { primary, backup } => write!(
                f,
                "its GPT is damaged (header: {primary}; backup: {backup})"
            ),
        }
    }
}

impl core::error::Error for TableError {}

/// Reads the partition table of a disk; `None` if it has none.
///
/// # Errors
///
/// [`TableError`], if there is one that cannot be used.
pub fn read(disk: &Disk) -> Result<Option<Table>, TableError> {
    let first = mbr::read(disk).map_err(TableError::Read)?;
    match first {
        mbr::First::Protective => gpt::read(disk).map(|partitions| {
            Some(Table {
                scheme: Scheme::Gpt,
                partitions,
            })
        }),
        mbr::First::Partitions(partitions) => Ok(Some(Table {
            scheme: Scheme::Mbr,
            partitions,
        })),
        // A disk whose first block was overwritten may have its GPT still.
        mbr::First::None => Ok(gpt::read(disk).ok().map(|partitions| Table {
            scheme: Scheme::Gpt,
            partitions,
        })),
    }
}

impl Partition {
    /// The partition as Linux calls it: `vda1`.
    pub fn name(&self) -> String {
        format!("{}{}", self.volume.disk().name(), self.number)
    }
}
