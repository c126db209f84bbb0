//! The network.

use std::collections::{HashMap, VecDeque};
use std::hash::{DefaultHasher, Hasher};
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::os::fd::BorrowedFd;
use std::time::Duration;

use crate::config::NetworkConfig;
use crate::datagram::{DatagramKey, Datagrams, Pieces};
use crate::dns::Resolvers;
use crate::frame::{FrameInfo, RxOffload, TxOffload};
use crate::header::Link;
use crate::host::{Event, Host};
use crate::number::{Kind, Number};
use crate::reassembly::Reassembly;
use crate::replies::Replies;
use crate::rules::{Policy, Protocol};
use crate::slab::Slab;
use crate::stats::Stats;
use crate::tcp::{Budget, Flow, FlowKey, Outlet};
use crate::timer::Timers;
use crate::{HostSockets, UsernetError};

mod connections;
mod datagrams;
mod errors;
mod forwards;
mod from_guest;
mod icmp;
mod local;
mod route;

/// Events that are asked for at once.
const EVENTS: usize = 64;
/// How often they are, in one call.
const BATCHES: usize = 8;
/// How many turns there are in one call, beyond one for each who waits.
const EXTRA_TURNS: usize = 16;
/// When those have another turn who had nothing to show for so many.
const MORE_TURNS: Duration = Duration::from_millis(10);
/// What every address on the link is.
const EVERYONE: [u8; 6] = [0xff; 6];

/// A network for one guest: it takes the guest's frames, and gives frames for the guest.
///
/// Nothing here waits, and nothing happens but in these calls. Whoever runs a network waits until [`fd`](Self::fd) can
/// be read, [`timeout`](Self::timeout) has passed or the guest has something, and then calls, in this order:
/// [`process`](Self::process) with the time; [`send`](Self::send) for each frame of the guest; [`flush`](Self::flush);
/// [`receive`](Self::receive) while the guest has room.
#[derive(Debug)]
pub struct Network<H: Host = HostSockets> {
    config: NetworkConfig,
    host: H,
    now: Duration,
    guest_mac: Option<[u8; 6]>,
    policy: Policy,
    resolvers: Resolvers,
    tcp: Slab<Flow<H::Socket>>,
    tcp_keys: HashMap<FlowKey, u32>,
    /// The connection of the segment before: most often it is the next one's, too.
    last: Option<(FlowKey, u32)>,
    udp: Slab<Datagrams<H::Socket>>,
    udp_keys: HashMap<DatagramKey, u32>,
    /// Where the one that is forgotten for another was looked for last.
    evict_at: u32,
    listeners: Vec<Listener<H::Socket>>,
    /// Clients of forwards of UDP: by forward and address.
    clients: HashMap<(u32, SocketAddr), u32>,
    /// The port of the gateway that the last connection from outside seemed to come from.
    last_port: u16,
    /// Who has a turn, and waits for it.
    ready: VecDeque<Number>,
    /// When they get more turns, although nothing may happen before.
    turns_at: Option<Duration>,
    /// Connections that have something for the host.
    dirty: Vec<u32>,
    timers: Timers,
    replies: Replies,
    /// A datagram that did not fit into a packet.
    pieces: Pieces,
    /// Packets of which the guest has not sent all pieces.
    reassembly: Reassembly,
    /// What is not TCP is read to here.
    scratch: Vec<u8>,
    /// Data of segments that are not the next is read to here.
    data: Vec<u8>,
    budget: Budget,
    secret: [u8; 16],
    stats: Stats,
}

/// A port of the host that leads to the guest.
#[derive(Debug)]
struct Listener<S> {
    socket: S,
    protocol: Protocol,
    guest: SocketAddr,
    /// There may be somebody.
    pending: bool,
    /// The host could not take him; when it is tried again.
    rests_until: Duration,
    /// It waits for its turn to send.
    is_ready: bool,
}

impl Network {
    /// A network with the host's sockets.
    ///
    /// # Errors
    ///
    /// [`UsernetError`], if the configuration does not fit together, or if a forwarded port cannot be listened on.
    pub fn new(config: NetworkConfig) -> Result<Self, UsernetError> {
        let host = HostSockets::new().map_err(|source| UsernetError::Host {
            what: "make an epoll set",
            source,
        })?;
        Self::with_host(config, host)
    }
}

impl<H: Host> Network<H> {
    /// A network with other sockets than the host's.
    ///
    /// # Errors
    ///
    /// As for [`new`](Network::new).
    pub fn with_host(config: NetworkConfig, mut host: H) -> Result<Self, UsernetError> {
        config.check()?;
        let listeners = forwards::listen(&config, &mut host)?;
        let secret = match config.seed {
            Some(seed) => seed,
            None => random()?,
        };
        let limits = config.limits;
        Ok(Self {
            host,
            now: Duration::ZERO,
            guest_mac: None,
            policy: Policy::new(config.rules.clone(), config.host_loopback),
            resolvers: Resolvers::new(&config.dns),
            tcp: Slab::new(limits.tcp_flows),
            tcp_keys: HashMap::new(),
            last: None,
            udp: Slab::new(limits.udp_flows),
            udp_keys: HashMap::new(),
            evict_at: 0,
            listeners,
            clients: HashMap::new(),
            last_port: 0,
            ready: VecDeque::new(),
            turns_at: None,
            dirty: Vec::new(),
            timers: Timers::default(),
            replies: Replies::default(),
            pieces: Pieces::default(),
            reassembly: Reassembly::default(),
            scratch: Vec::new(),
            data: Vec::new(),
            budget: Budget::new(limits.rings, limits.ring),
            secret,
            stats: Stats::default(),
            config,
        })
    }

    /// Takes a frame from the guest: `len` bytes, which are read from `frame`, without the header of virtio.
    ///
    /// It always takes all of the frame, and counts in [`stats`](Self::stats) what it does not pass on. Data of a
    /// connection is read straight to where the host's socket takes it from. That is done by [`flush`](Self::flush), or
    /// before if there is much.
    pub fn send(&mut self, len: usize, frame: &mut impl Read, offload: TxOffload) {
        self.stats.frames_from_guest += 1;
        self.stats.bytes_from_guest += u64::try_from(len).unwrap_or(0);
        if let Err(why) = self.take_frame(len, frame, offload) {
            self.stats.dropped(why);
        }
    }

    /// Hands the host what connections have for it. To be called after the last of several frames.
    pub fn flush(&mut self) {
        while let Some(index) = self.dirty.pop() {
            self.flush_connection(index);
        }
    }

    /// Whether [`receive`](Self::receive) may have a frame.
    pub fn has_frame(&self) -> bool {
        !self.replies.is_empty() || !self.pieces.is_empty() || !self.ready.is_empty()
    }

    /// Writes the next frame for the guest to `out`, if there is one: at most `room` bytes, without the header of virtio.
    ///
    /// To be called only when the guest has room for a frame: what it is not given stays with the host. `None` means that
    /// there is nothing now, or nothing that fits. A datagram that is too large for `room` is dropped and counted. If
    /// `out` fails, the frame is lost, as on a wire.
    pub fn receive(
        &mut self,
        room: usize,
        offload: RxOffload,
        out: &mut impl Write,
    ) -> Option<FrameInfo> {
        self.flush();
        self.turns_at = None;
        let mut outlet = Outlet {
            out,
            room,
            offload,
            link: self.link(),
        };
        let info = self.next_frame(&mut outlet)?;
        self.stats.frames_to_guest += 1;
        self.stats.bytes_to_guest += u64::try_from(info.len).unwrap_or(0);
        Some(info)
    }

    fn next_frame<W: Write>(&mut self, outlet: &mut Outlet<'_, W>) -> Option<FrameInfo> {
        if let Some(info) = self.next_reply(outlet) {
            return Some(info);
        }
        if let Some(info) = self.next_piece(outlet) {
            return Some(info);
        }
        // Who has nothing after all has lost his turn; who has more waits behind the others. Some may have more turns
        // than one, since what they had was dropped.
        for _ in 0..self.ready.len().saturating_add(EXTRA_TURNS) {
            let Some(number) = self.ready.pop_front() else {
                break;
            };
            let frame = match number.kind() {
                Kind::Tcp => self.serve_connection(number.index(), outlet),
                Kind::Datagrams => self.serve_datagrams(number.index(), outlet),
                Kind::Listener => self.serve_listener(number.index(), outlet),
            };
            if frame.is_some() {
                return frame;
            }
        }
        // Somebody may have had something to say instead.
        let reply = self.next_reply(outlet);
        if reply.is_none() && !self.ready.is_empty() {
            // What the host has told of already it does not tell again.
            self.turns_at = Some(self.now.saturating_add(MORE_TURNS));
        }
        reply
    }

    fn next_reply<W: Write>(&mut self, outlet: &mut Outlet<'_, W>) -> Option<FrameInfo> {
        while let Some(reply) = self.replies.first() {
            let info = FrameInfo::plain(reply.len());
            let fits = reply.len() <= outlet.room && outlet.out.write_all(reply).is_ok();
            self.replies.pop();
            if fits {
                return Some(info);
            }
            self.stats.no_room += 1;
        }
        None
    }

    /// What can be read when the host has something; none if the host is no kernel.
    pub fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.host.fd()
    }

    /// How long from `now` it is until [`process`](Self::process) is to be called at the latest.
    pub fn timeout(&self, now: Duration) -> Option<Duration> {
        let mut first = self.timers.first().into_iter().chain(self.turns_at).min();
        for listener in &self.listeners {
            if listener.pending && listener.protocol == Protocol::Tcp && !self.tcp.is_full() {
                let at = listener.rests_until;
                first = Some(first.map_or(at, |first| first.min(at)));
            }
        }
        first.map(|at| at.saturating_sub(now))
    }

    /// It is `now`, for those who send and receive without [`process`](Self::process) before.
    pub fn advance(&mut self, now: Duration) {
        self.now = self.now.max(now);
    }

    /// Takes what the host has to say, and does what it is time for. `now` is the time since any moment that stays the
    /// same; to be called first of all whenever there is something to do, since all other calls take this time for theirs.
    pub fn process(&mut self, now: Duration) {
        self.now = self.now.max(now);
        // Whoever has room for a frame asks for one now.
        self.turns_at = self.turns_at.filter(|at| *at > self.now);
        let mut events = [Event::default(); EVENTS];
        for _ in 0..BATCHES {
            let count = match self.host.poll(&mut events) {
                Ok(count) => count,
                Err(_) => {
                    self.stats.host_errors += 1;
                    break;
                }
            };
            for event in events.iter().take(count) {
                self.take_event(*event);
            }
            if count < EVENTS {
                break;
            }
        }
        // Each is set anew, later than now.
        while let Some(number) = self.timers.pop(self.now) {
            let number = Number::from_raw(number);
            match number.kind() {
                Kind::Tcp => self.expire_connection(number.index()),
                Kind::Datagrams => self.expire_datagrams(number.index()),
                Kind::Listener => {}
            }
        }
        self.accept();
        self.flush();
    }

    fn take_event(&mut self, event: Event) {
        let (number, generation) = Number::from_token(event.token);
        let id = number.id(generation);
        match number.kind() {
            Kind::Tcp if self.tcp.is_current(id) => self.connection_event(id.index, event),
            Kind::Datagrams if self.udp.is_current(id) => self.datagrams_event(id.index),
            Kind::Listener => self.listener_event(id.index),
            // Of a socket that has been closed since.
            _ => {}
        }
    }

    /// What has happened so far.
    pub fn stats(&self) -> Stats {
        self.stats
    }

    /// How many connections and flows of datagrams there are.
    pub fn flows(&self) -> (usize, usize) {
        (self.tcp.len(), self.udp.len())
    }

    /// The host.
    pub fn host_mut(&mut self) -> &mut H {
        &mut self.host
    }

    fn link(&self) -> Link {
        Link {
            guest: self.guest_mac.unwrap_or(EVERYONE),
            gateway: self.config.mac,
        }
    }

    /// An initial sequence number (RFC 6528): nobody can guess it, and it goes on with time.
    fn initial_sequence(&self, key: &FlowKey) -> u32 {
        let mut hasher = DefaultHasher::new();
        hasher.write(&self.secret);
        std::hash::Hash::hash(key, &mut hasher);
        // Four microseconds each (RFC 9293 §3.4.1).
        let time = self.now.as_micros() / 4;
        let low = |value: u128| u32::try_from(value & 0xffff_ffff).unwrap_or(0);
        low(hasher.finish().into()).wrapping_add(low(time))
    }
}

fn random() -> Result<[u8; 16], UsernetError> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|error| UsernetError::Host {
        what: "get random bytes",
        source: error.into(),
    })?;
    Ok(bytes)
}
