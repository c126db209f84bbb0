//! PVH: 32-bit protected mode without paging, `ebx` pointing to `hvm_start_info` (Xen, `docs/misc/pvh.pandoc` and
//! `xen/include/public/arch-x86/hvm/start_info.h`).

use goldcrest_memory::{PAGE_SIZE, layout};
use goldcrest_x86::Registers;

use crate::areas::AreaKind;
use crate::candidate::{Bootable, Candidate, Job, Probed};
use crate::elf::Elf;
use crate::load::{Hypercalls, Loader};
use crate::module::Placed;
use crate::note::Found;
use crate::pc::{LOW_END, terminated_cmdline};
use crate::processor::protected_mode;
use crate::{BadImage, BootError, Loaded, MAX_CMDLINE, Protocol};

/// `XEN_HVM_START_MAGIC_VALUE`.
const MAGIC: u32 = 0x336e_c578;
/// The version that has a memory map.
const VERSION: u32 = 1;
/// Bytes of `hvm_start_info`, `hvm_modlist_entry` and `hvm_memmap_table_entry`.
const START_INFO_SIZE: u64 = 56;
const MODULE_SIZE: u64 = 32;
const MEMORY_MAP_ENTRY_SIZE: u64 = 24;

/// An ELF with Xen's note.
struct Pvh<'c> {
    elf: &'c Elf,
    note: Found<u64>,
}

/// Looks for Xen's note.
pub(crate) fn probe<'c>(candidate: &'c Candidate<'_>) -> Probed<'c> {
    let elf = candidate.elf()?;
    let Some(note) = elf.notes.pvh else {
        return Err("no note named Xen of type 18 (PHYS32_ENTRY)".into());
    };
    elf.check_fixed()?;
    Ok(Box::new(Pvh { elf, note }))
}

impl Bootable for Pvh<'_> {
    fn protocol(&self) -> Protocol {
        Protocol::Pvh
    }

    fn entry(&self) -> u64 {
        self.note.value
    }

    fn because(&self) -> String {
        format!("a note named Xen of type 18 at {:#x}", self.note.at)
    }

    fn passes(&self) -> Vec<String> {
        vec![
            "32-bit protected mode without paging, ebx = hvm_start_info (magic 336ec578, version 1)".into(),
            "in it: command line, modules (--initrd first), memory map, ACPI".into(),
        ]
    }

    fn load(&self, job: &Job<'_>) -> Result<Loaded, BootError> {
        load(self.elf, self.note.value, job)
    }
}

fn load(elf: &Elf, entry: u64, job: &Job<'_>) -> Result<Loaded, BootError> {
    let Job {
        image,
        ram,
        config,
        hardware,
    } = *job;
    const WHAT: &str = "the PVH entry point";
    let cmdline = terminated_cmdline(config, hardware, image.name(), MAX_CMDLINE)?;
    elf.check_executable(image, WHAT, entry)?;
    if entry >= layout::HOLE_END {
        return Err(image.bad(BadImage::EntryOver4GiB { what: WHAT, entry }));
    }
    let mut loader = Loader::new(image, ram);
    loader.claim_pc();
    loader.claim_segments(elf)?;
    loader.place_segments(elf)?;
    let mut modules = loader.place_modules_high(config)?;
    loader.add_device_tree(job, &cmdline, &mut modules)?;
    let rsdp = loader.write_acpi(config, hardware)?;
    let start_info = write_start_info(&mut loader, rsdp, &modules, &cmdline)?;
    Ok(Loaded {
        protocol: Protocol::Pvh,
        registers: Registers {
            rip: entry,
            rbx: start_info,
            ..Registers::default()
        },
        system: protected_mode(),
        msrs: Vec::new(),
        boot_info: Some(start_info),
        pvclock: None,
        generation_id: hardware.generation_id(),
        cpuid: true,
        hypercalls: Hypercalls::None,
        areas: loader.areas.into_used(),
        copied: loader.copied,
    })
}

/// One block: the structure, the list of modules, the memory map, the command line, the modules' arguments.
fn write_start_info(
    loader: &mut Loader<'_>,
    rsdp: u64,
    modules: &[Placed<'_>],
    cmdline: &[u8],
) -> Result<u64, BootError> {
    // Claiming the block does not change the map: to the guest it is RAM.
    let map = loader.e820();
    let count = modules.len() as u64;
    let map_offset = START_INFO_SIZE + MODULE_SIZE * count;
    let cmdline_offset = map_offset + MEMORY_MAP_ENTRY_SIZE * map.len() as u64;
    let mut strings = cmdline.to_vec();
    // Where each module's arguments are, in the strings.
    let arguments: Vec<_> = modules
        .iter()
        .map(|module| match module.arguments {
            "" => None,
            arguments => {
                let offset = strings.len() as u64;
                strings.extend(arguments.bytes().chain([0]));
                Some(offset)
            }
        })
        .collect();
    let len = cmdline_offset + strings.len() as u64;
    let what = "the PVH start information";
    let base = loader
        .areas
        .lowest(AreaKind::BootInfo, what, len, LOW_END)?;

    let mut words = vec![
        u64::from(MAGIC) | u64::from(VERSION) << 32,
        count << 32,
        if count == 0 {
            0
        } else {
            base + START_INFO_SIZE
        },
        base + cmdline_offset,
        rsdp,
        base + map_offset,
        map.len() as u64,
    ];
    for (module, arguments) in modules.iter().zip(arguments) {
        let arguments = arguments.map_or(0, |offset| base + cmdline_offset + offset);
        words.extend([module.start, module.len, arguments, 0]);
    }
    for (start, len, kind) in map {
        words.extend([start, len, u64::from(kind)]);
    }
    let mut bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    bytes.extend(strings);
    loader.write(what, base, &bytes)?;
    Ok(base)
}

const _: () = assert!(START_INFO_SIZE < PAGE_SIZE);
