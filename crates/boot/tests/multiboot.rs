//! Multiboot, version 1: where headers are found, what is refused, and what is in memory.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::cast_possible_truncation,
    reason = "tests"
)]

mod images;

use goldcrest_boot::{BootConfig, Image, Module, Protocol, inspect, load};
use images::*;

fn refused(image: Vec<u8>, message: &str) {
    assert_eq!(refusal(image), format!("kernel: {message}"));
}

/// A flat image of 8 KiB with a header at its beginning.
fn flat(flags: u32, addresses: [u32; 5]) -> Vec<u8> {
    let mut image = multiboot_header(flags, &addresses);
    image.resize(0x2000, 0);
    image
}

/// Address fields that are right, for [`flat`].
const ADDRESSES: [u32; 5] = [0x10_0000, 0x10_0000, 0x10_2000, 0x10_3000, 0x10_0020];

fn with(field: usize, value: u32) -> Vec<u8> {
    let mut addresses = ADDRESSES;
    addresses[field] = value;
    flat(0x1_0000, addresses)
}

fn protocol(bytes: Vec<u8>) -> Option<Protocol> {
    let image = Image::from_bytes("kernel", bytes).unwrap();
    let inspection = inspect(&image).unwrap();
    inspection.offers.first().map(|offer| offer.protocol)
}

#[test]
fn a_header_lies_in_the_first_8_kib_at_a_multiple_of_4() {
    let at = |offset: usize| {
        let mut image = vec![0; 0x3000];
        let mut addresses = ADDRESSES;
        addresses[0] += offset as u32;
        let header = multiboot_header(0x1_0000, &addresses);
        image[offset..offset + header.len()].copy_from_slice(&header);
        protocol(image)
    };
    for offset in [0, 4, 0x1ffc - 28, 0x1fe0] {
        assert_eq!(at(offset), Some(Protocol::Multiboot), "{offset:#x}");
    }
    for offset in [1, 2, 6, 0x1fe4, 0x2000] {
        assert_eq!(at(offset), None, "{offset:#x}");
    }
}

#[test]
fn a_magic_number_without_its_checksum_is_no_header() {
    let image = patch(kernel_with(&multiboot_header(3, &[])), 0x1008, &[0]);
    let image = Image::from_bytes("kernel", image).unwrap();
    let inspection = inspect(&image).unwrap();
    let reason = inspection
        .not_offered
        .iter()
        .find(|not| not.protocol == "multiboot");
    assert_eq!(
        reason.unwrap().reason,
        "the header magic 1badb002 at 0x1000 has no valid checksum behind it"
    );
    assert_eq!(inspection.offers[0].protocol, Protocol::LinuxElf);
    // What is behind it may be a header.
    let mut header = multiboot_header(0x77, &[]);
    header[8] ^= 1;
    header.extend(multiboot_header(3, &[]));
    assert_eq!(protocol(kernel_with(&header)), Some(Protocol::Multiboot));
}

#[test]
fn requirements_that_cannot_be_met_are_refused_by_name() {
    refused(
        kernel_with(&multiboot_header(4, &[])),
        "the Multiboot header at 0x1000 requires video modes (bit 2 of flags 0x4): this machine has no display",
    );
    refused(
        kernel_with(&multiboot_header(0x8009, &[])),
        "the Multiboot header at 0x1000 has flags 0x8009, of which 0x8008 are requirements that nobody defined",
    );
    // Unknown flags above bit 15 are no requirements.
    let image = kernel_with(&multiboot_header(0xfffe_0003, &[]));
    assert_eq!(protocol(image), Some(Protocol::Multiboot));
}

#[test]
fn address_fields_must_make_sense() {
    assert_eq!(
        protocol(flat(0x1_0000, ADDRESSES)),
        Some(Protocol::Multiboot)
    );
    refused(
        with(0, 0xf_ffff),
        "the header address 0xfffff is below the load address 0x100000",
    );
    refused(
        with(0, 0x10_0001),
        "the header at 0x0 of the image is to lie at 0x100001: its image would begin 1 bytes before the file",
    );
    refused(
        with(2, 0xf_ffff),
        "the load end address 0xfffff is below the load address 0x100000",
    );
    refused(
        with(2, 0x10_2001),
        "8193 bytes at 0x0 are to be loaded, but the image has 8192",
    );
    refused(
        with(3, 0x10_1fff),
        "the bss end address 0x101fff is below the load end address 0x102000",
    );
    refused(
        with(4, 0x10_3000),
        "the Multiboot entry point 0x103000 lies outside of every segment",
    );
    let empty = [0x10_0000, 0x10_0000, 0x10_0000, 0, 0x10_0000];
    refused(flat(0x1_0000, empty), "the image has no bytes to be loaded");
    let high = [0xffff_f000, 0xffff_f000, 0, 0, 0xffff_f000];
    refused(
        flat(0x1_0000, high),
        "segment 0 ends at 0x100001000, beyond 4 GiB",
    );
    refused(
        flat(3, ADDRESSES),
        "the Multiboot header at 0x0 is in an image that is no ELF, and does not say where it is to lie (bit 16 of its \
         flags)",
    );
}

#[test]
fn the_end_of_the_file_and_no_zeroes_are_the_default() {
    let image = Image::from_bytes(
        "kernel",
        flat(0x1_0000, [0x10_0000, 0x10_0000, 0, 0, 0x10_0020]),
    );
    let ram = ram(64 * MIB);
    let loaded = load(&image.unwrap(), &ram, &BootConfig::default()).unwrap();
    assert_eq!(loaded.registers.rip, 0x10_0020);
    assert_eq!(read_u32(&ram, 0x10_0000), 0x1bad_b002);
    let area = loaded
        .areas
        .iter()
        .find(|area| area.range.start == 0x10_0000);
    assert_eq!(area.unwrap().range, 0x10_0000..0x10_2000);
}

#[test]
fn an_elf_that_is_not_usable_is_refused_for_what_is_wrong_with_it() {
    let header = multiboot_header(3, &[]);
    let image = patch(kernel_with(&header), 18, &[40, 0]);
    refused(image, "ELF for machine 40: expected 62 (x86-64)");
    let image = patch(kernel_with(&header), 16, &[3]);
    assert!(refusal(image).contains("position-independent"));
    // With address fields, that it is an ELF does not matter.
    let addresses = [0x10_1000, 0x10_0000, 0, 0, 0x10_1800];
    let image = patch(
        kernel_with(&multiboot_header(0x1_0003, &addresses)),
        18,
        &[40, 0],
    );
    assert_eq!(protocol(image), Some(Protocol::Multiboot));
}

#[test]
fn a_virtual_entry_point_is_where_its_segment_is_put() {
    let mut segments = kernel_segments(&multiboot_header(3, &[]));
    for load in &mut segments {
        load.virtual_address += 0xffff_ffff_8000_0000;
    }
    let image = ElfBuilder::new(0xffff_ffff_8010_0123, segments).build();
    let loaded = load_bytes(image, &BootConfig::default()).unwrap();
    assert_eq!(loaded.protocol, Protocol::Multiboot);
    assert_eq!(loaded.registers.rip, 0x10_0123);
}

#[test]
fn elves_of_32_bits_are_for_i386_or_x86_64() {
    let segments = kernel_segments(&multiboot_header(3, &[]));
    for machine in [3, 62] {
        let loaded = load_bytes(elf32(machine, 0x10_0800, &segments), &BootConfig::default());
        let loaded = loaded.unwrap();
        assert_eq!(
            (loaded.protocol, loaded.registers.rip),
            (Protocol::Multiboot, 0x10_0800)
        );
    }
    refused(
        elf32(40, 0x10_0800, &segments),
        "ELF of 32 bits for machine 40: expected 3 (i386) or 62 (x86-64)",
    );
    let plain = elf32(3, 0x10_0800, &kernel_segments(&[]));
    assert_eq!(protocol(plain.clone()), Some(Protocol::Elf32));
    let config = BootConfig {
        protocol: Some(Protocol::LinuxElf),
        ..BootConfig::default()
    };
    assert_eq!(
        load_bytes(plain.clone(), &config).unwrap_err().to_string(),
        "kernel: cannot be started by linux-elf: an ELF of 32 bits: expected 64; it offers elf32"
    );
    let truncated = refusal(plain[..40].to_vec());
    assert!(truncated.contains("the ELF header ends at byte 52, but the image has 40"));
}

#[test]
fn the_processor_is_in_flat_protected_mode() {
    let loaded = load_bytes(
        kernel_with(&multiboot_header(3, &[])),
        &BootConfig::default(),
    );
    let loaded = loaded.unwrap();
    let system = &loaded.system;
    assert_eq!((system.cr0, system.cr4, system.efer), (0x11, 0, 0));
    assert!(system.cs.default_32 && !system.cs.long);
    for segment in [
        system.cs, system.ds, system.es, system.fs, system.gs, system.ss,
    ] {
        assert_eq!((segment.base, segment.limit), (0, u32::MAX));
    }
    assert_eq!(loaded.registers.rflags, 2);
    assert_eq!(loaded.registers.rax, 0x2bad_b002);
    assert_eq!(Some(loaded.registers.rbx), loaded.boot_info);
}

fn module(bytes: Vec<u8>, arguments: &str) -> Module {
    Module {
        image: Image::from_bytes("module", bytes).unwrap(),
        arguments: arguments.into(),
    }
}

#[test]
fn modules_lie_behind_the_kernel_and_below_4_gib() {
    let initrd = Image::from_bytes("initrd", vec![7; 5000]).unwrap();
    let modules = [module(vec![8; 4096], "a"), module(vec![9; 1], "")];
    let config = BootConfig {
        initrd: Some(&initrd),
        modules: &modules,
        ..BootConfig::default()
    };
    let image = Image::from_bytes("kernel", kernel_with(&multiboot_header(3, &[]))).unwrap();
    let ram = ram(6 << 30);
    let loaded = load(&image, &ram, &config).unwrap();
    let info = loaded.registers.rbx;
    assert_eq!(read_u32(&ram, info + 20), 3);
    let list = u64::from(read_u32(&ram, info + 24));
    let field = |at: u64| u64::from(read_u32(&ram, list + at));
    assert_eq!((field(0), field(4)), (0x10_4000, 0x10_5388));
    assert_eq!((field(16), field(20)), (0x10_6000, 0x10_7000));
    assert_eq!((field(32), field(36)), (0x10_7000, 0x10_7001));
    assert_eq!(read(&ram, 0x10_4000, 5000), [7; 5000]);
    assert_eq!(read(&ram, 0x10_6000, 4097), [&[8; 4096][..], &[9]].concat());
    assert_eq!(read(&ram, field(24), 2), b"a\0");
    // Upper memory ends at the hole below 4 GiB.
    assert_eq!(read_u32(&ram, info + 8), (3 << 20) - 1024);
    let (count, map) = (read_u32(&ram, info + 44) / 24, read_u32(&ram, info + 48));
    let map = memory_map(&ram, u64::from(map) + 4, count.into(), 24);
    assert_eq!(map.last(), Some(&(4 << 30, 3 << 30, 1)));
}

#[test]
fn arguments_end_at_their_end() {
    let modules = [module(vec![1], "a\0b")];
    let config = BootConfig {
        modules: &modules,
        ..BootConfig::default()
    };
    let error = load_bytes(kernel_with(&multiboot_header(3, &[])), &config).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the arguments of module module have a zero byte at 1"
    );
    let error = load_bytes(vmlinux(), &config).unwrap_err();
    assert_eq!(
        error.to_string(),
        "kernel: started by linux-elf, which has no modules: give it one file by --initrd, or choose another protocol"
    );
}

/// A kernel with a section header table: no section, one of symbols, one with an address, one that exceeds the file.
fn kernel_with_sections() -> Vec<u8> {
    let mut image = kernel_with(&multiboot_header(3, &[]));
    let content = image.len() as u64;
    image.extend([0x77; 100]);
    let table = image.len() as u64;
    let header = |kind: u32, address: u64, offset: u64, size: u64| {
        let mut bytes = [0, kind].map(u32::to_le_bytes).as_flattened().to_vec();
        bytes.extend(
            [0, address, offset, size]
                .map(u64::to_le_bytes)
                .as_flattened(),
        );
        bytes.resize(64, 0);
        bytes
    };
    image.extend(header(0, 0, 0, 0));
    image.extend(header(2, 0, content, 100));
    image.extend(header(1, 0x10_0000, 0x1000, 0x1000));
    image.extend(header(3, 0, content, u64::MAX));
    image.extend(header(8, 0, content, 100));
    let image = patch(image, 40, &table.to_le_bytes());
    patch(
        image,
        58,
        [64u16, 5, 1].map(u16::to_le_bytes).as_flattened(),
    )
}

#[test]
fn sections_without_an_address_are_loaded_if_they_can_be() {
    let ram = ram(64 * MIB);
    let image = Image::from_bytes("kernel", kernel_with_sections()).unwrap();
    let loaded = load(&image, &ram, &BootConfig::default()).unwrap();
    let info = loaded.registers.rbx;
    let field = |at: u64| read_u32(&ram, info + at);
    assert_eq!((field(28), field(32), field(40)), (5, 64, 1));
    assert_ne!(field(0) & 1 << 5, 0);
    let table = u64::from(field(36));
    let address = |index: u64| read_u64(&ram, table + index * 64 + 16);
    assert_eq!(read(&ram, address(1), 100), [0x77; 100]);
    assert_eq!([0, 2, 3, 4].map(address), [0, 0x10_0000, 0, 0]);
    // A table that makes no sense is not told of.
    for (at, bytes) in [
        (40, &u64::MAX.to_le_bytes()[..]),
        (58, &[40, 0]),
        (60, &[255, 255]),
        (62, &[5, 0]),
    ] {
        let image = Image::from_bytes("kernel", patch(kernel_with_sections(), at, bytes)).unwrap();
        let loaded = load(&image, &ram, &BootConfig::default()).unwrap();
        assert_eq!(read_u32(&ram, loaded.registers.rbx) & 1 << 5, 0, "{at}");
    }
}

#[test]
fn inspection_says_what_is_passed() {
    let image = Image::from_bytes("kernel", multiboot_flat()).unwrap();
    let text = inspect(&image).unwrap().to_string();
    assert_eq!(
        text,
        "format: of no known kind, begins with 90 90 90 90, 8192 bytes\n\
         chosen: multiboot, entry 0x100200 (header magic 1badb002 at 0x100 with flags 0x10003, loaded as its address \
         fields say)\n  \
           32-bit protected mode without paging, eax = 2badb002, ebx = Multiboot information\n  \
           in it: mem_lower and mem_upper, command line, modules (--initrd first), memory map, loader name\n\
         not direct: not an ELF\n\
         not pvh: not an ELF\n\
         not multiboot2: no header magic e85250d6 in the first 32 KiB\n\
         not linux-elf: not an ELF\n\
         not linux-bzimage: no setup header (\"HdrS\" at 0x202)\n\
         not elf32: not an ELF\n\
         not flat: only if it is asked for (--format flat,addr=ADDRESS)\n"
    );
}
