//! Forged snapshots, whose checksum is right: a state that is believed must be one that the device can live with.

use std::fmt::Debug;

use arbitrary::{Result, Unstructured};
use goldcrest_chipset::{I8042, Output, Rtc, Serial};
use goldcrest_irq::{Ioapic, IrqLine, Pic};
use goldcrest_snapshot::Snapshot;

use crate::rtc::Clock;
use crate::{i8042, ioapic, pic, rtc, saved, serial};

/// Runs the target: a byte chooses the device, a byte is the length of the state, then come the state and what the
/// device goes through after it.
pub fn run(data: &[u8]) {
    let _ = restore_and_use(&mut Unstructured::new(data));
}

fn restore_and_use(input: &mut Unstructured<'_>) -> Result<()> {
    let choice: u8 = input.arbitrary()?;
    let len = usize::from(input.arbitrary::<u8>()?);
    let payload = input.bytes(len.min(input.len()))?;
    let line = IrqLine::detached();
    match choice % 5 {
        0 => {
            let new = || Serial::new(line.clone(), Output::discard());
            let port = believed(new(), new(), payload)?;
            serial::drive(port, line.clone(), input)
        }
        1 => {
            let clock = Clock::default();
            let new = || Rtc::new(clock.clone());
            rtc::drive(believed(new(), new(), payload)?, &clock, input)
        }
        2 => i8042::drive(
            believed(I8042::default(), I8042::default(), payload)?,
            input,
        ),
        3 => {
            let pic = believed(
                Pic::new(line.clone()),
                Pic::new(IrqLine::detached()),
                payload,
            )?;
            pic::drive(pic, line, input)
        }
        _ => {
            let sink = ioapic::sink();
            let new = || Ioapic::new(sink.clone());
            ioapic::drive(believed(new(), new(), payload)?, &sink, input)
        }
    }
}

/// The device with the forged state, if it believes it: then the state can be saved and restored again.
fn believed<S>(mut device: S, mut fresh: S, payload: &[u8]) -> Result<S>
where
    S: Snapshot,
    S::State: PartialEq + Debug,
{
    if !saved::open_or_unchanged(&mut device, &saved::forge::<S>(payload)) {
        return Err(arbitrary::Error::IncorrectFormat);
    }
    // A state with something behind it is none.
    let longer = saved::forge::<S>(&[payload, &[0]].concat());
    assert!(!saved::open_or_unchanged(&mut fresh, &longer));
    saved::round_trip(&device, &mut fresh);
    Ok(device)
}
