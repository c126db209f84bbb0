//! What can go wrong.

use std::io;
use std::path::PathBuf;

use crate::spec::{MAX_NAME, MAX_PORTS};

/// Why a console, or what is behind a port of one, cannot be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConsoleError {
    /// No port, or too many.
    #[error("a console cannot have {0} ports, but 1 to {MAX_PORTS}")]
    Ports(usize),
    /// A port's name that is empty or too long.
    #[error("console port name {0:?} does not have 1 to {MAX_NAME} bytes")]
    Name(String),
    /// A descriptor cannot be used.
    #[error("cannot use the descriptor of a console port")]
    Descriptor(#[source] io::Error),
    /// There is no pseudo-terminal.
    #[error("cannot open a pseudo-terminal")]
    Pty(#[source] io::Error),
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
}
