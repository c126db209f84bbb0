//! The map from addresses to devices.

use std::sync::PoisonError;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::{Effect, Range, SharedDevice};

/// Why a device could not be put on a bus.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum BusError {
    /// A range that is empty or wraps around.
    #[error("range of {len:#x} addresses from {first:#x} is empty or wraps around")]
    BadRange {
        /// First address.
        first: u64,
        /// How many addresses.
        len: u64,
    },
    /// Two devices at the same address.
    #[error("{bus} range {range} of {name} overlaps {other_range} of {other}")]
    Overlap {
        /// The bus.
        bus: &'static str,
        /// The device to be added.
        name: String,
        /// Its range.
        range: Range,
        /// The device that is there.
        other: String,
        /// Its range.
        other_range: Range,
    },
}

struct Slot {
    range: Range,
    name: String,
    device: SharedDevice,
}

/// Devices by address range.
///
/// Built once, then shared among vCPU threads: a look-up is a binary search and takes no lock.
pub struct Bus {
    name: &'static str,
    /// Sorted by address; ranges do not overlap.
    slots: Vec<Slot>,
    misses: AtomicU64,
}

impl Bus {
    /// An empty bus; `name` is for messages ("port", "memory").
    pub const fn new(name: &'static str) -> Self {
        Self {
            name,
            slots: Vec::new(),
            misses: AtomicU64::new(0),
        }
    }

    /// Puts `device` at `range`. A device may be added at several ranges.
    ///
    /// # Errors
    ///
    /// [`BusError::Overlap`], naming both devices, if part of the range is taken.
    pub fn add(
        &mut self,
        name: impl Into<String>,
        range: Range,
        device: SharedDevice,
    ) -> Result<(), BusError> {
        let name = name.into();
        let at = self
            .slots
            .partition_point(|s| s.range.last() < range.first());
        match self.slots.get(at) {
            Some(other) if other.range.overlaps(&range) => Err(BusError::Overlap {
                bus: self.name,
                name,
                range,
                other: other.name.clone(),
                other_range: other.range,
            }),
            _ => {
                self.slots.insert(
                    at,
                    Slot {
                        range,
                        name,
                        device,
                    },
                );
                Ok(())
            }
        }
    }

    /// Reads `data.len()` bytes at `address`; all ones where there is no device for all of them.
    pub fn read(&self, address: u64, data: &mut [u8]) {
        // As `Device::read` promises.
        data.fill(0xff);
        match self.find(address, data.len()) {
            Some((slot, offset)) => {
                slot.device
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .read(offset, data);
            }
            None => self.miss(),
        }
    }

    /// Writes `data` at `address`; nothing happens where there is no device for all of it.
    pub fn write(&self, address: u64, data: &[u8]) -> Effect {
        match self.find(address, data.len()) {
            Some((slot, offset)) => slot
                .device
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .write(offset, data),
            None => {
                self.miss();
                Effect::None
            }
        }
    }

    /// How many accesses found no device, or ran past the end of one.
    pub fn misses(&self) -> u64 {
        self.misses.load(Ordering::Relaxed)
    }

    /// The devices' names and ranges, by ascending address.
    pub fn devices(&self) -> impl Iterator<Item = (&str, Range)> {
        self.slots.iter().map(|s| (s.name.as_str(), s.range))
    }

    fn find(&self, address: u64, len: usize) -> Option<(&Slot, u64)> {
        let at = self.slots.partition_point(|s| s.range.last() < address);
        let slot = self.slots.get(at)?;
        Some((slot, slot.range.offset_of(address, len)?))
    }

    fn miss(&self) {
        self.misses.fetch_add(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Device, shared};

    /// Reads as its own offset; remembers the last write.
    #[derive(Default)]
    struct Echo {
        last: Option<(u64, Vec<u8>)>,
    }

    impl Device for Echo {
        fn read(&mut self, offset: u64, data: &mut [u8]) {
            data.fill(u8::try_from(offset).unwrap());
        }
        fn write(&mut self, offset: u64, data: &[u8]) -> Effect {
            self.last = Some((offset, data.to_vec()));
            Effect::Exit(7)
        }
    }

    fn bus(ranges: &[(&str, u64, u64)]) -> Bus {
        let mut bus = Bus::new("port");
        for (name, first, len) in ranges {
            bus.add(
                *name,
                Range::new(*first, *len).unwrap(),
                shared(Echo::default()),
            )
            .unwrap();
        }
        bus
    }

    fn read<const N: usize>(bus: &Bus, address: u64) -> [u8; N] {
        let mut data = [0x5a; N];
        bus.read(address, &mut data);
        data
    }

    #[test]
    fn devices_see_offsets() {
        let bus = bus(&[("b", 0x20, 8), ("a", 0x10, 8), ("c", 0x28, 1)]);
        assert_eq!(read(&bus, 0x13), [3]);
        assert_eq!(read(&bus, 0x20), [0, 0]);
        assert_eq!(read(&bus, 0x28), [0]);
        assert!(matches!(bus.write(0x27, &[1]), Effect::Exit(7)));
        assert_eq!(bus.misses(), 0);
        assert_eq!(
            bus.devices().map(|d| d.0).collect::<Vec<_>>(),
            ["a", "b", "c"]
        );
    }

    #[test]
    fn misses_and_straddles_read_ones_and_are_counted() {
        let bus = bus(&[("a", 0x10, 4), ("b", 0x14, 4), ("top", u64::MAX, 1)]);
        assert_eq!(read(&bus, 0x0f), [0xff]);
        assert_eq!(read(&bus, 0x18), [0xff]);
        // From below into a device, and from one device into the next.
        assert_eq!(read(&bus, 0x0f), [0xff, 0xff]);
        assert_eq!(read(&bus, 0x12), [0xff; 4]);
        assert_eq!(read(&bus, u64::MAX), [0]);
        assert_eq!(read(&bus, u64::MAX), [0xff, 0xff]);
        assert!(matches!(bus.write(0x13, &[0, 0]), Effect::None));
        assert_eq!(bus.misses(), 6);
        assert_eq!(read(&bus, 0x10), []);
        assert_eq!(bus.misses(), 7);
    }

    #[test]
    fn overlap_names_both_devices() {
        let mut bus = bus(&[("serial", 0x3f8, 8)]);
        for (first, len) in [(0x3f0, 9), (0x3ff, 1), (0x3f8, 8), (0, 0x1000)] {
            let error = bus
                .add(
                    "intruder",
                    Range::new(first, len).unwrap(),
                    shared(Echo::default()),
                )
                .unwrap_err()
                .to_string();
            assert!(
                error.contains("intruder") && error.contains("serial"),
                "{error}"
            );
            assert!(error.contains("0x3f8-0x3ff"), "{error}");
        }
        assert!(
            bus.add(
                "next",
                Range::new(0x400, 1).unwrap(),
                shared(Echo::default())
            )
            .is_ok()
        );
    }

    #[test]
    fn ranges_are_checked() {
        assert!(Range::new(5, 0).is_err());
        assert!(Range::new(u64::MAX, 2).is_err());
        assert_eq!(Range::new(0, u64::MAX).unwrap().last(), u64::MAX - 1);
        assert_eq!(Range::ports(0x60, 5).to_string(), "0x60-0x64");
        assert_eq!(Range::ports(0xffff, 9).last(), 0xffff);
        assert_eq!(Range::ports(7, 0), Range::ports(7, 1));
    }
}
