//! QEMU's `isa-debug-exit` (QEMU `hw/misc/debugexit.c`): a write ends the machine.

use goldcrest_bus::{Device, Effect, Range};

/// The first port, where test suites and unikernels put it by convention.
pub const PORT: u16 = 0xf4;
/// How many ports.
pub const LEN: u16 = 4;
/// Its place on the port bus.
pub const RANGE: Range = Range::ports(PORT, LEN);

/// The device: a write of `v`, 8, 16 or 32 bits wide, ends the machine with status `(v << 1) | 1`, as under QEMU.
///
/// The status is never 0, so guests have conventions of their own (often 33 for success). A status that 32 bits cannot
/// hold is `u32::MAX`. Reads give 0. There is no state to save.
#[derive(Debug, Clone, Copy, Default)]
pub struct DebugExit;

impl Device for DebugExit {
    fn read(&mut self, _offset: u64, data: &mut [u8]) {
        data.fill(0);
    }

    fn write(&mut self, _offset: u64, data: &[u8]) -> Effect {
        let value = match *data {
            [a] => u32::from(a),
            [a, b] => u32::from(u16::from_le_bytes([a, b])),
            [a, b, c, d] => u32::from_le_bytes([a, b, c, d]),
            _ => return Effect::None,
        };
        Effect::Exit(value.saturating_mul(2) | 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(data: &[u8]) -> Option<u32> {
        match DebugExit.write(0, data) {
            Effect::Exit(status) => Some(status),
            _ => None,
        }
    }

    #[test]
    fn the_status_is_that_of_qemu() {
        assert_eq!(status(&[0x10]), Some(33));
        assert_eq!(status(&[0x00, 0x01]), Some(0x201));
        assert_eq!(status(&0x10_u32.to_le_bytes()), Some(33));
        assert_eq!(status(&0x7fff_ffff_u32.to_le_bytes()), Some(u32::MAX));
        assert_eq!(status(&0x8000_0000_u32.to_le_bytes()), Some(u32::MAX));
    }

    #[test]
    fn other_widths_do_nothing_and_reads_are_zero() {
        for len in [0, 3, 5, 8] {
            assert_eq!(status(&[0xff; 8][..len]), None);
        }
        let mut data = [0xff; 4];
        DebugExit.read(0, &mut data);
        assert_eq!(data, [0; 4]);
    }
}
