//! Machines of which only what has changed is saved, while they run.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "tests"
)]

mod support;

use std::fs;
use std::sync::OnceLock;
use std::thread;
use std::time::Duration;

use goldcrest_monitor::{
    CloneConfig, MachineConfig, Outcome, RestoreConfig, SnapshotFiles, SnapshotInfo, SnapshotKind,
    Template, flatten,
};
use goldcrest_vcpu::kvm::Kvm;
use support::{Running, image, kvm};
use tempfile::TempDir;

const SIZE: u64 = 32 << 20;

/// Computes a checksum over a table of 4 MiB that it changes here and there, 2^26 steps; ends with the low 8 bits as its
/// status.
const SUM: &[u8] = &[
    0x31, 0xc0, // xor eax, eax
    0x31, 0xd2, // xor edx, edx
    0xb9, 0x00, 0x00, 0x00, 0x04, // mov ecx, 0x4000000
    // next:
    0x69, 0xc0, 0x0d, 0x66, 0x19, 0x00, // imul eax, eax, 1664525
    0x05, 0x5f, 0xf3, 0x6e, 0x3c, // add eax, 1013904223
    0x89, 0xc3, // mov ebx, eax
    0xc1, 0xeb, 0x0c, // shr ebx, 12
    0x31, 0x04, 0x9d, 0x00, 0x00, 0x11, 0x00, // xor [DATA + 4 * rbx], eax
    0x03, 0x14, 0x9d, 0x00, 0x00, 0x11, 0x00, // add edx, [DATA + 4 * rbx]
    0xff, 0xc9, // dec ecx
    0x75, 0xde, // jnz next
    0x0f, 0xb6, 0xc2, // movzx eax, dl
    0x66, 0xba, 0x04, 0x0e, // mov dx, doorbell::EXIT
    0xef, // out dx, eax
];

/// What it ends with.
fn expected() -> u32 {
    static EXPECTED: OnceLock<u32> = OnceLock::new();
    *EXPECTED.get_or_init(compute)
}

fn compute() -> u32 {
    let mut table = vec![0_u32; 1 << 20];
    let (mut a, mut sum) = (0_u32, 0_u32);
    for _ in 0..0x400_0000 {
        a = a.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let slot = &mut table[(a >> 12) as usize];
        *slot ^= a;
        sum = sum.wrapping_add(*slot);
    }
    sum & 0xff
}

/// A machine that computes.
fn start(kvm: &Kvm, track_dirty: bool) -> Running {
    let mut config = MachineConfig {
        track_dirty,
        ..MachineConfig::new(image(SUM, &[], 4 << 20))
    };
    config.memory.size = SIZE;
    Running::start(kvm, config)
}

fn restore(kvm: &Kvm, files: &SnapshotFiles, track_dirty: bool) -> Running {
    let config = RestoreConfig {
        track_dirty,
        ..RestoreConfig::new(files.clone())
    };
    Running::restore(kvm, &config)
}

/// Has it run for a moment, and pauses it.
fn step(running: &Running) {
    running.control.resume();
    thread::sleep(Duration::from_millis(5));
    running.control.pause();
}

fn save(running: &Running, files: &SnapshotFiles, kind: SnapshotKind) -> u64 {
    running
        .control
        .snapshot(files, kind)
        .unwrap()
        .memory_written
}

fn finish(running: Running) {
    running.control.resume();
    let outcome = running.outcome();
    assert!(
        matches!(outcome, Outcome::Exit(sum) if sum == expected()),
        "{outcome}"
    );
}

fn files(directory: &TempDir, name: &str) -> SnapshotFiles {
    let directory = directory.path().join(name);
    fs::create_dir_all(&directory).unwrap();
    SnapshotFiles::in_directory(directory)
}

fn ram(files: &SnapshotFiles) -> Vec<u8> {
    let mut bytes = fs::read(&files.memory).unwrap();
    bytes.truncate(usize::try_from(SIZE).unwrap());
    bytes
}

/// A full snapshot and two differences, in the middle of a computation; of the last moment, there is a full one too.
fn chain_and_full(kvm: &Kvm, track: bool, restored: bool) -> (TempDir, [SnapshotFiles; 2]) {
    let directory = tempfile::tempdir().unwrap();
    let names = ["first", "one", "two", "full"].map(|name| files(&directory, name));
    let [first, one, two, full] = names;
    let mut running = start(kvm, track);
    step(&running);
    let all = save(&running, &first, SnapshotKind::Full);
    assert!(all > 0 && all < 16 << 20, "{all}");
    if restored {
        running.stop();
        running = restore(kvm, &first, track);
    }
    step(&running);
    let changed = save(&running, &one, SnapshotKind::Diff);
    assert!(changed < 8 << 20, "{changed}");
    step(&running);
    save(&running, &two, SnapshotKind::Diff);
    save(&running, &full, SnapshotKind::Full);
    running.stop();
    (directory, [two, full])
}

#[test]
fn a_chain_has_to_the_byte_what_a_full_snapshot_of_the_same_moment_has() {
    let Some(kvm) = kvm() else { return };
    for (track, restored) in [(false, false), (true, false), (false, true), (true, true)] {
        let (directory, [chain, full]) = chain_and_full(&kvm, track, restored);
        let flat = files(&directory, "flat");
        flatten(&chain, &[], &flat, |_, _| {}).unwrap();
        assert!(ram(&flat) == ram(&full), "{track} {restored}");
        assert_eq!(SnapshotInfo::verify_with(&chain, &[]).unwrap().1, 2);
        // A machine that is made of it, before it runs, has the same but for its identifier.
        finish(restore(&kvm, &chain, false));
        finish(restore(&kvm, &flat, false));
    }
}

#[test]
fn a_computation_goes_on_through_a_chain_that_grows() {
    let Some(kvm) = kvm() else { return };
    for track in [false, true] {
        let directory = tempfile::tempdir().unwrap();
        let mut last = files(&directory, "0");
        let mut running = start(&kvm, track);
        step(&running);
        save(&running, &last, SnapshotKind::Full);
        for number in 1..8 {
            step(&running);
            last = files(&directory, &number.to_string());
            save(&running, &last, SnapshotKind::Diff);
            if number % 3 == 0 {
                running.stop();
                running = restore(&kvm, &last, track);
            }
        }
        running.stop();
        finish(restore(&kvm, &last, false));
    }
}

#[test]
fn clones_and_resets_are_made_of_a_chain_too() {
    let Some(kvm) = kvm() else { return };
    let (_directory, [chain, _]) = chain_and_full(&kvm, true, true);
    let template = Template::open(&chain).unwrap();
    let machine = template
        .clone_machine(&kvm, CloneConfig::default())
        .unwrap();
    let (outcome, spent) = machine.run_and_keep();
    let sum = |outcome: &Outcome| matches!(outcome, Outcome::Exit(sum) if *sum == expected());
    assert!(sum(&outcome.unwrap()));
    let again = template.reset(spent, CloneConfig::default()).unwrap();
    assert!(sum(&again.run().unwrap()));
}

#[test]
fn a_snapshot_that_fails_loses_no_change() {
    let Some(kvm) = kvm() else { return };
    let directory = tempfile::tempdir().unwrap();
    let [first, next, full, flat] =
        ["first", "next", "full", "flat"].map(|name| files(&directory, name));
    let running = start(&kvm, true);
    step(&running);
    save(&running, &first, SnapshotKind::Full);
    step(&running);
    // The state's name is a directory's, which shows when all is written and changes are counted anew.
    let failing = files(&directory, "failing");
    fs::create_dir_all(failing.state.join("there")).unwrap();
    let failed = running.control.snapshot(&failing, SnapshotKind::Diff);
    assert!(failed.is_err());
    step(&running);
    save(&running, &next, SnapshotKind::Diff);
    save(&running, &full, SnapshotKind::Full);
    running.stop();
    flatten(&next, &[], &flat, |_, _| {}).unwrap();
    assert!(ram(&flat) == ram(&full));
}
