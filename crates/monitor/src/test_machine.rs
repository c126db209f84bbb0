//! What a machine for test kernels has beside the usual devices.

use goldcrest_bus::{Bus, Range, shared};
use goldcrest_chipset::test_device::{self, Latch, Lines, Memory};
use goldcrest_chipset::{FwCfg, fw_cfg};
use goldcrest_irq::FanOut;

use crate::MonitorError;

/// Puts the devices on their buses; `isa` has the lines of ISA devices.
pub(crate) fn add_devices(
    cpus: u32,
    memory: u64,
    isa: &FanOut,
    ports: &mut Bus,
    bus: &mut Bus,
) -> Result<(), MonitorError> {
    let cpus = u16::try_from(cpus).unwrap_or(u16::MAX);
    let fw_cfg = FwCfg::new(memory, cpus);
    let lines = Lines::new((0..test_device::LINES.into()).map(|pin| isa.line(pin)));
    let latch = Latch::default();
    ports.add("fw-cfg", fw_cfg::RANGE, shared(fw_cfg))?;
    ports.add("test-latch", test_device::LATCH_RANGE, shared(latch))?;
    ports.add("test-lines", test_device::LINES_RANGE, shared(lines))?;
    let range = Range::new(test_device::MEMORY_ADDRESS, test_device::MEMORY_LEN)?;
    bus.add("test-memory", range, shared(Memory::default()))?;
    Ok(())
}
