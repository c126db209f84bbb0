//! What virtio devices were made from, as it is saved: enough to make them anew.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use goldcrest_rate_limiter::RateConfig;
use goldcrest_virtio_balloon::BalloonConfig;
use goldcrest_virtio_vsock::VsockConfig;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::SnapshotError;
use super::state::impossible;
use crate::{DiskConfig, MmdsConfig, MmdsVersion, NetConfig};

/// What a device is, and which end it has on the host.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum Description {
    Disk {
        config: DiskConfig,
        queues: u16,
    },
    Net {
        config: NetConfig,
        /// How the guest finds metadata on it, if it does. What it finds is not saved.
        metadata: Option<MetadataState>,
    },
    Vsock(Sockets),
    Balloon(BalloonConfig),
    Entropy(RateConfig),
    Console(Vec<ConsoleEnd>),
}

impl Description {
    /// What people call it, and how its id begins if it is given none.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Disk { .. } => "disk",
            Self::Net { .. } => "net",
            Self::Vsock(_) => "vsock",
            Self::Balloon(_) => "balloon",
            Self::Entropy(_) => "rng",
            Self::Console(_) => "console",
        }
    }

    /// Whether it takes of the host no more than a machine with `ram` bytes may. All else is for the device to say.
    pub(super) fn check(&self, ram: u64) -> Result<(), SnapshotError> {
        match self {
            Self::Vsock(sockets) if sockets.buffers > ram.max(MOST_HELD) => Err(impossible(
                "number of bytes that sockets hold",
                sockets.buffers,
                "must be at most that of its RAM, or 1 GiB",
            )),
            _ => Ok(()),
        }
    }
}

/// What sockets may hold in any case, in bytes.
const MOST_HELD: u64 = 1 << 30;

/// Sockets between guest and host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Sockets {
    pub(crate) cid: u64,
    #[serde(with = "path_bytes")]
    pub(crate) path: PathBuf,
    pub(crate) streams: u32,
    pub(crate) buffers: u64,
}

impl From<&VsockConfig> for Sockets {
    fn from(config: &VsockConfig) -> Self {
        Self {
            cid: config.cid,
            path: config.path.clone(),
            streams: config.streams,
            buffers: config.buffers,
        }
    }
}

impl From<Sockets> for VsockConfig {
    fn from(sockets: Sockets) -> Self {
        let mut config = Self::new(sockets.cid, sockets.path);
        config.streams = sockets.streams;
        config.buffers = sockets.buffers;
        config
    }
}

/// How a metadata service answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct MetadataState {
    needs_token: bool,
    address: [u8; 4],
    imds_compat: bool,
}

impl From<MmdsConfig> for MetadataState {
    fn from(config: MmdsConfig) -> Self {
        Self {
            needs_token: config.version == MmdsVersion::V2,
            address: config.address.octets(),
            imds_compat: config.imds_compat,
        }
    }
}

impl MetadataState {
    /// Its configuration; what is not saved is as in `other`.
    pub(super) fn config(self, other: MmdsConfig) -> MmdsConfig {
        MmdsConfig {
            version: match self.needs_token {
                true => MmdsVersion::V2,
                false => MmdsVersion::V1,
            },
            address: self.address.into(),
            imds_compat: self.imds_compat,
            ..other
        }
    }
}

/// The host's end of a console.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum ConsoleEnd {
    /// Descriptors of the process, which are gone with it.
    Streams,
    Pty,
    Socket(#[serde(with = "path_bytes")] PathBuf),
}

/// Paths as their bytes, which need not be text.
pub(crate) mod path_bytes {
    use super::*;

    pub(crate) fn serialize<S: Serializer>(path: &Path, to: S) -> Result<S::Ok, S::Error> {
        path.as_os_str().as_bytes().serialize(to)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<PathBuf, D::Error> {
        Vec::<u8>::deserialize(from).map(|bytes| OsString::from_vec(bytes).into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_do_not_hold_more_than_a_machine_has() {
        let check = |buffers, ram| {
            let mut sockets = Sockets::from(&VsockConfig::new(3, "/run/guest.sock"));
            sockets.buffers = buffers;
            Description::Vsock(sockets).check(ram).is_ok()
        };
        assert!(check(MOST_HELD, 1 << 20) && check(2 << 30, 2 << 30));
        assert!(!check(MOST_HELD + 1, 1 << 20) && !check(u64::MAX, 4 << 40));
    }
}
