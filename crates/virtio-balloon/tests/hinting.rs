//! Hints of free pages: the protocol of command IDs (§5.5.6.5).
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

mod guest;

use goldcrest_memory::Contents;
use goldcrest_snapshot::Snapshot;
use goldcrest_virtio::driver::Buffer;
use goldcrest_virtio_balloon::spec::{cmd_id, config, queue};
use goldcrest_virtio_balloon::{BalloonConfig, RecordedPages};
use guest::{Guest, MIB, everything, recorded};

const UNNEEDED: Contents = Contents::Unneeded;
const BLOCK: u32 = 4 << 20;

/// A guest that is asked for hints, and what it is asked with.
fn asked() -> (Guest<RecordedPages>, RecordedPages, u32) {
    let (mut guest, pages) = recorded(&everything());
    assert_eq!(guest.config(config::FREE_PAGE_HINT_CMD_ID), cmd_id::STOP);
    let id = ask(&mut guest);
    (guest, pages, id)
}

fn ask(guest: &mut Guest<RecordedPages>) -> u32 {
    guest.balloon().start_hinting();
    assert!(!guest.waits().is_empty());
    guest.device.process_events();
    assert!(guest.told_of_change() && guest.status().hinting);
    guest.config(config::FREE_PAGE_HINT_CMD_ID)
}

#[test]
fn a_round_takes_what_is_free_and_lets_the_driver_have_it_back() {
    let (mut guest, pages, id) = asked();
    assert!(id >= cmd_id::FIRST);
    guest.send_id(id);
    guest.hint(4 * MIB, BLOCK);
    guest.hint(12 * MIB, BLOCK);
    let taken = [4, 12].map(|at| (at * MIB, BLOCK.into(), UNNEEDED));
    assert_eq!(pages.take(), taken);
    assert!(!guest.told_of_change());
    guest.send_id(cmd_id::STOP);
    assert!(guest.told_of_change());
    assert_eq!(guest.config(config::FREE_PAGE_HINT_CMD_ID), cmd_id::DONE);
    assert!(!guest.status().hinting);
    assert_eq!(guest.totals().hinted, 8 * MIB);
    assert_eq!(guest.totals().returned, 8 * MIB);
    assert_eq!(guest.totals().ignored, 0);
    // And again.
    let next = ask(&mut guest);
    assert!(next >= cmd_id::FIRST && next != id);
    guest.send_id(next);
    guest.hint(4 * MIB, BLOCK);
    assert_eq!(pages.take(), taken[..1]);
}

#[test]
fn hints_out_of_a_round_are_ignored() {
    let (mut guest, pages, id) = asked();
    let ignores = |guest: &mut Guest<RecordedPages>| {
        let before = guest.totals().ignored;
        guest.hint(4 * MIB, BLOCK);
        assert!(pages.take().is_empty());
        assert_eq!(guest.totals().ignored, before + 1);
    };
    ignores(&mut guest);
    for wrong in [id + 1, cmd_id::DONE, u32::MAX] {
        guest.send_id(wrong);
        ignores(&mut guest);
    }
    assert!(guest.status().hinting);
    guest.send_id(id);
    guest.balloon().stop_hinting();
    ignores(&mut guest);
    assert!(guest.told_of_change());
    assert_eq!(guest.config(config::FREE_PAGE_HINT_CMD_ID), cmd_id::DONE);
    // An old number is not a new one.
    let next = ask(&mut guest);
    guest.send_id(id);
    ignores(&mut guest);
    guest.send_id(next);
    guest.hint(4 * MIB, BLOCK);
    assert_eq!(pages.take().len(), 1);
}

#[test]
fn numbers_and_pages_may_share_a_request_and_short_numbers_are_none() {
    let (mut guest, pages, id) = asked();
    let Buffer::Readable(at, _) = guest.numbers(&[id]) else {
        unreachable!()
    };
    let free = Buffer::Writable(4 * MIB, BLOCK);
    guest.request(queue::FREE_PAGE, &[Buffer::Readable(at, 3), free]);
    assert!(pages.take().is_empty());
    guest.request(queue::FREE_PAGE, &[Buffer::Readable(at, 4), free]);
    assert_eq!(pages.take(), [(4 * MIB, BLOCK.into(), UNNEEDED)]);
    let stop = guest.numbers(&[cmd_id::STOP]);
    guest.request(queue::FREE_PAGE, &[stop, free]);
    assert!(pages.take().is_empty());
    assert!(!guest.status().hinting);
}

#[test]
fn a_guest_without_the_feature_is_not_asked() {
    let (mut guest, _) = recorded(&BalloonConfig::default());
    guest.balloon().start_hinting();
    guest.balloon().stop_hinting();
    assert!(guest.waits().is_empty() && !guest.status().hinting);
    assert_eq!(guest.config(config::FREE_PAGE_HINT_CMD_ID), cmd_id::STOP);
}

#[test]
fn stopping_what_goes_on_no_more_is_no_change() {
    let (mut guest, _, id) = asked();
    guest.send_id(id);
    guest.send_id(cmd_id::STOP);
    assert!(guest.told_of_change());
    guest.balloon().stop_hinting();
    guest.send_id(cmd_id::STOP);
    guest.device.process_events();
    assert!(!guest.told_of_change() && guest.waits().is_empty());
}

#[test]
fn hints_from_before_a_snapshot_do_not_count_but_the_round_ends() {
    let (mut guest, pages, id) = asked();
    guest.send_id(id);
    guest.device.quiesce();
    let state = guest.device.save();
    assert_eq!((state.device.cmd_id, state.device.last_cmd_id), (id, id));
    guest.device.restore(state).unwrap();
    assert!(guest.status().hinting);
    guest.hint(4 * MIB, BLOCK);
    assert!(pages.take().is_empty());
    guest.send_id(cmd_id::STOP);
    assert_eq!(guest.config(config::FREE_PAGE_HINT_CMD_ID), cmd_id::DONE);
    assert_ne!(ask(&mut guest), id);
}
