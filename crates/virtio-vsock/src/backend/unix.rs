//! Unix sockets: one to connect to, and one for each port of the host's that the guest may connect to.

mod handshake;

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use goldcrest_memory::io::{receive, send};
use rustix::net::{
    AddressFamily, SendFlags, Shutdown, SocketAddrUnix, SocketFlags, SocketType, connect, shutdown,
    socket_with,
};
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};

use self::handshake::{Handshakes, Line};
use crate::VsockError;
use crate::backend::{Backend, Event, Parts};

/// Room in the address of a Unix socket, in bytes, without the zero at its end.
const MAX_ADDRESS: usize = 107;
/// The most bytes of a path, so that `_` and a port's number can be added.
pub const MAX_PATH: usize = MAX_ADDRESS - "_4294967295".len();
/// When connections are tried again after the host could not take one.
const REST: Duration = Duration::from_secs(1);
/// Events taken at a time.
const BATCH: usize = 64;
/// Connections taken at a time.
const ACCEPTED: usize = 64;
/// The token of the listener, and the bit of those who have not said yet what they want.
const LISTENER: u64 = u64::MAX;
const HANDSHAKE: u64 = 1 << 63;

/// Programs on the host connect to a socket, send `CONNECT 1234\n` and receive `OK 1073741824\n`, in which the numbers
/// are the guest's port and their own; what follows, both ways, is the stream. Connections of the guest to port 1234
/// arrive at the socket whose path has `_1234` added.
///
/// All sockets are watched by one descriptor. The socket's file is removed when this is dropped, unless it has been
/// replaced.
#[derive(Debug)]
pub struct UnixHost {
    listener: UnixListener,
    path: PathBuf,
    /// Device and inode of the socket's file.
    identity: Option<(u64, u64)>,
    epoll: Epoll,
    events: [EpollEvent; BATCH],
    /// How many of `events` there are, and how many of those have been looked at.
    count: usize,
    looked: usize,
    /// There were no more when they were asked for.
    all: bool,
    handshakes: Handshakes,
    /// There may be connections to accept.
    knocking: bool,
    /// How many may be accepted before it is others' turn.
    turn: usize,
    /// The host could not take one: until when it is left alone.
    resting: Option<Duration>,
}

impl UnixHost {
    /// Whether `path` can be that of a [`UnixHost`].
    ///
    /// # Errors
    ///
    /// [`VsockError::PathTooLong`].
    pub fn check_path(path: &Path) -> Result<(), VsockError> {
        if path.as_os_str().len() > MAX_PATH {
            return Err(VsockError::PathTooLong {
                path: path.to_owned(),
                max: MAX_PATH,
            });
        }
        Ok(())
    }

    /// Listens on `path`. A socket that is there and that nobody listens on is replaced.
    ///
    /// # Errors
    ///
    /// [`VsockError::PathTooLong`], [`VsockError::NotASocket`], [`VsockError::SocketInUse`], [`VsockError::Socket`] or
    /// [`VsockError::Watch`].
    pub fn listen(path: impl Into<PathBuf>) -> Result<Self, VsockError> {
        let path = path.into();
        Self::check_path(&path)?;
        remove_stale(&path)?;
        let epoll = Epoll::new().map_err(VsockError::Watch)?;
        let bound = UnixListener::bind(&path).and_then(|listener| {
            listener.set_nonblocking(true)?;
            Ok(listener)
        });
        let listener = match bound {
            Ok(listener) => listener,
            Err(source) => return Err(VsockError::Socket { path, source }),
        };
        let host = Self {
            identity: identity(&path),
            listener,
            path,
            epoll,
            events: [EpollEvent::default(); BATCH],
            count: 0,
            looked: 0,
            all: false,
            handshakes: Handshakes::default(),
            knocking: false,
            turn: ACCEPTED,
            resting: None,
        };
        watch(&host.epoll, &host.listener, LISTENER, EventSet::IN).map_err(VsockError::Watch)?;
        Ok(host)
    }

    /// Where it listens.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The socket's path for a port of the host's.
    fn port_path(&self, port: u32) -> PathBuf {
        let mut path = OsString::from(&self.path);
        path.push(format!("_{port}"));
        path.into()
    }

    /// Takes one connection, and what it has said already.
    fn accept(&mut self, now: Duration) -> Option<Event<UnixStream>> {
        if self.resting.is_some_and(|until| now < until) {
            return None;
        }
        self.resting = None;
        match self.listener.accept() {
            Ok((stream, _)) => {
                let slot = self.handshakes.add(stream, now);
                match self.handshakes.look(slot, false) {
                    Line::Port(stream, port) => return Some(Event::Connect(stream, port)),
                    Line::Incomplete(stream) => {
                        let token = HANDSHAKE | slot as u64;
                        if watch(&self.epoll, stream, token, EventSet::IN).is_err() {
                            self.handshakes.remove(slot);
                        }
                    }
                    Line::Wrong => {}
                }
                None
            }
            Err(error) => {
                match error.kind() {
                    io::ErrorKind::WouldBlock => self.knocking = false,
                    io::ErrorKind::Interrupted | io::ErrorKind::ConnectionAborted => {}
                    _ => self.resting = Some(now.saturating_add(REST)),
                }
                None
            }
        }
    }

    /// The next event that has been taken from the kernel, if it is of use.
    fn next_taken(&mut self) -> Option<Event<UnixStream>> {
        let event = self.events.get(self.looked)?;
        self.looked += 1;
        let (token, flags) = (event.data(), event.event_set());
        let hung_up = flags.intersects(EventSet::HANG_UP | EventSet::ERROR);
        match token {
            LISTENER => {
                self.knocking = true;
                None
            }
            _ if token & HANDSHAKE != 0 => {
                let slot = usize::try_from(token & !HANDSHAKE).unwrap_or(usize::MAX);
                let finished = hung_up || flags.contains(EventSet::READ_HANG_UP);
                match self.handshakes.look(slot, finished) {
                    Line::Port(stream, port) => Some(Event::Connect(stream, port)),
                    // It is watched, and will be told of when there is more.
                    Line::Incomplete(_) | Line::Wrong => None,
                }
            }
            _ => Some(Event::Stream {
                token,
                readable: flags.intersects(EventSet::IN | EventSet::READ_HANG_UP) || hung_up,
                writable: flags.contains(EventSet::OUT) || hung_up,
                ended: flags.contains(EventSet::READ_HANG_UP) || hung_up,
                hung_up,
            }),
        }
    }

    /// Asks the kernel for events.
    fn take_events(&mut self) {
        // An error is no event, and what has happened will be asked for again.
        self.count = self.epoll.wait(0, &mut self.events).unwrap_or(0);
        self.looked = 0;
        self.all = self.count < BATCH;
    }
}

/// By edges: what is so already is told once.
fn watch(epoll: &Epoll, socket: &impl AsRawFd, token: u64, events: EventSet) -> io::Result<()> {
    let events = events | EventSet::READ_HANG_UP | EventSet::EDGE_TRIGGERED;
    let (fd, event) = (socket.as_raw_fd(), EpollEvent::new(events, token));
    match epoll.ctl(ControlOperation::Add, fd, event) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            epoll.ctl(ControlOperation::Modify, fd, event)
        }
        result => result,
    }
}

fn remove_stale(path: &Path) -> Result<(), VsockError> {
    let Ok(metadata) = fs::symlink_metadata(path) else {
        return Ok(());
    };
    let path = path.to_owned();
    if !metadata.file_type().is_socket() {
        return Err(VsockError::NotASocket { path });
    }
    match dial(&path).map_err(|error| (error.kind(), error)) {
        Err((io::ErrorKind::ConnectionRefused, _)) => {
            fs::remove_file(&path).map_err(|source| VsockError::Socket { path, source })
        }
        Ok(_) | Err((io::ErrorKind::WouldBlock, _)) => Err(VsockError::SocketInUse { path }),
        Err((_, source)) => Err(VsockError::Socket { path, source }),
    }
}

fn identity(path: &Path) -> Option<(u64, u64)> {
    let metadata = fs::symlink_metadata(path).ok()?;
    Some((metadata.dev(), metadata.ino()))
}

/// Connects without waiting: a socket on which too many wait to be accepted says `WouldBlock`.
fn dial(path: &Path) -> io::Result<UnixStream> {
    let address = SocketAddrUnix::new(path)?;
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    connect(&socket, &address)?;
    Ok(socket.into())
}

impl Backend for UnixHost {
    type Stream = UnixStream;

    fn next_event(&mut self, now: Duration) -> Option<Event<UnixStream>> {
        loop {
            while self.looked < self.count {
                if let Some(event) = self.next_taken() {
                    return Some(event);
                }
            }
            while self.knocking && self.turn > 0 && self.resting.is_none_or(|until| until <= now) {
                self.turn -= 1;
                if let Some(event) = self.accept(now) {
                    return Some(event);
                }
            }
            if std::mem::take(&mut self.all) {
                self.turn = ACCEPTED;
                return None;
            }
            self.handshakes.expire(now);
            self.take_events();
        }
    }

    fn connect(&mut self, port: u32) -> io::Result<UnixStream> {
        dial(&self.port_path(port))
    }

    fn watch(&mut self, stream: &mut UnixStream, token: u64) -> io::Result<()> {
        watch(&self.epoll, stream, token, EventSet::IN | EventSet::OUT)
    }

    fn accepted(&mut self, stream: &mut UnixStream, port: u32) {
        let line = format!("OK {port}\n");
        // There is room for so little. A program that has gone already may have left bytes for the guest.
        let _ = rustix::net::send(
            stream,
            line.as_bytes(),
            SendFlags::DONTWAIT | SendFlags::NOSIGNAL,
        );
    }

    fn receive(&mut self, stream: &mut UnixStream, parts: Parts<'_>) -> io::Result<usize> {
        receive(stream, parts)
    }

    fn send(&mut self, stream: &mut UnixStream, parts: Parts<'_>) -> io::Result<usize> {
        send(stream, parts)
    }

    fn send_bytes(&mut self, stream: &mut UnixStream, bytes: &[u8]) -> io::Result<usize> {
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        Ok(rustix::net::send(stream, bytes, flags)?)
    }

    fn end_sending(&mut self, stream: &mut UnixStream) {
        let _ = shutdown(stream.as_fd(), Shutdown::Write);
    }

    fn end_receiving(&mut self, stream: &mut UnixStream) {
        let _ = shutdown(stream.as_fd(), Shutdown::Read);
    }

    fn fd(&self) -> Option<RawFd> {
        Some(self.epoll.as_raw_fd())
    }

    fn deadline(&self) -> Option<Duration> {
        let knock = self.knocking.then(|| self.resting.unwrap_or_default());
        knock.into_iter().chain(self.handshakes.deadline()).min()
    }
}

impl Drop for UnixHost {
    fn drop(&mut self) {
        if self.identity.is_some() && identity(&self.path) == self.identity {
            let _ = fs::remove_file(&self.path);
        }
    }
}
