//! A segment for the guest.

use std::io::Write;
use std::time::Duration;

use super::flow::{Flow, Owed, State, WINDOW_SCALE};
use super::splice::Budget;
use super::{HEADER, Segment, before, distance, flag, length};
use crate::checksum::Checksum;
use crate::frame::{FrameInfo, Gso, GsoKind, PartialChecksum, RxOffload};
use crate::header::{Header, Link};
use crate::host::Host;
use crate::packet::{ETHERNET, protocol};
use crate::stats::Stats;

/// The longest data in a segment: IPv4 counts its headers in, and no header is longer than with 60 bytes of TCP.
const MAX_DATA: usize = 65535 - 20 - 60;

/// Where frames for the guest are written.
#[derive(Debug)]
pub(crate) struct Outlet<'a, W> {
    pub(crate) out: &'a mut W,
    /// The most bytes.
    pub(crate) room: usize,
    pub(crate) offload: RxOffload,
    pub(crate) link: Link,
}

/// A segment to send.
#[derive(Debug, Clone, Copy)]
struct Out {
    seq: u32,
    flags: u8,
    /// Where in the ring its data is, and how much.
    offset: usize,
    len: usize,
}

impl<S> Flow<S> {
    /// Whether there is something to send, or may be.
    pub(crate) fn wants_to_send(&self) -> bool {
        let Owed {
            acks,
            syn,
            again,
            probe,
            keepalive,
        } = self.owed;
        match self.state {
            State::Connecting => false,
            State::SynSent | State::SynReceived => syn || acks > 0,
            State::TimeWait => acks > 0,
            State::Broken => true,
            State::Established => {
                acks > 0
                    || again
                    || probe
                    || keepalive
                    || self.can_send() > 0
                    || self.fin_is_due()
                    || self.failure_is_due()
                    || self.wants_refill()
            }
        }
    }

    /// How much data may be sent now.
    pub(super) fn can_send(&self) -> usize {
        let (unsent, usable) = (self.sender.unsent(), self.sender.usable());
        let len = unsent.min(usable);
        // RFC 9293 §3.8.6.2.1: a whole segment, all that there is, or much for this guest; never many small ones.
        let enough =
            len >= self.sender.mss || len == unsent || len >= length(self.sender.max_window) / 2;
        if enough { len } else { 0 }
    }

    /// All data was sent, but not our FIN.
    fn fin_is_due(&self) -> bool {
        self.host.ended
            && !self.host.failed
            && !self.sender.ended
            && length(self.sender.in_flight()) == self.sender.ring.len()
    }

    /// All that came before the host's side broke was sent.
    fn failure_is_due(&self) -> bool {
        self.host.failed && !self.host.readable && self.sender.unsent() == 0
    }

    /// Not much is left for the guest, and the host may have more.
    fn wants_refill(&self) -> bool {
        let unsent = self.sender.unsent();
        self.can_refill()
            && (unsent == 0 || unsent < self.sender.usable().min(MAX_DATA))
            && !self.sender.full
    }

    /// Sends the next segment, if there is one and it fits.
    pub(crate) fn output<H: Host<Socket = S>, W: Write>(
        &mut self,
        host: &mut H,
        budget: &mut Budget,
        stats: &mut Stats,
        outlet: &mut Outlet<'_, W>,
        now: Duration,
    ) -> Option<FrameInfo> {
        if self.state == State::Established {
            if self.wants_refill() {
                self.refill(host, budget, now);
                if self.host.hang_up && self.can_refill() {
                    // The end is near: it goes with the data.
                    self.refill(host, budget, now);
                }
            }
            if self.failure_is_due() {
                self.break_off(now);
            }
        }
        let out = self.next_segment(stats, outlet)?;
        let info = self.write(out, outlet)?;
        self.sent(out, now);
        Some(info)
    }

    fn next_segment<W>(&mut self, stats: &mut Stats, outlet: &Outlet<'_, W>) -> Option<Out> {
        let una = self.sender.una;
        let plain = |seq, flags| Out {
            seq,
            flags,
            offset: 0,
            len: 0,
        };
        match self.state {
            State::Connecting => return None,
            State::Broken => return Some(plain(self.reset_seq(), flag::RST | flag::ACK)),
            State::SynSent if self.owed.syn => return Some(plain(una, flag::SYN)),
            State::SynReceived if self.owed.syn => return Some(plain(una, flag::SYN | flag::ACK)),
            State::Established => {}
            _ if self.owed.acks > 0 => return Some(plain(self.sender.max, flag::ACK)),
            _ => return None,
        }
        // With a window that has closed, which it may have done since, it is a matter of time.
        self.owed.again &= self.sender.window > 0;
        self.owed.probe &= self.sender.usable() > 0;
        if let Some(out) = self.data(stats, outlet) {
            return Some(out);
        }
        if self.owed.keepalive {
            return Some(plain(una.wrapping_sub(1), flag::ACK));
        }
        (self.owed.acks > 0).then(|| plain(self.sender.next, flag::ACK))
    }

    /// The next data, with FIN if it is the last.
    fn data<W>(&mut self, stats: &mut Stats, outlet: &Outlet<'_, W>) -> Option<Out> {
        let sender = &self.sender;
        let flight = length(sender.in_flight());
        let (offset, len) = if self.owed.again {
            let window = length(sender.window);
            (0, sender.ring.len().min(sender.mss).min(window))
        } else if self.owed.probe {
            (flight, sender.unsent().min(sender.usable()))
        } else {
            (flight, self.can_send())
        };
        let len = len.min(self.largest(outlet));
        let fin = self.host.ended
            && !self.host.failed
            && !sender.ended
            && offset + len == sender.ring.len();
        if len == 0 && !fin {
            return None;
        }
        let seq = sender.una.wrapping_add(distance(offset));
        if before(seq, sender.max) {
            stats.tcp_retransmitted += 1;
        }
        let push = if len > 0 && offset + len == sender.ring.len() {
            flag::PSH
        } else {
            0
        };
        let flags = flag::ACK | push | if fin { flag::FIN } else { 0 };
        Some(Out {
            seq,
            flags,
            offset,
            len,
        })
    }

    /// The most data that fits into a frame.
    fn largest<W>(&self, outlet: &Outlet<'_, W>) -> usize {
        let offload = outlet.offload;
        let (large, headers) = match self.key.guest.is_ipv4() {
            true => (offload.tso4, ETHERNET + 20 + HEADER),
            false => (offload.tso6, ETHERNET + 40 + HEADER),
        };
        let most = if large && offload.checksum {
            MAX_DATA
        } else {
            self.sender.mss
        };
        most.min(outlet.room.saturating_sub(headers))
    }

    /// What was sent is no more owed, and an answer is expected.
    fn sent(&mut self, out: Out, now: Duration) {
        let sender = &mut self.sender;
        let flags = u32::from(out.flags & flag::SYN != 0) + u32::from(out.flags & flag::FIN != 0);
        let taken = distance(out.len).wrapping_add(flags);
        let end = out.seq.wrapping_add(taken);
        if taken > 0 {
            let is_first = sender.next == sender.una;
            if before(sender.next, end) {
                sender.next = end;
            }
            if before(sender.max, end) {
                sender.max = end;
            }
            self.owed.again = false;
            self.owed.probe = false;
            if self.retry_at.is_none() || is_first {
                self.retry_at = Some(now.saturating_add(self.wait()));
            }
        } else {
            self.owed.keepalive = false;
        }
        if out.flags & flag::SYN != 0 {
            self.owed.syn = false;
        }
        if out.flags & flag::ACK != 0 {
            // More than one is for the guest to count.
            self.owed.acks = if taken > 0 {
                0
            } else {
                self.owed.acks.saturating_sub(1)
            };
        }
    }

    /// The number that the guest expects next, as far as is known: a reset with any other is not believed.
    fn reset_seq(&self) -> u32 {
        self.sender.max
    }

    /// Writes a segment, if it fits.
    fn write<W: Write>(&mut self, out: Out, outlet: &mut Outlet<'_, W>) -> Option<FrameInfo> {
        let mut options = [0; 8];
        let options = self.options(out.flags, &mut options);
        let len = HEADER + options.len() + out.len;
        let (src, dst) = (self.key.remote, self.key.guest);
        let mut header = Header::ip(outlet.link, src.ip(), dst.ip(), protocol::TCP, len);
        let start = header.len();
        if start + len > outlet.room {
            return None;
        }
        let window = self.tell_window(out.flags);
        header.push(&src.port().to_be_bytes());
        header.push(&dst.port().to_be_bytes());
        header.push(&out.seq.to_be_bytes());
        let ack = if out.flags & flag::ACK == 0 {
            0
        } else {
            self.receiver.next
        };
        header.push(&ack.to_be_bytes());
        let words = u8::try_from((HEADER + options.len()) / 4).unwrap_or(5);
        header.push(&[words << 4, out.flags]);
        header.push(&window.to_be_bytes());
        header.push(&[0; 4]);
        header.push(options);

        let data = self.sender.ring.slices(out.offset, out.len);
        let mut sum = Checksum::default().add_pseudo(src.ip(), dst.ip(), protocol::TCP, len);
        let sum = if outlet.offload.checksum {
            sum.partial()
        } else {
            sum = sum.add(header.since(start));
            data.iter().fold(sum, |sum, piece| sum.add(piece)).finish()
        };
        header.set(start + 16, sum.to_be_bytes());
        outlet.out.write_all(header.bytes()).ok()?;
        for piece in data {
            outlet.out.write_all(piece).ok()?;
        }
        Some(self.describe(&header, start, out.len, outlet.offload))
    }

    /// The options of a SYN (RFC 9293 §3.7.1, RFC 7323 §2.2).
    fn options<'a>(&self, flags: u8, room: &'a mut [u8; 8]) -> &'a [u8] {
        if flags & flag::SYN == 0 {
            return &[];
        }
        let [high, low] = u16::try_from(self.mss).unwrap_or(u16::MAX).to_be_bytes();
        *room = [2, 4, high, low, 1, 3, 3, WINDOW_SCALE];
        let answers = flags & flag::ACK != 0;
        let len = if answers && self.receiver.scale == 0 {
            4
        } else {
            8
        };
        room.get(..len).unwrap_or_default()
    }

    /// The window as the header has it. It is never less than it was, and not more by a little (RFC 9293 §3.8.6.2.2).
    fn tell_window(&mut self, flags: u8) -> u16 {
        let mss = self.sender.mss;
        let receiver = &mut self.receiver;
        let scale = if flags & flag::SYN == 0 {
            receiver.scale
        } else {
            0
        };
        let most = length(u16::MAX.into()) << scale;
        let room = receiver.limit.saturating_sub(receiver.ring.len()).min(most);
        let room = distance(room >> scale << scale);
        let told = receiver.edge.wrapping_sub(receiver.next);
        let gain = room.saturating_sub(told);
        if length(gain) >= mss.min(receiver.limit / 2) {
            receiver.edge = receiver.next.wrapping_add(room);
        }
        let window = receiver.edge.wrapping_sub(receiver.next) >> scale;
        u16::try_from(window).unwrap_or(u16::MAX)
    }

    fn describe(&self, header: &Header, start: usize, len: usize, offload: RxOffload) -> FrameInfo {
        let short = |len: usize| u16::try_from(len).unwrap_or(u16::MAX);
        let kind = if self.key.guest.is_ipv4() {
            GsoKind::Tcp4
        } else {
            GsoKind::Tcp6
        };
        let gso = Gso {
            kind,
            header_len: short(header.len()),
            mss: short(self.sender.mss),
        };
        let partial = PartialChecksum {
            start: short(start),
            offset: 16,
        };
        FrameInfo {
            len: header.len() + len,
            checksum: offload.checksum.then_some(partial),
            gso: (len > self.sender.mss).then_some(gso),
        }
    }
}

/// A reset for a segment of no connection (RFC 9293 §3.10.7.1), as sequence number, acknowledgement and flags.
pub(crate) fn reset_for(segment: &Segment) -> (u32, u32, u8) {
    if segment.is(flag::ACK) {
        return (segment.ack, 0, flag::RST);
    }
    let ack = segment.seq.wrapping_add(segment.sequence_len());
    (0, ack, flag::RST | flag::ACK)
}
