//! The device.

use std::fmt;
use std::io;
use std::time::Duration;

use goldcrest_rate_limiter::{Clock, MonotonicClock, RateConfig, RateLimiter};
use goldcrest_virtio::{
    Chain, DeviceError, DeviceIo, DeviceSpec, QueueError, VirtioDevice, Waits, spec::device_id,
};

use crate::Source;
use crate::spec::{QUEUE_SIZE, REQUEST_QUEUE};

/// The most bytes that one request gets.
pub const MAX_REQUEST: u32 = 64 << 10;
/// Bytes that are asked of the source at once.
const PIECE: usize = 4096;
/// When a source that had nothing is asked again.
const RETRY: Duration = Duration::from_millis(10);

/// An entropy device.
pub struct Entropy<S, C = MonotonicClock> {
    source: S,
    pub(crate) clock: C,
    pub(crate) limiter: RateLimiter,
    /// Between source and guest. Wiped after each request.
    buffer: Box<[u8; PIECE]>,
    /// When the request that is first in the queue can be tried again, on `clock`.
    pub(crate) retry_at: Option<Duration>,
    /// Bytes that the limiter has granted to that request, whose source then had nothing.
    granted: Option<u32>,
}

/// How a request went.
enum Outcome {
    /// So many bytes were written.
    Filled(u32),
    /// It is to be tried again at that time.
    Later(Duration),
}

impl<S: Source> Entropy<S> {
    /// A device that gives what `source` gives, as fast as the guest asks.
    pub fn new(source: S) -> Self {
        Self::with_rate(source, RateConfig::default(), MonotonicClock)
    }
}

impl<S: Source, C: Clock> Entropy<S, C> {
    /// A device that is limited by `rate`: an operation is a request, and its bytes are counted.
    pub fn with_rate(source: S, rate: RateConfig, clock: C) -> Self {
        let now = clock.now();
        Self {
            source,
            clock,
            limiter: RateLimiter::new(rate, now),
            buffer: Box::new([0; PIECE]),
            retry_at: None,
            granted: None,
        }
    }

    fn serve(&mut self, chain: &mut Chain<'_>) -> Result<Outcome, DeviceError> {
        let room = u32::try_from(chain.writable.left())
            .unwrap_or(u32::MAX)
            .min(MAX_REQUEST);
        if room == 0 {
            return Err(DeviceError::Driver("an entropy request has no room"));
        }
        let len = match self.grant(room) {
            Ok(len) => len,
            Err(at) => return Ok(Outcome::Later(at)),
        };
        let outcome = self.fill(chain, len);
        // No more than that has been asked of the source.
        let used = usize::try_from(len).unwrap_or(PIECE).min(PIECE);
        self.buffer.get_mut(..used).unwrap_or_default().fill(0);
        if let Ok(Outcome::Later(_)) = outcome {
            self.granted = Some(len);
        }
        outcome
    }

    /// How many of `room` bytes may be given now, or when any may.
    fn grant(&mut self, room: u32) -> Result<u32, Duration> {
        if let Some(granted) = self.granted.take() {
            return Ok(granted.min(room));
        }
        if self.limiter.is_limited() {
            self.limiter.take(self.clock.now(), 1, room.into())?;
        }
        Ok(room)
    }

    /// Writes `len` bytes, or fewer if the source runs dry.
    fn fill(&mut self, chain: &mut Chain<'_>, len: u32) -> Result<Outcome, DeviceError> {
        let mut written = 0;
        while let Some(left) = len.checked_sub(written).filter(|left| *left > 0) {
            let most = usize::try_from(left).unwrap_or(PIECE).min(PIECE);
            let piece = self.buffer.get_mut(..most).unwrap_or_default();
            match self.source.fill(piece) {
                Ok(()) => {}
                Err(error) if !is_temporary(&error) => {
                    let what = "get random bytes";
                    let source = error;
                    return Err(DeviceError::Host { what, source });
                }
                Err(_) if written == 0 => {
                    return Ok(Outcome::Later(self.clock.now().saturating_add(RETRY)));
                }
                Err(_) => break,
            }
            chain.writable.write(piece).map_err(misused)?;
            written = written.saturating_add(u32::try_from(most).unwrap_or(left));
        }
        Ok(Outcome::Filled(written))
    }
}

fn is_temporary(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
    )
}

fn misused(source: QueueError) -> DeviceError {
    DeviceError::Queue {
        queue: REQUEST_QUEUE,
        source,
    }
}

impl<S: Source, C: Clock> VirtioDevice for Entropy<S, C> {
    fn spec(&self) -> DeviceSpec {
        DeviceSpec {
            id: device_id::ENTROPY,
            features: 0,
            queue_sizes: vec![QUEUE_SIZE],
        }
    }

    fn read_config(&self, _offset: u64, _data: &mut [u8]) {}

    fn process_queue(&mut self, index: u16, io: &mut DeviceIo<'_>) -> Result<(), DeviceError> {
        let Some(mut queue) = io.queue(index) else {
            return Ok(());
        };
        self.retry_at = None;
        while let Some(mut chain) = queue.pop().map_err(misused)? {
            let head = chain.head;
            match self.serve(&mut chain)? {
                Outcome::Filled(written) => queue.push(head, written),
                Outcome::Later(at) => {
                    queue.undo_pop(head);
                    self.retry_at = Some(at);
                    break;
                }
            }
        }
        Ok(())
    }

    fn process_events(&mut self, io: &mut DeviceIo<'_>) -> Result<(), DeviceError> {
        match self.retry_at {
            Some(at) if at <= self.clock.now() => self.process_queue(REQUEST_QUEUE, io),
            _ => Ok(()),
        }
    }

    fn waits(&self, waits: &mut Waits) {
        if let Some(at) = self.retry_at {
            waits.within(at.saturating_sub(self.clock.now()));
        }
    }

    fn reset_queue(&mut self, _index: u16) {
        self.reset();
    }

    /// The limiter stays as it is, or a guest could have more by resetting.
    fn reset(&mut self) {
        self.retry_at = None;
        self.granted = None;
    }
}

impl<S: fmt::Debug, C> fmt::Debug for Entropy<S, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Entropy")
            .field("source", &self.source)
            .field("retry_at", &self.retry_at)
            .finish_non_exhaustive()
    }
}
