use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use super::*;
use crate::MemoryConfig;

const SIZE: u64 = 4 << 20;

fn image() -> Arc<File> {
    let file = tempfile::tempfile().unwrap();
    file.set_len(crate::image::file_len(SIZE)).unwrap();
    file.write_all_at(&vec![7; 4 << 20], 0).unwrap();
    Arc::new(file)
}

fn ram(image: &Arc<File>) -> GuestRam {
    let config = MemoryConfig {
        size: SIZE,
        ..MemoryConfig::default()
    };
    GuestRam::from_image(&config, image).unwrap()
}

fn extent(first: u64, pages: u64) -> Extent {
    Extent { first, pages }
}

/// Resident pages of the process's that belong to no file.
fn own_pages(ram: &GuestRam) -> u64 {
    let set = WorkingSet::of(ram).unwrap();
    set.bytes().1 / PAGE_SIZE
}

#[test]
fn what_was_touched_is_there_before_it_is_touched_elsewhere() {
    let image = image();
    let first = ram(&image);
    assert_eq!(WorkingSet::of(&first).unwrap(), WorkingSet::default());
    for page in [3, 4, 700] {
        first.write(page * PAGE_SIZE, b"written").unwrap();
    }
    let mut byte = [0];
    first.view().read(100 * PAGE_SIZE, &mut byte).unwrap();
    let set = WorkingSet::of(&first).unwrap();
    assert_eq!(set.written, [extent(3, 2), extent(700, 1)]);
    let read = |page| {
        let mut extents = set.read.iter();
        extents.any(|extent| (extent.first..extent.first + extent.pages).contains(&page))
    };
    // The host may map more than was touched, but not all.
    assert!(read(100) && !read(1000), "{set:?}");
    set.check(SIZE).unwrap();

    let second = ram(&image);
    second.populate(&set);
    assert_eq!(own_pages(&second), 3);
    let populated = WorkingSet::of(&second).unwrap();
    assert_eq!(populated.written, set.written);
    assert!(populated.bytes().0 >= set.bytes().0);
    // And it is the image's all the same.
    second.view().read(3 * PAGE_SIZE, &mut byte).unwrap();
    assert_eq!(byte, [7]);
}

#[test]
fn pages_that_are_not_there_are_refused_and_do_no_harm() {
    let pages = SIZE / PAGE_SIZE;
    for bad in [
        vec![extent(0, 0)],
        vec![extent(pages, 1)],
        vec![extent(0, pages + 1)],
        vec![extent(u64::MAX, 2)],
        vec![extent(4, 2), extent(5, 1)],
        vec![extent(4, 2), extent(0, 1)],
        vec![extent(0, 1); MAX_EXTENTS + 1],
    ] {
        let read = WorkingSet {
            read: bad.clone(),
            written: Vec::new(),
        };
        let written = WorkingSet {
            read: Vec::new(),
            written: bad,
        };
        for set in [read, written] {
            assert!(set.check(SIZE).is_err(), "{set:?}");
            ram(&image()).populate(&set);
        }
    }
    let set = WorkingSet {
        read: vec![extent(0, 1), extent(1, 1)],
        written: vec![extent(0, pages)],
    };
    set.check(SIZE).unwrap();
}

#[test]
fn there_are_never_more_extents_than_are_possible() {
    let mut extents = Extents::new(0);
    for number in 0..3 * MAX_EXTENTS as u64 {
        extents.add(number * 5 + number / 1000 * 100);
    }
    let last = extents.extents.last().copied().unwrap();
    let bounded = extents.bounded();
    assert!(bounded.len() <= MAX_EXTENTS);
    let end = bounded.last().unwrap();
    assert_eq!(end.first + end.pages, last.first + last.pages);
}
