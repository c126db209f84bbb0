//! The way in by PVH (Xen `docs/misc/pvh.pandoc`), which most monitors know: QEMU, Firecracker, Cloud Hypervisor.
//!
//! A host that speaks PVH starts the image in 32-bit mode without paging. The stub makes the least of a 64-bit machine
//! and leaves for ring 3; there, this module builds what direct entry would have found: page tables that keep code,
//! constants and data apart, trap gates, a stack with a guard page, boot information. What follows is the same for
//! both.
#![allow(
    unsafe_code,
    reason = "what the host and the stub left is found by address"
)]

mod free;
mod start_info;
pub mod stub;
mod tables;

use core::arch::naked_asm;

use goldcrest_abi::boot_info::{self, BootInfo, MemoryRegion, region};
use goldcrest_abi::note;

use crate::entry::{Main, Options};
use crate::exit::{exit, status};
use crate::{entry, machine, time};
use free::{PAGE, Range};
use start_info::StartInfo;

/// What PVH maps, and the most memory that is used.
const LIMIT: u64 = 4 << 30;
/// The regions that are told of at most; the page of the boot information has room for them.
const MAX_REGIONS: usize = 64;

/// [`BootInfo::size`].
const BOOT_INFO_SIZE: u32 = 160;
const _: () = assert!(BOOT_INFO_SIZE as usize == size_of::<BootInfo>());

/// The first page that is not of the image.
fn image_end() -> u64 {
    stub::address_of(&raw const stub::IMAGE_END)
}

/// What the stub calls, in ring 3, on a provisional stack.
///
/// # Safety
///
/// Called once, by the stub, with the address that the host passed in `ebx`.
pub unsafe fn start(start_info: u64, options: Options, main: Main) -> ! {
    let entered = time::tsc();
    machine::find_doorbells();
    // SAFETY: the host puts the structure there; all memory below 4 GiB is mapped.
    let Some(info) = (unsafe { start_info::read(start_info) }) else {
        fail("there is no PVH start information")
    };
    let (free, count) = free_memory(&info);
    let free = free.get(..count).unwrap_or_default();
    let Some(layout) = Layout::choose(free, options.stack()) else {
        fail("there is too little free memory for its stack and tables")
    };
    #[cfg(feature = "virtio")]
    crate::boot::set_all_mapped();
    // SAFETY: what the start information refers to is not among the free memory, which is all that is given away.
    unsafe { crate::boot::set_memory_map(info.memory_map()) };
    // SAFETY: the layout is within free memory, which is mapped; the stub has run, and nothing else does.
    unsafe {
        tables::install(&layout);
        write_boot_info(&layout, &info, free);
        run_on(layout.stack.end, layout.boot_info, entered, main)
    }
}

fn fail(why: &str) -> ! {
    crate::println!("this unikernel cannot start: {why}");
    exit(status::BOOT_INFO)
}

/// Where things go in free memory, one after the other from its beginning.
struct Layout {
    /// Not mapped.
    guard: u64,
    stack: Range,
    /// A page.
    boot_info: u64,
    tables: Range,
    /// All of the above.
    all: Range,
}

impl Layout {
    /// In the first range that has room for a stack of at least `stack_size` bytes and the rest.
    fn choose(free: &[Range], stack_size: u64) -> Option<Self> {
        free.iter()
            .find_map(|range| Self::within(*range, stack_size))
    }

    fn within(range: Range, stack_size: u64) -> Option<Self> {
        let guard = range.start.checked_next_multiple_of(PAGE)?;
        let stack_start = guard.checked_add(PAGE)?;
        let stack = Range {
            start: stack_start,
            end: stack_start.checked_add(stack_size.checked_next_multiple_of(PAGE)?)?,
        };
        let boot_info = stack.end;
        let tables_start = boot_info.checked_add(PAGE)?;
        let tables = Range {
            start: tables_start,
            end: tables_start.checked_add(tables::bytes(stack_start))?,
        };
        let all = Range {
            start: range.start,
            end: tables.end,
        };
        (tables.end <= range.end).then_some(Self {
            guard,
            stack,
            boot_info,
            tables,
            all,
        })
    }
}

/// Memory that is nobody's: what the host says is RAM, above the image and below 4 GiB, without what is in use.
fn free_memory(info: &StartInfo) -> ([Range; MAX_REGIONS], usize) {
    let ram = info
        .memory_map()
        .iter()
        .filter(|entry| entry.kind == region::USABLE);
    let ram = ram.map(|entry| Range {
        start: entry.start,
        end: entry.start.saturating_add(entry.len),
    });
    let within = Range {
        start: image_end(),
        end: LIMIT,
    };
    let mut free = [Range { start: 0, end: 0 }; MAX_REGIONS];
    let count = free::subtract(ram, within, &info.in_use(), &mut free);
    (free, count)
}

/// # Safety
///
/// The layout is within free memory, which is mapped.
unsafe fn write_boot_info(layout: &Layout, info: &StartInfo, free: &[Range]) {
    let regions = layout.boot_info + size_of::<BootInfo>() as u64;
    let used = MemoryRegion {
        start: layout.all.start,
        len: layout.all.len(),
        kind: region::RESERVED,
        reserved: 0,
    };
    let free = free.iter().map(|range| {
        let start = if range.start == layout.all.start {
            layout.all.end
        } else {
            range.start
        };
        MemoryRegion {
            start,
            len: range.end - start,
            kind: region::USABLE,
            reserved: 0,
        }
    });
    let mut region_count = 0;
    for (region, at) in core::iter::once(used)
        .chain(free)
        .zip((regions..).step_by(size_of::<MemoryRegion>()))
    {
        // SAFETY: `MAX_REGIONS` and one fit into the page behind the boot information.
        unsafe { stub::pointer::<MemoryRegion>(at).write(region) };
        region_count += 1;
    }
    let (cmdline, cmdline_len) = info.command_line();
    let initrd = info.initrd();
    let boot_info = BootInfo {
        magic: boot_info::MAGIC,
        version: note::VERSION,
        size: BOOT_INFO_SIZE,
        cmdline,
        cmdline_len,
        regions,
        region_count,
        initrd: initrd.start,
        initrd_len: initrd.len(),
        rsdp: info.rsdp(),
        fdt: 0,
        pvclock: 0,
        tsc_khz: 0,
        wall_clock_ns: 0,
        cpus: 1,
        reserved: 0,
        marks: [0; boot_info::mark::COUNT],
        generation_id: [0; 16],
    };
    // SAFETY: the page is the layout's.
    unsafe { stub::pointer::<BootInfo>(layout.boot_info).write(boot_info) };
}

const _: () =
    assert!(size_of::<BootInfo>() + (MAX_REGIONS + 1) * size_of::<MemoryRegion>() <= 4096);

/// Goes on in [`continue_on_stack`] on another stack.
///
/// # Safety
///
/// The stack is mapped and nobody's; nothing on the old one is needed again.
#[unsafe(naked)]
unsafe extern "C" fn run_on(stack_top: u64, boot_info: u64, entered: u64, main: Main) -> ! {
    naked_asm!(
        "mov rsp, rdi",
        "push 0",
        "mov rdi, rsi",
        "mov rsi, rdx",
        "mov rdx, rcx",
        "jmp {next}",
        next = sym continue_on_stack,
    )
}

unsafe extern "C" fn continue_on_stack(boot_info: u64, entered: u64, main: Main) -> ! {
    // SAFETY: `start` has written the boot information there, in memory that is nobody else's.
    unsafe { entry::run(stub::pointer(boot_info), entered, main) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FREE: Range = Range {
        start: 0x10_0800,
        end: 0x100_0000,
    };

    #[test]
    fn a_stack_is_whole_pages_above_its_guard() {
        let layout = Layout::choose(&[FREE], PAGE + 1).expect("15 MiB are enough");
        assert_eq!(layout.guard, 0x10_1000);
        assert_eq!(
            (layout.stack.start, layout.stack.end),
            (0x10_2000, 0x10_4000)
        );
    }

    #[test]
    fn a_stack_that_no_memory_holds_is_refused() {
        for wanted in [FREE.len(), u64::MAX - PAGE, u64::MAX - 0x10_4000, u64::MAX] {
            assert!(Layout::choose(&[FREE], wanted).is_none(), "{wanted:#x}");
        }
    }
}
