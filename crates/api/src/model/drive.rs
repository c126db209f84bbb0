//! Disks.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::RateLimiter;

/// `PUT /drives/{drive_id}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Drive {
    /// Its name, the same as in the path.
    pub drive_id: String,
    /// The partition with the root file system, where it is not the whole disk.
    #[serde(default)]
    pub partuuid: Option<String>,
    /// It has the root file system.
    pub is_root_device: bool,
    /// Whether the guest can ask for its writes to be durable.
    #[serde(default)]
    pub cache_type: CacheType,
    /// The guest can only read it.
    #[serde(default)]
    pub is_read_only: Option<bool>,
    /// The file or block device.
    #[serde(default)]
    pub path_on_host: Option<PathBuf>,
    /// How much may be moved.
    #[serde(default)]
    pub rate_limiter: Option<RateLimiter>,
    /// How the file is reached.
    #[serde(default)]
    pub io_engine: Option<IoEngine>,
    /// The socket of a vhost-user back end, which is not possible here.
    #[serde(default)]
    pub socket: Option<String>,
}

/// Whether the guest can ask for its writes to be durable. Here it always can.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum CacheType {
    /// It need not be able to.
    #[default]
    Unsafe,
    /// It can.
    Writeback,
}

/// How a disk's file is reached. Here it is by io_uring where the host has it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum IoEngine {
    /// By system calls that are waited for.
    #[default]
    Sync,
    /// By io_uring.
    Async,
}

/// `PATCH /drives/{drive_id}`, of a machine that runs.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DriveUpdate {
    /// Its name, the same as in the path.
    pub drive_id: String,
    /// Another file, or the same with another size.
    #[serde(default)]
    pub path_on_host: Option<PathBuf>,
    /// How much may be moved from now on.
    #[serde(default)]
    pub rate_limiter: Option<RateLimiter>,
}
