//! GUID partition tables (UEFI 2.10 §5.3).

use alloc::string::ToString;
use alloc::vec;
use alloc::vec::Vec;

use crc::{CRC_32_ISO_HDLC, Crc, NoTable};

use super::{GptFault, Guid, Kind, MAX_PARTITIONS, Partition, TableError};
use crate::disk::Disk;
use crate::fields::{bytes_at, in_memory, u32_at, u64_at};

/// The checksum of §5.3.2: CRC-32 as Ethernet has it. Without a table, which would be larger than what it is for.
const CRC: Crc<u32, NoTable> = Crc::<u32, NoTable>::new(&CRC_32_ISO_HDLC);

const SIGNATURE: [u8; 8] = *b"EFI PART";
/// Bytes of a header at least.
const HEADER_SIZE: u32 = 92;
/// Where its checksum is, which counts as zero.
const CHECKSUM: usize = 16;
const MIN_ENTRY: u32 = 128;
const MAX_ENTRY: u32 = 4096;
const MAX_ENTRIES: u32 = 1024;

const EFI_SYSTEM: Guid = Guid::new(0xc12a_7328, 0xf81f, 0x11d2, 0xba4b_00a0_c93e_c93b);
const BOOT_LOADER: Guid = Guid::new(0xbc13_c2ff, 0x59e6, 0x4262, 0xa352_b275_fd6f_7172);
const ROOT_X86_64: Guid = Guid::new(0x4f68_bce3, 0xe8cd, 0x4db1, 0x96e7_fbca_f984_b709);

/// The partitions by the primary header, or by the backup in the last block where the primary one is damaged.
pub(super) fn read(disk: &Disk) -> Result<Vec<Partition>, TableError> {
    read_header(disk, 1).or_else(|primary| {
        let last = (disk.size() / disk.block_size()).saturating_sub(1);
        read_header(disk, last).map_err(|backup| TableError::Gpt { primary, backup })
    })
}

/// The partitions by the header in this block.
fn read_header(disk: &Disk, block: u64) -> Result<Vec<Partition>, GptFault> {
    let size = disk.block_size();
    let mut header = vec![0; in_memory(size)];
    let whole = disk.whole();
    let at = block.saturating_mul(size);
    whole.read(at, &mut header).map_err(GptFault::Read)?;
    check_header(&mut header, block)?;
    let (count, entry_size) = (u32_at(&header, 80), u32_at(&header, 84));
    let mut entries = vec![0; in_memory(u64::from(count) * u64::from(entry_size))];
    let at = u64_at(&header, 72).saturating_mul(size);
    whole.read(at, &mut entries).map_err(GptFault::Read)?;
    if CRC.checksum(&entries) != u32_at(&header, 88) {
        return Err(GptFault::EntriesChecksum);
    }
    let entries = entries.chunks_exact(in_memory(entry_size.into()));
    Ok((1..)
        .zip(entries)
        .filter_map(|(number, entry)| partition(disk, number, entry))
        .take(MAX_PARTITIONS)
        .collect())
}

fn check_header(header: &mut [u8], block: u64) -> Result<(), GptFault> {
    if bytes_at(header, 0) != SIGNATURE {
        return Err(GptFault::Signature);
    }
    let header_size = u32_at(header, 12);
    let checksum = u32_at(header, CHECKSUM);
    let fields = header.iter_mut().skip(CHECKSUM).take(4);
    fields.for_each(|byte| *byte = 0);
    let checked = header.get(..in_memory(header_size.into()));
    let checked = checked.filter(|_| header_size >= HEADER_SIZE);
    let checked = checked.ok_or(GptFault::HeaderSize(header_size))?;
    if CRC.checksum(checked) != checksum {
        return Err(GptFault::HeaderChecksum);
    }
    let place = u64_at(header, 24);
    if place != block {
        return Err(GptFault::Place(place));
    }
    let (count, entry_size) = (u32_at(header, 80), u32_at(header, 84));
    if !entry_size.is_power_of_two() || !(MIN_ENTRY..=MAX_ENTRY).contains(&entry_size) {
        return Err(GptFault::EntrySize(entry_size));
    }
    if count > MAX_ENTRIES {
        return Err(GptFault::EntryCount(count));
    }
    Ok(())
}

/// An entry (§5.3.3) as a partition; `None` if it is not in use, or none of it is on the disk.
fn partition(disk: &Disk, number: u32, entry: &[u8]) -> Option<Partition> {
    let (kind, unique) = (Guid(bytes_at(entry, 0)), Guid(bytes_at(entry, 16)));
    let (first, last) = (u64_at(entry, 32), u64_at(entry, 40));
    let blocks = last.checked_sub(first)?.checked_add(1)?;
    let size = disk.block_size();
    let volume = disk.part(first.checked_mul(size)?, blocks.saturating_mul(size));
    if kind == Guid::NONE || volume.size() == 0 {
        return None;
    }
    Some(Partition {
        number,
        volume,
        kind: match kind {
            EFI_SYSTEM => Kind::EfiSystem,
            BOOT_LOADER => Kind::BootLoader,
            ROOT_X86_64 => Kind::Root,
            _ => Kind::Other,
        },
        uuid: unique.to_string(),
    })
}
