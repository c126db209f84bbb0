//! Sockets of both kinds.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, VsockAddr, accept4, bind, connect, listen,
    setsockopt, socket, sockopt,
};

/// The host, as the guest knows it, and any CID.
const HOST: u32 = 2;
const ANY: u32 = u32::MAX;
/// How long it may take until the other end is there.
const PATIENCE: Duration = Duration::from_secs(300);
const DESCRIPTORS: u64 = 10_000;
/// After how long a TCP connection on which nothing comes is asked whether it is there.
const KEEPALIVE_SECONDS: u32 = 5;

/// Lets this process have as many descriptors as it may.
pub fn allow_many() -> nix::Result<()> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, DESCRIPTORS, hard.max(DESCRIPTORS))
        .or_else(|_| setrlimit(Resource::RLIMIT_NOFILE, hard, hard))
}

/// What is connected to.
pub enum Listener {
    Vsock(OwnedFd),
    Unix(UnixListener),
    Tcp(TcpListener),
}

impl Listener {
    pub fn vsock(port: u32) -> io::Result<Self> {
        let socket = vsock_socket()?;
        bind(socket.as_raw_fd(), &VsockAddr::new(ANY, port))?;
        listen(&socket, Backlog::new(1024)?)?;
        Ok(Self::Vsock(socket))
    }

    pub fn unix(path: &str) -> io::Result<Self> {
        let _ = fs::remove_file(path);
        UnixListener::bind(path).map(Self::Unix)
    }

    /// At any address of this machine.
    pub fn tcp(port: u16) -> io::Result<Self> {
        TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).map(Self::Tcp)
    }

    pub fn accept(&self) -> io::Result<File> {
        match self {
            Self::Vsock(socket) => {
                let accepted = accept4(socket.as_raw_fd(), SockFlag::SOCK_CLOEXEC)?;
                Ok(owned(accepted))
            }
            Self::Unix(listener) => Ok(File::from(OwnedFd::from(listener.accept()?.0))),
            Self::Tcp(listener) => Ok(File::from(OwnedFd::from(listener.accept()?.0))),
        }
    }
}

#[allow(unsafe_code, reason = "accept4 of nix gives a number")]
fn owned(descriptor: RawFd) -> File {
    // SAFETY: the kernel has just given it to us, and nobody else knows it.
    unsafe { File::from_raw_fd(descriptor) }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Vsock(socket) => socket.as_fd(),
            Self::Unix(listener) => listener.as_fd(),
            Self::Tcp(listener) => listener.as_fd(),
        }
    }
}

fn vsock_socket() -> nix::Result<OwnedFd> {
    socket(
        AddressFamily::Vsock,
        SockType::Stream,
        SockFlag::SOCK_CLOEXEC,
        None,
    )
}

/// What connects.
pub enum Connector {
    /// With a port of the host's.
    Vsock(u32),
    /// With whoever listens on a Unix socket.
    Unix(PathBuf),
    /// By a monitor's socket with a port of its guest's.
    Guest(PathBuf, u32),
    /// With an address and port, as `192.0.2.1:80`.
    Tcp(String),
}

impl Connector {
    /// As many as are asked for; the first may take its time.
    pub fn connect_all(&self, count: usize) -> io::Result<Vec<File>> {
        let begun = Instant::now();
        let first = loop {
            match self.connect() {
                Ok(socket) => break socket,
                Err(error) if begun.elapsed() > PATIENCE => return Err(error),
                Err(_) => thread::sleep(Duration::from_millis(100)),
            }
        };
        let rest = (1..count).map(|_| self.connect());
        std::iter::once(Ok(first)).chain(rest).take(count).collect()
    }

    fn connect(&self) -> io::Result<File> {
        match self {
            Self::Vsock(port) => {
                let socket = vsock_socket()?;
                connect(socket.as_raw_fd(), &VsockAddr::new(HOST, *port))?;
                Ok(socket.into())
            }
            Self::Unix(path) => Ok(File::from(OwnedFd::from(UnixStream::connect(path)?))),
            Self::Tcp(address) => {
                let stream = TcpStream::connect(address)?;
                // Who only waits learns by this that the other end does not know the connection any more.
                setsockopt(&stream, sockopt::KeepAlive, &true)?;
                setsockopt(&stream, sockopt::TcpKeepIdle, &KEEPALIVE_SECONDS)?;
                setsockopt(&stream, sockopt::TcpKeepInterval, &KEEPALIVE_SECONDS)?;
                Ok(File::from(OwnedFd::from(stream)))
            }
            Self::Guest(path, port) => {
                let mut stream = UnixStream::connect(path)?;
                stream.write_all(format!("CONNECT {port}\n").as_bytes())?;
                let line = line(&mut stream)?;
                match line.starts_with("OK ") {
                    true => Ok(File::from(OwnedFd::from(stream))),
                    false => Err(io::Error::other(format!("the monitor says {line:?}"))),
                }
            }
        }
    }
}

/// Up to the end of a line, and nothing of what follows.
fn line(stream: &mut UnixStream) -> io::Result<String> {
    let mut line = Vec::new();
    let mut byte = [0];
    while line.last() != Some(&b'\n') && stream.read(&mut byte)? == 1 {
        line.push(byte[0]);
    }
    String::from_utf8(line).map_err(io::Error::other)
}
