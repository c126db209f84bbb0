//! Which pages of an image a machine touched, so that another has them before it does.
//!
//! RAM that is [mapped from an image](crate::GuestRam::from_image) has a fault for each page that is touched first. A run can
//! be asked afterwards which pages those were ([`WorkingSet::of`]), and all others be given them at once
//! ([`GuestRam::populate`](crate::GuestRam::populate)): pages that were only read are mapped from the page cache, which all
//! share; pages that were written to are copied, as they would be.

use std::io;

use serde::{Deserialize, Serialize};
use vm_memory::{GuestMemoryBackend, GuestMemoryRegion, MemoryRegionAddress, VolatileSlice};

use crate::image::PageMap;
use crate::{GuestRam, PAGE_SIZE, mapping};

/// The most extents that a working set has: what is in between belongs to it, too, if there are more.
pub const MAX_EXTENTS: usize = 16 << 10;
/// Pages that the kernel is asked for together.
const CHUNK: u64 = 4096;
/// Pages that were not read, between such as were: mapping them costs less than not to.
const GAP: u64 = 16;

/// Pages of RAM, by their places in the image.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkingSet {
    /// Those that were read, by ascending place.
    read: Vec<Extent>,
    /// Those that were written to, by ascending place.
    written: Vec<Extent>,
}

/// Pages in a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Extent {
    /// The number of the first.
    first: u64,
    /// How many.
    pages: u64,
}

impl WorkingSet {
    /// The pages of RAM, mapped from an image, that were touched since it was made.
    ///
    /// # Errors
    ///
    /// If the host does not tell: `/proc/self/pagemap` is needed.
    pub fn of(ram: &GuestRam) -> io::Result<Self> {
        let map = PageMap::open();
        let (mut read, mut written) = (Extents::new(GAP), Extents::new(0));
        let mut place = 0;
        for region in ram.memory().iter() {
            let pages = region.len() / PAGE_SIZE;
            for first in (0..pages).step_by(usize::try_from(CHUNK).unwrap_or(1)) {
                let count = usize::try_from(CHUNK.min(pages - first)).unwrap_or(0);
                let address = region
                    .get_host_address(MemoryRegionAddress(first * PAGE_SIZE))
                    .map_err(io::Error::other)?
                    .addr() as u64;
                let told = map.entries(address, count, |at, entry| {
                    let number = place + first + at as u64;
                    match (entry.is_there(), entry.is_of_a_file()) {
                        (true, false) => written.add(number),
                        (true, true) => read.add(number),
                        (false, _) => {}
                    }
                });
                if !told {
                    return Err(io::ErrorKind::Unsupported.into());
                }
            }
            place += pages;
        }
        Ok(Self {
            read: read.bounded(),
            written: written.bounded(),
        })
    }

    /// Whether it can be one of an image of `size` bytes of RAM; what is wrong with it, if not.
    ///
    /// # Errors
    ///
    /// What is wrong, and what should have been.
    pub fn check(&self, size: u64) -> Result<(), String> {
        for extents in [&self.read, &self.written] {
            if extents.len() > MAX_EXTENTS {
                let count = extents.len();
                return Err(format!(
                    "{count} extents: at most {MAX_EXTENTS} are possible"
                ));
            }
            let mut after = 0;
            for Extent { first, pages } in extents {
                let end = first
                    .checked_add(*pages)
                    .filter(|end| *end <= size / PAGE_SIZE);
                after = match end {
                    Some(end) if *pages > 0 && *first >= after => end,
                    _ => {
                        let all = size / PAGE_SIZE;
                        return Err(format!(
                            "{pages} pages from {first} behind {after}, of {all} that there are"
                        ));
                    }
                };
            }
        }
        Ok(())
    }

    /// Bytes of the pages that were read, and of those that were written to.
    pub fn bytes(&self) -> (u64, u64) {
        let bytes = |extents: &[Extent]| {
            let pages = extents.iter().map(|extent| extent.pages);
            pages.fold(0, u64::saturating_add).saturating_mul(PAGE_SIZE)
        };
        (bytes(&self.read), bytes(&self.written))
    }
}

impl GuestRam {
    /// Has the pages of a working set be there before they are touched: by one call for pages that are read, and one for
    /// pages that are written to, where the kernel takes that.
    ///
    /// It changes nothing but how soon they are there. Where the kernel refuses, they come when they are touched. Pages that
    /// RAM does not have are left out.
    pub fn populate(&self, set: &WorkingSet) {
        // A write after a read would take a huge page of the file away that the read has mapped.
        let advices = [
            (&set.written, libc::MADV_POPULATE_WRITE),
            (&set.read, libc::MADV_POPULATE_READ),
        ];
        for (extents, advice) in advices {
            let slices = self.slices(extents);
            if mapping::advise_all(&slices, advice).is_err() {
                for slice in &slices {
                    if mapping::advise(slice, advice).is_err() {
                        break;
                    }
                }
            }
        }
    }

    /// Where these pages of the image are.
    fn slices(&self, extents: &[Extent]) -> Vec<VolatileSlice<'_>> {
        let (mut slices, mut place) = (Vec::with_capacity(extents.len()), 0);
        for region in self.memory().iter() {
            let pages = region.len() / PAGE_SIZE;
            for extent in extents {
                let from = extent.first.max(place);
                let to = extent.first.saturating_add(extent.pages).min(place + pages);
                if from >= to {
                    continue;
                }
                let at = MemoryRegionAddress((from - place) * PAGE_SIZE);
                let slice = usize::try_from((to - from) * PAGE_SIZE)
                    .ok()
                    .and_then(|len| region.get_slice(at, len).ok());
                slices.extend(slice);
            }
            place += pages;
        }
        slices
    }
}

/// Extents that are being made of pages by ascending number.
struct Extents {
    extents: Vec<Extent>,
    /// So many pages between two do not part them.
    gap: u64,
}

impl Extents {
    fn new(gap: u64) -> Self {
        let extents = Vec::new();
        Self { extents, gap }
    }

    fn add(&mut self, number: u64) {
        self.join(Extent {
            first: number,
            pages: 1,
        });
    }

    fn join(&mut self, next: Extent) {
        match self.extents.last_mut() {
            Some(last) if next.first - (last.first + last.pages) <= self.gap => {
                last.pages = next.first + next.pages - last.first;
            }
            _ => self.extents.push(next),
        }
    }

    /// Not more than are possible.
    fn bounded(mut self) -> Vec<Extent> {
        while self.extents.len() > MAX_EXTENTS {
            self.gap = (self.gap * 2).max(1);
            for extent in std::mem::take(&mut self.extents) {
                self.join(extent);
            }
        }
        self.extents
    }
}

#[cfg(test)]
mod tests;
