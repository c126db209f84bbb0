//! RAM that goes to a file and comes back.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "tests"
)]

use std::fs::File;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::sync::Arc;

use goldcrest_memory::image::{ImageId, Written, check, file_len, verify, write};
use goldcrest_memory::{Backing, Contents, GuestRam, MemoryConfig, discard};
use proptest::prelude::*;

const SIZE: u64 = 40 << 20;
const ID: ImageId = ImageId(*b"0123456789abcdef");

fn config(backing: Backing) -> MemoryConfig {
    MemoryConfig {
        size: SIZE,
        backing,
        ..MemoryConfig::default()
    }
}

fn anonymous() -> GuestRam {
    GuestRam::new(&config(Backing::Anonymous)).unwrap()
}

fn contents(ram: &GuestRam) -> Vec<u8> {
    let mut bytes = vec![0; SIZE as usize];
    ram.view().read(0, &mut bytes).unwrap();
    bytes
}

fn image(ram: &GuestRam) -> (Arc<File>, Written) {
    let file = tempfile::tempfile().unwrap();
    let written = write(ram, &file, ID).unwrap();
    check(&file, SIZE, ID).unwrap();
    verify(&file, SIZE, &written.checksums).unwrap();
    (Arc::new(file), written)
}

#[test]
fn pages_of_zeros_are_holes() {
    let ram = anonymous();
    let (file, written) = image(&ram);
    assert_eq!((written.bytes, written.checksums.len()), (0, 3));
    assert_eq!(file.metadata().unwrap().len(), file_len(SIZE));
    let empty = file.metadata().unwrap().blocks();
    for at in [0, 5 << 20, (5 << 20) + 1, SIZE - 1] {
        ram.write(at, &[7]).unwrap();
    }
    // Touched, and zeros all the same.
    ram.write(0x3000, &[0; 4096]).unwrap();
    let (file, written) = image(&ram);
    assert_eq!(written.bytes, 3 * 4096);
    assert!(file.metadata().unwrap().blocks() - empty <= 3 * 8 * 16);
}

#[test]
fn ram_of_an_image_can_be_written_again_and_is_private() {
    let ram = anonymous();
    ram.write(0x1234, b"one").unwrap();
    ram.write(20 << 20, b"two").unwrap();
    let (file, _) = image(&ram);
    let first = GuestRam::from_image(&config(Backing::Anonymous), &file).unwrap();
    let second = GuestRam::from_image(&config(Backing::Anonymous), &file).unwrap();
    first.write(30 << 20, b"three").unwrap();
    // Nothing of it is touched, but for one page.
    let (again, written) = image(&first);
    assert_eq!(written.bytes, 3 * 4096);
    ram.write(30 << 20, b"three").unwrap();
    let third = GuestRam::from_image(&config(Backing::Anonymous), &again).unwrap();
    assert!(contents(&third) == contents(&ram));
    let mut bytes = [0; 5];
    second.view().read(30 << 20, &mut bytes).unwrap();
    assert_eq!(bytes, [0; 5], "clones do not see each other");
}

#[test]
fn what_is_mapped_from_a_file_and_not_touched_is_written() {
    let kernel = tempfile::tempfile().unwrap();
    let bytes: Vec<u8> = (0..3_u32 << 20).map(|i| (i % 251) as u8 | 1).collect();
    kernel.write_all_at(&bytes, 0).unwrap();
    for backing in [Backing::Anonymous, Backing::Memfd] {
        let ram = GuestRam::new(&config(backing)).unwrap();
        ram.load_file(&kernel, 0, 1 << 20, bytes.len() as u64)
            .unwrap();
        let (file, written) = image(&ram);
        assert_eq!(written.bytes, bytes.len() as u64);
        let copy = GuestRam::from_image(&config(backing), &file).unwrap();
        assert!(contents(&copy) == contents(&ram), "{backing:?}");
    }
}

#[test]
fn what_was_discarded_is_written_as_the_guest_sees_it() {
    let ram = anonymous();
    ram.write(0, &vec![1; 8 << 20]).unwrap();
    let (file, _) = image(&ram);
    let ram = GuestRam::from_image(&config(Backing::Anonymous), &file).unwrap();
    ram.write(0, &vec![2; 8 << 20]).unwrap();
    discard(ram.memory(), 0, 4096, Contents::Unneeded).unwrap();
    discard(ram.memory(), 2 << 20, 2 << 20, Contents::Zeros).unwrap();
    let (again, _) = image(&ram);
    let copy = GuestRam::from_image(&config(Backing::Anonymous), &again).unwrap();
    assert!(contents(&copy) == contents(&ram));
    assert_eq!(contents(&ram)[2 << 20], 0);
}

#[test]
fn another_file_is_not_the_image() {
    let ram = anonymous();
    ram.write(0, &[1]).unwrap();
    let (file, written) = image(&ram);
    let refusal = |size, id| check(&file, size, id).unwrap_err().to_string();
    assert!(refusal(SIZE, ImageId([9; 16])).contains("another state"));
    assert!(refusal(SIZE - 4096, ID).contains("bytes, "));
    assert!(refusal(u64::MAX, ID).contains("are needed"));
    file.write_all_at(&[1], SIZE + 35).unwrap();
    assert!(refusal(SIZE, ID).contains("damaged"));
    file.write_all_at(&[1], SIZE).unwrap();
    assert!(refusal(SIZE, ID).contains("GCMEMORY"));
    file.set_len(SIZE).unwrap();
    assert!(refusal(SIZE, ID).contains("bytes, "));
    assert!(verify(&file, SIZE, &written.checksums[1..]).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    /// Whatever is written where: the image has it, and verifying finds any byte that changes.
    #[test]
    fn images_round_trip(
        writes in prop::collection::vec((0..SIZE - 9000, 1_usize..9000, any::<u8>()), 0..20),
        memfd: bool, flip in 0..SIZE,
    ) {
        let backing = if memfd { Backing::Memfd } else { Backing::Anonymous };
        let ram = GuestRam::new(&config(backing)).unwrap();
        for (at, len, byte) in writes {
            ram.write(at, &vec![byte; len]).unwrap();
        }
        let (file, written) = image(&ram);
        let copy = GuestRam::from_image(&config(backing), &file).unwrap();
        prop_assert!(contents(&copy) == contents(&ram));
        let mut byte = [0];
        file.read_exact_at(&mut byte, flip).unwrap();
        file.write_all_at(&[byte[0] ^ 0x10], flip).unwrap();
        prop_assert!(verify(&file, SIZE, &written.checksums).is_err());
    }
}
