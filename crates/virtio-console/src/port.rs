//! A port: how bytes go between its queues and its backend.

use std::fmt;
use std::io;
use std::time::Duration;

use goldcrest_virtio::{ActiveQueue, Chain, DeviceError, QueueError, Waits};

use crate::PortBackend;
use crate::control::Owed;

/// Bytes that are moved at once.
pub(crate) const PIECE: usize = 4096;
/// Bytes of output that are moved in one call.
const MAX_OUTPUT: usize = 256 << 10;
/// When a backend without descriptors is tried again.
const RETRY: Duration = Duration::from_millis(100);

/// A port as it is set up.
pub struct PortConfig {
    pub(crate) backend: Box<dyn PortBackend>,
    pub(crate) name: Option<String>,
    pub(crate) console: bool,
}

impl PortConfig {
    /// A port for a console: `hvc0` and so on in Linux.
    pub fn console(backend: impl PortBackend + 'static) -> Self {
        Self {
            backend: Box::new(backend),
            name: None,
            console: true,
        }
    }

    /// A port for programs, which find it by its name: `/dev/virtio-ports/NAME` in Linux with udev. The name, of up to
    /// [`MAX_NAME`](crate::spec::MAX_NAME) bytes, is told where there are several ports.
    pub fn named(name: impl Into<String>, backend: impl PortBackend + 'static) -> Self {
        Self {
            backend: Box::new(backend),
            name: Some(name.into()),
            console: false,
        }
    }
}

impl fmt::Debug for PortConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PortConfig")
            .field("name", &self.name)
            .field("console", &self.console)
            .finish_non_exhaustive()
    }
}

/// A port in use.
pub(crate) struct Port {
    pub(crate) config: PortConfig,
    pub(crate) flow: Flow,
    /// Only with `VIRTIO_CONSOLE_F_MULTIPORT`.
    pub(crate) control: PortControl,
    /// Input has come to its end.
    ended: bool,
    /// Bytes of output that were dropped.
    pub(crate) lost: u64,
}

/// How far the port is with the driver's buffers.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Flow {
    /// How much of the first output buffer in the queue has been put out.
    pub(crate) sent: u64,
    /// Output waits for the backend.
    blocked: bool,
    /// There is more output than one call moves.
    more: bool,
    /// The guest has room for input, and there is none.
    wants_input: bool,
}

impl Flow {
    /// With `sent` bytes of the first output buffer put out before.
    pub(crate) fn resumed(sent: u64) -> Self {
        Self {
            sent,
            ..Self::default()
        }
    }

    /// There are no buffers for input any more.
    pub(crate) fn stop_input(&mut self) {
        self.wants_input = false;
    }

    /// There are no buffers with output any more.
    pub(crate) fn stop_output(&mut self) {
        *self = Self {
            wants_input: self.wants_input,
            ..Self::default()
        };
    }
}

/// How far port and driver are with control messages.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct PortControl {
    pub(crate) owed: Owed,
    /// The driver knows the port and is ready.
    pub(crate) ready: bool,
    /// It is open in the guest.
    pub(crate) open: bool,
    /// What the driver was told last of the host's end.
    pub(crate) told_open: bool,
}

/// What became of a piece of output.
enum Taken {
    All,
    NotAll,
}

impl Port {
    pub(crate) fn new(config: PortConfig) -> Self {
        Self {
            config,
            flow: Flow::default(),
            control: PortControl::default(),
            ended: false,
            lost: 0,
        }
    }

    /// Whether [`output`](Self::output) has something to go on with.
    pub(crate) fn has_output(&self) -> bool {
        self.flow.blocked || self.flow.more
    }

    /// Whether [`input`](Self::input) has room to go on with.
    pub(crate) fn wants_input(&self) -> bool {
        self.flow.wants_input
    }

    /// Whether what is told of the host's end is out of date.
    pub(crate) fn owes_open(&self) -> bool {
        self.control.ready && self.config.backend.is_open() != self.control.told_open
    }

    /// Puts out what the driver has put in the queue.
    pub(crate) fn output(
        &mut self,
        mut queue: ActiveQueue<'_>,
        piece: &mut [u8; PIECE],
    ) -> Result<(), QueueError> {
        let mut budget = MAX_OUTPUT;
        self.flow.blocked = false;
        self.flow.more = false;
        while let Some(mut chain) = queue.pop()? {
            let head = chain.head;
            match self.output_chain(&mut chain, piece, &mut budget)? {
                Taken::All => {
                    self.flow.sent = 0;
                    queue.push(head, 0);
                }
                Taken::NotAll => {
                    queue.undo_pop(head);
                    break;
                }
            }
        }
        Ok(())
    }

    fn output_chain(
        &mut self,
        chain: &mut Chain<'_>,
        piece: &mut [u8; PIECE],
        budget: &mut usize,
    ) -> Result<Taken, QueueError> {
        skip(chain, self.flow.sent)?;
        while chain.readable.left() > 0 {
            let Some(slice) = chain.readable.take(PIECE.min(*budget))? else {
                self.flow.more = true;
                return Ok(Taken::NotAll);
            };
            let bytes = piece.get_mut(..slice.len()).unwrap_or_default();
            slice.copy_to(bytes);
            *budget = budget.saturating_sub(bytes.len());
            if let Taken::NotAll = self.output_bytes(bytes) {
                return Ok(Taken::NotAll);
            }
        }
        Ok(Taken::All)
    }

    fn output_bytes(&mut self, mut bytes: &[u8]) -> Taken {
        while !bytes.is_empty() {
            let backend = &mut self.config.backend;
            let result = match backend.is_open() {
                true => backend.write(bytes),
                false => Err(io::ErrorKind::NotConnected.into()),
            };
            let taken = match result.map_err(|error| error.kind()) {
                Ok(0) | Err(io::ErrorKind::WouldBlock) => {
                    self.flow.blocked = true;
                    return Taken::NotAll;
                }
                Err(io::ErrorKind::Interrupted) => {
                    self.flow.more = true;
                    return Taken::NotAll;
                }
                Ok(count) => count,
                Err(_) => {
                    self.lost = self.lost.saturating_add(bytes.len() as u64);
                    bytes.len()
                }
            };
            self.flow.sent = self.flow.sent.saturating_add(taken as u64);
            bytes = bytes.get(taken..).unwrap_or_default();
        }
        Taken::All
    }

    /// Gives the driver input, as far as there are both input and room.
    pub(crate) fn input(
        &mut self,
        mut queue: ActiveQueue<'_>,
        index: u16,
        piece: &mut [u8; PIECE],
    ) -> Result<(), DeviceError> {
        let misused = |source| DeviceError::Queue {
            queue: index,
            source,
        };
        self.flow.wants_input = false;
        while !self.ended {
            let Some(mut chain) = queue.pop().map_err(misused)? else {
                break;
            };
            let (head, left) = (chain.head, chain.writable.left());
            let room = usize::try_from(left).unwrap_or(PIECE).min(PIECE);
            if room == 0 {
                return Err(DeviceError::Driver("a console input buffer has no room"));
            }
            let bytes = piece.get_mut(..room).unwrap_or_default();
            let count = self.read(bytes);
            if count == 0 {
                queue.undo_pop(head);
                break;
            }
            let bytes = bytes.get(..count).unwrap_or_default();
            chain.writable.write(bytes).map_err(misused)?;
            queue.push(head, u32::try_from(count).unwrap_or(0));
        }
        Ok(())
    }

    /// How many bytes there were, which may be none for now or for ever.
    fn read(&mut self, bytes: &mut [u8]) -> usize {
        match self.config.backend.read(bytes) {
            Ok(count) if count > 0 => return count,
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
                ) =>
            {
                self.flow.wants_input = true;
            }
            _ => self.ended = true,
        }
        0
    }

    /// One byte, past all that waits, if it can be put out now.
    pub(crate) fn emergency(&mut self, byte: u8) {
        let backend = &mut self.config.backend;
        if !backend.is_open() || backend.write(&[byte]).is_err() {
            self.lost = self.lost.saturating_add(1);
        }
    }

    pub(crate) fn waits(&self, waits: &mut Waits) {
        let backend = &self.config.backend;
        let input = self.flow.wants_input;
        let polled = backend.poll_fd();
        waits.readable.extend(polled);
        match backend.read_fd() {
            Some(fd) if input && polled != Some(fd) => waits.readable.push(fd),
            _ => {}
        }
        if self.flow.blocked {
            match backend.write_fd() {
                Some(fd) => waits.writable.push(fd),
                None => waits.within(RETRY),
            }
        }
        if self.flow.more {
            waits.within(Duration::ZERO);
        }
        if let Some(delay) = backend.poll_within() {
            waits.within(delay);
        }
    }
}

/// Skips what has been put out already. The driver may have shortened it meanwhile.
fn skip(chain: &mut Chain<'_>, mut count: u64) -> Result<(), QueueError> {
    while count > 0 {
        let most = usize::try_from(count).unwrap_or(usize::MAX);
        match chain.readable.take(most)? {
            Some(slice) => count = count.saturating_sub(slice.len() as u64),
            None => break,
        }
    }
    Ok(())
}
