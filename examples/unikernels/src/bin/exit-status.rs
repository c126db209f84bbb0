//! Ends with the status that its argument names, 7 if there is none.
#![no_std]
#![no_main]

use goldcrest_guest::{args, println};

goldcrest_guest::main!(main);

fn main() -> u32 {
    let status = args().next().map_or(Ok(7), str::parse).unwrap_or(255);
    println!("exit-status: ending with {status}");
    status
}
