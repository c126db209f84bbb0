//! Disks, and unified kernel images on them.

use crate::{Seeds, support};

/// Disks as real tools make them, where these are installed.
pub(crate) fn disk_seeds() -> Seeds {
    const TOOLS: [&str; 7] = [
        "debugfs", "mkfs.fat", "mcopy", "mmd", "mke2fs", "sgdisk", "sfdisk",
    ];
    let Some(shop) = support::Workshop::with(&TOOLS) else {
        return Seeds::new();
    };
    let kernel = support::kernel(1400);
    let uki = small_uki(&kernel);
    shop.write("uki", &uki);
    let mut seeds = vec![("pe", uki)];
    shop.write("tree/vmlinuz", &kernel);
    shop.write("tree/etc/os-release", "PRETTY_NAME=x\n");
    std::os::unix::fs::symlink("vmlinuz", shop.path("tree/link")).expect("the tree is ours");
    for options in ["ext2", "ext3", "ext4"] {
        shop.image("ext", 256);
        let arguments = [
            "-q", "-F", "-t", options, "-b", "1024", "-N", "16", "-d", "tree",
        ];
        let journal: &[&str] = if options == "ext2" {
            &[]
        } else {
            &["-O", "^has_journal"]
        };
        shop.run("mke2fs", &[&arguments[..], journal, &["ext"]].concat());
        seeds.push(("ext4", sparse(&shop.bytes("ext"))));
        seeds.push(("boot_disk", sparse(&shop.bytes("ext"))));
    }
    // Changes in a journal, of which one is void.
    shop.image("ext", 2304);
    let arguments = [
        "-q", "-F", "-t", "ext4", "-b", "1024", "-N", "16", "-J", "size=1", "-d", "tree", "ext",
    ];
    shop.run("mke2fs", &arguments);
    let block = shop.run("debugfs", &["-R", "bmap /vmlinuz 0", "ext"]);
    shop.write("new", [0x5a; 1024]);
    shop.write(
        "script",
        format!("jo\njw -b {} new\njw -r 99\njc\n", block.trim()),
    );
    shop.run("debugfs", &["-w", "-f", "script", "ext"]);
    seeds.push(("ext4", sparse(&shop.bytes("ext"))));
    for (width, kib) in [("12", 256), ("16", 2304), ("32", 2304)] {
        shop.image("fat", kib);
        shop.run("mkfs.fat", &["-F", width, "-s", "1", "-f", "1", "fat"]);
        if width == "12" {
            shop.run(
                "mmd",
                &[
                    "-i",
                    "fat",
                    "::/EFI",
                    "::/EFI/Linux",
                    "::/loader",
                    "::/loader/entries",
                ],
            );
            shop.run(
                "mcopy",
                &["-i", "fat", "uki", "::/EFI/Linux/a long name.efi"],
            );
            shop.write("entry", "title T\nlinux /EFI/Linux/x\n");
            shop.run(
                "mcopy",
                &["-i", "fat", "entry", "::/loader/entries/entry+1.conf"],
            );
            shop.run("mcopy", &["-i", "fat", "entry", "::/loader/loader.conf"]);
        }
        seeds.push(("fat", sparse(&shop.bytes("fat"))));
        seeds.push(("boot_disk", sparse(&shop.bytes("fat"))));
    }
    shop.image("disk", 2304);
    shop.run(
        "sgdisk",
        &[
            "-a",
            "1",
            "-n",
            "1:64:+512",
            "-t",
            "1:ef00",
            "-n",
            "2:600:+100",
            "disk",
        ],
    );
    seeds.push(("partitions", sparse(&shop.bytes("disk"))));
    shop.image("fat", 256);
    shop.run("mkfs.fat", &["-F", "12", "fat"]);
    shop.put("fat", "disk", 64 * 512);
    seeds.push(("boot_disk", sparse(&shop.bytes("disk"))));
    shop.image("disk", 2304);
    shop.write("layout", "label: dos\nstart=8, size=100, type=ef\nstart=200, size=400, type=5\nstart=208, size=8\nstart=300, size=8\n");
    let script = format!(
        "/usr/sbin/sfdisk --no-reread disk < {}",
        shop.path("layout").display()
    );
    shop.run("sh", &["-c", &script]);
    seeds.push(("partitions", sparse(&shop.bytes("disk"))));
    seeds
}

/// The records of a disk with blocks of 512 bytes (`fuzz/src/disk_image.rs`).
fn sparse(image: &[u8]) -> Vec<u8> {
    let mut records = vec![0];
    for (place, unit) in (0_u16..).zip(image.chunks(64)) {
        if unit.iter().any(|byte| *byte != 0) {
            records.extend(place.to_le_bytes());
            records.extend(unit);
        }
    }
    records
}

/// A PE image with the sections of a unified kernel image, and nothing else.
fn small_uki(kernel: &[u8]) -> Vec<u8> {
    let parts: [(&[u8; 8], &[u8]); 4] = [
        (b".osrel\0\0", b"ID=debian\nVERSION_ID=12\n"),
        (b".cmdline", b"root=/dev/vda2\0"),
        (b".linux\0\0", kernel),
        (b".initrd\0", b"initrd"),
    ];
    let mut image = vec![0; 64];
    image[..2].copy_from_slice(b"MZ");
    image[0x3c] = 64;
    image.extend(b"PE\0\0\x64\x86\x04\0");
    image.extend([0; 16]);
    let mut at = u32::try_from(image.len() + 40 * parts.len()).expect("it is small");
    for (name, content) in &parts {
        let len = u32::try_from(content.len()).expect("it is small");
        image.extend(*name);
        image.extend([len, at, len, at].map(u32::to_le_bytes).concat());
        image.extend([0; 16]);
        at += len;
    }
    image.extend(parts.iter().flat_map(|(_, content)| content.to_vec()));
    image
}
