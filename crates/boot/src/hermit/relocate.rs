//! Relocations of an image that can lie anywhere (System V ABI, "Dynamic Section"; x86-64 psABI §4.4).

use goldcrest_memory::GuestRam;
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout};

use crate::elf::{Elf, ProgramHeader};
use crate::{BadImage, BootError, Image};

/// The most entries of a dynamic section that are read. Hermit has about 20.
const MAX_DYNAMIC: u64 = 1024;
/// Relocations that are read at a time.
const BATCH: usize = 512;

const DT_NULL: u64 = 0;
const DT_NEEDED: u64 = 1;
const DT_PLTRELSZ: u64 = 2;
const DT_SYMTAB: u64 = 6;
const DT_RELA: u64 = 7;
const DT_RELASZ: u64 = 8;
const DT_RELAENT: u64 = 9;
const DT_REL: u64 = 17;
const DT_RELR: u64 = 36;

const R_X86_64_NONE: u32 = 0;
const R_X86_64_64: u32 = 1;
const R_X86_64_GLOB_DAT: u32 = 6;
const R_X86_64_RELATIVE: u32 = 8;

/// `SHN_UNDEF`.
const UNDEFINED: u16 = 0;
/// `STB_WEAK`, as `st_info` has it.
const WEAK: u8 = 2 << 4;

/// `Elf64_Dyn`.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Dynamic {
    tag: U64,
    value: U64,
}

/// `Elf64_Rela`.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Rela {
    offset: U64,
    kind: U32,
    symbol: U32,
    addend: U64,
}

/// `Elf64_Sym`.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Symbol {
    name: U32,
    info: u8,
    other: u8,
    section: U16,
    value: U64,
    size: U64,
}

/// Where relocations are in the file, and how many.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Relocations {
    offset: u64,
    count: u64,
    /// Where the symbols are in the file, if there are some.
    symbols: Option<u64>,
}

/// What relocations are applied to.
pub(super) struct Target<'a> {
    pub(super) image: &'a Image,
    /// As it lies now.
    pub(super) elf: &'a Elf,
    pub(super) ram: &'a GuestRam,
    /// How much above its linked addresses it lies.
    pub(super) base: u64,
}

impl Relocations {
    /// Finds them by the dynamic section; `elf` is as it was linked.
    pub(super) fn find(
        image: &Image,
        elf: &Elf,
        dynamic: Option<&ProgramHeader>,
    ) -> Result<Self, BootError> {
        let Some(dynamic) = dynamic else {
            return Ok(Self::default());
        };
        let bad = |problem| image.bad(problem);
        let count = dynamic.file_size / size_of::<Dynamic>() as u64;
        if count > MAX_DYNAMIC {
            return Err(bad(BadImage::DynamicEntries {
                found: count,
                limit: MAX_DYNAMIC,
            }));
        }
        let end = dynamic.offset.saturating_add(dynamic.file_size);
        if end > image.len() {
            return Err(bad(BadImage::Truncated {
                what: "the dynamic section",
                end,
                len: image.len(),
            }));
        }
        let mut entries = vec![Dynamic::new_zeroed(); usize::try_from(count).unwrap_or(0)];
        image.read_at(dynamic.offset, entries.as_mut_bytes())?;
        let (mut address, mut size, mut symbols) = (None, 0, None);
        for Dynamic { tag, value } in entries {
            let unsupported = |what| bad(BadImage::Dynamic { what });
            match (tag.get(), value.get()) {
                (DT_NULL, _) => break,
                (DT_SYMTAB, value) => symbols = in_file(elf, value, 0),
                (DT_RELA, value) => address = Some(value),
                (DT_RELASZ, value) => size = value,
                (DT_RELAENT, value) if value != size_of::<Rela>() as u64 => {
                    return Err(bad(BadImage::RelocationSize { found: value }));
                }
                (DT_NEEDED, _) => return Err(unsupported("shared libraries (DT_NEEDED)")),
                (DT_REL, _) => return Err(unsupported("relocations without addends (DT_REL)")),
                (DT_RELR, _) => return Err(unsupported("packed relocations (DT_RELR)")),
                (DT_PLTRELSZ, value) if value != 0 => {
                    return Err(unsupported("a procedure linkage table (DT_PLTRELSZ)"));
                }
                _ => {}
            }
        }
        let Some(address) = address.filter(|_| size != 0) else {
            return Ok(Self::default());
        };
        let offset = in_file(elf, address, size);
        match offset.filter(|_| size.is_multiple_of(size_of::<Rela>() as u64)) {
            None => Err(bad(BadImage::Relocations { address, size })),
            Some(offset) => Ok(Self {
                offset,
                count: size / size_of::<Rela>() as u64,
                symbols,
            }),
        }
    }

    /// Does them.
    pub(super) fn apply(&self, target: &Target<'_>) -> Result<(), BootError> {
        let mut batch = vec![Rela::new_zeroed(); BATCH];
        let mut done = 0;
        while done < self.count {
            let count = usize::try_from(self.count - done).unwrap_or(BATCH);
            let part = batch.get_mut(..count.min(BATCH)).unwrap_or_default();
            // They lie in the file, so that nothing here overflows.
            let offset = self.offset + done * size_of::<Rela>() as u64;
            target.image.read_at(offset, part.as_mut_bytes())?;
            for rela in part.iter() {
                self.apply_one(rela, target)?;
            }
            done += part.len() as u64;
        }
        Ok(())
    }

    fn apply_one(&self, rela: &Rela, target: &Target<'_>) -> Result<(), BootError> {
        let address = rela.offset.get().wrapping_add(target.base);
        let bad = |problem| target.image.bad(problem);
        let value = match rela.kind.get() {
            R_X86_64_NONE => return Ok(()),
            R_X86_64_RELATIVE => Some(0),
            R_X86_64_64 | R_X86_64_GLOB_DAT => self.symbol(rela.symbol.get(), target)?,
            found => return Err(bad(BadImage::RelocationType { found, address })),
        };
        let inside = target.elf.segments.iter().any(|segment| {
            let range = segment.range();
            range.start <= address && address.checked_add(8).is_some_and(|end| end <= range.end)
        });
        if !inside {
            return Err(bad(BadImage::RelocationOutside { address }));
        }
        // What is weak and not there is at 0.
        let value = value.map_or(0, |value| {
            target
                .base
                .wrapping_add(value)
                .wrapping_add(rela.addend.get())
        });
        let ram = target.ram.write(address, &value.to_le_bytes());
        ram.map_err(BootError::memory("a relocation"))
    }

    /// The linked address of a symbol, if it is not a weak one that is not there.
    fn symbol(&self, index: u32, target: &Target<'_>) -> Result<Option<u64>, BootError> {
        let undefined = || target.image.bad(BadImage::Symbol { index });
        let table = self.symbols.ok_or_else(undefined)?;
        let offset = table.saturating_add(u64::from(index) * size_of::<Symbol>() as u64);
        let mut symbol = Symbol::new_zeroed();
        target.image.read_at(offset, symbol.as_mut_bytes())?;
        match symbol.section.get() {
            UNDEFINED if symbol.info & 0xf0 == WEAK => Ok(None),
            UNDEFINED => Err(undefined()),
            _ => Ok(Some(symbol.value.get())),
        }
    }
}

/// Where `size` bytes at a virtual address are in the file.
fn in_file(elf: &Elf, address: u64, size: u64) -> Option<u64> {
    elf.segments.iter().find_map(|segment| {
        let inside = address.checked_sub(segment.virtual_address)?;
        let end = inside.checked_add(size)?;
        (end <= segment.file_size).then(|| segment.offset.saturating_add(inside))
    })
}
