//! A machine's devices, on their buses.

use std::sync::{Arc, Mutex, PoisonError};

use goldcrest_boot::MmioDevice;
use goldcrest_bus::{Bus, Range, shared};
use goldcrest_chipset::{
    DebugExit, Doorbell, I8042, Power, Rtc, Serial, SystemClock, debug_exit, doorbell, i8042,
    power, rtc, serial,
};
use goldcrest_irq::{FanOut, Ioapic, IrqLine, Pic, ioapic, pic};
use goldcrest_memory::GuestRam;
use vmm_sys_util::eventfd::EventFd;

use crate::cpu::{Board, End, WakeCpu};
use crate::device_loop::DeviceLoop;
use crate::events::EventThreads;
use crate::hypercalls::HypercallPort;
use crate::input::SerialInput;
use crate::{
    Control, CustomDevice, Input, MachineKind, MonitorError, Output, VirtioConfig, Wiring,
    generation, test_machine, virtio,
};

/// What a machine's devices are made from.
pub(crate) struct Fittings<'a> {
    pub(super) output: &'a Output,
    pub(super) input: Option<&'a Input>,
    pub(super) control: &'a Arc<Control>,
    pub(super) machine: MachineKind,
    pub(crate) cpus: u32,
    pub(super) devices: &'a [CustomDevice],
    pub(super) virtio: &'a [VirtioConfig],
}

/// The devices on their buses.
pub(super) fn board(
    config: &Fittings<'_>,
    ram: &GuestRam,
    mmio: &[MmioDevice],
    ioapic: Ioapic,
    hypercalls: Vec<HypercallPort>,
) -> Result<(Arc<Board>, Arc<EventThreads>), MonitorError> {
    let wake = Arc::new(WakeCpu::default());
    let pic = Pic::new(IrqLine::new(wake.clone(), 0));
    // As on a PC, both interrupt controllers have the lines of the ISA devices.
    let isa = FanOut::new([ioapic.lines(), pic.lines()]);
    let serial = shared(Serial::new(isa.line(serial::IRQ), config.output.clone()));
    let mut ports = Bus::new("port");
    let output = config.output.clone();
    let control = config.control.clone();
    output.give_up_when(move || control.stopped().is_some());
    let doorbell = Doorbell::new(ram.memory().clone(), output);
    ports.add("serial", serial::RANGE, serial.clone())?;
    ports.add("debug-exit", debug_exit::RANGE, shared(DebugExit))?;
    let rtc = shared(Rtc::new(SystemClock));
    let i8042 = shared(I8042::new(isa.line(i8042::IRQ)));
    ports.add("rtc", rtc::RANGE, rtc.clone())?;
    ports.add("i8042", i8042::RANGE, i8042.clone())?;
    ports.add("power", power::RANGE, shared(Power::default()))?;
    for (first, device) in pic.ports() {
        ports.add("pic", Range::ports(first, pic::LEN), shared(device))?;
    }
    let doorbell = shared(doorbell);
    ports.add("doorbell", doorbell::RANGE, doorbell.clone())?;
    let mut unsaved = Vec::new();
    for HypercallPort {
        name,
        range,
        device,
    } in hypercalls
    {
        unsaved.push(format!("the guest of {name}"));
        ports.add(name, range, device)?;
    }
    let mut memory = Bus::new("memory");
    memory.add(
        "ioapic",
        Range::new(ioapic::ADDRESS, ioapic::LEN)?,
        shared(ioapic.clone()),
    )?;
    if config.machine == MachineKind::Test {
        unsaved.push("a machine for test kernels".to_owned());
        test_machine::add_devices(config.cpus, ram.size(), &isa, &mut ports, &mut memory)?;
    }
    let wiring = Wiring { ram, isa: &isa };
    for device in config.devices {
        unsaved.push(format!("device {}", device.name()));
        device.add(&wiring, &mut ports, &mut memory)?;
    }
    let devices = Arc::new(DeviceLoop::default());
    let counters = &config.control.counters;
    let virtio = virtio::attach(
        config.virtio,
        mmio,
        ram,
        &isa,
        &mut memory,
        &devices,
        counters,
    )?;
    for device in virtio.iter().filter(|device| device.saved.is_none()) {
        unsaved.push(format!("device {}", device.id));
    }
    let generation = ioapic.line(generation::INTERRUPT);
    let board = Arc::new(Board {
        ports,
        memory,
        ioapic,
        pic,
        serial: serial.clone(),
        rtc,
        i8042,
        virtio,
        generation,
        unsaved,
        saved: Mutex::default(),
        wake,
        view: ram.view(),
        doorbell,
        control: config.control.clone(),
        end: End::default(),
    });
    counters.begin(&board);
    let events = Arc::new(EventThreads::default());
    devices.connect(&board, &events);
    config.control.attach_devices(&board);
    feed_input(config, &serial, &board, &events);
    Ok((board, events))
}

/// Has the serial port's input read from when the guest first listens to it, and not before.
fn feed_input(
    config: &Fittings<'_>,
    serial: &Arc<Mutex<Serial>>,
    board: &Arc<Board>,
    events: &Arc<EventThreads>,
) {
    let Some(input) = config.input.cloned() else {
        return;
    };
    let control = config.control.clone();
    // Weak: the board owns the port, which owns the callback.
    let port = Arc::downgrade(serial);
    let board = Arc::downgrade(board);
    let events = Arc::downgrade(events);
    let mut wake: Option<EventFd> = None;
    let ready = move || {
        if let Some(wake) = &wake {
            // The counter cannot overflow: it is read before the callback is owed again.
            let _ = wake.write(1);
        } else if let (Some(port), Some(board), Some(events)) =
            (port.upgrade(), board.upgrade(), events.upgrade())
        {
            (input.on_listen)();
            let started =
                SerialInput::new(input.clone(), port, control.clone()).and_then(|feeder| {
                    wake = Some(feeder.wake()?);
                    events.start(board.clone(), || Ok(Box::new(feeder)))
                });
            if let Err(source) = started {
                board.events_failed("read the guest's input", source);
            }
        }
    };
    serial
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .on_ready(ready);
}
