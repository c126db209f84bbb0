//! Any bytes as the state of a whole machine, as they are and with a right checksum: refused, or of a possible machine.

use goldcrest_monitor::{MAX_VIRTIO_DEVICES, SnapshotInfo};

/// Runs the target: the first byte says whether the checksum is made right.
pub fn run(data: &[u8]) {
    let Some((choice, state)) = data.split_first() else {
        return;
    };
    let mut state = state.to_vec();
    if let (0x80.., Some((covered, sum))) = (*choice, state.split_last_chunk_mut()) {
        *sum = crc32fast::hash(covered).to_le_bytes();
    }
    if let Ok(info) = SnapshotInfo::parse(&state) {
        assert!((1..=254).contains(&info.cpus));
        assert!(info.devices.len() <= MAX_VIRTIO_DEVICES);
        assert!(info.memory_size.is_multiple_of(4096) && info.memory_size >= 1 << 20);
        assert!(info.devices.iter().all(|device| !device.kind.is_empty()));
        if let Some(base) = info.base {
            assert!(base.changed <= info.memory_size && base.changed.is_multiple_of(4096));
        }
    }
}
