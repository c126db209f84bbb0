//! Frames for the guest (§5.1.6.3, §5.1.6.4).

use std::io;
use std::time::Duration;

use goldcrest_virtio::{ActiveQueue, DeviceError, DeviceIo, Features, QueueError, Ram};

use crate::device::{Lane, Receiving, misused, queues_of};
use crate::room::Room;
use crate::spec::{ETHERNET_HEADER, MAX_FRAME, PLAIN_FRAME, VLAN_TAG, feature, header, queue};
use crate::stats::count;
use crate::{Net, NetBackend, NetConfig};

/// The most frames that one call moves or drops.
const FRAMES: u16 = queue::SIZE;
/// How long a frame that does not fit waits for the driver to make room. Who makes none must not keep those behind it.
const HOLD: Duration = Duration::from_millis(100);
/// When a backend that failed is asked again.
const RETRY: Duration = Duration::from_millis(100);
/// Bytes of the shortest frame with its header.
const SHORTEST: u64 = (header::SIZE + ETHERNET_HEADER) as u64;

/// What came of asking for a frame.
enum Received {
    /// There may be more.
    Next,
    /// There is nothing to go on with.
    Stop,
}

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
        for _ in 0..FRAMES {
            let Some(lane) = self.lanes.get_mut(usize::from(pair)) else {
                return Ok(());
            };
            lane.room.fill(&mut queue, index, self.receiving.wanted)?;
            if lane.room.count() == 0 || !self.is_paid() {
                return Ok(());
            }
            if let Received::Stop = self.receive_one(pair, index, &mut queue)? {
                return Ok(());
            }
        }
        if let Some(lane) = self.lanes.get_mut(usize::from(pair)) {
            lane.more = true;
        }
        Ok(())
    }

    #[inline(always)]
    fn receive_one(
        &mut self,
        pair: u16,
        index: u16,
        queue: &mut ActiveQueue<'_>,
    ) -> Result<Received, DeviceError> {
        let ram = queue.ram();
        let Some(lane) = self.lanes.get_mut(usize::from(pair)) else {
            return Ok(Received::Stop);
        };
        let len = match self.backend.receive(pair, ram, lane.room.segments()) {
            Ok(len) => len as u64,
            Err(error) => return self.nothing_came(pair, index, ram, &error),
        };
        if len > lane.room.bytes() {
            return self.does_not_fit(pair, index, queue, len);
        }
        lane.held = None;
        if len < SHORTEST {
            count(&mut self.stats.rx_too_short);
            return Ok(Received::Next);
        }
        if self.receiving.filtered && !self.is_wanted(pair, ram).map_err(misused(index))? {
            count(&mut self.stats.rx_filtered);
            return Ok(Received::Next);
        }
        if len > self.receiving.longest
            && self.is_over_mtu(pair, ram, len).map_err(misused(index))?
        {
            count(&mut self.stats.rx_over_mtu);
            return Ok(Received::Next);
        }
        let Some(lane) = self.lanes.get_mut(usize::from(pair)) else {
            return Ok(Received::Stop);
        };
        deliver(&mut lane.room, queue, len).map_err(misused(index))?;
        let bytes = len - header::SIZE as u64;
        count(&mut self.stats.rx_frames);
        self.stats.rx_bytes = self.stats.rx_bytes.wrapping_add(bytes);
        self.receiving.owe(bytes);
        Ok(Received::Next)
    }

    /// Whether what has been moved is within the limit.
    #[inline]
    fn is_paid(&mut self) -> bool {
        self.receiving.owed == 0 || self.receiving.pay(self.clock.now())
    }

    #[cold]
    fn nothing_came(
        &mut self,
        pair: u16,
        index: u16,
        ram: Ram<'_>,
        error: &io::Error,
    ) -> Result<Received, DeviceError> {
        let Some(lane) = self.lanes.get_mut(usize::from(pair)) else {
            return Ok(Received::Stop);
        };
        if error.kind() == io::ErrorKind::WouldBlock {
            lane.held = None;
            lane.wants_frames = true;
            return Ok(Received::Stop);
        }
        if let Some(source) = lane.room.outside(ram) {
            return Err(misused(index)(source));
        }
        count(&mut self.stats.rx_errors);
        lane.retry = Some(self.clock.now().saturating_add(RETRY));
        Ok(Received::Stop)
    }

    /// A frame is longer than the room: it waits for more, if more can come, and not for ever.
    #[cold]
    fn does_not_fit(
        &mut self,
        pair: u16,
        index: u16,
        queue: &mut ActiveQueue<'_>,
        len: u64,
    ) -> Result<Received, DeviceError> {
        let Some(lane) = self.lanes.get_mut(usize::from(pair)) else {
            return Ok(Received::Stop);
        };
        if self.receiving.mergeable && len <= MAX_FRAME as u64 {
            lane.room.fill(queue, index, len)?;
            if lane.room.bytes() >= len {
                return Ok(Received::Next);
            }
            if !lane.room.is_full() && lane.room.count() < usize::from(queue.size()) {
                let now = self.clock.now();
                let until = *lane.held.get_or_insert(now.saturating_add(HOLD));
                if now < until {
                    return Ok(Received::Stop);
                }
            }
        }
        lane.held = None;
        self.backend.discard(pair);
        count(&mut self.stats.rx_too_long);
        Ok(Received::Next)
    }

    /// Whether the driver wants the frame that has been written to the room.
    #[inline]
    fn is_wanted(&self, pair: u16, ram: Ram<'_>) -> Result<bool, QueueError> {
        let to = self
            .lane(pair)
            .map(|lane| lane.room.read(ram, header::SIZE as u64));
        let to = to.transpose()?.unwrap_or_default();
        Ok(self.filter.wants(to, self.mac.bytes()))
    }

    /// Whether it is longer than the driver was told frames are (§5.1.4.1), and not one that will be cut.
    #[cold]
    fn is_over_mtu(&self, pair: u16, ram: Ram<'_>, len: u64) -> Result<bool, QueueError> {
        let Some(lane) = self.lane(pair) else {
            return Ok(false);
        };
        let [kind] = lane.room.read(ram, header::GSO_TYPE)?;
        let ethertype: [u8; 2] = lane.room.read(ram, (header::SIZE + 12) as u64)?;
        let tag = match u16::from_be_bytes(ethertype) {
            0x8100 | 0x88a8 => VLAN_TAG as u64,
            _ => 0,
        };
        Ok(kind & !header::GSO_ECN == header::GSO_NONE && len > self.receiving.longest + tag)
    }

    fn lane(&self, pair: u16) -> Option<&Lane> {
        self.lanes.get(usize::from(pair))
    }
}

/// Gives the driver the frame that has been written to the beginning of the room.
#[inline]
fn deliver(room: &mut Room, queue: &mut ActiveQueue<'_>, len: u64) -> Result<(), QueueError> {
    let count = room.buffers_of(len);
    room.set_num_buffers(queue.ram(), count)?;
    room.use_up(queue, len);
    Ok(())
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
