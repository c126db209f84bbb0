//! Machines that are saved while they run, and go on elsewhere.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "tests"
)]

mod support;

use std::path::Path;
use std::thread;
use std::time::Duration;

use goldcrest_monitor::{
    MachineConfig, Outcome, RestoreConfig, SnapshotError, SnapshotFiles, SnapshotKind,
};
use goldcrest_vcpu::kvm::Kvm;
use support::{Running, image, kvm};

/// Computes a checksum over a table that it changes, 2^22 steps; ends with the low 8 bits as its status.
const SUM: &[u8] = &[
    0x31, 0xc0, // xor eax, eax
    0x31, 0xd2, // xor edx, edx
    0xb9, 0x00, 0x00, 0x00, 0x04, // mov ecx, 0x4000000
    // next:
    0x69, 0xc0, 0x0d, 0x66, 0x19, 0x00, // imul eax, eax, 1664525
    0x05, 0x5f, 0xf3, 0x6e, 0x3c, // add eax, 1013904223
    0x89, 0xc3, // mov ebx, eax
    0xc1, 0xeb, 0x14, // shr ebx, 20
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
    let mut table = vec![0_u32; 4096];
    let (mut a, mut sum) = (0_u32, 0_u32);
    for _ in 0..0x400_0000 {
        a = a.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let slot = &mut table[(a >> 20) as usize];
        *slot ^= a;
        sum = sum.wrapping_add(*slot);
    }
    sum & 0xff
}

/// Waits until the generation identifier in its boot information is another one; ends with status 7.
const WATCH: &[u8] = &[
    0x48, 0x8b, 0x87, 0x90, 0x00, 0x00, 0x00, // mov rax, [rdi + 144]
    // again:
    0x48, 0x3b, 0x87, 0x90, 0x00, 0x00, 0x00, // cmp rax, [rdi + 144]
    0x74, 0xf7, // je again
    0xb8, 0x07, 0x00, 0x00, 0x00, // mov eax, 7
    0x66, 0xba, 0x04, 0x0e, // mov dx, doorbell::EXIT
    0xef, // out dx, eax
];

fn start(kvm: &Kvm, code: &[u8]) -> Running {
    Running::start(kvm, MachineConfig::new(image(code, &[], 0x4000)))
}

fn restore(kvm: &Kvm, directory: &Path) -> Running {
    let files = SnapshotFiles::in_directory(directory);
    Running::restore(kvm, &RestoreConfig::new(files))
}

/// Saves it, and ends it.
fn save(running: Running, directory: &Path) {
    running.control.pause();
    let files = SnapshotFiles::in_directory(directory);
    let report = running
        .control
        .snapshot(&files, SnapshotKind::Full)
        .unwrap();
    assert_eq!(report.memory_size, 128 << 20);
    running.stop();
}

#[test]
fn a_computation_goes_on_after_every_snapshot() {
    let Some(kvm) = kvm() else { return };
    let directory = tempfile::tempdir().unwrap();
    let mut running = start(&kvm, SUM);
    for _ in 0..5 {
        thread::sleep(Duration::from_millis(10));
        save(running, directory.path());
        running = restore(&kvm, directory.path());
    }
    let outcome = running.outcome();
    assert!(
        matches!(outcome, Outcome::Exit(sum) if sum == expected()),
        "{outcome}"
    );
}

#[test]
fn what_does_not_stand_still_is_not_saved() {
    let Some(kvm) = kvm() else { return };
    let directory = tempfile::tempdir().unwrap();
    let files = SnapshotFiles::in_directory(directory.path());
    let running = start(&kvm, SUM);
    thread::sleep(Duration::from_millis(10));
    let error = running.control.snapshot(&files, SnapshotKind::Full);
    assert!(matches!(error, Err(SnapshotError::NotPaused)), "{error:?}");
    let control = running.control.clone();
    running.stop();
    let error = control.snapshot(&files, SnapshotKind::Full);
    assert!(matches!(error, Err(SnapshotError::NotRunning)), "{error:?}");
    assert_eq!(directory.path().read_dir().unwrap().count(), 0);
}

#[test]
fn a_guest_finds_another_generation_identifier_after_each_restore_and_not_before() {
    let Some(kvm) = kvm() else { return };
    let directory = tempfile::tempdir().unwrap();
    let running = start(&kvm, WATCH);
    thread::sleep(Duration::from_millis(20));
    // Paused and resumed, it is still the same run.
    running.control.pause();
    running.control.resume();
    thread::sleep(Duration::from_millis(20));
    assert!(!running.thread.is_finished());
    save(running, directory.path());
    for _ in 0..2 {
        let restored = restore(&kvm, directory.path());
        let outcome = restored.outcome();
        assert!(matches!(outcome, Outcome::Exit(7)), "{outcome}");
    }
}
