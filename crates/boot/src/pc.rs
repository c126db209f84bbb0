//! What Linux and PVH kernels expect of a PC below 1 MiB, and the memory map in the terms of e820.

use std::ops::Range;

use goldcrest_abi::power;

use crate::acpi;
use crate::areas::AreaKind;
use crate::load::Loader;
use crate::memory_map::memory_map;
use crate::{BootConfig, BootError, Hardware};

/// Where ordinary memory ends and firmware's begins: the extended BIOS data area of a PC.
pub(crate) const LOW_END: u64 = 0x9_fc00;
/// ACPI tables are looked for here if nobody says where they are (ACPI §5.2.5.1).
pub(crate) const ACPI: Range<u64> = 0xe_0000..0x10_0000;

/// Where a processor begins after a reset (SDM vol. 3A §10.1.4), as real mode sees it.
///
/// Linux on hardware-reduced ACPI without EFI restarts a PC by going there. The code does what a firmware would.
pub(crate) const RESET_VECTOR: u64 = 0xf_fff0;
/// Where ACPI's generation identifier lies: 16 bytes below what a restart runs.
pub(crate) const GENERATION_ID: u64 = 0xf_ffc0;

/// `mov dx, RESET; mov al, RESET_VALUE; out dx, al; cli; hlt`.
const RESET_CODE: [u8; 8] = {
    let [low, high] = power::RESET.to_le_bytes();
    [0xba, low, high, 0xb0, power::RESET_VALUE, 0xee, 0xfa, 0xf4]
};

/// `E820_TYPE_RAM`, `XEN_HVM_MEMMAP_TYPE_RAM`.
const RAM: u32 = 1;
/// `E820_TYPE_RESERVED`, `XEN_HVM_MEMMAP_TYPE_RESERVED`.
const RESERVED: u32 = 2;

impl Loader<'_> {
    /// Claims what a PC has below 1 MiB: page 0, video memory and firmware, ACPI.
    pub(crate) fn claim_pc(&mut self) {
        self.areas.insert(AreaKind::Guard, 0..0x1000);
        self.claim_firmware();
    }

    /// Claims video memory and firmware, and ACPI.
    pub(crate) fn claim_firmware(&mut self) {
        self.areas.insert(AreaKind::Firmware, LOW_END..ACPI.start);
        self.areas.insert(AreaKind::Acpi, ACPI);
    }

    /// Writes the ACPI tables; gives the address of the root pointer.
    pub(crate) fn write_acpi(
        &self,
        config: &BootConfig<'_>,
        hardware: &Hardware<'_>,
    ) -> Result<u64, BootError> {
        // The limits are such that all tables fit below the generation identifier.
        let tables = acpi::tables(ACPI.start, config.cpus, hardware);
        self.write("the ACPI tables", ACPI.start, &tables)?;
        if let Some(at) = hardware.generation_id() {
            self.write("the generation identifier", at, &config.generation_id)?;
        }
        self.write("the reset vector", RESET_VECTOR, &RESET_CODE)?;
        Ok(ACPI.start)
    }

    /// Start, length and type of every range, as e820 and PVH have it.
    pub(crate) fn e820(&self) -> Vec<(u64, u64, u32)> {
        let map = memory_map(&self.areas, RAM, |area| {
            let kind = match area.kind {
                AreaKind::Acpi | AreaKind::Firmware => RESERVED,
                _ => RAM,
            };
            (area.range.clone(), kind)
        });
        let entry = |(range, kind): (Range<u64>, u32)| (range.start, range.end - range.start, kind);
        map.into_iter().map(entry).collect()
    }
}

/// The command line, with the devices that it is to announce and its terminating zero, if it has no other zero and is
/// not longer than `limit`.
pub(crate) fn terminated_cmdline(
    config: &BootConfig<'_>,
    hardware: &Hardware<'_>,
    image: &str,
    limit: u64,
) -> Result<Vec<u8>, BootError> {
    let cmdline = hardware.cmdline(config.cmdline);
    let bytes = cmdline.as_bytes();
    if bytes.len() as u64 > limit {
        return Err(BootError::CommandLineTooLong {
            image: image.to_owned(),
            len: bytes.len(),
            limit,
        });
    }
    if let Some(offset) = bytes.iter().position(|byte| *byte == 0) {
        return Err(BootError::CommandLineZero { offset });
    }
    Ok([bytes, &[0]].concat())
}
