//! Hermit, as its monitor uhyve starts it: 64-bit mode in ring 0, on the host's tables, `rdi` pointing to `RawBootInfo`
//! (crates `hermit-entry` 0.10, entry version 4, and `uhyve-interface` 0.3, version 1; the layout is uhyve's).
//!
//! | addresses | what |
//! |---|---|
//! | 0x1000 | GDT |
//! | 0x5000 | device tree: memory, clock, command line |
//! | 0x9000 | boot information |
//! | 0x10000 | page tables |
//! | 32 KiB below the image, down | the stack |
//! | 0x40000, if the image does not say another address | the image |
//!
//! All that is mapped is mapped one to one, by pages of 2 MiB that can be written and executed: the guest makes finer
//! ones. The last entry of the root leads to the root, by which the guest finds its page tables.

mod relocate;

use std::ops::Range;

use goldcrest_memory::{GuestRam, layout};
use goldcrest_x86::{DescriptorTable, Registers, Segment, SystemRegisters, cr0, cr4, efer};
use vm_fdt::FdtWriter;
use zerocopy::FromBytes;
use zerocopy::little_endian::U32;

use crate::areas::AreaKind;
use crate::candidate::{Bootable, Candidate, Job, Probed};
use crate::elf::{Class, Elf};
use crate::load::{Hypercalls, Loader};
use crate::note::Found;
use crate::paging::{Access, PageTables, page_size};
use crate::{BadImage, BootConfig, BootError, Image, Loaded, Protocol};

use relocate::{Relocations, Target};

/// The name of Hermit's note, and its type: `NT_HERMIT_ENTRY_VERSION`.
pub(crate) const NOTE_NAME: &[u8] = b"HERMIT\0";
pub(crate) const ENTRY_VERSION_NOTE: u32 = 0x5a00;
/// The name of uhyve's note, and its type: `NT_UHYVE_INTERFACE_VERSION`.
pub(crate) const UHYVE_NOTE_NAME: &[u8] = b"UHYVEIF\0";
pub(crate) const UHYVE_VERSION_NOTE: u32 = 0x5b00;
/// `ELF_NOTE_OS_HERMIT`, in the GNU note of type 1, before the kernel's version.
const GNU_ABI_HERMIT: u32 = 6;

/// `HERMIT_ENTRY_VERSION`.
const ENTRY_VERSION: u8 = 4;
/// The version of the hypercalls; kernels before there were others do not say it.
const UHYVE_VERSION: u32 = 1;

const GDT: u64 = 0x1000;
const CODE: u16 = 0x08;
const DATA: u16 = 0x10;
/// Three descriptors.
const GDT_LIMIT: u16 = 0x17;
const DEVICE_TREE: u64 = 0x5000;
const BOOT_INFO: u64 = 0x9000;
const PAGE_TABLES: u64 = 0x1_0000;
/// Where the stack of an image at [`BASE`] ends.
const PAGE_TABLES_END: u64 = 0x3_0000;
/// Where an image begins that can lie anywhere, and the lowest address for others.
const BASE: u64 = 0x4_0000;
/// `KERNEL_STACK_SIZE`: what lies above the stack, and what it has.
const STACK_SIZE: u64 = 0x8000;
/// Bytes of `RawBootInfo`.
const BOOT_INFO_SIZE: usize = 128;
/// `HypercallAddress::Uart`.
const SERIAL_PORT: u64 = 0x800;
/// The variant of `RawPlatformInfo` that is uhyve's.
const PLATFORM_UHYVE: u64 = 1;

/// Bytes of a command line for which there is room in the device tree.
const MAX_CMDLINE: u64 = 0x3000;
/// `MAX_ARGC_ENVC`: words of a command line, and the image's name.
const MAX_ARGS: usize = 128;
const PAGE_2_MIB: u64 = page_size(1);
const PAGE_1_GIB: u64 = page_size(2);

/// Since this version (major, minor, patch) Hermit maps what it needs itself.
const MAPS_ITSELF: [u32; 3] = [0, 10, 0];

/// What the notes are called in messages.
pub(crate) const ENTRY_VERSION_NAME: &str = "Hermit entry version";
pub(crate) const UHYVE_VERSION_NAME: &str = "uhyve interface version";

/// What the notes of a Hermit image say.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct HermitNotes {
    pub(crate) entry_version: Option<Found<u8>>,
    pub(crate) uhyve_version: Option<u32>,
    /// Of the kernel: major, minor, patch.
    pub(crate) version: Option<[u32; 3]>,
}

/// The entry version: a byte.
pub(crate) fn entry_version(desc: &[u8]) -> Result<u8, BadImage> {
    match desc {
        [version] => Ok(*version),
        _ => Err(BadImage::NoteSize {
            note: ENTRY_VERSION_NAME,
            size: desc.len(),
            expected: "1",
        }),
    }
}

/// The version of uhyve's interface: four bytes, the highest first.
pub(crate) fn uhyve_version(desc: &[u8]) -> Result<u32, BadImage> {
    let version = <[u8; 4]>::try_from(desc).map(u32::from_be_bytes);
    version.map_err(|_| BadImage::NoteSize {
        note: UHYVE_VERSION_NAME,
        size: desc.len(),
        expected: "4",
    })
}

/// The kernel's version in the GNU note of type 1, if it is Hermit's.
pub(crate) fn kernel_version(desc: &[u8]) -> Option<[u32; 3]> {
    let [system, version @ ..] = <[U32; 4]>::read_from_bytes(desc).ok()?.map(U32::get);
    (system == GNU_ABI_HERMIT).then_some(version)
}

/// An ELF with Hermit's note.
struct Hermit<'c> {
    elf: &'c Elf,
    note: Found<u8>,
    relocations: Relocations,
}

/// Looks for Hermit's note.
pub(crate) fn probe<'c>(candidate: &'c Candidate<'_>) -> Probed<'c> {
    let elf = candidate.elf()?;
    let Some(note) = elf.notes.hermit.entry_version else {
        return Err("no note named HERMIT of type 0x5a00".into());
    };
    check_notes(note.value, elf.notes.hermit.uhyve_version)?;
    if elf.class != Class::Elf64 {
        return Err(BadImage::Elf32.into());
    }
    let relocations = match elf.relocatable {
        true => Relocations::find(candidate.image, elf, elf.dynamic.as_ref())?,
        false => Relocations::default(),
    };
    Ok(Box::new(Hermit {
        elf,
        note,
        relocations,
    }))
}

fn check_notes(entry_version: u8, uhyve_version: Option<u32>) -> Result<(), BadImage> {
    if entry_version != ENTRY_VERSION {
        return Err(BadImage::HermitVersion {
            found: entry_version,
            expected: ENTRY_VERSION,
        });
    }
    match uhyve_version {
        None | Some(UHYVE_VERSION) => Ok(()),
        Some(found) => Err(BadImage::UhyveVersion {
            found,
            expected: UHYVE_VERSION,
        }),
    }
}

impl Hermit<'_> {
    /// How much above its linked addresses the image is put.
    fn base(&self) -> u64 {
        if self.elf.relocatable { BASE } else { 0 }
    }
}

impl Bootable for Hermit<'_> {
    fn protocol(&self) -> Protocol {
        Protocol::Hermit
    }

    fn entry(&self) -> u64 {
        self.elf.entry.saturating_add(self.base())
    }

    fn because(&self) -> String {
        let Found { value, at } = self.note;
        format!("a note named HERMIT of type 0x5a00 at {at:#x}: entry version {value}")
    }

    fn passes(&self) -> Vec<String> {
        let place = match self.elf.relocatable {
            true => format!("put at {BASE:#x} and relocated"),
            false => "put where it is linked".into(),
        };
        let version = match self.elf.notes.hermit.version {
            Some([major, minor, patch]) => format!("Hermit {major}.{minor}.{patch}"),
            None => "a Hermit that does not say its version".into(),
        };
        vec![
            format!("{version}, {place}"),
            format!(
                "64-bit mode in ring 0 on the host's page tables at {PAGE_TABLES:#x}, rdi = RawBootInfo at {BOOT_INFO:#x}"
            ),
            format!(
                "a device tree at {DEVICE_TREE:#x}: memory, clock, command line; hypercalls of version {UHYVE_VERSION}"
            ),
        ]
    }

    fn load(&self, job: &Job<'_>) -> Result<Loaded, BootError> {
        load(self, job)
    }
}

fn load(hermit: &Hermit<'_>, job: &Job<'_>) -> Result<Loaded, BootError> {
    let Job {
        image, ram, config, ..
    } = *job;
    job.refuse_useless(Protocol::Hermit)?;
    check_memory(image, ram)?;
    let elf = &hermit
        .elf
        .placed(hermit.base())
        .map_err(|problem| image.bad(problem))?;
    elf.check_executable(image, "the entry point", elf.entry)?;
    let kernel = kernel_range(image, elf)?;
    let args = arguments(image, config)?;

    let mut loader = Loader::new(image, ram);
    // Before page tables are made for them: they lie in RAM.
    loader.claim_segments(elf)?;
    let stack = kernel.start - 2 * STACK_SIZE..kernel.start - STACK_SIZE;
    let page_tables = page_tables(elf, &kernel);
    let tables_end = PAGE_TABLES + page_tables.len() * page_size(0);
    loader.areas.insert(AreaKind::Tables, GDT..2 * GDT);
    let info = DEVICE_TREE..BOOT_INFO + page_size(0);
    loader.areas.insert(AreaKind::BootInfo, info);
    let name = image.name();
    let tables = PAGE_TABLES..tables_end;
    loader
        .areas
        .claim(AreaKind::Tables, tables, name, &"the page tables")?;
    loader
        .areas
        .claim(AreaKind::Stack, stack.clone(), name, &"the stack")?;
    loader.place_segments(elf)?;
    hermit.relocations.apply(&Target {
        image,
        elf,
        ram,
        base: hermit.base(),
    })?;

    loader.write("the page tables", PAGE_TABLES, page_tables.bytes())?;
    let to_itself = root_entry(PAGE_TABLES).to_le_bytes();
    loader.write("the page tables", PAGE_TABLES + 511 * 8, &to_itself)?;
    loader.write("the GDT", GDT, &gdt())?;
    let tree = device_tree(ram, config).map_err(|source| BootError::DeviceTree { source })?;
    loader.write("the device tree", DEVICE_TREE, &tree)?;
    let info = boot_info(hermit.elf, hermit.base(), &kernel, ram, config);
    loader.write("the boot information", BOOT_INFO, &info)?;
    Ok(Loaded {
        protocol: Protocol::Hermit,
        registers: Registers {
            rip: elf.entry,
            rdi: BOOT_INFO,
            rsp: stack.end,
            ..Registers::default()
        },
        system: system_registers(),
        msrs: Vec::new(),
        boot_info: Some(BOOT_INFO),
        pvclock: None,
        generation_id: None,
        cpuid: true,
        hypercalls: Hypercalls::Hermit { args },
        areas: loader.areas.into_used(),
        copied: loader.copied,
    })
}

/// Memory is in one piece from 0, and has room for what the host puts there.
fn check_memory(image: &Image, ram: &GuestRam) -> Result<(), BootError> {
    if !(BASE..=layout::HOLE_START).contains(&ram.size()) {
        return Err(BootError::MemorySize {
            image: image.name().to_owned(),
            size: ram.size(),
            least: BASE,
            most: layout::HOLE_START,
        });
    }
    Ok(())
}

/// From the first byte of the image in memory to the last.
fn kernel_range(image: &Image, elf: &Elf) -> Result<Range<u64>, BootError> {
    let ranges = elf.segments.iter().map(crate::Segment::range);
    let all = ranges.reduce(|all, range| all.start.min(range.start)..all.end.max(range.end));
    let all = all.unwrap_or(BASE..BASE);
    if all.start < BASE {
        return Err(image.bad(BadImage::SegmentBelow {
            segment: elf.segments.first().map_or(0, |segment| segment.index),
            address: all.start,
            lowest: BASE,
        }));
    }
    Ok(all)
}

/// The image's name, then the words of the command line.
fn arguments(image: &Image, config: &BootConfig<'_>) -> Result<Vec<String>, BootError> {
    let len = config.cmdline.len();
    if u64::try_from(len).is_ok_and(|len| len > MAX_CMDLINE) {
        return Err(BootError::CommandLineTooLong {
            image: image.name().to_owned(),
            len,
            limit: MAX_CMDLINE,
        });
    }
    if let Some(offset) = config.cmdline.bytes().position(|byte| byte == 0) {
        return Err(BootError::CommandLineZero { offset });
    }
    let words = config.cmdline.split_whitespace();
    let args: Vec<_> = [image.name()]
        .into_iter()
        .chain(words)
        .map(str::to_owned)
        .collect();
    if args.len() > MAX_ARGS {
        return Err(BootError::CommandLineWords {
            image: image.name().to_owned(),
            count: args.len() - 1,
            limit: MAX_ARGS - 1,
        });
    }
    Ok(args)
}

/// Memory up to the image's end; for kernels that rely on it, at least the gigabyte that the image begins in.
fn page_tables(elf: &Elf, kernel: &Range<u64>) -> PageTables {
    let access = Access {
        write: true,
        execute: true,
        user: false,
        uncached: false,
    };
    let up_to_end = (kernel.end / PAGE_2_MIB + 1) * PAGE_2_MIB;
    let gigabyte = (kernel.start / PAGE_1_GIB + 1) * PAGE_1_GIB;
    let maps_itself = elf.notes.hermit.version.is_some_and(|v| v >= MAPS_ITSELF);
    let end = match maps_itself {
        true => up_to_end,
        false => up_to_end.max(gigabyte),
    };
    let mut tables = PageTables::new(PAGE_TABLES, false);
    tables.map(0..end, access);
    tables
}

/// An entry of the root of the page tables: present, and to be written.
fn root_entry(table: u64) -> u64 {
    table | 3
}

fn device_tree(ram: &GuestRam, config: &BootConfig<'_>) -> Result<Vec<u8>, vm_fdt::Error> {
    let mut fdt = FdtWriter::new()?;
    let root = fdt.begin_node("")?;
    fdt.property_string("compatible", "hermit,uhyve")?;
    fdt.property_u32("#address-cells", 2)?;
    fdt.property_u32("#size-cells", 2)?;
    let memory = fdt.begin_node("memory@0")?;
    fdt.property_string("device_type", "memory")?;
    fdt.property_array_u64("reg", &[0, ram.size()])?;
    fdt.end_node(memory)?;
    if let Some(khz) = clock(config) {
        let tsc = fdt.begin_node("hermit,tsc")?;
        fdt.property_u32("khz", khz)?;
        fdt.end_node(tsc)?;
    }
    let chosen = fdt.begin_node("chosen")?;
    fdt.property_string("bootargs", config.cmdline)?;
    fdt.end_node(chosen)?;
    fdt.end_node(root)?;
    fdt.finish()
}

/// kHz of the time-stamp counter, if known.
fn clock(config: &BootConfig<'_>) -> Option<u32> {
    u32::try_from(config.tsc_khz).ok().filter(|khz| *khz != 0)
}

/// `RawBootInfo`. `elf` is as it was linked.
fn boot_info(
    elf: &Elf,
    base: u64,
    kernel: &Range<u64>,
    ram: &GuestRam,
    config: &BootConfig<'_>,
) -> Vec<u8> {
    let tls = elf.tls.map_or([0; 4], |tls| {
        let start = tls.virtual_address.wrapping_add(base);
        [start, tls.file_size, tls.memory_size, tls.align]
    });
    let [start, file_size, memory_size, align] = tls;
    let words = [
        // RawHardwareInfo: memory, serial port, device tree.
        0,
        ram.size(),
        SERIAL_PORT,
        DEVICE_TREE,
        // RawLoadInfo: the image, and TlsInfo.
        kernel.start,
        kernel.end,
        start,
        file_size,
        memory_size,
        align,
        // RawPlatformInfo: which it is, no PCI, CPUs, the clock in kHz, nanoseconds since 1970.
        PLATFORM_UHYVE,
        0,
        config.cpus.into(),
        clock(config).unwrap_or(0).into(),
        config.wall_clock_ns,
        0,
    ];
    const { assert!(BOOT_INFO_SIZE == 16 * 8) };
    words.map(u64::to_le_bytes).as_flattened().to_vec()
}

fn gdt() -> Vec<u8> {
    let entries = [
        0,
        Segment::code64(CODE, 0).descriptor(),
        Segment::data(DATA, 0).descriptor(),
    ];
    entries.map(u64::to_le_bytes).as_flattened().to_vec()
}

fn system_registers() -> SystemRegisters {
    let data = Segment::data(DATA, 0);
    SystemRegisters {
        cs: Segment::code64(CODE, 0),
        ds: data,
        es: data,
        fs: data,
        gs: data,
        ss: data,
        tr: Segment::tss(0, 0, 0xffff),
        ldt: Segment::unusable(),
        gdt: DescriptorTable {
            base: GDT,
            limit: GDT_LIMIT,
        },
        cr0: cr0::PE | cr0::ET | cr0::NE | cr0::PG,
        cr3: PAGE_TABLES,
        cr4: cr4::PAE,
        efer: efer::LME | efer::LMA | efer::NXE,
        ..SystemRegisters::default()
    }
}

/// The tables that three gigabytes need, by pages of 2 MiB, lie below the stack.
const _: () = assert!(PAGE_TABLES + 6 * page_size(0) < PAGE_TABLES_END);
