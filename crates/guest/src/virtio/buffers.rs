//! A queue whose every descriptor has a buffer of its own.
#![allow(unsafe_code, reason = "buffers are lent to the device")]

use alloc::vec::Vec;

use super::queue::{Queue, Segment, Used};
use super::{Error, Registers, transport::Transport};

/// The most bytes of buffers that one queue has.
const MOST_MEMORY: usize = 4 << 20;
/// Buffers begin and end where no other is on the same line of a cache.
const ALIGNMENT: usize = 64;

/// A queue of requests with one descriptor each: a request's number is that of its descriptor, and of its buffer.
#[derive(Debug)]
pub(super) struct Buffers {
    queue: Queue,
    /// The buffer of descriptor N is the Nth: the device's while a request has the number, else ours.
    buffers: Vec<Vec<u8>>,
}

impl Buffers {
    /// Sets up the queue `index`, of at most `size` buffers of `len` bytes.
    pub(super) fn new<R: Registers>(
        transport: &mut Transport<R>,
        index: u16,
        size: u16,
        len: usize,
    ) -> Result<Self, Error> {
        let len = len.next_multiple_of(ALIGNMENT);
        let most = u16::try_from(MOST_MEMORY / len).unwrap_or(u16::MAX).max(2);
        let queue = transport.queue(index, size.min(1 << most.ilog2()))?;
        let mut buffers = Vec::new();
        buffers
            .try_reserve_exact(queue.size().into())
            .map_err(|_| Error::OutOfMemory)?;
        for _ in 0..queue.size() {
            let mut buffer = Vec::new();
            buffer
                .try_reserve_exact(len)
                .map_err(|_| Error::OutOfMemory)?;
            buffer.resize(len, 0);
            buffers.push(buffer);
        }
        Ok(Self { queue, buffers })
    }

    pub(super) fn queue(&mut self) -> &mut Queue {
        &mut self.queue
    }

    /// How many buffers there are.
    pub(super) fn size(&self) -> u16 {
        self.queue.size()
    }

    /// Buffers that are ours.
    pub(super) fn free(&self) -> u16 {
        self.queue.free()
    }

    /// Takes the next buffer that the device has given back. It is the next that is lent, too.
    pub(super) fn take<R: Registers>(
        &mut self,
        transport: &mut Transport<R>,
    ) -> Result<Option<Used>, Error> {
        transport.poll(&mut self.queue)
    }

    /// The bytes of the buffer that is lent next; none if the device has them all.
    pub(super) fn next(&self) -> &[u8] {
        let head = self.queue.next_head(1).map(usize::from);
        let buffer = head.and_then(|head| self.buffers.get(head));
        buffer.map_or(&[], |buffer| buffer)
    }

    /// As [`next`](Self::next), to be written.
    pub(super) fn next_mut(&mut self) -> &mut [u8] {
        let head = self.queue.next_head(1).map(usize::from);
        let buffer = head.and_then(|head| self.buffers.get_mut(head));
        buffer.map_or(&mut [], |buffer| buffer)
    }

    /// Lends all buffers to be written.
    pub(super) fn lend_all(&mut self) {
        while self.free() != 0 {
            self.lend(None);
        }
    }

    /// Lends the next buffer: `len` bytes to be read, or all of it to be written. There has to be one.
    pub(super) fn lend(&mut self, len: Option<usize>) {
        let segment = match len {
            Some(len) => Segment::to_read(self.next().get(..len).unwrap_or_default()),
            None => Segment::to_write(self.next_mut()),
        };
        if segment.len != 0 {
            // SAFETY: the buffer is that of the descriptor which the request takes (`next_head`), and `next` gives no
            // buffer whose descriptor is in use; it is neither moved nor freed before the device is reset, as drivers
            // have their transport dropped first.
            let _ = unsafe { self.queue.add(&[segment]) };
        }
    }
}
