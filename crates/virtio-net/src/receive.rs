//! Frames for the guest (§5.1.6.3, §5.1.6.4).

use std::io;
use std::time::Duration;

use goldcrest_rate_limiter::Clock;
use goldcrest_virtio::{ActiveQueue, DeviceError, DeviceIo, Features, QueueError, Ram};

use crate::device::{Lane, Receiving, misused, queues_of};
use crate::room::Room;
use crate::spec::{ETHERNET_HEADER, MAX_FRAME, PLAIN_FRAME, VLAN_TAG, feature, header, queue};
use crate::stats::count;
use crate::{Net, NetBackend, NetConfig, NetStats};

/// The most frames that one call moves or drops.
const FRAMES: u16 = queue::SIZE;
/// And the most bytes, so that the driver is told of the first of many long frames while the others come.
const BYTES: u64 = 128 << 10;
/// How long a frame that does not fit waits for the driver to make room. Who makes none must not keep those behind it.
const HOLD: Duration = Duration::from_millis(100);
/// When a backend that failed is asked again.
const RETRY: Duration = Duration::from_millis(100);
/// Bytes of the shortest frame with its header.
const SHORTEST: u64 = (header::SIZE + ETHERNET_HEADER) as u64;

impl<B: NetBackend> Net<B> {
    /// Gives the driver frames, as far as there are both frames and room.
    #[inline]
    pub(crate) fn receive(&mut self, pair: u16, io: &mut DeviceIo<'_>) -> Result<(), DeviceError> {
        let index = queues_of(pair).0;
        let Some(lane) = self.lanes.get_mut(usize::from(pair)) else {
            return Ok(());
        };
        lane.wants_frames = false;
        lane.more = false;
        lane.retry = None;
        let Some(mut queue) = io.queue(index) else {
            return Ok(());
        };
        let (ram, mut left, mut moved) = (queue.ram(), FRAMES, 0);
        loop {
            let wanted = self.receiving.wanted;
            lane.room.fill(&mut queue, index, wanted)?;
            if lane.room.is_empty() || !self.receiving.is_paid(&*self.clock) {
                // A frame that waits for room has time until it is tried again.
                lane.held = None;
                return Ok(());
            }
            if left == 0 || moved >= BYTES {
                lane.more = true;
                return Ok(());
            }
            left -= 1;
            let len = match self.backend.receive(pair, ram, lane.room.segments()) {
                Ok(len) => len as u64,
                Err(error) => {
                    let failed = lane.nothing_came(&error, ram, &*self.clock, &mut self.stats);
                    return failed.map_err(misused(index));
                }
            };
            if len > lane.room.bytes() {
                match lane.does_not_fit(&mut queue, index, len, &self.receiving, &*self.clock)? {
                    Misfit::Fits => {}
                    Misfit::Waits => return Ok(()),
                    Misfit::TooLong => {
                        self.backend.discard(pair);
                        count(&mut self.stats.rx_too_long);
                    }
                }
                continue;
            }
            lane.held = None;
            if len < SHORTEST {
                count(&mut self.stats.rx_too_short);
                continue;
            }
            if self.receiving.filtered {
                let to = lane.room.read(ram, header::SIZE as u64);
                if !self
                    .filter
                    .wants(to.map_err(misused(index))?, self.mac.bytes())
                {
                    count(&mut self.stats.rx_filtered);
                    continue;
                }
            }
            let longest = self.receiving.longest;
            if len > longest
                && is_over_mtu(&lane.room, ram, len, longest).map_err(misused(index))?
            {
                count(&mut self.stats.rx_over_mtu);
                continue;
            }
            let buffers = lane.room.buffers_of(len);
            let set = lane.room.set_num_buffers(ram, buffers);
            set.map_err(misused(index))?;
            lane.room.use_up(&mut queue, len);
            let bytes = len - header::SIZE as u64;
            count(&mut self.stats.rx_frames);
            self.stats.rx_bytes = self.stats.rx_bytes.wrapping_add(bytes);
            self.receiving.owe(bytes);
            moved += len;
        }
    }
}

/// What becomes of a frame that is longer than the room was.
enum Misfit {
    /// There is room for it now.
    Fits,
    /// There may be.
    Waits,
    /// There will not be.
    TooLong,
}

impl Lane {
    /// There is no frame, for now or because the network failed.
    #[cold]
    fn nothing_came(
        &mut self,
        error: &io::Error,
        ram: Ram<'_>,
        clock: &dyn Clock,
        stats: &mut NetStats,
    ) -> Result<(), QueueError> {
        if error.kind() == io::ErrorKind::WouldBlock {
            self.held = None;
            self.wants_frames = true;
            return Ok(());
        }
        if let Some(outside) = self.room.outside(ram) {
            return Err(outside);
        }
        count(&mut stats.rx_errors);
        self.retry = Some(clock.now().saturating_add(RETRY));
        Ok(())
    }

    /// A frame of `len` bytes is longer than the room: it waits for more, if more can come, and not for ever.
    #[cold]
    fn does_not_fit(
        &mut self,
        queue: &mut ActiveQueue<'_>,
        index: u16,
        len: u64,
        receiving: &Receiving,
        clock: &dyn Clock,
    ) -> Result<Misfit, DeviceError> {
        if receiving.mergeable && len <= MAX_FRAME as u64 {
            self.room.fill(queue, index, len)?;
            if self.room.bytes() >= len {
                return Ok(Misfit::Fits);
            }
            if !self.room.is_full() && self.room.count() < usize::from(queue.size()) {
                let now = clock.now();
                if now < *self.held.get_or_insert(now.saturating_add(HOLD)) {
                    return Ok(Misfit::Waits);
                }
            }
        }
        self.held = None;
        Ok(Misfit::TooLong)
    }
}

/// Whether the frame that has been written to the room is longer than the driver was told frames are (§5.1.4.1), and not
/// one that will be cut.
#[cold]
fn is_over_mtu(room: &Room, ram: Ram<'_>, len: u64, longest: u64) -> Result<bool, QueueError> {
    let [kind] = room.read(ram, header::GSO_TYPE)?;
    let ethertype = room.read(ram, (header::SIZE + 12) as u64)?;
    let tag = match u16::from_be_bytes(ethertype) {
        0x8100 | 0x88a8 => VLAN_TAG as u64,
        _ => 0,
    };
    Ok(kind & !header::GSO_ECN == header::GSO_NONE && len > longest + tag)
}

impl Receiving {
    /// Takes over what follows from the features.
    pub(crate) fn set_up(&mut self, agreed: Features, config: &NetConfig) {
        let overhead = header::SIZE + ETHERNET_HEADER;
        self.mergeable = agreed.has(feature::MRG_RXBUF);
        let mtu = config.mtu.filter(|_| agreed.has(feature::MTU));
        let with_mtu = mtu.map(|mtu| usize::from(mtu) + overhead);
        self.longest = with_mtu.map_or(u64::MAX, |longest| longest as u64);
        let longest = match agreed.0 & feature::GUEST_GSO {
            0 => with_mtu.unwrap_or(PLAIN_FRAME).max(PLAIN_FRAME),
            _ => MAX_FRAME,
        };
        // Without merging, a frame has one buffer.
        self.wanted = if self.mergeable { longest as u64 } else { 1 };
    }

    /// Whether what has been moved is within the limit.
    #[inline]
    fn is_paid(&mut self, clock: &dyn Clock) -> bool {
        self.owed == 0 || self.pay(clock.now())
    }

    #[inline]
    fn owe(&mut self, bytes: u64) {
        if self.limiter.is_limited() {
            self.owed = bytes;
        }
    }

    #[cold]
    fn pay(&mut self, now: Duration) -> bool {
        match self.limiter.take(now, 1, self.owed) {
            Ok(()) => {
                self.owed = 0;
                self.limited = None;
                true
            }
            Err(at) => {
                self.limited = Some(at);
                false
            }
        }
    }
}
