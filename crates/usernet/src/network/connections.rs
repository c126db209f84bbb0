//! Connections.

use std::io::{ErrorKind, Read, Write};
use std::mem;

use super::Network;
use super::from_guest::verify;
use crate::checksum::Checksum;
use crate::frame::{FrameInfo, TxOffload};
use crate::header::Header;
use crate::host::{Event, Host};
use crate::number::{Kind, Number};
use crate::packet::{Ip, protocol};
use crate::rules::Protocol;
use crate::stats::Dropped;
use crate::tcp::{
    self, Expiry, Flow, Outlet, Payload, Segment, Start, State, Verdict, flag, length, reset_for,
};

/// So many bytes for the host are handed to it at once.
const MUCH: usize = 64 << 10;

impl<H: Host> Network<H> {
    /// Takes a segment, of which `head` is the beginning of the frame and `frame` the rest.
    pub(super) fn take_segment(
        &mut self,
        head: &[u8],
        ip: Ip,
        frame: &mut impl Read,
        offload: TxOffload,
    ) -> Result<(), Dropped> {
        let segment = Segment::parse(head, &ip)?;
        let read = head.get(segment.data..).unwrap_or_default();
        let len = length(segment.len);
        let read = read.get(..read.len().min(len)).unwrap_or_default();
        let header = head.get(ip.start..segment.data).unwrap_or_default();
        let index = self.find_connection(&segment);
        if let Some(index) = index
            && let Some(flow) = self.tcp.get_mut(index)
            && flow.expects(&segment)
        {
            fill(flow.stage(len), read, frame)?;
            if !offload.checksum {
                let [first, second] = flow.staged(len);
                verify(&ip, &[header, first, second])?;
            }
            let verdict = flow.input(&segment, Payload::Staged, self.now);
            self.judge(index, verdict, &segment);
            return Ok(());
        }
        let mut scratch = mem::take(&mut self.data);
        if scratch.len() < len {
            scratch.resize(len, 0);
        }
        let data = scratch.get_mut(..len).unwrap_or_default();
        let result = fill([data, &mut []], read, frame).and_then(|()| {
            let data = scratch.get(..len).unwrap_or_default();
            if !offload.checksum {
                verify(&ip, &[header, data])?;
            }
            self.take_odd_segment(index, &segment, data)
        });
        self.data = scratch;
        result
    }

    /// Takes a segment that is not just the next data.
    fn take_odd_segment(
        &mut self,
        index: Option<u32>,
        segment: &Segment,
        data: &[u8],
    ) -> Result<(), Dropped> {
        let Some(index) = index else {
            return self.take_first_segment(segment);
        };
        let Some(flow) = self.tcp.get_mut(index) else {
            return Ok(());
        };
        match flow.input(segment, Payload::Bytes(data), self.now) {
            Verdict::Reopen => {
                self.close_connection(index);
                self.take_first_segment(segment)
            }
            verdict => {
                self.judge(index, verdict, segment);
                Ok(())
            }
        }
    }

    fn find_connection(&mut self, segment: &Segment) -> Option<u32> {
        if let Some((key, index)) = self.last
            && key == segment.key
        {
            return Some(index);
        }
        let index = *self.tcp_keys.get(&segment.key)?;
        self.last = Some((segment.key, index));
        Some(index)
    }

    /// Does what a segment has led to.
    fn judge(&mut self, index: u32, verdict: Verdict, segment: &Segment) {
        match verdict {
            Verdict::Goes | Verdict::Reopen => self.settle(index),
            Verdict::Over => self.close_connection(index),
            Verdict::Reset => self.reset_connection(index),
            Verdict::Stray => {
                self.send_reset(segment);
                self.settle(index);
            }
        }
    }

    /// After something has happened to a connection: it gets its turn and its time.
    pub(super) fn settle(&mut self, index: u32) {
        let Some(flow) = self.tcp.get_mut(index) else {
            return;
        };
        if flow.is_dirty && !flow.is_listed {
            if flow.held_for_host() >= MUCH {
                self.flush_connection(index);
                return;
            }
            flow.is_listed = true;
            self.dirty.push(index);
        }
        flow.arm(self.now);
        let number = Number::new(Kind::Tcp, index);
        if !flow.is_ready && flow.wants_to_send() {
            flow.is_ready = true;
            self.ready.push_back(number);
        }
        let deadline = flow.deadline();
        // A time that comes too early does no harm, and most are moved on before they come.
        if self.timers.get(number.raw()).is_none_or(|at| deadline < at) {
            self.timers.set(number.raw(), Some(deadline));
        }
    }

    /// Hands the host what a connection has for it.
    pub(super) fn flush_connection(&mut self, index: u32) {
        let Some(flow) = self.tcp.get_mut(index) else {
            return;
        };
        flow.is_listed = false;
        match flow.flush(&mut self.host, &mut self.budget, self.now) {
            Verdict::Over => self.close_connection(index),
            _ => self.settle(index),
        }
    }

    /// A segment of no connection (RFC 9293 §3.10.7.1).
    fn take_first_segment(&mut self, segment: &Segment) -> Result<(), Dropped> {
        if segment.is(flag::RST) {
            return Err(Dropped::Stray);
        }
        if segment.is(flag::SYN) && !segment.is(flag::ACK) {
            let opened = self.open_connection(segment);
            if opened.is_err() {
                self.send_reset(segment);
            }
            return opened;
        }
        self.send_reset(segment);
        Err(Dropped::Stray)
    }

    fn open_connection(&mut self, syn: &Segment) -> Result<(), Dropped> {
        let to = self.route(Some(Protocol::Tcp), syn.key.remote)?;
        let id = self.tcp.next_id().ok_or(Dropped::Limit)?;
        let limit = self.budget.start().ok_or(Dropped::Limit)?;
        let start = self.start(&syn.key, limit);
        match self.host.connect_tcp(to, Number::token(Kind::Tcp, id)) {
            Ok(socket) => {
                let flow = Flow::outbound(syn, socket, start);
                self.tcp.insert(id, flow);
                self.tcp_keys.insert(syn.key, id.index);
                self.stats.tcp_opened += 1;
                self.settle(id.index);
                Ok(())
            }
            Err(error) => {
                self.budget.give_start(limit);
                self.stats.tcp_failed += 1;
                self.send_unreachable(syn.key, syn.seq, error.kind());
                Err(Dropped::Refused)
            }
        }
    }

    pub(super) fn start(&self, key: &tcp::FlowKey, limit: usize) -> Start {
        let headers = if key.guest.is_ipv4() { 40 } else { 60 };
        Start {
            now: self.now,
            iss: self.initial_sequence(key),
            patience: self.config.limits.connect,
            idle: self.config.limits.tcp_idle,
            limit,
            mss: usize::from(self.config.mtu).saturating_sub(headers),
        }
    }

    /// The host says something of a connection's socket.
    pub(super) fn connection_event(&mut self, index: u32, event: Event) {
        let Some(flow) = self.tcp.get_mut(index) else {
            return;
        };
        flow.host_event(event);
        if flow.state != State::Connecting {
            flow.is_dirty |= event.writable;
            self.settle(index);
            return;
        }
        let connected = flow.socket().map(|socket| self.host.connected(socket));
        match connected {
            Some(Ok(())) => {
                flow.host_connected();
                self.settle(index);
            }
            Some(Err(error)) if error.kind() == ErrorKind::WouldBlock => {}
            Some(Err(error)) => self.connection_failed(index, error.kind()),
            None => {}
        }
    }

    /// The host could not connect.
    fn connection_failed(&mut self, index: u32, why: ErrorKind) {
        self.stats.tcp_failed += 1;
        let Some(flow) = self.tcp.get_mut(index) else {
            return;
        };
        flow.break_off(self.now);
        let (key, seq) = (flow.key, flow.guest_iss());
        drop(flow.take_socket());
        self.send_unreachable(key, seq, why);
        self.settle(index);
    }

    /// It is a connection's time.
    pub(super) fn expire_connection(&mut self, index: u32) {
        let Some(flow) = self.tcp.get_mut(index) else {
            return;
        };
        match flow.expire(&mut self.budget, self.now) {
            Expiry::Goes => self.settle(index),
            Expiry::Over => self.close_connection(index),
            Expiry::NotConnected => self.connection_failed(index, ErrorKind::TimedOut),
            Expiry::Unanswered => {
                self.stats.tcp_timed_out += 1;
                self.reset_connection(index);
            }
        }
    }

    /// It is a connection's turn to send.
    pub(super) fn serve_connection<W: Write>(
        &mut self,
        index: u32,
        outlet: &mut Outlet<'_, W>,
    ) -> Option<FrameInfo> {
        let flow = self.tcp.get_mut(index)?;
        flow.is_ready = false;
        if self.guest_mac.is_none() {
            // Whoever it is that has the address says so.
            flow.defer_syn(self.now);
            let guest = flow.key.guest.ip();
            self.ask_for_guest(guest);
            self.settle(index);
            return None;
        }
        let (host, budget, stats) = (&mut self.host, &mut self.budget, &mut self.stats);
        let info = flow.output(host, budget, stats, outlet, self.now);
        if info.is_some() && flow.state == State::Broken {
            self.reset_connection(index);
        } else {
            self.settle(index);
        }
        info
    }

    /// Forgets a connection that has ended.
    fn close_connection(&mut self, index: u32) {
        drop(self.forget_connection(index));
    }

    /// Forgets a connection that has not: the host's peer is told.
    fn reset_connection(&mut self, index: u32) {
        if let Some(socket) = self.forget_connection(index) {
            self.host.reset(socket);
        }
    }

    fn forget_connection(&mut self, index: u32) -> Option<H::Socket> {
        let mut flow = self.tcp.remove(index)?;
        self.tcp_keys.remove(&flow.key);
        self.last = None;
        self.timers.set(Number::new(Kind::Tcp, index).raw(), None);
        self.budget.give(flow.held());
        if flow.is_ready {
            // The number will be another's, who is not to be in the queue twice.
            let number = Number::new(Kind::Tcp, index);
            self.ready.retain(|other| *other != number);
        }
        if flow.is_listed {
            self.dirty.retain(|other| *other != index);
        }
        flow.take_socket()
    }

    fn send_reset(&mut self, segment: &Segment) {
        let (seq, ack, flags) = reset_for(segment);
        let (src, dst) = (segment.key.remote, segment.key.guest);
        let mut header = Header::ip(self.link(), src.ip(), dst.ip(), protocol::TCP, tcp::HEADER);
        let start = header.len();
        header.push(&src.port().to_be_bytes());
        header.push(&dst.port().to_be_bytes());
        header.push(&seq.to_be_bytes());
        header.push(&ack.to_be_bytes());
        header.push(&[0x50, flags, 0, 0, 0, 0, 0, 0]);
        let sum = Checksum::default()
            .add_pseudo(src.ip(), dst.ip(), protocol::TCP, tcp::HEADER)
            .add(header.since(start))
            .finish();
        header.set(start + 16, sum.to_be_bytes());
        self.reply(|replies| replies.push(&[header.bytes()]));
    }

    /// Where a connection from outside goes on: all that wait for the guest try at once.
    pub(super) fn guest_is_there(&mut self) {
        let waiting: Vec<u32> = self
            .tcp
            .iter()
            .filter(|(_, flow)| flow.state == State::SynSent)
            .map(|(index, _)| index)
            .collect();
        for index in waiting {
            if let Some(flow) = self.tcp.get_mut(index) {
                flow.hurry();
            }
            self.settle(index);
        }
        self.wake_listeners();
    }
}

/// Fills both pieces: first with what has been read, then with what is still to be.
fn fill(pieces: [&mut [u8]; 2], mut read: &[u8], frame: &mut impl Read) -> Result<(), Dropped> {
    for piece in pieces {
        let (now, later) = read
            .split_at_checked(piece.len().min(read.len()))
            .unwrap_or_default();
        let (first, rest) = piece.split_at_mut_checked(now.len()).unwrap_or_default();
        first.copy_from_slice(now);
        read = later;
        if !rest.is_empty() {
            frame.read_exact(rest).map_err(|_| Dropped::Malformed)?;
        }
    }
    Ok(())
}
