//! What direct entry maps: all RAM at its own address, each part as far open as the contract says.

use std::collections::BTreeSet;
use std::ops::Range;

use goldcrest_memory::layout;

use crate::areas::{AreaKind, Areas, whole_pages};
use crate::elf::Elf;
use crate::paging::{Access, PageTables, page_size};
use crate::{BootConfig, Hardware, MmioDevice};

/// Device registers are mapped by pages of 2 MiB, which saves tables; nothing else answers there, and RAM is not near.
const REGISTERS: u64 = page_size(1);
const LOCAL_APIC: Range<u64> = layout::LOCAL_APIC..layout::LOCAL_APIC + REGISTERS;
const IOAPIC: Range<u64> = layout::IOAPIC..layout::IOAPIC + REGISTERS;
const _: () =
    assert!(IOAPIC.end <= LOCAL_APIC.start && layout::HOLE_START.is_multiple_of(REGISTERS));

/// Page tables, to lie from `base`, for a guest that starts in `ring`.
pub(crate) fn page_tables(
    areas: &Areas,
    elf: &Elf,
    ring: u32,
    base: u64,
    config: &BootConfig<'_>,
    hardware: &Hardware<'_>,
) -> PageTables {
    let plain = Access {
        write: true,
        execute: false,
        user: ring == 3,
        uncached: false,
    };
    let mut tables = PageTables::new(base, config.gigabyte_pages);
    for (range, access) in mappings(areas, elf, plain) {
        tables.map(range, access);
    }
    let uncached = Access {
        uncached: true,
        ..plain
    };
    tables.map(LOCAL_APIC, uncached);
    if !hardware.mmio.is_empty() {
        tables.map(IOAPIC, uncached);
        for page in device_pages(hardware) {
            tables.map(page..page + REGISTERS, uncached);
        }
    }
    tables
}

/// The large pages with the registers of virtio devices, all of which lie below the IOAPIC.
fn device_pages(hardware: &Hardware<'_>) -> BTreeSet<u64> {
    let ranges = hardware.mmio.iter().map(MmioDevice::range);
    ranges
        .flat_map(|range| range.start / REGISTERS..range.end.div_ceil(REGISTERS))
        .map(|number| number * REGISTERS)
        .collect()
}

/// RAM by ascending address, in ranges of the same access that are as long as possible.
fn mappings(areas: &Areas, elf: &Elf, plain: Access) -> Vec<(Range<u64>, Access)> {
    let exceptions = exceptions(areas, elf, plain);
    let mut mappings = Vec::new();
    for ram in areas.ram() {
        let mut next = ram.start;
        for (range, access) in &exceptions {
            if range.end > next && range.start < ram.end {
                push(&mut mappings, next..range.start, Some(plain));
                push(&mut mappings, next.max(range.start)..range.end, *access);
                next = range.end;
            }
        }
        push(&mut mappings, next..ram.end, Some(plain));
    }
    mappings
}

/// The pages that are not just plain memory, by ascending address.
fn exceptions(areas: &Areas, elf: &Elf, plain: Access) -> Vec<(Range<u64>, Option<Access>)> {
    let host_only = Access {
        user: false,
        ..plain
    };
    let hosts = areas.used().iter().filter_map(|area| match area.kind {
        AreaKind::Guard => Some((area.range.clone(), None)),
        AreaKind::Tables => Some((area.range.clone(), Some(host_only))),
        _ => None,
    });
    let segments = elf.segments.iter().map(|segment| {
        let access = Access {
            write: segment.write,
            execute: segment.execute,
            ..plain
        };
        (whole_pages(&segment.range()), Some(access))
    });
    let mut exceptions: Vec<_> = hosts.chain(segments).collect();
    exceptions.sort_by_key(|(range, _)| range.start);
    exceptions
}

fn push(mappings: &mut Vec<(Range<u64>, Access)>, range: Range<u64>, access: Option<Access>) {
    let Some(access) = access.filter(|_| !range.is_empty()) else {
        return;
    };
    match mappings.last_mut() {
        Some((last, last_access)) if last.end == range.start && *last_access == access => {
            last.end = range.end;
        }
        _ => mappings.push((range, access)),
    }
}
