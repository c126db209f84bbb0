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

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::format;
    use std::string::String;

    use super::super::{MAX_BODY, Status};
    use super::*;

    /// A client that has sent so much, and takes so much at a time.
    struct Client {
        unread: VecDeque<u8>,
        piece: usize,
        room: usize,
        got: Vec<u8>,
    }

    impl Stream for Client {
        fn receive<T>(&mut self, look: impl FnOnce(&[u8]) -> (usize, T)) -> T {
            let bytes = self.unread.make_contiguous();
            let (taken, result) = look(&bytes[..bytes.len().min(self.piece)]);
            self.unread.drain(..taken);
            result
        }

        fn send(&mut self, bytes: &[u8]) -> usize {
            let now = bytes.len().min(self.room);
            self.room -= now;
            self.got.extend_from_slice(&bytes[..now]);
            now
        }
    }

    /// What a client gets that sends this, in pieces that arrive one after the other; how it ended.
    fn talk(said: &[u8], piece: usize, room: usize) -> (String, Progress) {
        let mut connection = Connection::default();
        let mut client = Client {
            unread: VecDeque::new(),
            piece,
            room,
            got: Vec::new(),
        };
        let mut pieces = said.chunks(piece);
        loop {
            let next = pieces.next();
            client.unread.extend(next.unwrap_or_default());
            client.room = room;
            let progress = connection.serve(&mut client);
            if progress.close || next.is_none() && !progress.moved {
                return (String::from_utf8(client.got).unwrap(), progress);
            }
        }
    }

    fn get(path: &str, fields: &str) -> String {
        format!("GET {path} HTTP/1.1\r\nHost: x\r\n{fields}\r\n")
    }

    fn statuses(answer: &str) -> Vec<&str> {
        let lines = answer.split("HTTP/1.1 ").skip(1);
        lines.map(|line| &line[..3]).collect()
    }

    #[test]
    fn requests_are_answered_in_whatever_pieces_they_come_and_go() {
        let (page, missing) = (get("/", ""), get("/missing", ""));
        let post = "POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nGET /";
        let head = "HEAD / HTTP/1.1\r\nHost: x\r\n\r\n";
        let some = get("/bytes/100", "Connection: close\r\n");
        let said = [&page, &missing, post, head, &page, &some, &page].concat();
        let (expected, progress) = talk(said.as_bytes(), usize::MAX, usize::MAX);
        assert_eq!(
            statuses(&expected),
            ["200", "404", "405", "200", "200", "200"]
        );
        assert!(progress.close && !progress.quit);
        assert!(expected.as_bytes().ends_with(&some_bytes(100)));
        for piece in [1, 2, 7, 30, 1000] {
            for room in [1, 13, 100_000] {
                assert_eq!(
                    talk(said.as_bytes(), piece, room).0,
                    expected,
                    "{piece} {room}"
                );
            }
        }
    }

    fn some_bytes(len: usize) -> Vec<u8> {
        (0..251).cycle().take(len).collect()
    }

    #[test]
    fn a_head_has_what_the_body_needs_and_the_body_comes_unless_only_the_head_was_asked_for() {
        let (answer, progress) = talk(get("/", "").as_bytes(), 9999, 9999);
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("\r\nContent-Length: {}", body.len())));
        assert!(head.contains("\r\nContent-Type: text/html"));
        assert!(!head.contains("Connection"), "it stays open, as is usual");
        assert!(body.starts_with("<!DOCTYPE html>"));
        assert!(progress.idle && !progress.close);
        let (only, _) = talk(b"HEAD / HTTP/1.1\r\nHost: x\r\n\r\n", 9999, 9999);
        assert_eq!(only, format!("{head}\r\n\r\n"));
        let (old, progress) = talk(b"GET / HTTP/1.0\r\n\r\n", 9999, 9999);
        assert!(old.contains("\r\nConnection: close\r\n") && progress.close);
        let keep = b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n";
        let (old, progress) = talk(keep, 9999, 9999);
        assert!(old.contains("\r\nConnection: keep-alive\r\n") && !progress.close);
    }

    #[test]
    fn as_many_bytes_come_as_were_asked_for() {
        for len in [0, 1, 250, 251, 252, 8031, 8032, 8033, 100_000] {
            let mut connection = Connection::default();
            let mut client = Client {
                unread: get(&format!("/bytes/{len}"), "").into_bytes().into(),
                piece: 9999,
                room: 0,
                got: Vec::new(),
            };
            loop {
                client.room = 1777;
                if connection.serve(&mut client).idle {
                    break;
                }
            }
            let end = client.got.windows(4).position(|four| four == b"\r\n\r\n");
            assert_eq!(client.got[end.unwrap() + 4..], some_bytes(len), "{len}");
        }
        for path in ["/bytes/1073741825", "/bytes/-1", "/bytes/", "/bytes/1x"] {
            let (answer, _) = talk(get(path, "").as_bytes(), 9999, 9999);
            assert_eq!(statuses(&answer), ["404"], "{path}");
        }
    }

    #[test]
    fn a_refused_client_is_told_why_and_heard_no_more() {
        let long = get("/", &format!("A: {}\r\n", "a".repeat(MAX_HEAD)));
        let large = format!(
            "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n",
            MAX_BODY + 1
        );
        for (said, status) in [
            (long, Status::HeadTooLarge),
            (large, Status::ContentTooLarge),
            ("nonsense\r\n\r\n".into(), Status::BadRequest),
            ("\r\n\u{1}".into(), Status::BadRequest),
        ] {
            for piece in [1, 100, usize::MAX] {
                let all = [said.as_bytes(), get("/", "").as_bytes()].concat();
                let (answer, progress) = talk(&all, piece, 9999);
                let expected = format!("HTTP/1.1 {status}\r\n");
                assert!(answer.starts_with(&expected), "{answer}");
                assert_eq!(statuses(&answer).len(), 1);
                assert!(progress.close && answer.contains("Connection: close"));
            }
        }
    }

    #[test]
    fn what_is_held_of_a_client_is_bounded() {
        let mut connection = Connection::default();
        let mut client = Client {
            unread: std::vec![b'a'; 1 << 20].into(),
            piece: usize::MAX,
            room: 0,
            got: Vec::new(),
        };
        let progress = connection.serve(&mut client);
        assert!(!progress.close, "there was no room for the answer yet");
        assert!(connection.pending.capacity() <= 2 * MAX_HEAD);
        client.room = 999;
        assert!(connection.serve(&mut client).close);
    }

    #[test]
    fn a_client_that_has_the_server_end_is_told_so_first() {
        for request in ["GET /quit", "POST /quit", "POST /shutdown"] {
            let said = format!("{request} HTTP/1.1\r\nHost: x\r\n\r\n");
            let (answer, progress) = talk(said.as_bytes(), 9999, 9999);
            assert!(answer.ends_with("\r\n\r\nok\n") && progress.quit && progress.close);
        }
        for request in ["HEAD /quit", "PUT /quit", "GET /quit/"] {
            let said = format!("{request} HTTP/1.1\r\nHost: x\r\n\r\n");
            assert!(!talk(said.as_bytes(), 9999, 9999).1.quit, "{request}");
        }
    }
}
