//! Unix sockets on the host: programs that connect, listen, send much, stall, misbehave and die.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "tests"
)]

mod guest;

use std::collections::BTreeMap;
use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use goldcrest_virtio_vsock::spec::{op, shutdown};
use goldcrest_virtio_vsock::{Header, MAX_PATH, UnixHost, VsockConfig, VsockError};
use guest::sockets::Sockets;
use guest::{CID, Guest, data, header, pattern, unix};
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, listen, socket_with,
};
use rustix::process::{Resource, getrlimit, setrlimit};
use tempfile::TempDir;

const SECONDS: Duration = Duration::from_secs(20);

fn started() -> (Guest<UnixHost>, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let guest = Guest::new(unix(folder.path()).build().unwrap());
    (guest, folder)
}

fn port_path(folder: &TempDir, port: u32) -> PathBuf {
    folder.path().join(format!("vsock_{port}"))
}

fn program(folder: &TempDir) -> UnixStream {
    let stream = UnixStream::connect(folder.path().join("vsock")).unwrap();
    stream.set_read_timeout(Some(SECONDS)).unwrap();
    stream.set_write_timeout(Some(SECONDS)).unwrap();
    stream
}

/// Reads a line, and nothing of what follows.
fn line(stream: &mut UnixStream) -> String {
    let mut line = Vec::new();
    let mut byte = [0];
    while !line.ends_with(b"\n") && stream.read(&mut byte).unwrap() == 1 {
        line.push(byte[0]);
    }
    String::from_utf8(line).unwrap()
}

/// Lets the device work until the guest has a packet with this `op`.
fn wait_for(guest: &mut Guest<UnixHost>, op: u16) -> Header {
    let mut found = None;
    guest.run_until(|guest| {
        let mut packets = guest.packets().into_iter();
        found = found.or(packets.find(|(p, _)| p.op == op).map(|(p, _)| p));
        found.is_some()
    });
    found.unwrap()
}

/// A program that is connected with port 52 of the guest, and the host's port.
fn accepted(guest: &mut Guest<UnixHost>, folder: &TempDir) -> (UnixStream, u32) {
    let mut stream = program(folder);
    stream.write_all(b"CONNECT 52\n").unwrap();
    let request = wait_for(guest, op::REQUEST);
    assert_eq!(request.dst_port, 52);
    guest.send(&header(op::RESPONSE, 52, request.src_port), &[]);
    assert_eq!(line(&mut stream), format!("OK {}\n", request.src_port));
    (stream, request.src_port)
}

#[test]
fn a_program_connects_and_its_first_bytes_may_follow_the_line_at_once() {
    let (mut guest, folder) = started();
    let mut stream = program(&folder);
    stream.write_all(b"CONNECT 52\nhello").unwrap();
    let request = wait_for(&mut guest, op::REQUEST);
    guest.send(&header(op::RESPONSE, 52, request.src_port), &[]);
    let mut got = Vec::new();
    guest.run_until(|guest| {
        got.extend(guest.packets().into_iter().flat_map(|(_, payload)| payload));
        got == b"hello"
    });
    guest.send(&data(52, request.src_port, b"world"), b"world");
    assert_eq!(line(&mut stream), format!("OK {}\n", request.src_port));
    let mut answer = [0; 5];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"world");
    assert!(guest.rests());
}

#[test]
fn a_program_may_say_what_it_wants_piece_by_piece() {
    let (mut guest, folder) = started();
    let mut stream = program(&folder);
    for piece in ["CON", "NECT", " 5", "2"] {
        stream.write_all(piece.as_bytes()).unwrap();
        assert!(
            guest.rests(),
            "half a line is not looked at again and again"
        );
        assert!(guest.packets().is_empty());
    }
    stream.write_all(b"\n").unwrap();
    assert_eq!(wait_for(&mut guest, op::REQUEST).dst_port, 52);
}

#[test]
fn programs_that_talk_rubbish_or_leave_are_dropped_and_harm_nobody() {
    let (mut guest, folder) = started();
    let long = "CONNECT 5".to_owned() + &"0".repeat(100);
    for said in [
        "",
        "CONNECT",
        "CONNECT 52",
        "\n",
        "GET / HTTP/1.1\r\n",
        "CONNECT 5 2\n",
        &long,
    ] {
        let mut stream = program(&folder);
        stream.write_all(said.as_bytes()).unwrap();
        if !said.ends_with('\n') && said.len() < 32 {
            assert!(guest.rests());
            stream.shutdown(Shutdown::Write).unwrap();
        }
        assert!(guest.rests());
        let gone = stream.read(&mut [0]);
        let reset = gone.as_ref().map_err(std::io::Error::kind) == Err(ErrorKind::ConnectionReset);
        assert!(matches!(gone, Ok(0)) || reset, "{said:?}: {gone:?}");
        // One that has left altogether.
        let mut stream = program(&folder);
        let _ = stream.write_all(said.as_bytes());
        drop(stream);
        assert!(guest.rests());
    }
    assert!(guest.packets().is_empty());
    assert_eq!(guest.streams(), 0);
    accepted(&mut guest, &folder);
}

#[test]
fn a_program_that_says_nothing_is_not_waited_for_longer_than_five_seconds() {
    let folder = tempfile::tempdir().unwrap();
    let clock = goldcrest_rate_limiter::ManualClock::default();
    let device = unix(folder.path()).build().unwrap();
    let mut guest = Guest::new(device.with_clock(clock.clone()));
    let mut stream = program(&folder);
    guest.device.process_events();
    assert_eq!(guest.waits().delay, Some(Duration::from_secs(5)));
    clock.advance(Duration::from_secs(5));
    guest.device.process_events();
    assert_eq!(stream.read(&mut [0]).unwrap(), 0);
    assert_eq!(guest.waits().delay, None);
}

#[test]
fn many_programs_that_say_nothing_keep_nobody_out() {
    let (mut guest, folder) = started();
    let silent: Vec<_> = (0..300)
        .map(|_| {
            let stream = program(&folder);
            guest.device.process_events();
            stream
        })
        .collect();
    let (mut stream, port) = accepted(&mut guest, &folder);
    guest.send(&data(52, port, b"x"), b"x");
    stream.read_exact(&mut [0]).unwrap();
    let dropped = silent.iter().filter(|stream| {
        stream.set_nonblocking(true).unwrap();
        matches!((&**stream).read(&mut [0]), Ok(0))
    });
    assert!((170..180).contains(&dropped.count()));
}

#[test]
fn a_program_that_sends_and_leaves_before_it_is_answered_is_heard() {
    let (mut guest, folder) = started();
    let mut stream = program(&folder);
    stream.write_all(b"CONNECT 52\nnews").unwrap();
    drop(stream);
    let request = wait_for(&mut guest, op::REQUEST);
    guest.send(&header(op::RESPONSE, 52, request.src_port), &[]);
    let mut packets = guest.packets();
    guest.run_until(|guest| {
        packets.extend(guest.packets());
        packets
            .last()
            .is_some_and(|(p, _)| p.flags == shutdown::BOTH)
    });
    let payload: Vec<_> = packets
        .into_iter()
        .flat_map(|(_, payload)| payload)
        .collect();
    assert_eq!(payload, b"news");
}

#[test]
fn a_guest_connects_to_the_socket_of_a_port() {
    let (mut guest, folder) = started();
    let listener = UnixListener::bind(port_path(&folder, 1234)).unwrap();
    guest.send(&header(op::REQUEST, 99, 1234), &[]);
    assert_eq!(guest.packet().0.op, op::RESPONSE, "at once");
    guest.send(&data(99, 1234, b"hello"), b"hello");
    let (mut stream, _) = listener.accept().unwrap();
    let mut got = [0; 5];
    stream.read_exact(&mut got).unwrap();
    assert_eq!(&got, b"hello");
    stream.write_all(b"world").unwrap();
    let mut got = Vec::new();
    guest.run_until(|guest| {
        got.extend(guest.packets().into_iter().flat_map(|(_, payload)| payload));
        got == b"world"
    });
}

#[test]
fn sockets_that_are_not_there_or_that_nobody_listens_on_refuse_the_guest() {
    let (mut guest, folder) = started();
    drop(UnixListener::bind(port_path(&folder, 1)).unwrap());
    fs::write(port_path(&folder, 2), "a file").unwrap();
    let _datagrams = std::os::unix::net::UnixDatagram::bind(port_path(&folder, 3)).unwrap();
    for port in [1, 2, 3, 4, 0, u32::MAX] {
        guest.send(&header(op::REQUEST, 99, port), &[]);
        let (packet, _) = guest.packet();
        assert_eq!((packet.op, packet.src_port), (op::RST, port));
    }
    assert_eq!(guest.streams(), 0);
}

#[test]
fn a_socket_whose_backlog_is_full_keeps_the_guest_waiting_and_nobody_else() {
    let (mut guest, folder) = started();
    let flags = SocketFlags::CLOEXEC;
    let listener = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None).unwrap();
    bind(
        &listener,
        &SocketAddrUnix::new(port_path(&folder, 1)).unwrap(),
    )
    .unwrap();
    listen(&listener, 0).unwrap();
    let listener = UnixListener::from(listener);
    for port in 0..3 {
        guest.send(&header(op::REQUEST, port, 1), &[]);
    }
    let answered = guest.ops().len();
    assert!(answered < 3, "the kernel has room for {answered}");
    // Another port is not kept.
    let _other = UnixListener::bind(port_path(&folder, 2)).unwrap();
    guest.send(&header(op::REQUEST, 9, 2), &[]);
    assert_eq!(guest.ops(), [op::RESPONSE]);
    let mut answers = answered;
    let mut kept = Vec::new();
    while answers < 3 {
        kept.push(listener.accept().unwrap());
        answers += usize::from(wait_for(&mut guest, op::RESPONSE).op == op::RESPONSE);
    }
    assert!(guest.rests());
}

#[test]
fn a_program_that_closes_what_it_has_not_read_ends_the_stream() {
    let (mut guest, folder) = started();
    let (stream, port) = accepted(&mut guest, &folder);
    guest.send(&data(52, port, b"unread"), b"unread");
    drop(stream);
    let last = wait_for(&mut guest, op::SHUTDOWN);
    assert_ne!(last.flags & shutdown::RECEIVE, 0);
    // The guest goes on for a while, as it may not have heard.
    guest.send(&data(52, port, &pattern(1000)), &pattern(1000));
    guest.send(&header(op::RST, 52, port), &[]);
    assert_eq!(guest.streams(), 0);
    assert!(guest.rests());
}

#[test]
fn a_guest_that_resets_a_stream_disconnects_the_program() {
    let (mut guest, folder) = started();
    let (mut stream, port) = accepted(&mut guest, &folder);
    guest.send(&data(52, port, b"last"), b"last");
    guest.send(&header(op::RST, 52, port), &[]);
    let mut got = Vec::new();
    stream.read_to_end(&mut got).unwrap();
    assert_eq!(got, b"last");
    assert_eq!(guest.streams(), 0);
}

#[test]
fn a_reset_of_the_device_disconnects_all_and_it_works_again() {
    let (mut guest, folder) = started();
    let mut streams: Vec<_> = (0..10).map(|_| accepted(&mut guest, &folder).0).collect();
    guest.start(guest::FEATURES);
    guest.give(64, 4096);
    for stream in &mut streams {
        assert_eq!(stream.read(&mut [0]).unwrap(), 0);
    }
    assert_eq!(guest.streams(), 0);
    accepted(&mut guest, &folder);
}

#[test]
fn one_descriptor_is_watched_however_many_streams_there_are() {
    let (mut guest, folder) = started();
    let before = guest.waits();
    assert_eq!(before.readable.len(), 1);
    let _streams: Vec<_> = (0..10).map(|_| accepted(&mut guest, &folder)).collect();
    assert!(guest.rests());
    assert_eq!(guest.waits(), before);
}

#[test]
fn bytes_that_the_guest_has_no_room_for_wake_nobody_again_and_again() {
    let (mut guest, folder) = started();
    let (mut stream, port) = accepted(&mut guest, &folder);
    let silent = Header {
        buf_alloc: 0,
        ..header(op::CREDIT_UPDATE, 52, port)
    };
    guest.send(&silent, &[]);
    stream.write_all(&pattern(10_000)).unwrap();
    let mut turns = 0;
    let begin = std::time::Instant::now();
    while begin.elapsed() < Duration::from_millis(500) {
        turns += usize::from(guest.turn(Duration::from_millis(50)));
    }
    assert!(turns < 12, "{turns}");
    let ops = guest.ops();
    assert!((3..7).contains(&ops.len()), "{ops:?}");
    assert!(ops.iter().all(|op| *op == op::CREDIT_REQUEST));
    // The same for a guest without buffers.
    let (mut guest, folder) = started();
    let (mut stream, _) = accepted(&mut guest, &folder);
    stream.set_nonblocking(true).unwrap();
    let mut sent = 0;
    while let Ok(count) = stream.write(&pattern(10_000)) {
        sent += count;
        guest.device.process_events();
    }
    assert!(guest.rests());
    let mut got = 0;
    while got < sent {
        let packets = guest.packets();
        got += packets
            .iter()
            .map(|(_, payload)| payload.len())
            .sum::<usize>();
        assert!(!packets.is_empty(), "{got} of {sent}");
        let room = Header {
            fwd_cnt: got as u32,
            ..header(op::CREDIT_UPDATE, 52, packets[0].0.src_port)
        };
        guest.send(&room, &[]);
    }
}

/// What a stream carries is told by its number and the direction.
fn byte_of(stream: u32, at: usize, to_guest: bool) -> u8 {
    let mixed = (at as u64 ^ u64::from(stream) << 32 ^ u64::from(to_guest) << 60)
        .wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed.to_le_bytes()[6]
}

fn bytes_of(stream: u32, from: usize, len: usize, to_guest: bool) -> Vec<u8> {
    (from..from + len)
        .map(|at| byte_of(stream, at, to_guest))
        .collect()
}

/// The program at the other end: sends its number if asked to, `len` bytes, then no more; receives as many, then the end.
fn talk(mut stream: UnixStream, number: u32, len: usize) {
    let mut sender = stream.try_clone().unwrap();
    let sending = thread::spawn(move || {
        for at in (0..len).step_by(10_000) {
            let piece = bytes_of(number, at, 10_000.min(len - at), true);
            sender.write_all(&piece).unwrap();
        }
        sender.shutdown(Shutdown::Write).unwrap();
    });
    let mut got = Vec::new();
    stream.read_to_end(&mut got).unwrap();
    assert!(got == bytes_of(number, 0, len, false), "stream {number}");
    sending.join().unwrap();
}

/// Has each socket send and receive `len` bytes and close, both ways at once.
fn exchange(guest: &mut Guest<UnixHost>, sockets: &mut Sockets, count: usize, len: usize) {
    let mut progress: BTreeMap<_, (usize, usize, bool)> = BTreeMap::new();
    let mut done = 0;
    guest.run_until(|guest| {
        while sockets.receive(guest) > 0 {}
        let names: Vec<_> = sockets.sockets.keys().copied().collect();
        for name in names {
            let (sent, got, closed) = progress.entry(name).or_default();
            if *closed || !sockets.sockets[&name].connected {
                continue;
            }
            // Whose end has the number depends on who has asked for the stream.
            let number = if name.1 < 1 << 30 { name.0 } else { name.1 };
            let piece = bytes_of(number, *sent, 70_000.min(len - *sent), false);
            *sent += sockets.send(guest, name, &piece);
            if *sent == len && !piece.is_empty() {
                sockets.shut(guest, name, shutdown::SEND);
            }
            let bytes = sockets.read(guest, name, 50_000);
            let expected = bytes_of(number, *got, bytes.len(), true);
            assert!(bytes == expected, "stream {number} from {got}");
            *got += bytes.len();
            if *sent == len && sockets.sockets[&name].ended() {
                assert_eq!(*got, len, "stream {number}");
                sockets.shut(guest, name, shutdown::BOTH);
                *closed = true;
                done += 1;
            }
        }
        done == count
    });
    guest.run_until(|guest| {
        sockets.receive(guest);
        guest.streams() == 0
    });
}

#[test]
fn a_megabyte_each_way_through_streams_that_the_guest_asks_for() {
    let (mut guest, folder) = started();
    let (count, len) = (8, 1 << 20);
    let listener = UnixListener::bind(port_path(&folder, 1234)).unwrap();
    let listening = thread::spawn(move || {
        let all = (0..count).map(|number| {
            let (stream, _) = listener.accept().unwrap();
            thread::spawn(move || talk(stream, 5000 + number, len))
        });
        let all: Vec<_> = all.collect();
        all.into_iter().for_each(|each| each.join().unwrap());
    });
    let mut sockets = Sockets::default();
    for number in 0..count {
        sockets.connect(&mut guest, (5000 + number, 1234));
    }
    exchange(&mut guest, &mut sockets, count as usize, len);
    listening.join().unwrap();
}

/// Lets this process have as many descriptors. Returns whether it may.
fn allow_descriptors(count: u64) -> bool {
    let mut limit = getrlimit(Resource::Nofile);
    if limit.current.is_some_and(|current| current < count) {
        limit.current = Some(count);
        return setrlimit(Resource::Nofile, limit).is_ok();
    }
    true
}

#[test]
fn a_thousand_streams_at_once_that_programs_ask_for() {
    let (count, len) = (1000_usize, 20_000);
    // One at each end, and one more for the program's thread that sends.
    if !allow_descriptors(3_100) {
        eprintln!("skipped: 3,100 descriptors are more than this process may have");
        return;
    }
    let (mut guest, folder) = started();
    let path = folder.path().join("vsock");
    let programs = thread::spawn(move || {
        let connect = |_| {
            let mut stream = UnixStream::connect(&path).unwrap();
            stream.write_all(b"CONNECT 52\n").unwrap();
            stream
        };
        // All of them are connected before the first sends.
        let all: Vec<_> = (0..count).map(connect).collect();
        let numbered: Vec<_> = all
            .into_iter()
            .map(|mut stream| {
                let ok = line(&mut stream);
                let number = ok.strip_prefix("OK ").unwrap().trim().parse().unwrap();
                (stream, number)
            })
            .collect();
        let talking: Vec<_> = numbered
            .into_iter()
            .map(|(stream, number)| {
                thread::Builder::new()
                    .stack_size(1 << 16)
                    .spawn(move || talk(stream, number, len))
                    .unwrap()
            })
            .collect();
        talking.into_iter().for_each(|each| each.join().unwrap());
    });
    let mut sockets = Sockets {
        listening: vec![52],
        ..Sockets::default()
    };
    exchange(&mut guest, &mut sockets, count, len);
    programs.join().unwrap();
    assert!(guest.rests());
}

#[test]
fn programs_that_send_in_small_pieces_do_not_overrun_the_guest() {
    let (mut guest, folder) = started();
    let (mut stream, port) = accepted(&mut guest, &folder);
    let mut sockets = Sockets {
        listening: vec![52],
        ..Sockets::default()
    };
    // As if it had been accepted by a socket.
    sockets.adopt((52, port));
    let len = 400_000;
    let sender = thread::spawn(move || {
        for at in (0..len).step_by(200) {
            stream.write_all(&bytes_of(1, at, 200, true)).unwrap();
        }
        stream
    });
    let mut got = 0;
    let mut turn = 0_u32;
    guest.run_until(|guest| {
        sockets.receive(guest);
        turn += 1;
        // The program in the guest is slow.
        if turn.is_multiple_of(10) {
            let bytes = sockets.read(guest, (52, port), 30_000);
            assert!(bytes == bytes_of(1, got, bytes.len(), true));
            got += bytes.len();
        }
        got == len
    });
    drop(sender.join().unwrap());
}

#[test]
fn paths_to_which_ports_cannot_be_added_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let name = |len: usize| {
        folder
            .path()
            .join("v".repeat(len - folder.path().as_os_str().len() - 1))
    };
    let longest = VsockConfig::new(CID, name(MAX_PATH));
    let mut guest = Guest::new(longest.build().unwrap());
    let mut port = longest.path.clone().into_os_string();
    port.push("_4294967295");
    let _listener = UnixListener::bind(&port).unwrap();
    guest.send(&header(op::REQUEST, 99, u32::MAX), &[]);
    assert_eq!(guest.ops(), [op::RESPONSE]);
    let refused = VsockConfig::new(CID, name(MAX_PATH + 1)).build();
    let error = refused.unwrap_err();
    assert!(matches!(
        error,
        VsockError::PathTooLong { max: MAX_PATH, .. }
    ));
    assert!(
        error.to_string().contains("has 97 bytes, and can have 96"),
        "{error}"
    );
}

#[test]
fn guests_have_cids_that_are_not_reserved() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("vsock");
    for cid in [0, 1, 2, 0xffff_ffff, 1 << 32, u64::MAX] {
        let refused = VsockConfig::new(cid, &path).build();
        assert!(matches!(refused, Err(VsockError::Cid(n)) if n == cid));
    }
    assert!(!path.exists());
    for cid in [3, 0xffff_fffe] {
        assert_eq!(VsockConfig::new(cid, &path).build().unwrap().cid(), cid);
    }
    let streams = VsockConfig {
        streams: 0,
        ..VsockConfig::new(CID, &path)
    };
    assert!(matches!(streams.build(), Err(VsockError::Streams(0))));
    let buffers = VsockConfig {
        buffers: 1000,
        ..VsockConfig::new(CID, &path)
    };
    assert!(matches!(buffers.build(), Err(VsockError::Buffers { .. })));
}

#[test]
fn stale_sockets_are_replaced_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let config = unix(folder.path());
    let path: &Path = &config.path;
    drop(UnixListener::bind(path).unwrap());
    let host = UnixHost::listen(path).unwrap();
    assert_eq!(host.path(), path);
    assert!(matches!(
        config.build(),
        Err(VsockError::SocketInUse { .. })
    ));
    drop(host);
    assert!(!path.exists());
    fs::write(path, "a file").unwrap();
    assert!(matches!(config.build(), Err(VsockError::NotASocket { .. })));
    fs::remove_file(path).unwrap();
    // One that was replaced meanwhile is another's.
    let host = UnixHost::listen(path).unwrap();
    fs::remove_file(path).unwrap();
    let _other = UnixListener::bind(path).unwrap();
    drop(host);
    assert!(path.exists());
    let nowhere = UnixHost::listen(folder.path().join("no/where"));
    assert!(matches!(nowhere, Err(VsockError::Socket { .. })));
}
