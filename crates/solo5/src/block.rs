//! `BLOCK_WRITE` and `BLOCK_READ`.

use std::io;

use goldcrest_memory::io::Segment;
use vm_memory::GuestMemoryMmap;

use crate::device::Attached;
use crate::spec::{self, result};
use crate::{Host, Hypercalls, Misuse};

/// A block device's bytes.
pub trait Storage: Send {
    /// Bytes, a multiple of the block size.
    fn capacity(&self) -> u64;

    /// The block size, a power of two: offsets and lengths are multiples of it.
    fn block_size(&self) -> u16;

    /// Fills `segment` of guest RAM from `offset`; both have been checked.
    ///
    /// # Errors
    ///
    /// If not all of it could be read.
    fn read(&mut self, memory: &GuestMemoryMmap, segment: Segment, offset: u64) -> io::Result<()>;

    /// Writes `segment` of guest RAM to `offset`; both have been checked.
    ///
    /// # Errors
    ///
    /// If not all of it could be written, also because nothing can be.
    fn write(&mut self, memory: &GuestMemoryMmap, segment: Segment, offset: u64) -> io::Result<()>;
}

/// What is moved at a time, a multiple of every block size: in between, it is seen whether the machine is to end.
const PIECE: u32 = 1 << 20;

/// Which way bytes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direction {
    Read,
    Write,
}

impl<H: Host> Hypercalls<H> {
    pub(crate) fn block(&mut self, at: u64, direction: Direction) -> Result<(), Misuse> {
        let call: spec::Block = self.memory.argument(at)?;
        let ret = self.transfer(&call, direction)?;
        let ret_at = at.saturating_add(std::mem::offset_of!(spec::Block, ret) as u64);
        self.memory.write("block", ret_at, &ret.to_le_bytes())
    }

    fn transfer(&mut self, call: &spec::Block, direction: Direction) -> Result<i32, Misuse> {
        let (data, len, offset) = (call.data.get(), call.len.get(), call.offset.get());
        let Some(Attached::Block(storage)) = self.attached.device(call.handle.get()) else {
            return Ok(result::EINVAL);
        };
        let (capacity, block) = (storage.capacity(), u64::from(storage.block_size().max(1)));
        let aligned = offset.is_multiple_of(block) && len.is_multiple_of(block);
        let ends = offset.checked_add(len).is_some_and(|end| end <= capacity);
        if !aligned || !ends || offset >= capacity {
            return Ok(result::EINVAL);
        }
        match direction {
            Direction::Read => self.memory.check_writable("block_read", data, len)?,
            Direction::Write => self.memory.check("block_write", data, len)?,
        }
        let mut done = 0;
        while done < len && !self.host.is_stopped() {
            let piece = u32::try_from(len - done).unwrap_or(PIECE).min(PIECE);
            let segment = Segment {
                address: data.saturating_add(done),
                len: piece,
            };
            let moved = match direction {
                Direction::Read => storage.read(self.memory.all(), segment, offset + done),
                Direction::Write => storage.write(self.memory.all(), segment, offset + done),
            };
            if moved.is_err() {
                return Ok(result::EUNSPEC);
            }
            done += u64::from(piece);
        }
        Ok(result::OK)
    }
}
