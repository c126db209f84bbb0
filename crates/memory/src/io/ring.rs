//! Transfers that do not wait: io_uring on guest RAM.

mod uring;

use std::io;
use std::os::fd::BorrowedFd;

use vm_memory::GuestMemoryMmap;

use self::uring::{Operation, Transfer, Uring};
use super::{Deallocate, Durability, Segment};

/// Why an operation was not prepared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PrepareError {
    /// As many operations as there are entries are prepared or under way.
    #[error("the ring's entries are all in use")]
    Full,
    /// A segment that is not all RAM.
    #[error("guest-physical {:#x} and the {:#x} bytes from there are not all RAM", .0.address, .0.len)]
    OutsideRam(Segment),
    /// A file offset, in bytes, that no file has.
    #[error("file offset {0:#x} is above the greatest, {max:#x}", max = i64::MAX)]
    Offset(u64),
}

/// An io_uring for operations on files and one guest's RAM.
///
/// Operations are *prepared*, each with a token of the caller's; [`submit`](Self::submit) gives all that are prepared
/// to the kernel in one system call; [`completions`](Self::completions) tells how they ended, in any order. Files are
/// named by their number among those that the ring was made with, which it keeps open.
///
/// What the kernel can do at once (what is in the page cache, mostly) is complete when `submit` returns: call
/// `completions` right after it. What it cannot signals [`event_fd`](Self::event_fd) when it is complete, and only
/// that does.
///
/// Any thread may submit and any other reap. But an operation belongs to the thread that submitted it: if that thread
/// ends, what it has under way may end as `ECANCELED`.
///
/// Guest RAM stays mapped for as long as an operation is under way: dropping the ring cancels what can be cancelled
/// and waits for the rest. In the steady state nothing is allocated.
///
/// It makes the system calls `io_uring_setup`, `io_uring_register`, `io_uring_enter` and `eventfd2`, and maps memory of
/// the kernel's; the kernel itself starts threads for what it cannot do without waiting.
///
/// # A hostile guest
///
/// Addresses are looked up in the regions of RAM when an operation is prepared. There are never more operations than
/// entries, so completions cannot overflow.
#[derive(Debug)]
pub struct Ring(Uring);

impl Ring {
    /// A ring for at most `entries` operations at a time on `memory` and `files`.
    ///
    /// # Errors
    ///
    /// [`Unsupported`](io::ErrorKind::Unsupported) where the kernel has no io_uring or is older than 5.11,
    /// [`PermissionDenied`](io::ErrorKind::PermissionDenied) where it is not allowed (`sysctl
    /// kernel.io_uring_disabled`, a seccomp filter), both with a text that says so; and what else the system calls
    /// give, as `EINVAL` for 0 or more than 32768 entries.
    pub fn new(
        memory: GuestMemoryMmap,
        entries: u32,
        files: &[BorrowedFd<'_>],
    ) -> io::Result<Self> {
        Uring::new(memory, entries, files).map(Self)
    }

    /// Prepares reading from `file` at `offset`, in bytes, into `segments` in their order. It completes with how many
    /// bytes were read: fewer than asked for at the end of the file, and where there are more than 1024 segments.
    ///
    /// # Errors
    ///
    /// [`PrepareError`]; nothing has been prepared then.
    pub fn prepare_read(
        &mut self,
        file: u32,
        segments: &[Segment],
        offset: u64,
        token: u64,
    ) -> Result<(), PrepareError> {
        let transfer = Transfer {
            file,
            offset,
            write: None,
        };
        self.0.push_transfer(transfer, segments, token)
    }

    /// Prepares writing `segments` in their order to `file` at `offset`, in bytes. It completes with how many bytes
    /// were written: fewer than asked for where there was no room for all, or where there are more than 1024 segments.
    ///
    /// # Errors
    ///
    /// [`PrepareError`]; nothing has been prepared then.
    pub fn prepare_write(
        &mut self,
        file: u32,
        segments: &[Segment],
        offset: u64,
        durability: Durability,
        token: u64,
    ) -> Result<(), PrepareError> {
        let transfer = Transfer {
            file,
            offset,
            write: Some(durability),
        };
        self.0.push_transfer(transfer, segments, token)
    }

    /// Prepares making durable what was written to `file`, and its size: by the operations that have *completed*, not
    /// by those that are under way or prepared. It completes with 0.
    ///
    /// # Errors
    ///
    /// [`PrepareError::Full`].
    pub fn prepare_sync_data(&mut self, file: u32, token: u64) -> Result<(), PrepareError> {
        self.0.push(Operation::SyncData { file }, token)
    }

    /// Prepares turning `len` bytes of `file` from `offset` into zeros. It completes with 0.
    ///
    /// # Errors
    ///
    /// [`PrepareError::Full`] or [`PrepareError::Offset`].
    pub fn prepare_deallocate(
        &mut self,
        file: u32,
        how: Deallocate,
        offset: u64,
        len: u64,
        token: u64,
    ) -> Result<(), PrepareError> {
        let operation = Operation::Deallocate {
            file,
            how,
            offset,
            len,
        };
        self.0.push(operation, token)
    }

    /// Prepares writing up to `len` zeros to `file` at `offset`. It completes with how many were written: 16 KiB at most.
    ///
    /// # Errors
    ///
    /// [`PrepareError::Full`] or [`PrepareError::Offset`].
    pub fn prepare_zeros(
        &mut self,
        file: u32,
        offset: u64,
        len: u64,
        token: u64,
    ) -> Result<(), PrepareError> {
        let zeros = Operation::Zeros { file, offset, len };
        self.0.push(zeros, token)
    }

    /// Gives what is prepared to the kernel. Returns how much of it the kernel had no resources for, mostly none: that
    /// is still prepared, and to be submitted again when something completed, or after a moment if nothing is under
    /// way.
    ///
    /// # Errors
    ///
    /// What `io_uring_enter` gives, `EINTR`, `EAGAIN` and `EBUSY` excepted. What is prepared is so still.
    pub fn submit(&mut self) -> io::Result<u32> {
        self.0.submit()
    }

    /// Calls `complete` with the token and the result of each operation that is complete. Returns how many were.
    pub fn completions(&mut self, complete: impl FnMut(u64, io::Result<u32>)) -> u32 {
        self.0.reap(complete)
    }

    /// How many operations are prepared or under way.
    pub fn in_flight(&self) -> u32 {
        self.0.in_flight()
    }

    /// Becomes readable when an operation completed after [`submit`](Self::submit) returned, until
    /// [`clear_event`](Self::clear_event). Never blocks.
    pub fn event_fd(&self) -> BorrowedFd<'_> {
        self.0.event_fd()
    }

    /// Makes [`event_fd`](Self::event_fd) unreadable. What completes later makes it readable again, so call
    /// [`completions`](Self::completions) after this, not before.
    pub fn clear_event(&self) {
        self.0.clear_event();
    }

    /// Submits what is prepared and waits until everything is complete, calling `complete` for each.
    ///
    /// # Errors
    ///
    /// As [`submit`](Self::submit), and `EAGAIN` if the kernel has had no resources for a second.
    pub fn wait_all(&mut self, complete: impl FnMut(u64, io::Result<u32>)) -> io::Result<()> {
        self.0.wait_all(complete)
    }

    /// As [`wait_all`](Self::wait_all), but cancels what can be cancelled: reads and writes of pipes and sockets and
    /// what has not begun, which complete with `ECANCELED`. When it returns without an error, the kernel touches no
    /// guest RAM for this ring.
    ///
    /// # Errors
    ///
    /// As [`wait_all`](Self::wait_all).
    pub fn cancel_all(&mut self, complete: impl FnMut(u64, io::Result<u32>)) -> io::Result<()> {
        self.0.cancel_all(complete)
    }
}
