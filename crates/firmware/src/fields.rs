//! Little-endian fields of structures on a disk.

/// The bytes at `at`; zeros where the structure ends before. Structures are read whole, so that fields at the
/// specification's offsets are inside.
pub(crate) fn bytes_at<const N: usize>(structure: &[u8], at: usize) -> [u8; N] {
    let field = structure.get(at..).and_then(|rest| rest.first_chunk());
    field.copied().unwrap_or([0; N])
}

pub(crate) fn u8_at(structure: &[u8], at: usize) -> u8 {
    u8::from_le_bytes(bytes_at(structure, at))
}

pub(crate) fn u16_at(structure: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(bytes_at(structure, at))
}

pub(crate) fn u32_at(structure: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes_at(structure, at))
}

pub(crate) fn u64_at(structure: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes_at(structure, at))
}

/// A big-endian field, as the journal of ext4 has them.
pub(crate) fn be32_at(structure: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(bytes_at(structure, at))
}

/// A length or an index in memory. What does not fit is beyond any memory.
pub(crate) fn in_memory(value: u64) -> usize {
    usize::try_from(value).unwrap_or(usize::MAX)
}

/// A length in memory as one on a disk.
pub(crate) fn on_disk(len: usize) -> u64 {
    u64::try_from(len).unwrap_or(u64::MAX)
}
