//! File systems made by mkfs.fat, mtools and mke2fs: what was put in comes out.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

mod support;

use std::fs;
use std::os::unix::fs::symlink;

use goldcrest_firmware::{FileSystem, FsError, MemoryDisk};
use support::{Workshop, noise};

const MTOOLS: [&str; 4] = ["mkfs.fat", "mcopy", "mmd", "mdel"];
const LONG: &str = "A rather long name, with spaces and dots.. 6.1.0-39-cloud-amd64.config";

#[test]
fn all_widths_of_fat_are_read() {
    let Some(shop) = Workshop::with(&MTOOLS) else {
        return;
    };
    for (width, kib, cluster) in [
        ("12", 1440, "1"),
        ("16", 16 << 10, "4"),
        ("32", 40 << 10, "1"),
    ] {
        shop.image("fat", kib);
        shop.run(
            "mkfs.fat",
            &["-F", width, "-s", cluster, "-i", "1234abcd", "fat"],
        );
        let (small, large) = (noise(3, 1), noise(500_000, 2));
        shop.write("small", &small);
        shop.write("large", &large);
        shop.write("hole", noise(70_000, 3));
        shop.run("mmd", &["-i", "fat", "::/EFI", "::/EFI/Linux", "::/loader"]);
        // What is deleted leaves gaps, which the file behind fills.
        for name in ["a", "b", "c", "d"] {
            shop.run("mcopy", &["-i", "fat", "hole", &format!("::/{name}")]);
        }
        shop.run("mdel", &["-i", "fat", "::/a", "::/c"]);
        shop.run(
            "mcopy",
            &["-i", "fat", "large", &format!("::/EFI/Linux/{LONG}")],
        );
        shop.run("mcopy", &["-i", "fat", "small", "::/loader/loader.conf"]);
        shop.write("none", []);
        shop.run("mcopy", &["-i", "fat", "none", "::/EMPTY"]);

        let file_system = FileSystem::open(&shop.disk("fat").whole())
            .unwrap()
            .unwrap();
        assert_eq!(file_system.kind(), format!("FAT{width}"));
        assert_eq!(file_system.uuid(), "1234-ABCD");
        let read = |path: &str| file_system.find(path).unwrap().read_all(1 << 20).unwrap();
        assert!(read(&format!("/EFI/Linux/{LONG}")) == large);
        assert!(read(&format!("//efi/LINUX/{}", LONG.to_uppercase())) == large);
        assert_eq!(read("loader/../loader/./loader.conf"), small);
        assert_eq!(read("/empty"), []);
        let names: Vec<_> = file_system.list("/EFI/Linux").unwrap();
        let names: Vec<_> = names.iter().map(|entry| entry.name.as_str()).collect();
        assert_eq!(names, [".", "..", LONG]);
        assert!(file_system.is_dir("/loader") && !file_system.is_dir("/empty"));
        assert_eq!(
            file_system.find("/nothing").unwrap_err().to_string(),
            "there is no /nothing"
        );
        assert_eq!(
            file_system.find("/EFI").unwrap_err().to_string(),
            "/EFI is not a file"
        );
        assert_eq!(
            file_system.find("/empty/x").unwrap_err().to_string(),
            "/empty/x is not a directory"
        );
    }
}

/// By the number of its clusters it would be FAT16; mkfs.fat makes such EFI system partitions when it is told to.
#[test]
fn a_small_fat32_is_fat32() {
    let Some(shop) = Workshop::with(&MTOOLS) else {
        return;
    };
    shop.image("fat", 16 << 10);
    shop.run("mkfs.fat", &["-F", "32", "-n", "ESP", "fat"]);
    let file_system = FileSystem::open(&shop.disk("fat").whole())
        .unwrap()
        .unwrap();
    assert_eq!(file_system.kind(), "FAT32");
    assert_eq!(file_system.list("/").unwrap(), []);
}

#[test]
fn a_directory_of_many_long_names_is_read_to_its_end() {
    let Some(shop) = Workshop::with(&MTOOLS) else {
        return;
    };
    shop.image("fat", 8 << 10);
    shop.run("mkfs.fat", &["-F", "16", "-s", "1", "fat"]);
    shop.run("mmd", &["-i", "fat", "::/d"]);
    let names: Vec<_> = (0..300).map(|n| format!("{LONG}.{n}")).collect();
    for name in &names {
        shop.write(&format!("d/{name}"), name);
    }
    let mut arguments = vec!["-i", "fat"];
    let paths: Vec<_> = names.iter().map(|name| format!("d/{name}")).collect();
    arguments.extend(paths.iter().map(String::as_str));
    arguments.push("::/d");
    shop.run("mcopy", &arguments);
    let file_system = FileSystem::open(&shop.disk("fat").whole())
        .unwrap()
        .unwrap();
    assert_eq!(file_system.list("/d").unwrap().len(), 302);
    for name in &names {
        let file = file_system.find(&format!("/d/{name}")).unwrap();
        assert_eq!(file.read_all(1000).unwrap(), name.as_bytes());
    }
}

/// A tree with what is hard to read.
fn tree(shop: &Workshop) -> Vec<u8> {
    let large = noise(3_000_000, 4);
    shop.write("tree/boot/vmlinuz-6.1", &large);
    shop.write("tree/etc/hostname", "host\n");
    symlink("boot/vmlinuz-6.1", shop.path("tree/vmlinuz")).unwrap();
    symlink(
        "/etc/../boot/./vmlinuz-6.1",
        shop.path("tree/boot/absolute"),
    )
    .unwrap();
    symlink("loop", shop.path("tree/loop")).unwrap();
    symlink("gone", shop.path("tree/dangling")).unwrap();
    let long = format!("{}etc/hostname", "./".repeat(200));
    symlink(long, shop.path("tree/long")).unwrap();
    symlink("/etc", shop.path("tree/configuration")).unwrap();
    // A hole in front, and one in the middle.
    let mut sparse = vec![0; 1_200_000];
    sparse[700_000..700_005].copy_from_slice(b"first");
    sparse[1_199_995..].copy_from_slice(b"secnd");
    let path = shop.path("tree/sparse");
    let file = fs::File::create(path).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, b"first", 700_000).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, b"secnd", 1_199_995).unwrap();
    for n in 0..600 {
        shop.write(&format!("tree/many/{LONG}.{n}"), format!("{n}"));
    }
    large
}

#[test]
fn all_kinds_of_ext_are_read() {
    let Some(shop) = Workshop::with(&["mke2fs"]) else {
        return;
    };
    let large = tree(&shop);
    for (kind, options) in [
        ("ext2", &["-b", "1024", "-O", "none,filetype"][..]),
        ("ext2", &["-b", "4096", "-r", "0"]),
        ("ext3", &["-b", "2048"]),
        ("ext4", &["-b", "1024"]),
        (
            "ext4",
            &["-b", "4096", "-O", "64bit,metadata_csum,dir_index,flex_bg"],
        ),
        (
            "ext4",
            &["-b", "4096", "-I", "128", "-O", "^64bit,^metadata_csum"],
        ),
    ] {
        shop.image("ext", 32 << 10);
        let mut arguments = vec![
            "-q",
            "-F",
            "-t",
            kind,
            "-d",
            "tree",
            "-U",
            "01234567-89ab-cdef-0123-456789abcdef",
        ];
        arguments.extend(options);
        arguments.push("ext");
        shop.run("mke2fs", &arguments);

        let file_system = FileSystem::open(&shop.disk("ext").whole())
            .unwrap()
            .unwrap();
        assert_eq!(file_system.kind(), kind, "{options:?}");
        assert_eq!(file_system.uuid(), "01234567-89ab-cdef-0123-456789abcdef");
        let read = |path: &str| {
            file_system
                .find(path)
                .and_then(|file| file.read_all(4 << 20))
        };
        for path in [
            "/boot/vmlinuz-6.1",
            "vmlinuz",
            "/boot/absolute",
            "configuration/../vmlinuz",
        ] {
            assert!(read(path).unwrap() == large, "{path} of {options:?}");
        }
        for path in ["/etc/hostname", "/long", "/configuration/hostname"] {
            assert_eq!(read(path).unwrap(), b"host\n", "{path}");
        }
        let sparse = read("/sparse").unwrap();
        assert_eq!(sparse, fs::read(shop.path("tree/sparse")).unwrap());
        let many = file_system.list("/many").unwrap();
        assert_eq!(many.len(), 600);
        assert_eq!(read(&format!("/many/{LONG}.417")).unwrap(), b"417");
        let said = |path: &str| read(path).unwrap_err().to_string();
        assert_eq!(said("/loop"), "/loop: too many symbolic links");
        assert_eq!(said("/dangling"), "there is no /dangling");
        assert_eq!(said("/etc"), "/etc is not a file");
        assert_eq!(said("/long/x"), "/long/x is not a directory");
        let long = "/etc/..".repeat(100);
        assert_eq!(said(&long), "700 bytes, of which 512 are the most");
    }
}

#[test]
fn a_large_file_is_read_by_few_requests_to_where_it_belongs() {
    let Some(shop) = Workshop::with(&["mke2fs"]) else {
        return;
    };
    let large = tree(&shop);
    shop.image("ext", 32 << 10);
    shop.run("mke2fs", &["-q", "-F", "-t", "ext4", "-d", "tree", "ext"]);
    let disk = MemoryDisk::new(shop.bytes("ext"));
    let requests = disk.requests();
    let file_system = FileSystem::open(&disk.into_disk("vda").whole())
        .unwrap()
        .unwrap();
    let file = file_system.find("/vmlinuz").unwrap();
    requests.borrow_mut().clear();
    assert!(file.read_all(4 << 20).unwrap() == large);
    let requests = requests.borrow();
    assert!(requests.len() < 20, "{requests:?}");
    let bytes: u64 = requests.iter().map(|(_, len)| len).sum();
    assert!(bytes < 3_100_000, "{bytes} bytes were read");
}

#[test]
fn what_is_in_the_journal_counts() {
    let Some(shop) = Workshop::with(&["mke2fs", "debugfs"]) else {
        return;
    };
    for options in [
        "64bit,metadata_csum",
        "^64bit,^metadata_csum",
        "^64bit,metadata_csum",
    ] {
        shop.write("tree/file", noise(8192, 5));
        shop.write("tree/other", noise(4096, 6));
        shop.image("ext", 16 << 10);
        shop.run(
            "mke2fs",
            &[
                "-q", "-F", "-t", "ext4", "-b", "4096", "-O", options, "-d", "tree", "ext",
            ],
        );
        let block = |path: &str, number: &str| {
            let said = shop.run("debugfs", &["-R", &format!("bmap {path} {number}"), "ext"]);
            said.trim().to_owned()
        };
        let (second, other) = (block("/file", "1"), block("/other", "0"));
        let new = noise(4096, 8);
        shop.write("new", &new);
        // A block that changes, and one whose change is void.
        let script = format!(
            "journal_open\njournal_write -b {second},{other} new new\njournal_write -r {other}\njournal_close\n"
        );
        shop.write("new-new", [&new[..], &new[..]].concat());
        let script = script.replace("new new", "new-new");
        shop.write("script", script);
        shop.run("debugfs", &["-w", "-f", "script", "ext"]);

        let file_system = FileSystem::open(&shop.disk("ext").whole())
            .unwrap()
            .unwrap();
        let file = file_system.find("/file").unwrap().read_all(8192).unwrap();
        assert!(
            file[..4096] == noise(8192, 5)[..4096],
            "the first block stays: {options}"
        );
        assert!(
            file[4096..] == new,
            "the second is in the journal: {options}"
        );
        let kept = file_system.find("/other").unwrap().read_all(4096).unwrap();
        assert!(
            kept == noise(4096, 6),
            "what was revoked is void: {options}"
        );
    }
}

#[test]
fn what_is_not_read_is_named() {
    let Some(shop) = Workshop::with(&["mke2fs"]) else {
        return;
    };
    shop.image("ext", 16 << 10);
    shop.run(
        "mke2fs",
        &[
            "-q",
            "-F",
            "-t",
            "ext4",
            "-O",
            "meta_bg,^resize_inode",
            "ext",
        ],
    );
    let error = FileSystem::open(&shop.disk("ext").whole()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "a feature of the ext4 file system (0x10) is not supported"
    );
    let mut cut = shop.bytes("ext");
    cut.truncate(8 << 20);
    let error = FileSystem::open(&MemoryDisk::new(cut).into_disk("vda").whole()).unwrap_err();
    assert!(matches!(error, FsError::Unsupported { .. }), "{error}");
}
