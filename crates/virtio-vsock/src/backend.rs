//! The host's side.

mod memory;
mod unix;

pub use memory::{MemoryHost, MemoryStream};
pub use unix::{MAX_PATH, UnixHost};

use std::io;
use std::os::fd::RawFd;
use std::time::Duration;

use goldcrest_virtio::{Ram, Segment};
use vm_memory::VolatileSlice;

/// Something that has happened on the host's side.
#[derive(Debug)]
pub enum Event<S> {
    /// A program on the host wants to be connected with this port of the guest's.
    Connect(S, u32),
    /// Something has changed at the stream with this token.
    Stream {
        /// As it was given to [`watch`](Backend::watch).
        token: u64,
        /// There may be bytes to receive, or their end.
        readable: bool,
        /// There may be room to send.
        writable: bool,
        /// The program at the other end will send no more than it has.
        ended: bool,
        /// It will neither send nor receive any more.
        hung_up: bool,
    },
}

/// What programs on the host connect to, and are connected by. No call waits.
///
/// The device asks for [events](Self::next_event), and takes what happened to a stream for what is so until it finds out
/// otherwise: so nothing need be said twice.
pub trait Backend: Send {
    /// A connection. It is closed by being dropped.
    type Stream: Send;

    /// What has happened next, by time `now` on the device's clock. Nothing if there is nothing more.
    fn next_event(&mut self, now: Duration) -> Option<Event<Self::Stream>>;

    /// Connects with whoever listens on a port of the host's.
    ///
    /// # Errors
    ///
    /// [`WouldBlock`](io::ErrorKind::WouldBlock) if it may be possible soon; any other if it is not possible.
    fn connect(&mut self, port: u32) -> io::Result<Self::Stream>;

    /// Events of the stream have this token from now on, which is below 2^63. What is so already is an event, too.
    ///
    /// # Errors
    ///
    /// Any, if the host does not let it be watched: the stream cannot be used.
    fn watch(&mut self, stream: &mut Self::Stream, token: u64) -> io::Result<()>;

    /// The guest has accepted the connection that a program has asked for: it is known as `port` of the host's.
    fn accepted(&mut self, stream: &mut Self::Stream, port: u32);

    /// Receives into guest RAM. Returns how many bytes; 0 if there will never be any more. If there is room for more,
    /// there are no more now, and an event follows when there are.
    ///
    /// # Errors
    ///
    /// [`WouldBlock`](io::ErrorKind::WouldBlock) if there are none now, an error among `parts`; any other is taken for
    /// the end.
    fn receive(&mut self, stream: &mut Self::Stream, parts: Parts<'_>) -> io::Result<usize>;

    /// Sends from guest RAM. Returns how many bytes, which may be less than there are.
    ///
    /// # Errors
    ///
    /// [`WouldBlock`](io::ErrorKind::WouldBlock) if there is no room now, an error among `parts`; after any other nothing
    /// more can be sent.
    fn send(&mut self, stream: &mut Self::Stream, parts: Parts<'_>) -> io::Result<usize>;

    /// As [`send`](Self::send), from elsewhere.
    ///
    /// # Errors
    ///
    /// As for [`send`](Self::send).
    fn send_bytes(&mut self, stream: &mut Self::Stream, bytes: &[u8]) -> io::Result<usize>;

    /// Nothing more will be sent.
    fn end_sending(&mut self, stream: &mut Self::Stream);

    /// Nothing more will be received.
    fn end_receiving(&mut self, stream: &mut Self::Stream);

    /// What becomes readable when there are events.
    fn fd(&self) -> Option<RawFd> {
        None
    }

    /// When it is to be asked for events in any case, on the device's clock: a time that has passed is now.
    fn deadline(&self) -> Option<Duration> {
        None
    }
}

/// Parts of guest RAM with the payload of a packet, or room for it: slices in their order.
///
/// A part that does not lie in RAM is an error, which a backend passes on.
#[derive(Debug, Clone)]
pub struct Parts<'a> {
    ram: Ram<'a>,
    segments: std::slice::Iter<'a, Segment>,
    /// What is left of the segment before.
    current: Segment,
    /// Bytes that are left of all.
    left: u32,
}

impl<'a> Parts<'a> {
    /// The first `len` bytes of `segments`.
    #[inline]
    pub fn new(ram: Ram<'a>, segments: &'a [Segment], len: u32) -> Self {
        Self {
            ram,
            segments: segments.iter(),
            current: Segment { address: 0, len: 0 },
            left: len,
        }
    }

    /// How many bytes are left.
    #[inline]
    pub fn left(&self) -> u32 {
        self.left
    }
}

impl<'a> Iterator for Parts<'a> {
    type Item = io::Result<VolatileSlice<'a>>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if self.left == 0 {
            return None;
        }
        while self.current.len == 0 {
            self.current = *self.segments.next()?;
        }
        let Segment { address, len } = self.current;
        let len = usize::try_from(len.min(self.left)).unwrap_or(usize::MAX);
        let slice = match self.ram.slice_up_to(address, len) {
            Ok(slice) => slice,
            Err(error) => return Some(Err(io::Error::other(error))),
        };
        // No longer than `len`.
        let taken = u32::try_from(slice.len()).unwrap_or(u32::MAX);
        self.left = self.left.saturating_sub(taken);
        self.current = Segment {
            address: address.wrapping_add(taken.into()),
            len: self.current.len.saturating_sub(taken),
        };
        Some(Ok(slice))
    }
}
