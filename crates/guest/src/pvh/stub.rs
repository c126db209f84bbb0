//! The 32-bit entry and the tables that it uses.
//!
//! The stub is written out by [`main!`](crate::main) in the final program, because its absolute 32-bit addresses exist
//! in a program at a fixed address only.
#![allow(unsafe_code, reason = "memory that assembly and the processor use")]

use core::cell::UnsafeCell;

use goldcrest_abi::{PORT_LIMIT, selector};

/// Memory for a table of the processor's.
#[repr(C, align(4096))]
pub struct Table<const SIZE: usize>(pub(super) UnsafeCell<[u8; SIZE]>);

// SAFETY: only assembly, the processor and `pvh::tables` access it, all before `main` runs.
unsafe impl<const SIZE: usize> Sync for Table<SIZE> {}

impl<const SIZE: usize> Table<SIZE> {
    const fn new() -> Self {
        Self(UnsafeCell::new([0; SIZE]))
    }
}

/// Bytes of the task state segment: 104, then a bitmap of ports and the byte of ones that ends it.
pub const TASK_STATE_SIZE: usize = 104 + PORT_LIMIT as usize / 8 + 1;

/// Provisional page tables: PML4, PDPT and four page directories map 4 GiB to itself.
pub static PAGE_TABLES: Table<{ 6 * 4096 }> = Table::new();
/// The global descriptor table.
pub static GDT: Table<{ selector::GDT_SIZE }> = Table::new();
/// The interrupt descriptor table, filled before the first trap.
pub static IDT: Table<4096> = Table::new();
/// The task state segment.
pub static TASK_STATE: Table<TASK_STATE_SIZE> = Table::new();
/// The stack of ring 0 on the way out, and of ring 3 until there is a better one.
pub static STACK: Table<8192> = Table::new();

unsafe extern "C" {
    /// Where the image begins; this and the following are symbols of the linker script.
    #[link_name = "goldcrest_image_start"]
    pub(super) static IMAGE_START: u8;
    #[link_name = "goldcrest_code_start"]
    pub(super) static CODE_START: u8;
    #[link_name = "goldcrest_data_start"]
    pub(super) static DATA_START: u8;
    #[link_name = "goldcrest_image_end"]
    pub(super) static IMAGE_END: u8;
}

/// The address of something, as a number that [`pointer`] takes back.
pub(super) fn address_of(what: *const u8) -> u64 {
    what.expose_provenance() as u64
}

/// What is at an address.
pub(super) fn pointer<T>(address: u64) -> *mut T {
    core::ptr::with_exposed_provenance_mut(usize::try_from(address).unwrap_or_default())
}

/// The 32-bit entry: from what PVH gives (flat 32-bit segments, no paging, the start information's address in `ebx`) to
/// ring 3 in 64-bit mode. A part of [`main!`](crate::main).
#[doc(hidden)]
#[macro_export]
macro_rules! __pvh_entry {
    ($next:path) => {
        #[unsafe(naked)]
        unsafe extern "C" fn pvh_entry() { ::core::arch::naked_asm!(
            ".code32",
            "cld",
            // PML4 and PDPT, then 2048 pages of 2 MiB: present, writable, user.
            "mov edi, offset {page_tables}",
            "lea eax, [edi + 0x1007]",
            "mov [edi], eax",
            "lea eax, [edi + 0x2007]",
            "mov [edi + 0x1000], eax",
            "add eax, 0x1000",
            "mov [edi + 0x1008], eax",
            "add eax, 0x1000",
            "mov [edi + 0x1010], eax",
            "add eax, 0x1000",
            "mov [edi + 0x1018], eax",
            "mov eax, 0x87",
            "xor ecx, ecx",
            "2:",
            "mov [edi + ecx * 8 + 0x2000], eax",
            "add eax, 0x200000",
            "inc ecx",
            "cmp ecx, 2048",
            "jne 2b",
            // The descriptors, with the address of the task state segment filled in.
            "mov edi, offset {gdt}",
            "mov esi, offset goldcrest_gdt_template",
            "mov ecx, {gdt_size} / 4",
            "rep movsd",
            "mov eax, offset {task_state}",
            "mov [edi - {gdt_size} + {tss} + 2], ax",
            "shr eax, 16",
            "mov [edi - {gdt_size} + {tss} + 4], al",
            "mov [edi - {gdt_size} + {tss} + 7], ah",
            "lgdt [goldcrest_gdt_pointer]",
            // Long mode (SDM vol. 3A §9.8.5): PAE and SSE, the tables, LME and NXE, paging with write protection.
            "mov eax, 0x620",
            "mov cr4, eax",
            "mov eax, offset {page_tables}",
            "mov cr3, eax",
            "mov ecx, 0xc0000080",
            "rdmsr",
            "or eax, 0x900",
            "wrmsr",
            "mov eax, 0x80010033",
            "mov cr0, eax",
            // A far jump to 64-bit code.
            ".byte 0xea",
            ".long goldcrest_pvh_64",
            ".short {kernel_code}",
            ".code64",
            "goldcrest_pvh_64:",
            "mov eax, {kernel_data}",
            "mov ss, eax",
            "lea rsp, [rip + {stack} + 8192]",
            "lidt [rip + goldcrest_idt_pointer]",
            "mov eax, {tss}",
            "ltr ax",
            "mov edi, ebx",
            "mov rax, rsp",
            "push {user_data}",
            "sub rax, 8",
            "push rax",
            "push 0x3002",
            "push {user_code}",
            "lea rax, [rip + {next}]",
            "push rax",
            "xor eax, eax",
            "mov ds, eax",
            "mov es, eax",
            "iretq",
            ".balign 8",
            "goldcrest_gdt_template:",
            ".quad 0, 0x00af9b000000ffff, 0x00cf93000000ffff, 0x00cff3000000ffff, 0x00affb000000ffff",
            ".quad 0x0000890000000000 + {task_state_size} - 1, 0",
            "goldcrest_gdt_pointer:",
            ".short {gdt_size} - 1",
            ".long {gdt}",
            "goldcrest_idt_pointer:",
            ".short 4095",
            ".quad {idt}",
            page_tables = sym $crate::pvh::stub::PAGE_TABLES,
            gdt = sym $crate::pvh::stub::GDT,
            idt = sym $crate::pvh::stub::IDT,
            task_state = sym $crate::pvh::stub::TASK_STATE,
            stack = sym $crate::pvh::stub::STACK,
            next = sym $next,
            task_state_size = const $crate::pvh::stub::TASK_STATE_SIZE,
            gdt_size = const $crate::abi::selector::GDT_SIZE,
            kernel_code = const $crate::abi::selector::KERNEL_CODE,
            kernel_data = const $crate::abi::selector::KERNEL_DATA,
            user_code = const $crate::abi::selector::USER_CODE,
            user_data = const $crate::abi::selector::USER_DATA,
            tss = const $crate::abi::selector::TSS,
        ) }
    };
}
