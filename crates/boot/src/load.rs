//! The way in: from an image and a configuration to a guest ready to start.

use std::ops::Range;

use goldcrest_memory::GuestRam;
use goldcrest_x86::{Registers, SystemRegisters};

use crate::areas::{AreaKind, Areas};
use crate::candidate::{Candidate, Job};
use crate::elf::Elf;
use crate::{Area, BootError, Hardware, Image, Module, Protocol};

/// The most processors that can be described to a guest.
pub const MAX_CPUS: u32 = 4096;

/// The longest command line that any protocol takes, in bytes.
pub const MAX_CMDLINE: u64 = 64 * 1024;

/// What a person or a monitor sets about the start of a guest.
#[derive(Debug, Clone)]
pub struct BootConfig<'a> {
    /// The command line.
    pub cmdline: &'a str,
    /// An initial RAM disk; the first module, where a protocol has modules ([`Protocol::has_modules`]).
    pub initrd: Option<&'a Image>,
    /// Modules, for protocols that have them.
    pub modules: &'a [Module],
    /// How many virtual processors there are, from 1 to [`MAX_CPUS`]; their APIC ids count from 0.
    pub cpus: u32,
    /// How to start the guest; by default as [`inspect`](crate::inspect()) says.
    pub protocol: Option<Protocol>,
    /// Frequency of the time-stamp counter in kHz, 0 if unknown.
    pub tsc_khz: u64,
    /// Nanoseconds since 1970-01-01 00:00 UTC, 0 if unknown.
    pub wall_clock_ns: u64,
    /// Tells this start from others: random. What is told by ACPI or direct entry finds it ([`Loaded::generation_id`]).
    pub generation_id: [u8; 16],
    /// The virtual processor has pages of 1 GiB (CPUID 8000_0001h, EDX bit 26).
    pub gigabyte_pages: bool,
    /// The host has a kvmclock: an image that asks for its page gets one.
    pub pvclock: bool,
}

impl Default for BootConfig<'_> {
    /// One processor, no command line, no RAM disk, nothing known about clocks.
    fn default() -> Self {
        Self {
            cmdline: "",
            initrd: None,
            modules: &[],
            cpus: 1,
            protocol: None,
            tsc_khz: 0,
            wall_clock_ns: 0,
            generation_id: [0; 16],
            gigabyte_pages: false,
            pvclock: false,
        }
    }
}

/// How bytes came into guest memory.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Copied {
    /// Bytes of pages mapped from files.
    pub mapped: u64,
    /// Bytes copied.
    pub copied: u64,
}

impl std::ops::AddAssign for Copied {
    fn add_assign(&mut self, other: Self) {
        self.mapped = self.mapped.saturating_add(other.mapped);
        self.copied = self.copied.saturating_add(other.copied);
    }
}

/// The hypercalls of a guest that is made for another monitor: what the host has to serve.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Hypercalls {
    /// None.
    #[default]
    None,
    /// Those of Solo5's `hvt` (`hvt_abi.h` version 2), at ports from 0x500.
    Solo5 {
        /// For each handle the index of its device in [`Hardware::solo5`]; none for handle 0.
        handles: Vec<Option<usize>>,
        /// Guest-physical addresses that the guest cannot write, and that no hypercall may write for it; by ascending
        /// address.
        read_only: Vec<Range<u64>>,
    },
    /// Those of uhyve (crate `uhyve-interface`, version 1), at ports from 0x400.
    Hermit {
        /// The image's name, and the words of the command line; at most 128.
        args: Vec<String>,
    },
}

/// A guest in memory, and the state from which its first processor starts. The others wait for it.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// How the guest is started.
    pub protocol: Protocol,
    /// General registers.
    pub registers: Registers,
    /// Segments, descriptor tables, control registers.
    pub system: SystemRegisters,
    /// Model-specific registers to set: number and value.
    pub msrs: Vec<(u32, u64)>,
    /// Guest-physical address of the structure that tells the guest everything: `BootInfo` of direct entry,
    /// `hvm_start_info` of PVH, `boot_params` of Linux.
    pub boot_info: Option<u64>,
    /// Guest-physical address of a `pvclock_vcpu_time_info` for the first processor, which the host is to enable
    /// (`MSR_KVM_SYSTEM_TIME_NEW`).
    pub pvclock: Option<u64>,
    /// Guest-physical address of the 16 bytes that tell this run of the guest from others made of the same snapshot, of
    /// guests that are told of them.
    pub generation_id: Option<u64>,
    /// Whether the guest wants to know what its processors are (`cpuid`).
    pub cpuid: bool,
    /// The hypercalls that the guest makes.
    pub hypercalls: Hypercalls,
    /// What lies where, by ascending address.
    pub areas: Vec<Area>,
    /// How the image and the RAM disk came into memory.
    pub copied: Copied,
}

/// Puts an image into fresh guest memory and says how its first processor starts, on a machine with a serial port
/// ([`Hardware::default`]).
///
/// # Errors
///
/// If the image is not bootable (its problem is named with value and limit), does not offer the protocol asked for, does
/// not fit into memory, or comes with modules that the protocol does not have. The memory's content is undefined then.
pub fn load(image: &Image, ram: &GuestRam, config: &BootConfig<'_>) -> Result<Loaded, BootError> {
    load_with(image, ram, config, &Hardware::default())
}

/// As [`load`], on a machine with these devices.
///
/// # Errors
///
/// As for [`load`], and if there are more virtio devices than can be announced or one lies where no device can.
pub fn load_with(
    image: &Image,
    ram: &GuestRam,
    config: &BootConfig<'_>,
    hardware: &Hardware<'_>,
) -> Result<Loaded, BootError> {
    if config.cpus == 0 || config.cpus > MAX_CPUS {
        return Err(BootError::Cpus {
            cpus: config.cpus,
            limit: MAX_CPUS,
        });
    }
    hardware.check()?;
    let candidate = Candidate::new(image, config.protocol)?;
    let bootable = candidate.choose()?;
    let protocol = bootable.protocol();
    if !hardware.solo5.is_empty() && protocol != Protocol::Solo5Hvt {
        return Err(BootError::Useless {
            image: image.name().to_owned(),
            protocol,
            what: "Solo5 devices",
        });
    }
    if !config.modules.is_empty() && !protocol.has_modules() {
        return Err(BootError::Modules {
            image: image.name().to_owned(),
            protocol,
        });
    }
    bootable.load(&Job {
        image,
        ram,
        config,
        hardware,
    })
}

/// Where the pieces of a guest go while it is loaded.
pub(crate) struct Loader<'a> {
    pub(crate) image: &'a Image,
    pub(crate) ram: &'a GuestRam,
    pub(crate) areas: Areas,
    pub(crate) copied: Copied,
}

impl<'a> Loader<'a> {
    pub(crate) fn new(image: &'a Image, ram: &'a GuestRam) -> Self {
        Self {
            image,
            ram,
            areas: Areas::new(ram),
            copied: Copied::default(),
        }
    }

    /// Claims RAM for all segments; what they conflict with must be claimed before.
    pub(crate) fn claim_segments(&mut self, elf: &Elf) -> Result<(), BootError> {
        for segment in &elf.segments {
            let what = format_args!("segment {}", segment.index);
            self.areas
                .claim(AreaKind::Image, segment.range(), self.image.name(), &what)?;
        }
        Ok(())
    }

    /// Fills the segments from the file. What they have beyond it is zero as fresh memory is.
    pub(crate) fn place_segments(&mut self, elf: &Elf) -> Result<(), BootError> {
        for segment in &elf.segments {
            self.copied += self.image.place(
                self.ram,
                "a segment",
                segment.offset,
                segment.physical_address,
                segment.file_size,
            )?;
        }
        Ok(())
    }

    /// Puts the RAM disk as high below `limit` as it fits; says where it is.
    pub(crate) fn place_initrd(
        &mut self,
        initrd: Option<&Image>,
        limit: u64,
    ) -> Result<(u64, u64), BootError> {
        let Some(initrd) = initrd else {
            return Ok((0, 0));
        };
        let (what, len) = ("the initial RAM disk", initrd.len());
        let start = self.areas.highest(AreaKind::Initrd, what, len, limit)?;
        self.copied += initrd.place(self.ram, what, 0, start, len)?;
        Ok((start, len))
    }

    pub(crate) fn write(&self, what: &'static str, at: u64, bytes: &[u8]) -> Result<(), BootError> {
        self.ram.write(at, bytes).map_err(BootError::memory(what))
    }
}
