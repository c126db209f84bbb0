//! File input and output on guest RAM by io_uring: everything completes once, errors arrive, nothing is lost.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "tests"
)]

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::{self, Write, pipe};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use goldcrest_memory::io::{Deallocate, Durability, PrepareError, Ring, Segment};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

fn memory() -> GuestMemoryMmap {
    GuestMemoryMmap::from_ranges(&[
        (GuestAddress(0), 0x10_0000),
        (GuestAddress(0x10_0000), 0x10_0000),
    ])
    .unwrap()
}

/// A ring, or None where the host has no io_uring, which is said.
fn ring(entries: u32, files: &[BorrowedFd<'_>]) -> Option<(Ring, GuestMemoryMmap)> {
    let memory = memory();
    match Ring::new(memory.clone(), entries, files) {
        Ok(ring) => Some((ring, memory)),
        Err(error) => {
            println!("skipped: {error}");
            None
        }
    }
}

fn segment(address: u64, len: u32) -> Segment {
    Segment { address, len }
}

type Results = BTreeMap<u64, Result<u32, i32>>;

fn add(results: &mut Results, token: u64, result: io::Result<u32>) {
    let result = result.map_err(|error| error.raw_os_error().unwrap());
    assert!(
        results.insert(token, result).is_none(),
        "{token} completed twice"
    );
}

fn wait(ring: &mut Ring) -> Results {
    let mut results = Results::new();
    ring.wait_all(|token, result| add(&mut results, token, result))
        .unwrap();
    assert_eq!(ring.in_flight(), 0);
    results
}

fn readable(ring: &Ring, timeout: Duration) -> bool {
    let mut fds = [PollFd::new(ring.event_fd(), PollFlags::POLLIN)];
    poll(&mut fds, PollTimeout::try_from(timeout).unwrap()).unwrap() == 1
}

#[test]
fn hundreds_of_transfers_in_flight_round_trip() {
    let file = tempfile::tempfile().unwrap();
    let Some((mut ring, memory)) = ring(500, &[file.as_fd()]) else {
        return;
    };
    for round in 0..3 {
        for i in 0..500_u64 {
            memory
                .write_obj(i * 7 + round, GuestAddress(i * 512))
                .unwrap();
            // One, two, or seven parts, and some across the regions' border.
            let at = i * 512;
            let parts = match i % 3 {
                0 => vec![segment(at, 512)],
                1 => vec![segment(at, 500), segment(at + 500, 12)],
                _ => vec![segment(at, 8), segment(0, 0), segment(0x10_0000 - 252, 504)],
            };
            let durability = match i % 50 {
                0 => Durability::WriteThrough,
                _ => Durability::WriteBack,
            };
            ring.prepare_write(0, &parts, i * 512, durability, i)
                .unwrap();
        }
        assert_eq!(
            ring.prepare_sync_data(0, 0),
            Err(PrepareError::Full),
            "no more than its entries"
        );
        let results = wait(&mut ring);
        assert_eq!(results.len(), 500);
        assert!(results.values().all(|result| *result == Ok(512)));
        for i in 0..500 {
            let into = [segment(0x10_0000 - 4 + i * 8, 8)];
            ring.prepare_read(0, &into, i * 512, i).unwrap();
        }
        assert!(wait(&mut ring).values().all(|result| *result == Ok(8)));
        for i in 0..500 {
            let value: u64 = memory
                .read_obj(GuestAddress(0x10_0000 - 4 + i * 8))
                .unwrap();
            assert_eq!(value, i * 7 + round);
        }
    }
}

#[test]
fn what_is_refused_leaves_nothing_prepared() {
    let file = tempfile::tempfile().unwrap();
    let Some((mut ring, _)) = ring(2, &[file.as_fd()]) else {
        return;
    };
    let outside = segment(0x1f_ffff, 2);
    let refused = ring.prepare_read(0, &[segment(0, 8), outside], 0, 1);
    assert_eq!(refused, Err(PrepareError::OutsideRam(outside)));
    // To the kernel, the greatest offset is where the file stands.
    let refused = ring.prepare_read(0, &[segment(0, 8)], u64::MAX, 1);
    assert_eq!(refused, Err(PrepareError::Offset(u64::MAX)));
    let refused = ring.prepare_deallocate(0, Deallocate::PunchHole, 1 << 63, 1, 1);
    assert_eq!(refused, Err(PrepareError::Offset(1 << 63)));
    assert_eq!(ring.in_flight(), 0);
    assert!(wait(&mut ring).is_empty());
    assert_eq!(ring.submit().unwrap(), 0);
}

#[test]
fn the_end_of_a_file_and_errors_arrive_with_their_tokens() {
    let file = tempfile::tempfile().unwrap();
    file.write_all_at(&[1; 100], 0).unwrap();
    let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
    let Some((mut ring, _)) = ring(16, &[file.as_fd(), full.as_fd()]) else {
        return;
    };
    let some = [segment(0, 64)];
    let back = Durability::WriteBack;
    ring.prepare_read(0, &some, 0, 10).unwrap();
    ring.prepare_read(0, &some, 70, 11).unwrap();
    ring.prepare_read(0, &some, 100, 12).unwrap();
    ring.prepare_read(0, &[], 0, 13).unwrap();
    ring.prepare_write(1, &some, 0, back, 14).unwrap();
    ring.prepare_read(1, &some, 0, 15).unwrap();
    ring.prepare_read(7, &some, 0, 16).unwrap();
    ring.prepare_write(0, &some, i64::MAX as u64 - 1, back, 17)
        .unwrap();
    ring.prepare_deallocate(0, Deallocate::PunchHole, 0, 0, 18)
        .unwrap();
    ring.prepare_sync_data(0, 19).unwrap();
    let mut results = wait(&mut ring);
    let beyond = results.remove(&17).unwrap().unwrap_err();
    assert!([libc::EFBIG, libc::EINVAL].contains(&beyond), "{beyond}");
    let expected = [
        (10, Ok(64)),
        (11, Ok(30)),
        (12, Ok(0)),
        (13, Ok(0)),
        (14, Err(libc::ENOSPC)),
        (15, Err(libc::EBADF)),
        (16, Err(libc::EBADF)),
        (18, Err(libc::EINVAL)),
        (19, Ok(0)),
    ];
    assert_eq!(results, Results::from(expected));
}

#[test]
fn more_parts_than_the_kernel_takes_are_a_short_transfer() {
    let file = tempfile::tempfile().unwrap();
    let Some((mut ring, _)) = ring(1, &[file.as_fd()]) else {
        return;
    };
    let parts: Vec<_> = (0..1500).map(|i| segment(i * 2, 1)).collect();
    let back = Durability::WriteBack;
    ring.prepare_write(0, &parts, 0, back, 1).unwrap();
    assert_eq!(wait(&mut ring), Results::from([(1, Ok(1024))]));
}

#[test]
fn a_hole_gives_blocks_back() {
    let file = tempfile::tempfile().unwrap();
    file.write_all_at(&vec![1; 1 << 20], 0).unwrap();
    file.sync_all().unwrap();
    let before = file.metadata().unwrap().blocks();
    let Some((mut ring, _)) = ring(1, &[file.as_fd()]) else {
        return;
    };
    ring.prepare_deallocate(0, Deallocate::PunchHole, 0, 1 << 20, 3)
        .unwrap();
    assert_eq!(wait(&mut ring), Results::from([(3, Ok(0))]));
    let metadata = file.metadata().unwrap();
    assert!(metadata.blocks() < before / 2);
    assert_eq!(metadata.len(), 1 << 20);
}

#[test]
fn what_completes_at_once_signals_nobody_and_the_rest_does() {
    let file = tempfile::tempfile().unwrap();
    file.write_all_at(&[1; 4096], 0).unwrap();
    let (reader, mut writer) = pipe().unwrap();
    let Some((mut ring, memory)) = ring(4, &[file.as_fd(), reader.as_fd()]) else {
        return;
    };
    let mut completed = Results::new();
    ring.prepare_read(0, &[segment(0, 4096)], 0, 1).unwrap();
    ring.prepare_read(1, &[segment(0x5000, 8)], 0, 2).unwrap();
    assert_eq!(ring.submit().unwrap(), 0);
    ring.completions(|token, result| add(&mut completed, token, result));
    assert_eq!(completed, Results::from([(1, Ok(4096))]));
    assert!(!readable(&ring, Duration::ZERO));

    writer.write_all(b"later").unwrap();
    assert!(readable(&ring, Duration::from_secs(5)));
    ring.clear_event();
    assert!(!readable(&ring, Duration::ZERO));
    ring.completions(|token, result| add(&mut completed, token, result));
    assert_eq!(completed[&2], Ok(5));
    let mut bytes = [0; 5];
    memory.read_slice(&mut bytes, GuestAddress(0x5000)).unwrap();
    assert_eq!(&bytes, b"later");
}

/// A vCPU's thread is in its guest, for as long as it likes: what it submitted must be heard of nevertheless.
#[test]
fn a_submitter_that_is_busy_delays_no_signal() {
    let (reader, mut writer) = pipe().unwrap();
    let Some((mut ring, _)) = ring(4, &[reader.as_fd()]) else {
        return;
    };
    let done = AtomicBool::new(false);
    let mut times = Vec::new();
    std::thread::scope(|scope| {
        let (send, receive) = std::sync::mpsc::channel();
        let busy = &done;
        let submitter = &mut ring;
        scope.spawn(move || {
            submitter.prepare_read(0, &[segment(0, 8)], 0, 1).unwrap();
            submitter.submit().unwrap();
            send.send(submitter).unwrap();
            // No system call from here on.
            while !busy.load(Ordering::Relaxed) {
                std::hint::spin_loop();
            }
        });
        let ring: &mut Ring = receive.recv().unwrap();
        std::thread::sleep(Duration::from_millis(5));
        let start = Instant::now();
        writer.write_all(b"x").unwrap();
        assert!(readable(ring, Duration::from_secs(5)));
        times.push(start.elapsed());
        done.store(true, Ordering::Relaxed);
        assert_eq!(
            ring.completions(|_, result| assert_eq!(result.unwrap(), 1)),
            1
        );
    });
    println!("signalled after {times:?}");
}

#[test]
fn no_signal_is_lost_to_a_completion_at_any_moment() {
    let (reader, mut writer) = pipe().unwrap();
    let Some((mut ring, _)) = ring(4, &[reader.as_fd()]) else {
        return;
    };
    std::thread::scope(|scope| {
        let (send, receive) = std::sync::mpsc::channel::<u32>();
        scope.spawn(move || {
            for spins in receive {
                for _ in 0..spins {
                    std::hint::spin_loop();
                }
                writer.write_all(b"x").unwrap();
            }
        });
        for round in 0..5000_u32 {
            ring.prepare_read(0, &[segment(0, 1)], 0, round.into())
                .unwrap();
            send.send(round % 97 * 10).unwrap();
            ring.submit().unwrap();
            while ring.completions(|token, result| {
                assert_eq!((token, result.unwrap()), (round.into(), 1));
            }) == 0
            {
                assert!(readable(&ring, Duration::from_secs(5)), "round {round}");
                ring.clear_event();
            }
        }
    });
}

#[test]
fn dropping_cancels_what_would_never_complete() {
    let file = tempfile::tempfile().unwrap();
    file.write_all_at(&[1; 8], 0).unwrap();
    let (reader, writer) = pipe().unwrap();
    let files = [reader.as_fd(), file.as_fd()];
    for submitted in [true, false] {
        let Some((mut ring, _)) = ring(8, &files) else {
            return;
        };
        for token in 0..4 {
            ring.prepare_read(0, &[segment(0, 8)], 0, token).unwrap();
        }
        if submitted {
            ring.submit().unwrap();
        }
        let some = [segment(0, 4096)];
        ring.prepare_write(1, &some, 0, Durability::WriteThrough, 9)
            .unwrap();
        let start = Instant::now();
        drop(ring);
        assert!(start.elapsed() < Duration::from_secs(5));
    }
    let Some((mut ring, _)) = ring(8, &files) else {
        return;
    };
    // Another thread's operations are cancelled too, and the ring is good for more.
    std::thread::scope(|scope| {
        let (send, receive) = std::sync::mpsc::channel();
        let (stop, stopped) = std::sync::mpsc::channel::<()>();
        let submitter = &mut ring;
        scope.spawn(move || {
            submitter.prepare_read(0, &[segment(0, 8)], 0, 1).unwrap();
            submitter.submit().unwrap();
            send.send(submitter).unwrap();
            let _ = stopped.recv();
        });
        let ring: &mut Ring = receive.recv().unwrap();
        let mut results = Results::new();
        ring.cancel_all(|token, result| add(&mut results, token, result))
            .unwrap();
        assert_eq!(results, Results::from([(1, Err(libc::ECANCELED))]));
        ring.prepare_read(1, &[segment(0, 8)], 0, 2).unwrap();
        assert_eq!(wait(ring), Results::from([(2, Ok(8))]));
        drop(stop);
    });
    drop(writer);
}

#[test]
fn files_stay_open_while_the_ring_lives_and_no_longer() {
    let file = tempfile::tempfile().unwrap();
    file.write_all_at(&[7; 512], 0).unwrap();
    let (reader, mut writer) = pipe().unwrap();
    let Some((mut ring, memory)) = ring(1, &[file.as_fd(), reader.as_fd()]) else {
        return;
    };
    drop((file, reader));
    ring.prepare_read(0, &[segment(0, 512)], 0, 1).unwrap();
    assert_eq!(wait(&mut ring), Results::from([(1, Ok(512))]));
    assert_eq!(memory.read_obj::<u8>(GuestAddress(511)).unwrap(), 7);
    writer.write_all(b"x").unwrap();
    drop(ring);
    // Its last reader is gone.
    let error = writer.write_all(b"x").unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
}

#[test]
fn impossible_rings_are_errors() {
    for entries in [0, 1 << 16, u32::MAX] {
        let error = Ring::new(memory(), entries, &[]).unwrap_err();
        println!("{entries}: {error}");
    }
}
