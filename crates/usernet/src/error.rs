//! What can go wrong.

use std::io;
use std::net::{IpAddr, SocketAddr};

use crate::Protocol;

/// Why a network cannot be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UsernetError {
    /// A rule that cannot be read.
    #[error("network rule {text:?}: {why}")]
    Rule {
        /// What was written.
        text: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A port forward that cannot be read.
    #[error("port forward {text:?}: {why}")]
    Forward {
        /// What was written.
        text: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// Two forwards listen at one place.
    #[error("{protocol} port {at} of the host is forwarded twice")]
    ForwardedTwice {
        /// Of which protocol.
        protocol: Protocol,
        /// Where both listen.
        at: SocketAddr,
    },
    /// A forwarded port cannot be listened on.
    #[error("cannot listen on {protocol} port {at} of the host")]
    Listen {
        /// Of which protocol.
        protocol: Protocol,
        /// Where.
        at: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// A forward to an address that the guest cannot have.
    #[error("{0} is forwarded to, but the guest's network has no addresses of its kind")]
    Guest(SocketAddr),
    /// An address that is not in the network, or is used twice.
    #[error("network address {address}: {why}")]
    Address {
        /// The address.
        address: IpAddr,
        /// What is wrong with it.
        why: &'static str,
    },
    /// An Ethernet address that nobody can have alone.
    #[error("{} is the Ethernet address of a group, not of a gateway", mac(.0))]
    Mac([u8; 6]),
    /// Something that is too small or too large.
    #[error("network {what}: {value} is not from {least} to {most}")]
    Limit {
        /// Of what.
        what: &'static str,
        /// What was set.
        value: usize,
        /// The least that can be.
        least: usize,
        /// The most that can be.
        most: usize,
    },
    /// The host refuses what every network needs.
    #[error("cannot {what}")]
    Host {
        /// What was tried.
        what: &'static str,
        /// Why it failed.
        source: io::Error,
    },
}

fn mac(bytes: &[u8; 6]) -> String {
    bytes.map(|byte| format!("{byte:02x}")).join(":")
}
