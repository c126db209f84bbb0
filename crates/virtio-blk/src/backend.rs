//! What a disk's bytes are kept in.

mod file;
mod image;
mod memory;
mod ring;
mod transfer;

use std::io;
use std::os::fd::BorrowedFd;

use goldcrest_memory::io::{Durability, Segment};
use vm_memory::GuestMemoryMmap;

pub use file::{Access, FileDisk, FileDiskConfig};
pub use memory::MemoryDisk;

/// What one request asks of a disk. Offsets and lengths are bytes, multiples of the sector's 512, and lie within the
/// disk's capacity: the device has checked that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation<'a> {
    /// Fills `segments` of guest RAM.
    Read {
        /// Where on the disk.
        offset: u64,
        /// Where to.
        segments: &'a [Segment],
    },
    /// Writes `segments` of guest RAM.
    Write {
        /// Where on the disk.
        offset: u64,
        /// Where from.
        segments: &'a [Segment],
        /// Whether it is done when it is durable.
        durability: Durability,
    },
    /// Makes durable what completed before.
    Flush,
    /// The guest needs these bytes no longer: they may become anything.
    Discard {
        /// Where on the disk.
        offset: u64,
        /// How many.
        len: u64,
    },
    /// These bytes become zeros.
    WriteZeroes {
        /// Where on the disk.
        offset: u64,
        /// How many.
        len: u64,
        /// Whether their space may be given back.
        unmap: bool,
        /// Whether it is done when it is durable.
        durability: Durability,
    },
}

/// What became of an operation that was started.
#[derive(Debug)]
#[must_use = "an operation that is not under way must be answered or started again"]
pub enum Start {
    /// It is over: all of it was done, or an error.
    Done(io::Result<()>),
    /// It is under way, and will be told by [`Backend::completions`].
    Pending,
    /// There are as many under way as there can be. It has not begun; start it again when one has completed.
    Full,
}

/// A disk.
///
/// Operations are told apart by tokens below the `depth` that the disk was attached with, of which each is used for
/// one operation at a time.
pub trait Backend: Send {
    /// Bytes: a multiple of 512.
    fn capacity(&self) -> u64;

    /// Whether it can only be read.
    fn read_only(&self) -> bool;

    /// Makes it ready for operations on `memory`, at most `depth` at a time. Nothing is under way.
    fn attach(&mut self, memory: &GuestMemoryMmap, depth: u32);

    /// Starts an operation.
    fn start(&mut self, operation: &Operation<'_>, token: u32) -> Start;

    /// Gets on with what was started. Returns whether all of it is under way; if not, the host was short of something,
    /// and this must be called again in a moment.
    fn submit(&mut self) -> bool {
        true
    }

    /// Calls `complete` for each operation that is over, with all of it done or an error, and gets on with what is not.
    /// To be called after [`submit`](Self::submit) and when [`event_fd`](Self::event_fd) is readable, which it is not
    /// after this. Returns what `submit` does.
    fn completions(&mut self, _complete: &mut dyn FnMut(u32, io::Result<()>)) -> bool {
        true
    }

    /// Becomes readable when there are completions; None if operations are always over at once.
    fn event_fd(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    /// Waits until everything is over, calling `complete` for each.
    ///
    /// # Errors
    ///
    /// If the host does not even let it wait.
    fn wait_all(&mut self, _complete: &mut dyn FnMut(u32, io::Result<()>)) -> io::Result<()> {
        Ok(())
    }

    /// Gives up what is under way, without a word of it. Guest RAM is not touched after this. What has been written is
    /// unknown.
    fn reset(&mut self) {}
}

/// A disk whose kind is known when the machine is made.
impl<B: Backend + ?Sized> Backend for Box<B> {
    fn capacity(&self) -> u64 {
        (**self).capacity()
    }

    fn read_only(&self) -> bool {
        (**self).read_only()
    }

    fn attach(&mut self, memory: &GuestMemoryMmap, depth: u32) {
        (**self).attach(memory, depth);
    }

    fn start(&mut self, operation: &Operation<'_>, token: u32) -> Start {
        (**self).start(operation, token)
    }

    fn submit(&mut self) -> bool {
        (**self).submit()
    }

    fn completions(&mut self, complete: &mut dyn FnMut(u32, io::Result<()>)) -> bool {
        (**self).completions(complete)
    }

    fn event_fd(&self) -> Option<BorrowedFd<'_>> {
        (**self).event_fd()
    }

    fn wait_all(&mut self, complete: &mut dyn FnMut(u32, io::Result<()>)) -> io::Result<()> {
        (**self).wait_all(complete)
    }

    fn reset(&mut self) {
        (**self).reset();
    }
}
