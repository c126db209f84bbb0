//! Why a tap cannot be used.

use std::io;

/// Why a tap cannot be used, and what a person may do about it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TapError {
    /// A name that no interface can have.
    #[error("tap name {0:?} does not have 1 to 15 letters, digits, dots, hyphens and underscores")]
    Name(String),
    /// No queue, or too many.
    #[error("a tap cannot have {0} queues")]
    Queues(usize),
    /// There is no driver for taps.
    #[error(
        "cannot open /dev/net/tun: the host has no driver for taps (modprobe tun), or a container without it"
    )]
    NoTun(#[source] io::Error),
    /// The person may not use it.
    #[error("no permission for tap {name}: someone who has it can make the tap for you: ip tuntap add dev {name} mode tap {}user $USER",
        if *queues > 1 { "multi_queue " } else { "" })]
    Permission {
        /// The interface.
        name: String,
        /// How many queues were to be.
        queues: u16,
        /// Why.
        source: io::Error,
    },
    /// Another has it.
    #[error("tap {name} is in use")]
    Busy {
        /// The interface.
        name: String,
        /// Why.
        source: io::Error,
    },
    /// Another kind of interface, or a tap that was made without several queues.
    #[error("{name} is not a tap{}", if *queues > 1 { " that was made with multi_queue" } else { "" })]
    Other {
        /// The interface.
        name: String,
        /// How many queues were to be.
        queues: u16,
        /// Why.
        source: io::Error,
    },
    /// A descriptor that is not a tap's.
    #[error("descriptor {0} is not one of a tap with IFF_VNET_HDR and IFF_NO_PI")]
    Descriptor(i32),
    /// Something else.
    #[error("cannot {what} of tap {name}")]
    SetUp {
        /// The interface.
        name: String,
        /// What was tried.
        what: &'static str,
        /// Why.
        source: io::Error,
    },
}
