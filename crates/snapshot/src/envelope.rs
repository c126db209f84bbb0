//! The envelope: magic, kind, version, length, payload, checksum.
//!
//! | bytes | what |
//! |---|---|
//! | 4 | `GCS1` |
//! | 1, n | length of the kind, the kind |
//! | 2 | version |
//! | 4 | length of the payload |
//! | m | the payload (postcard) |
//! | 4 | CRC-32 (IEEE) of all before |
//!
//! Numbers are little-endian.

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::{RestoreError, Snapshot};

const MAGIC: [u8; 4] = *b"GCS1";

/// Why an envelope was not made or not believed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EnvelopeError {
    /// The bytes do not begin with the magic number.
    #[error("not a Goldcrest snapshot: does not begin with GCS1")]
    Magic,
    /// The bytes end before the envelope does.
    #[error("snapshot is cut off: {needed} more bytes are needed at offset {offset}")]
    Truncated {
        /// Where the missing part begins.
        offset: usize,
        /// How many bytes it has beyond what is there.
        needed: usize,
    },
    /// There is something behind the end.
    #[error("snapshot has {0} bytes behind its end")]
    Trailing(usize),
    /// The checksum is wrong.
    #[error("snapshot is damaged: checksum is {found:#010x}, should be {expected:#010x}")]
    Checksum {
        /// What the envelope says.
        found: u32,
        /// What its bytes give.
        expected: u32,
    },
    /// The state of another kind of object.
    #[error("snapshot is of a {found:?}, a {expected:?} is wanted")]
    Kind {
        /// What the envelope says.
        found: String,
        /// What was asked for.
        expected: &'static str,
    },
    /// A layout that this build does not know.
    #[error("{kind} snapshot has version {found}, this build reads version {expected}")]
    Version {
        /// The kind.
        kind: &'static str,
        /// What the envelope says.
        found: u16,
        /// What this build reads.
        expected: u16,
    },
    /// A kind or payload too long for the envelope's length fields.
    #[error("snapshot of {0:?} is too long for its envelope")]
    TooLong(&'static str),
    /// The payload is not a state of this kind.
    #[error("{kind} snapshot cannot be decoded")]
    Payload {
        /// The kind.
        kind: &'static str,
        /// What the decoder says.
        source: postcard::Error,
    },
    /// The state is not a possible one.
    #[error(transparent)]
    Restore(#[from] RestoreError),
}

/// Saves `object` into an envelope.
///
/// # Errors
///
/// [`EnvelopeError::TooLong`] or [`EnvelopeError::Payload`] if the state cannot be encoded.
pub fn seal<S: Snapshot>(object: &S) -> Result<Vec<u8>, EnvelopeError> {
    seal_state(S::KIND, S::VERSION, &object.save())
}

/// As [`seal`], of a state that is not one object's.
///
/// # Errors
///
/// As for [`seal`].
pub fn seal_state<T: Serialize>(
    kind: &'static str,
    version: u16,
    state: &T,
) -> Result<Vec<u8>, EnvelopeError> {
    let kind_len = u8::try_from(kind.len()).map_err(|_| EnvelopeError::TooLong(kind))?;
    let payload =
        postcard::to_allocvec(state).map_err(|source| EnvelopeError::Payload { kind, source })?;
    let payload_len = u32::try_from(payload.len()).map_err(|_| EnvelopeError::TooLong(kind))?;

    let mut bytes = Vec::with_capacity(payload.len() + kind.len() + 15);
    bytes.extend(MAGIC);
    bytes.push(kind_len);
    bytes.extend(kind.as_bytes());
    bytes.extend(version.to_le_bytes());
    bytes.extend(payload_len.to_le_bytes());
    bytes.extend(payload);
    bytes.extend(crc32fast::hash(&bytes).to_le_bytes());
    Ok(bytes)
}

/// Takes the state out of the envelope `bytes` and restores `object` to it.
///
/// # Errors
///
/// Any [`EnvelopeError`] if `bytes` is not exactly one intact envelope of this kind and version; `object` is unchanged
/// then.
pub fn open<S: Snapshot>(object: &mut S, bytes: &[u8]) -> Result<(), EnvelopeError> {
    Ok(object.restore(open_state(S::KIND, S::VERSION, bytes)?)?)
}

/// As [`open`], of a state that is not one object's: it is not checked beyond its form.
///
/// # Errors
///
/// As for [`open`].
pub fn open_state<T: DeserializeOwned>(
    expected_kind: &'static str,
    expected_version: u16,
    bytes: &[u8],
) -> Result<T, EnvelopeError> {
    let mut rest = Reader { bytes, offset: 0 };
    if rest.array()? != MAGIC {
        return Err(EnvelopeError::Magic);
    }
    let [kind_len] = rest.array()?;
    let kind = rest.take(usize::from(kind_len))?;
    let version = u16::from_le_bytes(rest.array()?);
    let payload_len = u32::from_le_bytes(rest.array()?);
    let payload = rest.take(usize::try_from(payload_len).unwrap_or(usize::MAX))?;
    let covered = rest.offset;
    let found = u32::from_le_bytes(rest.array()?);
    let trailing = bytes.len() - rest.offset;

    let expected = crc32fast::hash(bytes.get(..covered).unwrap_or_default());
    if found != expected {
        return Err(EnvelopeError::Checksum { found, expected });
    }
    if trailing != 0 {
        return Err(EnvelopeError::Trailing(trailing));
    }
    if kind != expected_kind.as_bytes() {
        return Err(EnvelopeError::Kind {
            found: String::from_utf8_lossy(kind).into_owned(),
            expected: expected_kind,
        });
    }
    if version != expected_version {
        return Err(EnvelopeError::Version {
            kind: expected_kind,
            found: version,
            expected: expected_version,
        });
    }
    let (state, unread) =
        postcard::take_from_bytes(payload).map_err(|source| EnvelopeError::Payload {
            kind: expected_kind,
            source,
        })?;
    if !unread.is_empty() {
        return Err(EnvelopeError::Trailing(unread.len()));
    }
    Ok(state)
}

struct Reader<'a> {
    bytes: &'a [u8],
    offset: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, len: usize) -> Result<&'a [u8], EnvelopeError> {
        let end = self.offset.saturating_add(len);
        let taken = self
            .bytes
            .get(self.offset..end)
            .ok_or_else(|| EnvelopeError::Truncated {
                offset: self.offset,
                needed: end.saturating_sub(self.bytes.len()),
            })?;
        self.offset = end;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], EnvelopeError> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde::{Deserialize, Serialize};

    #[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
    struct ThingState {
        level: u8,
        log: Vec<u64>,
    }

    #[derive(Debug, Default, PartialEq)]
    struct Thing(ThingState);

    impl Snapshot for Thing {
        type State = ThingState;
        const KIND: &'static str = "thing";
        const VERSION: u16 = 3;
        fn save(&self) -> ThingState {
            self.0.clone()
        }
        fn restore(&mut self, state: ThingState) -> Result<(), RestoreError> {
            if state.level > 9 {
                return Err(RestoreError {
                    kind: Self::KIND,
                    what: "level",
                    value: state.level.into(),
                    limit: "must be below 10",
                });
            }
            self.0 = state;
            Ok(())
        }
    }

    fn thing(level: u8) -> Thing {
        Thing(ThingState {
            level,
            log: vec![1, u64::MAX],
        })
    }

    /// Puts a right checksum behind changed bytes.
    fn resealed(mut bytes: Vec<u8>) -> Vec<u8> {
        bytes.truncate(bytes.len() - 4);
        bytes.extend(crc32fast::hash(&bytes).to_le_bytes());
        bytes
    }

    #[test]
    fn every_prefix_and_every_flipped_bit_is_refused() {
        let bytes = seal(&thing(3)).unwrap();
        for len in 0..bytes.len() {
            assert!(open(&mut Thing::default(), &bytes[..len]).is_err(), "{len}");
        }
        for bit in 0..bytes.len() * 8 {
            let mut bytes = bytes.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(open(&mut Thing::default(), &bytes).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn each_refusal_says_why() {
        let bytes = seal(&thing(3)).unwrap();
        let refusal = |bytes: Vec<u8>| open(&mut Thing::default(), &bytes).unwrap_err();

        let mut trailing = bytes.clone();
        trailing.push(0);
        assert!(matches!(refusal(trailing), EnvelopeError::Trailing(1)));

        let mut kind = bytes.clone();
        kind[5] = b'T';
        assert!(matches!(
            refusal(resealed(kind)),
            EnvelopeError::Kind { found, .. } if found == "Thing"
        ));

        let mut version = bytes.clone();
        version[10] = 4;
        assert!(matches!(
            refusal(resealed(version)),
            EnvelopeError::Version { found: 4, .. }
        ));

        let mut long = bytes.clone();
        long[12..16].fill(0xff);
        assert!(matches!(refusal(long), EnvelopeError::Truncated { .. }));

        let mut object = thing(1);
        let error = open(&mut object, &seal(&thing(10)).unwrap()).unwrap_err();
        assert_eq!(error.to_string(), "thing: level is 10, must be below 10");
        assert_eq!(object, thing(1));
    }

    proptest! {
        #[test]
        fn round_trip(level in 0_u8..10, log: Vec<u64>) {
            let saved = Thing(ThingState { level, log });
            let mut restored = Thing::default();
            open(&mut restored, &seal(&saved).unwrap()).unwrap();
            prop_assert_eq!(restored, saved);
        }

        #[test]
        fn any_bytes_are_refused_without_panic(bytes: Vec<u8>) {
            prop_assert!(open(&mut Thing::default(), &bytes).is_err());
        }
    }
}
