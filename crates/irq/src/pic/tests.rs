//! The 8259 pair as operating systems use it, by headings of the data sheet; then against a reference.

use super::*;
use goldcrest_snapshot::{open, seal};
use proptest::prelude::*;

const EOI: u8 = 0x20;
const BASE: u8 = 0x30;

struct Machine {
    pic: Pic,
    intr: IrqLine,
    lines: Vec<IrqLine>,
}

impl Machine {
    fn new() -> Self {
        let intr = IrqLine::detached();
        let pic = Pic::new(intr.clone());
        let lines = (0..16).map(|pin| pic.line(pin)).collect();
        Self { pic, intr, lines }
    }

    /// As Linux sets the pair up, with nothing masked.
    fn initialized(icw4: u8) -> Self {
        let mut m = Self::new();
        for (chip, base, icw3) in [(MASTER, BASE, 1 << CASCADE), (SLAVE, BASE + 8, CASCADE)] {
            m.outb(chip, 0x11);
            for value in [base, icw3, icw4, 0] {
                m.outb(chip + 1, value);
            }
        }
        m
    }

    fn outb(&mut self, port: u16, value: u8) {
        self.pic.0.lock().write(port, value);
    }

    fn inb(&mut self, port: u16) -> u8 {
        self.pic.0.lock().read(port)
    }

    /// The input that the processor is interrupted by.
    fn interrupt(&self) -> Option<u8> {
        self.pic.output().then(|| self.pic.acknowledge() - BASE)
    }

    fn isr(&mut self, chip: u16) -> u8 {
        self.outb(chip, 0x0b);
        self.inb(chip)
    }

    fn irr(&mut self, chip: u16) -> u8 {
        self.outb(chip, 0x0a);
        self.inb(chip)
    }

    fn eoi(&mut self, input: u8) {
        if input >= 8 {
            self.outb(SLAVE, EOI);
        }
        self.outb(MASTER, EOI);
    }
}

#[test]
fn a_new_pair_is_silent() {
    let mut m = Machine::new();
    m.lines.iter().for_each(IrqLine::pulse);
    assert!(!m.intr.level());
    assert_eq!((m.inb(MASTER + 1), m.inb(SLAVE + 1)), (0xff, 0xff));
}

#[test]
fn initialization_sequence() {
    let mut m = Machine::new();
    m.outb(MASTER, 0x11);
    m.lines[4].pulse();
    // Nothing leaves before the last word.
    for value in [BASE, 4] {
        m.outb(MASTER + 1, value);
        assert!(!m.intr.level());
    }
    m.outb(MASTER + 1, 1);
    assert_eq!(m.interrupt(), Some(4));
    // No ICW3 and ICW4: single, 8-bit mode. A line that is up since before makes no edge.
    m.lines[5].set(true);
    m.outb(MASTER, 0x12);
    m.outb(MASTER + 1, 0x45);
    assert!(!m.intr.level());
    assert_eq!(m.inb(MASTER + 1), 0);
    m.lines[5].pulse();
    assert!(!m.intr.level(), "still up: no new edge");
    m.lines[5].set(false);
    m.lines[5].set(true);
    assert_eq!(m.pic.acknowledge(), 0x45);
}

#[test]
fn fully_nested_mode_and_nonspecific_eoi() {
    let mut m = Machine::initialized(1);
    m.lines[5].pulse();
    m.lines[3].pulse();
    assert_eq!(m.interrupt(), Some(3));
    assert_eq!(m.interrupt(), None);
    m.lines[1].pulse();
    assert_eq!(m.interrupt(), Some(1));
    assert_eq!((m.isr(MASTER), m.irr(MASTER)), (0b1010, 1 << 5));
    m.eoi(1);
    assert_eq!((m.isr(MASTER), m.interrupt()), (0b1000, None));
    m.eoi(3);
    assert_eq!(m.interrupt(), Some(5));
}

#[test]
fn specific_eoi() {
    let mut m = Machine::initialized(1);
    m.lines[5].pulse();
    assert_eq!(m.interrupt(), Some(5));
    m.lines[3].pulse();
    assert_eq!(m.interrupt(), Some(3));
    m.outb(MASTER, 0x60 | 5);
    assert_eq!(m.isr(MASTER), 1 << 3);
}

#[test]
fn automatic_eoi_and_rotation() {
    let mut m = Machine::initialized(3);
    m.lines[5].pulse();
    assert_eq!(m.interrupt(), Some(5));
    assert_eq!(m.isr(MASTER), 0);
    m.outb(MASTER, 0x80);
    m.lines[0].pulse();
    assert_eq!(m.interrupt(), Some(0));
    // 0 is the lowest now.
    m.lines[0].pulse();
    m.lines[7].pulse();
    assert_eq!((m.interrupt(), m.interrupt()), (Some(7), Some(0)));
}

#[test]
fn rotation_by_command() {
    let mut m = Machine::initialized(1);
    m.lines[3].pulse();
    assert_eq!(m.interrupt(), Some(3));
    m.outb(MASTER, 0xa0);
    m.lines[3].pulse();
    m.lines[4].pulse();
    assert_eq!(m.interrupt(), Some(4));
    m.outb(MASTER, 0xe0 | 4);
    assert_eq!(m.interrupt(), Some(3));
    m.outb(MASTER, EOI);
    m.outb(MASTER, 0xc0 | 5);
    m.lines[5].pulse();
    m.lines[6].pulse();
    assert_eq!(m.interrupt(), Some(6));
}

#[test]
fn cascade() {
    let mut m = Machine::initialized(1);
    m.lines[12].pulse();
    m.lines[9].pulse();
    m.lines[3].pulse();
    assert_eq!(m.interrupt(), Some(9));
    assert_eq!((m.isr(MASTER), m.isr(SLAVE)), (1 << CASCADE, 1 << 1));
    m.eoi(9);
    assert_eq!(m.interrupt(), Some(12));
    m.eoi(12);
    assert_eq!(m.interrupt(), Some(3));
    // The cascade is no one's line.
    m.lines[2].pulse();
    assert_eq!(m.irr(MASTER), 0);
}

#[test]
fn special_fully_nested_mode() {
    for (icw4, expected) in [(1, None), (0x11, Some(8))] {
        let m = Machine::initialized(icw4);
        m.lines[12].pulse();
        assert_eq!(m.interrupt(), Some(12));
        m.lines[3].pulse();
        m.lines[8].pulse();
        assert_eq!(m.interrupt(), expected);
    }
}

#[test]
fn interrupt_masks_and_special_mask_mode() {
    let mut m = Machine::initialized(1);
    m.outb(MASTER + 1, 1 << 4);
    m.lines[4].pulse();
    assert_eq!(m.interrupt(), None);
    // The edge was latched behind the mask.
    m.outb(MASTER + 1, 0);
    assert_eq!(m.interrupt(), Some(4));
    m.lines[6].pulse();
    assert_eq!(m.interrupt(), None);
    m.outb(MASTER + 1, 1 << 4);
    m.outb(MASTER, 0x68);
    assert_eq!(m.interrupt(), Some(6));
    m.outb(MASTER, 0x48);
    m.eoi(4);
    assert_eq!(m.isr(MASTER), 1 << 6);
}

#[test]
fn level_triggered_inputs() {
    let mut m = Machine::initialized(1);
    m.outb(ELCR, 0xff);
    m.outb(ELCR + 1, 0xff);
    assert_eq!((m.inb(ELCR), m.inb(ELCR + 1)), (0xf8, 0xde));
    m.lines[10].set(true);
    assert_eq!(m.interrupt(), Some(10));
    m.eoi(10);
    assert_eq!(m.interrupt(), Some(10));
    m.lines[10].set(false);
    m.eoi(10);
    assert_eq!(m.interrupt(), None);
}

#[test]
fn a_request_that_is_gone_is_a_spurious_input_7() {
    let mut m = Machine::initialized(1);
    m.outb(ELCR, 1 << 5);
    m.outb(ELCR + 1, 1 << 2);
    m.lines[5].pulse();
    assert!(!m.pic.output());
    assert_eq!((m.pic.acknowledge(), m.isr(MASTER)), (BASE + 7, 0));
    // On the slave, the master has latched the request: it is served there, and ended.
    m.lines[10].pulse();
    assert_eq!((m.interrupt(), m.isr(SLAVE)), (Some(15), 0));
    assert_eq!(m.isr(MASTER), 1 << CASCADE);
    m.outb(MASTER, EOI);
    assert_eq!(m.interrupt(), None);
}

#[test]
fn poll_command() {
    let mut m = Machine::initialized(1);
    m.outb(MASTER, 0x0c);
    assert_eq!(m.inb(MASTER), 0);
    m.lines[4].pulse();
    m.outb(MASTER, 0x0c);
    assert_eq!(m.inb(MASTER), 0x84);
    assert_eq!((m.isr(MASTER), m.pic.output()), (1 << 4, false));
}

#[test]
fn ports_are_bytes_in_turn() {
    let m = Machine::initialized(1);
    for (first, mut ports) in m.pic.ports() {
        let _ = ports.write(0, &[0, 0x18, 0, 0]);
        let mut data = [0; 4];
        ports.read(0, &mut data);
        let expected = if first == ELCR {
            0x18 & SLAVE_ELCR
        } else {
            0x18
        };
        assert_eq!(data[1..], [expected, 0xff, 0xff]);
    }
}

#[test]
fn wired_or_and_sharing_with_another_controller() {
    let mut m = Machine::initialized(1);
    let other = Pic::new(IrqLine::detached());
    let lines = crate::FanOut::new([m.pic.lines(), other.lines()]);
    m.outb(ELCR, 1 << 5);
    let (a, b) = (lines.line(5), lines.line(5));
    a.set(true);
    b.set(true);
    drop(a);
    assert_eq!(m.irr(MASTER), 1 << 5);
    assert_eq!(other.0.lock().master.lines, 1 << 5);
    drop(b);
    assert_eq!(m.irr(MASTER), 0);
    lines.line(16).pulse();
}

#[test]
fn impossible_states_are_refused() {
    let good = ChipState::default();
    for bad in [
        ChipState {
            vector_base: 1,
            ..good
        },
        ChipState { lowest: 8, ..good },
        ChipState { elcr: 1, ..good },
        ChipState {
            elcr: 1 << 4,
            edges: 1 << 4,
            ..good
        },
    ] {
        for (master, slave) in [(bad, good), (good, bad)] {
            let mut m = Machine::new();
            assert!(m.pic.restore(PicState { master, slave }).is_err());
            assert_eq!(m.pic.save(), PicState::default());
        }
    }
}

/// Fully nested mode as the data sheet describes it: one list of priorities.
#[derive(Default)]
struct Reference {
    requested: [bool; 16],
    served: Vec<usize>,
}

impl Reference {
    const ORDER: [usize; 15] = [0, 1, 8, 9, 10, 11, 12, 13, 14, 15, 3, 4, 5, 6, 7];

    /// What is requested and outranks what is served, where everything on the slave is one rank for the master.
    fn interrupt(&mut self, masked: u16) -> Option<u8> {
        let rank = |input: usize| if input >= 8 { 2 } else { input };
        let outranks = |input: &usize| self.served.iter().all(|s| rank(*input) < rank(*s));
        let input = Self::ORDER
            .into_iter()
            .filter(|input| self.requested[*input] && masked >> input & 1 == 0)
            .find(outranks)?;
        self.requested[input] = false;
        self.served.push(input);
        u8::try_from(input).ok()
    }
}

#[derive(Debug, Clone)]
enum Step {
    Line(usize, bool),
    Interrupt,
    Eoi,
    Write(u16, u8),
    Read(u16),
}

fn driver_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..16_usize).prop_map(|pin| Step::Line(pin, true)),
        3 => Just(Step::Interrupt),
        2 => Just(Step::Eoi),
    ]
}

fn any_step() -> impl Strategy<Value = Step> {
    let port = || prop::sample::select(vec![0x20, 0x21, 0xa0, 0xa1, 0x4d0, 0x4d1]);
    prop_oneof![
        (0..16_usize, any::<bool>()).prop_map(|(pin, up)| Step::Line(pin, up)),
        Just(Step::Interrupt),
        (port(), any::<u8>()).prop_map(|(port, value)| Step::Write(port, value)),
        port().prop_map(Step::Read),
    ]
}

impl Machine {
    fn step(&mut self, step: &Step) -> Option<u8> {
        match *step {
            Step::Line(pin, up) => self.lines[pin].set(up),
            Step::Interrupt => return Some(self.pic.acknowledge()),
            Step::Eoi => self.eoi(15),
            Step::Write(port, value) => self.outb(port, value),
            Step::Read(port) => return Some(self.inb(port)),
        }
        None
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn fully_nested_mode_agrees_with_the_reference(
        masked: u16,
        steps in prop::collection::vec(driver_step(), 0..80),
    ) {
        let mut m = Machine::initialized(1);
        let masked = masked & !(1 << CASCADE);
        let [low, high] = masked.to_le_bytes();
        m.outb(MASTER + 1, low);
        m.outb(SLAVE + 1, high);
        let mut reference = Reference::default();
        for step in &steps {
            match step {
                Step::Line(pin, _) => {
                    m.lines[*pin].pulse();
                    reference.requested[*pin] = true;
                }
                Step::Interrupt => prop_assert_eq!(m.interrupt(), reference.interrupt(masked)),
                _ => if let Some(input) = reference.served.pop() {
                    m.eoi(u8::try_from(input).unwrap());
                }
            }
        }
    }

    /// Any accesses at all: nothing panics, the output is that of the registers, and a restored pair goes on alike.
    #[test]
    fn restored_goes_on_alike(before in prop::collection::vec(any_step(), 0..60),
                              after in prop::collection::vec(any_step(), 0..40)) {
        let mut a = Machine::initialized(1);
        for step in &before {
            a.step(step);
            prop_assert_eq!(a.intr.level(), a.pic.0.lock().master.request().is_some());
        }
        let mut b = Machine::new();
        for (from, to) in a.lines.iter().zip(&b.lines) {
            to.set(from.level());
        }
        open(&mut b.pic, &seal(&a.pic).unwrap()).unwrap();
        for step in &after {
            prop_assert_eq!(a.intr.level(), b.intr.level());
            prop_assert_eq!(a.step(step), b.step(step));
        }
        prop_assert_eq!(a.pic.save(), b.pic.save());
    }
}
