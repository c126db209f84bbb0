//! ELF64 executables (System V ABI, "Object Files"): the header, the loadable segments, the notes.

use std::fmt;
use std::ops::Range;

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout};

use crate::note::{self, Notes};
use crate::{BadImage, BootError, Image};

/// The most program headers that are read. Linux has 5, a unikernel fewer than 10.
pub const MAX_PROGRAM_HEADERS: u16 = 128;

/// The first bytes of every ELF file.
pub(crate) const MAGIC: [u8; 4] = *b"\x7fELF";

const CLASS_64: u8 = 2;
const DATA_LITTLE_ENDIAN: u8 = 1;
const ET_EXEC: u16 = 2;
const ET_DYN: u16 = 3;
const EM_X86_64: u16 = 62;
const PT_LOAD: u32 = 1;
const PT_NOTE: u32 = 4;
const PF_X: u32 = 1;
const PF_W: u32 = 2;
const PF_R: u32 = 4;

/// `Elf64_Ehdr`.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Header {
    ident: [u8; 16],
    kind: U16,
    machine: U16,
    version: U32,
    entry: U64,
    program_headers: U64,
    section_headers: U64,
    flags: U32,
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
struct ProgramHeader {
    kind: U32,
    flags: U32,
    offset: U64,
    virtual_address: U64,
    physical_address: U64,
    file_size: U64,
    memory_size: U64,
    align: U64,
}

/// A loadable segment (`PT_LOAD`), already checked against the image's length and for overflow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment {
    /// Which program header it is.
    pub index: u16,
    /// Where its bytes begin in the file.
    pub offset: u64,
    /// The address it is linked to run at.
    pub virtual_address: u64,
    /// The guest-physical address it is put at.
    pub physical_address: u64,
    /// Bytes in the file, at most `memory_size`.
    pub file_size: u64,
    /// Bytes in memory; those beyond `file_size` are zero.
    pub memory_size: u64,
    /// May be read.
    pub read: bool,
    /// May be written.
    pub write: bool,
    /// May be executed.
    pub execute: bool,
}

impl Segment {
    /// The guest-physical addresses that it takes.
    pub fn range(&self) -> Range<u64> {
        self.physical_address..self.physical_address.saturating_add(self.memory_size)
    }
}

impl fmt::Display for Segment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let flag = |set, letter| if set { letter } else { '-' };
        write!(
            f,
            "{:#x}-{:#x} {}{}{}, {} bytes in the file at {:#x}",
            self.physical_address,
            self.range().end.saturating_sub(1),
            flag(self.read, 'r'),
            flag(self.write, 'w'),
            flag(self.execute, 'x'),
            self.file_size,
            self.offset,
        )
    }
}

/// What a loader needs of an ELF file.
#[derive(Debug, Clone)]
pub(crate) struct Elf {
    /// `e_entry`.
    pub(crate) entry: u64,
    /// Sorted by physical address; without overlaps, never empty.
    pub(crate) segments: Vec<Segment>,
    pub(crate) notes: Notes,
}

impl Elf {
    /// Reads headers and notes.
    pub(crate) fn parse(image: &Image) -> Result<Self, BootError> {
        let header: Header = read(image, 0).map_err(|_| {
            image.bad(BadImage::Truncated {
                what: "the ELF header",
                end: 64,
                len: image.len(),
            })
        })?;
        header.check().map_err(|problem| image.bad(problem))?;
        let mut segments = Vec::new();
        let mut notes = Notes::default();
        for (index, program_header) in program_headers(image, &header)?.iter().enumerate() {
            let index = u16::try_from(index).unwrap_or(u16::MAX);
            match program_header.kind.get() {
                PT_LOAD if program_header.memory_size != 0 || program_header.file_size != 0 => {
                    let segment = program_header.segment(index, image.len());
                    segments.push(segment.map_err(|problem| image.bad(problem))?);
                }
                PT_NOTE => read_notes(image, program_header, &mut notes)?,
                _ => {}
            }
        }
        segments.sort_by_key(|segment| segment.physical_address);
        check_segments(&segments).map_err(|problem| image.bad(problem))?;
        Ok(Self {
            entry: header.entry.get(),
            segments,
            notes,
        })
    }

    /// The segment that has an address, if the address is one that the image's own bytes or zeroes fill.
    pub(crate) fn segment_at(&self, address: u64) -> Option<&Segment> {
        self.segments
            .iter()
            .find(|segment| segment.range().contains(&address))
    }

    /// Fails unless `entry` lies in an executable segment.
    pub(crate) fn check_executable(
        &self,
        image: &Image,
        what: &'static str,
        entry: u64,
    ) -> Result<(), BootError> {
        match self.segment_at(entry) {
            None => Err(image.bad(BadImage::EntryOutside { what, entry })),
            Some(segment) if !segment.execute => Err(image.bad(BadImage::EntryNotExecutable {
                what,
                entry,
                segment: segment.index,
            })),
            Some(_) => Ok(()),
        }
    }
}

impl Header {
    fn check(&self) -> Result<(), BadImage> {
        let [_, _, _, _, class, data, version, ..] = self.ident;
        if class != CLASS_64 || data != DATA_LITTLE_ENDIAN || version != 1 {
            return Err(BadImage::NotElf64 {
                class,
                data,
                version,
            });
        }
        if self.machine != EM_X86_64 {
            return Err(BadImage::Machine {
                found: self.machine.get(),
            });
        }
        match self.kind.get() {
            ET_EXEC => {}
            ET_DYN => return Err(BadImage::PositionIndependent),
            found => return Err(BadImage::NotExecutable { found }),
        }
        let size = self.program_header_size.get();
        if usize::from(size) != size_of::<ProgramHeader>() {
            return Err(BadImage::ProgramHeaderSize { size });
        }
        match self.program_header_count.get() {
            0 => Err(BadImage::NoSegments),
            count if count > MAX_PROGRAM_HEADERS => Err(BadImage::TooManyProgramHeaders {
                count,
                limit: MAX_PROGRAM_HEADERS,
            }),
            _ => Ok(()),
        }
    }
}

impl ProgramHeader {
    fn segment(&self, index: u16, image_len: u64) -> Result<Segment, BadImage> {
        let (offset, size) = (self.offset.get(), self.file_size.get());
        let (address, memory_size) = (self.physical_address.get(), self.memory_size.get());
        if size > memory_size {
            return Err(BadImage::FileSizeOverMemorySize {
                segment: index,
                file_size: size,
                memory_size,
            });
        }
        if offset.checked_add(size).is_none_or(|end| end > image_len) {
            return Err(BadImage::SegmentPastEnd {
                segment: index,
                offset,
                size,
                len: image_len,
            });
        }
        if address.checked_add(memory_size).is_none() {
            return Err(BadImage::SegmentWraps {
                segment: index,
                address,
                memory_size,
            });
        }
        let flags = self.flags.get();
        Ok(Segment {
            index,
            offset,
            virtual_address: self.virtual_address.get(),
            physical_address: address,
            file_size: size,
            memory_size,
            read: flags & PF_R != 0,
            write: flags & PF_W != 0,
            execute: flags & PF_X != 0,
        })
    }
}

fn read<T: FromBytes + IntoBytes>(image: &Image, offset: u64) -> Result<T, BootError> {
    let mut value = T::new_zeroed();
    image.read_at(offset, value.as_mut_bytes())?;
    Ok(value)
}

fn program_headers(image: &Image, header: &Header) -> Result<Vec<ProgramHeader>, BootError> {
    let count = header.program_header_count.get();
    let offset = header.program_headers.get();
    let len = u64::from(count) * u64::from(header.program_header_size.get());
    if offset.checked_add(len).is_none_or(|end| end > image.len()) {
        return Err(image.bad(BadImage::Truncated {
            what: "the program header table",
            end: offset.saturating_add(len),
            len: image.len(),
        }));
    }
    let mut headers = vec![ProgramHeader::new_zeroed(); usize::from(count)];
    image.read_at(offset, headers.as_mut_bytes())?;
    Ok(headers)
}

fn read_notes(image: &Image, header: &ProgramHeader, notes: &mut Notes) -> Result<(), BootError> {
    let (offset, size) = (header.offset.get(), header.file_size.get());
    if size > note::MAX_SIZE {
        return Err(image.bad(BadImage::NotesTooLarge {
            size,
            limit: note::MAX_SIZE,
        }));
    }
    if offset.checked_add(size).is_none_or(|end| end > image.len()) {
        return Err(image.bad(BadImage::Truncated {
            what: "the note segment",
            end: offset.saturating_add(size),
            len: image.len(),
        }));
    }
    let mut bytes = vec![0; usize::try_from(size).unwrap_or(0)];
    image.read_at(offset, &mut bytes)?;
    notes
        .add(&bytes, header.align.get())
        .map_err(|problem| image.bad(problem))
}

fn check_segments(sorted: &[Segment]) -> Result<(), BadImage> {
    if sorted.is_empty() {
        return Err(BadImage::NoSegments);
    }
    for pair in sorted.windows(2) {
        if let [below, above] = pair
            && below.range().end > above.physical_address
        {
            return Err(BadImage::SegmentsOverlap {
                first: below.index,
                second: above.index,
                address: above.physical_address,
            });
        }
    }
    Ok(())
}
