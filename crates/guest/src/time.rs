//! Time.
#![allow(unsafe_code, reason = "reading the time-stamp counter")]

/// The time-stamp counter: monotonic, at the rate of [`tsc_khz`].
pub fn tsc() -> u64 {
    // SAFETY: `rdtsc` is part of x86-64, and the runtime leaves CR4.TSD clear.
    unsafe { core::arch::x86_64::_rdtsc() }
}
