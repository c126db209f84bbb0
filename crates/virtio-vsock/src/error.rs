//! What can go wrong.

use std::io;
use std::path::PathBuf;

use crate::config::MAX_STREAMS;
use crate::spec::cid;
use crate::streams::LEAST_ROOM;

/// Why a socket device, or what is behind it, cannot be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VsockError {
    /// A CID that a guest cannot have.
    #[error("guest CID {0} is reserved: it must be from {first} to {last}", first = cid::FIRST, last = cid::LAST)]
    Cid(u64),
    /// No streams, or too many.
    #[error("a socket device cannot have {0} streams, but 1 to {MAX_STREAMS}")]
    Streams(u32),
    /// Too little memory for that many streams.
    #[error("{buffers} bytes are too few for {streams} streams: each needs {LEAST_ROOM}")]
    Buffers {
        /// How many bytes.
        buffers: u64,
        /// For how many streams.
        streams: u32,
    },
    /// A path to which a port's number cannot be added.
    #[error("socket path {} has {} bytes, and can have {max}, so that ports can be added to it", path.display(), path.as_os_str().len())]
    PathTooLong {
        /// The path.
        path: PathBuf,
        /// The most bytes.
        max: usize,
    },
    /// The socket cannot be made.
    #[error("cannot listen on socket {}", path.display())]
    Socket {
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// There is something else where the socket is to be.
    #[error("cannot listen on {}: it exists and is not a socket", path.display())]
    NotASocket {
        /// Where.
        path: PathBuf,
    },
    /// Somebody listens there already.
    #[error("cannot listen on socket {}: it is in use", path.display())]
    SocketInUse {
        /// Where.
        path: PathBuf,
    },
    /// The host does not let sockets be watched.
    #[error("cannot watch sockets")]
    Watch(#[source] io::Error),
}
