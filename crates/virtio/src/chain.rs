//! A chain of descriptors as a device sees it: bytes to read, room to write.

use goldcrest_memory::io::Segment;
use vm_memory::VolatileSlice;

use crate::ram::array;
use crate::{QueueError, Ram};

/// Buffers that the driver has made available as one, until the device gives them back by the head's number.
///
/// Descriptors have been read once and checked; what they describe may lie outside of RAM, which shows when it is
/// touched.
#[derive(Debug)]
pub struct Chain<'a> {
    /// The number of the first descriptor.
    pub head: u16,
    /// What the device may read.
    pub readable: Reader<'a>,
    /// What the device may write.
    pub writable: Writer<'a>,
}

/// Bytes that the driver has for the device. Reading takes them from the front.
#[derive(Debug)]
pub struct Reader<'a>(Cursor<'a>);

/// Room that the driver has for the device. Writing takes it from the front.
#[derive(Debug)]
pub struct Writer<'a>(Cursor<'a>);

#[derive(Debug)]
struct Cursor<'a> {
    ram: Ram<'a>,
    segments: &'a mut [Segment],
    /// How many segments have been taken whole.
    done: usize,
    left: u64,
}

impl<'a> Chain<'a> {
    /// The first `readable` of `segments` are for reading, the others for writing.
    #[inline]
    pub(crate) fn new(
        head: u16,
        ram: Ram<'a>,
        segments: &'a mut [Segment],
        readable: usize,
        (bytes_readable, bytes_writable): (u64, u64),
    ) -> Self {
        let at = readable.min(segments.len());
        let (readable, writable) = segments.split_at_mut(at);
        Self {
            head,
            readable: Reader(Cursor {
                ram,
                segments: readable,
                done: 0,
                left: bytes_readable,
            }),
            writable: Writer(Cursor {
                ram,
                segments: writable,
                done: 0,
                left: bytes_writable,
            }),
        }
    }
}

impl<'a> Reader<'a> {
    /// How many bytes are left.
    #[inline]
    pub fn left(&self) -> u64 {
        self.0.left
    }

    /// Where the bytes that are left lie, for those who move them without a copy.
    #[inline]
    pub fn segments(&self) -> &[Segment] {
        self.0.rest()
    }

    /// Reads all of `bytes`.
    ///
    /// # Errors
    ///
    /// [`QueueError::TooShort`] if fewer are left, [`QueueError::Buffer`] if they do not lie in RAM.
    #[inline]
    pub fn read(&mut self, bytes: &mut [u8]) -> Result<(), QueueError> {
        if let Ok(len) = u32::try_from(bytes.len())
            && let Some(slice) = self.0.next_whole(len)
        {
            slice.copy_to(bytes);
            return Ok(());
        }
        self.read_apart(bytes)
    }

    /// By a copy, so that a reader need not lie in memory for the sake of what hardly happens.
    #[inline]
    fn read_apart(&mut self, bytes: &mut [u8]) -> Result<(), QueueError> {
        let mut reader = Reader(self.0.take_rest());
        let result = reader.read_pieces(bytes);
        *self = reader;
        result
    }

    #[cold]
    fn read_pieces(&mut self, bytes: &mut [u8]) -> Result<(), QueueError> {
        self.0.check(bytes.len())?;
        let mut rest = bytes;
        while !rest.is_empty() {
            let slice = self.0.next(rest.len())?;
            let (now, later) = rest.split_at_mut(slice.len());
            slice.copy_to(now);
            rest = later;
        }
        Ok(())
    }

    /// Reads as many bytes as the array has.
    ///
    /// # Errors
    ///
    /// As for [`read`](Self::read).
    #[inline(always)]
    pub fn read_array<const N: usize>(&mut self) -> Result<[u8; N], QueueError> {
        if let Ok(len) = u32::try_from(N)
            && let Some(slice) = self.0.next_whole(len)
        {
            return Ok(array(&slice));
        }
        let mut bytes = [0; N];
        self.read_apart(&mut bytes)?;
        Ok(bytes)
    }

    /// Takes up to `len` bytes that lie together, to be read where they are; nothing if none are left.
    ///
    /// # Errors
    ///
    /// [`QueueError::Buffer`] if they do not lie in RAM.
    #[inline]
    pub fn take(&mut self, len: usize) -> Result<Option<VolatileSlice<'a>>, QueueError> {
        self.0.take(len)
    }
}

impl<'a> Writer<'a> {
    /// How much room is left, in bytes.
    #[inline]
    pub fn left(&self) -> u64 {
        self.0.left
    }

    /// Where the room that is left lies, for those who move bytes without a copy.
    #[inline]
    pub fn segments(&self) -> &[Segment] {
        self.0.rest()
    }

    /// Writes all of `bytes`.
    ///
    /// # Errors
    ///
    /// [`QueueError::TooShort`] if there is less room, [`QueueError::Buffer`] if it does not lie in RAM.
    #[inline]
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), QueueError> {
        if let Ok(len) = u32::try_from(bytes.len())
            && let Some(slice) = self.0.next_whole(len)
        {
            slice.copy_from(bytes);
            return Ok(());
        }
        // As in `read_apart`.
        let mut writer = Writer(self.0.take_rest());
        let result = writer.write_pieces(bytes);
        *self = writer;
        result
    }

    #[cold]
    fn write_pieces(&mut self, bytes: &[u8]) -> Result<(), QueueError> {
        self.0.check(bytes.len())?;
        let mut rest = bytes;
        while !rest.is_empty() {
            let slice = self.0.next(rest.len())?;
            let (now, later) = rest.split_at(slice.len());
            slice.copy_from(now);
            rest = later;
        }
        Ok(())
    }

    /// Takes up to `len` bytes of room that lie together, to be written where they are; nothing if none are left.
    ///
    /// # Errors
    ///
    /// [`QueueError::Buffer`] if they do not lie in RAM.
    #[inline]
    pub fn take(&mut self, len: usize) -> Result<Option<VolatileSlice<'a>>, QueueError> {
        self.0.take(len)
    }

    /// Takes the last byte of room: its guest-physical address, if there is one.
    #[inline]
    pub fn take_last_byte(&mut self) -> Option<u64> {
        let last = self.0.segments.iter_mut().rev().find(|s| s.len > 0)?;
        last.len -= 1;
        self.0.left -= 1;
        Some(last.address.wrapping_add(last.len.into()))
    }
}

impl<'a> Cursor<'a> {
    #[inline]
    fn rest(&self) -> &[Segment] {
        self.segments.get(self.done..).unwrap_or_default()
    }

    /// All that is left; nothing stays.
    fn take_rest(&mut self) -> Self {
        Self {
            ram: self.ram,
            segments: std::mem::take(&mut self.segments),
            done: self.done,
            left: self.left,
        }
    }

    #[inline]
    fn check(&self, len: usize) -> Result<(), QueueError> {
        match (len as u64).checked_sub(self.left) {
            None | Some(0) => Ok(()),
            Some(missing) => Err(QueueError::TooShort { missing }),
        }
    }

    #[inline]
    fn take(&mut self, len: usize) -> Result<Option<VolatileSlice<'a>>, QueueError> {
        if self.left == 0 || len == 0 {
            return Ok(None);
        }
        self.next(len).map(Some)
    }

    /// The next up to `len` bytes that lie together; there are some.
    #[inline]
    fn next(&mut self, len: usize) -> Result<VolatileSlice<'a>, QueueError> {
        loop {
            let Some(first) = self.segments.get_mut(self.done) else {
                return Err(QueueError::TooShort {
                    missing: len as u64,
                });
            };
            if first.len == 0 {
                self.done += 1;
                continue;
            }
            let count = usize::try_from(first.len).unwrap_or(usize::MAX).min(len);
            let slice = self.ram.slice_up_to(first.address, count)?;
            // No more than was asked for, which was no more than there is.
            let taken = u32::try_from(slice.len()).unwrap_or(first.len);
            self.left = self.left.saturating_sub(taken.into());
            first.address = first.address.wrapping_add(taken.into());
            first.len = first.len.saturating_sub(taken);
            self.done += usize::from(first.len == 0);
            return Ok(slice);
        }
    }

    /// The next `len` bytes, if the next segment has them all and they are where RAM is found soonest.
    #[inline]
    fn next_whole(&mut self, len: u32) -> Option<VolatileSlice<'a>> {
        let first = self.segments.get_mut(self.done)?;
        let rest = first.len.checked_sub(len)?;
        let slice = self.ram.near(first.address, usize::try_from(len).ok()?)?;
        first.address = first.address.wrapping_add(len.into());
        first.len = rest;
        self.left = self.left.saturating_sub(len.into());
        self.done += usize::from(rest == 0);
        Some(slice)
    }
}
