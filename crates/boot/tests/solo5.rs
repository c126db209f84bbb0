//! Solo5 guests: what is in memory when they start, and what is refused.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::cast_possible_truncation,
    reason = "tests"
)]

mod images;

use goldcrest_boot::{
    AreaKind, BootConfig, BootError, Hardware, Hypercalls, Image, Loaded, Protocol, Solo5Device,
    Solo5Properties, inspect, load_with,
};
use goldcrest_memory::GuestRam;
use images::*;

const BOOT_INFO: u64 = 0x1_0000;

fn storage() -> Solo5Device {
    Solo5Device {
        name: "storage".into(),
        properties: Solo5Properties::Block {
            capacity: 0x1122_3344_5566_7788,
            block_size: 512,
        },
    }
}

fn service() -> Solo5Device {
    Solo5Device {
        name: "service".into(),
        properties: Solo5Properties::Net {
            mac: [2, 1, 2, 3, 4, 5],
            mtu: 1400,
        },
    }
}

fn load_on(
    ram: &GuestRam,
    image: Vec<u8>,
    solo5: &[Solo5Device],
    config: &BootConfig<'_>,
) -> Result<Loaded, BootError> {
    let image = Image::from_bytes("guest", image).unwrap();
    let hardware = Hardware {
        solo5,
        ..Hardware::default()
    };
    load_with(&image, ram, config, &hardware)
}

fn load_guest(ram: &GuestRam, config: &BootConfig<'_>) -> Loaded {
    load_on(ram, solo5_guest(), &[service(), storage()], config).unwrap()
}

/// The message with which bytes are refused.
fn refused(image: Vec<u8>) -> String {
    let config = BootConfig::default();
    let error = load_on(&ram(4 * MIB), image, &[storage(), service()], &config);
    let message = error.map(|loaded| loaded.protocol).unwrap_err().to_string();
    message
        .strip_prefix("guest: ")
        .unwrap_or(&message)
        .to_owned()
}

#[test]
fn the_guest_finds_boot_information_manifest_and_command_line() {
    let ram = ram(17 * MIB);
    let config = BootConfig {
        cmdline: "one two",
        tsc_khz: 2_000_000,
        ..BootConfig::default()
    };
    let loaded = load_guest(&ram, &config);
    assert_eq!(loaded.protocol, Protocol::Solo5Hvt);
    assert_eq!(loaded.boot_info, Some(BOOT_INFO));
    let words: Vec<_> = (0..5).map(|n| read_u64(&ram, BOOT_INFO + 8 * n)).collect();
    let [memory, end, clock, cmdline, mft] = words[..] else {
        panic!()
    };
    assert_eq!(memory, 16 * MIB, "whole pages of 2 MiB");
    assert_eq!(end, 0x10_c000);
    assert_eq!(clock, 2_000_000_000);
    assert_eq!(read(&ram, cmdline, 8), b"one two\0");
    assert_eq!(mft % 8, 0);
    assert_eq!((read_u32(&ram, mft), read_u32(&ram, mft + 4)), (1, 3));
    let entries = read(&ram, mft + 8, 3 * 104);
    let [first, block, net] = [0, 1, 2].map(|n| &entries[n * 104..(n + 1) * 104]);
    assert_eq!(first, entry(b"", RESERVED));
    let mut expected = entry(b"storage", BLOCK);
    expected[72..80].copy_from_slice(&0x1122_3344_5566_7788u64.to_le_bytes());
    expected[80..82].copy_from_slice(&512u16.to_le_bytes());
    expected[96] = 1;
    assert_eq!(block, expected);
    let mut expected = entry(b"service", NET);
    expected[72..80].copy_from_slice(&[2, 1, 2, 3, 4, 5, 0x78, 5]);
    expected[96] = 1;
    assert_eq!(net, expected);
}

#[test]
fn handles_are_places_in_the_manifest_and_what_is_not_written_is_named() {
    let loaded = load_guest(&ram(4 * MIB), &BootConfig::default());
    let expected = Hypercalls::Solo5 {
        handles: vec![None, Some(1), Some(0)],
        read_only: vec![0..0x10_0000, 0x10_0000..0x10_2000, 0x10_2000..0x10_3000],
    };
    assert_eq!(loaded.hypercalls, expected);
}

#[test]
fn registers_are_as_hvt_sets_them() {
    let loaded = load_guest(&ram(4 * MIB), &BootConfig::default());
    let registers = loaded.registers;
    assert_eq!((registers.rip, registers.rdi), (0x10_0010, BOOT_INFO));
    assert_eq!((registers.rsp, registers.rflags), (4 * MIB - 8, 2));
    let system = loaded.system;
    assert_eq!((system.cr0, system.cr4), (0x8001_0031, 0x620));
    assert_eq!((system.cr3, system.efer), (0x2000, 0xd00));
    assert_eq!((system.gdt.base, system.gdt.limit), (0x1000, 23));
    assert_eq!((system.cs.selector, system.ss.selector), (8, 0x10));
    assert!(system.cs.long && system.ldt.unusable);
}

/// What the page tables say of an address: present, writable, executable, for ring 3.
fn page(ram: &GuestRam, cr3: u64, address: u64) -> Option<(bool, bool, bool)> {
    let mut table = cr3;
    let (mut write, mut execute, mut user) = (true, true, true);
    for level in (0..4).rev() {
        let entry = read_u64(ram, table + (address >> (12 + 9 * level) & 0x1ff) * 8);
        if entry & 1 == 0 {
            return None;
        }
        write &= entry & 2 != 0;
        user &= entry & 4 != 0;
        execute &= entry >> 63 == 0;
        if level == 0 || entry & 0x80 != 0 {
            return Some((write, execute, user));
        }
        table = entry & 0x000f_ffff_ffff_f000;
    }
    None
}

#[test]
fn pages_are_as_far_open_as_the_segments_say() {
    let ram = ram(8 * MIB);
    let loaded = load_guest(&ram, &BootConfig::default());
    let page = |address| page(&ram, loaded.system.cr3, address);
    let (read, execute, write) = (
        Some((false, false, false)),
        Some((false, true, false)),
        Some((true, false, false)),
    );
    for (address, expected) in [
        (0, None),
        (0x1000, None),
        (0x2000, None),
        (0xf000, None),
        (0x1_0000, read),
        (0xf_f000, read),
        (0x10_0000, execute),
        (0x10_1000, execute),
        (0x10_2000, read),
        (0x10_3000, write),
        (0x10_b000, write),
        (0x10_c000, write),
        (0x20_0000, write),
        (8 * MIB - 1, write),
        (8 * MIB, None),
        (1 << 32, None),
    ] {
        assert_eq!(page(address), expected, "{address:#x}");
    }
}

#[test]
fn many_segments_have_their_page_tables_elsewhere() {
    let segments: Vec<_> = (0..12u64)
        .map(|n| segment(R | X, MIB + n * 4 * MIB, &[0x90; 16], 16))
        .collect();
    let manifest = manifest(&[]);
    let image = ElfBuilder::new(MIB, segments)
        .note(b"Solo5\0", ABI1, &abi_desc(1, 2))
        .note(b"Solo5\0", MFT1, &manifest)
        .build();
    let ram = ram(64 * MIB);
    let loaded = load_on(&ram, image, &[], &BootConfig::default()).unwrap();
    let cr3 = loaded.system.cr3;
    assert!((0x1_2000..0x10_0000).contains(&cr3), "{cr3:#x}");
    for n in 0..12 {
        let at = MIB + n * 4 * MIB;
        assert_eq!(page(&ram, cr3, at), Some((false, true, false)));
        assert_eq!(page(&ram, cr3, at + 0x1000), Some((true, false, false)));
    }
    let tables = |area: &&goldcrest_boot::Area| area.kind == AreaKind::Tables;
    assert_eq!(loaded.areas.iter().filter(tables).count(), 2);
}

#[test]
fn notes_in_segments_that_are_aligned_to_8_bytes_are_read_as_solo5_has_them() {
    let manifest = manifest(&[("storage", BLOCK), ("service", NET)]);
    let mut builder =
        ElfBuilder::new(0x10_0010, solo5_segments()).note(b"Solo5\0", MFT1, &manifest);
    builder.note_align = 8;
    // The other note, in the first one's segment here, begins behind it.
    let builder = builder.note(b"Solo5\0", ABI1, &abi_desc(1, 2));
    let loaded = load_on(
        &ram(4 * MIB),
        builder.build(),
        &[storage(), service()],
        &BootConfig::default(),
    );
    assert_eq!(loaded.unwrap().protocol, Protocol::Solo5Hvt);
}

#[test]
fn other_targets_and_versions_are_refused_with_what_was_found_and_expected() {
    let with = |abi: &[u8]| refused(solo5_with(abi, &manifest(&[])).build());
    for (target, name) in [
        (0, "unknown"),
        (2, "spt"),
        (3, "virtio"),
        (6, "xen"),
        (9, "unknown"),
    ] {
        let expected = format!("made for Solo5's target {target} ({name}): this host has 1 (hvt)");
        assert_eq!(with(&abi_desc(target, 2)), expected);
    }
    for version in [0, 1, 3] {
        let expected =
            format!("made for version {version} of Solo5's hvt: this host has version 2");
        assert_eq!(with(&abi_desc(1, version)), expected);
    }
    assert_eq!(
        with(&[0; 12]),
        "the Solo5 ABI1 note has 12 bytes: expected 16"
    );
    let one = |kind, desc: &[u8]| {
        let builder = ElfBuilder::new(0x10_0010, solo5_segments());
        refused(builder.note(b"Solo5\0", kind, desc).build())
    };
    assert_eq!(
        one(ABI1, &abi_desc(1, 2)),
        "one Solo5 note, but no MFT1: expected ABI1 and MFT1"
    );
    assert_eq!(
        one(MFT1, &manifest(&[])),
        "one Solo5 note, but no ABI1: expected ABI1 and MFT1"
    );
}

#[test]
fn manifests_that_are_wrong_are_refused_with_the_value_and_the_limit() {
    let with = |desc: Vec<u8>| refused(solo5_with(&abi_desc(1, 2), &desc).build());
    let first = || entry(b"", RESERVED);
    let many: Vec<_> = (0..65)
        .map(|n| match n {
            0 => first(),
            n => entry(format!("net{n}").as_bytes(), NET),
        })
        .collect();
    let spoilt = |mut entry: Vec<u8>, at: usize, byte: u8| {
        entry[at] = byte;
        entry
    };
    let other = |device: Vec<u8>| manifest_desc(1, 2, &[first(), device]);
    for (desc, why) in [
        (
            vec![0; 11],
            "the Solo5 manifest note has 11 bytes: expected at least 116",
        ),
        (
            manifest_desc(2, 1, &[first()]),
            "manifest version 2: expected 1",
        ),
        (
            manifest_desc(1, 65, &many),
            "a manifest with 65 entries: at most 64 are possible, one of which is reserved",
        ),
        (
            manifest_desc(1, u32::MAX, &many),
            "a manifest with 4294967295 entries: at most 64 are possible, one of which is reserved",
        ),
        (
            manifest_desc(1, 3, &many[..2]),
            "a manifest with 3 entries of 104 bytes has 208 bytes of them",
        ),
        (
            manifest_desc(1, 1, &many[..2]),
            "a manifest with 1 entries of 104 bytes has 208 bytes of them",
        ),
        (
            manifest_desc(1, 0, &[]),
            "entry 0 of the manifest is not the reserved one, without a name",
        ),
        (
            manifest_desc(1, 1, &[entry(b"", NET)]),
            "entry 0 of the manifest is not the reserved one, without a name",
        ),
        (
            manifest_desc(1, 1, &[entry(b"x", RESERVED)]),
            "entry 0 of the manifest is not the reserved one, without a name",
        ),
        (
            other(entry(b"", NET)),
            "entry 1 of the manifest is called \"\": a name has 1 to 67 letters and digits",
        ),
        (
            other(entry(b"a\x1bb", NET)),
            "entry 1 of the manifest is called \"a\\u{1b}b\": a name has 1 to 67 letters and digits",
        ),
        (
            other(entry(b"net", RESERVED)),
            "entry 1 of the manifest, \"net\", is of type 1073741824: expected 1 (block device) or 2 (network card)",
        ),
        (
            other(spoilt(entry(b"net", NET), 96, 1)),
            "entry 1 of the manifest, \"net\", says that it is attached already",
        ),
        (
            manifest(&[("a", NET), ("a", BLOCK), ("a", NET)]),
            "the manifest declares network card \"a\" twice",
        ),
    ] {
        assert_eq!(with(desc), why);
    }
    let long = with(other(entry(&[b'n'; 68], NET)));
    assert!(long.contains("a name has 1 to 67 letters"), "{long}");
    // 67 is the most, and 64 entries are.
    let longest = "n".repeat(67);
    let not_attached = with(manifest(&[(&longest, NET)]));
    assert!(
        not_attached.contains("is attached, but its manifest declares network card"),
        "{not_attached}"
    );
    let most = with(manifest_desc(1, 64, &many[..64]));
    assert!(
        most.contains("block device \"storage\" is attached, but"),
        "{most}"
    );
}

#[test]
fn images_that_cannot_lie_where_they_want_are_refused() {
    let with = |segments: Vec<Load>, entry: u64| {
        let image = ElfBuilder::new(entry, segments)
            .note(b"Solo5\0", ABI1, &abi_desc(1, 2))
            .note(
                b"Solo5\0",
                MFT1,
                &manifest(&[("storage", BLOCK), ("service", NET)]),
            );
        refused(image.build())
    };
    let text = || segment(R | X, 0x10_0000, &[0x90; 16], 16);
    for (segments, entry, why) in [
        (
            vec![segment(R | X, 0xf_f000, &[0x90; 16], 16)],
            0xf_f000,
            "begins at 0xff000: the lowest address is 0x100000",
        ),
        (
            vec![segment(R | W | X, 0x10_0000, &[0x90; 16], 16)],
            0x10_0000,
            "is both writable and executable",
        ),
        (
            vec![text(), segment(R | W, 0x10_0800, &[1], 1)],
            0x10_0000,
            "share the page at 0x100000",
        ),
        (
            vec![text()],
            0x10_0010,
            "the entry point 0x100010 lies outside of every segment",
        ),
        (
            vec![segment(R, 0x10_0000, &[1; 16], 16)],
            0x10_0000,
            "which is not executable",
        ),
        (
            vec![text(), segment(R | W, 0x3f_f000, &[1], 0x2000)],
            0x10_0000,
            "where the guest has no RAM",
        ),
    ] {
        let message = with(segments, entry);
        assert!(message.contains(why), "{message}");
    }
    // RAM that is not a whole page of 2 MiB is not the guest's.
    let ram = ram(5 * MIB);
    let image = ElfBuilder::new(0x10_0000, vec![text(), segment(R | W, 4 * MIB, &[1], 1)])
        .note(b"Solo5\0", ABI1, &abi_desc(1, 2))
        .note(b"Solo5\0", MFT1, &manifest(&[]));
    let error = load_on(&ram, image.build(), &[], &BootConfig::default()).unwrap_err();
    assert!(
        error.to_string().contains("no RAM (0x0-0x3fffff)"),
        "{error}"
    );
}

#[test]
fn solo5_comes_before_linux_and_is_explained() {
    let image = Image::from_bytes("guest", solo5_guest()).unwrap();
    let inspection = inspect(&image).unwrap();
    assert_eq!(inspection.offers[0].protocol, Protocol::Solo5Hvt);
    let text = inspection.to_string();
    for part in [
        "chosen: solo5-hvt, entry 0x100010 (notes named Solo5 of types ABI1 at 0x",
        "handle 1: block device \"storage\" (--solo5-block storage=...)",
        "handle 2: network card \"service\" (--solo5-net service=...)",
        "not direct: no note named Goldcrest",
    ] {
        assert!(text.contains(part), "no {part:?} in {text}");
    }
}
