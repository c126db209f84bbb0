//! Pausing and stopping machines that really run.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "tests"
)]

mod support;

use std::sync::{Arc, OnceLock};
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

use goldcrest_bus::shared;
use goldcrest_chipset::DebugExit;
use goldcrest_memory::GuestView;
use goldcrest_monitor::{
    Control, CustomDevice, MachineConfig, MonitorError, Outcome, Place, StopReason, run,
};
use support::DATA;

/// What "at once" may take on a busy machine.
const SOON: Duration = Duration::from_secs(5);
/// Long enough for a guest that runs to count.
const A_WHILE: Duration = Duration::from_millis(20);

/// Counts in memory for ever.
const COUNT: [u8; 10] = [
    0x48, 0xff, 0x04, 0x25, 0, 0, 0x11, 0, // inc qword [DATA]
    0xeb, 0xf6, // jmp .-8
];

/// Ends the machine with status 4.
const END: [u8; 10] = [
    0x66, 0xba, 0x04, 0x0e, // mov dx, doorbell::EXIT
    0xb8, 4, 0, 0, 0,    // mov eax, 4
    0xef, // out dx, eax
];

/// A machine that runs on a thread, and whose memory is looked at from here.
struct Running {
    control: Arc<Control>,
    memory: Arc<OnceLock<GuestView>>,
    thread: thread::JoinHandle<Result<Outcome, MonitorError>>,
}

impl Running {
    /// A machine that counts. None where guests cannot run; says so.
    fn start(cpus: u32, timeout: Option<Duration>) -> Option<Self> {
        Self::start_code(&COUNT, cpus, timeout)
    }

    fn start_code(code: &[u8], cpus: u32, timeout: Option<Duration>) -> Option<Self> {
        let kvm = support::kvm()?;
        let memory = Arc::new(OnceLock::new());
        let (window, place) = (
            memory.clone(),
            Place::Ports {
                first: 0x1000,
                len: 4,
            },
        );
        // A device only to get at the memory.
        let device = CustomDevice::new("window", place, move |wiring| {
            window.get_or_init(|| wiring.ram.view());
            shared(DebugExit)
        });
        let config = MachineConfig {
            cpus,
            timeout,
            devices: vec![device],
            ..MachineConfig::new(support::image(code, &[], 0x1000))
        };
        Some(Self {
            control: config.control.clone(),
            memory,
            thread: thread::spawn(move || run(&kvm, &config)),
        })
    }

    fn count(&self) -> u64 {
        let mut bytes = [0; 8];
        if let Some(memory) = self.memory.get() {
            memory.read(DATA, &mut bytes).unwrap();
        }
        u64::from_le_bytes(bytes)
    }

    /// Waits until the guest has counted on.
    fn wait_for_progress(&self) {
        let (begun, before) = (Instant::now(), self.count());
        while self.count() == before {
            assert!(begun.elapsed() < SOON, "the guest does not run");
            sleep(Duration::from_millis(1));
        }
    }

    fn assert_stands_still(&self) {
        let before = self.count();
        sleep(A_WHILE);
        assert_eq!(self.count(), before, "the guest runs while it is paused");
    }

    /// How it ended, within a short time.
    fn outcome(self) -> Outcome {
        let begun = Instant::now();
        while !self.thread.is_finished() {
            assert!(begun.elapsed() < SOON, "the machine does not end");
            sleep(Duration::from_millis(1));
        }
        self.thread.join().unwrap().unwrap()
    }

    /// The reason for which it was stopped.
    fn stopped(self) -> StopReason {
        match self.outcome() {
            Outcome::Stopped(reason) => reason,
            other => panic!("{other}"),
        }
    }
}

#[test]
fn a_paused_machine_stands_still_and_goes_on_when_resumed() {
    for cpus in [1, 2] {
        let Some(running) = Running::start(cpus, None) else {
            return;
        };
        running.wait_for_progress();
        for _ in 0..20 {
            running.control.pause();
            running.assert_stands_still();
            running.control.resume();
            running.wait_for_progress();
        }
        running.control.stop(StopReason::Escape);
        assert_eq!(running.stopped(), StopReason::Escape);
    }
}

#[test]
fn no_instruction_runs_once_pause_has_returned() {
    let Some(running) = Running::start(1, None) else {
        return;
    };
    running.wait_for_progress();
    for _ in 0..500 {
        running.control.pause();
        let before = running.count();
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_micros(50) {
            assert_eq!(running.count(), before);
        }
        running.control.resume();
        while running.count() == before {
            thread::yield_now();
        }
    }
    running.control.stop(StopReason::Escape);
    running.stopped();
}

#[test]
fn pausing_twice_is_pausing_and_resuming_twice_is_resuming() {
    let Some(running) = Running::start(1, None) else {
        return;
    };
    running.wait_for_progress();
    running.control.pause();
    running.control.pause();
    running.assert_stands_still();
    running.control.resume();
    running.control.resume();
    running.wait_for_progress();
    running.control.stop(StopReason::Signal(15));
    assert_eq!(running.stopped(), StopReason::Signal(15));
}

#[test]
fn a_machine_that_was_paused_before_it_started_waits() {
    let Some(running) = Running::start(2, None) else {
        return;
    };
    running.control.pause();
    running.assert_stands_still();
    running.control.resume();
    running.wait_for_progress();
    running.control.stop(StopReason::Escape);
    running.stopped();
}

#[test]
fn a_paused_machine_can_be_stopped() {
    for cpus in [1, 2] {
        let Some(running) = Running::start(cpus, None) else {
            return;
        };
        running.wait_for_progress();
        running.control.pause();
        running.control.stop(StopReason::Signal(2));
        assert_eq!(running.stopped(), StopReason::Signal(2));
    }
}

#[test]
fn a_stop_is_not_lost_whenever_it_comes() {
    for try_number in 0..40 {
        let Some(running) = Running::start(1 + try_number % 2, None) else {
            return;
        };
        sleep(Duration::from_micros(173) * try_number);
        running.control.stop(StopReason::Signal(1));
        assert_eq!(running.stopped(), StopReason::Signal(1));
    }
}

#[test]
fn time_runs_out_for_a_machine_that_does_nothing_else() {
    for cpus in [1, 2] {
        let begun = Instant::now();
        let time = Duration::from_millis(100);
        let Some(running) = Running::start(cpus, Some(time)) else {
            return;
        };
        assert_eq!(running.stopped(), StopReason::Timeout);
        assert!(begun.elapsed() >= time);
    }
}

#[test]
fn a_guest_that_ends_ends_the_cpus_that_wait_too() {
    for cpus in [1, 2, 8] {
        let Some(running) = Running::start_code(&END, cpus, None) else {
            return;
        };
        let outcome = running.outcome();
        assert!(matches!(outcome, Outcome::Exit(4)), "{outcome}");
    }
}
