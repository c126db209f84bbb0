//! `hvm_start_info`: what a PVH host tells (Xen `public/arch-x86/hvm/start_info.h`).
#![allow(unsafe_code, reason = "the structures are found by address")]

use core::slice;

use goldcrest_abi::boot_info::MemoryRegion;

use super::free::Range;
use super::stub;

/// `XEN_HVM_START_MAGIC_VALUE`.
const MAGIC: u32 = 0x336e_c578;
/// The most bytes of command line that are looked at.
const COMMAND_LINE_MAX: usize = 64 * 1024;
/// The most entries of the memory map that are looked at.
const MEMORY_MAP_MAX: u32 = 128;

/// `hvm_start_info`, version 1.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
struct Raw {
    magic: u32,
    version: u32,
    flags: u32,
    module_count: u32,
    modules: u64,
    command_line: u64,
    rsdp: u64,
    memory_map: u64,
    memory_map_entries: u32,
    reserved: u32,
}

/// `hvm_modlist_entry`.
#[derive(Clone, Copy)]
#[repr(C)]
struct Module {
    address: u64,
    size: u64,
    command_line: u64,
    reserved: u64,
}

/// What was told. `hvm_memmap_table_entry` is laid out as [`MemoryRegion`] is, and calls RAM 1 too.
pub(super) struct StartInfo {
    address: u64,
    raw: Raw,
}

/// Reads the structure at `address`; `None` if none is there.
///
/// # Safety
///
/// All memory below 4 GiB is mapped, and if there is a start information at `address`, all that it refers to is there.
pub(super) unsafe fn read(address: u64) -> Option<StartInfo> {
    if address == 0 || !address.is_multiple_of(4) {
        return None;
    }
    // SAFETY: mapped, by contract. Fields beyond those of version 0 may be garbage, and are looked at in version 1
    // only.
    let raw: Raw = unsafe { stub::pointer::<Raw>(address).read_unaligned() };
    (raw.magic == MAGIC).then_some(StartInfo { address, raw })
}

impl StartInfo {
    pub(super) fn rsdp(&self) -> u64 {
        self.raw.rsdp
    }

    /// The memory map; empty if the host is too old to give one.
    pub(super) fn memory_map(&self) -> &[MemoryRegion] {
        let (address, count) = (self.raw.memory_map, self.raw.memory_map_entries);
        if self.raw.version == 0 || address == 0 || !address.is_multiple_of(8) {
            return &[];
        }
        // SAFETY: there, by the contract of `read`; aligned and not null, as just checked.
        unsafe { slice::from_raw_parts(stub::pointer(address), count.min(MEMORY_MAP_MAX) as usize) }
    }

    /// Address and bytes of the command line, without its terminator.
    pub(super) fn command_line(&self) -> (u64, u64) {
        let address = self.raw.command_line;
        if address == 0 {
            return (0, 0);
        }
        // SAFETY: a terminated string is there, by the contract of `read`.
        let terminator = |at: &usize| unsafe { stub::pointer::<u8>(address).add(*at).read() } == 0;
        let len = (0..COMMAND_LINE_MAX)
            .find(terminator)
            .unwrap_or(COMMAND_LINE_MAX);
        (address, len as u64)
    }

    /// The first module; empty if there is none.
    pub(super) fn initrd(&self) -> Range {
        if self.raw.module_count == 0 || self.raw.modules == 0 {
            return Range { start: 0, end: 0 };
        }
        // SAFETY: there, by the contract of `read`.
        let module = unsafe { stub::pointer::<Module>(self.raw.modules).read_unaligned() };
        Range {
            start: module.address,
            end: module.address.saturating_add(module.size),
        }
    }

    /// What must not be overwritten.
    pub(super) fn in_use(&self) -> [Range; 5] {
        let (command_line, len) = self.command_line();
        let range = |start: u64, len: u64| Range {
            start,
            end: start.saturating_add(len),
        };
        [
            range(self.address, size_of::<Raw>() as u64),
            range(command_line, len),
            range(self.raw.memory_map, size_of_val(self.memory_map()) as u64),
            range(
                self.raw.modules,
                u64::from(self.raw.module_count) * size_of::<Module>() as u64,
            ),
            self.initrd(),
        ]
    }
}

const _: () = assert!(size_of::<Raw>() == 56 && size_of::<Module>() == 32);
