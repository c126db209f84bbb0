//! What a person sets for a machine that is restored.

use std::path::PathBuf;

use super::SnapshotFiles;
use crate::CloneConfig;

/// A machine, before it exists again.
#[derive(Debug)]
pub struct RestoreConfig {
    /// What it is made from.
    pub files: SnapshotFiles,
    /// The Unix socket of a process that gives the pages of memory when they are touched
    /// ([`PageServer`](super::PageServer), or any other that speaks Firecracker's protocol), instead of the memory file,
    /// which is not opened then.
    pub page_server: Option<PathBuf>,
    /// Whether pages that a run before touched are had before they are needed, if those were
    /// [recorded](Self::record_working_set).
    pub use_working_set: bool,
    /// Whether it is recorded, when the machine ends, which pages of the memory file it touched: in the file `working-set`
    /// beside that. Nothing is if memory comes from a [page server](Self::page_server).
    pub record_working_set: bool,
    /// Directories of snapshots that this one is the difference to, where they are not where they were when it was made.
    pub bases: Vec<PathBuf>,
    /// Whether guest RAM is watched, so that a [`Diff`](super::SnapshotKind::Diff) of the machine need not look for what
    /// has changed by comparing.
    pub track_dirty: bool,
    /// What is this machine's own, as it is of one that is made from a [`Template`](crate::Template).
    pub machine: CloneConfig,
}

impl RestoreConfig {
    /// A machine from these files, whose output nobody sees, with its devices as they were.
    pub fn new(files: SnapshotFiles) -> Self {
        Self {
            files,
            page_server: None,
            use_working_set: true,
            record_working_set: false,
            bases: Vec::new(),
            track_dirty: false,
            machine: CloneConfig::default(),
        }
    }
}

/// An end of a device that is another one than when the machine was saved. `id` is the device's
/// ([`VirtioConfig::with_id`](crate::VirtioConfig::with_id)).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Rebinding {
    /// A disk is in another file, of the same size and with the same contents.
    Disk {
        /// Which.
        id: String,
        /// The file.
        path: PathBuf,
    },
    /// A network card is on another tap.
    Tap {
        /// Which.
        id: String,
        /// The tap's name.
        name: String,
    },
    /// Sockets are elsewhere.
    Vsock {
        /// The Unix socket, if it is another.
        path: Option<PathBuf>,
        /// The guest's CID, if it is another.
        cid: Option<u64>,
    },
}

/// What a guest's clocks show after it was saved for some time. None ever goes back.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum WallClock {
    /// Time stood still: they go on from where they were. The real-time clock of the machine alone shows the time here.
    #[default]
    Frozen,
    /// Time went on: they are ahead by what has passed on the wall.
    Now,
}
