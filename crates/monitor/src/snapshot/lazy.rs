//! RAM that comes from another process: the monitor's side.
//!
//! The protocol is Firecracker's. Whoever has the memory listens at a Unix socket; the monitor connects, and sends one
//! [message](memory_message): the ranges of its memory, and with it (`SCM_RIGHTS`) the descriptor by which pages are asked
//! for and given. The connection stays for as long as the machine runs, so that each side sees when the other ends.

use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use goldcrest_memory::userfault::{Event, ServedRange, Userfault};
use goldcrest_memory::{GuestRam, MemoryConfig};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket};
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};
use vmm_sys_util::sock_ctrl_msg::ScmSocket;

use super::{SnapshotError, memory_message};
use crate::cpu::Board;
use crate::events::Stop;
use crate::{MonitorError, Notice};

/// How often it is looked whether pages come.
const TICK: Duration = Duration::from_millis(500);
/// How long questions may be unread before it is said that they are.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a machine that was stopped may wait for a page.
const GRACE: Duration = Duration::from_secs(2);
/// How long a server may take to take the message.
const GREETING: Duration = Duration::from_secs(10);

/// A machine's connection to the process that has its memory.
#[derive(Debug)]
pub(crate) struct Lazy {
    path: PathBuf,
    /// Blocking; there is nothing to read from it but its end.
    socket: UnixStream,
    userfault: Userfault,
    ranges: Vec<ServedRange>,
    ram: GuestRam,
    /// Whether what the machine does can be seen outside of it.
    begun: Arc<AtomicBool>,
}

/// By which it is known what can be read.
const STOP: u64 = 0;
const SOCKET: u64 = 1;
const USERFAULT: u64 = 2;

impl Lazy {
    /// Connects to the process that listens at `path`, and makes RAM of which that has the pages.
    pub(super) fn connect(path: &Path, config: &MemoryConfig) -> Result<Self, SnapshotError> {
        let failed = |what: &'static str| {
            let path = path.to_owned();
            move |source| SnapshotError::PageServer { what, path, source }
        };
        let userfault = Userfault::new().map_err(SnapshotError::Userfault)?;
        let (ram, ranges) = GuestRam::served(config, &userfault)?;
        let socket = reach(path).map_err(failed("connect to"))?;
        let message =
            memory_message::write(&ranges).map_err(failed("send the memory's ranges to"))?;
        socket
            .set_write_timeout(Some(GREETING))
            .and_then(|()| send(&socket, &message, &userfault))
            .map_err(failed("send the memory's ranges to"))?;
        Ok(Self {
            path: path.to_owned(),
            socket,
            userfault,
            ranges,
            ram,
            begun: Arc::default(),
        })
    }

    pub(super) fn ram(&self) -> &GuestRam {
        &self.ram
    }

    /// To be set when what the machine does begins to be seen outside of it.
    pub(crate) fn begun(&self) -> Arc<AtomicBool> {
        self.begun.clone()
    }

    /// Looks whether pages come, until the machine has ended. If they cannot any more, and one is waited for, it ends
    /// the machine.
    pub(crate) fn watch(mut self, stop: &Stop, board: &Board, notice: &Notice) -> io::Result<()> {
        let (mut unread, mut said) = (Instant::now(), false);
        let mut stopped: Option<Instant> = None;
        let events = Events::new(stop)?;
        events.add(self.socket.as_raw_fd(), SOCKET)?;
        while !stop.is_stopped() {
            if events.wait()?.contains(&SOCKET) && self.has_hung_up() {
                return self.alone(stop, board, &events);
            }
            if !is_asked(&self.userfault)? {
                unread = Instant::now();
            } else if unread.elapsed() >= PATIENCE && !said {
                said = true;
                let path = self.path.display();
                let seconds = PATIENCE.as_secs();
                notice.say(&format!(
                    "the guest waits for memory: who listens at {path} has not looked for {seconds} s what it needs"
                ));
            }
            if board.control.stopped().is_some() {
                let since = *stopped.get_or_insert_with(Instant::now);
                if since.elapsed() >= GRACE {
                    return self.give_up();
                }
            }
        }
        Ok(())
    }

    /// Nothing that the other end says means anything, but its end does.
    fn has_hung_up(&mut self) -> bool {
        !matches!(self.socket.read(&mut [0; 64]), Ok(1..))
    }

    /// The other end has gone: pages that are not there yet cannot come. If all are, nothing is missing.
    fn alone(self, stop: &Stop, board: &Board, events: &Events) -> io::Result<()> {
        events.remove(self.socket.as_raw_fd())?;
        events.add(self.userfault.as_fd().as_raw_fd(), USERFAULT)?;
        // Who was waiting for an answer asks again.
        for range in &self.ranges {
            self.userfault.wake(range.address, range.len)?;
        }
        while !stop.is_stopped() {
            events.wait()?;
            while let Some(event) = self.userfault.event()? {
                let Event::Missing(address) = event else {
                    continue;
                };
                board.finish(Err(MonitorError::Snapshot(SnapshotError::PageLost {
                    offset: self.offset(address),
                    path: self.path.clone(),
                })));
                return self.give_up();
            }
        }
        Ok(())
    }

    /// Ends all waiting for pages.
    fn give_up(&self) -> io::Result<()> {
        match self.begun.load(Ordering::SeqCst) {
            true => self.ram.seal(&self.userfault),
            // Nobody sees what comes of it.
            false => self.ram.abandon(&self.userfault),
        }
    }

    /// Where in the memory file a page is.
    fn offset(&self, address: u64) -> u64 {
        let mut ranges = self.ranges.iter();
        ranges
            .find_map(|range| range.offset_of(address))
            .unwrap_or(0)
    }
}

/// A connection to who listens at `path`: one whose queue is full is not waited for.
fn reach(path: &Path) -> io::Result<UnixStream> {
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let socket: OwnedFd = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
    connect(socket.as_raw_fd(), &UnixAddr::new(path)?)?;
    let stream = UnixStream::from(socket);
    stream.set_nonblocking(false)?;
    Ok(stream)
}

fn send(socket: &UnixStream, message: &[u8], userfault: &Userfault) -> io::Result<()> {
    let fd = userfault.as_fd().as_raw_fd();
    match socket.send_with_fd(message, fd)? {
        sent if sent == message.len() => Ok(()),
        _ => Err(io::ErrorKind::WriteZero.into()),
    }
}

/// Whether there are questions that nobody has read.
fn is_asked(userfault: &Userfault) -> io::Result<bool> {
    let mut fds = [PollFd::new(userfault.as_fd(), PollFlags::POLLIN)];
    match poll(&mut fds, PollTimeout::ZERO) {
        Ok(_) | Err(nix::errno::Errno::EINTR) => {}
        Err(error) => return Err(error.into()),
    }
    Ok(fds.iter().any(|fd| fd.any().unwrap_or(false)))
}

/// What is waited for.
struct Events(Epoll);

impl Events {
    fn new(stop: &Stop) -> io::Result<Self> {
        let events = Self(Epoll::new()?);
        events.add(stop.fd(), STOP)?;
        Ok(events)
    }

    fn add(&self, fd: RawFd, data: u64) -> io::Result<()> {
        let event = EpollEvent::new(EventSet::IN, data);
        self.0.ctl(ControlOperation::Add, fd, event)
    }

    fn remove(&self, fd: RawFd) -> io::Result<()> {
        let event = EpollEvent::default();
        self.0.ctl(ControlOperation::Delete, fd, event)
    }

    /// What can be read, after a moment at most.
    fn wait(&self) -> io::Result<Vec<u64>> {
        let mut events = [EpollEvent::default(); 2];
        let tick = i32::try_from(TICK.as_millis()).unwrap_or(i32::MAX);
        let count = match self.0.wait(tick, &mut events) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => 0,
            count => count?,
        };
        let fired = events.get(..count).unwrap_or_default();
        Ok(fired.iter().map(EpollEvent::data).collect())
    }
}
