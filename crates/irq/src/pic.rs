//! The pair of 8259A interrupt controllers of a PC (Intel data sheet 231468), with the edge/level control register of
//! later chip sets (82371AB data sheet §4.1.4).
//!
//! The 8259s have an output pin instead of messages: [`Pic`] drives an [`IrqLine`] with it, and who takes the interrupt
//! asks [`Pic::acknowledge`] for the vector. An edge is latched until it is acknowledged, also if the line has fallen
//! again.
//!
//! ```
//! use goldcrest_bus::Device;
//! use goldcrest_irq::{IrqLine, Pic};
//!
//! let intr = IrqLine::detached();
//! let pic = Pic::new(intr.clone());
//! let [master, ..] = pic.ports();
//! let (_port, mut master) = master;
//!
//! // Vectors from 0x30 (ICW1 to ICW4), and all inputs but 4 masked.
//! let _ = master.write(0, &[0x11]);
//! for value in [0x30, 0x04, 0x01, !0x10] {
//!     let _ = master.write(1, &[value]);
//! }
//! pic.line(4).pulse();
//! assert!(intr.level());
//! assert_eq!(pic.acknowledge(), 0x34);
//! assert!(!intr.level());
//! ```

mod chip;

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use goldcrest_bus::{Device, Effect};
use goldcrest_snapshot::{RestoreError, Snapshot};
use serde::{Deserialize, Serialize};

use crate::wire::Wire;
use crate::{IrqLine, LineSink};
use chip::{CASCADE, Chip};
pub use chip::{ChipState, Init};

/// The master's command port; its data port is the next.
pub const MASTER: u16 = 0x20;
/// The slave's command port; its data port is the next.
pub const SLAVE: u16 = 0xa0;
/// The edge/level control registers, the master's first.
pub const ELCR: u16 = 0x4d0;
/// How many ports there are at each of the three.
pub const LEN: u16 = 2;
/// How many interrupt inputs there are; the slave's begin at 8.
pub const PINS: usize = 16;

/// The inputs that can be level-triggered: not timer, keyboard, cascade, clock and coprocessor.
const MASTER_ELCR: u8 = 0xf8;
const SLAVE_ELCR: u8 = 0xde;

/// The pair of 8259As. Clones are handles to the same one.
///
/// The output line's sink is called with the pair locked, so it must not call back.
#[derive(Clone)]
pub struct Pic(Arc<Shared>);

struct Shared(Mutex<Pair>);

struct Pair {
    master: Chip,
    slave: Chip,
    wires: [Wire; PINS],
    intr: IrqLine,
}

impl Pic {
    /// A pair as firmware leaves it, all inputs masked, with its output on `intr`.
    pub fn new(intr: IrqLine) -> Self {
        Self(Arc::new(Shared(Mutex::new(Pair {
            master: Chip::new(true, MASTER_ELCR),
            slave: Chip::new(false, SLAVE_ELCR),
            wires: [Wire::DOWN; PINS],
            intr,
        }))))
    }

    /// A new source on input `pin`. Input 2, the cascade, and those that do not exist are connected to nothing.
    pub fn line(&self, pin: u32) -> IrqLine {
        IrqLine::new(self.lines(), pin)
    }

    /// The inputs, for sharing lines with other controllers.
    pub fn lines(&self) -> Arc<dyn LineSink> {
        self.0.clone()
    }

    /// The three groups of ports, each with its first port; each is [`LEN`] long.
    pub fn ports(&self) -> [(u16, PicPorts); 3] {
        [MASTER, SLAVE, ELCR].map(|first| {
            let pic = self.clone();
            (first, PicPorts { pic, first })
        })
    }

    /// The output pin: whether an interrupt waits to be acknowledged.
    pub fn output(&self) -> bool {
        self.0.lock().intr.level()
    }

    /// The processor takes an interrupt (two INTA cycles): its vector. If none waits any more, that is input 7's,
    /// which is then not in service.
    pub fn acknowledge(&self) -> u8 {
        self.0.lock().acknowledge()
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Pair> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl LineSink for Shared {
    fn set_source(&self, pin: u32, up: bool) {
        let mut pair = self.lock();
        match u8::try_from(pin) {
            Ok(CASCADE) | Err(_) => {}
            Ok(pin) => pair.set_source(pin, up),
        }
    }
}

impl Pair {
    fn set_source(&mut self, pin: u8, up: bool) {
        let Some(wire) = self.wires.get_mut(usize::from(pin)) else {
            return;
        };
        let rose = wire.set_source(up);
        let is_up = wire.is_up();
        let (chip, input) = if pin < 8 {
            (&mut self.master, pin)
        } else {
            (&mut self.slave, pin - 8)
        };
        chip.lines = chip.lines & !(1 << input) | u8::from(is_up) << input;
        if rose {
            chip.edge(input);
        }
        self.update();
    }

    /// Passes the slave's request on to the master, and the master's to the output.
    ///
    /// The cascade is latched like an edge each time, not only when the slave's output rises: that stays up when the
    /// slave has several requests.
    fn update(&mut self) {
        if self.slave.request().is_some() {
            self.master.edge(CASCADE);
        }
        self.intr.set(self.master.request().is_some());
    }

    fn acknowledge(&mut self) -> u8 {
        let vector = match self.master.acknowledge() {
            Some(CASCADE) => {
                let input = self.slave.acknowledge();
                self.slave.vector(input)
            }
            input => self.master.vector(input),
        };
        self.update();
        vector
    }

    fn read(&mut self, port: u16) -> u8 {
        let value = match port {
            0x20 => self.master.read_command(),
            0x21 => self.master.read_data(),
            0xa0 => self.slave.read_command(),
            0xa1 => self.slave.read_data(),
            0x4d0 => self.master.state.elcr,
            0x4d1 => self.slave.state.elcr,
            _ => 0xff,
        };
        // A read may have been a poll.
        self.update();
        value
    }

    fn write(&mut self, port: u16, value: u8) {
        match port {
            0x20 => self.master.write_command(value),
            0x21 => self.master.write_data(value),
            0xa0 => self.slave.write_command(value),
            0xa1 => self.slave.write_data(value),
            0x4d0 => self.master.write_elcr(value),
            0x4d1 => self.slave.write_elcr(value),
            _ => {}
        }
        self.update();
    }
}

/// One of the three groups of ports of a [`Pic`].
#[derive(Debug)]
pub struct PicPorts {
    pic: Pic,
    first: u16,
}

impl PicPorts {
    fn ports_from(&self, offset: u64) -> impl Iterator<Item = u16> + use<> {
        let offset = u16::try_from(offset).unwrap_or(LEN).min(LEN);
        self.first.saturating_add(offset)..self.first.saturating_add(LEN)
    }
}

impl Device for PicPorts {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        data.fill(0xff);
        for (port, byte) in self.ports_from(offset).zip(data) {
            *byte = self.pic.0.lock().read(port);
        }
    }

    fn write(&mut self, offset: u64, data: &[u8]) -> Effect {
        for (port, &value) in self.ports_from(offset).zip(data) {
            self.pic.0.lock().write(port, value);
        }
        Effect::None
    }
}

impl fmt::Debug for Pic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Pic").field(&self.save()).finish()
    }
}

/// The registers of a [`Pic`]; the default is that of a new one.
///
/// The lines' levels are not part of it: they belong to the devices.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PicState {
    /// The one that the processor sees.
    pub master: ChipState,
    /// The one on the master's input 2.
    pub slave: ChipState,
}

impl Snapshot for Pic {
    type State = PicState;
    const KIND: &'static str = "pic";
    const VERSION: u16 = 1;

    fn save(&self) -> PicState {
        let pair = self.0.lock();
        PicState {
            master: pair.master.state,
            slave: pair.slave.state,
        }
    }

    /// Devices are best restored before, so that edges of their lines are not taken for new ones.
    fn restore(&mut self, state: PicState) -> Result<(), RestoreError> {
        state.master.check(Self::KIND, MASTER_ELCR)?;
        state.slave.check(Self::KIND, SLAVE_ELCR)?;
        let mut pair = self.0.lock();
        pair.master.state = state.master;
        pair.slave.state = state.slave;
        pair.update();
        Ok(())
    }
}

#[cfg(test)]
mod tests;
