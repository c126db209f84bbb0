//! Kernels that no boot protocol is made for, in the mode of their choice: an ELF32 without a header, and flat binaries.
//!
//! Goldcrest's own convention, after Multiboot's: `eax` has the magic number of a device tree, `ebx` the guest-physical
//! address of one, in which everything is. Interrupts are off, the stack and the descriptor tables are the guest's to
//! make; a guest that starts in 64-bit mode is given a GDT and page tables that map the first 4 GiB, and the image, to
//! themselves.

use std::collections::BTreeSet;
use std::fmt;
use std::ops::Range;

use goldcrest_memory::{PAGE_SIZE, layout};
use goldcrest_x86::{Registers, SystemRegisters};

use crate::areas::AreaKind;
use crate::candidate::Job;
use crate::load::{Hypercalls, Loader};
use crate::pc::terminated_cmdline;
use crate::processor::{GIB, gdt_bytes, identity, long_mode, protected_mode, real_mode};
use crate::{BootError, Loaded, MAX_CMDLINE, Protocol};

/// `FDT_MAGIC`, in `eax` (Devicetree Specification §5.2).
const MAGIC: u64 = 0xd00d_feed;

/// The mode in which a guest without a protocol starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Mode {
    /// Real mode; `cs` has the upper bits of the entry point, all other segments are 0.
    Real,
    /// 32-bit protected mode without paging, flat segments.
    Protected,
    /// 64-bit mode in ring 0.
    Long,
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Real => "16",
            Self::Protected => "32",
            Self::Long => "64",
        })
    }
}

impl Mode {
    /// What a guest finds in its registers, in words.
    pub(crate) fn passes(self) -> Vec<String> {
        let mode = match self {
            Self::Real => "real mode",
            Self::Protected => "32-bit protected mode without paging",
            Self::Long => "64-bit mode in ring 0 on an identity mapping of 4 GiB",
        };
        vec![
            format!("{mode}, eax = d00dfeed, ebx = device tree"),
            "in it: command line, modules (--initrd first), memory, processors, serial port, virtio devices".into(),
        ]
    }
}

impl<'a> Loader<'a> {
    /// Claims page 0, where the image does not lie there.
    pub(crate) fn claim_page_0_if_free(&mut self) {
        let page = 0..PAGE_SIZE;
        if self.areas.is_free(&page) {
            self.areas.insert(AreaKind::Guard, page);
        }
    }

    /// Puts what goes with the image into memory, and says how the guest starts.
    pub(crate) fn start_bare(
        mut self,
        job: &Job<'a>,
        protocol: Protocol,
        entry: u64,
        mode: Mode,
    ) -> Result<Loaded, BootError> {
        let Job {
            image,
            config,
            hardware,
            ..
        } = *job;
        let cmdline = terminated_cmdline(config, hardware, image.name(), MAX_CMDLINE)?;
        let modules = self.place_modules_low(config)?;
        self.write_acpi(config, hardware)?;
        let system = match mode {
            // The entry point lies below 1 MiB: `cs` has its upper four bits.
            Mode::Real => real_mode(u16::try_from(entry >> 4 & 0xf000).unwrap_or(0)),
            Mode::Protected => protected_mode(),
            Mode::Long => self.write_tables(config.gigabyte_pages)?,
        };
        let bytes = self.device_tree(job, &cmdline, &modules)?;
        let what = "the device tree";
        let len = bytes.len() as u64;
        let limit = layout::HOLE_END;
        let at = self.areas.lowest(AreaKind::BootInfo, what, len, limit)?;
        self.write(what, at, &bytes)?;
        Ok(Loaded {
            protocol,
            registers: registers(entry, at, mode),
            system,
            msrs: Vec::new(),
            boot_info: Some(at),
            pvclock: None,
            generation_id: hardware.generation_id(),
            cpuid: true,
            areas: self.areas.into_used(),
            hypercalls: Hypercalls::None,
            copied: self.copied,
        })
    }

    /// Writes the tables of 64-bit mode; gives the state that uses them.
    fn write_tables(&mut self, gigabyte_pages: bool) -> Result<SystemRegisters, BootError> {
        let image = self.areas.used().iter();
        let image = image.filter(|area| area.kind == AreaKind::Image);
        let image = image.flat_map(|area| gigabytes(&area.range));
        let mapped: BTreeSet<u64> = image.chain(0..layout::HOLE_END / GIB).collect();
        let tables = identity(0, &mapped, gigabyte_pages).len();
        let what = "the page tables";
        let len = (tables + 1) * PAGE_SIZE;
        let limit = layout::HOLE_END;
        let gdt = self.areas.lowest(AreaKind::Tables, what, len, limit)?;
        let tables = identity(gdt + PAGE_SIZE, &mapped, gigabyte_pages);
        self.write(what, gdt, &gdt_bytes())?;
        self.write(what, gdt + PAGE_SIZE, tables.bytes())?;
        Ok(long_mode(gdt, gdt + PAGE_SIZE))
    }
}

fn gigabytes(range: &Range<u64>) -> std::ops::RangeInclusive<u64> {
    range.start / GIB..=range.end.saturating_sub(1) / GIB
}

fn registers(entry: u64, tree: u64, mode: Mode) -> Registers {
    let rip = match mode {
        Mode::Real => entry & 0xffff,
        Mode::Protected | Mode::Long => entry,
    };
    Registers {
        rip,
        rax: MAGIC,
        rbx: tree,
        ..Registers::default()
    }
}
