//! One 8259A (Intel data sheet 231468), as a PC wires it.

use goldcrest_snapshot::RestoreError;
use serde::{Deserialize, Serialize};

/// The master's input that the slave's output leads to.
pub(super) const CASCADE: u8 = 2;
/// What an acknowledgement finds when the request is gone.
const SPURIOUS: u8 = 7;

/// ICW1, where bit 4 tells it from OCW2 and OCW3: ICW4 follows; no ICW3.
const ICW1: u8 = 1 << 4;
const ICW1_IC4: u8 = 1 << 0;
const ICW1_SNGL: u8 = 1 << 1;
/// ICW4: automatic end of interrupt; special fully nested mode.
const ICW4_AEOI: u8 = 1 << 1;
const ICW4_SFNM: u8 = 1 << 4;
/// OCW3, where bit 3 tells it from OCW2: read ISR, read register, poll, special mask mode, and set it.
const OCW3: u8 = 1 << 3;
const OCW3_RIS: u8 = 1 << 0;
const OCW3_RR: u8 = 1 << 1;
const OCW3_P: u8 = 1 << 2;
const OCW3_SMM: u8 = 1 << 5;
const OCW3_ESMM: u8 = 1 << 6;
/// What a poll reads when there is a request, with its level in bits 2:0.
const POLL_REQUEST: u8 = 1 << 7;

/// The registers of one 8259A.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChipState {
    /// Edges that have not been acknowledged.
    pub edges: u8,
    /// Interrupt mask register.
    pub imr: u8,
    /// In-service register.
    pub isr: u8,
    /// The vector of input 0 (ICW2).
    pub vector_base: u8,
    /// The input of the lowest priority, 7 unless rotated.
    pub lowest: u8,
    /// Which inputs are level-triggered (edge/level control register).
    pub elcr: u8,
    /// How far initialization is.
    pub init: Init,
    /// Automatic end of interrupt (ICW4), and with rotation (OCW2).
    pub auto_eoi: bool,
    /// Rotation at automatic ends of interrupt (OCW2).
    pub rotate_on_auto_eoi: bool,
    /// Special fully nested mode (ICW4).
    pub special_fully_nested: bool,
    /// Special mask mode (OCW3).
    pub special_mask: bool,
    /// The command port reads ISR rather than IRR (OCW3).
    pub read_isr: bool,
    /// The next read is a poll (OCW3).
    pub poll: bool,
}

/// Which initialization word an 8259A expects on its data port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Init {
    /// None: it works.
    Done,
    /// ICW2.
    Icw2 {
        /// ICW3 follows.
        icw3: bool,
        /// ICW4 follows.
        icw4: bool,
    },
    /// ICW3.
    Icw3 {
        /// ICW4 follows.
        icw4: bool,
    },
    /// ICW4.
    Icw4,
}

impl Default for ChipState {
    /// As firmware leaves it: initialized, all inputs masked.
    fn default() -> Self {
        Self {
            edges: 0,
            imr: 0xff,
            isr: 0,
            vector_base: 0,
            lowest: 7,
            elcr: 0,
            init: Init::Done,
            auto_eoi: false,
            rotate_on_auto_eoi: false,
            special_fully_nested: false,
            special_mask: false,
            read_isr: false,
            poll: false,
        }
    }
}

impl ChipState {
    pub(super) fn check(&self, kind: &'static str, elcr_mask: u8) -> Result<(), RestoreError> {
        let checks = [
            ("vector base", self.vector_base, self.vector_base & 7 == 0),
            ("lowest priority", self.lowest, self.lowest < 8),
            ("ELCR", self.elcr, self.elcr & !elcr_mask == 0),
            ("edges", self.edges, self.edges & self.elcr == 0),
        ];
        match checks.into_iter().find(|(.., holds)| !holds) {
            Some((what, value, _)) => Err(RestoreError {
                kind,
                what,
                value: value.into(),
                limit: "has impossible bits",
            }),
            None => Ok(()),
        }
    }
}

/// One 8259A with its inputs.
#[derive(Debug, Clone, Copy)]
pub(super) struct Chip {
    pub(super) state: ChipState,
    /// The inputs' levels.
    pub(super) lines: u8,
    elcr_mask: u8,
    is_master: bool,
}

impl Chip {
    pub(super) fn new(is_master: bool, elcr_mask: u8) -> Self {
        Self {
            state: ChipState::default(),
            lines: 0,
            elcr_mask,
            is_master,
        }
    }

    /// Latches an edge on an edge-triggered input.
    pub(super) const fn edge(&mut self, input: u8) {
        self.state.edges |= bit(input) & !self.state.elcr;
    }

    /// The interrupt request register.
    const fn irr(&self) -> u8 {
        self.state.edges | (self.lines & self.state.elcr)
    }

    /// The input that asks for an acknowledgement now ("Priority resolver"). None while being initialized.
    pub(super) fn request(&self) -> Option<u8> {
        let state = &self.state;
        if state.init != Init::Done {
            return None;
        }
        let input = self.first_of(self.irr() & !state.imr)?;
        let Some(served) = self.first_of(self.blocking()) else {
            return Some(input);
        };
        // The slave may have a request that outranks the one of its own that is served.
        let nested = state.special_fully_nested && self.is_master && input == CASCADE;
        (self.rank(input) < self.rank(served) || (nested && input == served)).then_some(input)
    }

    /// An acknowledgement (INTA): the input served, if there is still a request.
    pub(super) fn acknowledge(&mut self) -> Option<u8> {
        let input = self.request()?;
        self.state.edges &= !bit(input);
        if !self.state.auto_eoi {
            self.state.isr |= bit(input);
        } else if self.state.rotate_on_auto_eoi {
            self.state.lowest = input;
        }
        Some(input)
    }

    /// The vector for what [`acknowledge`](Self::acknowledge) returned.
    pub(super) fn vector(&self, input: Option<u8>) -> u8 {
        self.state.vector_base | input.unwrap_or(SPURIOUS)
    }

    pub(super) fn read_command(&mut self) -> u8 {
        if self.state.poll {
            self.poll()
        } else if self.state.read_isr {
            self.state.isr
        } else {
            self.irr()
        }
    }

    pub(super) fn read_data(&mut self) -> u8 {
        if self.state.poll {
            self.poll()
        } else {
            self.state.imr
        }
    }

    /// A poll acknowledges as INTA does.
    fn poll(&mut self) -> u8 {
        self.state.poll = false;
        self.acknowledge().map_or(0, |input| POLL_REQUEST | input)
    }

    pub(super) fn write_command(&mut self, value: u8) {
        if value & ICW1 != 0 {
            self.icw1(value);
        } else if value & OCW3 != 0 {
            self.ocw3(value);
        } else {
            self.ocw2(value);
        }
    }

    pub(super) const fn write_data(&mut self, value: u8) {
        let state = &mut self.state;
        state.init = match state.init {
            Init::Done => {
                state.imr = value;
                Init::Done
            }
            Init::Icw2 { icw3, icw4 } => {
                state.vector_base = value & !7;
                match (icw3, icw4) {
                    (true, _) => Init::Icw3 { icw4 },
                    (false, true) => Init::Icw4,
                    (false, false) => Init::Done,
                }
            }
            // The wiring is fixed, whatever ICW3 says.
            Init::Icw3 { icw4: true } => Init::Icw4,
            Init::Icw3 { icw4: false } => Init::Done,
            Init::Icw4 => {
                state.auto_eoi = value & ICW4_AEOI != 0;
                state.special_fully_nested = value & ICW4_SFNM != 0;
                Init::Done
            }
        };
    }

    pub(super) const fn write_elcr(&mut self, value: u8) {
        self.state.elcr = value & self.elcr_mask;
        self.state.edges &= !self.state.elcr;
    }

    /// Starts initialization. What is not in the data sheet's list keeps; its LTIM bit is ignored in favour of ELCR,
    /// as in PCs with one.
    fn icw1(&mut self, value: u8) {
        self.state = ChipState {
            imr: 0,
            elcr: self.state.elcr,
            vector_base: self.state.vector_base,
            init: Init::Icw2 {
                icw3: value & ICW1_SNGL == 0,
                icw4: value & ICW1_IC4 != 0,
            },
            ..ChipState::default()
        };
    }

    fn ocw2(&mut self, value: u8) {
        let level = value & 7;
        let served = self.first_of(self.blocking());
        match value >> 5 {
            0b001 => self.end(served, false),
            0b101 => self.end(served, true),
            0b011 => self.end(Some(level), false),
            0b111 => self.end(Some(level), true),
            0b100 => self.state.rotate_on_auto_eoi = true,
            0b000 => self.state.rotate_on_auto_eoi = false,
            0b110 => self.state.lowest = level,
            _ => {}
        }
    }

    /// The end of the interrupt on `input`, if there is one; after it, with `rotate`, its priority is the lowest.
    const fn end(&mut self, input: Option<u8>, rotate: bool) {
        if let Some(input) = input {
            self.state.isr &= !bit(input);
            if rotate {
                self.state.lowest = input;
            }
        }
    }

    const fn ocw3(&mut self, value: u8) {
        if value & OCW3_ESMM != 0 {
            self.state.special_mask = value & OCW3_SMM != 0;
        }
        if value & OCW3_P != 0 {
            self.state.poll = true;
        } else if value & OCW3_RR != 0 {
            self.state.read_isr = value & OCW3_RIS != 0;
        }
    }

    /// The served inputs that count: in special mask mode, a masked one does not.
    const fn blocking(&self) -> u8 {
        if self.state.special_mask {
            self.state.isr & !self.state.imr
        } else {
            self.state.isr
        }
    }

    /// The one of `inputs` with the highest priority.
    fn first_of(&self, inputs: u8) -> Option<u8> {
        (0..8)
            .filter(|input| inputs & bit(*input) != 0)
            .min_by_key(|input| self.rank(*input))
    }

    /// 0 is the highest priority.
    const fn rank(&self, input: u8) -> u8 {
        input.wrapping_sub(self.state.lowest).wrapping_sub(1) & 7
    }
}

const fn bit(input: u8) -> u8 {
    1 << (input & 7)
}
