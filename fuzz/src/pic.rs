//! The pair of 8259s: port accesses, lines, acknowledgements.

use arbitrary::{Result, Unstructured};
use goldcrest_irq::IrqLine;
use goldcrest_irq::pic::{self, ChipState, PINS, Pic, PicPorts};
use goldcrest_snapshot::Snapshot;

use crate::access::Access;
use crate::saved;

/// Two sources on each input, and one on an input that does not exist.
const SOURCES: usize = 2 * PINS + 1;
/// How often a run restores: it takes as long as a hundred other steps.
const RESTORES: u32 = 4;
/// The master's input that the slave's output leads to.
const CASCADE: usize = 2;
/// What an acknowledgement finds when the request is gone.
const SPURIOUS: u8 = 7;

/// Runs the target.
pub fn run(data: &[u8]) {
    let intr = IrqLine::detached();
    let _ = drive(Pic::new(intr.clone()), intr, &mut Unstructured::new(data));
}

pub(crate) fn drive(pic: Pic, intr: IrqLine, input: &mut Unstructured<'_>) -> Result<()> {
    let mut machine = Machine::new(pic, intr);
    let mut restores = 0;
    while !input.is_empty() {
        match input.arbitrary::<u8>()? {
            0xff => {
                restores += 1;
                if restores <= RESTORES {
                    machine.restore();
                }
            }
            0xe0.. => machine.acknowledge(),
            op @ 0xa0.. => {
                let source = usize::from(input.arbitrary::<u8>()?) % SOURCES;
                machine.set(source, op & 1 != 0);
            }
            op => {
                let access = Access::take(input, pic::LEN.into())?;
                let ports = &mut machine.ports[usize::from(op) % 3];
                access.apply(ports).assert_goes_on();
            }
        }
        assert_eq!(machine.pic.output(), machine.intr.level());
    }
    machine.restore();
    Ok(())
}

struct Machine {
    pic: Pic,
    intr: IrqLine,
    ports: [PicPorts; 3],
    lines: Vec<IrqLine>,
}

impl Machine {
    fn new(pic: Pic, intr: IrqLine) -> Self {
        Self {
            ports: pic.ports().map(|(_, ports)| ports),
            lines: (0u32..)
                .take(SOURCES)
                .map(|source| pic.line(source / 2))
                .collect(),
            pic,
            intr,
        }
    }

    /// What is connected to nothing, the cascade among it, changes nothing.
    fn set(&self, source: usize, up: bool) {
        let before = self.pic.save();
        self.lines[source].set(up);
        if source / 2 == CASCADE || source / 2 == PINS {
            assert_eq!(self.pic.save(), before);
        }
    }

    /// The vector is one of the chip that has it, and what is in service is no request any more.
    fn acknowledge(&self) {
        let before = self.pic.save();
        let (waits, vector) = (self.pic.output(), self.pic.acknowledge());
        let after = self.pic.save();
        let is_of = |chip: &ChipState| vector & !7 == chip.vector_base;
        if waits {
            assert!(is_of(&before.master) || is_of(&before.slave), "{vector:#x}");
        } else {
            assert_eq!(vector, before.master.vector_base | SPURIOUS);
            assert_eq!(after, before, "nothing waited");
        }
    }

    /// Goes on with a restored pair, whose lines are at the same levels before.
    fn restore(&mut self) {
        saved::round_trip(&self.pic, &mut Pic::new(IrqLine::detached()));
        let intr = IrqLine::detached();
        let mut fresh = Self::new(Pic::new(intr.clone()), intr);
        for (old, new) in self.lines.iter().zip(&fresh.lines) {
            new.set(old.level());
        }
        let state = self.pic.save();
        fresh.pic.restore(state.clone()).expect("it was saved");
        assert_eq!(fresh.pic.save(), state);
        assert_eq!(fresh.pic.output(), self.pic.output());
        *self = fresh;
    }
}
