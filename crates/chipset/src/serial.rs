//! The serial port: a 16550A (National Semiconductor PC16550D data sheet), on vm-superio's model of the registers.
//!
//! What this file adds is the interrupt line and the flow of input. vm-superio announces an interrupt by a trigger, as
//! suits an eventfd, and forgets it when IIR is read. Here a trigger makes an edge, and line and IIR then follow what
//! is pending and enabled (§8.6): received data until the guest has read all of it, an empty transmitter until IIR has
//! said so. Guests that use the pin edge-triggered (the ISA way) and level-triggered are both served.
//!
//! Each output byte is one write to the [`Output`]; nothing is held back. FIFO control (FCR) is ignored: the FIFOs are
//! always on, and resetting them does not throw input away.

use std::convert::Infallible;
use std::fmt;
use std::io;

use goldcrest_bus::{Device, Effect, Range};
use goldcrest_irq::IrqLine;
use goldcrest_snapshot::{RestoreError, Snapshot};
use serde::{Deserialize, Serialize};
use vm_superio::Trigger;
use vm_superio::serial::{Error, NoEvents, Serial as Registers, SerialState as Superio};

use crate::Output;

/// The first port of COM1, whose interrupt is ISA IRQ 4.
pub const PORT: u16 = 0x3f8;
/// How many ports a serial port takes.
pub const LEN: u16 = 8;
/// Its place on the port bus.
pub const RANGE: Range = Range::ports(PORT, LEN);
/// COM1's ISA interrupt.
pub const IRQ: u32 = 4;
/// How many input bytes fit.
pub const FIFO_SIZE: usize = 64;

/// Register offsets (§8.0, Table II).
const THR: u8 = 0;
const IIR: u8 = 2;
const MCR: u8 = 4;
const LSR: u8 = 5;
/// Interrupt enable: received data available, transmitter holding register empty (§8.5).
const IER_RDA: u8 = 1 << 0;
const IER_THRE: u8 = 1 << 1;
/// A guest that sends finds the transmitter empty at once; one that reads line status so often in a row waits for input.
const POLLS: u8 = 16;
/// The interrupts that IER can enable, all in all.
const IER_MASK: u8 = 0b1111;
/// Interrupt identification (§8.6): none, and a bit each for what vm-superio can have pending.
const IIR_NONE: u8 = 1 << 0;
const IIR_THRE: u8 = 1 << 1;
const IIR_RDA: u8 = 1 << 2;
/// FIFOs enabled.
const IIR_FIFO: u8 = 0b1100_0000;
/// Modem control (§8.7): OUT2, which lets interrupts out on a PC, and loopback.
const MCR_OUT2: u8 = 1 << 3;
const MCR_LOOP: u8 = 1 << 4;
/// Line status (§8.4): data ready; the transmitter is always empty.
const LSR_DATA_READY: u8 = 1 << 0;
const LSR_TRANSMITTER_EMPTY: u8 = 0b0110_0000;

/// vm-superio's trigger as an edge on the line.
#[derive(Clone)]
struct Edge(IrqLine);

impl Trigger for Edge {
    type E = Infallible;

    fn trigger(&self) -> Result<(), Infallible> {
        self.0.set(false);
        self.0.set(true);
        Ok(())
    }
}

struct Pending {
    received_data: bool,
    transmitter_empty: bool,
}

/// A serial port.
pub struct Serial {
    registers: Registers<Edge, NoEvents, Output>,
    line: IrqLine,
    output: Output,
    ready: Option<Box<dyn FnMut() + Send>>,
    /// Input was refused, or would be next, or there has been none: `ready` is owed.
    input_waits: bool,
    /// How often line status was read since the guest last sent anything, up to [`POLLS`].
    polls: u8,
}

impl Serial {
    /// A serial port after reset, with its interrupt on `line`.
    pub fn new(line: IrqLine, output: Output) -> Self {
        Self {
            registers: Registers::new(Edge(line.clone()), output.clone()),
            line,
            output,
            ready: None,
            input_waits: true,
            polls: 0,
        }
    }

    /// Has `callback` called when the port would take input again (or for the first time): once after each
    /// [`enqueue`](Self::enqueue) that filled it or was refused, so that a guest cannot wake the host at will.
    ///
    /// It runs with the device locked, so it must not call into it; it should wake whoever feeds the input.
    pub fn on_ready(&mut self, callback: impl FnMut() + Send + 'static) {
        self.ready = Some(Box::new(callback));
    }

    /// Gives the guest input. Returns how many bytes of it fitted, from the first.
    ///
    /// None do while nobody listens: the guest has not enabled the interrupt for received data and does not poll for
    /// it either. A driver that takes the port over throws away what has arrived before.
    pub fn enqueue(&mut self, input: &[u8]) -> usize {
        let taken = if self.accepts_input() {
            self.registers.enqueue_raw_bytes(input).unwrap_or(0)
        } else {
            0
        };
        self.input_waits = taken < input.len() || self.registers.fifo_capacity() == 0;
        self.update_line();
        taken
    }

    /// How many bytes [`enqueue`](Self::enqueue) would take now.
    pub fn capacity(&mut self) -> usize {
        if self.accepts_input() {
            self.registers.fifo_capacity()
        } else {
            0
        }
    }

    /// Has [`on_ready`](Self::on_ready)'s callback called if input is owed: after a port was restored whose guest listens,
    /// and does nothing else.
    pub fn look_for_input(&mut self) {
        self.tell_ready();
    }

    fn write_register(&mut self, register: u8, value: u8) -> Result<(), io::Error> {
        if register == THR {
            self.polls = 0;
        }
        let result = self.registers.write(register, value);
        self.update_line();
        // The guest may have begun to listen.
        self.tell_ready();
        match result {
            Err(Error::IOError(error)) => Err(error),
            _ => Ok(()),
        }
    }

    fn read_register(&mut self, register: u8) -> u8 {
        if register == LSR {
            self.polls = self.polls.saturating_add(1).min(POLLS);
        }
        let value = if register == IIR {
            self.read_iir()
        } else {
            self.registers.read(register)
        };
        self.update_line();
        self.tell_ready();
        value
    }

    /// The pending interrupt of the highest priority. Received data outranks an empty transmitter, which reading
    /// acknowledges only if it is what is read (Table III).
    fn read_iir(&mut self) -> u8 {
        let pending = self.pending();
        if pending.received_data {
            IIR_FIFO | IIR_RDA
        } else if pending.transmitter_empty {
            self.registers.read(IIR);
            IIR_FIFO | IIR_THRE
        } else {
            IIR_FIFO | IIR_NONE
        }
    }

    /// The interrupts that are pending and enabled.
    fn pending(&self) -> Pending {
        let state = self.registers.state();
        Pending {
            received_data: state.interrupt_enable & IER_RDA != 0
                && state.line_status & LSR_DATA_READY != 0,
            transmitter_empty: state.interrupt_enable & IER_THRE != 0
                && state.interrupt_identification & IIR_THRE != 0,
        }
    }

    fn update_line(&self) {
        let pending = self.pending();
        self.line
            .set(pending.received_data || pending.transmitter_empty);
    }

    fn tell_ready(&mut self) {
        if self.input_waits && self.registers.fifo_capacity() == FIFO_SIZE && self.accepts_input() {
            self.input_waits = false;
            if let Some(ready) = &mut self.ready {
                ready();
            }
        }
    }

    /// Whether the guest listens, and not to itself. A driver that probes enables all interrupts without letting them
    /// out (OUT2 off), and throws away what it reads then.
    fn accepts_input(&mut self) -> bool {
        let enabled = self.registers.state().interrupt_enable & IER_MASK;
        let mcr = self.registers.read(MCR);
        let probes = enabled == IER_MASK && mcr & MCR_OUT2 == 0;
        let listens = enabled & IER_RDA != 0 && !probes;
        (listens || self.polls == POLLS) && mcr & MCR_LOOP == 0
    }
}

impl fmt::Debug for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Serial")
            .field("state", &self.registers.state())
            .field("input_waits", &self.input_waits)
            .finish_non_exhaustive()
    }
}

/// The registers at `offset` and on, each with the byte of `data` that an access reaches it with: an ISA bus cuts wide
/// accesses into bytes.
fn registers_from(offset: u64) -> impl Iterator<Item = u8> {
    let first = u8::try_from(offset).unwrap_or(u8::MAX);
    (first..).take_while(|register| u16::from(*register) < LEN)
}

impl Device for Serial {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        for (register, byte) in registers_from(offset).zip(data) {
            *byte = self.read_register(register);
        }
    }

    fn write(&mut self, offset: u64, data: &[u8]) -> Effect {
        let mut effect = Effect::None;
        for (register, &byte) in registers_from(offset).zip(data) {
            if let Err(error) = self.write_register(register, byte) {
                effect = Effect::HostFailed(error);
            }
        }
        effect
    }
}

/// The registers of a [`Serial`], by their names in the data sheet, and the input that the guest has not read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the names are the data sheet's")]
pub struct SerialState {
    pub divisor_latch: [u8; 2],
    pub ier: u8,
    pub iir: u8,
    pub lcr: u8,
    pub lsr: u8,
    pub mcr: u8,
    pub msr: u8,
    pub scr: u8,
    pub fifo: Vec<u8>,
    /// How often line status was read in a row.
    pub polls: u8,
}

impl SerialState {
    fn check(&self) -> Result<(), RestoreError> {
        let pending = self.iir & (IIR_THRE | IIR_RDA);
        let iir_possible = self.iir == IIR_NONE || (pending != 0 && pending == self.iir);
        let lsr = if self.fifo.is_empty() {
            LSR_TRANSMITTER_EMPTY
        } else {
            LSR_TRANSMITTER_EMPTY | LSR_DATA_READY
        };
        let checks = [
            ("IER", self.ier, self.ier <= IER_MASK, "has reserved bits"),
            ("IIR", self.iir, iir_possible, "not an identification"),
            ("LSR", self.lsr, self.lsr == lsr, "does not fit the FIFO"),
            ("polls", self.polls, self.polls <= POLLS, "counts to 16"),
        ];
        for (what, value, holds, limit) in checks {
            if !holds {
                return Err(refuse(what, value.into(), limit));
            }
        }
        Ok(())
    }
}

fn refuse(what: &'static str, value: u64, limit: &'static str) -> RestoreError {
    RestoreError {
        kind: Serial::KIND,
        what,
        value,
        limit,
    }
}

impl Snapshot for Serial {
    type State = SerialState;
    const KIND: &'static str = "serial";
    const VERSION: u16 = 1;

    fn save(&self) -> SerialState {
        let state = self.registers.state();
        SerialState {
            divisor_latch: [state.baud_divisor_low, state.baud_divisor_high],
            ier: state.interrupt_enable,
            iir: state.interrupt_identification,
            lcr: state.line_control,
            lsr: state.line_status,
            mcr: state.modem_control,
            msr: state.modem_status,
            scr: state.scratch,
            fifo: state.in_buffer,
            polls: self.polls,
        }
    }

    /// Also raises the line, if an interrupt is pending. Input that the host had not yet handed over is not part of
    /// the state: `ready` is called when the guest has read what is.
    fn restore(&mut self, state: SerialState) -> Result<(), RestoreError> {
        state.check()?;
        let [baud_divisor_low, baud_divisor_high] = state.divisor_latch;
        let len = u64::try_from(state.fifo.len()).unwrap_or(u64::MAX);
        let polls = state.polls;
        let state = Superio {
            baud_divisor_low,
            baud_divisor_high,
            interrupt_enable: state.ier,
            interrupt_identification: state.iir,
            line_control: state.lcr,
            line_status: state.lsr,
            modem_control: state.mcr,
            modem_status: state.msr,
            scratch: state.scr,
            in_buffer: state.fifo,
        };
        self.registers = Registers::from_state(
            &state,
            Edge(self.line.clone()),
            NoEvents,
            self.output.clone(),
        )
        .map_err(|_| refuse("FIFO length", len, "must be at most 64"))?;
        self.polls = polls;
        self.input_waits = true;
        self.update_line();
        Ok(())
    }
}

#[cfg(test)]
mod tests;
