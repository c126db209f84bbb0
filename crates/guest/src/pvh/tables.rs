//! Page tables, trap gates and the task state segment, as direct entry has them.
#![allow(unsafe_code, reason = "tables are memory at given addresses")]

use core::arch::naked_asm;

use goldcrest_abi::note::TRAP_STUB_SIZE;
use goldcrest_abi::selector;

use super::free::PAGE;
use super::{Layout, image_end, stub};
use crate::ring0;
use crate::trap::stubs;

/// What a page directory entry maps.
const LARGE_PAGE: u64 = 2 << 20;
/// PML4, PDPT and the four page directories of 4 GiB.
const FIXED: u64 = 6;
/// Devices' registers lie above, the APICs' among them. RAM that a host has there is used, only slowly.
const REGISTERS: u64 = 0xc000_0000;

// Bits of entries (SDM vol. 3A §4.5.4).
const PRESENT: u64 = 1;
const WRITABLE: u64 = 1 << 1;
const USER: u64 = 1 << 2;
const UNCACHED: u64 = 1 << 3 | 1 << 4;
const LARGE: u64 = 1 << 7;
const NO_EXECUTE: u64 = 1 << 63;
const TABLE: u64 = PRESENT | WRITABLE | USER;
const DATA: u64 = PRESENT | WRITABLE | USER | NO_EXECUTE;

/// Bytes of tables for 4 GiB, with everything below `fine` mapped by the page.
pub(super) fn bytes(fine: u64) -> u64 {
    (FIXED + fine.div_ceil(LARGE_PAGE)) * PAGE
}

/// Builds the tables of the layout and switches to them.
///
/// # Safety
///
/// The layout is within free memory; the provisional tables of the stub are in use, which map all of it.
pub(super) unsafe fn install(layout: &Layout) {
    let pml4 = layout.tables.start;
    // SAFETY: all entries are within the tables of the layout, and the stub's descriptor tables are there to be filled.
    // The new page tables map all that is in use where it was.
    unsafe {
        write_page_tables(layout);
        write_gates();
        write_task_state();
        ring0::call(load_page_tables, pml4);
    }
}

/// # Safety
///
/// As for [`install`].
unsafe fn write_page_tables(layout: &Layout) {
    let pml4 = layout.tables.start;
    let (pdpt, directories) = (pml4 + PAGE, pml4 + 2 * PAGE);
    let pages = pml4 + FIXED * PAGE;
    let fine = layout.guard + PAGE;
    // SAFETY: `bytes` has counted these tables; free memory may hold anything, so that each is written as a whole.
    unsafe {
        fill(pml4, 1, |_| pdpt | TABLE);
        fill(pdpt, 4, |index| (directories + index * PAGE) | TABLE);
        for index in 0..4 * 512 {
            let start = index * LARGE_PAGE;
            let entry = if start < fine {
                (pages + index * PAGE) | TABLE
            } else if start >= REGISTERS {
                start | LARGE | DATA | UNCACHED
            } else {
                start | LARGE | DATA
            };
            stub::pointer::<u64>(directories + index * 8).write(entry);
        }
        for index in 0..fine.div_ceil(LARGE_PAGE) * 512 {
            let address = index * PAGE;
            let guard = address == 0 || address == layout.guard;
            let entry = if guard {
                0
            } else {
                address | permissions(address)
            };
            stub::pointer::<u64>(pages + index * 8).write(entry);
        }
    }
}

/// Writes the first `count` entries of a table, and zero to the others.
///
/// # Safety
///
/// A page for a table is at `table`.
unsafe fn fill(table: u64, count: u64, entry: impl Fn(u64) -> u64) {
    for index in 0..512 {
        let entry = if index < count { entry(index) } else { 0 };
        // SAFETY: within the page.
        unsafe { stub::pointer::<u64>(table + index * 8).write(entry) };
    }
}

/// What the page at `address` may be used for: the linker script knows the image's segments.
fn permissions(address: u64) -> u64 {
    let [start, code, data] = [
        &raw const stub::IMAGE_START,
        &raw const stub::CODE_START,
        &raw const stub::DATA_START,
    ]
    .map(stub::address_of);
    if !(start..image_end()).contains(&address) || address >= data {
        DATA
    } else if address >= code {
        PRESENT | USER
    } else {
        PRESENT | USER | NO_EXECUTE
    }
}

/// Fills the interrupt descriptor table with ring-0 interrupt gates (SDM vol. 3A §6.14.1).
///
/// # Safety
///
/// As for [`install`].
unsafe fn write_gates() {
    let idt = stub::address_of(stub::IDT.0.get().cast());
    let vectors = stub::address_of(&raw const stubs::TRAP_VECTORS);
    for vector in 0..256 {
        let target = vectors + vector * TRAP_STUB_SIZE;
        // Breakpoints may be raised by ring 3.
        let kind: u64 = if vector == 3 { 0xee00 } else { 0x8e00 };
        let low = target & 0xffff
            | u64::from(selector::KERNEL_CODE) << 16
            | kind << 32
            | (target >> 16 & 0xffff) << 48;
        // SAFETY: the table has 256 gates of 16 bytes.
        unsafe {
            stub::pointer::<u64>(idt + vector * 16).write(low);
            stub::pointer::<u64>(idt + vector * 16 + 8).write(target >> 32);
        }
    }
}

/// Fills the task state segment: the stack for traps, and a bitmap that allows the ports (SDM vol. 3A §8.7).
///
/// # Safety
///
/// As for [`install`].
unsafe fn write_task_state() {
    let task_state = stub::address_of(stub::TASK_STATE.0.get().cast());
    let stack = stub::address_of(stubs::TRAP_STACK.top());
    // SAFETY: all within the segment, whose bitmap is zero as part of the image's zeroed memory.
    unsafe {
        stub::pointer::<u64>(task_state + 4).write_unaligned(stack);
        stub::pointer::<u16>(task_state + 102).write_unaligned(104);
        stub::pointer::<u8>(task_state + stub::TASK_STATE_SIZE as u64 - 1).write(0xff);
    }
}

/// Runs in ring 0: loads CR3 with its argument.
#[unsafe(naked)]
unsafe extern "C" fn load_page_tables(pml4: u64) -> u64 {
    naked_asm!("mov cr3, rdi", "ret")
}
