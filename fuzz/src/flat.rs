//! Any bytes as a flat binary, or as an ELF of 32 bits, at any address. The last bytes choose where, and how it is loaded.

use arbitrary::{Result, Unstructured};
use goldcrest_boot::{Flat, Mode, Protocol};

/// Bytes at the end that are no part of the image.
const TRAILER: usize = 20;

/// Runs the target.
pub fn run(data: &[u8]) {
    let trailer_len = data.len().min(TRAILER);
    let (image, trailer) = data.split_at(data.len() - trailer_len);
    let mut input = Unstructured::new(trailer);
    let _ = protocol(&mut input).and_then(|asked| crate::guest::load_as(image, &mut input, asked));
}

fn protocol(input: &mut Unstructured<'_>) -> Result<Protocol> {
    let choice: u8 = input.arbitrary()?;
    let mut flat = Flat::at(address(input)?);
    flat.mode = match choice & 3 {
        0 => return Ok(Protocol::Elf32),
        1 => Mode::Real,
        2 => Mode::Protected,
        _ => Mode::Long,
    };
    if choice & 4 != 0 {
        flat.entry = Some(flat.address.wrapping_add(input.arbitrary::<u8>()?.into()));
    }
    let protocol = Protocol::Flat(flat);
    assert_eq!(protocol.to_string().parse(), Ok(protocol));
    Ok(protocol)
}

/// Mostly in the first 64 MiB; else anywhere.
fn address(input: &mut Unstructured<'_>) -> Result<u64> {
    let short: u16 = input.arbitrary()?;
    Ok(match short >> 14 {
        0 | 1 => u64::from(short & 0x3fff) << 4,
        2 => u64::from(short & 0x3fff) << 12,
        _ => input.arbitrary()?,
    })
}
