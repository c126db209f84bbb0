//! What a person sets.

use std::path::PathBuf;

use crate::spec::cid;
use crate::streams::LEAST_ROOM;
use crate::{UnixHost, Vsock, VsockError};

/// The most streams that a device can be given.
pub const MAX_STREAMS: u32 = 1 << 16;
/// Streams of a device, unless one says otherwise.
const STREAMS: u32 = 4096;
/// Bytes that a device holds for the host, unless one says otherwise.
const BUFFERS: u64 = 64 << 20;

/// A socket device with Unix sockets on the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VsockConfig {
    /// The guest's CID: from 3 to 2^32 - 2. Nobody but the guest sees it, so that guests may have the same.
    pub cid: u64,
    /// The socket that programs on the host connect to. Ports of the host's are at the same path with `_` and the port's
    /// number added.
    pub path: PathBuf,
    /// The most streams at a time.
    pub streams: u32,
    /// The most bytes that are held for programs on the host which do not take them, for all streams together.
    pub buffers: u64,
}

impl VsockConfig {
    /// Up to 4,096 streams, which hold up to 64 MiB.
    pub fn new(cid: u64, path: impl Into<PathBuf>) -> Self {
        Self {
            cid,
            path: path.into(),
            streams: STREAMS,
            buffers: BUFFERS,
        }
    }

    /// Whether it is one that a device can have, but for what the host says to it.
    ///
    /// # Errors
    ///
    /// [`VsockError::Cid`], [`VsockError::Streams`], [`VsockError::Buffers`] or [`VsockError::PathTooLong`].
    pub fn check(&self) -> Result<(), VsockError> {
        check(self.cid, self.streams, self.buffers)?;
        UnixHost::check_path(&self.path)
    }

    /// Listens on the path, and makes the device.
    ///
    /// # Errors
    ///
    /// As for [`check`](Self::check) and [`UnixHost::listen`].
    pub fn build(&self) -> Result<Vsock<UnixHost>, VsockError> {
        self.check()?;
        let host = UnixHost::listen(&self.path)?;
        Vsock::with_limits(host, self.cid, self.streams, self.buffers)
    }
}

/// What holds for every device.
pub(crate) fn check(guest_cid: u64, streams: u32, buffers: u64) -> Result<(), VsockError> {
    if !(cid::FIRST..=cid::LAST).contains(&guest_cid) {
        return Err(VsockError::Cid(guest_cid));
    }
    if !(1..=MAX_STREAMS).contains(&streams) {
        return Err(VsockError::Streams(streams));
    }
    if buffers < u64::from(streams).saturating_mul(LEAST_ROOM.into()) {
        return Err(VsockError::Buffers { buffers, streams });
    }
    Ok(())
}

/// The limits of a device that is not given any.
pub(crate) const DEFAULT_LIMITS: (u32, u64) = (STREAMS, BUFFERS);
