//! Greets, and says what it was given on the command line.
#![no_std]
#![no_main]

use goldcrest_guest::{command_line, println};

goldcrest_guest::main!(main);

fn main() {
    println!("Hello from a unikernel on Goldcrest!");
    if !command_line().is_empty() {
        println!("I was given: {}", command_line());
    }
}
