//! Pages that go back to the host: the process becomes smaller by them. Alone in its process, which it measures.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::fs;

use goldcrest_memory::{Backing, Contents, GuestRam, MemoryConfig, discard};

const MIB: u64 = 1 << 20;

/// Bytes of the process that are in memory, those that it shares too.
fn resident() -> u64 {
    let statm = fs::read_to_string("/proc/self/statm").unwrap();
    let pages: u64 = statm.split(' ').nth(1).unwrap().parse().unwrap();
    pages * 4096
}

/// Whether all of a range has this value; it is touched by that.
fn is(ram: &GuestRam, at: u64, len: u64, value: u8) -> bool {
    let mut page = [0; 4096];
    (at..at + len).step_by(page.len()).all(|at| {
        ram.view().read(at, &mut page).unwrap();
        page == [value; 4096]
    })
}

#[test]
fn what_is_discarded_leaves_the_process_and_comes_back_as_zeros() {
    for backing in [Backing::Anonymous, Backing::Memfd] {
        for contents in [Contents::Unneeded, Contents::Zeros] {
            let ram = GuestRam::new(&MemoryConfig {
                size: 128 * MIB,
                backing,
                ..MemoryConfig::default()
            })
            .unwrap();
            for at in (0..128 * MIB).step_by(4096) {
                ram.write(at, &[0xaa; 4096]).unwrap();
            }
            let before = resident();
            let given = discard(ram.memory(), 16 * MIB, 96 * MIB, contents).unwrap();
            let after = resident();
            assert_eq!(given, 96 * MIB, "{backing:?} {contents:?}");
            assert!(after < before - 94 * MIB, "{before} {after} {backing:?}");
            assert!(is(&ram, 0, 16 * MIB, 0xaa) && is(&ram, 112 * MIB, 16 * MIB, 0xaa));
            assert!(is(&ram, 16 * MIB, 96 * MIB, 0));
            ram.write(20 * MIB, &[0xaa; 4096]).unwrap();
            assert!(is(&ram, 20 * MIB, 4096, 0xaa), "they are RAM again");
        }
    }
}
