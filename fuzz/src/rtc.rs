//! The real-time clock, under a wall clock that may jump anywhere.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arbitrary::{Result, Unstructured};
use goldcrest_bus::Device;
use goldcrest_chipset::rtc::{self, Rtc, WallClock};
use goldcrest_snapshot::Snapshot;

use crate::access::Access;
use crate::saved;

const REGISTER_B: u8 = 0x0b;
const SET: u8 = 1 << 7;
const DM_BINARY: u8 = 1 << 2;
const HOURS_24: u8 = 1 << 1;
const PM: u8 = 1 << 7;

/// A clock that stands until it is moved.
#[derive(Clone, Default)]
pub(crate) struct Clock(Arc<AtomicU64>);

impl WallClock for Clock {
    fn now_ns(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Runs the target.
pub fn run(data: &[u8]) {
    let clock = Clock::default();
    let _ = drive(
        Rtc::new(clock.clone()),
        &clock,
        &mut Unstructured::new(data),
    );
}

pub(crate) fn drive(
    mut rtc: Rtc<Clock>,
    clock: &Clock,
    input: &mut Unstructured<'_>,
) -> Result<()> {
    while !input.is_empty() {
        match input.arbitrary::<u8>()? {
            0xff => {
                let mut fresh = Rtc::new(clock.clone());
                saved::round_trip(&rtc, &mut fresh);
                rtc = fresh;
            }
            0xf8.. => clock.0.store(input.arbitrary()?, Ordering::Relaxed),
            0xf0.. => check_time(&mut rtc),
            _ => Access::take(input, rtc::LEN.into())?
                .apply(&mut rtc)
                .assert_goes_on(),
        }
    }
    check_time(&mut rtc);
    Ok(())
}

fn register(rtc: &mut Rtc<Clock>, register: u8) -> u8 {
    let _ = rtc.write(0, &[register]);
    let mut data = [0; 2];
    rtc.read(0, &mut data);
    assert_eq!(data[0], 0xff, "the index port is write-only");
    data[1]
}

/// While nobody sets the clock, its registers read as a time that exists, in the format of register B.
fn check_time(rtc: &mut Rtc<Clock>) {
    let index = rtc.save().index;
    let b = register(rtc, REGISTER_B);
    let number = |value: u8| {
        if b & DM_BINARY != 0 {
            return value;
        }
        assert!(value >> 4 < 10 && value & 0xf < 10, "{value:#x} is not BCD");
        10 * (value >> 4) + (value & 0xf)
    };
    if b & SET == 0 {
        for (at, values) in [
            (0, 0..=59),
            (2, 0..=59),
            (6, 1..=7),
            (7, 1..=31),
            (8, 1..=12),
            (9, 0..=99),
        ] {
            let value = number(register(rtc, at));
            assert!(values.contains(&value), "register {at} is {value}");
        }
        let hours = register(rtc, 4);
        if b & HOURS_24 != 0 {
            assert!(number(hours) < 24, "{hours:#x} hours");
        } else {
            assert!((1..=12).contains(&number(hours & !PM)), "{hours:#x} hours");
        }
    }
    assert_eq!(register(rtc, 0x0c), 0);
    assert_eq!(register(rtc, 0x0d), 0x80);
    let _ = rtc.write(0, &[index]);
}
