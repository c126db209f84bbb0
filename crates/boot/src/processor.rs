//! States of a processor at a guest's first instruction, but for those of direct entry.

use std::collections::BTreeSet;

use goldcrest_x86::{DescriptorTable, Segment, SystemRegisters, cr0, cr4, efer};

use crate::paging::{Access, PageTables};

pub(crate) const GIB: u64 = 1 << 30;

/// `__BOOT_CS` and `__BOOT_DS`, which Linux's protocol demands.
const BOOT_CODE: u16 = 0x10;
const BOOT_DATA: u16 = 0x18;
const TASK: u16 = 0x20;
/// Bytes of the GDT.
const GDT_SIZE: u16 = 0x30;
/// The same, with padding.
pub(crate) const GDT_ROOM: u64 = 0x40;

/// Page tables, to lie from `base`, that map these gigabytes to themselves.
pub(crate) fn identity(base: u64, gigabytes: &BTreeSet<u64>, gigabyte_pages: bool) -> PageTables {
    let access = Access {
        write: true,
        execute: true,
        user: false,
        uncached: false,
    };
    let mut tables = PageTables::new(base, gigabyte_pages);
    for gigabyte in gigabytes {
        tables.map(gigabyte * GIB..(gigabyte + 1) * GIB, access);
    }
    tables
}

/// The GDT, in [`GDT_ROOM`] bytes.
pub(crate) fn gdt_bytes() -> Vec<u8> {
    let task = Segment::tss(TASK, 0, 0x67);
    let code = Segment::code64(BOOT_CODE, 0).descriptor();
    let data = Segment::data(BOOT_DATA, 0).descriptor();
    let entries = [0, 0, code, data, task.descriptor(), 0, 0, 0];
    debug_assert_eq!(size_of_val(&entries) as u64, GDT_ROOM);
    entries.map(u64::to_le_bytes).as_flattened().to_vec()
}

/// 64-bit mode in ring 0 on an identity mapping, interrupts off, as Linux's boot protocol has it.
pub(crate) fn long_mode(gdt: u64, page_tables: u64) -> SystemRegisters {
    let data = Segment::data(BOOT_DATA, 0);
    SystemRegisters {
        cs: Segment::code64(BOOT_CODE, 0),
        ds: data,
        es: data,
        fs: data,
        gs: data,
        ss: data,
        tr: Segment::tss(TASK, 0, 0x67),
        ldt: Segment::unusable(),
        gdt: DescriptorTable {
            base: gdt,
            limit: GDT_SIZE - 1,
        },
        cr0: cr0::PE | cr0::ET | cr0::PG,
        cr3: page_tables,
        cr4: cr4::PAE,
        efer: efer::LME | efer::LMA,
        ..SystemRegisters::default()
    }
}

/// Flat segments, paging off.
pub(crate) fn protected_mode() -> SystemRegisters {
    let data = Segment::data(0x10, 0);
    SystemRegisters {
        cs: Segment::code32(0x08),
        ds: data,
        es: data,
        fs: data,
        gs: data,
        ss: data,
        tr: Segment::tss(0x18, 0, 0x67),
        ldt: Segment::unusable(),
        cr0: cr0::PE | cr0::ET,
        ..SystemRegisters::default()
    }
}

/// Real mode with the interrupt table at 0, as after a reset (SDM vol. 3A §10.1.4), and code in a segment of 64 KiB.
pub(crate) fn real_mode(code: u16) -> SystemRegisters {
    let data = Segment::data16(0);
    SystemRegisters {
        cs: Segment::code16(code),
        ds: data,
        es: data,
        fs: data,
        gs: data,
        ss: data,
        tr: Segment::tss(0, 0, 0xffff),
        ldt: Segment::unusable(),
        idt: DescriptorTable {
            base: 0,
            limit: 0x3ff,
        },
        cr0: cr0::ET,
        ..SystemRegisters::default()
    }
}
