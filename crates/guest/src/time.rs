//! Time: the time-stamp counter, a monotonic clock, the time of day.
//!
//! A unikernel that needs exact time asks for it with [`Options::clock`](crate::Options::clock): the host then keeps a
//! clock page, and reading the time is a few instructions without an exit. Without it, the frequency of the counter has
//! to be known from elsewhere: from the host, or from CPUID.
#![allow(unsafe_code, reason = "the counter and the clock page")]

use core::arch::x86_64::{__cpuid, _mm_lfence, _rdtsc};

use goldcrest_abi::boot_info::mark;

use crate::boot;
use crate::pvclock::{self, Rate, TimeInfo};

/// CPUID: the highest basic leaf.
const LEAF_BASIC: u32 = 0;
/// CPUID: the ratio of the counter to its crystal, and the crystal's frequency (SDM vol. 2A, CPUID).
const LEAF_TSC: u32 = 0x15;
/// CPUID: the highest leaf of the hypervisor.
const LEAF_HYPERVISOR: u32 = 0x4000_0000;
/// CPUID: frequency of the counter in kHz, as several hypervisors give it.
const LEAF_TIMING: u32 = 0x4000_0010;

/// The time-stamp counter: monotonic, at the rate of [`tsc_khz`]. Not ordered with the instructions around it.
pub fn tsc() -> u64 {
    // SAFETY: `rdtsc` is part of x86-64, and CR4.TSD is clear.
    unsafe { _rdtsc() }
}

/// The clock page; `None` if the host has none or was not asked for one.
pub fn clock_page() -> Option<TimeInfo> {
    let address = boot::info()?.pvclock;
    // SAFETY: the host says that the page is there.
    let info = (address != 0).then(|| unsafe { pvclock::read(address) })?;
    info.is_valid().then_some(info)
}

/// Frequency of the time-stamp counter in kHz; `None` if there is no way to know.
pub fn tsc_khz() -> Option<u64> {
    let told = boot::info()
        .map(|info| info.tsc_khz)
        .filter(|khz| *khz != 0);
    told.or_else(|| clock_page().map(|info| info.rate().khz()))
        .or_else(cpuid_khz)
}

/// Nanoseconds since a moment before `main`; never runs backwards. `None` if the counter's frequency is unknown.
pub fn monotonic_ns() -> Option<u64> {
    if let Some(info) = clock_page() {
        return Some(info.nanoseconds(ordered_tsc()));
    }
    since_entry()
}

/// Nanoseconds since 1970-01-01 00:00 UTC, as the host had it when it started the machine; `None` if it did not say.
pub fn wall_clock_ns() -> Option<u64> {
    let at_entry = boot::info()?.wall_clock_ns;
    if at_entry == 0 {
        return None;
    }
    at_entry.checked_add(since_entry()?)
}

/// Waits, busily, for this many nanoseconds; returns at once where time is unknown.
pub fn spin_ns(nanoseconds: u64) {
    let Some(start) = monotonic_ns() else { return };
    while monotonic_ns().is_some_and(|now| now.saturating_sub(start) < nanoseconds) {
        core::hint::spin_loop();
    }
}

/// Nanoseconds since the first instruction.
fn since_entry() -> Option<u64> {
    let entered = *boot::info()?.marks.get(mark::ENTRY)?;
    let rate = match clock_page() {
        Some(info) => info.rate(),
        None => Rate::from_khz(tsc_khz()?)?,
    };
    Some(rate.nanoseconds(ordered_tsc().saturating_sub(entered)))
}

/// The counter, read after all that comes before (SDM vol. 2B, RDTSC).
fn ordered_tsc() -> u64 {
    // SAFETY: both are part of x86-64.
    unsafe {
        _mm_lfence();
        _rdtsc()
    }
}

fn cpuid_khz() -> Option<u64> {
    if __cpuid(LEAF_BASIC).eax >= LEAF_TSC {
        let leaf = __cpuid(LEAF_TSC);
        let hz = u64::from(leaf.ecx) * u64::from(leaf.ebx);
        let khz = hz.checked_div(u64::from(leaf.eax)).unwrap_or(0) / 1000;
        if khz != 0 {
            return Some(khz);
        }
    }
    let highest = __cpuid(LEAF_HYPERVISOR).eax;
    let known = (LEAF_TIMING..LEAF_TIMING + 0x100).contains(&highest);
    known
        .then(|| u64::from(__cpuid(LEAF_TIMING).eax))
        .filter(|khz| *khz != 0)
}
