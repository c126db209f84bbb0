//! Snapshots.

use std::path::PathBuf;

use serde::Deserialize;

/// `PUT /snapshot/create`, of a paused machine.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SnapshotCreate {
    /// The file that gets the state.
    pub snapshot_path: PathBuf,
    /// The file that gets the memory.
    pub mem_file_path: PathBuf,
    /// All of memory, or what has changed since the last one.
    #[serde(default)]
    pub snapshot_type: SnapshotType,
}

/// What of memory a snapshot holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
pub enum SnapshotType {
    /// All.
    #[default]
    Full,
    /// What has changed since the last one.
    Diff,
}

/// `PUT /snapshot/load`, before anything else is configured.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SnapshotLoad {
    /// The file that has the state.
    pub snapshot_path: PathBuf,
    /// The file that has the memory: the old way to name it.
    #[serde(default)]
    pub mem_file_path: Option<PathBuf>,
    /// Where the memory is.
    #[serde(default)]
    pub mem_backend: Option<MemoryBackend>,
    /// Pages that the guest writes to are recorded: the old name.
    #[serde(default)]
    pub enable_diff_snapshots: bool,
    /// Pages that the guest writes to are recorded, for incremental snapshots.
    #[serde(default)]
    pub track_dirty_pages: bool,
    /// The machine runs at once.
    #[serde(default)]
    pub resume_vm: bool,
    /// Other taps than those that the machine had.
    #[serde(default)]
    pub network_overrides: Vec<NetworkOverride>,
    /// Another socket than the one that the machine had.
    #[serde(default)]
    pub vsock_override: Option<VsockOverride>,
    /// The guest's clocks go on as if it had run meanwhile.
    #[serde(default)]
    pub clock_realtime: bool,
}

/// Where a snapshot's memory is.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MemoryBackend {
    /// What the path leads to.
    pub backend_type: BackendType,
    /// The path.
    pub backend_path: PathBuf,
}

/// What has a snapshot's memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub enum BackendType {
    /// A file.
    File,
    /// A process that serves page faults, at a socket.
    Uffd,
}

/// Another tap for a network card.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NetworkOverride {
    /// The card.
    pub iface_id: String,
    /// The tap.
    pub host_dev_name: String,
}

/// Another socket for the guest's sockets.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VsockOverride {
    /// Its path.
    pub uds_path: PathBuf,
}
