//! Saved state: what must hold of it whatever has happened to the object.

use std::fmt::Debug;

use goldcrest_snapshot::{Snapshot, open, seal};

/// Saves `object`, opens the envelope in `fresh`, and fails unless `fresh` is then the same.
pub fn round_trip<S>(object: &S, fresh: &mut S)
where
    S: Snapshot,
    S::State: PartialEq + Debug,
{
    let envelope = seal(object).expect("a running object can be saved");
    if let Err(error) = open(fresh, &envelope) {
        panic!("{:?} is refused: {error}", object.save());
    }
    assert_eq!(fresh.save(), object.save());
}

/// An envelope with this payload and a right checksum, as a forger makes it.
pub fn forge<S: Snapshot>(payload: &[u8]) -> Vec<u8> {
    forge_kind(S::KIND, S::VERSION, payload)
}

/// As [`forge`], of whatever kind.
pub fn forge_kind(kind: &str, version: u16, payload: &[u8]) -> Vec<u8> {
    let kind_len = u8::try_from(kind.len()).expect("kinds are short");
    let payload_len = u32::try_from(payload.len()).expect("inputs are short");
    let mut envelope = [b"GCS1".as_slice(), &[kind_len], kind.as_bytes()].concat();
    envelope.extend(version.to_le_bytes());
    envelope.extend(payload_len.to_le_bytes());
    envelope.extend(payload);
    envelope.extend(crc32fast::hash(&envelope).to_le_bytes());
    envelope
}

/// Opens an envelope in `object`; fails if it is refused and leaves a trace. Returns whether it was believed.
pub fn open_or_unchanged<S>(object: &mut S, envelope: &[u8]) -> bool
where
    S: Snapshot,
    S::State: PartialEq + Debug,
{
    let before = object.save();
    let believed = open(object, envelope).is_ok();
    if !believed {
        assert_eq!(object.save(), before, "refused, but changed");
    }
    believed
}
