//! Takes random bytes from the host and looks whether they are any.
#![no_std]
#![no_main]

use goldcrest_guest::println;
use goldcrest_guest::virtio::Entropy;

goldcrest_guest::main!(main);

fn main() -> u32 {
    match run() {
        Ok(()) => 0,
        Err(error) => {
            println!("entropy: {error}");
            1
        }
    }
}

fn run() -> Result<(), &'static str> {
    let mut source = Entropy::first().map_err(|_| "there is no source")?;
    let (mut first, mut second) = ([0; 32], [0; 32]);
    for bytes in [&mut first, &mut second] {
        source.fill(bytes).map_err(|_| "the source fails")?;
        println!(
            "entropy: {:032x}{:032x}",
            half(&bytes[..16]),
            half(&bytes[16..])
        );
    }
    if first == second {
        return Err("the same bytes twice");
    }
    if [first, second]
        .iter()
        .any(|bytes| bytes.iter().all(|byte| *byte == bytes[0]))
    {
        return Err("all bytes are the same");
    }
    // Large enough for a device to give it in several parts; each part of 32 bytes must have been written.
    let mut many = [0; 8192];
    source.fill(&mut many).map_err(|_| "the source fails")?;
    if many
        .chunks(32)
        .any(|part| part.iter().all(|byte| *byte == 0))
    {
        return Err("some bytes were not written");
    }
    println!("entropy: ok");
    Ok(())
}

fn half(bytes: &[u8]) -> u128 {
    bytes
        .iter()
        .fold(0, |all, byte| all << 8 | u128::from(*byte))
}
