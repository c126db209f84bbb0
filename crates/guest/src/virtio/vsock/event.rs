//! What a program is told, and by which names.

#[cfg(doc)]
use super::Vsock;

/// The context identifier of the host (§5.10.4).
pub const HOST_CID: u64 = 2;

/// One end of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Address {
    /// The context identifier: which machine.
    pub cid: u64,
    /// The port.
    pub port: u32,
}

/// A stream. It stays the program's until it is given back by [`Vsock::close`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId {
    pub(super) index: u32,
    pub(super) generation: u32,
}

impl StreamId {
    pub(super) fn index(self) -> usize {
        usize::try_from(self.index).unwrap_or(usize::MAX)
    }
}

/// What there can be of streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Streams at once.
    pub streams: u32,
    /// Bytes of a stream that are held until the program reads them. Memory is taken as they arrive.
    pub buffer: u32,
}

impl Default for Limits {
    /// 4096 streams of 64 KiB.
    fn default() -> Self {
        Self {
            streams: 4096,
            buffer: 65536,
        }
    }
}

/// What has happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// A peer has opened a stream to a port that is listened on.
    Accepted {
        /// The stream.
        stream: StreamId,
        /// Our port.
        port: u32,
        /// The peer.
        peer: Address,
    },
    /// The stream that [`Vsock::connect`] began is open.
    Connected(StreamId),
    /// There is more to read, or the peer sends no more ([`Vsock::is_finished`]).
    Readable(StreamId),
    /// There is room again where a write did not take all.
    Writable(StreamId),
    /// The stream is over: nothing more comes or goes. What has arrived can be read until it is closed.
    Closed(StreamId),
    /// The machine was moved or restored (§5.10.6.7): all streams are over, each with an event of its own, and the context
    /// identifier may be another.
    Moved,
}
