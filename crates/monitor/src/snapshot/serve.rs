//! RAM that goes to other processes: the side that has the memory file.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;

use goldcrest_memory::userfault::{Lost, PageSource, Served, ServedRange, Userfault};
use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use vmm_sys_util::sock_ctrl_msg::ScmSocket;

use super::{Chain, SnapshotError, SnapshotFiles, memory_message};
use crate::{ImageId, Notice};

/// Machines that are served at once.
const MAX_CLIENTS: usize = 1024;
/// Events that are taken at once.
const BATCH: usize = 64;

/// By which events are told apart: the listener and the end, and two for each machine.
const LISTENER: u64 = 0;
const END: u64 = 1;
const FIRST_CLIENT: u64 = 1;

/// Gives the memory of a snapshot to machines that are restored elsewhere, page by page, as they touch it
/// ([`RestoreConfig::page_server`](super::RestoreConfig::page_server)). Monitors of others that speak Firecracker's
/// protocol are served as well.
///
/// One thread serves all; what it waits for is the memory file. Any number of machines can come and go, up to 1024 at a
/// time. A machine is served until its connection ends; one that says what cannot be is hung up on, and the others do not
/// notice.
#[derive(Debug)]
pub struct PageServer {
    source: PageSource,
    id: ImageId,
}

/// A machine.
enum Client {
    /// It has not said yet where its memory is.
    New(UnixStream),
    Served(UnixStream, Served),
}

impl PageServer {
    /// Reads a snapshot's state, and opens its memory file, and those of the snapshots that it is the difference to.
    ///
    /// # Errors
    ///
    /// [`SnapshotError`] if the files are not a snapshot.
    pub fn open(files: &SnapshotFiles) -> Result<Self, SnapshotError> {
        Self::open_with(files, &[])
    }

    /// As [`open`](Self::open), with directories where bases are that are not where they were when the snapshot was made.
    ///
    /// # Errors
    ///
    /// As for that.
    pub fn open_with(files: &SnapshotFiles, bases: &[PathBuf]) -> Result<Self, SnapshotError> {
        let Chain { state, layers, .. } = Chain::open(files, bases)?;
        Ok(Self {
            source: PageSource::new(&layers)?,
            id: state.memory.id,
        })
    }

    /// By which the memory file is known.
    pub fn id(&self) -> ImageId {
        self.id
    }

    /// Serves whoever connects, until `end` can be read.
    ///
    /// # Errors
    ///
    /// If no connections can be accepted or waited for.
    pub fn serve(
        &self,
        listener: &UnixListener,
        end: impl AsFd,
        notice: &Notice,
    ) -> io::Result<()> {
        listener.set_nonblocking(true)?;
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        epoll.add(listener, EpollEvent::new(EpollFlags::EPOLLIN, LISTENER))?;
        epoll.add(&end, EpollEvent::new(EpollFlags::EPOLLIN, END))?;
        let mut clients = BTreeMap::new();
        let mut next = FIRST_CLIENT;
        let mut events = [EpollEvent::empty(); BATCH];
        loop {
            let count = match epoll.wait(&mut events, EpollTimeout::NONE) {
                Err(Errno::EINTR) => continue,
                count => count?,
            };
            for event in events.iter().take(count) {
                match event.data() {
                    END => return Ok(()),
                    LISTENER => accept(listener, &epoll, &mut clients, &mut next)?,
                    token => self.turn(token, &epoll, &mut clients, notice),
                }
            }
        }
    }

    /// Something came from a machine.
    fn turn(
        &self,
        token: u64,
        epoll: &Epoll,
        clients: &mut BTreeMap<u64, Client>,
        notice: &Notice,
    ) {
        let number = token / 2;
        let Some(client) = clients.remove(&number) else {
            return;
        };
        let from_socket = token.is_multiple_of(2);
        match self.take(client, number, from_socket, epoll) {
            Ok(Some(client)) => {
                clients.insert(number, client);
            }
            // It has ended.
            Ok(None) => {}
            Err(lost) => {
                let cause = std::error::Error::source(&lost);
                let cause = cause.map_or(String::new(), |cause| format!(": {cause}"));
                notice.say(&format!(
                    "machine {number} is not served any more: {lost}{cause}"
                ));
            }
        }
    }

    /// What has become of it.
    fn take(
        &self,
        client: Client,
        number: u64,
        from_socket: bool,
        epoll: &Epoll,
    ) -> Result<Option<Client>, Lost> {
        match client {
            Client::New(socket) => {
                let Some((userfault, ranges)) = greeting(&socket)? else {
                    return Ok(None);
                };
                let served = self.source.serve(userfault, ranges)?;
                let event = EpollEvent::new(EpollFlags::EPOLLIN, 2 * number + 1);
                epoll
                    .add(served.userfault(), event)
                    .map_err(io::Error::from)?;
                Ok(Some(Client::Served(socket, served)))
            }
            Client::Served(socket, served) if from_socket => {
                // Nothing that it says means anything, but its end does.
                let said = io::Read::read(&mut &socket, &mut [0; 64]);
                match said {
                    Ok(0) => Ok(None),
                    Err(error) if error.kind() != io::ErrorKind::WouldBlock => Ok(None),
                    _ => Ok(Some(Client::Served(socket, served))),
                }
            }
            Client::Served(socket, mut served) => match self.source.answer(&mut served) {
                Ok(()) => Ok(Some(Client::Served(socket, served))),
                // Its process has ended, and with it the memory.
                Err(Lost::Failed(error)) if ended(&error) => Ok(None),
                Err(lost) => Err(lost),
            },
        }
    }
}

fn ended(error: &io::Error) -> bool {
    [Errno::ESRCH, Errno::ENOENT]
        .iter()
        .any(|gone| error.raw_os_error() == Some(*gone as i32))
}

fn accept(
    listener: &UnixListener,
    epoll: &Epoll,
    clients: &mut BTreeMap<u64, Client>,
    next: &mut u64,
) -> io::Result<()> {
    let socket = match listener.accept() {
        Ok((socket, _)) => socket,
        // Whoever it was has gone, or there are too many descriptors: those that wait are asked again.
        Err(error) if clients.is_empty() && error.kind() != io::ErrorKind::WouldBlock => {
            return Err(error);
        }
        Err(_) => return Ok(()),
    };
    if clients.len() >= MAX_CLIENTS {
        return Ok(());
    }
    socket.set_nonblocking(true)?;
    let event = EpollEvent::new(EpollFlags::EPOLLIN, 2 * *next);
    epoll.add(&socket, event)?;
    clients.insert(*next, Client::New(socket));
    *next += 1;
    Ok(())
}

/// What a machine says of its memory; nothing if it has gone without.
fn greeting(socket: &UnixStream) -> Result<Option<(Userfault, Vec<ServedRange>)>, Lost> {
    let mut bytes = vec![0; memory_message::MAX_LEN];
    let (len, file) = socket.recv_with_fd(&mut bytes).map_err(io::Error::from)?;
    if len == 0 {
        return Ok(None);
    }
    let fd =
        file.ok_or_else(|| Lost::Refused("it sent no descriptor for its memory".to_owned()))?;
    let ranges = memory_message::read(bytes.get(..len).unwrap_or_default())?;
    let userfault = Userfault::try_from(OwnedFd::from(fd))?;
    Ok(Some((userfault, ranges)))
}
