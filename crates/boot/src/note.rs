//! ELF notes (System V ABI, "Note Section"): by which an image says how it wants to be started.

use goldcrest_abi::note::{DirectEntry, NAME, TYPE_DIRECT_ENTRY, XEN_NAME, XEN_TYPE_PHYS32_ENTRY};
use zerocopy::FromBytes;
use zerocopy::little_endian::{U32, U64};

use crate::BadImage;
use crate::hermit::{self, HermitNotes};
use crate::solo5::{self, Abi};

/// The largest note segment that is read, in bytes.
pub(crate) const MAX_SIZE: u64 = 64 * 1024;

/// What the notes are called in messages.
const DIRECT_ENTRY: &str = "direct entry";
const PVH_ENTRY: &str = "PVH entry";

/// `NT_GNU_ABI_TAG` (Linux Standard Base, "Note Section"), with the operating system's number first.
const GNU_NAME: &[u8] = b"GNU\0";
const GNU_TYPE_ABI_TAG: u32 = 1;
const GNU_ABI_LINUX: [u8; 4] = [0; 4];
/// What Go's linker marks its programs with (Go, `cmd/link/internal/ld/elf.go`).
const GO_NAME: &[u8] = b"Go\0\0";

/// What a note says, and where in the image it is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Found<T> {
    pub(crate) value: T,
    /// Offset of the note in the image.
    pub(crate) at: u64,
}

/// The notes that this loader knows.
#[derive(Debug, Clone, Default)]
pub(crate) struct Notes {
    pub(crate) direct: Option<Found<DirectEntry>>,
    /// The 32-bit entry point of PVH.
    pub(crate) pvh: Option<Found<u64>>,
    /// The interface that a Solo5 guest is made for.
    pub(crate) solo5_abi: Option<Found<Abi>>,
    /// The manifest of a Solo5 guest, not yet looked at.
    pub(crate) solo5_manifest: Option<Found<Vec<u8>>>,
    pub(crate) hermit: HermitNotes,
    /// By which note the image is an ordinary program.
    pub(crate) program: Option<&'static str>,
}

impl Notes {
    /// Reads the notes of one segment; `align` is its `p_align`, `offset` where it is in the image.
    pub(crate) fn add(&mut self, bytes: &[u8], align: u64, offset: u64) -> Result<(), BadImage> {
        let align = if align == 8 { 8 } else { 4 };
        let mut left = bytes;
        while !left.is_empty() {
            let at = offset.saturating_add((bytes.len() - left.len()) as u64);
            let (note, rest) =
                split(left, align).ok_or(BadImage::NoteTruncated { left: left.len() })?;
            self.take(&note, at)?;
            left = rest;
        }
        Ok(())
    }

    fn take(&mut self, note: &Note<'_>, at: u64) -> Result<(), BadImage> {
        match (note.name, note.kind) {
            (name, TYPE_DIRECT_ENTRY) if name == NAME => {
                let value = direct_entry(note.desc)?;
                set_once(&mut self.direct, Found { value, at }, DIRECT_ENTRY)
            }
            (name, XEN_TYPE_PHYS32_ENTRY) if name == XEN_NAME => {
                let value = pvh_entry(note.desc)?;
                set_once(&mut self.pvh, Found { value, at }, PVH_ENTRY)
            }
            (solo5::NOTE_NAME, solo5::ABI_NOTE) => {
                let value = Abi::parse(note.desc)?;
                set_once(&mut self.solo5_abi, Found { value, at }, solo5::ABI)
            }
            (solo5::NOTE_NAME, solo5::MANIFEST_NOTE) => {
                let value = note.desc.to_vec();
                let found = &mut self.solo5_manifest;
                set_once(found, Found { value, at }, solo5::MANIFEST)
            }
            (hermit::NOTE_NAME, hermit::ENTRY_VERSION_NOTE) => {
                let value = hermit::entry_version(note.desc)?;
                let found = &mut self.hermit.entry_version;
                set_once(found, Found { value, at }, hermit::ENTRY_VERSION_NAME)
            }
            (hermit::UHYVE_NOTE_NAME, hermit::UHYVE_VERSION_NOTE) => {
                let value = hermit::uhyve_version(note.desc)?;
                let found = &mut self.hermit.uhyve_version;
                set_once(found, value, hermit::UHYVE_VERSION_NAME)
            }
            (GNU_NAME, GNU_TYPE_ABI_TAG) if hermit::kernel_version(note.desc).is_some() => {
                self.hermit.version = hermit::kernel_version(note.desc);
                Ok(())
            }
            (GNU_NAME, GNU_TYPE_ABI_TAG) if note.desc.starts_with(&GNU_ABI_LINUX) => {
                self.program = Some("a GNU note of type 1 says that it runs on Linux");
                Ok(())
            }
            (GO_NAME, _) => {
                self.program = Some("a note of Go's linker");
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

/// Of two notes of a kind, nobody could say which one counts.
fn set_once<T>(field: &mut Option<T>, value: T, note: &'static str) -> Result<(), BadImage> {
    match field.replace(value) {
        None => Ok(()),
        Some(_) => Err(BadImage::TwoNotes { note }),
    }
}

struct Note<'a> {
    name: &'a [u8],
    kind: u32,
    desc: &'a [u8],
}

/// The first note, and what follows it.
fn split(bytes: &[u8], align: usize) -> Option<(Note<'_>, &[u8])> {
    let (header, _) = <[U32; 3]>::read_from_prefix(bytes).ok()?;
    let [name_size, desc_size, kind] = header.map(U32::get);
    let name_end = size_of_val(&header).checked_add(usize::try_from(name_size).ok()?)?;
    let name = bytes.get(size_of_val(&header)..name_end)?;
    // Solo5's linkers align the segments of its notes to 8 bytes, but within them to 4.
    let align = if name == solo5::NOTE_NAME { 4 } else { align };
    let desc_start = name_end.checked_next_multiple_of(align)?;
    let desc_end = desc_start.checked_add(usize::try_from(desc_size).ok()?)?;
    let note = Note {
        name,
        kind,
        desc: bytes.get(desc_start..desc_end)?,
    };
    // The padding of the last note may be missing.
    let next = desc_end.checked_next_multiple_of(align)?;
    Some((note, bytes.get(next..).unwrap_or(&[])))
}

fn direct_entry(desc: &[u8]) -> Result<DirectEntry, BadImage> {
    let size = BadImage::NoteSize {
        note: DIRECT_ENTRY,
        size: desc.len(),
        expected: "56",
    };
    let Ok((words, quads)) = <[U32; 4]>::read_from_prefix(desc) else {
        return Err(size);
    };
    let Ok(quads) = <[U64; 5]>::read_from_bytes(quads) else {
        return Err(size);
    };
    let [version, ring, flags, reserved] = words.map(U32::get);
    let [entry, stack_size, trap_vectors, trap_stack, syscall_entry] = quads.map(U64::get);
    Ok(DirectEntry {
        version,
        ring,
        flags,
        reserved,
        entry,
        stack_size,
        trap_vectors,
        trap_stack,
        syscall_entry,
    })
}

/// Xen writes 4 bytes, Linux has written 4 and 8.
fn pvh_entry(desc: &[u8]) -> Result<u64, BadImage> {
    match desc.len() {
        4 => U32::read_from_bytes(desc)
            .ok()
            .map(|entry| entry.get().into()),
        8 => U64::read_from_bytes(desc).ok().map(U64::get),
        _ => None,
    }
    .ok_or(BadImage::NoteSize {
        note: PVH_ENTRY,
        size: desc.len(),
        expected: "4 or 8",
    })
}
