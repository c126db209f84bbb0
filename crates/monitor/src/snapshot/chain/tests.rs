#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "tests"
)]

use std::sync::Arc;
use std::thread::{self, JoinHandle};

use goldcrest_boot::Image;
use goldcrest_memory::image::{Extents, MAX_EXTENTS};
use goldcrest_vcpu::scripted::Scripted;
use tempfile::TempDir;

use super::super::state::MAX_SIZE;
use super::*;
use crate::images::{direct_note, unikernel};
use crate::{
    CloneConfig, Control, Machine, MachineConfig, RestoreConfig, SnapshotInfo, SnapshotKind,
    StopReason, flatten, run,
};

const SIZE: usize = 2 << 20;

fn files(directory: &TempDir, name: &str) -> SnapshotFiles {
    let directory = directory.path().join(name);
    fs::create_dir_all(&directory).unwrap();
    SnapshotFiles::in_directory(directory)
}

/// A machine that is paused, and ends when this is dropped.
struct Paused {
    control: Arc<Control>,
    thread: Option<JoinHandle<()>>,
}

impl Paused {
    fn new() -> Self {
        let note = direct_note(0x10_0000);
        let image = Image::from_bytes("kernel", unikernel(&note)).unwrap();
        let mut config = MachineConfig::new(image);
        config.memory.size = SIZE as u64;
        let control = config.control.clone();
        control.pause();
        let thread = thread::spawn(move || drop(run(&Scripted::new([]), &config)));
        Self {
            control,
            thread: Some(thread),
        }
    }

    /// Its guest is told that it is another one, so that a page of RAM has changed.
    fn restored(files: &SnapshotFiles, track_dirty: bool) -> Self {
        let config = RestoreConfig {
            track_dirty,
            machine: CloneConfig {
                paused: true,
                ..CloneConfig::default()
            },
            ..RestoreConfig::new(files.clone())
        };
        let machine = Machine::restore(&Scripted::new([]), &config).unwrap();
        let control = config.machine.control.clone();
        let thread = thread::spawn(move || drop(machine.run()));
        Self {
            control,
            thread: Some(thread),
        }
    }

    fn save(&self, files: &SnapshotFiles, kind: SnapshotKind) -> Result<u64, String> {
        let report = self.control.snapshot(files, kind).map_err(text)?;
        Ok(report.memory_written)
    }
}

impl Drop for Paused {
    fn drop(&mut self) {
        self.control.stop(StopReason::Escape);
        self.thread.take().unwrap().join().unwrap();
    }
}

pub(in crate::snapshot) fn text(error: impl std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text += &format!(": {error}");
        source = error.source();
    }
    text
}

/// The directory `full`, and `one` and `two`, each the difference to the one before.
pub(in crate::snapshot) fn chain() -> (TempDir, [SnapshotFiles; 3]) {
    let directory = tempfile::tempdir().unwrap();
    let all = ["full", "one", "two"].map(|name| files(&directory, name));
    Paused::new().save(&all[0], SnapshotKind::Full).unwrap();
    for (before, after) in [(0, 1), (1, 2)] {
        let machine = Paused::restored(&all[before], before == 0);
        let changed = machine.save(&all[after], SnapshotKind::Diff).unwrap();
        assert!((4096..65536).contains(&changed), "{changed}");
    }
    (directory, all)
}

fn refusal(files: &SnapshotFiles) -> String {
    let opened = Chain::open(files, &[]).map(|_| ());
    let restored = Machine::restore(&Scripted::new([]), &RestoreConfig::new(files.clone()));
    assert!(restored.is_err());
    assert!(SnapshotInfo::verify(files).is_err());
    text(opened.unwrap_err())
}

fn ram(files: &SnapshotFiles) -> Vec<u8> {
    let mut bytes = fs::read(&files.memory).unwrap();
    bytes.truncate(SIZE);
    bytes
}

pub(in crate::snapshot) fn change(files: &SnapshotFiles, change: impl FnOnce(&mut MachineState)) {
    let mut state = read_state(&files.state).unwrap();
    change(&mut state);
    fs::write(&files.state, state.seal().unwrap()).unwrap();
}

#[test]
fn bases_are_named_by_the_way_to_them() {
    for (directory, to, way) in [
        ("/a/b", "/a/b/state", "state"),
        ("/a/one", "/a/two/state", "../two/state"),
        ("/", "/a/state", "a/state"),
        ("/a/b/c", "/d", "../../../d"),
    ] {
        let found = relative(Path::new(directory), Path::new(to));
        assert_eq!(found, Path::new(way));
    }
}

#[test]
fn a_chain_is_what_a_full_snapshot_would_be() {
    let (directory, all) = chain();
    let (info, before) = SnapshotInfo::verify_with(&all[2], &[]).unwrap();
    assert_eq!(before, 2);
    let base = info.base.unwrap();
    assert_eq!(base.state, Path::new("../one/state"));
    let machine = Paused::restored(&all[2], false);
    let (last, full) = (files(&directory, "last"), files(&directory, "same"));
    machine.save(&last, SnapshotKind::Diff).unwrap();
    machine.save(&full, SnapshotKind::Full).unwrap();
    // Nothing has changed since.
    let nothing = files(&directory, "nothing");
    assert_eq!(machine.save(&nothing, SnapshotKind::Diff), Ok(0));
    let (flat, mut seen) = (files(&directory, "flat"), Vec::new());
    flatten(&last, &[], &flat, |done, all| seen.push((done, all))).unwrap();
    assert!(seen.is_sorted() && seen.last() == Some(&(5 * SIZE as u64, 5 * SIZE as u64)));
    assert!(ram(&flat) == ram(&full) && ram(&flat) != ram(&all[0]));
    let (info, before) = SnapshotInfo::verify_with(&flat, &[]).unwrap();
    assert!(info.base.is_none() && before == 0);
    drop(Paused::restored(&flat, false));
    // What it was made of is not needed any more, and can be moved as a whole.
    let moved = tempfile::tempdir().unwrap();
    for name in ["full", "one"] {
        let (from, to) = (directory.path().join(name), moved.path().join(name));
        fs::rename(from, to).unwrap();
    }
    SnapshotInfo::verify(&flat).unwrap();
    let missing = refusal(&all[2]);
    assert!(
        missing.contains("two/state is the difference to a snapshot that is not there"),
        "{missing}"
    );
    let bases = ["full", "one"].map(|name| moved.path().join(name));
    SnapshotInfo::verify_with(&all[2], &bases[1..]).unwrap();
    SnapshotInfo::verify_with(&all[2], &bases).unwrap();
}

#[test]
fn another_base_is_refused() {
    let (directory, all) = chain();
    let aside = directory.path().join("aside");
    let swap = |one: &str, other: &str| {
        let path = |name| directory.path().join(name);
        fs::rename(path(one), &aside).unwrap();
        fs::rename(path(other), path(one)).unwrap();
        fs::rename(&aside, path(other)).unwrap();
    };
    swap("full", "one");
    // Now `one` is full.
    let swapped = refusal(&all[2]);
    assert!(
        swapped.contains("two/state is the difference to the snapshot"),
        "{swapped}"
    );
    swap("full", "one");
    Chain::open(&all[2], &[]).unwrap();
    // The same again is another one.
    Paused::new().save(&all[0], SnapshotKind::Full).unwrap();
    let other = refusal(&all[2]);
    assert!(
        other.contains("one/state is the difference to the snapshot"),
        "{other}"
    );
    // So is one whose state was changed.
    let (_directory, all) = chain();
    change(&all[0], |state| state.memory.checksums[0] ^= 1);
    let changed = refusal(&all[1]);
    assert!(changed.contains("which has changed since"), "{changed}");
}

#[test]
fn damage_anywhere_in_a_chain_is_found() {
    let (_directory, all) = chain();
    for files in &all {
        let whole = fs::read(&files.memory).unwrap();
        let mut bytes = whole.clone();
        let at = bytes[..SIZE].iter().position(|byte| *byte != 0).unwrap();
        bytes[at] ^= 1;
        fs::write(&files.memory, bytes).unwrap();
        let error = text(SnapshotInfo::verify(&all[2]).unwrap_err());
        assert!(error.contains("is damaged between offsets"), "{error}");
        let to = self::files(&_directory, "flat");
        assert!(flatten(&all[2], &[], &to, |_, _| {}).is_err());
        assert!(!to.state.exists() && !to.memory.exists());
        fs::write(&files.memory, &whole[..SIZE]).unwrap();
        assert!(refusal(&all[2]).contains("are needed"));
        fs::remove_file(&files.memory).unwrap();
        assert!(refusal(&all[2]).contains("cannot open"));
        fs::write(&files.memory, whole).unwrap();
        SnapshotInfo::verify(&all[2]).unwrap();
    }
}

#[test]
fn a_chain_that_leads_into_itself_ends() {
    let (_directory, all) = chain();
    change(&all[1], |state| {
        let (id, memory) = (state.memory.id, &mut state.memory);
        let difference = memory.difference.as_mut().unwrap();
        difference.base = id;
        difference.state = "state".into();
        difference.memory = "memory".into();
    });
    let error = refusal(&all[1]);
    assert!(error.contains("and that on it"), "{error}");
}

#[test]
fn pages_outside_of_ram_are_refused() {
    let (_directory, all) = chain();
    change(&all[1], |state| {
        let difference = state.memory.difference.as_mut().unwrap();
        difference.extents.push(1 << 40, 4096).unwrap();
    });
    let error = refusal(&all[1]);
    assert!(error.contains("must lie within RAM"), "{error}");
    assert!(fs::metadata(&all[1].state).unwrap().len() < MAX_SIZE);
}

#[test]
fn a_chain_has_an_end() {
    let directory = tempfile::tempdir().unwrap();
    let machine = Paused::new();
    let first = files(&directory, "0");
    let error = machine.save(&first, SnapshotKind::Diff).unwrap_err();
    assert!(error.contains("make a full one"), "{error}");
    machine.save(&first, SnapshotKind::Full).unwrap();
    for number in 1..MAX_LEN {
        let next = files(&directory, &number.to_string());
        machine.save(&next, SnapshotKind::Diff).unwrap();
    }
    let next = files(&directory, "next");
    let error = machine.save(&next, SnapshotKind::Diff).unwrap_err();
    assert!(error.contains("depends on 63 others"), "{error}");
    assert!(!next.state.exists());
    drop(Paused::restored(&files(&directory, "63"), false));
    machine.save(&next, SnapshotKind::Full).unwrap();
}

#[test]
fn what_is_needed_is_not_replaced() {
    let (directory, all) = chain();
    let machine = Paused::restored(&all[2], false);
    let before: Vec<_> = all
        .iter()
        .map(|files| fs::read(&files.state).unwrap())
        .collect();
    let mixed = SnapshotFiles {
        state: directory.path().join("new"),
        memory: all[0].memory.clone(),
    };
    for target in all.iter().chain([&mixed]) {
        let error = machine.save(target, SnapshotKind::Diff).unwrap_err();
        assert!(error.contains("write that elsewhere"), "{error}");
    }
    let error = text(flatten(&all[2], &[], &all[0], |_, _| {}).unwrap_err());
    assert!(error.contains("write that elsewhere"), "{error}");
    let after: Vec<_> = all
        .iter()
        .map(|files| fs::read(&files.state).unwrap())
        .collect();
    assert!(before == after);
    SnapshotInfo::verify(&all[2]).unwrap();
    // A full one needs nothing, and flattening needs itself no longer.
    flatten(&all[2], &[], &all[2], |_, _| {}).unwrap();
    assert!(SnapshotInfo::verify(&all[2]).unwrap().base.is_none());
    machine.save(&all[0], SnapshotKind::Full).unwrap();
}

#[test]
fn a_base_that_was_replaced_meanwhile_is_none() {
    let (directory, all) = chain();
    let machine = Paused::restored(&all[2], true);
    Paused::new().save(&all[2], SnapshotKind::Full).unwrap();
    let next = files(&directory, "next");
    let error = machine.save(&next, SnapshotKind::Diff).unwrap_err();
    assert!(error.contains("the machine's last one is"), "{error}");
    assert!(!next.state.exists() && !next.memory.exists());
}

#[test]
fn lists_of_pages_are_checked_while_they_are_read() {
    let read = |runs: &[(u64, u64)]| {
        let bytes = postcard::to_allocvec(runs).unwrap();
        let read = postcard::from_bytes::<Extents>(&bytes);
        // What was read is written so again.
        if let Ok(extents) = &read {
            assert_eq!(postcard::to_allocvec(extents).unwrap(), bytes);
        }
        read.is_ok()
    };
    assert!(read(&[]) && read(&[(0, 1), (1, 2), (1 << 20, 1)]));
    for runs in [
        [(0, 0), (1, 1)],
        [(0, 1), (0, 1)],
        [(u64::MAX, 1), (1, 1)],
        [(1, u64::MAX), (1, 1)],
        [(1 << 30, 1), (1, 1)],
    ] {
        assert!(!read(&runs), "{runs:?}");
    }
    let most = vec![(1, 1); MAX_EXTENTS];
    assert!(read(&most) && !read(&[&most[..], &[(1, 1)]].concat()));
}
