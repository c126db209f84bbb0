//! What direct input and output asks for.
#![allow(
    unsafe_code,
    reason = "the C library's statx fills a structure behind a pointer"
)]

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd};

/// How transfers that go past the page cache (`O_DIRECT`) must be aligned. Both are powers of two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DirectAlignment {
    /// The alignment of addresses in memory, in bytes.
    pub memory: u32,
    /// The alignment of file offsets and of the length of each part, in bytes.
    pub offset: u32,
}

impl DirectAlignment {
    /// What every device is content with, where the kernel does not say.
    const SAFE: Self = Self {
        memory: 4096,
        offset: 4096,
    };
}

/// The alignment that `file` asks for, or None if it has no direct input and output. Kernels before 6.1 do not say:
/// then it is 4096 bytes.
///
/// # Errors
///
/// What `statx` gives, but for kernels that lack it.
pub fn direct_alignment(file: impl AsFd) -> io::Result<Option<DirectAlignment>> {
    let mut status = MaybeUninit::<libc::statx>::zeroed();
    let fd = file.as_fd().as_raw_fd();
    // SAFETY: the path is an empty C string, which with AT_EMPTY_PATH means the descriptor itself; the kernel writes
    // one structure, for which there is room.
    let result = unsafe {
        libc::statx(
            fd,
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            libc::STATX_DIOALIGN,
            status.as_mut_ptr(),
        )
    };
    if result != 0 {
        let error = io::Error::last_os_error();
        return match error.raw_os_error() {
            Some(libc::ENOSYS) => Ok(Some(DirectAlignment::SAFE)),
            _ => Err(error),
        };
    }
    // SAFETY: the structure is plain numbers, all of them zero where the kernel wrote nothing.
    let status = unsafe { status.assume_init() };
    if status.stx_mask & libc::STATX_DIOALIGN == 0 {
        return Ok(Some(DirectAlignment::SAFE));
    }
    let (memory, offset) = (status.stx_dio_mem_align, status.stx_dio_offset_align);
    let possible = memory.is_power_of_two() && offset.is_power_of_two();
    Ok(possible.then_some(DirectAlignment { memory, offset }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;

    #[test]
    fn files_say_their_alignment_and_pipes_have_none_that_helps() {
        let file = tempfile::tempfile().unwrap();
        if let Some(alignment) = direct_alignment(&file).unwrap() {
            assert!(alignment.memory.is_power_of_two());
            assert!(alignment.offset.is_power_of_two() && alignment.offset <= 65536);
        }
        assert!(direct_alignment(File::open("/dev/null").unwrap()).is_ok());
    }
}
