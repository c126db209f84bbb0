//! Which pages have changed since a moment.

mod protect;

use std::fmt;
use std::io;

use vm_memory::{
    GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion, GuestRegionMmap, MemoryRegionAddress,
};

use self::protect::Protector;
use crate::image::PageMap;
use crate::{GuestRam, PAGE_SIZE};

/// Pages that are looked at together.
const BATCH: usize = 4096;

/// Watches RAM: all that changes it, from the moment when this is made or [begun anew](Self::begin), is seen. Guests,
/// devices, the kernel on behalf of either, and pages that go back to the host.
///
/// Pages are write-protected by userfaultfd in the mode in which the kernel takes the protection away at a write and
/// wakes nobody (`UFFD_FEATURE_WP_ASYNC`, Linux 6.7 or newer), and a page that is not protected any more has changed.
/// So it does not matter by whom or by which address a page was written to. A page costs its next writer a fault.
///
/// Where a page of a private mapping was given back, the file's page is there again, and keeps the protection that the
/// other had: so it is written down in the beginning which pages were not a file's. One that was not and is, or is not in
/// memory, has changed.
pub struct Tracker {
    protector: Protector,
    memory: GuestMemoryMmap,
    map: PageMap,
    /// For each region, and each page of it, whether it was not a file's.
    private: Vec<Vec<u64>>,
}

impl Tracker {
    /// Watches `ram` from now on. Nobody changes it meanwhile.
    ///
    /// # Errors
    ///
    /// [`Unsupported`](io::ErrorKind::Unsupported) where the kernel cannot do it, and for RAM that is shared or of huge
    /// pages of the reserved pool; else what `userfaultfd` gives, as when another one has RAM.
    pub fn new(ram: &GuestRam) -> io::Result<Self> {
        let map = PageMap::open();
        if !ram.is_private() || !map.is_there() {
            return Err(io::ErrorKind::Unsupported.into());
        }
        let mut tracker = Self {
            protector: Protector::new()?,
            memory: ram.memory().clone(),
            map,
            private: Vec::new(),
        };
        tracker.begin()?;
        Ok(tracker)
    }

    /// Watches from now on. Nobody changes RAM meanwhile.
    ///
    /// # Errors
    ///
    /// What the kernel gives. What has changed before is not known then.
    pub fn begin(&mut self) -> io::Result<()> {
        let again = !std::mem::take(&mut self.private).is_empty();
        for region in self.memory.iter() {
            let (address, len) = place(region)?;
            // Parts of it may be mapped anew since the last time.
            self.protector.register(address, len)?;
            if again {
                // What is left of protection where no page is would be taken for a page that is swapped out.
                self.protector.unprotect(address, len)?;
            }
            let private = self.private(address, len)?;
            self.private.push(private);
            self.protector.protect(address, len)?;
        }
        Ok(())
    }

    /// Which of the pages of `len` bytes from host address `address` are not a file's: a bit for each.
    fn private(&self, address: u64, len: u64) -> io::Result<Vec<u64>> {
        let count = usize::try_from(len / PAGE_SIZE).map_err(io::Error::other)?;
        let mut private = vec![0_u64; count.div_ceil(64)];
        for first in (0..count).step_by(BATCH) {
            let batch = BATCH.min(count - first);
            let at = address + first as u64 * PAGE_SIZE;
            let known = self.map.entries(at, batch, |page, entry| {
                let page = first + page;
                if let Some(word) = private
                    .get_mut(page / 64)
                    .filter(|_| entry.is_there() && !entry.is_of_a_file())
                {
                    *word |= 1 << (page % 64);
                }
            });
            if !known {
                return Err(io::ErrorKind::Unsupported.into());
            }
        }
        Ok(private)
    }

    /// Marks those of the pages from host address `address` that have changed.
    pub(crate) fn mark(&self, address: u64, pages: &mut [bool]) -> io::Result<()> {
        let mut region = None;
        for (found, private) in self.memory.iter().zip(&self.private) {
            let (start, len) = place(found)?;
            if let Some(offset) = address.checked_sub(start).filter(|offset| *offset < len) {
                region = Some((offset / PAGE_SIZE, private));
            }
        }
        let (first, private) = region.ok_or(io::ErrorKind::InvalidInput)?;
        let first = usize::try_from(first).map_err(io::Error::other)?;
        let was_private = |page: usize| {
            let page = first + page;
            let word = private.get(page / 64).copied();
            word.is_none_or(|word| word & 1 << (page % 64) != 0)
        };
        let known = self.map.entries(address, pages.len(), |at, entry| {
            let is_private = entry.is_present() && !entry.is_of_a_file();
            let given_back = was_private(at) && !is_private;
            if let Some(page) = pages.get_mut(at)
                && (!entry.is_write_protected() || given_back)
            {
                *page = true;
            }
        });
        if !known {
            pages.fill(true);
        }
        Ok(())
    }
}

impl fmt::Debug for Tracker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tracker").finish_non_exhaustive()
    }
}

/// Host address and length of a region, in bytes.
fn place(region: &GuestRegionMmap) -> io::Result<(u64, u64)> {
    let address = region
        .get_host_address(MemoryRegionAddress(0))
        .map_err(io::Error::other)?;
    Ok((address.addr() as u64, region.len()))
}
