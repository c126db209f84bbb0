//! What can go wrong.

use std::io;

use crate::config::MAX_TARGET;
use crate::spec::PAGE;

/// Why a balloon cannot be made, or be made to do something.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BalloonError {
    /// A size that the balloon cannot have.
    #[error(
        "a balloon of {0} bytes is not possible: it must be a multiple of {PAGE} and at most {MAX_TARGET}"
    )]
    Target(u64),
    /// There is nothing by which the device could be told.
    #[error("cannot make a handle for a balloon")]
    Handle(#[source] io::Error),
}
