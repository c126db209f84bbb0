//! Questions to machines, which may lie, be slow, or never answer.

use std::io::{Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::sys::socket::sockopt::PeerCredentials;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, getsockopt, socket};
use serde_json::Value;

use crate::ctl;

/// The most bytes of an answer.
const MAX: u64 = 256 << 10;

/// What the process `pid` answers at its socket before the deadline, if it does.
pub(super) fn get(path: &Path, pid: i32, question: &str, deadline: Instant) -> Option<Value> {
    let mut stream = reach(path, pid)?;
    let request =
        format!("GET {question} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    stream.set_write_timeout(Some(left(deadline)?)).ok()?;
    stream.write_all(request.as_bytes()).ok()?;
    let mut answer = Vec::new();
    let mut limited = Read::by_ref(&mut stream).take(MAX);
    let mut buffer = [0; 4096];
    loop {
        let patience = left(deadline)?;
        limited.get_mut().set_read_timeout(Some(patience)).ok()?;
        match limited.read(&mut buffer).ok()? {
            0 => break,
            count => answer.extend_from_slice(buffer.get(..count)?),
        }
    }
    match ctl::parse(&answer).ok()? {
        (200, body) => serde_json::from_str(&body).ok(),
        _ => None,
    }
}

fn left(deadline: Instant) -> Option<Duration> {
    let left = deadline.saturating_duration_since(Instant::now());
    (!left.is_zero()).then_some(left)
}

/// A connection to the process: one whose queue is full is not waited for, and another's socket is not asked.
fn reach(path: &Path, pid: i32) -> Option<UnixStream> {
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let socket: OwnedFd = socket(AddressFamily::Unix, SockType::Stream, flags, None).ok()?;
    connect(socket.as_raw_fd(), &UnixAddr::new(path).ok()?).ok()?;
    let peer = getsockopt(&socket, PeerCredentials).ok()?.pid();
    // Processes of other PID namespaces have no number here.
    if peer != 0 && peer != pid {
        return None;
    }
    let stream = UnixStream::from(socket);
    stream.set_nonblocking(false).ok()?;
    Some(stream)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;
    use std::thread;

    fn asked(answer: impl FnOnce(UnixStream) + Send + 'static) -> Option<Value> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        let listener = UnixListener::bind(&path).unwrap();
        let server = thread::spawn(move || answer(listener.accept().unwrap().0));
        let pid = std::process::id().try_into().unwrap();
        let begun = Instant::now();
        let answer = get(&path, pid, "/", begun + Duration::from_millis(300));
        assert!(begun.elapsed() < Duration::from_secs(5));
        server.join().unwrap();
        answer
    }

    fn says(text: &str) -> impl FnOnce(UnixStream) + Send + 'static {
        let text = text.to_owned();
        move |mut stream| {
            let mut request = [0; 1024];
            let _ = stream.read(&mut request).unwrap();
            let _ = stream.write_all(text.as_bytes());
        }
    }

    #[test]
    fn an_answer_is_json_with_status_200() {
        let good = "HTTP/1.1 200 OK\r\n\r\n{\"a\":1}";
        assert_eq!(asked(says(good)).unwrap()["a"], 1);
        for text in [
            "",
            "{}",
            "HTTP/1.1 200 OK\r\n\r\n{",
            "HTTP/1.1 400 \r\n\r\n{}",
            "\0\0\r\n",
        ] {
            assert_eq!(asked(says(text)), None, "{text:?}");
        }
        let endless = format!("HTTP/1.1 200 OK\r\n\r\n\"{}\"", "x".repeat(1 << 20));
        assert_eq!(asked(says(&endless)), None);
    }

    #[test]
    fn who_is_slow_or_silent_is_not_waited_for() {
        let silent = |mut stream: UnixStream| {
            let _ = std::io::copy(&mut stream, &mut std::io::sink());
        };
        assert_eq!(asked(silent), None);
        let trickles = |mut stream: UnixStream| {
            while stream.write_all(b" ").is_ok() {
                thread::sleep(Duration::from_millis(20));
            }
        };
        assert_eq!(asked(trickles), None);
    }

    #[test]
    fn a_socket_of_another_process_or_with_a_full_queue_is_not_asked() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        let _listener = UnixListener::bind(&path).unwrap();
        let pid: i32 = std::process::id().try_into().unwrap();
        assert!(reach(&path, pid + 1).is_none());
        let mut connections = Vec::new();
        while let Some(connection) = reach(&path, pid) {
            connections.push(connection);
        }
        assert!(!connections.is_empty());
        assert!(reach(&dir.path().join("x".repeat(300)), pid).is_none());
    }
}
