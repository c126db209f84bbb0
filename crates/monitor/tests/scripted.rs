//! Machines whose guests play a script, without a hypervisor: how they end, what their buses answer.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "tests"
)]

#[path = "../../boot/tests/images/mod.rs"]
mod images;

use std::io::{self, ErrorKind, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use goldcrest_abi::doorbell;
use goldcrest_boot::{BootError, Image};
use goldcrest_bus::{Device, Effect, shared};
use goldcrest_chipset::Output;
use goldcrest_monitor::{
    Control, CustomDevice, Machine, MachineConfig, MonitorError, OnReset, Outcome, Place, Stage,
    StopReason, Timeline, run,
};
use goldcrest_vcpu::Exit;
use goldcrest_vcpu::scripted::{Scripted, Step};
use images::{bzimage, direct_note, pvh_kernel, unikernel};

const SERIAL: u16 = 0x3f8;
const DEBUG_EXIT: u16 = 0xf4;
/// ACPI's sleep control and reset registers, and what they are written with.
const SLEEP: u16 = 0x600;
const SLEEP_S5: u8 = 5 << 2 | 1 << 5;
const RESET: u16 = 0x602;

fn config() -> MachineConfig {
    let note = direct_note(0x10_0000);
    MachineConfig::new(Image::from_bytes("kernel", unikernel(&note)).unwrap())
}

fn out(port: u16, value: u8) -> Step {
    Step::PortWrite(port, vec![value])
}

fn exit(status: u32) -> Step {
    Step::PortWrite(doorbell::EXIT, status.to_le_bytes().into())
}

/// How a guest with this script ends, and what its reads gave.
fn play(config: &MachineConfig, script: impl IntoIterator<Item = Step>) -> (Outcome, Vec<Vec<u8>>) {
    let hypervisor = Scripted::new(script);
    let outcome = run(&hypervisor, config).unwrap();
    (outcome, hypervisor.log().reads)
}

#[test]
fn every_way_out_has_its_outcome() {
    for (step, expected) in [
        (exit(0), "the guest ended with status 0"),
        (exit(300), "the guest ended with status 300"),
        (exit(u32::MAX), "the guest ended with status 4294967295"),
        (out(DEBUG_EXIT, 3), "the guest ended with status 7"),
        (out(SLEEP, SLEEP_S5), "the guest powered off"),
        (out(RESET, 1), "the guest reset the machine"),
        (out(0x64, 0xfe), "the guest reset the machine"),
    ] {
        // Nothing after it is done.
        let (outcome, reads) = play(&config(), [step, Step::PortRead(SERIAL, 1)]);
        assert_eq!(outcome.to_string(), expected);
        assert!(reads.is_empty(), "{expected}: {reads:?}");
    }
}

#[test]
fn writes_that_mean_nothing_do_not_end_the_machine() {
    let harmless = [
        out(doorbell::EXIT, 1),
        Step::PortWrite(doorbell::CONSOLE, vec![0xff; 4]),
        out(SLEEP, 0),
        out(SLEEP, 1 << 5),
        out(RESET, 0),
        out(0x64, 0xaa),
        out(0x1234, 0xff),
        Step::MemoryWrite(0xd000_0000, vec![1; 8]),
        Step::MemoryWrite(u64::MAX, vec![1]),
        Step::EndOfInterrupt(0),
    ];
    let (outcome, _) = play(&config(), harmless.into_iter().chain([exit(9)]));
    assert!(matches!(outcome, Outcome::Exit(9)), "{outcome}");
}

#[test]
fn where_no_device_is_reads_are_all_ones() {
    let reads = [
        Step::PortRead(0xcf8, 4),
        Step::PortRead(0x1000, 1),
        Step::PortRead(0xffff, 4),
        Step::MemoryRead(0xd000_0000, 8),
        Step::MemoryRead(u64::MAX, 8),
        // A range that begins in a device and ends outside of it.
        Step::PortRead(SERIAL + 7, 2),
    ];
    let (_, reads) = play(&config(), reads.into_iter().chain([exit(0)]));
    let [.., _, across] = &*reads else { panic!() };
    for read in &reads[..5] {
        assert!(read.iter().all(|byte| *byte == 0xff), "{reads:?}");
    }
    assert_eq!(across.last(), Some(&0xff));
}

#[test]
fn the_devices_are_where_the_tables_say() {
    let (_, reads) = play(
        &config(),
        [
            Step::PortRead(doorbell::IDENT, 4),
            Step::PortRead(SERIAL + 5, 1),
            out(0x70, 0x0d),
            Step::PortRead(0x71, 1),
            Step::PortRead(0x64, 1),
            out(0x21, 0xfb),
            Step::PortRead(0x21, 1),
            Step::MemoryWrite(0xfec0_0000, vec![1, 0, 0, 0]),
            Step::MemoryRead(0xfec0_0010, 4),
            exit(0),
        ],
    );
    assert_eq!(reads[0], doorbell::IDENT_VALUE.to_le_bytes());
    assert_eq!(reads[1], [0x60], "transmitter empty");
    assert_eq!(reads[2][0] & 0x80, 0x80, "RTC: valid RAM and time");
    assert_ne!(reads[3], [0xff], "i8042 status");
    assert_eq!(reads[4], [0xfb], "8259: the mask that was written");
    assert_eq!(reads[5][2], 23, "IOAPIC: 24 entries");
}

#[test]
fn output_arrives_in_order_before_the_machine_ends() {
    let (output, captured) = Output::capture();
    let config = MachineConfig { output, ..config() };
    let (outcome, _) = play(
        &config,
        b"hello"
            .map(|byte| out(SERIAL, byte))
            .into_iter()
            .chain([exit(0)]),
    );
    assert!(matches!(outcome, Outcome::Exit(0)));
    assert_eq!(captured.take(), b"hello");
}

/// A disk that is full.
struct Full;

impl Write for Full {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        Err(ErrorKind::StorageFull.into())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn output_that_cannot_be_written_ends_the_machine_with_the_reason() {
    let config = MachineConfig {
        output: Output::new(Full),
        on_reset: OnReset::Reboot,
        ..config()
    };
    let hypervisor = Scripted::new([out(SERIAL, b'a'), Step::PortRead(SERIAL, 1)]);
    match run(&hypervisor, &config) {
        Err(MonitorError::Output(error)) => assert_eq!(error.kind(), ErrorKind::StorageFull),
        other => panic!("{other:?}"),
    }
    assert!(hypervisor.log().reads.is_empty());
}

#[test]
fn what_a_machine_does_not_survive_is_a_crash_with_a_report() {
    for (exit, words) in [
        (Exit::Shutdown, "triple fault"),
        (Exit::Halted, "halted for good"),
        (Exit::Unknown(99), "unknown exit reason 99"),
        (Exit::MemoryFault { address: 0x1234 }, "0x1234"),
    ] {
        // Also where a reset would start it again; but a triple fault is one.
        let config = MachineConfig {
            on_reset: match exit {
                Exit::Shutdown => OnReset::Exit,
                _ => OnReset::Reboot,
            },
            ..config()
        };
        let (outcome, _) = play(&config, [Step::Exit(exit.clone())]);
        let text = outcome.to_string();
        assert!(
            text.starts_with("cpu 0 ended: ") && text.contains(words),
            "{text}"
        );
        // Where the image begins, and the code that is there.
        assert!(text.contains("rip   0000000000100000"), "{text}");
        assert!(text.contains("code 90 90"), "{text}");
        assert!(matches!(outcome, Outcome::Crashed { exit: found, .. } if found == exit));
    }
}

/// A guest that prints and then ends by `last` starts again and again, until its time is up.
fn starts_anew_after(last: Step) {
    let (output, captured) = Output::capture();
    let config = MachineConfig {
        output,
        on_reset: OnReset::Reboot,
        // The script is the same in each life: only the time ends it.
        timeout: Some(Duration::from_millis(200)),
        ..config()
    };
    let begun = Instant::now();
    let running = thread::spawn(move || {
        let script = [out(SERIAL, b'>'), last];
        run(&Scripted::new(script), &config).unwrap()
    });
    while !running.is_finished() {
        let waited = begun.elapsed();
        assert!(
            waited < Duration::from_secs(5),
            "each life has its own time"
        );
        thread::sleep(Duration::from_millis(1));
    }
    let outcome = running.join().unwrap();
    assert!(
        matches!(outcome, Outcome::Stopped(StopReason::Timeout)),
        "{outcome}"
    );
    assert!(captured.take().starts_with(b">>"));
}

#[test]
fn after_a_reset_the_guest_starts_anew_if_so_configured() {
    starts_anew_after(out(RESET, 1));
}

#[test]
fn after_a_triple_fault_the_guest_starts_anew_if_so_configured() {
    starts_anew_after(Step::Exit(Exit::Shutdown));
}

#[test]
fn a_machine_that_was_stopped_before_it_started_runs_nothing() {
    for reason in [
        StopReason::Signal(15),
        StopReason::Timeout,
        StopReason::Escape,
    ] {
        let config = config();
        config.control.stop(reason);
        // The first reason counts.
        config.control.stop(StopReason::Signal(1));
        let (outcome, reads) = play(&config, [Step::PortRead(SERIAL, 1), exit(0)]);
        assert!(
            matches!(outcome, Outcome::Stopped(found) if found == reason),
            "{outcome}"
        );
        assert!(reads.is_empty());
    }
}

/// Stops the machine that it is part of.
struct StopButton(Arc<Control>);

impl Device for StopButton {
    fn read(&mut self, _: u64, _: &mut [u8]) {}
    fn write(&mut self, _: u64, _: &[u8]) -> Effect {
        self.0.stop(StopReason::Signal(2));
        Effect::None
    }
}

#[test]
fn a_machine_that_is_stopped_while_it_runs_does_not_go_on() {
    let mut config = MachineConfig {
        on_reset: OnReset::Reboot,
        ..config()
    };
    let (control, place) = (
        config.control.clone(),
        Place::Ports {
            first: 0x1000,
            len: 1,
        },
    );
    let button = CustomDevice::new("stop", place, move |_| shared(StopButton(control.clone())));
    config.devices.push(button);
    let script = [out(0x1000, 0), Step::PortRead(SERIAL, 1), out(RESET, 1)];
    let (outcome, reads) = play(&config, script);
    assert!(
        matches!(outcome, Outcome::Stopped(StopReason::Signal(2))),
        "{outcome}"
    );
    assert!(reads.is_empty());
}

/// Takes its time for an access.
struct Slow {
    entered: mpsc::Sender<()>,
    done: Arc<AtomicBool>,
}

impl Device for Slow {
    fn read(&mut self, _: u64, _: &mut [u8]) {}
    fn write(&mut self, _: u64, _: &[u8]) -> Effect {
        self.entered.send(()).unwrap();
        thread::sleep(Duration::from_millis(50));
        self.done.store(true, Ordering::SeqCst);
        Effect::None
    }
}

#[test]
fn pausing_waits_for_the_access_that_a_cpu_is_in_and_no_other_follows() {
    let ((entered, waiting), done) = (mpsc::channel(), Arc::new(AtomicBool::new(false)));
    let (place, device_done) = (
        Place::Ports {
            first: 0x1000,
            len: 1,
        },
        done.clone(),
    );
    let slow = CustomDevice::new("slow", place, move |_| {
        shared(Slow {
            entered: entered.clone(),
            done: device_done.clone(),
        })
    });
    let mut config = config();
    config.devices.push(slow);
    let control = config.control.clone();
    let hypervisor = Scripted::new([out(0x1000, 0), Step::PortRead(SERIAL, 1), exit(8)]);
    let also = hypervisor.clone();
    let running = thread::spawn(move || run(&also, &config).unwrap());

    waiting.recv().unwrap();
    control.pause();
    assert!(done.load(Ordering::SeqCst), "pause did not wait");
    thread::sleep(Duration::from_millis(10));
    assert!(hypervisor.log().reads.is_empty());
    control.resume();
    assert!(matches!(running.join().unwrap(), Outcome::Exit(8)));
    assert_eq!(hypervisor.log().reads.len(), 1);
}

#[test]
fn one_cpu_that_ends_the_machine_ends_it_for_all() {
    for cpus in [2, 8, 64] {
        let config = MachineConfig { cpus, ..config() };
        let (outcome, _) = play(&config, [exit(4)]);
        assert!(matches!(outcome, Outcome::Exit(4)), "{outcome}");
    }
}

#[test]
fn numbers_of_cpus_have_limits() {
    for cpus in [0, 65, u32::MAX] {
        let config = MachineConfig { cpus, ..config() };
        let error = run(&Scripted::new([]), &config).unwrap_err();
        assert!(matches!(error, MonitorError::Cpus { cpus: found, max: 64 } if found == cpus));
        assert!(error.to_string().contains("from 1 to 64"), "{error}");
    }
}

#[test]
fn an_image_that_cannot_be_loaded_is_an_error_and_no_outcome() {
    let mut bytes = unikernel(&direct_note(0x10_0000));
    bytes.truncate(0x2000);
    let config = MachineConfig::new(Image::from_bytes("cut", bytes).unwrap());
    let error = run(&Scripted::new([]), &config).unwrap_err();
    assert!(
        matches!(error, MonitorError::Boot(BootError::Image { .. })),
        "{error}"
    );
    assert!(error.to_string().starts_with("cut: segment "), "{error}");
}

#[test]
fn every_protocol_gives_a_machine_that_says_how_it_was_loaded() {
    let note = 0x100_0000_u32.to_le_bytes();
    for (bytes, protocol) in [
        (unikernel(&direct_note(0x10_0000)), "direct"),
        (pvh_kernel(&note), "pvh"),
        (images::vmlinux(), "linux-elf"),
        (bzimage(), "linux-bzimage"),
    ] {
        let config = MachineConfig::new(Image::from_bytes("kernel", bytes).unwrap());
        let hypervisor = Scripted::new([exit(6)]);
        let machine = Machine::new(&hypervisor, &config).unwrap();
        assert_eq!(machine.loaded().unwrap().protocol.to_string(), protocol);
        assert!(matches!(machine.run(), Ok(Outcome::Exit(6))), "{protocol}");
    }
}

#[test]
fn the_timeline_has_the_stages_that_the_host_sees() {
    let config = MachineConfig {
        timeline: Some(Timeline::new(Instant::now())),
        ..config()
    };
    play(&config, [exit(0)]);
    let stages: Vec<_> = config
        .timeline
        .unwrap()
        .marks()
        .into_iter()
        .map(|(stage, _)| stage)
        .collect();
    let expected = [
        Stage::MemoryReserved,
        Stage::VmCreated,
        Stage::VcpuCreated,
        Stage::ImageLoaded,
        Stage::VcpuReady,
        Stage::MachineEnded,
    ];
    assert_eq!(stages, expected);
}
