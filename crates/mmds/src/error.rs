//! What can go wrong.

use std::io;
use std::net::Ipv4Addr;

use goldcrest_usernet::UsernetError;

/// Why a metadata service cannot be made, or does not take what it is given.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MmdsError {
    /// An address that is no usable one of the link's.
    #[error(
        "metadata service at {0}: its address is a link-local one, from 169.254.1.0 to 169.254.254.255"
    )]
    Address(Ipv4Addr),
    /// A limit that is too great.
    #[error("metadata of up to {limit} bytes: no more than {most} are possible")]
    Limit {
        /// What was asked for, in bytes.
        limit: usize,
        /// The most that is possible.
        most: usize,
    },
    /// More than the limit allows.
    #[error("metadata of {len} bytes: the limit is {limit}")]
    TooLarge {
        /// The length as JSON without white space, in bytes.
        len: usize,
        /// What is allowed.
        limit: usize,
    },
    /// A patch of nothing.
    #[error("there is no metadata to patch: put some first")]
    Empty,
    /// The host has no random numbers for the key of tokens.
    #[error("cannot get random bytes for the metadata service")]
    Random(#[source] io::Error),
    /// Its network cannot be made.
    #[error("cannot make the network of the metadata service")]
    Network(#[from] UsernetError),
}
