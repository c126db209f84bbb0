//! Images of disks, of which most is zero: an input has only what is not.
//!
//! The first byte chooses the size of a block. Records follow: a number of 16 bits, and the 64 bytes that have this place
//! on the disk.

use std::cell::RefCell;
use std::rc::Rc;

use goldcrest_firmware::{Disk, File, FileSystem, MemoryDisk};

/// Bytes of the disk.
const SIZE: usize = 2304 << 10;
/// Bytes of a record, after its number.
const UNIT: usize = 64;
/// The longest file that is read.
const MAX_FILE: usize = 1 << 20;
/// What no file system of this size needs: more means that something is looked for without end.
const MAX_REQUESTS: usize = 100_000;

/// What reached a disk: offset and bytes.
pub(crate) type Requests = Rc<RefCell<Vec<(u64, u64)>>>;

/// The disk that an input describes.
pub(crate) fn disk(input: &[u8]) -> (Disk, Requests) {
    let (block_size, records) = match input.split_first() {
        Some((choice, records)) => (512 << (choice & 3), records),
        None => (512, input),
    };
    let mut bytes = vec![0; SIZE];
    for record in records.chunks(2 + UNIT) {
        let [low, high, content @ ..] = record else {
            break;
        };
        let place = usize::from(u16::from_le_bytes([*low, *high])) * UNIT % SIZE;
        bytes[place..place + content.len()].copy_from_slice(content);
    }
    let disk = MemoryDisk::with_block_size(bytes, block_size);
    let requests = disk.requests();
    (disk.into_disk("vda"), requests)
}

/// Looks at all that is in a file system, some folders deep.
pub(crate) fn explore(file_system: &FileSystem, requests: &Requests) {
    let mut folders = vec![("/".to_owned(), 0)];
    let mut seen = 0;
    while let Some((folder, depth)) = folders.pop() {
        for entry in file_system.list(&folder).unwrap_or_default() {
            let path = format!("{folder}/{}", entry.name);
            if let Ok(file) = file_system.find(&path) {
                read(&file);
            }
            seen += 1;
            if seen > 200 {
                break;
            }
            if depth < 3 && entry.name != "." && entry.name != ".." && file_system.is_dir(&path) {
                folders.push((path, depth + 1));
            }
        }
        assert!(requests.borrow().len() < MAX_REQUESTS);
    }
    assert!(!file_system.uuid().is_empty() && !file_system.kind().is_empty());
}

/// A file has as many bytes as it says, and parts of it are the same as the whole.
fn read(file: &File) {
    let Ok(all) = file.read_all(MAX_FILE) else {
        return;
    };
    assert_eq!(all.len() as u64, file.size());
    let start = all.len() / 3;
    let mut part = vec![0; all.len() / 2];
    if file.read(start as u64, &mut part).is_ok() {
        assert_eq!(part, all[start..start + part.len()]);
    }
    assert!(file.read(file.size(), &mut [0]).is_err());
}

/// An empty FAT12 file system of 64 KiB.
pub(crate) fn small_fat() -> Vec<u8> {
    let mut bytes = vec![0; 64 << 10];
    bytes[..3].copy_from_slice(&[0xeb, 0x3c, 0x90]);
    // 512 bytes a sector, one a cluster, one reserved, one table of one sector, 16 entries in the root, 128 sectors.
    bytes[11..24].copy_from_slice(&[0, 2, 1, 1, 0, 1, 16, 0, 128, 0, 0xf8, 1, 0]);
    bytes[510..512].copy_from_slice(&[0x55, 0xaa]);
    bytes
}
