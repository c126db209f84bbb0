//! RAM of which only what has changed goes to a file.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "tests"
)]

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use goldcrest_memory::image::{
    Changes, Extents, ImageId, Layers, Written, check, merge, verify, write, write_changes,
};
use goldcrest_memory::io::{Segment, read_at};
use goldcrest_memory::{Backing, Contents, GuestRam, MemoryConfig, Tracker, discard};
use proptest::prelude::*;
use vm_memory::{Bytes, GuestAddress};

const SIZE: u64 = 20 << 20;
const PAGE: u64 = 4096;

fn config(backing: Backing) -> MemoryConfig {
    MemoryConfig {
        size: SIZE,
        backing,
        ..MemoryConfig::default()
    }
}

fn contents(ram: &GuestRam) -> Vec<u8> {
    let mut bytes = vec![0; SIZE as usize];
    ram.view().read(0, &mut bytes).unwrap();
    bytes
}

fn file() -> Arc<File> {
    Arc::new(tempfile::tempfile().unwrap())
}

fn full(ram: &GuestRam) -> Layers {
    let file = file();
    let written = write(ram, &file, ImageId([1; 16])).unwrap();
    verify(&file, SIZE, &written.checksums).unwrap();
    Layers::new(file, SIZE)
}

/// Puts what has changed over `layers`.
fn add_changes(
    ram: &GuestRam,
    layers: &mut Layers,
    tracker: Option<&Tracker>,
) -> (Written, Extents) {
    let (file, id) = (file(), ImageId([2; 16]));
    let changes = match tracker {
        Some(tracker) => Changes::Tracked(tracker),
        None => Changes::Compared(layers),
    };
    let (written, extents) = write_changes(ram, &file, id, changes).unwrap();
    check(&file, SIZE, id).unwrap();
    verify(&file, SIZE, &written.checksums).unwrap();
    layers.add(&file, &extents).unwrap();
    (written, extents)
}

/// Nothing, with the reason printed, where the kernel cannot watch RAM.
fn tracker(ram: &GuestRam) -> Option<Tracker> {
    match Tracker::new(ram) {
        Ok(tracker) => Some(tracker),
        Err(error) => {
            eprintln!("skipped: {error}");
            None
        }
    }
}

fn runs(extents: &Extents) -> Vec<(u64, u64)> {
    let pages = |extent: goldcrest_memory::image::Extent| (extent.start / PAGE, extent.len / PAGE);
    extents.iter().map(pages).collect()
}

/// What somebody does to RAM.
#[derive(Debug, Clone)]
enum Step {
    /// A program of the guest, or a device by its own means, stores bytes.
    Store(u64, usize, u8),
    /// A device has the kernel read into it.
    Read(u64, u32),
    /// A balloon gives it back.
    Discard(u64, u64, Contents),
    /// It is looked at, which may bring pages into being.
    Look(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let contents = prop_oneof![Just(Contents::Unneeded), Just(Contents::Zeros)];
    prop_oneof![
        4 => (0..SIZE - 9000, 1_usize..9000, any::<u8>())
            .prop_map(|(at, len, byte)| Step::Store(at, len, byte)),
        2 => (0..SIZE - 9000, 1_u32..9000).prop_map(|(at, len)| Step::Read(at, len)),
        2 => (0..SIZE - 9000, 1..6_u64 << 20, contents)
            .prop_map(|(at, len, contents)| Step::Discard(at, len, contents)),
        1 => (0..SIZE - 9000).prop_map(Step::Look),
    ]
}

fn perform(ram: &GuestRam, step: &Step, device: &File) {
    match step {
        Step::Store(at, len, byte) => {
            let bytes = vec![*byte; *len];
            let memory = ram.memory();
            memory.write_slice(&bytes, GuestAddress(*at)).unwrap();
        }
        Step::Read(at, len) => {
            let segment = Segment {
                address: *at,
                len: *len,
            };
            read_at(device, ram.memory(), &[segment], *at % 5000).unwrap();
        }
        Step::Discard(at, len, contents) => {
            discard(ram.memory(), *at, *len, *contents).unwrap();
        }
        Step::Look(at) => {
            let mut bytes = [0; 9000];
            ram.view().read(*at, &mut bytes).unwrap();
        }
    }
}

fn device() -> File {
    let file = tempfile::tempfile().unwrap();
    let bytes: Vec<u8> = (0..20_000_u32).map(|i| (i % 241) as u8).collect();
    file.write_all_at(&bytes, 0).unwrap();
    file
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20))]
    /// Whatever is done to RAM by whom, from whatever it was made: after each round the full image of before and the
    /// changes since then have, put together, what RAM has, byte for byte; and so has one image that is made of all.
    #[test]
    fn changes_are_what_a_full_image_would_have(
        rounds in prop::collection::vec((prop::collection::vec(step(), 0..12), any::<bool>()), 1..6),
        before in prop::collection::vec(step(), 0..12),
        memfd: bool, tracked: bool, restored: bool,
    ) {
        let backing = if memfd { Backing::Memfd } else { Backing::Anonymous };
        let device = device();
        let mut ram = GuestRam::new(&config(backing)).unwrap();
        before.iter().for_each(|step| perform(&ram, step, &device));
        let mut layers = full(&ram);
        if restored {
            ram = GuestRam::from_layers(&config(backing), &layers).unwrap();
        }
        let mut tracker = if tracked && !memfd { tracker(&ram) } else { None };
        for (steps, elsewhere) in rounds {
            steps.iter().for_each(|step| perform(&ram, step, &device));
            add_changes(&ram, &mut layers, tracker.as_ref());
            if let Some(tracker) = &mut tracker {
                tracker.begin().unwrap();
            }
            let now = contents(&ram);
            let copy = GuestRam::from_layers(&config(backing), &layers).unwrap();
            prop_assert!(contents(&copy) == now);
            let one = file();
            let written = merge(&layers, &one, ImageId([3; 16]), |_| {}).unwrap();
            check(&one, SIZE, ImageId([3; 16])).unwrap();
            prop_assert_eq!(&written, &write(&ram, &file(), ImageId([4; 16])).unwrap());
            let copy = GuestRam::from_image(&config(backing), &one).unwrap();
            prop_assert!(contents(&copy) == now);
            if elsewhere {
                // It goes on in another process.
                let next = GuestRam::from_layers(&config(backing), &layers).unwrap();
                tracker = tracker.and_then(|_| self::tracker(&next));
                ram = next;
            }
        }
    }
}

#[test]
fn only_what_has_changed_is_written() {
    for track in [false, true] {
        let ram = GuestRam::new(&config(Backing::Anonymous)).unwrap();
        ram.write(0, &vec![1; 8 << 20]).unwrap();
        let mut layers = full(&ram);
        let Some(mut tracker) = tracker(&ram) else {
            return;
        };
        let tracked = track.then_some(&tracker);
        let (written, extents) = add_changes(&ram, &mut layers, tracked);
        assert_eq!((written.bytes, extents.len()), (0, 0));
        ram.write(0x3fff, &[2, 2]).unwrap();
        ram.write(0x9000, &[0; 4096]).unwrap();
        ram.write(10 << 20, &[3]).unwrap();
        let tracked = track.then_some(&tracker);
        let (written, extents) = add_changes(&ram, &mut layers, tracked);
        assert_eq!(runs(&extents), [(3, 2), (9, 1), (2560, 1)]);
        // The page of zeros is a hole.
        assert_eq!(written.bytes, 3 * PAGE);
        tracker.begin().unwrap();
        let tracked = track.then_some(&tracker);
        assert_eq!(add_changes(&ram, &mut layers, tracked).1.len(), 0);
    }
}

#[test]
fn pages_that_go_back_to_the_host_have_changed() {
    let ram = GuestRam::new(&config(Backing::Anonymous)).unwrap();
    ram.write(0, &vec![1; 8 << 20]).unwrap();
    let ram = GuestRam::from_layers(&config(Backing::Anonymous), &full(&ram)).unwrap();
    // The guest's own copies, which the balloon takes away: the file's pages are there again.
    ram.write(0x2000, &[2; 0x3000]).unwrap();
    let mut layers = full(&ram);
    let Some(tracker) = tracker(&ram) else {
        return;
    };
    discard(ram.memory(), 0x3000, 0x2000, Contents::Unneeded).unwrap();
    // Written to again before anybody has looked at it.
    ram.write(0x4000, &[3]).unwrap();
    discard(ram.memory(), 2 << 20, 2 << 20, Contents::Zeros).unwrap();
    let (_, extents) = add_changes(&ram, &mut layers, Some(&tracker));
    assert_eq!(runs(&extents), [(3, 2), (512, 512)]);
    let copy = GuestRam::from_layers(&config(Backing::Anonymous), &layers).unwrap();
    assert!(contents(&copy) == contents(&ram));
}

#[test]
fn ram_of_several_images_can_be_put_back() {
    let ram = GuestRam::new(&config(Backing::Anonymous)).unwrap();
    ram.write(0, &vec![1; 4 << 20]).unwrap();
    let mut layers = full(&ram);
    // More runs than are mapped.
    for page in 0..400 {
        ram.write(page * 3 * PAGE, &[page as u8; 8192]).unwrap();
    }
    ram.write(12 << 20, &vec![9; 1 << 20]).unwrap();
    add_changes(&ram, &mut layers, None);
    for backing in [Backing::Anonymous, Backing::Memfd] {
        let copy = GuestRam::from_layers(&config(backing), &layers).unwrap();
        assert!(contents(&copy) == contents(&ram), "{backing:?}");
        copy.write(0, &vec![7; 16 << 20]).unwrap();
        discard(copy.memory(), 4 << 20, 4 << 20, Contents::Zeros).unwrap();
        copy.revert_to(&layers).unwrap();
        assert!(contents(&copy) == contents(&ram), "{backing:?}");
    }
}

#[test]
fn images_of_other_ram_are_refused() {
    let layers = full(&GuestRam::new(&config(Backing::Anonymous)).unwrap());
    let mut other = config(Backing::Anonymous);
    other.size += PAGE;
    let error = GuestRam::from_layers(&other, &layers).unwrap_err();
    assert!(error.to_string().contains("another size"), "{error}");
}

#[test]
fn shared_ram_is_not_watched() {
    let ram = GuestRam::new(&config(Backing::Memfd)).unwrap();
    let error = Tracker::new(&ram).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::Unsupported);
}
