//! Disks, and parts of them: what everything else here reads from.

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::rc::Rc;
use alloc::string::String;
use alloc::vec;
use core::cell::RefCell;
use core::fmt;

use crate::fields::{in_memory, on_disk};

/// Bytes of the smallest block of a disk.
pub const SECTOR: u64 = 512;
/// Bytes of the largest.
const MAX_BLOCK: u64 = 64 * 1024;
/// Bytes that a disk has at most: sums of offsets on it do not overflow.
const MAX_SIZE: u64 = 1 << 62;
/// What is read at once when something small is wanted.
const LINE: u64 = 16 * 1024;
/// How many such lines are kept.
const LINES: usize = 32;
/// From so many bytes on, what is wanted is read straight to where it is to be.
const DIRECT: usize = 32 * 1024;

/// A disk, as a driver has it.
pub trait BlockRead {
    /// Blocks that the disk has.
    fn blocks(&self) -> u64;

    /// Bytes of a block: a power of two, from 512 to 65536.
    fn block_size(&self) -> u32;

    /// Reads whole blocks, from `block` on, which lie within the disk.
    ///
    /// # Errors
    ///
    /// Why the device failed.
    fn read_blocks(&mut self, block: u64, buffer: &mut [u8]) -> Result<(), DeviceError>;
}

/// Why a device failed to read, in words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceError(pub String);

/// Why something was not read from a disk.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ReadError {
    /// It lies beyond the end.
    Outside {
        /// The first byte.
        offset: u64,
        /// How many.
        len: u64,
        /// Bytes that there are.
        size: u64,
    },
    /// The device failed.
    Device {
        /// The first byte, on the whole disk.
        offset: u64,
        /// In its words.
        why: String,
    },
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Outside { offset, len, size } => write!(
                f,
                "{len} bytes at {offset:#x} lie beyond the end, which is at {size:#x}"
            ),
            Self::Device { offset, why } => write!(f, "reading at {offset:#x} failed: {why}"),
        }
    }
}

impl core::error::Error for ReadError {}

/// A disk with a name. Copies of it are the same disk.
#[derive(Clone)]
pub struct Disk(Rc<Inner>);

struct Inner {
    name: String,
    block_size: u64,
    size: u64,
    device: RefCell<Box<dyn BlockRead>>,
    cache: RefCell<VecDeque<Line>>,
}

/// A part of the disk in memory.
struct Line {
    number: u64,
    bytes: Box<[u8]>,
}

impl Disk {
    /// A disk that is called `name` in messages (`vda`). A device whose blocks have an impossible size is taken for an
    /// empty one.
    pub fn new(name: impl Into<String>, device: Box<dyn BlockRead>) -> Self {
        let block_size = u64::from(device.block_size());
        let possible = block_size.is_power_of_two() && (SECTOR..=MAX_BLOCK).contains(&block_size);
        let blocks = if possible { device.blocks() } else { 0 };
        Self(Rc::new(Inner {
            name: name.into(),
            block_size: if possible { block_size } else { SECTOR },
            size: blocks
                .saturating_mul(block_size)
                .min(MAX_SIZE / block_size.max(1) * block_size),
            device: RefCell::new(device),
            cache: RefCell::default(),
        }))
    }

    /// What it is called.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// Bytes.
    pub fn size(&self) -> u64 {
        self.0.size
    }

    /// Bytes of a block, which partition tables count in.
    pub fn block_size(&self) -> u64 {
        self.0.block_size
    }

    /// All of it.
    pub fn whole(&self) -> Volume {
        Volume {
            disk: self.clone(),
            start: 0,
            size: self.size(),
        }
    }

    /// The part of it that begins at byte `start` and has `size` bytes, as far as the disk has them.
    pub fn part(&self, start: u64, size: u64) -> Volume {
        let start = start.min(self.size());
        Volume {
            disk: self.clone(),
            start,
            size: size.min(self.size().saturating_sub(start)),
        }
    }

    /// Reads from byte `offset` on.
    fn read(&self, offset: u64, buffer: &mut [u8]) -> Result<(), ReadError> {
        let end = offset.checked_add(on_disk(buffer.len()));
        if end.is_none_or(|end| end > self.size()) {
            return Err(ReadError::Outside {
                offset,
                len: on_disk(buffer.len()),
                size: self.size(),
            });
        }
        if buffer.len() < DIRECT {
            return self.read_cached(offset, buffer);
        }
        // Whole blocks go where they belong, what sticks out at both ends through the cache.
        let block = self.block_size();
        let to_block = offset.next_multiple_of(block).saturating_sub(offset);
        let (head, rest) = split(buffer, to_block);
        self.read_cached(offset, head)?;
        let whole = on_disk(rest.len()) / block * block;
        let (middle, tail) = split(rest, whole);
        let middle_at = offset.saturating_add(to_block);
        self.read_device(middle_at, middle)?;
        self.read_cached(middle_at.saturating_add(whole), tail)
    }

    fn read_device(&self, offset: u64, buffer: &mut [u8]) -> Result<(), ReadError> {
        let block = offset / self.block_size();
        let mut device = self.0.device.borrow_mut();
        device
            .read_blocks(block, buffer)
            .map_err(|DeviceError(why)| ReadError::Device { offset, why })
    }

    fn read_cached(&self, offset: u64, buffer: &mut [u8]) -> Result<(), ReadError> {
        let (mut at, mut left) = (offset, buffer);
        while !left.is_empty() {
            let (number, within) = (at / self.line(), in_memory(at % self.line()));
            let read = self.with_line(number, |line| {
                let there = line.get(within..).unwrap_or_default();
                let len = there.len().min(left.len());
                left.iter_mut()
                    .zip(there)
                    .for_each(|(to, from)| *to = *from);
                len
            })?;
            if read == 0 {
                return Err(ReadError::Outside {
                    offset: at,
                    len: on_disk(left.len()),
                    size: self.size(),
                });
            }
            at = at.saturating_add(on_disk(read));
            left = left.get_mut(read..).unwrap_or_default();
        }
        Ok(())
    }

    /// Bytes of a line: whole blocks.
    fn line(&self) -> u64 {
        LINE.max(self.block_size())
    }

    /// Calls `take` with the line of this number, read first if need be.
    fn with_line<T>(&self, number: u64, take: impl FnOnce(&[u8]) -> T) -> Result<T, ReadError> {
        let mut cache = self.0.cache.borrow_mut();
        let found = cache.iter().position(|line| line.number == number);
        let line = match found.and_then(|at| cache.remove(at)) {
            Some(line) => line,
            None => {
                let start = number.saturating_mul(self.line());
                let len = self.line().min(self.size().saturating_sub(start));
                let mut bytes = vec![0; in_memory(len)].into_boxed_slice();
                self.read_device(start, &mut bytes)?;
                Line { number, bytes }
            }
        };
        let taken = take(&line.bytes);
        cache.truncate(LINES - 1);
        cache.push_front(line);
        Ok(taken)
    }
}

impl fmt::Debug for Disk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Disk")
            .field("name", &self.name())
            .field("size", &self.size())
            .finish_non_exhaustive()
    }
}

/// The first `at` bytes, or all, and the others.
fn split(buffer: &mut [u8], at: u64) -> (&mut [u8], &mut [u8]) {
    let at = in_memory(at).min(buffer.len());
    buffer.split_at_mut(at)
}

/// A part of a disk: what a file system is on.
#[derive(Debug, Clone)]
pub struct Volume {
    disk: Disk,
    start: u64,
    size: u64,
}

impl Volume {
    /// Bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Where it begins, in bytes from the beginning of the disk.
    pub fn start(&self) -> u64 {
        self.start
    }

    /// The disk that it is a part of.
    pub fn disk(&self) -> &Disk {
        &self.disk
    }

    /// Reads from byte `offset` of the volume on. Little is read together with what surrounds it, which is kept; much is
    /// read by few requests, straight into `buffer`.
    ///
    /// # Errors
    ///
    /// [`ReadError`], when the buffer's content is undefined.
    pub fn read(&self, offset: u64, buffer: &mut [u8]) -> Result<(), ReadError> {
        let end = offset.checked_add(on_disk(buffer.len()));
        if end.is_none_or(|end| end > self.size) {
            return Err(ReadError::Outside {
                offset,
                len: on_disk(buffer.len()),
                size: self.size,
            });
        }
        self.disk.read(self.start.saturating_add(offset), buffer)
    }

    /// As [`read`](Self::read), into an array.
    pub(crate) fn array<const N: usize>(&self, offset: u64) -> Result<[u8; N], ReadError> {
        let mut bytes = [0; N];
        self.read(offset, &mut bytes)?;
        Ok(bytes)
    }
}
