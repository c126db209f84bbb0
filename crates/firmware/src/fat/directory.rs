//! Directories: short entries, and the long names before them (§6 and §7).

use alloc::string::String;
use alloc::vec::Vec;

use crate::fields::{bytes_at, in_memory, u8_at, u16_at, u32_at};
use crate::file::{File, FsError};

/// Bytes of an entry.
const ENTRY: usize = 32;
/// Read at once.
const CHUNK: usize = 4096;
/// The first byte of an entry: the directory ends here; the entry is free.
const END: u8 = 0;
const FREE: u8 = 0xe5;
/// Attributes.
const VOLUME: u8 = 0x08;
const DIRECTORY: u8 = 0x10;
const LONG_NAME: u8 = 0x0f;
const LONG_NAME_MASK: u8 = 0x3f;
/// The number of a long name's entry: set in the last part, which comes first.
const LAST: u8 = 0x40;
/// Parts of a long name, and code units of each.
const MAX_PARTS: u8 = 20;
const PART_UNITS: usize = 13;
/// The short name's base or extension is shown in lower case, as Windows NT and Linux have it.
const LOWER_BASE: u8 = 0x08;
const LOWER_EXTENSION: u8 = 0x10;

/// What is in a directory.
#[derive(Debug, Clone)]
pub(super) struct Found {
    entry: [u8; ENTRY],
    short: String,
    long: Option<String>,
}

impl Found {
    pub(super) fn name(&self) -> &str {
        self.long.as_ref().unwrap_or(&self.short)
    }

    /// Whether one of its names is this one; upper and lower case are the same.
    pub(super) fn is_called(&self, name: &str) -> bool {
        self.name().eq_ignore_ascii_case(name) || self.short.eq_ignore_ascii_case(name)
    }

    pub(super) fn is_dir(&self) -> bool {
        u8_at(&self.entry, 11) & DIRECTORY != 0
    }

    pub(super) fn size(&self) -> u32 {
        u32_at(&self.entry, 28)
    }

    /// Where it begins.
    pub(super) fn cluster(&self) -> u32 {
        u32::from(u16_at(&self.entry, 20)) << 16 | u32::from(u16_at(&self.entry, 26))
    }
}

/// Calls `each` with every file and directory, until it gives true.
pub(super) fn scan(directory: &File, mut each: impl FnMut(&Found) -> bool) -> Result<(), FsError> {
    let mut long = LongName::default();
    let mut chunk = [0; CHUNK];
    let mut at = 0;
    while at < directory.size() {
        let len = in_memory(directory.size() - at).min(CHUNK);
        let part = chunk.get_mut(..len).unwrap_or_default();
        directory.read(at, part)?;
        let (entries, _) = part.as_chunks::<ENTRY>();
        for entry in entries {
            match (u8_at(entry, 0), u8_at(entry, 11)) {
                (END, _) => return Ok(()),
                (FREE, _) => long = LongName::default(),
                (_, attributes) if attributes & LONG_NAME_MASK == LONG_NAME => long.add(entry),
                (_, attributes) if attributes & VOLUME != 0 => long = LongName::default(),
                _ => {
                    let found = Found {
                        entry: *entry,
                        short: short_name(entry),
                        long: core::mem::take(&mut long).finish(entry),
                    };
                    if each(&found) {
                        return Ok(());
                    }
                }
            }
        }
        at = at.saturating_add(CHUNK as u64);
    }
    Ok(())
}

/// The parts of a long name, as far as they have come: the last one first.
#[derive(Debug, Default)]
struct LongName {
    /// Code units, the parts in the order in which they came.
    parts: Vec<[u16; PART_UNITS]>,
    /// The number that the next part has.
    next: u8,
    checksum: u8,
}

impl LongName {
    fn add(&mut self, entry: &[u8; ENTRY]) {
        let (order, checksum) = (u8_at(entry, 0), u8_at(entry, 13));
        let number = order & !LAST;
        if order & LAST != 0 {
            self.parts.clear();
            (self.next, self.checksum) = (number, checksum);
        }
        if number == 0 || number > MAX_PARTS || number != self.next || checksum != self.checksum {
            *self = Self::default();
            return;
        }
        self.next = number.saturating_sub(1);
        let first = (1..11).step_by(2);
        let units = first.chain((14..26).step_by(2)).chain((28..32).step_by(2));
        let mut part = [0; PART_UNITS];
        for (to, at) in part.iter_mut().zip(units) {
            *to = u16_at(entry, at);
        }
        self.parts.push(part);
    }

    /// The name, if it is complete and belongs to this short entry.
    fn finish(self, entry: &[u8; ENTRY]) -> Option<String> {
        let complete = self.next == 0 && !self.parts.is_empty();
        if !complete || self.checksum != checksum(&bytes_at(entry, 0)) {
            return None;
        }
        let units = self.parts.iter().rev().flatten().copied();
        let units = units.take_while(|unit| *unit != 0);
        let decoded = char::decode_utf16(units);
        Some(
            decoded
                .map(|c| c.unwrap_or(char::REPLACEMENT_CHARACTER))
                .collect(),
        )
    }
}

/// That of a short name, which its long name's parts repeat (§7.2).
fn checksum(short: &[u8; 11]) -> u8 {
    short
        .iter()
        .fold(0_u8, |sum, byte| sum.rotate_right(1).wrapping_add(*byte))
}

fn short_name(entry: &[u8; ENTRY]) -> String {
    let case = u8_at(entry, 12);
    let mut base: [u8; 8] = bytes_at(entry, 0);
    if let Some(first @ 0x05) = base.first_mut() {
        // In Japanese, a name may begin with the mark of a free entry.
        *first = FREE;
    }
    let extension: [u8; 3] = bytes_at(entry, 8);
    let mut name = text(&base, case & LOWER_BASE != 0);
    let extension = text(&extension, case & LOWER_EXTENSION != 0);
    if !extension.is_empty() {
        name.push('.');
        name.push_str(&extension);
    }
    name
}

/// A part of a short name, without what fills it up. What is not ASCII is in a code page that nobody names.
fn text(bytes: &[u8], lower: bool) -> String {
    let trimmed = bytes.trim_ascii_end();
    let chars = trimmed.iter().map(|byte| match byte {
        0x80.. => char::REPLACEMENT_CHARACTER,
        byte if lower => char::from(byte.to_ascii_lowercase()),
        byte => char::from(*byte),
    });
    chars.collect()
}
