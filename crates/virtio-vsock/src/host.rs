//! What happens on the host's side, and what is not waited for any longer.

use std::io;
use std::time::Duration;

use crate::backend::Event;
use crate::backlog::{Backlog, Spare};
use crate::spec::{EPHEMERAL_PORTS, shutdown};
use crate::stream::{Key, Owed, Phase, Stream};
use crate::transmit::REDIAL;
use crate::{Backend, Vsock};

/// How long an answer is waited for, by the program on the host or the guest: as long as Linux waits for the end of a
/// connection.
const PATIENCE: Duration = Duration::from_secs(8);
/// The most events that one call looks at.
const MAX_EVENTS: usize = 1024;
/// The most sockets without room that are tried again in one call.
const MAX_DIALLED: usize = 64;

impl<B: Backend> Vsock<B> {
    pub(crate) fn host_events(&mut self, now: Duration) {
        self.more = false;
        for _ in 0..MAX_EVENTS {
            match self.backend.next_event(now) {
                None => return,
                Some(Event::Connect(host, port)) => self.connect(host, port),
                Some(Event::Stream {
                    token,
                    readable,
                    writable,
                    ended,
                    hung_up,
                }) => {
                    if let Some(number) = self.streams.by_token(token) {
                        self.stream_event(number, readable, ended, hung_up);
                        if writable {
                            self.flush(number);
                        }
                        self.schedule(number);
                    }
                }
            }
        }
        self.more = true;
    }

    fn stream_event(&mut self, number: u32, readable: bool, ended: bool, hung_up: bool) {
        let Some(stream) = self.streams.get_mut(number) else {
            return;
        };
        stream.readable |= readable;
        stream.ended |= ended;
        if hung_up {
            stream.host_shuts(shutdown::RECEIVE);
        }
    }

    /// A program on the host wants to be connected with a port of the guest's.
    fn connect(&mut self, host: B::Stream, port: u32) {
        let Some(key) = self.free_key(port) else {
            return;
        };
        let make = |room| Stream::new(key, Phase::Requested, room);
        let Some(number) = self.streams.insert(key, make) else {
            return;
        };
        let mut host = host;
        if self
            .backend
            .watch(&mut host, self.streams.token(number))
            .is_err()
        {
            self.streams.remove(number);
            return;
        }
        if let Some(stream) = self.streams.get_mut(number) {
            stream.host = Some(host);
            stream.owed.add(Owed::REQUEST);
        }
        self.give_time(number);
        self.schedule(number);
    }

    /// A name for a stream to this port of the guest's, which no stream has, nor had until long ago.
    fn free_key(&mut self, guest: u32) -> Option<Key> {
        if self.streams.is_full() {
            return None;
        }
        // One more than there can be streams.
        for _ in 0..=self.streams.len() {
            let host = self.next_port;
            self.next_port = match host.wrapping_add(1) {
                next if EPHEMERAL_PORTS.contains(&next) => next,
                _ => EPHEMERAL_PORTS.start,
            };
            let key = Key { host, guest };
            if self.streams.find(key).is_none() {
                return Some(key);
            }
        }
        None
    }

    /// Sends what the host did not take before.
    fn flush(&mut self, number: u32) {
        let Some(stream) = self.streams.get_mut(number) else {
            return;
        };
        let before = stream.backlog.len();
        let Some(host) = stream.host.as_mut().filter(|_| before > 0) else {
            return;
        };
        let takes_more = send_backlog(
            &mut self.backend,
            host,
            &mut stream.backlog,
            &mut self.spare,
        );
        if !takes_more {
            stream.backlog.clear(&mut self.spare);
        }
        let taken = before.saturating_sub(stream.backlog.len());
        stream
            .inbound
            .forward(u32::try_from(taken).unwrap_or(u32::MAX));
        if stream.backlog.is_empty() && stream.guest_shut & shutdown::SEND != 0 {
            self.backend.end_sending(host);
        }
        if !takes_more {
            stream.host_shuts(shutdown::RECEIVE);
        }
        stream.update_credit();
        if stream.phase == Phase::Over {
            if taken > 0 {
                self.give_time(number);
            }
            self.settle(number);
        }
    }

    /// Somebody has some time from now on.
    pub(crate) fn give_time(&mut self, number: u32) {
        let deadline = self.clock.now().saturating_add(PATIENCE);
        if let Some(stream) = self.streams.get_mut(number) {
            stream.deadline = deadline;
            self.streams.timed.remove(number);
            self.streams.timed.push(number);
        }
    }

    /// Ends what has waited for too long.
    pub(crate) fn expire(&mut self, now: Duration) {
        while let Some(number) = self.streams.timed.first() {
            match self.streams.get_mut(number) {
                Some(stream) if stream.deadline > now => break,
                // The guest has heard nothing of it.
                Some(stream) if stream.owed.has(Owed::REQUEST) => self.remove_stream(number),
                Some(stream) if stream.phase == Phase::Over => {
                    stream.host = None;
                    self.streams.timed.remove(number);
                    self.settle(number);
                }
                _ => self.reset_stream(number),
            }
        }
    }

    /// Tries sockets again that had no room.
    pub(crate) fn redial(&mut self, now: Duration) {
        if self.streams.dialing.is_empty() || now < self.redial_at {
            return;
        }
        self.redial_at = now.saturating_add(REDIAL);
        let mut next = self.streams.dialing.first();
        let last = self.streams.dialing.last();
        for _ in 0..MAX_DIALLED {
            let Some(number) = next else {
                break;
            };
            next = self
                .streams
                .dialing
                .after(number)
                .filter(|_| Some(number) != last);
            let Some(stream) = self.streams.get(number) else {
                break;
            };
            let dialled = self.backend.connect(stream.key.host);
            let late = stream.deadline <= now;
            self.streams.dialing.remove(number);
            match dialled {
                Ok(host) => self.dialled(number, host),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock && !late => {
                    self.streams.dialing.push(number);
                }
                Err(_) => self.reset_stream(number),
            }
        }
    }

    /// Asks guests without room how much they have, who may not tell by themselves.
    pub(crate) fn ask(&mut self, now: Duration) {
        if self.streams.held.is_empty() || now < self.ask_at {
            return;
        }
        self.ask_at = Duration::MAX;
        let mut next = self.streams.held.first();
        while let Some(number) = next {
            next = self.streams.held.after(number);
            let Some(stream) = self.streams.get_mut(number) else {
                break;
            };
            let due = stream.ask_at <= now;
            if due {
                stream.owed.add(Owed::QUESTION);
                stream.ask_later(now);
            }
            self.ask_at = self.ask_at.min(stream.ask_at);
            if due {
                self.streams.owing.push(number);
            }
        }
    }
}

/// Sends as much as the host takes. Returns whether it will ever take more.
fn send_backlog<B: Backend>(
    backend: &mut B,
    host: &mut B::Stream,
    backlog: &mut Backlog,
    spare: &mut Spare,
) -> bool {
    while !backlog.is_empty() {
        match backend.send_bytes(host, backlog.front()) {
            Ok(0) => break,
            Ok(count) => backlog.consume(count, spare),
            Err(error) => {
                let kind = error.kind();
                return matches!(kind, io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted);
            }
        }
    }
    true
}
