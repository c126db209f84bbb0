//! Pages that go back to the host.

use std::io;

use vm_memory::{
    GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion, GuestRegionMmap, VolatileSlice,
};

use crate::{PAGE_SIZE, mapping};

/// What a huge page of the reserved pool has, in bytes.
const HUGE_PAGE: u64 = 2 << 20;
/// Pieces of mapped files that are at least so long become anonymous memory when they must be zeros; shorter ones stay,
/// so that a guest cannot have its RAM cut into more mappings than the host allows a process.
const REPLACED: usize = 2 << 20;

/// What the guest expects of pages that it gives away, when it has them back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Contents {
    /// Nothing: they may come back as zeros, or as what the file has that was mapped there.
    Unneeded,
    /// They are zeros, by the guest's word, and stay so.
    Zeros,
}

/// Gives the whole pages of `len` bytes from guest-physical `start` back to the host. They stay RAM: the host gives new
/// ones when they are touched. Returns how many bytes it has given back.
///
/// What is not RAM is left out, and so are parts of pages: with huge pages of the reserved pool, whatever is not whole
/// huge pages. Where a file is mapped over RAM, the guest's copies of its pages go, and the file's pages are there again;
/// pages that must be [zeros](Contents::Zeros) become anonymous memory instead, or stay as they are if they are fewer
/// than 2 MiB.
///
/// # Errors
///
/// What `madvise` gives; the pages before have been given back.
pub fn discard(
    memory: &GuestMemoryMmap,
    start: u64,
    len: u64,
    contents: Contents,
) -> io::Result<u64> {
    let end = start.saturating_add(len);
    let mut given = 0;
    for region in memory.iter() {
        let first = region.start_addr().0;
        let from = start.max(first);
        let to = end.min(first.saturating_add(region.len()));
        if let Some(len) = to.checked_sub(from).filter(|len| *len > 0) {
            given += discard_in(region, from - first, len, contents)?;
        }
    }
    Ok(given)
}

/// As [`discard`], in one region, of which all of the range is a part.
fn discard_in(
    region: &GuestRegionMmap,
    offset: u64,
    len: u64,
    contents: Contents,
) -> io::Result<u64> {
    let invalid = |_| io::Error::from(io::ErrorKind::InvalidInput);
    let (offset, len) = (
        usize::try_from(offset).map_err(invalid)?,
        usize::try_from(len).map_err(invalid)?,
    );
    let slice = region
        .as_volatile_slice()
        .and_then(|all| all.subslice(offset, len).map_err(Into::into))
        .map_err(io::Error::other)?;
    let huge = region.is_hugetlbfs() == Some(true) || region.flags() & libc::MAP_HUGETLB != 0;
    let Some(pages) = whole_pages(&slice, if huge { HUGE_PAGE } else { PAGE_SIZE }) else {
        return Ok(0);
    };
    if region.flags() & libc::MAP_SHARED != 0 {
        // Only a hole in what is behind the mapping gives anything back.
        mapping::advise(&pages, libc::MADV_REMOVE)?;
    } else if contents == Contents::Unneeded || huge || is_anonymous(&pages)? {
        mapping::advise(&pages, libc::MADV_DONTNEED)?;
    } else if pages.len() >= REPLACED {
        mapping::map_zeros_over(&pages)?;
    } else {
        return Ok(0);
    }
    Ok(pages.len() as u64)
}

/// The part of a slice that is whole pages of the host.
fn whole_pages<'a>(slice: &VolatileSlice<'a>, page: u64) -> Option<VolatileSlice<'a>> {
    let page = usize::try_from(page).ok()?;
    let address = slice.ptr_guard().as_ptr().addr();
    let head = address.checked_next_multiple_of(page)? - address;
    let len = slice.len().checked_sub(head)? / page * page;
    (len > 0).then(|| slice.subslice(head, len).ok())?
}

/// Whether no file is mapped over any of it. The kernel tells by taking advice for anonymous memory alone: that the pages
/// may be dropped, when it wants to, which is true of them: they are zeros, and will be.
fn is_anonymous(pages: &VolatileSlice<'_>) -> io::Result<bool> {
    match mapping::advise(pages, libc::MADV_FREE) {
        Ok(()) => Ok(true),
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Ok(false),
        Err(error) => Err(error),
    }
}
