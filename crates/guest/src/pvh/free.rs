//! Ranges of memory, and what remains of them.

/// Bytes of a page.
pub(super) const PAGE: u64 = 4096;

/// Guest-physical addresses from `start` up to, not including, `end`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Range {
    pub(super) start: u64,
    pub(super) end: u64,
}

impl Range {
    /// Bytes.
    pub(super) fn len(&self) -> u64 {
        self.end.saturating_sub(self.start)
    }

    /// The same, on whole pages outside.
    fn outer_pages(self) -> Self {
        Self {
            start: self.start / PAGE * PAGE,
            end: self.end.checked_next_multiple_of(PAGE).unwrap_or(u64::MAX),
        }
    }

    /// The whole pages inside, within `limits`.
    fn inner_pages(self, limits: Range) -> Self {
        Self {
            start: self
                .start
                .max(limits.start)
                .checked_next_multiple_of(PAGE)
                .unwrap_or(u64::MAX),
            end: self.end.min(limits.end) / PAGE * PAGE,
        }
    }
}

/// Writes to `free` the whole pages of `ram` that are `within` and that no range `in_use` touches. Gives how many
/// ranges there are; what does not fit into `free` is left out.
pub(super) fn subtract(
    ram: impl Iterator<Item = Range>,
    within: Range,
    in_use: &[Range],
    free: &mut [Range],
) -> usize {
    let mut count = 0;
    for range in ram {
        let range = range.inner_pages(within);
        let mut start = range.start;
        while start < range.end {
            let next = next_in_use(start, range.end, in_use);
            let end = next.map_or(range.end, |used| used.start.max(start));
            if end > start {
                let Some(slot) = free.get_mut(count) else {
                    return count;
                };
                *slot = Range { start, end };
                count += 1;
            }
            start = next.map_or(range.end, |used| used.end);
        }
    }
    count
}

/// The first range in use, by its pages, that ends behind `start` and begins before `end`.
fn next_in_use(start: u64, end: u64, in_use: &[Range]) -> Option<Range> {
    let pages = in_use
        .iter()
        .filter(|used| used.len() != 0)
        .map(|used| used.outer_pages());
    pages
        .filter(|used| used.end > start && used.start < end)
        .min_by_key(|used| used.start)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use std::vec::Vec;

    use super::*;

    fn range(start: u64, end: u64) -> Range {
        Range { start, end }
    }

    fn remaining(ram: &[Range], within: Range, in_use: &[Range]) -> Vec<Range> {
        let mut free = [range(0, 0); 32];
        let count = subtract(ram.iter().copied(), within, in_use, &mut free);
        free[..count].to_vec()
    }

    #[test]
    fn what_is_in_use_is_cut_out_by_whole_pages() {
        let ram = [range(0, 0x9_fc00), range(0x10_0000, 0x800_0000)];
        let in_use = [
            range(0x700_0010, 0x700_2001),
            range(0x20_0000, 0x20_0000),
            range(0x7ff_f000, 0x800_0000),
        ];
        let free = remaining(&ram, range(0x10_9001, 4 << 30), &in_use);
        assert_eq!(
            free,
            [range(0x10_a000, 0x700_0000), range(0x700_3000, 0x7ff_f000)]
        );
    }

    #[test]
    fn hostile_maps_yield_nothing_that_is_not_there() {
        let within = range(0x10_0000, 4 << 30);
        assert_eq!(
            remaining(&[range(u64::MAX - 1, u64::MAX), range(9, 3)], within, &[]),
            []
        );
        assert_eq!(
            remaining(&[range(0, u64::MAX)], within, &[range(0, u64::MAX)]),
            []
        );
    }

    proptest! {
        #[test]
        fn each_page_is_free_just_if_it_should_be(
            ram in (0_u64..40, 0_u64..40),
            used in prop::collection::vec((0_u64..40, 0_u64..40), 0..5),
            within in (0_u64..40, 0_u64..40),
        ) {
            let pages = |(start, end): (u64, u64)| range(start * PAGE, end * PAGE);
            let used: Vec<_> = used.into_iter().map(pages).collect();
            let (ram, within) = (pages(ram), pages(within));
            let free = remaining(&[ram], within, &used);
            for page in (0..40).map(|page| page * PAGE) {
                let contains = |range: &Range| range.start <= page && page < range.end;
                let expected = contains(&ram) && contains(&within) && !used.iter().any(contains);
                prop_assert_eq!(free.iter().filter(|range| contains(range)).count(), usize::from(expected));
            }
        }
    }
}
