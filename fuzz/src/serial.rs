//! The 16550 serial port: register accesses and input from the host, in any order.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use arbitrary::{Result, Unstructured};
use goldcrest_bus::Effect;
use goldcrest_chipset::Output;
use goldcrest_chipset::serial::{self, FIFO_SIZE, Serial};
use goldcrest_irq::IrqLine;
use goldcrest_snapshot::Snapshot;

use crate::access::Access;
use crate::saved;

/// IER and IIR: received data, and an empty transmitter, each as an interrupt; LSR: data ready.
const IER_RDA: u8 = 1 << 0;
const IER_THRE: u8 = 1 << 1;
const IIR_THRE: u8 = 1 << 1;
const LSR_DATA_READY: u8 = 1 << 0;

/// Runs the target.
pub fn run(data: &[u8]) {
    let mut input = Unstructured::new(data);
    let _ = Machine::take(&mut input).and_then(|mut machine| machine.drive(&mut input));
}

/// Uses a port whose state came from elsewhere.
pub(crate) fn drive(port: Serial, line: IrqLine, input: &mut Unstructured<'_>) -> Result<()> {
    Machine::new(port, line, Sink::default()).drive(input)
}

/// Counts bytes, and breaks after some.
#[derive(Clone, Default)]
struct Sink {
    taken: Arc<AtomicUsize>,
    limit: Option<usize>,
}

impl io::Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = self.taken.load(Ordering::Relaxed);
        if self.limit.is_some_and(|limit| taken + bytes.len() > limit) {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        self.taken.store(taken + bytes.len(), Ordering::Relaxed);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct Machine {
    port: Serial,
    line: IrqLine,
    sink: Sink,
    /// Bytes that the guest has written to any register: at most so many can come out.
    written: usize,
    calls: Arc<AtomicUsize>,
    /// How often the host gave input: the guest can wake it once for each, and once at the start.
    enqueued: usize,
}

impl Machine {
    fn take(input: &mut Unstructured<'_>) -> Result<Self> {
        let limit: u8 = input.arbitrary()?;
        let sink = Sink {
            taken: Arc::default(),
            limit: (limit < 0x80).then_some(limit.into()),
        };
        let line = IrqLine::detached();
        let port = Serial::new(line.clone(), Output::new(sink.clone()));
        Ok(Self::new(port, line, sink))
    }

    fn new(mut port: Serial, line: IrqLine, sink: Sink) -> Self {
        let calls = Arc::new(AtomicUsize::new(0));
        let counter = calls.clone();
        port.on_ready(move || {
            counter.fetch_add(1, Ordering::Relaxed);
        });
        Self {
            port,
            line,
            sink,
            written: 0,
            calls,
            enqueued: 0,
        }
    }

    fn drive(&mut self, input: &mut Unstructured<'_>) -> Result<()> {
        while !input.is_empty() {
            match input.arbitrary::<u8>()? {
                0xff => self.restore(),
                0xe0.. => self.enqueue(input)?,
                _ => self.access(&Access::take(input, serial::LEN.into())?),
            }
            self.check();
        }
        Ok(())
    }

    fn access(&mut self, access: &Access) {
        self.written += access.written().len();
        match access.apply(&mut self.port).effect {
            Effect::None => {}
            Effect::HostFailed(_) => assert!(self.sink.limit.is_some()),
            effect => panic!("{effect:?}"),
        }
    }

    fn enqueue(&mut self, input: &mut Unstructured<'_>) -> Result<()> {
        let len = usize::from(input.arbitrary::<u8>()?) % 80;
        let bytes = input.bytes(len.min(input.len()))?;
        let capacity = self.port.capacity();
        let taken = self.port.enqueue(bytes);
        assert_eq!(taken, bytes.len().min(capacity));
        self.enqueued += 1;
        Ok(())
    }

    /// Goes on with a restored port, as a clone of the machine would.
    fn restore(&mut self) {
        let (line, sink) = (IrqLine::detached(), self.sink.clone());
        let mut port = Serial::new(line.clone(), Output::new(sink.clone()));
        saved::round_trip(&self.port, &mut port);
        let (written, taken) = (self.written, line.level());
        assert_eq!(taken, self.line.level());
        *self = Self::new(port, line, sink);
        self.written = written;
    }

    /// §8.6: the line is up exactly while an interrupt is pending and enabled.
    fn check(&self) {
        let state = self.port.save();
        let received_data = state.ier & IER_RDA != 0 && state.lsr & LSR_DATA_READY != 0;
        let transmitter_empty = state.ier & IER_THRE != 0 && state.iir & IIR_THRE != 0;
        assert_eq!(self.line.level(), received_data || transmitter_empty);
        assert!(state.fifo.len() <= FIFO_SIZE);
        assert!(self.sink.taken.load(Ordering::Relaxed) <= self.written);
        assert!(self.calls.load(Ordering::Relaxed) <= self.enqueued + 1);
    }
}
