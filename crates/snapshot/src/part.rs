//! A part of a larger state.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::{EnvelopeError, Snapshot};

/// The state of one of the objects that make up a larger one, with its kind and version, so that each can change by
/// itself. It has no checksum: what it is a part of has one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    kind: String,
    version: u16,
    payload: Vec<u8>,
}

impl Part {
    /// `state`, which is of this kind and version.
    ///
    /// # Errors
    ///
    /// [`EnvelopeError::Payload`] if it cannot be encoded.
    pub fn of<T: Serialize>(
        kind: &'static str,
        version: u16,
        state: &T,
    ) -> Result<Self, EnvelopeError> {
        let payload = postcard::to_allocvec(state);
        Ok(Self {
            kind: kind.to_owned(),
            version,
            payload: payload.map_err(|source| EnvelopeError::Payload { kind, source })?,
        })
    }

    /// The state, which must be of this kind and version.
    ///
    /// # Errors
    ///
    /// [`EnvelopeError::Kind`], [`EnvelopeError::Version`], or [`EnvelopeError::Payload`] and
    /// [`EnvelopeError::Trailing`] for bytes that are not exactly one.
    pub fn open<T: DeserializeOwned>(
        &self,
        kind: &'static str,
        version: u16,
    ) -> Result<T, EnvelopeError> {
        if self.kind != kind {
            return Err(EnvelopeError::Kind {
                found: self.kind.clone(),
                expected: kind,
            });
        }
        if self.version != version {
            return Err(EnvelopeError::Version {
                kind,
                found: self.version,
                expected: version,
            });
        }
        let (state, unread) = postcard::take_from_bytes(&self.payload)
            .map_err(|source| EnvelopeError::Payload { kind, source })?;
        match unread.len() {
            0 => Ok(state),
            trailing => Err(EnvelopeError::Trailing(trailing)),
        }
    }

    /// The state of `object` now.
    ///
    /// # Errors
    ///
    /// As for [`of`](Self::of).
    pub fn save<S: Snapshot>(object: &S) -> Result<Self, EnvelopeError> {
        Self::of(S::KIND, S::VERSION, &object.save())
    }

    /// Restores `object` to the state.
    ///
    /// # Errors
    ///
    /// As for [`open`](Self::open), and [`EnvelopeError::Restore`]; `object` is unchanged then.
    pub fn restore<S: Snapshot>(&self, object: &mut S) -> Result<(), EnvelopeError> {
        Ok(object.restore(self.open(S::KIND, S::VERSION)?)?)
    }

    /// Which kind of object it is of.
    pub fn kind(&self) -> &str {
        &self.kind
    }

    /// Bytes of the encoded state.
    pub fn size(&self) -> usize {
        self.payload.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::RestoreError;

    #[derive(Debug, PartialEq)]
    struct Level(u8);

    impl Snapshot for Level {
        type State = u8;
        const KIND: &'static str = "level";
        const VERSION: u16 = 2;
        fn save(&self) -> u8 {
            self.0
        }
        fn restore(&mut self, state: u8) -> Result<(), RestoreError> {
            self.0 = state;
            Ok(())
        }
    }

    #[test]
    fn a_part_goes_back_into_its_own_kind_alone() {
        let part = Part::save(&Level(7)).unwrap();
        let mut level = Level(0);
        part.restore(&mut level).unwrap();
        assert_eq!(level, Level(7));
        for (kind, version, why) in [("height", 2, "is of a"), ("level", 1, "has version 2")] {
            let error = part.open::<u8>(kind, version).unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
        }
    }

    #[test]
    fn a_part_has_nothing_behind_its_end() {
        let part = Part::of("level", 2, &(7_u8, 8_u8)).unwrap();
        let error = part.restore(&mut Level(0)).unwrap_err();
        assert!(matches!(error, EnvelopeError::Trailing(1)), "{error}");
        let empty = Part::of("level", 2, &()).unwrap();
        assert!(empty.restore(&mut Level(0)).is_err());
    }
}
