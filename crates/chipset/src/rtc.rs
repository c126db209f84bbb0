//! The real-time clock and its battery-backed RAM (Motorola MC146818A data sheet).
//!
//! Time is that of a [`WallClock`] plus what the guest has set the clock forward or back. Nothing ticks: registers are
//! computed when they are read. There are no alarms and no interrupts; their registers keep what is written to them.
//! The day of the week follows the date, whatever the guest writes there.

mod calendar;

use std::time::{SystemTime, UNIX_EPOCH};

use goldcrest_bus::{Device, Effect, Range};
use goldcrest_snapshot::{RestoreError, Snapshot};
use serde::{Deserialize, Serialize};

use calendar::DateTime;

/// The index port; the data port is the next.
pub const PORT: u16 = 0x70;
/// How many ports.
pub const LEN: u16 = 2;
/// Its place on the port bus.
pub const RANGE: Range = Range::ports(PORT, LEN);
/// The register with the century (FADT `CENTURY`), by convention.
pub const CENTURY: u8 = 0x32;
/// How many bytes of registers and RAM there are.
pub const SIZE: usize = 128;

/// The address map (data sheet, "Address map").
const SECONDS: u8 = 0x00;
const MINUTES: u8 = 0x02;
const HOURS: u8 = 0x04;
const DAY_OF_WEEK: u8 = 0x06;
const DATE_OF_MONTH: u8 = 0x07;
const MONTH: u8 = 0x08;
const YEAR: u8 = 0x09;
const REGISTER_A: u8 = 0x0a;
const REGISTER_B: u8 = 0x0b;
const REGISTER_C: u8 = 0x0c;
const REGISTER_D: u8 = 0x0d;
const TIME: [u8; 8] = [
    SECONDS,
    MINUTES,
    HOURS,
    DAY_OF_WEEK,
    DATE_OF_MONTH,
    MONTH,
    YEAR,
    CENTURY,
];

/// Register A: update in progress.
const UIP: u8 = 1 << 7;
/// Register A after reset, as firmware leaves it: 32.768 kHz, periodic rate 976.562 µs.
const REGISTER_A_DEFAULT: u8 = 0x26;
/// Register B: time is being set, updates do not happen; binary instead of BCD; 24 hours instead of 12.
const SET: u8 = 1 << 7;
const DM_BINARY: u8 = 1 << 2;
const HOURS_24: u8 = 1 << 1;
/// Register D: RAM and time are valid.
const VRT: u8 = 1 << 7;
/// Hours, in 12-hour mode.
const PM: u8 = 1 << 7;

/// How long before a second's end UIP is set (data sheet, "Update cycle").
const UPDATE_NS: u64 = 244_000;
const SECOND_NS: u64 = 1_000_000_000;

/// Where the time of day comes from.
pub trait WallClock: Send {
    /// Nanoseconds since 1970-01-01 00:00 UTC.
    fn now_ns(&self) -> u64;
}

/// The host's time of day.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl WallClock for SystemClock {
    fn now_ns(&self) -> u64 {
        let since = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
    }
}

/// A real-time clock.
#[derive(Debug)]
pub struct Rtc<C> {
    clock: C,
    index: u8,
    /// Seconds that the guest's time is ahead of `clock`.
    offset: i64,
    /// Control registers, alarms and RAM; and time, valid while SET is.
    ram: [u8; SIZE],
}

impl<C: WallClock> Rtc<C> {
    /// A clock with the time of `clock`, in BCD and 24 hours.
    pub const fn new(clock: C) -> Self {
        Self {
            clock,
            index: 0,
            offset: 0,
            ram: initial_ram(),
        }
    }

    fn read_register(&self, register: u8) -> u8 {
        let stored = self.stored(register);
        match register {
            REGISTER_A if self.is_updating() => stored | UIP,
            // The interrupt flags: nothing ever interrupts.
            REGISTER_C => 0,
            REGISTER_D => VRT,
            _ if TIME.contains(&register) && !self.is_being_set() => {
                self.encode(register, self.date_time())
            }
            _ => stored,
        }
    }

    fn write_register(&mut self, register: u8, value: u8) {
        match register {
            REGISTER_A => self.store(register, value & !UIP),
            REGISTER_B => self.write_register_b(value),
            REGISTER_C | REGISTER_D => {}
            _ if TIME.contains(&register) && !self.is_being_set() => {
                self.latch_time();
                self.store(register, value);
                self.take_time();
            }
            _ => self.store(register, value),
        }
    }

    /// SET freezes the time registers, and takes their time when it is cleared.
    fn write_register_b(&mut self, value: u8) {
        let was_set = self.is_being_set();
        if !was_set && value & SET != 0 {
            self.latch_time();
        }
        self.store(REGISTER_B, value);
        if was_set && value & SET == 0 {
            self.take_time();
        }
    }

    /// Writes the time into the registers.
    fn latch_time(&mut self) {
        let now = self.date_time();
        for register in TIME {
            let value = self.encode(register, now);
            self.store(register, value);
        }
    }

    /// Sets the clock to the time in the registers. One that does not exist leaves the clock alone.
    fn take_time(&mut self) {
        if let Some(seconds) = self.decode().and_then(DateTime::to_seconds) {
            self.offset = seconds.saturating_sub(self.clock_seconds());
        }
    }

    fn date_time(&self) -> DateTime {
        DateTime::from_seconds(self.clock_seconds().saturating_add(self.offset))
    }

    fn clock_seconds(&self) -> i64 {
        i64::try_from(self.clock.now_ns() / SECOND_NS).unwrap_or(i64::MAX)
    }

    fn is_being_set(&self) -> bool {
        self.stored(REGISTER_B) & SET != 0
    }

    fn is_updating(&self) -> bool {
        !self.is_being_set() && self.clock.now_ns() % SECOND_NS >= SECOND_NS - UPDATE_NS
    }

    /// A time register's value, in the format that register B asks for.
    fn encode(&self, register: u8, time: DateTime) -> u8 {
        let number = match register {
            SECONDS => time.second,
            MINUTES => time.minute,
            HOURS if self.has(HOURS_24) => time.hour,
            HOURS => (time.hour + 11) % 12 + 1,
            DAY_OF_WEEK => time.weekday,
            DATE_OF_MONTH => time.day,
            MONTH => time.month,
            YEAR => time.year % 100,
            _ => time.year / 100,
        };
        let number = u8::try_from(number).unwrap_or_default();
        let value = if self.has(DM_BINARY) {
            number
        } else {
            ((number / 10) << 4) | (number % 10)
        };
        let afternoon = register == HOURS && !self.has(HOURS_24) && time.hour >= 12;
        if afternoon { value | PM } else { value }
    }

    /// The time in the registers, if each holds a number.
    fn decode(&self) -> Option<DateTime> {
        Some(DateTime {
            year: 100 * self.number(self.stored(CENTURY))? + self.number(self.stored(YEAR))?,
            month: self.number(self.stored(MONTH))?,
            day: self.number(self.stored(DATE_OF_MONTH))?,
            weekday: 1,
            hour: self.hour(self.stored(HOURS))?,
            minute: self.number(self.stored(MINUTES))?,
            second: self.number(self.stored(SECONDS))?,
        })
    }

    fn hour(&self, value: u8) -> Option<i64> {
        if self.has(HOURS_24) {
            return self.number(value);
        }
        let hour = self.number(value & !PM)?;
        let afternoon = i64::from(value & PM != 0);
        (1..=12)
            .contains(&hour)
            .then_some(hour % 12 + 12 * afternoon)
    }

    fn number(&self, value: u8) -> Option<i64> {
        let (tens, ones) = (value >> 4, value & 0xf);
        if self.has(DM_BINARY) {
            Some(value.into())
        } else {
            (tens < 10 && ones < 10).then(|| i64::from(tens) * 10 + i64::from(ones))
        }
    }

    fn has(&self, register_b_bit: u8) -> bool {
        self.stored(REGISTER_B) & register_b_bit != 0
    }

    fn stored(&self, register: u8) -> u8 {
        self.ram.get(usize::from(register)).copied().unwrap_or(0xff)
    }

    fn store(&mut self, register: u8, value: u8) {
        if let Some(byte) = self.ram.get_mut(usize::from(register)) {
            *byte = value;
        }
    }
}

#[expect(clippy::indexing_slicing, reason = "constant indexes")]
const fn initial_ram() -> [u8; SIZE] {
    let mut ram = [0; SIZE];
    ram[REGISTER_A as usize] = REGISTER_A_DEFAULT;
    ram[REGISTER_B as usize] = HOURS_24;
    ram
}

/// Bit 7 of the index port masks NMIs and is not part of the index; the port reads all ones, as on PCs.
impl<C: WallClock> Device for Rtc<C> {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        data.fill(0xff);
        let data_at = 1_usize.saturating_sub(usize::try_from(offset).unwrap_or(usize::MAX));
        if offset < u64::from(LEN)
            && let Some(byte) = data.get_mut(data_at)
        {
            *byte = self.read_register(self.index);
        }
    }

    fn write(&mut self, offset: u64, data: &[u8]) -> Effect {
        for (port, &value) in (offset..u64::from(LEN)).zip(data) {
            match port {
                0 => self.index = value & 0x7f,
                _ => self.write_register(self.index, value),
            }
        }
        Effect::None
    }
}

/// What an [`Rtc`] keeps. The time of day is not part of it: it goes on while a machine is saved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RtcState {
    /// The selected register, below [`SIZE`].
    pub index: u8,
    /// Seconds that the guest's time is ahead of the wall clock's.
    pub offset: i64,
    /// [`SIZE`] bytes of registers and RAM.
    pub ram: Vec<u8>,
}

impl<C: WallClock> Snapshot for Rtc<C> {
    type State = RtcState;
    const KIND: &'static str = "rtc";
    const VERSION: u16 = 1;

    fn save(&self) -> RtcState {
        RtcState {
            index: self.index,
            offset: self.offset,
            ram: self.ram.to_vec(),
        }
    }

    fn restore(&mut self, state: RtcState) -> Result<(), RestoreError> {
        let refuse = |what, value, limit| RestoreError {
            kind: Self::KIND,
            what,
            value,
            limit,
        };
        if usize::from(state.index) >= SIZE {
            return Err(refuse("index", state.index.into(), "must be below 128"));
        }
        let len = u64::try_from(state.ram.len()).unwrap_or(u64::MAX);
        let ram: [u8; SIZE] = state
            .ram
            .try_into()
            .map_err(|_| refuse("RAM size", len, "must be 128"))?;
        let impossible = |register: u8, bits: u8| {
            ram.get(usize::from(register))
                .is_none_or(|value| value & bits != 0)
        };
        if impossible(REGISTER_A, UIP) {
            return Err(refuse("register A", UIP.into(), "has UIP"));
        }
        if impossible(REGISTER_C, 0xff) || impossible(REGISTER_D, 0xff) {
            return Err(refuse("register C or D", 1, "must be 0 as stored"));
        }
        self.index = state.index;
        self.offset = state.offset;
        self.ram = ram;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
