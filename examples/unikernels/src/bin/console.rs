//! Greets on the virtio console, and repeats every line that is typed there until one is `quit`.
#![no_std]
#![no_main]

extern crate alloc;

use alloc::vec::Vec;

use goldcrest_guest::println;
use goldcrest_guest::virtio::{Console, Error};

goldcrest_guest::main!(main);

fn main() -> u32 {
    match Console::first().and_then(|mut console| talk(&mut console)) {
        Ok(lines) => {
            println!("console: {lines} lines repeated");
            0
        }
        Err(error) => {
            println!("console: {error}");
            1
        }
    }
}

/// Gives how many lines were repeated.
fn talk(console: &mut Console) -> Result<usize, Error> {
    console.write(b"Hello on the virtio console! I repeat what you say until you say quit.\n")?;
    let (mut line, mut lines, mut bytes) = (Vec::new(), 0, [0; 256]);
    loop {
        let len = console.read(&mut bytes)?;
        for byte in &bytes[..len] {
            // A terminal sends a carriage return at the end of a line.
            if !matches!(byte, b'\n' | b'\r') {
                line.push(*byte);
                continue;
            }
            if line == b"quit" {
                console.write(b"bye\n")?;
                return Ok(lines);
            }
            line.push(b'\n');
            console.write(&line)?;
            line.clear();
            lines += 1;
        }
    }
}
