//! Many streams at once, each with bytes both ways that the other end knows to the last one.
//!
//! ```text
//! streams vsock-listen PORT COUNT                ends when so many streams have ended
//! streams vsock-connect PORT COUNT BYTES         as many streams to the host, so many bytes each way
//! streams uds-listen PATH COUNT                  the same with Unix sockets
//! streams uds-connect PATH PORT COUNT BYTES      where PATH is a monitor's, and PORT one of the guest's; or PORT is -, and
//!                                                PATH what another of these listens on
//! streams tcp-listen PORT COUNT                  the same by TCP
//! streams tcp-connect ADDRESS:PORT COUNT BYTES
//! ```
//!
//! All streams are connected before the first byte flows. Each end sends what follows from the stream's number, tells that
//! it will send no more, and reads to the other's end. Prints `STREAMS n of COUNT ok`, how many bytes they were, how many
//! streams there were at once, and how long it took. Exit status: 1 if any was not as it should be.

mod exchange;
mod pattern;
mod sockets;

use std::process::ExitCode;

use exchange::Exchange;
use sockets::{Connector, Listener};

type Failure = Box<dyn std::error::Error>;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match run(&words) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(failure) => {
            eprintln!("streams: {failure}");
            ExitCode::FAILURE
        }
    }
}

fn run(words: &[&str]) -> Result<bool, Failure> {
    sockets::allow_many()?;
    match words {
        ["vsock-listen", port, count] => listen(Listener::vsock(port.parse()?)?, count),
        ["uds-listen", path, count] => listen(Listener::unix(path)?, count),
        ["tcp-listen", port, count] => listen(Listener::tcp(port.parse()?)?, count),
        ["tcp-connect", address, count, bytes] => {
            connect(Connector::Tcp((*address).into()), count, bytes)
        }
        ["vsock-connect", port, count, bytes] => {
            connect(Connector::Vsock(port.parse()?), count, bytes)
        }
        ["uds-connect", path, "-", count, bytes] => {
            connect(Connector::Unix((*path).into()), count, bytes)
        }
        ["uds-connect", path, port, count, bytes] => {
            let path = (*path).into();
            connect(Connector::Guest(path, port.parse()?), count, bytes)
        }
        _ => Err("streams vsock-listen|vsock-connect|uds-listen|uds-connect ...".into()),
    }
}

fn listen(listener: Listener, count: &str) -> Result<bool, Failure> {
    let mut exchange = Exchange::new(count.parse()?)?;
    exchange.listen(listener)?;
    exchange.run()
}

fn connect(connector: Connector, count: &str, bytes: &str) -> Result<bool, Failure> {
    let mut exchange = Exchange::new(count.parse()?)?;
    let sockets = connector.connect_all(count.parse()?)?;
    for (number, socket) in (0..).zip(sockets) {
        exchange.begin(socket, number, bytes.parse()?)?;
    }
    exchange.run()
}
