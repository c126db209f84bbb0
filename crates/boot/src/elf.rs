//! ELF executables (System V ABI, "Object Files"): the header, the loadable segments, the notes.

mod header;

use std::fmt;
use std::ops::Range;

pub(crate) use header::{Class, Header, ProgramHeader, Sections};

use crate::note::{self, Notes};
use crate::{BadImage, BootError, Image};

/// The most program headers that are read. Linux has 5, a unikernel fewer than 10.
pub const MAX_PROGRAM_HEADERS: u16 = 128;

/// The first bytes of every ELF file.
pub(crate) const MAGIC: [u8; 4] = *b"\x7fELF";

const ET_EXEC: u16 = 2;
pub(crate) const ET_DYN: u16 = 3;
const EM_386: u16 = 3;
const EM_X86_64: u16 = 62;
const PT_LOAD: u32 = 1;
const PT_DYNAMIC: u32 = 2;
const PT_INTERP: u32 = 3;
const PT_NOTE: u32 = 4;
const PT_TLS: u32 = 7;
const PT_GNU_STACK: u32 = 0x6474_e551;
const PF_X: u32 = 1;
const PF_W: u32 = 2;
const PF_R: u32 = 4;

/// `ELFOSABI_GNU`: uses what only Linux's C library gives a program.
const OS_ABI_GNU: u8 = 3;
/// Where linkers put programs of x86-64 unless they are told otherwise; those of i386 lie higher.
const DEFAULT_BASE: u64 = 0x40_0000;

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
    pub(crate) class: Class,
    /// `e_entry`.
    pub(crate) entry: u64,
    /// To be put anywhere (`ET_DYN`): addresses count from where it is put.
    pub(crate) relocatable: bool,
    /// Sorted by physical address; without overlaps, never empty.
    pub(crate) segments: Vec<Segment>,
    pub(crate) notes: Notes,
    /// The dynamic section (`PT_DYNAMIC`). Nothing of it is checked.
    pub(crate) dynamic: Option<ProgramHeader>,
    /// What each thread has of its own (`PT_TLS`). Nothing of it is checked.
    pub(crate) tls: Option<ProgramHeader>,
    /// Where its sections are said to be.
    pub(crate) sections: Sections,
    /// By what it is an ordinary program of an operating system, if it is.
    pub(crate) program: Option<&'static str>,
}

impl Elf {
    /// Reads headers and notes.
    pub(crate) fn parse(image: &Image) -> Result<Self, BootError> {
        let header = Header::read(image)?;
        let program_headers = header.program_headers(image)?;
        let mut segments = Vec::new();
        let mut notes = Notes::default();
        let first = |kind| {
            let mut of_kind = program_headers.iter().filter(|header| header.kind == kind);
            of_kind.next().copied()
        };
        for (index, program_header) in (0..).zip(&program_headers) {
            match program_header.kind {
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
            class: header.class,
            entry: header.entry,
            relocatable: header.kind == ET_DYN,
            program: program(&header, &program_headers, &notes),
            segments,
            notes,
            dynamic: first(PT_DYNAMIC),
            tls: first(PT_TLS),
            sections: header.sections,
        })
    }

    /// The segment that has an address, if the address is one that the image's own bytes or zeroes fill.
    pub(crate) fn segment_at(&self, address: u64) -> Option<&Segment> {
        self.segments
            .iter()
            .find(|segment| segment.range().contains(&address))
    }

    /// The same ELF, put `base` above where it is linked to run, wherever it says that it is to be put.
    pub(crate) fn placed(&self, base: u64) -> Result<Self, BadImage> {
        let mut placed = self.clone();
        placed.entry = placed.entry.wrapping_add(base);
        for segment in &mut placed.segments {
            let address = segment.virtual_address.checked_add(base);
            let end = address.and_then(|address| address.checked_add(segment.memory_size));
            let (Some(address), Some(_)) = (address, end) else {
                return Err(BadImage::SegmentWraps {
                    segment: segment.index,
                    address: segment.virtual_address,
                    memory_size: segment.memory_size,
                });
            };
            (segment.virtual_address, segment.physical_address) = (address, address);
        }
        placed
            .segments
            .sort_by_key(|segment| segment.physical_address);
        check_segments(&placed.segments)?;
        Ok(placed)
    }

    /// Where the entry point lies in memory. It is a virtual address; linkers' scripts for kernels also give the physical
    /// ones.
    pub(crate) fn physical_entry(&self) -> u64 {
        let holds = |segment: &&Segment| {
            let offset = self.entry.checked_sub(segment.virtual_address);
            offset.is_some_and(|offset| offset < segment.memory_size)
        };
        let segment = self.segments.iter().find(holds);
        segment.map_or(self.entry, |segment| {
            let offset = self.entry.wrapping_sub(segment.virtual_address);
            offset.saturating_add(segment.physical_address)
        })
    }

    /// Fails unless the ELF has 64 bits and is linked at a fixed address.
    pub(crate) fn check_fixed_64(&self) -> Result<(), BadImage> {
        if self.class != Class::Elf64 {
            return Err(BadImage::Elf32);
        }
        self.check_fixed()
    }

    /// Fails unless the ELF is linked at a fixed address.
    pub(crate) fn check_fixed(&self) -> Result<(), BadImage> {
        if self.relocatable {
            return Err(BadImage::PositionIndependent);
        }
        Ok(())
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

impl ProgramHeader {
    fn segment(&self, index: u16, image_len: u64) -> Result<Segment, BadImage> {
        let (offset, size) = (self.offset, self.file_size);
        let (address, memory_size) = (self.physical_address, self.memory_size);
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
        Ok(Segment {
            index,
            offset,
            virtual_address: self.virtual_address,
            physical_address: address,
            file_size: size,
            memory_size,
            read: self.flags & PF_R != 0,
            write: self.flags & PF_W != 0,
            execute: self.flags & PF_X != 0,
        })
    }
}

/// By what an ELF is an ordinary program, one that an operating system starts. None is proof: a person can insist.
fn program(header: &Header, headers: &[ProgramHeader], notes: &Notes) -> Option<&'static str> {
    let has = |kind| headers.iter().any(|header| header.kind == kind);
    let with_headers = |header: &&ProgramHeader| {
        header.kind == PT_LOAD
            && header.offset == 0
            && header.virtual_address >= DEFAULT_BASE
            && header.virtual_address == header.physical_address
    };
    if has(PT_INTERP) {
        Some("a dynamic linker is named (PT_INTERP)")
    } else if let Some(mark) = notes.program {
        Some(mark)
    } else if header.os_abi == OS_ABI_GNU {
        Some("EI_OSABI is 3 (GNU/Linux)")
    } else if has(PT_GNU_STACK) && headers.iter().any(|header| with_headers(&header)) {
        Some("linked with its headers at or above 0x400000, where programs lie")
    } else {
        None
    }
}

fn read_notes(image: &Image, header: &ProgramHeader, notes: &mut Notes) -> Result<(), BootError> {
    let (offset, size) = (header.offset, header.file_size);
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
        .add(&bytes, header.align, offset)
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
