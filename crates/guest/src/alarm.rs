//! An alarm: an interrupt at a time, which ends a wait that began before.
//!
//! It rings by the one timer of the [`apic`], so that a program uses either this or the timer itself. Setting it anew
//! is cheap: as long as it rings before the new time it is left alone, since whoever it wakes early looks at the clock
//! and sets it again. A server whose deadlines move on with every packet so writes to the timer now and then only.
#![allow(unsafe_code, reason = "a trap handler")]

use core::sync::atomic::{AtomicU64, Ordering};

use crate::trap::{TrapFrame, set_handler};
use crate::{apic, time};

/// The vector of the alarm, the first after those of the virtio drivers.
pub const VECTOR: u8 = 0x78;

/// When it rings, by [`time::now_ns`]; 0: it is not set.
static RINGS_AT: AtomicU64 = AtomicU64::new(0);

/// Has the alarm ring at `deadline`, a time of [`time::now_ns`], or before. Says no if that has passed: nothing is set
/// then.
///
/// To wait for something or a time: disable interrupts, look whether there is anything to wait for, set the alarm, then
/// [`wait_for_interrupt`](crate::ring0::wait_for_interrupt), and so on until the one or the other has come.
pub fn set(deadline: u64) -> bool {
    let now = time::now_ns();
    if deadline <= now {
        return false;
    }
    let rings_at = RINGS_AT.load(Ordering::Relaxed);
    if (now + 1..=deadline).contains(&rings_at) {
        return true;
    }
    let ticks = u32::try_from(deadline - now).unwrap_or(u32::MAX);
    // SAFETY: the handler leaves the frame alone and needs little stack.
    unsafe { set_handler(VECTOR, Some(on_alarm)) };
    RINGS_AT.store(now + u64::from(ticks), Ordering::Relaxed);
    apic::enable();
    apic::start_timer(VECTOR, ticks);
    true
}

fn on_alarm(_: &mut TrapFrame) {
    RINGS_AT.store(0, Ordering::Relaxed);
    apic::end_of_interrupt();
}
