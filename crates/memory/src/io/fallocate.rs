//! What a file keeps, and what becomes zeros.
#![allow(
    unsafe_code,
    reason = "the C library's fallocate takes a bare file descriptor"
)]

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::FileExt;

/// How a range of a file becomes zeros without being written. The file's size stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deallocate {
    /// The blocks are given back (`FALLOC_FL_PUNCH_HOLE`).
    PunchHole,
    /// The blocks stay allocated, but are known to be zeros (`FALLOC_FL_ZERO_RANGE`).
    ZeroRange,
}

impl Deallocate {
    /// The mode of `fallocate`.
    pub(crate) fn mode(self) -> libc::c_int {
        libc::FALLOC_FL_KEEP_SIZE
            | match self {
                Self::PunchHole => libc::FALLOC_FL_PUNCH_HOLE,
                Self::ZeroRange => libc::FALLOC_FL_ZERO_RANGE,
            }
    }
}

/// Gives back the blocks of `len` bytes of `file` from `offset`, which read as zeros then.
///
/// # Errors
///
/// What `fallocate` gives, `EINTR` excepted: `EOPNOTSUPP` if the file system cannot do it, `EINVAL` for no bytes.
pub fn punch_hole(file: impl AsFd, offset: u64, len: u64) -> io::Result<()> {
    fallocate(&file, Deallocate::PunchHole, offset, len)
}

/// Turns `len` bytes of `file` from `offset` into zeros, and keeps their blocks.
///
/// # Errors
///
/// As [`punch_hole`]. tmpfs and some network file systems cannot do it.
pub fn zero_range(file: impl AsFd, offset: u64, len: u64) -> io::Result<()> {
    fallocate(&file, Deallocate::ZeroRange, offset, len)
}

/// As many zeros as are written at a time; they are a part of the program.
static ZEROS: [u8; 16 << 10] = [0; 16 << 10];

/// Writes up to `len` zeros to `file` at `offset`: 16 KiB at most. Returns how many.
///
/// # Errors
///
/// What `pwrite` gives.
pub fn write_zeros(file: &File, offset: u64, len: u64) -> io::Result<usize> {
    file.write_at(zeros(len), offset)
}

/// As many zeros as are written at a time, of `len`.
pub(crate) fn zeros(len: u64) -> &'static [u8] {
    let len = usize::try_from(len).unwrap_or(usize::MAX);
    ZEROS.get(..len).unwrap_or(&ZEROS)
}

/// Makes what was written to `file`, and its size, safe from a crash of the host (`fdatasync`).
///
/// # Errors
///
/// What `fdatasync` gives, `EINTR` excepted. After an error, what was written before may be lost although a later call
/// succeeds.
pub fn sync_data(file: &File) -> io::Result<()> {
    file.sync_data()
}

fn fallocate(file: &impl AsFd, how: Deallocate, offset: u64, len: u64) -> io::Result<()> {
    let number =
        |n: u64| libc::off_t::try_from(n).map_err(|_| io::Error::from_raw_os_error(libc::EFBIG));
    let (offset, len) = (number(offset)?, number(len)?);
    loop {
        // SAFETY: no memory is involved, and the descriptor is open for as long as `file` is borrowed.
        if unsafe { libc::fallocate(file.as_fd().as_raw_fd(), how.mode(), offset, len) } == 0 {
            return Ok(());
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}
