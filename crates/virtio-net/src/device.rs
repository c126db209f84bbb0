//! The device (§5.1).

use std::fmt;
use std::time::Duration;

use goldcrest_rate_limiter::{Clock, MonotonicClock, RateConfig, RateLimiter};
use goldcrest_virtio::{
    ActivateError, DeviceError, DeviceIo, DeviceSpec, Features, QueueError, Ram, VirtioDevice,
    Waits, Work, spec::device_id,
};

use crate::config::{self, possible};
use crate::filter::Filter;
use crate::room::Room;
use crate::spec::{config as space, feature, queue};
use crate::{MacAddress, NetBackend, NetConfig, NetError, NetStats};

/// A virtio network device (§5.1) on a network.
///
/// What it cannot move it leaves where it is: frames for the guest with the backend, frames of the guest's in the
/// driver's ring. The limits outlive resets of the device, so that a driver gains nothing by them.
pub struct Net<B> {
    pub(crate) backend: B,
    pub(crate) config: NetConfig,
    /// Its address, unless the driver sets another.
    pub(crate) own_mac: MacAddress,
    pub(crate) offered: u64,
    pub(crate) clock: Box<dyn Clock>,
    /// The driver is ready, and has agreed to these features.
    pub(crate) active: Option<Features>,
    /// Pairs in use.
    pub(crate) pairs: u16,
    /// The number of the control queue, with those pairs that were agreed on.
    control_queue: u16,
    /// What the driver takes of the offloads that were agreed on, if it has said.
    pub(crate) offloads: Option<u64>,
    pub(crate) mac: MacAddress,
    pub(crate) filter: Filter,
    /// The driver is to announce its address.
    pub(crate) announce: bool,
    /// It is to be told that.
    pub(crate) announce_due: bool,
    pub(crate) link_up: bool,
    pub(crate) lanes: Vec<Lane>,
    pub(crate) receiving: Receiving,
    pub(crate) sending: Sending,
    pub(crate) stats: NetStats,
}

/// How far a pair of queues is.
#[derive(Debug)]
pub(crate) struct Lane {
    pub(crate) room: Room,
    /// There is room, and no frame.
    pub(crate) wants_frames: bool,
    /// There is more to do than one call does.
    pub(crate) more: bool,
    /// Until when a frame that does not fit waits for more room.
    pub(crate) held: Option<Duration>,
    /// When a backend that failed is asked again.
    pub(crate) retry: Option<Duration>,
    /// A frame of the driver's waits for the backend.
    pub(crate) blocked: bool,
    /// Frames of the driver's wait for the limit.
    pub(crate) stalled: bool,
}

/// What is the same for all frames to the guest.
#[derive(Debug)]
pub(crate) struct Receiving {
    pub(crate) limiter: RateLimiter,
    /// Bytes of the last frame, if they have not been paid for: how long it is shows when it is there.
    pub(crate) owed: u64,
    /// When that can be paid.
    pub(crate) limited: Option<Duration>,
    pub(crate) mergeable: bool,
    /// There may be frames that the driver does not want.
    pub(crate) filtered: bool,
    /// How much room is made ready.
    pub(crate) wanted: u64,
    /// The most bytes of a frame that is not to be cut, with its virtio header.
    pub(crate) longest: u64,
}

/// What is the same for all frames of the guest's.
#[derive(Debug)]
pub(crate) struct Sending {
    pub(crate) limiter: RateLimiter,
    /// The pair whose frame the limit holds back, and until when. Others wait behind it: their smaller frames would keep
    /// it from ever finding a full bucket.
    pub(crate) limited: Option<(u16, Duration)>,
    /// What frames may ask for.
    pub(crate) features: Features,
}

/// What a queue is for (§5.1.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    Receive(u16),
    Transmit(u16),
    Control,
    /// Nothing: without `VIRTIO_NET_F_MQ`, the control queue is the third.
    Unused,
}

/// The queue for frames to the guest, and the one for its own.
#[inline]
pub(crate) const fn queues_of(pair: u16) -> (u16, u16) {
    (
        pair.saturating_mul(2),
        pair.saturating_mul(2).saturating_add(1),
    )
}

#[inline]
pub(crate) fn misused(queue: u16) -> impl Fn(QueueError) -> DeviceError {
    move |source| DeviceError::Queue { queue, source }
}

impl<B: NetBackend> Net<B> {
    /// A device after a reset, which goes by the host's monotonic clock.
    ///
    /// # Errors
    ///
    /// [`NetError`] if the configuration is none that a device on this backend can have.
    pub fn new(backend: B, config: &NetConfig) -> Result<Self, NetError> {
        config.check(&backend)?;
        let mac = match config.mac {
            Some(mac) => mac,
            None => MacAddress::random()?,
        };
        let clock = Box::new(MonotonicClock);
        let now = clock.now();
        let mut net = Self {
            offered: config.features(backend.features()),
            link_up: backend.link_up(),
            backend,
            config: *config,
            own_mac: mac,
            clock,
            active: None,
            pairs: 1,
            control_queue: 0,
            offloads: None,
            mac,
            filter: Filter::default(),
            announce: false,
            announce_due: false,
            lanes: (0..config.queue_pairs).map(|_| Lane::new()).collect(),
            receiving: Receiving {
                limiter: RateLimiter::new(config.rx_rate, now),
                owed: 0,
                limited: None,
                mergeable: false,
                filtered: false,
                wanted: 0,
                longest: u64::MAX,
            },
            sending: Sending {
                limiter: RateLimiter::new(config.tx_rate, now),
                limited: None,
                features: Features(0),
            },
            stats: NetStats::default(),
        };
        net.set_up();
        Ok(net)
    }

    /// The same device by another clock, with full bursts: for tests and fuzzers.
    pub fn with_clock(mut self, clock: impl Clock + 'static) -> Self {
        let now = clock.now();
        self.receiving.limiter = RateLimiter::new(self.config.rx_rate, now);
        self.sending.limiter = RateLimiter::new(self.config.tx_rate, now);
        self.clock = Box::new(clock);
        self
    }

    /// Limits what is received and what is sent from now on, each with a full burst; nothing changes where there is none.
    /// What an old limit held back goes by the new one.
    pub fn set_rates(&mut self, receive: Option<RateConfig>, send: Option<RateConfig>) {
        let now = self.clock.now();
        if let Some(rate) = receive {
            self.config.rx_rate = rate;
            self.receiving.limiter = RateLimiter::new(rate, now);
            self.receiving.limited = self.receiving.limited.map(|_| now);
        }
        if let Some(rate) = send {
            self.config.tx_rate = rate;
            self.sending.limiter = RateLimiter::new(rate, now);
            self.sending.limited = None;
        }
    }

    /// The network.
    pub fn backend(&self) -> &B {
        &self.backend
    }

    /// The network, for its host's side.
    pub fn backend_mut(&mut self) -> &mut B {
        &mut self.backend
    }

    /// The address that it has now.
    pub fn mac(&self) -> MacAddress {
        self.mac
    }

    /// What has been moved and dropped.
    pub fn stats(&self) -> NetStats {
        self.stats
    }

    /// Has the driver announce the address, if it can: the network is another one, or knows the guest elsewhere. A
    /// device that was restored does so by itself.
    pub fn announce(&mut self) {
        self.announce_due = true;
    }

    fn role(&self, index: u16) -> Role {
        let control = self.control_queue;
        if index > control {
            Role::Unused
        } else if index == control {
            Role::Control
        } else if index.is_multiple_of(2) {
            Role::Receive(index / 2)
        } else {
            Role::Transmit(index / 2)
        }
    }

    /// Whether the driver has agreed to a feature.
    #[inline]
    pub(crate) fn has(&self, feature: u64) -> bool {
        self.active.is_some_and(|features| features.has(feature))
    }

    /// What the backend is to do, with the offloads that the driver takes now.
    pub(crate) fn agreed(&self) -> Features {
        let Features(agreed) = self.active.unwrap_or_default();
        let offloads = self.offloads.unwrap_or(u64::MAX);
        Features(possible(agreed & !(feature::GUEST_OFFLOADS & !offloads)))
    }

    /// Takes over what follows from the features.
    pub(crate) fn set_up(&mut self) {
        let pairs = match self.has(feature::MQ) {
            true => self.config.queue_pairs,
            false => 1,
        };
        self.control_queue = pairs.saturating_mul(2);
        let agreed = self.agreed();
        self.receiving.set_up(agreed, &self.config);
        self.set_filtered();
        self.sending.features = agreed;
    }

    pub(crate) fn set_filtered(&mut self) {
        self.receiving.filtered = self.has(feature::CTRL_RX) && !self.filter.wants_all();
    }

    /// The link, or what is to be told of it, has changed.
    fn look_at_link(&mut self, io: &mut DeviceIo<'_>) {
        let up = self.backend.link_up();
        let mut changed = up != self.link_up;
        self.link_up = up;
        if std::mem::take(&mut self.announce_due) && self.has(feature::GUEST_ANNOUNCE) {
            self.announce = true;
            changed = true;
        }
        if changed && self.has(feature::STATUS) {
            io.config_changed();
        }
    }

    /// Sends what waits, and receives.
    fn serve(&mut self, io: &mut DeviceIo<'_>) -> Result<(), DeviceError> {
        // It is set again by those who have room: others do not wait for it.
        self.receiving.limited = None;
        // A frame that the limit holds back goes first.
        if let Some((pair, _)) = self.sending.limited {
            self.transmit(pair, io)?;
        }
        for pair in 0..self.pairs {
            let lane = self.lanes.get(usize::from(pair));
            if lane.is_some_and(|lane| lane.blocked || lane.stalled) {
                self.transmit(pair, io)?;
            }
            self.receive(pair, io)?;
        }
        Ok(())
    }

    /// Puts all receive buffers back.
    pub(crate) fn put_back(&mut self, from: u16, io: &mut DeviceIo<'_>) {
        for (pair, lane) in (0..).zip(&mut self.lanes).skip(from.into()) {
            if let Some(mut queue) = io.queue(queues_of(pair).0) {
                lane.room.put_back(&mut queue);
            }
            lane.stop_receiving();
        }
    }
}

impl Lane {
    fn new() -> Self {
        Self {
            room: Room::new(),
            wants_frames: false,
            more: false,
            held: None,
            retry: None,
            blocked: false,
            stalled: false,
        }
    }

    fn stop_receiving(&mut self) {
        self.room.clear();
        self.wants_frames = false;
        self.more = false;
        self.held = None;
        self.retry = None;
    }

    pub(crate) fn stop_sending(&mut self) {
        self.blocked = false;
        self.stalled = false;
    }
}

impl<B: NetBackend> VirtioDevice for Net<B> {
    fn spec(&self) -> DeviceSpec {
        let pairs = usize::from(self.config.queue_pairs);
        let mut queue_sizes = vec![queue::SIZE; pairs * 2];
        queue_sizes.push(queue::CONTROL_SIZE);
        DeviceSpec {
            id: device_id::NETWORK,
            features: self.offered,
            queue_sizes,
        }
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        let mut status = 0;
        if self.link_up {
            status |= space::S_LINK_UP;
        }
        if self.announce {
            status |= space::S_ANNOUNCE;
        }
        let mtu = self.config.mtu.unwrap_or(0);
        let bytes = config::bytes(self.mac.bytes(), status, self.config.queue_pairs, mtu);
        let skip = usize::try_from(offset).unwrap_or(usize::MAX);
        for (to, from) in data.iter_mut().zip(bytes.into_iter().skip(skip)) {
            *to = from;
        }
    }

    fn accepts(&self, features: Features) -> bool {
        possible(features.0) == features.0
    }

    fn activate(&mut self, features: Features, _ram: Ram<'_>) -> Result<(), ActivateError> {
        self.active = Some(features);
        if !features.has(feature::MQ) {
            self.pairs = 1;
        }
        self.set_up();
        self.lanes.iter_mut().for_each(|lane| lane.room.reserve());
        self.link_up = self.backend.link_up();
        let started = self.backend.start(self.agreed(), self.pairs);
        started.map_err(|source| ActivateError {
            what: "start a network device",
            source,
        })
    }

    #[inline]
    fn process_queue(&mut self, index: u16, io: &mut DeviceIo<'_>) -> Result<(), DeviceError> {
        match self.role(index) {
            Role::Transmit(pair) if pair < self.pairs => {
                self.transmit(pair, io)?;
                if self.backend.has_frames() {
                    return self.receive(pair, io);
                }
                Ok(())
            }
            Role::Receive(pair) if pair < self.pairs => self.receive(pair, io),
            Role::Control => self.control(index, io),
            _ => Ok(()),
        }
    }

    /// The network takes a frame while its bytes are copied; meanwhile the guest can make the next. Buffers for frames
    /// that are to come are no work.
    fn batches(&self, index: u16) -> Option<Work> {
        let Role::Transmit(_) = self.role(index) else {
            return None;
        };
        Some(Work {
            chains: 4,
            bytes: 32 << 10,
        })
    }

    fn process_events(&mut self, io: &mut DeviceIo<'_>) -> Result<(), DeviceError> {
        self.backend.poll();
        self.look_at_link(io);
        self.serve(io)
    }

    fn waits(&self, waits: &mut Waits) {
        if self.active.is_none() {
            return;
        }
        // Who has waited behind a frame goes on when that is gone, however it went.
        let is_next = |lane: &Lane| lane.stalled && self.sending.limited.is_none();
        if self.announce_due || self.lanes.iter().any(|lane| lane.more || is_next(lane)) {
            waits.within(Duration::ZERO);
        }
        let times = [
            self.receiving.limited,
            self.sending.limited.map(|(_, at)| at),
        ];
        for (pair, lane) in (0..self.pairs).zip(&self.lanes) {
            let send = lane.blocked;
            self.backend.waits(pair, lane.wants_frames, send, waits);
            self.wait_until(&[lane.held, lane.retry], waits);
        }
        self.wait_until(&times, waits);
    }

    /// What is to be told of the link and the address is not saved, so it is told before. A device that goes on after it
    /// was saved takes the buffers again: frames that are there already will not be told of once more.
    fn quiesce(&mut self, io: &mut DeviceIo<'_>) -> Result<(), DeviceError> {
        self.look_at_link(io);
        self.put_back(0, io);
        for lane in self.lanes.iter_mut().take(self.pairs.into()) {
            lane.more = true;
        }
        Ok(())
    }

    fn reset_queue(&mut self, index: u16) {
        let role = self.role(index);
        let (Role::Receive(pair) | Role::Transmit(pair)) = role else {
            return;
        };
        let Some(lane) = self.lanes.get_mut(usize::from(pair)) else {
            return;
        };
        if let Role::Receive(_) = role {
            lane.stop_receiving();
        } else {
            lane.stop_sending();
            self.sending.limited = self.sending.limited.filter(|(other, _)| *other != pair);
        }
    }

    fn reset(&mut self) {
        self.backend.reset();
        for lane in &mut self.lanes {
            lane.stop_receiving();
            lane.stop_sending();
        }
        self.receiving.limited = None;
        self.sending.limited = None;
        self.active = None;
        self.pairs = 1;
        self.offloads = None;
        self.mac = self.own_mac;
        self.filter = Filter::default();
        self.announce = false;
        self.announce_due = false;
        self.set_up();
    }
}

impl<B: NetBackend> Net<B> {
    fn wait_until(&self, times: &[Option<Duration>], waits: &mut Waits) {
        for at in times.iter().flatten() {
            waits.within(at.saturating_sub(self.clock.now()));
        }
    }
}

impl<B: fmt::Debug> fmt::Debug for Net<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Net")
            .field("backend", &self.backend)
            .field("mac", &self.mac)
            .field("pairs", &self.pairs)
            .field("stats", &self.stats)
            .finish_non_exhaustive()
    }
}
