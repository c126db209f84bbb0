//! Ports of the host that lead to the guest.

use std::io::{self, ErrorKind, Write};
use std::net::{IpAddr, SocketAddr};

use super::{Listener, Network};
use crate::UsernetError;
use crate::config::NetworkConfig;
use crate::datagram::{Carries, DatagramKey, Via};
use crate::frame::FrameInfo;
use crate::host::Host;
use crate::number::{Kind, Number};
use crate::rules::Protocol;
use crate::slab::Id;
use crate::tcp::{Flow, FlowKey, Outlet, Start};

/// How long a guest may take to start before a connection to it is given up.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(30);
/// When the host is asked again after it could not take a connection.
const REST: std::time::Duration = std::time::Duration::from_secs(1);
/// How many connections of a forward are taken in one call: however fast they come, others have their turn.
const ACCEPTS: usize = 256;
/// The ports that connections from outside seem to come from (RFC 6335 §6).
const FIRST_PORT: u16 = 49152;
/// How many of them are looked at for one that is free.
const TRIES: u16 = 4096;

/// Listens for all forwards.
pub(super) fn listen<H: Host>(
    config: &NetworkConfig,
    host: &mut H,
) -> Result<Vec<Listener<H::Socket>>, UsernetError> {
    let mut listeners = Vec::new();
    for (index, forward) in (0..).zip(&config.forwards) {
        let id = Id {
            index,
            generation: 0,
        };
        let token = Number::token(Kind::Listener, id);
        let at = forward.host;
        let socket = match forward.protocol {
            Protocol::Tcp => host.listen_tcp(at, token),
            Protocol::Udp => host.bind_udp(at, token),
        };
        let protocol = forward.protocol;
        let socket = socket.map_err(|source| UsernetError::Listen {
            protocol,
            at,
            source,
        })?;
        let guest = forward.guest.unwrap_or(config.ipv4.guest.into());
        listeners.push(Listener {
            socket,
            protocol,
            guest: SocketAddr::new(guest, forward.guest_port),
            pending: false,
            rests_until: std::time::Duration::ZERO,
            is_ready: false,
        });
    }
    Ok(listeners)
}

impl<H: Host> Network<H> {
    /// The host may have somebody.
    pub(super) fn listener_event(&mut self, index: u32) {
        let Some(listener) = listener(&mut self.listeners, index) else {
            return;
        };
        listener.pending = true;
        if listener.protocol == Protocol::Udp && !listener.is_ready {
            listener.is_ready = true;
            self.ready.push_back(Number::new(Kind::Listener, index));
        }
    }

    /// Those who have waited for the guest have their turn.
    pub(super) fn wake_listeners(&mut self) {
        for index in 0..u32::try_from(self.listeners.len()).unwrap_or(0) {
            if listener(&mut self.listeners, index).is_some_and(|listener| listener.pending) {
                self.listener_event(index);
            }
        }
    }

    /// Accepts connections while there is room for them: the others wait at the host. If there are many, some wait for
    /// the next call, which [`timeout`](Self::timeout) wants at once.
    pub(super) fn accept(&mut self) {
        for index in 0..u32::try_from(self.listeners.len()).unwrap_or(0) {
            for _ in 0..ACCEPTS {
                if !self.accept_at(index) {
                    break;
                }
            }
        }
    }

    /// Accepts one connection. Whether there may be another.
    fn accept_at(&mut self, index: u32) -> bool {
        let now = self.now;
        let Some(listener) = listener(&mut self.listeners, index) else {
            return false;
        };
        if !listener.pending || listener.protocol != Protocol::Tcp || now < listener.rests_until {
            return false;
        }
        let Some(id) = self.tcp.next_id() else {
            return false;
        };
        match self
            .host
            .accept(&listener.socket, Number::token(Kind::Tcp, id))
        {
            Ok((socket, from)) => {
                let guest = listener.guest;
                self.open_inbound(id, socket, guest, from);
                true
            }
            Err(error) => match error.kind() {
                ErrorKind::WouldBlock => {
                    listener.pending = false;
                    false
                }
                // Whoever it was has gone already.
                ErrorKind::ConnectionAborted
                | ErrorKind::ConnectionReset
                | ErrorKind::Interrupted => true,
                _ => {
                    self.stats.host_errors += 1;
                    listener.rests_until = now.saturating_add(REST);
                    false
                }
            },
        }
    }

    fn open_inbound(&mut self, id: Id, socket: H::Socket, guest: SocketAddr, from: SocketAddr) {
        // What it may hold is taken only for one that has a port.
        let key = self.inbound_key(guest, from);
        let Some((key, limit)) = key.and_then(|key| Some((key, self.budget.start()?))) else {
            self.stats.over_limit += 1;
            self.host.reset(socket);
            return;
        };
        let start = Start {
            patience: PATIENCE,
            ..self.start(&key, limit)
        };
        self.tcp.insert(id, Flow::inbound(key, socket, start));
        self.tcp_keys.insert(key, id.index);
        self.stats.tcp_accepted += 1;
        self.settle(id.index);
    }

    /// The ends of a connection from outside, as the guest sees them: it comes from the gateway, from a port that is free.
    fn inbound_key(&mut self, guest: SocketAddr, from: SocketAddr) -> Option<FlowKey> {
        let gateway = self.router(guest.ip());
        let key = |port| FlowKey {
            guest,
            remote: SocketAddr::new(gateway, port),
        };
        // The client's own port tells the guest the most.
        let own = key(from.port());
        if !self.tcp_keys.contains_key(&own) {
            return Some(own);
        }
        for _ in 0..TRIES {
            self.last_port = self.last_port.wrapping_add(1).max(FIRST_PORT);
            let key = key(self.last_port);
            if !self.tcp_keys.contains_key(&key) {
                return Some(key);
            }
        }
        None
    }

    /// It is the turn of a forward of UDP.
    pub(super) fn serve_listener<W: Write>(
        &mut self,
        index: u32,
        outlet: &mut Outlet<'_, W>,
    ) -> Option<FrameInfo> {
        let mut scratch = self.take_scratch();
        let frame = self.serve_clients(index, &mut scratch, outlet);
        self.scratch = scratch;
        frame
    }

    fn serve_clients<W: Write>(
        &mut self,
        index: u32,
        scratch: &mut [u8],
        outlet: &mut Outlet<'_, W>,
    ) -> Option<FrameInfo> {
        let listener = listener(&mut self.listeners, index)?;
        listener.is_ready = false;
        let guest = listener.guest;
        if self.guest_mac.is_none() {
            // They wait at the host until somebody says that he is there.
            self.ask_for_guest(guest.ip());
            return self.next_reply(outlet);
        }
        let (len, from) = match self.host.receive_datagram(&listener.socket, scratch) {
            Ok(received) => received,
            Err(error) => {
                // An error is about what an earlier datagram to a client met: it concerns no other.
                listener.pending = !is_nothing(&error);
                if listener.pending {
                    self.listener_event(index);
                }
                return None;
            }
        };
        self.listener_event(index);
        let key = self.client_key(index, from?, guest)?;
        let data = scratch.get(..len)?;
        self.deliver_udp(key.ends, data, outlet)
    }

    /// The flow of a client, which is made if there is none.
    fn client_key(
        &mut self,
        listener: u32,
        client: SocketAddr,
        guest: SocketAddr,
    ) -> Option<DatagramKey> {
        if let Some(index) = self.clients.get(&(listener, client)) {
            let flow = self.udp.get_mut(*index)?;
            flow.active_at = self.now;
            return Some(flow.key);
        }
        self.make_room();
        let Some((key, id)) = self.free_client_key(guest, client).zip(self.udp.next_id()) else {
            self.stats.over_limit += 1;
            return None;
        };
        let idle = self.config.limits.udp_idle;
        let via = Via::Forward { listener, client };
        self.insert_datagrams(id, key, via, None, idle);
        self.clients.insert((listener, client), id.index);
        Some(key)
    }

    fn free_client_key(&mut self, guest: SocketAddr, client: SocketAddr) -> Option<DatagramKey> {
        let gateway: IpAddr = self.router(guest.ip());
        let mut port = client.port();
        for _ in 0..TRIES {
            let remote = SocketAddr::new(gateway, port);
            let ends = FlowKey { guest, remote };
            let key = DatagramKey {
                carries: Carries::Udp,
                ends,
            };
            if !self.udp_keys.contains_key(&key) {
                return Some(key);
            }
            self.last_port = self.last_port.wrapping_add(1).max(FIRST_PORT);
            port = self.last_port;
        }
        None
    }
}

fn is_nothing(error: &io::Error) -> bool {
    error.kind() == ErrorKind::WouldBlock
}

fn listener<S>(listeners: &mut [Listener<S>], index: u32) -> Option<&mut Listener<S>> {
    listeners.get_mut(usize::try_from(index).ok()?)
}
