//! One client: requests in, responses out, in whatever pieces.

use alloc::vec::Vec;

use super::{MAX_HEAD, Parsed, Response, parse};

/// Bytes from and to a client.
pub trait Stream {
    /// Shows some of the bytes that have arrived and were not taken, at least one if there are any. `look` says how many of
    /// them it takes, and something else.
    fn receive<T>(&mut self, look: impl FnOnce(&[u8]) -> (usize, T)) -> T;

    /// Sends the beginning of `bytes`, as much as there is room for; says how many that was.
    fn send(&mut self, bytes: &[u8]) -> usize;
}

/// How far a connection came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Something was received or sent.
    pub moved: bool,
    /// All that came in has been answered, all that goes out is sent.
    pub idle: bool,
    /// The connection is to be closed.
    pub close: bool,
    /// The client has the server end.
    pub quit: bool,
}

/// A client's connection.
#[derive(Debug, Default)]
pub struct Connection {
    /// What has arrived of a request whose head is not complete, and what came with it.
    pending: Vec<u8>,
    /// Bytes of a request's body, not looked at, that are still to come.
    skip: u64,
    /// The head of the response under way.
    head: Vec<u8>,
    /// The response under way, and how many bytes of it were sent, its head included.
    response: Option<(Response, u64)>,
    /// What comes next is not read any more.
    closing: bool,
    quit: bool,
}

impl Connection {
    /// Makes it as good as new.
    pub fn reset(&mut self) {
        self.pending.clear();
        self.head.clear();
        (self.skip, self.response, self.closing, self.quit) = (0, None, false, false);
    }

    /// Whether an answer is under way.
    pub fn is_busy(&self) -> bool {
        self.response.is_some()
    }

    /// Answers what has arrived, as far as there is room for it.
    pub fn serve(&mut self, stream: &mut impl Stream) -> Progress {
        let mut moved = false;
        let idle = loop {
            moved |= self.respond(stream);
            if self.response.is_some() {
                break false;
            }
            if self.closing {
                break true;
            }
            moved |= self.skip_body(stream);
            if self.skip != 0 {
                break false;
            }
            match self.next_response(stream, &mut moved) {
                Some(response) => self.begin(response),
                None => break self.pending.is_empty(),
            }
        };
        Progress {
            moved,
            idle,
            close: idle && self.closing,
            quit: idle && self.quit,
        }
    }

    fn begin(&mut self, response: Response) {
        self.head.clear();
        response.write_head(&mut self.head);
        self.closing = !response.keep_alive;
        self.quit = response.quit;
        self.response = Some((response, 0));
    }

    /// Sends what there is to send. Says whether anything was.
    fn respond(&mut self, stream: &mut impl Stream) -> bool {
        let Some((response, sent)) = &mut self.response else {
            return false;
        };
        let before = *sent;
        let head = self.head.len() as u64;
        loop {
            let rest = match usize::try_from(*sent)
                .ok()
                .and_then(|sent| self.head.get(sent..))
            {
                Some(rest) if !rest.is_empty() => rest,
                _ if response.head_only => &[],
                _ => response.body.rest(response.status, *sent - head),
            };
            let now = stream.send(rest);
            *sent += now as u64;
            if rest.is_empty() {
                self.response = None;
                return true;
            }
            if now == 0 {
                return *sent != before;
            }
        }
    }

    /// Passes over the body of a request. Says whether there was any of it.
    fn skip_body(&mut self, stream: &mut impl Stream) -> bool {
        let before = self.skip;
        let most = |len: usize, skip| len.min(usize::try_from(skip).unwrap_or(usize::MAX));
        let now = most(self.pending.len(), self.skip);
        self.pending.drain(..now);
        self.skip -= now as u64;
        while self.skip != 0 {
            let skip = self.skip;
            let now = stream.receive(|bytes| {
                let now = most(bytes.len(), skip);
                (now, now)
            });
            if now == 0 {
                break;
            }
            self.skip -= now as u64;
        }
        self.skip != before
    }

    /// Answers the next request, if it is there.
    fn next_response(&mut self, stream: &mut impl Stream, moved: &mut bool) -> Option<Response> {
        if self.pending.is_empty() {
            // Most requests come whole, and alone.
            let pending = &mut self.pending;
            let (response, skip, now) = stream.receive(|bytes| {
                let (response, skip, len) = answer(bytes);
                if response.is_none() {
                    pending.extend_from_slice(&bytes[..bytes.len().min(MAX_HEAD)]);
                }
                let len = len.max(pending.len());
                (len, (response, skip, len))
            });
            self.skip = skip;
            *moved |= now != 0;
            if response.is_some() || now == 0 {
                return response;
            }
        }
        self.gather(stream, moved);
        let (response, skip, len) = answer(&self.pending);
        self.pending.drain(..len);
        self.skip = skip;
        response
    }

    /// Adds to what is pending.
    fn gather(&mut self, stream: &mut impl Stream, moved: &mut bool) {
        loop {
            let pending = &mut self.pending;
            let now = stream.receive(|bytes| {
                let now = bytes.len().min(MAX_HEAD.saturating_sub(pending.len()));
                pending.extend_from_slice(&bytes[..now]);
                (now, now)
            });
            if now == 0 {
                return;
            }
            *moved = true;
        }
    }
}

/// The response to the request that `bytes` begin with, the bytes of its body, and those that its head has.
fn answer(bytes: &[u8]) -> (Option<Response>, u64, usize) {
    match parse(bytes) {
        Parsed::Partial => (None, 0, 0),
        Parsed::Complete(request, len) => (Some(Response::to(&request)), request.body, len),
        Parsed::Refused(status) => (Some(Response::refusal(status)), 0, bytes.len()),
    }
}
