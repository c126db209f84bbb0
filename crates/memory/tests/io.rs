//! File input and output on guest RAM that waits: what arrives, and what is said when it does not.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "tests"
)]

use std::fs::{File, OpenOptions};
use std::io::IoSlice;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::os::unix::net::{UnixDatagram, UnixStream};

use goldcrest_memory::io::{
    self, Durability, Segment, punch_hole, read_at, read_vectored_at, sync_data, write_at,
    write_vectored_at, zero_range,
};
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use proptest::prelude::*;
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryMmap, VolatileSlice};

/// Two regions that touch, and one beyond a hole.
fn memory() -> GuestMemoryMmap {
    GuestMemoryMmap::from_ranges(&[
        (GuestAddress(0), 0x8000),
        (GuestAddress(0x8000), 0x8000),
        (GuestAddress(0x2_0000), 0x8000),
    ])
    .unwrap()
}

fn segment(address: u64, len: u32) -> Segment {
    Segment { address, len }
}

fn errno(result: std::io::Result<usize>) -> i32 {
    result.unwrap_err().raw_os_error().unwrap()
}

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i % 251) as u8 | 1).collect()
}

#[test]
fn slices_are_written_and_read_in_their_order() {
    let memory = memory();
    let file = tempfile::tempfile().unwrap();
    memory
        .write_slice(b"worldhello ", GuestAddress(0x100))
        .unwrap();
    let slice = |at, len| memory.get_slice(GuestAddress(at), len).unwrap();
    let out = [slice(0x105, 6), slice(0x100, 0), slice(0x100, 5)];
    let written = write_vectored_at(&file, &out, 3, Durability::WriteThrough).unwrap();
    assert_eq!(written, 11);
    sync_data(&file).unwrap();
    let back = [slice(0x7fff, 1), slice(0x2_0000, 20)];
    // Fewer than there is room for: the file ends.
    assert_eq!(read_vectored_at(&file, &back, 3).unwrap(), 11);
    let mut bytes = [0; 10];
    memory
        .read_slice(&mut bytes, GuestAddress(0x2_0000))
        .unwrap();
    assert_eq!(&bytes, b"ello world");
    assert_eq!(read_vectored_at(&file, &back, 14).unwrap(), 0);
    assert_eq!(read_vectored_at(&file, &[], 0).unwrap(), 0);
}

#[test]
fn more_segments_than_one_call_takes_all_arrive() {
    let memory = memory();
    let file = tempfile::tempfile().unwrap();
    let bytes = pattern(3000);
    file.write_all_at(&bytes, 0).unwrap();
    let backwards: Vec<_> = (0..3000).rev().map(|at| segment(at, 1)).collect();
    assert_eq!(read_at(&file, &memory, &backwards, 0).unwrap(), 3000);
    let mut read = vec![0; 3000];
    memory.read_slice(&mut read, GuestAddress(0)).unwrap();
    read.reverse();
    assert_eq!(read, bytes);
}

#[test]
fn what_cannot_be_transferred_is_an_error_unless_something_was() {
    let memory = memory();
    let file = tempfile::tempfile().unwrap();
    let write = |file: &File, segments: &[Segment], offset| {
        write_at(file, &memory, segments, offset, Durability::WriteBack)
    };

    for (address, len) in [
        (0xffff, 2),
        (0x1_0000, 1),
        (u64::MAX, 1),
        (0x2_0000, u32::MAX),
    ] {
        let outside = [segment(address, len)];
        assert_eq!(errno(read_at(&file, &memory, &outside, 0)), libc::EFAULT);
    }
    let behind = [segment(0, 4096), segment(0x1_0000, 1)];
    assert_eq!(errno(write(&file, &behind, 0)), libc::EFAULT);
    let far_behind = [vec![segment(0, 1); 100], vec![segment(0x1_0000, 1)]].concat();
    assert_eq!(write(&file, &far_behind, 0).unwrap(), 64);

    let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
    let some = [segment(0x7f00, 0x200)];
    assert_eq!(errno(write(&full, &some, 0)), libc::ENOSPC);
    assert_eq!(errno(read_at(&full, &memory, &some, 0)), libc::EBADF);
    for offset in [u64::MAX, 1 << 63] {
        assert_eq!(errno(write(&file, &some, offset)), libc::EINVAL);
    }
    let greatest = i64::MAX as u64 - 1;
    let beyond = errno(write(&file, &some, greatest));
    assert!([libc::EFBIG, libc::EINVAL].contains(&beyond), "{beyond}");
}

#[test]
fn holes_give_blocks_back_and_zero_ranges_keep_them() {
    let file = tempfile::tempfile().unwrap();
    file.write_all_at(&vec![1; 1 << 20], 0).unwrap();
    file.sync_all().unwrap();
    let blocks = || file.metadata().unwrap().blocks();
    let before = blocks();
    punch_hole(&file, 4096, (1 << 20) - 8192).unwrap();
    assert!(blocks() < before / 2, "{} of {before}", blocks());
    assert_eq!(file.metadata().unwrap().len(), 1 << 20);
    let at = |offset| {
        let mut byte = [9];
        file.read_exact_at(&mut byte, offset).unwrap();
        byte[0]
    };
    assert_eq!(
        [at(4095), at(4096), at((1 << 20) - 4097), at((1 << 20) - 1)],
        [1, 0, 0, 1]
    );

    match zero_range(&file, 0, 4096) {
        Ok(()) => assert_eq!([at(0), at(4095)], [0, 0]),
        Err(error) => assert_eq!(error.raw_os_error(), Some(libc::EOPNOTSUPP)),
    }
    for (offset, len) in [(0, u64::MAX), (u64::MAX, 1), (0, 0)] {
        assert!(punch_hole(&file, offset, len).is_err());
    }
}

proptest! {
    /// Wherever the segments lie: what is written through them is what they held, in their order.
    #[test]
    fn any_segments_round_trip(
        segments in proptest::collection::vec((0_u64..0xf000, 0_u32..0x1000), 0..100),
        offset in 0_u64..100_000,
    ) {
        let memory = memory();
        let bytes = pattern(0x1_0000);
        memory.write_slice(&bytes, GuestAddress(0)).unwrap();
        let file = tempfile::tempfile().unwrap();
        let segments: Vec<_> = segments.iter().map(|(at, len)| segment(*at, *len)).collect();
        let expected: Vec<u8> = segments
            .iter()
            .flat_map(|s| bytes[s.address as usize..][..s.len as usize].to_vec())
            .collect();
        let written = write_at(&file, &memory, &segments, offset, Durability::WriteBack).unwrap();
        prop_assert_eq!(written, expected.len());
        let mut found = vec![0; expected.len()];
        file.read_exact_at(&mut found, offset).unwrap();
        prop_assert_eq!(found, expected);
    }
}

fn parts<'m>(
    memory: &'m GuestMemoryMmap,
    segments: &'m [Segment],
) -> impl Iterator<Item = std::io::Result<VolatileSlice<'m>>> {
    segments.iter().map(|segment| {
        memory
            .get_slice(GuestAddress(segment.address), segment.len as usize)
            .map_err(std::io::Error::other)
    })
}

#[test]
fn frames_stay_whole_and_streams_take_what_they_have_room_for() {
    let memory = memory();
    memory
        .write_slice(&pattern(300), GuestAddress(0x100))
        .unwrap();
    let (a, b) = UnixDatagram::pair().unwrap();
    let frame = [segment(0x100, 100), segment(0x180, 1)];
    assert_eq!(io::write(&a, parts(&memory, &frame)).unwrap(), 101);
    assert_eq!(io::write(&a, parts(&memory, &frame[..1])).unwrap(), 100);
    let room = [segment(0x1000, 1), segment(0x1010, 200)];
    assert_eq!(io::read(&b, parts(&memory, &room)).unwrap(), 101);
    assert_eq!(io::read(&b, parts(&memory, &room)).unwrap(), 100);
    let mut found = [0; 99];
    memory.read_slice(&mut found, GuestAddress(0x1010)).unwrap();
    assert_eq!(found, pattern(300)[1..100]);
    let many = [segment(0x100, 1); io::MAX_PARTS + 1];
    assert_eq!(
        errno(io::write(&a, parts(&memory, &many))),
        libc::EINVAL,
        "no frame is cut"
    );

    let (a, b) = UnixStream::pair().unwrap();
    assert_eq!(
        errno(io::receive(&b, parts(&memory, &room))),
        libc::EAGAIN,
        "nobody waits"
    );
    assert_eq!(io::send(&a, parts(&memory, &many)).unwrap(), io::MAX_PARTS);
    assert_eq!(io::receive(&b, parts(&memory, &room)).unwrap(), 64);
    drop(a);
    assert_eq!(io::receive(&b, parts(&memory, &room)).unwrap(), 0);
    assert_eq!(errno(io::send(&b, parts(&memory, &many))), libc::EPIPE);
}

#[test]
fn all_that_is_there_is_received_though_descriptors_come_with_it() {
    let (a, b) = UnixStream::pair().unwrap();
    let memory = memory();
    let passed = [ControlMessage::ScmRights(&[a.as_raw_fd()])];
    for (bytes, passed) in [("one", &passed[..]), ("two", &passed[..]), ("three", &[])] {
        let parts = [IoSlice::new(bytes.as_bytes())];
        sendmsg::<()>(a.as_raw_fd(), &parts, passed, MsgFlags::empty(), None).unwrap();
    }
    let room = [segment(0x1000, 2), segment(0x1002, 100)];
    assert_eq!(io::receive(&b, parts(&memory, &room)).unwrap(), 11);
    let mut found = [0; 11];
    memory.read_slice(&mut found, GuestAddress(0x1000)).unwrap();
    assert_eq!(&found, b"onetwothree");
    drop(a);
    assert_eq!(
        io::receive(&b, parts(&memory, &room)).unwrap(),
        0,
        "nobody holds its end open"
    );
}
