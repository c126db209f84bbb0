//! A network without privilege: a guest's Ethernet frames become sockets of the host.
//!
//! [`Network`] is a link with one guest on it, and everything that the guest finds there: a gateway, a DHCP server, a
//! resolver, and behind the gateway the world. What the guest sends to the world goes out by sockets of the process, as
//! from any other program, so that nothing has to be set up on the host, and nobody has to be root.
//!
//! ```
//! use goldcrest_usernet::{DnsConfig, Network, NetworkConfig, RxOffload, ScriptedHost, TxOffload};
//! use std::time::Duration;
//!
//! // With `Network::new(config)` it would be the host's own sockets.
//! let config = NetworkConfig { dns: DnsConfig::None, ..NetworkConfig::default() };
//! let mut network = Network::with_host(config, ScriptedHost::default())?;
//! network.process(Duration::from_secs(1));
//!
//! // Who has 10.0.2.2? Tell 10.0.2.15.
//! let mac = [2, 0, 0, 0, 0, 1];
//! let mut frame = vec![0xff; 6];
//! frame.extend(mac);
//! frame.extend([0x08, 0x06, 0, 1, 8, 0, 6, 4, 0, 1]);
//! frame.extend(mac);
//! frame.extend([10, 0, 2, 15, 0, 0, 0, 0, 0, 0, 10, 0, 2, 2]);
//! network.send(frame.len(), &mut &frame[..], TxOffload::default());
//!
//! let mut answer = Vec::new();
//! let info = network.receive(1514, RxOffload::default(), &mut answer).expect("an answer");
//! assert_eq!((info.len, &answer[..6]), (42, &mac[..]));
//! assert_eq!(answer[28..32], [10, 0, 2, 2]);
//! # Ok::<(), goldcrest_usernet::UsernetError>(())
//! ```
//!
//! # What the guest finds
//!
//! | | IPv4 | IPv6 |
//! |---|---|---|
//! | the guest | 10.0.2.15, by DHCP (RFC 2131) | any in fd00:676f:6c64::/64, by router advertisements (RFC 4862) |
//! | the gateway | 10.0.2.2 | fd00:676f:6c64::2 |
//! | the resolver | 10.0.2.3 | fd00:676f:6c64::3 |
//!
//! DHCP and the advertisements tell the MTU and the resolver, too. All of it can be set in [`NetworkConfig`].
//!
//! - **TCP** (RFC 9293, with window scaling as in RFC 7323 and the checks of RFC 5961): a connection of the guest becomes
//!   one of the host, and the guest's SYN is answered when the host has connected, or reset when it could not. Each
//!   direction is closed by itself; a reset of either side reaches the other; what the host has received before its peer
//!   broke the connection is delivered before the reset.
//! - **UDP**: each pair of ends gets a socket of its own, which takes answers from nobody else. What is too large for the
//!   MTU reaches the guest in pieces, and what the guest sends in pieces is put together.
//! - **Echo requests** go out by unprivileged sockets if the host allows them (`net.ipv4.ping_group_range`), and are said
//!   to be prohibited if not. The gateway answers itself.
//! - **Queries for names** to the resolver's address, by UDP and TCP, go to the host's resolvers; if one does not answer,
//!   to the next.
//! - **[Forwards](Forward)**: ports of the host that lead to the guest. Whoever connects before the guest has started
//!   waits for it, for up to 30 s.
//!
//! Where the guest may connect to is up to [rules](Rule). Without any, the host's loopback, its link-local addresses,
//! where clouds keep their secrets, and what is reserved are denied; other addresses of the host are as good as any.
//!
//! # The flow of bytes
//!
//! The guest pulls: nothing is taken from a socket of the host before the guest has room for it, and nothing of the guest
//! is acknowledged before there is room for it here. The window that the guest is told is the room in the connection's
//! buffer. So what the slower side cannot take stays where it is, and nothing queues up in between.
//!
//! A segment's data is read from the guest's memory straight to the buffer from which the socket takes it, and what a
//! socket has is received to where it stays until the guest has acknowledged it: one copy each way. With
//! [large segments](RxOffload::tso4) the guest is given up to 64 KiB at once.
//!
//! The link to the guest neither loses nor reorders frames, so there is no congestion to control, what comes out of order
//! is not kept, and three duplicate acknowledgements or a time-out bring again what a guest has lost.
//!
//! # Time, waiting and snapshots
//!
//! Nothing here waits, and there is neither a thread nor a clock: [`Network::process`] is told the time. All sockets are
//! in one epoll set, so that who runs a network waits for [one descriptor](Network::fd) and for
//! [a time](Network::timeout).
//!
//! Sockets cannot be saved. After a snapshot is restored, a new network resets what the guest still takes for
//! connections, and the guest makes new ones.
//!
//! # A hostile guest
//!
//! All that a frame says is checked before it is believed; what makes no sense is dropped and [counted](Stats). Flows,
//! the bytes that they hold, answers that wait, packets in pieces and the holes in them are [bounded](Limits); a
//! connection that is one too many is reset, a flow of datagrams takes the place of an idle one. Buffers grow with use and
//! are given back. A guest that acknowledges what was never sent, sends beyond the window, guesses resets, asks for tiny
//! segments, opens and closes windows or does not answer at all is met as RFC 9293 says, and costs no more than one that
//! behaves. Each frame costs a bounded number of steps, whatever the number of flows, but for what a closed or evicted
//! flow leaves in the queue of those that wait.
//!
//! A destination of IPv6 that has one of IPv4 within it (mapped, translated, 6to4, Teredo) is judged by both, and the
//! unspecified address, which Linux takes for the loopback, is denied always. The network does not look into what
//! the guest sends, does not limit how much, and does not keep it from using the host's own address: a service that must
//! not be reached by a guest must be denied by a rule.
//!
//! # A hostile world
//!
//! Answers to UDP come from whom was asked, or not at all. Initial sequence numbers are made as in RFC 6528. The peer of a
//! connection decides nothing but how fast bytes come and go.

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
