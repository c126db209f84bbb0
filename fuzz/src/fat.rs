//! A volume with any FAT file system: all of it is listed and read.

use goldcrest_firmware::{Fat, FileSystem};

/// Runs the target.
pub fn run(data: &[u8]) {
    let (disk, requests) = crate::disk_image::disk(data);
    if let Ok(Some(fat)) = Fat::open(&disk.whole()) {
        crate::disk_image::explore(&FileSystem::Fat(fat), &requests);
    }
}
