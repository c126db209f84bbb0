//! The devices of a test machine: what is read is what was written there, and each port sets its own interrupt line.

use arbitrary::{Result, Unstructured};
use goldcrest_bus::{Device, Effect};
use goldcrest_chipset::test_device::{self, Latch, Lines, Memory};
use goldcrest_chipset::{FwCfg, fw_cfg};
use goldcrest_irq::IrqLine;

use crate::access::Access;

const RAM_SIZE: u64 = 0x1_2345_6000;
const CPUS: u16 = 5;

/// Runs the target.
pub fn run(data: &[u8]) {
    let _ = drive(&mut Unstructured::new(data));
}

fn drive(input: &mut Unstructured<'_>) -> Result<()> {
    let mut latch = Latch::default();
    let mut memory = Memory::default();
    let mut fw_cfg = FwCfg::new(RAM_SIZE, CPUS);
    let lines: Vec<_> = (0..test_device::LINES)
        .map(|_| IrqLine::detached())
        .collect();
    let mut ports = Lines::new(lines.iter().cloned());
    while !input.is_empty() {
        match input.arbitrary::<u8>()? & 3 {
            0 => keeps(
                &mut latch,
                Access::take(input, test_device::LATCH_LEN.into())?,
                |at| (4..8).contains(&at),
            ),
            1 => keeps(
                &mut memory,
                Access::take(input, test_device::MEMORY_LEN)?,
                |_| false,
            ),
            2 => {
                let access = Access::take(input, test_device::LINES.into())?;
                let before: Vec<_> = lines.iter().map(IrqLine::level).collect();
                assert!(matches!(access.apply(&mut ports).effect, Effect::None));
                let changed = lines.iter().zip(before);
                assert!(
                    changed
                        .filter(|(line, before)| line.level() != *before)
                        .count()
                        <= 1
                );
            }
            _ => {
                let access = Access::take(input, fw_cfg::LEN.into())?;
                assert!(matches!(access.apply(&mut fw_cfg).effect, Effect::None));
                check_fw_cfg(&mut fw_cfg);
            }
        }
    }
    Ok(())
}

/// What is written is read, but where `ignored` says otherwise.
fn keeps(device: &mut impl Device, access: Access, ignored: impl Fn(u64) -> bool) {
    assert!(matches!(access.apply(device).effect, Effect::None));
    let written: Vec<_> = access.written_at().collect();
    for (at, value) in written {
        let mut byte = [0xff];
        device.read(at, &mut byte);
        assert_eq!(byte, [if ignored(at) { 0 } else { value }]);
    }
}

/// Whatever was selected before, the number of CPUs can be read.
fn check_fw_cfg(device: &mut FwCfg) {
    let mut device = device.clone();
    let _ = device.write(0, &5u16.to_le_bytes());
    for expected in CPUS.to_le_bytes() {
        let mut byte = [0xff];
        device.read(1, &mut byte);
        assert_eq!(byte, [expected]);
    }
}
