//! What can be wrong with the content of an image.

use crate::{BadMultiboot, Solo5Kind};

/// Why an image is refused. Each message carries the value that was found and, where there is one, the limit.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs, reason = "the messages say what the fields are")]
pub enum BadImage {
    #[error(
        "not a kernel or unikernel: {what}; expected an ELF kernel, a bzImage or a Multiboot header"
    )]
    NotBootable { what: String },
    #[error("{what} ends at byte {end}, but the image has {len}: it is truncated or damaged")]
    Truncated {
        what: &'static str,
        end: u64,
        len: u64,
    },

    #[error(
        "ELF class {class}, data encoding {data}, version {version}: expected 1 or 2, 1, 1 (32- or 64-bit, little-endian)"
    )]
    ElfIdent { class: u8, data: u8, version: u8 },
    #[error("ELF for machine {found}: expected 62 (x86-64)")]
    Machine { found: u16 },
    #[error("ELF of 32 bits for machine {found}: expected 3 (i386) or 62 (x86-64)")]
    Machine32 { found: u16 },
    #[error("an ELF of 32 bits: expected 64")]
    Elf32,
    #[error(
        "a position-independent ELF (type 3): link it at a fixed address (-no-pie, -C relocation-model=static)"
    )]
    PositionIndependent,
    #[error("ELF type {found}: expected 2 (executable)")]
    NotExecutable { found: u16 },
    #[error("program headers of {size} bytes: expected {expected}")]
    ProgramHeaderSize { size: u16, expected: usize },
    #[error("{count} program headers: at most {limit} are read")]
    TooManyProgramHeaders { count: u16, limit: u16 },
    #[error("no loadable segment (PT_LOAD)")]
    NoSegments,
    #[error(
        "segment {segment} has {file_size} bytes in the file, but only {memory_size} in memory"
    )]
    FileSizeOverMemorySize {
        segment: u16,
        file_size: u64,
        memory_size: u64,
    },
    #[error("segment {segment} takes {size} bytes at {offset:#x} of the file, which has {len}")]
    SegmentPastEnd {
        segment: u16,
        offset: u64,
        size: u64,
        len: u64,
    },
    #[error(
        "segment {segment} of {memory_size} bytes at address {address:#x} exceeds 64-bit addresses"
    )]
    SegmentWraps {
        segment: u16,
        address: u64,
        memory_size: u64,
    },
    #[error("segments {first} and {second} overlap at address {address:#x}")]
    SegmentsOverlap {
        first: u16,
        second: u16,
        address: u64,
    },
    #[error("{what} {entry:#x} lies outside of every segment")]
    EntryOutside { what: &'static str, entry: u64 },
    #[error("{what} {entry:#x} lies in segment {segment}, which is not executable")]
    EntryNotExecutable {
        what: &'static str,
        entry: u64,
        segment: u16,
    },

    #[error("a note segment of {size} bytes: at most {limit} are read")]
    NotesTooLarge { size: u64, limit: u64 },
    #[error("a note exceeds its segment, of which {left} bytes are left")]
    NoteTruncated { left: usize },
    #[error("the {note} note has {size} bytes: expected {expected}")]
    NoteSize {
        note: &'static str,
        size: usize,
        expected: &'static str,
    },
    #[error("two {note} notes: expected one")]
    TwoNotes { note: &'static str },

    #[error("made for version {found} of direct entry: this host has version {expected}")]
    DirectVersion { found: u32, expected: u32 },
    #[error("wants ring {found}: 0 and 3 are offered")]
    DirectRing { found: u32 },
    #[error("direct-entry flags {found:#x}: this host knows {known:#x}")]
    DirectFlags { found: u32, known: u32 },
    #[error("the reserved field of the direct-entry note is {found:#x}: expected 0")]
    DirectReserved { found: u32 },
    #[error("a trap stack at {found:#x}: expected a 16-byte aligned address in RAM above page 0")]
    TrapStack { found: u64 },
    #[error("a stack of {wanted} bytes in {ram} bytes of RAM")]
    StackSize { wanted: u64, ram: u64 },
    #[error(
        "segment {segment} is both writable and executable: link code and data into separate segments"
    )]
    WriteAndExecute { segment: u16 },
    #[error(
        "segments {first} and {second} share the page at {page:#x} with different permissions: link them page-aligned (-z separate-code)"
    )]
    SharedPage { first: u16, second: u16, page: u64 },
    #[error(
        "segment {segment} is linked at {virtual_address:#x} but placed at {physical_address:#x}: RAM is mapped one to one"
    )]
    NotIdentity {
        segment: u16,
        virtual_address: u64,
        physical_address: u64,
    },
    #[error("{what} {entry:#x} exceeds 32-bit addresses")]
    EntryOver4GiB { what: &'static str, entry: u64 },

    #[error("{what} {entry:#x} exceeds what real mode can address (1 MiB)")]
    EntryOver1MiB { what: &'static str, entry: u64 },
    #[error(
        "the entry point {entry:#x} lies outside of the flat binary, which has {len} bytes at {start:#x}"
    )]
    FlatEntry { entry: u64, start: u64, len: u64 },
    #[error(transparent)]
    Multiboot(#[from] BadMultiboot),

    #[error("segment {segment} begins at {address:#x}: the lowest address is {lowest:#x}")]
    SegmentBelow {
        segment: u16,
        address: u64,
        lowest: u64,
    },

    #[error("made for Solo5's target {found} ({name}): this host has 1 (hvt)")]
    Solo5Target { found: u32, name: &'static str },
    #[error("made for version {found} of Solo5's hvt: this host has version {expected}")]
    Solo5Version { found: u32, expected: u32 },
    #[error("one Solo5 note, but no {note}: expected ABI1 and MFT1")]
    Solo5NoteMissing { note: &'static str },
    #[error("manifest version {found}: expected {expected}")]
    ManifestVersion { found: u32, expected: u32 },
    #[error(
        "a manifest with {found} entries: at most {limit} are possible, one of which is reserved"
    )]
    ManifestEntries { found: u32, limit: u32 },
    #[error("a manifest with {entries} entries of {each} bytes has {size} bytes of them")]
    ManifestSize {
        entries: u32,
        size: usize,
        each: usize,
    },
    #[error("entry 0 of the manifest is not the reserved one, without a name")]
    ManifestFirst,
    #[error(
        "entry {entry} of the manifest is called \"{name}\": a name has 1 to {limit} letters and digits"
    )]
    ManifestName {
        entry: usize,
        name: String,
        limit: usize,
    },
    #[error(
        "entry {entry} of the manifest, {name:?}, is of type {found}: expected 1 (block device) or 2 (network card)"
    )]
    ManifestType {
        entry: usize,
        name: String,
        found: u32,
    },
    #[error("entry {entry} of the manifest, {name:?}, says that it is attached already")]
    ManifestAttached { entry: usize, name: String },
    #[error("the manifest declares {kind} {name:?} twice")]
    ManifestTwice { name: String, kind: Solo5Kind },

    #[error("Hermit entry version {found}: this host has version {expected}")]
    HermitVersion { found: u8, expected: u8 },
    #[error("made for version {found} of uhyve's interface: this host has version {expected}")]
    UhyveVersion { found: u32, expected: u32 },
    #[error("a dynamic section of {found} entries: at most {limit} are read")]
    DynamicEntries { found: u64, limit: u64 },
    #[error("needs {what}: only relocations with addends (DT_RELA) are done")]
    Dynamic { what: &'static str },
    #[error("relocations of {found} bytes: expected 24")]
    RelocationSize { found: u64 },
    #[error("{size} bytes of relocations at {address:#x} do not lie in a segment's bytes")]
    Relocations { address: u64, size: u64 },
    #[error(
        "a relocation of type {found} at {address:#x}: expected 8 (RELATIVE), 1 (64) or 6 (GLOB_DAT)"
    )]
    RelocationType { found: u32, address: u64 },
    #[error("a relocation at {address:#x}, outside of every segment")]
    RelocationOutside { address: u64 },
    #[error("a relocation by symbol {index}, which is not defined")]
    Symbol { index: u32 },

    #[error("boot flag {found:#06x} at 0x1fe: expected 0xaa55")]
    BootFlag { found: u16 },
    #[error(
        "boot protocol {major}.{minor:02}: at least 2.12 is needed, with a 64-bit entry (Linux 3.8)"
    )]
    ProtocolVersion { major: u8, minor: u8 },
    #[error("a zImage, which is loaded below 1 MiB: expected a bzImage (LOADED_HIGH)")]
    ZImage,
    #[error(
        "no 64-bit entry point (xloadflags {flags:#x} without XLF_KERNEL_64): is it a 32-bit kernel?"
    )]
    No64BitEntry { flags: u16 },
    #[error("the setup header ends at {end:#x}: expected 0x264 to {limit:#x}")]
    HeaderEnd { end: usize, limit: usize },
    #[error("a kernel of {size} bytes (syssize): expected more than 512")]
    KernelSize { size: u64 },
    #[error("kernel alignment {found:#x}: expected a power of two")]
    KernelAlignment { found: u64 },
    #[error(
        "preferred address {address:#x} is not a multiple of the kernel's alignment {alignment:#x}"
    )]
    PreferredAddress { address: u64, alignment: u64 },
}
