//! Pages that go back to the host: which, and what the guest finds there.
#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    reason = "tests"
)]

use std::fs::File;
use std::io::Write;

use goldcrest_memory::{
    Backing, Contents, GuestRam, HugePages, MemoryConfig, MemoryError, discard,
};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

const MIB: u64 = 1 << 20;
const BOTH: [Contents; 2] = [Contents::Unneeded, Contents::Zeros];

fn ram(backing: Backing, size: u64) -> GuestRam {
    GuestRam::new(&MemoryConfig {
        size,
        backing,
        ..MemoryConfig::default()
    })
    .unwrap()
}

fn fill(ram: &GuestRam, at: u64, len: u64) {
    let bytes = vec![0xaa; len as usize];
    ram.write(at, &bytes).unwrap();
}

fn bytes(ram: &GuestRam, at: u64, len: u64) -> Vec<u8> {
    let mut bytes = vec![0; len as usize];
    ram.view().read(at, &mut bytes).unwrap();
    bytes
}

fn is(ram: &GuestRam, at: u64, len: u64, value: u8) -> bool {
    bytes(ram, at, len).iter().all(|byte| *byte == value)
}

/// A file of this many bytes, none of which is zero.
fn file(len: u64) -> File {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(&vec![b'f'; len as usize]).unwrap();
    file
}

#[test]
fn only_whole_pages_go() {
    let ram = ram(Backing::Anonymous, MIB);
    for (start, len, first, given) in [
        (0x4001, 0x1000, 0, 0),
        (0x4fff, 0x1000, 0, 0),
        (0x4001, 0x1fff, 0x5000, 0x1000),
        (0x4fff, 0x3001, 0x5000, 0x3000),
        (0x4000, 0xfff, 0, 0),
        (0x4000, 0, 0, 0),
        (0x4000, 0x1000, 0x4000, 0x1000),
    ] {
        fill(&ram, 0, MIB);
        let count = discard(ram.memory(), start, len, Contents::Unneeded).unwrap();
        assert_eq!(count, given, "{start:#x} {len:#x}");
        assert!(is(&ram, 0, first, 0xaa) && is(&ram, first, given, 0));
        let end = first + given;
        assert!(is(&ram, end, MIB - end, 0xaa), "{start:#x} {len:#x}");
    }
}

#[test]
fn what_is_not_ram_is_left_out() {
    // Around the hole below 4 GiB.
    let ram = ram(Backing::Anonymous, (3 << 30) + MIB);
    for (start, len, given) in [
        (3 << 30, 1 << 30, 0),
        ((4 << 30) + MIB, u64::MAX, 0),
        (u64::MAX, u64::MAX, 0),
        (u64::MAX - 0xfff, 0x2000, 0),
        ((3 << 30) - 0x1000, 0x2000, 0x1000),
        ((3 << 30) - 0x1000, (1 << 30) + 0x3000, 0x3000),
        ((4 << 30) + MIB - 0x2000, u64::MAX, 0x2000),
        (0, u64::MAX, (3 << 30) + MIB),
    ] {
        for contents in BOTH {
            let count = discard(ram.memory(), start, len, contents).unwrap();
            assert_eq!(count, given, "{start:#x} {len:#x}");
        }
    }
    let nothing = GuestMemoryMmap::default();
    assert_eq!(discard(&nothing, 0, 4096, Contents::Zeros).unwrap(), 0);
}

#[test]
fn ram_that_is_not_laid_out_by_pages_loses_no_more_than_it_was_to() {
    let regions = [(0x800, 0x3000), (0x10_0000, 0x2000)].map(|(at, len)| (GuestAddress(at), len));
    let memory = GuestMemoryMmap::from_ranges(&regions).unwrap();
    memory
        .write_slice(&[0xaa; 0x3000], GuestAddress(0x800))
        .unwrap();
    let given = discard(&memory, 0x1000, 0x2000, Contents::Unneeded).unwrap();
    assert_eq!(given, 0x1000);
    let mut bytes = [0; 0x3000];
    memory.read_slice(&mut bytes, GuestAddress(0x800)).unwrap();
    assert!(bytes[..0x1000].iter().all(|byte| *byte == 0xaa));
    assert!(bytes[0x1000..0x2000].iter().all(|byte| *byte == 0));
    assert!(bytes[0x2000..].iter().all(|byte| *byte == 0xaa));
}

#[test]
fn where_a_file_was_mapped_it_is_there_again() {
    let ram = ram(Backing::Anonymous, 8 * MIB);
    let placed = ram.load_file(&file(2 * MIB), 0, MIB, 2 * MIB).unwrap();
    assert_eq!(placed.mapped, 2 * MIB);
    fill(&ram, 0, 8 * MIB);
    let given = discard(ram.memory(), 0, 8 * MIB, Contents::Unneeded).unwrap();
    assert_eq!(given, 8 * MIB);
    assert!(is(&ram, 0, MIB, 0) && is(&ram, MIB, 2 * MIB, b'f') && is(&ram, 3 * MIB, 5 * MIB, 0));
}

#[test]
fn zeros_stay_zeros_where_a_file_was_mapped() {
    let ram = ram(Backing::Anonymous, 8 * MIB);
    ram.load_file(&file(4 * MIB), 0, MIB, 4 * MIB).unwrap();
    ram.write(0, &vec![0; 8 << 20]).unwrap();
    let discard = |start, len| discard(ram.memory(), start, len, Contents::Zeros).unwrap();
    // Too little to be worth a mapping: it stays.
    assert_eq!(discard(2 * MIB, 0x1000), 0);
    assert!(is(&ram, 2 * MIB, 0x1000, 0));
    // From before the file to the middle of it.
    assert_eq!(discard(0, 3 * MIB), 3 * MIB);
    assert!(is(&ram, 0, 3 * MIB, 0), "and not the file's bytes");
    fill(&ram, 2 * MIB, 0x2000);
    assert_eq!(discard(2 * MIB, 0x1000), 0x1000, "it is anonymous now");
    assert!(is(&ram, 2 * MIB, 0x1000, 0) && is(&ram, 2 * MIB + 0x1000, 0x1000, 0xaa));
    fill(&ram, 4 * MIB, 0x1000);
    assert!(is(&ram, 4 * MIB, 0x1000, 0xaa));
}

#[test]
fn only_whole_huge_pages_go() {
    for backing in [Backing::Anonymous, Backing::Memfd] {
        let ram = GuestRam::new(&MemoryConfig {
            size: 8 * MIB,
            backing,
            huge_pages: HugePages::TwoMiB,
            ..MemoryConfig::default()
        });
        let ram = match ram {
            Ok(ram) => ram,
            Err(MemoryError::Host { source, .. }) => {
                eprintln!("skipped: no reserved huge pages: {source}");
                return;
            }
            Err(error) => panic!("{error}"),
        };
        fill(&ram, 0, 8 * MIB);
        for contents in BOTH {
            let discard = |start, len| discard(ram.memory(), start, len, contents).unwrap();
            assert_eq!(discard(MIB, 2 * MIB), 0);
            assert!(is(&ram, 0, 8 * MIB, 0xaa));
            assert_eq!(discard(MIB, 5 * MIB), 4 * MIB);
            assert!(is(&ram, 2 * MIB, 4 * MIB, 0));
            fill(&ram, 2 * MIB, 4 * MIB);
        }
    }
}
