//! The device.

use std::collections::VecDeque;
use std::fmt;
use std::time::Duration;

use goldcrest_memory::io::Segment;
use goldcrest_rate_limiter::{Clock, MonotonicClock};
use goldcrest_virtio::{
    ActivateError, DeviceError, DeviceIo, DeviceSpec, Features, QueueError, Ram, VirtioDevice,
    Waits, spec::device_id,
};

use crate::backlog::Spare;
use crate::config::{DEFAULT_LIMITS, check};
use crate::interruption::Interruption;
use crate::refusals::Refusal;
use crate::spec::{EPHEMERAL_PORTS, HEADER_SIZE, feature, queue};
use crate::streams::Streams;
use crate::{Backend, VsockError};

/// A socket device, whose host is `B`.
pub struct Vsock<B: Backend> {
    pub(crate) backend: B,
    pub(crate) cid: u64,
    pub(crate) clock: Box<dyn Clock>,
    pub(crate) streams: Streams<B::Stream>,
    /// Packets that answer those of no stream.
    pub(crate) refusals: VecDeque<Refusal>,
    /// There was no room for another one, so that packets of the guest wait.
    pub(crate) stalled: bool,
    pub(crate) spare: Spare,
    /// The driver is ready.
    pub(crate) active: bool,
    /// Stream sockets are agreed on.
    pub(crate) takes_streams: bool,
    /// The host's port for the next connection that a program makes.
    pub(crate) next_port: u32,
    /// There are more events of the host's than one call looks at.
    pub(crate) more: bool,
    pub(crate) interruption: Interruption,
    /// When hosts' sockets without room are tried again, and guests without room asked again.
    pub(crate) redial_at: Duration,
    pub(crate) ask_at: Duration,
    /// Where a packet's header is to be.
    pub(crate) place: Vec<Segment>,
    pub(crate) ignored: u64,
}

pub(crate) fn misused(queue: u16) -> impl Fn(QueueError) -> DeviceError + Copy {
    move |source| DeviceError::Queue { queue, source }
}

impl<B: Backend> Vsock<B> {
    /// A device with up to 4,096 streams, which hold up to 64 MiB for the host. It goes by the host's monotonic clock.
    ///
    /// # Errors
    ///
    /// [`VsockError::Cid`].
    pub fn new(backend: B, cid: u64) -> Result<Self, VsockError> {
        let (streams, buffers) = DEFAULT_LIMITS;
        Self::with_limits(backend, cid, streams, buffers)
    }

    /// A device with up to `streams` streams, which hold up to `buffers` bytes for the host.
    ///
    /// # Errors
    ///
    /// [`VsockError::Cid`], [`VsockError::Streams`] or [`VsockError::Buffers`].
    pub fn with_limits(
        backend: B,
        cid: u64,
        streams: u32,
        buffers: u64,
    ) -> Result<Self, VsockError> {
        check(cid, streams, buffers)?;
        Ok(Self {
            backend,
            cid,
            clock: Box::new(MonotonicClock),
            streams: Streams::new(streams, buffers),
            refusals: VecDeque::new(),
            stalled: false,
            spare: Spare::default(),
            active: false,
            takes_streams: false,
            next_port: EPHEMERAL_PORTS.start,
            more: false,
            interruption: Interruption::default(),
            redial_at: Duration::ZERO,
            ask_at: Duration::ZERO,
            place: Vec::with_capacity(HEADER_SIZE),
            ignored: 0,
        })
    }

    /// The same device by another clock: for tests and fuzzers.
    pub fn with_clock(mut self, clock: impl Clock + 'static) -> Self {
        self.clock = Box::new(clock);
        self
    }

    /// The guest's CID.
    pub fn cid(&self) -> u64 {
        self.cid
    }

    /// The host.
    pub fn backend(&self) -> &B {
        &self.backend
    }

    /// How many streams there are, those included that are about to begin or to end.
    pub fn streams(&self) -> usize {
        self.streams.len()
    }

    /// How many packets were ignored: short ones, ones that are not the guest's own, and ones that make no sense.
    pub fn ignored(&self) -> u64 {
        self.ignored
    }

    pub(crate) fn ignore(&mut self) {
        self.ignored = self.ignored.saturating_add(1);
    }

    /// Gives the guest what there is for it, and goes on with its packets if that has made room for answers.
    fn exchange(&mut self, io: &mut DeviceIo<'_>) -> Result<(), DeviceError> {
        self.deliver(io)?;
        while self.stalled && self.may_refuse() {
            self.transmit(io)?;
            self.deliver(io)?;
        }
        Ok(())
    }

    /// When the device is to be called in any case.
    fn deadline(&self) -> Option<Duration> {
        let first = |number: Option<u32>| self.streams.get(number?).map(|s| s.deadline);
        let dialing = !self.streams.dialing.is_empty();
        let held = !self.streams.held.is_empty();
        [
            self.more.then_some(Duration::ZERO),
            first(self.streams.timed.first()),
            dialing.then_some(self.redial_at),
            held.then_some(self.ask_at),
            self.interruption.deadline(),
            self.backend.deadline(),
        ]
        .into_iter()
        .flatten()
        .min()
    }
}

impl<B: Backend> VirtioDevice for Vsock<B> {
    fn spec(&self) -> DeviceSpec {
        DeviceSpec {
            id: device_id::SOCKET,
            features: feature::STREAM | feature::NO_IMPLIED_STREAM,
            queue_sizes: vec![queue::SIZE, queue::SIZE, queue::EVENT_SIZE],
        }
    }

    /// `struct virtio_vsock_config` (§5.10.4): `le64 guest_cid`.
    fn read_config(&self, offset: u64, data: &mut [u8]) {
        let skip = usize::try_from(offset).unwrap_or(usize::MAX);
        for (to, from) in data
            .iter_mut()
            .zip(self.cid.to_le_bytes().iter().skip(skip))
        {
            *to = *from;
        }
    }

    fn activate(&mut self, features: Features, _ram: Ram<'_>) -> Result<(), ActivateError> {
        self.active = true;
        self.takes_streams =
            features.has(feature::STREAM) || !features.has(feature::NO_IMPLIED_STREAM);
        Ok(())
    }

    fn process_queue(&mut self, index: u16, io: &mut DeviceIo<'_>) -> Result<(), DeviceError> {
        match index {
            queue::EVENT => self.heed_interruption(io)?,
            _ => self.tell_interruption(io)?,
        }
        if index == queue::TRANSMIT {
            self.transmit(io)?;
        }
        self.exchange(io)
    }

    fn process_events(&mut self, io: &mut DeviceIo<'_>) -> Result<(), DeviceError> {
        let now = self.clock.now();
        self.host_events(now);
        self.expire(now);
        self.redial(now);
        self.ask(now);
        self.tell_interruption(io)?;
        self.exchange(io)
    }

    fn waits(&self, waits: &mut Waits) {
        waits.readable.extend(self.backend.fd());
        if let Some(deadline) = self.deadline() {
            waits.within(deadline.saturating_sub(self.clock.now()));
        }
    }

    fn reset(&mut self) {
        self.streams.clear();
        self.refusals.clear();
        self.stalled = false;
        self.active = false;
        self.takes_streams = false;
        self.interruption = Interruption::default();
    }
}

impl<B: Backend> fmt::Debug for Vsock<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Vsock")
            .field("cid", &self.cid)
            .field("streams", &self.streams.len())
            .finish_non_exhaustive()
    }
}
