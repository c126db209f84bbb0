//! Guests of a few instructions, and machines that run on threads of their own.
#![allow(
    dead_code,
    unreachable_pub,
    reason = "each test has use for some of it"
)]

#[path = "../../../boot/tests/images/mod.rs"]
pub mod images;

use std::sync::Arc;
use std::thread::{self, JoinHandle};

use goldcrest_boot::Image;
use goldcrest_monitor::{
    Control, Machine, MachineConfig, MonitorError, Outcome, RestoreConfig, SnapshotFiles,
    SnapshotKind, StopReason, run,
};
use goldcrest_vcpu::Hypervisor;
use goldcrest_vcpu::kvm::Kvm;
use images::{ElfBuilder, R, W, X, direct_note, segment};
use tempfile::TempDir;

/// Where guests begin, and where their data are, guest-physical.
const ENTRY: u64 = 0x10_0000;
pub const DATA: u64 = 0x11_0000;

/// What guests run on. None, and a word of it, where they cannot.
pub fn kvm() -> Option<Kvm> {
    match Kvm::open() {
        Ok(kvm) => Some(kvm),
        Err(reason) => {
            println!("skipped: {reason}");
            None
        }
    }
}

/// A unikernel of this code, which finds these data at [`DATA`], and zeros behind them up to `size` bytes.
pub fn image(code: &[u8], data: &[u8], size: u64) -> Image {
    let text = segment(R | X, ENTRY, code, 0x1000);
    let data = segment(R | W, DATA, data, size);
    let elf = ElfBuilder::new(ENTRY, vec![text, data]).direct(&direct_note(ENTRY));
    Image::from_bytes("guest", elf.build()).unwrap()
}

/// A machine on a thread of its own.
pub struct Running {
    pub control: Arc<Control>,
    pub thread: JoinHandle<Result<Outcome, MonitorError>>,
}

impl Running {
    pub fn start<H: Hypervisor + Clone + Send + 'static>(
        hypervisor: &H,
        config: MachineConfig,
    ) -> Self {
        let hypervisor = hypervisor.clone();
        Self {
            control: config.control.clone(),
            thread: thread::spawn(move || run(&hypervisor, &config)),
        }
    }

    pub fn restore(kvm: &Kvm, config: &RestoreConfig) -> Self {
        let machine = Machine::restore(kvm, config).unwrap();
        Self {
            control: config.machine.control.clone(),
            thread: thread::spawn(move || machine.run()),
        }
    }

    /// Stops it.
    pub fn stop(self) {
        self.control.stop(StopReason::Escape);
        let outcome = self.outcome();
        assert!(matches!(outcome, Outcome::Stopped(_)), "{outcome}");
    }

    /// How it ended by itself.
    pub fn outcome(self) -> Outcome {
        self.thread.join().unwrap().unwrap()
    }
}

/// A directory with a snapshot of a machine that has not run its first instruction.
pub fn frozen<H: Hypervisor + Clone + Send + 'static>(
    hypervisor: &H,
    config: MachineConfig,
) -> (TempDir, SnapshotFiles) {
    let directory = tempfile::tempdir().unwrap();
    let files = SnapshotFiles::in_directory(directory.path());
    config.control.pause();
    let machine = Running::start(hypervisor, config);
    machine
        .control
        .snapshot(&files, SnapshotKind::Full)
        .unwrap();
    machine.stop();
    (directory, files)
}
