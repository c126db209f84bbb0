//! A snapshot in one file: [`pack`] and [`unpack`].
//!
//! What is in the archive ([`goldcrest_archive`]):
//!
//! | bytes | what |
//! |---|---|
//! | 8, n | length of the state, the state file |
//! | 8, n | length of the working set, its file; 0 if there is none |
//! | for each run of pages that are not zeros: 8, 8, n | its offset in RAM, its length (1 MiB at most), its bytes |
//! | 8, 8 | zeros, behind the last run |
//!
//! The memory file's trailer is made anew, as the state says all that is in it.

mod contents;
mod pack;
mod unpack;

use std::io::Read;

use goldcrest_archive::{ArchiveError, Key};

use super::{SnapshotError, SnapshotInfo};
use contents::Contents;
pub use pack::{pack, pack_file};
pub use unpack::{unpack, verify_archive};

/// What is known of an archive by its beginning.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ArchiveInfo {
    /// Whether it is encrypted.
    pub encrypted: bool,
    /// What is in it, if it is not encrypted or the key was given.
    pub snapshot: Option<SnapshotInfo>,
}

/// Reads as much of an archive as says what it is.
///
/// # Errors
///
/// [`SnapshotError`] if it is none, is damaged so far, or the key is not the one.
pub fn archive_info(from: impl Read, key: Option<&Key>) -> Result<ArchiveInfo, SnapshotError> {
    let contents = match Contents::new(from, key) {
        Err(SnapshotError::Archive(ArchiveError::KeyNeeded)) => {
            return Ok(ArchiveInfo {
                encrypted: true,
                snapshot: None,
            });
        }
        contents => contents?,
    };
    Ok(ArchiveInfo {
        encrypted: key.is_some(),
        snapshot: Some(SnapshotInfo::of(&contents.state)),
    })
}

#[cfg(test)]
mod tests;
