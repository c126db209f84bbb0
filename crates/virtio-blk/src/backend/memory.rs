//! A disk in memory.

use std::collections::VecDeque;
use std::io;

use goldcrest_memory::io::Segment;
use goldcrest_virtio::{QueueError, Ram, Window};
use vm_memory::GuestMemoryMmap;

use super::{Backend, Operation, Start};
use crate::spec::SECTOR_SIZE;

/// A disk whose bytes are in memory, for tests, fuzzers and scratch space.
///
/// Everything is over at once, unless it is [deferred](Self::deferred).
#[derive(Debug)]
pub struct MemoryDisk {
    bytes: Vec<u8>,
    read_only: bool,
    deferred: bool,
    /// Guest RAM, by its first region.
    memory: Option<Window>,
    /// What is over but has not been told.
    over: VecDeque<(u32, io::Result<()>)>,
}

impl MemoryDisk {
    /// A disk of `bytes`, filled up with zeros to whole sectors.
    pub fn new(mut bytes: Vec<u8>) -> Self {
        let sector = usize::try_from(SECTOR_SIZE).unwrap_or(usize::MAX);
        bytes.resize(bytes.len().next_multiple_of(sector), 0);
        Self {
            bytes,
            read_only: false,
            deferred: false,
            memory: None,
            over: VecDeque::new(),
        }
    }

    /// The same disk, which can only be read.
    pub fn read_only(mut self) -> Self {
        self.read_only = true;
        self
    }

    /// The same disk, which tells of operations by [`Backend::completions`] only, as a disk in a file may: the latest
    /// first, so that nobody relies on an order.
    pub fn deferred(mut self) -> Self {
        self.deferred = true;
        self
    }

    /// What is on it.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    #[inline(always)]
    fn run(&mut self, operation: &Operation<'_>) -> io::Result<()> {
        match operation {
            Operation::Read { offset, segments } => self.transfer(*offset, segments, false),
            Operation::Write {
                offset, segments, ..
            } => self.transfer(*offset, segments, true),
            Operation::Flush => Ok(()),
            Operation::Discard { offset, len } | Operation::WriteZeroes { offset, len, .. } => {
                let len = usize::try_from(*len).unwrap_or(usize::MAX);
                part(&mut self.bytes, *offset, len)?.fill(0);
                Ok(())
            }
        }
    }

    #[inline(always)]
    fn transfer(&mut self, mut offset: u64, segments: &[Segment], write: bool) -> io::Result<()> {
        let Some(memory) = &self.memory else {
            return Err(io::ErrorKind::NotConnected.into());
        };
        let ram = Ram::new(memory);
        for segment in segments {
            let (mut address, mut left) = (segment.address, segment.len as usize);
            while left > 0 {
                let slice = ram.slice_up_to(address, left).map_err(outside)?;
                let part = part(&mut self.bytes, offset, slice.len())?;
                if write {
                    slice.copy_to(part);
                } else {
                    slice.copy_from(part);
                }
                left = left.saturating_sub(slice.len());
                address = address.wrapping_add(slice.len() as u64);
                offset = offset.saturating_add(slice.len() as u64);
            }
        }
        Ok(())
    }
}

#[cold]
fn outside(error: QueueError) -> io::Error {
    io::Error::other(error)
}

#[inline]
fn part(bytes: &mut [u8], offset: u64, len: usize) -> io::Result<&mut [u8]> {
    let range = usize::try_from(offset)
        .ok()
        .and_then(|start| Some(start..start.checked_add(len)?));
    range
        .and_then(|range| bytes.get_mut(range))
        .ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
}

impl Backend for MemoryDisk {
    fn capacity(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn read_only(&self) -> bool {
        self.read_only
    }

    fn attach(&mut self, memory: &GuestMemoryMmap, depth: u32) {
        self.memory = Some(Window::first_region(memory));
        self.over.clear();
        self.over.reserve(usize::try_from(depth).unwrap_or(0));
    }

    #[inline(always)]
    fn start(&mut self, operation: &Operation<'_>, token: u32) -> Start {
        let result = self.run(operation);
        if !self.deferred {
            return Start::Done(result);
        }
        self.over.push_front((token, result));
        Start::Pending
    }

    fn completions(&mut self, complete: &mut dyn FnMut(u32, io::Result<()>)) -> bool {
        for (token, result) in self.over.drain(..) {
            complete(token, result);
        }
        true
    }

    fn wait_all(&mut self, complete: &mut dyn FnMut(u32, io::Result<()>)) -> io::Result<()> {
        self.completions(complete);
        Ok(())
    }

    fn reset(&mut self) {
        self.over.clear();
    }
}
