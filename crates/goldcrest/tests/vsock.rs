//! `--vsock`, on `/dev/kvm`: the unikernel `echo-vsock` is reached from here, reaches us, and bad options are refused.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "tests"
)]

mod support;

use std::fs;
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::Command;
use std::thread;

use support::*;

/// The unikernel, with sockets at a path.
fn with_vsock(path: &Path, arguments: &[&str]) -> Command {
    let mut command = boot(&unikernel("echo-vsock"));
    let option = format!("cid=3,uds={}", path.display());
    command.args(["--timeout", "50", "--vsock", &option, "--"]);
    command.args(arguments);
    command
}

/// A stream to a port of the guest's.
fn connect(path: &Path, port: u32) -> UnixStream {
    let mut stream = UnixStream::connect(path).unwrap();
    writeln!(stream, "CONNECT {port}").unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        answer.push(byte[0]);
    }
    assert!(answer.starts_with(b"OK "), "{answer:?}");
    stream
}

fn bytes(len: usize, seed: usize) -> Vec<u8> {
    let all = (0..len).map(|at| ((at * 31 + at / 257 + seed) % 251).to_le_bytes()[0]);
    all.collect()
}

/// Sends all, and checks that all comes back.
fn echo(mut stream: UnixStream, sent: &[u8]) {
    let mut writer = stream.try_clone().unwrap();
    thread::scope(|scope| {
        scope.spawn(move || {
            writer.write_all(sent).unwrap();
            writer.shutdown(Shutdown::Write).unwrap();
        });
        let mut received = Vec::new();
        stream.read_to_end(&mut received).unwrap();
        assert!(
            received == sent,
            "{} of {} bytes",
            received.len(),
            sent.len()
        );
    });
}

#[test]
fn every_stream_of_many_comes_back_whole() {
    if skip_without_kvm() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a,b.sock");
    let option = Path::new(dir.path()).join("a,,b.sock");
    let mut guest = Running::start(&mut with_vsock(&option, &[]));
    guest.wait_for("listening on port 7 of 3");
    // All are open before the first sends.
    let streams: Vec<_> = (0..200).map(|_| connect(&path, 7)).collect();
    thread::scope(|scope| {
        for (seed, stream) in streams.into_iter().enumerate() {
            scope.spawn(move || echo(stream, &bytes(20_000, seed)));
        }
    });
    echo(connect(&path, 7), &bytes(16 << 20, 1));
    // Nobody listens there.
    let mut nobody = UnixStream::connect(&path).unwrap();
    writeln!(nobody, "CONNECT 99").unwrap();
    let refused = nobody.read(&mut [0]);
    assert!(
        matches!(&refused, Ok(0)) || refused.unwrap_err().kind() == io::ErrorKind::ConnectionReset
    );
    connect(&path, 8).write_all(b"quit\n").unwrap();
    guest.finish().expect(0);
    assert!(!path.exists(), "the socket is removed");
}

#[test]
fn a_guest_reaches_who_listens_for_it() {
    if skip_without_kvm() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("v.sock");
    let listener = UnixListener::bind(dir.path().join("v.sock_1234")).unwrap();
    let guest = Running::start(&mut with_vsock(&path, &["connect=1234", "bytes=3000000"]));
    let (mut stream, _) = listener.accept().unwrap();
    let mut writer = stream.try_clone().unwrap();
    assert_eq!(io::copy(&mut stream, &mut writer).unwrap(), 3_000_000);
    writer.shutdown(Shutdown::Write).unwrap();
    guest.finish().expect(0);
    let alone = run(&mut with_vsock(&path, &["connect=1235"])).expect(1);
    assert_contains(&alone.stdout, &["echo-vsock: "]);
}

#[test]
fn sockets_that_cannot_be_are_refused_in_one_line() {
    if skip_without_kvm() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let used = dir.path().join("used");
    let _listener = UnixListener::bind(&used).unwrap();
    let file = dir.path().join("file");
    fs::write(&file, "").unwrap();
    let nowhere = dir.path().join("none/v.sock");
    for (path, what) in [
        (&used, "it is in use"),
        (&file, "exists and is not a socket"),
        (&nowhere, "No such file"),
    ] {
        let complaint = run(&mut with_vsock(path, &[])).complaint(2);
        assert_contains(&complaint, &[path.to_str().unwrap(), what]);
    }
    // What is left of a monitor that was killed is in nobody's way.
    let stale = dir.path().join("stale");
    drop(UnixListener::bind(&stale).unwrap());
    let mut guest = Running::start(&mut with_vsock(&stale, &[]));
    guest.wait_for("listening");
    connect(&stale, 8).write_all(b"quit\n").unwrap();
    guest.finish().expect(0);
}

#[test]
fn options_of_sockets_are_checked() {
    let long = format!("cid=3,uds=/tmp/{}", "x".repeat(100));
    for (option, what) in [
        ("cid=2,uds=x", "guest CID 2 is reserved"),
        ("cid=3", "needs uds=PATH"),
        (&long, "has 105 bytes"),
    ] {
        let mut command = boot(&unikernel("echo-vsock"));
        let ended = run(command.args(["--vsock", option])).expect(2);
        assert_contains(&ended.stderr, &[what, "cid=N,uds=PATH"]);
    }
}
