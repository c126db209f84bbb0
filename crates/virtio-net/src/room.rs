//! Receive buffers that have been taken from the driver and wait for frames.

use goldcrest_virtio::{ActiveQueue, DeviceError, QueueError, Ram, Segment, Writer};

use crate::segments;
use crate::spec::{header, queue};

/// No more chains are taken when there are as many segments.
const ENOUGH: usize = queue::SIZE as usize;
/// With the last chain, and as much again so that they are seldom moved together.
const CAPACITY: usize = 4 * ENOUGH;

/// A receive buffer: a chain of the driver's.
#[derive(Debug, Clone, Copy)]
struct Buffer {
    head: u16,
    segments: u16,
    bytes: u32,
}

/// Receive buffers in their order. Chains are parsed when they are taken, not for each frame that is then tried.
///
/// Both lists are used up from their fronts, and begin anew when they are empty.
#[derive(Debug)]
pub(crate) struct Room {
    buffers: Vec<Buffer>,
    first_buffer: usize,
    segments: Vec<Segment>,
    first_segment: usize,
    bytes: u64,
}

impl Room {
    /// No room. It is allocated when the driver is ready, by [`reserve`](Self::reserve).
    pub(crate) fn new() -> Self {
        Self {
            buffers: Vec::new(),
            first_buffer: 0,
            segments: Vec::new(),
            first_segment: 0,
            bytes: 0,
        }
    }

    /// Allocates what it needs later.
    pub(crate) fn reserve(&mut self) {
        self.buffers.reserve(CAPACITY);
        self.segments.reserve(CAPACITY);
    }

    /// Forgets all.
    pub(crate) fn clear(&mut self) {
        self.buffers.clear();
        self.segments.clear();
        (self.first_buffer, self.first_segment) = (0, 0);
        self.bytes = 0;
    }

    /// Where it is.
    #[inline]
    pub(crate) fn segments(&self) -> &[Segment] {
        self.segments.get(self.first_segment..).unwrap_or_default()
    }

    /// Bytes.
    #[inline]
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// How many buffers.
    pub(crate) fn count(&self) -> usize {
        self.buffers.len() - self.first_buffer
    }

    /// Whether there are none.
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// Whether no more buffers are taken, however much is wanted.
    #[inline]
    pub(crate) fn is_full(&self) -> bool {
        self.segments.len() - self.first_segment >= ENOUGH
    }

    /// Takes buffers until there are `wanted` bytes of room, or no more buffers.
    ///
    /// # Errors
    ///
    /// [`DeviceError`] for a buffer that has no room for a header (§5.1.6.3.1), and if the queue is misused.
    #[inline]
    pub(crate) fn fill(
        &mut self,
        queue: &mut ActiveQueue<'_>,
        index: u16,
        wanted: u64,
    ) -> Result<(), DeviceError> {
        while self.bytes < wanted && !self.is_full() {
            match queue.pop() {
                Ok(Some(chain)) => self.add(chain.head, &chain.writable)?,
                Ok(None) => break,
                Err(source) => {
                    return Err(DeviceError::Queue {
                        queue: index,
                        source,
                    });
                }
            }
        }
        Ok(())
    }

    #[inline]
    fn add(&mut self, head: u16, room: &Writer<'_>) -> Result<(), DeviceError> {
        let segments = room.segments();
        // A chain has 4 GiB at most.
        let bytes = u32::try_from(room.left()).unwrap_or(u32::MAX);
        if room.left() < header::SIZE as u64 {
            return Err(DeviceError::Driver(
                "a receive buffer has no room for a header",
            ));
        }
        if self.segments.len() + segments.len() > CAPACITY || self.buffers.len() == CAPACITY {
            self.move_up();
        }
        match segments {
            [segment] => self.segments.push(*segment),
            _ => self.segments.extend_from_slice(segments),
        }
        self.buffers.push(Buffer {
            head,
            segments: u16::try_from(segments.len()).unwrap_or(u16::MAX),
            bytes,
        });
        self.bytes += u64::from(bytes);
        Ok(())
    }

    #[cold]
    fn move_up(&mut self) {
        self.segments.drain(..self.first_segment);
        self.buffers.drain(..self.first_buffer);
        (self.first_buffer, self.first_segment) = (0, 0);
    }

    #[inline]
    fn buffers(&self) -> &[Buffer] {
        self.buffers.get(self.first_buffer..).unwrap_or_default()
    }

    /// How many buffers the first `len` bytes fill.
    #[inline]
    pub(crate) fn buffers_of(&self, len: u64) -> u16 {
        let (mut count, mut bytes) = (0, 0);
        for buffer in self.buffers() {
            count += 1;
            bytes += u64::from(buffer.bytes);
            if bytes >= len {
                break;
            }
        }
        count
    }

    /// Gives the driver the first `len` bytes, all buffers at once.
    #[inline]
    pub(crate) fn use_up(&mut self, queue: &mut ActiveQueue<'_>, len: u64) {
        let mut left = len;
        queue.push_together(std::iter::from_fn(|| {
            if left == 0 {
                return None;
            }
            let buffer = *self.buffers.get(self.first_buffer)?;
            self.first_buffer += 1;
            self.first_segment += usize::from(buffer.segments);
            self.bytes -= u64::from(buffer.bytes);
            let written = u64::from(buffer.bytes).min(left);
            left -= written;
            Some((buffer.head, u32::try_from(written).unwrap_or(buffer.bytes)))
        }));
        if self.bytes == 0 {
            self.clear();
        }
    }

    /// Puts all buffers back: they will be the next that are taken.
    pub(crate) fn put_back(&mut self, queue: &mut ActiveQueue<'_>) {
        for buffer in self.buffers().iter().rev() {
            queue.undo_pop(buffer.head);
        }
        self.clear();
    }

    /// Writes `num_buffers` to the header (§5.1.6.4.1).
    #[inline]
    pub(crate) fn set_num_buffers(&self, ram: Ram<'_>, count: u16) -> Result<(), QueueError> {
        let at = header::NUM_BUFFERS;
        if let Some(first) = self.segments().first()
            && u64::from(first.len) >= at + 2
            && let Some(slice) = ram.slice(first.address.wrapping_add(at), 2)
        {
            slice.copy_from(&count.to_le_bytes());
            return Ok(());
        }
        self.write_apart(ram, header::NUM_BUFFERS, &count.to_le_bytes())
    }

    #[cold]
    fn write_apart(&self, ram: Ram<'_>, offset: u64, bytes: &[u8]) -> Result<(), QueueError> {
        let offset = usize::try_from(offset).unwrap_or(usize::MAX);
        segments::scatter(ram, self.segments(), offset, bytes).map(|_| ())
    }

    /// Reads what was written `offset` bytes from the beginning.
    #[inline]
    pub(crate) fn read<const N: usize>(
        &self,
        ram: Ram<'_>,
        offset: u64,
    ) -> Result<[u8; N], QueueError> {
        if let Some(first) = self.segments().first()
            && u64::from(first.len) >= offset + N as u64
        {
            return ram.read_array(first.address.wrapping_add(offset));
        }
        self.read_apart(ram, offset)
    }

    #[cold]
    fn read_apart<const N: usize>(&self, ram: Ram<'_>, offset: u64) -> Result<[u8; N], QueueError> {
        let mut bytes = [0; N];
        // It lies near the beginning: what is skipped is a header.
        let mut start = [0; 64];
        let read = segments::gather(ram, self.segments(), &mut start)?;
        let offset = usize::try_from(offset).unwrap_or(usize::MAX);
        let from = start.get(..read).and_then(|read| read.get(offset..));
        for (to, from) in bytes.iter_mut().zip(from.unwrap_or_default()) {
            *to = *from;
        }
        Ok(bytes)
    }

    /// What is not RAM, if anything is not.
    #[cold]
    pub(crate) fn outside(&self, ram: Ram<'_>) -> Option<QueueError> {
        segments::outside(ram, self.segments())
    }
}
