//! Measures round trips over TCP: one byte there, one byte back, again and again.
//!
//! `ping-pong serve PORT` answers, one client after another and for ever; `ping-pong ADDRESS:PORT SECONDS` asks for so long,
//! after a second that does not count, and prints how many round trips there were in a second.

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

fn main() -> io::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number = |text: &str| text.parse::<u64>().map_err(io::Error::other);
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["serve", port] => {
            let port = u16::try_from(number(port)?).map_err(io::Error::other)?;
            let listener = TcpListener::bind(("0.0.0.0", port))?;
            loop {
                // A client that goes is no reason to end.
                let _ = listener.accept().and_then(|(client, _)| answer(client));
            }
        }
        [address, seconds] => {
            let mut server = TcpStream::connect(address)?;
            server.set_nodelay(true)?;
            ask(&mut server, Duration::from_secs(1))?;
            println!(
                "{:.1}",
                ask(&mut server, Duration::from_secs(number(seconds)?))?
            );
            Ok(())
        }
        _ => Err(io::Error::other(
            "ping-pong serve PORT | ADDRESS:PORT SECONDS",
        )),
    }
}

fn answer(mut client: TcpStream) -> io::Result<()> {
    client.set_nodelay(true)?;
    let mut byte = [0];
    loop {
        client.read_exact(&mut byte)?;
        client.write_all(&byte)?;
    }
}

/// Round trips in a second.
fn ask(server: &mut TcpStream, time: Duration) -> io::Result<f64> {
    let (begin, mut count, mut byte) = (Instant::now(), 0_u32, [7]);
    while begin.elapsed() < time {
        server.write_all(&byte)?;
        server.read_exact(&mut byte)?;
        count += 1;
    }
    Ok(f64::from(count) / begin.elapsed().as_secs_f64())
}
