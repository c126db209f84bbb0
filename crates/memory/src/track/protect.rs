//! The system calls of write protection (`userfaultfd(2)`, `ioctl_userfaultfd(2)`).
#![allow(
    unsafe_code,
    reason = "userfaultfd has no safe interface: ioctls with structures behind pointers"
)]

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// `UFFD_API`.
const API: u64 = 0xaa;
/// `UFFD_USER_MODE_ONLY`: faults of the kernel's are not handed over. None is, here, so that it takes no privilege.
const USER_MODE_ONLY: libc::c_int = 1;
/// `UFFD_FEATURE_PAGEFAULT_FLAG_WP`, `_WP_UNPOPULATED`, `_WP_ASYNC`.
const FEATURES: u64 = 1 << 0 | 1 << 13 | 1 << 15;
/// `UFFDIO_REGISTER_MODE_WP`.
const REGISTER_WP: u64 = 1 << 1;
/// `UFFDIO_WRITEPROTECT_MODE_WP`.
const PROTECT: u64 = 1 << 0;

/// `struct uffdio_api`.
#[repr(C)]
struct Api {
    api: u64,
    features: u64,
    ioctls: u64,
}

/// `struct uffdio_register`.
#[repr(C)]
struct Register {
    start: u64,
    len: u64,
    mode: u64,
    ioctls: u64,
}

/// `struct uffdio_writeprotect`.
#[repr(C)]
struct WriteProtect {
    start: u64,
    len: u64,
    mode: u64,
}

/// `_IOWR(0xaa, number, T)` (`include/uapi/asm-generic/ioctl.h`).
const fn request<T>(number: u64) -> u64 {
    3 << 30 | (size_of::<T>() as u64) << 16 | 0xaa << 8 | number
}

/// Write-protects pages of this process, until it is dropped.
pub(super) struct Protector(OwnedFd);

impl Protector {
    pub(super) fn new() -> io::Result<Self> {
        // SAFETY: no memory is involved.
        let fd = unsafe { libc::syscall(libc::SYS_userfaultfd, libc::O_CLOEXEC | USER_MODE_ONLY) };
        let fd = match libc::c_int::try_from(fd) {
            Ok(fd) if fd >= 0 => fd,
            _ => return Err(io::Error::last_os_error()),
        };
        // SAFETY: `fd` was just opened and belongs to nobody else.
        let protector = Self(unsafe { OwnedFd::from_raw_fd(fd) });
        let mut api = Api {
            api: API,
            features: FEATURES,
            ioctls: 0,
        };
        // SAFETY: the kernel reads and writes one structure, of the length that the request says.
        match unsafe { protector.ioctl(request::<Api>(0x3f), &mut api) } {
            Ok(()) => Ok(protector),
            // What it does not know, it refuses.
            Err(_) => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    /// Has `len` bytes from `start`, a mapping of this process, be such as can be protected.
    pub(super) fn register(&self, start: u64, len: u64) -> io::Result<()> {
        let mut register = Register {
            start,
            len,
            mode: REGISTER_WP,
            ioctls: 0,
        };
        // SAFETY: the kernel reads and writes one structure. Registered memory is as it was, but that pages can be
        // protected; and as the protection goes away by itself, nobody's access waits.
        unsafe { self.ioctl(request::<Register>(0), &mut register) }
    }

    /// Protects `len` bytes from `start`, all of which are registered.
    pub(super) fn protect(&self, start: u64, len: u64) -> io::Result<()> {
        self.set(start, len, PROTECT)
    }

    /// Takes the protection of `len` bytes from `start` away.
    pub(super) fn unprotect(&self, start: u64, len: u64) -> io::Result<()> {
        self.set(start, len, 0)
    }

    fn set(&self, start: u64, len: u64, mode: u64) -> io::Result<()> {
        let mut protect = WriteProtect { start, len, mode };
        // SAFETY: the kernel reads one structure. Contents stay, and so do all accesses that are possible.
        unsafe { self.ioctl(request::<WriteProtect>(6), &mut protect) }
    }

    /// # Safety
    ///
    /// `argument` must be what `request` is for.
    unsafe fn ioctl<T>(&self, request: u64, argument: &mut T) -> io::Result<()> {
        loop {
            // SAFETY: as the caller promises; the descriptor is open for as long as `self` lives.
            let result = unsafe {
                libc::ioctl(
                    self.0.as_raw_fd(),
                    request as libc::Ioctl,
                    &raw mut *argument,
                )
            };
            if result == 0 {
                return Ok(());
            }
            let error = io::Error::last_os_error();
            if !matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::EINTR)) {
                return Err(error);
            }
        }
    }
}
