//! Network cards (virtio 1.3 §5.1).

mod checksum;
#[cfg(feature = "smoltcp")]
mod smoltcp;
mod spec;
#[cfg(test)]
mod tests;

use super::buffers::Buffers;
use super::queue::Used;
use super::transport::Transport;
use super::{Device, Error, Mmio, Registers, first, id};
pub use checksum::Checksum;
use spec::{DEFAULT_MTU, ETHERNET, LINK_UP, MIN_MTU, VLAN_TAG, feature, header, offset};

/// Frames that are on their way at once, in each direction.
const QUEUE_SIZE: u16 = 256;

/// A network card: sends and receives Ethernet frames.
///
/// Frames stay where the device puts them: [`receive`](Self::receive) lends one out in place, and
/// [`transmit`](Self::transmit) has one written where the device reads it. The device is told of what was sent, and of
/// the buffers that it gets back, by [`flush`](Self::flush) or before [`wait`](Self::wait) halts: one exit to the host
/// may cost more than a hundred frames, so that there is one for all that has come together. No interrupt is taken but
/// to end a wait.
///
/// ```no_run
/// use goldcrest_guest::virtio::{Error, Net};
///
/// /// Sends every frame back to whoever it is from.
/// fn reflect(card: &mut Net) -> Result<(), Error> {
///     loop {
///         let arrived = card.receive()?.map(|frame| frame.to_vec());
///         let Some(mut bytes) = arrived else {
///             card.wait(None)?;
///             continue;
///         };
///         let (to, from) = bytes[..12].split_at_mut(6);
///         to.swap_with_slice(from);
///         card.transmit(bytes.len(), |frame| frame.copy_from_slice(&bytes))?;
///     }
/// }
/// ```
///
/// With the feature `smoltcp` it is a `smoltcp::phy::Device`, so that the whole of TCP/IP is at hand.
#[derive(Debug)]
pub struct Net<R: Registers = Mmio> {
    /// First, so that the device is reset before memory that it uses is freed.
    transport: Transport<R>,
    receive: Buffers,
    transmit: Buffers,
    mac: [u8; 6],
    mtu: u16,
    /// A frame could not be sent for want of room, which the next wait is for.
    congested: bool,
    /// What was wrong with the device when nobody could be told.
    failure: Option<Error>,
    dropped: u64,
}

impl Net {
    /// Drives the machine's first network card.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`], and those of [`new`](Self::new).
    pub fn first() -> Result<Self, Error> {
        Self::new(first(id::NETWORK)?)
    }

    /// Drives a network card. It is reset first.
    ///
    /// # Errors
    ///
    /// If the device is no network card, or none that this driver can drive.
    pub fn new(device: Device) -> Result<Self, Error> {
        Self::with_registers(Mmio::new(device))
    }
}

impl<R: Registers> Net<R> {
    /// Drives the network card with these registers.
    ///
    /// # Errors
    ///
    /// Those of [`Net::new`].
    pub fn with_registers(registers: R) -> Result<Self, Error> {
        let mut transport = Transport::start(registers, id::NETWORK, feature::WANTED)?;
        let mtu = if transport.has(feature::MTU) {
            transport.config_u16(offset::MTU)
        } else {
            DEFAULT_MTU
        };
        if mtu < MIN_MTU {
            return Err(Error::Answer { found: mtu.into() });
        }
        let len = header::LEN + ETHERNET + VLAN_TAG + usize::from(mtu.max(DEFAULT_MTU));
        let receive = Buffers::new(&mut transport, spec::RECEIVE, QUEUE_SIZE, len)?;
        let transmit = Buffers::new(&mut transport, spec::TRANSMIT, QUEUE_SIZE, len)?;
        let mac = mac(&transport);
        transport.run();
        let mut net = Self {
            transport,
            receive,
            transmit,
            mac,
            mtu,
            congested: false,
            failure: None,
            dropped: 0,
        };
        net.receive.lend_all();
        net.transport.publish(net.receive.queue());
        Ok(net)
    }

    /// The card's address. Where the host gives none, one that is administered locally.
    pub fn mac(&self) -> [u8; 6] {
        self.mac
    }

    /// Bytes that a frame has at most after its Ethernet header.
    pub fn mtu(&self) -> u16 {
        self.mtu
    }

    /// Whether the link is up, as far as the host says.
    pub fn is_up(&self) -> bool {
        !self.transport.has(feature::STATUS)
            || self.transport.config_u16(offset::STATUS) & LINK_UP != 0
    }

    /// Whether the host completes checksums: [`transmit_with`](Self::transmit_with) takes [`Checksum::Partial`].
    pub fn completes_checksums(&self) -> bool {
        self.transport.has(feature::CSUM)
    }

    /// Frames that were received and not passed on, as they were no Ethernet frames, or their checksum was wrong.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    /// The next frame that has arrived, if there is one. Its buffer is the device's again when it is dropped.
    ///
    /// # Errors
    ///
    /// If the device misbehaves.
    pub fn receive(&mut self) -> Result<Option<Frame<'_>>, Error> {
        let buffers = match self.next_frame()? {
            Some(len) => Some((&mut self.receive, len)),
            None => None,
        };
        Ok(buffers.map(|(buffers, len)| Frame { buffers, len }))
    }

    /// Has a frame of `len` bytes written by `fill`, and sends it with the next [`flush`](Self::flush) or
    /// [`wait`](Self::wait). Before `fill` the bytes are whatever was sent earlier.
    ///
    /// # Errors
    ///
    /// [`Error::Full`] if the device has not yet sent what it was given: [`wait`](Self::wait) ends when it has.
    /// [`Error::TooLong`], and if the device misbehaves; `fill` is not called then.
    pub fn transmit<T>(
        &mut self,
        len: usize,
        fill: impl FnOnce(&mut [u8]) -> T,
    ) -> Result<T, Error> {
        self.transmit_with(len, |frame| (Checksum::Complete, fill(frame)))
    }

    /// As [`transmit`](Self::transmit); `fill` says beside what is to be done about the checksum, which is
    /// [`Checksum::Partial`] only if the host [completes](Self::completes_checksums) it.
    ///
    /// # Errors
    ///
    /// Those of [`transmit`](Self::transmit).
    pub fn transmit_with<T>(
        &mut self,
        len: usize,
        fill: impl FnOnce(&mut [u8]) -> (Checksum, T),
    ) -> Result<T, Error> {
        let limit = self.max_frame();
        if len > limit {
            return Err(Error::TooLong { len, limit });
        }
        if !self.make_room()? {
            return Err(Error::Full);
        }
        Ok(send(&mut self.transmit, len, fill))
    }

    /// Tells the device of all that was sent, and of the buffers that it has back. Without this, it may or may not know.
    ///
    /// # Errors
    ///
    /// If the device misbehaves.
    pub fn flush(&mut self) -> Result<(), Error> {
        self.check()?;
        for buffers in [&mut self.transmit, &mut self.receive] {
            if buffers.queue().unpublished() != 0 {
                self.transport.publish(buffers.queue());
            }
        }
        Ok(())
    }

    /// Tells the device of what was sent, then halts until a frame has arrived or the time of
    /// [`now_ns`](crate::time::now_ns) reaches `deadline`. Says whether it was not the deadline that ended it. After
    /// [`Error::Full`] it is room that is waited for, not a frame.
    ///
    /// # Errors
    ///
    /// If the device misbehaves.
    pub fn wait(&mut self, deadline: Option<u64>) -> Result<bool, Error> {
        self.flush()?;
        let buffers = if core::mem::take(&mut self.congested) {
            &mut self.transmit
        } else {
            &mut self.receive
        };
        self.transport.wait_for([buffers.queue()], deadline)
    }

    /// Bytes that a frame has at most.
    fn max_frame(&self) -> usize {
        ETHERNET + VLAN_TAG + usize::from(self.mtu)
    }

    /// [`Error::Broken`] if the device was shut down, after what it was shut down for.
    fn check(&mut self) -> Result<(), Error> {
        match self.failure.take() {
            Some(error) => Err(error),
            None => self.transport.check(),
        }
    }

    /// Takes the next frame that has arrived, so that its buffer is the next to be lent. Gives its bytes, with the header
    /// of virtio.
    fn next_frame(&mut self) -> Result<Option<usize>, Error> {
        self.check()?;
        self.receive.lend_all();
        // The device gets its buffers back long before it runs out of them, but not one by one.
        if self.receive.queue().unpublished() >= self.receive.size() / 2 {
            self.transport.publish(self.receive.queue());
        }
        // However fast runts arrive, it is not without end that they are passed over.
        for _ in 0..self.receive.size() {
            let Some(used) = self.receive.take(&mut self.transport)? else {
                return Ok(None);
            };
            let len = self.measure(used)?;
            if len >= header::LEN + ETHERNET {
                return Ok(Some(len));
            }
            self.pass_over();
        }
        Ok(None)
    }

    /// Bytes of what was received, its header included.
    fn measure(&mut self, used: Used) -> Result<usize, Error> {
        let (len, limit) = (used.len, 12);
        if len < limit {
            self.transport.shut_down();
            return Err(Error::Short { len, limit });
        }
        Ok(usize::try_from(len).unwrap_or(usize::MAX))
    }

    /// Gives the buffer back to the device that was taken from it last.
    fn pass_over(&mut self) {
        self.dropped += 1;
        self.receive.lend_all();
    }

    /// Whether there is room for a frame, for which the device may be told of those before.
    fn make_room(&mut self) -> Result<bool, Error> {
        self.check()?;
        // What was sent lately is in the cache: its buffers are used again rather than all in turn.
        if self.transmit.free() <= self.transmit.size() / 2 {
            self.reclaim()?;
        }
        if self.transmit.free() == 0 && self.transmit.queue().unpublished() != 0 {
            self.transport.publish(self.transmit.queue());
            self.reclaim()?;
        }
        self.congested |= self.transmit.free() == 0;
        Ok(self.transmit.free() != 0)
    }

    fn reclaim(&mut self) -> Result<(), Error> {
        while self.transmit.take(&mut self.transport)?.is_some() {}
        Ok(())
    }
}

/// A frame that was received: its bytes, from the Ethernet header on.
#[derive(Debug)]
pub struct Frame<'a> {
    buffers: &'a mut Buffers,
    /// Bytes, with the header of virtio.
    len: usize,
}

impl Frame<'_> {
    /// What is known of the checksum of what the frame carries: a host on the same machine may leave it incomplete.
    pub fn checksum(&self) -> Checksum {
        Checksum::from_header(self.parts().0)
    }

    /// Whether nothing is wrong with the checksum of a TCP or UDP packet, which is looked at only if nobody else vouches
    /// for it.
    pub fn is_intact(&self) -> bool {
        match self.checksum() {
            Checksum::Partial { .. } | Checksum::Valid => true,
            Checksum::Complete => checksum::is_right(self),
        }
    }

    /// The header of virtio and the frame.
    fn parts(&self) -> (&[u8], &[u8]) {
        let bytes = self.buffers.next().get(..self.len).unwrap_or_default();
        bytes.split_at_checked(header::LEN).unwrap_or_default()
    }
}

impl core::ops::Deref for Frame<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.parts().1
    }
}

impl Drop for Frame<'_> {
    fn drop(&mut self) {
        self.buffers.lend_all();
    }
}

/// Has a frame written into the next buffer, of which there has to be one, and lends it to the device.
fn send<T>(buffers: &mut Buffers, len: usize, fill: impl FnOnce(&mut [u8]) -> (Checksum, T)) -> T {
    let all = header::LEN + len;
    let bytes = buffers.next_mut().get_mut(..all).unwrap_or_default();
    let (header, frame) = bytes.split_at_mut_checked(header::LEN).unwrap_or_default();
    let (checksum, result) = fill(frame);
    checksum.to_header(header);
    buffers.lend(Some(all));
    result
}

/// The address that the host gave, or one made up: locally administered, unicast.
fn mac<R: Registers>(transport: &Transport<R>) -> [u8; 6] {
    if !transport.has(feature::MAC) {
        return [0x02, 0x67, 0x63, 0, 0, 0x01];
    }
    let mut mac = [0; 6];
    for (byte, at) in mac.iter_mut().zip(offset::MAC..) {
        *byte = transport.config_u8(at);
    }
    mac
}
