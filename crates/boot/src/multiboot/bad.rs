//! What can be wrong with the Multiboot header of an image.

/// Why a Multiboot kernel is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs, reason = "the messages say what the fields are")]
pub enum BadMultiboot {
    #[error(
        "the Multiboot header at {at:#x} requires video modes (bit 2 of flags {flags:#x}): this machine has no display"
    )]
    VideoMode { at: u64, flags: u32 },
    #[error(
        "the Multiboot header at {at:#x} has flags {flags:#x}, of which {unknown:#x} are requirements that nobody defined"
    )]
    Flags { at: u64, flags: u32, unknown: u32 },
    #[error(
        "the {what} header at {at:#x} is in an image that is no ELF, and does not say where it is to lie ({field})"
    )]
    NoAddresses {
        what: &'static str,
        at: u64,
        field: &'static str,
    },
    #[error("the header address {header:#x} is below the load address {load:#x}")]
    HeaderBelowLoad { header: u32, load: u32 },
    #[error(
        "the header at {at:#x} of the image is to lie at {header:#x}: its image would begin {before} bytes before the file"
    )]
    BeginsBeforeFile { at: u64, header: u32, before: u64 },
    #[error("the {what} {end:#x} is below the load address {load:#x}")]
    EndBelowLoad {
        what: &'static str,
        end: u32,
        load: u32,
    },
    #[error("the bss end address {bss_end:#x} is below the load end address {load_end:#x}")]
    BssBelowLoadEnd { bss_end: u32, load_end: u64 },
    #[error("{size} bytes at {offset:#x} are to be loaded, but the image has {len}")]
    PastEnd { offset: u64, size: u64, len: u64 },
    #[error("the image has no bytes to be loaded")]
    Nothing,
    #[error("segment {segment} ends at {end:#x}, beyond 4 GiB")]
    Over4GiB { segment: u16, end: u64 },

    #[error(
        "the Multiboot2 header at {at:#x} is for architecture {found}: expected 0 (i386, protected mode)"
    )]
    Architecture { at: u64, found: u32 },
    #[error("the Multiboot2 header at {at:#x} has {len} bytes: expected 16 to {limit}")]
    HeaderLength { at: u64, len: u32, limit: u64 },
    #[error("tag {kind} of the Multiboot2 header at {at:#x} has {size} bytes: expected {expected}")]
    TagSize {
        kind: u16,
        at: u64,
        size: u32,
        expected: &'static str,
    },
    #[error("the tags of the Multiboot2 header at {at:#x} have no end")]
    NoEndTag { at: u64 },
    #[error("the Multiboot2 header requires a framebuffer (tag 5): this machine has no display")]
    Framebuffer,
    #[error(
        "the Multiboot2 header requires a console (tag 4, flags {flags:#x}): this machine has no display"
    )]
    Console { flags: u32 },
    #[error("the Multiboot2 header requires tag {kind}, which nobody defined")]
    Tag { kind: u16 },
    #[error("the Multiboot2 header requires information of type {kind}, which nobody defined")]
    Request { kind: u32 },
    #[error("the relocatable header tag wants alignment {align:#x}: expected a power of two")]
    Alignment { align: u32 },
    #[error("the relocatable header tag has preference {found}: expected 0, 1 or 2")]
    Preference { found: u32 },
}
