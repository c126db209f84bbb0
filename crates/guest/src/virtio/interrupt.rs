//! From an input of the IOAPIC to the end of a wait (82093AA datasheet, §3).
//!
//! The vectors from [`FIRST_VECTOR`] on are the drivers', one for each input. The one handler they share tells the
//! device that its interrupt was seen, so that the next is another one, and returns: who waited looks for what changed.
#![allow(
    unsafe_code,
    reason = "registers, ports, a trap handler and the flags register"
)]

use core::arch::asm;
use core::sync::atomic::{AtomicU32, Ordering};

use super::Error;
use super::registers::write;
use super::spec::register;
use crate::trap::{TrapFrame, set_handler};
use crate::{apic, port, ring0};

/// The vector of the first input.
pub(super) const FIRST_VECTOR: u8 = 0x60;
/// Inputs of an IOAPIC.
const PINS: usize = 24;

/// Where the IOAPIC's registers are.
const IOAPIC: u32 = 0xfec0_0000;
const SELECT: u32 = 0x00;
const WINDOW: u32 = 0x10;
/// The first of two registers for each input.
const REDIRECTION: u32 = 0x10;
const LEVEL: u32 = 1 << 15;
const MASKED: u32 = 1 << 16;

/// The data ports of the two 8259s, which hold the mask of their inputs.
const PIC_MASKS: [u16; 2] = [0x21, 0xa1];

/// `InterruptStatus`: a buffer was used, the configuration has changed.
const ALL_REASONS: u32 = 0b11;

/// The interrupt flag of `rflags`.
const INTERRUPT_FLAG: u64 = 1 << 9;

/// Where the device at each input has its registers; 0: none.
static DEVICES: [AtomicU32; PINS] = [const { AtomicU32::new(0) }; PINS];

/// Which device interrupts, and how.
#[derive(Debug, Clone, Copy)]
pub(super) struct Source {
    /// Guest-physical address of the device's registers.
    pub(super) base: u32,
    pub(super) pin: u32,
    pub(super) edge: bool,
}

/// Has the interrupts of a device handled from now on.
pub(super) fn route(source: Source) -> Result<(), Error> {
    let unknown = Error::Interrupt { number: source.pin };
    let device = slot(source.pin).ok_or(unknown)?;
    let pin = u8::try_from(source.pin).map_err(|_| unknown)?;
    device.store(source.base, Ordering::Relaxed);
    let vector = FIRST_VECTOR + pin;
    // SAFETY: the handler leaves the frame alone and needs little stack.
    unsafe { set_handler(vector, Some(on_interrupt)) };
    // On a PC the same lines lead to the 8259s, whose vectors are those of exceptions.
    for port in PIC_MASKS {
        // SAFETY: masking inputs reaches no memory; where there is no 8259, nothing answers.
        unsafe { port::write_u8(port, 0xff) };
    }
    apic::enable();
    let trigger = if source.edge { 0 } else { LEVEL };
    redirect(
        source.pin,
        u64::from(u32::from(vector) | trigger) | u64::from(apic::id()) << 56,
    );
    // An edge that came before was lost: with nothing to be seen to, the next interrupt is one again.
    acknowledge(source.base);
    Ok(())
}

/// Takes a route back.
pub(super) fn unroute(pin: u32) {
    redirect(pin, MASKED.into());
    if let Some(device) = slot(pin) {
        device.store(0, Ordering::Relaxed);
    }
}

fn slot(pin: u32) -> Option<&'static AtomicU32> {
    DEVICES.get(usize::try_from(pin).ok()?)
}

/// Writes a redirection entry, masked until both halves are there.
fn redirect(pin: u32, entry: u64) {
    let low = REDIRECTION + 2 * pin;
    let [high_half, low_half] = [entry >> 32, entry & 0xffff_ffff];
    for (index, value) in [(low, MASKED.into()), (low + 1, high_half), (low, low_half)] {
        write(IOAPIC, SELECT, index);
        write(IOAPIC, WINDOW, u32::try_from(value).unwrap_or(MASKED));
    }
}

/// Tells the device that its interrupt was seen, whatever it was for (§4.2.2, InterruptACK). To ask for the reasons first
/// would be one more exit, and who waits looks at the queues anyway.
fn acknowledge(base: u32) {
    write(base, register::INTERRUPT_ACK, ALL_REASONS);
}

fn on_interrupt(frame: &mut TrapFrame) {
    let pin = frame.vector.saturating_sub(FIRST_VECTOR.into());
    let device = u32::try_from(pin).ok().and_then(slot);
    match device.map(|device| device.load(Ordering::Relaxed)) {
        Some(0) | None => {}
        Some(base) => acknowledge(base),
    }
    apic::end_of_interrupt();
}

/// Keeps interrupts out, as they were kept before or not, until it is dropped: those that arrive end the next wait.
#[derive(Debug)]
pub(super) struct Closed {
    were_open: bool,
}

impl Closed {
    pub(super) fn new() -> Self {
        let flags: u64;
        // SAFETY: reads the flags by way of the stack.
        unsafe { asm!("pushfq", "pop {}", out(reg) flags, options(preserves_flags)) };
        let were_open = flags & INTERRUPT_FLAG != 0;
        if were_open {
            ring0::disable_interrupts();
        }
        Self { were_open }
    }
}

impl Drop for Closed {
    fn drop(&mut self) {
        if self.were_open {
            ring0::enable_interrupts();
        }
    }
}
