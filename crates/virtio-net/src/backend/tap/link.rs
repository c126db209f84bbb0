//! Whether an interface is up.

use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, socket,
};

use super::ioctl;
use super::open::name_bytes;

/// `RTMGRP_LINK`: news of interfaces.
const NEWS_OF_LINKS: u32 = 1;
/// Messages that are taken at a time.
const MESSAGES: usize = 64;

/// Whether an interface is up, and a socket by which the kernel says that something about any has changed.
#[derive(Debug)]
pub(super) struct Link {
    socket: OwnedFd,
    up: bool,
}

impl Link {
    /// Nothing if the kernel gives no news.
    pub(super) fn new(name: &str) -> Option<Self> {
        let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
        let socket = socket(
            AddressFamily::Netlink,
            SockType::Raw,
            flags,
            SockProtocol::NetlinkRoute,
        )
        .ok()?;
        bind(socket.as_raw_fd(), &NetlinkAddr::new(0, NEWS_OF_LINKS)).ok()?;
        let mut link = Self { socket, up: true };
        link.look(name);
        Some(link)
    }

    /// Becomes readable when there is news.
    pub(super) fn fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }

    pub(super) fn is_up(&self) -> bool {
        self.up
    }

    /// Looks again if there is news. What it says does not matter: it may be of any interface, and too old.
    pub(super) fn poll(&mut self, name: &str) {
        let mut news = false;
        for _ in 0..MESSAGES {
            match recv(self.fd(), &mut [0; 1], MsgFlags::empty()) {
                Ok(_) | Err(Errno::ENOBUFS) => news = true,
                Err(_) => break,
            }
        }
        if news {
            self.look(name);
        }
    }

    fn look(&mut self, name: &str) {
        let up = u16::try_from(libc::IFF_UP).unwrap_or(0);
        let flags = name_bytes(name).map(|name| ioctl::interface_flags(&self.socket, name));
        // An interface that is gone is not up.
        self.up = matches!(flags, Some(Ok(flags)) if flags & up != 0);
    }
}
