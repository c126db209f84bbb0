//! A network in memory.

use std::io;
use std::time::Duration;

use goldcrest_virtio::{Features, Ram, Segment, Waits};

use crate::spec::{MAX_FRAME, header};
use crate::{Header, NetBackend, segments};

/// When the device looks again for room or for frames.
const RETRY: Duration = Duration::from_millis(1);

/// A network in memory, for tests, benchmarks and fuzzers: what the guest sends comes back to it, or is kept for its
/// [host](Self::take_sent), which [gives](Self::give) frames to the guest.
///
/// Frames are kept in rings whose room is allocated when it is made. A ring that is full takes no more of the guest's
/// frames, as a network that is busy. There are no descriptors: the device looks at it every millisecond.
#[derive(Debug)]
pub struct Loopback {
    pairs: Vec<Pair>,
    features: u64,
    echoes: bool,
    /// What was agreed on, and how many pairs are in use, while a driver is ready.
    started: Option<(Features, u16)>,
    link_up: bool,
    fails_to_start: bool,
}

#[derive(Debug)]
struct Pair {
    sent: FrameRing,
    received: FrameRing,
}

impl Loopback {
    /// A network that holds `frames` frames each way, of up to 65,562 bytes with their headers.
    pub fn new(frames: usize) -> Self {
        Self {
            pairs: vec![Pair::new(frames)],
            features: 0,
            echoes: true,
            started: None,
            link_up: true,
            fails_to_start: false,
        }
    }

    /// What is sent is kept, and does not come back.
    #[must_use]
    pub fn silent(mut self) -> Self {
        self.echoes = false;
        self
    }

    /// It offers these offloads, and does none of them: whoever looks at the frames finds their headers.
    #[must_use]
    pub fn with_features(mut self, features: u64) -> Self {
        self.features = features;
        self
    }

    /// With as many pairs of queues, each a network of its own.
    #[must_use]
    pub fn with_pairs(mut self, pairs: u16) -> Self {
        let frames = self.pairs.first().map_or(0, |pair| pair.sent.frames.len());
        self.pairs.resize_with(pairs.into(), || Pair::new(frames));
        self
    }

    /// Gives the guest a frame with its virtio header, by the first pair. Returns whether there was room.
    pub fn give(&mut self, frame: &[u8]) -> bool {
        self.give_by(0, frame)
    }

    /// As [`give`](Self::give), by any pair.
    pub fn give_by(&mut self, pair: u16, frame: &[u8]) -> bool {
        let Some(pair) = self.pairs.get_mut(usize::from(pair)) else {
            return false;
        };
        let given = pair.received.push(|bytes| {
            let len = frame.len().min(bytes.len());
            let (Some(to), Some(from)) = (bytes.get_mut(..len), frame.get(..len)) else {
                return Ok(0);
            };
            to.copy_from_slice(from);
            Ok(len)
        });
        matches!(given, Ok(true))
    }

    /// Takes the frame that the guest sent first, with its virtio header, by the first pair.
    pub fn take_sent(&mut self) -> Option<Vec<u8>> {
        self.take_sent_by(0)
    }

    /// As [`take_sent`](Self::take_sent), by any pair.
    pub fn take_sent_by(&mut self, pair: u16) -> Option<Vec<u8>> {
        let pair = self.pairs.get_mut(usize::from(pair))?;
        let frame = pair.sent.first()?.to_vec();
        pair.sent.pop();
        Some(frame)
    }

    /// Frames that the guest has not taken yet, by the first pair.
    pub fn frames_left(&self) -> usize {
        self.pairs.first().map_or(0, |pair| pair.received.count)
    }

    /// The features and the number of pairs that it was started with.
    pub fn started(&self) -> Option<(Features, u16)> {
        self.started
    }

    /// Connects or disconnects it.
    pub fn set_link(&mut self, up: bool) {
        self.link_up = up;
    }

    /// The host does not let it start the next time.
    pub fn fail_to_start(&mut self) {
        self.fails_to_start = true;
    }

    fn pair(&mut self, pair: u16) -> io::Result<&mut Pair> {
        self.pairs
            .get_mut(usize::from(pair))
            .ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

impl Pair {
    fn new(frames: usize) -> Self {
        Self {
            sent: FrameRing::new(frames),
            received: FrameRing::new(frames),
        }
    }
}

impl NetBackend for Loopback {
    fn features(&self) -> u64 {
        self.features
    }

    fn queue_pairs(&self) -> u16 {
        u16::try_from(self.pairs.len()).unwrap_or(u16::MAX)
    }

    fn start(&mut self, agreed: Features, pairs: u16) -> io::Result<()> {
        if std::mem::take(&mut self.fails_to_start) {
            return Err(io::ErrorKind::ResourceBusy.into());
        }
        self.started = Some((agreed, pairs));
        Ok(())
    }

    fn send(
        &mut self,
        pair: u16,
        ram: Ram<'_>,
        header: &Header,
        frame: &[Segment],
    ) -> io::Result<()> {
        let echoes = self.echoes;
        let pair = self.pair(pair)?;
        let ring = match echoes {
            true => &mut pair.received,
            false => &mut pair.sent,
        };
        let sent = ring.push(|bytes| {
            let Some((first, rest)) = bytes.split_at_mut_checked(header::SIZE) else {
                return Ok(0);
            };
            first.copy_from_slice(&header.0);
            Ok(header::SIZE + segments::gather(ram, frame, rest).map_err(segments::invalid)?)
        });
        match sent {
            Ok(true) => Ok(()),
            Ok(false) => Err(io::ErrorKind::WouldBlock.into()),
            Err(error) => Err(error),
        }
    }

    fn receive(&mut self, pair: u16, ram: Ram<'_>, room: &[Segment]) -> io::Result<usize> {
        let ring = &mut self.pair(pair)?.received;
        let Some(frame) = ring.first() else {
            return Err(io::ErrorKind::WouldBlock.into());
        };
        let len = frame.len();
        if segments::scatter(ram, room, 0, frame).map_err(segments::invalid)? == len {
            ring.pop();
        }
        Ok(len)
    }

    fn discard(&mut self, pair: u16) {
        if let Ok(pair) = self.pair(pair) {
            pair.received.pop();
        }
    }

    fn has_frames(&self) -> bool {
        self.pairs.iter().any(|pair| pair.received.count > 0)
    }

    fn waits(&self, _pair: u16, receive: bool, send: bool, waits: &mut Waits) {
        if receive || send {
            waits.within(RETRY);
        }
    }

    fn link_up(&self) -> bool {
        self.link_up
    }

    fn reset(&mut self) {
        self.started = None;
    }
}

/// Frames in the order in which they came.
#[derive(Debug)]
struct FrameRing {
    /// Room for each, and how much of it is used.
    frames: Vec<(Box<[u8]>, usize)>,
    first: usize,
    count: usize,
}

impl FrameRing {
    fn new(frames: usize) -> Self {
        let frame = || (vec![0; MAX_FRAME].into_boxed_slice(), 0);
        Self {
            frames: std::iter::repeat_with(frame).take(frames).collect(),
            first: 0,
            count: 0,
        }
    }

    /// Adds what `write` writes; it returns how many bytes. False if there is no room.
    fn push(&mut self, write: impl FnOnce(&mut [u8]) -> io::Result<usize>) -> io::Result<bool> {
        let size = self.frames.len();
        if self.count == size {
            return Ok(false);
        }
        let mut place = self.first + self.count;
        if place >= size {
            place -= size;
        }
        if let Some((bytes, len)) = self.frames.get_mut(place) {
            *len = write(bytes)?;
            self.count += 1;
        }
        Ok(true)
    }

    fn first(&self) -> Option<&[u8]> {
        if self.count == 0 {
            return None;
        }
        let (bytes, len) = self.frames.get(self.first)?;
        bytes.get(..*len)
    }

    fn pop(&mut self) {
        if self.count > 0 {
            self.count -= 1;
            self.first += 1;
            if self.first == self.frames.len() {
                self.first = 0;
            }
        }
    }
}
