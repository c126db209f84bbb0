//! `boot_params`, the "zero page" (`arch/x86/include/uapi/asm/bootparam.h`).

use super::Header;
use super::header::START;

/// Offsets of the fields.
mod offset {
    pub(super) const ACPI_RSDP_ADDR: usize = 0x070;
    pub(super) const EXT_RAMDISK_IMAGE: usize = 0x0c0;
    pub(super) const EXT_RAMDISK_SIZE: usize = 0x0c4;
    pub(super) const EXT_CMD_LINE_PTR: usize = 0x0c8;
    pub(super) const E820_ENTRIES: usize = 0x1e8;
    pub(super) const TYPE_OF_LOADER: usize = 0x210;
    pub(super) const CODE32_START: usize = 0x214;
    pub(super) const RAMDISK_IMAGE: usize = 0x218;
    pub(super) const RAMDISK_SIZE: usize = 0x21c;
    pub(super) const CMD_LINE_PTR: usize = 0x228;
    pub(super) const E820_TABLE: usize = 0x2d0;
}

/// Bytes of the structure.
const SIZE: usize = 4096;
/// A loader without an assigned number.
const LOADER_UNDEFINED: u8 = 0xff;
/// Bytes of an entry of the memory map, and how many fit.
const E820_ENTRY: usize = 20;
const MAX_E820_ENTRIES: usize = 128;

/// A range of the memory map.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryRange {
    /// The first address.
    pub start: u64,
    /// Bytes.
    pub len: u64,
    /// What it is, by the numbers that e820 and PVH share: 1 is RAM, 2 reserved, 3 ACPI tables.
    pub kind: u32,
}

/// What the kernel is told of. Addresses are guest-physical.
#[derive(Debug, Clone, Copy)]
pub struct Handover<'a> {
    /// Where the kernel was loaded.
    pub kernel: u64,
    /// Where the command line is, with its terminating zero.
    pub cmdline: u64,
    /// Where the initial RAM disk is, and its bytes.
    pub initrd: (u64, u64),
    /// Where ACPI's root pointer is.
    pub rsdp: u64,
    /// The memory map; what does not fit is left out.
    pub memory_map: &'a [MemoryRange],
}

/// `boot_params`.
#[derive(Debug, Clone)]
pub struct BootParams([u8; SIZE]);

impl BootParams {
    /// What a kernel with this header is told.
    pub fn new(header: &Header, handover: &Handover<'_>) -> Self {
        let mut params = Self([0; SIZE]);
        params.set(START, &header.bytes);
        params.set(offset::TYPE_OF_LOADER, &[LOADER_UNDEFINED]);
        params.set(offset::CODE32_START, &low(handover.kernel));
        params.set(offset::CMD_LINE_PTR, &low(handover.cmdline));
        params.set(offset::EXT_CMD_LINE_PTR, &low(handover.cmdline >> 32));
        let (initrd, initrd_size) = handover.initrd;
        params.set(offset::RAMDISK_IMAGE, &low(initrd));
        params.set(offset::EXT_RAMDISK_IMAGE, &low(initrd >> 32));
        params.set(offset::RAMDISK_SIZE, &low(initrd_size));
        params.set(offset::EXT_RAMDISK_SIZE, &low(initrd_size >> 32));
        params.set(offset::ACPI_RSDP_ADDR, &handover.rsdp.to_le_bytes());
        let ranges = handover.memory_map.iter().take(MAX_E820_ENTRIES);
        let mut count = 0;
        for (range, at) in ranges.zip((offset::E820_TABLE..).step_by(E820_ENTRY)) {
            params.set(at, &range.start.to_le_bytes());
            params.set(at + 8, &range.len.to_le_bytes());
            params.set(at + 16, &range.kind.to_le_bytes());
            count += 1;
        }
        params.set(offset::E820_ENTRIES, &[count]);
        params
    }

    /// Its bytes.
    pub fn as_bytes(&self) -> &[u8; SIZE] {
        &self.0
    }

    fn set(&mut self, at: usize, bytes: &[u8]) {
        let fields = self.0.iter_mut().skip(at).zip(bytes);
        fields.for_each(|(field, byte)| *field = *byte);
    }
}

fn low(value: u64) -> [u8; 4] {
    let [a, b, c, d, ..] = value.to_le_bytes();
    [a, b, c, d]
}
