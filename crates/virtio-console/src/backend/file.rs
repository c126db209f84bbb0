//! A port on descriptors that others may share: standard input and output, pipes, files.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::time::Duration;

use nix::fcntl::OFlag;
use nix::libc::PIPE_BUF;
use nix::poll::PollFlags;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};
use nix::unistd::isatty;

use super::{LOOK_AT_SIZE, size_of, state_of};
use crate::{ConsoleError, PortBackend};

/// Looks at each piece of input and appends to the second argument what of it is for the guest.
pub type InputFilter = Box<dyn FnMut(&[u8], &mut Vec<u8>) + Send>;

/// Most bytes typed ahead of the guest, where input is filtered.
const MAX_PENDING: usize = 4096;
/// Bytes that are read at once to be filtered.
const FILTER_PIECE: usize = 1024;

/// Input from one descriptor, output to another.
///
/// Others may have the same pipe or terminal open, so that it is not set not to block. Instead, before each access it is
/// asked whether it is ready, and then written no more than a ready pipe takes for certain. A terminal makes no such
/// promise; it is opened anew for output, if possible, to be written without waiting.
pub struct FilePort {
    input: Option<Input>,
    output: Option<Output>,
}

struct Input {
    file: File,
    pollable: bool,
    ended: bool,
    filter: Option<InputFilter>,
    /// Filtered, but not taken by the guest yet.
    pending: Vec<u8>,
}

struct Output {
    file: File,
    pollable: bool,
    is_terminal: bool,
    /// The most bytes that can be written without waiting, when it is ready.
    most: usize,
}

impl FilePort {
    /// A port with input, output or both. Without input there is none for ever; without output what is put out is
    /// dropped.
    ///
    /// # Errors
    ///
    /// [`ConsoleError::Descriptor`].
    pub fn new(input: Option<OwnedFd>, output: Option<OwnedFd>) -> Result<Self, ConsoleError> {
        let make = || -> io::Result<Self> {
            Ok(Self {
                input: input.map(Input::new).transpose()?,
                output: output.map(Output::new).transpose()?,
            })
        };
        make().map_err(ConsoleError::Descriptor)
    }

    /// Has input pass through `filter`, which may look for a sequence of keys.
    ///
    /// It sees input even while the guest takes none. What comes then is kept up to 4096 bytes; what exceeds them is
    /// lost, as on a wire.
    #[must_use]
    pub fn with_filter(mut self, filter: InputFilter) -> Self {
        if let Some(input) = &mut self.input {
            input.filter = Some(filter);
            // A filter may add the byte or two that it held back before.
            input.pending.reserve(MAX_PENDING + 2 * FILTER_PIECE);
        }
        self
    }
}

impl FilePort {
    /// Its output, if that is a terminal.
    fn terminal(&self) -> Option<&File> {
        let output = self.output.as_ref().filter(|output| output.is_terminal);
        output.map(|output| &output.file)
    }
}

impl Input {
    fn new(fd: OwnedFd) -> io::Result<Self> {
        Ok(Self {
            pollable: is_pollable(&fd)?,
            file: fd.into(),
            ended: false,
            filter: None,
            pending: Vec::new(),
        })
    }

    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        if self.filter.is_none() {
            return self.read_file(bytes);
        }
        if self.pending.is_empty() {
            self.filter_more();
        }
        if self.pending.is_empty() && !self.ended {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let count = bytes.len().min(self.pending.len());
        for (to, from) in bytes.iter_mut().zip(self.pending.drain(..count)) {
            *to = from;
        }
        Ok(count)
    }

    fn read_file(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        if self.ended {
            return Ok(0);
        }
        if self.pollable && state_of(self.file.as_fd(), PollFlags::POLLIN)?.is_empty() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let result = self.file.read(bytes);
        self.ended = match &result {
            Ok(count) => *count == 0,
            Err(error) => !matches!(
                error.kind(),
                io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
            ),
        };
        result
    }

    fn filter_more(&mut self) {
        let mut bytes = [0; FILTER_PIECE];
        if let Ok(count) = self.read_file(&mut bytes)
            && let Some(filter) = &mut self.filter
        {
            filter(bytes.get(..count).unwrap_or_default(), &mut self.pending);
            self.pending.truncate(MAX_PENDING);
        }
    }

    fn fd(&self) -> Option<RawFd> {
        (self.pollable && !self.ended).then(|| self.file.as_raw_fd())
    }

    fn reads_ahead(&self) -> bool {
        self.filter.is_some() && self.pollable && !self.ended
    }
}

impl Output {
    fn new(fd: OwnedFd) -> io::Result<Self> {
        let pollable = is_pollable(&fd)?;
        let is_terminal = isatty(&fd).unwrap_or(false);
        let file = File::from(fd);
        let own = is_terminal.then(|| reopen(&file)).and_then(Result::ok);
        Ok(Self {
            pollable,
            is_terminal,
            // A terminal that is ready takes a byte, but not always more.
            most: if is_terminal && own.is_none() {
                1
            } else {
                PIPE_BUF
            },
            file: own.unwrap_or(file),
        })
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.pollable && state_of(self.file.as_fd(), PollFlags::POLLOUT)?.is_empty() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let now = bytes.get(..bytes.len().min(self.most)).unwrap_or_default();
        self.file.write(now)
    }
}

/// Opens the same terminal anew, which makes a description of our own.
fn reopen(file: &File) -> io::Result<File> {
    let flags = OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
    OpenOptions::new()
        .write(true)
        .custom_flags(flags.bits())
        .open(format!("/proc/self/fd/{}", file.as_raw_fd()))
}

/// Whether epoll takes the descriptor. Files and the like it does not: they are always ready.
fn is_pollable(fd: &OwnedFd) -> io::Result<bool> {
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
    match epoll.add(fd, EpollEvent::new(EpollFlags::EPOLLIN, 0)) {
        Ok(()) => Ok(true),
        Err(nix::Error::EPERM) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

impl PortBackend for FilePort {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.output {
            Some(output) => output.write(bytes),
            None => Ok(bytes.len()),
        }
    }

    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        match &mut self.input {
            Some(input) => input.read(bytes),
            None => Ok(0),
        }
    }

    fn poll(&mut self) {
        if let Some(input) = self.input.as_mut().filter(|input| input.reads_ahead()) {
            input.filter_more();
        }
    }

    fn read_fd(&self) -> Option<RawFd> {
        self.input.as_ref().and_then(Input::fd)
    }

    fn write_fd(&self) -> Option<RawFd> {
        let output = self.output.as_ref().filter(|output| output.pollable);
        output.map(|output| output.file.as_raw_fd())
    }

    fn poll_fd(&self) -> Option<RawFd> {
        let input = self.input.as_ref().filter(|input| input.reads_ahead());
        input.map(|input| input.file.as_raw_fd())
    }

    fn poll_within(&self) -> Option<Duration> {
        self.terminal().map(|_| LOOK_AT_SIZE)
    }

    fn size(&self) -> Option<(u16, u16)> {
        self.terminal().and_then(size_of)
    }
}

impl fmt::Debug for FilePort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let files = (
            self.input.as_ref().map(|input| &input.file),
            self.output.as_ref().map(|output| &output.file),
        );
        f.debug_tuple("FilePort")
            .field(&files.0)
            .field(&files.1)
            .finish()
    }
}
