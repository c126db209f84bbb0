//! Which files a snapshot is, and what was put into them.

use std::path::{Path, PathBuf};
use std::time::Duration;

/// The two files of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotFiles {
    /// CPUs, devices and what they were made from: small.
    pub state: PathBuf,
    /// Guest RAM: as long as it, with holes for pages of zeros.
    pub memory: PathBuf,
}

impl SnapshotFiles {
    /// The files `state` and `memory` of a directory.
    pub fn in_directory(directory: impl AsRef<Path>) -> Self {
        let directory = directory.as_ref();
        Self {
            state: directory.join("state"),
            memory: directory.join("memory"),
        }
    }
}

/// How much of guest RAM a snapshot has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum SnapshotKind {
    /// All of it.
    #[default]
    Full,
    /// What has changed since the snapshot that was made last, or that the machine was restored from. That one is needed to
    /// restore this one, and found by the way to it from this one's directory.
    Diff,
}

/// What a snapshot has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SnapshotReport {
    /// Guest RAM in bytes.
    pub memory_size: u64,
    /// How many bytes of it were written: what is not zeros or, in a [`Diff`](SnapshotKind::Diff), has changed.
    pub memory_written: u64,
    /// Bytes of the state file.
    pub state_size: u64,
    /// How long it took.
    pub took: Duration,
}
