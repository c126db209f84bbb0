//! A guest with a TCP/IP stack of its own, on a link with the service.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "tests"
)]

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use goldcrest_mmds::{Endpoint, HEAD, Mmds, MmdsConfig, MmdsVersion};
use goldcrest_usernet::{RxOffload, TxOffload};
use serde_json::json;
use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::socket::tcp;
use smoltcp::time::Instant;
use smoltcp::wire::{EthernetAddress, HardwareAddress, IpCidr};

const MAC: [u8; 6] = [2, 0, 0, 0, 0, 0x15];
/// Next to the service (RFC 3927 §2.6.2).
const ADDRESS: Ipv4Addr = Ipv4Addr::new(169, 254, 3, 4);
const SERVICE: Ipv4Addr = Ipv4Addr::new(169, 254, 169, 254);

#[derive(Default)]
struct Card {
    received: VecDeque<Vec<u8>>,
    sent: VecDeque<Vec<u8>>,
}

struct Guest {
    endpoint: Endpoint,
    card: Card,
    interface: Interface,
    sockets: SocketSet<'static>,
    now: Duration,
    port: u16,
}

impl Guest {
    /// The service is on the guest's link.
    fn new(mmds: &Arc<Mmds>) -> Self {
        let mut card = Card::default();
        let mut config = Config::new(HardwareAddress::Ethernet(EthernetAddress(MAC)));
        config.random_seed = 0x1234_5678;
        let mut interface = Interface::new(config, &mut card, Instant::ZERO);
        interface.update_ip_addrs(|addresses| {
            addresses
                .push(IpCidr::new(IpAddr::from(ADDRESS).into(), 16))
                .unwrap();
        });
        Self {
            endpoint: Endpoint::with_seed(mmds.clone(), Some([3; 16])).unwrap(),
            card,
            interface,
            sockets: SocketSet::new(Vec::new()),
            now: Duration::from_secs(1),
            port: 40000,
        }
    }

    fn connect(&mut self, port: u16) -> SocketHandle {
        let buffer = |len| tcp::SocketBuffer::new(vec![0; len]);
        let mut socket = tcp::Socket::new(buffer(2000), buffer(20_000));
        socket.set_ack_delay(None);
        self.port += 1;
        let to = (IpAddr::from(SERVICE), port);
        socket
            .connect(self.interface.context(), to, self.port)
            .unwrap();
        self.sockets.add(socket)
    }

    fn socket(&mut self, handle: SocketHandle) -> &mut tcp::Socket<'static> {
        self.sockets.get_mut(handle)
    }

    fn step(&mut self) {
        self.now += Duration::from_millis(1);
        let now = Instant::from_micros(i64::try_from(self.now.as_micros()).unwrap());
        self.interface.poll(now, &mut self.card, &mut self.sockets);
        for frame in self.card.sent.drain(..) {
            assert!(self.endpoint.wants(&frame[..frame.len().min(HEAD)]));
            let (len, offload) = (frame.len(), TxOffload::default());
            self.endpoint.send(len, &mut &frame[..], offload, self.now);
        }
        self.endpoint.process(self.now);
        let mut frame = Vec::new();
        let offload = RxOffload::default();
        while self
            .endpoint
            .receive(1514, offload, &mut frame, self.now)
            .is_some()
        {
            self.card.received.push_back(std::mem::take(&mut frame));
        }
    }

    fn steps(&mut self, count: usize) {
        (0..count).for_each(|_| self.step());
    }

    /// Sends all, and gives all that comes until the connection is ended, or nothing comes for a while.
    fn exchange(&mut self, handle: SocketHandle, text: &str) -> String {
        let (mut rest, mut answer, mut quiet) = (text.as_bytes(), Vec::new(), 0);
        while quiet < 50 && self.socket(handle).is_active() {
            self.step();
            quiet += 1;
            let socket = self.socket(handle);
            if socket.can_send() && !rest.is_empty() {
                let sent = socket.send_slice(rest).unwrap();
                rest = &rest[sent..];
                quiet = 0;
            }
            while socket.can_recv() {
                let take = |bytes: &mut [u8]| (bytes.len(), answer.extend_from_slice(bytes));
                socket.recv(take).unwrap();
                quiet = 0;
            }
            if !socket.may_recv() && socket.state() == tcp::State::CloseWait {
                socket.close();
            }
        }
        assert!(rest.is_empty(), "{} bytes were not taken", rest.len());
        String::from_utf8(answer).unwrap()
    }

    fn get(&mut self, path: &str, fields: &str) -> String {
        let handle = self.connect(80);
        let text = format!("GET {path} HTTP/1.1\r\n{fields}Connection: close\r\n\r\n");
        self.exchange(handle, &text)
    }
}

impl Device for Card {
    type RxToken<'a> = Received;
    type TxToken<'a> = Sent<'a>;

    fn receive(&mut self, _: Instant) -> Option<(Received, Sent<'_>)> {
        let frame = self.received.pop_front()?;
        Some((Received(frame), Sent(&mut self.sent)))
    }

    fn transmit(&mut self, _: Instant) -> Option<Sent<'_>> {
        Some(Sent(&mut self.sent))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = 1514;
        capabilities
    }
}

struct Received(Vec<u8>);

impl RxToken for Received {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(&self.0)
    }
}

struct Sent<'a>(&'a mut VecDeque<Vec<u8>>);

impl TxToken for Sent<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        let mut frame = vec![0; len];
        let result = f(&mut frame);
        self.0.push_back(frame);
        result
    }
}

fn service(version: MmdsVersion) -> Arc<Mmds> {
    let config = MmdsConfig {
        version,
        ..MmdsConfig::default()
    };
    let mmds = Mmds::with_key(config, [1; 64]).unwrap();
    mmds.put(json!({"a": {"b": "value"}, "long": "x".repeat(50_000)}))
        .unwrap();
    Arc::new(mmds)
}

#[test]
fn values_of_any_length_are_read_and_the_connection_is_ended() {
    let mmds = service(MmdsVersion::V1);
    let mut guest = Guest::new(&mmds);
    let answer = guest.get("/a/b", "");
    assert!(
        answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("\r\n\r\nvalue"),
        "{answer}"
    );
    let long = guest.get("/long", "Accept: application/json\r\n");
    assert!(long.ends_with(&format!("\r\n\r\n\"{}\"", "x".repeat(50_000))));
    // When segments that are late have come by now.
    guest.steps(400);
    assert_eq!(guest.endpoint.connections(), 0);
    mmds.patch(&json!({"a": {"b": "other"}})).unwrap();
    assert!(guest.get("/a/b", "").ends_with("\r\n\r\nother"));
}

#[test]
fn many_requests_in_a_row_are_answered_on_one_connection() {
    let mut guest = Guest::new(&service(MmdsVersion::V1));
    let handle = guest.connect(80);
    let answer = guest.exchange(handle, &"GET /a/b HTTP/1.1\r\n\r\n".repeat(2000));
    assert_eq!(answer.matches("\r\n\r\nvalue").count(), 2000);
    assert_eq!(guest.endpoint.connections(), 1);
}

#[test]
fn a_session_is_begun_used_and_over() {
    let mmds = service(MmdsVersion::V2);
    let mut guest = Guest::new(&mmds);
    assert!(guest.get("/a/b", "").starts_with("HTTP/1.1 401 "));
    let handle = guest.connect(80);
    let put = "PUT /latest/api/token HTTP/1.1\r\nX-metadata-token-ttl-seconds: 30\r\nConnection: close\r\n\r\n";
    let answer = guest.exchange(handle, put);
    let (_, token) = answer.split_once("\r\n\r\n").unwrap();
    let field = format!("X-metadata-token: {token}\r\n");
    assert!(guest.get("/a/b", &field).ends_with("\r\n\r\nvalue"));
    // On another card, too.
    let mut other = Guest::new(&mmds);
    assert!(other.get("/a/b", &field).ends_with("\r\n\r\nvalue"));
    guest.now += Duration::from_secs(30);
    assert!(guest.get("/a/b", &field).starts_with("HTTP/1.1 401 "));
}

#[test]
fn other_ports_are_refused() {
    let mut guest = Guest::new(&service(MmdsVersion::V1));
    for port in [81, 8080, 53] {
        let handle = guest.connect(port);
        guest.steps(20);
        assert_eq!(guest.socket(handle).state(), tcp::State::Closed, "{port}");
    }
    assert_eq!(guest.endpoint.connections(), 0);
}

#[test]
fn idle_connections_make_room_for_new_ones_the_oldest_first() {
    let mut guest = Guest::new(&service(MmdsVersion::V1));
    let first = guest.connect(80);
    guest.steps(5);
    let idle: Vec<_> = (0..31).map(|_| guest.connect(80)).collect();
    guest.steps(20);
    // It is used again, so that another is the oldest.
    let used = guest.exchange(first, "GET /a/b HTTP/1.1\r\n\r\n");
    assert!(used.ends_with("value"));
    assert_eq!(guest.endpoint.connections(), 32);
    for count in 1..=5 {
        assert!(guest.get("/a/b", "").ends_with("value"));
        let states = idle.iter().map(|handle| {
            let socket: &tcp::Socket<'_> = guest.sockets.get(*handle);
            socket.state()
        });
        let gone = states.filter(|state| *state == tcp::State::Closed).count();
        // The place of the one that made room is free by now.
        assert_eq!(gone, 1, "after {count}");
    }
    assert_eq!(guest.socket(first).state(), tcp::State::Established);
}

#[test]
fn frames_for_others_are_not_wanted() {
    let endpoint = Endpoint::with_seed(service(MmdsVersion::V1), Some([0; 16])).unwrap();
    let frame = |kind: [u8; 2], at: usize, address: [u8; 4]| {
        let mut frame = vec![0; HEAD];
        frame[12..14].copy_from_slice(&kind);
        frame[at..at + 4].copy_from_slice(&address);
        frame
    };
    let own = SERVICE.octets();
    assert!(endpoint.wants(&frame([8, 0], 30, own)) && endpoint.wants(&frame([8, 6], 38, own)));
    for other in [
        frame([8, 0], 30, [169, 254, 169, 253]),
        frame([8, 0], 26, own),
        frame([8, 6], 28, own),
        frame([0x81, 0], 30, own),
        frame([0x86, 0xdd], 30, own),
        frame([8, 0], 30, own)[..33].to_vec(),
        frame([8, 6], 38, own)[..41].to_vec(),
        Vec::new(),
    ] {
        assert!(!endpoint.wants(&other), "{other:?}");
    }
}
