//! The server, with clients that are rude: what they get, and that others are served all the same.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "tests"
)]

use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::thread::sleep;
use std::time::{Duration, Instant};

use goldcrest_api::{Controller, Limits, MAX_BODY, ScriptedMachine, Server};
use tempfile::TempDir;

/// What "at once" may take on a busy machine.
const SOON: Duration = Duration::from_secs(5);
const PATIENCE: Duration = Duration::from_millis(700);

struct Served {
    path: PathBuf,
    _server: Server,
    _dir: TempDir,
}

fn serve() -> Served {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("api.sock");
    let controller = Controller::new(ScriptedMachine::default(), "test");
    let limits = Limits {
        patience: PATIENCE,
        connections: 8,
        ..Limits::default()
    };
    Served {
        _server: Server::start(&path, controller, limits).unwrap(),
        path,
        _dir: dir,
    }
}

impl Served {
    fn connect(&self) -> UnixStream {
        let stream = UnixStream::connect(&self.path).unwrap();
        stream.set_read_timeout(Some(SOON)).unwrap();
        stream
    }

    /// All that comes back for these bytes until the server closes.
    fn answer(&self, bytes: &[u8]) -> String {
        let mut stream = self.connect();
        // The server may have said all before it has read all.
        let _ = stream.write_all(bytes);
        read_all(&mut stream)
    }

    fn is_well(&self) {
        let answer = self.answer(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
        assert!(answer.contains(r#""state":"Not started""#), "{answer}");
    }
}

fn read_all(stream: &mut UnixStream) -> String {
    let mut bytes = Vec::new();
    let mut piece = [0; 4096];
    loop {
        match stream.read(&mut piece) {
            Ok(0) => break,
            Ok(len) => bytes.extend(&piece[..len]),
            Err(error) if error.kind() == ErrorKind::ConnectionReset => break,
            Err(error) => panic!("{error} after {:?}", String::from_utf8_lossy(&bytes)),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn request(method: &str, path: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "{method} {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}"
    )
}

#[test]
fn answers_have_the_status_and_the_body_that_clients_expect() {
    let served = serve();
    let body = r#"{"vcpu_count":2,"mem_size_mib":256}"#;
    let done = served.answer(request("PUT", "/machine-config", body).as_bytes());
    assert!(done.starts_with("HTTP/1.1 204 No Content\r\n"), "{done}");
    assert!(done.ends_with("\r\n\r\n"), "{done}");
    let config = served.answer(request("GET", "/machine-config", "").as_bytes());
    assert!(
        config
            .to_lowercase()
            .contains("content-type: application/json\r\n"),
        "{config}"
    );
    assert!(
        config.contains(r#"{"vcpu_count":2,"mem_size_mib":256,"#),
        "{config}"
    );
    let refused = served.answer(request("PUT", "/machine-config", "{").as_bytes());
    assert!(
        refused.starts_with("HTTP/1.1 400 Bad Request\r\n"),
        "{refused}"
    );
    assert!(
        refused.contains(r#"{"fault_message":"cannot read the body: "#),
        "{refused}"
    );
}

#[test]
fn one_connection_serves_many_requests_also_ones_that_do_not_wait() {
    let served = serve();
    let mut stream = served.connect();
    let one = "GET /version HTTP/1.1\r\nHost: a\r\n\r\n";
    let last = request("GET", "/version", "");
    stream
        .write_all((one.repeat(50) + &last).as_bytes())
        .unwrap();
    let answers = read_all(&mut stream);
    assert_eq!(answers.matches("firecracker_version").count(), 51);
}

#[test]
fn a_body_in_chunks_is_one_body() {
    let served = serve();
    let answer = served.answer(
        b"PUT /machine-config HTTP/1.1\r\nHost: a\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n\
          10\r\n{\"vcpu_count\":1,\r\n13\r\n\"mem_size_mib\":64}\n\r\n0\r\n\r\n",
    );
    assert!(answer.starts_with("HTTP/1.1 204"), "{answer}");
}

#[test]
fn what_is_not_http_is_refused() {
    let served = serve();
    for bytes in [
        &b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"[..],
        b"HELO there\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET / HTTP/1.1\r\nContent-Length: minus one\r\n\r\n",
        b"GET / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"GET / HTTP/1.1\r\nbroken header\r\n\r\n",
        b"PUT / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"\r\n\r\n\r\n\0\0\0\0\r\n\r\n",
    ] {
        let answer = served.answer(bytes);
        let status = answer.split(' ').nth(1).unwrap_or("none");
        assert!(["none", "400"].contains(&status), "{bytes:?}: {answer}");
    }
    let long = format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(100_000));
    let answer = served.answer(long.as_bytes());
    assert!(answer.starts_with("HTTP/1.1 4"), "{answer}");
    let many = format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(1000));
    let answer = served.answer(many.as_bytes());
    assert!(answer.starts_with("HTTP/1.1 431"), "{answer}");
    served.is_well();
}

#[test]
fn bodies_that_are_too_long_are_refused_before_they_have_come() {
    let served = serve();
    let says_so = b"PUT /mmds HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000000000\r\n\r\n";
    let begun = Instant::now();
    let answer = served.answer(says_so);
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
    assert!(
        answer.contains("the body has more than 51200 bytes"),
        "{answer}"
    );
    assert!(begun.elapsed() < SOON);
    // One that does not say so is refused as soon as it is.
    let mut chunks =
        b"PUT /vsock HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
    let chunk = format!("1000\r\n{}\r\n", " ".repeat(0x1000));
    chunks.extend(chunk.repeat(MAX_BODY / 0x1000 + 2).bytes());
    let answer = served.answer(&chunks);
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
    // The longest is read.
    let longest = format!("{{{}}}", " ".repeat(MAX_BODY - 2));
    let answer = served.answer(request("PUT", "/entropy", &longest).as_bytes());
    assert!(answer.starts_with("HTTP/1.1 204"), "{answer}");
    served.is_well();
}

#[test]
fn who_is_slow_is_cut_off() {
    let served = serve();
    for begun in [
        "",
        "GET / HT",
        "GET / HTTP/1.1\r\nHost: a\r\n",
        "PUT /vsock HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n{",
    ] {
        let mut stream = served.connect();
        stream.write_all(begun.as_bytes()).unwrap();
        let since = Instant::now();
        let answer = read_all(&mut stream);
        assert!(since.elapsed() < SOON, "{begun:?}");
        assert!(
            answer.is_empty() || answer.starts_with("HTTP/1.1 408"),
            "{begun:?}: {answer}"
        );
    }
    // A byte now and then does not help.
    let mut stream = served.connect();
    let since = Instant::now();
    while stream.write_all(b"x").is_ok() {
        assert!(since.elapsed() < SOON, "it is served for ever");
        sleep(Duration::from_millis(50));
    }
    served.is_well();
}

#[test]
fn a_thousand_connections_keep_nobody_out() {
    let served = serve();
    let mut idle = Vec::new();
    for _ in 0..1000 {
        idle.push(served.connect());
        if idle.len() % 100 == 0 {
            served.is_well();
        }
    }
    served.is_well();
    // No more than may be are open.
    idle.last().unwrap().set_nonblocking(true).unwrap();
    let mut open = 0;
    for stream in &mut idle {
        stream.set_nonblocking(true).unwrap();
        let closed = matches!(stream.read(&mut [0]), Ok(0));
        open += usize::from(!closed);
    }
    assert!(open <= 8, "{open} are open");
}

#[test]
fn a_client_that_reads_nothing_keeps_nobody_waiting() {
    let served = serve();
    let mut stream = served.connect();
    stream
        .set_write_timeout(Some(Duration::from_millis(200)))
        .unwrap();
    let one = "GET /goldcrest/v1/openapi HTTP/1.1\r\nHost: a\r\n\r\n";
    for _ in 0..10_000 {
        if stream.write_all(one.as_bytes()).is_err() {
            break;
        }
    }
    served.is_well();
}

#[test]
fn the_server_ends_at_once_and_leaves_nothing() {
    let Served {
        path,
        _server,
        _dir,
    } = serve();
    let idle = UnixStream::connect(&path).unwrap();
    let begun = Instant::now();
    drop(_server);
    assert!(begun.elapsed() < SOON);
    assert!(!path.exists());
    drop(idle);
}
