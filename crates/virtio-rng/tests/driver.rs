//! A driver of the entropy device, well-behaved and hostile.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use std::collections::VecDeque;
use std::io;
use std::time::Duration;

use goldcrest_irq::IrqLine;
use goldcrest_rate_limiter::{ManualClock, RateConfig};
use goldcrest_snapshot::Snapshot;
use goldcrest_virtio::driver::{Buffer, DriverQueue, initialise, notify, offered_features, read};
use goldcrest_virtio::spec::{device_id, feature, mmio, status};
use goldcrest_virtio::{DeviceError, Mmio, QueueError, Waits};
use goldcrest_virtio_rng::{Entropy, MAX_REQUEST, QUEUE_SIZE, RngState, SeededSource, Source};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

const DATA: u64 = 0x10_0000;

type Device<S> = Mmio<Entropy<S, ManualClock>>;

fn set_up<S: Source>(
    source: S,
    rate: &str,
) -> (Device<S>, DriverQueue, GuestMemoryMmap, ManualClock) {
    let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 4 << 20)]).unwrap();
    let clock = ManualClock::default();
    let rate: RateConfig = match rate {
        "" => RateConfig::default(),
        text => text.parse().unwrap(),
    };
    let entropy = Entropy::with_rate(source, rate, clock.clone());
    let mut device = Mmio::new(entropy, memory.clone(), IrqLine::detached());
    let queue = DriverQueue::new(&memory, 0, QUEUE_SIZE);
    let features = feature::VERSION_1 | feature::EVENT_IDX | feature::INDIRECT_DESC;
    initialise(&mut device, features, &[&queue]);
    (device, queue, memory, clock)
}

fn expected(len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    SeededSource::new(7).fill(&mut bytes).unwrap();
    bytes
}

fn bytes_at(memory: &GuestMemoryMmap, at: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    memory.read_slice(&mut bytes, GuestAddress(at)).unwrap();
    bytes
}

fn delay<S: Source>(device: &Device<S>) -> Option<Duration> {
    let mut waits = Waits::default();
    device.waits(&mut waits);
    assert!(waits.readable.is_empty() && waits.writable.is_empty());
    waits.delay
}

fn needs_reset<S: Source>(device: &mut Device<S>) -> bool {
    read(device, mmio::STATUS) & u32::from(status::DEVICE_NEEDS_RESET) != 0
}

/// Answers as it was told to, then with bytes.
struct Fails(VecDeque<io::Result<()>>);

impl Fails {
    fn with(answers: impl IntoIterator<Item = io::Result<()>>) -> Self {
        Self(answers.into_iter().collect())
    }
}

impl Source for Fails {
    fn fill(&mut self, bytes: &mut [u8]) -> io::Result<()> {
        bytes.fill(0xaa);
        self.0.pop_front().unwrap_or(Ok(()))
    }
}

#[test]
fn it_is_an_entropy_device_without_features_of_its_own() {
    let (mut device, ..) = set_up(SeededSource::new(7), "");
    assert_eq!(read(&mut device, mmio::DEVICE_ID), device_id::ENTROPY);
    assert_eq!(
        offered_features(&mut device) & feature::DEVICE_TYPE,
        0,
        "§5.4.3"
    );
    assert_eq!(read(&mut device, mmio::CONFIG), 0);
}

#[test]
fn every_buffer_of_a_chain_is_filled_and_nothing_beside_it() {
    let (mut device, mut queue, memory, _) = set_up(SeededSource::new(7), "");
    let head = queue.add(&[
        Buffer::Writable(DATA, 5),
        Buffer::Writable(DATA + 0x1000, 0),
        Buffer::Writable(DATA + 0x2000, 9000),
    ]);
    notify(&mut device, 0);
    assert_eq!(queue.used(), Some((head, 9005)));
    let expected = expected(9005);
    assert_eq!(bytes_at(&memory, DATA, 5), expected[..5]);
    assert_eq!(bytes_at(&memory, DATA + 5, 0x1ffb), vec![0; 0x1ffb]);
    assert_eq!(bytes_at(&memory, DATA + 0x2000, 9000), expected[5..]);
    assert_eq!(bytes_at(&memory, DATA + 0x2000 + 9000, 100), vec![0; 100]);
}

#[test]
fn a_request_of_4_gib_gets_what_one_request_may_get() {
    let (mut device, mut queue, memory, _) = set_up(SeededSource::new(7), "");
    let head = queue.add(&[Buffer::Writable(DATA, u32::MAX)]);
    notify(&mut device, 0);
    assert_eq!(queue.used(), Some((head, MAX_REQUEST)));
    let len = MAX_REQUEST as usize;
    assert_eq!(bytes_at(&memory, DATA, len), expected(len));
    assert_eq!(
        bytes_at(&memory, DATA + u64::from(MAX_REQUEST), 4096),
        vec![0; 4096]
    );
}

#[test]
fn readable_parts_are_not_looked_at() {
    let (mut device, mut queue, memory, _) = set_up(SeededSource::new(7), "");
    // Not even where there is no RAM.
    let head = queue.add(&[
        Buffer::Readable(u64::MAX - 4, 100),
        Buffer::Writable(DATA, 16),
    ]);
    notify(&mut device, 0);
    assert_eq!(queue.used(), Some((head, 16)));
    assert_eq!(bytes_at(&memory, DATA, 16), expected(16));
}

#[test]
fn a_request_without_room_makes_it_need_a_reset() {
    for buffers in [
        &[Buffer::Readable(DATA, 8)][..],
        &[Buffer::Writable(DATA, 0)],
    ] {
        let (mut device, mut queue, ..) = set_up(SeededSource::new(7), "");
        queue.add(buffers);
        notify(&mut device, 0);
        assert_eq!(queue.used(), None);
        assert!(matches!(
            device.core().error(),
            Some(DeviceError::Driver(_))
        ));
        assert!(needs_reset(&mut device));
    }
}

#[test]
fn a_buffer_outside_ram_makes_it_need_a_reset() {
    for address in [4 << 20, u64::MAX, u64::MAX - 3] {
        let (mut device, mut queue, ..) = set_up(SeededSource::new(7), "");
        queue.add(&[Buffer::Writable(address, 64)]);
        notify(&mut device, 0);
        let error = device.core().error();
        assert!(
            matches!(
                error,
                Some(DeviceError::Queue {
                    queue: 0,
                    source: QueueError::Buffer { .. }
                })
            ),
            "{address:#x}: {error:?}"
        );
    }
}

#[test]
fn bytes_are_limited_and_the_rest_comes_when_it_was_said() {
    let (mut device, mut queue, _, clock) = set_up(SeededSource::new(7), "1000/1000");
    let first = queue.add(&[Buffer::Writable(DATA, 800)]);
    let second = queue.add(&[Buffer::Writable(DATA, 400)]);
    notify(&mut device, 0);
    assert_eq!(queue.used(), Some((first, 800)));
    assert_eq!(queue.used(), None);
    assert_eq!(delay(&device), Some(Duration::from_millis(200)));
    // Neither notifying nor asking brings it sooner.
    clock.advance(Duration::from_millis(199));
    notify(&mut device, 0);
    device.process_events();
    assert_eq!(queue.used(), None);
    assert_eq!(delay(&device), Some(Duration::from_millis(1)));
    clock.advance(Duration::from_millis(1));
    device.process_events();
    assert_eq!(queue.used(), Some((second, 400)));
    assert_eq!(delay(&device), None);
}

#[test]
fn resetting_does_not_bring_tokens_back() {
    let (mut device, mut queue, memory, _) = set_up(SeededSource::new(7), "1ops");
    queue.add(&[Buffer::Writable(DATA, 8)]);
    notify(&mut device, 0);
    assert!(queue.used().is_some());
    let mut queue = DriverQueue::new(&memory, 0, QUEUE_SIZE);
    initialise(&mut device, feature::VERSION_1, &[&queue]);
    queue.add(&[Buffer::Writable(DATA, 8)]);
    notify(&mut device, 0);
    assert_eq!(queue.used(), None);
    assert_eq!(delay(&device), Some(Duration::from_secs(1)));
}

#[test]
fn a_source_that_has_nothing_is_asked_again_and_costs_no_tokens() {
    let dry = || Err(io::ErrorKind::WouldBlock.into());
    let (mut device, mut queue, _, clock) = set_up(Fails::with([dry(), dry()]), "1ops");
    let head = queue.add(&[Buffer::Writable(DATA, 8)]);
    notify(&mut device, 0);
    for _ in 0..2 {
        assert_eq!(queue.used(), None);
        let again = delay(&device).unwrap();
        assert!(again > Duration::ZERO, "it must not spin");
        clock.advance(again);
        device.process_events();
    }
    assert_eq!(queue.used(), Some((head, 8)));
}

#[test]
fn a_source_that_runs_dry_gives_what_it_had() {
    let answers = [Ok(()), Err(io::ErrorKind::Interrupted.into())];
    let (mut device, mut queue, ..) = set_up(Fails::with(answers), "");
    let head = queue.add(&[Buffer::Writable(DATA, 10_000)]);
    notify(&mut device, 0);
    assert_eq!(queue.used(), Some((head, 4096)));
}

#[test]
fn a_source_that_fails_makes_it_need_a_reset_and_a_reset_mends_it() {
    let answers = [Err(io::Error::other("gone"))];
    let (mut device, mut queue, memory, _) = set_up(Fails::with(answers), "");
    queue.add(&[Buffer::Writable(DATA, 8)]);
    notify(&mut device, 0);
    assert!(needs_reset(&mut device));
    assert!(matches!(
        device.core().error(),
        Some(DeviceError::Host { .. })
    ));
    let mut queue = DriverQueue::new(&memory, 0, QUEUE_SIZE);
    initialise(&mut device, feature::VERSION_1, &[&queue]);
    queue.add(&[Buffer::Writable(DATA, 8)]);
    notify(&mut device, 0);
    assert!(queue.used().is_some());
}

#[test]
fn a_saved_device_goes_on_with_its_debt_and_its_waiting_request() {
    let (mut device, mut queue, memory, _) = set_up(SeededSource::new(7), "1ops");
    queue.add(&[Buffer::Writable(DATA, 8)]);
    let waiting = queue.add(&[Buffer::Writable(DATA, 8)]);
    notify(&mut device, 0);
    device.quiesce();
    let state = device.save();

    let clock = ManualClock::default();
    clock.set(Duration::from_secs(100));
    let rate = "1ops".parse().unwrap();
    let entropy = Entropy::with_rate(SeededSource::new(8), rate, clock.clone());
    let mut restored = Mmio::new(entropy, memory, IrqLine::detached());
    restored.restore(state).unwrap();
    restored.process_events();
    assert!(queue.used().is_some());
    assert_eq!(queue.used(), None);
    assert_eq!(delay(&restored), Some(Duration::from_secs(1)));
    clock.advance(Duration::from_secs(1));
    restored.process_events();
    assert_eq!(queue.used(), Some((waiting, 8)));
}

#[test]
fn a_state_with_another_rate_is_refused() {
    let mut limited = Entropy::with_rate(
        SeededSource::new(7),
        "1K".parse().unwrap(),
        ManualClock::default(),
    );
    assert!(limited.restore(RngState::default()).is_err());
    let mut state = limited.save();
    state.rate.bytes = Some(i128::MAX);
    assert!(limited.restore(state).is_err());
    let mut free = Entropy::new(SeededSource::new(7));
    assert!(free.restore(limited.save()).is_err());
    assert!(free.restore(RngState::default()).is_ok());
}
