//! Pipes, files, pseudo-terminals and sockets behind a port, with those at their other ends coming and going.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

mod guest;

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Read, Seek, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use goldcrest_virtio::driver;
use goldcrest_virtio::spec::mmio;
use goldcrest_virtio_console::spec::{event, feature, queue};
use goldcrest_virtio_console::{
    ConsoleError, FilePort, MemoryPort, PortBackend, PortConfig, PtyPort, SocketPort,
};
use guest::Guest;

const RX: u16 = queue::RECEIVE;
const TX: u16 = queue::TRANSMIT;
const SECONDS: Duration = Duration::from_secs(10);

fn console(backend: impl PortBackend + 'static) -> Guest {
    Guest::new(vec![PortConfig::console(backend)], 0)
}

fn pattern(len: usize) -> Vec<u8> {
    (0..251).cycle().take(len).collect()
}

/// Two ends of a pipe: to read from, to write to.
fn pipe() -> (File, File) {
    let (reader, writer) = nix::unistd::pipe().unwrap();
    (reader.into(), writer.into())
}

/// Offers room until `len` bytes have come.
fn receive(guest: &mut Guest, len: usize) -> Vec<u8> {
    let mut got = Vec::new();
    guest.give(RX, 1000);
    guest.run_until(|guest| {
        for bytes in guest.received(RX) {
            got.extend(bytes);
            guest.give(RX, 1000);
        }
        got.len() >= len
    });
    got
}

#[test]
fn a_pipe_carries_both_ways_and_is_left_as_blocking_as_it_was() {
    let (input, mut typed) = pipe();
    let (mut shown, output) = pipe();
    let other = output.try_clone().unwrap();
    let port = FilePort::new(Some(input.into()), Some(output.into())).unwrap();
    let mut guest = console(port);
    typed.write_all(b"typed").unwrap();
    assert_eq!(receive(&mut guest, 5), b"typed");
    guest.send(TX, b"shown");
    let mut bytes = [0; 5];
    shown.read_exact(&mut bytes).unwrap();
    assert_eq!(&bytes, b"shown");
    let flags = nix::fcntl::fcntl(&other, nix::fcntl::FcntlArg::F_GETFL).unwrap();
    assert_eq!(flags & nix::fcntl::OFlag::O_NONBLOCK.bits(), 0);
    // Its end is no cause to wake up again and again.
    drop(typed);
    assert!(guest.rests());
    assert!(guest.waits().is_empty());
}

#[test]
fn a_pipe_is_written_no_more_than_it_takes_for_certain() {
    let (_shown, output) = pipe();
    let mut port = FilePort::new(None, Some(output.into())).unwrap();
    let sent = [0; 1 << 20];
    // All at once would wait.
    while let Ok(count) = port.write(&sent) {
        assert!(count <= 4096);
    }
    assert_eq!(port.write(&sent).unwrap_err().kind(), ErrorKind::WouldBlock);
}

#[test]
fn input_of_a_port_that_the_driver_has_forgotten_does_not_wake_anybody() {
    let (input, mut typed) = pipe();
    let ports = vec![
        PortConfig::console(MemoryPort::new(10)),
        PortConfig::console(FilePort::new(Some(input.into()), None).unwrap()),
    ];
    let mut guest = Guest::new(ports, feature::MULTIPORT);
    guest.give(4, 100);
    guest.control(0, event::DEVICE_READY, 1);
    guest.control(1, event::PORT_READY, 1);
    guest.control(1, event::PORT_OPEN, 1);
    assert_eq!(guest.waits().readable.len(), 1);
    guest.control(0, event::DEVICE_READY, 1);
    typed.write_all(b"x").unwrap();
    assert!(guest.rests());
    assert!(guest.waits().is_empty());
}

#[test]
fn a_full_pipe_keeps_output_waiting_without_loss_and_without_spinning() {
    let (mut shown, output) = pipe();
    let mut guest = console(FilePort::new(None, Some(output.into())).unwrap());
    let sent = pattern(400_000);
    for piece in sent.chunks(50_000) {
        guest.send(TX, piece);
    }
    assert!(guest.rests(), "nobody reads");
    assert_eq!(guest.waits().writable.len(), 1);
    let len = sent.len();
    let reader = thread::spawn(move || {
        let mut got = vec![0; len];
        shown.read_exact(&mut got).unwrap();
        got
    });
    let mut taken = 0;
    guest.run_until(|guest| {
        taken += guest.taken(TX);
        taken == 8
    });
    assert!(reader.join().unwrap() == sent);
    assert!(guest.waits().is_empty());
}

#[test]
fn input_is_not_waited_for_while_the_guest_has_no_room() {
    let (input, mut typed) = pipe();
    let mut guest = console(FilePort::new(Some(input.into()), None).unwrap());
    typed.write_all(b"abcdef").unwrap();
    assert!(guest.waits().is_empty());
    guest.give(RX, 2);
    assert!(guest.waits().is_empty());
    guest.give(RX, 2);
    guest.give(RX, 10);
    assert_eq!(guest.received(RX), [b"ab", b"cd", b"ef"]);
    guest.give(RX, 10);
    assert_eq!(guest.waits().readable.len(), 1);
    assert!(guest.rests());
}

#[test]
fn a_pipe_that_nobody_reads_any_more_takes_no_output_and_does_no_harm() {
    let (shown, output) = pipe();
    let mut guest = console(FilePort::new(None, Some(output.into())).unwrap());
    guest.send(TX, &pattern(100_000));
    assert_eq!(guest.taken(TX), 0);
    drop(shown);
    guest.run_until(|guest| guest.taken(TX) == 1);
    assert!(guest.device.device_mut().lost(0) > 0);
    assert!(guest.waits().is_empty());
}

#[test]
fn files_are_read_and_written_though_epoll_does_not_take_them() {
    let sent = pattern(10_000);
    let mut input = tempfile::tempfile().unwrap();
    input.write_all(&sent).unwrap();
    input.rewind().unwrap();
    let mut output = tempfile::tempfile().unwrap();
    let copy: OwnedFd = output.try_clone().unwrap().into();
    let mut guest = console(FilePort::new(Some(input.into()), Some(copy)).unwrap());
    assert!(receive(&mut guest, sent.len()) == sent);
    guest.send(TX, &sent);
    assert_eq!(guest.taken(TX), 1);
    assert!(guest.waits().is_empty());
    let mut written = Vec::new();
    output.rewind().unwrap();
    output.read_to_end(&mut written).unwrap();
    assert!(written == sent);
}

#[test]
fn a_device_without_end_is_read_in_bounded_turns() {
    let open = |write: bool| {
        OpenOptions::new()
            .read(!write)
            .write(write)
            .open("/dev/zero")
    };
    let (input, output) = (open(false).unwrap(), open(true).unwrap());
    let mut guest = console(FilePort::new(Some(input.into()), Some(output.into())).unwrap());
    guest.give(RX, 1 << 20);
    assert_eq!(guest.received(RX), [vec![0; 4096]]);
    guest.send(TX, &pattern(1 << 20));
    assert_eq!(guest.taken(TX), 0);
    guest.run_until(|guest| guest.taken(TX) == 1);
}

#[test]
fn a_filter_sees_input_even_while_the_guest_takes_none() {
    let (input, mut typed) = pipe();
    let escaped = Arc::new(AtomicBool::new(false));
    let seen = escaped.clone();
    let filter = move |bytes: &[u8], out: &mut Vec<u8>| {
        for byte in bytes {
            match byte {
                b'!' => seen.store(true, Ordering::Relaxed),
                byte => out.extend([b'<', *byte]),
            }
        }
    };
    let port = FilePort::new(Some(input.into()), None).unwrap();
    let mut guest = console(port.with_filter(Box::new(filter)));
    typed.write_all(b"ab!c").unwrap();
    guest.run_until(|_| escaped.load(Ordering::Relaxed));
    assert!(guest.rests());
    guest.give(RX, 4);
    guest.give(RX, 100);
    assert_eq!(guest.received(RX), [b"<a<b", &b"<c"[..]]);
    // What is typed ahead is bounded.
    guest.give(RX, 1);
    typed.write_all(&[b'x'; 10_000]).unwrap();
    assert!(guest.rests());
    drop(typed);
    assert!(guest.rests());
    let mut got = 0;
    for _ in 0..20 {
        guest.give(RX, 1000);
        got += guest.received(RX).concat().len();
    }
    assert!((4000..=4097).contains(&got), "{got}");
    assert!(guest.waits().is_empty());
}

fn open_terminal(path: &Path) -> File {
    OpenOptions::new()
        .read(true)
        .write(true)
        .open(path)
        .unwrap()
}

#[test]
fn a_pseudo_terminal_is_opened_closed_and_opened_again() {
    let pty = PtyPort::open().unwrap();
    let path = pty.path().to_owned();
    assert!(path.starts_with("/dev/pts"), "{path:?}");
    let mut guest = console(pty);
    guest.give(RX, 100);
    guest.send(TX, b"to nobody");
    assert_eq!(guest.taken(TX), 1);
    assert_eq!(guest.device.device_mut().lost(0), 9);
    for round in 0..3 {
        assert!(guest.rests(), "nobody has it open");
        let mut terminal = open_terminal(&path);
        guest.send(TX, b"line\n");
        let mut bytes = [0; 5];
        terminal.read_exact(&mut bytes).unwrap();
        assert_eq!(&bytes, b"line\n", "raw, in round {round}");
        terminal.write_all(b"key\r").unwrap();
        let mut got = Vec::new();
        guest.run_until(|guest| {
            got.extend(guest.received(RX).concat());
            !got.is_empty()
        });
        assert_eq!(got, b"key\r");
        guest.give(RX, 100);
        assert!(guest.rests(), "somebody has it open");
        // What was typed last comes, although the terminal is closed behind it.
        terminal.write_all(b"bye").unwrap();
        drop(terminal);
        guest.run_until(|guest| guest.received(RX) == [b"bye"]);
        guest.give(RX, 100);
    }
    assert!(guest.rests());
    assert_eq!(guest.device.device_mut().lost(0), 9);
}

#[test]
fn a_pseudo_terminal_that_is_not_read_keeps_output_until_it_is_closed() {
    let pty = PtyPort::open().unwrap();
    let path = pty.path().to_owned();
    let mut guest = console(pty);
    let mut terminal = open_terminal(&path);
    let sent = pattern(100_000);
    guest.send(TX, &sent);
    assert!(guest.rests(), "nobody reads");
    assert_eq!(guest.taken(TX), 0);
    let (sender, receiver) = mpsc::channel();
    let reader = thread::spawn(move || {
        let mut got = vec![0; 50_000];
        terminal.read_exact(&mut got).unwrap();
        sender.send(()).unwrap();
        (got, terminal)
    });
    guest.run_until(|_| receiver.try_recv().is_ok());
    let (got, terminal) = reader.join().unwrap();
    assert!(got == sent[..50_000]);
    assert!(guest.rests());
    drop(terminal);
    guest.run_until(|guest| guest.taken(TX) == 1);
    assert!(guest.rests());
    assert!(guest.device.device_mut().lost(0) > 0);
}

#[test]
fn a_terminal_that_is_shared_is_written_without_waiting() {
    let master = PtyPort::open().unwrap();
    let terminal: OwnedFd = open_terminal(master.path()).into();
    let mut guest = console(FilePort::new(None, Some(terminal)).unwrap());
    // Nobody reads at the master's end: this would hang.
    guest.send(TX, &pattern(100_000));
    assert!(guest.rests());
    assert_eq!(guest.waits().writable.len(), 1);
    assert_eq!(guest.taken(TX), 0);
}

fn socket() -> (tempfile::TempDir, std::path::PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("console.sock");
    (folder, path)
}

fn connect(path: &Path) -> UnixStream {
    let client = UnixStream::connect(path).unwrap();
    client.set_read_timeout(Some(SECONDS)).unwrap();
    client
}

#[test]
fn a_guest_is_told_how_large_its_terminal_is() {
    let pty = PtyPort::open().unwrap();
    let path = pty.path().to_owned();
    let terminal = File::options().read(true).write(true).open(&path).unwrap();
    let resize = |cols: u16, rows: u16| {
        let size = ["cols", &cols.to_string(), "rows", &rows.to_string()].map(str::to_owned);
        let mut stty = Command::new("stty");
        let status = stty.arg("-F").arg(&path).args(size).status();
        assert!(status.unwrap().success());
    };
    let size = |guest: &mut Guest| {
        let size = driver::read(&mut guest.device, mmio::CONFIG);
        (size & 0xffff, size >> 16)
    };
    resize(100, 40);
    let output = OwnedFd::from(terminal.try_clone().unwrap());
    let mut on_pty = console(pty);
    let mut on_file = console(FilePort::new(None, Some(output)).unwrap());
    assert_eq!(size(&mut on_file), (100, 40));
    on_pty.run_until(|guest| size(guest) == (100, 40));
    resize(80, 25);
    on_pty.run_until(|guest| size(guest) == (80, 25));
    on_file.run_until(|guest| size(guest) == (80, 25));
}

#[test]
fn clients_of_a_socket_come_and_go() {
    let (_folder, path) = socket();
    let mut guest = console(SocketPort::listen(&path).unwrap());
    guest.give(RX, 100);
    guest.send(TX, b"to nobody");
    assert_eq!(guest.device.device_mut().lost(0), 9);
    for _ in 0..3 {
        assert!(guest.rests());
        let mut client = connect(&path);
        client.write_all(b"in").unwrap();
        guest.run_until(|guest| guest.received(RX) == [b"in"]);
        guest.give(RX, 100);
        guest.send(TX, b"out");
        let mut bytes = [0; 3];
        client.read_exact(&mut bytes).unwrap();
        assert_eq!(&bytes, b"out");
        assert!(guest.rests());
        drop(client);
    }
    assert!(guest.rests());
}

#[test]
fn the_next_client_has_another_descriptor_which_tells_it_from_the_last() {
    let (_folder, path) = socket();
    let mut port = SocketPort::listen(&path).unwrap();
    let mut last = None;
    for _ in 0..3 {
        let client = connect(&path);
        port.poll();
        assert!(port.is_open() && port.read_fd() != last);
        last = port.read_fd();
        drop(client);
        assert!(port.read(&mut [0; 1]).is_err() && !port.is_open());
    }
}

#[test]
fn a_second_client_waits_for_the_first_to_go() {
    let (_folder, path) = socket();
    let mut guest = console(SocketPort::listen(&path).unwrap());
    guest.give(RX, 100);
    let (first, mut second) = (connect(&path), connect(&path));
    second.write_all(b"second").unwrap();
    assert!(guest.rests());
    assert!(guest.received(RX).is_empty());
    drop(first);
    guest.run_until(|guest| guest.received(RX) == [b"second"]);
}

#[test]
fn a_client_that_does_not_read_keeps_output_until_it_goes() {
    let (_folder, path) = socket();
    let mut guest = console(SocketPort::listen(&path).unwrap());
    let mut client = connect(&path);
    guest.turn(Duration::from_millis(10));
    let sent = pattern(4 << 20);
    guest.send(TX, &sent);
    assert!(guest.rests());
    assert_eq!(guest.taken(TX), 0);
    let mut got = vec![0; 1000];
    client.read_exact(&mut got).unwrap();
    assert!(got == sent[..1000]);
    drop(client);
    guest.run_until(|guest| guest.taken(TX) == 1);
    assert!(guest.rests());
    // The next does not see what was meant for the first.
    let mut client = connect(&path);
    guest.turn(Duration::from_millis(10));
    guest.send(TX, b"fresh");
    let mut bytes = [0; 5];
    client.read_exact(&mut bytes).unwrap();
    assert_eq!(&bytes, b"fresh");
}

#[test]
fn a_guest_is_told_of_clients_of_a_socket() {
    let (_folder, path) = socket();
    let ports = vec![
        PortConfig::console(MemoryPort::new(10)),
        PortConfig::named("agent", SocketPort::listen(&path).unwrap()),
    ];
    let mut guest = Guest::new(ports, feature::MULTIPORT);
    for _ in 0..20 {
        guest.give(queue::CONTROL_RECEIVE, 100);
    }
    guest.control(0, event::DEVICE_READY, 1);
    guest.control(1, event::PORT_READY, 1);
    guest.control(1, event::PORT_OPEN, 1);
    guest.give(4, 100);
    guest.controls();
    for _ in 0..2 {
        let client = connect(&path);
        guest.run_until(|guest| guest.controls() == [(1, event::PORT_OPEN, 1, vec![])]);
        drop(client);
        guest.run_until(|guest| guest.controls() == [(1, event::PORT_OPEN, 0, vec![])]);
        assert!(guest.rests());
    }
}

#[test]
fn a_socket_replaces_only_a_socket_that_nobody_listens_on_and_removes_only_itself() {
    let (_folder, path) = socket();
    std::fs::write(&path, "precious").unwrap();
    let refused = SocketPort::listen(&path).unwrap_err();
    assert!(matches!(refused, ConsoleError::NotASocket { .. }));
    assert_eq!(std::fs::read(&path).unwrap(), b"precious");
    std::fs::remove_file(&path).unwrap();

    let live = UnixListener::bind(&path).unwrap();
    let refused = SocketPort::listen(&path).unwrap_err();
    assert!(matches!(refused, ConsoleError::SocketInUse { .. }));
    drop(live);

    let port = SocketPort::listen(&path).unwrap();
    drop(connect(&path));
    drop(port);
    assert!(!path.exists());

    let port = SocketPort::listen(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, "another's").unwrap();
    drop(port);
    assert!(path.exists());

    let long = path.with_file_name("x".repeat(200));
    let refused = SocketPort::listen(long).unwrap_err();
    assert!(matches!(refused, ConsoleError::Socket { .. }));
}

#[test]
fn errors_of_the_host_end_a_port_and_not_the_device() {
    struct Broken;
    impl PortBackend for Broken {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(ErrorKind::PermissionDenied.into())
        }
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(ErrorKind::PermissionDenied.into())
        }
    }
    let mut guest = console(Broken);
    guest.give(RX, 10);
    guest.send(TX, b"1234");
    assert_eq!(guest.taken(TX), 1);
    assert_eq!(guest.device.device_mut().lost(0), 4);
    assert!(guest.waits().is_empty());
    assert!(!guest.needs_reset());
}
