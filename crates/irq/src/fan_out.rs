//! Lines that lead to more than one controller.

use std::sync::Arc;

use crate::{IrqLine, LineSink};

/// Lines that lead to the same pin of several controllers, as the ISA interrupts of a PC do: to the 8259s and to the
/// IOAPIC. A controller that does not have a pin ignores it.
#[derive(Clone)]
pub struct FanOut(Arc<[Arc<dyn LineSink>]>);

impl FanOut {
    /// Lines to all of `sinks`.
    pub fn new(sinks: impl IntoIterator<Item = Arc<dyn LineSink>>) -> Self {
        Self(sinks.into_iter().collect())
    }

    /// A new source on input `pin` of each sink.
    pub fn line(&self, pin: u32) -> IrqLine {
        IrqLine::new(Arc::new(self.clone()), pin)
    }
}

impl LineSink for FanOut {
    fn set_source(&self, pin: u32, up: bool) {
        for sink in self.0.iter() {
            sink.set_source(pin, up);
        }
    }
}
