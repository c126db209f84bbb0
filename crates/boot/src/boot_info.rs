//! What a guest of direct entry is told: `BootInfo`, the memory map, the command line, the kvmclock page, the device tree.

use std::mem::offset_of;

use goldcrest_abi::boot_info::{BootInfo, MAGIC, MemoryRegion, mark, region};
use goldcrest_abi::note;
use goldcrest_memory::PAGE_SIZE;

use crate::areas::{AreaKind, Areas, whole_pages};
use crate::memory_map::memory_map;
use crate::{BootConfig, BootError, Hardware, Image, MAX_CMDLINE, device_tree};

/// Offsets into the block. The kvmclock has cache lines of its own.
const PVCLOCK: u64 = 192;
const REGIONS: u64 = 256;
/// Bytes of `BootInfo`.
const SIZE: u32 = 160;
const _: () = assert!(size_of::<BootInfo>() == SIZE as usize && SIZE as u64 <= PVCLOCK);

/// Areas claimed after the size of the block is settled: the block's own two.
const LATE_AREAS: usize = 2;

/// The block that begins with `BootInfo`.
pub(crate) struct InfoBlock<'a> {
    info: BootInfo,
    cmdline: &'a str,
    /// Offset of the command line, after the most regions that there can be.
    cmdline_offset: u64,
    /// Empty where there is nothing to tell by it.
    device_tree: Vec<u8>,
}

impl<'a> InfoBlock<'a> {
    pub(crate) fn new(
        image: &Image,
        areas: &Areas,
        config: &BootConfig<'a>,
        hardware: &Hardware<'_>,
        (initrd, initrd_len): (u64, u64),
        pvclock: bool,
    ) -> Result<Self, BootError> {
        let cmdline = config.cmdline;
        let cmdline_len = as_u64(cmdline.len());
        if cmdline_len > MAX_CMDLINE {
            return Err(BootError::CommandLineTooLong {
                image: image.name().to_owned(),
                len: cmdline.len(),
                limit: MAX_CMDLINE,
            });
        }
        // Each area is at most one region, with a free one before it.
        let most = 2 * (areas.used().len() + LATE_AREAS) + areas.ram().len();
        let info = BootInfo {
            magic: MAGIC,
            version: note::VERSION,
            size: SIZE,
            cmdline: 0,
            cmdline_len,
            regions: 0,
            region_count: 0,
            initrd,
            initrd_len,
            rsdp: 0,
            fdt: 0,
            pvclock: u64::from(pvclock),
            tsc_khz: config.tsc_khz,
            wall_clock_ns: config.wall_clock_ns,
            cpus: config.cpus,
            reserved: 0,
            marks: [0; mark::COUNT],
            generation_id: config.generation_id,
        };
        Ok(Self {
            info,
            cmdline,
            cmdline_offset: REGIONS + as_u64(most * size_of::<MemoryRegion>()),
            device_tree: device_tree::device_tree(hardware)?,
        })
    }

    /// Bytes, in whole pages.
    pub(crate) fn len(&self) -> u64 {
        (self.device_tree_offset() + as_u64(self.device_tree.len())).next_multiple_of(PAGE_SIZE)
    }

    /// Offset of the device tree, after the command line (Devicetree Specification §5.6: 8-byte aligned).
    fn device_tree_offset(&self) -> u64 {
        (self.cmdline_offset + self.info.cmdline_len).next_multiple_of(8)
    }

    /// Where the kvmclock page is, if the block lies at `base`.
    pub(crate) fn pvclock(&self, base: u64) -> u64 {
        base + PVCLOCK
    }

    /// Where the generation identifier is, if the block lies at `base`.
    pub(crate) fn generation_id(base: u64) -> u64 {
        base + as_u64(offset_of!(BootInfo, generation_id))
    }

    /// The block's content if it lies at `base`.
    pub(crate) fn bytes(&self, base: u64, areas: &Areas) -> Vec<u8> {
        let regions = memory_map(areas, region::USABLE, |area| {
            (whole_pages(&area.range), region_kind(area.kind))
        });
        let info = BootInfo {
            cmdline: base + self.cmdline_offset,
            regions: base + REGIONS,
            region_count: as_u64(regions.len()),
            fdt: match self.device_tree.len() {
                0 => 0,
                _ => base + self.device_tree_offset(),
            },
            pvclock: self.info.pvclock * self.pvclock(base),
            ..self.info
        };
        let mut bytes = encode(&info).to_vec();
        bytes.resize(usize_of(REGIONS), 0);
        for (range, kind) in regions {
            let words = [range.start, range.end - range.start, u64::from(kind)];
            bytes.extend(words.map(u64::to_le_bytes).as_flattened());
        }
        bytes.resize(usize_of(self.cmdline_offset), 0);
        bytes.extend(self.cmdline.as_bytes());
        if !self.device_tree.is_empty() {
            bytes.resize(usize_of(self.device_tree_offset()), 0);
            bytes.extend(&self.device_tree);
        }
        bytes
    }
}

fn region_kind(kind: AreaKind) -> u32 {
    match kind {
        AreaKind::Image => region::IMAGE,
        AreaKind::Stack => region::STACK,
        AreaKind::Initrd => region::INITRD,
        _ => region::RESERVED,
    }
}

fn encode(info: &BootInfo) -> [u8; SIZE as usize] {
    let [entry, main, exit, spare] = info.marks;
    let words = [
        info.magic,
        u64::from(info.version) | u64::from(info.size) << 32,
        info.cmdline,
        info.cmdline_len,
        info.regions,
        info.region_count,
        info.initrd,
        info.initrd_len,
        info.rsdp,
        info.fdt,
        info.pvclock,
        info.tsc_khz,
        info.wall_clock_ns,
        u64::from(info.cpus) | u64::from(info.reserved) << 32,
        entry,
        main,
        exit,
        spare,
    ];
    let mut bytes = [0; SIZE as usize];
    let fields = bytes.iter_mut().zip(
        words
            .iter()
            .flat_map(|word| word.to_le_bytes())
            .chain(info.generation_id),
    );
    fields.for_each(|(field, byte)| *field = byte);
    bytes
}

fn as_u64(value: usize) -> u64 {
    u64::try_from(value).unwrap_or(u64::MAX)
}

fn usize_of(value: u64) -> usize {
    usize::try_from(value).unwrap_or(usize::MAX)
}
