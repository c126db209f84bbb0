//! The doorbells of [`goldcrest_abi::doorbell`]: how a guest speaks to the monitor itself.

use goldcrest_abi::doorbell::{BASE, CONSOLE, CONSOLE_MAX, ConsoleWrite, EXIT, IDENT, IDENT_VALUE};
use goldcrest_bus::{Device, Effect, Range};
use vm_memory::{Bytes, GuestAddress, GuestMemory};

use crate::Output;

/// The first port.
pub const PORT: u16 = BASE;
/// How many ports.
pub const LEN: u16 = goldcrest_abi::doorbell::LEN;
/// Its place on the port bus.
pub const RANGE: Range = Range::ports(PORT, LEN);

const IDENT_OFFSET: u64 = (IDENT - BASE) as u64;
const EXIT_OFFSET: u64 = (EXIT - BASE) as u64;
const CONSOLE_OFFSET: u64 = (CONSOLE - BASE) as u64;

/// The device. Only 32-bit accesses mean something: other reads give all ones, other writes nothing.
///
/// A console request is read once, copied once and written to the [`Output`] in one piece. One that does not lie in
/// guest RAM, or whose bytes do not, is counted and has no other effect. There is no state to save.
#[derive(Debug)]
pub struct Doorbell<M> {
    memory: M,
    output: Output,
    rejected: u64,
}

impl<M: GuestMemory> Doorbell<M> {
    /// Doorbells of a guest with this memory.
    pub const fn new(memory: M, output: Output) -> Self {
        Self {
            memory,
            output,
            rejected: 0,
        }
    }

    /// How many console requests named memory that does not exist.
    pub const fn rejected(&self) -> u64 {
        self.rejected
    }

    fn console(&mut self, request: u32) -> Effect {
        let Some(bytes) = self.console_bytes(GuestAddress(request.into())) else {
            self.rejected = self.rejected.saturating_add(1);
            return Effect::None;
        };
        match self.output.write(&bytes) {
            Ok(()) => Effect::None,
            Err(error) => Effect::HostFailed(error),
        }
    }

    /// The bytes that the [`ConsoleWrite`] at `request` names, at most [`CONSOLE_MAX`] of them.
    fn console_bytes(&self, request: GuestAddress) -> Option<Vec<u8>> {
        let mut header = [0; size_of::<ConsoleWrite>()];
        self.memory.read_slice(&mut header, request).ok()?;
        let (address, header) = header.split_first_chunk::<8>()?;
        let (len, _reserved) = header.split_first_chunk::<4>()?;

        let len = u32::from_le_bytes(*len).min(CONSOLE_MAX);
        let mut bytes = vec![0; usize::try_from(len).ok()?];
        self.memory
            .read_slice(&mut bytes, GuestAddress(u64::from_le_bytes(*address)))
            .ok()?;
        Some(bytes)
    }
}

impl<M: GuestMemory + Send> Device for Doorbell<M> {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        data.fill(0xff);
        if let (IDENT_OFFSET, Ok(data)) = (offset, <&mut [u8; 4]>::try_from(data)) {
            *data = IDENT_VALUE.to_le_bytes();
        }
    }

    fn write(&mut self, offset: u64, data: &[u8]) -> Effect {
        let Ok(value) = <[u8; 4]>::try_from(data).map(u32::from_le_bytes) else {
            return Effect::None;
        };
        match offset {
            EXIT_OFFSET => Effect::Exit(value),
            CONSOLE_OFFSET => self.console(value),
            _ => Effect::None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::Capture;
    use proptest::prelude::*;
    use std::io;

    type Memory = vm_memory::GuestMemoryMmap<()>;

    const RAM: u64 = 0x4_0000;

    fn doorbell() -> (Doorbell<Memory>, Capture) {
        let (output, capture) = Output::capture();
        (Doorbell::new(memory(), output), capture)
    }

    /// Two regions that touch, then a hole.
    fn memory() -> Memory {
        let half = usize::try_from(RAM / 2).unwrap();
        Memory::from_ranges(&[(GuestAddress(0), half), (GuestAddress(RAM / 2), half)]).unwrap()
    }

    fn request(address: u64, len: u32) -> Vec<u8> {
        let mut bytes = address.to_le_bytes().to_vec();
        bytes.extend(len.to_le_bytes());
        bytes.extend([0; 4]);
        bytes
    }

    fn ring(doorbell: &mut Doorbell<Memory>, port: u16, value: u32) -> Effect {
        doorbell.write((port - BASE).into(), &value.to_le_bytes())
    }

    #[test]
    fn ident_and_exit() {
        let (mut doorbell, _) = doorbell();
        let mut data = [0; 4];
        doorbell.read(0, &mut data);
        assert_eq!(&data, b"GCR\x01");
        assert!(matches!(
            ring(&mut doorbell, EXIT, 0x1_0003),
            Effect::Exit(0x1_0003)
        ));
        assert!(matches!(ring(&mut doorbell, IDENT, 1), Effect::None));
    }

    #[test]
    fn only_32_bit_accesses_count() {
        let (mut doorbell, _) = doorbell();
        for len in [1, 2, 3, 8] {
            let mut data = vec![0; len];
            doorbell.read(0, &mut data);
            assert!(data.iter().all(|b| *b == 0xff));
            assert!(matches!(doorbell.write(EXIT_OFFSET, &data), Effect::None));
        }
    }

    #[test]
    fn console_writes_across_regions_in_order() {
        let (mut doorbell, capture) = doorbell();
        let text = RAM / 2 - 3;
        let mem = &doorbell.memory;
        mem.write_slice(b"hello, world", GuestAddress(text))
            .unwrap();
        mem.write_slice(&request(text, 12), GuestAddress(0x100))
            .unwrap();
        mem.write_slice(&request(text, 5), GuestAddress(RAM - 16))
            .unwrap();
        assert!(matches!(ring(&mut doorbell, CONSOLE, 0x100), Effect::None));
        let last = u32::try_from(RAM - 16).unwrap();
        assert!(matches!(ring(&mut doorbell, CONSOLE, last), Effect::None));
        assert_eq!(capture.take(), b"hello, worldhello");
        assert_eq!(doorbell.rejected(), 0);
    }

    #[test]
    fn console_length_is_clamped() {
        let (mut doorbell, capture) = doorbell();
        doorbell
            .memory
            .write_slice(&request(0x1000, u32::MAX), GuestAddress(0))
            .unwrap();
        assert!(matches!(ring(&mut doorbell, CONSOLE, 0), Effect::None));
        assert_eq!(capture.take().len(), CONSOLE_MAX as usize);
    }

    #[test]
    fn what_is_not_ram_is_counted_and_not_written() {
        let (mut doorbell, capture) = doorbell();
        let bad = [
            request(RAM - 1, 2),
            request(RAM, 1),
            request(u64::MAX, 1),
            request(u64::MAX - 1, 16),
        ];
        for request in &bad {
            doorbell
                .memory
                .write_slice(request, GuestAddress(0))
                .unwrap();
            assert!(matches!(ring(&mut doorbell, CONSOLE, 0), Effect::None));
        }
        for address in [RAM - 15, RAM, 0xffff_ffff] {
            let address = u32::try_from(address).unwrap();
            assert!(matches!(
                ring(&mut doorbell, CONSOLE, address),
                Effect::None
            ));
        }
        assert_eq!(doorbell.rejected(), 7);
        assert_eq!(capture.take(), b"");
    }

    #[test]
    fn a_failing_sink_fails_the_machine() {
        struct Broken;
        impl io::Write for Broken {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::StorageFull.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let mut doorbell = Doorbell::new(memory(), Output::new(Broken));
        doorbell
            .memory
            .write_slice(&request(0, 1), GuestAddress(0))
            .unwrap();
        assert!(matches!(
            ring(&mut doorbell, CONSOLE, 0),
            Effect::HostFailed(e) if e.kind() == io::ErrorKind::StorageFull
        ));
    }

    proptest! {
        #[test]
        fn any_access_is_harmless(
            header in prop::collection::vec(any::<u8>(), 16),
            at: u32,
            offset in 0_u64..20,
            mut data in prop::collection::vec(any::<u8>(), 0..9),
        ) {
            let (mut doorbell, capture) = doorbell();
            let _ = doorbell.memory.write(&header, GuestAddress(u64::from(at) % RAM));
            let _ = ring(&mut doorbell, CONSOLE, u32::try_from(u64::from(at) % RAM).unwrap());
            let _ = doorbell.write(offset, &data);
            doorbell.read(offset, &mut data);
            prop_assert!(capture.take().len() <= 2 * CONSOLE_MAX as usize);
        }
    }
}
