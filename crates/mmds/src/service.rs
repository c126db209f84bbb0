//! The service as the host of a network: what the guest connects to is not a socket, but answers by itself.

use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::BorrowedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use goldcrest_usernet::{Event, Host, Token};

use crate::connection::Connection;
use crate::store::Mmds;

/// Where it listens.
pub(crate) const PORT: u16 = 80;
/// How many connections there can be on which something may still be asked or answered. One more takes the place of the
/// one that was not used for longest.
pub(crate) const MAX_CONNECTIONS: usize = 32;

/// The host's side of the service's network.
#[derive(Debug)]
pub(crate) struct Service {
    mmds: Arc<Mmds>,
    now: Duration,
    /// Those that are open, and perhaps some that no longer are.
    connections: Vec<Weak<Mutex<Connection>>>,
    events: VecDeque<Event>,
    uses: u64,
}

/// The network's end of a connection.
#[derive(Debug)]
pub(crate) struct Socket(Arc<Mutex<Connection>>);

impl Service {
    pub(crate) fn new(mmds: Arc<Mmds>) -> Self {
        Self {
            mmds,
            now: Duration::ZERO,
            connections: Vec::new(),
            events: VecDeque::new(),
            uses: 0,
        }
    }

    /// It is `now`.
    pub(crate) fn advance(&mut self, now: Duration) {
        self.now = self.now.max(now);
    }

    /// Whether the network is to be told something.
    pub(crate) fn has_events(&self) -> bool {
        !self.events.is_empty()
    }

    /// Makes room for one more connection.
    fn make_room(&mut self) {
        self.connections.retain(|open| open.strong_count() > 0);
        let open = self.connections.iter().filter_map(Weak::upgrade);
        let open: Vec<_> = open.filter(|other| !lock(other).is_over()).collect();
        if open.len() < MAX_CONNECTIONS {
            return;
        }
        if let Some(oldest) = open.iter().min_by_key(|other| lock(other).used) {
            let mut oldest = lock(oldest);
            oldest.evict();
            self.events.extend(oldest.event());
        }
    }

    /// Does something with a connection, and notes what has changed by it.
    fn with<T>(
        &mut self,
        socket: &Socket,
        act: impl FnOnce(&mut Connection, &Mmds, Duration) -> T,
    ) -> T {
        self.uses += 1;
        let mut connection = lock(&socket.0);
        connection.used = self.uses;
        let result = act(&mut connection, &self.mmds, self.now);
        self.events.extend(connection.event());
        result
    }
}

fn lock(connection: &Mutex<Connection>) -> MutexGuard<'_, Connection> {
    connection.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What a service does not do.
fn refused<T>() -> io::Result<T> {
    Err(ErrorKind::ConnectionRefused.into())
}

impl Host for Service {
    type Socket = Socket;

    fn poll(&mut self, events: &mut [Event]) -> io::Result<usize> {
        let count = events.len().min(self.events.len());
        for (to, from) in events.iter_mut().zip(self.events.drain(..count)) {
            *to = from;
        }
        Ok(count)
    }

    fn fd(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    fn connect_tcp(&mut self, to: SocketAddr, token: Token) -> io::Result<Socket> {
        if !to.ip().is_loopback() || to.port() != PORT {
            return refused();
        }
        self.make_room();
        self.uses += 1;
        let connection = Arc::new(Mutex::new(Connection::new(token, self.uses)));
        self.connections.push(Arc::downgrade(&connection));
        self.events.push_back(Event {
            token,
            writable: true,
            ..Event::default()
        });
        Ok(Socket(connection))
    }

    fn connected(&mut self, _socket: &Socket) -> io::Result<()> {
        Ok(())
    }

    fn listen_tcp(&mut self, _at: SocketAddr, _token: Token) -> io::Result<Socket> {
        refused()
    }

    fn accept(&mut self, _listener: &Socket, _token: Token) -> io::Result<(Socket, SocketAddr)> {
        Err(ErrorKind::WouldBlock.into())
    }

    fn send(&mut self, socket: &Socket, bytes: [&[u8]; 2]) -> io::Result<usize> {
        self.with(socket, |connection, mmds, now| {
            connection.send(bytes, mmds, now)
        })
    }

    fn receive(&mut self, socket: &Socket, room: [&mut [u8]; 2]) -> io::Result<usize> {
        self.with(socket, |connection, mmds, now| {
            connection.receive(room, mmds, now)
        })
    }

    fn shut_down(&mut self, socket: &Socket) -> io::Result<()> {
        self.with(socket, |connection, mmds, now| {
            connection.shut_down(mmds, now);
        });
        Ok(())
    }

    fn reset(&mut self, socket: Socket) {
        drop(socket);
    }

    fn connect_udp(&mut self, _to: SocketAddr, _token: Token) -> io::Result<Socket> {
        refused()
    }

    fn bind_udp(&mut self, _at: SocketAddr, _token: Token) -> io::Result<Socket> {
        refused()
    }

    fn connect_echo(&mut self, _to: IpAddr, _token: Token) -> io::Result<Socket> {
        refused()
    }

    fn send_datagram(
        &mut self,
        _socket: &Socket,
        _bytes: &[u8],
        _to: Option<SocketAddr>,
    ) -> io::Result<()> {
        refused()
    }

    fn receive_datagram(
        &mut self,
        _socket: &Socket,
        _room: &mut [u8],
    ) -> io::Result<(usize, Option<SocketAddr>)> {
        Err(ErrorKind::WouldBlock.into())
    }
}
