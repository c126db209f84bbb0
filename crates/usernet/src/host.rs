//! What the network asks of the host.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::BorrowedFd;

/// By which the network knows a socket, and the host names it in an [`Event`].
pub type Token = u64;

/// That something has changed at a socket.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Event {
    /// Of which socket.
    pub token: Token,
    /// There may be something to receive or to accept.
    pub readable: bool,
    /// There may be room to send, or a connection may have been made.
    pub writable: bool,
    /// The peer has ended its direction, or the connection is broken: all that is left can be received, and then that.
    /// Or fewer bytes than were asked for do not mean that there are no more.
    pub hang_up: bool,
}

/// A host with sockets, of which none ever waits.
///
/// Events tell of changes: after [`WouldBlock`](io::ErrorKind::WouldBlock), or after fewer bytes than were asked for, the
/// next event is told when there is more; until then the network does not ask again. An event that tells too much does
/// no harm.
pub trait Host {
    /// A socket. Dropping it closes it.
    type Socket;

    /// Writes events to the front of `events` and says how many.
    ///
    /// # Errors
    ///
    /// If it cannot be known what has changed; it is asked again at the next call.
    fn poll(&mut self, events: &mut [Event]) -> io::Result<usize>;

    /// What can be read from when there are events; none if the host is asked by itself.
    fn fd(&self) -> Option<BorrowedFd<'_>>;

    /// Begins to connect. An event says when it is done.
    ///
    /// # Errors
    ///
    /// If it is known at once that this fails.
    fn connect_tcp(&mut self, to: SocketAddr, token: Token) -> io::Result<Self::Socket>;

    /// How connecting went: [`WouldBlock`](io::ErrorKind::WouldBlock) if it goes on.
    ///
    /// # Errors
    ///
    /// Why there is no connection.
    fn connected(&mut self, socket: &Self::Socket) -> io::Result<()>;

    /// Listens for connections.
    ///
    /// # Errors
    ///
    /// If that is not possible.
    fn listen_tcp(&mut self, at: SocketAddr, token: Token) -> io::Result<Self::Socket>;

    /// Accepts a connection, and says from where.
    ///
    /// # Errors
    ///
    /// [`WouldBlock`](io::ErrorKind::WouldBlock) if there is none.
    fn accept(
        &mut self,
        listener: &Self::Socket,
        token: Token,
    ) -> io::Result<(Self::Socket, SocketAddr)>;

    /// Sends bytes of a stream: the first piece, then the second.
    ///
    /// # Errors
    ///
    /// [`WouldBlock`](io::ErrorKind::WouldBlock), or the connection is broken.
    fn send(&mut self, socket: &Self::Socket, bytes: [&[u8]; 2]) -> io::Result<usize>;

    /// Receives bytes of a stream into the first piece, then into the second; none at the end of the stream.
    ///
    /// # Errors
    ///
    /// [`WouldBlock`](io::ErrorKind::WouldBlock), or the connection is broken.
    fn receive(&mut self, socket: &Self::Socket, room: [&mut [u8]; 2]) -> io::Result<usize>;

    /// Says that nothing more will be sent.
    ///
    /// # Errors
    ///
    /// If the connection is broken.
    fn shut_down(&mut self, socket: &Self::Socket) -> io::Result<()>;

    /// Breaks a connection, so that the peer sees that it was broken.
    fn reset(&mut self, socket: Self::Socket);

    /// Opens a socket of UDP for one peer.
    ///
    /// # Errors
    ///
    /// If there is none.
    fn connect_udp(&mut self, to: SocketAddr, token: Token) -> io::Result<Self::Socket>;

    /// Opens a socket of UDP at a place.
    ///
    /// # Errors
    ///
    /// If that is not possible.
    fn bind_udp(&mut self, at: SocketAddr, token: Token) -> io::Result<Self::Socket>;

    /// Opens a socket for echo requests to a peer. What is sent and received begins with the header of ICMP.
    ///
    /// # Errors
    ///
    /// If the host allows none.
    fn connect_echo(&mut self, to: IpAddr, token: Token) -> io::Result<Self::Socket>;

    /// Sends a datagram to the socket's peer, or to `to`.
    ///
    /// # Errors
    ///
    /// If it is not sent, or if the peer has refused an earlier one.
    fn send_datagram(
        &mut self,
        socket: &Self::Socket,
        bytes: &[u8],
        to: Option<SocketAddr>,
    ) -> io::Result<()>;

    /// Receives a datagram, and says from where, if the socket is not for one peer alone. It is cut to the room.
    ///
    /// # Errors
    ///
    /// [`WouldBlock`](io::ErrorKind::WouldBlock) if there is none, or if the peer has refused one.
    fn receive_datagram(
        &mut self,
        socket: &Self::Socket,
        room: &mut [u8],
    ) -> io::Result<(usize, Option<SocketAddr>)>;
}
