//! All streams, served as they are ready.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::socket::{Shutdown, shutdown};

use crate::Failure;
use crate::pattern::Pattern;
use crate::sockets::Listener;

/// Who connects says which stream it is, and how many bytes follow, both ways.
const GREETING: usize = 12;
/// How long nothing may happen: also in a guest whose clock is put forward by the time for which it was saved.
const SILENCE: Duration = Duration::from_secs(1200);
const LISTENER: u64 = u64::MAX;
/// The most that is written or read at a time, and what all streams together hold.
const PIECE: usize = 64 << 10;
const HELD: usize = 8 << 20;

/// Streams until all have ended.
pub struct Exchange {
    epoll: Epoll,
    listener: Option<Listener>,
    streams: Vec<Option<Stream>>,
    wanted: usize,
    good: usize,
    bad: usize,
    at_once: usize,
    open: usize,
    bytes: u64,
    buffer: Vec<u8>,
    begun: Instant,
}

struct Stream {
    socket: File,
    /// Nothing before the other end has said which stream it is.
    known: Option<Known>,
    greeting: Vec<u8>,
}

struct Known {
    number: u32,
    len: u64,
    out: Pattern,
    sent: u64,
    /// What is being sent, and how much of it has been.
    piece: Vec<u8>,
    done: usize,
    ended: bool,
    expected: Pattern,
    received: u64,
    /// The other end will send no more.
    heard: bool,
}

/// How a stream goes on.
enum Next {
    Wait,
    Ended,
}

impl Exchange {
    pub fn new(wanted: usize) -> Result<Self, Failure> {
        Ok(Self {
            epoll: Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?,
            listener: None,
            streams: Vec::new(),
            wanted,
            good: 0,
            bad: 0,
            at_once: 0,
            open: 0,
            bytes: 0,
            buffer: vec![0; 2 * PIECE],
            begun: Instant::now(),
        })
    }

    /// Takes what connects.
    pub fn listen(&mut self, listener: Listener) -> Result<(), Failure> {
        let event = EpollEvent::new(EpollFlags::EPOLLIN, LISTENER);
        self.epoll.add(&listener, event)?;
        self.listener = Some(listener);
        Ok(())
    }

    /// Begins a stream to somebody who listens.
    pub fn begin(&mut self, socket: File, number: u32, len: u64) -> Result<(), Failure> {
        let mut known = Known::new(number, len, false);
        known.piece = [&number.to_le_bytes()[..], &len.to_le_bytes()].concat();
        self.add(socket, Some(known))
    }

    fn add(&mut self, socket: File, known: Option<Known>) -> Result<(), Failure> {
        let flags = OFlag::from_bits_retain(fcntl(&socket, FcntlArg::F_GETFL)?);
        fcntl(&socket, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
        let interest = match known {
            Some(_) => EpollFlags::EPOLLIN | EpollFlags::EPOLLOUT,
            None => EpollFlags::EPOLLIN,
        };
        let place = self.streams.len() as u64;
        self.epoll.add(&socket, EpollEvent::new(interest, place))?;
        self.streams.push(Some(Stream {
            socket,
            known,
            greeting: Vec::new(),
        }));
        self.open += 1;
        self.at_once = self.at_once.max(self.open);
        Ok(())
    }

    /// Goes on until all have ended. Returns whether all were as they should be.
    pub fn run(mut self) -> Result<bool, Failure> {
        let timeout = EpollTimeout::try_from(SILENCE)?;
        self.begun = Instant::now();
        let mut events = [EpollEvent::empty(); 64];
        while self.good + self.bad < self.wanted {
            let count = self.epoll.wait(&mut events, timeout)?;
            if count == 0 {
                println!(
                    "STREAMS stalled: {} of {} ok, {} open",
                    self.good, self.wanted, self.open
                );
                self.show_open();
                return Ok(false);
            }
            for event in &events[..count] {
                match event.data() {
                    LISTENER => self.accept()?,
                    place => self.serve(usize::try_from(place)?),
                }
            }
        }
        let (bytes, seconds) = (self.bytes, self.begun.elapsed().as_secs_f64());
        println!(
            "STREAMS {} of {} ok, {bytes} bytes each way, {} at once, {seconds:.2} s, {:.1} MB/s",
            self.good,
            self.wanted,
            self.at_once,
            bytes as f64 * 2.0 / seconds / 1e6
        );
        Ok(self.bad == 0)
    }

    fn show_open(&self) {
        for stream in self.streams.iter().flatten().take(10) {
            match &stream.known {
                None => println!("STREAMS one has not said which it is"),
                Some(known) => println!(
                    "STREAMS {}: {} of {} sent, {} received",
                    known.number, known.sent, known.len, known.received
                ),
            }
        }
    }

    fn accept(&mut self) -> Result<(), Failure> {
        let Some(listener) = &self.listener else {
            return Ok(());
        };
        if self.open == 0 && self.good == 0 {
            self.begun = Instant::now();
        }
        let socket = listener.accept()?;
        self.add(socket, None)
    }

    fn serve(&mut self, place: usize) {
        let piece = (HELD / self.wanted.max(1)).clamp(4096, PIECE);
        let Some(stream) = self.streams[place].as_mut() else {
            return;
        };
        let result = stream.serve(&mut self.buffer, piece);
        let interest = stream.interest();
        match result {
            Ok(Next::Wait) => {
                let mut event = EpollEvent::new(interest, place as u64);
                let _ = self.epoll.modify(&stream.socket, &mut event);
                return;
            }
            Ok(Next::Ended) => {
                self.good += 1;
                self.bytes += stream.known.as_ref().map_or(0, |known| known.len);
            }
            Err(error) => {
                self.bad += 1;
                let number = stream.known.as_ref().map(|known| known.number);
                println!("STREAMS {number:?} failed: {error}");
            }
        }
        let _ = self.epoll.delete(&stream.socket);
        self.streams[place] = None;
        self.open -= 1;
    }
}

impl Stream {
    fn interest(&self) -> EpollFlags {
        let Some(known) = &self.known else {
            return EpollFlags::EPOLLIN;
        };
        let mut interest = EpollFlags::empty();
        interest.set(EpollFlags::EPOLLIN, !known.heard);
        interest.set(EpollFlags::EPOLLOUT, !known.ended);
        interest
    }

    fn serve(&mut self, buffer: &mut [u8], piece: usize) -> io::Result<Next> {
        if self.known.is_none() && !self.greeted()? {
            return Ok(Next::Wait);
        }
        let Some(known) = &mut self.known else {
            return Ok(Next::Wait);
        };
        known.send(&self.socket, piece)?;
        known.receive(&self.socket, buffer)?;
        Ok(match known.ended && known.heard {
            true => Next::Ended,
            false => Next::Wait,
        })
    }

    /// Reads which stream it is. Returns whether that is known now.
    fn greeted(&mut self) -> io::Result<bool> {
        let mut rest = [0; GREETING];
        let missing = GREETING - self.greeting.len();
        match would_block((&self.socket).read(&mut rest[..missing]))? {
            Some(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Some(count) => self.greeting.extend(&rest[..count]),
            None => {}
        }
        let Ok(greeting) = <[u8; GREETING]>::try_from(self.greeting.as_slice()) else {
            return Ok(false);
        };
        let [a, b, c, d, len @ ..] = greeting;
        let number = u32::from_le_bytes([a, b, c, d]);
        self.known = Some(Known::new(number, u64::from_le_bytes(len), true));
        Ok(true)
    }
}

impl Known {
    fn new(number: u32, len: u64, listens: bool) -> Self {
        Self {
            number,
            len,
            out: Pattern::new(number, listens),
            sent: 0,
            piece: Vec::new(),
            done: 0,
            ended: false,
            expected: Pattern::new(number, !listens),
            received: 0,
            heard: false,
        }
    }

    /// Sends one piece, as far as it is taken; in the end tells that there are no more.
    fn send(&mut self, mut socket: &File, piece: usize) -> io::Result<()> {
        if self.ended {
            return Ok(());
        }
        if self.done == self.piece.len() && self.sent < self.len {
            let count = usize::try_from(self.len - self.sent).map_or(piece, |left| left.min(piece));
            self.piece.resize(count, 0);
            self.out.fill(&mut self.piece);
            self.sent += count as u64;
            self.done = 0;
        }
        if self.done < self.piece.len() {
            self.done += would_block(socket.write(&self.piece[self.done..]))?.unwrap_or(0);
        }
        if self.done == self.piece.len() && self.sent == self.len {
            self.ended = true;
            shutdown(socket.as_fd().as_raw_fd(), Shutdown::Write)?;
        }
        Ok(())
    }

    fn receive(&mut self, mut socket: &File, buffer: &mut [u8]) -> io::Result<()> {
        let (got, expected) = buffer.split_at_mut(PIECE);
        if self.heard {
            return Ok(());
        }
        let Some(count) = would_block(socket.read(got))? else {
            return Ok(());
        };
        if count == 0 {
            self.heard = true;
            return match self.received == self.len {
                true => Ok(()),
                false => Err(io::Error::other(format!(
                    "it ended after {} bytes of {}, {} sent",
                    self.received, self.len, self.sent
                ))),
            };
        }
        self.expected.fill(&mut expected[..count]);
        if got[..count] != expected[..count] {
            let what = format!("wrong bytes behind {}", self.received);
            return Err(io::Error::other(what));
        }
        self.received += count as u64;
        Ok(())
    }
}

fn would_block(result: io::Result<usize>) -> io::Result<Option<usize>> {
    match result {
        Ok(count) => Ok(Some(count)),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
        Err(error) => Err(error),
    }
}
