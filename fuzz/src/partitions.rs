//! A disk with any partition table: GPT, MBR, logical partitions.

use goldcrest_firmware::partition;

/// Runs the target.
pub fn run(data: &[u8]) {
    let (disk, requests) = crate::disk_image::disk(data);
    if let Ok(Some(table)) = partition::read(&disk) {
        assert!(table.partitions.len() <= partition::MAX_PARTITIONS);
        for found in &table.partitions {
            let end = found.volume.start() + found.volume.size();
            assert!(found.volume.size() != 0 && end <= disk.size() && found.number != 0);
        }
    }
    assert!(requests.borrow().len() < 300);
}
