//! Vectored transfers that wait until they are done.
#![allow(
    unsafe_code,
    reason = "there is no safe interface for file input and output on memory that a guest writes to"
)]

use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsFd, AsRawFd};
use std::ptr;

use vm_memory::{GuestMemoryMmap, VolatileSlice};

use super::segment::{Segment, slices};

/// When written data is safe from a crash of the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// After a later [`sync_data`](super::sync_data).
    WriteBack,
    /// Before the write is done (`RWF_DSYNC`).
    WriteThrough,
}

impl Durability {
    /// The flags of `pwritev2`.
    pub(crate) fn flags(self) -> libc::c_int {
        match self {
            Self::WriteBack => 0,
            Self::WriteThrough => libc::RWF_DSYNC,
        }
    }
}

/// How many parts one system call moves: as many as the kernel looks at without much ado, below its `IOV_MAX` of 1024.
const BATCH: usize = 64;

/// The most parts that [`read`], [`write()`], [`receive`] and [`send`] move.
pub const MAX_PARTS: usize = BATCH;

/// Reads from `file` at `offset`, in bytes, into `slices` in their order. Returns how many bytes were read: fewer than
/// asked for at the end of the file, or where an error stopped what had begun.
///
/// # Errors
///
/// What `preadv2` gives, `EINTR` excepted, if nothing was read.
pub fn read_vectored_at(
    file: impl AsFd,
    slices: &[VolatileSlice<'_>],
    offset: u64,
) -> io::Result<usize> {
    transfer(Call::ReadAt, &file, slices.iter().copied().map(Ok), offset)
}

/// Writes `slices` in their order to `file` at `offset`, in bytes. Returns how many bytes were written: fewer than
/// asked for where an error stopped what had begun, as when the disk is full.
///
/// # Errors
///
/// What `pwritev2` gives, `EINTR` excepted, if nothing was written.
pub fn write_vectored_at(
    file: impl AsFd,
    slices: &[VolatileSlice<'_>],
    offset: u64,
    durability: Durability,
) -> io::Result<usize> {
    let call = Call::WriteAt(durability);
    transfer(call, &file, slices.iter().copied().map(Ok), offset)
}

/// Reads into `segments` of guest RAM; else as [`read_vectored_at`].
///
/// # Errors
///
/// As [`read_vectored_at`], and `EFAULT` for a segment that is not all RAM, if nothing was read.
pub fn read_at(
    file: impl AsFd,
    memory: &GuestMemoryMmap,
    segments: &[Segment],
    offset: u64,
) -> io::Result<usize> {
    transfer(Call::ReadAt, &file, slices(memory, segments), offset)
}

/// Writes `segments` of guest RAM; else as [`write_vectored_at`].
///
/// # Errors
///
/// As [`write_vectored_at`], and `EFAULT` for a segment that is not all RAM, if nothing was written.
pub fn write_at(
    file: impl AsFd,
    memory: &GuestMemoryMmap,
    segments: &[Segment],
    offset: u64,
    durability: Durability,
) -> io::Result<usize> {
    let call = Call::WriteAt(durability);
    transfer(call, &file, slices(memory, segments), offset)
}

/// Reads from what has no offsets, such as a tap, into `slices` in their order: by one system call, so that what comes as
/// a frame stays one.
///
/// # Errors
///
/// What `readv` gives, `EINTR` excepted; the first error among `slices`; `EINVAL` for more than [`MAX_PARTS`] of them.
pub fn read<'m>(
    file: impl AsFd,
    slices: impl Iterator<Item = io::Result<VolatileSlice<'m>>>,
) -> io::Result<usize> {
    whole(Call::Read, &file, slices)
}

/// Writes `slices` in their order to what has no offsets, such as a tap: by one system call, as one frame.
///
/// # Errors
///
/// What `writev` gives, `EINTR` excepted; the first error among `slices`; `EINVAL` for more than [`MAX_PARTS`] of them.
pub fn write<'m>(
    file: impl AsFd,
    slices: impl Iterator<Item = io::Result<VolatileSlice<'m>>>,
) -> io::Result<usize> {
    whole(Call::Write, &file, slices)
}

/// Receives from a stream socket into `slices` in their order, the first [`MAX_PARTS`] of them, without waiting. Returns
/// how many bytes; 0 if the peer will send no more. If there is room for more, there are no more now: descriptors that
/// come with the bytes, where a call of the kernel's stops, are closed.
///
/// # Errors
///
/// What `recvmsg` gives, `EINTR` excepted; the first error among `slices`.
pub fn receive<'m>(
    socket: impl AsFd,
    slices: impl Iterator<Item = io::Result<VolatileSlice<'m>>>,
) -> io::Result<usize> {
    let mut slices = slices;
    let mut batch = Batch::new();
    batch.fill(&mut slices)?;
    let mut done = 0;
    loop {
        match batch.receive(&socket) {
            Ok((moved, true)) if moved > 0 && moved < batch.bytes => {
                done += moved;
                batch.advance(moved);
            }
            Ok((moved, _)) => return Ok(done + moved),
            Err(_) if done > 0 => return Ok(done),
            Err(error) => return Err(error),
        }
    }
}

/// Sends `slices` in their order to a stream socket, the first [`MAX_PARTS`] of them, without waiting and without a
/// signal if the peer has gone. Returns how many bytes it took.
///
/// # Errors
///
/// What `sendmsg` gives, `EINTR` excepted; the first error among `slices`.
pub fn send<'m>(
    socket: impl AsFd,
    slices: impl Iterator<Item = io::Result<VolatileSlice<'m>>>,
) -> io::Result<usize> {
    let mut slices = slices;
    let mut batch = Batch::new();
    batch.fill(&mut slices)?;
    batch.transfer(Call::Send, &socket, 0)
}

#[derive(Clone, Copy)]
enum Call {
    ReadAt,
    WriteAt(Durability),
    Read,
    Write,
    Send,
}

/// All slices by one call.
fn whole<'m>(
    call: Call,
    file: &impl AsFd,
    mut slices: impl Iterator<Item = io::Result<VolatileSlice<'m>>>,
) -> io::Result<usize> {
    let mut batch = Batch::new();
    batch.fill(&mut slices)?;
    if batch.len == BATCH && slices.next().is_some() {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    batch.transfer(call, file, 0)
}

fn transfer<'m>(
    call: Call,
    file: &impl AsFd,
    mut slices: impl Iterator<Item = io::Result<VolatileSlice<'m>>>,
    offset: u64,
) -> io::Result<usize> {
    let mut done = 0;
    loop {
        let mut batch = Batch::new();
        let filled = batch.fill(&mut slices);
        let at = offset.saturating_add(done as u64);
        let moved = match filled.and_then(|()| batch.transfer(call, file, at)) {
            Ok(moved) => moved,
            Err(_) if done > 0 => return Ok(done),
            Err(error) => return Err(error),
        };
        done += moved;
        if moved < batch.bytes || batch.len < BATCH {
            return Ok(done);
        }
    }
}

/// What one system call moves. It borrows the slices that its addresses are of.
struct Batch<'m> {
    parts: [libc::iovec; BATCH],
    /// How many of them are used.
    len: usize,
    /// How many bytes they are.
    bytes: usize,
    slices: PhantomData<VolatileSlice<'m>>,
}

impl<'m> Batch<'m> {
    fn new() -> Self {
        let none = libc::iovec {
            iov_base: ptr::null_mut(),
            iov_len: 0,
        };
        Self {
            parts: [none; BATCH],
            len: 0,
            bytes: 0,
            slices: PhantomData,
        }
    }

    /// Takes slices until there is no more room, no more slices, or an error.
    fn fill(
        &mut self,
        slices: &mut impl Iterator<Item = io::Result<VolatileSlice<'m>>>,
    ) -> io::Result<()> {
        for (part, slice) in self.parts.iter_mut().zip(slices) {
            *part = part_of(&slice?);
            self.len += 1;
            self.bytes = self.bytes.saturating_add(part.iov_len);
        }
        Ok(())
    }

    fn transfer(&self, call: Call, file: &impl AsFd, offset: u64) -> io::Result<usize> {
        let Ok(offset) = libc::off_t::try_from(offset) else {
            return Err(io::Error::from_raw_os_error(libc::EINVAL));
        };
        let fd = file.as_fd().as_raw_fd();
        let parts = self.parts.as_ptr();
        // `BATCH` at most.
        let len = libc::c_int::try_from(self.len).unwrap_or(0);
        loop {
            // SAFETY: `parts` has at least `len` elements, each the address and length of a slice that lives for 'm,
            // which `self` holds on to: the memory stays mapped through the call. The guest may write to it
            // meanwhile, so nobody holds references into it, and that the kernel does is no different.
            let moved = unsafe {
                match call {
                    Call::ReadAt => libc::preadv2(fd, parts, len, offset, 0),
                    Call::WriteAt(durability) => {
                        libc::pwritev2(fd, parts, len, offset, durability.flags())
                    }
                    Call::Read => libc::readv(fd, parts, len),
                    Call::Write => libc::writev(fd, parts, len),
                    Call::Send => {
                        libc::sendmsg(fd, &self.message(), libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL)
                    }
                }
            };
            if let Some(result) = result_of(moved) {
                return result;
            }
        }
    }

    /// Receives what one call gives. Also whether that was less than there is, for descriptors that came with it.
    fn receive(&self, socket: &impl AsFd) -> io::Result<(usize, bool)> {
        let fd = socket.as_fd().as_raw_fd();
        let mut message = self.message();
        loop {
            // SAFETY: as in `transfer`; there is no room for an address or control data that the kernel could write to.
            let moved = unsafe { libc::recvmsg(fd, &raw mut message, libc::MSG_DONTWAIT) };
            if let Some(result) = result_of(moved) {
                return result.map(|moved| (moved, message.msg_flags & libc::MSG_CTRUNC != 0));
            }
        }
    }

    /// Leaves out the first `count` bytes.
    fn advance(&mut self, count: usize) {
        let mut left = count.min(self.bytes);
        self.bytes -= left;
        for part in self.parts.iter_mut().take(self.len) {
            let skipped = left.min(part.iov_len);
            part.iov_base = part.iov_base.wrapping_byte_add(skipped);
            part.iov_len -= skipped;
            left -= skipped;
        }
    }
}

/// What a call has returned; nothing if it was interrupted.
fn result_of(moved: libc::ssize_t) -> Option<io::Result<usize>> {
    if let Ok(moved) = usize::try_from(moved) {
        return Some(Ok(moved));
    }
    let error = io::Error::last_os_error();
    (error.kind() != io::ErrorKind::Interrupted).then_some(Err(error))
}

impl Batch<'_> {
    /// The parts as a message without an address and without control data.
    fn message(&self) -> libc::msghdr {
        // SAFETY: it is plain numbers and pointers, of which all may be zero.
        let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
        message.msg_iov = self.parts.as_ptr().cast_mut();
        message.msg_iovlen = self.len;
        message
    }
}

/// Where a slice lies in this process.
pub(crate) fn part_of(slice: &VolatileSlice<'_>) -> libc::iovec {
    libc::iovec {
        iov_base: slice.ptr_guard_mut().as_ptr().cast(),
        iov_len: slice.len(),
    }
}
