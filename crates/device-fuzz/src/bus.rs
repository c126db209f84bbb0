//! A bus without a machine.

use arbitrary::{Result, Unstructured};
use goldcrest_bus::{Bus, BusError, Effect, Range, SharedDevice};

use crate::{Access, Outcome};

/// Devices at their ranges, and accesses to them from bytes: each lies inside one range, as a bus lets it through.
///
/// ```
/// use arbitrary::Unstructured;
/// use goldcrest_bus::{Device, Effect, Range, shared};
/// use goldcrest_device_fuzz::FuzzBus;
///
/// struct Scratch(u8);
///
/// impl Device for Scratch {
///     fn read(&mut self, _offset: u64, data: &mut [u8]) {
///         data.fill(self.0);
///     }
///     fn write(&mut self, _offset: u64, data: &[u8]) -> Effect {
///         self.0 = data[0];
///         Effect::None
///     }
/// }
///
/// let mut bus = FuzzBus::new();
/// bus.add(Range::new(0x60, 4)?, shared(Scratch(0)))?;
/// let mut input = Unstructured::new(&[0x80, 1, 7, 0x00, 2]);
/// bus.drive(&mut input, |outcome| outcome.assert_goes_on());
/// # Ok::<(), goldcrest_bus::BusError>(())
/// ```
pub struct FuzzBus {
    bus: Bus,
    ranges: Vec<Range>,
}

impl Default for FuzzBus {
    fn default() -> Self {
        Self::new()
    }
}

impl FuzzBus {
    /// A bus without devices.
    pub fn new() -> Self {
        Self {
            bus: Bus::new("fuzz"),
            ranges: Vec::new(),
        }
    }

    /// Puts a device at a range, as [`Bus::add`] does.
    ///
    /// # Errors
    ///
    /// [`BusError`] if part of the range is taken.
    pub fn add(&mut self, range: Range, device: SharedDevice) -> std::result::Result<(), BusError> {
        self.bus.add("device", range, device)?;
        self.ranges.push(range);
        Ok(())
    }

    /// Takes an access to one of the devices from the input and does it: a byte for the device, if there are several,
    /// then as [`Access::take`].
    ///
    /// # Errors
    ///
    /// Where the input ends, or there is no device.
    pub fn step(&self, input: &mut Unstructured<'_>) -> Result<Outcome> {
        let range = match self.ranges.as_slice() {
            [] => return Err(arbitrary::Error::EmptyChoose),
            [one] => *one,
            several => several[usize::from(input.arbitrary::<u8>()?) % several.len()],
        };
        let len = (range.last() - range.first()).saturating_add(1);
        let access = Access::take(input, len)?;
        let address = range.first() + access.offset;
        Ok(access.apply_by(
            |data| self.bus.read(address, data),
            |data| self.bus.write(address, data),
        ))
    }

    /// Takes steps until the input ends, and shows what came of each.
    pub fn drive(&self, input: &mut Unstructured<'_>, mut check: impl FnMut(&Outcome)) {
        while !input.is_empty() {
            let Ok(outcome) = self.step(input) else {
                break;
            };
            check(&outcome);
            if matches!(outcome.effect, Effect::Exit(_)) {
                break;
            }
        }
        assert_eq!(self.bus.misses(), 0, "each access lies inside a range");
    }
}
