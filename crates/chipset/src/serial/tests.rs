//! The serial port as drivers use it.

use super::*;
use crate::output::Capture;
use goldcrest_irq::LineSink;
use goldcrest_snapshot::{open, seal};
use proptest::prelude::*;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

const DATA: u64 = 0;
const IER: u64 = 1;
const IIR: u64 = super::IIR as u64;
const LCR: u64 = 3;
const LSR: u64 = 5;

#[derive(Default)]
struct Edges(AtomicUsize);

impl LineSink for Edges {
    fn set_source(&self, _pin: u32, up: bool) {
        self.0.fetch_add(usize::from(up), Ordering::Relaxed);
    }
}

struct Machine {
    serial: Serial,
    line: IrqLine,
    edges: Arc<Edges>,
    capture: Capture,
    ready: Arc<AtomicUsize>,
}

impl Machine {
    fn new() -> Self {
        let edges = Arc::new(Edges::default());
        let line = IrqLine::new(edges.clone(), 4);
        let (output, capture) = Output::capture();
        let mut serial = Serial::new(line.clone(), output);
        let ready = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&ready);
        serial.on_ready(move || {
            count.fetch_add(1, Ordering::Relaxed);
        });
        let mut machine = Self {
            serial,
            line,
            edges,
            capture,
            ready,
        };
        machine.poll();
        machine.ready.store(0, Ordering::Relaxed);
        machine
    }

    /// Waits for input as a driver without interrupts does.
    fn poll(&mut self) {
        for _ in 0..POLLS {
            self.inb(LSR);
        }
    }

    fn inb(&mut self, register: u64) -> u8 {
        let mut data = [0];
        self.serial.read(register, &mut data);
        data[0]
    }

    fn outb(&mut self, register: u64, value: u8) {
        assert!(matches!(
            self.serial.write(register, &[value]),
            Effect::None
        ));
    }

    fn ready(&self) -> usize {
        self.ready.load(Ordering::Relaxed)
    }

    fn edges(&self) -> usize {
        self.edges.0.load(Ordering::Relaxed)
    }
}

#[test]
fn polled_output() {
    let mut m = Machine::new();
    for byte in b"boot\n" {
        assert_eq!(m.inb(LSR) & 0x60, 0x60);
        m.outb(DATA, *byte);
    }
    assert_eq!(m.capture.take(), b"boot\n");
    assert!(!m.line.level());
}

#[test]
fn a_wide_access_reaches_the_registers_in_turn() {
    let mut m = Machine::new();
    assert!(matches!(m.serial.write(DATA, b"A\x01"), Effect::None));
    assert_eq!(m.capture.take(), b"A");
    assert_eq!(m.inb(IER), 1);
    let mut data = [0xff; 4];
    m.serial.read(6, &mut data);
    // What lies beyond the last register is left as the bus filled it.
    assert_eq!(data[2..], [0xff, 0xff]);
}

#[test]
fn section_8_6_received_data_interrupt() {
    let mut m = Machine::new();
    m.outb(IER, IER_RDA);
    assert!(!m.line.level());
    assert_eq!(m.serial.enqueue(b"hi"), 2);
    assert!(m.line.level());
    // It stays pending until all is read, for drivers that read a byte per interrupt.
    for byte in b"hi" {
        assert!(m.line.level());
        assert_eq!(m.inb(IIR), 0xc4);
        assert_eq!(m.inb(DATA), *byte);
    }
    assert!(!m.line.level());
    assert_eq!(m.inb(IIR), 0xc1);
    assert_eq!(m.inb(LSR) & LSR_DATA_READY, 0);
    // More input makes a new edge.
    let before = m.edges();
    m.serial.enqueue(b"!");
    assert_eq!(m.edges(), before + 1);
}

#[test]
fn section_8_5_a_pending_interrupt_appears_when_enabled_and_hides_when_not() {
    let mut m = Machine::new();
    m.serial.enqueue(b"x");
    assert!(!m.line.level());
    m.outb(IER, IER_RDA);
    assert!(m.line.level());
    m.outb(IER, 0);
    assert!(!m.line.level());
    m.outb(IER, IER_RDA);
    assert!(m.line.level());
}

#[test]
fn transmitter_empty_interrupt_per_byte() {
    let mut m = Machine::new();
    m.outb(IER, IER_THRE);
    for byte in b"abc" {
        assert!(m.line.level());
        assert_eq!(m.inb(IIR) & 0xf, IIR_THRE);
        assert!(!m.line.level());
        m.outb(DATA, *byte);
    }
    assert!(m.line.level());
    assert_eq!(m.edges(), 4);
    assert_eq!(m.capture.take(), b"abc");
}

#[test]
fn a_second_interrupt_while_one_is_pending_is_a_new_edge() {
    let mut m = Machine::new();
    m.outb(IER, IER_RDA | IER_THRE);
    assert_eq!(m.edges(), 1);
    m.serial.enqueue(b"x");
    assert_eq!(m.edges(), 2);
    assert!(m.line.level());
}

#[test]
fn table_iii_received_data_outranks_transmitter_empty() {
    let mut m = Machine::new();
    m.outb(IER, IER_RDA | IER_THRE);
    m.serial.enqueue(b"x");
    assert_eq!((m.inb(IIR), m.inb(IIR)), (0xc4, 0xc4));
    m.inb(DATA);
    assert!(m.line.level());
    assert_eq!((m.inb(IIR), m.inb(IIR)), (0xc2, 0xc1));
    assert!(!m.line.level());
}

#[test]
fn input_is_bounded_and_ready_is_told_once() {
    let mut m = Machine::new();
    let input = [b'x'; FIFO_SIZE + 9];
    assert_eq!(m.serial.capacity(), FIFO_SIZE);
    assert_eq!(m.serial.enqueue(&input), FIFO_SIZE);
    assert_eq!(m.serial.enqueue(&input[FIFO_SIZE..]), 0);
    for _ in 1..FIFO_SIZE {
        m.inb(DATA);
    }
    assert_eq!(m.ready(), 0);
    m.inb(DATA);
    assert_eq!(m.ready(), 1);
    // An empty FIFO that is read on, and input that fits, tell nothing.
    m.inb(DATA);
    assert_eq!(m.serial.enqueue(b"rest"), 4);
    for _ in 0..4 {
        m.inb(DATA);
    }
    assert_eq!(m.ready(), 1);
}

#[test]
fn loopback_refuses_input_until_it_ends_and_cannot_wake_the_host() {
    let mut m = Machine::new();
    m.outb(IER, IER_RDA);
    m.outb(MCR.into(), MCR_LOOP);
    assert_eq!(m.serial.capacity(), 0);
    assert_eq!(m.serial.enqueue(b"in"), 0);
    for _ in 0..3 {
        m.outb(DATA, b'l');
        assert_eq!(m.inb(DATA), b'l');
    }
    assert_eq!((m.ready(), m.capture.take()), (0, vec![]));
    m.outb(MCR.into(), 0);
    assert_eq!(m.ready(), 1);
    assert_eq!(m.serial.enqueue(b"in"), 2);
}

#[test]
fn input_waits_until_somebody_listens() {
    let mut m = Machine::new();
    // A driver that only sends reads line status before each byte.
    for _ in 0..100 {
        m.inb(LSR);
        m.outb(DATA, b'.');
    }
    assert_eq!(m.serial.capacity(), 0);
    assert_eq!((m.serial.enqueue(b"early"), m.ready()), (0, 0));
    // One that takes over clears the FIFO first; what comes later is for it.
    m.inb(DATA);
    m.outb(IER, IER_RDA);
    assert_eq!(m.ready(), 1);
    assert_eq!(m.serial.enqueue(b"now"), 3);
    assert!(m.line.level());

    // Linux's 8250 driver looks for interrupts so, and throws away what arrives meanwhile.
    m.outb(MCR.into(), 0);
    m.outb(IER, 0x0f);
    assert_eq!(m.serial.capacity(), 0);
    m.outb(MCR.into(), MCR_OUT2);
    assert_ne!(m.serial.capacity(), 0);

    let mut polling = Machine::new();
    polling.outb(DATA, b'>');
    assert_eq!(polling.serial.enqueue(b"y"), 0);
    polling.poll();
    assert_eq!((polling.ready(), polling.serial.enqueue(b"y")), (1, 1));
}

#[test]
fn output_that_fails_is_reported() {
    struct Full;
    impl io::Write for Full {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::StorageFull.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let mut serial = Serial::new(IrqLine::detached(), Output::new(Full));
    assert!(matches!(
        serial.write(DATA, b"x"),
        Effect::HostFailed(e) if e.kind() == io::ErrorKind::StorageFull
    ));
}

#[test]
fn saved_input_and_pending_interrupt_come_back() {
    let mut m = Machine::new();
    m.outb(LCR, 0x80);
    m.outb(DATA, 1);
    m.outb(LCR, 3);
    m.outb(IER, IER_RDA);
    m.serial.enqueue(b"keep");
    let bytes = seal(&m.serial).unwrap();

    let mut n = Machine::new();
    open(&mut n.serial, &bytes).unwrap();
    assert_eq!(n.serial.save(), m.serial.save());
    assert!(n.line.level());
    assert_eq!(n.inb(IIR) & 0xf, IIR_RDA);
    let read: Vec<u8> = (0..4).map(|_| n.inb(DATA)).collect();
    assert_eq!(read, b"keep");
    assert_eq!(n.ready(), 1);
}

#[test]
fn impossible_states_are_refused() {
    let good = Machine::new().serial.save();
    let bad = [
        SerialState {
            ier: 0x10,
            ..good.clone()
        },
        SerialState {
            iir: 0,
            ..good.clone()
        },
        SerialState {
            iir: 3,
            ..good.clone()
        },
        SerialState {
            iir: 0xc1,
            ..good.clone()
        },
        SerialState {
            lsr: 0x61,
            ..good.clone()
        },
        SerialState {
            fifo: vec![0],
            ..good.clone()
        },
        SerialState {
            lsr: 0x61,
            fifo: vec![0; FIFO_SIZE + 1],
            ..good.clone()
        },
    ];
    for state in bad {
        let mut m = Machine::new();
        assert!(m.serial.restore(state).is_err());
        assert_eq!(m.serial.save(), good);
    }
}

#[derive(Debug, Clone)]
enum Step {
    Read(u64, usize),
    Write(u64, Vec<u8>),
    Enqueue(Vec<u8>),
}

fn step() -> impl Strategy<Value = Step> {
    let bytes = |max| prop::collection::vec(any::<u8>(), 0..max);
    prop_oneof![
        (0_u64..9, 0_usize..9).prop_map(|(o, n)| Step::Read(o, n)),
        (0_u64..9, bytes(9)).prop_map(|(o, d)| Step::Write(o, d)),
        bytes(80).prop_map(Step::Enqueue),
    ]
}

impl Machine {
    fn step(&mut self, step: &Step) -> Vec<u8> {
        match step {
            Step::Read(offset, len) => {
                let mut data = vec![0; *len];
                self.serial.read(*offset, &mut data);
                data
            }
            Step::Write(offset, data) => {
                assert!(matches!(self.serial.write(*offset, data), Effect::None));
                self.capture.take()
            }
            Step::Enqueue(data) => vec![u8::try_from(self.serial.enqueue(data)).unwrap()],
        }
    }
}

proptest! {
    /// Whatever a guest did, what it can see goes on alike after a save and restore; and nothing panics.
    #[test]
    fn restored_goes_on_alike(before in prop::collection::vec(step(), 0..40),
                              after in prop::collection::vec(step(), 0..40)) {
        let mut a = Machine::new();
        for s in &before {
            a.step(s);
        }
        let mut b = Machine::new();
        b.serial.restore(a.serial.save()).unwrap();
        prop_assert_eq!(a.line.level(), b.line.level());
        for s in &after {
            prop_assert_eq!(a.step(s), b.step(s));
            prop_assert_eq!(a.line.level(), b.line.level());
        }
    }
}
