//! The image: an ELF64 file whose page-aligned segments are mapped, not copied.

use std::fs::File;
use std::io::{Error, Result};
use std::os::unix::fs::FileExt;

use goldcrest_abi::note::{self, DirectEntry};

use crate::ram::Ram;

/// Bytes of a page.
pub const PAGE: u64 = 4096;

const PT_LOAD: u32 = 1;
const PT_NOTE: u32 = 4;

/// A loadable segment.
pub struct Segment {
    /// Guest-physical address, a multiple of a page.
    pub start: u64,
    /// The first page after it.
    pub end: u64,
    /// `PF_W`.
    pub writable: bool,
    /// `PF_X`.
    pub executable: bool,
}

/// What is known of a loaded image.
pub struct Image {
    /// What it asks for.
    pub note: DirectEntry,
    /// Its segments.
    pub segments: Vec<Segment>,
}

/// Maps the segments of `file` into `ram`. The headers and the notes have to be in the file's first page.
pub fn load(file: &File, ram: &Ram) -> Result<Image> {
    let mut head = [0; PAGE as usize];
    let len = file.read_at(&mut head, 0)?;
    let head = &head[..len];
    if head.get(..6) != Some(b"\x7fELF\x02\x01") {
        return Err(Error::other("not a little-endian ELF64 image"));
    }
    let table = word(head, 32)?;
    let mut note = None;
    let mut segments = Vec::new();
    for index in 0..u64::from(half(head, 56)?) {
        let header = head.get((table + index * 56) as usize..).ok_or_else(cut)?;
        match int(header, 0)? {
            PT_LOAD => segments.push(map_segment(header, file, ram)?),
            PT_NOTE => note = note.or(find_note(head, word(header, 8)?, word(header, 32)?)?),
            _ => {}
        }
    }
    let note = note.ok_or_else(|| Error::other("no direct-entry note in the first page"))?;
    Ok(Image { note, segments })
}

fn map_segment(header: &[u8], file: &File, ram: &Ram) -> Result<Segment> {
    let (flags, offset, start) = (int(header, 4)?, word(header, 8)?, word(header, 24)?);
    let (file_size, memory_size) = (word(header, 32)?, word(header, 40)?);
    if !start.is_multiple_of(PAGE)
        || !offset.is_multiple_of(PAGE)
        || memory_size > ram.size() as u64
    {
        return Err(Error::other(format!(
            "segment at {start:#x} is not page-aligned or does not fit"
        )));
    }
    let mapped = file_size.next_multiple_of(PAGE);
    if mapped != 0 {
        ram.map_file(start, file, offset, mapped as usize)?;
        if memory_size > file_size {
            ram.zero(start + file_size, (mapped - file_size) as usize)?;
        }
    }
    let end = (start + memory_size).next_multiple_of(PAGE);
    Ok(Segment {
        start,
        end,
        writable: flags & 2 != 0,
        executable: flags & 1 != 0,
    })
}

/// Looks for the direct-entry note among the notes in `len` bytes at `offset`.
fn find_note(head: &[u8], offset: u64, len: u64) -> Result<Option<DirectEntry>> {
    let mut notes = head
        .get(offset as usize..)
        .and_then(|rest| rest.get(..len as usize))
        .ok_or_else(cut)?;
    while notes.len() >= 12 {
        let name_len = (int(notes, 0)? as usize).next_multiple_of(4);
        let desc_len = (int(notes, 4)? as usize).next_multiple_of(4);
        let desc = notes.get(12 + name_len..).ok_or_else(cut)?;
        if notes[12..].starts_with(&note::NAME) && int(notes, 8)? == note::TYPE_DIRECT_ENTRY {
            return Ok(Some(DirectEntry {
                version: int(desc, 0)?,
                ring: int(desc, 4)?,
                flags: int(desc, 8)?,
                reserved: 0,
                entry: word(desc, 16)?,
                stack_size: word(desc, 24)?,
                trap_vectors: word(desc, 32)?,
                trap_stack: word(desc, 40)?,
                syscall_entry: word(desc, 48)?,
            }));
        }
        notes = desc.get(desc_len..).unwrap_or_default();
    }
    Ok(None)
}

fn half(bytes: &[u8], at: usize) -> Result<u16> {
    bytes
        .get(at..at + 2)
        .and_then(|b| b.try_into().ok())
        .map(u16::from_le_bytes)
        .ok_or_else(cut)
}

fn int(bytes: &[u8], at: usize) -> Result<u32> {
    bytes
        .get(at..at + 4)
        .and_then(|b| b.try_into().ok())
        .map(u32::from_le_bytes)
        .ok_or_else(cut)
}

fn word(bytes: &[u8], at: usize) -> Result<u64> {
    bytes
        .get(at..at + 8)
        .and_then(|b| b.try_into().ok())
        .map(u64::from_le_bytes)
        .ok_or_else(cut)
}

fn cut() -> Error {
    Error::other("the image is cut short")
}
