//! The system calls of `userfaultfd`: ioctl_userfaultfd(2).
#![allow(
    unsafe_code,
    reason = "userfaultfd has no safe interface that needs no bindings to be generated"
)]

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use vm_memory::VolatileSlice;

/// What all calls are of.
const KIND: u32 = 0xaa;
/// The version of the interface.
const API: u64 = 0xaa;
/// The kernel tells of pages that are given back (`UFFD_FEATURE_EVENT_REMOVE`).
const EVENT_REMOVE: u64 = 1 << 3;
/// Pages that are missing are served (`UFFDIO_REGISTER_MODE_MISSING`).
const MISSING: u64 = 1 << 0;

const UFFDIO_API: libc::Ioctl = libc::_IOWR::<Api>(KIND, 0x3f);
const UFFDIO_REGISTER: libc::Ioctl = libc::_IOWR::<Register>(KIND, 0);
const UFFDIO_UNREGISTER: libc::Ioctl = libc::_IOR::<Range>(KIND, 1);
const UFFDIO_WAKE: libc::Ioctl = libc::_IOR::<Range>(KIND, 2);
const UFFDIO_COPY: libc::Ioctl = libc::_IOWR::<Copy>(KIND, 3);
const UFFDIO_ZEROPAGE: libc::Ioctl = libc::_IOWR::<ZeroPage>(KIND, 4);
/// Makes a new one, of `/dev/userfaultfd`.
const USERFAULTFD_IOC_NEW: libc::Ioctl = libc::_IO(KIND, 0);

#[repr(C)]
struct Api {
    api: u64,
    features: u64,
    ioctls: u64,
}

#[repr(C)]
struct Range {
    start: u64,
    len: u64,
}

#[repr(C)]
struct Register {
    range: Range,
    mode: u64,
    ioctls: u64,
}

#[repr(C)]
struct Copy {
    to: u64,
    from: u64,
    len: u64,
    mode: u64,
    /// How many bytes were copied, or an error's negative number.
    copied: i64,
}

#[repr(C)]
struct ZeroPage {
    range: Range,
    mode: u64,
    /// How many bytes are zeros, or an error's negative number.
    zeroed: i64,
}

/// A new descriptor: by the system call or, where that is for the privileged only, by the device. It also serves faults
/// of the kernel, as which those of guests come.
pub(super) fn open() -> io::Result<OwnedFd> {
    let flags = libc::O_CLOEXEC | libc::O_NONBLOCK;
    // SAFETY: the call takes flags and gives a descriptor; no memory is involved.
    let fd = unsafe { libc::syscall(libc::SYS_userfaultfd, flags) };
    if let Some(fd) = i32::try_from(fd).ok().filter(|fd| *fd >= 0) {
        // SAFETY: `fd` was just opened and belongs to nobody else.
        return Ok(unsafe { OwnedFd::from_raw_fd(fd) });
    }
    let refused = io::Error::last_os_error();
    let device = std::fs::File::options()
        .read(true)
        .write(true)
        .open("/dev/userfaultfd");
    let Ok(device) = device else {
        return Err(refused);
    };
    // SAFETY: this call of the device takes flags as its argument and gives a descriptor; no memory is involved.
    let fd = unsafe { libc::ioctl(device.as_raw_fd(), USERFAULTFD_IOC_NEW, flags) };
    match fd {
        // SAFETY: as above.
        0.. => Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Agrees on the interface, which a new descriptor needs.
pub(super) fn begin(fd: &OwnedFd) -> io::Result<()> {
    let mut api = Api {
        api: API,
        features: EVENT_REMOVE,
        ioctls: 0,
    };
    // SAFETY: UFFDIO_API reads and writes one `struct uffdio_api`, which `Api` has the layout of.
    check(unsafe { libc::ioctl(fd.as_raw_fd(), UFFDIO_API, &raw mut api) })
}

/// Has missing pages of `slice` be served; the address of its first byte.
pub(super) fn register(fd: &OwnedFd, slice: &VolatileSlice<'_>) -> io::Result<u64> {
    let mut register = Register {
        range: range(slice),
        mode: MISSING,
        ioctls: 0,
    };
    // SAFETY: UFFDIO_REGISTER reads and writes one `struct uffdio_register`, which `Register` has the layout of. The
    // range is guest RAM, which is only ever accessed as volatile bytes and atomics, so that any contents of pages that
    // nobody has touched are sound.
    check(unsafe { libc::ioctl(fd.as_raw_fd(), UFFDIO_REGISTER, &raw mut register) })?;
    Ok(register.range.start)
}

/// Has pages of `slice` not be served any more, and wakes who waits for one.
pub(super) fn unregister(fd: &OwnedFd, slice: &VolatileSlice<'_>) -> io::Result<()> {
    let mut range = range(slice);
    // SAFETY: UFFDIO_UNREGISTER reads one `struct uffdio_range`, which `Range` has the layout of.
    check(unsafe { libc::ioctl(fd.as_raw_fd(), UFFDIO_UNREGISTER, &raw mut range) })
}

pub(super) fn wake(fd: &OwnedFd, address: u64, len: u64) -> io::Result<()> {
    let mut range = Range {
        start: address,
        len,
    };
    // SAFETY: UFFDIO_WAKE reads one `struct uffdio_range`, which `Range` has the layout of.
    check(unsafe { libc::ioctl(fd.as_raw_fd(), UFFDIO_WAKE, &raw mut range) })
}

pub(super) fn copy(fd: &OwnedFd, address: u64, bytes: &VolatileSlice<'_>) -> io::Result<u64> {
    let guard = bytes.ptr_guard();
    let mut copy = Copy {
        to: address,
        from: guard.as_ptr().addr() as u64,
        len: bytes.len() as u64,
        mode: 0,
        copied: 0,
    };
    // SAFETY: UFFDIO_COPY reads and writes one `struct uffdio_copy`, which `Copy` has the layout of. It reads `len` bytes
    // that `bytes` keeps mapped; what it writes to is checked by the kernel to be missing pages of ranges that were
    // registered with this descriptor, by whoever owns them and for this: no page that is there is changed.
    let result = unsafe { libc::ioctl(fd.as_raw_fd(), UFFDIO_COPY, &raw mut copy) };
    progress(result, copy.copied)
}

pub(super) fn zero(fd: &OwnedFd, address: u64, len: u64) -> io::Result<u64> {
    let mut zero = ZeroPage {
        range: Range {
            start: address,
            len,
        },
        mode: 0,
        zeroed: 0,
    };
    // SAFETY: UFFDIO_ZEROPAGE reads and writes one `struct uffdio_zeropage`, which `ZeroPage` has the layout of. What it
    // changes is checked by the kernel as in `copy`.
    let result = unsafe { libc::ioctl(fd.as_raw_fd(), UFFDIO_ZEROPAGE, &raw mut zero) };
    progress(result, zero.zeroed)
}

pub(super) fn read(fd: &OwnedFd, bytes: &mut [u8]) -> io::Result<usize> {
    // SAFETY: the kernel writes at most `len` bytes to `bytes`, which are ours.
    let count = unsafe { libc::read(fd.as_raw_fd(), bytes.as_mut_ptr().cast(), bytes.len()) };
    usize::try_from(count).map_err(|_| io::Error::last_os_error())
}

pub(super) fn set_nonblocking(fd: &OwnedFd) -> io::Result<()> {
    // SAFETY: the calls take and give flags; no memory is involved.
    let flags = unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_GETFL) };
    if flags < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: as above.
    check(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_SETFL, flags | libc::O_NONBLOCK) })
}

/// How much of a range was done; a call that did some of it fails, and says how much.
fn progress(result: libc::c_int, done: i64) -> io::Result<u64> {
    match (result, u64::try_from(done)) {
        (0, Ok(done)) => Ok(done),
        (_, Ok(done)) if done > 0 => Ok(done),
        _ => Err(io::Error::last_os_error()),
    }
}

fn range(slice: &VolatileSlice<'_>) -> Range {
    Range {
        start: slice.ptr_guard().as_ptr().addr() as u64,
        len: slice.len() as u64,
    }
}

fn check(result: libc::c_int) -> io::Result<()> {
    match result {
        0.. => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
