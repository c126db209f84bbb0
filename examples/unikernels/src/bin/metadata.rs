//! Asks the metadata service for a value and prints it: by HTTP, on the first virtio network card.
//!
//! | argument | default | |
//! |---|---|---|
//! | `path=PATH` | / | what is asked for |
//! | `at=ADDRESS` | 169.254.169.254 | where the service is |
//! | `token=SECONDS` | none | a token that lives so long is asked for first |
//! | `accept=TYPE` | none | `application/json`, or what else is wanted |
//! | `ip=ADDRESS/PREFIX` | by DHCP | the guest's address: 169.254.3.4/16 is one that reaches the service without a router |
//!
//! Its status is 0 if it got the value, and 1 if not.
#![no_std]
#![no_main]

extern crate alloc;

use alloc::string::String;
use alloc::{format, vec, vec::Vec};
use core::str::FromStr;

use goldcrest_guest::virtio::{Net, is_announcement};
use goldcrest_guest::{Options, args, println, time};
use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::socket::{dhcpv4, tcp};
use smoltcp::wire::{EthernetAddress, IpCidr, Ipv4Address, Ipv4Cidr};

goldcrest_guest::main!(main, Options::new().clock());

const PORT: u16 = 80;
/// The port of the first connection.
const FIRST_PORT: u16 = 49152;

fn main() -> u32 {
    match Arguments::parse().and_then(|arguments| fetch(&arguments)) {
        Ok(value) => {
            println!("{value}");
            0
        }
        Err(error) => {
            println!("metadata: {error}");
            1
        }
    }
}

struct Arguments {
    path: &'static str,
    at: Ipv4Address,
    token: Option<u32>,
    accept: Option<&'static str>,
    ip: Option<Ipv4Cidr>,
}

impl Arguments {
    fn parse() -> Result<Self, String> {
        let mut arguments = Self {
            path: "/",
            at: Ipv4Address::new(169, 254, 169, 254),
            token: None,
            accept: None,
            ip: None,
        };
        for word in args().filter(|word| !is_announcement(word)) {
            match word.split_once('=') {
                Some(("path", value)) => arguments.path = value,
                Some(("at", value)) => arguments.at = parsed(word, value)?,
                Some(("token", value)) => arguments.token = Some(parsed(word, value)?),
                Some(("accept", value)) => arguments.accept = Some(value),
                Some(("ip", value)) => arguments.ip = Some(parsed(word, value)?),
                _ => return Err(format!("unknown argument {word}")),
            }
        }
        Ok(arguments)
    }
}

fn parsed<T: FromStr>(word: &str, value: &str) -> Result<T, String> {
    value.parse().map_err(|_| format!("{word} makes no sense"))
}

/// Asks for the value, and for a token before if that is wanted.
fn fetch(arguments: &Arguments) -> Result<String, String> {
    let mut client = Client::new(arguments)?;
    let mut fields = String::new();
    if let Some(seconds) = arguments.token {
        let field = format!("X-metadata-token-ttl-seconds: {seconds}\r\n");
        let token = client.ask("PUT", "/latest/api/token", &field)?;
        fields += &format!("X-metadata-token: {token}\r\n");
    }
    if let Some(kind) = arguments.accept {
        fields += &format!("Accept: {kind}\r\n");
    }
    client.ask("GET", arguments.path, &fields)
}

/// TCP/IP on a network card.
struct Client {
    card: Net,
    interface: Interface,
    sockets: SocketSet<'static>,
    at: Ipv4Address,
    port: u16,
}

impl Client {
    /// A client that has an address.
    fn new(arguments: &Arguments) -> Result<Self, String> {
        let mut card = Net::first().map_err(|error| format!("network card: {error}"))?;
        let mut config = Config::new(EthernetAddress(card.mac()).into());
        config.random_seed = time::tsc();
        let mut client = Self {
            interface: Interface::new(config, &mut card, Net::now()),
            card,
            sockets: SocketSet::new(Vec::new()),
            at: arguments.at,
            port: FIRST_PORT,
        };
        match arguments.ip {
            Some(ip) => client.set_address(ip, None),
            None => client.ask_for_address()?,
        }
        Ok(client)
    }

    fn ask_for_address(&mut self) -> Result<(), String> {
        let dhcp = self.sockets.add(dhcpv4::Socket::new());
        loop {
            self.step()?;
            let socket = self.sockets.get_mut::<dhcpv4::Socket>(dhcp);
            if let Some(dhcpv4::Event::Configured(config)) = socket.poll() {
                let (address, router) = (config.address, config.router);
                self.set_address(address, router);
                return Ok(());
            }
        }
    }

    fn set_address(&mut self, ip: Ipv4Cidr, router: Option<Ipv4Address>) {
        self.interface.update_ip_addrs(|addresses| {
            addresses.clear();
            // There is room: the list was just cleared.
            let _ = addresses.push(IpCidr::Ipv4(ip));
        });
        if let Some(router) = router {
            let _ = self.interface.routes_mut().add_default_ipv4_route(router);
        }
    }

    /// The body of a good response.
    fn ask(&mut self, method: &str, path: &str, fields: &str) -> Result<String, String> {
        let host = self.at;
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{fields}\r\n"
        );
        let bytes = self.exchange(request.as_bytes())?;
        let mut headers = [httparse::EMPTY_HEADER; 16];
        let mut response = httparse::Response::new(&mut headers);
        let Ok(httparse::Status::Complete(head)) = response.parse(&bytes) else {
            return Err(format!("{method} {path}: not an answer of HTTP"));
        };
        let body = String::from_utf8_lossy(bytes.get(head..).unwrap_or_default());
        match response.code {
            Some(200) => Ok(body.into_owned()),
            code => Err(format!("{method} {path}: {} {body}", code.unwrap_or(0))),
        }
    }

    /// All that is answered over a connection of its own.
    fn exchange(&mut self, request: &[u8]) -> Result<Vec<u8>, String> {
        let handle = self.connect()?;
        let (mut rest, mut answer) = (request, Vec::new());
        loop {
            self.step()?;
            let socket = self.sockets.get_mut::<tcp::Socket>(handle);
            if !rest.is_empty() && socket.can_send() {
                let sent = socket
                    .send_slice(rest)
                    .map_err(|error| format!("{error}"))?;
                rest = rest.get(sent..).unwrap_or_default();
            }
            while socket.can_recv() {
                let received = socket.recv(|bytes| {
                    answer.extend_from_slice(bytes);
                    (bytes.len(), ())
                });
                received.map_err(|error| format!("{error}"))?;
            }
            if !socket.is_active() {
                return Err("the connection was refused or broken".into());
            }
            if !socket.may_recv() && rest.is_empty() && socket.state() == tcp::State::CloseWait {
                socket.close();
                self.step()?;
                return Ok(answer);
            }
        }
    }

    fn connect(&mut self) -> Result<SocketHandle, String> {
        let buffer = |len| tcp::SocketBuffer::new(vec![0; len]);
        let mut socket = tcp::Socket::new(buffer(32768), buffer(4096));
        socket.set_ack_delay(None);
        let to = (self.at, PORT);
        let context = self.interface.context();
        let connected = socket.connect(context, to, self.port);
        connected.map_err(|error| format!("{error}"))?;
        self.port += 1;
        Ok(self.sockets.add(socket))
    }

    /// Does what there is to do, and waits until there may be more.
    fn step(&mut self) -> Result<(), String> {
        let failed = |error| format!("network card: {error}");
        let now = Net::now();
        self.interface.poll(now, &mut self.card, &mut self.sockets);
        self.card.flush().map_err(failed)?;
        let until = self.interface.poll_at(now, &self.sockets);
        let soon = now + smoltcp::time::Duration::from_millis(5);
        let until = until.map_or(soon, |until| until.min(soon));
        self.card.wait_until(Some(until)).map_err(failed)?;
        Ok(())
    }
}
