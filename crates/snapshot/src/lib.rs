//! Saved state of a virtual machine's parts: the [`Snapshot`] trait, and the envelope that the bytes travel in.
//!
//! What is saved is a plain struct (`SerialState`), apart from the running object. [`seal`] wraps it in an envelope
//! that names its kind and version and ends in a checksum; [`open`] takes it out again and refuses whatever is not
//! exactly that.
//!
//! ```
//! use goldcrest_snapshot::{RestoreError, Snapshot, open, seal};
//!
//! struct Counter(u32);
//!
//! impl Snapshot for Counter {
//!     type State = u32;
//!     const KIND: &'static str = "counter";
//!     const VERSION: u16 = 1;
//!     fn save(&self) -> u32 {
//!         self.0
//!     }
//!     fn restore(&mut self, state: u32) -> Result<(), RestoreError> {
//!         self.0 = state;
//!         Ok(())
//!     }
//! }
//!
//! let bytes = seal(&Counter(7))?;
//! let mut other = Counter(0);
//! open(&mut other, &bytes)?;
//! assert_eq!(other.0, 7);
//! # Ok::<(), goldcrest_snapshot::EnvelopeError>(())
//! ```
//!
//! # Hostile input
//!
//! A snapshot may come from anywhere. The checksum finds accidents, not forgery: [`Snapshot::restore`] checks every
//! value before it believes it, and leaves the object as it was if it refuses.

mod envelope;
mod part;

pub use envelope::{EnvelopeError, open, open_state, seal, seal_state};
pub use part::Part;

use serde::Serialize;
use serde::de::DeserializeOwned;

/// Something whose state can be saved and put back.
pub trait Snapshot {
    /// The state, as plain data.
    type State: Serialize + DeserializeOwned;
    /// Names the kind of object; at most 255 bytes.
    const KIND: &'static str;
    /// The version of `State`'s layout.
    const VERSION: u16;

    /// The state now.
    fn save(&self) -> Self::State;

    /// Puts a state back.
    ///
    /// # Errors
    ///
    /// [`RestoreError`] if a value is not one that [`save`](Self::save) could have given; nothing has changed then.
    fn restore(&mut self, state: Self::State) -> Result<(), RestoreError>;
}

/// A state that no running object could have had.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{kind}: {what} is {value}, {limit}")]
pub struct RestoreError {
    /// [`Snapshot::KIND`].
    pub kind: &'static str,
    /// The value's name.
    pub what: &'static str,
    /// The value.
    pub value: u64,
    /// What it should have been ("must be below 24").
    pub limit: &'static str,
}
