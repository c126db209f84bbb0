//! The system calls: everything here that the compiler cannot check.
#![allow(
    unsafe_code,
    reason = "mapping files over guest RAM and advising the kernel has no safe interface"
)]

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use vm_memory::VolatileSlice;

use crate::PAGE_SIZE;

/// The most vectors of a call (`UIO_MAXIOV`).
const MAX_IOVECS: usize = 1024;

/// Maps `slice.len()` bytes of `file` from `offset` over `slice`, privately: the guest's writes stay its own.
///
/// The slice must be whole pages of a private small-page mapping, which it is checked for as far as its address tells.
pub(crate) fn map_file_over(slice: &VolatileSlice, file: &File, offset: u64) -> io::Result<()> {
    let guard = slice.ptr_guard_mut();
    let address = guard.as_ptr().cast::<libc::c_void>();
    let aligned = |n: u64| n.is_multiple_of(PAGE_SIZE);
    if !aligned(address.addr() as u64) || !aligned(slice.len() as u64) || !aligned(offset) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let offset = libc::off_t::try_from(offset).map_err(|_| io::ErrorKind::InvalidInput)?;
    // SAFETY: the range is whole pages inside a mapping that `slice` borrows, so MAP_FIXED replaces guest RAM and
    // nothing else. Guest RAM is only ever accessed as volatile bytes (nobody holds references into it), so that its
    // contents changing is sound, and the new mapping lies within the old one, which unmaps it when dropped.
    let mapped = unsafe {
        libc::mmap(
            address,
            slice.len(),
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_FIXED | libc::MAP_NORESERVE,
            file.as_raw_fd(),
            offset,
        )
    };
    if mapped == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Maps anonymous memory over `slice`, which is zeros then, and no longer what a file has that was mapped there.
///
/// The slice must be whole pages of a private small-page mapping, as for [`map_file_over`].
pub(crate) fn map_zeros_over(slice: &VolatileSlice) -> io::Result<()> {
    let guard = slice.ptr_guard_mut();
    let address = guard.as_ptr().cast::<libc::c_void>();
    let aligned = |n: usize| (n as u64).is_multiple_of(PAGE_SIZE);
    if !aligned(address.addr()) || !aligned(slice.len()) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    // SAFETY: as in `map_file_over`: guest RAM is replaced, at once and by memory that is accessed in the same way, and
    // nothing else is.
    let mapped = unsafe {
        libc::mmap(
            address,
            slice.len(),
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_FIXED | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
            -1,
            0,
        )
    };
    if mapped == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Reads exactly `slice.len()` bytes of `file` from `offset` into `slice`.
pub(crate) fn read_into(slice: &VolatileSlice, file: &File, offset: u64) -> io::Result<()> {
    let mut done = 0;
    while done < slice.len() {
        let rest = slice.offset(done).map_err(io::Error::other)?;
        let guard = rest.ptr_guard_mut();
        let at = offset
            .checked_add(done as u64)
            .and_then(|at| libc::off_t::try_from(at).ok())
            .ok_or(io::ErrorKind::InvalidInput)?;
        // SAFETY: the kernel writes at most `rest.len()` bytes to memory that `rest` keeps mapped; guest RAM may be
        // written at any time.
        let count = unsafe { libc::pread(file.as_raw_fd(), guard.as_ptr().cast(), rest.len(), at) };
        match usize::try_from(count) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => done += count,
            Err(_) => {
                let error = io::Error::last_os_error();
                if error.kind() != io::ErrorKind::Interrupted {
                    return Err(error);
                }
            }
        }
    }
    Ok(())
}

/// Advises the kernel about all of `slice` (`MADV_*`).
pub(crate) fn advise(slice: &VolatileSlice, advice: libc::c_int) -> io::Result<()> {
    let guard = slice.ptr_guard_mut();
    // SAFETY: the range is mapped for as long as `slice` lives, and stays so by the advices used here. Those that give
    // pages back change contents, which is sound as guest RAM is only ever accessed as volatile bytes and as atomics.
    match unsafe { libc::madvise(guard.as_ptr().cast(), slice.len(), advice) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Advises the kernel about all of these slices, by as few calls as there can be: process_madvise(2) on this process, which
/// kernels before 6.13 refuse for most advices.
pub(crate) fn advise_all(slices: &[VolatileSlice<'_>], advice: libc::c_int) -> io::Result<()> {
    if slices.is_empty() {
        return Ok(());
    }
    // SAFETY: the call takes numbers and gives a descriptor; no memory is involved.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, libc::getpid(), 0) };
    let Some(fd) = i32::try_from(fd).ok().filter(|fd| *fd >= 0) else {
        return Err(io::Error::last_os_error());
    };
    // SAFETY: `fd` was just opened and belongs to nobody else.
    let process = unsafe { OwnedFd::from_raw_fd(fd) };
    for batch in slices.chunks(MAX_IOVECS) {
        let vectors: Vec<_> = batch
            .iter()
            .map(|slice| libc::iovec {
                iov_base: slice.ptr_guard_mut().as_ptr().cast(),
                iov_len: slice.len(),
            })
            .collect();
        // SAFETY: the vectors are as many as are said, and live until the call returns; what they point to is as in
        // `advise`.
        let done = unsafe {
            libc::syscall(
                libc::SYS_process_madvise,
                process.as_raw_fd(),
                vectors.as_ptr(),
                vectors.len(),
                advice,
                0,
            )
        };
        if done < 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// Takes all of `slice` away: whoever touches it has an error.
pub(crate) fn forbid(slice: &VolatileSlice) -> io::Result<()> {
    let guard = slice.ptr_guard_mut();
    // SAFETY: the range is mapped for as long as `slice` lives, and stays so. Accesses from here on are ended by SIGSEGV,
    // which is no undefined behaviour: guest RAM is accessed by volatile means, none of which the compiler leaves out.
    match unsafe { libc::mprotect(guard.as_ptr().cast(), slice.len(), libc::PROT_NONE) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Where the next data (`SEEK_DATA`) or hole (`SEEK_HOLE`) of a file is, from `offset`; nothing behind the last.
pub(crate) fn seek(file: &File, offset: u64, whence: libc::c_int) -> io::Result<Option<u64>> {
    let offset = libc::off_t::try_from(offset).map_err(|_| io::ErrorKind::InvalidInput)?;
    // SAFETY: the descriptor is open for as long as `file` lives; no memory is involved.
    let found = unsafe { libc::lseek(file.as_raw_fd(), offset, whence) };
    match u64::try_from(found) {
        Ok(found) => Ok(Some(found)),
        Err(_) => match io::Error::last_os_error() {
            error if error.raw_os_error() == Some(libc::ENXIO) => Ok(None),
            error => Err(error),
        },
    }
}

/// A memfd of `size` bytes; `flags` are `MFD_*` beside close-on-exec.
pub(crate) fn memfd(size: u64, flags: libc::c_uint) -> io::Result<File> {
    // SAFETY: the name is a valid C string; no memory is involved.
    let fd = unsafe { libc::memfd_create(c"guest-ram".as_ptr(), libc::MFD_CLOEXEC | flags) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: `fd` was just opened and belongs to nobody else.
    let file = unsafe { File::from_raw_fd(fd) };
    file.set_len(size)?;
    Ok(file)
}
