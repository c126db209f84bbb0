//! The bus: devices at any ranges, accesses at any addresses, against a list that is searched from its start.

use std::sync::{Arc, Mutex};

use arbitrary::{Result, Unstructured};
use goldcrest_bus::{Bus, Device, Effect, Range, shared};

/// The most devices: more would only make runs slower.
const MAX_DEVICES: usize = 24;

/// Runs the target.
pub fn run(data: &[u8]) {
    let _ = drive(&mut Unstructured::new(data));
}

/// Remembers the last access, and answers with its number.
#[derive(Default)]
struct Probe {
    number: u8,
    last: Option<(u64, Vec<u8>)>,
}

impl Device for Probe {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        assert!(data.iter().all(|byte| *byte == 0xff), "comes as all ones");
        data.fill(self.number);
        self.last = Some((offset, data.to_vec()));
    }

    fn write(&mut self, offset: u64, data: &[u8]) -> Effect {
        self.last = Some((offset, data.to_vec()));
        Effect::Exit(self.number.into())
    }
}

struct Model {
    bus: Bus,
    devices: Vec<(Range, Arc<Mutex<Probe>>)>,
    misses: u64,
}

fn drive(input: &mut Unstructured<'_>) -> Result<()> {
    let mut model = Model {
        bus: Bus::new("fuzz"),
        devices: Vec::new(),
        misses: 0,
    };
    while !input.is_empty() {
        let op: u8 = input.arbitrary()?;
        let address = address(op, input)?;
        match op & 3 {
            0 => model.add(address, length(op, input)?),
            1 => model.write(address, usize::from(op >> 4) % 9),
            _ => model.read(address, usize::from(op >> 4) % 9),
        }
    }
    model.check_order();
    Ok(())
}

/// Mostly small, so that devices and accesses meet; else anywhere, or near the end.
fn address(op: u8, input: &mut Unstructured<'_>) -> Result<u64> {
    Ok(match op >> 2 & 3 {
        0 | 1 => input.arbitrary::<u8>()?.into(),
        2 => u64::MAX - u64::from(input.arbitrary::<u8>()?),
        _ => input.arbitrary()?,
    })
}

fn length(op: u8, input: &mut Unstructured<'_>) -> Result<u64> {
    Ok(if op & 0x80 == 0 {
        input.arbitrary::<u8>()?.into()
    } else {
        input.arbitrary()?
    })
}

impl Model {
    fn add(&mut self, first: u64, len: u64) {
        let Ok(range) = Range::new(first, len) else {
            assert!(len == 0 || first.checked_add(len - 1).is_none());
            return;
        };
        assert_eq!(
            (range.first(), range.last() - range.first()),
            (first, len - 1)
        );
        if self.devices.len() == MAX_DEVICES {
            return;
        }
        let device = shared(Probe {
            number: u8::try_from(self.devices.len()).expect("few"),
            last: None,
        });
        let overlaps = self.devices.iter().any(|(other, _)| {
            u128::from(first) < u128::from(other.last()) + 1
                && u128::from(other.first()) < u128::from(first) + u128::from(len)
        });
        let result = self.bus.add("probe", range, device.clone());
        assert_eq!(result.is_err(), overlaps, "{range}: {result:?}");
        if !overlaps {
            self.devices.push((range, device));
        }
    }

    /// The device that has all of the access.
    fn find(&mut self, address: u64, len: usize) -> Option<(u64, Arc<Mutex<Probe>>)> {
        let end = u128::from(address) + len as u128;
        let found = self.devices.iter().find(|(range, _)| {
            len > 0 && range.first() <= address && end <= u128::from(range.last()) + 1
        });
        self.misses += u64::from(found.is_none());
        found.map(|(range, device)| (address - range.first(), device.clone()))
    }

    fn read(&mut self, address: u64, len: usize) {
        let mut data = [0x5a; 8];
        self.bus.read(address, &mut data[..len]);
        let expected = match self.find(address, len) {
            Some((offset, device)) => {
                let mut probe = device.lock().expect("nothing has panicked");
                let number = probe.number;
                assert_eq!(probe.last.take(), Some((offset, vec![number; len])));
                number
            }
            None => 0xff,
        };
        assert!(data[..len].iter().all(|byte| *byte == expected));
        assert!(data[len..].iter().all(|byte| *byte == 0x5a));
        assert_eq!(self.bus.misses(), self.misses);
    }

    fn write(&mut self, address: u64, len: usize) {
        let data = &[1, 2, 3, 4, 5, 6, 7, 8][..len];
        let effect = self.bus.write(address, data);
        match self.find(address, len) {
            Some((offset, device)) => {
                let mut probe = device.lock().expect("nothing has panicked");
                assert_eq!(probe.last.take(), Some((offset, data.to_vec())));
                assert!(matches!(effect, Effect::Exit(n) if n == u32::from(probe.number)));
            }
            None => assert!(matches!(effect, Effect::None)),
        }
        assert_eq!(self.bus.misses(), self.misses);
    }

    fn check_order(&self) {
        let ranges: Vec<_> = self.bus.devices().map(|(_, range)| range).collect();
        assert_eq!(ranges.len(), self.devices.len());
        assert!(ranges.is_sorted_by(|below, above| below.last() < above.first()));
    }
}
