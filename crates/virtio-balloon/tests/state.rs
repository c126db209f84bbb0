//! Saved state: what goes on, and what is refused.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

mod guest;

use goldcrest_irq::IrqLine;
use goldcrest_memory::Contents;
use goldcrest_snapshot::Snapshot;
use goldcrest_virtio::Mmio;
use goldcrest_virtio_balloon::spec::config;
use goldcrest_virtio_balloon::{Balloon, BalloonConfig, BalloonState, RecordedPages};
use guest::{Guest, MIB, Numbers, everything};
use proptest::prelude::*;

#[test]
fn a_balloon_goes_on_with_its_target_and_its_poison() {
    let mut guest = Guest::new(RecordedPages::default(), &everything(), None);
    guest.start_with(u64::MAX, Numbers::Linux, |guest| {
        guest.write_config(config::POISON_VAL, 0xaaaa_aaaa);
    });
    guest.write_config(config::ACTUAL, 3);
    guest.balloon().set_target(MIB).unwrap();
    guest.device.quiesce();
    assert!(guest.told_of_change(), "it is not saved that it is owed");
    let state = guest.device.save();

    let pages = RecordedPages::default();
    let balloon = Balloon::with_clock(pages.clone(), &everything(), guest.clock.clone());
    guest.device = Mmio::new(balloon.unwrap(), guest.memory.clone(), IrqLine::detached());
    guest.device.restore(state.clone()).unwrap();
    assert_eq!(guest.device.save(), state);
    let status = guest.status();
    assert!(status.running);
    assert_eq!((status.target, status.actual), (MIB, 3 * 4096));
    guest.report(&[(4 * MIB, 2 << 20)]);
    assert!(pages.take().is_empty(), "it is filled with something");
    guest.inflate(&[9]);
    assert_eq!(pages.take(), [(0x9000, 4096, Contents::Unneeded)]);
}

#[test]
fn commands_that_cannot_have_been_given_are_refused() {
    let good = BalloonState {
        last_cmd_id: 1,
        ..BalloonState::default()
    };
    let check = |config: &BalloonConfig, state| {
        let mut balloon = Balloon::new(RecordedPages::default(), config).unwrap();
        let before = balloon.save();
        let result = balloon.restore(state);
        if result.is_err() {
            assert_eq!(balloon.save(), before, "refused, but changed");
        } else {
            assert_eq!(balloon.save(), state);
        }
        result.is_ok()
    };
    let plain = BalloonConfig::default();
    for (cmd_id, last_cmd_id, with, without) in [
        (0, 1, true, true),
        (0, 9, true, true),
        (1, 9, true, false),
        (9, 9, true, false),
        (9, 8, false, false),
        (2, 1, false, false),
        (0, 0, false, false),
    ] {
        let state = BalloonState {
            cmd_id,
            last_cmd_id,
            ..good
        };
        assert_eq!(check(&everything(), state), with, "{state:?}");
        assert_eq!(check(&plain, state), without, "{state:?}");
    }
}

proptest! {
    /// What a device may have gone through can be saved, and the copy is the same.
    #[test]
    fn any_balloon_can_be_saved(target in 0_u64..1000, steps in proptest::collection::vec(0_u8..6, 0..20)) {
        let mut guest = Guest::new(RecordedPages::default(), &everything(), None);
        for step in steps {
            match step {
                0 => guest.start(u64::MAX, Numbers::Linux),
                1 => guest.balloon().start_hinting(),
                2 => guest.balloon().stop_hinting(),
                3 => guest.balloon().set_target(target * 4096).unwrap(),
                4 => guest.write_config(config::ACTUAL, 7),
                _ => guest.device.process_events(),
            }
        }
        guest.device.quiesce();
        let state = guest.device.save();
        let mut copy = Guest::new(RecordedPages::default(), &everything(), None);
        copy.device.restore(state.clone()).unwrap();
        prop_assert_eq!(copy.device.save(), state);
    }
}
