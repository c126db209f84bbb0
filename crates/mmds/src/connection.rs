//! A connection: requests in, responses out.

use std::io::{self, ErrorKind};
use std::time::Duration;

use goldcrest_usernet::{Event, Token};

use crate::request::{MAX_REQUEST, Parsed, parse};
use crate::response::Response;
use crate::store::Mmds;

/// The service's end of a connection. It holds one request at most, and one response.
#[derive(Debug)]
pub(crate) struct Connection {
    token: Token,
    /// What the guest has sent and is not answered.
    input: Vec<u8>,
    /// The response, of which so many bytes are taken.
    output: Vec<u8>,
    taken: usize,
    /// There was no room for all that the guest has sent.
    is_blocked: bool,
    /// The guest sends nothing more.
    has_ended: bool,
    /// Nothing comes after the response.
    closes: bool,
    /// It had to make room for another.
    is_evicted: bool,
    /// When it was last used: the greater, the later.
    pub(crate) used: u64,
}

impl Connection {
    pub(crate) fn new(token: Token, used: u64) -> Self {
        Self {
            token,
            input: Vec::new(),
            output: Vec::new(),
            taken: 0,
            is_blocked: false,
            has_ended: false,
            closes: false,
            is_evicted: false,
            used,
        }
    }

    /// Takes what the guest sends, as much of it as there is room for.
    pub(crate) fn send(
        &mut self,
        bytes: [&[u8]; 2],
        mmds: &Mmds,
        now: Duration,
    ) -> io::Result<usize> {
        self.check()?;
        let len = bytes.iter().map(|piece| piece.len()).sum();
        if self.closes {
            // Nobody reads it any more.
            return Ok(len);
        }
        let before = self.input.len();
        for piece in bytes {
            let room = MAX_REQUEST.saturating_sub(self.input.len());
            self.input
                .extend_from_slice(piece.get(..room).unwrap_or(piece));
        }
        let sent = self.input.len().saturating_sub(before);
        self.is_blocked = sent < len;
        self.serve(mmds, now);
        match sent {
            0 if len > 0 => Err(ErrorKind::WouldBlock.into()),
            _ => Ok(sent),
        }
    }

    /// Gives the guest what there is for it; nothing at the end.
    pub(crate) fn receive(
        &mut self,
        room: [&mut [u8]; 2],
        mmds: &Mmds,
        now: Duration,
    ) -> io::Result<usize> {
        self.check()?;
        let mut len = 0;
        for piece in room {
            len += self.fill(piece, mmds, now);
        }
        match len {
            0 if !self.closes => Err(ErrorKind::WouldBlock.into()),
            _ => Ok(len),
        }
    }

    /// Fills a piece, with one response after another.
    fn fill(&mut self, piece: &mut [u8], mmds: &Mmds, now: Duration) -> usize {
        let mut len = 0;
        while let Some(room) = piece.get_mut(len..).filter(|room| !room.is_empty()) {
            let rest = self.output.get(self.taken..).unwrap_or_default();
            let count = room.len().min(rest.len());
            for (to, from) in room.iter_mut().zip(rest) {
                *to = *from;
            }
            self.taken += count;
            len += count;
            self.serve(mmds, now);
            if !self.has_output() {
                break;
            }
        }
        len
    }

    /// The guest sends nothing more.
    pub(crate) fn shut_down(&mut self, mmds: &Mmds, now: Duration) {
        self.has_ended = true;
        self.serve(mmds, now);
    }

    /// Ends it, so that another can be.
    pub(crate) fn evict(&mut self) {
        self.is_evicted = true;
        self.input = Vec::new();
        self.output = Vec::new();
    }

    /// Whether all is said.
    pub(crate) fn is_over(&self) -> bool {
        self.is_evicted || self.closes && !self.has_output()
    }

    /// What has changed that the network is to know, if anything has.
    pub(crate) fn event(&mut self) -> Option<Event> {
        let has_room = self.is_blocked && self.input.len() < MAX_REQUEST;
        let writable = has_room || self.closes || self.is_evicted;
        if writable {
            self.is_blocked = false;
        }
        let hang_up = self.closes || self.is_evicted;
        let event = Event {
            token: self.token,
            readable: self.has_output() || hang_up,
            writable,
            hang_up,
        };
        (event.readable || event.writable).then_some(event)
    }

    fn check(&self) -> io::Result<()> {
        match self.is_evicted {
            true => Err(ErrorKind::ConnectionReset.into()),
            false => Ok(()),
        }
    }

    fn has_output(&self) -> bool {
        self.taken < self.output.len()
    }

    /// Answers the next request, if it is whole and the response before it is taken.
    fn serve(&mut self, mmds: &Mmds, now: Duration) {
        if self.closes || self.has_output() {
            return;
        }
        // Who is idle holds no memory.
        (self.output, self.taken) = (Vec::new(), 0);
        if self.input.is_empty() {
            self.input = Vec::new();
            self.closes = self.has_ended;
            return;
        }
        match parse(&self.input) {
            Parsed::Incomplete => self.closes = self.has_ended,
            Parsed::Whole(request, len) => {
                let response = mmds.answer(&request, now);
                let with_body = request.method != "HEAD";
                self.closes = !request.keeps_alive;
                self.output = response.bytes(request.keeps_alive, with_body);
                self.input.drain(..len.min(self.input.len()));
            }
            Parsed::Bad(status, why) => {
                self.closes = true;
                self.output = Response::text(status, why).bytes(false, true);
            }
        }
        if self.closes {
            self.input = Vec::new();
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::MmdsConfig;

    const NOW: Duration = Duration::ZERO;

    fn service() -> Mmds {
        let mmds = Mmds::with_key(MmdsConfig::default(), [1; 64]).unwrap();
        mmds.put(json!({"a": "x".repeat(100), "b": "y"})).unwrap();
        mmds
    }

    fn connection() -> Connection {
        Connection::new(7, 0)
    }

    /// All that there is to be had, by so many bytes at a time; whether the end came.
    fn take(connection: &mut Connection, mmds: &Mmds, sizes: (usize, usize)) -> (String, bool) {
        let mut all = Vec::new();
        loop {
            let (mut first, mut second) = (vec![0; sizes.0], vec![0; sizes.1]);
            match connection.receive([&mut first, &mut second], mmds, NOW) {
                Ok(0) => return (String::from_utf8(all).unwrap(), true),
                Ok(len) => all.extend(first.iter().chain(&second).take(len)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    return (String::from_utf8(all).unwrap(), false);
                }
                Err(error) => panic!("{error}"),
            }
        }
    }

    #[test]
    fn requests_in_a_row_are_answered_in_their_order_and_the_last_one_closes() {
        let (mmds, mut connection) = (service(), connection());
        let text = "GET /a HTTP/1.1\r\n\r\nGET /b HTTP/1.1\r\nConnection: close\r\n\r\nGET /a HTTP/1.1\r\n\r\n";
        let sent = connection.send([text.as_bytes(), b""], &mmds, NOW).unwrap();
        assert_eq!(sent, text.len());
        let event = connection.event().unwrap();
        assert!(event.readable && !event.hang_up && event.token == 7);
        let (all, has_ended) = take(&mut connection, &mmds, (10, 3));
        assert!(has_ended && all.ends_with("Connection: close\r\n\r\ny"));
        assert_eq!(all.matches("200 OK").count(), 2);
        assert!(connection.event().unwrap().hang_up);
        // What comes after the end is nobody's.
        assert_eq!(connection.send([b"xy", b"z"], &mmds, NOW).unwrap(), 3);
    }

    #[test]
    fn what_is_not_answered_yet_is_bounded() {
        let (mmds, mut connection) = (service(), connection());
        let many = "GET /a HTTP/1.1\r\n\r\n".repeat(1000);
        let (mut rest, mut responses) = (many.as_bytes(), 0);
        while !rest.is_empty() {
            match connection.send([rest, b""], &mmds, NOW) {
                Ok(sent) => rest = &rest[sent..],
                Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
            }
            assert!(connection.input.len() <= MAX_REQUEST && connection.output.len() < 300);
            let (all, has_ended) = take(&mut connection, &mmds, (500, 500));
            assert!(!has_ended);
            responses += all.matches("200 OK").count();
            if !rest.is_empty() {
                assert!(connection.event().unwrap().writable);
            }
        }
        assert_eq!(responses, 1000);
        assert!(connection.input.capacity() == 0 && connection.output.capacity() == 0);
    }

    #[test]
    fn a_guest_that_ends_its_direction_is_answered_first() {
        let (mmds, mut connection) = (service(), connection());
        connection
            .send([b"GET /b HTTP/1.1\r\n", b"\r\nGET"], &mmds, NOW)
            .unwrap();
        connection.shut_down(&mmds, NOW);
        let (all, has_ended) = take(&mut connection, &mmds, (4000, 0));
        assert!(has_ended && all.ends_with("\r\n\r\ny"), "{all}");
    }

    #[test]
    fn what_makes_no_sense_is_answered_and_ends() {
        for text in ["\r\n\r\nx y z\r\n\r\n".to_owned(), "a".repeat(9000)] {
            let (mmds, mut connection) = (service(), connection());
            connection.send([text.as_bytes(), b""], &mmds, NOW).unwrap();
            let (all, has_ended) = take(&mut connection, &mmds, (50, 50));
            assert!(has_ended && all.starts_with("HTTP/1.1 4"), "{all}");
        }
    }

    #[test]
    fn one_that_is_evicted_is_broken() {
        let (mmds, mut connection) = (service(), connection());
        connection.evict();
        assert!(connection.event().unwrap().hang_up);
        assert!(connection.send([b"x", b""], &mmds, NOW).is_err());
        assert!(connection.receive([&mut [0], &mut []], &mmds, NOW).is_err());
    }

    proptest! {
        #[test]
        fn it_does_not_matter_how_a_stream_is_cut(cuts in prop::collection::vec(1..40_usize, 1..40)) {
            let text = "GET /a HTTP/1.1\r\n\r\nPUT /latest/api/token HTTP/1.1\r\nContent-Length: 4\r\n\r\nbodyGET /b HTTP/1.1\r\n\r\n";
            let (mmds, mut connection) = (service(), connection());
            let (mut rest, mut all) = (text.as_bytes(), String::new());
            for cut in cuts.iter().cycle() {
                if rest.is_empty() {
                    break;
                }
                let (piece, after) = rest.split_at((*cut).min(rest.len()));
                prop_assert_eq!(connection.send([piece, b""], &mmds, NOW).unwrap(), piece.len());
                rest = after;
                let (some, has_ended) = take(&mut connection, &mmds, (*cut, 7));
                prop_assert!(!has_ended);
                all += &some;
            }
            prop_assert_eq!(all.matches("HTTP/1.1 200 OK").count(), 2);
            prop_assert_eq!(all.matches("HTTP/1.1 400 Bad Request").count(), 1);
            prop_assert!(all.ends_with("\r\n\r\ny"));
        }
    }
}
