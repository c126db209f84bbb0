//! Many machines of one snapshot, from the command line.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "tests"
)]

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use goldcrest_monitor::{
    Image, Machine, MachineConfig, Mmds, MmdsConfig, MmdsVersion, NetConfig, SnapshotError,
    SnapshotFiles, SnapshotKind, StopReason,
};
use goldcrest_vcpu::kvm::Kvm;
use serde_json::json;
use support::{assert_contains, goldcrest, run, skip_without_kvm, unikernel};
use tempfile::TempDir;

const HELLO: &str = "Hello from a unikernel on Goldcrest!";

/// A guest that says hello and ends, saved before its first instruction.
fn hello() -> TempDir {
    frozen(&MachineConfig::new(
        Image::open(unikernel("hello")).unwrap(),
    ))
}

/// A machine that is saved before its first instruction.
fn frozen(config: &MachineConfig) -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    let control = config.control.clone();
    control.pause();
    let machine = Machine::new(&Kvm::open().unwrap(), config).unwrap();
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
        let log = fs::read_to_string(logs.path().join(format!("{number}.log"))).unwrap();
        assert_eq!(log, format!("{HELLO}\n"));
    }
}

/// A guest that prints its name from its metadata and ends, saved before its first instruction.
fn metadata() -> TempDir {
    let mut card: NetConfig = "user".parse().unwrap();
    let mmds = Mmds::new(MmdsConfig {
        version: MmdsVersion::V2,
        ..MmdsConfig::default()
    });
    let mmds = mmds.unwrap();
    mmds.put(json!({ "name": "the first" })).unwrap();
    card.mmds = Some(Arc::new(mmds));
    frozen(&MachineConfig {
        cmdline: "path=/name token=60".into(),
        virtio: vec![card.device().unwrap()],
        ..MachineConfig::new(Image::open(unikernel("metadata")).unwrap())
    })
}

#[test]
fn every_machine_reads_metadata_of_its_own() {
    if skip_without_kvm() {
        return;
    }
    let (snapshot, names) = (metadata(), ["wren", "dipper"]);
    let documents = tempfile::tempdir().unwrap();
    let document = |name: &str| documents.path().join(format!("{name}.json"));
    for (number, name) in names.iter().enumerate() {
        let text = json!({ "name": name }).to_string();
        fs::write(document(&number.to_string()), text).unwrap();
    }
    for mode in [None, Some("--in-process")] {
        let mut command = goldcrest();
        command.arg("clone").arg(snapshot.path()).arg("--mmds");
        command
            .arg(document("{}"))
            .args(["--count", "2"])
            .args(mode);
        let ended = run(command.args(["--timeout", "50"])).expect(0);
        let lines: BTreeSet<_> = ended.stdout.lines().collect();
        assert_eq!(lines, ["0: wren", "1: dipper"].into(), "{mode:?} {ended:?}");
    }
    let restore = |options: &[&str]| {
        let mut command = goldcrest();
        command.args(["snapshot", "restore"]).arg(snapshot.path());
        run(command.args(["--timeout", "50"]).args(options))
    };
    let one = document("1");
    let ended = restore(&["--mmds", one.to_str().unwrap()]).expect(0);
    assert_eq!(ended.stdout, "dipper\n");
    // What it was before is not saved.
    let ended = restore(&[]).expect(1);
    assert_contains(&ended.stdout, &["metadata: GET", "404"]);
}

#[test]
fn metadata_that_cannot_be_read_or_that_no_card_serves_are_refused() {
    if skip_without_kvm() {
        return;
    }
    let (snapshot, document) = (hello(), support::file("{}"));
    for command in [&["clone"][..], &["snapshot", "restore"]] {
        let refused = |path: &Path| {
            let mut tool = goldcrest();
            tool.args(command).arg(snapshot.path()).arg("--mmds");
            run(tool.arg(path)).complaint(2)
        };
        assert_contains(&refused(&document), &["no network card of the snapshot"]);
        let nowhere = refused("/nowhere.json".as_ref());
        assert_contains(&nowhere, &["/nowhere.json", "No such file"]);
    }
}

#[test]
fn what_is_not_a_snapshot_is_not_cloned() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("state"), b"no state").unwrap();
    let mut command = goldcrest();
    let ended = command.arg("clone").arg(directory.path()).output().unwrap();
    assert_eq!(ended.status.code(), Some(1), "{ended:?}");
    assert!(!ended.stderr.is_empty());
}
