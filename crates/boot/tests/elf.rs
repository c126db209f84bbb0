//! Every way in which an ELF can be bad: one message each, with the value and the limit.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::cast_possible_truncation,
    reason = "tests"
)]

mod images;

use goldcrest_abi::note::{DirectEntry, NAME};
use goldcrest_boot::{BootConfig, Image, Protocol};
use images::*;

/// Offsets in `Elf64_Ehdr`.
const TYPE: usize = 16;
const MACHINE: usize = 18;
const PHOFF: usize = 32;
const PHENTSIZE: usize = 54;
const PHNUM: usize = 56;

/// Offsets in `Elf64_Phdr`.
const P_OFFSET: usize = 8;
const P_PADDR: usize = 24;
const P_FILESZ: usize = 32;
const P_MEMSZ: usize = 40;

/// The offset of a field of a program header. Header 0 is that of the notes.
fn program_header(index: usize, field: usize) -> usize {
    PROGRAM_HEADERS + 56 * index + field
}

fn good() -> Vec<u8> {
    unikernel(&direct_note(0x10_0000))
}

fn refused(image: Vec<u8>, message: &str) {
    assert_eq!(refusal(image), format!("kernel: {message}"));
}

fn with_u64(at: usize, value: u64) -> Vec<u8> {
    patch(good(), at, &value.to_le_bytes())
}

fn with_u16(at: usize, value: u16) -> Vec<u8> {
    patch(good(), at, &value.to_le_bytes())
}

#[test]
fn what_is_no_image_says_what_it_begins_with() {
    refused(
        b"hello, world".to_vec(),
        "not a kernel or unikernel: text, begins with 68 65 6c 6c; expected an ELF kernel, a bzImage or a Multiboot header",
    );
    for (bytes, hint) in [
        (&b"x"[..], "begins with 78;"),
        (b"#!/bin/sh", "a script for /bin/sh (23 21 at 0)"),
        (
            b"\x1f\x8b\x08\x00",
            "gzip: decompress it first (1f 8b at 0)",
        ),
        (b"\x28\xb5\x2f\xfd\x00", "zstd: decompress it first"),
        (b"\xfd7zXZ", "xz: decompress it first"),
        (b"070701", "a cpio archive: is it the initial RAM disk?"),
        (b"MZ\0\0", "a DOS program"),
    ] {
        let message = refusal(bytes.to_vec());
        assert!(message.contains(hint), "{message}");
    }
}

#[test]
fn headers_that_are_cut_short() {
    refused(
        good()[..40].to_vec(),
        "the ELF header ends at byte 64, but the image has 40: it is truncated or damaged",
    );
    refused(
        good()[..100].to_vec(),
        "the program header table ends at byte 288, but the image has 100: it is truncated or damaged",
    );
    let beyond = with_u64(PHOFF, u64::MAX - 8);
    assert!(refusal(beyond).contains("the program header table ends at byte 18446744073709551615"));
}

#[test]
fn other_kinds_of_elf() {
    refused(
        patch(good(), 4, &[3]),
        "ELF class 3, data encoding 1, version 1: expected 1 or 2, 1, 1 (32- or 64-bit, little-endian)",
    );
    refused(
        with_u16(MACHINE, 183),
        "ELF for machine 183: expected 62 (x86-64)",
    );
    refused(
        with_u16(TYPE, 3),
        "a position-independent ELF (type 3): link it at a fixed address (-no-pie, -C relocation-model=static)",
    );
    refused(
        with_u16(TYPE, 1),
        "not a kernel or unikernel: ELF64 for x86-64, an object file: link it first (7f 45 4c 46 at 0, type 1 at 0x10); \
         expected an ELF kernel, a bzImage or a Multiboot header",
    );
    refused(with_u16(TYPE, 5), "ELF type 5: expected 2 (executable)");
}

#[test]
fn program_headers_are_bounded() {
    refused(
        with_u16(PHNUM, 60_000),
        "60000 program headers: at most 128 are read",
    );
    refused(with_u16(PHNUM, 0), "no loadable segment (PT_LOAD)");
    refused(with_u16(PHNUM, 1), "no loadable segment (PT_LOAD)");
    refused(
        with_u16(PHENTSIZE, 32),
        "program headers of 32 bytes: expected 56",
    );
}

#[test]
fn segments_must_lie_in_the_file() {
    let len = good().len();
    let message = refusal(with_u64(program_header(1, P_OFFSET), 0x10_0000));
    let expected = format!("segment 1 takes 4660 bytes at 0x100000 of the file, which has {len}");
    assert_eq!(message, format!("kernel: {expected}"));
    let message = refusal(with_u64(program_header(1, P_OFFSET), u64::MAX));
    assert!(message.contains("at 0xffffffffffffffff of the file"));
}

#[test]
fn segments_must_be_whole_in_memory() {
    refused(
        with_u64(program_header(1, P_MEMSZ), 0x1233),
        "segment 1 has 4660 bytes in the file, but only 4659 in memory",
    );
    refused(
        with_u64(program_header(3, P_MEMSZ), u64::MAX - 0xfff),
        "segment 3 of 18446744073709547520 bytes at address 0x103000 exceeds 64-bit addresses",
    );
    let image = with_u64(program_header(1, P_FILESZ), u64::MAX);
    assert!(refusal(image).contains("18446744073709551615 bytes in the file"));
}

#[test]
fn segments_must_lie_in_ram_and_apart() {
    let huge = 1u64 << 62;
    refused(
        with_u64(program_header(3, P_MEMSZ), huge),
        "segment 3 takes 0x103000-0x4000000000102fff, where the guest has no RAM (0x0-0x3ffffff): \
         give the guest more memory or link the image lower",
    );
    refused(
        with_u64(program_header(2, P_PADDR), 0x10_1000),
        "segments 1 and 2 overlap at address 0x101000",
    );
    let zero_page = vec![segment(R | X, 0, &[0x90; 16], 16)];
    let image = ElfBuilder::new(8, zero_page).direct(&direct_note(8));
    refused(
        image.build(),
        "segment 1 takes 0x0-0xf, which overlaps page 0 or a guard page",
    );
}

#[test]
fn the_memory_between_low_and_high_ram_is_none() {
    let apic = vec![
        segment(R | X, 0x10_0000, &[0x90; 16], 16),
        segment(R | W, 0xfee0_0000, &[0x90; 16], 16),
    ];
    let image = ElfBuilder::new(0x10_0000, apic).direct(&direct_note(0x10_0000));
    let image = Image::from_bytes("kernel", image.build()).unwrap();
    let error = goldcrest_boot::load(&image, &ram(5 << 30), &BootConfig::default()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "kernel: segment 2 takes 0xfee00000-0xfee0000f, where the guest has no RAM \
         (0x0-0xbfffffff and 0x100000000-0x17fffffff): give the guest more memory or link the image lower"
    );
}

#[test]
fn empty_segments_are_passed_over() {
    let mut segments = unikernel_segments();
    segments.insert(0, segment(R | W, u64::MAX, &[], 0));
    let image = ElfBuilder::new(0x10_0000, segments).direct(&direct_note(0x10_0000));
    assert!(load_bytes(image.build(), &BootConfig::default()).is_ok());
}

#[test]
fn entries_must_be_code() {
    let outside = unikernel(&direct_note(0x20_0000));
    refused(
        outside,
        "the entry point 0x200000 lies outside of every segment",
    );
    let data = unikernel(&direct_note(0x10_3000));
    refused(
        data,
        "the entry point 0x103000 lies in segment 3, which is not executable",
    );
    let syscall = DirectEntry {
        syscall_entry: 0x10_2000,
        ..direct_note(0x10_0000)
    };
    refused(
        unikernel(&syscall),
        "the syscall entry 0x102000 lies in segment 2, which is not executable",
    );
    let last_trap = DirectEntry {
        trap_vectors: 0x10_0400,
        trap_stack: 0x10_4000,
        ..direct_note(0x10_0000)
    };
    refused(
        unikernel(&last_trap),
        "the last trap vector 0x1013f0 lies outside of every segment",
    );
    let overflow = DirectEntry {
        trap_vectors: u64::MAX,
        ..last_trap
    };
    assert!(refusal(unikernel(&overflow)).contains("the first trap vector 0xffffffffffffffff"));
}

#[test]
fn direct_entry_notes_are_checked_field_by_field() {
    let good = direct_note(0x10_0000);
    let cases = [
        (
            DirectEntry { version: 2, ..good },
            "made for version 2 of direct entry: this host has version 1",
        ),
        (
            DirectEntry { ring: 1, ..good },
            "wants ring 1: 0 and 3 are offered",
        ),
        (
            DirectEntry { flags: 7, ..good },
            "direct-entry flags 0x7: this host knows 0x3",
        ),
        (
            DirectEntry {
                reserved: 1,
                ..good
            },
            "the reserved field of the direct-entry note is 0x1: expected 0",
        ),
        (
            DirectEntry {
                stack_size: 64 * MIB,
                ..good
            },
            "a stack of 67108864 bytes in 67108864 bytes of RAM",
        ),
        (
            DirectEntry {
                stack_size: u64::MAX,
                ..good
            },
            "a stack of 18446744073709551615 bytes in 67108864 bytes of RAM",
        ),
        (
            DirectEntry {
                trap_vectors: 0x10_0000,
                ..good
            },
            "a trap stack at 0x0: expected a 16-byte aligned address in RAM above page 0",
        ),
        (
            DirectEntry {
                trap_stack: 0x10_0008,
                ..good
            },
            "a trap stack at 0x100008: expected a 16-byte aligned address in RAM above page 0",
        ),
        (
            DirectEntry {
                trap_stack: 64 * MIB + 16,
                ..good
            },
            "a trap stack at 0x4000010: expected a 16-byte aligned address in RAM above page 0",
        ),
        (
            DirectEntry {
                trap_stack: 0x1000,
                ..good
            },
            "a trap stack at 0x1000: expected a 16-byte aligned address in RAM above page 0",
        ),
    ];
    for (note, message) in cases {
        refused(unikernel(&note), message);
    }
}

#[test]
fn a_stack_that_fits_nowhere_is_refused() {
    let note = DirectEntry {
        stack_size: 63 * MIB,
        ..direct_note(0x10_0000)
    };
    assert_eq!(
        refusal(unikernel(&note)),
        "the stack of 66064384 bytes does not fit below 0xffffffffffffffff: give the guest more memory \
         (0x0-0x3ffffff now)"
    );
}

#[test]
fn code_and_data_must_be_apart_for_direct_entry() {
    let note = direct_note(0x10_0000);
    let both = vec![segment(R | W | X, 0x10_0000, &[0x90; 16], 16)];
    refused(
        ElfBuilder::new(0x10_0000, both).direct(&note).build(),
        "segment 1 is both writable and executable: link code and data into separate segments",
    );
    let shared = vec![
        segment(R | X, 0x10_0000, &[0x90; 0x1010], 0x1010),
        segment(R | W, 0x10_1800, &[0x90; 16], 16),
    ];
    refused(
        ElfBuilder::new(0x10_0000, shared).direct(&note).build(),
        "segments 1 and 2 share the page at 0x101000 with different permissions: link them page-aligned \
         (-z separate-code)",
    );
    let mut moved = unikernel_segments();
    moved[0].virtual_address += 0xffff_0000_0000_0000;
    refused(
        ElfBuilder::new(0x10_0000, moved).direct(&note).build(),
        "segment 1 is linked at 0xffff000000100000 but placed at 0x100000: RAM is mapped one to one",
    );
}

#[test]
fn segments_of_like_permissions_may_share_a_page() {
    let shared = vec![
        segment(R | X, 0x10_0000, &[0x90; 0x1010], 0x1010),
        segment(R | X, 0x10_1800, &[0x91; 16], 16),
    ];
    let image = ElfBuilder::new(0x10_0000, shared).direct(&direct_note(0x10_0000));
    assert!(load_bytes(image.build(), &BootConfig::default()).is_ok());
}

#[test]
fn notes_are_bounded() {
    let builder = ElfBuilder::new(0x10_0000, unikernel_segments());
    let short = builder.clone().note(&NAME, 1, &[0; 55]);
    refused(
        short.build(),
        "the direct entry note has 55 bytes: expected 56",
    );
    let long = builder.clone().note(&NAME, 1, &[0; 60]);
    refused(
        long.build(),
        "the direct entry note has 60 bytes: expected 56",
    );
    let twice = builder
        .clone()
        .direct(&direct_note(0))
        .direct(&direct_note(0));
    refused(twice.build(), "two direct entry notes: expected one");
    let mut cut = builder.clone().direct(&direct_note(0));
    cut.notes.truncate(30);
    refused(
        cut.build(),
        "a note exceeds its segment, of which 30 bytes are left",
    );
    let mut lying = builder.clone().direct(&direct_note(0));
    lying.notes[..8].fill(0xff);
    refused(
        lying.build(),
        "a note exceeds its segment, of which 80 bytes are left",
    );
    refused(
        with_u64(program_header(0, P_FILESZ), 65_537),
        "a note segment of 65537 bytes: at most 65536 are read",
    );
    let message = refusal(with_u64(program_header(0, P_OFFSET), 1 << 40));
    assert!(
        message.starts_with("kernel: the note segment ends at byte"),
        "{message}"
    );
}

#[test]
fn notes_of_others_and_alignments_are_passed_over() {
    for align in [0, 1, 4, 8] {
        let mut image = ElfBuilder::new(0x10_0000, unikernel_segments())
            .note(b"GNU\0", 5, &[0; 16])
            .note(b"", 1, b"")
            .note(b"Goldcrest\0", 99, b"12345678")
            .direct(&direct_note(0x10_0000));
        image.note_align = align;
        if align == 8 {
            // The note without a name ends at a multiple of 4 only: an image aligned to 8 pads it.
            image.notes.splice(44..44, [0; 4]);
        }
        let loaded = load_bytes(image.build(), &BootConfig::default());
        assert_eq!(loaded.unwrap().protocol, Protocol::Direct, "align {align}");
    }
}

#[test]
fn a_protocol_that_is_not_offered_names_those_that_are() {
    let config = BootConfig {
        protocol: Some(Protocol::Pvh),
        ..BootConfig::default()
    };
    let error = load_bytes(good(), &config).unwrap_err();
    assert_eq!(
        error.to_string(),
        "kernel: cannot be started by pvh: no note named Xen of type 18 (PHYS32_ENTRY); it offers direct"
    );
    let error = "pv".parse::<Protocol>().unwrap_err();
    assert_eq!(
        error,
        "unknown boot protocol \"pv\": expected one of direct, solo5-hvt, hermit, pvh, multiboot2, multiboot, \
         linux-elf, linux-bzimage, elf32, flat"
    );
    assert_eq!("pvh".parse(), Ok(Protocol::Pvh));
}

#[test]
fn processors_and_command_lines_are_bounded() {
    let message = |config: &BootConfig<'_>| load_bytes(good(), config).unwrap_err().to_string();
    for cpus in [0, 4097] {
        let config = BootConfig {
            cpus,
            ..BootConfig::default()
        };
        let expected = format!("{cpus} processors: between 1 and 4096 can be described");
        assert_eq!(message(&config), expected);
    }
    let config = BootConfig {
        cmdline: &"x".repeat(65_537),
        ..BootConfig::default()
    };
    assert_eq!(
        message(&config),
        "the command line has 65537 bytes; kernel takes at most 65536"
    );
    let config = BootConfig {
        cmdline: &"x".repeat(65_536),
        ..BootConfig::default()
    };
    assert!(load_bytes(good(), &config).is_ok());
}

/// What is said of an ELF without a note for a protocol, whose note header is changed.
fn taken_for(patches: &[(usize, &[u8])], notes: &[(&[u8], u32, &[u8])]) -> String {
    let mut builder = ElfBuilder::new(0x10_0000, unikernel_segments());
    for (name, kind, desc) in notes {
        builder = builder.note(name, *kind, desc);
    }
    let mut image = builder.build();
    for (at, bytes) in patches {
        image = patch(image, *at, bytes);
    }
    let image = Image::from_bytes("kernel", image).unwrap();
    let inspection = goldcrest_boot::inspect(&image).unwrap();
    match inspection.offers.first() {
        Some(offer) => offer.protocol.to_string(),
        None => {
            let reason = inspection
                .not_offered
                .iter()
                .find(|not| not.protocol == "linux-elf");
            reason.unwrap().reason.clone()
        }
    }
}

#[test]
fn programs_are_not_taken_for_kernels_unless_a_person_insists() {
    let other: (&[u8], u32, &[u8]) = (b"GNU\0", 3, &[1; 20]);
    assert_eq!(taken_for(&[], &[other]), "linux-elf");
    let program = |mark: &str| format!("a program of an operating system: {mark}");
    let kind = program_header(0, 0);
    assert_eq!(
        taken_for(&[(kind, &3u32.to_le_bytes())], &[other]),
        program("a dynamic linker is named (PT_INTERP)")
    );
    assert_eq!(
        taken_for(&[], &[(b"GNU\0", 1, &[0; 16])]),
        program("a GNU note of type 1 says that it runs on Linux")
    );
    // Another operating system's number.
    assert_eq!(taken_for(&[], &[(b"GNU\0", 1, &[1; 16])]), "linux-elf");
    assert_eq!(
        taken_for(&[], &[(b"Go\0\0", 4, b"id")]),
        program("a note of Go's linker")
    );
    assert_eq!(
        taken_for(&[(7, &[3])], &[other]),
        program("EI_OSABI is 3 (GNU/Linux)")
    );
    let stack = (kind, &0x6474_e551u32.to_le_bytes()[..]);
    assert_eq!(taken_for(&[stack], &[other]), "linux-elf");
    let at = |address: u64| address.to_le_bytes();
    let (low, high) = (at(0x40_0000), at(0x50_0000));
    let placed = |address| {
        [
            stack,
            (program_header(3, P_OFFSET), &[0; 8][..]),
            (program_header(3, P_PADDR - 8), address),
            (program_header(3, P_PADDR), address),
        ]
    };
    for address in [&low, &high] {
        assert_eq!(
            taken_for(&placed(address), &[other]),
            program("linked with its headers at or above 0x400000, where programs lie")
        );
    }
    let config = BootConfig {
        protocol: Some(Protocol::LinuxElf),
        ..BootConfig::default()
    };
    let image = ElfBuilder::new(0x10_0000, unikernel_segments()).note(b"Go\0\0", 4, b"id");
    assert_eq!(
        load_bytes(image.build(), &config).unwrap().protocol,
        Protocol::LinuxElf
    );
    assert_eq!(
        refusal(image.build()),
        "kernel: not a kernel or unikernel: ELF64 for x86-64, a static program (7f 45 4c 46 at 0, type 2 at 0x10): a note of \
         Go's linker; expected an ELF kernel, a bzImage or a Multiboot header"
    );
}
