//! Message-signalled interrupts.

use serde::{Deserialize, Serialize};

/// An interrupt message: a write of `data` to `address` (Intel SDM vol. 3A §11.11).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Msi {
    /// Bits 63:32 of the address: the extended destination, where it is used.
    pub address_hi: u32,
    /// `0xfeexxxxx`: destination, redirection hint and destination mode.
    pub address_lo: u32,
    /// Vector, delivery mode, level, trigger mode.
    pub data: u32,
}

/// Where interrupt messages go: the local APICs.
///
/// Called from any thread.
pub trait MsiSink: Send + Sync {
    /// Delivers a message now. One that the machine cannot take (a bad address) is dropped.
    fn signal(&self, message: Msi);

    /// Asks that the end of interrupt of this message's vector be reported, as a level-triggered interrupt needs; or,
    /// with `None`, no longer. `source` tells the askers apart (an IOAPIC's pin).
    ///
    /// A sink that reports every end of interrupt, or none, ignores this.
    fn watch_eoi(&self, source: u32, message: Option<Msi>) {
        let _ = (source, message);
    }
}
