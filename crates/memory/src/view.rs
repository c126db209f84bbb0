//! Reading guest RAM without being able to change it.

use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use crate::MemoryError;

/// A read-only view of guest RAM, for inspection while the guest may be running.
#[derive(Debug, Clone)]
pub struct GuestView(pub(crate) GuestMemoryMmap);

impl GuestView {
    /// Reads all of `bytes` from guest-physical `at`.
    ///
    /// # Errors
    ///
    /// [`MemoryError::OutsideRam`] if any of it is not RAM.
    pub fn read(&self, at: u64, bytes: &mut [u8]) -> Result<(), MemoryError> {
        let len = bytes.len();
        self.0
            .read_slice(bytes, GuestAddress(at))
            .map_err(|_| MemoryError::OutsideRam {
                start: at,
                len: u64::try_from(len).unwrap_or(u64::MAX),
            })
    }
}
