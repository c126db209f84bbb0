//! Where frames go to and come from.

mod loopback;
mod tap;

use std::io;

use goldcrest_virtio::{Features, Ram, Segment, Waits};

use crate::Header;

pub use loopback::Loopback;
pub use tap::{PlainTap, Tap, TapConfig, TapError};

/// A network, as a device is connected to it.
///
/// No call waits: what would is [`WouldBlock`](io::ErrorKind::WouldBlock), and [`waits`](Self::waits) then says for what.
pub trait NetBackend: Send {
    /// The offloads that it can do, as the feature bits of [`HOST_OFFLOADS`](crate::spec::feature::HOST_OFFLOADS) and
    /// [`GUEST_OFFLOADS`](crate::spec::feature::GUEST_OFFLOADS). It is asked when the device is made.
    fn features(&self) -> u64;

    /// How many pairs of queues it has, of which some may be used.
    fn queue_pairs(&self) -> u16 {
        1
    }

    /// The driver is ready, or changes its mind: from now on these features hold, and frames go by the first `pairs`
    /// pairs of queues. Frames for the guest need no offload that is not among them.
    ///
    /// # Errors
    ///
    /// If the host does not let it; then what held before still does.
    fn start(&mut self, agreed: Features, pairs: u16) -> io::Result<()>;

    /// Sends a frame that lies in `frame`, parts of guest RAM, and is what its header says: the header asks for nothing
    /// that was not agreed on, and what it names lies in the frame, which has from 14 to 65,550 bytes.
    ///
    /// # Errors
    ///
    /// [`WouldBlock`](io::ErrorKind::WouldBlock) if it must be sent again later; any other if it is lost.
    fn send(
        &mut self,
        pair: u16,
        ram: Ram<'_>,
        header: &Header,
        frame: &[Segment],
    ) -> io::Result<()>;

    /// The guest has nothing more to send for now: what a backend does for several frames at once it does here.
    fn flush(&mut self) {}

    /// Writes the next frame for the guest, preceded by its [`Header`], to the beginning of `room`, parts of guest RAM,
    /// and takes it from the network. Returns how many bytes that were, with the header; `num_buffers` is of no
    /// interest.
    ///
    /// More bytes than `room` has mean that the frame does not fit and has not been taken: `room` may hold anything, and
    /// the next call gives the same frame, unless it is [discarded](Self::discard).
    ///
    /// # Errors
    ///
    /// [`WouldBlock`](io::ErrorKind::WouldBlock) if there is none; any other if something went wrong, or a part of
    /// `room` is not RAM.
    fn receive(&mut self, pair: u16, ram: Ram<'_>, room: &[Segment]) -> io::Result<usize>;

    /// Throws the next frame away: one that [`receive`](Self::receive) said does not fit.
    fn discard(&mut self, pair: u16);

    /// Whether there are frames for the guest right now, for those who know without a system call: what the guest sends
    /// is then answered before it goes on.
    fn has_frames(&self) -> bool {
        false
    }

    /// Adds what a pair waits for: for frames if the guest has room (`receive`), for room if the guest has frames
    /// (`send`).
    fn waits(&self, pair: u16, receive: bool, send: bool, waits: &mut Waits);

    /// Does what is due. Called before anything else when something that it waits for may have happened.
    fn poll(&mut self) {}

    /// Whether it is connected.
    fn link_up(&self) -> bool {
        true
    }

    /// The driver has given up: nothing is to be done until it [starts](Self::start) again.
    fn reset(&mut self);
}

/// A network whose kind is known when the machine is made.
impl<B: NetBackend + ?Sized> NetBackend for Box<B> {
    fn features(&self) -> u64 {
        (**self).features()
    }

    fn queue_pairs(&self) -> u16 {
        (**self).queue_pairs()
    }

    fn start(&mut self, agreed: Features, pairs: u16) -> io::Result<()> {
        (**self).start(agreed, pairs)
    }

    fn send(
        &mut self,
        pair: u16,
        ram: Ram<'_>,
        header: &Header,
        frame: &[Segment],
    ) -> io::Result<()> {
        (**self).send(pair, ram, header, frame)
    }

    fn flush(&mut self) {
        (**self).flush();
    }

    fn receive(&mut self, pair: u16, ram: Ram<'_>, room: &[Segment]) -> io::Result<usize> {
        (**self).receive(pair, ram, room)
    }

    fn discard(&mut self, pair: u16) {
        (**self).discard(pair);
    }

    fn has_frames(&self) -> bool {
        (**self).has_frames()
    }

    fn waits(&self, pair: u16, receive: bool, send: bool, waits: &mut Waits) {
        (**self).waits(pair, receive, send, waits);
    }

    fn poll(&mut self) {
        (**self).poll();
    }

    fn link_up(&self) -> bool {
        (**self).link_up()
    }

    fn reset(&mut self) {
        (**self).reset();
    }
}
