//! A network without privilege: a guest's Ethernet frames become sockets of the host.

mod checksum;
mod config;
mod datagram;
mod dns;
mod error;
mod forward;
mod frame;
mod header;
mod host;
mod network;
mod number;
mod packet;
mod reassembly;
mod replies;
mod rules;
mod scripted;
mod slab;
mod sockets;
mod stats;
mod tcp;
mod timer;

pub use config::{DnsConfig, Ipv4Config, Ipv6Config, Limits, MAX_MTU, MIN_MTU, NetworkConfig};
pub use error::UsernetError;
pub use forward::Forward;
pub use frame::{FrameInfo, Gso, GsoKind, PartialChecksum, RxOffload, TxOffload};
pub use host::{Event, Host, Token};
pub use network::Network;
pub use rules::{Action, IpNet, Protocol, Rule};
pub use scripted::{ScriptedHost, ScriptedKind, ScriptedPeer, ScriptedSocket};
pub use sockets::HostSockets;
pub use stats::Stats;
