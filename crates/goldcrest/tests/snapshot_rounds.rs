//! Machines that are saved and restored again and again in one process, which must not grow. The only test here: others
//! would open files meanwhile.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

mod support;

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use goldcrest_monitor::{
    Control, DiskConfig, Image, Machine, MachineConfig, MonitorError, Outcome, RestoreConfig,
    SnapshotFiles, SnapshotKind, StopReason, entropy_device, run,
};
use goldcrest_vcpu::kvm::Kvm;
use support::{file, skip_without_kvm, unikernel};

/// Rounds; $GOLDCREST_ROUNDS has another number.
const ROUNDS: usize = 100;
/// After so many, all that is made once is there.
const WARM: usize = 10;

struct Running {
    control: Arc<Control>,
    thread: JoinHandle<Result<Outcome, MonitorError>>,
}

impl Running {
    fn save(self, files: &SnapshotFiles) {
        self.control.pause();
        self.control.snapshot(files, SnapshotKind::Full).unwrap();
        self.control.stop(StopReason::Escape);
        let outcome = self.thread.join().unwrap().unwrap();
        assert!(matches!(outcome, Outcome::Stopped(_)), "{outcome}");
    }
}

fn start(disk: &Path) -> Running {
    let disk: DiskConfig = disk.display().to_string().parse().unwrap();
    let mut config = MachineConfig {
        cmdline: "1000000000".into(),
        virtio: vec![disk.device(1, |_| {}), entropy_device()],
        ..MachineConfig::new(Image::open(unikernel("endure")).unwrap())
    };
    config.memory.size = 16 << 20;
    Running {
        control: config.control.clone(),
        thread: thread::spawn(move || run(&Kvm::open()?, &config)),
    }
}

fn restore(kvm: &Kvm, files: &SnapshotFiles) -> Running {
    let config = RestoreConfig::new(files.clone());
    let machine = Machine::restore(kvm, &config).unwrap();
    Running {
        control: config.machine.control.clone(),
        thread: thread::spawn(move || machine.run()),
    }
}

/// Descriptors, threads, mappings, and KiB of memory that belong to this process alone.
fn resources() -> [usize; 4] {
    let count = |path: &str| fs::read_dir(path).unwrap().count();
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let anonymous = status.lines().find(|line| line.starts_with("RssAnon"));
    let anonymous = anonymous.and_then(|line| line.split_whitespace().nth(1));
    [
        count("/proc/self/fd"),
        count("/proc/self/task"),
        maps.lines().count(),
        anonymous.unwrap().parse().unwrap(),
    ]
}

#[test]
fn rounds_leave_nothing_behind() {
    if skip_without_kvm() {
        return;
    }
    let rounds = std::env::var("GOLDCREST_ROUNDS");
    let rounds = rounds.map_or(ROUNDS, |rounds| rounds.parse().unwrap());
    let image = file(vec![0; 1 << 20]);
    let directory = tempfile::tempdir().unwrap();
    let files = SnapshotFiles::in_directory(directory.path());
    let kvm = Kvm::open().unwrap();
    let mut running = start(&image);
    let mut before = [0; 4];
    for round in 0..rounds {
        thread::sleep(Duration::from_millis(2));
        running.save(&files);
        if round == WARM {
            before = resources();
        }
        let left = fs::read_dir(directory.path()).unwrap().count();
        assert_eq!(left, 2, "files are left in round {round}");
        running = restore(&kvm, &files);
    }
    running.save(&files);
    let after = resources();
    println!("before {before:?}, after {after:?}");
    assert_eq!(after[..2], before[..2], "descriptors, threads");
    assert!(after[2] < before[2] + 20, "{before:?} {after:?}");
    assert!(after[3] < before[3] + 4096, "{before:?} {after:?}");
}
