//! The end of a program that starts another one in its place: a Linux kernel, by its 64-bit entry point (Linux,
//! `Documentation/arch/x86/boot.rst`, "64-bit Boot Protocol").
#![allow(
    unsafe_code,
    reason = "page tables, segments, and a jump that does not return"
)]

use core::arch::naked_asm;
use core::fmt;

use crate::area::Area;
use crate::{console, ring0};

/// What the kernel runs on first: page tables that map 4 GiB to itself. They are replaced soon.
const TABLES: usize = 6;
const TABLE_SIZE: usize = 4096;
const PAGE: u64 = 4096;
/// Bits of their entries (SDM vol. 3A §4.5.4): present and writable; a page of 2 MiB.
const TABLE: u64 = 0b11;
const LARGE: u64 = TABLE | 1 << 7;
const LARGE_PAGE: u64 = 2 << 20;

/// The descriptors that the protocol asks for: `__BOOT_CS` and `__BOOT_DS`.
const BOOT_CS: u64 = 0x10;
const BOOT_DS: u64 = 0x18;
static DESCRIPTORS: [u64; 4] = [0, 0, 0x00af_9b00_0000_ffff, 0x00cf_9300_0000_ffff];

/// What [`enter`] reads; the order is known to it.
#[repr(C)]
struct State {
    page_tables: u64,
    boot_params: u64,
    entry: u64,
    /// What `lgdt` reads: the limit in the upper two bytes, then the address.
    limit: u64,
    descriptors: u64,
}

/// Why a kernel was not started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Refusal {
    /// The entry point is outside.
    Entry,
    /// There is no memory for page tables.
    OutOfMemory,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Entry => "its entry point is outside of it",
            Self::OutOfMemory => "there is too little memory for page tables",
        })
    }
}

/// Starts a kernel in place of this program: interrupts are disabled, `rsi` has the address of `boot_params`.
///
/// The kernel lies in `kernel`, its entry point at this offset. Whatever the program has in memory is the kernel's to
/// overwrite, so that drivers have to be dropped before: their devices would go on to write to memory. Returns only if it
/// is not possible.
pub fn start_linux(mut kernel: Area, entry: u64, boot_params: Area) -> Refusal {
    if entry >= kernel.bytes().len() as u64 {
        return Refusal::Entry;
    }
    let Some(tables) = page_tables() else {
        return Refusal::OutOfMemory;
    };
    console::flush();
    let state = State {
        page_tables: tables.address(),
        boot_params: boot_params.address(),
        entry: kernel.address() + entry,
        limit: (size_of_val(&DESCRIPTORS) as u64 - 1) << 48,
        descriptors: DESCRIPTORS.as_ptr().expose_provenance() as u64,
    };
    // SAFETY: the function does not return, so that nothing of this program is left that could be unsound. Page tables,
    // descriptors and state lie below 4 GiB, which both the present and the new page tables map.
    unsafe { ring0::call(enter, (&raw const state).expose_provenance() as u64) };
    Refusal::Entry
}

fn page_tables() -> Option<Area> {
    let mut area = Area::new(TABLES * TABLE_SIZE, TABLE_SIZE)?;
    let pml4 = area.address();
    let (pdpt, directories) = (pml4 + PAGE, pml4 + 2 * PAGE);
    let (entries, _) = area.bytes().as_chunks_mut::<8>();
    for (index, entry) in (0_u64..).zip(entries) {
        let value = match index {
            0 => pdpt | TABLE,
            512..516 => (directories + (index - 512) * PAGE) | TABLE,
            1024.. => ((index - 1024) * LARGE_PAGE) | LARGE,
            _ => 0,
        };
        *entry = value.to_le_bytes();
    }
    Some(area)
}

/// Runs in ring 0, with interrupts disabled: leaves for the kernel with the state at `rdi`.
#[unsafe(naked)]
unsafe extern "C" fn enter(state: u64) -> u64 {
    naked_asm!(
        "mov rax, [rdi]",
        "mov rsi, [rdi + 8]",
        "mov rdx, [rdi + 16]",
        "lgdt [rdi + 30]",
        "mov cr3, rax",
        "mov eax, {data}",
        "mov ds, eax",
        "mov es, eax",
        "mov ss, eax",
        "xor eax, eax",
        "mov fs, eax",
        "mov gs, eax",
        "push 2",
        "popfq",
        "push {code}",
        "push rdx",
        "xor ebx, ebx",
        "xor ebp, ebp",
        "xor edi, edi",
        "retfq",
        data = const BOOT_DS,
        code = const BOOT_CS,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn four_gibibytes_are_mapped_to_themselves() {
        let mut area = page_tables().expect("there is memory");
        let base = area.address();
        let (entries, _) = area.bytes().as_chunks::<8>();
        let entry = |index: usize| u64::from_le_bytes(entries[index]);
        assert_eq!(entry(0), (base + PAGE) | 3);
        assert_eq!(entry(1), 0);
        assert_eq!(
            [512, 515, 516].map(entry),
            [(base + 2 * PAGE) | 3, (base + 5 * PAGE) | 3, 0]
        );
        assert_eq!(
            [1024, 1025, 3071].map(entry),
            [0x83, 0x20_0083, 0xffe0_0083]
        );
        assert_eq!(entries.len(), 3072);
    }

    #[test]
    fn the_state_is_laid_out_as_the_assembly_reads_it() {
        assert_eq!(core::mem::offset_of!(State, boot_params), 8);
        assert_eq!(core::mem::offset_of!(State, entry), 16);
        assert_eq!(core::mem::offset_of!(State, limit) + 6, 30);
        assert_eq!(core::mem::offset_of!(State, descriptors), 32);
    }
}
