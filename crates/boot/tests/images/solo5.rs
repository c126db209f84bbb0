//! Solo5 guests, built by hand.

use super::{ElfBuilder, Load, R, W, X, segment};

/// `"ABI1"` and `"MFT1"`.
pub const ABI1: u32 = 0x3149_4241;
pub const MFT1: u32 = 0x3154_464d;

pub const BLOCK: u32 = 1;
pub const NET: u32 = 2;
pub const RESERVED: u32 = 1 << 30;

/// An entry of a manifest.
pub fn entry(name: &[u8], kind: u32) -> Vec<u8> {
    let mut entry = name.to_vec();
    entry.resize(68, 0);
    entry.extend(kind.to_le_bytes());
    entry.resize(104, 0);
    entry
}

/// The content of the note `MFT1`: padding, version, count, entries.
pub fn manifest_desc(version: u32, count: u32, entries: &[Vec<u8>]) -> Vec<u8> {
    let mut desc = vec![0; 4];
    desc.extend([version, count].map(u32::to_le_bytes).as_flattened());
    desc.extend(entries.concat());
    desc
}

/// The manifest of these devices.
pub fn manifest(devices: &[(&str, u32)]) -> Vec<u8> {
    let mut entries = vec![entry(b"", RESERVED)];
    entries.extend(
        devices
            .iter()
            .map(|(name, kind)| entry(name.as_bytes(), *kind)),
    );
    manifest_desc(1, entries.len() as u32, &entries)
}

/// The content of the note `ABI1`.
pub fn abi_desc(target: u32, version: u32) -> Vec<u8> {
    [target, version, 0, 0].map(u32::to_le_bytes).concat()
}

/// Code, constants and data at 1 MiB.
pub fn solo5_segments() -> Vec<Load> {
    vec![
        segment(X, 0x10_0000, &[0x90; 0x1234], 0x1234),
        segment(R, 0x10_2000, &[0x11; 0x800], 0x800),
        segment(R | W, 0x10_3000, &[0x22; 0x1100], 0x9000),
    ]
}

/// An ELF with notes of this content.
pub fn solo5_with(abi: &[u8], manifest: &[u8]) -> ElfBuilder {
    ElfBuilder::new(0x10_0010, solo5_segments())
        .note(b"Solo5\0", ABI1, abi)
        .note(b"Solo5\0", MFT1, manifest)
}

/// A guest with a block device `storage` and a network card `service`.
pub fn solo5_guest() -> Vec<u8> {
    let manifest = manifest(&[("storage", BLOCK), ("service", NET)]);
    solo5_with(&abi_desc(1, 2), &manifest).build()
}
