//! The identifier that tells runs of a guest apart which have a past in common.

use std::io;

use goldcrest_irq::IrqLine;
use goldcrest_memory::GuestRam;
use rustix::rand::{GetRandomFlags, getrandom};

use crate::MonitorError;

/// The IOAPIC's input by which kernels are told that it is another one: no device of a PC that is still made has it.
pub(crate) const INTERRUPT: u32 = 13;

/// A new one.
pub(crate) fn fresh() -> Result<[u8; 16], MonitorError> {
    let mut id = [0; 16];
    random(&mut id).map_err(MonitorError::Random)?;
    Ok(id)
}

/// Fills a few bytes. It is the system call itself: a program that is linked statically would open `/dev/urandom` else.
pub(crate) fn random(bytes: &mut [u8; 16]) -> io::Result<()> {
    // So few come in one piece (getrandom(2)).
    getrandom(bytes.as_mut_slice(), GetRandomFlags::empty())?;
    Ok(())
}

/// Gives the guest another one, at guest-physical `at`, and tells it so.
pub(crate) fn change(ram: &GuestRam, at: u64, line: &IrqLine) -> Result<(), MonitorError> {
    ram.write(at, &fresh()?)?;
    line.pulse();
    Ok(())
}
