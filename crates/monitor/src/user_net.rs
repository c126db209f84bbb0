//! A network card on the network in this process: between guest RAM and `goldcrest-usernet`.

use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use goldcrest_usernet::{FrameInfo, GsoKind, Network, RxOffload, TxOffload};
use goldcrest_virtio::{Features, Ram, Segment, Waits};
use goldcrest_virtio_net::spec::{feature, header};
use goldcrest_virtio_net::{Header, NetBackend, scatter, total};
use vm_memory::VolatileSlice;

/// The network, and what the guest can do for itself.
pub(crate) struct UserNet {
    network: Network,
    begun: Instant,
    offload: RxOffload,
}

impl UserNet {
    pub(crate) fn new(network: Network) -> Self {
        Self {
            network,
            begun: Instant::now(),
            offload: RxOffload::default(),
        }
    }

    fn now(&self) -> Duration {
        self.begun.elapsed()
    }
}

impl NetBackend for UserNet {
    fn features(&self) -> u64 {
        feature::CSUM
            | feature::HOST_TSO4
            | feature::HOST_TSO6
            | feature::HOST_ECN
            | feature::GUEST_CSUM
            | feature::GUEST_TSO4
            | feature::GUEST_TSO6
    }

    fn start(&mut self, agreed: Features, _pairs: u16) -> io::Result<()> {
        self.offload = rx_offload(agreed);
        Ok(())
    }

    fn send(
        &mut self,
        _pair: u16,
        ram: Ram<'_>,
        header: &Header,
        frame: &[Segment],
    ) -> io::Result<()> {
        self.network.advance(self.now());
        let mut bytes = Bytes::new(ram, frame);
        self.network
            .send(total(frame), &mut bytes, tx_offload(header));
        Ok(())
    }

    fn flush(&mut self) {
        self.network.flush();
    }

    fn receive(&mut self, _pair: u16, ram: Ram<'_>, room: &[Segment]) -> io::Result<usize> {
        self.network.advance(self.now());
        let (network, offload) = (&mut self.network, self.offload);
        give(ram, room, |most, bytes| {
            network.receive(most, offload, bytes)
        })
    }

    /// None is ever too long.
    fn discard(&mut self, _pair: u16) {}

    fn has_frames(&self) -> bool {
        self.network.has_frame()
    }

    fn waits(&self, _pair: u16, _receive: bool, _send: bool, waits: &mut Waits) {
        waits
            .readable
            .extend(self.network.fd().map(|fd| fd.as_raw_fd()));
        if let Some(delay) = self.network.timeout(self.now()) {
            waits.within(delay);
        }
    }

    fn poll(&mut self) {
        self.network.process(self.now());
    }

    fn reset(&mut self) {
        self.offload = RxOffload::default();
    }
}

/// What the guest can do for itself, by the features that were agreed on.
pub(crate) fn rx_offload(agreed: Features) -> RxOffload {
    RxOffload {
        checksum: agreed.has(feature::GUEST_CSUM),
        tso4: agreed.has(feature::GUEST_TSO4),
        tso6: agreed.has(feature::GUEST_TSO6),
    }
}

/// What the guest has left undone of a frame.
pub(crate) fn tx_offload(header: &Header) -> TxOffload {
    TxOffload {
        checksum: header.flags() & header::F_NEEDS_CSUM != 0,
    }
}

/// Gives the guest the next frame, which `next` writes, into `room`, with its header before it.
///
/// # Errors
///
/// As for [`NetBackend::receive`].
pub(crate) fn give(
    ram: Ram<'_>,
    room: &[Segment],
    next: impl FnOnce(usize, &mut Bytes<'_, '_>) -> Option<FrameInfo>,
) -> io::Result<usize> {
    let Some(most) = total(room).checked_sub(header::SIZE) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let mut bytes = Bytes::new(ram, room);
    bytes.skip(header::SIZE);
    let Some(info) = next(most, &mut bytes) else {
        // The network cannot tell whether there was no frame, or no place for it.
        let why = if bytes.failed {
            io::ErrorKind::InvalidInput
        } else {
            io::ErrorKind::WouldBlock
        };
        return Err(why.into());
    };
    scatter(ram, room, 0, &header_of(&info).0).map_err(io::Error::other)?;
    Ok(header::SIZE.saturating_add(info.len))
}

/// What a frame is, as virtio says it.
fn header_of(info: &FrameInfo) -> Header {
    let (flags, start, offset) = match info.checksum {
        Some(checksum) => (header::F_NEEDS_CSUM, checksum.start, checksum.offset),
        None => (0, 0, 0),
    };
    let (kind, header_len, mss) = match info.gso {
        Some(gso) => (gso_type(gso.kind), gso.header_len, gso.mss),
        None => (header::GSO_NONE, 0, 0),
    };
    let [[a, b], [c, d], [e, f], [g, h]] = [header_len, mss, start, offset].map(u16::to_le_bytes);
    Header([flags, kind, a, b, c, d, e, f, g, h, 0, 0])
}

fn gso_type(kind: GsoKind) -> u8 {
    match kind {
        GsoKind::Tcp4 => header::GSO_TCPV4,
        GsoKind::Tcp6 => header::GSO_TCPV6,
    }
}

/// Parts of guest RAM, read or written one after the other.
pub(crate) struct Bytes<'m, 's> {
    ram: Ram<'m>,
    segments: &'s [Segment],
    /// How many bytes of the first of them are done.
    done: u32,
    /// A part was not RAM.
    failed: bool,
}

impl<'m, 's> Bytes<'m, 's> {
    pub(crate) fn new(ram: Ram<'m>, segments: &'s [Segment]) -> Self {
        Self {
            ram,
            segments,
            done: 0,
            failed: false,
        }
    }

    fn skip(&mut self, mut len: usize) {
        while let Some((_, count)) = self.next(len) {
            self.advance(count);
            len -= count;
        }
    }

    /// Where the next bytes begin and how many of `len` lie there; nothing at the end.
    fn next(&mut self, len: usize) -> Option<(u64, usize)> {
        while let Some((first, rest)) = self.segments.split_first() {
            let left = first.len.saturating_sub(self.done);
            if left > 0 {
                let count = usize::try_from(left).unwrap_or(usize::MAX).min(len);
                let address = first.address.wrapping_add(self.done.into());
                return (count > 0).then_some((address, count));
            }
            (self.segments, self.done) = (rest, 0);
        }
        None
    }

    fn advance(&mut self, count: usize) {
        // No more than a segment has.
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        self.done = self.done.saturating_add(count);
    }

    /// The next up to `len` bytes that lie together.
    fn take(&mut self, len: usize) -> io::Result<Option<VolatileSlice<'m>>> {
        let Some((address, count)) = self.next(len) else {
            return Ok(None);
        };
        let slice = self.ram.slice_up_to(address, count);
        self.failed |= slice.is_err();
        let slice = slice.map_err(io::Error::other)?;
        self.advance(slice.len());
        Ok(Some(slice))
    }
}

impl Read for Bytes<'_, '_> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let slice = self.take(bytes.len())?;
        Ok(slice.map_or(0, |slice| slice.copy_to(bytes)))
    }
}

impl Write for Bytes<'_, '_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let slice = self.take(bytes.len())?;
        Ok(slice.map_or(0, |slice| {
            slice.copy_from(bytes);
            slice.len()
        }))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use goldcrest_irq::IrqLine;
    use goldcrest_usernet::{DnsConfig, NetworkConfig};
    use goldcrest_virtio::Mmio;
    use goldcrest_virtio::driver::{Buffer, DriverQueue, initialise, notify, read};
    use goldcrest_virtio::spec::{mmio, status};
    use goldcrest_virtio_net::{Net, NetConfig};
    use vm_memory::{Bytes as _, GuestAddress, GuestMemoryMmap};

    use super::*;

    const RAM: u64 = 0x20000;
    const VERSION_1: u64 = 1 << 32;

    /// What becomes of the answer to a question where the gateway is, with that room for it: the device's status, and
    /// how much of the room was used.
    fn ask(room: u64) -> (u32, Option<u32>) {
        let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 0x20000)]).unwrap();
        let network = NetworkConfig {
            dns: DnsConfig::None,
            ..NetworkConfig::default()
        };
        let backend = UserNet::new(Network::new(network).unwrap());
        let net = Net::new(backend, &NetConfig::default()).unwrap();
        let mut device = Mmio::new(net, memory.clone(), IrqLine::detached());
        let mut rx = DriverQueue::new(&memory, 0, 16);
        let mut tx = DriverQueue::new(&memory, 0x1000, 16);
        initialise(&mut device, VERSION_1, &[&rx, &tx]);
        let mut frame = vec![0; header::SIZE];
        frame.extend([0xff; 6]);
        frame.extend([2, 0, 0, 0, 0, 1]);
        frame.extend([0x08, 0x06, 0, 1, 8, 0, 6, 4, 0, 1]);
        frame.extend([2, 0, 0, 0, 0, 1]);
        frame.extend([10, 0, 2, 15, 0, 0, 0, 0, 0, 0, 10, 0, 2, 2]);
        memory.write_slice(&frame, GuestAddress(0x8000)).unwrap();
        rx.add(&[Buffer::Writable(room, 1526)]);
        notify(&mut device, 0);
        tx.add(&[Buffer::Readable(0x8000, 54)]);
        notify(&mut device, 1);
        let used = rx.used().map(|(_, len)| len);
        (read(&mut device, mmio::STATUS), used)
    }

    #[test]
    fn a_buffer_outside_ram_makes_the_device_need_a_reset() {
        let needs_reset = u32::from(status::DEVICE_NEEDS_RESET);
        let (status, used) = ask(0x9000);
        assert_eq!((status & needs_reset, used), (0, Some(54)));
        for room in [RAM - 20, RAM] {
            let (status, used) = ask(room);
            assert_eq!((status & needs_reset, used), (needs_reset, None));
        }
    }
}
