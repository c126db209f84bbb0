//! Many machines of one snapshot, from the command line.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "tests"
)]

mod support;

use std::collections::BTreeSet;
use std::thread;
use std::time::{Duration, Instant};

use goldcrest_monitor::{
    Image, Machine, MachineConfig, SnapshotError, SnapshotFiles, SnapshotKind, StopReason,
};
use goldcrest_vcpu::kvm::Kvm;
use support::{goldcrest, skip_without_kvm, unikernel};
use tempfile::TempDir;

const HELLO: &str = "Hello from a unikernel on Goldcrest!";

/// A guest that says hello and ends, saved before its first instruction.
fn hello() -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    let config = MachineConfig::new(Image::open(unikernel("hello")).unwrap());
    let control = config.control.clone();
    control.pause();
    let machine = Machine::new(&Kvm::open().unwrap(), &config).unwrap();
    let running = thread::spawn(move || machine.run());
    let files = SnapshotFiles::in_directory(directory.path());
    let begun = Instant::now();
    loop {
        match control.snapshot(&files, SnapshotKind::Full) {
            Err(SnapshotError::NotRunning) if begun.elapsed() < Duration::from_secs(60) => {}
            result => break result.map(drop).unwrap(),
        }
    }
    control.stop(StopReason::Escape);
    running.join().unwrap().unwrap();
    directory
}

#[test]
fn every_line_of_a_clone_says_whose_it_is() {
    if skip_without_kvm() {
        return;
    }
    let snapshot = hello();
    for mode in [None, Some("--in-process")] {
        let mut command = goldcrest();
        command.arg("clone").arg(snapshot.path());
        let ended = command.args(["--count", "4"]).args(mode).output().unwrap();
        let text = String::from_utf8(ended.stdout).unwrap();
        let lines: BTreeSet<_> = text.lines().map(str::to_owned).collect();
        let expected: BTreeSet<_> = (0..4).map(|n| format!("{n}: {HELLO}")).collect();
        assert_eq!(lines, expected, "{mode:?} {ended:?}", ended = ended.stderr);
        assert_eq!(ended.status.code(), Some(0));
    }
}

#[test]
fn clones_write_to_files_of_their_own() {
    if skip_without_kvm() {
        return;
    }
    let snapshot = hello();
    let logs = tempfile::tempdir().unwrap();
    let mut command = goldcrest();
    command.arg("clone").arg(snapshot.path());
    command.arg("--serial").arg(logs.path().join("{}.log"));
    let ended = command.args(["--count", "3"]).output().unwrap();
    assert!(ended.status.success(), "{ended:?}");
    for number in 0..3 {
        let log = std::fs::read_to_string(logs.path().join(format!("{number}.log"))).unwrap();
        assert_eq!(log, format!("{HELLO}\n"));
    }
}

#[test]
fn what_is_not_a_snapshot_is_not_cloned() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("state"), b"no state").unwrap();
    let mut command = goldcrest();
    let ended = command.arg("clone").arg(directory.path()).output().unwrap();
    assert_eq!(ended.status.code(), Some(1), "{ended:?}");
    assert!(!ended.stderr.is_empty());
}
