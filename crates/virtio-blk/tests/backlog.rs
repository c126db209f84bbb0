//! Requests that are under way, that have to wait, and that are given up.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "tests"
)]

mod guest;

use std::time::Duration;

use goldcrest_rate_limiter::ManualClock;
use goldcrest_virtio::driver::{self, Buffer};
use goldcrest_virtio::spec::mmio;
use goldcrest_virtio_blk::spec::{request, status};
use goldcrest_virtio_blk::{Backend, Block, BlockConfig, MemoryDisk};
use guest::{DATA, Guest, ScriptedDisk, numbered};
use nix::libc;

const SECTOR: [Buffer; 1] = [Buffer::Writable(DATA, 512)];
const WRITE: [Buffer; 1] = [Buffer::Readable(DATA, 512)];

fn queues(queues: u16) -> BlockConfig {
    BlockConfig {
        queues,
        ..BlockConfig::default()
    }
}

fn scripted(config: &BlockConfig) -> (ScriptedDisk, Guest<ScriptedDisk>) {
    let disk = ScriptedDisk::default();
    let guest = Guest::configured(disk.clone(), config);
    disk.script().calls.clear();
    disk.script().pending = true;
    (disk, guest)
}

fn heads<B: Backend>(guest: &mut Guest<B>, queue: u16) -> Vec<u16> {
    guest
        .answers(queue)
        .iter()
        .map(|answer| answer.head)
        .collect()
}

#[test]
fn requests_end_in_any_order_and_each_is_answered_as_it_ended() {
    let (disk, mut guest) = scripted(&queues(1));
    let heads = [0, 1, 2].map(|n| guest.submit(0, request::IN, n, &SECTOR));
    guest.notify(0);
    assert!(guest.answers(0).is_empty());
    for (number, end, head, expected) in [
        (1, Ok(()), heads[1], (status::OK, 513)),
        (1, Err(libc::EIO), heads[2], (status::IOERR, 1)),
        (0, Ok(()), heads[0], (status::OK, 513)),
    ] {
        disk.script().end(number, end);
        guest.device.process_events();
        let answers = guest.answers(0);
        assert_eq!(answers.len(), 1);
        assert_eq!(answers[0].head, head);
        assert_eq!((answers[0].status, answers[0].written), expected);
    }
}

#[test]
fn a_flush_is_answered_when_it_is_done_and_begins_after_the_writes_that_were_answered() {
    let (disk, mut guest) = scripted(&queues(1));
    let write = guest.submit(0, request::OUT, 0, &WRITE);
    guest.notify(0);
    disk.script().end(0, Ok(()));
    guest.device.process_events();
    assert_eq!(heads(&mut guest, 0), [write]);
    let flush = guest.submit(0, request::FLUSH, 0, &[]);
    let later = guest.submit(0, request::OUT, 0, &WRITE);
    guest.notify(0);
    assert!(guest.answers(0).is_empty());
    disk.script().end(1, Ok(()));
    guest.device.process_events();
    assert_eq!(heads(&mut guest, 0), [later]);
    disk.script().end(0, Ok(()));
    guest.device.process_events();
    assert_eq!(heads(&mut guest, 0), [flush]);
    assert_eq!(disk.script().calls, ["write", "flush", "write"]);
}

#[test]
fn more_requests_than_tokens_are_put_off_and_none_is_lost() {
    let config = BlockConfig {
        queue_size: 1024,
        ..queues(3)
    };
    let (disk, mut guest) = scripted(&config);
    for queue in 0..3 {
        for _ in 0..300 {
            let header = guest.header(request::IN, u64::from(queue));
            let buffers = [
                Buffer::Readable(header, 16),
                Buffer::Writable(DATA, 512),
                Buffer::Writable(DATA + 0x1000 + u64::from(queue), 1),
            ];
            guest.offer(queue, &buffers, DATA + 0x1000 + u64::from(queue));
        }
        guest.notify(queue);
    }
    assert_eq!(disk.script().under_way.len(), 256);
    let mut answered = [0; 3];
    while answered != [300; 3] {
        assert!(!guest.waits().is_empty());
        // Some end; as many begin, without a notification.
        let some = disk.script().under_way.len().min(100);
        (0..some).for_each(|_| disk.script().end(0, Ok(())));
        guest.device.process_events();
        for (queue, count) in (0_u16..).zip(&mut answered) {
            *count += guest.answers(queue).len();
        }
        assert!(disk.script().under_way.len() <= 256);
    }
    assert!(guest.waits().is_empty());
}

#[test]
fn no_queue_is_always_the_last() {
    let (disk, mut guest) = scripted(&queues(3));
    disk.script().room = Some(1);
    for queue in 0..3 {
        for _ in 0..4 {
            guest.submit(queue, request::IN, 0, &SECTOR);
        }
        guest.notify(queue);
    }
    let mut served = Vec::new();
    for _ in 0..12 {
        disk.script().end(0, Ok(()));
        guest.device.process_events();
        served.extend((0..3).filter(|&queue| !guest.answers(queue).is_empty()));
    }
    assert_eq!(served.len(), 12);
    // The first three are of queues 0 (notified first), then the others in turn.
    for queue in 0..3 {
        assert_eq!(served.iter().filter(|&&q| q == queue).count(), 4);
        assert!(served[..4].contains(&queue), "{served:?}");
    }
}

#[test]
fn a_full_disk_is_asked_again_and_nothing_is_begun_twice() {
    let (disk, mut guest) = scripted(&queues(1));
    disk.script().room = Some(0);
    let first = guest.submit(0, request::IN, 0, &SECTOR);
    let second = guest.submit(0, request::OUT, 0, &WRITE);
    guest.notify(0);
    for _ in 0..3 {
        // With nothing under way, it does not spin.
        assert!(guest.waits().delay.unwrap() > Duration::ZERO);
        guest.device.process_events();
        assert!(disk.script().calls.is_empty());
    }
    disk.script().room = Some(1);
    guest.device.process_events();
    disk.script().end(0, Ok(()));
    guest.device.process_events();
    assert_eq!(heads(&mut guest, 0), [first]);
    disk.script().end(0, Ok(()));
    guest.device.process_events();
    assert_eq!(heads(&mut guest, 0), [second]);
    assert_eq!(disk.script().calls, ["read", "write"]);
    assert!(guest.waits().is_empty());
}

#[test]
fn what_the_host_is_short_of_is_asked_for_again_in_a_moment() {
    let (disk, mut guest) = scripted(&queues(1));
    disk.script().short = true;
    guest.submit(0, request::IN, 0, &SECTOR);
    guest.notify(0);
    assert!(
        guest
            .waits()
            .delay
            .is_some_and(|delay| delay > Duration::ZERO)
    );
    disk.script().short = false;
    disk.script().end(0, Ok(()));
    guest.turn();
    assert_eq!(guest.answers(0).len(), 1);
    assert!(guest.waits().is_empty());
}

#[test]
fn the_latest_first_is_an_order_too() {
    let mut guest = Guest::new(MemoryDisk::new(numbered(64)).deferred());
    let mut offered = Vec::new();
    for n in 0..60_u64 {
        offered.push(guest.submit(0, request::IN, n, &[Buffer::Writable(DATA + n * 512, 512)]));
    }
    guest.notify(0);
    offered.reverse();
    assert_eq!(heads(&mut guest, 0), offered);
    assert!(guest.read(DATA, 60 * 512) == numbered(60));
}

fn limited(rate: &str, config: BlockConfig) -> (ManualClock, Guest<MemoryDisk>) {
    let clock = ManualClock::default();
    let config = BlockConfig {
        rate: Some(rate.parse().unwrap()),
        ..config
    };
    let block = Block::new(MemoryDisk::new(numbered(64)), &config).unwrap();
    (clock.clone(), Guest::with(block.with_clock(clock), 0))
}

#[test]
fn a_limit_holds_requests_back_until_their_time() {
    let (clock, mut guest) = limited("1024", queues(1));
    let second = Duration::from_secs(1);
    for n in 0..5 {
        guest.submit(0, request::IN, n, &SECTOR);
    }
    // What does not move data is not free of the order.
    guest.submit(0, request::FLUSH, 0, &[]);
    guest.notify(0);
    assert_eq!(guest.answers(0).len(), 2);
    for n in 0..3 {
        assert_eq!(guest.waits().delay, Some(second / 2));
        // Too early, and notified once more: nothing begins.
        clock.advance(second / 4);
        guest.device.process_events();
        guest.notify(0);
        assert!(guest.answers(0).is_empty());
        assert_eq!(guest.waits().delay, Some(second / 4));
        clock.advance(second / 4);
        guest.device.process_events();
        assert_eq!(guest.answers(0).len(), 1 + usize::from(n == 2));
    }
    assert!(guest.waits().is_empty());
}

#[test]
fn a_limit_counts_operations_and_zeros() {
    let (clock, mut guest) = limited("4ops/2", queues(1));
    guest.submit(0, request::GET_ID, 0, &[Buffer::Writable(DATA, 20)]);
    guest.submit(0, request::FLUSH, 0, &[]);
    guest.submit(0, request::GET_ID, 0, &[Buffer::Writable(DATA, 20)]);
    // What is refused is an operation, too.
    guest.submit(0, 99, 0, &[]);
    guest.notify(0);
    assert_eq!(guest.answers(0).len(), 2);
    for _ in 0..2 {
        clock.advance(Duration::from_millis(250));
        guest.device.process_events();
        assert_eq!(guest.answers(0).len(), 1);
    }

    let (_, mut guest) = limited("4096", queues(1));
    let mut range = [0; 16];
    range[8] = 16;
    guest.write(DATA, &range);
    let one = [Buffer::Readable(DATA, 16)];
    assert_eq!(guest.run(request::DISCARD, 0, &one), (status::OK, 1));
    assert_eq!(guest.run(request::WRITE_ZEROES, 0, &one), (status::OK, 1));
    // 8192 bytes through, 4096 of them owed.
    guest.submit(0, request::IN, 0, &SECTOR);
    guest.notify(0);
    assert_eq!(guest.waits().delay, Some(Duration::from_millis(1125)));
}

#[test]
fn small_requests_of_other_queues_do_not_keep_a_large_one_waiting_for_ever() {
    let (clock, mut guest) = limited("1024", queues(2));
    guest.submit(1, request::IN, 0, &SECTOR);
    guest.notify(1);
    guest.submit(0, request::IN, 0, &[Buffer::Writable(DATA, 4096)]);
    guest.notify(0);
    for _ in 0..10 {
        guest.submit(1, request::IN, 0, &SECTOR);
        guest.notify(1);
    }
    assert_eq!((guest.answers(0).len(), guest.answers(1).len()), (0, 1));
    clock.advance(guest.waits().delay.unwrap());
    guest.device.process_events();
    assert_eq!((guest.answers(0).len(), guest.answers(1).len()), (1, 0));
    // The debt of three seconds and a half; then the small ones.
    clock.advance(guest.waits().delay.unwrap());
    guest.device.process_events();
    assert_eq!(guest.answers(1).len(), 1);
}

#[test]
fn what_finds_the_disk_full_is_counted_once() {
    let clock = ManualClock::default();
    let config = BlockConfig {
        rate: "1024".parse().ok(),
        ..queues(1)
    };
    let disk = ScriptedDisk::default();
    let block = Block::new(disk.clone(), &config).unwrap();
    let mut guest = Guest::with(block.with_clock(clock), 0);
    disk.script().room = Some(0);
    guest.submit(0, request::IN, 0, &SECTOR);
    guest.submit(0, request::IN, 0, &SECTOR);
    guest.notify(0);
    (0..5).for_each(|_| guest.device.process_events());
    assert!(guest.answers(0).is_empty());
    disk.script().room = None;
    guest.device.process_events();
    assert_eq!(guest.answers(0).len(), 2);
}

#[test]
fn a_limit_outlives_resets() {
    let (_, mut guest) = limited("1024", queues(1));
    guest.run(request::IN, 0, &[Buffer::Writable(DATA, 1024)]);
    guest.initialise(0);
    guest.submit(0, request::IN, 0, &SECTOR);
    guest.notify(0);
    assert!(guest.answers(0).is_empty());
    assert_eq!(guest.waits().delay, Some(Duration::from_millis(500)));
}

fn reset_queue(guest: &mut Guest<ScriptedDisk>, index: u16) {
    driver::write(&mut guest.device, mmio::QUEUE_SEL, index.into());
    driver::write(&mut guest.device, mmio::QUEUE_RESET, 1);
}

#[test]
fn a_queue_that_is_reset_has_nothing_under_way_and_the_others_keep_theirs() {
    for cannot_wait in [false, true] {
        let (disk, mut guest) = scripted(&queues(3));
        let others = [0, 2].map(|queue| guest.submit(queue, request::IN, 0, &SECTOR));
        guest.submit(1, request::IN, 0, &SECTOR);
        guest.submit(1, request::OUT, 0, &WRITE);
        (0..3).for_each(|queue| guest.notify(queue));
        disk.script().cannot_wait = cannot_wait;
        reset_queue(&mut guest, 1);
        assert!(disk.script().under_way.is_empty());
        assert!(guest.queues[1].used().is_none());
        // The others' are over, and are answered without a notification.
        guest.turn();
        let expected = if cannot_wait {
            status::IOERR
        } else {
            status::OK
        };
        for (queue, head) in [0, 2].into_iter().zip(others) {
            let answer = guest.answers(queue)[0];
            assert_eq!((answer.head, answer.status), (head, expected));
        }
        assert!(guest.waits().is_empty());
        // It can be set up anew.
        guest.queues[1] = driver::DriverQueue::new(&guest.memory, 0x3_0000, 16);
        let layout = guest.queues[1].layout;
        driver::set_up(&mut guest.device, 1, &layout);
        disk.script().pending = false;
        guest.submit(1, request::IN, 0, &SECTOR);
        guest.notify(1);
        assert_eq!(guest.answers(1).len(), 1);
    }
}

fn set_up_anew(guest: &mut Guest<ScriptedDisk>, index: u16) {
    let size = guest.queues[0].layout.size as u16;
    let at = guest.queues[usize::from(index)].layout.descriptors;
    let queue = driver::DriverQueue::new(&guest.memory, at, size);
    driver::set_up(&mut guest.device, index, &queue.layout);
    guest.queues[usize::from(index)] = queue;
}

#[test]
fn what_was_under_way_is_not_answered_to_a_queue_that_was_set_up_anew() {
    let (disk, mut guest) = scripted(&queues(3));
    for queue in 0..3 {
        guest.submit(queue, request::IN, 0, &SECTOR);
        guest.notify(queue);
    }
    // The second reset finds its queue's request over, but not answered.
    for queue in [1, 2] {
        reset_queue(&mut guest, queue);
        set_up_anew(&mut guest, queue);
    }
    for queue in [1, 2] {
        let head = guest.submit(queue, request::IN, 0, &SECTOR);
        guest.notify(queue);
        assert_eq!(head, 0);
    }
    guest.device.process_events();
    assert_eq!(disk.script().under_way.len(), 2);
    assert!(guest.answers(1).is_empty() && guest.answers(2).is_empty());
    assert_eq!(guest.answers(0).len(), 1);
}

#[test]
fn what_is_over_is_answered_before_the_disk_is_saved() {
    let (_, mut guest) = scripted(&queues(2));
    for queue in 0..2 {
        guest.submit(queue, request::IN, 0, &SECTOR);
        guest.notify(queue);
    }
    reset_queue(&mut guest, 1);
    guest.device.quiesce();
    assert_eq!(guest.answers(0).len(), 1);
}

#[test]
fn nobody_waits_behind_a_queue_that_was_reset() {
    let disk = ScriptedDisk::default();
    let config = BlockConfig {
        rate: "512".parse().ok(),
        ..queues(2)
    };
    let clock = ManualClock::default();
    let block = Block::new(disk, &config).unwrap();
    let mut guest = Guest::with(block.with_clock(clock.clone()), 0);
    for queue in [0, 0, 1] {
        guest.submit(queue, request::IN, 0, &SECTOR);
        guest.notify(queue);
    }
    assert_eq!((guest.answers(0).len(), guest.answers(1).len()), (1, 0));
    reset_queue(&mut guest, 0);
    guest.device.process_events();
    assert_eq!(guest.waits().delay, Some(Duration::from_secs(1)));
    clock.advance(Duration::from_secs(1));
    guest.device.process_events();
    assert_eq!(guest.answers(1).len(), 1);
}

#[test]
fn a_queue_that_alone_has_something_under_way_is_reset_by_giving_it_up() {
    let (disk, mut guest) = scripted(&queues(2));
    guest.submit(1, request::OUT, 0, &WRITE);
    guest.notify(1);
    reset_queue(&mut guest, 0);
    assert_eq!(disk.script().under_way.len(), 1);
    reset_queue(&mut guest, 1);
    assert!(disk.script().under_way.is_empty());
    assert!(guest.waits().is_empty());
}

#[test]
fn a_reset_gives_up_what_is_under_way_and_what_waits() {
    let (disk, mut guest) = scripted(&queues(1));
    disk.script().room = Some(1);
    for _ in 0..3 {
        guest.submit(0, request::OUT, 0, &WRITE);
    }
    guest.notify(0);
    driver::write(&mut guest.device, mmio::STATUS, 0);
    assert!(disk.script().under_way.is_empty());
    assert!(guest.waits().is_empty());
    guest.initialise(0);
    disk.script().pending = false;
    assert_eq!(guest.run(request::OUT, 0, &WRITE), (status::OK, 1));
}

#[test]
fn quiescing_finishes_what_is_under_way_and_keeps_what_waits() {
    let (disk, mut guest) = scripted(&queues(1));
    disk.script().room = Some(2);
    let heads = [0; 4].map(|_| guest.submit(0, request::OUT, 0, &WRITE));
    guest.notify(0);
    guest.device.quiesce();
    let answered: Vec<_> = guest.answers(0).iter().map(|answer| answer.head).collect();
    assert_eq!(answered, heads[..2]);
    assert_eq!(guest.device.core().queue(0).unwrap().in_flight(), 0);
    disk.script().pending = false;
    guest.turn();
    assert_eq!(guest.answers(0).len(), 2);
}
