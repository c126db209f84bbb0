//! A host in memory.

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::BorrowedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::host::{Event, Host, Token};

/// A host that does what it is told, for tests and fuzzers: it has no sockets, no time and no threads.
///
/// Each socket that the network opens has a [`ScriptedPeer`] at its other end. Clones are the same host.
#[derive(Debug, Clone, Default)]
pub struct ScriptedHost(Arc<Mutex<State>>);

/// A socket of a [`ScriptedHost`].
#[derive(Debug)]
pub struct ScriptedSocket {
    id: u64,
    host: ScriptedHost,
}

/// The other end of a socket.
#[derive(Debug, Clone)]
pub struct ScriptedPeer {
    id: u64,
    host: ScriptedHost,
}

/// What a socket was opened for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ScriptedKind {
    /// A connection to, or from, that address.
    Tcp(SocketAddr),
    /// Connections are waited for there.
    TcpListener(SocketAddr),
    /// Datagrams to that address.
    Udp(SocketAddr),
    /// Datagrams are waited for there.
    UdpListener(SocketAddr),
    /// Echo requests to that address.
    Echo(IpAddr),
}

#[derive(Debug, Default)]
struct State {
    next: u64,
    sockets: BTreeMap<u64, Socket>,
    events: VecDeque<Event>,
    refusals: VecDeque<ErrorKind>,
    resets: u64,
}

#[derive(Debug)]
struct Socket {
    token: Token,
    kind: ScriptedKind,
    is_open: bool,
    is_connected: bool,
    /// What the network can receive.
    incoming: VecDeque<u8>,
    /// No more comes in.
    ended: bool,
    /// What the network has sent.
    outgoing: Vec<u8>,
    /// How many bytes more it can send.
    room: usize,
    /// The network has ended its direction.
    shut: bool,
    error: Option<ErrorKind>,
    /// Datagrams, or connections without bytes.
    waiting: VecDeque<(Vec<u8>, SocketAddr)>,
    sent: VecDeque<(Vec<u8>, Option<SocketAddr>)>,
}

impl ScriptedHost {
    /// The next socket cannot be opened, for that reason. Of several, each counts once.
    pub fn refuse(&self, why: ErrorKind) {
        self.lock().refusals.push_back(why);
    }

    /// The other ends of all sockets that are open, the oldest first.
    pub fn peers(&self) -> Vec<ScriptedPeer> {
        let state = self.lock();
        let open = state.sockets.iter().filter(|(_, socket)| socket.is_open);
        let peer = |(id, _): (&u64, &Socket)| ScriptedPeer {
            id: *id,
            host: self.clone(),
        };
        open.map(peer).collect()
    }

    /// How many connections the network has broken.
    pub fn resets(&self) -> u64 {
        self.lock().resets
    }

    /// Tells the network an event, which may be of no socket at all.
    pub fn event(&self, event: Event) {
        self.lock().events.push_back(event);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn open(
        &self,
        kind: ScriptedKind,
        token: Token,
        is_connected: bool,
    ) -> io::Result<ScriptedSocket> {
        let mut state = self.lock();
        if let Some(why) = state.refusals.pop_front() {
            return Err(why.into());
        }
        let id = state.next;
        state.next += 1;
        let socket = Socket {
            token,
            kind,
            is_open: true,
            is_connected,
            incoming: VecDeque::new(),
            ended: false,
            outgoing: Vec::new(),
            room: usize::MAX,
            shut: false,
            error: None,
            waiting: VecDeque::new(),
            sent: VecDeque::new(),
        };
        state.sockets.insert(id, socket);
        Ok(ScriptedSocket {
            id,
            host: self.clone(),
        })
    }

    fn with<T>(&self, id: u64, access: impl FnOnce(&mut Socket) -> T) -> Option<T> {
        self.lock().sockets.get_mut(&id).map(access)
    }
}

impl ScriptedPeer {
    /// Its number, which no other socket of the host has or will have.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// What the socket was opened for; none if it has been closed.
    pub fn kind(&self) -> Option<ScriptedKind> {
        let kind = |socket: &mut Socket| socket.is_open.then_some(socket.kind);
        self.host.with(self.id, kind)?
    }

    /// The connection is made.
    pub fn connect(&self) {
        self.change(|socket| socket.is_connected = true, (false, true, false));
    }

    /// Sends bytes of a stream.
    pub fn give(&self, bytes: &[u8]) {
        self.change(|socket| socket.incoming.extend(bytes), (true, false, false));
    }

    /// Ends this direction.
    pub fn end(&self) {
        self.change(|socket| socket.ended = true, (true, false, true));
    }

    /// Breaks it: the socket's next use fails so.
    pub fn fail(&self, why: ErrorKind) {
        self.change(|socket| socket.error = Some(why), (true, true, true));
    }

    /// Takes that many bytes of a stream and no more; until it is called first, there is no end to the room.
    pub fn set_room(&self, room: usize) {
        self.change(|socket| socket.room = room, (false, room > 0, false));
    }

    /// Sends a datagram, or connects, from that address.
    pub fn come(&self, datagram: &[u8], from: SocketAddr) {
        let datagram = (datagram.to_vec(), from);
        self.change(
            |socket| socket.waiting.push_back(datagram),
            (true, false, false),
        );
    }

    /// What has come over a stream since this was called last.
    pub fn take(&self) -> Vec<u8> {
        let mut state = self.host.lock();
        let Some(socket) = state.sockets.get_mut(&self.id) else {
            return Vec::new();
        };
        let taken = std::mem::take(&mut socket.outgoing);
        if !socket.is_open {
            state.sockets.remove(&self.id);
        }
        taken
    }

    /// The next datagram that has come, and to whom, if the socket is not for one alone.
    pub fn take_datagram(&self) -> Option<(Vec<u8>, Option<SocketAddr>)> {
        self.host.with(self.id, |socket| socket.sent.pop_front())?
    }

    /// How many bytes of a stream the network has not received yet.
    pub fn left(&self) -> usize {
        self.host
            .with(self.id, |socket| socket.incoming.len())
            .unwrap_or(0)
    }

    /// Whether the network has ended its direction.
    pub fn is_shut(&self) -> bool {
        self.host
            .with(self.id, |socket| socket.shut)
            .unwrap_or(false)
    }

    fn change(
        &self,
        change: impl FnOnce(&mut Socket),
        (readable, writable, hang_up): (bool, bool, bool),
    ) {
        let mut state = self.host.lock();
        if let Some(socket) = state.sockets.get_mut(&self.id)
            && socket.is_open
        {
            change(socket);
            let token = socket.token;
            let event = Event {
                token,
                readable,
                writable,
                hang_up,
            };
            state.events.push_back(event);
        }
    }
}

impl Drop for ScriptedSocket {
    /// What has been sent stays until it is taken.
    fn drop(&mut self) {
        let mut state = self.host.lock();
        if let Some(socket) = state.sockets.get_mut(&self.id) {
            socket.is_open = false;
            if socket.outgoing.is_empty() {
                state.sockets.remove(&self.id);
            }
        }
    }
}

impl Host for ScriptedHost {
    type Socket = ScriptedSocket;

    fn poll(&mut self, events: &mut [Event]) -> io::Result<usize> {
        let mut state = self.lock();
        let count = events.len().min(state.events.len());
        for (to, from) in events.iter_mut().zip(state.events.drain(..count)) {
            *to = from;
        }
        Ok(count)
    }

    fn fd(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    fn connect_tcp(&mut self, to: SocketAddr, token: Token) -> io::Result<ScriptedSocket> {
        self.open(ScriptedKind::Tcp(to), token, false)
    }

    fn connected(&mut self, socket: &ScriptedSocket) -> io::Result<()> {
        let connected = self.with(socket.id, |socket| match socket.error.take() {
            Some(error) => Err(error.into()),
            None if socket.is_connected => Ok(()),
            None => Err(ErrorKind::WouldBlock.into()),
        });
        connected.unwrap_or(Ok(()))
    }

    fn listen_tcp(&mut self, at: SocketAddr, token: Token) -> io::Result<ScriptedSocket> {
        self.open(ScriptedKind::TcpListener(at), token, true)
    }

    fn accept(
        &mut self,
        listener: &ScriptedSocket,
        token: Token,
    ) -> io::Result<(ScriptedSocket, SocketAddr)> {
        let (_, from) = self.next_waiting(listener)?;
        Ok((self.open(ScriptedKind::Tcp(from), token, true)?, from))
    }

    fn send(&mut self, socket: &ScriptedSocket, bytes: [&[u8]; 2]) -> io::Result<usize> {
        let sent = self.with(socket.id, |socket| {
            if let Some(error) = socket.error {
                return Err(error.into());
            }
            let bytes = bytes.concat();
            let piece = bytes
                .get(..bytes.len().min(socket.room))
                .unwrap_or_default();
            socket.outgoing.extend_from_slice(piece);
            if socket.room != usize::MAX {
                socket.room -= piece.len();
            }
            match piece.len() {
                0 => Err(ErrorKind::WouldBlock.into()),
                len => Ok(len),
            }
        });
        sent.unwrap_or(Ok(0))
    }

    fn receive(&mut self, socket: &ScriptedSocket, room: [&mut [u8]; 2]) -> io::Result<usize> {
        let received = self.with(socket.id, |socket| {
            let mut len = 0;
            for byte in room.into_iter().flatten() {
                let Some(next) = socket.incoming.pop_front() else {
                    break;
                };
                *byte = next;
                len += 1;
            }
            match (len, socket.error) {
                (0, Some(error)) => Err(error.into()),
                (0, None) if !socket.ended => Err(ErrorKind::WouldBlock.into()),
                _ => Ok(len),
            }
        });
        received.unwrap_or(Ok(0))
    }

    fn shut_down(&mut self, socket: &ScriptedSocket) -> io::Result<()> {
        self.with(socket.id, |socket| socket.shut = true);
        Ok(())
    }

    fn reset(&mut self, socket: ScriptedSocket) {
        self.lock().resets += 1;
        drop(socket);
    }

    fn connect_udp(&mut self, to: SocketAddr, token: Token) -> io::Result<ScriptedSocket> {
        self.open(ScriptedKind::Udp(to), token, true)
    }

    fn bind_udp(&mut self, at: SocketAddr, token: Token) -> io::Result<ScriptedSocket> {
        self.open(ScriptedKind::UdpListener(at), token, true)
    }

    fn connect_echo(&mut self, to: IpAddr, token: Token) -> io::Result<ScriptedSocket> {
        self.open(ScriptedKind::Echo(to), token, true)
    }

    fn send_datagram(
        &mut self,
        socket: &ScriptedSocket,
        bytes: &[u8],
        to: Option<SocketAddr>,
    ) -> io::Result<()> {
        let sent = self.with(socket.id, |socket| {
            if let Some(error) = socket.error.take() {
                return Err(error.into());
            }
            socket.sent.push_back((bytes.to_vec(), to));
            Ok(())
        });
        sent.unwrap_or(Ok(()))
    }

    fn receive_datagram(
        &mut self,
        socket: &ScriptedSocket,
        room: &mut [u8],
    ) -> io::Result<(usize, Option<SocketAddr>)> {
        let (bytes, from) = self.next_waiting(socket)?;
        let len = bytes.len().min(room.len());
        for (to, from) in room.iter_mut().zip(bytes) {
            *to = from;
        }
        let is_for_one = self.with(socket.id, |socket| {
            !matches!(socket.kind, ScriptedKind::UdpListener(_))
        });
        Ok((len, (is_for_one == Some(false)).then_some(from)))
    }
}

impl ScriptedHost {
    fn next_waiting(&self, socket: &ScriptedSocket) -> io::Result<(Vec<u8>, SocketAddr)> {
        let next = self.with(socket.id, |socket| {
            if let Some(error) = socket.error.take() {
                return Err(error.into());
            }
            socket
                .waiting
                .pop_front()
                .ok_or(ErrorKind::WouldBlock.into())
        });
        next.unwrap_or(Err(ErrorKind::NotConnected.into()))
    }
}
