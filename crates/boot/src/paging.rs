//! Page tables for 4-level paging (SDM vol. 3A §4.5), built in host memory and written to the guest in one piece.

use std::ops::Range;

use goldcrest_memory::PAGE_SIZE;
use zerocopy::IntoBytes;
use zerocopy::little_endian::U64;

const ENTRIES: usize = 512;

const PRESENT: u64 = 1 << 0;
const WRITE: u64 = 1 << 1;
const USER: u64 = 1 << 2;
const WRITE_THROUGH: u64 = 1 << 3;
const CACHE_DISABLE: u64 = 1 << 4;
/// Set from the start, so that the processor need not write to the tables.
const ACCESSED: u64 = 1 << 5;
const DIRTY: u64 = 1 << 6;
/// PS: the entry maps a page of 2 MiB or 1 GiB.
const LARGE: u64 = 1 << 7;
const NO_EXECUTE: u64 = 1 << 63;
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;

/// What may be done with a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Access {
    pub(crate) write: bool,
    pub(crate) execute: bool,
    /// Ring 3 may use it.
    pub(crate) user: bool,
    /// Device registers.
    pub(crate) uncached: bool,
}

impl Access {
    fn bits(self) -> u64 {
        let bit = |set: bool, bits: u64| if set { bits } else { 0 };
        PRESENT
            | ACCESSED
            | bit(self.write, WRITE | DIRTY)
            | bit(!self.execute, NO_EXECUTE)
            | bit(self.user, USER)
            | bit(self.uncached, WRITE_THROUGH | CACHE_DISABLE)
    }
}

/// Page tables that map addresses to themselves. The first table is the root (PML4).
pub(crate) struct PageTables {
    /// Guest-physical address of the first table.
    base: u64,
    gigabyte_pages: bool,
    tables: Vec<[U64; ENTRIES]>,
}

impl PageTables {
    /// No address mapped. The tables will lie from `base`, which is page-aligned.
    pub(crate) fn new(base: u64, gigabyte_pages: bool) -> Self {
        Self {
            base,
            gigabyte_pages,
            tables: vec![[U64::ZERO; ENTRIES]],
        }
    }

    /// Maps whole pages, none of which is mapped yet, by the largest pages that fit.
    pub(crate) fn map(&mut self, range: Range<u64>, access: Access) {
        let mut address = range.start;
        while address < range.end {
            let level = self.largest_level(address, range.end - address);
            self.set(address, level, access);
            address = address.saturating_add(page_size(level));
        }
    }

    /// How many tables there are, of a page each.
    pub(crate) fn len(&self) -> u64 {
        u64::try_from(self.tables.len()).unwrap_or(u64::MAX)
    }

    /// The tables as the guest has them from `base`.
    pub(crate) fn bytes(&self) -> &[u8] {
        self.tables.as_bytes()
    }

    fn largest_level(&self, address: u64, left: u64) -> u32 {
        let fits = |level| {
            let size = page_size(level);
            address.is_multiple_of(size) && left >= size
        };
        match () {
            () if self.gigabyte_pages && fits(2) => 2,
            () if fits(1) => 1,
            () => 0,
        }
    }

    fn set(&mut self, address: u64, level: u32, access: Access) {
        let mut table = 0;
        for upper in (level + 1..4).rev() {
            table = self.next(table, index(address, upper));
        }
        let large = if level > 0 { LARGE } else { 0 };
        if let Some(entry) = self.entry(table, index(address, level)) {
            entry.set(address & ADDRESS | access.bits() | large);
        }
    }

    /// The table behind an entry, made if there is none.
    fn next(&mut self, table: usize, index: usize) -> usize {
        let new = self.tables.len();
        let base = self.base;
        let Some(entry) = self.entry(table, index) else {
            return table;
        };
        if entry.get() & PRESENT != 0 {
            let offset = (entry.get() & ADDRESS).wrapping_sub(base);
            return usize::try_from(offset / PAGE_SIZE).unwrap_or(usize::MAX);
        }
        let offset = u64::try_from(new).unwrap_or(0).wrapping_mul(PAGE_SIZE);
        entry.set(base.wrapping_add(offset) & ADDRESS | PRESENT | WRITE | USER | ACCESSED);
        self.tables.push([U64::ZERO; ENTRIES]);
        new
    }

    fn entry(&mut self, table: usize, index: usize) -> Option<&mut U64> {
        self.tables.get_mut(table)?.get_mut(index)
    }
}

/// Bytes that an entry of a level maps: 0 for 4 KiB, 1 for 2 MiB, 2 for 1 GiB.
pub(crate) const fn page_size(level: u32) -> u64 {
    PAGE_SIZE << (9 * level)
}

fn index(address: u64, level: u32) -> usize {
    usize::try_from(address >> (12 + 9 * level) & 0x1ff).unwrap_or(0)
}
