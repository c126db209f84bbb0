//! What direct entry promises the guest: page tables, descriptor tables, boot information, registers.
//!
//! All of it lies in the first megabyte, below the image. Intel SDM vol. 3A §4.5 (paging), §3.4.5 and §8.2.3
//! (descriptors), §6.14.1 (interrupt gates).

use std::io::{Error, Result};

use goldcrest_abi::boot_info::{self, BootInfo, MemoryRegion, region};
use goldcrest_abi::note::TRAP_STUB_SIZE;
use goldcrest_abi::selector;

use crate::image::{Image, PAGE};
use crate::kvm::{self, Regs, SegmentRegister, Sregs, Table, Vcpu};
use crate::ram::Ram;

const BOOT_INFO: u64 = 0x1000;
const GDT: u64 = 0x2000;
const TSS: u64 = 0x2800;
/// The last byte of the task state segment: 104 bytes, then the bitmap and its end.
const TSS_LIMIT: u32 = 104 + goldcrest_abi::PORT_LIMIT as u32 / 8;
const IDT: u64 = 0x3000;
const PML4: u64 = 0x4000;
const PDPT: u64 = 0x5000;
/// Maps the first gigabyte.
const DIRECTORY: u64 = 0x6000;
/// Maps the first 2 MiB by the page.
const PAGES: u64 = 0x7000;
/// Maps the local APIC.
const APIC_DIRECTORY: u64 = 0x8000;
/// The kvmclock page.
pub const PVCLOCK: u64 = 0x9000;
const STACK_TOP: u64 = 0x9_0000;
/// The lowest address that the stack may reach down to.
const STACK_LOWEST: u64 = 0x1_0000;
const STACK_DEFAULT: u64 = 0x1_0000;

const PRESENT: u64 = 1;
const WRITABLE: u64 = 1 << 1;
const USER: u64 = 1 << 2;
const WRITE_THROUGH: u64 = 1 << 3;
const UNCACHED: u64 = 1 << 4;
const LARGE: u64 = 1 << 7;
const NO_EXECUTE: u64 = 1 << 63;
const DATA: u64 = PRESENT | WRITABLE | USER | NO_EXECUTE;

/// The registers that the vCPU starts with.
pub struct State {
    pub regs: Regs,
    pub sregs: Sregs,
    /// `IA32_LSTAR`, or 0.
    pub syscall_entry: u64,
}

/// Writes all tables and gives the registers that go with them.
pub fn write(ram: &Ram, image: &Image, cmdline: &[u8], vcpu: &Vcpu) -> Result<State> {
    let stack = image.note.stack_size.next_multiple_of(PAGE);
    let stack = if stack == 0 { STACK_DEFAULT } else { stack };
    let bottom = STACK_TOP
        .checked_sub(stack)
        .filter(|bottom| *bottom > STACK_LOWEST);
    let bottom =
        bottom.ok_or_else(|| Error::other(format!("a stack of {stack} bytes is too large")))?;
    write_page_tables(ram, image, bottom - PAGE)?;
    write_descriptors(ram, image)?;
    write_boot_info(ram, image, cmdline, vcpu, bottom)?;
    let user = image.note.ring == 3;
    let regs = Regs {
        rip: image.note.entry,
        rdi: BOOT_INFO,
        rsp: STACK_TOP - 8,
        rflags: if user { 0x3002 } else { 0x2 },
        ..Regs::default()
    };
    Ok(State {
        regs,
        sregs: system_registers(image, user),
        syscall_entry: image.note.syscall_entry,
    })
}

fn write_page_tables(ram: &Ram, image: &Image, guard: u64) -> Result<()> {
    ram.write_words(PML4, &[PDPT | PRESENT | WRITABLE | USER])?;
    let [low, apic] = [DIRECTORY, APIC_DIRECTORY].map(|table| table | PRESENT | WRITABLE | USER);
    ram.write_words(PDPT, &[low, 0, 0, apic])?;
    let mut directory = vec![PAGES | PRESENT | WRITABLE | USER];
    directory.extend((1..ram.size() as u64 >> 21).map(|index| index << 21 | LARGE | DATA));
    ram.write_words(DIRECTORY, &directory)?;
    let mut pages: Vec<u64> = (0..512).map(|index| (index * PAGE) | DATA).collect();
    pages[0] = 0;
    pages[(guard / PAGE) as usize] = 0;
    for segment in &image.segments {
        let writable = if segment.writable { WRITABLE } else { 0 };
        let no_execute = if segment.executable { 0 } else { NO_EXECUTE };
        for address in (segment.start..segment.end).step_by(PAGE as usize) {
            let page = pages.get_mut((address / PAGE) as usize);
            *page.ok_or_else(|| Error::other("the image reaches beyond 2 MiB"))? =
                address | PRESENT | USER | writable | no_execute;
        }
    }
    ram.write_words(PAGES, &pages)?;
    let apic = 0xfee0_0000 | LARGE | DATA | WRITE_THROUGH | UNCACHED;
    ram.write_words(APIC_DIRECTORY + (0xfee0_0000 >> 21 & 511) * 8, &[apic])
}

fn write_descriptors(ram: &Ram, image: &Image) -> Result<()> {
    let gdt = [
        0,
        0x00af_9b00_0000_ffff,
        0x00cf_9300_0000_ffff,
        0x00cf_f300_0000_ffff,
        0x00af_fb00_0000_ffff,
        0x0000_8b00_0000_0000 | u64::from(TSS_LIMIT) | (TSS & 0xff_ffff) << 16,
        0,
    ];
    ram.write_words(GDT, &gdt)?;
    // RSP0 lies at offset 4. The I/O permission bitmap, all zero, ends with a byte of ones.
    ram.write(TSS + 4, &image.note.trap_stack.to_le_bytes())?;
    ram.write(TSS + 102, &104_u16.to_le_bytes())?;
    ram.write(TSS + u64::from(TSS_LIMIT), &[0xff])?;
    if image.note.trap_vectors == 0 {
        return Ok(());
    }
    let gates: Vec<u64> = (0..256)
        .flat_map(|vector| gate(vector, image.note.trap_vectors))
        .collect();
    ram.write_words(IDT, &gates)
}

/// A ring-0 interrupt gate. Breakpoints, and nothing else, may be raised by ring 3 itself.
fn gate(vector: u64, stubs: u64) -> [u64; 2] {
    let target = stubs + vector * TRAP_STUB_SIZE;
    let kind: u64 = if vector == 3 { 0xee00 } else { 0x8e00 };
    let selector = u64::from(selector::KERNEL_CODE);
    [
        target & 0xffff | selector << 16 | kind << 32 | (target >> 16 & 0xffff) << 48,
        target >> 32,
    ]
}

fn write_boot_info(
    ram: &Ram,
    image: &Image,
    cmdline: &[u8],
    vcpu: &Vcpu,
    stack: u64,
) -> Result<()> {
    let regions_at = BOOT_INFO + size_of::<BootInfo>() as u64;
    let image_start = image
        .segments
        .iter()
        .map(|s| s.start)
        .min()
        .unwrap_or_default();
    let image_end = image
        .segments
        .iter()
        .map(|s| s.end)
        .max()
        .unwrap_or_default();
    let region = |start, end: u64, kind| MemoryRegion {
        start,
        len: end - start,
        kind,
        reserved: 0,
    };
    let regions = [
        region(0, stack - PAGE, region::RESERVED),
        region(stack, STACK_TOP, region::STACK),
        region(image_start, image_end, region::IMAGE),
        region(image_end, ram.size() as u64, region::USABLE),
    ];
    let cmdline_at = regions_at + size_of_val(&regions) as u64;
    if cmdline_at + cmdline.len() as u64 > GDT {
        return Err(Error::other("the arguments are too long"));
    }
    let pvclock = image.note.flags & goldcrest_abi::note::FLAG_PVCLOCK != 0;
    let info = [
        boot_info::MAGIC,
        u64::from(goldcrest_abi::note::VERSION) | (size_of::<BootInfo>() as u64) << 32,
        cmdline_at,
        cmdline.len() as u64,
        regions_at,
        regions.len() as u64,
        0,
        0,
        0,
        0,
        if pvclock { PVCLOCK } else { 0 },
        if pvclock { vcpu.tsc_khz()? } else { 0 },
        if pvclock { kvm::wall_clock_ns() } else { 0 },
        1,
    ];
    ram.write_words(BOOT_INFO, &info)?;
    for (region, at) in regions
        .iter()
        .zip((regions_at..).step_by(size_of::<MemoryRegion>()))
    {
        ram.write_words(at, &[region.start, region.len, u64::from(region.kind)])?;
    }
    ram.write(cmdline_at, cmdline)
}

fn system_registers(image: &Image, user: bool) -> Sregs {
    let (code, data) = if user {
        (selector::USER_CODE, selector::USER_DATA)
    } else {
        (selector::KERNEL_CODE, selector::KERNEL_DATA)
    };
    let data = SegmentRegister::flat(data, 3, false);
    Sregs {
        cs: SegmentRegister::flat(code, 0xb, true),
        ds: data,
        es: data,
        fs: data,
        gs: data,
        ss: data,
        tr: SegmentRegister {
            base: TSS,
            limit: TSS_LIMIT,
            selector: selector::TSS,
            kind: 0xb,
            present: 1,
            ..Default::default()
        },
        ldt: SegmentRegister {
            unusable: 1,
            ..Default::default()
        },
        gdt: Table {
            base: GDT,
            limit: selector::GDT_SIZE as u16 - 1,
            ..Default::default()
        },
        idt: if image.note.trap_vectors == 0 {
            Table::default()
        } else {
            Table {
                base: IDT,
                limit: 0xfff,
                ..Default::default()
            }
        },
        cr0: 0x8001_0033,
        cr3: PML4,
        cr4: 0x620,
        efer: if image.note.syscall_entry == 0 {
            0xd00
        } else {
            0xd01
        },
        apic_base: 0xfee0_0900,
        ..Default::default()
    }
}
