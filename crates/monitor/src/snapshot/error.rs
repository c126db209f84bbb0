//! Why there is no snapshot, or no machine from one.

use std::io;
use std::path::PathBuf;

use goldcrest_archive::ArchiveError;
use goldcrest_memory::MemoryError;
use goldcrest_memory::image::ImageId;
use goldcrest_mmds::MmdsError;
use goldcrest_snapshot::{EnvelopeError, RestoreError};
use goldcrest_vcpu::VcpuError;

/// Why a snapshot was not made, or not believed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SnapshotError {
    /// No machine runs.
    #[error("no machine is running")]
    NotRunning,
    /// The machine runs on.
    #[error("the machine is not paused: pause it first")]
    NotPaused,
    /// The machine ended meanwhile.
    #[error("the machine has ended")]
    Ended,
    /// A device whose state is not known.
    #[error("{0} cannot be saved")]
    Device(String),
    /// Nothing tells what has changed.
    #[error("there is no snapshot that this one could be the difference to: make a full one")]
    NoBase,
    /// A snapshot that depends on another, which is not as it should be; or another depends on it.
    #[error("{} {what}", path.display())]
    Base {
        /// The snapshot's file.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// What a snapshot is the difference to is not to be found.
    #[error("{} is the difference to a snapshot that is not there", path.display())]
    MissingBase {
        /// The snapshot's state file.
        path: PathBuf,
        /// Why.
        source: Box<SnapshotError>,
    },
    /// A CPU could not be saved.
    #[error("cannot save CPU {cpu}")]
    Cpu {
        /// Its number.
        cpu: u32,
        /// Why.
        source: VcpuError,
    },
    /// The machine's clock could not be saved.
    #[error("cannot save the machine's clock")]
    Clock(#[source] VcpuError),
    /// A file could not be written or read.
    #[error("cannot {what} {}", path.display())]
    File {
        /// What was tried.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A state file that is none, is damaged, or is from another version.
    #[error("{}", path.display())]
    State {
        /// The file.
        path: PathBuf,
        /// Why.
        source: EnvelopeError,
    },
    /// A state that no machine can have had.
    #[error("state of the machine: {what} is {value}, {limit}")]
    Impossible {
        /// The value's name.
        what: &'static str,
        /// The value.
        value: u64,
        /// What it should have been.
        limit: &'static str,
    },
    /// A device's state that it cannot have had.
    #[error("state of {device}")]
    DeviceState {
        /// The device.
        device: String,
        /// Why.
        source: EnvelopeError,
    },
    /// A memory file that is not the state's.
    #[error("{}: {what}", path.display())]
    Memory {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// Memory cannot be had from another process here.
    #[error(
        "memory cannot come from another process: userfaultfd is refused here (set vm.unprivileged_userfaultfd to 1, give \
         access to /dev/userfaultfd, or run this as root)"
    )]
    Userfault(#[source] io::Error),
    /// The process that has the memory is not there, or does not answer.
    #[error("cannot {what} the page server at {}", path.display())]
    PageServer {
        /// What was tried.
        what: &'static str,
        /// Its socket.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The process that had the memory has gone, and a page was needed that had not come yet.
    #[error("the page server at {} has gone, with the memory's page at {offset:#x} that the guest needs", path.display())]
    PageLost {
        /// Its socket.
        path: PathBuf,
        /// The page's place in the memory file, in bytes.
        offset: u64,
    },
    /// A working set that the memory cannot have had.
    #[error("{}: working set has {what}", path.display())]
    WorkingSet {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// An archive that is none, is damaged, or does not go with the key.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// An archive of something that no snapshot can be.
    #[error("archive has {0}")]
    Contents(String),
    /// A machine, or what was made for one, of another template.
    #[error("it was made for {}, the template's image is {expected}", of(*found))]
    NotOfTemplate {
        /// Whose it is.
        found: Option<ImageId>,
        /// Whose it should be.
        expected: ImageId,
    },
    /// A metadata service cannot be as it was.
    #[error("the metadata service of the snapshot")]
    Metadata(#[source] MmdsError),
    /// Guest RAM could not be read or made.
    #[error(transparent)]
    Ram(#[from] MemoryError),
    /// Something was to be bound anew that the machine does not have.
    #[error("the snapshot has no {kind} with the id {id:?}: it has {has}")]
    NoSuchDevice {
        /// What was looked for.
        kind: &'static str,
        /// The id.
        id: String,
        /// The ids that there are.
        has: String,
    },
    /// The guest's clock would run at another speed.
    #[error(
        "the guest's clock ran at {saved} kHz, this host's runs at {here} kHz and cannot be scaled"
    )]
    TscFrequency {
        /// The saved frequency.
        saved: u64,
        /// This host's.
        here: u64,
    },
}

fn of(image: Option<ImageId>) -> String {
    image.map_or("no image".into(), |image| format!("the image {image}"))
}

impl From<RestoreError> for SnapshotError {
    fn from(error: RestoreError) -> Self {
        Self::Impossible {
            what: error.what,
            value: error.value,
            limit: error.limit,
        }
    }
}
