//! Direct entry: 64-bit mode from the first instruction, on tables that the host made (crate `goldcrest-abi`).
//!
//! Guest memory, from low to high, where the image leaves room: page 0 (unmapped), the guard page (unmapped), the stack,
//! then one contiguous block that is written at once: boot information with memory map, command line and device tree, GDT
//! and TSS, IDT, page tables. Every page the host writes costs a page fault, so there are few.

use std::ops::Range;

use goldcrest_abi::note::{self, DirectEntry, TRAP_STUB_SIZE};
use goldcrest_abi::selector;
use goldcrest_memory::{GuestRam, PAGE_SIZE};
use goldcrest_x86::{DescriptorTable, Registers, Segment, SystemRegisters, cr0, cr4, efer, rflags};

use crate::areas::{AreaKind, whole_pages};
use crate::boot_info::InfoBlock;
use crate::candidate::{Bootable, Candidate, Job, Probed};
use crate::elf::Elf;
use crate::load::{Hypercalls, Loader};
use crate::note::Found;
use crate::{
    BadImage, BootConfig, BootError, Hardware, Image, Loaded, Protocol, descriptors, mapping,
};

/// Bytes of stack when the image leaves it to the host.
pub const DEFAULT_STACK_SIZE: u64 = 256 * 1024;

/// Tables that one more area with other permissions can need: at each end one to split a page of 1 GiB and one of 2 MiB.
const TABLES_PER_AREA: u64 = 4;

/// Where the TSS begins in the page of the GDT.
const TSS_OFFSET: u64 = 0x40;
const _: () = assert!(selector::GDT_SIZE <= 0x40 && descriptors::TSS_SIZE < 0xfc0);

const MSR_STAR: u32 = 0xc000_0081;
const MSR_LSTAR: u32 = 0xc000_0082;
const MSR_FMASK: u32 = 0xc000_0084;
/// TF, IF, DF and AC of RFLAGS.
const SYSCALL_MASK: u64 = 1 << 8 | 1 << 9 | 1 << 10 | 1 << 18;

/// An ELF with Goldcrest's note.
struct Direct<'c> {
    elf: &'c Elf,
    note: Found<DirectEntry>,
}

/// Looks for Goldcrest's note.
pub(crate) fn probe<'c>(candidate: &'c Candidate<'_>) -> Probed<'c> {
    let elf = candidate.elf()?;
    let Some(note) = elf.notes.direct else {
        return Err("no note named Goldcrest of type 1".into());
    };
    elf.check_fixed_64()?;
    Ok(Box::new(Direct { elf, note }))
}

impl Bootable for Direct<'_> {
    fn protocol(&self) -> Protocol {
        Protocol::Direct
    }

    fn entry(&self) -> u64 {
        self.note.value.entry
    }

    fn because(&self) -> String {
        format!("a note named Goldcrest of type 1 at {:#x}", self.note.at)
    }

    fn passes(&self) -> Vec<String> {
        let DirectEntry { ring, .. } = self.note.value;
        vec![
            format!("64-bit mode in ring {ring} on the host's page and descriptor tables, rdi = BootInfo"),
            "in it: command line, memory map, initial RAM disk, clocks, a device tree of virtio devices".into(),
        ]
    }

    fn load(&self, job: &Job<'_>) -> Result<Loaded, BootError> {
        load(
            job.image,
            self.elf,
            &self.note.value,
            job.ram,
            job.config,
            job.hardware,
        )
    }
}

fn load(
    image: &Image,
    elf: &Elf,
    note: &DirectEntry,
    ram: &GuestRam,
    config: &BootConfig<'_>,
    hardware: &Hardware<'_>,
) -> Result<Loaded, BootError> {
    check_note(image, elf, note, ram)?;
    check_segments(elf).map_err(|problem| image.bad(problem))?;
    let mut loader = Loader::new(image, ram);
    loader
        .areas
        .claim(AreaKind::Guard, 0..PAGE_SIZE, image.name(), &"page 0")?;
    // What does not fit is said of the segments first: the trap stack lies in one.
    loader.claim_segments(elf)?;
    check_trap_stack(note, ram).map_err(|problem| image.bad(problem))?;
    loader.place_segments(elf)?;
    let initrd = loader.place_initrd(config.initrd, u64::MAX)?;
    let stack_top = claim_stack(&mut loader, note)?;

    let pvclock = config.pvclock && note.flags & note::FLAG_PVCLOCK != 0;
    let info = InfoBlock::new(image, &loader.areas, config, hardware, initrd, pvclock)?;
    let block = Block::claim(&mut loader, elf, note, &info, config, hardware)?;
    loader.write(
        "the boot information",
        block.start,
        &block.bytes(&loader, elf, note, &info, config, hardware),
    )?;
    Ok(Loaded {
        protocol: Protocol::Direct,
        registers: registers(note, block.start, stack_top),
        system: system_registers(note, &block),
        msrs: msrs(note),
        boot_info: Some(block.start),
        pvclock: pvclock.then(|| info.pvclock(block.start)),
        generation_id: Some(InfoBlock::generation_id(block.start)),
        cpuid: note.flags & note::FLAG_CPUID != 0,
        hypercalls: Hypercalls::None,
        areas: loader.areas.into_used(),
        copied: loader.copied,
    })
}

fn check_note(
    image: &Image,
    elf: &Elf,
    note: &DirectEntry,
    ram: &GuestRam,
) -> Result<(), BootError> {
    check_fields(note, ram).map_err(|problem| image.bad(problem))?;
    elf.check_executable(image, "the entry point", note.entry)?;
    if note.syscall_entry != 0 {
        elf.check_executable(image, "the syscall entry", note.syscall_entry)?;
    }
    if note.trap_vectors != 0 {
        elf.check_executable(image, "the first trap vector", note.trap_vectors)?;
        let last = note.trap_vectors.saturating_add(255 * TRAP_STUB_SIZE);
        elf.check_executable(image, "the last trap vector", last)?;
    }
    Ok(())
}

fn check_fields(note: &DirectEntry, ram: &GuestRam) -> Result<(), BadImage> {
    if note.version != note::VERSION {
        return Err(BadImage::DirectVersion {
            found: note.version,
            expected: note::VERSION,
        });
    }
    if !matches!(note.ring, 0 | 3) {
        return Err(BadImage::DirectRing { found: note.ring });
    }
    if note.flags & !note::KNOWN_FLAGS != 0 {
        return Err(BadImage::DirectFlags {
            found: note.flags,
            known: note::KNOWN_FLAGS,
        });
    }
    if note.reserved != 0 {
        return Err(BadImage::DirectReserved {
            found: note.reserved,
        });
    }
    if note.stack_size >= ram.size() {
        return Err(BadImage::StackSize {
            wanted: note.stack_size,
            ram: ram.size(),
        });
    }
    Ok(())
}

fn check_trap_stack(note: &DirectEntry, ram: &GuestRam) -> Result<(), BadImage> {
    let top = note.trap_stack;
    let in_ram = |region: goldcrest_memory::Region| {
        top > region.start.max(PAGE_SIZE) && top - region.start <= region.len
    };
    let usable = top.is_multiple_of(16) && ram.regions().any(in_ram);
    let unused = top == 0 && note.trap_vectors == 0;
    if usable || unused {
        Ok(())
    } else {
        Err(BadImage::TrapStack { found: top })
    }
}

/// Segments lie where they are linked, none can be both written and executed, and no two share a page but with the same
/// permissions.
pub(crate) fn check_segments(elf: &Elf) -> Result<(), BadImage> {
    for segment in &elf.segments {
        if segment.write && segment.execute {
            return Err(BadImage::WriteAndExecute {
                segment: segment.index,
            });
        }
        if segment.virtual_address != segment.physical_address {
            return Err(BadImage::NotIdentity {
                segment: segment.index,
                virtual_address: segment.virtual_address,
                physical_address: segment.physical_address,
            });
        }
    }
    for pair in elf.segments.windows(2) {
        if let [below, above] = pair
            && (below.write, below.execute) != (above.write, above.execute)
            && whole_pages(&below.range()).end > whole_pages(&above.range()).start
        {
            return Err(BadImage::SharedPage {
                first: below.index,
                second: above.index,
                page: whole_pages(&above.range()).start,
            });
        }
    }
    Ok(())
}

/// Finds room for the stack with a guard page below; gives its top.
fn claim_stack(loader: &mut Loader<'_>, note: &DirectEntry) -> Result<u64, BootError> {
    let size = match note.stack_size {
        0 => DEFAULT_STACK_SIZE,
        size => size,
    };
    let with_guard = size.saturating_add(PAGE_SIZE);
    let areas = &mut loader.areas;
    let Range { start, end } = areas.find_lowest("the stack", with_guard, u64::MAX)?;
    areas.insert(AreaKind::Guard, start..start + PAGE_SIZE);
    areas.insert(AreaKind::Stack, start + PAGE_SIZE..end);
    Ok(end)
}

/// The host's contiguous block: boot information, GDT with TSS, IDT, page tables.
struct Block {
    /// Boot information.
    start: u64,
    gdt: u64,
    tss: u64,
    /// 0: none.
    idt: u64,
    page_tables: u64,
    end: u64,
}

impl Block {
    fn claim(
        loader: &mut Loader<'_>,
        elf: &Elf,
        note: &DirectEntry,
        info: &InfoBlock<'_>,
        config: &BootConfig<'_>,
        hardware: &Hardware<'_>,
    ) -> Result<Self, BootError> {
        let draft = mapping::page_tables(&loader.areas, elf, note.ring, 0, config, hardware);
        let tables = draft.len().saturating_add(TABLES_PER_AREA);
        let idt_len = if note.trap_vectors == 0 { 0 } else { PAGE_SIZE };
        let (info_len, gdt_len) = (info.len(), PAGE_SIZE);
        let len = info_len + gdt_len + idt_len + tables * PAGE_SIZE;
        let areas = &mut loader.areas;
        let Range { start, end } = areas.find_lowest("the page tables", len, u64::MAX)?;
        let gdt = start + info_len;
        areas.insert(AreaKind::BootInfo, start..gdt);
        areas.insert(AreaKind::Tables, gdt..end);
        Ok(Self {
            start,
            gdt,
            tss: gdt + TSS_OFFSET,
            idt: if idt_len == 0 { 0 } else { gdt + gdt_len },
            page_tables: gdt + gdt_len + idt_len,
            end,
        })
    }

    /// The content, up to the last page table.
    fn bytes(
        &self,
        loader: &Loader<'_>,
        elf: &Elf,
        note: &DirectEntry,
        info: &InfoBlock<'_>,
        config: &BootConfig<'_>,
        hardware: &Hardware<'_>,
    ) -> Vec<u8> {
        let len = usize::try_from(self.end - self.start).unwrap_or(0);
        let mut bytes = Vec::with_capacity(len);
        let mut at = |address: u64, content: &[u8]| {
            let offset = usize::try_from(address - self.start).unwrap_or(0);
            bytes.resize(offset, 0);
            bytes.extend_from_slice(content);
        };
        at(self.start, &info.bytes(self.start, &loader.areas));
        at(self.gdt, &descriptors::gdt(self.tss));
        at(self.tss, &descriptors::tss(note.trap_stack));
        if self.idt != 0 {
            at(self.idt, &descriptors::idt(note.trap_vectors));
        }
        let base = self.page_tables;
        let tables = mapping::page_tables(&loader.areas, elf, note.ring, base, config, hardware);
        at(base, tables.bytes());
        bytes
    }
}

fn registers(note: &DirectEntry, boot_info: u64, stack_top: u64) -> Registers {
    let io_privilege = if note.ring == 3 { rflags::IOPL_3 } else { 0 };
    Registers {
        rip: note.entry,
        rdi: boot_info,
        rsp: stack_top - 8,
        rflags: rflags::RESERVED_1 | io_privilege,
        ..Registers::default()
    }
}

fn system_registers(note: &DirectEntry, block: &Block) -> SystemRegisters {
    let (code, data) = match note.ring {
        0 => (
            Segment::code64(selector::KERNEL_CODE, 0),
            Segment::data(selector::KERNEL_DATA, 0),
        ),
        _ => (
            Segment::code64(selector::USER_CODE, 3),
            Segment::data(selector::USER_DATA, 3),
        ),
    };
    let (idt_base, idt_limit) = match block.idt {
        0 => (0, 0),
        idt => (idt, descriptors::IDT_LIMIT),
    };
    let syscall = if note.syscall_entry == 0 {
        0
    } else {
        efer::SCE
    };
    SystemRegisters {
        cs: code,
        ds: data,
        es: data,
        fs: data,
        gs: data,
        ss: data,
        tr: descriptors::tss_segment(block.tss),
        ldt: Segment::unusable(),
        gdt: DescriptorTable {
            base: block.gdt,
            limit: descriptors::GDT_LIMIT,
        },
        idt: DescriptorTable {
            base: idt_base,
            limit: idt_limit,
        },
        cr0: cr0::PE | cr0::MP | cr0::ET | cr0::NE | cr0::WP | cr0::PG,
        cr3: block.page_tables,
        cr4: cr4::PAE | cr4::OSFXSR | cr4::OSXMMEXCPT,
        efer: efer::LME | efer::LMA | efer::NXE | syscall,
        ..SystemRegisters::default()
    }
}

/// What `syscall` needs (SDM vol. 3A §5.8.8). The base for `sysret` is the slot before [`selector::USER_DATA`].
fn msrs(note: &DirectEntry) -> Vec<(u32, u64)> {
    if note.syscall_entry == 0 {
        return Vec::new();
    }
    let sysret_base = u64::from(selector::USER_DATA) - 8;
    let star = sysret_base << 48 | u64::from(selector::KERNEL_CODE) << 32;
    vec![
        (MSR_STAR, star),
        (MSR_LSTAR, note.syscall_entry),
        (MSR_FMASK, SYSCALL_MASK),
    ]
}
