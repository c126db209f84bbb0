//! Sections of PE images (Microsoft, *PE Format*), as unified kernel images have them.

use alloc::vec;
use alloc::vec::Vec;

use crate::fields::{bytes_at, in_memory, u16_at, u32_at};
use crate::file::{File, FsError};

/// Bytes of the DOS header, and where it says where the PE header is.
const DOS_HEADER: usize = 64;
const PE_OFFSET: usize = 0x3c;
/// Bytes of the signature and the COFF header.
const COFF_HEADER: usize = 24;
/// Bytes of a section's header.
const SECTION: usize = 40;
/// The most sections, as Windows has it.
const MAX_SECTIONS: u16 = 96;
/// x86-64.
pub const MACHINE_X86_64: u16 = 0x8664;

/// A part of a file.
#[derive(Debug, Clone)]
pub struct Part {
    file: File,
    offset: u64,
    size: u64,
}

impl Part {
    /// All of a file.
    pub fn whole(file: File) -> Self {
        Self {
            offset: 0,
            size: file.size(),
            file,
        }
    }

    /// Bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Fills `buffer` from byte `offset` of the part on.
    ///
    /// # Errors
    ///
    /// If it ends before, or the disk cannot be read.
    pub fn read(&self, offset: u64, buffer: &mut [u8]) -> Result<(), crate::ReadError> {
        let len = crate::fields::on_disk(buffer.len());
        if offset.checked_add(len).is_none_or(|end| end > self.size) {
            return Err(crate::ReadError::Outside {
                offset,
                len,
                size: self.size,
            });
        }
        self.file.read(self.offset.saturating_add(offset), buffer)
    }

    /// All of it, if it has at most `limit` bytes.
    ///
    /// # Errors
    ///
    /// [`FsError::TooLarge`], and if reading fails.
    pub fn read_all(&self, limit: usize) -> Result<Vec<u8>, FsError> {
        let size = in_memory(self.size);
        if size > limit {
            return Err(FsError::TooLarge {
                size: self.size,
                limit,
            });
        }
        let mut bytes = vec![0; size];
        self.read(0, &mut bytes)?;
        Ok(bytes)
    }
}

/// A PE image: its sections.
#[derive(Debug, Clone)]
pub struct Image {
    file: File,
    /// For which processor.
    pub machine: u16,
    sections: Vec<Section>,
}

#[derive(Debug, Clone)]
struct Section {
    name: [u8; 8],
    offset: u64,
    size: u64,
}

impl Image {
    /// The PE image in a file; `None` if it is none.
    ///
    /// # Errors
    ///
    /// If there is one that is damaged, or the file cannot be read.
    pub fn parse(file: &File) -> Result<Option<Self>, FsError> {
        let mut dos = [0; DOS_HEADER];
        if file.size() < crate::fields::on_disk(DOS_HEADER) {
            return Ok(None);
        }
        file.read(0, &mut dos)?;
        if bytes_at(&dos, 0) != *b"MZ" {
            return Ok(None);
        }
        let start = u64::from(u32_at(&dos, PE_OFFSET));
        let mut coff = [0; COFF_HEADER];
        if file.read(start, &mut coff).is_err() || bytes_at(&coff, 0) != *b"PE\0\0" {
            return Ok(None);
        }
        let count = u16_at(&coff, 6);
        if count > MAX_SECTIONS {
            return Err(corrupt("a PE image with too many sections", count.into()));
        }
        let optional_header = u64::from(u16_at(&coff, 20));
        let mut headers = vec![0; usize::from(count) * SECTION];
        let at = start
            .saturating_add(COFF_HEADER as u64)
            .saturating_add(optional_header);
        file.read(at, &mut headers)?;
        let (headers, _) = headers.as_chunks::<SECTION>();
        let sections = headers.iter().map(|header| section(header, file.size()));
        Ok(Some(Self {
            file: file.clone(),
            machine: u16_at(&coff, 4),
            sections: sections.collect::<Result<_, _>>()?,
        }))
    }

    /// The first section of this name. A unified kernel image with several profiles has those of the others behind.
    pub fn section(&self, name: &str) -> Option<Part> {
        let is_called = |section: &&Section| {
            let end = section.name.iter().position(|byte| *byte == 0);
            section.name.get(..end.unwrap_or(8)) == Some(name.as_bytes())
        };
        let section = self.sections.iter().find(is_called)?;
        Some(Part {
            file: self.file.clone(),
            offset: section.offset,
            size: section.size,
        })
    }
}

/// A section's header. In memory it may be larger than in the file, or be filled up in the file.
fn section(header: &[u8; SECTION], file_size: u64) -> Result<Section, FsError> {
    let (virtual_size, raw_size) = (u32_at(header, 8), u32_at(header, 16));
    let section = Section {
        name: bytes_at(header, 0),
        offset: u32_at(header, 20).into(),
        size: virtual_size.min(raw_size).into(),
    };
    let end = section.offset.saturating_add(section.size);
    if section.size != 0 && end > file_size {
        return Err(corrupt("a PE image's section ends beyond it", end));
    }
    Ok(section)
}

fn corrupt(what: &'static str, value: u64) -> FsError {
    FsError::Corrupt { what, value }
}
