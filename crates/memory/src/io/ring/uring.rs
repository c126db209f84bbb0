//! The io_uring itself: everything of it that the compiler cannot check.
#![allow(
    unsafe_code,
    reason = "the kernel reads and writes memory after the call that named it has returned"
)]

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::mem;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{Ordering, fence};
use std::thread;
use std::time::Duration;

use io_uring::squeue::Entry;
use io_uring::types::{CancelBuilder, Fixed, FsyncFlags, SubmitArgs, Timespec};
use io_uring::{IoUring, opcode};
use vm_memory::GuestMemoryMmap;

use super::PrepareError;
use crate::io::fallocate::zeros;
use crate::io::segment::slices;
use crate::io::vectored::part_of;
use crate::io::{Deallocate, Durability, Segment};

/// `IOV_MAX`: the most parts that the kernel takes for one operation.
const MAX_PARTS: usize = 1024;

/// How often what the kernel has no resources for is tried again, a millisecond later each time.
const TRIES: u32 = 1000;

/// How long to wait at a time. That there is an end to it matters only if something can be cancelled the second time
/// that could not the first.
const WAIT: Timespec = Timespec::new().nsec(100_000_000);

/// A transfer between guest RAM and a file.
pub(super) struct Transfer {
    /// The file's number.
    pub(super) file: u32,
    /// Bytes.
    pub(super) offset: u64,
    /// None if it reads.
    pub(super) write: Option<Durability>,
}

/// An operation that touches no memory of the guest's.
pub(super) enum Operation {
    SyncData {
        file: u32,
    },
    Deallocate {
        file: u32,
        how: Deallocate,
        offset: u64,
        len: u64,
    },
    Zeros {
        file: u32,
        offset: u64,
        len: u64,
    },
}

/// The parts of guest RAM that an entry of the submission queue names.
struct Parts(Vec<libc::iovec>);

// SAFETY: they are addresses of guest RAM, which every thread may use: they are written down here and read by the
// kernel, never dereferenced by this process.
unsafe impl Send for Parts {}

pub(super) struct Uring {
    ring: IoUring,
    event: File,
    /// Of each entry of the submission queue, as many as it has. The kernel reads them until it has consumed the entry
    /// (IORING_FEAT_SUBMIT_STABLE), and an entry is not used again before that.
    parts: Vec<Parts>,
    /// Which of them the next entry uses.
    next: usize,
    entries: u32,
    /// Prepared, and not yet taken by the kernel.
    prepared: u32,
    /// Taken by the kernel, and not yet reaped.
    submitted: u32,
    /// Dropped after the ring, when the kernel is done with it.
    memory: GuestMemoryMmap,
}

impl Uring {
    pub(super) fn new(
        memory: GuestMemoryMmap,
        entries: u32,
        files: &[BorrowedFd<'_>],
    ) -> io::Result<Self> {
        // No IORING_SETUP_COOP_TASKRUN: with it, what completes for a thread that is in its guest waits for the next
        // exit, and so does the eventfd. No SINGLE_ISSUER: every vCPU's thread submits.
        let ring: IoUring = IoUring::builder()
            .setup_cqsize(entries)
            .build(entries)
            .map_err(explain)?;
        let params = ring.params();
        for (there, what) in [
            (params.is_feature_nodrop(), "IORING_FEAT_NODROP"),
            (
                params.is_feature_submit_stable(),
                "IORING_FEAT_SUBMIT_STABLE",
            ),
            (params.is_feature_ext_arg(), "IORING_FEAT_EXT_ARG"),
        ] {
            if !there {
                return Err(too_old(what));
            }
        }
        let event = event_fd()?;
        // Not register_eventfd_async: that one is silent about all that does not complete in a worker thread, direct
        // I/O for one. What completes within `submit` is kept from signalling there.
        ring.submitter().register_eventfd(event.as_raw_fd())?;
        if !files.is_empty() {
            let files: Vec<RawFd> = files.iter().map(AsRawFd::as_raw_fd).collect();
            ring.submitter().register_files(&files)?;
        }
        let parts = (0..ring.params().sq_entries())
            .map(|_| Parts(Vec::new()))
            .collect();
        Ok(Self {
            ring,
            event: File::from(event),
            parts,
            next: 0,
            entries,
            prepared: 0,
            submitted: 0,
            memory,
        })
    }

    pub(super) fn push_transfer(
        &mut self,
        transfer: Transfer,
        segments: &[Segment],
        token: u64,
    ) -> Result<(), PrepareError> {
        self.check(transfer.offset)?;
        let file = Fixed(transfer.file);
        let flags = transfer.write.map_or(0, Durability::flags);
        let parts = self.fill_parts(segments)?;
        let count = u32::try_from(parts.len()).unwrap_or(0);
        // One part needs no list, which saves the kernel copying it.
        let single = match parts {
            [] => Some((std::ptr::null_mut(), 0)),
            [part] => u32::try_from(part.iov_len)
                .ok()
                .map(|len| (part.iov_base.cast::<u8>(), len)),
            _ => None,
        };
        let entry = match (single, transfer.write) {
            (Some((base, len)), None) => opcode::Read::new(file, base, len)
                .offset(transfer.offset)
                .build(),
            (Some((base, len)), Some(_)) => opcode::Write::new(file, base, len)
                .offset(transfer.offset)
                .rw_flags(flags)
                .build(),
            (None, None) => opcode::Readv::new(file, parts.as_ptr(), count)
                .offset(transfer.offset)
                .build(),
            (None, Some(_)) => opcode::Writev::new(file, parts.as_ptr(), count)
                .offset(transfer.offset)
                .rw_flags(flags)
                .build(),
        };
        // SAFETY: the entry names guest RAM, by addresses that come from the regions of `self.memory`, directly or in
        // the parts of its place in the queue. `self.memory` outlives the operation: it is dropped after all is
        // reaped, or never (see `drop`). The parts stay as they are until the kernel has consumed the entry, since
        // their place comes round again only after as many entries as the queue has. The kernel may write to guest RAM
        // at any time, as the guest may.
        unsafe { self.push_entry(entry, token) }
    }

    pub(super) fn push(&mut self, operation: Operation, token: u64) -> Result<(), PrepareError> {
        let entry = match operation {
            Operation::SyncData { file } => {
                self.check(0)?;
                opcode::Fsync::new(Fixed(file))
                    .flags(FsyncFlags::DATASYNC)
                    .build()
            }
            Operation::Deallocate {
                file,
                how,
                offset,
                len,
            } => {
                self.check(offset)?;
                opcode::Fallocate::new(Fixed(file), len)
                    .offset(offset)
                    .mode(how.mode())
                    .build()
            }
            Operation::Zeros { file, offset, len } => {
                self.check(offset)?;
                let zeros = zeros(len);
                let len = u32::try_from(zeros.len()).unwrap_or(0);
                opcode::Write::new(Fixed(file), zeros.as_ptr(), len)
                    .offset(offset)
                    .build()
            }
        };
        // SAFETY: the entry names no memory, or zeros that are always there and only read.
        unsafe { self.push_entry(entry, token) }
    }

    pub(super) fn submit(&mut self) -> io::Result<u32> {
        if self.prepared == 0 {
            return Ok(0);
        }
        // What completes in here is reaped after it, so that nobody need be woken.
        self.ring.completion().disable_eventfd();
        let result = self.submit_prepared();
        self.ring.completion().enable_eventfd();
        // What completed before the kernel saw this is found by a look at the completion queue after it: the kernel
        // publishes a completion and then looks whether to signal, we say to signal and then look for completions.
        fence(Ordering::SeqCst);
        result.map(|()| self.prepared)
    }

    pub(super) fn reap(&mut self, mut complete: impl FnMut(u64, io::Result<u32>)) -> u32 {
        let mut count = 0;
        for entry in self.ring.completion() {
            count += 1;
            self.submitted = self.submitted.saturating_sub(1);
            let result = entry.result();
            let result = u32::try_from(result)
                .map_err(|_| io::Error::from_raw_os_error(result.saturating_neg()));
            complete(entry.user_data(), result);
        }
        count
    }

    pub(super) fn in_flight(&self) -> u32 {
        self.prepared.saturating_add(self.submitted)
    }

    pub(super) fn event_fd(&self) -> BorrowedFd<'_> {
        self.event.as_fd()
    }

    pub(super) fn clear_event(&self) {
        // It does not block, and unreadable is what it should become.
        let _ = (&self.event).read(&mut [0; 8]);
    }

    pub(super) fn wait_all(
        &mut self,
        mut complete: impl FnMut(u64, io::Result<u32>),
    ) -> io::Result<()> {
        while self.submit_all(&mut complete)? {
            self.wait()?;
        }
        Ok(())
    }

    pub(super) fn cancel_all(
        &mut self,
        mut complete: impl FnMut(u64, io::Result<u32>),
    ) -> io::Result<()> {
        // Entries that the kernel has not taken cannot be taken back: they are submitted, then cancelled.
        while self.submit_all(&mut complete)? {
            // An error says that nothing under way can be cancelled, or that the kernel is older than 6.0. What cannot
            // be, such as a read that a disk is busy with, is waited for.
            let submitter = self.ring.submitter();
            let _ = submitter.register_sync_cancel(Some(WAIT), CancelBuilder::any());
            self.wait()?;
        }
        Ok(())
    }

    /// Submits what is prepared and reaps what is complete. Returns whether anything is still under way.
    fn submit_all(&mut self, complete: &mut impl FnMut(u64, io::Result<u32>)) -> io::Result<bool> {
        for _ in 0..TRIES {
            let left = self.submit()?;
            self.reap(&mut *complete);
            if left == 0 {
                return Ok(self.submitted > 0);
            }
            thread::sleep(Duration::from_millis(1));
        }
        Err(io::Error::from_raw_os_error(libc::EAGAIN))
    }

    /// Waits for a completion, or a moment.
    fn wait(&self) -> io::Result<()> {
        // Nothing is prepared, so that it submits nothing.
        let args = SubmitArgs::new().timespec(&WAIT);
        match self.ring.submitter().submit_with_args(1, &args) {
            Ok(_) => Ok(()),
            Err(error) => match error.raw_os_error() {
                Some(libc::EINTR | libc::EAGAIN | libc::EBUSY | libc::ETIME) => Ok(()),
                _ => Err(error),
            },
        }
    }

    /// Whether one more operation, at that file offset, can be prepared.
    fn check(&self, offset: u64) -> Result<(), PrepareError> {
        if self.in_flight() >= self.entries {
            return Err(PrepareError::Full);
        }
        // The greatest offset means the file's position to the kernel.
        i64::try_from(offset)
            .map(|_| ())
            .map_err(|_| PrepareError::Offset(offset))
    }

    /// The parts of the next entry, which are those of `segments`, up to as many as the kernel takes.
    fn fill_parts(&mut self, segments: &[Segment]) -> Result<&[libc::iovec], PrepareError> {
        let Some(Parts(parts)) = self.parts.get_mut(self.next) else {
            return Err(PrepareError::Full);
        };
        parts.clear();
        for segment in segments {
            for slice in slices(&self.memory, std::slice::from_ref(segment)) {
                let slice = slice.map_err(|_| PrepareError::OutsideRam(*segment))?;
                parts.push(part_of(&slice));
            }
        }
        parts.truncate(MAX_PARTS);
        Ok(parts)
    }

    /// Puts an entry in the queue.
    ///
    /// # Safety
    ///
    /// The memory that the entry names must be valid until it has been reaped.
    unsafe fn push_entry(&mut self, entry: Entry, token: u64) -> Result<(), PrepareError> {
        // SAFETY: as the caller promises.
        unsafe { self.ring.submission().push(&entry.user_data(token)) }
            .map_err(|_| PrepareError::Full)?;
        self.prepared += 1;
        self.next = (self.next + 1) % self.parts.len().max(1);
        Ok(())
    }

    /// Submits until the kernel has taken all, or has no resources for more.
    fn submit_prepared(&mut self) -> io::Result<()> {
        while self.prepared > 0 {
            match self.ring.submit() {
                Ok(0) => break,
                Ok(taken) => {
                    let taken = u32::try_from(taken).unwrap_or(u32::MAX).min(self.prepared);
                    self.prepared -= taken;
                    self.submitted += taken;
                }
                Err(error) => match error.raw_os_error() {
                    Some(libc::EINTR) => {}
                    Some(libc::EAGAIN | libc::EBUSY) => break,
                    _ => return Err(error),
                },
            }
        }
        Ok(())
    }
}

impl Drop for Uring {
    fn drop(&mut self) {
        if self.cancel_all(|_, _| {}).is_err() {
            // The kernel may still use guest RAM, so that must stay mapped: a leak is better than what else comes.
            mem::forget(self.memory.clone());
        }
        // Closing the ring leaves that to the kernel's leisure.
        let _ = self.ring.submitter().unregister_files();
    }
}

impl fmt::Debug for Uring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Uring")
            .field("entries", &self.entries)
            .field("prepared", &self.prepared)
            .field("submitted", &self.submitted)
            .finish_non_exhaustive()
    }
}

fn event_fd() -> io::Result<OwnedFd> {
    // SAFETY: no memory is involved.
    let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: `fd` was just opened and belongs to nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn too_old(missing: &str) -> io::Error {
    let text = format!("the kernel's io_uring is too old: it lacks {missing}");
    io::Error::new(io::ErrorKind::Unsupported, text)
}

/// What to make of an error of `io_uring_setup`.
fn explain(error: io::Error) -> io::Error {
    let text = match error.raw_os_error() {
        Some(libc::ENOSYS) => "the kernel has no io_uring, or a seccomp filter hides it",
        Some(libc::EPERM | libc::EACCES) => {
            "io_uring is forbidden, by sysctl kernel.io_uring_disabled or a seccomp filter"
        }
        _ => return error,
    };
    io::Error::new(error.kind(), text)
}
