//! The virtio console device (VIRTIO 1.3 §5.3): ports, each a stream of bytes to and from the guest.
//!
//! [`Console`] is the device. Behind each of its ports is a [`PortBackend`]: [`FilePort`] on descriptors such as
//! standard input and output, a pipe or a file; [`PtyPort`] on a pseudo-terminal; [`SocketPort`] on a Unix socket;
//! [`MemoryPort`] in memory, for tests and fuzzers. A device with several ports speaks the control protocol of §5.3.6.2,
//! by which ports have names and are opened and closed.
//!
//! ```
//! use goldcrest_irq::IrqLine;
//! use goldcrest_virtio::driver::{Buffer, DriverQueue, initialise, notify};
//! use goldcrest_virtio::{Mmio, spec::feature};
//! use goldcrest_virtio_console::{Console, MemoryPort, PortConfig};
//! use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};
//!
//! let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 0x10000)])?;
//! let port = MemoryPort::new(4096);
//! let console = Console::new(vec![PortConfig::console(port.clone())])?;
//! let mut device = Mmio::new(console, memory.clone(), IrqLine::detached());
//!
//! // A driver writes a line.
//! let input = DriverQueue::new(&memory, 0, 64);
//! let mut output = DriverQueue::new(&memory, 0x1000, 64);
//! initialise(&mut device, feature::VERSION_1, &[&input, &output]);
//! memory.write_slice(b"hello\n", GuestAddress(0x8000))?;
//! output.add(&[Buffer::Readable(0x8000, 6)]);
//! notify(&mut device, 1);
//! assert_eq!(port.take_output(), b"hello\n");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # The flow of bytes
//!
//! No call waits. What a backend does not take stays in the guest's buffer, with a note of how much of it is gone; the
//! device then waits until the backend can be written to. What the guest has no room for stays in the host's pipe,
//! terminal or socket, and is not waited for. So nothing is lost, reordered or held in between. Output is dropped, and
//! counted ([`Console::lost`]), while nobody is at a port's other end, as on a wire, or when the host fails to write.
//!
//! # A hostile guest
//!
//! Bytes pass through one buffer that is allocated once. A call moves at most 256 KiB of output, and 4 KiB of input for
//! each buffer. The messages that are owed to the guest are a few bits for each port, so that asking for them without
//! end costs nothing. Control messages that are short, or that name a port or an event that does not exist, are ignored
//! and counted ([`Console::ignored`]). An input buffer without room, or one too short for a control message, makes the
//! device need a reset.

mod backend;
mod control;
mod device;
mod error;
mod port;
pub mod spec;
mod state;

pub use backend::{FilePort, InputFilter, MemoryPort, PortBackend, PtyPort, SocketPort};
pub use device::Console;
pub use error::ConsoleError;
pub use port::PortConfig;
pub use state::{ConsoleState, PortState};
