//! The host's sockets.

use std::io::{self, ErrorKind, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, Protocol, RecvAncillaryBuffer, RecvFlags, SendAncillaryBuffer, SendFlags,
    Shutdown, SocketFlags, SocketType, acceptfrom_with, bind, connect, ipproto, listen, recv,
    recvfrom, recvmsg, send, sendmsg, sendto, shutdown, socket_with, sockopt,
};

use crate::host::{Event, Host, Token};

/// How many connections may wait to be accepted: as many as the host allows (`net.core.somaxconn`, 4096 by default). Who
/// finds no place tries again after a second.
const BACKLOG: i32 = 4096;
/// Events that are asked for at once.
const EVENTS: usize = 64;
const NO_WAIT: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 0,
};

/// Sockets of the host that runs the program, in one epoll set: whoever waits for all of them waits for one descriptor.
///
/// The set tells of changes alone, so that no socket's state costs a system call.
#[derive(Debug)]
pub struct HostSockets {
    epoll: OwnedFd,
}

impl HostSockets {
    /// An empty set.
    ///
    /// # Errors
    ///
    /// If the kernel has no room for it.
    pub fn new() -> io::Result<Self> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        Ok(Self { epoll })
    }

    fn open(
        &self,
        address: IpAddr,
        kind: SocketType,
        protocol: Option<Protocol>,
    ) -> io::Result<OwnedFd> {
        let family = match address {
            IpAddr::V4(_) => AddressFamily::INET,
            IpAddr::V6(_) => AddressFamily::INET6,
        };
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let socket = socket_with(family, kind, flags, protocol)?;
        if address.is_ipv6() {
            // What is bound to :: is not bound to 0.0.0.0, nor is ::ffff:127.0.0.1 another name for 127.0.0.1.
            sockopt::set_ipv6_v6only(&socket, true)?;
        }
        Ok(socket)
    }

    fn watch(&self, socket: &OwnedFd, token: Token, flags: EventFlags) -> io::Result<()> {
        let flags = flags | EventFlags::ET;
        Ok(epoll::add(
            &self.epoll,
            socket,
            EventData::new_u64(token),
            flags,
        )?)
    }

    fn watch_stream(&self, socket: &OwnedFd, token: Token) -> io::Result<()> {
        sockopt::set_tcp_nodelay(socket, true)?;
        // Who has gone without a word is found by the host's kernel.
        sockopt::set_socket_keepalive(socket, true)?;
        // Urgent bytes stay where they are in the stream (RFC 6093 §6). A receive ends at them as if there were no more,
        // so that one who has seen any must go on until there really is none.
        sockopt::set_socket_oobinline(socket, true)?;
        let flags = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::PRI;
        self.watch(socket, token, flags)
    }
}

impl Host for HostSockets {
    type Socket = OwnedFd;

    fn poll(&mut self, events: &mut [Event]) -> io::Result<usize> {
        let mut buffer = [const { MaybeUninit::<epoll::Event>::uninit() }; EVENTS];
        let room = buffer
            .get_mut(..events.len().min(EVENTS))
            .unwrap_or_default();
        let (found, _) = epoll::wait(&self.epoll, room, Some(&NO_WAIT))?;
        for (to, from) in events.iter_mut().zip(found.iter()) {
            let flags = from.flags;
            *to = Event {
                token: from.data.u64(),
                readable: flags.intersects(EventFlags::IN),
                writable: flags.intersects(EventFlags::OUT),
                hang_up: flags.intersects(
                    EventFlags::RDHUP | EventFlags::HUP | EventFlags::ERR | EventFlags::PRI,
                ),
            };
        }
        Ok(found.len())
    }

    fn fd(&self) -> Option<BorrowedFd<'_>> {
        Some(self.epoll.as_fd())
    }

    fn connect_tcp(&mut self, to: SocketAddr, token: Token) -> io::Result<OwnedFd> {
        let socket = self.open(to.ip(), SocketType::STREAM, None)?;
        match connect(&socket, &to) {
            Ok(()) | Err(Errno::INPROGRESS) => {}
            Err(error) => return Err(error.into()),
        }
        self.watch_stream(&socket, token)?;
        Ok(socket)
    }

    fn connected(&mut self, socket: &OwnedFd) -> io::Result<()> {
        sockopt::socket_error(socket)??;
        // Without an error it is connected once it has a peer.
        match rustix::net::getpeername(socket) {
            Ok(_) => Ok(()),
            Err(Errno::NOTCONN) => Err(ErrorKind::WouldBlock.into()),
            Err(error) => Err(error.into()),
        }
    }

    fn listen_tcp(&mut self, at: SocketAddr, token: Token) -> io::Result<OwnedFd> {
        let socket = self.open(at.ip(), SocketType::STREAM, None)?;
        // Else the port cannot be had for a minute after connections to it.
        sockopt::set_socket_reuseaddr(&socket, true)?;
        bind(&socket, &at)?;
        listen(&socket, BACKLOG)?;
        self.watch(&socket, token, EventFlags::IN)?;
        Ok(socket)
    }

    fn accept(&mut self, listener: &OwnedFd, token: Token) -> io::Result<(OwnedFd, SocketAddr)> {
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let (socket, from) = acceptfrom_with(listener, flags)?;
        let from = from.and_then(|from| SocketAddr::try_from(from).ok());
        let from = from.ok_or(ErrorKind::NotConnected)?;
        self.watch_stream(&socket, token)?;
        Ok((socket, from))
    }

    fn send(&mut self, socket: &OwnedFd, bytes: [&[u8]; 2]) -> io::Result<usize> {
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        let [first, second] = bytes;
        if second.is_empty() {
            return Ok(send(socket, first, flags)?);
        }
        let slices = [IoSlice::new(first), IoSlice::new(second)];
        Ok(sendmsg(
            socket,
            &slices,
            &mut SendAncillaryBuffer::default(),
            flags,
        )?)
    }

    fn receive(&mut self, socket: &OwnedFd, room: [&mut [u8]; 2]) -> io::Result<usize> {
        let [first, second] = room;
        if second.is_empty() {
            return Ok(recv(socket, first, RecvFlags::DONTWAIT)?.1);
        }
        let mut slices = [IoSliceMut::new(first), IoSliceMut::new(second)];
        let mut control = RecvAncillaryBuffer::default();
        Ok(recvmsg(socket, &mut slices, &mut control, RecvFlags::DONTWAIT)?.bytes)
    }

    fn shut_down(&mut self, socket: &OwnedFd) -> io::Result<()> {
        Ok(shutdown(socket, Shutdown::Write)?)
    }

    fn reset(&mut self, socket: OwnedFd) {
        // Closing with a linger of zero sends a reset. If it cannot be set, the connection is closed nevertheless.
        let _ = sockopt::set_socket_linger(&socket, Some(Duration::ZERO));
    }

    fn connect_udp(&mut self, to: SocketAddr, token: Token) -> io::Result<OwnedFd> {
        let socket = self.open(to.ip(), SocketType::DGRAM, None)?;
        connect(&socket, &to)?;
        self.watch(&socket, token, EventFlags::IN)?;
        Ok(socket)
    }

    fn bind_udp(&mut self, at: SocketAddr, token: Token) -> io::Result<OwnedFd> {
        let socket = self.open(at.ip(), SocketType::DGRAM, None)?;
        bind(&socket, &at)?;
        self.watch(&socket, token, EventFlags::IN)?;
        Ok(socket)
    }

    fn connect_echo(&mut self, to: IpAddr, token: Token) -> io::Result<OwnedFd> {
        let protocol = match to {
            IpAddr::V4(_) => ipproto::ICMP,
            IpAddr::V6(_) => ipproto::ICMPV6,
        };
        let socket = self.open(to, SocketType::DGRAM, Some(protocol))?;
        connect(&socket, &SocketAddr::from((to, 0)))?;
        self.watch(&socket, token, EventFlags::IN)?;
        Ok(socket)
    }

    fn send_datagram(
        &mut self,
        socket: &OwnedFd,
        bytes: &[u8],
        to: Option<SocketAddr>,
    ) -> io::Result<()> {
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        match to {
            Some(to) => sendto(socket, bytes, flags, &to)?,
            None => send(socket, bytes, flags)?,
        };
        Ok(())
    }

    fn receive_datagram(
        &mut self,
        socket: &OwnedFd,
        room: &mut [u8],
    ) -> io::Result<(usize, Option<SocketAddr>)> {
        let (_, len, from) = recvfrom(socket, room, RecvFlags::DONTWAIT)?;
        Ok((len, from.and_then(|from| SocketAddr::try_from(from).ok())))
    }
}
