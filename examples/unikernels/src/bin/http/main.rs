//! Serves HTTP/1.1 on the first virtio network card, until somebody asks for `/quit`.
//!
//! | argument | default | |
//! |---|---|---|
//! | `ip=ADDRESS/PREFIX` | by DHCP | the server's address |
//! | `gw=ADDRESS` | by DHCP, or none | the router |
//! | `port=N` | 80 | |
//! | `connections=N` | 512 | how many clients are served at once; more wait until one leaves |
//!
//! `/` is a page, `/bytes/N` is N bytes, up to 1 GiB, for measuring. `GET` or `POST` of `/quit` (or `/shutdown`) is
//! answered and ends the server with status 0. When it can be reached it says so, in one line:
//! `http: listening on 10.0.2.15:80`.
#![no_std]
#![no_main]

extern crate alloc;

mod arguments;
mod gate;
mod network;
mod pool;

use alloc::string::String;

use goldcrest_guest::virtio::Net;
use goldcrest_guest::{Options, println};

use arguments::Arguments;
use gate::Gate;
use network::Network;
use pool::Pool;

goldcrest_guest::main!(main, Options::new().clock());

/// Frames that are taken in at most before clients are served and frames go out, when nobody listens.
const BATCH: usize = 32;

fn main() -> u32 {
    match Arguments::parse().and_then(|arguments| serve(&arguments)) {
        Ok(served) => {
            println!("http: ended, {served} connections served");
            0
        }
        Err(error) => {
            println!("http: {error}");
            1
        }
    }
}

/// Gives how many connections there were.
fn serve(arguments: &Arguments) -> Result<u64, String> {
    let failed = |error| alloc::format!("network card: {error}");
    let mut card = Net::first().map_err(failed)?;
    let mut network = Network::new(&mut card, arguments);
    let mut pool = Pool::new(arguments.port, arguments.connections);
    let mut announced = false;
    loop {
        let now = Net::now();
        let ready = pool.ready();
        let mut gate = Gate::new(&mut card, arguments.port, ready);
        // Were each frame a connection, none would find nobody who listens, unless there are as many as there may be.
        network.take_in(&mut gate, now, if ready == 0 { BATCH } else { ready });
        if gate.has_refused() {
            pool.has_refused(now);
        }
        pool.serve(&mut network.sockets, now);
        while network.send(&mut gate, now) {}
        pool.recycle(&mut network.sockets, now);
        if let Some(address) = network.address().filter(|_| !announced) {
            println!("http: listening on {address}:{}", arguments.port);
            announced = true;
        }
        if pool.has_quit() {
            card.flush().map_err(failed)?;
            return Ok(pool.served());
        }
        let until = network.next_event(now).into_iter().chain(pool.next_event());
        card.wait_until(until.min()).map_err(failed)?;
    }
}
