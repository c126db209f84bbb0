//! A port on a Unix socket that somebody can connect to.

use std::fs;
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::{ConsoleError, PortBackend};

/// When connections are tried again after the host could not take one.
const REST: Duration = Duration::from_secs(1);

/// Listens on a path; one client at a time is connected, the next when it has gone. While none is, output is dropped.
///
/// The socket's file is removed when the port is dropped, unless it has been replaced.
#[derive(Debug)]
pub struct SocketPort {
    listener: UnixListener,
    client: Option<UnixStream>,
    /// The client before, which has gone. It stays open until there is another one, which so has another number: who
    /// watches descriptors sees that it changed.
    gone: Option<UnixStream>,
    path: PathBuf,
    /// Device and inode of the socket's file.
    identity: Option<(u64, u64)>,
    /// The host could not take a connection that is there: the listener is ready, but not to be waited for.
    resting: bool,
}

impl SocketPort {
    /// Listens on `path`. A socket that is there and that nobody listens on is replaced.
    ///
    /// # Errors
    ///
    /// [`ConsoleError::NotASocket`], [`ConsoleError::SocketInUse`] or [`ConsoleError::Socket`].
    pub fn listen(path: impl Into<PathBuf>) -> Result<Self, ConsoleError> {
        let path = path.into();
        remove_stale(&path)?;
        match Self::bind(&path) {
            Ok(listener) => Ok(Self {
                listener,
                client: None,
                gone: None,
                identity: identity(&path),
                path,
                resting: false,
            }),
            Err(source) => Err(ConsoleError::Socket { path, source }),
        }
    }

    fn bind(path: &Path) -> io::Result<UnixListener> {
        let listener = UnixListener::bind(path)?;
        listener.set_nonblocking(true)?;
        Ok(listener)
    }

    /// Where it listens.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn accept(&self) -> io::Result<UnixStream> {
        let (client, _) = self.listener.accept()?;
        client.set_nonblocking(true)?;
        Ok(client)
    }

    /// What the client's socket says; the client is gone if that is an error.
    fn with_client(
        &mut self,
        access: impl FnOnce(&mut UnixStream) -> io::Result<usize>,
    ) -> io::Result<usize> {
        let Some(client) = &mut self.client else {
            return Err(io::ErrorKind::WouldBlock.into());
        };
        let result = access(client);
        if let Err(error) = &result
            && !matches!(
                error.kind(),
                io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
            )
        {
            let _ = client.shutdown(Shutdown::Both);
            self.gone = self.client.take();
        }
        result
    }
}

fn remove_stale(path: &Path) -> Result<(), ConsoleError> {
    let Ok(metadata) = fs::symlink_metadata(path) else {
        return Ok(());
    };
    let path = path.to_owned();
    if !metadata.file_type().is_socket() {
        return Err(ConsoleError::NotASocket { path });
    }
    match UnixStream::connect(&path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            fs::remove_file(&path).map_err(|source| ConsoleError::Socket { path, source })
        }
        Ok(_) => Err(ConsoleError::SocketInUse { path }),
        Err(source) => Err(ConsoleError::Socket { path, source }),
    }
}

fn identity(path: &Path) -> Option<(u64, u64)> {
    let metadata = fs::symlink_metadata(path).ok()?;
    Some((metadata.dev(), metadata.ino()))
}

impl PortBackend for SocketPort {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.with_client(|client| client.write(bytes))
    }

    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let result = self.with_client(|client| match client.read(bytes) {
            // It has hung up. That is not the end: another may come.
            Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
            result => result,
        });
        result.map_err(|_| io::ErrorKind::WouldBlock.into())
    }

    fn poll(&mut self) {
        if self.client.is_some() {
            return;
        }
        self.resting = false;
        match self.accept() {
            Ok(client) => {
                self.client = Some(client);
                self.gone = None;
            }
            Err(error) => self.resting = error.kind() != io::ErrorKind::WouldBlock,
        }
    }

    fn is_open(&self) -> bool {
        self.client.is_some()
    }

    fn read_fd(&self) -> Option<RawFd> {
        self.client.as_ref().map(AsRawFd::as_raw_fd)
    }

    fn write_fd(&self) -> Option<RawFd> {
        self.client.as_ref().map(AsRawFd::as_raw_fd)
    }

    fn poll_fd(&self) -> Option<RawFd> {
        (self.client.is_none() && !self.resting).then(|| self.listener.as_raw_fd())
    }

    fn poll_within(&self) -> Option<Duration> {
        self.resting.then_some(REST)
    }
}

impl Drop for SocketPort {
    fn drop(&mut self) {
        if self.identity.is_some() && identity(&self.path) == self.identity {
            let _ = fs::remove_file(&self.path);
        }
    }
}
