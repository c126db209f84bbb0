//! Disks that lie: real images with anything changed in them. Nothing panics, and everything ends.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

mod support;

use std::cmp::Ordering;

use goldcrest_firmware::entry::{Entry, Program, Source, compare};
use goldcrest_firmware::linux::Header;
use goldcrest_firmware::{FileSystem, MemoryDisk, Survey};
use proptest::prelude::*;
use support::{Workshop, kernel};

/// Real disks, whole file systems and a GPT.
fn images() -> Option<Vec<Vec<u8>>> {
    let shop = Workshop::with(&["mkfs.fat", "mcopy", "mmd", "mke2fs", "sgdisk"])?;
    shop.write("tree/vmlinuz", kernel(5000));
    shop.write("tree/etc/os-release", "PRETTY_NAME=x\n");
    let mut images = Vec::new();
    for (kind, size) in [("ext2", 512), ("ext3", 2048), ("ext4", 2048)] {
        shop.image("ext", size);
        shop.run(
            "mke2fs",
            &["-q", "-F", "-t", kind, "-b", "1024", "-d", "tree", "ext"],
        );
        images.push(shop.bytes("ext"));
    }
    shop.write("entry", "title T\nlinux /vmlinuz\n");
    for (width, size) in [("12", 512), ("16", 4096), ("32", 1024)] {
        shop.image("fat", size);
        shop.run("mkfs.fat", &["-F", width, "-s", "1", "fat"]);
        if width != "32" {
            shop.run("mmd", &["-i", "fat", "::/loader", "::/loader/entries"]);
            shop.run(
                "mcopy",
                &["-i", "fat", "entry", "::/loader/entries/an entry.conf"],
            );
            shop.run("mcopy", &["-i", "fat", "tree/vmlinuz", "::/"]);
        }
        images.push(shop.bytes("fat"));
    }
    shop.image("disk", 1024);
    shop.run(
        "sgdisk",
        &["-a", "1", "-n", "1:64:+1024", "-t", "1:ef00", "disk"],
    );
    shop.image("fat", 512);
    shop.run("mkfs.fat", &["-F", "12", "fat"]);
    shop.put("fat", "disk", 64 * 512);
    images.push(shop.bytes("disk"));
    Some(images)
}

/// Does all that the firmware would.
fn boot(bytes: Vec<u8>) {
    let disk = MemoryDisk::new(bytes);
    let requests = disk.requests();
    let disk = disk.into_disk("vda");
    let survey = Survey::of(std::slice::from_ref(&disk));
    match survey.choose(None) {
        Ok(chosen) => assert!(chosen < survey.entries.len()),
        Err(why) => assert!(!why.contains('\n'), "{why}"),
    }
    for entry in &survey.entries {
        if let Ok(Program::Linux(program)) = entry.program() {
            let _ = Header::read(&program.kernel);
            let _ = program.kernel.read_all(1 << 20);
        }
    }
    if let Ok(Some(file_system)) = FileSystem::open(&disk.whole()) {
        for folder in ["/", "/etc", "/loader/entries"] {
            let _ = file_system.list(folder);
        }
    }
    assert!(requests.borrow().len() < 100_000);
}

#[test]
fn anything_changed_in_a_real_image_is_survived() {
    let Some(images) = images() else { return };
    for image in &images {
        boot(image.clone());
    }
    // Where images are not zero is where it hurts.
    let places: Vec<Vec<usize>> = images
        .iter()
        .map(|image| (0..image.len()).filter(|at| image[*at] != 0).collect())
        .collect();
    let change = (any::<prop::sample::Index>(), -8_isize..8, any::<u8>());
    let changes = prop::collection::vec(change, 1..12);
    let cut = prop::option::weighted(0.2, any::<prop::sample::Index>());
    proptest!(ProptestConfig::with_cases(2000), |(which in 0..images.len(), changes in changes, cut in cut)| {
        let mut bytes = images[which].clone();
        for (place, beside, value) in changes {
            let at = places[which][place.index(places[which].len())];
            let at = at.saturating_add_signed(beside).min(bytes.len() - 1);
            bytes[at] = value;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        boot(bytes);
    });
}

fn entry(id: &str, sort_key: Option<&str>, machine_id: &str, version: &str) -> Entry {
    let disk = MemoryDisk::new(support::small_fat()).into_disk("vda");
    Entry {
        id: id.into(),
        title: None,
        version: Some(version.into()),
        sort_key: sort_key.map(Into::into),
        machine_id: Some(machine_id.into()),
        counter: None,
        place: "vda".into(),
        source: Source::Linux {
            file_system: FileSystem::open(&disk.whole()).unwrap().unwrap().into(),
            linux: "/linux".into(),
            initrds: Vec::new(),
            options: String::new(),
        },
    }
}

#[test]
fn entries_are_sorted_as_the_specification_says() {
    use goldcrest_firmware::entry::Counter;
    let counted = |mut entry: Entry, left, done| {
        entry.counter = Some(Counter { left, done });
        entry
    };
    let sorted = [
        // By sort key, machine, and version, the newest first; whatever the names are.
        entry("z.conf", Some("arch"), "b", "1"),
        entry("a.conf", Some("debian"), "a", "6.10"),
        entry("b.conf", Some("debian"), "a", "6.9"),
        entry("c.conf", Some("debian"), "a", "6.9~rc1"),
        counted(entry("d.conf", Some("debian"), "b", "7"), 1, 5),
        // All the same but the name: the newest first.
        entry("x-10.conf", Some("same"), "", "1"),
        entry("x-9.conf", Some("same"), "", "1"),
        // Without a key.
        entry("b-6.10.conf", None, "a", "1"),
        entry("b-6.9.efi", None, "a", "2"),
        entry("a.conf", Some(""), "a", "3"),
        // Those that have failed, of which one more often.
        counted(entry("a.conf", Some("arch"), "a", "9"), 0, 1),
        counted(entry("bad.conf", None, "a", "9"), 0, 1),
        counted(entry("bad.conf", None, "a", "9"), 0, 2),
    ];
    for (at, a) in sorted.iter().enumerate() {
        for (behind, b) in sorted.iter().enumerate() {
            assert_eq!(compare(a, b), at.cmp(&behind), "{} {}", a.id, b.id);
        }
    }
    assert_eq!(compare(&sorted[0], &sorted[0]), Ordering::Equal);
}
