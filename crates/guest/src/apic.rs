//! The local APIC: its one-shot timer, and the end of interrupts (SDM vol. 3A ch. 11).
#![allow(unsafe_code, reason = "registers at a fixed address")]

use crate::trap::vector::FIRST_INTERRUPT;

/// Where the registers are: guest-physical, mapped uncached.
const BASE: usize = 0xfee0_0000;

#[cfg(feature = "virtio")]
const ID: usize = 0x20;
const END_OF_INTERRUPT: usize = 0xb0;
const SPURIOUS_VECTOR: usize = 0xf0;
const TIMER_VECTOR: usize = 0x320;
const TIMER_INITIAL: usize = 0x380;
const TIMER_CURRENT: usize = 0x390;
const TIMER_DIVIDE: usize = 0x3e0;

/// Spurious-vector register: the APIC is on.
const ENABLED: u32 = 1 << 8;
/// Vector for spurious interrupts.
const SPURIOUS: u32 = 0xff;
/// Divide configuration: by 1.
const DIVIDE_BY_1: u32 = 0b1011;
/// Local vector table: nothing is delivered.
const MASKED: u32 = 1 << 16;

/// Turns the local APIC on.
pub fn enable() {
    write(SPURIOUS_VECTOR, ENABLED | SPURIOUS);
}

/// The identifier of this processor's APIC, by which the IOAPIC reaches it.
#[cfg(feature = "virtio")]
pub(crate) fn id() -> u8 {
    let [.., id] = read(ID).to_le_bytes();
    id
}

/// Has the timer raise `vector` once, after `ticks`; 0 stops it.
///
/// A tick is one cycle of the APIC's bus: 1 ns on KVM and QEMU. The handler of `vector` has to call
/// [`end_of_interrupt`]; interrupts arrive once [`ring0`](crate::ring0) lets them in.
///
/// # Panics
///
/// Unless `vector` is [`FIRST_INTERRUPT`] (32) or above, or `ticks` is 0. The vectors below are the exceptions': the
/// entries of some of them expect an error code, which an interrupt does not push (SDM vol. 3A §6.13).
pub fn start_timer(vector: u8, ticks: u32) {
    assert!(
        ticks == 0 || vector >= FIRST_INTERRUPT,
        "vector {vector} is an exception's: a timer's is {FIRST_INTERRUPT} or above"
    );
    write(TIMER_DIVIDE, DIVIDE_BY_1);
    write(
        TIMER_VECTOR,
        if ticks == 0 {
            MASKED
        } else {
            u32::from(vector)
        },
    );
    write(TIMER_INITIAL, ticks);
}

/// Ticks that the timer has still to go.
pub fn timer_remaining() -> u32 {
    read(TIMER_CURRENT)
}

/// Says that the interrupt in service has been handled, so that the next may come.
pub fn end_of_interrupt() {
    write(END_OF_INTERRUPT, 0);
}

fn write(register: usize, value: u32) {
    // SAFETY: every way in maps the APIC's page here; its registers are aligned words that reach no memory.
    unsafe { core::ptr::with_exposed_provenance_mut::<u32>(BASE + register).write_volatile(value) };
}

fn read(register: usize) -> u32 {
    // SAFETY: as in `write`; reading the registers used here has no effect.
    unsafe { core::ptr::with_exposed_provenance::<u32>(BASE + register).read_volatile() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[should_panic(expected = "vector 31 is an exception's")]
    fn a_timer_must_not_pose_as_an_exception() {
        start_timer(31, 1);
    }
}
