//! The I/O APIC: interrupt lines in, messages to local APICs out (Intel 82093AA data sheet, 290566).
//!
//! Version 0x20, whose EOI register lets operating systems end an interrupt without a broadcast.
//!
//! ```
//! use std::sync::{Arc, Mutex};
//! use goldcrest_bus::Device;
//! use goldcrest_irq::{Ioapic, Msi, MsiSink};
//!
//! #[derive(Default)]
//! struct Log(Mutex<Vec<Msi>>);
//! impl MsiSink for Log {
//!     fn signal(&self, message: Msi) {
//!         self.0.lock().unwrap().push(message);
//!     }
//! }
//!
//! let log = Arc::new(Log::default());
//! let mut ioapic = Ioapic::new(log.clone());
//! let line = ioapic.line(4);
//!
//! // A guest selects the low half of pin 4's entry and writes vector 0x31: unmasked, edge-triggered.
//! let _ = ioapic.write(0x00, &0x18_u32.to_le_bytes());
//! let _ = ioapic.write(0x10, &0x31_u32.to_le_bytes());
//! line.pulse();
//! assert_eq!(log.0.lock().unwrap()[0].data, 0x31);
//! ```

mod entry;

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use goldcrest_bus::{Device, Effect};
use goldcrest_snapshot::{RestoreError, Snapshot};
use serde::{Deserialize, Serialize};

use crate::wire::Wire;
use crate::{IrqLine, LineSink, Msi, MsiSink};
use entry::RedirectionEntry;

/// The guest-physical address where PCs have their first IOAPIC.
pub const ADDRESS: u64 = 0xfec0_0000;
/// How many bytes of addresses it takes.
pub const LEN: u64 = 0x1000;
/// How many interrupt inputs there are.
pub const PINS: usize = 24;

/// §3.1: offsets of the memory-mapped registers; the EOI register came with version 0x20 (ICH data sheets, "EOIR").
const IOREGSEL: u64 = 0x00;
const IOWIN: u64 = 0x10;
const EOIR: u64 = 0x40;
/// §3.2: what [`IOREGSEL`] selects.
const IOAPICID: u8 = 0x00;
const IOAPICVER: u8 = 0x01;
const IOAPICARB: u8 = 0x02;
const IOREDTBL: u8 = 0x10;

/// Version 0x20; the highest redirection entry in bits 23:16.
const VERSION: u32 = 0x0017_0020;
const _: () = assert!((VERSION >> 16) as usize + 1 == PINS);
const ID_SHIFT: u32 = 24;
const ID_MASK: u8 = 0xf;

/// An IOAPIC. Clones are handles to the same one.
///
/// Lines are logical: asserted or not. An entry's polarity bit is kept and otherwise ignored. Only 32-bit accesses
/// reach the window register; what is not a register reads 0.
///
/// The [`MsiSink`] is called with the IOAPIC locked, so it must not call back.
#[derive(Clone)]
pub struct Ioapic(Arc<Shared>);

struct Shared(Mutex<Registers>);

struct Registers {
    sink: Arc<dyn MsiSink>,
    id: u8,
    ioregsel: u8,
    pins: [Pin; PINS],
}

#[derive(Clone, Copy)]
struct Pin {
    entry: RedirectionEntry,
    line: Wire,
    /// What the sink was last asked to watch.
    watched: Option<Msi>,
}

impl Ioapic {
    /// An IOAPIC after reset, all pins masked, that sends to `sink`.
    pub fn new(sink: Arc<dyn MsiSink>) -> Self {
        const RESET: Pin = Pin {
            entry: RedirectionEntry::RESET,
            line: Wire::DOWN,
            watched: None,
        };
        Self(Arc::new(Shared(Mutex::new(Registers {
            sink,
            id: 0,
            ioregsel: 0,
            pins: [RESET; PINS],
        }))))
    }

    /// A new source on input `pin`. A pin that does not exist is connected to nothing.
    pub fn line(&self, pin: u32) -> IrqLine {
        IrqLine::new(self.lines(), pin)
    }

    /// The inputs, for sharing lines with other controllers.
    pub fn lines(&self) -> Arc<dyn LineSink> {
        self.0.clone()
    }

    /// Tells of the end of interrupt `vector` on some local APIC (the broadcast EOI message; under KVM,
    /// `KVM_EXIT_IOAPIC_EOI`). Level-triggered lines that are still asserted interrupt again.
    pub fn end_of_interrupt(&self, vector: u8) {
        self.0.lock().end_of_interrupt(vector);
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Registers> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl LineSink for Shared {
    fn set_source(&self, pin: u32, up: bool) {
        let mut registers = self.lock();
        let Registers { sink, pins, .. } = &mut *registers;
        if let Some(pin) = usize::try_from(pin).ok().and_then(|pin| pins.get_mut(pin)) {
            pin.set_source(up, sink.as_ref());
        }
    }
}

impl Pin {
    fn set_source(&mut self, up: bool, sink: &dyn MsiSink) {
        if !self.line.set_source(up) {
            return;
        }
        if self.entry.is_level() {
            self.serve_level(sink);
        } else if !self.entry.is_masked() {
            // §3.2.4: an edge on a masked pin is lost.
            sink.signal(self.entry.message());
        }
    }

    /// Sends a level-triggered interrupt that is due: asserted, not masked, and its predecessor ended.
    fn serve_level(&mut self, sink: &dyn MsiSink) {
        let entry = self.entry;
        if entry.is_level() && self.line.is_up() && !entry.is_masked() && !entry.remote_irr() {
            self.entry = entry.with_remote_irr(true);
            sink.signal(entry.message());
        }
    }

    /// Asks the sink to watch for this pin's ends of interrupt, if what it should watch has changed.
    ///
    /// Changes are expensive (under KVM, a new routing table). So masking changes nothing, which is also right: the
    /// end of an interrupt that is being served must be seen behind the mask. Handlers mask and unmask around every
    /// interrupt.
    fn update_watch(&mut self, number: usize, sink: &dyn MsiSink) {
        let wanted = match self.entry {
            entry if !entry.is_level() => None,
            entry if entry.is_masked() => self.watched,
            entry => Some(entry.message()),
        };
        self.watch(number, wanted, sink);
    }

    fn watch(&mut self, number: usize, wanted: Option<Msi>, sink: &dyn MsiSink) {
        if self.watched != wanted {
            self.watched = wanted;
            sink.watch_eoi(u32::try_from(number).unwrap_or(u32::MAX), wanted);
        }
    }
}

impl Registers {
    fn read_window(&self) -> u32 {
        match self.ioregsel {
            // The arbitration ID is the ID until a bus arbitrates, and there is none.
            IOAPICID | IOAPICARB => u32::from(self.id) << ID_SHIFT,
            IOAPICVER => VERSION,
            register => match self.pins.get(pin_of(register)) {
                Some(pin) => half(pin.entry.bits(), register),
                None => 0,
            },
        }
    }

    fn write_window(&mut self, value: u32) {
        let register = self.ioregsel;
        if register == IOAPICID {
            let [.., id] = value.to_le_bytes();
            self.id = id & ID_MASK;
            return;
        }
        let number = pin_of(register);
        if let Some(pin) = self.pins.get_mut(number) {
            let shift = half_shift(register);
            let select = u64::from(u32::MAX) << shift;
            pin.entry = pin.entry.written(u64::from(value) << shift, select);
            // First the watch: the end of what is sent next must not be missed.
            pin.update_watch(number, self.sink.as_ref());
            pin.serve_level(self.sink.as_ref());
        }
    }

    fn end_of_interrupt(&mut self, vector: u8) {
        for pin in &mut self.pins {
            if pin.entry.remote_irr() && pin.entry.has_vector(vector) {
                pin.entry = pin.entry.with_remote_irr(false);
                pin.serve_level(self.sink.as_ref());
            }
        }
    }
}

/// The pin whose redirection entry the register is half of; not a pin's number for other registers.
fn pin_of(register: u8) -> usize {
    match register.checked_sub(IOREDTBL) {
        Some(index) => usize::from(index / 2),
        None => usize::MAX,
    }
}

/// Redirection registers are in pairs, low half first.
fn half_shift(register: u8) -> u32 {
    u32::from(register % 2) * 32
}

fn half(bits: u64, register: u8) -> u32 {
    u32::try_from((bits >> half_shift(register)) & u64::from(u32::MAX)).unwrap_or_default()
}

impl Device for Ioapic {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        let registers = self.0.lock();
        let value = match offset {
            IOREGSEL => registers.ioregsel.into(),
            IOWIN => registers.read_window(),
            _ => 0,
        };
        data.fill(0);
        for (byte, value) in data.iter_mut().zip(value.to_le_bytes()) {
            *byte = value;
        }
    }

    fn write(&mut self, offset: u64, data: &[u8]) -> Effect {
        let mut registers = self.0.lock();
        match (offset, data) {
            (IOREGSEL, [register, ..]) => registers.ioregsel = *register,
            (IOWIN, &[a, b, c, d]) => registers.write_window(u32::from_le_bytes([a, b, c, d])),
            (EOIR, [vector, ..]) => registers.end_of_interrupt(*vector),
            _ => {}
        }
        Effect::None
    }
}

impl fmt::Debug for Ioapic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Ioapic").field(&self.save()).finish()
    }
}

/// The registers of an [`Ioapic`]; the default is that after reset.
///
/// The lines' levels are not part of it: they belong to the devices.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IoapicState {
    /// The ID register's ID, 0 to 15.
    pub id: u8,
    /// The selected register.
    pub ioregsel: u8,
    /// The redirection table.
    pub redirection_table: [u64; PINS],
}

impl Default for IoapicState {
    fn default() -> Self {
        Self {
            id: 0,
            ioregsel: 0,
            redirection_table: [RedirectionEntry::RESET.bits(); PINS],
        }
    }
}

impl Snapshot for Ioapic {
    type State = IoapicState;
    const KIND: &'static str = "ioapic";
    const VERSION: u16 = 1;

    fn save(&self) -> IoapicState {
        let registers = self.0.lock();
        IoapicState {
            id: registers.id,
            ioregsel: registers.ioregsel,
            redirection_table: registers.pins.map(|pin| pin.entry.bits()),
        }
    }

    /// Devices are best restored before: their lines' edges then fall on masked pins, as they are in a new IOAPIC, and
    /// do not interrupt the guest a second time. Asserted level-triggered lines are served here.
    fn restore(&mut self, state: IoapicState) -> Result<(), RestoreError> {
        let refuse = |what, value, limit| RestoreError {
            kind: Self::KIND,
            what,
            value,
            limit,
        };
        if state.id > ID_MASK {
            return Err(refuse("ID", state.id.into(), "must be below 16"));
        }
        let mut entries = [RedirectionEntry::RESET; PINS];
        for (entry, bits) in entries.iter_mut().zip(state.redirection_table) {
            *entry = RedirectionEntry::from_bits(bits)
                .ok_or_else(|| refuse("redirection entry", bits, "has impossible bits"))?;
        }

        let mut registers = self.0.lock();
        let Registers { sink, pins, .. } = &mut *registers;
        for (number, (pin, entry)) in pins.iter_mut().zip(entries).enumerate() {
            pin.entry = entry;
            let ends = entry.remote_irr() || (entry.is_level() && !entry.is_masked());
            pin.watch(number, ends.then(|| entry.message()), sink.as_ref());
            pin.serve_level(sink.as_ref());
        }
        registers.id = state.id;
        registers.ioregsel = state.ioregsel;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
