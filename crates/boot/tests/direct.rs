//! Direct entry as the guest finds it: registers, tables, what is mapped and what is told.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "tests"
)]

mod images;

use std::io::Write;

use dtoolkit::fdt::Fdt;
use dtoolkit::standard::NodeStandard;
use dtoolkit::{Node, Property};
use goldcrest_abi::boot_info::{BootInfo, MAGIC, region};
use goldcrest_abi::note::{DirectEntry, FLAG_CPUID, FLAG_PVCLOCK};
use goldcrest_boot::{
    AreaKind, BootConfig, Hardware, Image, Loaded, MmioDevice, Protocol, load, load_with,
};
use goldcrest_memory::GuestRam;
use images::*;

const GIB: u64 = 1 << 30;

/// What a walk of the page tables finds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Page {
    address: u64,
    size: u64,
    write: bool,
    user: bool,
    execute: bool,
    uncached: bool,
}

/// Walks the tables as a processor does (SDM §4.5).
fn walk(ram: &GuestRam, cr3: u64, address: u64) -> Option<Page> {
    let mut table = cr3;
    let (mut write, mut user, mut execute) = (true, true, true);
    for level in (0..4).rev() {
        let index = address >> (12 + 9 * level) & 0x1ff;
        let entry = read_u64(ram, table + index * 8);
        if entry & 1 == 0 {
            return None;
        }
        write &= entry & 2 != 0;
        user &= entry & 4 != 0;
        execute &= entry >> 63 == 0;
        let target = entry & 0x000f_ffff_ffff_f000;
        if level == 0 || entry & 0x80 != 0 {
            assert!(level < 3, "no large pages at the root");
            assert_eq!(entry & 0x20, 0x20, "accessed is set beforehand");
            assert_eq!(
                entry & 0x40 != 0,
                entry & 2 != 0,
                "dirty is set where writable"
            );
            let size = 1 << (12 + 9 * level);
            assert_eq!(target % size, 0, "a page lies at a multiple of its size");
            return Some(Page {
                address: target + address % size,
                size,
                write,
                user,
                execute,
                uncached: entry & 0x18 == 0x18,
            });
        }
        table = target;
    }
    unreachable!()
}

struct Guest {
    ram: GuestRam,
    loaded: Loaded,
}

impl Guest {
    fn new(size: u64, note: &DirectEntry, config: &BootConfig<'_>) -> Self {
        Self::with(size, note, config, &Hardware::default())
    }

    fn with(
        size: u64,
        note: &DirectEntry,
        config: &BootConfig<'_>,
        hardware: &Hardware<'_>,
    ) -> Self {
        let image = Image::from_bytes("unikernel", unikernel(note)).unwrap();
        let ram = ram(size);
        let loaded = load_with(&image, &ram, config, hardware).unwrap();
        Self { ram, loaded }
    }

    /// The device tree; empty if there is none.
    fn device_tree(&self) -> Vec<u8> {
        let at = self.info(std::mem::offset_of!(BootInfo, fdt));
        if at == 0 {
            return Vec::new();
        }
        assert_eq!(at % 8, 0);
        let size = u32::from_be_bytes(read(&self.ram, at + 4, 4).try_into().unwrap());
        read(&self.ram, at, size as usize)
    }

    fn walk(&self, address: u64) -> Option<Page> {
        walk(&self.ram, self.loaded.system.cr3, address)
    }

    fn info(&self, field: usize) -> u64 {
        read_u64(&self.ram, self.loaded.boot_info.unwrap() + field as u64)
    }

    fn regions(&self) -> Vec<(u64, u64, u32)> {
        let start = self.info(std::mem::offset_of!(BootInfo, regions));
        let count = self.info(std::mem::offset_of!(BootInfo, region_count));
        let region = |n| {
            let at = start + 24 * n;
            let (start, len) = (read_u64(&self.ram, at), read_u64(&self.ram, at + 8));
            assert_eq!(read_u32(&self.ram, at + 20), 0);
            (start, start + len, read_u32(&self.ram, at + 16))
        };
        (0..count).map(region).collect()
    }

    /// Checks the access to every page of RAM against what lies there.
    fn check_all_pages(&self, user: bool) {
        let segments = unikernel_segments();
        for ram in self.ram.regions() {
            let mut address = ram.start;
            while address < ram.start + ram.len {
                let page = self.walk(address);
                let area =
                    self.loaded.areas.iter().find(|area| {
                        area.range.start & !0xfff <= address && address < area.range.end
                    });
                let kind = area.map(|area| area.kind);
                if kind == Some(AreaKind::Guard) {
                    assert_eq!(page, None, "{address:#x} is a guard page");
                    address += 4096;
                    continue;
                }
                let page = page.unwrap_or_else(|| panic!("{address:#x} is not mapped"));
                assert_eq!(page.address, address);
                assert!(!page.uncached);
                let segment = segments
                    .iter()
                    .find(|s| s.address & !0xfff <= address && address < s.address + s.memory_size);
                assert_eq!(segment.is_some(), kind == Some(AreaKind::Image));
                assert_eq!(page.write, segment.is_none_or(|s| s.flags & W != 0));
                assert_eq!(page.execute, segment.is_some_and(|s| s.flags & X != 0));
                assert_eq!(page.user, user && kind != Some(AreaKind::Tables));
                // A large page is of one kind throughout: go on behind it where nothing special lies.
                address = if kind.is_none() {
                    let next_area = self.loaded.areas.iter().map(|a| a.range.start & !0xfff);
                    let next = next_area.filter(|start| *start > address).min();
                    let end = (address | (page.size - 1)) + 1;
                    end.min(next.unwrap_or(u64::MAX))
                } else {
                    address + 4096
                };
            }
        }
    }
}

#[test]
fn registers_are_those_of_the_contract() {
    let note = direct_note(0x10_0010);
    let guest = Guest::new(64 * MIB, &note, &BootConfig::default());
    let Loaded {
        registers, system, ..
    } = &guest.loaded;
    assert_eq!(guest.loaded.protocol, Protocol::Direct);
    assert_eq!(registers.rip, 0x10_0010);
    assert_eq!(Some(registers.rdi), guest.loaded.boot_info);
    assert_eq!(registers.rsp % 16, 8);
    assert_eq!(registers.rflags, 0x3002);
    assert_eq!((system.cs.selector, system.cs.privilege), (0x23, 3));
    assert_eq!((system.ss.selector, system.ss.privilege), (0x1b, 3));
    assert!(system.cs.long && !system.cs.default_32);
    assert_eq!((system.fs.base, system.gs.base), (0, 0));
    assert_eq!(system.cr0, 0x8001_0033);
    assert_eq!(system.cr4, 0x620);
    assert_eq!(system.efer, 0xd00);
    assert_eq!(system.idt.limit, 0);
    assert!(guest.loaded.msrs.is_empty());
    assert_eq!(guest.loaded.pvclock, None);
}

#[test]
fn ring_0_has_the_kernel_segments_and_no_io_privilege() {
    let note = DirectEntry {
        ring: 0,
        ..direct_note(0x10_0000)
    };
    let guest = Guest::new(64 * MIB, &note, &BootConfig::default());
    assert_eq!(guest.loaded.registers.rflags, 2);
    assert_eq!(guest.loaded.system.cs.selector, 8);
    assert_eq!(guest.loaded.system.ss.selector, 0x10);
    guest.check_all_pages(false);
}

#[test]
fn every_page_has_the_access_of_what_lies_there() {
    for size in [2 * MIB, 3 * MIB, 64 * MIB, GIB, 5 * GIB, 5 * GIB + 4096] {
        for gigabyte_pages in [false, true] {
            let config = BootConfig {
                gigabyte_pages,
                ..BootConfig::default()
            };
            let guest = Guest::new(size, &direct_note(0x10_0000), &config);
            guest.check_all_pages(true);
            assert_eq!(guest.walk(0), None);
            let apic = guest.walk(0xfee0_0000).unwrap();
            assert!(apic.uncached && apic.write && apic.user && !apic.execute);
            assert_eq!(guest.walk(0xfed0_0000), None);
            assert_eq!(guest.walk(size.max(GIB * 4) + GIB * 2), None);
            if size == 5 * GIB {
                let high = guest.walk(4 * GIB).unwrap();
                assert_eq!(high.size, if gigabyte_pages { GIB } else { 2 * MIB });
            }
        }
    }
}

#[test]
fn the_stack_is_fresh_and_guarded() {
    for stack_size in [0, 1, 4096, 4097, 8 * MIB] {
        let note = DirectEntry {
            stack_size,
            ..direct_note(0x10_0000)
        };
        let guest = Guest::new(64 * MIB, &note, &BootConfig::default());
        let areas = &guest.loaded.areas;
        let at = areas
            .iter()
            .position(|a| a.kind == AreaKind::Stack)
            .unwrap();
        let stack = &areas[at].range;
        let wanted = if stack_size == 0 {
            0x4_0000
        } else {
            stack_size
        };
        assert!(stack.end - stack.start >= wanted);
        assert_eq!(guest.loaded.registers.rsp, stack.end - 8);
        assert_eq!(areas[at - 1].kind, AreaKind::Guard);
        assert_eq!(areas[at - 1].range.end, stack.start);
        guest.check_all_pages(true);
    }
}

#[test]
fn boot_information_tells_what_was_configured() {
    let initrd = Image::from_bytes("initrd", vec![7; 5000]).unwrap();
    let config = BootConfig {
        cmdline: "hello=wörld",
        initrd: Some(&initrd),
        cpus: 3,
        tsc_khz: 2_500_000,
        wall_clock_ns: 1_700_000_000_000_000_000,
        ..BootConfig::default()
    };
    let guest = Guest::new(64 * MIB, &direct_note(0x10_0000), &config);
    assert_eq!(guest.info(0), MAGIC);
    assert_eq!(guest.info(8), 1 | 160 << 32);
    let at = guest.info(std::mem::offset_of!(BootInfo, cmdline));
    assert_eq!(guest.info(std::mem::offset_of!(BootInfo, cmdline_len)), 12);
    assert_eq!(read(&guest.ram, at, 12), "hello=wörld".as_bytes());
    let at = guest.info(std::mem::offset_of!(BootInfo, initrd));
    assert_eq!(guest.info(std::mem::offset_of!(BootInfo, initrd_len)), 5000);
    assert_eq!(read(&guest.ram, at, 5000), [7; 5000]);
    assert_eq!(
        guest.info(std::mem::offset_of!(BootInfo, tsc_khz)),
        2_500_000
    );
    let clock = guest.info(std::mem::offset_of!(BootInfo, wall_clock_ns));
    assert_eq!(clock, config.wall_clock_ns);
    assert_eq!(guest.info(std::mem::offset_of!(BootInfo, cpus)), 3);
    for field in [
        std::mem::offset_of!(BootInfo, rsdp),
        std::mem::offset_of!(BootInfo, fdt),
        std::mem::offset_of!(BootInfo, pvclock),
        std::mem::offset_of!(BootInfo, marks),
    ] {
        assert_eq!(guest.info(field), 0);
    }
}

#[test]
fn the_memory_map_covers_all_ram_once() {
    let initrd = Image::from_bytes("initrd", vec![7; 5000]).unwrap();
    let config = BootConfig {
        initrd: Some(&initrd),
        ..BootConfig::default()
    };
    let guest = Guest::new(5 * GIB, &direct_note(0x10_0000), &config);
    let regions = guest.regions();
    let mut expected = guest.ram.regions().flat_map(|r| [r.start, r.start + r.len]);
    let mut next = expected.next().unwrap();
    let mut end = expected.next().unwrap();
    for (start, region_end, _) in &regions {
        if next == end {
            (next, end) = (expected.next().unwrap(), expected.next().unwrap());
        }
        assert_eq!(*start, next);
        assert!(start < region_end);
        next = *region_end;
    }
    assert_eq!((next, expected.next()), (end, None));
    let kind_at = |address| {
        let at = regions.iter().find(|r| r.0 <= address && address < r.1);
        at.unwrap().2
    };
    assert_eq!(kind_at(0), region::RESERVED);
    assert_eq!(kind_at(guest.loaded.registers.rsp), region::STACK);
    assert_eq!(kind_at(guest.loaded.system.cr3), region::RESERVED);
    assert_eq!(kind_at(0x10_0000), region::IMAGE);
    assert_eq!(kind_at(0x10_bfff), region::IMAGE);
    assert_eq!(kind_at(0x10_c000), region::USABLE);
    assert_eq!(kind_at(4 * GIB), region::USABLE);
    let initrd = guest.info(std::mem::offset_of!(BootInfo, initrd));
    assert_eq!(kind_at(initrd), region::INITRD);
}

#[test]
fn traps_and_system_calls_lead_into_the_image() {
    let note = DirectEntry {
        trap_vectors: 0x10_0200,
        trap_stack: 0x10_b000,
        syscall_entry: 0x10_0100,
        ..direct_note(0x10_0000)
    };
    let guest = Guest::new(64 * MIB, &note, &BootConfig::default());
    let system = &guest.loaded.system;
    assert_eq!(system.idt.limit, 0xfff);
    let gate = read_u64(&guest.ram, system.idt.base + 16 * 14);
    assert_eq!(gate, 0x0010_8e00_0008_02e0);
    assert_eq!(read_u64(&guest.ram, system.tr.base + 4), 0x10_b000);
    assert_eq!(system.efer & 1, 1);
    let expected = [
        (0xc000_0081, 0x0013_0008_0000_0000),
        (0xc000_0082, 0x10_0100),
        (0xc000_0084, 0x4_0700),
    ];
    assert_eq!(guest.loaded.msrs, expected);
    for table in [system.idt.base, system.gdt.base, system.tr.base, system.cr3] {
        assert!(!guest.walk(table).unwrap().user);
    }
    let tss = read_u64(&guest.ram, system.gdt.base + 0x28);
    assert_eq!(tss >> 40 & 0xff, 0x8b);
    guest.check_all_pages(true);
}

#[test]
fn the_kvmclock_page_is_given_when_asked_for_and_available() {
    let note = DirectEntry {
        flags: FLAG_PVCLOCK,
        ..direct_note(0x10_0000)
    };
    let without = Guest::new(64 * MIB, &note, &BootConfig::default());
    assert_eq!(without.loaded.pvclock, None);
    let config = BootConfig {
        pvclock: true,
        ..BootConfig::default()
    };
    let with = Guest::new(64 * MIB, &note, &config);
    let address = with.loaded.pvclock.unwrap();
    assert_eq!(with.info(std::mem::offset_of!(BootInfo, pvclock)), address);
    assert!(with.walk(address).unwrap().user);
    assert_eq!(address % 64, 0);
}

#[test]
fn the_processor_is_described_when_asked_for() {
    let quiet = direct_note(0x10_0000);
    let curious = DirectEntry {
        flags: FLAG_CPUID,
        ..quiet
    };
    let config = BootConfig::default();
    assert!(!Guest::new(64 * MIB, &quiet, &config).loaded.cpuid);
    assert!(Guest::new(64 * MIB, &curious, &config).loaded.cpuid);
}

#[test]
fn segments_of_a_file_are_in_memory_and_the_rest_is_zero() {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(&unikernel(&direct_note(0x10_0000))).unwrap();
    let image = Image::open(file.path()).unwrap();
    let ram = ram(64 * MIB);
    let loaded = load(&image, &ram, &BootConfig::default()).unwrap();
    for segment in unikernel_segments() {
        let len = usize::try_from(segment.memory_size).unwrap();
        let mut expected = segment.bytes.clone();
        expected.resize(len, 0);
        assert_eq!(read(&ram, segment.address, len), expected);
    }
    let total: usize = unikernel_segments().iter().map(|s| s.bytes.len()).sum();
    let Loaded { copied, .. } = loaded;
    assert_eq!(copied.mapped + copied.copied, total as u64);
    assert!(copied.mapped > 0, "{copied:?}");
}

#[test]
fn the_host_writes_few_contiguous_pages() {
    let guest = Guest::new(128 * MIB, &direct_note(0x10_0000), &BootConfig::default());
    let tables: Vec<_> = guest.loaded.areas.iter().map(|a| a.kind).collect();
    use AreaKind::*;
    assert_eq!(tables[..5], [Guard, Guard, Stack, BootInfo, Tables]);
    let touched = |area: &&goldcrest_boot::Area| matches!(area.kind, BootInfo | Tables);
    let pages = guest.loaded.areas.iter().filter(touched);
    let pages: Vec<u64> = pages
        .flat_map(|area| area.range.clone().step_by(4096))
        .filter(|page| read(&guest.ram, *page, 4096).iter().any(|byte| *byte != 0))
        .collect();
    // Boot information, GDT, and tables: PML4, PDPT, two PDs (RAM, local APIC), one PT for the first 2 MiB.
    assert_eq!(pages.len(), 7, "{pages:x?}");
    assert!(pages.windows(2).all(|pair| pair[1] == pair[0] + 4096));
}

fn devices(count: u32) -> Vec<MmioDevice> {
    let device = |n| MmioDevice {
        base: 0xd000_0000 + n * 0x1000,
        len: 0x1000,
        interrupt: 5 + n,
        edge: n != 1,
    };
    (0..count).map(device).collect()
}

#[test]
fn a_device_tree_has_the_devices_and_how_they_interrupt() {
    let mmio = devices(19);
    let hardware = Hardware {
        mmio: &mmio,
        ..Hardware::default()
    };
    for cmdline in ["", "x", "four words of it", &"y".repeat(4000)] {
        let config = BootConfig {
            cmdline,
            ..BootConfig::default()
        };
        let guest = Guest::with(64 * MIB, &direct_note(0x10_0000), &config, &hardware);
        let bytes = guest.device_tree();
        let tree = Fdt::new(&bytes).unwrap();
        let root = tree.root();
        let cells = |node: &dtoolkit::fdt::FdtNode<'_>, name: &str| -> Vec<u32> {
            let property = node.property(name).unwrap();
            let words = property.value().chunks_exact(4);
            words
                .map(|w| u32::from_be_bytes(w.try_into().unwrap()))
                .collect()
        };
        assert_eq!(cells(&root, "#address-cells"), [2]);
        assert_eq!(cells(&root, "#size-cells"), [2]);
        let controller = root.child("interrupt-controller@fec00000").unwrap();
        assert!(controller.property("interrupt-controller").is_some());
        assert_eq!(cells(&controller, "reg"), [0, 0xfec0_0000, 0, 0x1000]);
        assert_eq!(cells(&controller, "#interrupt-cells"), [2]);
        assert_eq!(
            cells(&controller, "phandle"),
            cells(&root, "interrupt-parent")
        );
        let found: Vec<_> = root
            .children()
            .filter(|n| n.is_compatible("virtio,mmio"))
            .collect();
        assert_eq!(found.len(), mmio.len());
        for (node, device) in found.iter().zip(&mmio) {
            assert_eq!(node.name(), format!("virtio@{:x}", device.base));
            assert_eq!(cells(node, "reg"), [0, device.base, 0, 0x1000]);
            let trigger = if device.edge { 0 } else { 2 };
            assert_eq!(cells(node, "interrupts"), [device.interrupt, trigger]);
        }
        let at = guest.info(std::mem::offset_of!(BootInfo, cmdline));
        assert_eq!(read(&guest.ram, at, cmdline.len()), cmdline.as_bytes());
        guest.check_all_pages(true);
    }
}

#[test]
fn registers_of_devices_are_mapped_uncached_without_one_more_table() {
    let mmio = devices(19);
    let hardware = Hardware {
        mmio: &mmio,
        ..Hardware::default()
    };
    let config = BootConfig::default();
    for size in [64 * MIB, 5 * GIB] {
        let guest = Guest::with(size, &direct_note(0x10_0000), &config, &hardware);
        for address in [0xd000_0000, 0xd001_2ffc, 0xfec0_0010, 0xfee0_0000] {
            let page = guest.walk(address).unwrap();
            assert!(page.uncached && page.write && page.user && !page.execute);
            assert_eq!(page.address, address);
        }
        for address in [0xcfff_f000, 0xd020_0000, 0xfebf_f000, 0xff00_0000] {
            assert_eq!(guest.walk(address), None);
        }
        let without = Guest::new(size, &direct_note(0x10_0000), &config);
        assert_eq!(without.walk(0xd000_0000), None);
        assert_eq!(without.walk(0xfec0_0000), None);
        assert!(without.device_tree().is_empty());
        let tables = |guest: &Guest| {
            let areas = guest.loaded.areas.iter();
            let tables = areas.filter(|area| area.kind == AreaKind::Tables);
            tables
                .map(|area| area.range.end - area.range.start)
                .sum::<u64>()
        };
        assert_eq!(tables(&guest), tables(&without));
    }
    let far = MmioDevice {
        base: 0xc01f_f000,
        len: 0x2000,
        ..mmio[0]
    };
    let hardware = Hardware {
        mmio: &[far],
        ..hardware
    };
    let guest = Guest::with(5 * GIB, &direct_note(0x10_0000), &config, &hardware);
    assert!(guest.walk(0xc01f_f000).unwrap().uncached);
    assert!(guest.walk(0xc020_0000).unwrap().uncached);
    guest.check_all_pages(true);
}
