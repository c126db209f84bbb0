//! Hermit guests: what is in memory when they start, and what is refused.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "tests"
)]

mod images;

use dtoolkit::fdt::Fdt;
use goldcrest_boot::{
    AreaKind, BootConfig, BootError, Hypercalls, Image, Loaded, Protocol, inspect, load,
};
use goldcrest_memory::GuestRam;
use images::*;

const BOOT_INFO: u64 = 0x9000;
const PAGE_TABLES: u64 = 0x1_0000;
const BASE: u64 = 0x4_0000;

fn load_on(ram: &GuestRam, image: Vec<u8>, config: &BootConfig<'_>) -> Result<Loaded, BootError> {
    let image = Image::from_bytes("guest", image).unwrap();
    load(&image, ram, config)
}

fn config(cmdline: &str) -> BootConfig<'_> {
    BootConfig {
        cmdline,
        tsc_khz: 2_100_000,
        wall_clock_ns: 1_700_000_000_123_456_789,
        ..BootConfig::default()
    }
}

/// The message with which bytes are refused.
fn refused(image: Vec<u8>) -> String {
    let error = load_on(&ram(4 * MIB), image, &BootConfig::default());
    let message = error.map(|loaded| loaded.protocol).unwrap_err().to_string();
    message
        .strip_prefix("guest: ")
        .unwrap_or(&message)
        .to_owned()
}

fn words(ram: &GuestRam, at: u64, count: u64) -> Vec<u64> {
    (0..count).map(|n| read_u64(ram, at + 8 * n)).collect()
}

#[test]
fn the_guest_finds_boot_information() {
    let ram = ram(64 * MIB);
    let loaded = load_on(&ram, hermit_guest(), &config("-v -- one")).unwrap();
    assert_eq!(loaded.protocol, Protocol::Hermit);
    assert_eq!(loaded.boot_info, Some(BOOT_INFO));
    let expected = [
        0,
        64 * MIB, // memory
        0x800,
        0x5000, // serial port, device tree
        0x20_0000,
        0x20_b000, // the image
        0,
        0,
        0,
        0, // nothing that threads have
        1,
        0,
        1,
        2_100_000, // uhyve, no PCI, one CPU, its clock
        1_700_000_000_123_456_789,
        0,
    ];
    assert_eq!(words(&ram, BOOT_INFO, 16), expected);
    let args = ["guest", "-v", "--", "one"].map(str::to_owned).into();
    assert_eq!(loaded.hypercalls, Hypercalls::Hermit { args });
}

#[test]
fn the_device_tree_has_memory_clock_and_command_line() {
    let ram = ram(64 * MIB);
    load_on(&ram, hermit_guest(), &config("-v -- one")).unwrap();
    let len = u32::from_be_bytes(read(&ram, 0x5004, 4).try_into().unwrap());
    let bytes = read(&ram, 0x5000, len.try_into().unwrap());
    let tree = Fdt::new(&bytes).unwrap();
    let text = tree.to_string();
    for part in [
        "compatible = \"hermit,uhyve\"",
        "memory@0",
        "device_type = \"memory\"",
        "hermit,tsc",
        "bootargs = \"-v -- one\"",
    ] {
        assert!(text.contains(part), "no {part:?} in {text}");
    }
}

#[test]
fn registers_are_as_uhyve_sets_them() {
    let ram = ram(64 * MIB);
    let loaded = load_on(&ram, hermit_guest(), &config("")).unwrap();
    let registers = loaded.registers;
    assert_eq!((registers.rip, registers.rdi), (0x20_0010, BOOT_INFO));
    assert_eq!((registers.rsi, registers.rsp), (0, 0x1f_8000));
    let system = loaded.system;
    assert_eq!((system.cr0, system.cr4), (0x8000_0031, 0x20));
    assert_eq!((system.cr3, system.efer), (PAGE_TABLES, 0xd00));
    assert_eq!((system.gdt.base, system.gdt.limit), (0x1000, 23));
    let gdt = [0, 0x00af_9b00_0000_ffff, 0x00cf_9300_0000_ffff];
    assert_eq!(words(&ram, 0x1000, 3), gdt);
    let stack = loaded.areas.iter().find(|a| a.kind == AreaKind::Stack);
    assert_eq!(stack.unwrap().range, 0x1f_0000..0x1f_8000);
}

/// Where an address is, if the page tables map it so that it can be written and executed in ring 0.
fn page(ram: &GuestRam, address: u64) -> Option<u64> {
    let mut table = PAGE_TABLES;
    for level in (0..4).rev() {
        let shift = 12 + 9 * level;
        let entry = read_u64(ram, table + (address >> shift & 0x1ff) * 8);
        if entry & 3 != 3 || entry >> 63 != 0 {
            return None;
        }
        table = entry & 0x000f_ffff_ffff_f000;
        if level == 0 || entry & 0x80 != 0 {
            return Some(table);
        }
    }
    None
}

#[test]
fn memory_is_mapped_up_to_the_images_end_and_the_tables_into_themselves() {
    let ram = ram(64 * MIB);
    load_on(&ram, hermit_guest(), &config("")).unwrap();
    assert_eq!(page(&ram, 0), Some(0));
    assert_eq!(page(&ram, 0x20_0000), Some(0x20_0000));
    assert_eq!(page(&ram, 0x40_0000), None);
    assert_eq!(page(&ram, 0xffff_ffff_ffff_f000), Some(PAGE_TABLES));
}

#[test]
fn kernels_before_version_0_10_have_a_gigabyte_mapped() {
    for version in [[0u32, 9, 99], [0, 0, 0]] {
        let segments = vec![segment(R | X, 0x20_0000, &[0x90; 16], 16)];
        let abi = [&[6], &version[..]].concat();
        let abi: Vec<u8> = abi.iter().flat_map(|word| word.to_le_bytes()).collect();
        let mut builder =
            ElfBuilder::new(0x20_0000, segments).note(b"HERMIT\0", NT_HERMIT_ENTRY_VERSION, &[4]);
        if version != [0, 0, 0] {
            builder = builder.note(b"GNU\0", 1, &abi);
        }
        let ram = ram(64 * MIB);
        load_on(&ram, builder.build(), &config("")).unwrap();
        assert_eq!(page(&ram, (1 << 30) - 1), Some((1 << 30) - 0x20_0000));
        assert_eq!(page(&ram, 1 << 30), None);
    }
}

#[test]
fn an_image_that_can_lie_anywhere_is_relocated() {
    let relas = [
        rela(RELOCATED, R_RELATIVE, 0, 0x123),
        rela(RELOCATED + 8, R_RELATIVE, 0, u64::MAX),
        rela(RELOCATED + 16, 1, 0, 5),
        rela(RELOCATED + 24, 6, 0, 0),
        rela(RELOCATED + 32, 1, 1, 7),
        rela(RELOCATED + 40, 0, 0, 7),
    ];
    let symbols = [symbol(1, false, 0x1000), symbol(0, true, 0)];
    let ram = ram(64 * MIB);
    let image = hermit_pie(&relas, &symbols, &dynamic(&relas));
    let loaded = load_on(&ram, image, &config("")).unwrap();
    assert_eq!(loaded.registers.rip, BASE + 0x10);
    assert_eq!(loaded.registers.rsp, 0x3_8000);
    let expected = [BASE + 0x123, BASE - 1, BASE + 0x1005, BASE + 0x1000, 0, 0];
    assert_eq!(words(&ram, BASE + RELOCATED, 6), expected);
    let [start, end] = [4, 5].map(|n| read_u64(&ram, BOOT_INFO + 8 * n));
    assert_eq!((start, end), (BASE, BASE + DYNAMIC + 0x9000));
    assert_eq!(read(&ram, BASE, 4), [0x90; 4]);
}

#[test]
fn more_relocations_than_are_read_at_a_time_are_all_done() {
    let relas: Vec<_> = (0..1300)
        .map(|n| rela(RELOCATED + 8 * (n % 120), R_RELATIVE, 0, n))
        .collect();
    let ram = ram(64 * MIB);
    let image = hermit_pie(&relas, &[], &dynamic(&relas));
    load_on(&ram, image, &config("")).unwrap();
    for slot in 0..120 {
        let last = (0..1300).rev().find(|n| n % 120 == slot).unwrap();
        assert_eq!(read_u64(&ram, BASE + RELOCATED + 8 * slot), BASE + last);
    }
}

#[test]
fn other_versions_are_refused_with_what_was_found_and_expected() {
    let with = |entry, uhyve| {
        let segments = vec![segment(R | X, 0x20_0000, &[0x90; 16], 16)];
        refused(hermit_notes(ElfBuilder::new(0x20_0000, segments), entry, uhyve).build())
    };
    for version in [0, 3, 5, 255] {
        let expected = format!("Hermit entry version {version}: this host has version 4");
        assert_eq!(with(version, 1), expected);
    }
    for version in [0, 2, 3, 0x0100_0000] {
        let expected =
            format!("made for version {version} of uhyve's interface: this host has version 1");
        assert_eq!(with(4, version), expected);
    }
    let with_note = |name: &[u8], kind, desc: &[u8]| {
        let segments = vec![segment(R | X, 0x20_0000, &[0x90; 16], 16)];
        refused(
            ElfBuilder::new(0x20_0000, segments)
                .note(name, kind, desc)
                .build(),
        )
    };
    let entry = with_note(b"HERMIT\0", NT_HERMIT_ENTRY_VERSION, &[4, 0]);
    assert_eq!(
        entry,
        "the Hermit entry version note has 2 bytes: expected 1"
    );
    let uhyve = with_note(b"UHYVEIF\0", NT_UHYVE_INTERFACE_VERSION, &[1]);
    assert_eq!(
        uhyve,
        "the uhyve interface version note has 1 bytes: expected 4"
    );
}

#[test]
fn relocations_that_are_wrong_or_of_other_kinds_are_refused() {
    let one = [rela(RELOCATED, R_RELATIVE, 0, 0)];
    let undefined = [symbol(0, false, 0)];
    let with =
        |relas: &[Vec<u8>], dynamic: &[[u64; 2]]| refused(hermit_pie(relas, &undefined, dynamic));
    let by = |rela: Vec<u8>| with(&[rela], &dynamic(&one));
    let also = |tag, value| with(&one, &[&dynamic(&one)[..], &[[tag, value]]].concat());
    for (message, why) in [
        (
            by(rela(RELOCATED, 2, 0, 0)),
            "a relocation of type 2 at 0x4a800: expected 8",
        ),
        (
            by(rela(RELOCATED, 37, 0, 0)),
            "a relocation of type 37 at 0x4a800",
        ),
        (
            by(rela(0x2_0000, R_RELATIVE, 0, 0)),
            "a relocation at 0x60000, outside of every segment",
        ),
        (
            by(rela(0x1230, R_RELATIVE, 0, 0)),
            "a relocation at 0x41230, outside",
        ),
        (
            by(rela(u64::MAX - BASE, R_RELATIVE, 0, 0)),
            "outside of every segment",
        ),
        (
            by(rela(RELOCATED, 1, 0, 0)),
            "a relocation by symbol 0, which is not defined",
        ),
        (
            by(rela(RELOCATED, 1, 0xffff_ffff, 0)),
            "cannot read 24 bytes",
        ),
        (also(DT_NEEDED, 1), "needs shared libraries (DT_NEEDED)"),
        (also(17, 0), "needs relocations without addends (DT_REL)"),
        (also(36, 0), "needs packed relocations (DT_RELR)"),
        (also(2, 24), "needs a procedure linkage table (DT_PLTRELSZ)"),
        (also(DT_RELAENT, 16), "relocations of 16 bytes: expected 24"),
        (
            also(DT_RELASZ, 25),
            "25 bytes of relocations at 0x2000 do not lie",
        ),
        (
            also(DT_RELASZ, 1 << 40),
            "bytes of relocations at 0x2000 do not lie in a segment's bytes",
        ),
        (also(DT_RELA, u64::MAX), "at 0xffffffffffffffff do not lie"),
    ] {
        assert!(message.contains(why), "{message}: {why}");
    }
    let mut long = hermit_pie(&one, &undefined, &dynamic(&one));
    let size = PROGRAM_HEADERS + 56 * 4 + 32;
    long[size..size + 8].copy_from_slice(&(16u64 * 1025).to_le_bytes());
    assert_eq!(
        refused(long),
        "a dynamic section of 1025 entries: at most 1024 are read"
    );
    let mut beyond = hermit_pie(&one, &undefined, &dynamic(&one));
    let offset = PROGRAM_HEADERS + 56 * 4 + 8;
    beyond[offset..offset + 8].copy_from_slice(&u64::MAX.to_le_bytes());
    // Not a fault of reading, of which nobody could say more.
    let image = Image::from_bytes("guest", beyond.clone()).unwrap();
    assert!(inspect(&image).unwrap().offers.is_empty());
    let message = refused(beyond);
    assert!(message.contains("the dynamic section"), "{message}");
}

#[test]
fn images_that_cannot_lie_where_they_want_are_refused() {
    let with = |segments: Vec<Load>, entry| {
        refused(hermit_notes(ElfBuilder::new(entry, segments), 4, 1).build())
    };
    let text = |at| segment(R | X, at, &[0x90; 16], 16);
    for (message, why) in [
        (
            with(vec![text(0x3_f000)], 0x3_f000),
            "begins at 0x3f000: the lowest address is 0x40000",
        ),
        (
            with(vec![text(0x10_0000)], 0x20_0000),
            "the entry point 0x200000 lies outside",
        ),
        (
            with(vec![text(4 * MIB)], 4 * MIB),
            "where the guest has no RAM",
        ),
        (
            with(vec![segment(R, MIB, &[1; 16], 16)], MIB),
            "which is not executable",
        ),
        // Without page tables for all of it being made first, which would take for ever.
        (
            with(
                vec![text(MIB), segment(R | W, 2 * MIB, &[1; 16], 1 << 60)],
                MIB,
            ),
            "where the guest has no RAM",
        ),
    ] {
        assert!(message.contains(why), "{message}: {why}");
    }
}

#[test]
fn command_lines_and_machines_that_cannot_be_are_refused() {
    let with = |config: &BootConfig<'_>, size| {
        let error = load_on(&ram(size), hermit_guest(), config);
        error.map(|loaded| loaded.protocol).unwrap_err().to_string()
    };
    let long = "x".repeat(0x3001);
    assert!(with(&config(&long), 4 * MIB).contains("has 12289 bytes; guest takes at most 12288"));
    let words = "x ".repeat(128);
    assert!(with(&config(&words), 4 * MIB).contains("has 128 words; guest takes at most 127"));
    assert!(with(&config("a\0b"), 4 * MIB).contains("a zero byte at 1"));
    assert!(with(&config(""), 4 << 30).contains("262144 to 3221225472 are possible"));
    let two = BootConfig {
        cpus: 2,
        ..config("")
    };
    assert!(with(&two, 4 * MIB).contains("a guest of hermit finds no second CPU"));
    // The longest of each is possible.
    let long = "x".repeat(0x3000);
    assert!(load_on(&ram(4 * MIB), hermit_guest(), &config(&long)).is_ok());
    let words = "x ".repeat(127);
    assert!(load_on(&ram(4 * MIB), hermit_guest(), &config(&words)).is_ok());
}

#[test]
fn hermit_is_explained() {
    let image = Image::from_bytes("guest", hermit_guest()).unwrap();
    let text = inspect(&image).unwrap().to_string();
    for part in [
        "chosen: hermit, entry 0x200010 (a note named HERMIT of type 0x5a00 at 0x",
        "Hermit 0.11.0, put where it is linked",
        "rdi = RawBootInfo at 0x9000",
        "not solo5-hvt: no notes named Solo5",
    ] {
        assert!(text.contains(part), "no {part:?} in {text}");
    }
}
