//! Who lies where in guest RAM: claims at fixed addresses, and gaps for what can lie anywhere.

use std::fmt;
use std::ops::Range;

use goldcrest_memory::{GuestRam, PAGE_SIZE, layout};

use crate::BootError;

/// What a range of guest-physical addresses holds when the guest starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum AreaKind {
    /// Nothing, and nothing may be put there: page 0, and the guard page under the stack of direct entry.
    Guard,
    /// A part of the image.
    Image,
    /// The stack that the guest is started on.
    Stack,
    /// The initial RAM disk.
    Initrd,
    /// A module; the initial RAM disk is one where a protocol has modules.
    Module,
    /// What the guest is told: boot information, command line, memory map.
    BootInfo,
    /// Page tables, descriptor tables: what the processor is told.
    Tables,
    /// ACPI tables.
    Acpi,
    /// Not RAM on a PC, although RAM is there: what firmware and video adapters use below 1 MiB.
    Firmware,
}

impl fmt::Display for AreaKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Guard => "page 0 or a guard page",
            Self::Image => "the image",
            Self::Stack => "the stack",
            Self::Initrd => "the initial RAM disk",
            Self::Module => "a module",
            Self::BootInfo => "the boot information",
            Self::Tables => "the processor's tables",
            Self::Acpi => "the ACPI tables",
            Self::Firmware => "what a PC reserves below 1 MiB",
        })
    }
}

/// A range of guest-physical addresses in use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Area {
    /// What it holds.
    pub kind: AreaKind,
    /// The addresses.
    pub range: Range<u64>,
}

/// RAM and the areas in it.
#[derive(Debug)]
pub(crate) struct Areas {
    ram: Vec<Range<u64>>,
    /// Sorted by address, without overlaps.
    used: Vec<Area>,
}

impl Areas {
    pub(crate) fn new(ram: &GuestRam) -> Self {
        let ram = ram.regions();
        Self {
            ram: ram
                .map(|r| r.start..r.start.saturating_add(r.len))
                .collect(),
            used: Vec::new(),
        }
    }

    /// RAM, by ascending address.
    pub(crate) fn ram(&self) -> &[Range<u64>] {
        &self.ram
    }

    /// What is in use, by ascending address.
    pub(crate) fn used(&self) -> &[Area] {
        &self.used
    }

    pub(crate) fn into_used(self) -> Vec<Area> {
        self.used
    }

    pub(crate) fn is_ram(&self, range: &Range<u64>) -> bool {
        let holds = |ram: &Range<u64>| ram.start <= range.start && range.end <= ram.end;
        self.ram.iter().any(holds)
    }

    /// Whether a range is RAM that nothing has taken.
    pub(crate) fn is_free(&self, range: &Range<u64>) -> bool {
        self.is_ram(range) && !self.used.iter().any(|area| overlap(&area.range, range))
    }

    /// Takes a range that must be free RAM. `image` and `what` are for the message.
    pub(crate) fn claim(
        &mut self,
        kind: AreaKind,
        range: Range<u64>,
        image: &str,
        what: &dyn fmt::Display,
    ) -> Result<(), BootError> {
        let (start, last) = (range.start, range.end.saturating_sub(1));
        if !self.is_ram(&range) {
            return Err(BootError::OutsideRam {
                image: image.to_owned(),
                what: what.to_string(),
                start,
                last,
                ram: self.describe_ram(),
            });
        }
        if let Some(other) = self.used.iter().find(|area| overlap(&area.range, &range)) {
            return Err(BootError::Overlap {
                image: image.to_owned(),
                what: what.to_string(),
                start,
                last,
                other: other.kind.to_string(),
            });
        }
        self.insert(kind, range);
        Ok(())
    }

    /// Takes the lowest gap below `limit` for `len` bytes, in whole pages.
    pub(crate) fn lowest(
        &mut self,
        kind: AreaKind,
        what: &'static str,
        len: u64,
        limit: u64,
    ) -> Result<u64, BootError> {
        self.lowest_in(kind, what, len, 0..limit)
    }

    /// Takes the lowest gap in a range for `len` bytes, in whole pages.
    pub(crate) fn lowest_in(
        &mut self,
        kind: AreaKind,
        what: &'static str,
        len: u64,
        range: Range<u64>,
    ) -> Result<u64, BootError> {
        let gap = self.find_lowest_in(what, len, range)?;
        let start = gap.start;
        self.insert(kind, gap);
        Ok(start)
    }

    /// Finds the lowest gap below `limit` for `len` bytes, in whole pages.
    pub(crate) fn find_lowest(
        &self,
        what: &'static str,
        len: u64,
        limit: u64,
    ) -> Result<Range<u64>, BootError> {
        self.find_lowest_in(what, len, 0..limit)
    }

    /// Finds the lowest gap for `len` bytes in a range that begins with a page, in whole pages.
    fn find_lowest_in(
        &self,
        what: &'static str,
        len: u64,
        range: Range<u64>,
    ) -> Result<Range<u64>, BootError> {
        let limit = range.end;
        let pages = pages(len).ok_or_else(|| self.no_room(what, len, limit))?;
        let mut starts = self.gaps(limit).filter_map(|gap| {
            let start = gap.start.max(range.start);
            (gap.end.checked_sub(start)? >= pages).then_some(start)
        });
        let start = starts.next();
        start
            .map(|start| start..start + pages)
            .ok_or_else(|| self.no_room(what, len, limit))
    }

    /// Takes the highest gap below `limit` for `len` bytes, in whole pages.
    pub(crate) fn highest(
        &mut self,
        kind: AreaKind,
        what: &'static str,
        len: u64,
        limit: u64,
    ) -> Result<u64, BootError> {
        let pages = pages(len).ok_or_else(|| self.no_room(what, len, limit))?;
        let gaps = self.gaps(limit);
        let gap = gaps.filter(|gap| gap.end - gap.start >= pages).last();
        let Some(Range { end, .. }) = gap else {
            return Err(self.no_room(what, len, limit));
        };
        self.insert(kind, end - pages..end);
        Ok(end - pages)
    }

    /// Finds the lowest or the highest gap for `len` bytes in a range, that begins with a multiple of `align`, a power
    /// of two.
    pub(crate) fn find_aligned(
        &self,
        what: &'static str,
        len: u64,
        range: Range<u64>,
        align: u64,
        highest: bool,
    ) -> Result<u64, BootError> {
        let limit = range.end;
        let mut starts = self.gaps(limit).filter_map(|gap| {
            let lowest = gap.start.max(range.start).checked_next_multiple_of(align)?;
            let last = gap.end.checked_sub(len)?;
            let start = if highest {
                last / align * align
            } else {
                lowest
            };
            (lowest <= start && start <= last).then_some(start)
        });
        let start = if highest {
            starts.last()
        } else {
            starts.next()
        };
        start.ok_or_else(|| self.no_room(what, len, limit))
    }

    /// Takes a range that [`find_lowest`](Self::find_lowest) found, or a part of it.
    pub(crate) fn insert(&mut self, kind: AreaKind, range: Range<u64>) {
        let sorted = |area: &Area| area.range.start < range.start;
        let at = self.used.partition_point(sorted);
        self.used.insert(at, Area { kind, range });
    }

    /// RAM in words, for messages.
    pub(crate) fn describe_ram(&self) -> String {
        let ranges = self.ram.iter();
        let words: Vec<_> = ranges
            .map(|ram| format!("{:#x}-{:#x}", ram.start, ram.end.saturating_sub(1)))
            .collect();
        words.join(" and ")
    }

    fn no_room(&self, what: &'static str, len: u64, limit: u64) -> BootError {
        BootError::NoRoom {
            what,
            len,
            limit,
            advice: if self.can_grow_below(limit) {
                "give the guest more memory"
            } else {
                "make it smaller or leave it more room, as more memory would lie above"
            },
            ram: self.describe_ram(),
        }
    }

    /// Whether some of what a larger guest had more would lie below `limit`.
    fn can_grow_below(&self, limit: u64) -> bool {
        let end = self.ram.last().map_or(0, |ram| ram.end);
        let next = if end == layout::HOLE_START {
            layout::HOLE_END
        } else {
            end
        };
        next < limit
    }

    /// Free ranges of whole pages below `limit`, by ascending address.
    fn gaps(&self, limit: u64) -> impl Iterator<Item = Range<u64>> {
        self.ram.iter().flat_map(move |ram| {
            let inside = self.used.iter().filter(|area| overlap(&area.range, ram));
            let starts = inside.clone().map(|area| area.range.start).chain([ram.end]);
            let ends = [ram.start]
                .into_iter()
                .chain(inside.map(|area| area.range.end));
            ends.zip(starts).filter_map(move |(start, end)| {
                let start = start.checked_next_multiple_of(PAGE_SIZE)?;
                let end = page_of(end.min(limit));
                (start < end).then_some(start..end)
            })
        })
    }
}

pub(crate) fn overlap(a: &Range<u64>, b: &Range<u64>) -> bool {
    a.start < b.end && b.start < a.end
}

/// The page that an address lies in.
pub(crate) fn page_of(address: u64) -> u64 {
    address & !(PAGE_SIZE - 1)
}

/// The whole pages that a range touches.
pub(crate) fn whole_pages(range: &Range<u64>) -> Range<u64> {
    page_of(range.start)..pages(range.end).unwrap_or(page_of(u64::MAX))
}

fn pages(len: u64) -> Option<u64> {
    len.checked_next_multiple_of(PAGE_SIZE)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn areas<const N: usize>(ram: [Range<u64>; N]) -> Areas {
        Areas {
            ram: ram.into(),
            used: Vec::new(),
        }
    }

    #[test]
    fn gaps_are_found_around_claims_and_page_aligned() {
        let mut areas = areas([0..0x10_000, 0x20_000..0x30_000]);
        let kind = AreaKind::Image;
        areas.claim(kind, 0x1800..0x2001, "k", &"a").unwrap();
        areas.claim(kind, 0x2f_000..0x30_000, "k", &"b").unwrap();
        let max = u64::MAX;
        assert_eq!(areas.lowest(kind, "x", 0x1000, max).unwrap(), 0);
        assert_eq!(areas.lowest(kind, "x", 1, max).unwrap(), 0x3000);
        assert_eq!(areas.highest(kind, "x", 0x1001, max).unwrap(), 0x2d_000);
        assert_eq!(areas.highest(kind, "x", 0x1000, 0x8fff).unwrap(), 0x7000);
        assert_eq!(areas.lowest(kind, "x", 0xd000, max).unwrap(), 0x20_000);
        assert!(areas.lowest(kind, "x", 0xd000, max).is_err());
        assert!(areas.highest(kind, "x", max, max).is_err());
        assert!(areas.used().is_sorted_by_key(|area| area.range.start));
    }

    #[test]
    fn claims_outside_of_ram_and_on_each_other_are_refused() {
        let mut areas = areas([0..0x10_000, 0x20_000..0x21_000]);
        let kind = AreaKind::Image;
        areas
            .claim(kind, 0x2000..0x3000, "k", &"segment 0")
            .unwrap();
        let error = areas.claim(kind, 0x2fff..0x4000, "k", &"segment 1");
        assert_eq!(
            error.unwrap_err().to_string(),
            "k: segment 1 takes 0x2fff-0x3fff, which overlaps the image"
        );
        let error = areas.claim(kind, 0xf000..0x10_001, "k", &"segment 2");
        assert_eq!(
            error.unwrap_err().to_string(),
            "k: segment 2 takes 0xf000-0x10000, where the guest has no RAM (0x0-0xffff and 0x20000-0x20fff): \
             give the guest more memory or link the image lower"
        );
    }

    #[test]
    fn more_memory_is_advised_only_where_it_helps() {
        let advice = |ram_end, limit| {
            let areas = areas([0..0x1000, 0x1000..ram_end]);
            let error = areas.find_lowest("x", 8 << 30, limit).unwrap_err();
            error.to_string().contains("give the guest more memory")
        };
        assert!(advice(64 << 20, 128 << 20));
        assert!(!advice(64 << 20, 64 << 20));
        assert!(!advice(64 << 20, 32 << 20));
        assert!(!advice(layout::HOLE_START, layout::HOLE_END));
        assert!(advice(layout::HOLE_START, u64::MAX));
    }
}
