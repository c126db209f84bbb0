//! What must hold of a device whatever its driver does.

use goldcrest_irq::IrqLine;
use goldcrest_virtio::spec::{mmio, status};
use goldcrest_virtio::{Mmio, VirtioDevice, Waits, driver};

use crate::place;

/// How far a device is in a queue.
#[derive(Debug, Clone, Copy, Default)]
struct Progress {
    size: u16,
    taken: u16,
    used: u16,
    in_flight: usize,
}

/// How far it is in each.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    before: [Progress; place::QUEUES],
    misuses: u64,
}

impl Watch {
    /// Before a call of the device.
    pub(crate) fn begin<D: VirtioDevice>(device: &Mmio<D>) -> Self {
        Self {
            before: progress(device),
            misuses: device.core().misuses(),
        }
    }

    /// After it.
    pub(crate) fn end<D: VirtioDevice>(self, device: &mut Mmio<D>, line: &IrqLine) {
        for (index, (before, after)) in self.before.iter().zip(progress(device)).enumerate() {
            // One call does not take a queue out of use and put it back.
            if before.size != 0 && after.size != 0 {
                check(index, before, &after);
            } else {
                assert_eq!(after.in_flight, 0, "queue {index} is not in use");
            }
        }
        assert!(device.core().misuses() >= self.misuses);
        let interrupts = driver::read(device, mmio::INTERRUPT_STATUS);
        assert_eq!(interrupts & !3, 0);
        assert_eq!(line.level(), interrupts != 0, "line, InterruptStatus");
        if !is_live(device) {
            let mut waits = Waits::default();
            device.waits(&mut waits);
            assert!(waits.is_empty(), "a device that is not live waits");
        }
    }
}

fn check(index: usize, before: &Progress, after: &Progress) {
    // A device may put back what it took.
    let taken = i64::from(after.taken.wrapping_sub(before.taken).cast_signed());
    let used = i64::from(after.used.wrapping_sub(before.used));
    let size = i64::from(after.size);
    let [had, has] = [before, after].map(|progress| i64::try_from(progress.in_flight).unwrap());
    assert!(
        taken <= size,
        "queue {index} took {taken} of {size} in a call"
    );
    assert!(
        used <= had + size && had + taken - used == has && has <= size,
        "queue {index} of {size} had {had}, took {taken}, gave back {used}, has {has}"
    );
}

fn progress<D: VirtioDevice>(device: &Mmio<D>) -> [Progress; place::QUEUES] {
    let mut all = [Progress::default(); place::QUEUES];
    for (index, progress) in (0..).zip(&mut all) {
        let Some(queue) = device.core().queue(index) else {
            break;
        };
        let (taken, used) = driver::indexes(queue);
        *progress = Progress {
            size: queue.size(),
            taken,
            used,
            in_flight: queue.in_flight(),
        };
    }
    all
}

/// Whether the device works.
pub(crate) fn is_live<D: VirtioDevice>(device: &Mmio<D>) -> bool {
    let all = status::DRIVER_OK | status::DEVICE_NEEDS_RESET | status::FAILED;
    device.core().status() & all == status::DRIVER_OK
}

/// Nothing is in flight.
pub(crate) fn assert_idle<D: VirtioDevice>(device: &Mmio<D>) {
    for (index, progress) in progress(device).iter().enumerate() {
        assert_eq!(progress.in_flight, 0, "in flight in queue {index}");
    }
}
