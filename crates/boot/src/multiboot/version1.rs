//! Multiboot (version 1, specification 0.6.96): the protocol.

use super::header1::Header;
use super::kernel::Kernel;
use super::sections::SectionTable;
use super::{BadMultiboot, info1, registers};
use crate::candidate::{Bootable, Candidate, Job, Probed};
use crate::elf::Elf;
use crate::load::{Hypercalls, Loader};
use crate::pc::terminated_cmdline;
use crate::processor::protected_mode;
use crate::{BadImage, BootError, Loaded, MAX_CMDLINE, Protocol};

/// `MULTIBOOT_BOOTLOADER_MAGIC`, in `eax`.
const BOOTLOADER_MAGIC: u32 = 0x2bad_b002;

/// A kernel with a header.
struct Multiboot<'c> {
    header: Header,
    kernel: Kernel,
    /// The image, if it is loaded as an ELF.
    elf: Option<&'c Elf>,
}

/// Looks for a Multiboot header.
pub(crate) fn probe<'c>(candidate: &'c Candidate<'_>) -> Probed<'c> {
    let header = Header::find(candidate.image)??;
    header.check().map_err(BadImage::from)?;
    let Header { at, addresses, .. } = header;
    let (kernel, elf) = match addresses {
        Some((addresses, entry)) => {
            let kernel = Kernel::of_addresses(candidate.image, at, &addresses, entry)?;
            (kernel, None)
        }
        None => {
            let elf = candidate.elf_for(|| {
                let (what, field) = ("Multiboot", "bit 16 of its flags");
                BadMultiboot::NoAddresses { what, at, field }
            })?;
            elf.check_fixed()?;
            (Kernel::of_elf(elf, None)?, Some(elf))
        }
    };
    Ok(Box::new(Multiboot {
        header,
        kernel,
        elf,
    }))
}

impl Bootable for Multiboot<'_> {
    fn protocol(&self) -> Protocol {
        Protocol::Multiboot
    }

    fn entry(&self) -> u64 {
        self.kernel.entry
    }

    fn because(&self) -> String {
        let Header {
            at,
            flags,
            addresses,
        } = self.header;
        let from = match addresses {
            Some(_) => "loaded as its address fields say",
            None => "loaded as an ELF",
        };
        format!("header magic 1badb002 at {at:#x} with flags {flags:#x}, {from}")
    }

    fn passes(&self) -> Vec<String> {
        let sections = if self.elf.is_some() {
            ", ELF sections"
        } else {
            ""
        };
        vec![
            "32-bit protected mode without paging, eax = 2badb002, ebx = Multiboot information"
                .into(),
            format!(
                "in it: mem_lower and mem_upper, command line, modules (--initrd first), memory map{sections}, loader name"
            ),
        ]
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
        self.kernel.place(&mut loader)?;
        let mut modules = loader.place_modules_low(config)?;
        loader.add_device_tree(job, &cmdline, &mut modules)?;
        let sections = match self.elf {
            Some(elf) => SectionTable::place(&mut loader, elf)?,
            None => None,
        };
        loader.write_acpi(config, hardware)?;
        let info = info1::write(&mut loader, &cmdline, &modules, sections.as_ref())?;
        Ok(Loaded {
            protocol: Protocol::Multiboot,
            registers: registers(BOOTLOADER_MAGIC, self.kernel.entry, info),
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
