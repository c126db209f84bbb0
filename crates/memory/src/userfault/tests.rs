use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use super::*;
use crate::image::{Extents, Layers};
use crate::{Contents, discard};

const SIZE: u64 = 1 << 20;

fn userfault() -> Option<Userfault> {
    match Userfault::new() {
        Ok(userfault) => Some(userfault),
        Err(reason) => {
            println!("skipped: userfaultfd: {reason}");
            None
        }
    }
}

fn config() -> MemoryConfig {
    MemoryConfig {
        size: SIZE,
        ..MemoryConfig::default()
    }
}

/// An image in which page n is full of n, but for each fourth, which is a hole.
fn image() -> Arc<File> {
    let file = tempfile::tempfile().unwrap();
    file.set_len(crate::image::file_len(SIZE)).unwrap();
    for page in (0..SIZE / PAGE_SIZE).filter(|page| page % 4 != 0) {
        file.write_all_at(&page_of(page), page * PAGE_SIZE).unwrap();
    }
    Arc::new(file)
}

fn page_of(page: u64) -> Vec<u8> {
    vec![u8::try_from(page % 256).unwrap(); 4096]
}

fn read(ram: &GuestRam, page: u64) -> Vec<u8> {
    let mut bytes = vec![0xee; 4096];
    ram.view().read(page * PAGE_SIZE, &mut bytes).unwrap();
    bytes
}

/// Does `work` with RAM that a thread serves.
fn while_served(userfault: Userfault, work: impl FnOnce(&GuestRam) + Send) {
    while_served_from(&Layers::new(image(), SIZE), userfault, work);
}

fn while_served_from(layers: &Layers, userfault: Userfault, work: impl FnOnce(&GuestRam) + Send) {
    let config = MemoryConfig {
        size: layers.size(),
        ..MemoryConfig::default()
    };
    let (ram, ranges) = GuestRam::served(&config, &userfault).unwrap();
    let source = PageSource::new(layers).unwrap();
    let mut served = source.serve(userfault, ranges).unwrap();
    thread::scope(|scope| {
        let worker = scope.spawn(|| work(&ram));
        while !worker.is_finished() {
            source.answer(&mut served).unwrap();
            thread::yield_now();
        }
        worker.join().unwrap();
    });
}

#[test]
fn every_page_is_what_the_image_has() {
    let Some(userfault) = userfault() else { return };
    while_served(userfault, |ram| {
        for page in [7, 8, 6, 255, 0, 128, 127] {
            let expected = if page % 4 == 0 { 0 } else { page };
            assert_eq!(read(ram, page), page_of(expected), "{page}");
        }
        for page in 0..SIZE / PAGE_SIZE {
            let expected = if page % 4 == 0 { 0 } else { page };
            assert_eq!(read(ram, page), page_of(expected), "{page}");
        }
        // What the guest writes is its own.
        ram.write(7 * PAGE_SIZE, b"changed").unwrap();
        assert_eq!(read(ram, 7)[..7], *b"changed");
    });
}

/// So many runs that they are copied, not mapped, also where the full image has a hole.
#[test]
fn every_page_of_a_difference_is_the_difference_s() {
    let Some(userfault) = userfault() else { return };
    const PAGES: u64 = 600;
    let file = |full: &dyn Fn(u64) -> Option<u64>| {
        let file = tempfile::tempfile().unwrap();
        file.set_len(crate::image::file_len(PAGES * PAGE_SIZE))
            .unwrap();
        for (page, number) in (0..PAGES).filter_map(|page| Some((page, full(page)?))) {
            file.write_all_at(&page_of(number), page * PAGE_SIZE)
                .unwrap();
        }
        Arc::new(file)
    };
    // Every fourth page is a hole, and of every third page that has changed it is one now.
    let base = |page: u64| (!page.is_multiple_of(4)).then_some(1);
    let changed = |page: u64| (!page.is_multiple_of(3)).then_some(2);
    let mut layers = Layers::new(file(&base), PAGES * PAGE_SIZE);
    let mut extents = Extents::default();
    for page in (0..PAGES).step_by(2) {
        extents.push(page * PAGE_SIZE, PAGE_SIZE).unwrap();
    }
    layers.add(&file(&changed), &extents).unwrap();
    while_served_from(&layers, userfault, |ram| {
        for page in 0..PAGES {
            let number = if page % 2 == 0 {
                changed(page)
            } else {
                base(page)
            };
            assert_eq!(read(ram, page), page_of(number.unwrap_or(0)), "{page}");
        }
    });
}

#[test]
fn pages_that_were_given_back_are_zeros() {
    let Some(userfault) = userfault() else { return };
    while_served(userfault, |ram| {
        assert_eq!(read(ram, 17), page_of(17));
        // Some that are there, and some that never were.
        for contents in [Contents::Unneeded, Contents::Zeros] {
            let given = discard(ram.memory(), 17 * PAGE_SIZE, 3 * PAGE_SIZE, contents);
            assert_eq!(given.unwrap(), 3 * PAGE_SIZE);
            for page in 17..20 {
                assert_eq!(read(ram, page), page_of(0), "{page}");
            }
        }
        assert_eq!(read(ram, 21), page_of(21));
    });
}

#[test]
fn an_image_of_served_ram_has_all_of_it() {
    let Some(userfault) = userfault() else { return };
    while_served(userfault, |ram| {
        let file = tempfile::tempfile().unwrap();
        crate::image::write(ram, &file, crate::image::ImageId([1; 16])).unwrap();
        let mut bytes = vec![0; 4096];
        for page in [0, 1, 9, 255] {
            file.read_exact_at(&mut bytes, page * PAGE_SIZE).unwrap();
            let expected = if page % 4 == 0 { 0 } else { page };
            assert_eq!(bytes, page_of(expected), "{page}");
        }
    });
}

#[test]
fn who_waits_asks_again_when_woken_and_goes_on_when_nobody_will_answer() {
    let Some(userfault) = userfault() else { return };
    let (ram, ranges) = GuestRam::served(&config(), &userfault).unwrap();
    let next = || {
        let begun = Instant::now();
        loop {
            match userfault.event().unwrap() {
                Some(event) => return event,
                None => assert!(begun.elapsed() < Duration::from_secs(30)),
            }
        }
    };
    thread::scope(|scope| {
        let reader = scope.spawn(|| read(&ram, 3));
        let asked = Event::Missing(ranges[0].address + 3 * PAGE_SIZE);
        assert_eq!(next(), asked);
        assert!(!reader.is_finished());
        userfault.wake(ranges[0].address, SIZE).unwrap();
        assert_eq!(next(), asked);
        ram.abandon(&userfault).unwrap();
        assert_eq!(reader.join().unwrap(), page_of(0));
    });
}

#[test]
fn ranges_that_the_image_does_not_have_are_refused() {
    let source = PageSource::new(&Layers::new(image(), SIZE)).unwrap();
    let range = |address, len, offset| ServedRange {
        address,
        len,
        offset,
    };
    let serve = |ranges: Vec<ServedRange>| {
        let fd = File::open("/dev/null").unwrap().into();
        source.serve(Userfault(fd), ranges).map(drop)
    };
    serve(vec![range(0x1000, SIZE, 0)]).unwrap();
    for bad in [
        range(0x1000, SIZE, PAGE_SIZE),
        range(0x1000, 0, 0),
        range(0x1001, PAGE_SIZE, 0),
        range(0x1000, PAGE_SIZE + 1, 0),
        range(0x1000, PAGE_SIZE, 1),
        range(0x1000, PAGE_SIZE, u64::MAX - 0xfff),
        range(u64::MAX - 0xfff, 2 * PAGE_SIZE, 0),
        range(0, u64::MAX - 0xfff, 0),
    ] {
        assert!(serve(vec![bad]).is_err(), "{bad:?}");
    }
    assert!(serve(Vec::new()).is_err());
    assert!(serve(vec![range(0x1000, PAGE_SIZE, 0); 65]).is_err());
}

/// Nothing is asked of it: who sent it may be the one who answers.
#[test]
fn a_descriptor_of_anything_else_is_refused() {
    let zero = OwnedFd::from(File::open("/dev/zero").unwrap());
    let error = Userfault::try_from(zero).unwrap_err().to_string();
    assert!(error.contains("/dev/zero, not anon_inode"), "{error}");
    let Some(userfault) = userfault() else { return };
    Userfault::try_from(userfault.0).unwrap();
}

#[test]
fn events_are_what_the_kernel_writes() {
    let message = |kind: u8, numbers: [u64; 3]| {
        let mut bytes = [0; EVENT_LEN];
        bytes[0] = kind;
        bytes[8..].copy_from_slice(numbers.map(u64::to_ne_bytes).as_flattened());
        Event::read(&bytes)
    };
    assert_eq!(message(0x12, [1, 0x5123, 0]), Event::Missing(0x5000));
    assert_eq!(
        message(0x15, [0x1000, 0x3000, 0]),
        Event::Removed(0x1000, 0x3000)
    );
    assert_eq!(message(0x16, [0; 3]), Event::Other(0x16));
}
