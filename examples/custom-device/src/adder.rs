//! The adder: a device that adds up bytes of guest memory.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use goldcrest_bus::{Device, Effect};
use goldcrest_memory::GuestView;

use crate::registers::{ADDRESS, DONE, LENGTH, MAX_LENGTH, REFUSED, STATUS, SUM};

/// How many ports it has.
pub(crate) const LEN: u16 = 16;

/// The device. Whatever the guest writes, it reads at most [`MAX_LENGTH`] bytes at a time, and none outside RAM.
pub(crate) struct Adder {
    memory: GuestView,
    address: u32,
    status: u32,
    sum: u32,
    /// For the host: how many bytes have been added up.
    total: Arc<AtomicU64>,
}

impl Adder {
    /// An adder for a guest with this memory.
    pub(crate) fn new(memory: GuestView, total: Arc<AtomicU64>) -> Self {
        Self {
            memory,
            address: 0,
            status: 0,
            sum: 0,
            total,
        }
    }

    fn add_up(&mut self, length: u32) {
        match self.read_memory(length) {
            Some(bytes) => {
                // No overflow: 255 * MAX_LENGTH is below 2^32.
                self.sum = bytes.iter().copied().map(u32::from).sum();
                self.status = DONE;
                self.total.fetch_add(length.into(), Ordering::Relaxed);
            }
            None => self.status = REFUSED,
        }
    }

    fn read_memory(&self, length: u32) -> Option<Vec<u8>> {
        if length > MAX_LENGTH {
            return None;
        }
        let mut bytes = vec![0; usize::try_from(length).ok()?];
        self.memory.read(self.address.into(), &mut bytes).ok()?;
        Some(bytes)
    }
}

/// The registers, as the bus shows them to the guest. An access of another width than 32 bits finds nothing.
impl Device for Adder {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        data.fill(0xff);
        let value = match u16::try_from(offset) {
            Ok(STATUS) => self.status,
            Ok(SUM) => self.sum,
            _ => return,
        };
        if let Ok(data) = <&mut [u8; 4]>::try_from(data) {
            *data = value.to_le_bytes();
        }
    }

    fn write(&mut self, offset: u64, data: &[u8]) -> Effect {
        if let Ok(value) = <[u8; 4]>::try_from(data).map(u32::from_le_bytes) {
            match u16::try_from(offset) {
                Ok(ADDRESS) => self.address = value,
                Ok(LENGTH) => self.add_up(value),
                _ => {}
            }
        }
        Effect::None
    }
}

/// A device needs no hypervisor to be tested: the test is the driver.
#[cfg(test)]
mod tests {
    use super::*;
    use goldcrest_memory::{GuestRam, MemoryConfig};

    const RAM: u32 = 1 << 20;

    fn adder() -> Adder {
        let ram = GuestRam::new(&MemoryConfig {
            size: RAM.into(),
            ..MemoryConfig::default()
        });
        let ram = ram.unwrap();
        ram.write(0x1000, &[1, 2, 3, 255]).unwrap();
        Adder::new(ram.view(), Arc::default())
    }

    fn get(adder: &mut Adder, register: u16) -> u32 {
        let mut data = [0; 4];
        adder.read(register.into(), &mut data);
        u32::from_le_bytes(data)
    }

    fn set(adder: &mut Adder, register: u16, value: u32) {
        let effect = adder.write(register.into(), &value.to_le_bytes());
        assert!(matches!(effect, Effect::None));
    }

    fn add_up(adder: &mut Adder, address: u32, length: u32) -> u32 {
        set(adder, ADDRESS, address);
        set(adder, LENGTH, length);
        get(adder, STATUS)
    }

    #[test]
    fn bytes_are_added_up() {
        let mut adder = adder();
        assert_eq!(get(&mut adder, STATUS), 0);
        for (length, sum) in [(0, 0), (1, 1), (4, 261), (MAX_LENGTH, 261)] {
            assert_eq!(add_up(&mut adder, 0x1000, length), DONE);
            assert_eq!(get(&mut adder, SUM), sum);
        }
        let total = u64::from(MAX_LENGTH) + 5;
        assert_eq!(adder.total.load(Ordering::Relaxed), total);
    }

    #[test]
    fn what_is_too_long_or_outside_ram_is_refused() {
        let mut adder = adder();
        for (address, length) in [
            (0, MAX_LENGTH + 1),
            (0, u32::MAX),
            (RAM - 1, 2),
            (u32::MAX, 1),
            (u32::MAX, MAX_LENGTH),
        ] {
            assert_eq!(add_up(&mut adder, address, length), REFUSED);
        }
        assert_eq!(add_up(&mut adder, RAM - 1, 1), DONE);
    }

    #[test]
    fn other_widths_and_offsets_find_nothing() {
        let mut adder = adder();
        for len in 1..=8 {
            for offset in (0..u64::from(LEN)).chain([u64::MAX]) {
                let width_of_a_register = len == 4 && offset.is_multiple_of(4);
                if !width_of_a_register {
                    let mut data = vec![0; len];
                    let _ = adder.write(offset, &data);
                    adder.read(offset, &mut data);
                    assert!(data.iter().all(|byte| *byte == 0xff));
                }
            }
        }
        assert_eq!(get(&mut adder, STATUS), 0);
    }
}
