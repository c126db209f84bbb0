//! The memory map that a guest is told: every address of RAM, by what it is there for.

use std::ops::Range;

use crate::areas::{Area, Areas};

/// RAM from the lowest to the highest address, without overlaps: free parts are `free`, the others what `told` makes of
/// the areas. Neighbours of the same kind are one.
pub(crate) fn memory_map(
    areas: &Areas,
    free: u32,
    told: impl Fn(&Area) -> (Range<u64>, u32),
) -> Vec<(Range<u64>, u32)> {
    let mut map = Vec::new();
    for ram in areas.ram() {
        let mut next = ram.start;
        for area in areas.used() {
            let (range, kind) = told(area);
            if range.end <= next || range.start >= ram.end {
                continue;
            }
            push(&mut map, next..range.start, free);
            push(&mut map, next.max(range.start)..range.end, kind);
            next = range.end;
        }
        push(&mut map, next..ram.end, free);
    }
    map
}

fn push(map: &mut Vec<(Range<u64>, u32)>, range: Range<u64>, kind: u32) {
    if range.is_empty() {
        return;
    }
    match map.last_mut() {
        Some((last, last_kind)) if last.end == range.start && *last_kind == kind => {
            last.end = range.end;
        }
        _ => map.push((range, kind)),
    }
}
