//! The headers of an ELF, of both classes, in one form.

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout};

use super::{EM_386, EM_X86_64, ET_DYN, ET_EXEC, MAX_PROGRAM_HEADERS};
use crate::{BadImage, BootError, Image};

const CLASS_32: u8 = 1;
const CLASS_64: u8 = 2;
const DATA_LITTLE_ENDIAN: u8 = 1;

/// Whether addresses have 32 or 64 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Class {
    Elf32,
    Elf64,
}

/// `Elf64_Ehdr`.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Header64 {
    ident: [u8; 16],
    kind: U16,
    machine: U16,
    version: U32,
    entry: U64,
    program_headers: U64,
    section_headers: U64,
    flags: U32,
    counts: Counts,
}

/// `Elf32_Ehdr`.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Header32 {
    ident: [u8; 16],
    kind: U16,
    machine: U16,
    version: U32,
    entry: U32,
    program_headers: U32,
    section_headers: U32,
    flags: U32,
    counts: Counts,
}

/// The end of both, from `e_ehsize`.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Counts {
    header_size: U16,
    program_header_size: U16,
    program_header_count: U16,
    section_header_size: U16,
    section_header_count: U16,
    section_names: U16,
}

/// `Elf64_Phdr`.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct ProgramHeader64 {
    kind: U32,
    flags: U32,
    offset: U64,
    virtual_address: U64,
    physical_address: U64,
    file_size: U64,
    memory_size: U64,
    align: U64,
}

/// `Elf32_Phdr`.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct ProgramHeader32 {
    kind: U32,
    offset: U32,
    virtual_address: U32,
    physical_address: U32,
    file_size: U32,
    memory_size: U32,
    flags: U32,
    align: U32,
}

/// The ELF header, checked.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Header {
    pub(crate) class: Class,
    /// `EI_OSABI`.
    pub(crate) os_abi: u8,
    /// `e_type`: `ET_EXEC` or `ET_DYN`.
    pub(crate) kind: u16,
    pub(crate) entry: u64,
    pub(crate) sections: Sections,
    program_headers: u64,
    program_header_count: u16,
}

/// Where the section header table is. Nothing of it is checked.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sections {
    pub(crate) offset: u64,
    /// Bytes of an entry.
    pub(crate) entry_size: u16,
    pub(crate) count: u16,
    /// The section with the names.
    pub(crate) names: u16,
}

/// A program header.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ProgramHeader {
    pub(crate) kind: u32,
    pub(crate) flags: u32,
    pub(crate) offset: u64,
    pub(crate) virtual_address: u64,
    pub(crate) physical_address: u64,
    pub(crate) file_size: u64,
    pub(crate) memory_size: u64,
    pub(crate) align: u64,
}

impl Class {
    const fn header_size(self) -> usize {
        match self {
            Self::Elf32 => size_of::<Header32>(),
            Self::Elf64 => size_of::<Header64>(),
        }
    }

    const fn program_header_size(self) -> usize {
        match self {
            Self::Elf32 => size_of::<ProgramHeader32>(),
            Self::Elf64 => size_of::<ProgramHeader64>(),
        }
    }
}

impl Header {
    /// Reads and checks the header.
    pub(crate) fn read(image: &Image) -> Result<Self, BootError> {
        let mut ident = [0; 16];
        let (beginning, class) = match image.read_at(0, &mut ident) {
            Ok(()) => (true, class(&ident).map_err(|problem| image.bad(problem))?),
            Err(_) => (false, Class::Elf64),
        };
        let size = class.header_size();
        if !beginning || image.len() < size as u64 {
            return Err(image.bad(BadImage::Truncated {
                what: "the ELF header",
                end: size as u64,
                len: image.len(),
            }));
        }
        let mut bytes = [0; size_of::<Header64>()];
        let bytes = bytes.get_mut(..size).unwrap_or_default();
        image.read_at(0, bytes)?;
        let (machine, counts, header) = match class {
            Class::Elf32 => Self::of_32(bytes),
            Class::Elf64 => Self::of_64(bytes),
        };
        header
            .check(machine, &counts)
            .map_err(|problem| image.bad(problem))?;
        Ok(header)
    }

    fn of_32(bytes: &[u8]) -> (u16, Counts, Self) {
        let header = Header32::read_from_bytes(bytes).unwrap_or_else(|_| Header32::new_zeroed());
        let entries = [header.entry, header.program_headers, header.section_headers];
        let (machine, kind) = (header.machine.get(), header.kind.get());
        Self::new(
            Class::Elf32,
            header.ident,
            (machine, kind),
            entries.map(|field| field.get().into()),
            header.counts,
        )
    }

    fn of_64(bytes: &[u8]) -> (u16, Counts, Self) {
        let header = Header64::read_from_bytes(bytes).unwrap_or_else(|_| Header64::new_zeroed());
        let entries = [header.entry, header.program_headers, header.section_headers];
        let (machine, kind) = (header.machine.get(), header.kind.get());
        Self::new(
            Class::Elf64,
            header.ident,
            (machine, kind),
            entries.map(U64::get),
            header.counts,
        )
    }

    fn new(
        class: Class,
        ident: [u8; 16],
        (machine, kind): (u16, u16),
        [entry, program_headers, section_headers]: [u64; 3],
        counts: Counts,
    ) -> (u16, Counts, Self) {
        let [_, _, _, _, _, _, _, os_abi, ..] = ident;
        let header = Self {
            class,
            os_abi,
            kind,
            entry,
            sections: Sections {
                offset: section_headers,
                entry_size: counts.section_header_size.get(),
                count: counts.section_header_count.get(),
                names: counts.section_names.get(),
            },
            program_headers,
            program_header_count: counts.program_header_count.get(),
        };
        (machine, counts, header)
    }

    fn check(&self, machine: u16, counts: &Counts) -> Result<(), BadImage> {
        match (self.class, machine) {
            (_, EM_X86_64) | (Class::Elf32, EM_386) => {}
            (Class::Elf64, found) => return Err(BadImage::Machine { found }),
            (Class::Elf32, found) => return Err(BadImage::Machine32 { found }),
        }
        if !matches!(self.kind, ET_EXEC | ET_DYN) {
            return Err(BadImage::NotExecutable { found: self.kind });
        }
        let size = counts.program_header_size.get();
        let expected = self.class.program_header_size();
        match self.program_header_count {
            0 => Err(BadImage::NoSegments),
            _ if usize::from(size) != expected => {
                Err(BadImage::ProgramHeaderSize { size, expected })
            }
            count if count > MAX_PROGRAM_HEADERS => Err(BadImage::TooManyProgramHeaders {
                count,
                limit: MAX_PROGRAM_HEADERS,
            }),
            _ => Ok(()),
        }
    }

    /// Reads the program headers.
    pub(crate) fn program_headers(&self, image: &Image) -> Result<Vec<ProgramHeader>, BootError> {
        let count = usize::from(self.program_header_count);
        let len = count * self.class.program_header_size();
        let offset = self.program_headers;
        if offset
            .checked_add(len as u64)
            .is_none_or(|end| end > image.len())
        {
            return Err(image.bad(BadImage::Truncated {
                what: "the program header table",
                end: offset.saturating_add(len as u64),
                len: image.len(),
            }));
        }
        Ok(match self.class {
            Class::Elf32 => {
                let mut headers = vec![ProgramHeader32::new_zeroed(); count];
                image.read_at(offset, headers.as_mut_bytes())?;
                headers.iter().map(ProgramHeader::from).collect()
            }
            Class::Elf64 => {
                let mut headers = vec![ProgramHeader64::new_zeroed(); count];
                image.read_at(offset, headers.as_mut_bytes())?;
                headers.iter().map(ProgramHeader::from).collect()
            }
        })
    }
}

/// The class, of an ELF in little-endian order.
fn class(ident: &[u8; 16]) -> Result<Class, BadImage> {
    let [_, _, _, _, class, data, version, ..] = *ident;
    match (class, data, version) {
        (CLASS_32, DATA_LITTLE_ENDIAN, 1) => Ok(Class::Elf32),
        (CLASS_64, DATA_LITTLE_ENDIAN, 1) => Ok(Class::Elf64),
        _ => Err(BadImage::ElfIdent {
            class,
            data,
            version,
        }),
    }
}

impl From<&ProgramHeader32> for ProgramHeader {
    fn from(header: &ProgramHeader32) -> Self {
        Self {
            kind: header.kind.get(),
            flags: header.flags.get(),
            offset: header.offset.get().into(),
            virtual_address: header.virtual_address.get().into(),
            physical_address: header.physical_address.get().into(),
            file_size: header.file_size.get().into(),
            memory_size: header.memory_size.get().into(),
            align: header.align.get().into(),
        }
    }
}

impl From<&ProgramHeader64> for ProgramHeader {
    fn from(header: &ProgramHeader64) -> Self {
        Self {
            kind: header.kind.get(),
            flags: header.flags.get(),
            offset: header.offset.get(),
            virtual_address: header.virtual_address.get(),
            physical_address: header.physical_address.get(),
            file_size: header.file_size.get(),
            memory_size: header.memory_size.get(),
            align: header.align.get(),
        }
    }
}
