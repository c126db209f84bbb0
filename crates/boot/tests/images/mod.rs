//! Images built by hand, well-formed unless a test spoils them.
#![allow(
    dead_code,
    unreachable_pub,
    unused_imports,
    reason = "each test file uses a part"
)]
#![allow(clippy::cast_possible_truncation, reason = "the images are small")]

mod bzimage;
mod hermit;
mod multiboot;
mod solo5;

use goldcrest_abi::note::{DirectEntry, NAME, TYPE_DIRECT_ENTRY, VERSION};
use goldcrest_boot::{BootConfig, BootError, Image, Loaded, load};
use goldcrest_memory::{GuestRam, MemoryConfig};

pub use bzimage::{KERNEL_OFFSET, bzimage};
pub use hermit::*;
pub use multiboot::{
    elf32, kernel_segments, kernel_with, many_tags, multiboot_flat, multiboot_header,
    multiboot2_header, tag,
};
pub use solo5::*;

pub const R: u32 = 4;
pub const W: u32 = 2;
pub const X: u32 = 1;

pub const MIB: u64 = 1 << 20;

/// Where the program headers begin in every ELF that is built here.
pub const PROGRAM_HEADERS: usize = 64;

#[derive(Clone)]
pub struct Load {
    pub flags: u32,
    pub virtual_address: u64,
    pub address: u64,
    pub bytes: Vec<u8>,
    pub memory_size: u64,
}

/// A segment at `address`.
pub fn segment(flags: u32, address: u64, bytes: &[u8], memory_size: u64) -> Load {
    Load {
        flags,
        virtual_address: address,
        address,
        bytes: bytes.to_vec(),
        memory_size,
    }
}

/// An ELF as a linker makes it: headers, notes, then each segment page-aligned.
#[derive(Clone)]
pub struct ElfBuilder {
    pub entry: u64,
    pub segments: Vec<Load>,
    pub notes: Vec<u8>,
    pub note_align: u64,
}

impl ElfBuilder {
    pub fn new(entry: u64, segments: Vec<Load>) -> Self {
        Self {
            entry,
            segments,
            notes: Vec::new(),
            note_align: 4,
        }
    }

    pub fn note(mut self, name: &[u8], kind: u32, desc: &[u8]) -> Self {
        let pad = |bytes: &mut Vec<u8>| bytes.resize(bytes.len().next_multiple_of(4), 0);
        let header = [name.len() as u32, desc.len() as u32, kind];
        self.notes
            .extend(header.map(u32::to_le_bytes).as_flattened());
        self.notes.extend(name);
        pad(&mut self.notes);
        self.notes.extend(desc);
        pad(&mut self.notes);
        self
    }

    pub fn direct(self, note: &DirectEntry) -> Self {
        self.note(&NAME, TYPE_DIRECT_ENTRY, &direct_desc(note))
    }

    pub fn build(&self) -> Vec<u8> {
        let count = self.segments.len() + usize::from(!self.notes.is_empty());
        let notes_at = PROGRAM_HEADERS + 56 * count;
        let mut headers = Vec::new();
        if !self.notes.is_empty() {
            let len = self.notes.len() as u64;
            let fields = [notes_at as u64, 0, 0, len, len, self.note_align];
            program_header(&mut headers, 4, R, fields);
        }
        let mut body = self.notes.clone();
        for load in &self.segments {
            let offset = (notes_at + body.len()).next_multiple_of(4096);
            body.resize(offset - notes_at, 0);
            body.extend(&load.bytes);
            let fields = [
                offset as u64,
                load.virtual_address,
                load.address,
                load.bytes.len() as u64,
                load.memory_size,
                4096,
            ];
            program_header(&mut headers, 1, load.flags, fields);
        }
        let mut image = b"\x7fELF\x02\x01\x01".to_vec();
        image.resize(16, 0);
        image.extend([2u16, 62].map(u16::to_le_bytes).as_flattened());
        image.extend(1u32.to_le_bytes());
        let words = [self.entry, PROGRAM_HEADERS as u64, 0];
        image.extend(words.map(u64::to_le_bytes).as_flattened());
        image.extend(0u32.to_le_bytes());
        image.extend(
            [64, 56, count as u16, 64, 0, 0]
                .map(u16::to_le_bytes)
                .as_flattened(),
        );
        image.extend(headers);
        image.extend(body);
        image
    }
}

fn program_header(out: &mut Vec<u8>, kind: u32, flags: u32, fields: [u64; 6]) {
    out.extend([kind, flags].map(u32::to_le_bytes).as_flattened());
    out.extend(fields.map(u64::to_le_bytes).as_flattened());
}

pub fn direct_desc(note: &DirectEntry) -> Vec<u8> {
    let words = [note.version, note.ring, note.flags, note.reserved];
    let quads = [
        note.entry,
        note.stack_size,
        note.trap_vectors,
        note.trap_stack,
        note.syscall_entry,
    ];
    [
        words.map(u32::to_le_bytes).as_flattened(),
        quads.map(u64::to_le_bytes).as_flattened(),
    ]
    .concat()
}

pub fn direct_note(entry: u64) -> DirectEntry {
    DirectEntry {
        version: VERSION,
        ring: 3,
        flags: 0,
        reserved: 0,
        entry,
        stack_size: 0,
        trap_vectors: 0,
        trap_stack: 0,
        syscall_entry: 0,
    }
}

/// Text at 1 MiB, read-only data and data behind, as a linker lays out a small unikernel.
pub fn unikernel_segments() -> Vec<Load> {
    vec![
        segment(R | X, 0x10_0000, &[0x90; 0x1234], 0x1234),
        segment(R, 0x10_2000, &[0x11; 0x800], 0x800),
        segment(R | W, 0x10_3000, &[0x22; 0x1100], 0x9000),
    ]
}

pub fn unikernel(note: &DirectEntry) -> Vec<u8> {
    ElfBuilder::new(note.entry, unikernel_segments())
        .direct(note)
        .build()
}

/// An ELF kernel with a PVH note of `desc`.
pub fn pvh_kernel(desc: &[u8]) -> Vec<u8> {
    let segments = vec![
        segment(R | X, 0x100_0000, &[0x90; 0x2000], 0x2000),
        segment(R | W | X, 0x100_2000, &[0x33; 0x1000], 0x5000),
    ];
    ElfBuilder::new(0x100_0000, segments)
        .note(b"GNU\0", 3, &[1; 20])
        .note(b"Xen\0", 18, desc)
        .build()
}

/// An ELF kernel without notes.
pub fn vmlinux() -> Vec<u8> {
    let segments = vec![segment(R | X, 0x100_0000, &[0x90; 0x2000], 0x20_0000)];
    ElfBuilder::new(0x100_0040, segments).build()
}

pub fn ram(size: u64) -> GuestRam {
    let config = MemoryConfig {
        size,
        ..MemoryConfig::default()
    };
    GuestRam::new(&config).unwrap()
}

pub fn read(ram: &GuestRam, at: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    ram.view().read(at, &mut bytes).unwrap();
    bytes
}

pub fn read_u64(ram: &GuestRam, at: u64) -> u64 {
    u64::from_le_bytes(read(ram, at, 8).try_into().unwrap())
}

pub fn read_u32(ram: &GuestRam, at: u64) -> u32 {
    u32::from_le_bytes(read(ram, at, 4).try_into().unwrap())
}

/// Loads bytes into 64 MiB.
pub fn load_bytes(bytes: Vec<u8>, config: &BootConfig<'_>) -> Result<Loaded, BootError> {
    let image = Image::from_bytes("kernel", bytes).unwrap();
    load(&image, &ram(64 * MIB), config)
}

/// The start, length and kind of every range of a memory map at `at`, whose entries are `size` bytes long.
pub fn memory_map(ram: &GuestRam, at: u64, count: u64, size: u64) -> Vec<(u64, u64, u32)> {
    let entries = (0..count).map(|n| at + n * size);
    let entry = |at| {
        (
            read_u64(ram, at),
            read_u64(ram, at + 8),
            read_u32(ram, at + 16),
        )
    };
    entries.map(entry).collect()
}

/// What a PC with `size` bytes of RAM below 3 GiB has.
pub fn pc_memory_map(size: u64) -> Vec<(u64, u64, u32)> {
    vec![
        (0, 0x9_fc00, 1),
        (0x9_fc00, 0x6_0400, 2),
        (0x10_0000, size - 0x10_0000, 1),
    ]
}

/// The message with which bytes are refused.
pub fn refusal(bytes: Vec<u8>) -> String {
    let refused = load_bytes(bytes, &BootConfig::default());
    refused
        .map(|loaded| loaded.protocol)
        .unwrap_err()
        .to_string()
}

/// Overwrites a part of an image.
pub fn patch(mut image: Vec<u8>, at: usize, bytes: &[u8]) -> Vec<u8> {
    image[at..at + bytes.len()].copy_from_slice(bytes);
    image
}
