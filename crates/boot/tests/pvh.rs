//! PVH as the guest finds it.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::cast_possible_truncation,
    reason = "tests"
)]

mod images;

use goldcrest_boot::{BootConfig, Image, Protocol, load};
use images::*;

#[test]
fn start_information_leads_to_everything() {
    let initrd = Image::from_bytes("initrd", vec![7; 5000]).unwrap();
    let config = BootConfig {
        cmdline: "console=ttyS0",
        initrd: Some(&initrd),
        ..BootConfig::default()
    };
    let image = Image::from_bytes("kernel", pvh_kernel(&0x100_0010u32.to_le_bytes())).unwrap();
    let ram = ram(64 * MIB);
    let loaded = load(&image, &ram, &config).unwrap();
    assert_eq!(loaded.protocol, Protocol::Pvh);
    assert_eq!(loaded.registers.rip, 0x100_0010);
    let info = loaded.registers.rbx;
    assert_eq!(Some(info), loaded.boot_info);
    assert_eq!(read_u32(&ram, info), 0x336e_c578);
    assert_eq!(read_u32(&ram, info + 4), 1);
    assert_eq!(read_u32(&ram, info + 8), 0);
    assert_eq!(read_u32(&ram, info + 12), 1);
    let module = read_u64(&ram, info + 16);
    let at = read_u64(&ram, module);
    assert_eq!(read_u64(&ram, module + 8), 5000);
    assert_eq!(at % 4096, 0);
    assert_eq!(read(&ram, at, 5000), [7; 5000]);
    let cmdline = read_u64(&ram, info + 24);
    assert_eq!(read(&ram, cmdline, 14), b"console=ttyS0\0");
    let rsdp = read_u64(&ram, info + 32);
    assert_eq!(read(&ram, rsdp, 8), b"RSD PTR ");
    let (map, count) = (read_u64(&ram, info + 40), read_u32(&ram, info + 48));
    let map = memory_map(&ram, map, count.into(), 24);
    assert_eq!(map, pc_memory_map(64 * MIB));
}

#[test]
fn the_processor_is_in_flat_protected_mode() {
    let image = pvh_kernel(&0x100_0000u64.to_le_bytes());
    let loaded = load_bytes(image, &BootConfig::default()).unwrap();
    let system = &loaded.system;
    assert_eq!(
        (system.cr0, system.cr3, system.cr4, system.efer),
        (0x11, 0, 0, 0)
    );
    assert!(system.cs.default_32 && !system.cs.long);
    for segment in [system.cs, system.ds, system.es, system.ss] {
        assert_eq!((segment.base, segment.limit), (0, u32::MAX));
        assert!(segment.present && segment.code_or_data);
    }
    assert_eq!(
        (system.tr.base, system.tr.limit, system.tr.kind),
        (0, 0x67, 0xb)
    );
    assert_eq!(loaded.registers.rflags, 2);
    assert_eq!(loaded.registers.rbx % 8, 0);
}

#[test]
fn segments_are_mapped_and_their_rest_is_zero() {
    let image = Image::from_bytes("kernel", pvh_kernel(&0x100_0000u32.to_le_bytes())).unwrap();
    let ram = ram(64 * MIB);
    load(&image, &ram, &BootConfig::default()).unwrap();
    assert_eq!(read(&ram, 0x100_0000, 0x2000), [0x90; 0x2000]);
    assert_eq!(read(&ram, 0x100_2000, 0x1000), [0x33; 0x1000]);
    assert_eq!(read(&ram, 0x100_3000, 0x4000), [0; 0x4000]);
}

#[test]
fn bad_entries_are_refused() {
    let message = |desc: &[u8]| refusal(pvh_kernel(desc));
    assert_eq!(
        message(&[0; 3]),
        "kernel: the PVH entry note has 3 bytes: expected 4 or 8"
    );
    assert_eq!(
        message(&[0; 4]),
        "kernel: the PVH entry point 0x0 lies outside of every segment"
    );
    let segments = vec![segment(R | X, 5 << 30, &[0x90; 16], 16)];
    let image = ElfBuilder::new(0, segments)
        .note(b"Xen\0", 18, &(5u64 << 30).to_le_bytes())
        .build();
    let image = Image::from_bytes("kernel", image).unwrap();
    let error = load(&image, &ram(6 << 30), &BootConfig::default()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "kernel: the PVH entry point 0x140000000 exceeds 32-bit addresses"
    );
}

#[test]
fn two_entries_are_refused() {
    let entry = 0x100_0000u32.to_le_bytes();
    let segments = vec![segment(R | X, 0x100_0000, &[0x90; 16], 16)];
    let once = ElfBuilder::new(0, segments).note(b"Xen\0", 18, &entry);
    assert!(load_bytes(once.build(), &BootConfig::default()).is_ok());
    let twice = once.note(b"Xen\0", 18, &entry);
    assert_eq!(
        refusal(twice.build()),
        "kernel: two PVH entry notes: expected one"
    );
}

#[test]
fn segments_in_what_a_pc_reserves_are_refused() {
    let segments = vec![segment(R | X, 0xa_0000, &[0x90; 16], 16)];
    let image = ElfBuilder::new(0, segments).note(b"Xen\0", 18, &0xa_0000u32.to_le_bytes());
    assert_eq!(
        refusal(image.build()),
        "kernel: segment 1 takes 0xa0000-0xa000f, which overlaps what a PC reserves below 1 MiB"
    );
}

#[test]
fn a_command_line_ends_at_its_end() {
    let image = pvh_kernel(&0x100_0000u32.to_le_bytes());
    let config = BootConfig {
        cmdline: "a\0b",
        ..BootConfig::default()
    };
    let error = load_bytes(image, &config).unwrap_err();
    assert_eq!(error.to_string(), "the command line has a zero byte at 1");
}

#[test]
fn direct_entry_goes_before_pvh_and_pvh_before_linux() {
    let both = ElfBuilder::new(0x10_0000, unikernel_segments())
        .note(b"Xen\0", 18, &0x10_0000u32.to_le_bytes())
        .direct(&direct_note(0x10_0000));
    for (asked, chosen) in [
        (None, Protocol::Direct),
        (Some(Protocol::Direct), Protocol::Direct),
        (Some(Protocol::Pvh), Protocol::Pvh),
    ] {
        let config = BootConfig {
            protocol: asked,
            ..BootConfig::default()
        };
        let loaded = load_bytes(both.build(), &config).unwrap();
        assert_eq!(loaded.protocol, chosen);
    }
    let kernel = pvh_kernel(&0x100_0000u32.to_le_bytes());
    let config = BootConfig {
        protocol: Some(Protocol::LinuxElf),
        ..BootConfig::default()
    };
    let loaded = load_bytes(kernel, &config).unwrap();
    assert_eq!(loaded.protocol, Protocol::LinuxElf);
}
