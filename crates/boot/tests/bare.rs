//! Flat binaries and ELF32s without a header, and the device tree that they are given.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::cast_possible_truncation,
    reason = "tests"
)]

mod images;

use dtoolkit::fdt::{Fdt, FdtNode};
use dtoolkit::{Node, Property};
use goldcrest_boot::{
    Announce, BootConfig, BootError, Flat, Hardware, Image, Loaded, MmioDevice, Mode, Module,
    Protocol, inspect_as, load, load_with,
};
use goldcrest_memory::GuestRam;
use images::*;

fn load_flat(ram: &GuestRam, len: usize, flat: Flat) -> Result<Loaded, BootError> {
    let image = Image::from_bytes("flat", vec![0xf4; len]).unwrap();
    let config = BootConfig {
        protocol: Some(Protocol::Flat(flat)),
        ..BootConfig::default()
    };
    load(&image, ram, &config)
}

fn flat(options: &str) -> Flat {
    match format!("flat,{options}").parse() {
        Ok(Protocol::Flat(flat)) => flat,
        other => panic!("{other:?}"),
    }
}

#[test]
fn options_are_read_and_written() {
    for (text, written) in [
        ("addr=0x7c00,mode=16", "flat,addr=0x7c00,mode=16"),
        ("addr=4096", "flat,addr=0x1000,mode=32"),
        (
            "mode=64,entry=0x200001,addr=0x200000",
            "flat,addr=0x200000,entry=0x200001,mode=64",
        ),
    ] {
        let protocol = Protocol::Flat(flat(text));
        assert_eq!(protocol.to_string(), written);
        assert_eq!(written.parse(), Ok(protocol));
    }
    for (text, message) in [
        ("flat", "unknown option \"\""),
        ("flat,mode=32", "no address (addr=)"),
        ("flat,addr=x", "\"x\" is not an address"),
        ("flat,addr=0x+1", "\"0x+1\" is not an address"),
        ("flat,addr=-1", "\"-1\" is not an address"),
        ("flat,addr=0x10000000000000000", "is not an address"),
        ("flat,addr=1,mode=8", "mode \"8\" is none of 16, 32, 64"),
        ("flat,addr=1,addr=2", "option \"addr=2\" is given twice"),
        ("flat,addr=1,", "unknown option \"\""),
        ("flat,addr=1,load=2", "unknown option \"load=2\""),
    ] {
        let error = text.parse::<Protocol>().unwrap_err();
        assert!(error.contains(message), "{text}: {error}");
        assert!(error.ends_with("write flat,addr=ADDRESS[,entry=ADDRESS][,mode=16|32|64]"));
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    let ram = ram(64 * MIB);
    let message = |len, options| load_flat(&ram, len, flat(options)).unwrap_err().to_string();
    for (len, options, expected) in [
        (
            16,
            "addr=0x100000,entry=0x100010",
            "the entry point 0x100010 lies outside of the flat binary, which has 16 bytes at 0x100000",
        ),
        (
            16,
            "addr=0x100000,entry=0xfffff",
            "the entry point 0xfffff lies outside",
        ),
        (
            16,
            "addr=0x100000,mode=16",
            "the entry point of the flat binary 0x100000 exceeds what real mode can address (1 MiB)",
        ),
        (
            16,
            "addr=0x100000000",
            "the entry point of the flat binary 0x100000000 exceeds 32-bit addresses",
        ),
        (
            16,
            "addr=0x4000000,mode=64",
            "the flat binary takes 0x4000000-0x400000f, where the guest has no RAM",
        ),
        (
            16,
            "addr=0xffffffffffffffff,mode=64",
            "where the guest has no RAM",
        ),
        (
            16,
            "addr=0x9fbf1",
            "the flat binary takes 0x9fbf1-0x9fc00, which overlaps what a PC reserves below 1 MiB",
        ),
        (
            0x10_0000,
            "addr=0x7c00,mode=16",
            "which overlaps what a PC reserves",
        ),
    ] {
        let message = message(len, options);
        assert!(message.contains(expected), "{options}: {message}");
    }
}

#[test]
fn a_mode_has_its_registers() {
    let ram = ram(64 * MIB);
    for (entry, cs, ip) in [
        (0x7c00u64, 0u16, 0x7c00u64),
        (0x1_0000, 0x1000, 0),
        (0x8_1235, 0x8000, 0x1235),
    ] {
        let loaded = load_flat(&ram, 0x2000, flat(&format!("addr={entry},mode=16"))).unwrap();
        let system = &loaded.system;
        assert_eq!(
            (system.cs.selector, system.cs.base),
            (cs, u64::from(cs) << 4)
        );
        assert_eq!((loaded.registers.rip, system.cr0), (ip, 0x10));
        assert_eq!(
            (system.cs.limit, system.ds.limit, system.ds.base),
            (0xffff, 0xffff, 0)
        );
    }
    for (options, mode) in [
        ("addr=0x200000,entry=0x200100", (0x11, 0, false)),
        (
            "addr=0x200000,entry=0x200100,mode=64",
            (0x8000_0011, 0x500, true),
        ),
    ] {
        let loaded = load_flat(&ram, 0x2000, flat(options)).unwrap();
        let system = &loaded.system;
        assert_eq!((system.cr0, system.efer, system.cs.long), mode);
        assert_eq!(
            (loaded.registers.rip, loaded.registers.rax),
            (0x20_0100, 0xd00d_feed)
        );
        assert_eq!(Some(loaded.registers.rbx), loaded.boot_info);
        assert_eq!(
            read(&ram, loaded.registers.rbx, 4),
            [0xd0, 0x0d, 0xfe, 0xed]
        );
    }
}

#[test]
fn page_0_can_be_the_images() {
    let ram = ram(64 * MIB);
    let loaded = load_flat(&ram, 0x1800, flat("addr=0")).unwrap();
    assert_eq!(loaded.areas[0].range, 0..0x1800);
    assert_eq!(loaded.areas[1].range.start, 0x2000);
    assert_eq!(read(&ram, 0, 0x1800), vec![0xf4; 0x1800]);
}

#[test]
fn a_guest_above_4_gib_is_mapped() {
    let ram = ram(6 << 30);
    let loaded = load_flat(&ram, 16, flat("addr=0x140000000,mode=64")).unwrap();
    let entry = |table: u64, index: u64| read_u64(&ram, table + index * 8) & 0xf_ffff_ffff_f000;
    let pointers = entry(loaded.system.cr3, 0);
    for gigabyte in 0..6 {
        let mapped = entry(pointers, gigabyte) != 0;
        assert_eq!(mapped, gigabyte < 4 || gigabyte == 5, "{gigabyte}");
    }
}

#[test]
fn an_image_that_offers_more_can_be_looked_at_as_a_flat_binary() {
    let image = Image::from_bytes("kernel", bzimage()).unwrap();
    let asked = Protocol::Flat(Flat::at(0x10_0000));
    let inspection = inspect_as(&image, Some(asked)).unwrap();
    assert_eq!(inspection.offers[0].protocol, asked);
    assert_eq!(inspection.offers[1].protocol, Protocol::LinuxBzImage);
    let bad = Protocol::Flat(flat("addr=0x100000,entry=0"));
    let inspection = inspect_as(&image, Some(bad)).unwrap();
    assert!(inspection.offers.is_empty());
    assert!(
        inspection
            .problem
            .unwrap()
            .contains("the entry point 0x0 lies outside")
    );
}

const DEVICE: MmioDevice = MmioDevice {
    base: 0xd000_0000,
    len: 0x1000,
    interrupt: 5,
    edge: true,
};

fn module() -> Module {
    Module {
        image: Image::from_bytes("module", vec![2; 5000]).unwrap(),
        arguments: "second".into(),
    }
}

/// The device tree at an address.
fn tree_at(ram: &GuestRam, at: u64) -> Vec<u8> {
    let header = read(ram, at, 8);
    let len = u32::from_be_bytes(header[4..].try_into().unwrap());
    read(ram, at, len as usize)
}

/// A property of text, which ends with a zero.
fn text(node: &FdtNode<'_>, name: &str) -> String {
    let property = node.property(name).unwrap_or_else(|| panic!("no {name}"));
    let (end, text) = property.value().split_last().unwrap();
    assert_eq!(*end, 0);
    String::from_utf8(text.to_vec()).unwrap()
}

#[test]
fn the_device_tree_has_the_machine() {
    let ram = ram(5 << 30);
    let image = Image::from_bytes("kernel", elf32(3, 0x10_0800, &kernel_segments(&[]))).unwrap();
    let initrd = Image::from_bytes("initrd", vec![1; 5000]).unwrap();
    let modules = [module()];
    let config = BootConfig {
        cmdline: "a b",
        initrd: Some(&initrd),
        modules: &modules,
        cpus: 3,
        ..BootConfig::default()
    };
    let hardware = Hardware {
        mmio: &[DEVICE],
        ..Hardware::default()
    };
    let loaded = load_with(&image, &ram, &config, &hardware).unwrap();
    assert_eq!(loaded.protocol, Protocol::Elf32);
    let bytes = tree_at(&ram, loaded.registers.rbx);
    let tree = Fdt::new(&bytes).unwrap();
    let find = |path: &str| tree.find_node(path).unwrap_or_else(|| panic!("no {path}"));
    assert_eq!(text(&find("/chosen"), "bootargs"), "a b");
    assert_eq!(text(&find("/chosen"), "stdout-path"), "/isa/serial@i3f8");
    assert_eq!(text(&find("/chosen/module@104000"), "bootargs"), "");
    assert_eq!(text(&find("/chosen/module@106000"), "bootargs"), "second");
    assert_eq!(text(&find("/memory@0"), "device_type"), "memory");
    assert_eq!(text(&find("/virtio@d0000000"), "compatible"), "virtio,mmio");
    assert!(tree.find_node("/cpus/cpu@2").is_some() && tree.find_node("/cpus/cpu@3").is_none());
    // What is not to be used: firmware, ACPI, the modules.
    let reserved: Vec<_> = tree
        .memory_reservations()
        .map(|range| (range.address(), range.size()))
        .collect();
    let expected = [
        (0x9_fc00, 0x4_0400),
        (0xe_0000, 0x2_0000),
        (0x10_4000, 0x2000),
        (0x10_6000, 0x2000),
    ];
    assert_eq!(reserved, expected);
}

#[test]
fn guests_of_other_protocols_find_a_device_tree_if_devices_are_announced_so() {
    let ram = ram(64 * MIB);
    let modules = [module()];
    let hardware = Hardware {
        mmio: &[DEVICE],
        announce: Announce::DeviceTree,
        ..Hardware::default()
    };
    let load = |bytes: Vec<u8>, modules: &[Module]| {
        let image = Image::from_bytes("kernel", bytes).unwrap();
        let config = BootConfig {
            cmdline: "a b",
            modules,
            ..BootConfig::default()
        };
        load_with(&image, &ram, &config, &hardware).unwrap()
    };
    let check = |at: u64| {
        let bytes = tree_at(&ram, at);
        let tree = Fdt::new(&bytes).unwrap();
        assert_eq!(text(&tree.find_node("/chosen").unwrap(), "bootargs"), "a b");
        assert!(tree.find_node("/virtio@d0000000").is_some());
    };

    let info = load(kernel_with(&multiboot_header(3, &[])), &modules)
        .registers
        .rbx;
    assert_eq!(read_u32(&ram, info + 20), 2);
    let last = u64::from(read_u32(&ram, info + 24)) + 16;
    check(read_u32(&ram, last).into());
    let arguments = read_u32(&ram, last + 8);
    assert_eq!(read(&ram, arguments.into(), 12), b"device-tree\0");

    let info = load(pvh_kernel(&0x100_0000u32.to_le_bytes()), &modules)
        .registers
        .rbx;
    assert_eq!(read_u32(&ram, info + 12), 2);
    let last = read_u64(&ram, info + 16) + 32;
    check(read_u64(&ram, last));
    assert_eq!(read(&ram, read_u64(&ram, last + 16), 12), b"device-tree\0");

    for kernel in [bzimage(), vmlinux()] {
        let params = load(kernel, &[]).registers.rsi;
        // struct setup_data: next, type, length.
        let data = read_u64(&ram, params + 0x250);
        assert_eq!(read_u64(&ram, data), 0);
        assert_eq!(read_u32(&ram, data + 8), 2);
        let len = u32::from_be_bytes(read(&ram, data + 20, 4).try_into().unwrap());
        assert_eq!(read_u32(&ram, data + 12), len);
        check(data + 16);
    }
}

#[test]
fn without_a_wish_for_it_there_is_no_setup_data() {
    let ram = ram(64 * MIB);
    let image = Image::from_bytes("kernel", bzimage()).unwrap();
    let loaded = load(&image, &ram, &BootConfig::default()).unwrap();
    assert_eq!(read_u64(&ram, loaded.registers.rsi + 0x250), 0);
}

#[test]
fn modes_are_written_by_their_bits() {
    for (mode, text) in [
        (Mode::Real, "16"),
        (Mode::Protected, "32"),
        (Mode::Long, "64"),
    ] {
        assert_eq!(mode.to_string(), text);
    }
}
