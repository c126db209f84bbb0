//! The IOAPIC as operating systems use it, by sections of the data sheet; then its invariants.

use super::*;
use goldcrest_snapshot::{open, seal};
use proptest::prelude::*;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Event {
    Signal(Msi),
    Watch(u32, Option<Msi>),
}

#[derive(Default)]
struct Log(Mutex<Vec<Event>>);

impl MsiSink for Log {
    fn signal(&self, message: Msi) {
        self.0.lock().unwrap().push(Event::Signal(message));
    }
    fn watch_eoi(&self, source: u32, message: Option<Msi>) {
        self.0.lock().unwrap().push(Event::Watch(source, message));
    }
}

struct Machine {
    ioapic: Ioapic,
    log: Arc<Log>,
}

const LEVEL: u64 = 1 << 15;
const MASKED: u64 = 1 << 16;
const IRR: u64 = 1 << 14;

impl Machine {
    fn new() -> Self {
        let log = Arc::new(Log::default());
        Self {
            ioapic: Ioapic::new(log.clone()),
            log,
        }
    }

    fn write32(&mut self, offset: u64, value: u32) {
        assert!(matches!(
            self.ioapic.write(offset, &value.to_le_bytes()),
            Effect::None
        ));
    }

    fn get(&mut self, register: u8) -> u32 {
        self.write32(IOREGSEL, register.into());
        let mut data = [0; 4];
        self.ioapic.read(IOWIN, &mut data);
        u32::from_le_bytes(data)
    }

    fn set(&mut self, register: u8, value: u32) {
        self.write32(IOREGSEL, register.into());
        self.write32(IOWIN, value);
    }

    fn entry(&mut self, pin: u8) -> u64 {
        let low = self.get(IOREDTBL + 2 * pin);
        u64::from(self.get(IOREDTBL + 2 * pin + 1)) << 32 | u64::from(low)
    }

    /// High half first, as an operating system does before it unmasks.
    fn set_entry(&mut self, pin: u8, bits: u64) {
        self.set(IOREDTBL + 2 * pin + 1, half(bits, 1));
        self.set(IOREDTBL + 2 * pin, half(bits, 0));
    }

    fn events(&self) -> Vec<Event> {
        std::mem::take(&mut self.log.0.lock().unwrap())
    }

    /// The vectors signalled since the last look.
    fn vectors(&self) -> Vec<u32> {
        let vector = |event| match event {
            Event::Signal(message) => Some(message.data & 0xff),
            Event::Watch(..) => None,
        };
        self.events().into_iter().filter_map(vector).collect()
    }
}

#[test]
fn section_3_1_and_3_2_registers() {
    let mut m = Machine::new();
    assert_eq!(m.get(IOAPICVER), 0x0017_0020);
    m.set(IOAPICID, 0xffff_ffff);
    assert_eq!(m.get(IOAPICID), 0x0f00_0000);
    assert_eq!(m.get(IOAPICARB), 0x0f00_0000);
    m.set(IOAPICVER, 0);
    m.set(IOAPICARB, 0);
    assert_eq!(m.get(IOAPICVER), 0x0017_0020);
    for pin in 0..24 {
        assert_eq!(m.entry(pin), MASKED);
    }
    for missing in [0x03, 0x0f, 0x40, 0xff] {
        m.set(missing, 0xffff_ffff);
        assert_eq!(m.get(missing), 0);
    }
    m.write32(IOREGSEL, 0x15);
    let mut data = [0xff; 8];
    m.ioapic.read(IOREGSEL, &mut data);
    assert_eq!(data, [0x15, 0, 0, 0, 0, 0, 0, 0]);
}

#[test]
fn only_32_bit_writes_reach_the_window() {
    let mut m = Machine::new();
    for len in [1, 2, 3, 8] {
        m.write32(IOREGSEL, IOREDTBL.into());
        let _ = m.ioapic.write(IOWIN, &[0; 8][..len]);
        assert_eq!(m.entry(0), MASKED);
    }
    // The select register is 8 bits wide, and some write it so.
    let _ = m.ioapic.write(IOREGSEL, &[IOAPICVER]);
    let mut data = [0; 4];
    m.ioapic.read(IOWIN, &mut data);
    assert_eq!(u32::from_le_bytes(data), VERSION);
}

#[test]
fn section_3_2_4_edge() {
    let mut m = Machine::new();
    let line = m.ioapic.line(4);
    m.set_entry(4, 0x31);
    line.set(true);
    assert_eq!(m.vectors(), [0x31]);
    line.set(false);
    line.pulse();
    assert_eq!(m.vectors(), [0x31]);
    // Nothing waits for an end of interrupt.
    m.ioapic.end_of_interrupt(0x31);
    assert_eq!(m.events(), []);
}

#[test]
fn section_3_2_4_edge_on_a_masked_pin_is_lost() {
    let mut m = Machine::new();
    let line = m.ioapic.line(4);
    m.set_entry(4, 0x31 | MASKED);
    line.set(true);
    m.set_entry(4, 0x31);
    assert_eq!(m.events(), []);
    line.set(false);
    line.set(true);
    assert_eq!(m.vectors(), [0x31]);
}

#[test]
fn section_3_2_4_level_is_sent_once_per_end_of_interrupt() {
    let mut m = Machine::new();
    let line = m.ioapic.line(10);
    m.set_entry(10, 0x52 | LEVEL);
    line.set(true);
    assert_eq!(m.vectors(), [0x52]);
    assert_eq!(m.entry(10), 0x52 | LEVEL | IRR);
    line.pulse();
    line.set(true);
    assert_eq!(m.vectors(), []);
    m.ioapic.end_of_interrupt(0x51);
    assert_eq!(m.vectors(), []);
    m.ioapic.end_of_interrupt(0x52);
    assert_eq!(m.vectors(), [0x52]);
    line.set(false);
    m.write32(EOIR, 0x52);
    assert_eq!((m.vectors(), m.entry(10)), (vec![], 0x52 | LEVEL));
}

#[test]
fn section_3_2_4_level_on_a_masked_pin_waits() {
    let mut m = Machine::new();
    let line = m.ioapic.line(10);
    line.set(true);
    m.set_entry(10, 0x52 | LEVEL | MASKED);
    assert_eq!(m.vectors(), []);
    m.set_entry(10, 0x52 | LEVEL);
    assert_eq!(m.vectors(), [0x52]);
}

#[test]
fn lines_are_wired_or() {
    let mut m = Machine::new();
    let (a, b) = (m.ioapic.line(10), m.ioapic.line(10));
    m.set_entry(10, 0x52 | LEVEL);
    a.set(true);
    b.set(true);
    assert_eq!(m.vectors(), [0x52]);
    drop(a);
    m.ioapic.end_of_interrupt(0x52);
    assert_eq!(m.vectors(), [0x52]);
    b.set(false);
    m.ioapic.end_of_interrupt(0x52);
    assert_eq!(m.vectors(), []);
}

#[test]
fn pins_that_do_not_exist_lead_nowhere() {
    let m = Machine::new();
    for pin in [24, u32::MAX] {
        m.ioapic.line(pin).pulse();
    }
    assert_eq!(m.events(), []);
}

/// A threaded handler: masked while it runs, and the end of interrupt comes while masked.
#[test]
fn end_of_interrupt_counts_behind_the_mask_and_masking_costs_no_watch() {
    let mut m = Machine::new();
    let line = m.ioapic.line(10);
    m.set_entry(10, 0x52 | LEVEL);
    line.set(true);
    m.events();
    for _ in 0..3 {
        m.set_entry(10, 0x52 | LEVEL | MASKED);
        m.ioapic.end_of_interrupt(0x52);
        assert_eq!(m.events(), []);
        m.set_entry(10, 0x52 | LEVEL);
        assert!(matches!(m.events()[..], [Event::Signal(_)]));
    }
}

#[test]
fn switching_to_edge_and_back_forgets_a_lost_end_of_interrupt() {
    let mut m = Machine::new();
    let line = m.ioapic.line(10);
    m.set_entry(10, 0x52 | LEVEL);
    line.set(true);
    assert_eq!(m.vectors(), [0x52]);
    m.set_entry(10, 0x52 | MASKED);
    m.set_entry(10, 0x52 | LEVEL);
    assert_eq!(m.vectors(), [0x52]);
}

#[test]
fn watches_follow_unmasked_level_entries_only() {
    let mut m = Machine::new();
    m.set_entry(4, 0x31);
    m.set_entry(10, 0x52 | LEVEL | MASKED);
    assert_eq!(m.events(), []);
    m.set_entry(10, 0x52 | LEVEL);
    m.set_entry(10, 0x52 | LEVEL);
    let to_0 = Msi {
        address_hi: 0,
        address_lo: 0xfee0_0000,
        data: 0xc052,
    };
    let to_3 = Msi {
        address_lo: 0xfee0_3000,
        ..to_0
    };
    assert_eq!(m.events(), [Event::Watch(10, Some(to_0))]);
    m.set_entry(10, 0x52 | LEVEL | 3 << 56);
    assert_eq!(m.events(), [Event::Watch(10, Some(to_3))]);
    m.set_entry(10, 0x52 | 3 << 56);
    assert_eq!(m.events(), [Event::Watch(10, None)]);
}

#[test]
fn restore_watches_again_and_serves_what_waits() {
    let mut m = Machine::new();
    let line = m.ioapic.line(10);
    m.set_entry(10, 0x52 | LEVEL);
    line.set(true);
    // Served, and masked while it is.
    m.set_entry(10, 0x52 | LEVEL | MASKED);
    m.set_entry(11, 0x53 | LEVEL);
    let bytes = seal(&m.ioapic).unwrap();

    let mut n = Machine::new();
    let (served, waiting) = (n.ioapic.line(10), n.ioapic.line(11));
    served.set(true);
    waiting.set(true);
    open(&mut n.ioapic, &bytes).unwrap();
    let events = n.events();
    assert!(
        matches!(
            events[..],
            [Event::Watch(10, Some(_)), Event::Watch(11, Some(_)), Event::Signal(s)] if s.data & 0xff == 0x53
        ),
        "{events:?}"
    );
    n.ioapic.end_of_interrupt(0x52);
    n.set_entry(10, 0x52 | LEVEL);
    assert_eq!(n.vectors(), [0x52]);

    // As after a reset, nothing is watched.
    n.ioapic.restore(IoapicState::default()).unwrap();
    assert_eq!(n.events(), [Event::Watch(10, None), Event::Watch(11, None)]);
}

#[test]
fn impossible_states_are_refused() {
    let with = |pin: usize, bits| {
        let mut state = IoapicState::default();
        state.redirection_table[pin] = bits;
        state
    };
    let id = IoapicState {
        id: 16,
        ..IoapicState::default()
    };
    for state in [id, with(0, 1 << 12), with(23, IRR), with(5, 1 << 48)] {
        let mut m = Machine::new();
        assert!(m.ioapic.restore(state).is_err());
        assert_eq!(m.ioapic.save(), IoapicState::default());
    }
}

/// What a guest and its devices do, on three pins. The low two bits of a vector are the pin's number, so that a
/// message tells where it comes from.
#[derive(Debug, Clone)]
enum Step {
    Entry(u8, u64),
    Line(usize, bool),
    End(u8),
    Eoir(u8),
}

const TESTED: u8 = 3;

fn step() -> impl Strategy<Value = Step> {
    let pin = 0..TESTED;
    let vector = move || (0..2_u8, 0..TESTED).prop_map(|(high, pin)| 0x40 | high << 4 | pin);
    let bit = |bit: u64| any::<bool>().prop_map(move |set| if set { bit } else { 0 });
    let entry = (
        0..2_u64,
        prop_oneof![4 => Just(0), 1 => 0..8_u64],
        bit(LEVEL),
        bit(MASKED),
        0..2_u64,
    )
        .prop_map(|(high, mode, level, mask, destination)| {
            0x40 | high << 4 | mode << 8 | level | mask | destination << 56
        });
    prop_oneof![
        (pin, entry).prop_map(|(pin, bits)| Step::Entry(pin, bits | u64::from(pin))),
        (0..6_usize, any::<bool>()).prop_map(|(source, up)| Step::Line(source, up)),
        vector().prop_map(Step::End),
        vector().prop_map(Step::Eoir),
    ]
}

/// A machine with two sources on each tested pin.
struct Driven {
    m: Machine,
    sources: Vec<IrqLine>,
    watched: [Option<Msi>; PINS],
}

impl Driven {
    fn new() -> Self {
        let m = Machine::new();
        let sources = (0..6).map(|s| m.ioapic.line(s % 3)).collect();
        Self {
            m,
            sources,
            watched: [None; PINS],
        }
    }

    fn asserted(&self, pin: usize) -> bool {
        self.sources[pin].level() || self.sources[pin + 3].level()
    }

    fn step(&mut self, step: &Step) -> Vec<Event> {
        match *step {
            Step::Entry(pin, bits) => self.m.set_entry(pin, bits),
            Step::Line(source, up) => self.sources[source].set(up),
            Step::End(vector) => self.m.ioapic.end_of_interrupt(vector),
            Step::Eoir(vector) => self.m.write32(EOIR, vector.into()),
        }
        self.m.events()
    }

    /// Takes a step and checks all that must hold of it.
    fn checked_step(&mut self, step: &Step) {
        let before: Vec<u64> = (0..TESTED).map(|pin| self.m.entry(pin)).collect();
        let asserted: Vec<bool> = (0..3).map(|pin| self.asserted(pin)).collect();
        let mut signals = [0; 3];
        for event in self.step(step) {
            match event {
                Event::Signal(message) => signals[message.data as usize & 3] += 1,
                Event::Watch(pin, watch) => {
                    assert_ne!(
                        self.watched[pin as usize], watch,
                        "a watch that changes nothing"
                    );
                    self.watched[pin as usize] = watch;
                }
            }
        }
        for pin in 0..TESTED {
            let p = usize::from(pin);
            let entry = RedirectionEntry::from_bits(self.m.entry(pin)).expect("a possible entry");
            let rose = !asserted[p] && self.asserted(p);
            if entry.is_level() {
                let sendable = self.asserted(p) && !entry.is_masked();
                assert!(
                    !sendable || entry.remote_irr(),
                    "asserted but not delivered"
                );
                let ended = match *step {
                    Step::End(vector) | Step::Eoir(vector) => entry.has_vector(vector),
                    // Through edge-triggered, or the first half of the entry's write.
                    Step::Entry(written, _) => written == pin,
                    Step::Line(..) => false,
                };
                let open = before[p] & IRR != 0 && !ended;
                assert!(signals[p] <= u32::from(!open), "sent again without an end");
                assert!(signals[p] == 0 || entry.remote_irr());
                if !entry.is_masked() {
                    assert_eq!(self.watched[p], Some(entry.message()));
                }
            } else {
                let edge = rose && !entry.is_masked();
                // While an entry is rewritten it may be level-triggered for a moment, with its line up.
                if !matches!(step, Step::Entry(..)) {
                    assert_eq!(signals[p], u32::from(edge), "one message per edge");
                }
                assert_eq!(self.watched[p], None);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn level_is_never_lost_nor_doubled(steps in prop::collection::vec(step(), 0..60)) {
        let mut driven = Driven::new();
        for step in &steps {
            driven.checked_step(step);
        }
    }

    /// Lines restored first, as recommended; then both machines say the same to every step.
    #[test]
    fn restored_goes_on_alike(before in prop::collection::vec(step(), 0..40),
                              after in prop::collection::vec(step(), 0..40)) {
        let mut a = Driven::new();
        for step in &before {
            a.step(step);
        }
        let mut b = Driven::new();
        for (from, to) in a.sources.iter().zip(&b.sources) {
            to.set(from.level());
        }
        b.m.ioapic.restore(a.m.ioapic.save()).unwrap();
        prop_assert!(b.m.vectors().is_empty(), "nothing is sent twice");
        prop_assert_eq!(a.m.ioapic.save(), b.m.ioapic.save());
        for step in &after {
            let signals = |driven: &mut Driven| {
                let mut events = driven.step(step);
                // A masked pin's old watch may be kept by one and not by the other.
                events.retain(|e| matches!(e, Event::Signal(_)));
                events
            };
            prop_assert_eq!(signals(&mut a), signals(&mut b));
        }
        prop_assert_eq!(a.m.ioapic.save(), b.m.ioapic.save());
    }

    #[test]
    fn any_access_leaves_a_possible_state(
        accesses in prop::collection::vec(
            (prop_oneof![Just(IOREGSEL), Just(IOWIN), Just(EOIR), any::<u64>()],
             prop::collection::vec(any::<u8>(), 0..9)),
            0..60,
        )
    ) {
        let mut m = Machine::new();
        let lines: Vec<_> = (0..24).map(|pin| m.ioapic.line(pin)).collect();
        for (offset, mut data) in accesses {
            let _ = m.ioapic.write(offset, &data);
            lines[usize::try_from(offset % 24).unwrap()].pulse();
            m.ioapic.read(offset, &mut data);
        }
        let state = m.ioapic.save();
        let mut n = Machine::new();
        n.ioapic.restore(state.clone()).unwrap();
        prop_assert_eq!(n.ioapic.save(), state);
    }
}
