//! Any bytes as the state of a whole machine, or as the index of a memory file: refused, or possible.

use std::error::Error;

use goldcrest_memory::PAGE_SIZE;
use goldcrest_memory::image::{Extents, MAX_EXTENTS};
use goldcrest_memory::layout::MAX_SIZE;
use goldcrest_monitor::{MAX_VIRTIO_DEVICES, SnapshotInfo};
use goldcrest_snapshot::{open_state, seal_state};

use crate::saved::forge_kind;

/// The first byte of an input that is an index alone: which pages the memory file of a difference has.
pub const INDEX: u8 = 0x40;
/// What the envelope of an index says that it has.
const KIND: &str = "extents";

/// Runs the target: the first byte says whether the checksum is made right, or that it is an index ([`INDEX`]).
pub fn run(data: &[u8]) {
    match data.split_first() {
        None => {}
        Some((&INDEX, index)) => run_index(index),
        Some((choice, state)) => run_state(*choice, state),
    }
}

fn run_state(choice: u8, state: &[u8]) {
    let mut state = state.to_vec();
    if let (0x80.., Some((covered, sum))) = (choice, state.split_last_chunk_mut()) {
        *sum = crc32fast::hash(covered).to_le_bytes();
    }
    match SnapshotInfo::parse(&state) {
        Ok(info) => assert_possible(&info),
        Err(error) => {
            let mut cause: Option<&dyn Error> = Some(&error);
            while let Some(error) = cause {
                let why = error.to_string();
                assert!(
                    !why.is_empty() && !why.contains(char::is_control),
                    "{why:?}"
                );
                cause = error.source();
            }
        }
    }
}

fn assert_possible(info: &SnapshotInfo) {
    assert!((1..=254).contains(&info.cpus));
    assert!(info.devices.len() <= MAX_VIRTIO_DEVICES);
    assert!(info.memory_size.is_multiple_of(PAGE_SIZE) && info.memory_size >= 1 << 20);
    assert!(info.devices.iter().all(|device| !device.kind.is_empty()));
    if let Some(base) = &info.base {
        assert!(base.changed <= info.memory_size && base.changed.is_multiple_of(PAGE_SIZE));
    }
}

/// Which pages there are: each once, ascending, in runs that do not touch; and the same when they are saved again.
fn run_index(payload: &[u8]) {
    let envelope = forge_kind(KIND, 1, payload);
    let Ok(extents) = open_state::<Extents>(KIND, 1, &envelope) else {
        return;
    };
    assert!(extents.len() <= MAX_EXTENTS);
    let (mut end, mut bytes, mut again) = (None, 0, Extents::default());
    for extent in extents.iter() {
        assert!(
            [extent.start, extent.len]
                .iter()
                .all(|n| n.is_multiple_of(PAGE_SIZE))
        );
        assert!(
            extent.len > 0 && end.is_none_or(|end| extent.start > end),
            "{extent:?}"
        );
        (end, bytes) = (Some(extent.end()), bytes + extent.len);
        // Runs that touch are one.
        let half = extent.len / PAGE_SIZE / 2 * PAGE_SIZE;
        for (start, len) in [(0, half), (half, extent.len - half)] {
            let pushed = again.push(extent.start + start, len);
            assert_eq!(pushed.is_ok(), len > 0);
        }
    }
    assert_eq!((extents.bytes(), &again), (bytes, &extents));
    let end = end.unwrap_or(0);
    assert!(end <= MAX_SIZE && extents.check(end).is_ok());
    assert!(end == 0 || extents.check(end - 1).is_err());
    let sealed = seal_state(KIND, 1, &extents).expect("it can be saved");
    let opened = open_state::<Extents>(KIND, 1, &sealed).expect("it was believed");
    assert_eq!(opened, extents);
}
