//! The clock as operating systems read and set it.

use super::*;
use goldcrest_snapshot::{open, seal};
use proptest::prelude::*;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

#[derive(Debug, Clone, Default)]
struct TestClock(Arc<AtomicU64>);

impl WallClock for TestClock {
    fn now_ns(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// 2024-02-29 13:45:59, a Thursday.
const LEAP_DAY: u64 = 1_709_214_359;

struct Machine {
    rtc: Rtc<TestClock>,
    clock: TestClock,
}

impl Machine {
    fn at(seconds: u64) -> Self {
        let clock = TestClock::default();
        let machine = Self {
            rtc: Rtc::new(clock.clone()),
            clock,
        };
        machine.advance(seconds * SECOND_NS);
        machine
    }

    fn advance(&self, ns: u64) {
        self.clock.0.fetch_add(ns, Ordering::Relaxed);
    }

    fn get(&mut self, register: u8) -> u8 {
        let _ = self.rtc.write(0, &[register]);
        let mut data = [0];
        self.rtc.read(1, &mut data);
        data[0]
    }

    fn set(&mut self, register: u8, value: u8) {
        let _ = self.rtc.write(0, &[register]);
        let _ = self.rtc.write(1, &[value]);
    }

    fn time(&mut self) -> [u8; 8] {
        TIME.map(|register| self.get(register))
    }

    fn set_time(&mut self, values: [u8; 8]) {
        let b = self.get(REGISTER_B);
        self.set(REGISTER_B, b | SET);
        for (register, value) in TIME.into_iter().zip(values) {
            self.set(register, value);
        }
        self.set(REGISTER_B, b);
    }
}

#[test]
fn time_in_all_formats() {
    let mut m = Machine::at(LEAP_DAY);
    assert_eq!(m.get(REGISTER_B), HOURS_24);
    assert_eq!(m.time(), [0x59, 0x45, 0x13, 5, 0x29, 2, 0x24, 0x20]);
    m.set(REGISTER_B, HOURS_24 | DM_BINARY);
    assert_eq!(m.time(), [59, 45, 13, 5, 29, 2, 24, 20]);
    m.set(REGISTER_B, DM_BINARY);
    assert_eq!(m.time()[2], 1 | PM);
    m.set(REGISTER_B, 0);
    assert_eq!(m.time()[2], 0x01 | PM);
    // Noon is 12 PM, midnight 12 AM.
    m.advance(SECOND_NS * 60 * 60 * 11);
    assert_eq!(m.time()[2], 0x12);
    m.advance(SECOND_NS * 60 * 60 * 12);
    assert_eq!(m.time()[2], 0x12 | PM);
}

#[test]
fn register_a_update_in_progress_warns_of_the_next_second() {
    let mut m = Machine::at(LEAP_DAY);
    assert_eq!(m.get(REGISTER_A), REGISTER_A_DEFAULT);
    m.advance(SECOND_NS - UPDATE_NS - 1);
    assert_eq!(m.get(REGISTER_A) & UIP, 0);
    m.advance(1);
    assert_eq!(m.get(REGISTER_A) & UIP, UIP);
    assert_eq!(m.get(SECONDS), 0x59);
    m.set(REGISTER_B, SET | HOURS_24);
    assert_eq!(m.get(REGISTER_A) & UIP, 0);
    m.set(REGISTER_B, HOURS_24);
    m.advance(UPDATE_NS);
    assert_eq!((m.get(REGISTER_A) & UIP, m.get(SECONDS)), (0, 0));
    m.set(REGISTER_A, 0xff);
    assert_eq!(m.get(REGISTER_A), 0x7f);
}

#[test]
fn register_b_set_freezes_and_then_starts_the_clock() {
    let mut m = Machine::at(LEAP_DAY);
    m.set(REGISTER_B, SET | HOURS_24);
    m.advance(5 * SECOND_NS);
    assert_eq!(m.get(SECONDS), 0x59);
    m.set(SECONDS, 0x10);
    m.set(YEAR, 0x28);
    m.advance(5 * SECOND_NS);
    m.set(REGISTER_B, HOURS_24);
    // The weekday follows the date: 2028-02-29 is a Tuesday.
    assert_eq!(m.time(), [0x10, 0x45, 0x13, 3, 0x29, 2, 0x28, 0x20]);
    m.advance(SECOND_NS);
    assert_eq!(m.get(SECONDS), 0x11);
}

#[test]
fn a_register_can_be_set_while_the_clock_runs() {
    let mut m = Machine::at(LEAP_DAY);
    m.set(MINUTES, 0x07);
    assert_eq!(m.time()[..3], [0x59, 0x07, 0x13]);
    m.advance(SECOND_NS);
    assert_eq!(m.time()[..3], [0x00, 0x08, 0x13]);
}

#[test]
fn a_time_that_does_not_exist_is_not_taken() {
    let mut m = Machine::at(LEAP_DAY);
    let before = m.time();
    for bad in [
        [0x59, 0x45, 0x13, 5, 0x30, 2, 0x24, 0x20],
        [0x5a, 0x45, 0x13, 5, 0x29, 2, 0x24, 0x20],
        [0x59, 0x45, 0x24, 5, 0x29, 2, 0x24, 0x20],
        [0xff; 8],
        [0; 8],
    ] {
        m.set_time(bad);
        assert_eq!(m.time(), before);
    }
}

#[test]
fn registers_c_and_d_are_read_only() {
    let mut m = Machine::at(0);
    m.set(REGISTER_C, 0xff);
    m.set(REGISTER_D, 0);
    assert_eq!((m.get(REGISTER_C), m.get(REGISTER_D)), (0, VRT));
}

#[test]
fn ram_and_the_index_ports_bit_7() {
    let mut m = Machine::at(0);
    for register in (0x0e..=0x7f).filter(|r| *r != CENTURY) {
        m.set(register, register ^ 0x5a);
    }
    for register in (0x0e..=0x7f).filter(|r| *r != CENTURY) {
        assert_eq!(m.get(register | 0x80), register ^ 0x5a);
    }
    let mut data = [0; 1];
    m.rtc.read(0, &mut data);
    assert_eq!(data, [0xff]);
    // Both ports at once.
    let _ = m.rtc.write(0, &[0x40, 0x11]);
    let mut data = [0; 2];
    m.rtc.read(0, &mut data);
    assert_eq!(data, [0xff, 0x11]);
}

#[test]
fn saved_offset_and_ram_come_back_and_time_goes_on() {
    let mut m = Machine::at(LEAP_DAY);
    m.set_time([0, 0, 0, 1, 1, 1, 0, 0x30]);
    m.set(0x50, 7);
    let bytes = seal(&m.rtc).unwrap();
    let mut n = Machine::at(LEAP_DAY + 61);
    open(&mut n.rtc, &bytes).unwrap();
    assert_eq!(n.time(), [1, 1, 0, 4, 1, 1, 0, 0x30]);
    assert_eq!(n.get(0x50), 7);
}

#[test]
fn impossible_states_are_refused() {
    let good = Machine::at(0).rtc.save();
    let ram = |register: u8, value| {
        let mut state = good.clone();
        state.ram[usize::from(register)] = value;
        state
    };
    for state in [
        RtcState {
            index: 0x80,
            ..good.clone()
        },
        RtcState {
            ram: vec![0; 127],
            ..good.clone()
        },
        RtcState {
            ram: vec![0; 129],
            ..good.clone()
        },
        ram(REGISTER_A, 0x80),
        ram(REGISTER_C, 1),
        ram(REGISTER_D, VRT),
    ] {
        let mut m = Machine::at(0);
        assert!(m.rtc.restore(state).is_err());
        assert_eq!(m.rtc.save(), good);
    }
}

proptest! {
    /// Whatever a driver sets, it reads back, in each of the four formats.
    #[test]
    fn what_is_set_is_read(
        seconds in calendar::FIRST..=calendar::LAST,
        format in prop::sample::select(vec![0, HOURS_24, DM_BINARY, HOURS_24 | DM_BINARY]),
        now in 0..u64::MAX / 2,
    ) {
        let mut source = Machine::at(0);
        source.set(REGISTER_B, format);
        let wanted = DateTime::from_seconds(seconds);
        let values = TIME.map(|register| source.rtc.encode(register, wanted));

        let mut m = Machine::at(0);
        m.advance(now / SECOND_NS * SECOND_NS);
        m.set(REGISTER_B, format);
        m.set_time(values);
        prop_assert_eq!(m.time(), values);
    }

    #[test]
    fn any_access_is_harmless_and_can_be_restored(
        accesses in prop::collection::vec(
            (0_u64..4, prop::collection::vec(any::<u8>(), 0..9), any::<u32>()), 0..60),
        offset: i64,
    ) {
        let mut m = Machine::at(LEAP_DAY);
        m.rtc.offset = offset;
        for (at, mut data, ns) in accesses {
            let _ = m.rtc.write(at, &data);
            m.rtc.read(at, &mut data);
            m.advance(ns.into());
        }
        let state = m.rtc.save();
        let mut n = Machine::at(0);
        n.rtc.restore(state.clone()).unwrap();
        prop_assert_eq!(n.rtc.save(), state);
    }
}
