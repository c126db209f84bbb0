//! Linux by its 64-bit boot protocol (`Documentation/arch/x86/boot.rst`, "64-bit Boot Protocol"): a bzImage or a vmlinux,
//! entered in 64-bit mode on an identity mapping, `rsi` pointing to `boot_params` ("zero-page.rst").

use std::collections::BTreeSet;

use goldcrest_memory::{GuestRam, PAGE_SIZE, layout};
use goldcrest_x86::{DescriptorTable, Registers, Segment, SystemRegisters, cr0, cr4, efer};

use crate::areas::AreaKind;
use crate::boot_params::BootParams;
use crate::candidate::{Bootable, Candidate, Job, Probed};
use crate::elf::Elf;
use crate::load::{Hypercalls, Loader};
use crate::paging::{Access, PageTables};
use crate::pc::{LOW_END, terminated_cmdline};
use crate::setup_header::{ENTRY_64, SetupHeader};
use crate::{BootConfig, BootError, Format, Hardware, Image, Loaded, MAX_CMDLINE, Protocol};

const GIB: u64 = 1 << 30;
const MIB: u64 = 1 << 20;

/// `COMMAND_LINE_SIZE` of x86, less the terminating zero: an ELF has no header that would say.
const ELF_CMDLINE_SIZE: u64 = 2047;

/// `__BOOT_CS` and `__BOOT_DS`, which the protocol demands.
const BOOT_CODE: u16 = 0x10;
const BOOT_DATA: u16 = 0x18;
const TASK: u16 = 0x20;
/// Bytes of the GDT.
const GDT_SIZE: u16 = 0x30;
/// The command line follows the GDT in its page.
const CMDLINE_OFFSET: u64 = 0x40;

/// What both kinds of kernel get.
const PASSES: [&str; 2] = [
    "64-bit mode in ring 0 on an identity mapping, rsi = boot_params",
    "in them: command line, initial RAM disk, e820 memory map, ACPI",
];

/// An ELF that is taken for a kernel.
struct Vmlinux<'c>(&'c Elf);

/// Nothing says that an ELF is a vmlinux. It is taken for one if it is for nothing else.
pub(crate) fn probe_elf<'c>(candidate: &'c Candidate<'_>) -> Probed<'c> {
    let elf = candidate.elf()?;
    if elf.notes.direct.is_some() {
        return Err("made for direct entry, by its note".into());
    }
    // A person who insists knows more than can be seen.
    if candidate.asked != Some(Protocol::LinuxElf) {
        if let Some(mark) = elf.program {
            return Err(format!("a program of an operating system: {mark}").into());
        }
        if candidate.is_claimed() && elf.notes.pvh.is_none() {
            return Err("made for another protocol".into());
        }
    }
    if let Err(problem) = elf.check_fixed_64() {
        return Err(problem.to_string().into());
    }
    Ok(Box::new(Vmlinux(elf)))
}

impl Bootable for Vmlinux<'_> {
    fn protocol(&self) -> Protocol {
        Protocol::LinuxElf
    }

    fn entry(&self) -> u64 {
        self.0.entry
    }

    fn because(&self) -> String {
        "an ELF64 executable at fixed addresses: taken for a vmlinux".into()
    }

    fn passes(&self) -> Vec<String> {
        PASSES.map(String::from).into()
    }

    fn load(&self, job: &Job<'_>) -> Result<Loaded, BootError> {
        load_elf(job.image, self.0, job.ram, job.config, job.hardware)
    }
}

/// A bzImage.
struct BzImage(SetupHeader);

/// Looks for the setup header.
pub(crate) fn probe_bzimage<'c>(candidate: &'c Candidate<'_>) -> Probed<'c> {
    if candidate.identity.format != Format::BzImage {
        return Err("no setup header (\"HdrS\" at 0x202)".into());
    }
    Ok(Box::new(BzImage(SetupHeader::parse(candidate.image)?)))
}

impl Bootable for BzImage {
    fn protocol(&self) -> Protocol {
        Protocol::LinuxBzImage
    }

    fn entry(&self) -> u64 {
        self.0.preferred_address.saturating_add(ENTRY_64)
    }

    fn because(&self) -> String {
        "a setup header at 0x1f1 with a 64-bit entry (xloadflags bit 0 at 0x236)".into()
    }

    fn passes(&self) -> Vec<String> {
        PASSES.map(String::from).into()
    }

    fn load(&self, job: &Job<'_>) -> Result<Loaded, BootError> {
        load_bzimage(job.image, &self.0, job.ram, job.config, job.hardware)
    }
}

/// Loads a bzImage.
fn load_bzimage(
    image: &Image,
    header: &SetupHeader,
    ram: &GuestRam,
    config: &BootConfig<'_>,
    hardware: &Hardware<'_>,
) -> Result<Loaded, BootError> {
    let limit = header.cmdline_size.min(MAX_CMDLINE);
    let cmdline = terminated_cmdline(config, hardware, image.name(), limit)?;
    let mut loader = Loader::new(image, ram);
    loader.claim_pc();
    let kernel = claim_kernel(&mut loader, header)?;
    loader.copied += image.place(
        ram,
        "the kernel",
        header.kernel_offset,
        kernel,
        header.kernel_size,
    )?;
    let params = BootParams::with_header(&header.bytes, kernel);
    let initrd_limit = header.initrd_addr_max.saturating_add(1);
    let start = Start {
        protocol: Protocol::LinuxBzImage,
        entry: kernel.saturating_add(ENTRY_64),
        initrd_limit: initrd_limit.min(layout::HOLE_END),
        cmdline,
    };
    start.finish(loader, params, config, hardware)
}

/// Loads a vmlinux.
fn load_elf(
    image: &Image,
    elf: &Elf,
    ram: &GuestRam,
    config: &BootConfig<'_>,
    hardware: &Hardware<'_>,
) -> Result<Loaded, BootError> {
    let cmdline = terminated_cmdline(config, hardware, image.name(), ELF_CMDLINE_SIZE)?;
    elf.check_executable(image, "the entry point", elf.entry)?;
    let mut loader = Loader::new(image, ram);
    loader.claim_pc();
    loader.claim_segments(elf)?;
    loader.place_segments(elf)?;
    let start = Start {
        protocol: Protocol::LinuxElf,
        entry: elf.entry,
        initrd_limit: layout::HOLE_END,
        cmdline,
    };
    start.finish(loader, BootParams::without_header(), config, hardware)
}

/// Takes the memory that the kernel needs: where it prefers, else as low as it may lie.
fn claim_kernel(loader: &mut Loader<'_>, header: &SetupHeader) -> Result<u64, BootError> {
    let size = header.init_size.max(header.kernel_size);
    let range = |start: u64| start..start.saturating_add(size);
    let preferred = range(header.preferred_address);
    let lowest = range(MIB.next_multiple_of(header.alignment));
    let range = if header.relocatable && !loader.areas.is_ram(&preferred) {
        lowest
    } else {
        preferred
    };
    let start = range.start;
    let what = "the kernel (init_size)";
    loader
        .areas
        .claim(AreaKind::Image, range, loader.image.name(), &what)?;
    Ok(start)
}

/// What both kinds of kernel have in common.
struct Start {
    protocol: Protocol,
    entry: u64,
    initrd_limit: u64,
    cmdline: Vec<u8>,
}

impl Start {
    fn finish(
        &self,
        mut loader: Loader<'_>,
        mut params: BootParams,
        config: &BootConfig<'_>,
        hardware: &Hardware<'_>,
    ) -> Result<Loaded, BootError> {
        let initrd = loader.place_initrd(config.initrd, self.initrd_limit)?;
        let rsdp = loader.write_acpi(config.cpus, hardware)?;
        let chunks = mapped_gigabytes(&loader);
        let tables = identity(0, &chunks, config.gigabyte_pages).len();
        let cmdline_len = self.cmdline.len() as u64;
        let gdt_len = (CMDLINE_OFFSET + cmdline_len).next_multiple_of(PAGE_SIZE);
        let len = PAGE_SIZE + gdt_len + tables * PAGE_SIZE;
        let what = "the boot parameters";
        let base = loader
            .areas
            .lowest(AreaKind::BootInfo, what, len, LOW_END)?;
        let (gdt, page_tables) = (base + PAGE_SIZE, base + PAGE_SIZE + gdt_len);

        params.set_cmdline(gdt + CMDLINE_OFFSET, cmdline_len - 1);
        params.set_initrd(initrd);
        params.set_rsdp(rsdp);
        params.set_memory_map(&loader.e820());
        let tables = identity(page_tables, &chunks, config.gigabyte_pages);
        let mut bytes = params.into_bytes();
        bytes.extend(gdt_bytes());
        bytes.extend(&self.cmdline);
        bytes.resize(bytes.len().next_multiple_of(4096), 0);
        bytes.extend(tables.bytes());
        loader.write(what, base, &bytes)?;
        Ok(Loaded {
            protocol: self.protocol,
            registers: Registers {
                rip: self.entry,
                rsi: base,
                ..Registers::default()
            },
            system: system_registers(gdt, page_tables),
            msrs: Vec::new(),
            boot_info: Some(base),
            pvclock: None,
            cpuid: true,
            hypercalls: Hypercalls::None,
            areas: loader.areas.into_used(),
            copied: loader.copied,
        })
    }
}

/// The gigabytes that are mapped: the first, with all that the host writes, and those of the kernel. Linux makes page
/// tables of its own before it reaches further.
fn mapped_gigabytes(loader: &Loader<'_>) -> BTreeSet<u64> {
    let used = loader.areas.used().iter();
    let image = used.filter(|area| area.kind == AreaKind::Image);
    let touched = image.flat_map(|area| {
        let last = area.range.end.saturating_sub(1);
        area.range.start / GIB..=last / GIB
    });
    touched.chain([0]).collect()
}

fn identity(base: u64, gigabytes: &BTreeSet<u64>, gigabyte_pages: bool) -> PageTables {
    let access = Access {
        write: true,
        execute: true,
        user: false,
        uncached: false,
    };
    let mut tables = PageTables::new(base, gigabyte_pages);
    for gigabyte in gigabytes {
        tables.map(gigabyte * GIB..(gigabyte + 1) * GIB, access);
    }
    tables
}

/// The GDT, up to the command line.
fn gdt_bytes() -> Vec<u8> {
    let task = Segment::tss(TASK, 0, 0x67);
    let code = Segment::code64(BOOT_CODE, 0).descriptor();
    let data = Segment::data(BOOT_DATA, 0).descriptor();
    let entries = [0, 0, code, data, task.descriptor(), 0, 0, 0];
    debug_assert_eq!(size_of_val(&entries) as u64, CMDLINE_OFFSET);
    entries.map(u64::to_le_bytes).as_flattened().to_vec()
}

fn system_registers(gdt: u64, page_tables: u64) -> SystemRegisters {
    let data = Segment::data(BOOT_DATA, 0);
    SystemRegisters {
        cs: Segment::code64(BOOT_CODE, 0),
        ds: data,
        es: data,
        fs: data,
        gs: data,
        ss: data,
        tr: Segment::tss(TASK, 0, 0x67),
        ldt: Segment::unusable(),
        gdt: DescriptorTable {
            base: gdt,
            limit: GDT_SIZE - 1,
        },
        cr0: cr0::PE | cr0::ET | cr0::PG,
        cr3: page_tables,
        cr4: cr4::PAE,
        efer: efer::LME | efer::LMA,
        ..SystemRegisters::default()
    }
}
