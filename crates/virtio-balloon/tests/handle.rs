//! The host's side, from elsewhere.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

mod guest;

use std::time::Duration;

use goldcrest_virtio::driver::{self, notify};
use goldcrest_virtio::spec::mmio;
use goldcrest_virtio_balloon::spec::{cmd_id, config};
use goldcrest_virtio_balloon::{BalloonConfig, BalloonError, BalloonHandle, RecordedPages};
use guest::{Guest, MIB, Numbers, everything, recorded};
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};

fn controlled(config: &BalloonConfig) -> (Guest<RecordedPages>, BalloonHandle) {
    let handle = BalloonHandle::new().unwrap();
    let guest = Guest::new(RecordedPages::default(), config, Some(&handle));
    (guest, handle)
}

/// Whether the device would be called now, for what it waits for.
fn is_called(guest: &Guest<RecordedPages>) -> bool {
    let waits = guest.waits();
    let epoll = Epoll::new().unwrap();
    for fd in waits.readable {
        let event = EpollEvent::new(EventSet::IN, 0);
        epoll.ctl(ControlOperation::Add, fd, event).unwrap();
    }
    let ready = epoll.wait(0, &mut [EpollEvent::default(); 4]).unwrap();
    ready > 0 || waits.delay == Some(Duration::ZERO)
}

/// Calls the device if it would be, and finds it at rest.
fn turn(guest: &mut Guest<RecordedPages>) {
    assert!(is_called(guest));
    guest.device.process_events();
    assert!(!is_called(guest), "it must not spin");
}

#[test]
fn without_a_handle_there_is_nothing_to_wait_for() {
    let (mut guest, _) = recorded(&everything());
    guest.device.process_events();
    assert!(guest.waits().is_empty());
}

#[test]
fn a_target_reaches_the_driver_and_its_answer_comes_back() {
    let (mut guest, handle) = controlled(&BalloonConfig::default());
    guest.start(u64::MAX, Numbers::Linux);
    assert!(handle.status().running && !is_called(&guest));
    handle.set_target(2 * MIB).unwrap();
    assert!(!guest.told_of_change());
    turn(&mut guest);
    assert!(guest.told_of_change());
    assert_eq!(guest.config(config::NUM_PAGES), 512);
    assert_eq!(handle.status().target, 2 * MIB);
    guest.inflate(&[1, 2, 3]);
    guest.write_config(config::ACTUAL, 3);
    assert_eq!(handle.status().actual, 3 * 4096);
    assert_eq!(handle.status().totals.held(), 3);
    assert_eq!(handle.status(), guest.status());
    let refused = handle.set_target(4097);
    assert!(matches!(refused, Err(BalloonError::Target(4097))));
    assert!(!is_called(&guest));
}

#[test]
fn what_is_asked_for_before_the_driver_runs_is_not_lost() {
    let (mut guest, handle) = controlled(&everything());
    handle.set_target(MIB).unwrap();
    handle.start_hinting();
    handle.ask_statistics();
    handle.set_statistics_interval(Duration::ZERO);
    assert!(
        guest.waits().is_empty(),
        "nobody waits for a guest's driver"
    );
    assert_eq!(handle.clone().status().target, 0);
    guest.start(u64::MAX, Numbers::Linux);
    assert_eq!(guest.config(config::NUM_PAGES), 256);
    assert_eq!(guest.config(config::FREE_PAGE_HINT_CMD_ID), cmd_id::FIRST);
    assert!(handle.status().hinting);
    turn(&mut guest);
    assert!(guest.told_of_change());
    guest.tell(&[(4, 1)]);
    turn(&mut guest);
    assert!(guest.asked());
    guest.tell(&[(4, 2)]);
    assert_eq!(handle.status().statistics.free, Some(2));
    assert_eq!(handle.status().totals.statistics, 2);
    assert!(!is_called(&guest));
    handle.stop_hinting();
    turn(&mut guest);
    assert!(!handle.status().hinting);
    assert_eq!(guest.config(config::FREE_PAGE_HINT_CMD_ID), cmd_id::DONE);
}

#[test]
fn a_device_that_is_made_anew_goes_on_with_what_was_asked_for_last() {
    let config = BalloonConfig {
        target: MIB,
        ..everything()
    };
    let (mut guest, handle) = controlled(&config);
    assert_eq!(handle.status().target, MIB, "as configured");
    guest.start(u64::MAX, Numbers::Linux);
    handle.set_target(3 * MIB).unwrap();
    handle.set_statistics_interval(Duration::from_secs(7));
    handle.start_hinting();
    turn(&mut guest);
    let mut guest = Guest::new(RecordedPages::default(), &config, Some(&handle));
    assert!(!handle.status().running);
    assert_eq!(handle.status().target, 3 * MIB);
    guest.start(u64::MAX, Numbers::Linux);
    guest.tell(&[]);
    assert_eq!(guest.waits().delay, Some(Duration::from_secs(7)));
    assert!(!handle.status().hinting, "that was asked for once");
}

#[test]
fn an_interval_that_changes_holds_from_now_on() {
    let (mut guest, handle) = controlled(&everything());
    guest.start(u64::MAX, Numbers::Linux);
    guest.tell(&[]);
    assert_eq!(guest.waits().delay, Some(Duration::from_secs(5)));
    for (interval, delay) in [
        (Duration::from_secs(9), Some(Duration::from_secs(9))),
        (Duration::ZERO, None),
        (Duration::from_nanos(1), Some(Duration::from_millis(100))),
        (Duration::MAX, Some(Duration::MAX)),
    ] {
        handle.set_statistics_interval(interval);
        guest.device.process_events();
        assert_eq!(guest.waits().delay, delay);
    }
}

#[test]
fn it_may_be_used_from_any_thread() {
    let (mut guest, handle) = controlled(&BalloonConfig::default());
    guest.start(u64::MAX, Numbers::Linux);
    let threads: Vec<_> = (1..=4)
        .map(|n| {
            let handle = handle.clone();
            std::thread::spawn(move || {
                for _ in 0..100 {
                    handle.set_target(n * MIB).unwrap();
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
    turn(&mut guest);
    let pages = guest.config(config::NUM_PAGES);
    assert!(pages.is_multiple_of(256) && (1..=4).contains(&(pages / 256)));
}

#[test]
fn a_reset_is_seen() {
    let (mut guest, handle) = controlled(&BalloonConfig::default());
    guest.start(u64::MAX, Numbers::Linux);
    driver::write(&mut guest.device, mmio::STATUS, 0);
    assert!(!handle.status().running);
    notify(&mut guest.device, 0);
    assert!(guest.waits().is_empty());
}
