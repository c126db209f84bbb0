//! Solo5's `hvt` (Solo5, `include/hvt_abi.h` version 2, `include/elf_abi.h` and `include/mft_abi.h`): 64-bit mode in ring
//! 0, on the host's tables, `rdi` pointing to `hvt_boot_info`.
//!
//! | addresses | what | to the guest |
//! |---|---|---|
//! | 0x0 | nothing | not mapped |
//! | 0x1000 | GDT | not mapped |
//! | 0x2000 | page tables | not mapped |
//! | 0x10000 | boot information, manifest, command line | can be read |
//! | 0x100000 | the image, each segment as far open as its flags say | |
//! | behind it | heap, and from the end of memory down the stack | can be read and written |
//!
//! That is the layout of Solo5's own tender, which keeps a guest from writing to its code, but not, on KVM, from executing
//! its data. Here the page tables do both, as they do on those of its hosts where it can.

mod manifest;

use std::ops::Range;

use goldcrest_memory::{GuestRam, PAGE_SIZE, layout};
use goldcrest_x86::{DescriptorTable, Registers, Segment, SystemRegisters, cr0, cr4, efer};
use zerocopy::FromBytes;
use zerocopy::little_endian::U32;

use crate::areas::{AreaKind, whole_pages};
use crate::candidate::{Bootable, Candidate, Job, Probed};
use crate::direct::check_segments;
use crate::elf::Elf;
use crate::load::{Hypercalls, Loader};
use crate::paging::{Access, PageTables, page_size};
use crate::{BadImage, BootConfig, BootError, Hardware, Image, Loaded, Protocol};

pub use manifest::Solo5Kind;

use manifest::{Declared, Manifest};

/// `ABI1_NOTE_NAME`, `MFT1_NOTE_NAME`.
pub(crate) const NOTE_NAME: &[u8] = b"Solo5\0";
/// `ABI1_NOTE_TYPE`: `"ABI1"`.
pub(crate) const ABI_NOTE: u32 = 0x3149_4241;
/// `MFT1_NOTE_TYPE`: `"MFT1"`.
pub(crate) const MANIFEST_NOTE: u32 = 0x3154_464d;

/// `HVT_ABI_TARGET`.
const TARGET_HVT: u32 = 1;
/// `HVT_ABI_VERSION`.
const ABI_VERSION: u32 = 2;

/// What the notes are called in messages.
pub(crate) const ABI: &str = "Solo5 ABI1";
pub(crate) const MANIFEST: &str = "Solo5 MFT1";

/// What the note `ABI1` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Abi {
    pub(crate) target: u32,
    pub(crate) version: u32,
}

impl Abi {
    /// Reads the note: target, version, and two words that are reserved.
    pub(crate) fn parse(desc: &[u8]) -> Result<Self, BadImage> {
        match <[U32; 4]>::read_from_bytes(desc) {
            Ok([target, version, ..]) => Ok(Self {
                target: target.get(),
                version: version.get(),
            }),
            Err(_) => Err(BadImage::NoteSize {
                note: ABI,
                size: desc.len(),
                expected: "16",
            }),
        }
    }
}

/// A device that is attached to a Solo5 guest by the name that its manifest has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Solo5Device {
    /// The name.
    pub name: String,
    /// What the guest is told of it.
    pub properties: Solo5Properties,
}

/// What a Solo5 guest is told of a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Solo5Properties {
    /// A block device.
    Block {
        /// Bytes, a multiple of the block size.
        capacity: u64,
        /// Bytes that are read or written at least, a power of two.
        block_size: u16,
    },
    /// A network card.
    Net {
        /// Its address.
        mac: [u8; 6],
        /// The largest packet in bytes, without the Ethernet header.
        mtu: u16,
    },
}

impl Solo5Device {
    /// What it is.
    pub fn kind(&self) -> Solo5Kind {
        match self.properties {
            Solo5Properties::Block { .. } => Solo5Kind::Block,
            Solo5Properties::Net { .. } => Solo5Kind::Net,
        }
    }
}

const GDT: u64 = 0x1000;
const CODE: u16 = 0x08;
const DATA: u16 = 0x10;
/// Three descriptors.
const GDT_LIMIT: u16 = 0x17;
/// Where the page tables belong, if there are no more than fit before the boot information.
const PAGE_TABLES: u64 = 0x2000;
const BOOT_INFO: u64 = 0x1_0000;
/// `HVT_GUEST_MIN_BASE`: where images begin.
const MIN_BASE: u64 = 0x10_0000;
/// Bytes of `struct hvt_boot_info`.
const BOOT_INFO_SIZE: u64 = 40;
/// `HVT_CMDLINE_SIZE`, with the zero at the end.
const CMDLINE_SIZE: u64 = 8192;

/// Memory comes in pieces of this size.
const MEMORY_UNIT: u64 = page_size(1);
/// Memory is in one piece from 0.
const MAX_MEMORY: u64 = layout::HOLE_START;

/// An ELF with Solo5's notes.
struct Solo5<'c> {
    elf: &'c Elf,
    manifest: Manifest,
    /// Where the notes are in the image.
    notes: [u64; 2],
}

/// Looks for Solo5's notes.
pub(crate) fn probe<'c>(candidate: &'c Candidate<'_>) -> Probed<'c> {
    let elf = candidate.elf()?;
    let missing = |note| BadImage::Solo5NoteMissing { note };
    let (abi, manifest) = match (&elf.notes.solo5_abi, &elf.notes.solo5_manifest) {
        (None, None) => return Err("no notes named Solo5 of types ABI1 and MFT1".into()),
        (None, Some(_)) => return Err(missing("ABI1").into()),
        (Some(_), None) => return Err(missing("MFT1").into()),
        (Some(abi), Some(manifest)) => (abi, manifest),
    };
    check_abi(abi.value)?;
    elf.check_fixed_64()?;
    Ok(Box::new(Solo5 {
        elf,
        manifest: Manifest::parse(&manifest.value)?,
        notes: [abi.at, manifest.at],
    }))
}

fn check_abi(abi: Abi) -> Result<(), BadImage> {
    if abi.target != TARGET_HVT {
        return Err(BadImage::Solo5Target {
            found: abi.target,
            name: target_name(abi.target),
        });
    }
    if abi.version != ABI_VERSION {
        return Err(BadImage::Solo5Version {
            found: abi.version,
            expected: ABI_VERSION,
        });
    }
    Ok(())
}

impl Bootable for Solo5<'_> {
    fn protocol(&self) -> Protocol {
        Protocol::Solo5Hvt
    }

    fn entry(&self) -> u64 {
        self.elf.entry
    }

    fn because(&self) -> String {
        let [abi, manifest] = self.notes;
        format!("notes named Solo5 of types ABI1 at {abi:#x} and MFT1 at {manifest:#x}")
    }

    fn passes(&self) -> Vec<String> {
        let devices = self.manifest.devices().iter().zip(1..);
        let device = |(Declared { name, kind }, handle): (&Declared, usize)| {
            let option = kind.option();
            format!("handle {handle}: {kind} {name:?} ({option} {name}=...)")
        };
        let state = format!(
            "64-bit mode in ring 0 on the host's page tables at {PAGE_TABLES:#x}, rdi = hvt_boot_info at {BOOT_INFO:#x}"
        );
        let told = "in it: memory, clock, command line, manifest; hypercalls of hvt, version 2";
        [state, told.into()]
            .into_iter()
            .chain(devices.map(device))
            .collect()
    }

    fn load(&self, job: &Job<'_>) -> Result<Loaded, BootError> {
        load(self.elf, &self.manifest, job)
    }
}

/// `enum abi_target`.
fn target_name(target: u32) -> &'static str {
    match target {
        2 => "spt",
        3 => "virtio",
        4 => "muen",
        5 => "genode",
        6 => "xen",
        _ => "unknown",
    }
}

fn load(elf: &Elf, manifest: &Manifest, job: &Job<'_>) -> Result<Loaded, BootError> {
    let Job {
        image,
        ram,
        config,
        hardware,
    } = *job;
    check_image(image, elf)?;
    job.refuse_useless(Protocol::Solo5Hvt)?;
    let memory_size = memory_size(image, ram)?;
    let handles = manifest.handles(image, hardware.solo5)?;
    let cmdline = cmdline(image, config)?;

    let mut loader = Loader::new(image, ram);
    let areas = &mut loader.areas;
    areas.claim(AreaKind::Guard, 0..PAGE_SIZE, image.name(), &"page 0")?;
    let manifest = manifest.bytes(&handles, hardware.solo5);
    let info_end = BOOT_INFO + BOOT_INFO_SIZE + as_u64(manifest.len()) + CMDLINE_SIZE;
    let info = whole_pages(&(BOOT_INFO..info_end));
    let what = "the boot information";
    areas.claim(AreaKind::BootInfo, info, image.name(), &what)?;
    loader.claim_segments(elf)?;
    let kernel_end = kernel_end(elf);
    if kernel_end > memory_size {
        return Err(BootError::OutsideRam {
            image: image.name().to_owned(),
            what: "the image".into(),
            start: MIN_BASE,
            last: kernel_end - 1,
            ram: format!("0x0-{:#x}", memory_size - 1),
        });
    }
    let tables = claim_tables(&mut loader, elf, memory_size)?;
    loader.place_segments(elf)?;

    let page_tables = page_tables(elf, memory_size, tables);
    loader.write("the page tables", tables, page_tables.bytes())?;
    loader.write("the GDT", GDT, &gdt())?;
    let manifest_at = BOOT_INFO + BOOT_INFO_SIZE;
    let cmdline_at = manifest_at + as_u64(manifest.len());
    let words = [
        memory_size,
        kernel_end,
        config.tsc_khz.saturating_mul(1000),
        cmdline_at,
        manifest_at,
    ];
    let mut info = words.map(u64::to_le_bytes).as_flattened().to_vec();
    info.extend(manifest);
    info.extend(cmdline);
    loader.write(what, BOOT_INFO, &info)?;
    Ok(Loaded {
        protocol: Protocol::Solo5Hvt,
        registers: Registers {
            rip: elf.entry,
            rdi: BOOT_INFO,
            rsp: memory_size - 8,
            ..Registers::default()
        },
        system: system_registers(tables),
        msrs: Vec::new(),
        boot_info: Some(BOOT_INFO),
        pvclock: None,
        generation_id: None,
        cpuid: true,
        hypercalls: Hypercalls::Solo5 {
            handles,
            read_only: read_only(elf),
        },
        areas: loader.areas.into_used(),
        copied: loader.copied,
    })
}

fn check_image(image: &Image, elf: &Elf) -> Result<(), BootError> {
    check_segments(elf).map_err(|problem| image.bad(problem))?;
    for segment in &elf.segments {
        if segment.physical_address < MIN_BASE {
            return Err(image.bad(BadImage::SegmentBelow {
                segment: segment.index,
                address: segment.physical_address,
                lowest: MIN_BASE,
            }));
        }
    }
    elf.check_executable(image, "the entry point", elf.entry)
}

/// As much of RAM as there is in one piece from 0, in whole units.
fn memory_size(image: &Image, ram: &GuestRam) -> Result<u64, BootError> {
    let size = ram.size();
    if !(MEMORY_UNIT..=MAX_MEMORY).contains(&size) {
        return Err(BootError::MemorySize {
            image: image.name().to_owned(),
            size,
            least: MEMORY_UNIT,
            most: MAX_MEMORY,
        });
    }
    Ok(size - size % MEMORY_UNIT)
}

/// The command line with its terminating zero.
fn cmdline(image: &Image, config: &BootConfig<'_>) -> Result<Vec<u8>, BootError> {
    let hardware = Hardware::default();
    crate::pc::terminated_cmdline(config, &hardware, image.name(), CMDLINE_SIZE - 1)
}

fn kernel_end(elf: &Elf) -> u64 {
    let ends = elf.segments.iter();
    ends.map(|segment| whole_pages(&segment.range()).end)
        .max()
        .unwrap_or(MIN_BASE)
}

/// Claims room for the GDT and for the page tables; says where those are.
fn claim_tables(loader: &mut Loader<'_>, elf: &Elf, memory_size: u64) -> Result<u64, BootError> {
    let len = page_tables(elf, memory_size, 0).len() * PAGE_SIZE;
    let areas = &mut loader.areas;
    if PAGE_TABLES + len <= BOOT_INFO {
        areas.insert(AreaKind::Tables, GDT..PAGE_TABLES + len);
        return Ok(PAGE_TABLES);
    }
    areas.insert(AreaKind::Tables, GDT..PAGE_TABLES);
    areas.lowest(AreaKind::Tables, "the page tables", len, MIN_BASE)
}

/// Page tables at `base`.
fn page_tables(elf: &Elf, memory_size: u64, base: u64) -> PageTables {
    let plain = Access {
        write: true,
        execute: false,
        user: false,
        uncached: false,
    };
    let told = Access {
        write: false,
        ..plain
    };
    let mut tables = PageTables::new(base, false);
    tables.map(BOOT_INFO..MIN_BASE, told);
    let mut next = MIN_BASE;
    for segment in &elf.segments {
        // Segments that share a page have the same flags.
        let Range { start, end } = whole_pages(&segment.range());
        tables.map(next..start, plain);
        let access = Access {
            write: segment.write,
            execute: segment.execute,
            ..plain
        };
        if segment.read || segment.write || segment.execute {
            tables.map(start.max(next)..end, access);
        }
        next = next.max(end);
    }
    tables.map(next..memory_size, plain);
    tables
}

/// What the guest cannot write, and nobody may write for it, by ascending address.
fn read_only(elf: &Elf) -> Vec<Range<u64>> {
    let segments = elf.segments.iter().filter(|segment| !segment.write);
    let segments = segments.map(|segment| whole_pages(&segment.range()));
    std::iter::once(0..MIN_BASE).chain(segments).collect()
}

fn gdt() -> Vec<u8> {
    let entries = [
        0,
        Segment::code64(CODE, 0).descriptor(),
        Segment::data(DATA, 0).descriptor(),
    ];
    entries.map(u64::to_le_bytes).as_flattened().to_vec()
}

fn system_registers(page_tables: u64) -> SystemRegisters {
    let data = Segment::data(DATA, 0);
    SystemRegisters {
        cs: Segment::code64(CODE, 0),
        ds: data,
        es: data,
        fs: data,
        gs: data,
        ss: data,
        tr: Segment::tss(0, 0, 0),
        ldt: Segment::unusable(),
        gdt: DescriptorTable {
            base: GDT,
            limit: GDT_LIMIT,
        },
        cr0: cr0::PE | cr0::ET | cr0::NE | cr0::WP | cr0::PG,
        cr3: page_tables,
        cr4: cr4::PAE | cr4::OSFXSR | cr4::OSXMMEXCPT,
        efer: efer::LME | efer::LMA | efer::NXE,
        ..SystemRegisters::default()
    }
}

fn as_u64(value: usize) -> u64 {
    u64::try_from(value).unwrap_or(u64::MAX)
}
