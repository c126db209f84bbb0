//! What a person sets for a machine that is restored.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use goldcrest_chipset::Output;

use super::SnapshotFiles;
use crate::{ConsolePort, Control, Input, Mmds, Notice, Timeline};

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
    /// Ends of devices that are elsewhere now.
    pub rebind: Vec<Rebinding>,
    /// Directories of snapshots that this one is the difference to, where they are not where they were when it was made.
    pub bases: Vec<PathBuf>,
    /// Whether guest RAM is watched, so that a [`Diff`](super::SnapshotKind::Diff) of the machine need not look for what
    /// has changed by comparing.
    pub track_dirty: bool,
    /// What has become of the time in between.
    pub clock: WallClock,
    /// Whether it waits, paused, until [`Control::resume`].
    pub paused: bool,
    /// Where the serial port's and the console's bytes go.
    pub output: Output,
    /// Where the serial port's input comes from.
    pub input: Option<Input>,
    /// The ends of virtio consoles that were on descriptors of the process, in their order. Those that are missing have no
    /// input, and nobody sees their output.
    pub consoles: Vec<ConsolePort>,
    /// The metadata service of those cards that had one, without which they have one each whose document is empty. It is
    /// set as it was when the machine was saved; what it serves is not saved.
    pub metadata: Option<Arc<Mmds>>,
    /// How long the machine may run.
    pub timeout: Option<Duration>,
    /// Stops or pauses it, and saves it again.
    pub control: Arc<Control>,
    /// Records where start-up went.
    pub timeline: Option<Timeline>,
    /// Is told what a person should know.
    pub notice: Notice,
}

impl RestoreConfig {
    /// A machine from these files, whose output nobody sees, with its devices as they were.
    pub fn new(files: SnapshotFiles) -> Self {
        Self {
            files,
            page_server: None,
            use_working_set: true,
            record_working_set: false,
            rebind: Vec::new(),
            bases: Vec::new(),
            track_dirty: false,
            clock: WallClock::default(),
            paused: false,
            output: Output::discard(),
            input: None,
            consoles: Vec::new(),
            metadata: None,
            timeout: None,
            control: Arc::default(),
            timeline: None,
            notice: Notice::default(),
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
