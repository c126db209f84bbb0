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
            deadline = deadline.map(|due| due.max(time::now_ns().saturating_add(PATIENCE)));
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

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
mod tests {
    use std::collections::VecDeque;
    use std::vec::Vec;

    use smoltcp::iface::{Config, Interface, SocketSet, SocketStorage};
    use smoltcp::phy::{DeviceCapabilities, Medium};
    use smoltcp::socket::tcp;
    use smoltcp::wire::{EthernetAddress, IpCidr, Ipv4Address};

    use super::super::tests::{Wire, fake};
    use super::*;
    use crate::virtio::fake::Fake;

    const PORT: u16 = 80;
    const SERVER: Ipv4Address = Ipv4Address::new(10, 0, 0, 1);
    const CLIENT: Ipv4Address = Ipv4Address::new(10, 0, 0, 2);

    /// Where the client is: it computes and verifies every checksum.
    #[derive(Default)]
    struct Cable {
        arriving: VecDeque<Vec<u8>>,
        sent: VecDeque<Vec<u8>>,
    }

    struct Arrived(Vec<u8>);
    struct Room<'a>(&'a mut VecDeque<Vec<u8>>);

    impl phy::RxToken for Arrived {
        fn consume<T, F: FnOnce(&[u8]) -> T>(self, f: F) -> T {
            f(&self.0)
        }
    }

    impl phy::TxToken for Room<'_> {
        fn consume<T, F: FnOnce(&mut [u8]) -> T>(self, len: usize, f: F) -> T {
            let mut frame = std::vec![0; len];
            let result = f(&mut frame);
            self.0.push_back(frame);
            result
        }
    }

    impl phy::Device for Cable {
        type RxToken<'a> = Arrived;
        type TxToken<'a> = Room<'a>;

        fn receive(&mut self, _: Instant) -> Option<(Arrived, Room<'_>)> {
            let frame = self.arriving.pop_front()?;
            Some((Arrived(frame), Room(&mut self.sent)))
        }

        fn transmit(&mut self, _: Instant) -> Option<Room<'_>> {
            Some(Room(&mut self.sent))
        }

        fn capabilities(&self) -> DeviceCapabilities {
            let mut capabilities = DeviceCapabilities::default();
            capabilities.medium = Medium::Ethernet;
            capabilities.max_transmission_unit = 1514;
            capabilities
        }
    }

    fn interface(device: &mut impl phy::Device, mac: [u8; 6], address: Ipv4Address) -> Interface {
        let config = Config::new(EthernetAddress(mac).into());
        let mut interface = Interface::new(config, device, Instant::ZERO);
        let address = IpCidr::new(address.into(), 24);
        interface.update_ip_addrs(|addresses| addresses.push(address).unwrap());
        interface
    }

    /// What the wire does to frames.
    struct Path {
        net: Net<Fake>,
        wire: Wire,
        cable: Cable,
        carried: usize,
    }

    impl Path {
        /// Carries what was sent to the other side. Some frames to the server come with a checksum to be completed, some were
        /// verified, some are damaged.
        fn carry(&mut self) {
            self.net.flush().unwrap();
            for bytes in self.wire.take() {
                let (header, frame) = bytes.split_at(12);
                let mut frame = frame.to_vec();
                if let Checksum::Partial { start, offset } = Checksum::from_header(header) {
                    assert!(self.net.completes_checksums());
                    super::super::checksum::complete(&mut frame, start, offset);
                }
                self.cable.arriving.push_back(frame);
            }
            while let Some(mut frame) = self.cable.sent.pop_front() {
                let mut header = [0; 12];
                let offloaded = self.net.transport.has(feature::GUEST_CSUM);
                self.carried += 1;
                let last = frame.len() - 1;
                match self.carried % 10 {
                    3 if offloaded => {
                        Checksum::leave_to_host(&mut frame).to_header(&mut header);
                    }
                    5 if offloaded => header[0] = 2,
                    7 => frame[last] ^= 1,
                    _ => {}
                }
                self.wire.send(&mut self.net, header, &frame);
            }
            self.net.transport.registers().work();
        }
    }

    /// Has a client send so many bytes to a server, which sends them back.
    fn transfer(features: u64, len: usize) -> u64 {
        let (mut fake, wire) = fake();
        fake.offered |= features;
        let mut path = Path {
            net: Net::with_registers(fake).unwrap(),
            wire,
            cable: Cable::default(),
            carried: 0,
        };
        let mac = path.net.mac();
        let mut server = interface(&mut path.net, mac, SERVER);
        let mut client = interface(&mut path.cable, [2; 6], CLIENT);
        let mut buffers = [[0; 20_000]; 4];
        let [a, b, c, d] = &mut buffers;
        let socket = |rx, tx| tcp::Socket::new(rx, tx);
        let mut storage = [SocketStorage::EMPTY, SocketStorage::EMPTY];
        let [here, there] = &mut storage;
        let mut here = SocketSet::new(core::slice::from_mut(here));
        let mut there = SocketSet::new(core::slice::from_mut(there));
        let listening = here.add(socket(
            tcp::SocketBuffer::new(&mut a[..]),
            tcp::SocketBuffer::new(&mut b[..]),
        ));
        let calling = there.add(socket(
            tcp::SocketBuffer::new(&mut c[..]),
            tcp::SocketBuffer::new(&mut d[..]),
        ));
        here.get_mut::<tcp::Socket<'_>>(listening)
            .listen(PORT)
            .unwrap();
        let caller = there.get_mut::<tcp::Socket<'_>>(calling);
        caller
            .connect(client.context(), (SERVER, PORT), 5000)
            .unwrap();
        let (mut sent, mut back) = (0, 0);
        for milli in 0..1_000_000 {
            let now = Instant::from_millis(milli * 10);
            server.poll(now, &mut path.net, &mut here);
            client.poll(now, &mut path.cable, &mut there);
            path.carry();
            let echo = here.get_mut::<tcp::Socket<'_>>(listening);
            let mut bytes = [0; 5000];
            if echo.send_capacity() - echo.send_queue() >= bytes.len() && echo.can_recv() {
                let len = echo.recv_slice(&mut bytes).unwrap();
                assert_eq!(echo.send_slice(&bytes[..len]), Ok(len));
            }
            let caller = there.get_mut::<tcp::Socket<'_>>(calling);
            if caller.can_send() && sent < len {
                let more: Vec<_> = (sent..len.min(sent + 3000)).map(byte).collect();
                sent += caller.send_slice(&more).unwrap();
            }
            if caller.can_recv() {
                let len = caller.recv_slice(&mut bytes).unwrap();
                assert!(
                    bytes[..len]
                        .iter()
                        .zip(back..)
                        .all(|(found, at)| *found == byte(at))
                );
                back += len;
            }
            if back == len {
                return path.net.dropped();
            }
        }
        panic!("{back} of {len} bytes came back");
    }

    fn byte(at: usize) -> u8 {
        u8::try_from(at % 251).unwrap()
    }

    #[test]
    fn bytes_arrive_unharmed_whoever_takes_care_of_checksums() {
        for features in [0, feature::CSUM, feature::GUEST_CSUM, feature::WANTED] {
            let dropped = transfer(features, 300_000);
            let verified_here = features & feature::GUEST_CSUM != 0;
            assert_eq!(dropped != 0, verified_here, "{features:#x}: {dropped}");
        }
    }

    #[test]
    fn a_device_that_misbehaves_is_told_of_by_the_next_wait() {
        let (fake, _) = fake();
        let mut net = Net::with_registers(fake).unwrap();
        net.transport.registers().manner = crate::virtio::fake::Manner::Runaway;
        net.transport.registers().budget[0] = 1;
        net.transport.registers().work();
        assert!(phy::Device::receive(&mut net, Instant::ZERO).is_none());
        assert!(phy::Device::transmit(&mut net, Instant::ZERO).is_none());
        assert!(matches!(net.wait_until(None), Err(Error::UsedIndex { .. })));
        assert_eq!(net.wait_until(None), Err(Error::Broken));
    }

    #[test]
    fn without_room_to_send_frames_wait_where_they_are() {
        let (fake, wire) = fake();
        let mut net = Net::with_registers(fake).unwrap();
        net.transport.registers().budget[1] = 0;
        while let Some(room) = phy::Device::transmit(&mut net, Instant::ZERO) {
            phy::TxToken::consume(room, 60, |_| ());
        }
        wire.send(&mut net, [0; 12], &[0; 60]);
        net.transport.registers().work();
        assert!(phy::Device::receive(&mut net, Instant::ZERO).is_none());
        net.transport.registers().budget[1] = 1;
        assert_eq!(net.wait_until(None), Ok(true));
        assert!(phy::Device::receive(&mut net, Instant::ZERO).is_some());
    }
}
