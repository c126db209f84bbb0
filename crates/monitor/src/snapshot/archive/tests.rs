#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "tests"
)]

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

use goldcrest_archive::Writer;
use goldcrest_memory::image::{self, ImageId, ImageSink};
use proptest::prelude::*;

use super::*;
use crate::snapshot::chain::tests::{chain, change, text};
use crate::snapshot::state::MachineState;
use crate::snapshot::store::{part_path, read_state};
use crate::snapshot::{SnapshotFiles, SnapshotInfo};

const SIZE: u64 = 2 << 20;

fn key() -> Key {
    Key::new(&[3; 32])
}

fn packed(files: &SnapshotFiles, key: Option<&Key>) -> Vec<u8> {
    let mut archive = Vec::new();
    pack(files, &mut archive, key, |_, _| {}).unwrap();
    archive
}

fn refusal(archive: &[u8], key: Option<&Key>) -> String {
    let directory = tempfile::tempdir().unwrap();
    let files = SnapshotFiles::in_directory(directory.path());
    let refused = text(unpack(archive, &files, key, |_, _| {}).unwrap_err());
    assert!(all(directory.path()).is_empty(), "{refused}");
    assert_eq!(text(verify_archive(archive, key).unwrap_err()), refused);
    refused
}

/// All files of a directory.
fn all(directory: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap());
    let file = |entry: fs::DirEntry| {
        let name = entry.file_name().into_string().unwrap();
        (name, fs::read(entry.path()).unwrap())
    };
    entries.map(file).collect()
}

/// How many blocks of 512 bytes a file has that are not holes.
fn blocks(path: &Path) -> u64 {
    fs::metadata(path).unwrap().blocks()
}

/// An archive of these parts, as nobody would make it.
fn forged(state: &[u8], set: &[u8], rest: &[u8]) -> Vec<u8> {
    let mut writer = Writer::new(Vec::new(), None).unwrap();
    for bytes in [state, set] {
        writer.put(&(bytes.len() as u64).to_le_bytes()).unwrap();
        writer.put(bytes).unwrap();
    }
    writer.put(rest).unwrap();
    writer.finish().unwrap()
}

/// A run of pages of sevens.
fn run(offset: u64, len: u64) -> Vec<u8> {
    let mut bytes = offset.to_le_bytes().to_vec();
    bytes.extend(len.to_le_bytes());
    bytes.extend(vec![7; len.min(2 << 20) as usize]);
    bytes
}

#[test]
fn a_chain_is_packed_and_unpacked_to_the_byte() {
    let (directory, snapshots) = chain();
    for key in [None, Some(&key())] {
        let into = tempfile::tempdir().unwrap();
        for (files, name) in snapshots.iter().zip(["full", "one", "two"]) {
            let archive = packed(files, key);
            let info = archive_info(&archive[..], key).unwrap();
            assert_eq!(info.encrypted, key.is_some());
            let expected = SnapshotInfo::read(&files.state).unwrap();
            assert_eq!(info.snapshot, Some(expected.clone()));
            assert_eq!(verify_archive(&archive[..], key).unwrap(), expected);
            let to = SnapshotFiles::in_directory(into.path().join(name));
            fs::create_dir(into.path().join(name)).unwrap();
            let mut seen = Vec::new();
            unpack(&archive[..], &to, key, |done, all| seen.push((done, all))).unwrap();
            assert!(seen.is_sorted() && seen.last().is_none_or(|(done, all)| done == all));
            assert_eq!(
                all(&into.path().join(name)),
                all(&directory.path().join(name))
            );
            assert!(blocks(&to.memory) <= blocks(&files.memory));
            // Once more over itself.
            unpack(&archive[..], &to, key, |_, _| {}).unwrap();
            assert_eq!(all(&into.path().join(name)).len(), 2);
        }
        let last = SnapshotFiles::in_directory(into.path().join("two"));
        assert_eq!(SnapshotInfo::verify_with(&last, &[]).unwrap().1, 2);
    }
    // What it is the difference to is not replaced by it, nor what that is the difference to.
    let before = all(&directory.path().join("full"));
    for (from, to) in [(1, 0), (2, 1), (2, 0)] {
        let archive = packed(&snapshots[from], None);
        let refused = unpack(&archive[..], &snapshots[to], None, |_, _| {}).unwrap_err();
        assert!(text(refused).contains("the new snapshot needs it"));
    }
    assert_eq!(all(&directory.path().join("full")), before);
}

#[test]
fn what_cannot_be_unpacked_leaves_what_was_there() {
    let (_directory, [full, ..]) = chain();
    let (right, wrong) = (key(), Key::new(&[4; 32]));
    let archive = packed(&full, Some(&right));
    let into = tempfile::tempdir().unwrap();
    let to = SnapshotFiles::in_directory(into.path());
    fs::write(&to.state, "old").unwrap();
    fs::write(&to.memory, "old memory").unwrap();
    let before = all(into.path());
    let refused = |archive: &[u8], key| text(unpack(archive, &to, key, |_, _| {}).unwrap_err());
    assert_eq!(
        refused(&archive, Some(&wrong)),
        "archive was encrypted with another key"
    );
    assert_eq!(
        refused(&archive, None),
        "archive is encrypted: its key is needed"
    );
    for len in (0..archive.len()).step_by(101) {
        refused(&archive[..len], Some(&right));
    }
    for at in (0..archive.len()).step_by(97) {
        let mut archive = archive.clone();
        archive[at] ^= 0x10;
        refused(&archive, Some(&right));
    }
    assert_eq!(all(into.path()), before);
    unpack(&archive[..], &to, Some(&right), |_, _| {}).unwrap();
    assert!(SnapshotInfo::verify(&to).is_ok());
}

#[test]
fn contents_that_lie_are_refused() {
    let (_directory, [full, ..]) = chain();
    let state = fs::read(&full.state).unwrap();
    let says = |rest: &[u8], what: &str| {
        let refused = refusal(&forged(&state, &[], rest), None);
        assert!(refused.contains(what), "{refused}");
    };
    let end = [0; 16];
    says(&end, "checksum is");
    says(&run(1, 4096), "do not begin with a page");
    says(&run(0, 4095), "are not pages of RAM");
    says(&run(SIZE, 4096), "are not pages of RAM");
    says(&run(u64::MAX - 4095, 4096), "are not pages of RAM");
    says(&run(0, (1 << 20) + 1), "longer than 1 MiB");
    says(&run(0, 1 << 40), "longer than 1 MiB");
    says(&run(4096, 0), "has no pages");
    says(
        &[run(8192, 4096), run(4096, 4096)].concat(),
        "behind those before",
    );
    says(
        &[run(0, 1 << 20), run(1 << 20, 1 << 20)].concat(),
        "its state says",
    );
    says(&run(0, 4096), "fewer bytes than it should");

    let refused = refusal(&forged(&[1; 100], &[], &end), None);
    assert!(refused.contains("does not begin with GCS1"), "{refused}");
    let refused = refusal(&forged(&state, &[1; 100], &end), None);
    assert!(refused.contains("GCS1"), "{refused}");
    let mut writer = Writer::new(Vec::new(), None).unwrap();
    writer.put(&u64::MAX.to_le_bytes()).unwrap();
    let refused = refusal(&writer.finish().unwrap(), None);
    assert!(
        refused.contains("a state of 18446744073709551615 bytes"),
        "{refused}"
    );
}

/// A terabyte of zeros takes no time and no room; one that is said to be something is not there.
#[test]
fn a_terabyte_is_believed_only_as_far_as_it_is_there() {
    let (_directory, [full, ..]) = chain();
    change(&full, |state: &mut MachineState| {
        state.memory.config.size = 1 << 40;
        state.memory.checksums = vec![0; 1 << 16];
        state.memory.written = 1 << 39;
    });
    let state = fs::read(&full.state).unwrap();
    let refused = refusal(&forged(&state, &[], &run(0, 4096)), None);
    assert!(refused.contains("fewer bytes than it should"), "{refused}");
    let archive = forged(&state, &[], &[0; 16]);
    assert!(verify_archive(&archive[..], None).is_ok());
}

#[test]
fn a_snapshot_that_is_damaged_is_not_packed() {
    let (directory, [full, ..]) = chain();
    let path = directory.path().join("archive");
    pack_file(&full, &path, None, |_, _| {}).unwrap();
    let whole = fs::read(&path).unwrap();
    let memory = File::options().write(true).open(&full.memory).unwrap();
    memory.write_all_at(b"x", SIZE - 1).unwrap();
    let refused = pack_file(&full, &path, None, |_, _| {}).unwrap_err();
    assert!(text(refused).contains("memory: is damaged between offsets"));
    assert_eq!(fs::read(&path).unwrap(), whole);
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 4);
}

/// `/dev/full` takes nothing, and a pipe whose reader has gone nothing more.
#[test]
fn where_an_archive_cannot_be_written_it_is_said() {
    struct Full(usize);
    impl Write for Full {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0 = self.0.checked_sub(1).ok_or(io::ErrorKind::StorageFull)?;
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let (_directory, [full, ..]) = chain();
    let mut writes = 0;
    while let Err(error) = pack(&full, Full(writes), None, |_, _| {}) {
        assert_eq!(text(error), "cannot write the archive: no storage space");
        writes += 1;
    }
    assert!(writes >= 3, "{writes}");
    let output = File::options().write(true).open("/dev/full").unwrap();
    assert!(pack(&full, output, None, |_, _| {}).is_err());
}

/// All ended between the two renames of a snapshot; the same one is unpacked over it.
#[test]
fn one_that_was_interrupted_is_unpacked_anew() {
    let (_directory, [full, ..]) = chain();
    let archive = packed(&full, None);
    let id = read_state(&full.state).unwrap().memory.id;
    fs::rename(&full.memory, part_path(&full.memory, id)).unwrap();
    unpack(&archive[..], &full, None, |_, _| {}).unwrap();
    assert!(SnapshotInfo::verify(&full).is_ok());
    assert_eq!(all(full.memory.parent().unwrap()).len(), 2);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(12) })]

    /// Pages of zeros, holes, pages that can be compressed and such as cannot.
    #[test]
    fn any_memory_comes_back_to_the_byte_and_to_the_hole(
        kinds in proptest::collection::vec(0_u8..4, 512),
        seed: u64,
        encrypted: bool,
    ) {
        let (_directory, [full, ..]) = chain();
        let file = File::options().read(true).write(true).truncate(true).create(true).open(&full.memory).unwrap();
        let mut sink = ImageSink::new(Some(&file), SIZE).unwrap();
        let mut word = seed | 1;
        for (number, kind) in (0..).zip(kinds.iter().copied()) {
            let page: Vec<u8> = (0..4096_u64).map(|at| match kind {
                2 => (at / 100) as u8 + 1,
                3 => {
                    word = word.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    (word >> 56) as u8
                }
                _ => 0,
            }).collect();
            if kind > 0 {
                sink.put(number * 4096, &page).unwrap();
            }
        }
        let id = ImageId([9; 16]);
        let written = sink.finish(id).unwrap();
        // Zeros that are not a hole.
        for (number, _) in (0..).zip(&kinds).filter(|(_, kind)| **kind == 1) {
            file.write_all_at(&[0; 4096], number * 4096).unwrap();
        }
        change(&full, |state: &mut MachineState| {
            state.memory.id = id;
            state.memory.written = written.bytes;
            state.memory.checksums = written.checksums;
        });
        let key = encrypted.then(key);
        let archive = packed(&full, key.as_ref());
        let into = tempfile::tempdir().unwrap();
        let to = SnapshotFiles::in_directory(into.path());
        unpack(&archive[..], &to, key.as_ref(), |_, _| {}).unwrap();
        prop_assert!(fs::read(&to.memory).unwrap() == fs::read(&full.memory).unwrap());
        prop_assert!(fs::read(&to.state).unwrap() == fs::read(&full.state).unwrap());
        let data = kinds.iter().filter(|kind| **kind > 1).count() as u64;
        // A file system may take some blocks for where the pages lie.
        let more = blocks(&to.memory).checked_sub((data + 1) * 8);
        prop_assert!(more.is_some_and(|more| more <= 64), "{more:?}");
        let opened = File::open(&to.memory).unwrap();
        prop_assert!(image::check(&opened, SIZE, id).is_ok());
    }
}
