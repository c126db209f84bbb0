//! What a person reads of an image.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::cast_possible_truncation,
    reason = "tests"
)]

mod images;

use goldcrest_boot::{Format, Image, Protocol, inspect, protocol_of};
use images::*;

fn text(bytes: Vec<u8>) -> String {
    let image = Image::from_bytes("kernel", bytes).unwrap();
    inspect(&image).unwrap().to_string()
}

#[test]
fn a_unikernel() {
    let bytes = ElfBuilder::new(0x10_0000, unikernel_segments())
        .note(b"Xen\0", 18, &0x10_0004u32.to_le_bytes())
        .direct(&direct_note(0x10_0000))
        .build();
    let len = bytes.len();
    assert_eq!(
        text(bytes),
        format!(
            "format: ELF64 for x86-64, an executable (7f 45 4c 46 at 0, type 2 at 0x10), {len} bytes\n\
             chosen: direct, entry 0x100000 (a note named Goldcrest of type 1 at 0x134)\n  \
               64-bit mode in ring 3 on the host's page and descriptor tables, rdi = BootInfo\n  \
               in it: command line, memory map, initial RAM disk, clocks, a device tree of virtio devices\n\
             offered: pvh, entry 0x100004 (a note named Xen of type 18 at 0x120)\n  \
               32-bit protected mode without paging, ebx = hvm_start_info (magic 336ec578, version 1)\n  \
               in it: command line, modules (--initrd first), memory map, ACPI\n\
             not multiboot2: no header magic e85250d6 in the first 32 KiB\n\
             not multiboot: no header magic 1badb002 in the first 8 KiB\n\
             not linux-elf: made for direct entry, by its note\n\
             not linux-bzimage: no setup header (\"HdrS\" at 0x202)\n\
             not elf32: an ELF of 64 bits\n\
             not flat: only if it is asked for (--format flat,addr=ADDRESS)\n\
             segment 1: 0x100000-0x101233 r-x, 4660 bytes in the file at 0x1000\n\
             segment 2: 0x102000-0x1027ff r--, 2048 bytes in the file at 0x3000\n\
             segment 3: 0x103000-0x10bfff rw-, 4352 bytes in the file at 0x4000\n\
             direct entry: version 1, ring 3, flags 0x0, stack 0 bytes\n"
        )
    );
}

#[test]
fn a_bzimage() {
    let len = images::bzimage().len();
    assert_eq!(
        text(images::bzimage()),
        format!(
            "format: bzImage (\"HdrS\" at 0x202), {len} bytes\n\
             chosen: linux-bzimage, entry 0x1000200 \
             (a setup header at 0x1f1 with a 64-bit entry (xloadflags bit 0 at 0x236))\n  \
               64-bit mode in ring 0 on an identity mapping, rsi = boot_params\n  \
               in them: command line, initial RAM disk, e820 memory map, ACPI\n\
             not direct: not an ELF\n\
             not pvh: not an ELF\n\
             not multiboot2: no header magic e85250d6 in the first 32 KiB\n\
             not multiboot: no header magic 1badb002 in the first 8 KiB\n\
             not linux-elf: not an ELF\n\
             not elf32: not an ELF\n\
             not flat: only if it is asked for (--format flat,addr=ADDRESS)\n\
             kernel version: 6.1.0-test (someone) #1 SMP\n\
             boot protocol: 2.15\n\
             kernel: 8192 bytes, needs 1048576 preferably at 0x1000000\n\
             command line: at most 2047 bytes\n\
             initial RAM disk: at most up to 0x7fffffff\n"
        )
    );
}

#[test]
fn a_version_string_that_cannot_be_printed_is_left_out() {
    for (pointer, bytes) in [
        (0u16, &b""[..]),
        (0xffff, b""),
        (0x300, b"\x1b[2Jevil\0"),
        (0x300, b"\xff\xff\0"),
        (0x300, b"\0"),
    ] {
        let image = patch(images::bzimage(), 0x20e, &pointer.to_le_bytes());
        let image = Image::from_bytes("kernel", patch(image, 0x500, bytes)).unwrap();
        assert_eq!(inspect(&image).unwrap().setup.unwrap().kernel_version, None);
    }
}

#[test]
fn the_format_is_found_by_bytes() {
    for (bytes, format, protocol) in [
        (vmlinux(), Format::Elf, Protocol::LinuxElf),
        (
            pvh_kernel(&0x100_0000u64.to_le_bytes()),
            Format::Elf,
            Protocol::Pvh,
        ),
        (images::bzimage(), Format::BzImage, Protocol::LinuxBzImage),
    ] {
        let image = Image::from_bytes("picture.jpg", bytes).unwrap();
        let inspection = inspect(&image).unwrap();
        assert_eq!(protocol_of(&image, None).unwrap(), protocol);
        assert_eq!(inspection.format, format);
        assert_eq!(inspection.offers[0].protocol, protocol);
    }
}
