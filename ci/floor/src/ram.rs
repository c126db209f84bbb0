//! Guest RAM: one anonymous mapping, with files mapped over parts of it.

use std::fs::File;
use std::io::{Error, Result};
use std::os::fd::AsRawFd;

/// Guest RAM from guest-physical address 0.
pub struct Ram {
    base: *mut u8,
    size: usize,
}

impl Ram {
    /// Maps `size` bytes, zeroed and not yet backed. They stay mapped until the process ends.
    pub fn new(size: usize) -> Result<Self> {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        // SAFETY: a fresh anonymous mapping at an address of the kernel's choice touches nothing of ours.
        let base = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                size,
                libc::PROT_READ | libc::PROT_WRITE,
                flags,
                -1,
                0,
            )
        };
        if base == libc::MAP_FAILED {
            return Err(Error::last_os_error());
        }
        Ok(Self {
            base: base.cast(),
            size,
        })
    }

    /// Maps the first `size` bytes of `file`, privately.
    pub fn from_file(file: &File, size: usize) -> Result<Self> {
        let (protection, flags) = (
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_NORESERVE,
        );
        // SAFETY: a fresh mapping at an address of the kernel's choice touches nothing of ours.
        let base = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                size,
                protection,
                flags,
                file.as_raw_fd(),
                0,
            )
        };
        if base == libc::MAP_FAILED {
            return Err(Error::last_os_error());
        }
        Ok(Self {
            base: base.cast(),
            size,
        })
    }

    /// Unmaps it.
    pub fn unmap(self) {
        // SAFETY: the mapping is our own, and nobody has a reference into it, as slices borrow from the value.
        unsafe { libc::munmap(self.base.cast(), self.size) };
    }

    /// Host address of the first byte.
    pub fn base(&self) -> *mut u8 {
        self.base
    }

    /// Bytes of RAM.
    pub fn size(&self) -> usize {
        self.size
    }

    /// Maps `len` bytes of `file` from `offset` at guest-physical `address`; both are multiples of a page.
    pub fn map_file(&self, address: u64, file: &File, offset: u64, len: usize) -> Result<()> {
        let at = self.pointer(address, len)?;
        let offset = libc::off_t::try_from(offset).map_err(Error::other)?;
        let (protection, flags) = (
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_FIXED,
        );
        // SAFETY: `pointer` has shown that the range lies inside our own mapping, which is only ever used as bytes,
        // so that it may be replaced; no slice of it is alive, as `slice` is not used before the guest runs.
        let mapped =
            unsafe { libc::mmap(at.cast(), len, protection, flags, file.as_raw_fd(), offset) };
        if mapped == libc::MAP_FAILED {
            Err(Error::last_os_error())
        } else {
            Ok(())
        }
    }

    /// Writes `bytes` at guest-physical `address`.
    pub fn write(&self, address: u64, bytes: &[u8]) -> Result<()> {
        let at = self.pointer(address, bytes.len())?;
        // SAFETY: the range lies inside the mapping, and `bytes` is ours, not the guest's.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), at, bytes.len()) };
        Ok(())
    }

    /// Writes `words` at guest-physical `address`.
    pub fn write_words(&self, address: u64, words: &[u64]) -> Result<()> {
        words
            .iter()
            .zip((address..).step_by(8))
            .try_for_each(|(word, at)| self.write(at, &word.to_le_bytes()))
    }

    /// Zeroes `len` bytes from guest-physical `address`.
    pub fn zero(&self, address: u64, len: usize) -> Result<()> {
        let at = self.pointer(address, len)?;
        // SAFETY: the range lies inside the mapping.
        unsafe { std::ptr::write_bytes(at, 0, len) };
        Ok(())
    }

    /// `len` bytes at guest-physical `address`, while the guest does not run.
    pub fn slice(&self, address: u64, len: usize) -> Result<&[u8]> {
        let at = self.pointer(address, len)?;
        // SAFETY: the range lies inside the mapping, and the only vCPU is stopped in an exit of this very thread for as
        // long as the slice is used.
        Ok(unsafe { std::slice::from_raw_parts(at, len) })
    }

    fn pointer(&self, address: u64, len: usize) -> Result<*mut u8> {
        let start = usize::try_from(address).map_err(Error::other)?;
        if start.checked_add(len).is_none_or(|end| end > self.size) {
            return Err(Error::other(format!(
                "{len} bytes at {address:#x} are not in RAM"
            )));
        }
        // SAFETY: `start` has just been shown to lie inside the mapping, or at its end.
        Ok(unsafe { self.base.add(start) })
    }
}
