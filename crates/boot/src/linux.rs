//! Linux by its 64-bit boot protocol (`Documentation/arch/x86/boot.rst`, "64-bit Boot Protocol"): a bzImage or a vmlinux,
//! entered in 64-bit mode on an identity mapping, `rsi` pointing to `boot_params` ("zero-page.rst").

use std::collections::BTreeSet;

use goldcrest_memory::{PAGE_SIZE, layout};
use goldcrest_x86::Registers;

use crate::areas::AreaKind;
use crate::boot_params::BootParams;
use crate::candidate::{Bootable, Candidate, Job, Probed};
use crate::elf::Elf;
use crate::load::{Hypercalls, Loader};
use crate::module::Placed;
use crate::pc::{LOW_END, terminated_cmdline};
use crate::processor::{GDT_ROOM, GIB, gdt_bytes, identity, long_mode};
use crate::setup_header::{ENTRY_64, SetupHeader};
use crate::{Announce, BootError, Format, Loaded, MAX_CMDLINE, Protocol};

const MIB: u64 = 1 << 20;
/// Setup data lies in the gigabyte that is mapped in any case.
const LOW_MEMORY: u64 = GIB;

/// `COMMAND_LINE_SIZE` of x86, less the terminating zero: an ELF has no header that would say.
const ELF_CMDLINE_SIZE: u64 = 2047;

/// The command line follows the GDT in its page.
const CMDLINE_OFFSET: u64 = GDT_ROOM;

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
    candidate.check_unclaimed(elf, Protocol::LinuxElf)?;
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
        load_elf(self.0, job)
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
        load_bzimage(&self.0, job)
    }
}

/// Loads a bzImage.
fn load_bzimage(header: &SetupHeader, job: &Job<'_>) -> Result<Loaded, BootError> {
    let Job {
        image,
        ram,
        config,
        hardware,
    } = *job;
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
    start.finish(loader, params, job)
}

/// Loads a vmlinux.
fn load_elf(elf: &Elf, job: &Job<'_>) -> Result<Loaded, BootError> {
    let Job {
        image,
        ram,
        config,
        hardware,
    } = *job;
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
    start.finish(loader, BootParams::without_header(), job)
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
        job: &Job<'_>,
    ) -> Result<Loaded, BootError> {
        let Job {
            config, hardware, ..
        } = *job;
        let initrd = loader.place_initrd(config.initrd, self.initrd_limit)?;
        let rsdp = loader.write_acpi(config, hardware)?;
        if let Some(at) = self.place_setup_data(&mut loader, job, initrd)? {
            params.set_setup_data(at);
        }
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
            system: long_mode(gdt, page_tables),
            msrs: Vec::new(),
            boot_info: Some(base),
            pvclock: None,
            generation_id: hardware.generation_id(),
            cpuid: true,
            hypercalls: Hypercalls::None,
            areas: loader.areas.into_used(),
            copied: loader.copied,
        })
    }
}

/// Bytes of `setup_data` before its content.
const SETUP_DATA_HEADER: u64 = 16;
/// `SETUP_DTB`.
const SETUP_DATA_DEVICE_TREE: u32 = 2;

impl Start {
    /// Puts a device tree into memory as setup data, if virtio devices are announced so; its address.
    fn place_setup_data(
        &self,
        loader: &mut Loader<'_>,
        job: &Job<'_>,
        (initrd, initrd_len): (u64, u64),
    ) -> Result<Option<u64>, BootError> {
        if job.hardware.announce != Announce::DeviceTree {
            return Ok(None);
        }
        let initrd = Placed {
            start: initrd,
            len: initrd_len,
            arguments: "",
        };
        let modules: &[_] = if initrd_len == 0 { &[] } else { &[initrd] };
        let tree = loader.device_tree(job, &self.cmdline, modules)?;
        let (what, len) = ("the device tree", tree.len() as u64);
        let kind = AreaKind::BootInfo;
        let at = loader
            .areas
            .highest(kind, what, SETUP_DATA_HEADER + len, LOW_MEMORY)?;
        let mut bytes = 0u64.to_le_bytes().to_vec();
        bytes.extend(SETUP_DATA_DEVICE_TREE.to_le_bytes());
        bytes.extend(u32::try_from(len).unwrap_or(u32::MAX).to_le_bytes());
        bytes.extend(tree);
        loader.write(what, at, &bytes)?;
        Ok(Some(at))
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
