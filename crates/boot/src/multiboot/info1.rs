//! The Multiboot information structure (Multiboot 0.6.96, §3.3).

use super::sections::SectionTable;
use super::{LOADER_NAME, basic_memory, low};
use crate::BootError;
use crate::areas::AreaKind;
use crate::load::Loader;
use crate::module::Placed;

/// Bytes of the structure, up to the fields of the framebuffer.
const SIZE: usize = 116;
const MODULE_SIZE: usize = 16;
/// Bytes of an entry of the memory map, without the field `size` itself.
const MAP_ENTRY_SIZE: u32 = 20;

/// Bits of `flags`: which fields are valid.
mod flag {
    pub(super) const MEMORY: u32 = 1 << 0;
    pub(super) const CMDLINE: u32 = 1 << 2;
    pub(super) const MODULES: u32 = 1 << 3;
    pub(super) const ELF_SECTIONS: u32 = 1 << 5;
    pub(super) const MEMORY_MAP: u32 = 1 << 6;
    pub(super) const LOADER_NAME: u32 = 1 << 9;
}

/// Offsets of the fields.
mod offset {
    pub(super) const FLAGS: usize = 0;
    pub(super) const MEM_LOWER: usize = 4;
    pub(super) const MEM_UPPER: usize = 8;
    pub(super) const CMDLINE: usize = 16;
    pub(super) const MODS_COUNT: usize = 20;
    pub(super) const MODS_ADDR: usize = 24;
    pub(super) const ELF_NUM: usize = 28;
    pub(super) const ELF_SIZE: usize = 32;
    pub(super) const ELF_ADDR: usize = 36;
    pub(super) const ELF_SHNDX: usize = 40;
    pub(super) const MMAP_LENGTH: usize = 44;
    pub(super) const MMAP_ADDR: usize = 48;
    pub(super) const BOOT_LOADER_NAME: usize = 64;
}

/// Writes the structure and, behind it in one block, all that it points to; gives its address.
pub(super) fn write(
    loader: &mut Loader<'_>,
    cmdline: &[u8],
    modules: &[Placed<'_>],
    sections: Option<&SectionTable>,
) -> Result<u64, BootError> {
    // Claiming the block does not change the map: to the guest it is RAM.
    let mut block = Block {
        bytes: vec![0; SIZE],
        pointers: Vec::new(),
    };
    let (lower, upper) = basic_memory(loader);
    block.set(offset::MEM_LOWER, lower);
    block.set(offset::MEM_UPPER, upper);
    let mut flags =
        flag::MEMORY | flag::CMDLINE | flag::MODULES | flag::MEMORY_MAP | flag::LOADER_NAME;

    block.add_modules(modules);
    block.add_memory_map(&loader.e820());
    if let Some(table) = sections {
        flags |= flag::ELF_SECTIONS;
        block.set(offset::ELF_NUM, table.count);
        block.set(offset::ELF_SIZE, table.entry_size);
        block.set(offset::ELF_SHNDX, table.names);
        block.point(offset::ELF_ADDR, &table.bytes);
    }
    block.point(offset::CMDLINE, cmdline);
    block.point(offset::BOOT_LOADER_NAME, LOADER_NAME);
    block.set(offset::FLAGS, flags);

    let what = "the Multiboot information";
    let len = block.bytes.len() as u64;
    let limit = goldcrest_memory::layout::HOLE_END;
    let base = loader.areas.lowest(AreaKind::BootInfo, what, len, limit)?;
    loader.write(what, base, &block.at(base))?;
    Ok(base)
}

/// The structure with what it points to. Pointers are offsets until the address of the block is known.
struct Block {
    bytes: Vec<u8>,
    /// Where pointers are.
    pointers: Vec<usize>,
}

impl Block {
    fn set(&mut self, at: usize, value: u32) {
        let fields = self.bytes.iter_mut().skip(at).zip(value.to_le_bytes());
        fields.for_each(|(field, byte)| *field = byte);
    }

    fn get(&self, at: usize) -> u32 {
        let field = self.bytes.get(at..).and_then(|rest| rest.first_chunk());
        field.map_or(0, |bytes| u32::from_le_bytes(*bytes))
    }

    /// Adds bytes, 8-byte aligned; gives their offset.
    fn add(&mut self, bytes: &[u8]) -> usize {
        let at = self.bytes.len().next_multiple_of(8);
        self.bytes.resize(at, 0);
        self.bytes.extend(bytes);
        at
    }

    /// Adds bytes, and points a field to them.
    fn point(&mut self, field: usize, bytes: &[u8]) {
        let at = self.add(bytes);
        self.point_to(field, at);
    }

    fn point_to(&mut self, field: usize, at: usize) {
        self.set(field, u32::try_from(at).unwrap_or(u32::MAX));
        self.pointers.push(field);
    }

    /// The list of modules, then their arguments.
    fn add_modules(&mut self, modules: &[Placed<'_>]) {
        self.set(
            offset::MODS_COUNT,
            u32::try_from(modules.len()).unwrap_or(u32::MAX),
        );
        let list = self.add(&vec![0; modules.len() * MODULE_SIZE]);
        self.point_to(offset::MODS_ADDR, list);
        for (module, at) in modules.iter().zip((list..).step_by(MODULE_SIZE)) {
            self.set(at, low(module.start));
            // One that ends at 4 GiB would have no end: such a machine has no RAM there.
            self.set(at + 4, low(module.end()));
            let arguments: Vec<u8> = module.arguments.bytes().chain([0]).collect();
            self.point(at + 8, &arguments);
        }
    }

    fn add_memory_map(&mut self, map: &[(u64, u64, u32)]) {
        let mut bytes = Vec::new();
        for (start, len, kind) in map {
            bytes.extend(MAP_ENTRY_SIZE.to_le_bytes());
            bytes.extend([*start, *len].map(u64::to_le_bytes).as_flattened());
            bytes.extend(kind.to_le_bytes());
        }
        self.set(
            offset::MMAP_LENGTH,
            u32::try_from(bytes.len()).unwrap_or(u32::MAX),
        );
        self.point(offset::MMAP_ADDR, &bytes);
    }

    /// The bytes, if the block lies at `base`.
    fn at(mut self, base: u64) -> Vec<u8> {
        for field in std::mem::take(&mut self.pointers) {
            self.set(field, low(base).wrapping_add(self.get(field)));
        }
        self.bytes
    }
}
