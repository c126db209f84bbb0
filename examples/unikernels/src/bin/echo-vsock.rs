//! Says on every stream what arrives on it; or has another program do so, and checks it.
//!
//! | argument | default | |
//! |---|---|---|
//! | `port=N` | 7 | the port of the server |
//! | `quit=N` | 8 | a stream to this port that says `quit`, and a newline, ends the server with status 0 |
//! | `connect=N` | – | no server: connects to port N of the host, sends, and ends with 0 if the same comes back |
//! | `bytes=N` | 1048576 | how much is sent then |
//!
//! When the server can be reached it says so: `echo-vsock: listening on port 7 of 3`, which is its context identifier. A
//! stream whose peer sends no more is closed when all of it has gone back.
#![no_std]
#![no_main]

extern crate alloc;

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use goldcrest_guest::virtio::vsock::{Address, Event, HOST_CID, StreamId};
use goldcrest_guest::virtio::{Error, Vsock, is_announcement};
use goldcrest_guest::{Options, args, println, time};

goldcrest_guest::main!(main, Options::new().clock());

/// Nanoseconds without any progress after which the client gives up.
const PATIENCE: u64 = 30_000_000_000;
const QUIT: &[u8] = b"quit\n";

struct Arguments {
    port: u32,
    quit: u32,
    connect: Option<u32>,
    bytes: u64,
}

fn main() -> u32 {
    match arguments().and_then(|arguments| run(&arguments)) {
        Ok(()) => 0,
        Err(error) => {
            println!("echo-vsock: {error}");
            1
        }
    }
}

fn arguments() -> Result<Arguments, String> {
    let mut arguments = Arguments {
        port: 7,
        quit: 8,
        connect: None,
        bytes: 1 << 20,
    };
    for word in args().filter(|word| !is_announcement(word)) {
        let parsed = word
            .split_once('=')
            .map(|(name, value)| (name, value.parse::<u32>()));
        match parsed {
            Some(("port", Ok(port))) => arguments.port = port,
            Some(("quit", Ok(port))) => arguments.quit = port,
            Some(("connect", Ok(port))) => arguments.connect = Some(port),
            Some(("bytes", Ok(bytes))) => arguments.bytes = bytes.into(),
            _ => return Err(format!("{word} makes no sense")),
        }
    }
    Ok(arguments)
}

fn run(arguments: &Arguments) -> Result<(), String> {
    let mut sockets = Vsock::first().map_err(|error| format!("{error}"))?;
    match arguments.connect {
        Some(port) => check(&mut sockets, port, arguments.bytes),
        None => serve(&mut sockets, arguments).map_err(|error| format!("{error}")),
    }
}

/// Echoes until somebody says `quit`.
fn serve(sockets: &mut Vsock, arguments: &Arguments) -> Result<(), Error> {
    sockets.listen(arguments.port);
    sockets.listen(arguments.quit);
    println!(
        "echo-vsock: listening on port {} of {}",
        arguments.port,
        sockets.cid()
    );
    // What has been said on streams that may end the server.
    let mut quitting = BTreeMap::<StreamId, Vec<u8>>::new();
    let (mut streams, mut bytes) = (0_u64, 0_u64);
    while let Some(event) = sockets.wait(None)? {
        match event {
            Event::Accepted { stream, port, .. } => {
                streams += 1;
                if port == arguments.quit {
                    quitting.insert(stream, Vec::new());
                }
            }
            Event::Readable(stream) | Event::Writable(stream) => {
                if let Some(said) = quitting.get_mut(&stream) {
                    if says_quit(sockets, stream, said) {
                        break;
                    }
                    if sockets.is_finished(stream) {
                        quitting.remove(&stream);
                    }
                } else {
                    bytes += echo(sockets, stream)?;
                }
            }
            Event::Closed(stream) => {
                quitting.remove(&stream);
                sockets.close(stream);
            }
            _ => {}
        }
    }
    sockets.flush()?;
    println!("echo-vsock: ended, {streams} streams, {bytes} bytes");
    Ok(())
}

/// Gives how many bytes went back.
fn echo(sockets: &mut Vsock, stream: StreamId) -> Result<u64, Error> {
    let count = match sockets.forward(stream, stream) {
        Ok(count) => count,
        // The peer reads no more.
        Err(Error::Ended) => {
            sockets.reset(stream);
            0
        }
        Err(error) => return Err(error),
    };
    if sockets.is_finished(stream) {
        sockets.close(stream);
    }
    Ok(count as u64)
}

/// Whether the peer has said that the server should end, which it is told that it does; closes the stream if it says
/// something else.
fn says_quit(sockets: &mut Vsock, stream: StreamId, said: &mut Vec<u8>) -> bool {
    let mut bytes = [0; QUIT.len()];
    let len = sockets.read(stream, &mut bytes);
    said.extend_from_slice(&bytes[..len]);
    if said.starts_with(QUIT) {
        // Nobody minds if it does not arrive.
        let _ = sockets.write(stream, b"bye\n");
        sockets.close(stream);
        return true;
    }
    if !QUIT.starts_with(said) || sockets.is_finished(stream) {
        sockets.reset(stream);
    }
    false
}

/// Sends to the host what it has to send back.
fn check(sockets: &mut Vsock, port: u32, bytes: u64) -> Result<(), String> {
    let failed = |error| format!("{error}");
    let cid = HOST_CID;
    let stream = sockets.connect(Address { cid, port }).map_err(failed)?;
    let (mut sent, mut back) = (0, 0);
    let started = time::now_ns();
    loop {
        let deadline = time::now_ns() + PATIENCE;
        match sockets.wait(Some(deadline)).map_err(failed)? {
            None => return Err(format!("no answer: {back} bytes of {sent} came back")),
            Some(Event::Closed(_)) if sockets.is_reset(stream) => {
                return Err(format!("port {port} of the host: refused or reset"));
            }
            Some(_) => {}
        }
        send(sockets, stream, &mut sent, bytes).map_err(failed)?;
        back = compare(sockets, stream, back)?;
        if sockets.is_finished(stream) {
            break;
        }
    }
    sockets.close(stream);
    sockets.flush().map_err(failed)?;
    if (sent, back) != (bytes, bytes) {
        return Err(format!(
            "of {bytes} bytes {sent} were sent, and {back} came back"
        ));
    }
    let micros = (time::now_ns() - started) / 1000;
    println!("echo-vsock: {bytes} bytes came back in {micros} us");
    Ok(())
}

/// Writes as much as there is room for, up to `end`, and says then that this is all.
fn send(sockets: &mut Vsock, stream: StreamId, sent: &mut u64, end: u64) -> Result<(), Error> {
    loop {
        let at = *sent;
        if at == end {
            return sockets.shut_down(stream);
        }
        let written = sockets.write_with(stream, |room| {
            let most = room
                .len()
                .min(usize::try_from(end - at).unwrap_or(usize::MAX));
            for (byte, at) in room[..most].iter_mut().zip(at..) {
                *byte = pattern(at);
            }
            most
        });
        match written {
            Ok(0) | Err(Error::Ended) => return Ok(()),
            Ok(written) => *sent += written as u64,
            Err(error) => return Err(error),
        }
    }
}

/// Looks whether what has arrived is what was sent from `at` on. Gives where that ends.
fn compare(sockets: &mut Vsock, stream: StreamId, mut at: u64) -> Result<u64, String> {
    loop {
        let bytes = sockets.received(stream);
        let len = bytes.len();
        if len == 0 {
            return Ok(at);
        }
        for byte in bytes {
            if *byte != pattern(at) {
                return Err(format!("byte {at} came back as {byte:#04x}"));
            }
            at += 1;
        }
        sockets.consume(stream, len);
    }
}

/// The byte that is sent at this place: no power of two is its period.
fn pattern(at: u64) -> u8 {
    (at % 251) as u8
}
