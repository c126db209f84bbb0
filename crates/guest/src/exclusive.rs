//! A value in a `static` that one piece of code at a time may change.
#![allow(
    unsafe_code,
    reason = "interior mutability in a static needs an unsafe cell"
)]

use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicBool, Ordering};

/// A value with a flag that says whether somebody is at it.
///
/// There is one processor, so that whoever finds the value taken is a trap handler that interrupted its user: waiting
/// would never end. Hence there is no waiting, only refusal.
pub(crate) struct Exclusive<T> {
    taken: AtomicBool,
    value: UnsafeCell<T>,
}

// SAFETY: `try_with` hands out one reference at a time, whoever asks and from whatever context.
unsafe impl<T: Send> Sync for Exclusive<T> {}

impl<T> Exclusive<T> {
    pub(crate) const fn new(value: T) -> Self {
        Self {
            taken: AtomicBool::new(false),
            value: UnsafeCell::new(value),
        }
    }

    /// Runs `action` on the value, or nothing if the value is in use further up the stack.
    pub(crate) fn try_with<R>(&self, action: impl FnOnce(&mut T) -> R) -> Option<R> {
        if self.taken.swap(true, Ordering::Acquire) {
            return None;
        }
        // SAFETY: the flag was clear and is set now, so that this is the only reference until it is cleared below.
        let result = action(unsafe { &mut *self.value.get() });
        self.taken.store(false, Ordering::Release);
        Some(result)
    }
}

#[cfg(test)]
mod tests {
    use super::Exclusive;

    #[test]
    fn a_second_user_is_refused_until_the_first_is_done() {
        let value = Exclusive::new(1);
        let inner = value.try_with(|outer| {
            *outer += 1;
            value.try_with(|_| ())
        });
        assert_eq!(inner, Some(None));
        assert_eq!(value.try_with(|value| *value), Some(2));
    }
}
