//! The interrupt of a device with memory-mapped registers (§4.2.2, `InterruptStatus` and `InterruptACK`).

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use goldcrest_irq::IrqLine;

/// Why a device interrupts, and its line: up while there is a reason.
///
/// Clones are the same one. It has a lock of its own, so that a driver that looks why it was interrupted need not wait
/// for a device that is at work on another thread.
#[derive(Clone)]
pub struct Interrupt(Arc<Inner>);

struct Inner {
    /// `INT_USED_BUFFER`, `INT_CONFIG_CHANGE`. Locked while the line is set, so that both change together.
    reasons: Mutex<u32>,
    line: IrqLine,
}

impl Interrupt {
    pub(crate) fn new(line: IrqLine) -> Self {
        Self(Arc::new(Inner {
            reasons: Mutex::new(0),
            line,
        }))
    }

    /// What `InterruptStatus` reads as.
    pub fn status(&self) -> u32 {
        *self.lock()
    }

    /// What a write to `InterruptACK` does: the line rises anew if a reason is left.
    pub fn acknowledge(&self, bits: u32) {
        let mut reasons = self.lock();
        *reasons &= !bits;
        self.0.line.set(false);
        if *reasons != 0 {
            self.0.line.set(true);
        }
    }

    pub(crate) fn raise(&self, bits: u32) {
        let mut reasons = self.lock();
        *reasons |= bits;
        self.0.line.set(true);
    }

    /// Puts saved reasons back, and the line as they have it.
    pub(crate) fn restore(&self, bits: u32) {
        let mut reasons = self.lock();
        *reasons = bits;
        self.0.line.set(bits != 0);
    }

    fn lock(&self) -> MutexGuard<'_, u32> {
        self.0
            .reasons
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_is_up_while_there_is_a_reason_whoever_takes_it_back() {
        let line = IrqLine::detached();
        let interrupt = Interrupt::new(line.clone());
        let driver = interrupt.clone();
        interrupt.raise(1);
        interrupt.raise(2);
        assert_eq!((driver.status(), line.level()), (3, true));
        driver.acknowledge(1);
        assert_eq!((interrupt.status(), line.level()), (2, true));
        driver.acknowledge(2);
        assert_eq!((interrupt.status(), line.level()), (0, false));
        interrupt.restore(1);
        assert!(line.level());
    }
}
