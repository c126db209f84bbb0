//! Which of the runs that have a past in common this is.
//!
//! A machine can be saved and started from there many times. Its guests then share all that they knew, also what is to be
//! used only once: the state of a random number generator, a number that names a session. The host gives each start an
//! identifier of its own, so that a program can notice.
//!
//! [`on_change`] names a function that is called when it has changed: on the way out of
//! [`wait_for_interrupt`](crate::ring0::wait_for_interrupt), and by [`check`], which a program that does not wait calls before
//! it uses what is to be used once.
#![allow(unsafe_code, reason = "the host writes the identifier")]

use core::sync::atomic::{AtomicPtr, AtomicU64, Ordering};

use crate::boot;

/// The function to call, if there is one.
static HANDLER: AtomicPtr<()> = AtomicPtr::new(core::ptr::null_mut());

/// The identifier that is known, in halves.
static KNOWN: [AtomicU64; 2] = [const { AtomicU64::new(0) }; 2];

/// The identifier: random, and another one after each start from a snapshot. Zero where the host does not give one (PVH).
pub fn id() -> [u8; 16] {
    boot::generation_id()
}

/// Has `handler` called when the identifier is found to be another one than now. There is one handler: the last.
pub fn on_change(handler: fn()) {
    know(halves());
    HANDLER.store(handler as *mut (), Ordering::Relaxed);
}

/// Looks whether the identifier has changed since this was last found out, or since [`on_change`]; the handler has been
/// called then.
pub fn check() -> bool {
    let now = halves();
    let known = KNOWN.each_ref().map(|half| half.load(Ordering::Relaxed));
    if now == known {
        return false;
    }
    know(now);
    let handler = HANDLER.load(Ordering::Relaxed);
    if !handler.is_null() {
        // SAFETY: nothing but a `fn()` is stored there.
        let handler = unsafe { core::mem::transmute::<*mut (), fn()>(handler) };
        handler();
    }
    true
}

/// What a wait does when it is over.
pub(crate) fn after_wait() {
    if !HANDLER.load(Ordering::Relaxed).is_null() {
        check();
    }
}

fn know(halves: [u64; 2]) {
    for (known, half) in KNOWN.iter().zip(halves) {
        known.store(half, Ordering::Relaxed);
    }
}

fn halves() -> [u64; 2] {
    let [low, high] = *id().as_chunks::<8>().0 else {
        return [0; 2];
    };
    [low, high].map(u64::from_le_bytes)
}
