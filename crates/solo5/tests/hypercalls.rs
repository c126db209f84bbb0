//! Hypercalls as a guest makes them, rightly and wrongly.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::cast_possible_truncation,
    reason = "tests"
)]

mod guest;

use std::io;
use std::time::Duration;

use goldcrest_bus::{Bus, Device, Effect, shared};
use goldcrest_solo5::Wake;
use goldcrest_solo5::spec::{PORT, RANGE, hypercall::*, result};
use guest::*;

#[test]
fn every_call_is_reached_through_a_bus() {
    let guest = Guest::new();
    guest.put(ARG, &[0; 64]);
    let mut ports = Bus::new("port");
    ports.add("solo5", RANGE, shared(guest.hypercalls)).unwrap();
    for number in WALLTIME..=HALT {
        let effect = ports.write(u64::from(PORT) + number, &(ARG as u32).to_le_bytes());
        let expected = matches!(effect, Effect::None) == (number != HALT);
        assert!(expected, "{number}: {effect:?}");
    }
    assert_eq!(ports.misses(), 0);
}

#[test]
fn the_time_is_the_hosts_in_nanoseconds() {
    let mut guest = Guest::new();
    assert!(matches!(guest.call(WALLTIME, &[0]), Effect::None));
    assert_eq!(guest.get_u64(ARG), 1_234_567_890_123_456_789);
}

#[test]
fn puts_writes_all_however_much_it_is() {
    let mut guest = Guest::new();
    assert!(matches!(guest.call(PUTS, &[u64::MAX, 0]), Effect::None));
    let text: Vec<u8> = (0..200_000u32).map(|n| n.to_le_bytes()[0]).collect();
    guest.put(DATA, &text);
    assert!(matches!(guest.call(PUTS, &[DATA, 200_000]), Effect::None));
    assert_eq!(guest.console.take(), text);
    for (data, len) in [
        (RAM - 1, 2),
        (RAM, 1),
        (u64::MAX, 1),
        (8, u64::MAX),
        (0, RAM + 1),
    ] {
        let what = violation(guest.call(PUTS, &[data, len]));
        let expected = format!("hypercall puts names {len} bytes at {data:#x}, which are not RAM");
        assert!(what.contains(&expected), "{what}");
        assert_eq!(guest.console.take(), b"");
    }
}

#[test]
fn calls_that_do_not_exist_and_arguments_outside_of_ram_end_the_guest() {
    let mut guest = Guest::new();
    for number in [0, 9, 11] {
        let what = violation(guest.call_at(number, ARG));
        assert_eq!(
            what,
            format!("the guest made hypercall {number}: there are 1 to 8")
        );
    }
    for width in [1, 2, 8] {
        let what = violation(guest.hypercalls.write(PUTS, &vec![0; width]));
        assert!(what.contains(&format!("by {width} bytes")), "{what}");
    }
    for (number, len) in [
        (WALLTIME, 8),
        (PUTS, 16),
        (POLL, 24),
        (BLOCK_READ, 40),
        (BLOCK_WRITE, 40),
        (NET_READ, 32),
        (NET_WRITE, 32),
        (HALT, 16),
    ] {
        for at in [RAM - len + 1, RAM, u64::from(u32::MAX)] {
            let what = violation(guest.call_at(number, at));
            let expected = format!("names {len} bytes at {at:#x}, which are not RAM");
            assert!(what.contains(&expected), "{what}");
        }
    }
    let mut data = [0; 4];
    guest.hypercalls.read(1, &mut data);
    assert_eq!(data, [0xff; 4]);
}

#[test]
fn what_the_guest_cannot_write_is_not_written_for_it() {
    let mut guest = Guest::new();
    guest.wires[0]
        .0
        .lock()
        .unwrap()
        .coming
        .push_back(vec![1; 60]);
    for (number, words) in [
        (BLOCK_READ, [1, 0, TEXT + 0x1e00, 1024, 0]),
        (BLOCK_READ, [1, 0, TEXT - 512, 512, 0]),
        (NET_READ, [2, TEXT + 0x1fff, 1514, 0, 0]),
    ] {
        let what = violation(guest.call(number, &words));
        assert!(what.contains("which the guest cannot write"), "{what}");
    }
    for number in [WALLTIME, POLL, NET_READ, BLOCK_READ] {
        let what = violation(guest.call_at(number, TEXT + 0x100));
        assert!(what.contains("which the guest cannot write"), "{what}");
    }
    assert_eq!(
        guest.get(0, (TEXT + 0x2000) as usize),
        vec![0; (TEXT + 0x2000) as usize]
    );
    // It can be read, and the frame is still there.
    assert_eq!(guest.block(BLOCK_WRITE, 1, 0, TEXT, 512), result::OK);
    assert_eq!(guest.net(NET_READ, 2, DATA, 1514), result::OK);
}

#[test]
fn blocks_are_read_and_written() {
    let mut guest = Guest::new();
    guest.put(DATA, &[7; 1024]);
    assert_eq!(guest.block(BLOCK_WRITE, 1, 512, DATA, 1024), result::OK);
    assert_eq!(
        guest.block(BLOCK_READ, 1, 0, DATA + 0x1000, 4096),
        result::OK
    );
    let expected = [vec![0xdd; 512], vec![7; 1024], vec![0xdd; 2560]].concat();
    assert_eq!(guest.get(DATA + 0x1000, 4096), expected);
    assert_eq!(*guest.disk.0.lock().unwrap(), expected);
}

#[test]
fn what_no_disk_has_is_einval_and_nothing_is_moved() {
    let mut guest = Guest::new();
    guest.put(DATA, &[7; 8192]);
    for number in [BLOCK_READ, BLOCK_WRITE] {
        for (handle, offset, len) in [
            (0, 0, 512),
            (2, 0, 512),
            (6, 0, 512),
            (u64::MAX, 0, 512),
            (1, 4096, 0),
            (1, 4096, 512),
            (1, 3584, 1024),
            (1, 1, 512),
            (1, 0, 513),
            (1, u64::MAX - 511, 512),
            (1, 512, u64::MAX - 511),
        ] {
            let ret = guest.block(number, handle, offset, DATA, len);
            assert_eq!(ret, result::EINVAL, "{handle} {offset} {len}");
        }
        let what = violation(guest.call(number, &[1, 0, RAM - 511, 512, 0]));
        assert!(what.contains("which are not RAM"), "{what}");
    }
    assert_eq!(*guest.disk.0.lock().unwrap(), vec![0xdd; 4096]);
    assert_eq!(guest.get(DATA, 8192), vec![7; 8192]);
}

#[test]
fn a_disk_that_fails_is_eunspec() {
    let mut guest = Guest::new();
    guest.disk.0.lock().unwrap()[4095] = 0xee;
    assert_eq!(guest.block(BLOCK_WRITE, 1, 0, DATA, 512), result::EUNSPEC);
}

#[test]
fn frames_are_sent_if_they_are_as_long_as_frames_are() {
    let mut guest = Guest::new();
    guest.put(DATA, &[9; 2000]);
    for (len, ret) in [
        (13, result::EINVAL),
        (14, result::OK),
        (1514, result::OK),
        (1515, result::EINVAL),
        (0, result::EINVAL),
    ] {
        assert_eq!(guest.net(NET_WRITE, 5, DATA, len), ret, "{len}");
    }
    let sent = guest.wires[1].0.lock().unwrap().sent.clone();
    assert_eq!(sent, [vec![9; 14], vec![9; 1514]]);
    assert!(guest.wires[0].0.lock().unwrap().sent.is_empty());
    for handle in [0, 1, 3, 6, u64::MAX] {
        assert_eq!(guest.net(NET_WRITE, handle, DATA, 60), result::EINVAL);
        assert_eq!(guest.net(NET_READ, handle, DATA, 60), result::EINVAL);
    }
}

#[test]
fn a_frame_for_which_there_is_no_room_is_lost_and_other_failures_are_told() {
    let mut guest = Guest::new();
    let fails = |guest: &Guest, kind| guest.wires[0].0.lock().unwrap().fails = Some(kind);
    fails(&guest, io::ErrorKind::WouldBlock);
    assert_eq!(guest.net(NET_WRITE, 2, DATA, 60), result::OK);
    assert_eq!(guest.net(NET_READ, 2, DATA, 60), result::AGAIN);
    fails(&guest, io::ErrorKind::NetworkDown);
    assert_eq!(guest.net(NET_WRITE, 2, DATA, 60), result::EUNSPEC);
    assert_eq!(guest.net(NET_READ, 2, DATA, 60), result::EUNSPEC);
}

#[test]
fn frames_are_received_with_their_length() {
    let mut guest = Guest::new();
    let frame: Vec<u8> = (0..100).collect();
    for _ in 0..2 {
        guest.wires[0]
            .0
            .lock()
            .unwrap()
            .coming
            .push_back(frame.clone());
    }
    assert_eq!(guest.net(NET_READ, 2, DATA, 1514), result::OK);
    assert_eq!(guest.get_u64(ARG + 16), 100);
    assert_eq!(guest.get(DATA, 101), [&frame[..], &[0]].concat());
    // One that does not fit is cut.
    assert_eq!(guest.net(NET_READ, 2, DATA + 0x1000, 64), result::OK);
    assert_eq!(guest.get_u64(ARG + 16), 64);
    assert_eq!(guest.get(DATA + 0x1000, 65), [&frame[..64], &[0]].concat());
    assert_eq!(guest.net(NET_READ, 2, DATA, 1514), result::AGAIN);
    assert_eq!(guest.get_u64(ARG + 16), 1514, "the length stays");
}

#[test]
fn poll_tells_at_once_who_is_ready() {
    let mut guest = Guest::new();
    guest.wires[1]
        .0
        .lock()
        .unwrap()
        .coming
        .push_back(vec![0; 60]);
    assert_eq!(guest.poll(u64::MAX), (1, 1 << 5));
    guest.wires[0]
        .0
        .lock()
        .unwrap()
        .coming
        .push_back(vec![0; 60]);
    assert_eq!(guest.poll(0), (2, 1 << 5 | 1 << 2));
    assert!(guest.time.0.lock().unwrap().asked.is_empty());
}

#[test]
fn poll_takes_no_frame_away_and_tells_of_a_network_that_has_failed() {
    let mut guest = Guest::new();
    guest.wires[0]
        .0
        .lock()
        .unwrap()
        .coming
        .push_back(vec![4; 60]);
    assert_eq!(guest.poll(0), (1, 1 << 2));
    assert_eq!(guest.poll(0), (1, 1 << 2));
    assert_eq!(guest.net(NET_READ, 2, DATA, 1514), result::OK);
    assert_eq!(guest.get(DATA, 60), [4; 60]);
    assert_eq!(guest.poll(0), (0, 0));
    guest.wires[0].0.lock().unwrap().fails = Some(io::ErrorKind::NetworkDown);
    assert_eq!(guest.poll(u64::MAX), (1, 1 << 2));
    assert_eq!(guest.net(NET_READ, 2, DATA, 1514), result::EUNSPEC);
}

#[test]
fn poll_waits_for_its_time_however_often_it_is_woken() {
    let mut guest = Guest::new();
    let ms = Duration::from_millis;
    let early = [1, 2, 3].map(|n| (ms(n), Ok(Wake::Look)));
    guest.time.0.lock().unwrap().waits.extend(early);
    assert_eq!(guest.poll(10_000_000), (0, 0));
    let script = guest.time.0.lock().unwrap();
    assert_eq!(script.now, ms(10));
    assert_eq!(script.asked, [10, 9, 7, 4].map(|n| (ms(n), 0)));
}

#[test]
fn poll_wakes_for_what_a_network_has_to_do() {
    let mut guest = Guest::new();
    let ms = Duration::from_millis;
    guest.wires[0].0.lock().unwrap().due = Some(ms(6));
    guest.wires[1].0.lock().unwrap().due = Some(ms(9));
    assert_eq!(guest.poll(10_000_000), (0, 0));
    assert_eq!(guest.time.0.lock().unwrap().asked, [(ms(6), 0), (ms(4), 0)]);
}

#[test]
fn poll_ends_when_the_host_says_so_and_never_waits_for_a_machine_that_ends() {
    let mut guest = Guest::new();
    let early = (Duration::from_millis(1), Ok(Wake::Return));
    guest.time.0.lock().unwrap().waits.push_back(early);
    assert_eq!(guest.poll(u64::MAX), (0, 0));
    guest.time.0.lock().unwrap().stopped = true;
    assert_eq!(guest.poll(u64::MAX), (0, 0));
    assert_eq!(guest.time.0.lock().unwrap().asked.len(), 1);
}

#[test]
fn a_host_that_cannot_wait_has_failed() {
    let mut guest = Guest::new();
    let fails = (Duration::ZERO, Err(io::ErrorKind::OutOfMemory));
    guest.time.0.lock().unwrap().waits.push_back(fails);
    let effect = guest.call(POLL, &[1, 0, 0]);
    assert!(matches!(effect, Effect::HostFailed(_)), "{effect:?}");
}

#[test]
fn halt_ends_with_the_low_byte_of_the_status() {
    let mut guest = Guest::new();
    for (status, code) in [
        (0, 0),
        (1, 1),
        (42, 42),
        (255, 255),
        (256, 0),
        (-1, 255),
        (0x1234, 0x34),
    ] {
        let status = i64::from(status).cast_unsigned() & 0xffff_ffff;
        let effect = guest.call(HALT, &[0, status]);
        assert!(matches!(effect, Effect::Exit(n) if n == code), "{effect:?}");
    }
    assert_eq!(*guest.said.lock().unwrap(), ["the guest aborted"; 2]);
}

#[test]
fn an_abort_with_a_cookie_says_where_it_was() {
    let mut guest = Guest::new();
    for (word, at) in [0xdead, 2, 0x10_0123, 8, 0x10046, 0x1f_fff0, 0x10]
        .iter()
        .zip((DATA..).step_by(8))
    {
        guest.put(at, &u64::to_le_bytes(*word));
    }
    assert!(matches!(guest.call(HALT, &[DATA, 255]), Effect::Exit(255)));
    let said = guest.said.lock().unwrap().pop().unwrap();
    let expected = "the guest aborted by a trap at rip 0x100123, rsp 0x1ffff0, rflags 0x10046, error code 0x2, cr2 0xdead";
    assert_eq!(said, expected);
    // With another status it is nobody's business.
    assert!(matches!(guest.call(HALT, &[DATA, 3]), Effect::Exit(3)));
    assert!(guest.said.lock().unwrap().is_empty());
    for cookie in [RAM - 511, RAM, u64::MAX] {
        let what = violation(guest.call(HALT, &[cookie, 0]));
        assert!(what.contains("hypercall halt names 512 bytes"), "{what}");
    }
}
