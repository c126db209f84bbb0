//! ELF images with well-formed headers: any segments, notes and entry points, at addresses that meet.

use arbitrary::{Result, Unstructured};
use goldcrest_abi::note::DirectEntry;

use crate::guest;
use crate::images::{ElfBuilder, Load, direct_note};

/// The most segments: more than a loader takes are the target `elf`'s.
const MAX_SEGMENTS: usize = 12;

/// Runs the target.
pub fn run(data: &[u8]) {
    let mut input = Unstructured::new(data);
    let _ = build(&mut input).and_then(|image| guest::load_any(&image, &mut input));
}

fn build(input: &mut Unstructured<'_>) -> Result<Vec<u8>> {
    let shape: u8 = input.arbitrary()?;
    let entry = address(input)?;
    let count = usize::from(shape & 0xf) % MAX_SEGMENTS + 1;
    let segments = (0..count)
        .map(|_| segment(input))
        .collect::<Result<Vec<_>>>()?;
    let mut image = ElfBuilder::new(entry, segments);
    if shape & 0x10 != 0 {
        image = image.direct(&direct(entry, input)?);
    }
    if shape & 0x20 != 0 {
        let entry = u32::try_from(address(input)?).unwrap_or(u32::MAX);
        image = image.note(b"Xen\0", 18, &entry.to_le_bytes());
    }
    if shape & 0x40 != 0 {
        let len = usize::from(input.arbitrary::<u8>()? & 0x3f);
        image = image.note(b"GNU\0", input.arbitrary()?, input.bytes(len)?);
    }
    Ok(image.build())
}

/// Mostly in the first 64 MiB, in units that make neighbours touch; else anywhere.
fn address(input: &mut Unstructured<'_>) -> Result<u64> {
    let short: u16 = input.arbitrary()?;
    Ok(match short >> 14 {
        0 | 1 => u64::from(short & 0x3fff) << 8,
        2 => u64::from(short & 0x3fff) << 12,
        _ => input.arbitrary()?,
    })
}

fn segment(input: &mut Unstructured<'_>) -> Result<Load> {
    let flags: u8 = input.arbitrary()?;
    let address = address(input)?;
    let virtual_address = if flags & 0x80 == 0 {
        address
    } else {
        input.arbitrary()?
    };
    let bytes = vec![0x90; usize::from(input.arbitrary::<u8>()?) * 16];
    let more: u16 = input.arbitrary()?;
    Ok(Load {
        flags: u32::from(flags & 7),
        virtual_address,
        address,
        memory_size: (bytes.len() as u64).saturating_add(u64::from(more) << (flags >> 3 & 0xf)),
        bytes,
    })
}

fn direct(entry: u64, input: &mut Unstructured<'_>) -> Result<DirectEntry> {
    let shape: u8 = input.arbitrary()?;
    let mut note = DirectEntry {
        ring: if shape & 1 == 0 { 3 } else { 0 },
        flags: u32::from(shape >> 1 & 7),
        ..direct_note(entry)
    };
    for (bit, field) in [
        (4, &mut note.stack_size),
        (5, &mut note.trap_vectors),
        (6, &mut note.trap_stack),
        (7, &mut note.syscall_entry),
    ] {
        if shape & 1 << bit != 0 {
            *field = address(input)?;
        }
    }
    Ok(note)
}
