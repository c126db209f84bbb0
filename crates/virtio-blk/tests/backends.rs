//! Disks without a device: what is written is there, images are checked, errors and short transfers arrive.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "tests"
)]

use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use goldcrest_memory::io::{Durability, Segment};
use goldcrest_virtio_blk::{
    Access, Backend, DiskError, FileDisk, FileDiskConfig, MemoryDisk, Operation, Start,
};
use proptest::prelude::*;
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

const DEPTH: u32 = 8;

fn memory() -> GuestMemoryMmap {
    GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 0x8000), (GuestAddress(0x8000), 0x8000)])
        .unwrap()
}

fn segment(address: u64, len: u32) -> Segment {
    Segment { address, len }
}

fn image(len: usize) -> tempfile::NamedTempFile {
    image_in(&std::env::temp_dir(), len)
}

fn image_in(folder: &Path, len: usize) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new_in(folder).unwrap();
    let bytes: Vec<u8> = (0..len).map(|i| (i % 251) as u8 | 1).collect();
    file.as_file().write_all_at(&bytes, 0).unwrap();
    file
}

fn config(path: &Path) -> FileDiskConfig {
    FileDiskConfig::new(path)
}

fn open_error(path: impl Into<PathBuf>) -> String {
    match FileDisk::open(FileDiskConfig::new(path)) {
        Ok(_) => panic!("opened"),
        Err(error) => error.to_string(),
    }
}

/// Runs operations, all at once, to their ends.
fn run(disk: &mut dyn Backend, operations: &[Operation<'_>]) -> Vec<io::Result<()>> {
    let mut ends = BTreeMap::new();
    for (token, operation) in operations.iter().enumerate() {
        match disk.start(operation, token as u32) {
            Start::Done(result) => assert!(ends.insert(token as u32, result).is_none()),
            Start::Pending => {}
            Start::Full => panic!("no more than its depth"),
        }
    }
    assert!(disk.submit());
    let mut end = |token, result| assert!(ends.insert(token, result).is_none());
    while !disk.completions(&mut end) {}
    disk.wait_all(&mut end).unwrap();
    assert_eq!(ends.len(), operations.len());
    ends.into_values().collect()
}

/// Disks of every kind with the same bytes. A direct one may not be possible where the tests run.
fn disks(
    len: usize,
) -> Vec<(
    &'static str,
    Box<dyn Backend>,
    Option<tempfile::NamedTempFile>,
)> {
    let bytes = std::fs::read(image(len).path()).unwrap();
    let mut disks: Vec<(_, Box<dyn Backend>, _)> = vec![
        ("memory", Box::new(MemoryDisk::new(bytes.clone())), None),
        (
            "deferred",
            Box::new(MemoryDisk::new(bytes).deferred()),
            None,
        ),
    ];
    let temporary = std::env::temp_dir();
    // It knows no other way to zeros than to write them.
    let tmpfs = PathBuf::from("/dev/shm");
    for (name, folder, direct, io_uring) in [
        ("waiting", &temporary, false, false),
        ("ring", &temporary, false, true),
        ("direct", &temporary, true, false),
        ("direct ring", &temporary, true, true),
        ("tmpfs", &tmpfs, false, false),
        ("tmpfs ring", &tmpfs, false, true),
    ] {
        if !folder.is_dir() {
            println!("skipped {name}: there is no {}", folder.display());
            continue;
        }
        let image = image_in(folder, len);
        match FileDisk::open(FileDiskConfig {
            direct,
            io_uring,
            ..config(image.path())
        }) {
            Ok(disk) => disks.push((name, Box::new(disk), Some(image))),
            Err(error @ DiskError::Direct { .. }) => println!("skipped {name}: {error}"),
            Err(error) => panic!("{error}"),
        }
    }
    disks
}

#[test]
fn what_cannot_be_a_disk_is_refused_with_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let missing = open_error(folder.path().join("root.img"));
    assert!(missing.starts_with("cannot open disk image /"), "{missing}");
    assert!(open_error(folder.path()).ends_with("is a directory, not a file or a block device"));
    let character = open_error("/dev/null");
    assert_eq!(
        character,
        "disk image /dev/null is a character device, not a file or a block device"
    );
    let fifo = folder.path().join("fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
    assert!(open_error(fifo).contains("is a pipe"));
    let odd = image(511);
    assert!(open_error(odd.path()).ends_with(": size 511 is not a multiple of 512"));
    assert!(open_error(image(0).path()).ends_with("is empty"));
}

#[test]
fn an_image_that_is_written_belongs_to_one_disk() {
    let image = image(1024);
    let read_only = || FileDiskConfig {
        read_only: true,
        ..config(image.path())
    };
    let writer = FileDisk::open(config(image.path())).unwrap();
    assert_eq!(writer.capacity(), 1024);
    for second in [config(image.path()), read_only()] {
        let error = FileDisk::open(second).err().unwrap();
        assert!(matches!(error, DiskError::InUse { .. }), "{error}");
    }
    drop(writer);
    let readers = [(); 2].map(|()| FileDisk::open(read_only()).unwrap());
    assert!(readers.iter().all(Backend::read_only));
    assert!(open_error(image.path()).contains("is in use"));
    drop(readers);
    // A ring that was in use does not keep the lock either.
    let mut disk = FileDisk::open(config(image.path())).unwrap();
    disk.attach(&memory(), DEPTH);
    drop(disk);
    FileDisk::open(config(image.path())).unwrap();
}

#[test]
fn how_the_file_is_reached_is_said() {
    let image = image(512);
    let mut disk = FileDisk::open(config(image.path())).unwrap();
    assert!(matches!(disk.access(), Access::None));
    disk.attach(&memory(), DEPTH);
    match disk.access() {
        Access::IoUring => assert!(disk.event_fd().is_some()),
        Access::Waiting(Some(why)) => println!("no io_uring: {why}"),
        other => panic!("{other:?}"),
    }
    drop(disk);
    let mut disk = FileDisk::open(FileDiskConfig {
        io_uring: false,
        ..config(image.path())
    })
    .unwrap();
    disk.attach(&memory(), DEPTH);
    assert!(matches!(disk.access(), Access::Waiting(None)));
    assert!(disk.event_fd().is_none());
}

#[test]
fn a_disk_that_was_cut_off_is_an_error_and_stays_usable() {
    let memory = memory();
    for io_uring in [false, true] {
        let image = image(8192);
        let mut disk = FileDisk::open(FileDiskConfig {
            io_uring,
            ..config(image.path())
        })
        .unwrap();
        disk.attach(&memory, DEPTH);
        image.as_file().set_len(4096 + 100).unwrap();
        let segments = [segment(0, 1024)];
        let read = |offset| Operation::Read {
            offset,
            segments: &segments,
        };
        let ends = run(&mut disk, &[read(4096), read(0), read(7168)]);
        let kinds = ends.map_kind();
        assert_eq!(
            kinds,
            [
                Err(ErrorKind::UnexpectedEof),
                Ok(()),
                Err(ErrorKind::UnexpectedEof)
            ]
        );
    }
}

trait Kinds {
    fn map_kind(self) -> Vec<Result<(), ErrorKind>>;
}

impl Kinds for Vec<io::Result<()>> {
    fn map_kind(self) -> Vec<Result<(), ErrorKind>> {
        self.into_iter()
            .map(|end| end.map_err(|error| error.kind()))
            .collect()
    }
}

#[test]
fn discarded_and_zeroed_bytes_are_zeros_and_give_space_back() {
    for (name, mut disk, image) in disks(1 << 20) {
        let memory = memory();
        disk.attach(&memory, DEPTH);
        let blocks = |image: &tempfile::NamedTempFile| {
            image.as_file().sync_all().unwrap();
            image.as_file().metadata().unwrap().blocks()
        };
        let before = image.as_ref().map(blocks);
        let durability = Durability::WriteThrough;
        let zero = |offset, unmap| Operation::WriteZeroes {
            offset,
            len: 1 << 18,
            unmap,
            durability,
        };
        let ends = run(
            disk.as_mut(),
            &[
                zero(0, true),
                zero(1 << 18, false),
                Operation::Discard {
                    offset: 1 << 19,
                    len: (1 << 19) - 512,
                },
                Operation::Flush,
            ],
        );
        assert!(ends.iter().all(Result::is_ok), "{name}: {ends:?}");
        let after = image.as_ref().map(blocks);
        assert!(after.is_none() || after < before, "{name}");
        for (offset, expected) in [(0, 0), ((1 << 19) - 512, 0), ((1 << 20) - 512, 1)] {
            let segments = [segment(512, 512)];
            let read = Operation::Read {
                offset,
                segments: &segments,
            };
            assert!(run(disk.as_mut(), &[read])[0].is_ok());
            let mut bytes = [9; 512];
            memory.read_slice(&mut bytes, GuestAddress(512)).unwrap();
            assert_eq!(
                bytes.iter().any(|b| *b != 0),
                expected == 1,
                "{name} {offset}"
            );
        }
    }
}

#[test]
fn a_reset_disk_tells_nothing_of_what_was_before() {
    let segments = [segment(0, 512)];
    let read = Operation::Read {
        offset: 0,
        segments: &segments,
    };
    for (name, mut disk, _image) in disks(8192) {
        disk.attach(&memory(), DEPTH);
        for token in 0..DEPTH {
            assert!(!matches!(disk.start(&read, token), Start::Full));
        }
        disk.reset();
        disk.completions(&mut |token, _| panic!("{name}: {token} is told"));
        let ends = run(disk.as_mut(), &[read; 8]);
        assert!(ends.iter().all(Result::is_ok), "{name}");
    }
}

#[test]
fn a_full_disk_puts_off_and_loses_nothing() {
    let image = image(8192);
    let mut disk = FileDisk::open(config(image.path())).unwrap();
    disk.attach(&memory(), 2);
    if !matches!(disk.access(), Access::IoUring) {
        return println!("skipped: no io_uring");
    }
    let segments = [segment(0, 512)];
    let write = Operation::Write {
        offset: 0,
        segments: &segments,
        durability: Durability::WriteBack,
    };
    assert!(matches!(disk.start(&write, 0), Start::Pending));
    assert!(matches!(disk.start(&write, 1), Start::Pending));
    assert!(
        matches!(disk.start(&write, 7), Start::Done(Err(_))),
        "no such token"
    );
    let mut told = Vec::new();
    disk.wait_all(&mut |token, result| told.push((token, result.is_ok())))
        .unwrap();
    told.sort_unstable();
    assert_eq!(told, [(0, true), (1, true)]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever is written and read, aligned for direct access or not, by whatever way: the disks agree with a model.
    #[test]
    fn every_disk_does_as_the_model(
        steps in proptest::collection::vec(
            (any::<bool>(), 0_u64..16, 1_u32..16, 0_u64..4, 0_u32..512), 1..12,
        ),
    ) {
        for (name, mut disk, _image) in disks(16384) {
            let memory = memory();
            disk.attach(&memory, DEPTH);
            let mut model: Vec<u8> = (0..16384_u32).map(|i| (i % 251) as u8 | 1).collect();
            for (n, (write, sector, sectors, place, split)) in steps.iter().enumerate() {
                let (offset, len) = (sector * 512, sectors * 512);
                // At a page's start, one off, in a page's middle, and from one region into the next.
                let at = [0, 1, 512, 0x8000 - 700][*place as usize];
                let segments = [segment(at, *split), segment(at + u64::from(*split), len - split)];
                let range = offset as usize..offset as usize + len as usize;
                let durability = Durability::WriteBack;
                if *write {
                    let bytes = vec![n as u8; len as usize];
                    memory.write_slice(&bytes, GuestAddress(at)).unwrap();
                    let write = Operation::Write { offset, segments: &segments, durability };
                    prop_assert!(run(disk.as_mut(), &[write])[0].is_ok(), "{}", name);
                    model[range].copy_from_slice(&bytes);
                } else {
                    let read = Operation::Read { offset, segments: &segments };
                    prop_assert!(run(disk.as_mut(), &[read])[0].is_ok(), "{}", name);
                    let mut bytes = vec![0; len as usize];
                    memory.read_slice(&mut bytes, GuestAddress(at)).unwrap();
                    prop_assert_eq!(&bytes, &model[range], "{}", name);
                }
            }
        }
    }
}
