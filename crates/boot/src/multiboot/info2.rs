//! The Multiboot2 boot information (Multiboot2 2.0, §3.6).

use goldcrest_memory::layout::HOLE_END;

use super::sections::SectionTable;
use super::{LOADER_NAME, basic_memory, low};
use crate::BootError;
use crate::acpi::{RSDP_SIZE, rsdp_1};
use crate::areas::AreaKind;
use crate::load::Loader;
use crate::module::Placed;

/// Types of tags.
mod tag {
    pub(super) const END: u32 = 0;
    pub(super) const CMDLINE: u32 = 1;
    pub(super) const LOADER_NAME: u32 = 2;
    pub(super) const MODULE: u32 = 3;
    pub(super) const BASIC_MEMORY: u32 = 4;
    pub(super) const MEMORY_MAP: u32 = 6;
    pub(super) const ELF_SECTIONS: u32 = 9;
    pub(super) const ACPI_OLD: u32 = 14;
    pub(super) const ACPI_NEW: u32 = 15;
    pub(super) const LOAD_BASE: u32 = 21;
}

/// Bytes of an entry of the memory map, and its version.
const MAP_ENTRY_SIZE: u32 = 24;
const MAP_ENTRY_VERSION: u32 = 0;

/// What a kernel is told.
pub(super) struct Information<'a> {
    pub(super) cmdline: &'a [u8],
    pub(super) modules: &'a [Placed<'a>],
    pub(super) sections: Option<SectionTable>,
    /// The root pointer of ACPI.
    pub(super) rsdp: [u8; RSDP_SIZE],
    /// Where the kernel lies, if it can lie elsewhere than it is linked at.
    pub(super) load_base: Option<u64>,
}

impl Information<'_> {
    /// Writes all tags in one block; gives its address.
    pub(super) fn write(&self, loader: &mut Loader<'_>) -> Result<u64, BootError> {
        // Claiming the block does not change the map: to the guest it is RAM.
        let bytes = self.bytes(basic_memory(loader), &loader.e820());
        let what = "the Multiboot2 boot information";
        let len = bytes.len() as u64;
        let base = loader
            .areas
            .lowest(AreaKind::BootInfo, what, len, HOLE_END)?;
        loader.write(what, base, &bytes)?;
        Ok(base)
    }

    fn bytes(&self, (lower, upper): (u32, u32), map: &[(u64, u64, u32)]) -> Vec<u8> {
        let mut block = Block(vec![0; 8]);
        block.add(tag::CMDLINE, &[self.cmdline]);
        block.add(tag::LOADER_NAME, &[LOADER_NAME]);
        for module in self.modules {
            let range = [low(module.start), low(module.end())].map(u32::to_le_bytes);
            let arguments = module.arguments.as_bytes();
            block.add(tag::MODULE, &[range.as_flattened(), arguments, &[0]]);
        }
        let memory = [lower, upper].map(u32::to_le_bytes);
        block.add(tag::BASIC_MEMORY, &[memory.as_flattened()]);
        let header = [MAP_ENTRY_SIZE, MAP_ENTRY_VERSION].map(u32::to_le_bytes);
        let entries: Vec<_> = map
            .iter()
            .flat_map(|(start, len, kind)| [*start, *len, u64::from(*kind)].map(u64::to_le_bytes))
            .collect();
        block.add(
            tag::MEMORY_MAP,
            &[header.as_flattened(), entries.as_flattened()],
        );
        if let Some(table) = &self.sections {
            // The figure of the specification has 16-bit fields, its header file and all loaders 32-bit ones.
            let header = [table.count, table.entry_size, table.names].map(u32::to_le_bytes);
            block.add(tag::ELF_SECTIONS, &[header.as_flattened(), &table.bytes]);
        }
        block.add(tag::ACPI_OLD, &[&rsdp_1(&self.rsdp)]);
        block.add(tag::ACPI_NEW, &[&self.rsdp]);
        if let Some(base) = self.load_base {
            block.add(tag::LOAD_BASE, &[&low(base).to_le_bytes()]);
        }
        block.add(tag::END, &[]);
        block.finish()
    }
}

/// The tags, behind the fixed part.
struct Block(Vec<u8>);

impl Block {
    fn add(&mut self, kind: u32, parts: &[&[u8]]) {
        let bytes = &mut self.0;
        bytes.resize(bytes.len().next_multiple_of(8), 0);
        let content: usize = parts.iter().map(|part| part.len()).sum();
        let size = u32::try_from(8 + content).unwrap_or(u32::MAX);
        bytes.extend([kind, size].map(u32::to_le_bytes).as_flattened());
        for part in parts {
            bytes.extend_from_slice(part);
        }
    }

    fn finish(mut self) -> Vec<u8> {
        let total = u32::try_from(self.0.len()).unwrap_or(u32::MAX);
        let field = self.0.iter_mut().zip(total.to_le_bytes());
        field.for_each(|(field, byte)| *field = byte);
        self.0
    }
}
