//! Which pages of RAM can be anything but zeros, by what the kernel knows of them: looking at all of them would bring
//! them all into being.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::OnceLock;

use super::{next_data, next_hole};
use crate::PAGE_SIZE;
use crate::ram::Behind;

/// Bits of an entry in `/proc/self/pagemap` (`Documentation/admin-guide/mm/pagemap.rst`).
const PRESENT: u64 = 1 << 63;
const SWAPPED: u64 = 1 << 62;
const OF_A_FILE: u64 = 1 << 61;
/// Bytes of an entry.
const ENTRY: usize = 8;

/// What the kernel tells of this process's pages.
pub(crate) struct PageMap(Option<File>);

impl PageMap {
    /// Where there is none, all pages can be anything.
    pub(crate) fn open() -> Self {
        static DENIED: OnceLock<()> = OnceLock::new();
        if DENIED.get().is_some() {
            return Self(None);
        }
        let file = File::open("/proc/self/pagemap");
        if file.is_err() {
            let _ = DENIED.set(());
        }
        Self(file.ok())
    }

    /// Marks those of the pages from host address `address` that were touched and, with `private`, do not belong to a
    /// file. False if nobody knows.
    pub(crate) fn mark(&self, address: u64, pages: &mut [bool], private: bool) -> bool {
        let Some(file) = &self.0 else {
            return false;
        };
        let mut entries = vec![0; pages.len() * ENTRY];
        let offset = address / PAGE_SIZE * ENTRY as u64;
        if file.read_exact_at(&mut entries, offset).is_err() {
            return false;
        }
        let (entries, _) = entries.as_chunks::<ENTRY>();
        for (page, entry) in pages.iter_mut().zip(entries) {
            let entry = u64::from_le_bytes(*entry);
            let own = !private || entry & OF_A_FILE == 0;
            *page |= entry & SWAPPED != 0 || entry & PRESENT != 0 && own;
        }
        true
    }
}

/// Marks those of the pages from guest-physical `start` that come from what is behind a range of RAM, if they are not
/// touched before.
pub(crate) fn mark_behind(behind: &Behind, start: u64, pages: &mut [bool]) -> io::Result<()> {
    let end = start.saturating_add(pages.len() as u64 * PAGE_SIZE);
    let from = behind.start.max(start);
    let to = behind.start.saturating_add(behind.len).min(end);
    if from >= to {
        return Ok(());
    }
    let mut mark = |from: u64, to: u64| {
        let first = (from - start) / PAGE_SIZE;
        let last = (to - start).div_ceil(PAGE_SIZE);
        for page in first..last {
            if let Some(page) = usize::try_from(page).ok().and_then(|at| pages.get_mut(at)) {
                *page = true;
            }
        }
    };
    let Some((file, offset)) = &behind.file else {
        mark(from, to);
        return Ok(());
    };
    // Offsets in the file.
    let (mut at, end) = (from - behind.start + offset, to - behind.start + offset);
    while let Some(data) = next_data(file, at)?.filter(|data| *data < end) {
        let hole = next_hole(file, data)?.unwrap_or(end).min(end);
        mark(data - offset + behind.start, hole - offset + behind.start);
        at = hole.max(at + 1);
        if at >= end {
            break;
        }
    }
    Ok(())
}
