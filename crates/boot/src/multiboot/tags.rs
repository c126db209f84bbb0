//! The tags of the Multiboot2 header (Multiboot2 2.0, §3.1.3 to §3.1.13): what the kernel needs.

use zerocopy::FromBytes;
use zerocopy::little_endian::{U16, U32};

use super::BadMultiboot;
use super::header2::Header;
use super::kernel::Addresses;

/// Types of tags.
mod tag {
    pub(super) const END: u16 = 0;
    pub(super) const INFORMATION_REQUEST: u16 = 1;
    pub(super) const ADDRESS: u16 = 2;
    pub(super) const ENTRY_ADDRESS: u16 = 3;
    pub(super) const CONSOLE_FLAGS: u16 = 4;
    pub(super) const FRAMEBUFFER: u16 = 5;
    pub(super) const MODULE_ALIGN: u16 = 6;
    pub(super) const EFI_BOOT_SERVICES: u16 = 7;
    pub(super) const ENTRY_ADDRESS_EFI32: u16 = 8;
    pub(super) const ENTRY_ADDRESS_EFI64: u16 = 9;
    pub(super) const RELOCATABLE: u16 = 10;
}

/// Bit of a tag's flags: a loader that cannot do it may go on without.
const OPTIONAL: u16 = 1 << 0;
/// Bit of the console flags: without a console that the loader describes, the kernel is not to be started.
const CONSOLE_REQUIRED: u32 = 1 << 0;
/// Bytes of a tag before its content, and the alignment of tags.
const TAG_HEADER: usize = 8;
const ALIGN: usize = 8;
/// The highest type of boot information that the specification defines, which count from 1.
const LAST_INFORMATION: u32 = 21;

/// What the tags say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Tags {
    pub(super) addresses: Option<Addresses>,
    pub(super) entry: Option<u32>,
    pub(super) relocatable: Option<Relocatable>,
    /// Types of boot information that the kernel asks for, and that there are.
    pub(super) requests: Vec<u32>,
}

/// Where a kernel may lie that can lie elsewhere than it is linked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Relocatable {
    /// The lowest address of its beginning.
    pub(super) min: u32,
    /// The highest address of its end.
    pub(super) max: u32,
    /// What its beginning is to be a multiple of.
    pub(super) align: u32,
    pub(super) preference: Preference,
}

/// Of several places, which one is best.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Preference {
    None,
    Lowest,
    Highest,
}

/// One tag.
struct Tag<'a> {
    kind: u16,
    optional: bool,
    size: u32,
    content: &'a [u8],
    /// Where the header is, for messages.
    at: u64,
}

impl Tags {
    /// Reads the tags, and refuses what a kernel requires and nobody can give.
    pub(super) fn parse(header: &Header) -> Result<Self, BadMultiboot> {
        let at = header.at;
        let mut tags = Self::default();
        let mut left = header.tags.as_slice();
        loop {
            let tag = Tag::first(left, at)?;
            if tag.kind == tag::END {
                return Ok(tags);
            }
            tags.take(&tag)?;
            // Not beyond the end: the tag lies within what is left.
            let next = (TAG_HEADER + tag.content.len()).next_multiple_of(ALIGN);
            left = left.get(next..).unwrap_or_default();
        }
    }

    fn take(&mut self, tag: &Tag<'_>) -> Result<(), BadMultiboot> {
        match tag.kind {
            tag::INFORMATION_REQUEST => self.take_requests(tag)?,
            tag::ADDRESS => {
                let [header, load, load_end, bss_end] = tag.fields("24")?;
                self.addresses = Some(Addresses {
                    header,
                    load,
                    load_end,
                    bss_end,
                });
            }
            tag::ENTRY_ADDRESS => {
                let [entry] = tag.fields("12")?;
                self.entry = Some(entry);
            }
            tag::CONSOLE_FLAGS => {
                let [flags] = tag.fields("12")?;
                if flags & CONSOLE_REQUIRED != 0 && !tag.optional {
                    return Err(BadMultiboot::Console { flags });
                }
            }
            tag::FRAMEBUFFER if !tag.optional => return Err(BadMultiboot::Framebuffer),
            tag::RELOCATABLE => self.relocatable = Some(relocatable(tag)?),
            // Modules always are page-aligned. What a kernel can do under EFI it need not do here.
            tag::FRAMEBUFFER
            | tag::MODULE_ALIGN
            | tag::EFI_BOOT_SERVICES
            | tag::ENTRY_ADDRESS_EFI32
            | tag::ENTRY_ADDRESS_EFI64 => {}
            _ if tag.optional => {}
            kind => return Err(BadMultiboot::Tag { kind }),
        }
        Ok(())
    }

    /// A type that is defined, but that this machine has nothing to tell of, may be passed over (§3.1.4).
    fn take_requests(&mut self, tag: &Tag<'_>) -> Result<(), BadMultiboot> {
        let (types, rest) = tag.content.as_chunks::<4>();
        if !rest.is_empty() {
            return Err(tag.bad_size("8 and a multiple of 4"));
        }
        for kind in types.iter().map(|bytes| u32::from_le_bytes(*bytes)) {
            match kind {
                1..=LAST_INFORMATION if self.requests.contains(&kind) => {}
                1..=LAST_INFORMATION => self.requests.push(kind),
                _ if tag.optional => {}
                _ => return Err(BadMultiboot::Request { kind }),
            }
        }
        Ok(())
    }
}

fn relocatable(tag: &Tag<'_>) -> Result<Relocatable, BadMultiboot> {
    let [min, max, align, preference] = tag.fields("24")?;
    // 0 and 1 both ask for nothing.
    if !align.max(1).is_power_of_two() {
        return Err(BadMultiboot::Alignment { align });
    }
    Ok(Relocatable {
        min,
        max,
        align: align.max(1),
        preference: match preference {
            0 => Preference::None,
            1 => Preference::Lowest,
            2 => Preference::Highest,
            found => return Err(BadMultiboot::Preference { found }),
        },
    })
}

impl<'a> Tag<'a> {
    /// The first of some tags.
    fn first(bytes: &'a [u8], at: u64) -> Result<Self, BadMultiboot> {
        let Ok(([kind, flags], rest)) = <[U16; 2]>::read_from_prefix(bytes) else {
            return Err(BadMultiboot::NoEndTag { at });
        };
        let Ok((size, _)) = U32::read_from_prefix(rest) else {
            return Err(BadMultiboot::NoEndTag { at });
        };
        let (kind, flags, size) = (kind.get(), flags.get(), size.get());
        let end = usize::try_from(size).unwrap_or(usize::MAX);
        let content = bytes.get(TAG_HEADER..end).ok_or(BadMultiboot::TagSize {
            kind,
            at,
            size,
            expected: "at least 8, and not beyond the header",
        })?;
        Ok(Self {
            kind,
            optional: flags & OPTIONAL != 0,
            size,
            content,
            at,
        })
    }

    /// The content as numbers, of which there must be just so many.
    fn fields<const N: usize>(&self, expected: &'static str) -> Result<[u32; N], BadMultiboot> {
        let fields = <[U32; N]>::read_from_bytes(self.content);
        fields
            .map(|fields| fields.map(U32::get))
            .map_err(|_| self.bad_size(expected))
    }

    fn bad_size(&self, expected: &'static str) -> BadMultiboot {
        BadMultiboot::TagSize {
            kind: self.kind,
            at: self.at,
            size: self.size,
            expected,
        }
    }
}
