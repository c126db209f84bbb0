//! Which pages of RAM can be anything but zeros, by what the kernel knows of them: looking at all of them would bring
//! them all into being. And which have changed, where they are write-protected.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::OnceLock;

use super::{next_data, next_hole};
use crate::PAGE_SIZE;
use crate::ram::Behind;

/// Bits of an entry in `/proc/self/pagemap` (`Documentation/admin-guide/mm/pagemap.rst`).
const PRESENT: u64 = 1 << 63;
const SWAPPED: u64 = 1 << 62;
const OF_A_FILE: u64 = 1 << 61;
const WRITE_PROTECTED: u64 = 1 << 57;
/// Bytes of an entry.
const ENTRY: usize = 8;

/// What the kernel tells of a page of this process.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PageEntry(u64);

impl PageEntry {
    /// Whether it was touched, and not given back since.
    pub(crate) fn is_there(self) -> bool {
        self.0 & (PRESENT | SWAPPED) != 0
    }

    /// Whether it is in memory.
    pub(crate) fn is_present(self) -> bool {
        self.0 & PRESENT != 0
    }

    /// Whether it is a file's.
    pub(crate) fn is_of_a_file(self) -> bool {
        self.0 & OF_A_FILE != 0
    }

    /// Whether it is write-protected by userfaultfd.
    pub(crate) fn is_write_protected(self) -> bool {
        self.0 & WRITE_PROTECTED != 0
    }
}

/// What the kernel tells of this process's pages.
#[derive(Debug)]
pub(crate) struct PageMap(Option<File>);

impl PageMap {
    /// Where there is none, nothing is known of any page.
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

    /// Whether there is one.
    pub(crate) fn is_there(&self) -> bool {
        self.0.is_some()
    }

    /// Calls `each` with the number, from 0 on, and the entry of each of `count` pages from host address `address`. False
    /// if nobody knows.
    pub(crate) fn entries(
        &self,
        address: u64,
        count: usize,
        mut each: impl FnMut(usize, PageEntry),
    ) -> bool {
        let Some(file) = &self.0 else {
            return false;
        };
        let mut entries = vec![0; count * ENTRY];
        let offset = address / PAGE_SIZE * ENTRY as u64;
        if file.read_exact_at(&mut entries, offset).is_err() {
            return false;
        }
        let (entries, _) = entries.as_chunks::<ENTRY>();
        for (page, entry) in entries.iter().enumerate() {
            each(page, PageEntry(u64::from_le_bytes(*entry)));
        }
        true
    }

    /// Marks those of the pages from host address `address` that were touched. False if nobody knows.
    pub(crate) fn mark(&self, address: u64, pages: &mut [bool]) -> bool {
        self.entries(address, pages.len(), |at, entry| {
            if let Some(page) = pages.get_mut(at).filter(|_| entry.is_there()) {
                *page = true;
            }
        })
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
    let Some((file, offset)) = &behind.file else {
        mark_range(pages, from - start, to - start);
        return Ok(());
    };
    let in_file = |at: u64| at - behind.start + offset;
    mark_data(file, in_file(from)..in_file(to), |data| {
        let at = |offset_in_file: u64| offset_in_file - offset + behind.start - start;
        mark_range(pages, at(data.start), at(data.end));
    })
}

/// Marks the pages that have any of the bytes from `from` to `to`, both counted from the first page.
pub(super) fn mark_range(pages: &mut [bool], from: u64, to: u64) {
    for page in from / PAGE_SIZE..to.div_ceil(PAGE_SIZE) {
        if let Some(page) = usize::try_from(page).ok().and_then(|at| pages.get_mut(at)) {
            *page = true;
        }
    }
}

/// Calls `mark` with each part of a range of a file that is not a hole.
pub(super) fn mark_data(
    file: &File,
    range: Range<u64>,
    mut mark: impl FnMut(Range<u64>),
) -> io::Result<()> {
    let (mut at, end) = (range.start, range.end);
    while let Some(data) = next_data(file, at)?.filter(|data| *data < end) {
        let hole = next_hole(file, data)?.unwrap_or(end).min(end);
        mark(data..hole);
        at = hole.max(at + 1);
        if at >= end {
            break;
        }
    }
    Ok(())
}
