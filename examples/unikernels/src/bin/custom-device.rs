//! Drives the device of `examples/custom-device`, which adds up bytes of memory.
#![no_std]
#![no_main]

#[path = "../../../custom-device/src/registers.rs"]
mod registers;

use goldcrest_guest::{port, println};
use registers::{ADDRESS, DONE, LENGTH, MAX_LENGTH, PORT, REFUSED, STATUS, SUM};

goldcrest_guest::main!(main);

fn main() -> Result<(), &'static str> {
    let bytes: [u8; 1000] = core::array::from_fn(|i| (i % 250) as u8);
    let expected: u32 = bytes.iter().copied().map(u32::from).sum();
    let address = u32::try_from(bytes.as_ptr().expose_provenance())
        .map_err(|_| "the stack is out of the adder's reach")?;
    match add_up(address, bytes.len() as u32)? {
        Some(sum) if sum == expected => println!("The adder says {sum}, and so do I."),
        answer => {
            println!("The adder says {answer:?}, and I say {expected}.");
            return Err("the adder is wrong");
        }
    }
    match (add_up(u32::MAX, 2)?, add_up(address, MAX_LENGTH + 1)?) {
        (None, None) => println!("It refuses what is not memory, and what is too much."),
        _ => return Err("the adder adds up what is not there"),
    }
    Ok(())
}

/// The sum of the bytes from `address`; None if the adder refuses.
fn add_up(address: u32, length: u32) -> Result<Option<u32>, &'static str> {
    // SAFETY: the adder reads memory and writes none, and without an adder, nothing is at these ports.
    unsafe {
        port::write_u32(PORT + ADDRESS, address);
        port::write_u32(PORT + LENGTH, length);
        match port::read_u32(PORT + STATUS) {
            DONE => Ok(Some(port::read_u32(PORT + SUM))),
            REFUSED => Ok(None),
            _ => Err("there is no adder here"),
        }
    }
}
