//! A tap: an interface of the host's whose frames a process sends and receives.

mod error;
mod ioctl;
mod link;
mod open;
mod plain;

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use goldcrest_memory::io::{MAX_PARTS, read, write};
use goldcrest_virtio::{Features, Ram, Segment, Waits};
use vm_memory::VolatileSlice;

use crate::segments::{self, slices};
use crate::spec::{MAX_FRAME, feature, header};
use crate::{Header, NetBackend};

use link::Link;

pub use error::TapError;
pub use open::TapConfig;
pub use plain::PlainTap;

/// The most parts of guest RAM that one system call moves, beside a part of the host's.
const PARTS: usize = MAX_PARTS - 1;

/// A tap (`/dev/net/tun`), by which the guest's frames are the host's, and the other way round.
///
/// Frames go between guest RAM and the host's kernel without a copy in between. Frames and headers are as virtio has them:
/// the kernel computes sums and cuts what is long, as far as the driver has not agreed to take it so. The tap's name,
/// addresses, bridge and whether it is up are the host's affair.
#[derive(Debug)]
pub struct Tap {
    name: String,
    queues: Vec<Queue>,
    /// It was made for several queues.
    multi_queue: bool,
    /// Whether the host's kernel cuts UDP into segments.
    has_uso: bool,
    link: Option<Link>,
    /// Frames have come since it was last asked what there is.
    busy: bool,
    /// Where a frame of too many parts is put together.
    copy: Box<[u8]>,
}

#[derive(Debug)]
struct Queue {
    file: File,
    /// Frames go by it.
    attached: bool,
    /// Where a frame goes on that is longer than the guest's room.
    spill: Box<[u8]>,
    /// Bytes of the frame that waits there, all of it.
    held: Option<usize>,
}

impl Tap {
    /// The interface's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its queues' descriptors, to be passed on: see [`from_fds`](Self::from_fds).
    pub fn into_fds(self) -> Vec<OwnedFd> {
        let files = self.queues.into_iter().map(|queue| queue.file);
        files.map(OwnedFd::from).collect()
    }

    fn queue(&mut self, pair: u16) -> io::Result<&mut Queue> {
        self.queues
            .get_mut(usize::from(pair))
            .ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// Sends a frame of more parts than one call takes: by a copy.
    #[cold]
    fn send_copy(
        &mut self,
        pair: u16,
        ram: Ram<'_>,
        header: &Header,
        frame: &[Segment],
    ) -> io::Result<()> {
        let mut len = 0;
        if let Some((first, rest)) = self.copy.split_at_mut_checked(header::SIZE) {
            first.copy_from_slice(&header.0);
            len = header::SIZE + segments::gather(ram, frame, rest).map_err(segments::invalid)?;
        }
        let queue = self.queues.get(usize::from(pair));
        let (Some(queue), Some(copy)) = (queue, self.copy.get_mut(..len)) else {
            return Err(io::ErrorKind::NotFound.into());
        };
        let all = VolatileSlice::from(copy);
        write(&queue.file, std::iter::once(Ok(all))).map(|_| ())
    }

    fn set_offloads(&self, agreed: Features) -> io::Result<()> {
        match self.queues.first() {
            Some(queue) => ioctl::set_offload(&queue.file, offloads(agreed)),
            None => Ok(()),
        }
    }
}

/// `TUN_F_…` for what the driver takes.
fn offloads(agreed: Features) -> u32 {
    let uso = feature::GUEST_USO4 | feature::GUEST_USO6;
    [
        (feature::GUEST_CSUM, libc::TUN_F_CSUM),
        (feature::GUEST_TSO4, libc::TUN_F_TSO4),
        (feature::GUEST_TSO6, libc::TUN_F_TSO6),
        (feature::GUEST_ECN, libc::TUN_F_TSO_ECN),
        // The kernel knows both together only.
        (uso, libc::TUN_F_USO4 | libc::TUN_F_USO6),
    ]
    .into_iter()
    .filter(|(feature, _)| agreed.has(*feature))
    .fold(0, |all, (_, one)| all | one)
}

impl NetBackend for Tap {
    fn features(&self) -> u64 {
        let mut features = feature::CSUM
            | feature::HOST_TSO4
            | feature::HOST_TSO6
            | feature::HOST_ECN
            | feature::GUEST_CSUM
            | feature::GUEST_TSO4
            | feature::GUEST_TSO6
            | feature::GUEST_ECN;
        if self.has_uso {
            features |= feature::HOST_USO | feature::GUEST_USO4 | feature::GUEST_USO6;
        }
        features
    }

    fn queue_pairs(&self) -> u16 {
        u16::try_from(self.queues.len()).unwrap_or(u16::MAX)
    }

    fn start(&mut self, agreed: Features, pairs: u16) -> io::Result<()> {
        self.set_offloads(agreed)?;
        for (number, queue) in self.queues.iter_mut().enumerate() {
            queue.attach(number < usize::from(pairs))?;
        }
        Ok(())
    }

    fn send(
        &mut self,
        pair: u16,
        ram: Ram<'_>,
        header: &Header,
        frame: &[Segment],
    ) -> io::Result<()> {
        if frame.len() > PARTS {
            return self.send_copy(pair, ram, header, frame);
        }
        let queue = self.queue(pair)?;
        let mut header_bytes = header.0;
        let first = VolatileSlice::from(header_bytes.as_mut_slice());
        match write(
            &queue.file,
            std::iter::once(Ok(first)).chain(slices(ram, frame)),
        ) {
            Ok(_) => Ok(()),
            // Some parts may have been divided, where a region of RAM ends.
            Err(error) if is_invalid(&error) => self.send_copy(pair, ram, header, frame),
            Err(error) => Err(error),
        }
    }

    fn receive(&mut self, pair: u16, ram: Ram<'_>, room: &[Segment]) -> io::Result<usize> {
        let queue = self.queue(pair)?;
        if queue.held.is_some() {
            return queue.give_held(ram, room);
        }
        let received = match queue.receive(ram, room, room.len().min(PARTS)) {
            // As above.
            Err(error) if is_invalid(&error) => queue.receive(ram, room, 0),
            received => received,
        };
        self.busy |= received.is_ok();
        received
    }

    fn discard(&mut self, pair: u16) {
        if let Ok(queue) = self.queue(pair) {
            queue.held = None;
        }
    }

    fn waits(&self, pair: u16, _receive: bool, send: bool, waits: &mut Waits) {
        if let Some(queue) = self.queues.get(usize::from(pair)) {
            let fd = queue.file.as_raw_fd();
            waits.edges.push(fd);
            if send {
                // The kernel tells of room only those who asked for it after there was none.
                waits.writable.push(fd);
            }
        }
        if let (0, Some(link)) = (pair, &self.link) {
            waits.readable.push(link.fd());
        }
    }

    fn poll(&mut self) {
        // Who is called for frames need not ask for anything else: it stays readable.
        if !std::mem::take(&mut self.busy)
            && let Some(link) = &mut self.link
        {
            link.poll(&self.name);
        }
    }

    fn link_up(&self) -> bool {
        self.link.as_ref().is_none_or(Link::is_up)
    }

    /// Frames that come for a guest that is not ready wait in the kernel's queue, which drops what exceeds it.
    fn reset(&mut self) {
        for queue in &mut self.queues {
            queue.held = None;
        }
    }
}

/// What the kernel says of too many parts, and of headers that it does not like.
fn is_invalid(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::EINVAL)
}

impl Queue {
    fn new(file: File) -> Self {
        Self {
            file,
            attached: true,
            spill: vec![0; MAX_FRAME].into_boxed_slice(),
            held: None,
        }
    }

    fn attach(&mut self, attached: bool) -> io::Result<()> {
        if self.attached != attached {
            ioctl::set_queue(&self.file, attached)?;
            self.attached = attached;
            self.held = None;
        }
        Ok(())
    }

    /// Receives into the first `count` parts of `room`, and what is beyond them by a copy.
    fn receive(&mut self, ram: Ram<'_>, room: &[Segment], count: usize) -> io::Result<usize> {
        let (direct, others) = room.split_at_checked(count).unwrap_or((room, &[]));
        let first = segments::total(direct);
        let spill = VolatileSlice::from(&mut *self.spill);
        let len = read(
            &self.file,
            slices(ram, direct).chain(std::iter::once(Ok(spill))),
        )?;
        if len <= first {
            return Ok(len);
        }
        self.receive_rest(ram, direct, others, len)
    }

    #[cold]
    fn receive_rest(
        &mut self,
        ram: Ram<'_>,
        direct: &[Segment],
        others: &[Segment],
        len: usize,
    ) -> io::Result<usize> {
        let first = segments::total(direct);
        let beyond = self.spill.get(..len - first).unwrap_or_default();
        let placed = segments::scatter(ram, others, 0, beyond).map_err(segments::invalid)?;
        if placed < beyond.len() && len <= self.spill.len() {
            // There is not enough room. All of it is kept together, until there is.
            let beyond = beyond.len();
            self.spill.copy_within(..beyond, first);
            segments::gather(ram, direct, self.spill.get_mut(..first).unwrap_or_default())
                .map_err(segments::invalid)?;
            self.held = Some(len);
        }
        Ok(len)
    }

    #[cold]
    fn give_held(&mut self, ram: Ram<'_>, room: &[Segment]) -> io::Result<usize> {
        let len = self.held.unwrap_or(0);
        let frame = self.spill.get(..len).unwrap_or_default();
        let placed = segments::scatter(ram, room, 0, frame).map_err(segments::invalid)?;
        if placed == frame.len() {
            self.held = None;
        }
        Ok(len)
    }
}
