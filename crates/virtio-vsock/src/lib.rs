//! The virtio socket device (VIRTIO 1.3 §5.10): streams between programs in a guest and programs on its host.
//!
//! [`Vsock`] is the device. Behind it is a [`Backend`]: [`UnixHost`], with Unix sockets, or [`MemoryHost`], for tests and
//! fuzzers. [`VsockConfig`] makes a device with Unix sockets, in the manner of other monitors:
//!
//! - A program on the host connects to the socket at PATH, sends `CONNECT 1234\n`, and is answered `OK 1073741824\n` when
//!   the guest's port 1234 has accepted. The number is the host's port by which the guest knows it.
//! - A program in the guest that connects to CID 2 (the host), port 1234, reaches whoever listens at `PATH_1234`.
//!
//! ```
//! use goldcrest_irq::IrqLine;
//! use goldcrest_virtio::driver::{Buffer, DriverQueue, initialise, notify};
//! use goldcrest_virtio::{Mmio, spec::feature};
//! use goldcrest_virtio_vsock::{Header, MemoryHost, Vsock, spec::op};
//! use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};
//!
//! let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 0x20000)])?;
//! let host = MemoryHost::default();
//! host.listen(1234, 8, 4096);
//! let device = Vsock::new(host.clone(), 3)?;
//! let mut device = Mmio::new(device, memory.clone(), IrqLine::detached());
//!
//! // A driver asks for a connection, and has room for the answer.
//! let mut receive = DriverQueue::new(&memory, 0, 256);
//! let mut transmit = DriverQueue::new(&memory, 0x4000, 256);
//! let event = DriverQueue::new(&memory, 0x8000, 16);
//! initialise(&mut device, feature::VERSION_1, &[&receive, &transmit, &event]);
//! receive.add(&[Buffer::Writable(0x10000, 4096)]);
//! let request = Header { src_cid: 3, dst_cid: 2, src_port: 99, dst_port: 1234, op: op::REQUEST, ..Header::default() };
//! memory.write_slice(&request.to_bytes(), GuestAddress(0x18000))?;
//! transmit.add(&[Buffer::Readable(0x18000, 44)]);
//! notify(&mut device, 1);
//!
//! let mut answer = [0; 44];
//! memory.read_slice(&mut answer, GuestAddress(0x10000))?;
//! let answer = Header::from_bytes(&answer);
//! assert_eq!((answer.op, answer.src_port, answer.dst_port), (op::RESPONSE, 1234, 99));
//! assert!(host.accept(1234).is_some());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Streams only are offered, no sequences of packets. Headers are parsed here, from bytes: rust-vmm's `virtio-vsock` has
//! a type for packets that is made from the chains of `virtio-queue`, which are not used here, and the numbers of the
//! specification that are needed ([`spec`]) are fewer than the crates that have them would bring.
//!
//! # The flow of bytes
//!
//! No call waits, and no byte is copied that need not be: payload goes from guest RAM to the host's socket and back by one
//! system call for a packet. What the socket does not take at once is kept, up to the room that the guest has been told
//! of: 8 KiB to 256 KiB for a stream, 64 MiB for all together. It is told of room again when half of it has become free.
//! Packets for the guest are made when it gives buffers for them, so that none queue up: a stream knows what it owes the
//! guest, and streams take turns, those first who owe something other than payload. What the guest has no room for is
//! left in the host's socket.
//!
//! A packet for the guest is not made smaller than 4 KiB by what little room the guest has left, and the packets that it
//! has not taken are counted: Linux resets a stream whose packets cost it more than their bytes (since 6.12.92).
//!
//! # How streams end
//!
//! Each direction for itself, both ways: `shutdown(2)` in the guest is a `shutdown(2)` of the Unix socket, and the other way
//! round. A program on the host that closes its end or dies ends both directions, after what it had sent. The guest is
//! given eight seconds to agree, as Linux gives its peers. What the guest had sent before it closed its end is still given
//! to the host, whose program may take eight seconds for each part of it; the guest need not wait for that, and may use
//! the stream's name again at once.
//!
//! # A hostile guest
//!
//! There are as many streams as the device is given, 4,096 unless one says otherwise; a request for more is refused. A
//! packet that is not allowed where a stream is, or that has more payload than there is room for or than it says, resets
//! its stream. What belongs to no stream is answered with RST, by up to 256 answers that wait for the guest to have
//! room; then its packets wait, too. A RST is never answered. Short packets and those with others' source addresses are
//! ignored and counted ([`Vsock::ignored`]). A guest that claims to have taken more than it got has no room; one that
//! never has any keeps its streams from going on, and nothing else. A receive buffer with no room for a header and a byte
//! makes the device need a reset.
//!
//! # A hostile host
//!
//! Programs that connect and do not say with what are dropped after five seconds, or when there are more than 128 of
//! them. Half a line, a wrong one, or one with bytes of the stream behind it: each is what it is. A socket on which nobody
//! accepts does not keep the device: it is tried again for two seconds, as long as Linux waits for a connection.
//!
//! # What is saved
//!
//! Streams are not. A device that was restored tells its driver so (VIRTIO_VSOCK_EVENT_TRANSPORT_RESET), and lets no new
//! stream begin before the driver has heard it, as it would take that for one of those that are gone.

mod backend;
mod backlog;
mod config;
mod credit;
mod deliver;
mod device;
mod ends;
mod error;
mod header;
mod host;
mod interruption;
mod refusals;
mod rota;
pub mod spec;
mod state;
mod stream;
mod streams;
mod transmit;

pub use backend::{Backend, Event, MAX_PATH, MemoryHost, MemoryStream, Parts, UnixHost};
pub use config::{MAX_STREAMS, VsockConfig};
pub use device::Vsock;
pub use error::VsockError;
pub use header::Header;
pub use state::VsockState;
