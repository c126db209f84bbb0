//! What a snapshot is, without making a machine of it.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use goldcrest_memory::image::ImageId;

use super::chain::Chain;
use super::state::MachineState;
use super::store::{parse_state, read_state};
use super::{ConsoleEnd, Description, SnapshotError, SnapshotFiles};
use crate::NetLink;

/// What a state file says.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct SnapshotInfo {
    /// When the machine was saved.
    pub saved_at: SystemTime,
    /// How many CPUs it has.
    pub cpus: usize,
    /// Its RAM in bytes.
    pub memory_size: u64,
    /// Bytes of the memory file that are not holes.
    pub memory_written: u64,
    /// By which the memory file is known.
    pub id: ImageId,
    /// What it is the difference to, if it is not a full one.
    pub base: Option<BaseInfo>,
    /// Its virtio devices.
    pub devices: Vec<DeviceInfo>,
}

/// A snapshot that is needed to restore another.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct BaseInfo {
    /// By which its memory file is known.
    pub id: ImageId,
    /// Its state file, from the directory of the other's.
    pub state: PathBuf,
    /// Bytes of RAM that have changed since.
    pub changed: u64,
}

/// A virtio device of a machine that was saved.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct DeviceInfo {
    /// By which it is bound anew ([`Rebinding`](super::Rebinding)).
    pub id: String,
    /// Which kind of device it is: `disk`, `net`, `vsock`, `balloon`, `rng`, `console`.
    pub kind: &'static str,
    /// Its end on the host: a path, a tap. Restoring the machine opens it.
    pub end: String,
}

impl SnapshotInfo {
    /// Reads a state file, and nothing else.
    ///
    /// # Errors
    ///
    /// [`SnapshotError`] if it is none, is damaged, or is of no possible machine.
    pub fn read(state: impl AsRef<Path>) -> Result<Self, SnapshotError> {
        read_state(state.as_ref()).map(|state| Self::of(&state))
    }

    /// What the bytes of a state file say.
    ///
    /// # Errors
    ///
    /// As for [`read`](Self::read).
    pub fn parse(state: &[u8]) -> Result<Self, SnapshotError> {
        parse_state(Path::new("state"), state).map(|state| Self::of(&state))
    }

    /// Reads both files, all of them, and compares the memory with its checksums; those that it is the difference to, too.
    ///
    /// # Errors
    ///
    /// [`SnapshotError`] with the first thing that is not as it was written.
    pub fn verify(files: &SnapshotFiles) -> Result<Self, SnapshotError> {
        Self::verify_with(files, &[]).map(|(info, _)| info)
    }

    /// As [`verify`](Self::verify), with directories where bases are that are not where they are said to be. Also how many
    /// snapshots it depends on.
    ///
    /// # Errors
    ///
    /// As for that.
    pub fn verify_with(
        files: &SnapshotFiles,
        bases: &[PathBuf],
    ) -> Result<(Self, usize), SnapshotError> {
        let chain = Chain::open(files, bases)?;
        chain.verify(|_| {})?;
        Ok((Self::of(&chain.state), chain.len() - 1))
    }

    pub(super) fn of(state: &MachineState) -> Self {
        let devices = state.devices.iter().map(|device| DeviceInfo {
            id: device.id.clone(),
            kind: device.description.kind(),
            end: end(&device.description),
        });
        let since = Duration::from_nanos(state.saved_at);
        Self {
            saved_at: UNIX_EPOCH.checked_add(since).unwrap_or(UNIX_EPOCH),
            cpus: state.cpus.len(),
            memory_size: state.memory.config.size,
            memory_written: state.memory.written,
            id: state.memory.id,
            base: state.memory.difference.as_ref().map(|difference| BaseInfo {
                id: difference.base,
                state: difference.state.clone(),
                changed: difference.extents.bytes(),
            }),
            devices: devices.collect(),
        }
    }
}

fn end(description: &Description) -> String {
    match description {
        Description::Disk { config, .. } => config.path.display().to_string(),
        Description::Net { config, .. } => match &config.link {
            NetLink::Tap(name) => format!("tap {name}"),
            NetLink::User(_) => "a network of the process".to_owned(),
        },
        Description::Vsock(sockets) => {
            format!("{}, CID {}", sockets.path.display(), sockets.cid)
        }
        Description::Balloon(_) => "memory".to_owned(),
        Description::Entropy(_) => "random numbers".to_owned(),
        Description::Console(ends) => {
            let ends = ends.iter().map(|end| match end {
                ConsoleEnd::Streams => "descriptors of the process".to_owned(),
                ConsoleEnd::Pty => "a pseudo-terminal".to_owned(),
                ConsoleEnd::Socket(path) => path.display().to_string(),
            });
            ends.collect::<Vec<_>>().join(", ")
        }
    }
}
