//! The IOAPIC: register accesses, lines that several sources share, ends of interrupts.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arbitrary::{Result, Unstructured};
use goldcrest_irq::ioapic::{self, Ioapic, PINS};
use goldcrest_irq::{IrqLine, Msi, MsiSink};
use goldcrest_snapshot::Snapshot;

use crate::access::Access;
use crate::saved;

const REMOTE_IRR: u64 = 1 << 14;
const MASK: u64 = 1 << 16;
/// Two sources on each pin, and some on a pin that does not exist.
const SOURCES: usize = 2 * (PINS + 1);
/// How often a run restores: it takes as long as a hundred other steps.
const RESTORES: u32 = 4;
/// The registers end long before the page does.
const REGISTERS: u64 = 0x48;

/// Runs the target.
pub fn run(data: &[u8]) {
    let sink = sink();
    let _ = drive(
        Ioapic::new(sink.clone()),
        &sink,
        &mut Unstructured::new(data),
    );
}

/// Counts messages and requests to watch.
#[derive(Default)]
pub(crate) struct Counter {
    messages: AtomicU64,
    watches: AtomicU64,
}

pub(crate) fn sink() -> Arc<Counter> {
    Arc::default()
}

impl MsiSink for Counter {
    fn signal(&self, message: Msi) {
        assert_eq!(message.address_hi, 0);
        assert_eq!(message.address_lo >> 20, 0xfee, "{message:x?}");
        self.messages.fetch_add(1, Ordering::Relaxed);
    }

    fn watch_eoi(&self, source: u32, message: Option<Msi>) {
        assert!((source as usize) < PINS);
        if let Some(message) = message {
            assert_eq!(message.data >> 14 & 0b11, 0b11, "level-triggered, asserted");
        }
        self.watches.fetch_add(1, Ordering::Relaxed);
    }
}

impl Counter {
    /// Takes the counts since the last call.
    fn take(&self) -> (u64, u64) {
        let take = |counter: &AtomicU64| counter.swap(0, Ordering::Relaxed);
        (take(&self.messages), take(&self.watches))
    }
}

pub(crate) fn drive(
    mut ioapic: Ioapic,
    sink: &Arc<Counter>,
    input: &mut Unstructured<'_>,
) -> Result<()> {
    let mut lines = lines(&ioapic);
    let mut restores = 0;
    sink.take();
    for step in 0u32.. {
        // Looking at all lines takes longer than the step does.
        if input.is_empty() || step % 8 == 0 {
            check(&ioapic, &lines);
        }
        if input.is_empty() {
            break;
        }
        // What one step may send, and ask to watch.
        let (messages, watches) = match input.arbitrary::<u8>()? {
            0xff => {
                restores += 1;
                if restores <= RESTORES {
                    restore(&mut ioapic, &mut lines, sink);
                }
                (PINS as u64, PINS as u64)
            }
            0xf0.. => {
                ioapic.end_of_interrupt(input.arbitrary()?);
                (PINS as u64, 0)
            }
            op @ 0xa0.. => {
                let source = usize::from(input.arbitrary::<u8>()?) % SOURCES;
                lines[source].set(op & 1 != 0);
                (u64::from(op & 1), 0)
            }
            _ => write_or_read(&mut ioapic, &Access::take(input, REGISTERS)?),
        };
        let sent = sink.take();
        assert!(sent.0 <= messages && sent.1 <= watches, "{sent:?}");
    }
    Ok(())
}

fn lines(ioapic: &Ioapic) -> Vec<IrqLine> {
    (0u32..)
        .take(SOURCES)
        .map(|source| ioapic.line(source / 2))
        .collect()
}

/// Does the access; returns how many messages and requests to watch it may cause.
fn write_or_read(ioapic: &mut Ioapic, access: &Access) -> (u64, u64) {
    access.apply(ioapic).assert_goes_on();
    match (access.offset, access.written().len()) {
        (0x10, 4) => (1, 1),
        (0x40, 1..) => (PINS as u64, 0),
        _ => (0, 0),
    }
}

/// Goes on with a restored IOAPIC, whose lines are at the same levels before.
fn restore(ioapic: &mut Ioapic, lines: &mut Vec<IrqLine>, sink: &Arc<Counter>) {
    // With all lines down nothing is sent, and what is saved is what was restored.
    saved::round_trip(ioapic, &mut Ioapic::new(sink.clone()));
    let state = ioapic.save();
    let mut fresh = Ioapic::new(sink.clone());
    let fresh_lines = self::lines(&fresh);
    for (old, new) in lines.iter().zip(&fresh_lines) {
        new.set(old.level());
    }
    sink.take();
    fresh.restore(state.clone()).expect("it was saved");
    // What is asserted and due was sent before it was saved.
    assert_eq!(fresh.save(), state);
    assert_eq!(sink.take().0, 0);
    (*ioapic, *lines) = (fresh, fresh_lines);
    sink.take();
}

/// A level-triggered pin that is asserted and not masked waits for an end of interrupt: it was sent.
fn check(ioapic: &Ioapic, lines: &[IrqLine]) {
    for (entry, sources) in ioapic.save().redirection_table.iter().zip(lines.chunks(2)) {
        let level = entry >> 15 & 1 != 0 && entry >> 8 & 7 <= 1;
        let up = sources.iter().any(IrqLine::level);
        if level && up && entry & MASK == 0 {
            assert!(entry & REMOTE_IRR != 0, "{entry:#x} was not sent");
        }
        assert!(level || entry & REMOTE_IRR == 0, "{entry:#x}");
    }
}

const _: () = assert!(REGISTERS <= ioapic::LEN);
