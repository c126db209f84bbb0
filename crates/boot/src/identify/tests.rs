use super::*;

fn what(bytes: &[u8]) -> String {
    let image = Image::from_bytes("file", bytes.to_vec()).unwrap();
    identify(&image).unwrap().what
}

/// A file of 128 KiB of zeroes but for these bytes.
fn with(at: usize, bytes: &[u8]) -> Vec<u8> {
    let mut file = vec![0; 0x2_0000];
    file[at..at + bytes.len()].copy_from_slice(bytes);
    file
}

#[test]
fn files_are_told_by_their_magic_numbers() {
    for (at, bytes, expected) in [
        (
            0,
            &b"\x1f\x8b\x08"[..],
            "gzip: decompress it first (1f 8b at 0)",
        ),
        (
            0,
            b"\xfd7zXZ\0",
            "xz: decompress it first (fd 37 7a 58 5a at 0)",
        ),
        (
            0,
            b"\x28\xb5\x2f\xfd",
            "zstd: decompress it first (28 b5 2f fd at 0)",
        ),
        (
            0,
            b"070701",
            "a cpio archive: is it the initial RAM disk? (30 37 30 37 30 31 at 0)",
        ),
        (257, b"ustar\0", "a tar archive (75 73 74 61 72 at 0x101)"),
        (
            0,
            b"!<arch>\nlib.o/",
            "an ar archive, such as a static library (21 3c 61 72 63 68 3e 0a at 0)",
        ),
        (
            0,
            b"!<arch>\ndebian-binary",
            "a Debian package (64 65 62 69 61 6e 2d 62 69 6e 61 72 79 at 0x8)",
        ),
        (0, b"PK\x03\x04", "a zip archive (50 4b 03 04 at 0)"),
        (
            0x38,
            b"ARM\x64",
            "a Linux kernel for arm64 (41 52 4d 64 at 0x38)",
        ),
        (
            512,
            b"EFI PART",
            "a disk with a GPT: it is given by --disk (45 46 49 20 50 41 52 54 at 0x200)",
        ),
        (
            0x1_0040,
            b"_BHRfS_M",
            "a btrfs file system: it is given by --disk (5f 42 48 52 66 53 5f 4d at 0x10040)",
        ),
        (
            0,
            b"\x01\x02\x03\x04",
            "of no known kind, begins with 01 02 03 04",
        ),
    ] {
        assert_eq!(what(&with(at, bytes)), expected);
    }
}

#[test]
fn scripts_and_texts() {
    for (text, expected) in [
        (
            &b"#!/bin/sh\nexit\n"[..],
            "a script for /bin/sh (23 21 at 0)",
        ),
        (
            b"#! /usr/bin/env python3",
            "a script for /usr/bin/env python3 (23 21 at 0)",
        ),
        (b"#!", "a script (23 21 at 0)"),
        (b"#!/\x1b[2J\n", "a script for /\\u{1b}[2J (23 21 at 0)"),
        (b"hello", "text, begins with 68 65 6c 6c"),
        ("naïve".as_bytes(), "text, begins with 6e 61 c3 af"),
        (b"x", "text, begins with 78"),
        (b"a\0b", "of no known kind, begins with 61 00 62"),
        (b"\xffabc", "of no known kind, begins with ff 61 62 63"),
    ] {
        assert_eq!(what(text), expected);
    }
    // A text whose sample ends within a character.
    let long = "ä".repeat(1000);
    assert_eq!(
        what(format!("x{long}").as_bytes()),
        "text, begins with 78 c3 a4 c3"
    );
}

fn portable_executable(machine: u16, subsystem: u16, section: &[u8]) -> Vec<u8> {
    let mut file = with(0, b"MZ");
    let mut set = |at: usize, bytes: &[u8]| file[at..at + bytes.len()].copy_from_slice(bytes);
    set(0x3c, &0x80u32.to_le_bytes());
    set(0x80, b"PE\0\0");
    set(0x84, &machine.to_le_bytes());
    set(0x86, &2u16.to_le_bytes());
    set(0x94, &0xf0u16.to_le_bytes());
    set(0x98 + 68, &subsystem.to_le_bytes());
    set(0x98 + 0xf0 + 40, section);
    file
}

#[test]
fn portable_executables_are_told_apart() {
    for (machine, subsystem, section, expected) in [
        (0x8664, 10, &b".text"[..], "an EFI application for x86-64 ("),
        (0xaa64, 11, b".text", "an EFI driver for arm64 ("),
        (
            0x8664,
            10,
            b".linux\0\0",
            "a unified kernel image, which a firmware starts from a disk, for x86-64 (",
        ),
        (0x14c, 3, b".text", "a Windows program for i386 ("),
        (0x1234, 99, b".text", "a PE executable for machine 0x1234 ("),
    ] {
        let what = what(&portable_executable(machine, subsystem, section));
        assert_eq!(what, format!("{expected}4d 5a at 0, 50 45 00 00 at 0x80)"));
    }
    assert_eq!(what(b"MZ"), "a DOS program (4d 5a at 0)");
}

/// An ELF64 with one program header, and the content of that segment behind.
fn elf(kind: u16, machine: u16, segment: u32, content: &[u8]) -> Vec<u8> {
    let mut file = b"\x7fELF\x02\x01\x01".to_vec();
    file.resize(16, 0);
    file.extend([kind, machine].map(u16::to_le_bytes).as_flattened());
    file.resize(32, 0);
    file.extend(64u64.to_le_bytes());
    file.resize(54, 0);
    file.extend([56u16, 1, 0, 0, 0].map(u16::to_le_bytes).as_flattened());
    file.extend([segment, 0].map(u32::to_le_bytes).as_flattened());
    let words = [120, 0, 0, content.len() as u64, 0, 0];
    file.extend(words.map(u64::to_le_bytes).as_flattened());
    file.extend(content);
    file
}

#[test]
fn elves_are_told_apart() {
    let interpreter = b"/lib64/ld-linux-x86-64.so.2\0";
    let pie = [0x6fff_fffbu64, 0x0800_0001, 0, 0].map(u64::to_le_bytes);
    let library = [14u64, 1, 0, 0].map(u64::to_le_bytes);
    for (kind, machine, segment, content, expected) in [
        (
            1,
            62,
            0,
            &b""[..],
            "ELF64 for x86-64, an object file: link it first",
        ),
        (2, 62, 1, b"", "ELF64 for x86-64, an executable"),
        (
            2,
            62,
            3,
            interpreter,
            "ELF64 for x86-64, a dynamically linked program, by /lib64/ld-linux-x86-64.so.2",
        ),
        (
            3,
            62,
            3,
            interpreter,
            "ELF64 for x86-64, a dynamically linked program (PIE), by /lib64/ld-linux-x86-64.so.2",
        ),
        (
            3,
            183,
            2,
            library.as_flattened(),
            "ELF64 for arm64, a shared library",
        ),
        (
            3,
            62,
            2,
            pie.as_flattened(),
            "ELF64 for x86-64, a static program (PIE)",
        ),
        (
            3,
            62,
            0,
            b"",
            "ELF64 for x86-64, a shared or position-independent object",
        ),
        (4, 62, 0, b"", "ELF64 for x86-64, a core dump"),
        (9, 999, 0, b"", "ELF64 for machine 999, of an unknown type"),
    ] {
        let what = what(&elf(kind, machine, segment, content));
        assert_eq!(
            what,
            format!("{expected} (7f 45 4c 46 at 0, type {kind} at 0x10)")
        );
    }
}

#[test]
fn a_module_of_a_kernel_is_told_by_a_sections_name() {
    let mut file = elf(1, 62, 0, b"\0.text\0.gnu.linkonce.this_module\0");
    let names = file.len() as u64 - 120;
    let table = file.len() as u64;
    file[40..48].copy_from_slice(&table.to_le_bytes());
    file[58..64].copy_from_slice([64u16, 1, 0].map(u16::to_le_bytes).as_flattened());
    file.extend(
        [0u64, 0, 0, 120, names, 0, 0, 0]
            .map(u64::to_le_bytes)
            .as_flattened(),
    );
    assert_eq!(
        what(&file),
        "ELF64 for x86-64, a module of a Linux kernel (7f 45 4c 46 at 0, type 1 at 0x10)"
    );
}

#[test]
fn elves_that_are_cut_short_or_lie_are_named_all_the_same() {
    let whole = elf(3, 62, 2, &[0xff; 64]);
    for len in 4..whole.len() {
        assert!(what(&whole[..len]).starts_with("ELF"), "{len}");
    }
    for at in (16..120).step_by(2) {
        let mut file = whole.clone();
        file[at..at + 2].fill(0xff);
        assert!(what(&file).starts_with("ELF64"), "{at}");
    }
}
