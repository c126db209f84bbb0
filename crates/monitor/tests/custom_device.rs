//! Devices of one's own in machines whose guests play a script.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use goldcrest_bus::{Device, Effect, shared};
use goldcrest_irq::{IrqLine, Msi, ioapic};
use goldcrest_memory::GuestView;
use goldcrest_monitor::{CustomDevice, MachineConfig, MonitorError, OnReset, Outcome, Place, run};
use goldcrest_vcpu::scripted::{Scripted, Step};
use support::image;

const PORTS: Place = Place::Ports {
    first: 0x1000,
    len: 4,
};
const MEMORY: Place = Place::Memory {
    first: 0xd000_0000,
    len: 0x1000,
};

/// Reads as the offset and how often it was written; resets the machine by the first write, ends it by the second.
struct Counter {
    writes: Arc<AtomicU32>,
    own_writes: u8,
}

impl Device for Counter {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        data.fill(u8::try_from(offset).unwrap() | self.own_writes);
    }
    fn write(&mut self, _: u64, _: &[u8]) -> Effect {
        self.own_writes += 1;
        match self.writes.fetch_add(1, Ordering::Relaxed) {
            0 => Effect::Reset,
            _ => Effect::Exit(5),
        }
    }
}

fn config(devices: Vec<CustomDevice>) -> MachineConfig {
    MachineConfig {
        devices,
        on_reset: OnReset::Reboot,
        ..MachineConfig::new(image(&[0xeb, 0xfe], &[], 0x1000)) // jmp .
    }
}

fn counters(writes: &Arc<AtomicU32>) -> Vec<CustomDevice> {
    [PORTS, MEMORY]
        .map(|place| {
            let writes = writes.clone();
            CustomDevice::new("counter", place, move |_| {
                shared(Counter {
                    writes: writes.clone(),
                    own_writes: 0,
                })
            })
        })
        .into()
}

#[test]
fn the_guest_reaches_the_device_on_either_bus_and_finds_it_fresh_after_a_reset() {
    for (read, write) in [
        (Step::PortRead(0x1002, 1), Step::PortWrite(0x1002, vec![0])),
        (
            Step::MemoryRead(0xd000_0040, 1),
            Step::MemoryWrite(0xd000_0040, vec![0]),
        ),
    ] {
        let hypervisor = Scripted::new([read, write]);
        let outcome = run(&hypervisor, &config(counters(&Arc::default()))).unwrap();
        assert!(matches!(outcome, Outcome::Exit(5)), "{outcome}");
        // Once in each of two lives, and neither knows of the other's write.
        let reads = hypervisor.log().reads;
        assert_eq!(reads.len(), 2);
        assert!(reads[0] == reads[1] && reads[0][0] & 1 == 0, "{reads:?}");
    }
}

/// Interrupts, and ends the machine with a byte of its RAM.
struct Ringer(IrqLine, GuestView);

impl Device for Ringer {
    fn read(&mut self, _: u64, _: &mut [u8]) {}
    fn write(&mut self, _: u64, _: &[u8]) -> Effect {
        self.0.pulse();
        let mut code = [0];
        self.1.read(0x10_0000, &mut code).unwrap();
        Effect::Exit(code[0].into())
    }
}

#[test]
fn the_device_interrupts_and_sees_ram() {
    let device = CustomDevice::new("ringer", PORTS, |wiring| {
        shared(Ringer(wiring.irq_line(5), wiring.ram.view()))
    });
    // Redirection entry 5, low half: vector 0x30, not masked.
    let hypervisor = Scripted::new([
        Step::MemoryWrite(ioapic::ADDRESS, 0x1a_u32.to_le_bytes().into()),
        Step::MemoryWrite(ioapic::ADDRESS + 0x10, 0x30_u32.to_le_bytes().into()),
        Step::PortWrite(0x1000, vec![1]),
    ]);
    let outcome = run(&hypervisor, &config(vec![device])).unwrap();
    assert!(matches!(outcome, Outcome::Exit(0xeb)), "{outcome}");
    let messages = hypervisor.log().messages;
    assert!(
        matches!(messages[..], [Msi { data: 0x30, .. }]),
        "{messages:x?}"
    );
}

#[test]
fn what_the_guest_could_never_reach_is_refused() {
    let refused = |place| {
        let device = CustomDevice::new("probe", place, |_| shared(goldcrest_chipset::DebugExit));
        run(&Scripted::new([]), &config(vec![device])).unwrap_err()
    };
    let in_ram = refused(Place::Memory {
        first: (128 << 20) - 1,
        len: 2,
    });
    assert_eq!(
        in_ram.to_string(),
        "memory range 0x7ffffff-0x8000000 of probe overlaps RAM 0x0-0x7ffffff"
    );
    for (place, other) in [
        (
            Place::Ports {
                first: 0x3ff,
                len: 2,
            },
            "serial",
        ),
        (
            Place::Memory {
                first: 0xfec0_0000,
                len: 1,
            },
            "ioapic",
        ),
    ] {
        let error = refused(place);
        assert!(matches!(error, MonitorError::Bus(_)), "{error}");
        assert!(error.to_string().contains(other), "{error}");
    }
    let empty = refused(Place::Ports { first: 1, len: 0 });
    assert!(matches!(empty, MonitorError::Bus(_)), "{empty}");
}
