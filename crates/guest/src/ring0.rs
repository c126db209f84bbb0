//! The little that only ring 0 can do: enabling interrupts, waiting for one, privileged instructions.
//!
//! A unikernel runs in ring 3 and enters ring 0 for single functions, by a trap.
#![allow(unsafe_code, reason = "crossing privilege levels is assembly")]

use core::arch::naked_asm;

/// Calls a function.
const CALL: u64 = 0;
/// Enables interrupts and halts until one arrives.
pub(crate) const WAIT: u64 = 1;
/// Sets the interrupt flag.
pub(crate) const ENABLE: u64 = 2;
/// Clears the interrupt flag.
pub(crate) const DISABLE: u64 = 3;

/// A function that [`call`] runs in ring 0.
pub type Function = unsafe extern "C" fn(u64) -> u64;

/// Runs `function` in ring 0 with interrupts disabled and gives what it returns.
///
/// A fault in it cannot be handled: it is reported and ends the machine.
///
/// # Safety
///
/// What the function does must be sound. It has 8 KiB of stack and must leave interrupts disabled. Some hosts emulate
/// ring 0 and know only the plainest integer instructions there; what the compiler emits may include others, so that
/// the function should be written in assembly.
pub unsafe fn call(function: Function, argument: u64) -> u64 {
    // SAFETY: the caller vouches for the function.
    unsafe { gate(CALL, function as usize as u64, argument) }
}

/// Lets interrupts in.
pub fn enable_interrupts() {
    // SAFETY: changes the interrupt flag and nothing else.
    unsafe { gate(ENABLE, 0, 0) };
}

/// Keeps interrupts out.
pub fn disable_interrupts() {
    // SAFETY: changes the interrupt flag and nothing else.
    unsafe { gate(DISABLE, 0, 0) };
}

/// Stops the processor until an interrupt has been handled, whether or not interrupts are enabled otherwise.
///
/// An interrupt that arrived before, while interrupts were disabled, ends the wait at once: disable them, look whether
/// there is anything to wait for, then wait, and no wake-up is lost.
pub fn wait_for_interrupt() {
    // SAFETY: enables interrupts for the wait only, and whatever handles them has been set up for it.
    unsafe { gate(WAIT, 0, 0) };
    crate::generation::after_wait();
}

/// The way to ring 0: the trap stub knows this instruction by its address, does `what`, and resumes behind it.
///
/// # Safety
///
/// That of what is asked for.
#[unsafe(naked)]
pub(crate) unsafe extern "C" fn gate(what: u64, first: u64, second: u64) -> u64 {
    naked_asm!("ud2", "ret")
}
