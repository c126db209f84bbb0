//! What of a kernel goes into memory: the segments of an ELF, or what address fields say.

use std::ops::Range;

use goldcrest_memory::layout;

use super::BadMultiboot;
use crate::areas::AreaKind;
use crate::elf::Elf;
use crate::load::Loader;
use crate::{BadImage, BootError, Image, Segment};

/// `load_addr` that stands for the beginning of the file (Multiboot2, "The address tag").
const FROM_BEGINNING: u32 = u32::MAX;

/// The address fields of a header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Addresses {
    /// Where the header is to lie.
    pub(super) header: u32,
    /// Where what is loaded begins.
    pub(super) load: u32,
    /// Where it ends; 0 is the end of the file.
    pub(super) load_end: u32,
    /// Where zeroes behind it end; 0 is none.
    pub(super) bss_end: u32,
}

/// A kernel that can be put into memory.
#[derive(Debug, Clone)]
pub(super) struct Kernel {
    /// By ascending physical address, apart.
    pub(super) segments: Vec<Segment>,
    /// Guest-physical.
    pub(super) entry: u64,
}

impl Kernel {
    /// The segments of an ELF, started where it says, or at `entry`.
    pub(super) fn of_elf(elf: &Elf, entry: Option<u32>) -> Result<Self, BadImage> {
        let entry = entry.map_or_else(|| elf.physical_entry(), u64::from);
        Self {
            segments: elf.segments.clone(),
            entry,
        }
        .checked()
    }

    /// What address fields say of an image whose header is at `at`.
    pub(super) fn of_addresses(
        image: &Image,
        at: u64,
        addresses: &Addresses,
        entry: u32,
    ) -> Result<Self, BadImage> {
        let segments = vec![segment(image, at, addresses)?];
        Self {
            segments,
            entry: entry.into(),
        }
        .checked()
    }

    /// All addresses that it takes, and those between.
    pub(super) fn range(&self) -> Range<u64> {
        let start = self
            .segments
            .first()
            .map_or(0, |first| first.physical_address);
        let end = self.segments.last().map_or(0, |last| last.range().end);
        start..end
    }

    /// The kernel, to lie so many bytes higher (or lower, modulo 2^64).
    pub(super) fn moved(mut self, by: u64) -> Self {
        for segment in &mut self.segments {
            segment.physical_address = segment.physical_address.wrapping_add(by);
        }
        self.entry = self.entry.wrapping_add(by);
        self
    }

    /// Puts it into memory.
    pub(super) fn place(&self, loader: &mut Loader<'_>) -> Result<(), BootError> {
        for segment in &self.segments {
            let what = format_args!("segment {}", segment.index);
            let name = loader.image.name();
            loader
                .areas
                .claim(AreaKind::Image, segment.range(), name, &what)?;
        }
        for segment in &self.segments {
            let (at, len) = (segment.physical_address, segment.file_size);
            loader.copied +=
                loader
                    .image
                    .place(loader.ram, "a segment", segment.offset, at, len)?;
        }
        Ok(())
    }

    fn checked(self) -> Result<Self, BadImage> {
        for segment in &self.segments {
            let end = segment.range().end;
            if end > layout::HOLE_END {
                let segment = segment.index;
                return Err(BadMultiboot::Over4GiB { segment, end }.into());
            }
        }
        let mut ranges = self.segments.iter().map(Segment::range);
        if !ranges.any(|range| range.contains(&self.entry)) {
            return Err(BadImage::EntryOutside {
                what: "the Multiboot entry point",
                entry: self.entry,
            });
        }
        Ok(self)
    }
}

fn segment(image: &Image, at: u64, addresses: &Addresses) -> Result<Segment, BadImage> {
    let Addresses {
        header,
        load_end,
        bss_end,
        ..
    } = *addresses;
    let (load, offset) = beginning(at, addresses)?;
    let left = image.len().saturating_sub(offset);
    let size = match load_end.checked_sub(load) {
        _ if load_end == 0 => left,
        Some(size) => size.into(),
        None => {
            let what = "load end address";
            let end = load_end;
            return Err(BadMultiboot::EndBelowLoad { what, end, load }.into());
        }
    };
    if size > left {
        let len = image.len();
        return Err(BadMultiboot::PastEnd { offset, size, len }.into());
    }
    let load_end = u64::from(load) + size;
    let memory_size = match u64::from(bss_end).checked_sub(load_end) {
        _ if bss_end == 0 => size,
        Some(bss) => size + bss,
        None => return Err(BadMultiboot::BssBelowLoadEnd { bss_end, load_end }.into()),
    };
    if memory_size == 0 {
        return Err(BadMultiboot::Nothing.into());
    }
    debug_assert!(header >= load);
    Ok(Segment {
        index: 0,
        offset,
        virtual_address: load.into(),
        physical_address: load.into(),
        file_size: size,
        memory_size,
        read: true,
        write: true,
        execute: true,
    })
}

/// Where what is loaded begins: in memory, and in the file.
fn beginning(at: u64, addresses: &Addresses) -> Result<(u32, u64), BadImage> {
    let Addresses { header, load, .. } = *addresses;
    let before_file = |before| BadMultiboot::BeginsBeforeFile { at, header, before };
    if load == FROM_BEGINNING {
        let load = u64::from(header).checked_sub(at);
        let load = load.ok_or_else(|| before_file(at - u64::from(header)))?;
        // Not more than `header`, which has 32 bits.
        return Ok((u32::try_from(load).unwrap_or(header), 0));
    }
    let Some(before) = header.checked_sub(load).map(u64::from) else {
        return Err(BadMultiboot::HeaderBelowLoad { header, load }.into());
    };
    match at.checked_sub(before) {
        Some(offset) => Ok((load, offset)),
        None => Err(before_file(before - at).into()),
    }
}
