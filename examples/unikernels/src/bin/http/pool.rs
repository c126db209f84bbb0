//! The sockets: some that listen, and one for each client.
//!
//! There are as many as clients come at once, and some more that listen, up to a limit. A socket whose client is gone
//! listens again; the time after a connection's end in which its packets may still be under way (TIME-WAIT, RFC 9293
//! §3.6.1) holds none up.

use alloc::vec;
use alloc::vec::Vec;

use goldcrest_unikernels::http::{Connection, Stream};
use smoltcp::iface::{SocketHandle, SocketSet};
use smoltcp::socket::tcp::{Socket, SocketBuffer, State};
use smoltcp::time::{Duration, Instant};

/// Sockets that listen, if there may be so many.
const READY: usize = 32;
/// Bytes that a socket holds in either direction. A request's body and a large head pass through in pieces.
const RECEIVE: usize = 4096;
const TRANSMIT: usize = 32768;
/// A client that neither sends nor takes anything for so long has left.
const PATIENCE: Duration = Duration::from_secs(30);
/// One that has nothing to wait for has, too, after so long, if others wait for its place.
const POLITENESS: Duration = Duration::from_secs(1);

/// The sockets of a server.
pub struct Pool {
    port: u16,
    most: usize,
    clients: Vec<Client>,
    /// Sockets that listen.
    ready: usize,
    /// Until when it is taken for granted that somebody waits for a place.
    crowded_until: Instant,
    served: u64,
    /// When the next client that does nothing has left.
    next_event: Option<Instant>,
    quit: Option<SocketHandle>,
    ended: bool,
}

struct Client {
    handle: SocketHandle,
    connection: Connection,
    /// When something last happened; `None` if there is no client.
    active: Option<Instant>,
    /// All that the client has asked for it has got.
    idle: bool,
}

impl Pool {
    pub fn new(port: u16, most: usize) -> Self {
        Self {
            port,
            most,
            clients: Vec::new(),
            ready: 0,
            crowded_until: Instant::ZERO,
            served: 0,
            next_event: None,
            quit: None,
            ended: false,
        }
    }

    /// Sockets that listen.
    pub fn ready(&self) -> usize {
        self.ready
    }

    /// Connections that there were.
    pub fn served(&self) -> u64 {
        self.served
    }

    /// Whether a client had the server end, and has its answer.
    pub fn has_quit(&self) -> bool {
        self.ended
    }

    /// When there will be something to do if nothing arrives.
    pub fn next_event(&self) -> Option<Instant> {
        self.next_event
    }

    /// Answers what has arrived.
    pub fn serve(&mut self, sockets: &mut SocketSet<'_>, now: Instant) {
        for client in &mut self.clients {
            let socket = sockets.get_mut::<Socket>(client.handle);
            match socket.state() {
                State::Listen | State::Closed => continue,
                State::Established | State::CloseWait => {}
                _ => {
                    // Whoever does not read what the server no longer wants does not see the client leave either.
                    while Tcp(socket).receive(|bytes| (bytes.len(), !bytes.is_empty())) {}
                    continue;
                }
            }
            if client.active.is_none() {
                client.active = Some(now);
                self.served += 1;
            }
            let progress = client.connection.serve(&mut Tcp(socket));
            if progress.moved {
                client.active = Some(now);
            }
            client.idle = progress.idle && socket.send_queue() == 0;
            if progress.quit {
                self.quit = Some(client.handle);
            }
            // A client that sends no more has its answers by now, but for those that there is no room for yet.
            let left = socket.state() == State::CloseWait && !socket.can_recv();
            if progress.close || left && !client.connection.is_busy() {
                socket.close();
            }
        }
    }

    /// Notes that a client found no place.
    pub fn has_refused(&mut self, now: Instant) {
        self.crowded_until = now + POLITENESS + POLITENESS;
    }

    /// Has sockets listen again whose clients are gone, and sees to it that there are some. What there was to send has been
    /// sent before.
    pub fn recycle(&mut self, sockets: &mut SocketSet<'_>, now: Instant) {
        (self.ready, self.next_event) = (0, None);
        let crowded = now < self.crowded_until;
        let mut at = 0;
        while let Some(client) = self.clients.get_mut(at) {
            let socket = sockets.get_mut::<Socket>(client.handle);
            let gone = matches!(socket.state(), State::Closed | State::TimeWait);
            if gone && self.quit == Some(client.handle) {
                self.ended = true;
            }
            let polite = crowded && client.idle && socket.state() == State::Established;
            let patience = if polite { POLITENESS } else { PATIENCE };
            let late = client.active.map(|active| active + patience);
            if gone && self.ready >= READY {
                sockets.remove(client.handle);
                self.clients.swap_remove(at);
                continue;
            } else if gone {
                client.listen(socket, self.port);
            } else if late.is_some_and(|late| late <= now) {
                // It is told so, and gone the next time, or when it agrees.
                if polite {
                    socket.close();
                } else {
                    socket.abort();
                }
                self.next_event = Some(now);
            } else {
                self.next_event = self.next_event.into_iter().chain(late).min();
            }
            self.ready += usize::from(socket.state() == State::Listen);
            at += 1;
        }
        while self.ready < READY && self.clients.len() < self.most {
            self.add(sockets);
        }
    }

    fn add(&mut self, sockets: &mut SocketSet<'_>) {
        let buffer = |len| SocketBuffer::new(vec![0; len]);
        let mut socket = Socket::new(buffer(RECEIVE), buffer(TRANSMIT));
        // An answer goes out with the acknowledgement, and at once.
        socket.set_ack_delay(None);
        socket.set_nagle_enabled(false);
        let mut client = Client {
            handle: SocketHandle::default(),
            connection: Connection::default(),
            active: None,
            idle: false,
        };
        client.listen(&mut socket, self.port);
        client.handle = sockets.add(socket);
        self.clients.push(client);
        self.ready += 1;
    }
}

impl Client {
    fn listen(&mut self, socket: &mut Socket<'_>, port: u16) {
        socket.abort();
        // It was just closed, and the port is not 0.
        let _ = socket.listen(port);
        self.connection.reset();
        self.active = None;
    }
}

/// A socket, as HTTP has it.
struct Tcp<'a, 'b>(&'a mut Socket<'b>);

impl Stream for Tcp<'_, '_> {
    fn receive<T>(&mut self, look: impl FnOnce(&[u8]) -> (usize, T)) -> T {
        if !self.0.can_recv() {
            return look(&[]).1;
        }
        let mut look = Some(look);
        let result = self.0.recv(|bytes| {
            let (count, result) = look.take().map(|look| look(bytes)).unzip();
            (count.unwrap_or(0), result)
        });
        match result {
            Ok(Some(result)) => result,
            _ => unreachable!("a socket that can be read is read"),
        }
    }

    fn send(&mut self, bytes: &[u8]) -> usize {
        self.0.send_slice(bytes).unwrap_or(0)
    }
}
