//! `--net`, on `/dev/kvm`: the unikernel `http` is reached through a forwarded port, and bad options are refused.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "tests"
)]

mod support;

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::process::Command;
use std::thread;
use std::time::Duration;

use support::*;

/// A port that nobody listens on.
fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    listener.local_addr().unwrap().port()
}

/// The unikernel `http`, with a network card.
fn with_net(option: &str) -> Command {
    let mut command = boot(&unikernel("http"));
    command.args(["--timeout", "50", "--net", option]);
    command
}

/// A connection to the server.
struct Client(BufReader<TcpStream>);

impl Client {
    fn new(port: u16) -> Self {
        Self::try_new(port).unwrap()
    }

    fn try_new(port: u16) -> io::Result<Self> {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
        stream.set_nodelay(true).unwrap();
        Ok(Self(BufReader::new(stream)))
    }

    /// As soon as the monitor listens.
    fn first(port: u16) -> Self {
        let tries = (0..1000).map(|_| {
            thread::sleep(Duration::from_millis(5));
            Self::try_new(port)
        });
        tries.flatten().next().unwrap()
    }

    /// Asks for a page, and gives its status line and its bytes.
    fn get(&mut self, path: &str) -> (String, Vec<u8>) {
        let request = format!("GET {path} HTTP/1.1\r\nHost: guest\r\n\r\n");
        self.0.get_mut().write_all(request.as_bytes()).unwrap();
        let status = self.line();
        let mut len = 0;
        loop {
            let line = self.line().to_ascii_lowercase();
            if let Some(value) = line.strip_prefix("content-length:") {
                len = value.trim().parse().unwrap();
            }
            if line.is_empty() {
                break;
            }
        }
        let mut body = vec![0; len];
        self.0.read_exact(&mut body).unwrap();
        (status, body)
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.0.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }
}

#[test]
fn a_unikernel_answers_every_request_through_a_forwarded_port() {
    if skip_without_kvm() {
        return;
    }
    let port = free_port();
    let server = Running::start(&mut with_net(&format!("user,fwd=tcp:{port}:80")));
    // The first connection comes before the guest has an address.
    let (status, page) = Client::first(port).get("/");
    assert_eq!(status, "HTTP/1.1 200 OK");
    assert!(page.starts_with(b"<!DOCTYPE html>"));
    let clients: Vec<_> = (0..8)
        .map(|_| {
            let page = page.clone();
            thread::spawn(move || {
                let mut client = Client::new(port);
                for _ in 0..250 {
                    assert_eq!(client.get("/").1, page);
                }
                for _ in 0..50 {
                    assert_eq!(Client::new(port).get("/").1, page);
                }
            })
        })
        .collect();
    for client in clients {
        client.join().unwrap();
    }
    let (status, bytes) = Client::new(port).get("/bytes/10000000");
    assert_eq!(
        (status.as_str(), bytes.len()),
        ("HTTP/1.1 200 OK", 10_000_000)
    );
    Client::new(port).get("/quit");
    let ended = server.finish().expect(0);
    assert_contains(
        &ended.stdout,
        &["listening on 10.0.2.15:80", "411 connections"],
    );
}

#[test]
fn a_network_that_cannot_be_is_refused_in_one_line() {
    if skip_without_kvm() {
        return;
    }
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = taken.local_addr().unwrap().port();
    let twice = format!("user,fwd=tcp:{0}:80,fwd=tcp:{0}:81", free_port());
    for (option, what) in [
        (
            format!("user,fwd=tcp:{port}:80").as_str(),
            "Address already in use",
        ),
        (&twice, "is forwarded twice"),
        ("user,mtu=100", "MTU: 100 is not from 1280"),
        ("tap=a-name-that-is-too-long", "a-name-that-is-too-long"),
        ("tap=lo", "lo"),
        ("tap=gc-none,queues=9", "9"),
    ] {
        let complaint = run(&mut with_net(option)).complaint(2);
        assert_contains(&complaint, &[what]);
    }
    // Root, too, needs a privilege for this.
    let script = "exec setpriv --bounding-set=-net_admin --inh-caps=-net_admin \"$@\"";
    let complaint = run(&mut within(script, &with_net("tap=gc-forbidden"))).complaint(2);
    assert_contains(&complaint, &["gc-forbidden", "ip tuntap add"]);
}

#[test]
fn options_of_networks_are_checked() {
    for (option, what) in [
        ("", "a network card cannot be on \"\""),
        ("tap=", "the tap's name is missing"),
        ("user,mac=01:00:00:00:00:00", "group"),
        ("user,fwd=tcp:0:80", "port 0 cannot be forwarded"),
        ("user,fwd=tcp:80:0", "port 0 cannot be forwarded"),
        ("user,allow=somewhere", "somewhere"),
    ] {
        let ended = run(&mut with_net(option)).expect(2);
        assert_contains(&ended.stderr, &[what, "tap=NAME"]);
    }
}
