//! What can go wrong.

use std::io;

use crate::TapError;
use crate::spec::{config::MIN_MTU, queue::MAX_PAIRS};

/// Why a network device, or what is behind it, cannot be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NetError {
    /// A text that is no address.
    #[error("MAC address {0:?} is not six bytes like 02:00:00:00:00:01")]
    MacText(String),
    /// A group's address.
    #[error("MAC address {0} is a group's: its first byte must be even")]
    MacGroup(String),
    /// An address of zeros.
    #[error("a MAC address cannot be all zeros")]
    MacZero,
    /// There are no random numbers for an address.
    #[error("cannot choose a MAC address")]
    Random(#[source] io::Error),
    /// An MTU that no interface has.
    #[error("MTU {0} is below the least, {MIN_MTU}")]
    Mtu(u16),
    /// No pair of queues, or too many.
    #[error("{pairs} pairs of queues are not possible: from 1 to {most}, of at most {MAX_PAIRS}")]
    Pairs {
        /// How many.
        pairs: u16,
        /// How many the backend has.
        most: u16,
    },
    /// A tap.
    #[error(transparent)]
    Tap(#[from] TapError),
}
