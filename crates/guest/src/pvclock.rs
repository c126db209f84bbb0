//! The clock page that KVM keeps up to date (Linux `Documentation/virt/kvm/x86/msr.rst`, `pvclock-abi.h`).
#![allow(unsafe_code, reason = "the page is found by address")]

use core::sync::atomic::{Ordering, compiler_fence};

/// `pvclock_vcpu_time_info`: what the host writes, at any time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct TimeInfo {
    /// Odd while the host is writing.
    pub version: u32,
    /// Padding.
    pub reserved: u32,
    /// The time-stamp counter when `system_time` was taken.
    pub tsc_timestamp: u64,
    /// Nanoseconds since the machine was made.
    pub system_time: u64,
    /// The rate, as in [`Rate`].
    pub tsc_to_system_mul: u32,
    /// The rate, as in [`Rate`].
    pub tsc_shift: i8,
    /// Bit 0: the clocks of all processors agree.
    pub flags: u8,
    /// Padding.
    pub padding: [u8; 2],
}

const _: () = assert!(size_of::<TimeInfo>() == 32);

/// Nanoseconds for each tick of the time-stamp counter: `2^shift * multiplier / 2^32`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// Numerator of the fraction.
    pub multiplier: u32,
    /// How often ticks are doubled (halved, if negative) beforehand.
    pub shift: i8,
}

impl Rate {
    /// The rate of a counter that runs at `khz`; `None` if that is 0.
    pub fn from_khz(khz: u64) -> Option<Self> {
        // 2^32 * 10^6 / khz, brought below 2^32 by doubling the ticks for as long as it is not.
        let mut fraction = (1_000_000_u64 << 32).checked_div(khz)?;
        let mut shift = 0;
        while fraction > u64::from(u32::MAX) {
            fraction >>= 1;
            shift += 1;
        }
        Some(Self {
            multiplier: u32::try_from(fraction).ok()?,
            shift,
        })
    }

    /// `ticks` in nanoseconds; wraps beyond 2^64.
    pub fn nanoseconds(self, ticks: u64) -> u64 {
        let ticks = u128::from(ticks);
        let by = u32::from(self.shift.unsigned_abs()).min(63);
        let ticks = if self.shift < 0 {
            ticks >> by
        } else {
            ticks << by
        };
        let nanoseconds = ticks.wrapping_mul(u128::from(self.multiplier)) >> 32;
        let [low, _high] = [nanoseconds & u128::from(u64::MAX), nanoseconds >> 64];
        u64::try_from(low).unwrap_or(u64::MAX)
    }

    /// The frequency in kHz, rounded; 0 for a clock that stands still.
    pub fn khz(self) -> u64 {
        let by = u32::from(self.shift.unsigned_abs()).min(63);
        let multiplier = u128::from(self.multiplier);
        let (numerator, denominator) = if self.shift < 0 {
            (1_000_000_u128 << (32 + by), multiplier)
        } else {
            (1_000_000 << 32, multiplier << by)
        };
        let rounded = (numerator + denominator / 2)
            .checked_div(denominator)
            .unwrap_or(0);
        u64::try_from(rounded).unwrap_or(u64::MAX)
    }
}

impl TimeInfo {
    /// The time when the counter read `tsc`, in nanoseconds since the machine was made.
    pub fn nanoseconds(&self, tsc: u64) -> u64 {
        // A counter behind the timestamp is a host that has just moved the page on: no time has passed since.
        let ticks = tsc.saturating_sub(self.tsc_timestamp);
        self.system_time
            .wrapping_add(self.rate().nanoseconds(ticks))
    }

    /// The rate of the counter.
    pub fn rate(&self) -> Rate {
        Rate {
            multiplier: self.tsc_to_system_mul,
            shift: self.tsc_shift,
        }
    }

    /// Whether the host has ever written the page.
    pub fn is_valid(&self) -> bool {
        self.version != 0 && self.tsc_to_system_mul != 0
    }
}

/// Reads until a reading is consistent: the version is even, and the same before and after.
pub(crate) fn read_consistent(
    mut version: impl FnMut() -> u32,
    mut read: impl FnMut() -> TimeInfo,
) -> TimeInfo {
    loop {
        let before = version();
        compiler_fence(Ordering::Acquire);
        let info = read();
        compiler_fence(Ordering::Acquire);
        if before.is_multiple_of(2) && version() == before {
            return TimeInfo {
                version: before,
                ..info
            };
        }
        core::hint::spin_loop();
    }
}

/// Reads the page at guest-physical `address`.
///
/// # Safety
///
/// A clock page is there.
pub(crate) unsafe fn read(address: u64) -> TimeInfo {
    let page = core::ptr::with_exposed_provenance::<TimeInfo>(
        usize::try_from(address).unwrap_or_default(),
    );
    // SAFETY: the page is there, by contract; volatile, as the host writes to it whenever the guest does not run. It
    // writes on the processor's own thread, so that compiler fences are enough.
    unsafe {
        read_consistent(
            || (&raw const (*page).version).read_volatile(),
            || page.read_volatile(),
        )
    }
}

#[cfg(test)]
mod tests {
    use core::cell::Cell;

    use proptest::prelude::*;

    use super::*;

    const INFO: TimeInfo = TimeInfo {
        version: 2,
        reserved: 0,
        tsc_timestamp: 1_000,
        system_time: 5_000,
        tsc_to_system_mul: 1 << 31,
        tsc_shift: 0,
        flags: 1,
        padding: [0; 2],
    };

    #[test]
    fn time_is_the_base_plus_scaled_ticks() {
        assert_eq!(INFO.nanoseconds(1_000), 5_000);
        assert_eq!(INFO.nanoseconds(3_000), 6_000);
        assert_eq!(
            TimeInfo {
                tsc_shift: 2,
                ..INFO
            }
            .nanoseconds(3_000),
            9_000
        );
        assert_eq!(
            TimeInfo {
                tsc_shift: -1,
                ..INFO
            }
            .nanoseconds(3_000),
            5_500
        );
        assert_eq!(INFO.nanoseconds(0), 5_000, "never before the base");
    }

    #[test]
    fn a_reading_during_an_update_is_thrown_away() {
        let versions = [3, 4, 6, 6, 6].map(Cell::new);
        let (at, reads) = (Cell::new(0), Cell::new(0));
        let version = || {
            at.set(at.get() + 1);
            versions[at.get() - 1].get()
        };
        let info = read_consistent(version, || {
            reads.set(reads.get() + 1);
            TimeInfo {
                system_time: reads.get(),
                ..INFO
            }
        });
        // Odd; then changed between (4, 6); then consistent (6, 6).
        assert_eq!((info.system_time, info.version), (3, 6));
    }

    #[test]
    fn hostile_rates_do_not_panic() {
        for (multiplier, shift) in [(0, 0), (u32::MAX, 127), (u32::MAX, -128), (1, -128)] {
            let rate = Rate { multiplier, shift };
            let _ = (rate.nanoseconds(u64::MAX), rate.khz());
        }
        assert_eq!(Rate::from_khz(0), None);
        assert_eq!(
            Rate {
                multiplier: 0,
                shift: 0
            }
            .khz(),
            0
        );
    }

    proptest! {
        #[test]
        fn rates_agree_with_the_frequency(khz in 1_000_u64..10_000_000, seconds in 1_u64..1_000_000) {
            let rate = Rate::from_khz(khz).unwrap();
            let nanoseconds = rate.nanoseconds(seconds * khz * 1_000);
            let error = nanoseconds.abs_diff(seconds * 1_000_000_000);
            prop_assert!(error <= seconds * 10, "{error} ns off in {seconds} s");
            prop_assert!(rate.khz().abs_diff(khz) <= 1);
        }
    }
}
