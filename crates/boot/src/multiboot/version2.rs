//! Multiboot2 (specification 2.0): the protocol.

use goldcrest_memory::layout;

use super::header2::Header;
use super::info2::Information;
use super::kernel::Kernel;
use super::sections::SectionTable;
use super::tags::{Preference, Relocatable, Tags};
use super::{BadMultiboot, registers};
use crate::acpi::RSDP_SIZE;
use crate::candidate::{Bootable, Candidate, Job, Probed};
use crate::elf::Elf;
use crate::load::{Hypercalls, Loader};
use crate::pc::terminated_cmdline;
use crate::processor::protected_mode;
use crate::{BadImage, BootError, Loaded, MAX_CMDLINE, Protocol};

/// `MULTIBOOT2_BOOTLOADER_MAGIC`, in `eax`.
const BOOTLOADER_MAGIC: u32 = 0x36d7_6289;

/// A kernel with a header.
struct Multiboot2<'c> {
    at: u64,
    tags: Tags,
    kernel: Kernel,
    /// The image, if it is loaded as an ELF.
    elf: Option<&'c Elf>,
}

/// Looks for a Multiboot2 header.
pub(crate) fn probe<'c>(candidate: &'c Candidate<'_>) -> Probed<'c> {
    let header = Header::find(candidate.image)?;
    let at = header.at;
    let tags = Tags::parse(&header).map_err(BadImage::from)?;
    let missing = |field| BadMultiboot::NoAddresses {
        what: "Multiboot2",
        at,
        field,
    };
    let (kernel, elf) = match tags.addresses {
        Some(addresses) => {
            let entry = tags.entry.ok_or_else(|| missing("the entry address tag"));
            let entry = entry.map_err(BadImage::from)?;
            let kernel = Kernel::of_addresses(candidate.image, at, &addresses, entry)?;
            (kernel, None)
        }
        None => {
            let elf = candidate.elf_for(|| missing("the address tag"))?;
            if tags.relocatable.is_none() {
                elf.check_fixed()?;
            }
            (Kernel::of_elf(elf, tags.entry)?, Some(elf))
        }
    };
    Ok(Box::new(Multiboot2 {
        at,
        tags,
        kernel,
        elf,
    }))
}

impl Bootable for Multiboot2<'_> {
    fn protocol(&self) -> Protocol {
        Protocol::Multiboot2
    }

    fn entry(&self) -> u64 {
        self.kernel.entry
    }

    fn because(&self) -> String {
        let from = match self.elf {
            None => "loaded as its address tag says",
            Some(_) => "loaded as an ELF",
        };
        let relocatable = match self.tags.relocatable {
            None => String::new(),
            Some(Relocatable {
                min, max, align, ..
            }) => format!(", relocatable to {min:#x}-{max:#x} by {align:#x}"),
        };
        let at = self.at;
        format!("header magic e85250d6 at {at:#x}, {from}{relocatable}")
    }

    fn passes(&self) -> Vec<String> {
        let sections = if self.elf.is_some() {
            ", ELF sections"
        } else {
            ""
        };
        let base = match self.tags.relocatable {
            None => "",
            Some(_) => ", load base",
        };
        let mut lines = vec![
            "32-bit protected mode without paging, eax = 36d76289, ebx = boot information".into(),
            format!(
                "in it: command line, loader name, modules (--initrd first), basic memory, memory map{sections}, \
                 ACPI (both RSDPs){base}"
            ),
        ];
        let absent: Vec<_> = self
            .tags
            .requests
            .iter()
            .filter_map(|kind| absent(*kind))
            .collect();
        if !absent.is_empty() {
            let absent = absent.join(", ");
            lines.push(format!(
                "asked for, but not there on this machine: {absent}"
            ));
        }
        lines
    }

    fn load(&self, job: &Job<'_>) -> Result<Loaded, BootError> {
        let Job {
            image,
            ram,
            config,
            hardware,
        } = *job;
        let cmdline = terminated_cmdline(config, hardware, image.name(), MAX_CMDLINE)?;
        let mut loader = Loader::new(image, ram);
        loader.claim_pc();
        let kernel = self.relocated(&loader)?;
        kernel.place(&mut loader)?;
        let mut modules = loader.place_modules_low(config)?;
        loader.add_device_tree(job, &cmdline, &mut modules)?;
        let sections = match self.elf {
            Some(elf) => SectionTable::place(&mut loader, elf)?,
            None => None,
        };
        let mut rsdp = [0; RSDP_SIZE];
        let rsdp_at = loader.write_acpi(config, hardware)?;
        let read = ram.view().read(rsdp_at, &mut rsdp);
        read.map_err(BootError::memory("the ACPI tables"))?;
        let information = Information {
            cmdline: &cmdline,
            modules: &modules,
            sections,
            rsdp,
            load_base: self.tags.relocatable.map(|_| kernel.range().start),
        };
        let info = information.write(&mut loader)?;
        Ok(Loaded {
            protocol: Protocol::Multiboot2,
            registers: registers(BOOTLOADER_MAGIC, kernel.entry, info),
            system: protected_mode(),
            msrs: Vec::new(),
            boot_info: Some(info),
            pvclock: None,
            generation_id: hardware.generation_id(),
            cpuid: true,
            hypercalls: Hypercalls::None,
            areas: loader.areas.into_used(),
            copied: loader.copied,
        })
    }
}

impl Multiboot2<'_> {
    /// The kernel where it is to lie: where it is linked at if that is free and it has no preference, else the lowest or
    /// highest place that its tag allows.
    fn relocated(&self, loader: &Loader<'_>) -> Result<Kernel, BootError> {
        let kernel = self.kernel.clone();
        let Some(Relocatable {
            min,
            max,
            align,
            preference,
        }) = self.tags.relocatable
        else {
            return Ok(kernel);
        };
        let linked = kernel.range();
        let len = linked.end - linked.start;
        let limit = u64::from(max).saturating_add(1).min(layout::HOLE_END);
        let (min, align) = (u64::from(min), u64::from(align));
        let allowed =
            linked.start >= min && linked.end <= limit && linked.start.is_multiple_of(align);
        if preference == Preference::None && allowed && loader.areas.is_free(&linked) {
            return Ok(kernel);
        }
        let highest = preference == Preference::Highest;
        let what = "the relocatable kernel";
        let start = loader
            .areas
            .find_aligned(what, len, min..limit, align, highest)?;
        Ok(kernel.moved(start.wrapping_sub(linked.start)))
    }
}

/// What a type of boot information is, that this machine never has.
fn absent(kind: u32) -> Option<&'static str> {
    Some(match kind {
        5 => "BIOS boot device",
        7 => "VBE",
        8 => "framebuffer",
        10 => "APM table",
        11 | 12 => "EFI system table",
        13 => "SMBIOS tables",
        16 => "DHCP acknowledgement",
        17 => "EFI memory map",
        18 => "EFI boot services",
        19 | 20 => "EFI image handle",
        _ => return None,
    })
}
