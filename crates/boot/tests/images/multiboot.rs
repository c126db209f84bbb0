//! Multiboot kernels, and ELFs of 32 bits.

use super::{ElfBuilder, Load, R, W, X, segment};

const MAGIC_1: u32 = 0x1bad_b002;
const MAGIC_2: u32 = 0xe852_50d6;

/// A Multiboot header with these flags, and address fields if there are any.
pub fn multiboot_header(flags: u32, addresses: &[u32]) -> Vec<u8> {
    let checksum = 0u32.wrapping_sub(MAGIC_1).wrapping_sub(flags);
    let fields = [&[MAGIC_1, flags, checksum], addresses].concat();
    fields
        .iter()
        .flat_map(|field| field.to_le_bytes())
        .collect()
}

/// A tag of a Multiboot2 header, padded.
pub fn tag(kind: u16, flags: u16, content: &[u32]) -> Vec<u8> {
    let mut bytes = [kind, flags].map(u16::to_le_bytes).as_flattened().to_vec();
    bytes.extend((8 + 4 * content.len() as u32).to_le_bytes());
    bytes.extend(content.iter().flat_map(|field| field.to_le_bytes()));
    bytes.resize(bytes.len().next_multiple_of(8), 0);
    bytes
}

/// A Multiboot2 header with these tags, to which the last is added.
pub fn multiboot2_header(tags: &[Vec<u8>]) -> Vec<u8> {
    let tags = [tags.concat(), tag(0, 0, &[])].concat();
    let len = 16 + tags.len() as u32;
    let checksum = 0u32.wrapping_sub(MAGIC_2).wrapping_sub(len);
    let fields = [MAGIC_2, 0, len, checksum];
    let fields = fields.iter().flat_map(|field| field.to_le_bytes());
    fields.chain(tags).collect()
}

/// Text at 1 MiB that begins with a header, and data with zeroes behind.
pub fn kernel_segments(header: &[u8]) -> Vec<Load> {
    let mut text = header.to_vec();
    text.resize(0x1000, 0x90);
    vec![
        segment(R | X, 0x10_0000, &text, 0x1000),
        segment(R | W, 0x10_1000, &[0x44; 0x800], 0x3000),
    ]
}

/// An ELF64 kernel whose text begins with a header, and that starts in the middle of it.
pub fn kernel_with(header: &[u8]) -> Vec<u8> {
    ElfBuilder::new(0x10_0800, kernel_segments(header)).build()
}

/// An ELF32 for a machine with these segments, page-aligned, and without notes.
pub fn elf32(machine: u16, entry: u32, segments: &[Load]) -> Vec<u8> {
    let mut image = b"\x7fELF\x01\x01\x01".to_vec();
    image.resize(16, 0);
    image.extend([2, machine].map(u16::to_le_bytes).as_flattened());
    image.extend([1, entry, 52, 0, 0].map(u32::to_le_bytes).as_flattened());
    let counts = [52, 32, segments.len() as u16, 40, 0, 0];
    image.extend(counts.map(u16::to_le_bytes).as_flattened());
    let mut body = Vec::new();
    let body_at = (52 + 32 * segments.len()).next_multiple_of(4096);
    for load in segments {
        body.resize(body.len().next_multiple_of(4096), 0);
        let fields = [
            1,
            (body_at + body.len()) as u32,
            load.virtual_address as u32,
            load.address as u32,
            load.bytes.len() as u32,
            load.memory_size as u32,
            load.flags,
            4096,
        ];
        image.extend(fields.map(u32::to_le_bytes).as_flattened());
        body.extend(&load.bytes);
    }
    image.resize(body_at, 0);
    image.extend(body);
    image
}

/// A flat binary of 8 KiB for 1 MiB with a Multiboot header that says so.
pub fn multiboot_flat() -> Vec<u8> {
    let addresses = [0x10_0100, 0x10_0000, 0x10_2000, 0x10_6000, 0x10_0200];
    let mut image = vec![0x90; 0x2000];
    let header = multiboot_header(0x1_0003, &addresses);
    image[0x100..0x100 + header.len()].copy_from_slice(&header);
    image
}

/// Tags of a kernel that asks for much, and can lie anywhere.
pub fn many_tags() -> Vec<Vec<u8>> {
    vec![
        tag(1, 0, &[1, 3, 4, 6, 8, 9, 14, 15]),
        tag(1, 1, &[99]),
        tag(5, 1, &[1024, 768, 32]),
        tag(6, 0, &[]),
        tag(10, 0, &[0x10_0000, 0xffff_ffff, 0x1000, 1]),
    ]
}
