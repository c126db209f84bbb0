//! How the state of a device is reached whose type is not known any more.

use std::any::Any;

use goldcrest_snapshot::{EnvelopeError, Part, Snapshot};
use goldcrest_virtio::{Mmio, VirtioDevice};

/// Saves and restores the devices of one type.
#[derive(Clone, Copy)]
pub(crate) struct Saver {
    save: fn(&dyn Any) -> Result<Part, EnvelopeError>,
    restore: fn(&mut dyn Any, &Part) -> Result<(), EnvelopeError>,
}

impl Saver {
    /// For devices of type `D` behind the MMIO transport.
    pub(crate) fn of<D: VirtioDevice + Snapshot + 'static>() -> Self {
        Self {
            save: |device| match device.downcast_ref::<Mmio<D>>() {
                // The transport's state and the device's change by themselves.
                Some(device) => Part::of(D::KIND, D::VERSION, &Part::save(device)?),
                None => Err(other_type::<D>()),
            },
            restore: |device, part| match device.downcast_mut::<Mmio<D>>() {
                Some(device) => part.open::<Part>(D::KIND, D::VERSION)?.restore(device),
                None => Err(other_type::<D>()),
            },
        }
    }

    /// The state of `device`, which must be of the type.
    pub(crate) fn save(self, device: &dyn Any) -> Result<Part, EnvelopeError> {
        (self.save)(device)
    }

    /// Puts a state back.
    pub(crate) fn restore(self, device: &mut dyn Any, part: &Part) -> Result<(), EnvelopeError> {
        (self.restore)(device, part)
    }
}

fn other_type<D: Snapshot>() -> EnvelopeError {
    EnvelopeError::Kind {
        found: "device of another type".into(),
        expected: D::KIND,
    }
}
