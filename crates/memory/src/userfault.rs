//! Guest RAM whose pages another process gives, when they are touched: `userfaultfd`.
//!
//! One process makes a [`Userfault`] and RAM that is [served](crate::GuestRam::served) by it. Whoever touches a page of it
//! for the first time waits, until somebody who has the descriptor gives the page: the same process or, since descriptors
//! can be sent, another one. [`PageSource`] gives the pages of an [image](crate::image).
//!
//! userfaultfd(2) and ioctl_userfaultfd(2) have the interface; only pages that are *missing* are served, and the kernel is
//! asked to tell of pages that are given back (`UFFD_FEATURE_EVENT_REMOVE`), as a balloon does.
//!
//! # What can go wrong
//!
//! Whoever has the descriptor can give any bytes for a page, once; it cannot change one that is there, nor write elsewhere.
//! If nobody gives the page, whoever touched it waits, without an end. [`Userfault::wake`] has it ask again, so that
//! another can answer; [`GuestRam::seal`](crate::GuestRam::seal) ends the wait by an error.

mod calls;
mod claim;
mod source;

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use vm_memory::{GuestMemoryBackend, GuestMemoryRegion, MemoryRegionAddress, VolatileSlice};

pub use claim::{Claim, Portion};
pub use source::{Lost, PageSource, Served};

use crate::{Backing, GuestRam, HugePages, MemoryConfig, MemoryError, PAGE_SIZE};

/// Events (`UFFD_EVENT_*`).
const EVENT_PAGEFAULT: u8 = 0x12;
const EVENT_REMOVE: u8 = 0x15;

/// What the kernel calls its descriptors.
const WHAT: &str = "anon_inode:[userfaultfd]";

/// Bytes of an event (`struct uffd_msg`).
pub const EVENT_LEN: usize = 32;

/// The descriptor by which pages are asked for and given.
#[derive(Debug)]
pub struct Userfault(OwnedFd);

/// What the kernel says of memory that is served. Addresses are the serving process's guest's: of the process that made
/// the memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// Somebody waits for the page at this address.
    Missing(u64),
    /// These pages have been given back, from the first address to the one behind the last. They are zeros from now on.
    Removed(u64, u64),
    /// Something that was not asked for.
    Other(u8),
}

impl Event {
    /// Reads `struct uffd_msg`: the event, seven bytes without a meaning, and what it is about.
    pub fn read(bytes: &[u8; EVENT_LEN]) -> Self {
        let (numbers, _) = bytes.as_chunks::<8>();
        let number = |index: usize| numbers.get(index).map_or(0, |n| u64::from_ne_bytes(*n));
        match bytes.first() {
            Some(&EVENT_PAGEFAULT) => Self::Missing(number(2) / PAGE_SIZE * PAGE_SIZE),
            Some(&EVENT_REMOVE) => Self::Removed(number(1), number(2)),
            other => Self::Other(other.copied().unwrap_or(0)),
        }
    }
}

/// A range of memory that is served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ServedRange {
    /// Its first byte, in the process that made it.
    pub address: u64,
    /// Bytes.
    pub len: u64,
    /// Where its bytes are in the image.
    pub offset: u64,
}

impl Userfault {
    /// A new one, for memory of this process.
    ///
    /// # Errors
    ///
    /// If the host does not have it, or does not let this process.
    pub fn new() -> io::Result<Self> {
        let userfault = Self(calls::open()?);
        calls::begin(&userfault.0)?;
        Ok(userfault)
    }

    /// The next event; nothing if there is none now.
    ///
    /// # Errors
    ///
    /// If it cannot be read.
    pub fn event(&self) -> io::Result<Option<Event>> {
        let mut bytes = [0; EVENT_LEN];
        match calls::read(&self.0, &mut bytes) {
            Ok(EVENT_LEN) => Ok(Some(Event::read(&bytes))),
            // The other end of something that is no userfaultfd.
            Ok(_) => Err(io::ErrorKind::UnexpectedEof.into()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Gives the pages from `address` these bytes, and wakes who waits for them: how many bytes were given, which is at
    /// least one page and may be fewer than there are.
    ///
    /// # Errors
    ///
    /// `AlreadyExists` if the first page is there, `WouldBlock` if there are events to be read first.
    pub fn copy(&self, address: u64, bytes: &VolatileSlice<'_>) -> io::Result<u64> {
        calls::copy(&self.0, address, bytes)
    }

    /// As [`copy`](Self::copy), for `len` bytes of zeros, which take no memory until they are written to.
    ///
    /// # Errors
    ///
    /// As for [`copy`](Self::copy).
    pub fn zero(&self, address: u64, len: u64) -> io::Result<u64> {
        calls::zero(&self.0, address, len)
    }

    /// Has all who wait for a page of a range look whether it is there, and ask anew if it is not.
    ///
    /// # Errors
    ///
    /// If it is not a range that is served.
    pub fn wake(&self, address: u64, len: u64) -> io::Result<()> {
        calls::wake(&self.0, address, len)
    }
}

/// A descriptor that another process sent. Reading from it does not wait. One of anything else is refused before it is
/// touched: a file of some file systems could have one wait for as long as its owner likes. `/proc` tells.
impl TryFrom<OwnedFd> for Userfault {
    type Error = io::Error;

    fn try_from(fd: OwnedFd) -> io::Result<Self> {
        let what = std::fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd()))?;
        if what != Path::new(WHAT) {
            return Err(io::Error::other(format!(
                "its descriptor is {}, not {WHAT}",
                what.display().to_string().escape_default()
            )));
        }
        calls::set_nonblocking(&fd)?;
        Ok(Self(fd))
    }
}

impl AsFd for Userfault {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl GuestRam {
    /// RAM all of whose pages are missing, and come from whoever answers `userfault`.
    ///
    /// It is anonymous memory of small pages, whatever `config` says but its size.
    ///
    /// # Errors
    ///
    /// As for [`new`](Self::new), and [`MemoryError::Host`] if the host cannot have it served.
    pub fn served(
        config: &MemoryConfig,
        userfault: &Userfault,
    ) -> Result<(Self, Vec<ServedRange>), MemoryError> {
        let config = MemoryConfig {
            backing: Backing::Anonymous,
            huge_pages: HugePages::None,
            prefault: false,
            ..*config
        };
        let mut ram = Self::new(&config)?;
        ram.never_map();
        let mut ranges = Vec::new();
        for (slice, start, offset) in ram.parts()? {
            let served = calls::register(&userfault.0, &slice);
            ranges.push(ServedRange {
                address: served.map_err(|source| MemoryError::Host {
                    what: "have another process serve",
                    size: config.size,
                    source,
                })?,
                len: slice.len() as u64,
                offset,
            });
            ram.note_unknown(start, slice.len() as u64);
        }
        Ok((ram, ranges))
    }

    /// Takes all of RAM away, so that whoever waits for a page of it, or touches it later, has an error: CPUs leave their
    /// guests, system calls fail with `EFAULT`, and the process gets SIGSEGV if it touches RAM itself.
    ///
    /// For the end of a machine whose memory cannot come any more.
    ///
    /// # Errors
    ///
    /// If the kernel refuses.
    pub fn seal(&self, userfault: &Userfault) -> io::Result<()> {
        for (slice, ..) in self.parts().map_err(io::Error::other)? {
            crate::mapping::forbid(&slice)?;
            calls::unregister(&userfault.0, &slice)?;
        }
        Ok(())
    }

    /// As [`seal`](Self::seal), but pages that are missing become zeros: where nobody goes by what they have.
    ///
    /// # Errors
    ///
    /// If the kernel refuses.
    pub fn abandon(&self, userfault: &Userfault) -> io::Result<()> {
        for (slice, ..) in self.parts().map_err(io::Error::other)? {
            calls::unregister(&userfault.0, &slice)?;
        }
        Ok(())
    }

    /// The regions, where they are in guest-physical memory, and where in an image.
    fn parts(&self) -> Result<Vec<(VolatileSlice<'_>, u64, u64)>, MemoryError> {
        let (mut parts, mut offset) = (Vec::new(), 0);
        for region in self.memory().iter() {
            let (start, len) = (region.start_addr().0, region.len());
            let slice = usize::try_from(len)
                .ok()
                .and_then(|len| region.get_slice(MemoryRegionAddress(0), len).ok());
            parts.push((
                slice.ok_or(MemoryError::OutsideRam { start, len })?,
                start,
                offset,
            ));
            offset += len;
        }
        Ok(parts)
    }
}

#[cfg(test)]
mod tests;
