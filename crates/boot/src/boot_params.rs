//! Linux's `boot_params`, the "zero page" (`arch/x86/include/uapi/asm/bootparam.h`).

use crate::setup_header;

/// Offsets of the fields.
mod offset {
    pub(super) const ACPI_RSDP_ADDR: usize = 0x070;
    pub(super) const EXT_RAMDISK_IMAGE: usize = 0x0c0;
    pub(super) const EXT_RAMDISK_SIZE: usize = 0x0c4;
    pub(super) const EXT_CMD_LINE_PTR: usize = 0x0c8;
    pub(super) const E820_ENTRIES: usize = 0x1e8;
    pub(super) const BOOT_FLAG: usize = 0x1fe;
    pub(super) const HEADER: usize = 0x202;
    pub(super) const VERSION: usize = 0x206;
    pub(super) const TYPE_OF_LOADER: usize = 0x210;
    pub(super) const LOADFLAGS: usize = 0x211;
    pub(super) const CODE32_START: usize = 0x214;
    pub(super) const RAMDISK_IMAGE: usize = 0x218;
    pub(super) const RAMDISK_SIZE: usize = 0x21c;
    pub(super) const CMD_LINE_PTR: usize = 0x228;
    pub(super) const CMDLINE_SIZE: usize = 0x238;
    pub(super) const SETUP_DATA: usize = 0x250;
    pub(super) const E820_TABLE: usize = 0x2d0;
}

const SIZE: usize = 4096;
/// A loader without an assigned number.
const LOADER_UNDEFINED: u8 = 0xff;
const LOADED_HIGH: u8 = 1;
/// The version of the protocol that a vmlinux, which has no header, is told.
const VERSION: u16 = 0x020f;

pub(crate) struct BootParams(Vec<u8>);

impl BootParams {
    /// With the header of a bzImage whose kernel is loaded at `kernel`.
    pub(crate) fn with_header(header: &[u8], kernel: u64) -> Self {
        let mut params = Self(vec![0; SIZE]);
        params.set(setup_header::START, header);
        params.set(offset::TYPE_OF_LOADER, &[LOADER_UNDEFINED]);
        params.set(offset::CODE32_START, &low(kernel));
        params
    }

    /// With the fields that a kernel without a header of its own looks at.
    pub(crate) fn without_header() -> Self {
        let mut params = Self(vec![0; SIZE]);
        params.set(offset::BOOT_FLAG, &[0x55, 0xaa]);
        params.set(offset::HEADER, &setup_header::MAGIC);
        params.set(offset::VERSION, &VERSION.to_le_bytes());
        params.set(offset::TYPE_OF_LOADER, &[LOADER_UNDEFINED]);
        params.set(offset::LOADFLAGS, &[LOADED_HIGH]);
        params
    }

    /// Guest-physical address and length, without the terminating zero.
    pub(crate) fn set_cmdline(&mut self, at: u64, len: u64) {
        self.set(offset::CMD_LINE_PTR, &low(at));
        self.set(offset::EXT_CMD_LINE_PTR, &low(at >> 32));
        self.set(offset::CMDLINE_SIZE, &low(len));
    }

    /// Guest-physical address and length.
    pub(crate) fn set_initrd(&mut self, (at, len): (u64, u64)) {
        self.set(offset::RAMDISK_IMAGE, &low(at));
        self.set(offset::EXT_RAMDISK_IMAGE, &low(at >> 32));
        self.set(offset::RAMDISK_SIZE, &low(len));
        self.set(offset::EXT_RAMDISK_SIZE, &low(len >> 32));
    }

    pub(crate) fn set_rsdp(&mut self, at: u64) {
        self.set(offset::ACPI_RSDP_ADDR, &at.to_le_bytes());
    }

    /// Guest-physical address of the first `setup_data`.
    pub(crate) fn set_setup_data(&mut self, at: u64) {
        self.set(offset::SETUP_DATA, &at.to_le_bytes());
    }

    /// Start, length and type of each range. There are far fewer than the 128 that fit.
    pub(crate) fn set_memory_map(&mut self, map: &[(u64, u64, u32)]) {
        for ((start, len, kind), at) in map.iter().zip((offset::E820_TABLE..).step_by(20)) {
            self.set(at, &start.to_le_bytes());
            self.set(at + 8, &len.to_le_bytes());
            self.set(at + 16, &kind.to_le_bytes());
        }
        let count = u8::try_from(map.len()).unwrap_or(u8::MAX);
        self.set(offset::E820_ENTRIES, &[count]);
    }

    pub(crate) fn into_bytes(self) -> Vec<u8> {
        self.0
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

#[cfg(test)]
mod tests {
    use std::mem::offset_of;

    use linux_loader::bootparam::{boot_params, setup_header};

    use super::*;

    #[test]
    fn offsets_are_those_of_the_kernels_header() {
        let in_header = |field: usize| offset_of!(boot_params, hdr) + field;
        let pairs = [
            (
                offset::ACPI_RSDP_ADDR,
                offset_of!(boot_params, acpi_rsdp_addr),
            ),
            (
                offset::EXT_RAMDISK_IMAGE,
                offset_of!(boot_params, ext_ramdisk_image),
            ),
            (
                offset::EXT_RAMDISK_SIZE,
                offset_of!(boot_params, ext_ramdisk_size),
            ),
            (
                offset::EXT_CMD_LINE_PTR,
                offset_of!(boot_params, ext_cmd_line_ptr),
            ),
            (offset::E820_ENTRIES, offset_of!(boot_params, e820_entries)),
            (offset::E820_TABLE, offset_of!(boot_params, e820_table)),
            (crate::setup_header::START, in_header(0)),
            (
                offset::BOOT_FLAG,
                in_header(offset_of!(setup_header, boot_flag)),
            ),
            (offset::HEADER, in_header(offset_of!(setup_header, header))),
            (
                offset::VERSION,
                in_header(offset_of!(setup_header, version)),
            ),
            (
                offset::TYPE_OF_LOADER,
                in_header(offset_of!(setup_header, type_of_loader)),
            ),
            (
                offset::LOADFLAGS,
                in_header(offset_of!(setup_header, loadflags)),
            ),
            (
                offset::CODE32_START,
                in_header(offset_of!(setup_header, code32_start)),
            ),
            (
                offset::RAMDISK_IMAGE,
                in_header(offset_of!(setup_header, ramdisk_image)),
            ),
            (
                offset::RAMDISK_SIZE,
                in_header(offset_of!(setup_header, ramdisk_size)),
            ),
            (
                offset::CMD_LINE_PTR,
                in_header(offset_of!(setup_header, cmd_line_ptr)),
            ),
            (
                offset::CMDLINE_SIZE,
                in_header(offset_of!(setup_header, cmdline_size)),
            ),
            (
                offset::SETUP_DATA,
                in_header(offset_of!(setup_header, setup_data)),
            ),
        ];
        for (ours, theirs) in pairs {
            assert_eq!(ours, theirs);
        }
        assert_eq!(SIZE, size_of::<boot_params>());
    }
}
