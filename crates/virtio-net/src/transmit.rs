//! Frames of the guest's (§5.1.6.2).

use std::io;
use std::time::Duration;

use goldcrest_virtio::{DeviceError, DeviceIo, Features, Ram, Reader};

use crate::device::{Sending, misused, queues_of};
use crate::spec::{ETHERNET_HEADER, MAX_FRAME, feature, header};
use crate::stats::count;
use crate::{Header, Net, NetBackend};

/// Bytes of the shortest frame with its header.
const SHORTEST: u64 = (header::SIZE + ETHERNET_HEADER) as u64;
const LONGEST: u64 = MAX_FRAME as u64;

/// What became of a frame.
enum Sent {
    /// It is gone, or dropped.
    Over,
    /// The backend has no room for it.
    Blocked,
    /// The limit allows it at that time.
    Limited(Duration),
}

impl<B: NetBackend> Net<B> {
    /// Sends what a queue has, until it is empty, its turn is over or a frame has to wait.
    #[inline]
    pub(crate) fn transmit(&mut self, pair: u16, io: &mut DeviceIo<'_>) -> Result<(), DeviceError> {
        let index = queues_of(pair).1;
        let behind = self.sending.is_behind(pair);
        let Some(lane) = self.lanes.get_mut(usize::from(pair)) else {
            return Ok(());
        };
        lane.blocked = false;
        lane.stalled = behind;
        if behind {
            return Ok(());
        }
        self.sending.limited = None;
        let Some(mut queue) = io.queue(index) else {
            return Ok(());
        };
        let ram = queue.ram();
        while let Some(chain) = queue.pop().map_err(misused(index))? {
            let head = chain.head;
            match self.send(pair, ram, chain.readable) {
                Sent::Over => queue.push(head, 0),
                wait => {
                    queue.undo_pop(head);
                    self.hold_back(pair, &wait);
                    break;
                }
            }
        }
        self.backend.flush();
        Ok(())
    }

    #[cold]
    fn hold_back(&mut self, pair: u16, wait: &Sent) {
        let Some(lane) = self.lanes.get_mut(usize::from(pair)) else {
            return;
        };
        match wait {
            Sent::Limited(at) => {
                lane.stalled = true;
                self.sending.limited = Some((pair, *at));
            }
            _ => lane.blocked = true,
        }
    }

    #[inline(always)]
    fn send(&mut self, pair: u16, ram: Ram<'_>, mut frame: Reader<'_>) -> Sent {
        let len = frame.left();
        if !(SHORTEST..=LONGEST).contains(&len) {
            return self.drop_by_length(len);
        }
        // What the frame asks for is read once: the driver can change it no more.
        let Ok(bytes) = frame.read_array() else {
            count(&mut self.stats.tx_errors);
            return Sent::Over;
        };
        let mut header = Header(bytes);
        if !header.is_plain() && !self.sending.allows(&mut header, frame.left()) {
            count(&mut self.stats.tx_bad_header);
            return Sent::Over;
        }
        if self.sending.limiter.is_limited() {
            return self.send_limited(pair, ram, &header, &frame);
        }
        self.send_now(pair, ram, &header, &frame)
    }

    #[inline(always)]
    fn send_now(&mut self, pair: u16, ram: Ram<'_>, header: &Header, frame: &Reader<'_>) -> Sent {
        match self.backend.send(pair, ram, header, frame.segments()) {
            Ok(()) => {
                count(&mut self.stats.tx_frames);
                self.stats.tx_bytes = self.stats.tx_bytes.wrapping_add(frame.left());
                Sent::Over
            }
            Err(error) => self.failed(&error),
        }
    }

    #[cold]
    fn failed(&mut self, error: &io::Error) -> Sent {
        if error.kind() == io::ErrorKind::WouldBlock {
            return Sent::Blocked;
        }
        count(&mut self.stats.tx_errors);
        Sent::Over
    }

    #[cold]
    fn send_limited(
        &mut self,
        pair: u16,
        ram: Ram<'_>,
        header: &Header,
        frame: &Reader<'_>,
    ) -> Sent {
        let before = self.sending.limiter.clone();
        let now = self.clock.now();
        if let Err(at) = self.sending.limiter.take(now, 1, frame.left()) {
            return Sent::Limited(at);
        }
        let sent = self.send_now(pair, ram, header, frame);
        if let Sent::Blocked = sent {
            // It will be counted when it goes.
            self.sending.limiter = before;
        }
        sent
    }

    #[cold]
    fn drop_by_length(&mut self, len: u64) -> Sent {
        count(match len > LONGEST {
            true => &mut self.stats.tx_too_long,
            false => &mut self.stats.tx_too_short,
        });
        Sent::Over
    }
}

impl Sending {
    /// Whether the limit holds back a frame of another pair.
    fn is_behind(&self, pair: u16) -> bool {
        self.limited.is_some_and(|(other, _)| other != pair)
    }

    /// Whether a frame of `len` bytes may ask for what its header says (§5.1.6.2). Flags that mean nothing are cleared.
    #[cold]
    fn allows(&self, header: &mut Header, len: u64) -> bool {
        let [flags, ..] = &mut header.0;
        *flags &= header::F_NEEDS_CSUM;
        let sums = header.flags() != 0;
        let sum_at = u64::from(header.csum_start()) + u64::from(header.csum_offset());
        if sums && (!self.features.has(feature::CSUM) || sum_at + 2 > len) {
            return false;
        }
        match header.gso_type() {
            header::GSO_NONE => true,
            kind => sums && header.gso_size() > 0 && cuts(self.features, kind),
        }
    }
}

/// Whether a frame may ask to be cut in this way.
fn cuts(features: Features, kind: u8) -> bool {
    let needed = match kind & !header::GSO_ECN {
        header::GSO_TCPV4 => feature::HOST_TSO4,
        header::GSO_TCPV6 => feature::HOST_TSO6,
        header::GSO_UDP => feature::HOST_UFO,
        header::GSO_UDP_L4 => feature::HOST_USO,
        _ => return false,
    };
    let with_ecn = kind & header::GSO_ECN != 0;
    let tcp = needed & (feature::HOST_TSO4 | feature::HOST_TSO6) != 0;
    features.has(needed) && (!with_ecn || tcp && features.has(feature::HOST_ECN))
}
