//! Devices of one's own.

use std::fmt;

use goldcrest_bus::{Bus, Range, SharedDevice};
use goldcrest_irq::{FanOut, IrqLine};
use goldcrest_memory::GuestRam;

use crate::MonitorError;

/// A device that a machine has beside those of every machine.
pub struct CustomDevice {
    name: String,
    place: Place,
    make: Box<Make>,
}

type Make = dyn Fn(&Wiring<'_>) -> SharedDevice + Send + Sync;

/// Where a device's registers are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// At ports. A unikernel may use those below [`PORT_LIMIT`](goldcrest_abi::PORT_LIMIT).
    Ports {
        /// The first.
        first: u16,
        /// How many.
        len: u16,
    },
    /// At guest-physical addresses without RAM, such as those from
    /// [`HOLE_START`](goldcrest_memory::layout::HOLE_START) to the IOAPIC. Direct entry does not map them.
    Memory {
        /// The first.
        first: u64,
        /// How many bytes.
        len: u64,
    },
}

/// What of its machine a device may be connected to.
#[non_exhaustive]
pub struct Wiring<'a> {
    /// Guest RAM. Take [`view`](GuestRam::view) of it if the device only reads.
    pub ram: &'a GuestRam,
    pub(crate) isa: &'a FanOut,
}

impl Wiring<'_> {
    /// A new source on an interrupt input, 0 to 23, of the IOAPIC and, up to 15, of the 8259 pair: on a PC, 5, 9, 10
    /// and 11 are free.
    pub fn irq_line(&self, pin: u32) -> IrqLine {
        self.isa.line(pin)
    }
}

impl CustomDevice {
    /// The device that `make` makes, once for each start: a machine that is reset finds it fresh.
    pub fn new(
        name: impl Into<String>,
        place: Place,
        make: impl Fn(&Wiring<'_>) -> SharedDevice + Send + Sync + 'static,
    ) -> Self {
        Self {
            name: name.into(),
            place,
            make: Box::new(make),
        }
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Makes the device and puts it on its bus.
    pub(crate) fn add(
        &self,
        wiring: &Wiring<'_>,
        ports: &mut Bus,
        memory: &mut Bus,
    ) -> Result<(), MonitorError> {
        let (bus, range) = match self.place {
            Place::Ports { first, len } => (ports, Range::new(first.into(), len.into())?),
            Place::Memory { first, len } => (memory, self.outside_ram(first, len, wiring.ram)?),
        };
        Ok(bus.add(self.name.as_str(), range, (self.make)(wiring))?)
    }

    /// RAM would hide the device: an access to it never leaves the guest.
    fn outside_ram(&self, first: u64, len: u64, ram: &GuestRam) -> Result<Range, MonitorError> {
        let range = Range::new(first, len)?;
        for region in ram.regions() {
            let region = Range::new(region.start, region.len)?;
            if region.overlaps(&range) {
                return Err(MonitorError::DeviceInRam {
                    name: self.name.clone(),
                    range,
                    ram: region,
                });
            }
        }
        Ok(range)
    }
}

impl fmt::Debug for CustomDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CustomDevice")
            .field("name", &self.name)
            .field("place", &self.place)
            .finish_non_exhaustive()
    }
}
