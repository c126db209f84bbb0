//! Images: of our own protocol, of Linux's, and of Multiboot's.

use goldcrest_abi::note::{DirectEntry, FLAG_PVCLOCK};

use crate::Seeds;
use crate::images::{
    self, bzimage, direct_note, elf32, kernel_segments, many_tags, multiboot_flat,
    multiboot_header, multiboot2_header, patch, pvh_kernel, tag, unikernel, vmlinux,
};

/// How an image is loaded: the last two bytes of its seed. As it offers itself; with all that a guest can be given; and
/// the same in memory on both sides of the hole below 4 GiB.
const WAYS: [[u8; 2]; 3] = [[0x04, 0], [0xf4, 0x13], [0xff, 0x0f]];
/// Bytes of a segment that a seed needs.
const SEGMENT_BYTES: usize = 16;

pub(crate) fn image_seeds() -> Seeds {
    let traps = DirectEntry {
        flags: FLAG_PVCLOCK,
        trap_vectors: 0x10_0200,
        trap_stack: 0x10_b000,
        syscall_entry: 0x10_0100,
        ..direct_note(0x10_0000)
    };
    let ring_0 = DirectEntry {
        ring: 0,
        stack_size: 0x4000,
        ..direct_note(0x10_0000)
    };
    let elves = [
        unikernel(&traps),
        unikernel(&ring_0),
        pvh_kernel(&0x100_0000u32.to_le_bytes()),
        pvh_kernel(&0x100_0000u64.to_le_bytes()),
        vmlinux(),
    ];
    // A kernel of 33 units, one more than lie before its entry point.
    let kernel =
        patch(bzimage(), 0x1f4, &33u32.to_le_bytes())[..images::KERNEL_OFFSET + 33 * 16].to_vec();
    let fixed = patch(kernel.clone(), 0x234, &[0]);
    let elves = elves.iter().map(|elf| ("elf", compact(elf)));
    let kernels = [("bzimage", kernel), ("bzimage", fixed)];
    let images: Vec<_> = elves.chain(kernels).collect();
    images
        .iter()
        .flat_map(|(target, image)| WAYS.map(|way| (*target, [image, &way[..]].concat())))
        .collect()
}

/// How images of protocols with modules are loaded: as they offer themselves; with all that a guest can be given; and the
/// same by the protocol itself, in memory on both sides of the hole below 4 GiB.
const WAYS_WITH_MODULES: [[u8; 2]; 3] = [[0x04, 0], [0xf0, 0x93], [0x6b, 0xcf]];

/// Multiboot kernels of both versions: an ELF32, a flat binary, a relocatable one. The last byte is where the header is,
/// in units of its alignment.
pub(crate) fn multiboot_seeds() -> Seeds {
    let small = |header: &[u8]| {
        let mut segments = kernel_segments(header);
        for segment in &mut segments {
            segment.bytes.truncate(header.len().max(SEGMENT_BYTES));
        }
        let elf = elf32(3, 0x10_0004, &segments);
        // Without the padding before the segments.
        let (headers, body) = (&elf[..52 + 32 * 2], &elf[4096..]);
        let mut image = [headers, &body[..header.len()]].concat();
        image.resize(image.len().next_multiple_of(8), 0);
        let offset = headers.len() as u32;
        for (index, size) in [(0, header.len()), (1, 0)] {
            let at = 52 + 32 * index;
            image[at + 4..at + 8].copy_from_slice(&offset.to_le_bytes());
            image[at + 16..at + 20].copy_from_slice(&(size as u32).to_le_bytes());
        }
        image
    };
    let flat = multiboot_flat()[..0x180].to_vec();
    // Its address fields begin after three others; the second is where loading ends.
    let flat = patch(flat, 0x100 + 20, &0u32.to_le_bytes());
    let flat = patch(flat, 0x100 + 28, &0x10_0140u32.to_le_bytes());
    let addresses = [
        tag(2, 0, &[0x10_0000, u32::MAX, 0, 0x10_4000]),
        tag(3, 0, &[0x10_0010]),
    ];
    let seeds = [
        ("multiboot", small(&multiboot_header(3, &[])), 116 / 4),
        ("multiboot", flat, 64),
        // Headers of this version lie at a multiple of 8, as 120 is.
        (
            "multiboot2",
            small_at_8(&small(&multiboot2_header(&many_tags()))),
            120 / 8,
        ),
        ("multiboot2", multiboot2_header(&addresses), 0),
    ];
    let ways = |(target, image, place): (&'static str, Vec<u8>, u8)| {
        WAYS_WITH_MODULES.map(|way| (target, [&image[..], &way, &[place]].concat()))
    };
    seeds.into_iter().flat_map(ways).collect()
}

/// The same ELF32, with four bytes between its headers and its segment.
fn small_at_8(elf: &[u8]) -> Vec<u8> {
    let (headers, body) = elf.split_at(116);
    let image = [headers, &[0; 4], body].concat();
    patch(image, 52 + 4, &120u32.to_le_bytes())
}

/// Flat binaries in each mode, and an ELF32.
pub(crate) fn flat_seeds() -> Seeds {
    let seed = |image: &[u8], choice: u8, short: u16, way: [u8; 2]| {
        let trailer = [&[choice][..], &short.to_le_bytes(), &way].concat();
        let mut padded = trailer;
        padded.resize(20, 0);
        ("flat", [image, &padded].concat())
    };
    let elf = elf32(
        3,
        0x10_0000,
        &[images::segment(5, 0x10_0000, &[0x90; 16], 64)],
    );
    let mut seeds = vec![seed(&elf, 0, 0, [0, 0x90])];
    for (choice, short) in [
        (1, 0x07c0),
        (1, 0x0000),
        (2, 0x8100),
        (3, 0x8200),
        (2, 0x00a0),
    ] {
        for way in WAYS_WITH_MODULES {
            seeds.push(seed(&[0xf4; 32], choice, short, [way[0] & !4, way[1]]));
        }
    }
    seeds
}

/// A beginning of each kind of file that is looked into.
pub(crate) fn file_seeds() -> Seeds {
    let mut pe = vec![0; 0x200];
    pe[..2].copy_from_slice(b"MZ");
    pe[0x3c] = 0x40;
    pe[0x40..0x48].copy_from_slice(b"PE\0\0\x64\x86\x02\0");
    pe[0x54] = 0xf0;
    pe[0x58 + 68] = 10;
    pe[0x58 + 0xf0 + 40..][..6].copy_from_slice(b".linux");
    let mut library = vmlinux()[..0x80].to_vec();
    library[16] = 3;
    let mut module = elf32(3, 0, &[]);
    module.truncate(52);
    module[16] = 1;
    let files = [
        pe,
        library,
        module,
        b"#!/bin/sh -e\n".to_vec(),
        b"\x1f\x8b\x08".to_vec(),
        "text, naïve\n".into(),
        patch(vec![0; 0x440], 0x438, &[0x53, 0xef]),
    ];
    files.map(|file| ("identify", file)).into()
}

/// Each image with a command line, and at the limits of those that have one.
pub(crate) fn cmdline_seeds() -> Seeds {
    let line = |choice: u8, text: &[u8]| ("cmdline", [&[choice], text].concat());
    let text = "console=ttyS0 naïve\tquiet".as_bytes();
    let plain = (0..4).map(|image| line(image, text));
    let limits = [2047, 2048].map(|len| line(1, &vec![b'x'; len]));
    plain.chain(limits).collect()
}

/// The same ELF without most of its segments' bytes, and without padding.
pub(crate) fn compact(elf: &[u8]) -> Vec<u8> {
    compact_to(elf, SEGMENT_BYTES)
}

/// As [`compact`], with up to `most` bytes of each segment.
pub(crate) fn compact_to(elf: &[u8], most: usize) -> Vec<u8> {
    let field = |at: usize| usize::try_from(images_u64(elf, at)).unwrap_or(usize::MAX);
    let count = usize::from(elf[56]);
    let headers_end = images::PROGRAM_HEADERS + 56 * count;
    let mut small = elf[..headers_end].to_vec();
    for header in (images::PROGRAM_HEADERS..headers_end).step_by(56) {
        let (offset, size) = (field(header + 8), field(header + 32));
        let is_note = elf[header] == 4;
        let kept = if is_note { size } else { size.min(most) };
        let at = small.len();
        small[header + 8..header + 16].copy_from_slice(&(at as u64).to_le_bytes());
        small[header + 32..header + 40].copy_from_slice(&(kept as u64).to_le_bytes());
        small.extend_from_slice(&elf[offset..offset + kept]);
    }
    small
}

fn images_u64(bytes: &[u8], at: usize) -> u64 {
    let field = bytes[at..]
        .first_chunk()
        .expect("the images are well-formed");
    u64::from_le_bytes(*field)
}
