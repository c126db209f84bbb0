//! State files that lie: refused, whatever they say, before anything of a machine runs. Without a hypervisor.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "tests"
)]

mod support;

use std::fs;
use std::path::Path;
use std::sync::OnceLock;

use goldcrest_boot::Image;
use goldcrest_monitor::{
    BalloonConfig, Machine, MachineConfig, RestoreConfig, SnapshotFiles, SnapshotInfo,
    balloon_device, entropy_device,
};
use goldcrest_vcpu::scripted::Scripted;
use proptest::prelude::*;
use support::images::{direct_note, unikernel};

/// A snapshot of a machine that was paused before it ran.
fn snapshot() -> &'static (tempfile::TempDir, Vec<u8>) {
    static SAVED: OnceLock<(tempfile::TempDir, Vec<u8>)> = OnceLock::new();
    SAVED.get_or_init(|| {
        let note = direct_note(0x10_0000);
        let mut config = MachineConfig {
            cpus: 2,
            virtio: vec![
                entropy_device(),
                balloon_device(BalloonConfig::default()),
                entropy_device().with_id("another"),
            ],
            ..MachineConfig::new(Image::from_bytes("kernel", unikernel(&note)).unwrap())
        };
        config.memory.size = 2 << 20;
        let (directory, files) = support::frozen(&Scripted::new([]), config);
        let state = fs::read(&files.state).unwrap();
        (directory, state)
    })
}

/// What becomes of a machine with this state.
fn restore(state: &[u8]) -> Result<(), String> {
    let (directory, _) = snapshot();
    let changed = tempfile::NamedTempFile::new().unwrap();
    fs::write(&changed, state).unwrap();
    let files = SnapshotFiles {
        state: changed.path().into(),
        memory: directory.path().join("memory"),
    };
    let parsed = SnapshotInfo::parse(state).is_ok();
    let machine = Machine::restore(&Scripted::new([]), &RestoreConfig::new(files));
    assert!(parsed || machine.is_err());
    machine.map(|_| ()).map_err(|error| error.to_string())
}

/// Puts a right checksum behind changed bytes.
fn resealed(mut state: Vec<u8>) -> Vec<u8> {
    state.truncate(state.len() - 4);
    state.extend(crc32fast::hash(&state).to_le_bytes());
    state
}

#[test]
fn what_was_saved_can_be_restored_and_says_what_it_is() {
    let (directory, state) = snapshot();
    restore(state).unwrap();
    let info = SnapshotInfo::verify(&SnapshotFiles::in_directory(directory.path())).unwrap();
    assert_eq!((info.cpus, info.memory_size), (2, 2 << 20));
    let ids: Vec<_> = info
        .devices
        .iter()
        .map(|device| device.id.as_str())
        .collect();
    assert_eq!(ids, ["rng0", "balloon0", "another"]);
}

#[test]
fn every_prefix_and_every_flipped_bit_is_refused() {
    let (_, state) = snapshot();
    for len in 0..state.len() {
        assert!(SnapshotInfo::parse(&state[..len]).is_err(), "{len}");
    }
    for bit in 0..state.len() * 8 {
        let mut state = state.clone();
        state[bit / 8] ^= 1 << (bit % 8);
        assert!(SnapshotInfo::parse(&state).is_err(), "bit {bit}");
    }
}

#[test]
fn another_machine_s_memory_is_refused() {
    let (directory, state) = snapshot();
    let other = tempfile::tempdir().unwrap();
    fs::write(other.path().join("state"), state).unwrap();
    let refusal = |other: &Path| {
        let config = RestoreConfig::new(SnapshotFiles::in_directory(other));
        let machine = Machine::restore(&Scripted::new([]), &config);
        machine.map(|_| ()).unwrap_err().to_string()
    };
    assert!(refusal(other.path()).contains("cannot open"));
    let mut memory = fs::read(directory.path().join("memory")).unwrap();
    memory[(2 << 20) + 16] ^= 1;
    fs::write(other.path().join("memory"), &memory).unwrap();
    assert!(refusal(other.path()).contains("belongs to another state"));
    memory.truncate(2 << 20);
    fs::write(other.path().join("memory"), &memory).unwrap();
    assert!(refusal(other.path()).contains("are needed"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]
    /// Nonsense with a right checksum: an error, or a machine that could have been, and never a panic.
    #[test]
    fn nonsense_is_refused_or_possible(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let (_, state) = snapshot();
        let mut state = state.clone();
        // Behind the envelope's head.
        let head = 4 + 1 + "machine".len() + 2 + 4;
        let payload = state.len() - head - 4;
        for (at, byte) in changes {
            state[head + at.index(payload)] = byte;
        }
        let _ = restore(&resealed(state));
    }
}
