//! The section headers of an ELF, and its sections that no segment has: symbols, strings, debugging information.

use goldcrest_memory::{PAGE_SIZE, layout::HOLE_END};

use super::UPPER;
use crate::BootError;
use crate::areas::AreaKind;
use crate::elf::{Class, Elf};
use crate::load::Loader;

/// The most sections of which a kernel is told.
const MAX_SECTIONS: u16 = 1024;
const SHT_NULL: u64 = 0;
const SHT_NOBITS: u64 = 8;

/// A section header table for the guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SectionTable {
    pub(super) bytes: Vec<u8>,
    pub(super) count: u32,
    /// Bytes of an entry.
    pub(super) entry_size: u32,
    /// The section with the names.
    pub(super) names: u32,
}

/// Offset and width of a field of a section header.
type Field = (usize, usize);

/// The fields of `Elf32_Shdr` or `Elf64_Shdr` that matter.
struct Layout {
    kind: Field,
    address: Field,
    offset: Field,
    size: Field,
    entry_size: u16,
}

const LAYOUT_32: Layout = Layout {
    kind: (4, 4),
    address: (12, 4),
    offset: (16, 4),
    size: (20, 4),
    entry_size: 40,
};
const LAYOUT_64: Layout = Layout {
    kind: (4, 4),
    address: (16, 8),
    offset: (24, 8),
    size: (32, 8),
    entry_size: 64,
};

/// Bytes in the file for which a section header asks for memory.
struct Unplaced {
    /// Where in the table the header is.
    header: usize,
    offset: u64,
    size: u64,
    /// From the beginning of all of them.
    at: u64,
}

impl SectionTable {
    /// Reads the table, and puts the sections without an address into memory, together; if they do not fit, they stay
    /// without one. An ELF whose table is missing or makes no sense gives none: a kernel does not need it to run.
    pub(super) fn place(loader: &mut Loader<'_>, elf: &Elf) -> Result<Option<Self>, BootError> {
        let layout = match elf.class {
            Class::Elf32 => &LAYOUT_32,
            Class::Elf64 => &LAYOUT_64,
        };
        let Some(mut table) = Self::read(loader, elf, layout)? else {
            return Ok(None);
        };
        let unplaced = table.unplaced(layout, loader.image.len());
        let len = unplaced.last().map_or(0, |last| last.at + last.size);
        let what = "the sections";
        let room = loader
            .areas
            .lowest_in(AreaKind::Image, what, len.max(1), UPPER..HOLE_END);
        // `len` is 0 where there is nothing to place, and no room is needed.
        let (Ok(start), true) = (room, len != 0) else {
            return Ok(Some(table));
        };
        for section in &unplaced {
            let at = start + section.at;
            loader.copied +=
                loader
                    .image
                    .place(loader.ram, what, section.offset, at, section.size)?;
            let (field, width) = layout.address;
            let bytes = table.bytes.iter_mut().skip(section.header + field);
            bytes
                .zip(at.to_le_bytes())
                .take(width)
                .for_each(|(to, from)| *to = from);
        }
        Ok(Some(table))
    }

    fn read(loader: &Loader<'_>, elf: &Elf, layout: &Layout) -> Result<Option<Self>, BootError> {
        let sections = elf.sections;
        if sections.count == 0
            || sections.count > MAX_SECTIONS
            || sections.entry_size != layout.entry_size
            || sections.names >= sections.count
        {
            return Ok(None);
        }
        let len = usize::from(sections.count) * usize::from(sections.entry_size);
        let end = sections.offset.checked_add(len as u64);
        if end.is_none_or(|end| end > loader.image.len()) {
            return Ok(None);
        }
        let mut bytes = vec![0; len];
        loader.image.read_at(sections.offset, &mut bytes)?;
        Ok(Some(Self {
            bytes,
            count: sections.count.into(),
            entry_size: sections.entry_size.into(),
            names: sections.names.into(),
        }))
    }

    /// The sections that have bytes in the file and no address, one after the other in whole pages, so that they can be
    /// mapped.
    fn unplaced(&self, layout: &Layout, image_len: u64) -> Vec<Unplaced> {
        let mut unplaced: Vec<Unplaced> = Vec::new();
        let step = usize::from(layout.entry_size);
        for (index, header) in self.bytes.chunks_exact(step).enumerate() {
            let field = |(at, width)| {
                let bytes = header.iter().skip(at).take(width).rev();
                bytes.fold(0u64, |value, byte| value << 8 | u64::from(*byte))
            };
            let (kind, offset, size) =
                (field(layout.kind), field(layout.offset), field(layout.size));
            let is_placed = field(layout.address) != 0 || matches!(kind, SHT_NULL | SHT_NOBITS);
            let in_file = offset.checked_add(size).is_some_and(|end| end <= image_len);
            if is_placed || size == 0 || !in_file {
                continue;
            }
            let end = unplaced.last().map_or(0, |last| last.at + last.size);
            // As far into its page as in the file.
            let into_page = offset % PAGE_SIZE;
            let at = end.next_multiple_of(PAGE_SIZE) + into_page;
            unplaced.push(Unplaced {
                header: index * step,
                offset,
                size,
                at,
            });
        }
        unplaced
    }
}
