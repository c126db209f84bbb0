//! Partition tables made by sgdisk and sfdisk.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

mod support;

use goldcrest_firmware::partition::{Kind, Scheme, Table, read};
use goldcrest_firmware::{Disk, MemoryDisk};
use support::Workshop;

const UUID: &str = "01234567-89ab-cdef-0123-456789abcdef";

/// Number, start and size in MiB, kind, and identity.
fn summary(table: &Table) -> Vec<(u32, u64, u64, Kind, &str)> {
    let partitions = table.partitions.iter();
    partitions
        .map(|p| {
            (
                p.number,
                p.volume.start() >> 20,
                p.volume.size() >> 20,
                p.kind,
                p.uuid.as_str(),
            )
        })
        .collect()
}

fn gpt(shop: &Workshop) {
    shop.image("disk", 32 << 10);
    shop.run(
        "sgdisk",
        &[
            "-n",
            "1:1M:+4M",
            "-t",
            "1:ef00",
            "-u",
            &format!("1:{UUID}"),
            "-n",
            "3:8M:+2M",
            "-t",
            "3:ea00",
            "-u",
            "3:11111111-2222-3333-4444-555555555555",
            "-n",
            "128:16M:+8M",
            "-t",
            "128:8304",
            "-u",
            "128:aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee",
            "disk",
        ],
    );
}

fn check_gpt(disk: &Disk) {
    let table = read(disk).unwrap().unwrap();
    assert_eq!(table.scheme, Scheme::Gpt);
    let expected = [
        (1, 1, 4, Kind::EfiSystem, UUID),
        (
            3,
            8,
            2,
            Kind::BootLoader,
            "11111111-2222-3333-4444-555555555555",
        ),
        (
            128,
            16,
            8,
            Kind::Root,
            "aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee",
        ),
    ];
    assert_eq!(summary(&table), expected);
}

fn disk(bytes: Vec<u8>) -> Disk {
    MemoryDisk::new(bytes).into_disk("vda")
}

#[test]
fn a_gpt_is_read_by_its_backup_if_need_be() {
    let Some(shop) = Workshop::with(&["sgdisk"]) else {
        return;
    };
    gpt(&shop);
    let good = shop.bytes("disk");
    check_gpt(&disk(good.clone()));
    // The header, its entries, and the first block: with each, the backup is there still.
    for at in [512 + 60, 1024 + 40, 510] {
        let mut bytes = good.clone();
        bytes[at] ^= 0x10;
        check_gpt(&disk(bytes));
    }
    let mut bytes = good;
    let len = bytes.len();
    bytes[512 + 60] ^= 1;
    bytes[len - 512] ^= 1;
    let error = read(&disk(bytes)).unwrap_err().to_string();
    assert_eq!(
        error,
        "its GPT is damaged (header: its checksum is wrong; backup: there is none)"
    );
}

#[test]
fn a_gpt_counts_in_the_blocks_of_its_disk() {
    let Some(shop) = Workshop::with(&["sfdisk"]) else {
        return;
    };
    shop.image("disk", 32 << 10);
    shop.write("layout", "label: gpt\n");
    // No tool takes a file for a disk of 4 KiB blocks: the table is written by hand, from one of 512-byte blocks.
    gpt(&shop);
    let small = shop.bytes("disk");
    let mut large = vec![0; 32 << 20];
    large[..512].copy_from_slice(&small[..512]);
    let mut header = small[512..604].to_vec();
    let entries = &small[1024..1024 + 128 * 128];
    let mut entries = entries.to_vec();
    for entry in entries.chunks_mut(128) {
        let block = |at: usize| u64::from_le_bytes(entry[at..at + 8].try_into().unwrap());
        let (first, last) = (block(32) / 8, (block(40) + 1) / 8);
        entry[32..40].copy_from_slice(&first.to_le_bytes());
        entry[40..48].copy_from_slice(&last.saturating_sub(1).to_le_bytes());
    }
    let crc = crc::Crc::<u32>::new(&crc::CRC_32_ISO_HDLC);
    header[16..20].fill(0);
    header[88..92].copy_from_slice(&crc.checksum(&entries).to_le_bytes());
    let sum = crc.checksum(&header);
    header[16..20].copy_from_slice(&sum.to_le_bytes());
    large[4096..4096 + 92].copy_from_slice(&header);
    large[8192..8192 + entries.len()].copy_from_slice(&entries);
    check_gpt(&MemoryDisk::with_block_size(large, 4096).into_disk("vda"));
}

#[test]
fn an_mbr_is_read_with_its_logical_partitions() {
    let Some(shop) = Workshop::with(&["sfdisk"]) else {
        return;
    };
    shop.image("disk", 32 << 10);
    shop.write(
        "layout",
        "label: dos\nlabel-id: 0xabcd1234\n\
         start=2048, size=4096, type=ef\nstart=8192, size=4096, type=ea, bootable\nstart=16384, size=40960, type=5\n\
         start=18432, size=2048, type=83\nstart=22528, size=4096, type=83\nstart=28672, size=6144, type=83\n",
    );
    let script = format!("sfdisk disk < {}", shop.path("layout").display());
    shop.run(
        "sh",
        &["-c", &format!("PATH=$PATH:/usr/sbin:/sbin {script}")],
    );
    let table = read(&shop.disk("disk")).unwrap().unwrap();
    assert_eq!(table.scheme, Scheme::Mbr);
    let expected = [
        (1, 1, 2, Kind::EfiSystem, "abcd1234-01"),
        (2, 4, 2, Kind::BootLoader, "abcd1234-02"),
        (5, 9, 1, Kind::Other, "abcd1234-05"),
        (6, 11, 2, Kind::Other, "abcd1234-06"),
        (7, 14, 3, Kind::Other, "abcd1234-07"),
    ];
    assert_eq!(summary(&table), expected);
}

/// A block with a partition table of these entries: type, first block, blocks.
fn mbr(entries: &[(u8, u32, u32)]) -> [u8; 512] {
    let mut block = [0; 512];
    block[510..].copy_from_slice(&[0x55, 0xaa]);
    for ((kind, start, count), at) in entries.iter().zip((446..).step_by(16)) {
        block[at + 4] = *kind;
        block[at + 8..at + 12].copy_from_slice(&start.to_le_bytes());
        block[at + 12..at + 16].copy_from_slice(&count.to_le_bytes());
    }
    block
}

#[test]
fn a_chain_of_logical_partitions_that_leads_back_ends() {
    let mut bytes = vec![0; 1 << 20];
    bytes[..512].copy_from_slice(&mbr(&[(5, 1, 1000)]));
    bytes[512..1024].copy_from_slice(&mbr(&[(0x83, 1, 10), (5, 1, 10)]));
    bytes[1024..1536].copy_from_slice(&mbr(&[(0x83, 1, 10), (5, 1, 10)]));
    let table = read(&disk(bytes)).unwrap().unwrap();
    assert_eq!(table.partitions.len(), 60);
}

#[test]
fn disks_without_a_table_are_told_from_those_with_one() {
    let Some(shop) = Workshop::with(&["mkfs.fat"]) else {
        return;
    };
    shop.image("fat", 4 << 10);
    shop.run("mkfs.fat", &["fat"]);
    assert!(read(&shop.disk("fat")).unwrap().is_none());
    assert!(read(&disk(vec![0; 4096])).unwrap().is_none());
    assert!(read(&disk(vec![0xff; 4096])).unwrap().is_none());
    assert!(read(&disk(Vec::new())).is_err());
    // A protective MBR, and nothing that it protects.
    let mut bytes = vec![0; 8192];
    bytes[..512].copy_from_slice(&mbr(&[(0xee, 1, 15)]));
    let error = read(&disk(bytes)).unwrap_err().to_string();
    assert_eq!(
        error,
        "its GPT is damaged (header: there is none; backup: there is none)"
    );
}
