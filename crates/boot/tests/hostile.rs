//! Arbitrary and spoilt images: whatever they hold, they are loaded or refused, soon and without a panic.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::cast_possible_truncation,
    reason = "tests"
)]

mod images;

use goldcrest_abi::note::{DirectEntry, FLAG_PVCLOCK};
use goldcrest_boot::{BootConfig, Flat, Image, Loaded, Mode, Offer, Protocol, inspect_as, load};
use goldcrest_memory::GuestRam;
use images::*;
use proptest::prelude::*;

/// Looks at an image and loads it; checks what must hold of every guest that is ready to start.
fn check(ram: &GuestRam, bytes: Vec<u8>, config: &BootConfig<'_>) {
    if bytes.is_empty() {
        return;
    }
    let image = Image::from_bytes("hostile", bytes).unwrap();
    let inspected = inspect_as(&image, config.protocol).unwrap();
    let loaded = load(&image, ram, config);
    assert!(inspected.to_string().lines().count() < 200);
    assert_eq!(inspected.offers.is_empty(), inspected.problem.is_some());
    if let Ok(loaded) = loaded {
        let offered = |offer: &Offer| offer.protocol == loaded.protocol;
        assert!(inspected.offers.iter().any(offered));
        check_areas(ram, &loaded);
    }
}

fn check_areas(ram: &GuestRam, loaded: &Loaded) {
    for area in &loaded.areas {
        let inside = |r: goldcrest_memory::Region| {
            r.start <= area.range.start && area.range.end <= r.start + r.len
        };
        assert!(ram.regions().any(inside), "{area:?}");
        assert!(!area.range.is_empty());
    }
    for pair in loaded.areas.windows(2) {
        assert!(pair[0].range.end <= pair[1].range.start, "{pair:?}");
    }
}

/// Images that are well-formed, of every kind.
fn good() -> impl Strategy<Value = Vec<u8>> {
    let traps = DirectEntry {
        flags: FLAG_PVCLOCK,
        trap_vectors: 0x10_0200,
        trap_stack: 0x10_b000,
        syscall_entry: 0x10_0100,
        ..direct_note(0x10_0000)
    };
    prop_oneof![
        Just(unikernel(&traps)),
        Just(pvh_kernel(&0x100_0000u32.to_le_bytes())),
        Just(vmlinux()),
        Just(bzimage()),
        Just(kernel_with(&multiboot_header(3, &[]))),
        Just(kernel_with(&multiboot2_header(&many_tags()))),
        Just(multiboot_flat()),
        Just(elf32(3, 0x10_0000, &kernel_segments(&[]))),
    ]
}

/// Addresses near those of a kernel, and values at which arithmetic goes wrong.
fn edge_32() -> impl Strategy<Value = u32> {
    prop_oneof![
        any::<u32>(),
        (0u32..32, -2i32..=2).prop_map(|(bit, more)| (1u32 << bit).wrapping_add_signed(more)),
        (0x10_0000u32..0x10_4000),
    ]
}

/// Values at which arithmetic goes wrong.
fn edge() -> impl Strategy<Value = u64> {
    prop_oneof![
        any::<u64>(),
        (0u32..64, -2i64..=2).prop_map(|(bit, more)| (1u64 << bit).wrapping_add_signed(more)),
        (0u64..0x11_0000).prop_map(|address| address & !0xfff),
    ]
}

thread_local! {
    /// One for all cases: images may be loaded over each other here, as nothing runs.
    static RAM: GuestRam = ram(64 * MIB);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn arbitrary_bytes(bytes in prop::collection::vec(any::<u8>(), 0..2048)) {
        RAM.with(|ram| check(ram, bytes, &BootConfig::default()));
    }

    #[test]
    fn arbitrary_bytes_behind_a_magic(
        mut bytes in prop::collection::vec(any::<u8>(), 0x300..2048),
        elf in any::<bool>(),
    ) {
        if elf {
            bytes[..20].copy_from_slice(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x02\0\x3e\0");
            bytes[32..40].copy_from_slice(&64u64.to_le_bytes());
            bytes[54..58].copy_from_slice(&[56, 0, 4, 0]);
        } else {
            bytes[0x1fe..0x200].copy_from_slice(&[0x55, 0xaa]);
            bytes[0x202..0x208].copy_from_slice(b"HdrS\x0f\x02");
        }
        RAM.with(|ram| check(ram, bytes, &BootConfig::default()));
    }

    #[test]
    fn spoilt_headers(
        mut image in good(),
        spoils in prop::collection::vec((0usize..0x300, edge(), 0usize..=8), 1..4),
        len in prop_oneof![4 => Just(usize::MAX), 1 => 0usize..0x4000],
        gigabyte_pages in any::<bool>(),
    ) {
        for (at, value, width) in spoils {
            image[at..at + width].copy_from_slice(&value.to_le_bytes()[..width]);
        }
        image.truncate(len);
        let config = BootConfig { gigabyte_pages, pvclock: true, ..BootConfig::default() };
        RAM.with(|ram| check(ram, image, &config));
    }

    #[test]
    fn spoilt_fields_of_direct_entry(field in 0usize..9, value in edge(), gigabyte_pages in any::<bool>()) {
        let good = DirectEntry {
            trap_vectors: 0x10_0200,
            trap_stack: 0x10_b000,
            ..direct_note(0x10_0000)
        };
        let mut desc = direct_desc(&good);
        let at = if field < 4 { field * 4 } else { 16 + (field - 4) * 8 };
        let width = if field < 4 { 4 } else { 8 };
        desc[at..at + width].copy_from_slice(&value.to_le_bytes()[..width]);
        let image = ElfBuilder::new(0x10_0000, unikernel_segments())
            .note(b"Goldcrest\0", 1, &desc)
            .build();
        let config = BootConfig { gigabyte_pages, ..BootConfig::default() };
        RAM.with(|ram| check(ram, image, &config));
    }

    #[test]
    fn multiboot_addresses_anywhere(
        flags in prop_oneof![Just(0x1_0003u32), any::<u32>()],
        addresses in prop::array::uniform5(edge_32()),
        at in 0usize..0x800,
    ) {
        let mut image = vec![0x90; at * 4];
        image.extend(multiboot_header(flags, &addresses));
        image.resize(image.len().max(0x2000), 0);
        RAM.with(|ram| check(ram, image, &BootConfig::default()));
    }

    #[test]
    fn multiboot2_tags_of_any_kind(
        tags in prop::collection::vec((0u16..12, 0u16..2, prop::collection::vec(edge_32(), 0..6)), 0..6),
        flat in any::<bool>(),
    ) {
        let tags: Vec<_> = tags.iter().map(|(kind, flags, content)| tag(*kind, *flags, content)).collect();
        let header = multiboot2_header(&tags);
        let image = if flat { header } else { kernel_with(&header) };
        RAM.with(|ram| check(ram, image, &BootConfig::default()));
    }

    #[test]
    fn flat_binaries_anywhere(address in edge(), entry in edge(), mode in 0usize..3, len in 1usize..0x3000) {
        let mut flat = Flat::at(address);
        flat.mode = [Mode::Real, Mode::Protected, Mode::Long][mode];
        flat.entry = (entry % 2 == 0).then_some(entry);
        let config = BootConfig { protocol: Some(Protocol::Flat(flat)), ..BootConfig::default() };
        RAM.with(|ram| check(ram, vec![0xf4; len], &config));
    }

    #[test]
    fn segments_anywhere(
        segments in prop::collection::vec((0u64..0x5000, 0u64..0x3000, 0u32..8), 1..12),
        direct in any::<bool>(),
    ) {
        let segments: Vec<_> = segments
            .into_iter()
            .map(|(page, size, flags)| segment(flags, page << 8, &vec![1; size as usize / 2], size))
            .collect();
        let entry = segments[0].address;
        let mut image = ElfBuilder::new(entry, segments);
        if direct {
            image = image.direct(&direct_note(entry));
        }
        RAM.with(|ram| check(ram, image.build(), &BootConfig::default()));
    }
}
