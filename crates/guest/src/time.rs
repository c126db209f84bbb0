//! Time: the time-stamp counter, a monotonic clock, the time of day.
//!
//! A unikernel that needs exact time asks for it with [`Options::clock`](crate::Options::clock): the host then keeps a
//! clock page, and reading the time is a few instructions without an exit. Without it, the frequency of the counter has
//! to be known from elsewhere: from the host, or from CPUID.
#![allow(unsafe_code, reason = "the counter and the clock page")]

use core::arch::x86_64::{__cpuid, _mm_lfence, _rdtsc};
use core::sync::atomic::{AtomicU64, Ordering};

use goldcrest_abi::boot_info::mark;

use crate::pvclock::{self, Rate, TimeInfo};
use crate::{alarm, apic, boot};

/// What CPUID said, which costs an exit, or [`calibrate`] found; 0: nothing yet.
static FOUND_KHZ: AtomicU64 = AtomicU64::new(0);

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
        .or_else(|| Some(FOUND_KHZ.load(Ordering::Relaxed)).filter(|khz| *khz != 0))
        .or_else(|| cpuid_khz().inspect(|khz| FOUND_KHZ.store(*khz, Ordering::Relaxed)))
}

/// Nanoseconds since a moment before `main`; never runs backwards. `None` if the counter's frequency is unknown.
pub fn monotonic_ns() -> Option<u64> {
    if let Some(info) = clock_page() {
        return Some(info.nanoseconds(ordered_tsc()));
    }
    since_entry()
}

/// As [`monotonic_ns`], but where nobody knows the counter's frequency, it is measured first ([`calibrate`]).
pub fn now_ns() -> u64 {
    monotonic_ns().unwrap_or_else(|| {
        calibrate();
        monotonic_ns().unwrap_or_else(tsc)
    })
}

/// Measures the frequency of the time-stamp counter against the APIC's timer, whose ticks are nanoseconds on KVM and on
/// QEMU, if there is no other way to know it: [`tsc_khz`] gives what was found from then on. Takes 5 ms, stops a timer
/// that runs, and is precise to a thousandth or so.
pub fn calibrate() {
    const TICKS: u32 = 5_000_000;
    if tsc_khz().is_some() {
        return;
    }
    apic::enable();
    apic::start_timer(alarm::VECTOR, u32::MAX);
    let (start, start_tsc) = (apic::timer_remaining(), ordered_tsc());
    let passed = loop {
        let passed = start.saturating_sub(apic::timer_remaining());
        // A timer that stands still is given up.
        if passed >= TICKS || ordered_tsc() - start_tsc > 1 << 36 {
            break passed;
        }
        core::hint::spin_loop();
    };
    let ticks = u128::from(ordered_tsc() - start_tsc);
    apic::start_timer(alarm::VECTOR, 0);
    let khz = (ticks * 1_000_000).checked_div(passed.into()).unwrap_or(0);
    FOUND_KHZ.store(u64::try_from(khz).unwrap_or(0), Ordering::Relaxed);
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
