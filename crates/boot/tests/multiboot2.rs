//! Multiboot2: where headers are found, which tags are honoured, and what is refused.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::cast_possible_truncation,
    reason = "tests"
)]

mod images;

use goldcrest_boot::{BootConfig, Image, Loaded, Protocol, inspect, load};
use goldcrest_memory::GuestRam;
use images::*;

fn with(tags: &[Vec<u8>]) -> Vec<u8> {
    kernel_with(&multiboot2_header(tags))
}

fn refused(tags: &[Vec<u8>], message: &str) {
    assert_eq!(refusal(with(tags)), format!("kernel: {message}"));
}

#[track_caller]
fn starts(tags: &[Vec<u8>]) -> Loaded {
    let loaded = load_bytes(with(tags), &BootConfig::default()).unwrap();
    assert_eq!(loaded.protocol, Protocol::Multiboot2);
    loaded
}

/// The tags of the boot information: type and content.
fn told(ram: &GuestRam, loaded: &Loaded) -> Vec<(u32, Vec<u8>)> {
    let info = loaded.registers.rbx;
    assert_eq!(info % 8, 0);
    let end = info + u64::from(read_u32(ram, info));
    let mut at = info + 8;
    let mut tags = Vec::new();
    while at < end {
        let (kind, size) = (read_u32(ram, at), read_u32(ram, at + 4));
        tags.push((kind, read(ram, at + 8, size as usize - 8)));
        at = (at + u64::from(size)).next_multiple_of(8);
    }
    assert_eq!(tags.pop(), Some((0, Vec::new())));
    tags
}

#[test]
fn a_header_lies_in_the_first_32_kib_at_a_multiple_of_8() {
    let tags = [tag(2, 0, &[0, u32::MAX, 0, 0]), tag(3, 0, &[0])];
    let at = |offset: usize| {
        let mut image = vec![0; 0xa000];
        let address = 0x10_0000 + offset as u32;
        let tags = [
            tag(2, 0, &[address, u32::MAX, 0, 0]),
            tag(3, 0, &[0x10_0000]),
        ];
        let header = multiboot2_header(&tags);
        image[offset..offset + header.len()].copy_from_slice(&header);
        let image = Image::from_bytes("kernel", image).unwrap();
        let offers = inspect(&image).unwrap().offers;
        offers.first().map(|offer| (offer.protocol, offer.entry))
    };
    let len = multiboot2_header(&tags).len();
    for offset in [0, 8, 32768 - len] {
        let expected = Some((Protocol::Multiboot2, 0x10_0000));
        assert_eq!(at(offset), expected, "{offset:#x}");
    }
    for offset in [4, 32768 - len + 8, 32768] {
        assert_eq!(at(offset), None, "{offset:#x}");
    }
}

#[test]
fn a_header_of_another_architecture_or_length_is_refused() {
    let spoil = |field: usize, value: u32| {
        let mut header = multiboot2_header(&[]);
        header[field..field + 4].copy_from_slice(&value.to_le_bytes());
        let sum = [0, 4, 8].map(|at| u32::from_le_bytes(header[at..at + 4].try_into().unwrap()));
        let checksum = sum.iter().fold(0u32, |sum, field| sum.wrapping_sub(*field));
        header[12..16].copy_from_slice(&checksum.to_le_bytes());
        refusal(kernel_with(&header))
    };
    assert_eq!(
        spoil(4, 4),
        "kernel: the Multiboot2 header at 0x1000 is for architecture 4: expected 0 (i386, protected mode)"
    );
    let image_len = kernel_with(&multiboot2_header(&[])).len();
    for len in [0, 15, u32::MAX, 32768] {
        let limit = image_len - 0x1000;
        assert_eq!(
            spoil(8, len),
            format!(
                "kernel: the Multiboot2 header at 0x1000 has {len} bytes: expected 16 to {limit}"
            )
        );
    }
    assert_eq!(
        spoil(8, 16),
        "kernel: the tags of the Multiboot2 header at 0x1000 have no end"
    );
    let image = patch(with(&[]), 0x100c, &[0]);
    let image = Image::from_bytes("kernel", image).unwrap();
    let text = inspect(&image).unwrap().to_string();
    let reason =
        "not multiboot2: the header magic e85250d6 at 0x1000 has no valid checksum behind it\n";
    assert!(text.contains(reason), "{text}");
}

#[test]
fn what_is_required_and_not_there_is_refused_by_name() {
    refused(
        &[tag(5, 0, &[1024, 768, 32])],
        "the Multiboot2 header requires a framebuffer (tag 5): this machine has no display",
    );
    refused(
        &[tag(4, 0, &[1])],
        "the Multiboot2 header requires a console (tag 4, flags 0x1): this machine has no display",
    );
    refused(
        &[tag(11, 0, &[])],
        "the Multiboot2 header requires tag 11, which nobody defined",
    );
    for kind in [0, 22, u32::MAX] {
        refused(
            &[tag(1, 0, &[1, kind])],
            &format!(
                "the Multiboot2 header requires information of type {kind}, which nobody defined"
            ),
        );
    }
}

#[test]
fn what_is_optional_or_may_be_passed_over_is() {
    starts(&[
        tag(5, 1, &[1024, 768, 32]),
        tag(4, 1, &[1]),
        tag(4, 0, &[2]),
        tag(11, 1, &[1, 2, 3]),
        tag(1, 1, &[0, 22]),
        tag(1, 0, &[5, 7, 8, 10, 11, 12, 13, 16, 17, 18, 19, 20]),
        tag(6, 0, &[]),
        tag(7, 0, &[]),
        tag(8, 0, &[0x10_0000]),
        tag(9, 0, &[0x10_0000]),
    ]);
}

#[test]
fn tags_of_wrong_sizes_are_refused() {
    for (kind, content, expected) in [
        (1, &b"12345"[..], "13 bytes: expected 8 and a multiple of 4"),
        (2, &[0; 12], "20 bytes: expected 24"),
        (3, &[0; 8], "16 bytes: expected 12"),
        (4, &[], "8 bytes: expected 12"),
        (10, &[0; 12], "20 bytes: expected 24"),
    ] {
        let mut bytes = [kind, 0].map(u16::to_le_bytes).as_flattened().to_vec();
        bytes.extend((8 + content.len() as u32).to_le_bytes());
        bytes.extend(content);
        bytes.resize(bytes.len().next_multiple_of(8), 0);
        refused(
            &[bytes],
            &format!("tag {kind} of the Multiboot2 header at 0x1000 has {expected}"),
        );
    }
    for size in [0u32, 7, 1000, u32::MAX] {
        let tag = [1u32.to_le_bytes(), size.to_le_bytes()].concat();
        let message = format!(
            "tag 1 of the Multiboot2 header at 0x1000 has {size} bytes: expected at least 8, and not beyond the header"
        );
        refused(&[tag], &message);
    }
}

#[test]
fn addresses_count_rather_than_segments_and_need_an_entry() {
    let addresses = tag(2, 0, &[0x20_1000, 0x20_0000, 0, 0]);
    let loaded = starts(&[addresses.clone(), tag(3, 0, &[0x20_1234])]);
    assert_eq!(loaded.registers.rip, 0x20_1234);
    refused(
        &[addresses],
        "the Multiboot2 header at 0x1000 is in an image that is no ELF, and does not say where it is to lie (the entry \
         address tag)",
    );
    // With an ELF, an entry address goes before the ELF's.
    let loaded = starts(&[tag(3, 0, &[0x10_0100])]);
    assert_eq!(loaded.registers.rip, 0x10_0100);
    refused(
        &[tag(3, 0, &[0x20_0100])],
        "the Multiboot entry point 0x200100 lies outside of every segment",
    );
    let mut flat = multiboot2_header(&[]);
    flat.resize(4096, 0);
    assert!(refusal(flat).contains("does not say where it is to lie (the address tag)"));
}

#[test]
fn relocatable_kernels_go_where_they_may() {
    let relocatable =
        |fields: &[u32; 4]| load_bytes(with(&[tag(10, 0, fields)]), &BootConfig::default());
    for (fields, base) in [
        ([0, u32::MAX, 0, 0], 0x10_0000),
        ([0x10_0001, u32::MAX, 0x1000, 0], 0x10_1000),
        ([0, u32::MAX, 0x1000, 1], 0x1000),
        ([0, u32::MAX, 0x20_0000, 2], 0x3e0_0000),
        ([0, 0x2f_ffff, 0x1000, 2], 0x2f_c000),
    ] {
        let loaded = relocatable(&fields).unwrap();
        assert_eq!(loaded.registers.rip, base + 0x800, "{fields:x?}");
    }
    let message = |fields| relocatable(fields).unwrap_err().to_string();
    assert_eq!(
        message(&[0, u32::MAX, 3, 0]),
        "kernel: the relocatable header tag wants alignment 0x3: expected a power of two"
    );
    assert_eq!(
        message(&[0, u32::MAX, 1, 3]),
        "kernel: the relocatable header tag has preference 3: expected 0, 1 or 2"
    );
    assert_eq!(
        message(&[0x400_0000, 0x3ff_ffff, 1, 1]),
        "the relocatable kernel of 16384 bytes does not fit below 0x4000000: make it smaller or leave it more room, as \
         more memory would lie above (0x0-0x3ffffff now)"
    );
}

#[test]
fn a_relocated_kernel_is_told_where_it_lies_and_its_bytes_are_there() {
    let ram = ram(64 * MIB);
    let image = Image::from_bytes("kernel", with(&many_tags())).unwrap();
    let config = BootConfig {
        cmdline: "a b",
        ..BootConfig::default()
    };
    let loaded = load(&image, &ram, &config).unwrap();
    let tags = told(&ram, &loaded);
    let kinds: Vec<_> = tags.iter().map(|(kind, _)| *kind).collect();
    assert_eq!(kinds, [1, 2, 4, 6, 14, 15, 21]);
    assert_eq!(tags[0].1, b"a b\0");
    assert_eq!(tags[6].1, 0x10_0000u32.to_le_bytes());
    assert_eq!(read_u32(&ram, 0x10_0000), 0xe852_50d6);
    assert_eq!(read(&ram, 0x10_1000, 0x800), [0x44; 0x800]);
    assert_eq!(loaded.registers.rax, 0x36d7_6289);
}

#[test]
fn multiboot2_goes_before_multiboot_unless_it_is_asked_for_or_the_only_one_that_works() {
    let both = |tags: &[Vec<u8>]| {
        let mut header = multiboot2_header(tags);
        header.extend(multiboot_header(3, &[]));
        kernel_with(&header)
    };
    let chosen = |image: Vec<u8>, asked| {
        let config = BootConfig {
            protocol: asked,
            ..BootConfig::default()
        };
        load_bytes(image, &config).map(|loaded| loaded.protocol)
    };
    assert_eq!(chosen(both(&[]), None).unwrap(), Protocol::Multiboot2);
    let asked = Some(Protocol::Multiboot);
    assert_eq!(chosen(both(&[]), asked).unwrap(), Protocol::Multiboot);
    let framebuffer = [tag(5, 0, &[1, 1, 1])];
    assert_eq!(
        chosen(both(&framebuffer), None).unwrap(),
        Protocol::Multiboot
    );
    let asked = Some(Protocol::Multiboot2);
    assert!(chosen(both(&framebuffer), asked).is_err());
    // It is not taken for a vmlinux then, unless a person says so.
    assert!(chosen(with(&framebuffer), None).is_err());
    let asked = Some(Protocol::LinuxElf);
    assert_eq!(
        chosen(with(&framebuffer), asked).unwrap(),
        Protocol::LinuxElf
    );
}

#[test]
fn inspection_says_what_is_passed_and_what_is_not_there() {
    let image = Image::from_bytes("kernel", with(&many_tags())).unwrap();
    let text = inspect(&image).unwrap().to_string();
    let expected = "chosen: multiboot2, entry 0x100800 (header magic e85250d6 at 0x1000, loaded as an ELF, relocatable to \
                    0x100000-0xffffffff by 0x1000)\n  \
                      32-bit protected mode without paging, eax = 36d76289, ebx = boot information\n  \
                      in it: command line, loader name, modules (--initrd first), basic memory, memory map, ELF \
                    sections, ACPI (both RSDPs), load base\n  \
                      asked for, but not there on this machine: framebuffer\n";
    assert!(text.contains(expected), "{text}");
    assert!(text.contains("not multiboot: no header magic 1badb002 in the first 8 KiB\n"));
}
