//! The network card as smoltcp has it.

use smoltcp::phy;
use smoltcp::time::Instant;

use super::spec::{ETHERNET, feature};
use super::{Checksum, Frame, Net, send};
use crate::time;
use crate::virtio::buffers::Buffers;
use crate::virtio::{Error, Registers};

/// Nanoseconds until smoltcp is asked again when there was no room for what it had to send.
const PATIENCE: u64 = 10_000_000;

impl Net {
    /// The time, for smoltcp: that of [`now_ns`](crate::time::now_ns).
    pub fn now() -> Instant {
        Instant::from_micros(i64::try_from(time::now_ns() / 1000).unwrap_or(i64::MAX))
    }
}

/// What a device says of its checksums is made use of: smoltcp neither computes nor verifies what the host takes care of,
/// and a frame that nobody vouches for is verified here, before smoltcp sees it.
///
/// The device is told of frames by [`flush`](Net::flush) or [`wait`](Net::wait): one of them follows after polling the
/// interface, and says, too, if the device misbehaved. [`wait_until`](Net::wait_until) is made for what the interface
/// says of the time.
impl<R: Registers> phy::Device for Net<R> {
    type RxToken<'a>
        = RxToken<'a>
    where
        Self: 'a;
    type TxToken<'a>
        = TxToken<'a>
    where
        Self: 'a;

    fn receive(&mut self, _: Instant) -> Option<(RxToken<'_>, TxToken<'_>)> {
        if !self.has_room() {
            return None;
        }
        let leave_to_host = self.completes_checksums();
        let len = match self.next_right_frame() {
            Ok(len) => len?,
            Err(error) => {
                self.failure = Some(error);
                return None;
            }
        };
        let frame = Frame {
            buffers: &mut self.receive,
            len,
        };
        let buffers = &mut self.transmit;
        Some((
            RxToken { frame },
            TxToken {
                buffers,
                leave_to_host,
            },
        ))
    }

    fn transmit(&mut self, _: Instant) -> Option<TxToken<'_>> {
        let leave_to_host = self.completes_checksums();
        self.has_room().then_some(TxToken {
            buffers: &mut self.transmit,
            leave_to_host,
        })
    }

    fn capabilities(&self) -> phy::DeviceCapabilities {
        let mut capabilities = phy::DeviceCapabilities::default();
        capabilities.medium = phy::Medium::Ethernet;
        capabilities.max_transmission_unit = ETHERNET + usize::from(self.mtu());
        let checksum = match (
            self.transport.has(feature::GUEST_CSUM),
            self.completes_checksums(),
        ) {
            (false, false) => phy::Checksum::Both,
            (false, true) => phy::Checksum::Rx,
            (true, false) => phy::Checksum::Tx,
            (true, true) => phy::Checksum::None,
        };
        capabilities.checksum.tcp = checksum;
        capabilities.checksum.udp = checksum;
        capabilities
    }
}

impl<R: Registers> Net<R> {
    /// As [`wait`](Self::wait), until what `smoltcp::iface::Interface::poll_at` gives.
    ///
    /// # Errors
    ///
    /// Those of [`wait`](Self::wait).
    pub fn wait_until(&mut self, poll_at: Option<Instant>) -> Result<bool, Error> {
        let micros = poll_at.map(|at| u64::try_from(at.total_micros()).unwrap_or(0));
        let mut deadline = micros.map(|micros| micros.saturating_mul(1000));
        if self.congested {
            // What cannot be sent is due all the time.
            let later = time::now_ns().saturating_add(PATIENCE);
            deadline = deadline.map(|deadline| deadline.max(later));
        }
        self.wait(deadline)
    }

    /// As [`next_frame`](Self::next_frame), without those whose checksum is wrong if it is here that this is looked for.
    fn next_right_frame(&mut self) -> Result<Option<usize>, Error> {
        let verify = self.transport.has(feature::GUEST_CSUM);
        for _ in 0..self.receive.size() {
            let Some(len) = self.next_frame()? else {
                break;
            };
            let buffers = &mut self.receive;
            let frame = core::mem::ManuallyDrop::new(Frame { buffers, len });
            if !verify || frame.is_intact() {
                return Ok(Some(len));
            }
            self.pass_over();
        }
        Ok(None)
    }

    /// As [`make_room`](Self::make_room); an error is kept for later.
    fn has_room(&mut self) -> bool {
        match self.make_room() {
            Ok(room) => room,
            Err(error) => {
                self.failure = Some(error);
                false
            }
        }
    }
}

/// A frame that was received.
#[derive(Debug)]
pub struct RxToken<'a> {
    frame: Frame<'a>,
}

impl phy::RxToken for RxToken<'_> {
    fn consume<T, F: FnOnce(&[u8]) -> T>(self, f: F) -> T {
        f(&self.frame)
    }
}

/// Room for a frame to send.
#[derive(Debug)]
pub struct TxToken<'a> {
    buffers: &'a mut Buffers,
    leave_to_host: bool,
}

impl phy::TxToken for TxToken<'_> {
    fn consume<T, F: FnOnce(&mut [u8]) -> T>(self, len: usize, f: F) -> T {
        let leave_to_host = self.leave_to_host;
        send(self.buffers, len, |frame| {
            let result = f(frame);
            let checksum = if leave_to_host {
                Checksum::leave_to_host(frame)
            } else {
                Checksum::Complete
            };
            (checksum, result)
        })
    }
}
