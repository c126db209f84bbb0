//! A volume with any ext2, ext3 or ext4 file system: its journal is looked at, all of it is listed and read.

use goldcrest_firmware::{Ext, FileSystem};

/// Runs the target.
pub fn run(data: &[u8]) {
    let (disk, requests) = crate::disk_image::disk(data);
    if let Ok(Some(ext)) = Ext::open(&disk.whole()) {
        crate::disk_image::explore(&FileSystem::Ext(ext), &requests);
    }
}
