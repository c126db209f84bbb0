//! The devices of QEMU's `pc-testdev` (QEMU, `hw/misc/pc-testdev.c`), by which test kernels examine a machine: ports and
//! memory that keep what is written, and the interrupt lines of ISA devices.

use goldcrest_bus::{Device, Effect, Range};
use goldcrest_irq::IrqLine;

/// The first port of the latch.
pub const LATCH_PORT: u16 = 0xe0;
/// How many ports the latch takes: four of it, four to flush pages by, four of it once more.
pub const LATCH_LEN: u16 = 12;
/// Its place on the port bus.
pub const LATCH_RANGE: Range = Range::ports(LATCH_PORT, LATCH_LEN);

/// The port of interrupt line 0; the others follow.
pub const LINES_PORT: u16 = 0x2000;
/// How many interrupt lines.
pub const LINES: u16 = 24;
/// Their place on the port bus.
pub const LINES_RANGE: Range = Range::ports(LINES_PORT, LINES);

/// The guest-physical address of the memory.
pub const MEMORY_ADDRESS: u64 = 0xff00_0000;
/// Bytes of the memory.
pub const MEMORY_LEN: u64 = 0x1_0000;

/// Offsets of the ports among [`LATCH_RANGE`].
const FLUSH: u64 = 4;
const BYTES: u64 = 8;

/// Four ports that keep what is written, at 0xe0 and once more at 0xe8.
///
/// The four ports between, by which a guest has the host forget how it maps a page, take writes and do nothing: what
/// they are to provoke, a fault on the host's side, happens here in any case.
#[derive(Debug, Clone, Copy, Default)]
pub struct Latch([u8; 4]);

impl Latch {
    /// The place of a byte, if there is one.
    fn byte(&mut self, offset: u64) -> Option<&mut u8> {
        let index = match offset {
            FLUSH..BYTES => return None,
            _ => usize::try_from(offset % 4).ok()?,
        };
        self.0.get_mut(index)
    }
}

impl Device for Latch {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        for (at, byte) in (offset..).zip(data) {
            *byte = self.byte(at).map_or(0, |byte| *byte);
        }
    }

    fn write(&mut self, offset: u64, data: &[u8]) -> Effect {
        for (at, value) in (offset..).zip(data) {
            if let Some(byte) = self.byte(at) {
                *byte = *value;
            }
        }
        Effect::None
    }
}

/// The interrupt lines: a port for each, that raises its line by anything but 0 and lowers it by 0. Reads give 0.
pub struct Lines(Vec<IrqLine>);

impl Lines {
    /// With these lines, in the order of their ports.
    pub fn new(lines: impl IntoIterator<Item = IrqLine>) -> Self {
        Self(lines.into_iter().take(LINES.into()).collect())
    }
}

impl Device for Lines {
    fn read(&mut self, _offset: u64, data: &mut [u8]) {
        data.fill(0);
    }

    fn write(&mut self, offset: u64, data: &[u8]) -> Effect {
        let line = usize::try_from(offset).ok().and_then(|at| self.0.get(at));
        if let (Some(line), [value]) = (line, data) {
            line.set(*value != 0);
        }
        Effect::None
    }
}

/// Memory that is not RAM: each access leaves the guest.
#[derive(Debug, Clone)]
pub struct Memory(Vec<u8>);

impl Default for Memory {
    /// Zeroes.
    fn default() -> Self {
        Self(vec![0; usize::try_from(MEMORY_LEN).unwrap_or(0)])
    }
}

impl Memory {
    fn bytes(&mut self, offset: u64) -> &mut [u8] {
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        self.0.get_mut(start..).unwrap_or_default()
    }
}

impl Device for Memory {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        data.fill(0);
        let bytes = self.bytes(offset).iter();
        data.iter_mut()
            .zip(bytes)
            .for_each(|(to, from)| *to = *from);
    }

    fn write(&mut self, offset: u64, data: &[u8]) -> Effect {
        let bytes = self.bytes(offset).iter_mut();
        bytes.zip(data).for_each(|(to, from)| *to = *from);
        Effect::None
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use goldcrest_irq::LineSink;
    use proptest::prelude::*;

    use super::*;

    fn read<const N: usize>(device: &mut impl Device, offset: u64) -> [u8; N] {
        let mut data = [0xff; N];
        device.read(offset, &mut data);
        data
    }

    #[test]
    fn the_latch_keeps_what_is_written_by_any_width_at_either_place() {
        let mut latch = Latch::default();
        let _ = latch.write(0, &[1, 2, 3, 4]);
        assert_eq!(read(&mut latch, BYTES), [1, 2, 3, 4]);
        let _ = latch.write(BYTES + 1, &[9]);
        assert_eq!(read(&mut latch, 0), [1, 9, 3, 4]);
        let _ = latch.write(2, &[7, 8]);
        assert_eq!(read(&mut latch, 2), [7, 8]);
        let _ = latch.write(FLUSH, &[0xff; 4]);
        assert_eq!(read(&mut latch, FLUSH), [0; 4]);
        assert_eq!(read(&mut latch, 0), [1, 9, 7, 8]);
    }

    #[test]
    fn each_port_sets_its_line() {
        struct Seen(std::sync::Mutex<Vec<(u32, bool)>>);
        impl LineSink for Seen {
            fn set_source(&self, line: u32, up: bool) {
                self.0.lock().unwrap().push((line, up));
            }
        }
        let seen = Arc::new(Seen(std::sync::Mutex::default()));
        let mut lines = Lines::new((0..40).map(|line| IrqLine::new(seen.clone(), line)));
        for (offset, data) in [
            (3, &[1][..]),
            (3, &[0]),
            (23, &[0x80]),
            (24, &[1]),
            (4, &[1, 1]),
        ] {
            assert!(matches!(lines.write(offset, data), Effect::None));
        }
        assert_eq!(*seen.0.lock().unwrap(), [(3, true), (3, false), (23, true)]);
        assert_eq!(read(&mut lines, 3), [0]);
    }

    proptest! {
        #[test]
        fn memory_keeps_what_is_written(offset in 0..MEMORY_LEN + 16, value: u64, len in 0usize..=8) {
            let mut memory = Memory::default();
            let bytes = value.to_le_bytes();
            let _ = memory.write(offset, &bytes[..len]);
            let inside = usize::try_from(MEMORY_LEN.saturating_sub(offset)).unwrap().min(len);
            let mut expected = [0; 8];
            expected[..inside].copy_from_slice(&bytes[..inside]);
            prop_assert_eq!(read(&mut memory, offset), expected);
        }
    }
}
