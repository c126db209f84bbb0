//! How fast bytes go through a network, beside how fast they go through the host's loopback alone.
//!
//! The guest here is no TCP stack: it sends segments without a gap and acknowledges what it gets, so that what is
//! measured is the network, two system calls for each large segment, and the copy to and from the guest.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    missing_docs,
    reason = "a benchmark"
)]

use std::hint::black_box;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::thread;
use std::time::Instant;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use goldcrest_usernet::{DnsConfig, Network, NetworkConfig, RxOffload, TxOffload};

const TOTAL: usize = 64 << 20;

/// A guest that knows no more of TCP than is needed on a perfect wire.
struct Guest {
    network: Network,
    started: Instant,
    seq: u32,
    ack: u32,
    port: u16,
    /// Up to where the network takes bytes.
    edge: u32,
    scale: u8,
    buffer: Vec<u8>,
    frame: Vec<u8>,
}

impl Guest {
    fn connect(port: u16) -> Self {
        let config = NetworkConfig {
            host_loopback: true,
            dns: DnsConfig::None,
            ..NetworkConfig::default()
        };
        let mut guest = Self {
            network: Network::new(config).unwrap(),
            started: Instant::now(),
            seq: 1,
            ack: 0,
            port,
            edge: 0,
            scale: 0,
            buffer: Vec::with_capacity(70000),
            frame: Vec::with_capacity(70000),
        };
        guest.send(0x02, &[]);
        guest.seq += 1;
        while guest.ack == 0 {
            guest.process();
            guest.receive(false, |_| {});
        }
        guest.send(0x10, &[]);
        guest
    }

    fn process(&mut self) {
        self.network.process(self.started.elapsed());
    }

    /// Sends a segment with flags.
    fn send(&mut self, flags: u8, data: &[u8]) {
        let options: &[u8] = if flags & 2 == 0 {
            &[]
        } else {
            &[2, 4, 5, 180, 1, 3, 3, 7]
        };
        let frame = &mut self.frame;
        frame.clear();
        frame.extend([0x52, 0x55, 10, 0, 2, 2, 2, 0, 0, 0, 0, 0x15, 8, 0]);
        let [a, b] = ((40 + options.len() + data.len()) as u16).to_be_bytes();
        frame.extend([
            0x45, 0, a, b, 0, 0, 0x40, 0, 64, 6, 0, 0, 10, 0, 2, 15, 10, 0, 2, 2,
        ]);
        let mut sum: u32 = frame[14..34]
            .chunks(2)
            .map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])))
            .sum();
        sum = (sum & 0xffff) + (sum >> 16);
        sum = (sum & 0xffff) + (sum >> 16);
        frame[24..26].copy_from_slice(&(!(sum as u16)).to_be_bytes());
        frame.extend(40000_u16.to_be_bytes());
        frame.extend(self.port.to_be_bytes());
        frame.extend(self.seq.to_be_bytes());
        frame.extend(self.ack.to_be_bytes());
        frame.extend([
            (5 + options.len() as u8 / 4) << 4,
            flags,
            0xff,
            0xff,
            0,
            0,
            0,
            0,
        ]);
        frame.extend(options);
        let len = frame.len() + data.len();
        // As from the memory of a guest, in one piece after the other.
        self.network.send(
            len,
            &mut (&frame[..]).chain(data),
            TxOffload { checksum: true },
        );
    }

    /// Takes all frames; what they carry is given to `data`.
    fn receive(&mut self, large: bool, mut data: impl FnMut(&[u8])) -> usize {
        let offload = RxOffload {
            checksum: true,
            tso4: large,
            tso6: large,
        };
        let mut received = 0;
        while self.network.has_frame() {
            self.buffer.clear();
            if self
                .network
                .receive(65550, offload, &mut self.buffer)
                .is_none()
            {
                break;
            }
            let frame = &self.buffer;
            if frame[12..14] != [8, 0] {
                continue;
            }
            let word = |at: usize| {
                u32::from_be_bytes([frame[at], frame[at + 1], frame[at + 2], frame[at + 3]])
            };
            let (header, flags) = (usize::from(frame[46] >> 4) * 4, frame[47]);
            let payload = &frame[34 + header..];
            if flags & 2 != 0 {
                self.ack = word(38).wrapping_add(1);
                self.scale = 7;
                self.edge =
                    word(42).wrapping_add(u32::from(u16::from_be_bytes([frame[48], frame[49]])));
                continue;
            }
            self.edge = word(42)
                .wrapping_add(u32::from(u16::from_be_bytes([frame[48], frame[49]])) << self.scale);
            self.ack = word(38).wrapping_add(payload.len() as u32);
            received += payload.len();
            data(payload);
        }
        received
    }
}

fn upload(piece: usize, total: usize) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let server = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        swallow(&mut stream)
    });
    let mut guest = Guest::connect(port);
    let data = vec![7; piece];
    let mut sent = 0;
    while sent < total {
        guest.process();
        guest.receive(false, |_| {});
        while sent < total
            && guest.edge.wrapping_sub(guest.seq) as usize >= piece
            && guest.edge.wrapping_sub(guest.seq) < 1 << 31
        {
            guest.send(0x18, &data);
            guest.seq = guest.seq.wrapping_add(piece as u32);
            sent += piece;
        }
        guest.network.flush();
    }
    guest.send(0x11, &[]);
    guest.network.flush();
    let started = Instant::now();
    while !server.is_finished() && started.elapsed().as_secs() < 10 {
        guest.process();
        guest.receive(false, |_| {});
    }
    assert!(server.join().unwrap() >= total);
}

fn download(large: bool, total: usize) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let server = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let data = vec![7; 256 << 10];
        for _ in 0..total / data.len() {
            stream.write_all(&data).unwrap();
        }
        // Until the other side has all.
        let _ = stream.read(&mut [0]);
    });
    let mut guest = Guest::connect(port);
    let mut received = 0;
    while received < total {
        guest.process();
        let more = guest.receive(large, |data| {
            black_box(data);
        });
        if more > 0 {
            received += more;
            guest.send(0x10, &[]);
        }
    }
    guest.send(0x14, &[]);
    drop(guest);
    server.join().unwrap();
}

fn swallow(stream: &mut TcpStream) -> usize {
    let mut buffer = vec![0; 256 << 10];
    let mut total = 0;
    while let Ok(len @ 1..) = stream.read(&mut buffer) {
        total += len;
    }
    total
}

/// What the host's loopback does alone, with the same two threads.
fn floor(total: usize) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let at = listener.local_addr().unwrap();
    let server = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        swallow(&mut stream)
    });
    let mut stream = TcpStream::connect(at).unwrap();
    let data = vec![7; 64 << 10];
    for _ in 0..total / data.len() {
        stream.write_all(&data).unwrap();
    }
    stream.shutdown(Shutdown::Write).unwrap();
    assert_eq!(server.join().unwrap(), total);
}

fn bulk(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("bulk");
    group
        .sample_size(10)
        .throughput(Throughput::Bytes(TOTAL as u64));
    group.bench_function("loopback alone", |bencher| bencher.iter(|| floor(TOTAL)));
    for piece in [1448, 61440] {
        group.bench_function(BenchmarkId::new("upload", piece), |bencher| {
            bencher.iter(|| upload(piece, TOTAL))
        });
    }
    for (name, large) in [("1460", false), ("large", true)] {
        group.bench_function(BenchmarkId::new("download", name), |bencher| {
            bencher.iter(|| download(large, TOTAL))
        });
    }
    group.finish();
}

criterion_group!(benches, bulk);
criterion_main!(benches);
