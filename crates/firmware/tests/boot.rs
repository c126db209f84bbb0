//! Whole disks: what there is to start, in which order, and why not.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "tests"
)]

mod support;

use goldcrest_firmware::entry::{LinuxProgram, Program, Timeout};
use goldcrest_firmware::linux::{BootParams, Handover, Header, MemoryRange};
use goldcrest_firmware::{Disk, MemoryDisk, Survey};
use support::{Workshop, kernel, noise};

const TOOLS: [&str; 6] = ["mkfs.fat", "mcopy", "mmd", "mke2fs", "sgdisk", "objcopy"];
const ROOT: &str = "aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee";
/// Where the partitions of [`disk`] are, in MiB.
const ESP_AT: usize = 1;
const ROOT_AT: usize = 40;

/// Files of an EFI system partition, by their paths.
fn esp(shop: &Workshop, files: &[(&str, &[u8])]) {
    shop.image("esp", 36 << 10);
    shop.run("mkfs.fat", &["-F", "32", "-s", "1", "esp"]);
    let mut folders = std::collections::BTreeSet::new();
    for (path, bytes) in files {
        for (at, _) in path.match_indices('/').skip(1) {
            if folders.insert(&path[..at]) {
                shop.run("mmd", &["-i", "esp", &format!("::{}", &path[..at])]);
            }
        }
        shop.write("file", bytes);
        shop.run("mcopy", &["-i", "esp", "file", &format!("::{path}")]);
    }
}

/// A GPT with an EFI system partition and a root file system, `tree`.
fn disk(shop: &Workshop) -> Disk {
    shop.image("disk", 64 << 10);
    let root = format!("2:{ROOT}");
    shop.run(
        "sgdisk",
        &[
            "-n",
            "1:1M:+36M",
            "-t",
            "1:ef00",
            "-n",
            "2:40M:+16M",
            "-t",
            "2:8304",
            "-u",
            &root,
            "disk",
        ],
    );
    shop.image("root", 16 << 10);
    shop.run("mke2fs", &["-q", "-F", "-t", "ext4", "-d", "tree", "root"]);
    shop.put("esp", "disk", ESP_AT << 20);
    shop.put("root", "disk", ROOT_AT << 20);
    shop.disk("disk")
}

fn root_tree(shop: &Workshop) {
    shop.write(
        "tree/etc/os-release",
        "PRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\n",
    );
    shop.write("tree/usr/bin/true", "");
}

fn program(survey: &Survey, wanted: Option<&str>) -> LinuxProgram {
    let chosen = survey.choose(wanted).unwrap();
    match survey.entries[chosen].program().unwrap() {
        Program::Linux(program) => program,
        other => panic!("{other:?}"),
    }
}

fn ids(survey: &Survey) -> Vec<&str> {
    survey
        .entries
        .iter()
        .map(|entry| entry.id.as_str())
        .collect()
}

#[test]
fn entries_of_type_1_are_found_as_kernel_install_leaves_them() {
    let Some(shop) = Workshop::with(&TOOLS) else {
        return;
    };
    root_tree(&shop);
    let (linux, first, second) = (kernel(300_000), noise(5001, 1), noise(7000, 2));
    let entry = b"title Debian\nversion 6.1.0-39\nmachine-id 0123\nsort-key debian\noptions root=PARTUUID=1 quiet\n\
        linux /0123/6.1.0-39/linux\ninitrd /0123/6.1.0-39/initrd.img\ninitrd /microcode\n";
    esp(
        &shop,
        &[
            ("/loader/loader.conf", b"timeout 4\ndefault 0123-*\n"),
            ("/loader/entries/0123-6.1.0-39+3-1.conf", entry),
            (
                "/loader/entries/other.conf",
                b"title Other\nlinux /nothing\n",
            ),
            ("/loader/entries/arm.conf", b"architecture aa64\nlinux /x\n"),
            ("/loader/entries/shell.conf", b"efi /shell.efi\n"),
            ("/0123/6.1.0-39/linux", &linux),
            ("/0123/6.1.0-39/initrd.img", &first),
            ("/microcode", &second),
        ],
    );
    let survey = Survey::of(&[disk(&shop)]);
    assert_eq!(ids(&survey), ["0123-6.1.0-39.conf", "other.conf"]);
    assert_eq!(survey.timeout(None), Timeout::Seconds(4));
    assert_eq!(survey.timeout(Some(Timeout::None)), Timeout::None);
    let entry = &survey.entries[0];
    assert_eq!(
        (
            entry.place.as_str(),
            entry.counter.map(|c| (c.left, c.done))
        ),
        ("vda1", Some((3, 1)))
    );
    let program = program(&survey, None);
    assert_eq!(program.cmdline, "root=PARTUUID=1 quiet");
    assert!(program.kernel.read_all(1 << 20).unwrap() == linux);
    let initrds: Vec<_> = program
        .initrds
        .iter()
        .map(|part| part.read_all(1 << 20).unwrap())
        .collect();
    assert!(initrds == [first, second]);
    let notes = survey.notes.join("\n");
    for note in [
        "disk vda: /loader/entries/arm.conf: it is for another processor",
        "disk vda: /loader/entries/shell.conf: it is for EFI",
    ] {
        assert!(notes.contains(note), "{notes}");
    }
    let other = survey.choose(Some("other*")).unwrap();
    assert_eq!(
        survey.entries[other].program().unwrap_err().to_string(),
        "there is no /nothing"
    );
    assert_eq!(
        survey.choose(Some("none")).unwrap_err(),
        "there is no entry none; there are: 0123-6.1.0-39.conf, other.conf"
    );
}

#[test]
fn unified_kernel_images_are_found_with_all_their_parts() {
    const STUB: &str = "/usr/lib/systemd/boot/efi/linuxx64.efi.stub";
    let Some(shop) = Workshop::with(&TOOLS) else {
        return;
    };
    if !std::path::Path::new(STUB).exists() {
        eprintln!("skipped: {STUB} is not installed");
        return;
    }
    root_tree(&shop);
    let (linux, initrd) = (kernel(300_000), noise(50_001, 1));
    shop.write("linux", &linux);
    shop.write("initrd", &initrd);
    shop.write("cmdline", "root=/dev/vda2 quiet\n\0");
    shop.write(
        "osrel",
        "PRETTY_NAME=\"Debian 12\"\nVERSION_ID=12\nID=debian\n",
    );
    let mut arguments = Vec::new();
    for (name, at) in [
        ("osrel", 0x20000),
        ("cmdline", 0x30000),
        ("linux", 0x200_0000),
        ("initrd", 0x300_0000),
    ] {
        arguments.push(format!("--add-section=.{name}={name}"));
        arguments.push(format!("--change-section-vma=.{name}={at:#x}"));
    }
    arguments.extend([STUB.to_owned(), "uki.efi".to_owned()]);
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    shop.run("objcopy", &arguments);
    let uki = shop.bytes("uki.efi");
    esp(
        &shop,
        &[
            ("/EFI/Linux/debian+1.efi", &uki),
            ("/EFI/Linux/cut.efi", &uki[..200_000]),
            ("/EFI/Linux/text.efi", &[b'x'; 100]),
            ("/EFI/Linux/stub.efi", &std::fs::read(STUB).unwrap()),
        ],
    );
    let survey = Survey::of(&[disk(&shop)]);
    assert_eq!(ids(&survey), ["debian.efi", "stub.efi"]);
    let entry = &survey.entries[0];
    assert_eq!(
        (
            entry.name(),
            entry.version.as_deref(),
            entry.sort_key.as_deref()
        ),
        ("Debian 12", Some("12"), Some("debian"))
    );
    let program = program(&survey, None);
    assert_eq!(program.cmdline, "root=/dev/vda2 quiet");
    // Sections are filled up to whole blocks of the file.
    assert!(program.kernel.read_all(1 << 20).unwrap()[..linux.len()] == linux);
    assert!(program.initrds[0].read_all(1 << 20).unwrap()[..initrd.len()] == initrd);
    assert!(Header::read(&program.kernel).is_ok());
    assert!(matches!(
        survey.entries[1].program(),
        Ok(Program::EfiApplication(_))
    ));
    let notes = survey.notes.join("\n");
    for note in [
        "/EFI/Linux/cut.efi: a PE image's section ends beyond it",
        "/EFI/Linux/text.efi: it is no EFI program",
    ] {
        assert!(notes.contains(note), "{notes}");
    }
}

#[test]
fn a_root_file_system_is_booted_as_debian_leaves_it() {
    let Some(shop) = Workshop::with(&TOOLS) else {
        return;
    };
    root_tree(&shop);
    let linux = kernel(300_000);
    esp(&shop, &[]);
    shop.write("tree/boot/vmlinuz-6.1.0-9", noise(1000, 1));
    shop.write("tree/boot/vmlinuz-6.1.0-39", &linux);
    shop.write("tree/boot/initrd.img-6.1.0-39", "initrd");
    let versioned = Survey::of(&[disk(&shop)]);
    std::os::unix::fs::symlink("boot/vmlinuz-6.1.0-39", shop.path("tree/vmlinuz")).unwrap();
    std::os::unix::fs::symlink("boot/initrd.img-6.1.0-39", shop.path("tree/initrd.img")).unwrap();
    for (survey, id) in [
        (versioned, "boot/vmlinuz-6.1.0-39"),
        (Survey::of(&[disk(&shop)]), "vmlinuz"),
    ] {
        assert_eq!(ids(&survey), [id]);
        assert_eq!(survey.entries[0].name(), "Debian GNU/Linux 12 (bookworm)");
        let program = program(&survey, None);
        assert_eq!(
            program.cmdline,
            format!("root=PARTUUID={ROOT} rw console=ttyS0")
        );
        assert!(program.kernel.read_all(1 << 20).unwrap() == linux);
        assert_eq!(program.initrds[0].read_all(100).unwrap(), b"initrd");
        assert_eq!(
            survey.notes,
            ["disk vda: partition 1 is FAT32 but has neither loader entries nor a vmlinuz"]
        );
    }
    // The file system alone, and with a command line of its own.
    let survey = Survey::of(&[shop.disk("root")]);
    assert_eq!(
        program(&survey, None).cmdline,
        "root=/dev/vda rw console=ttyS0"
    );
    shop.write("tree/etc/kernel/cmdline", "ro quiet\nconsole=ttyS0\n");
    let survey = Survey::of(&[disk(&shop)]);
    assert_eq!(
        program(&survey, None).cmdline,
        format!("root=PARTUUID={ROOT} ro quiet console=ttyS0")
    );
}

#[test]
fn every_disk_that_does_not_boot_says_why_on_one_line() {
    let Some(shop) = Workshop::with(&TOOLS) else {
        return;
    };
    let reason = |disks: &[Disk]| {
        let reason = Survey::of(disks).choose(None).unwrap_err();
        assert!(!reason.contains('\n'), "{reason}");
        reason
    };
    let memory = |bytes| MemoryDisk::new(bytes).into_disk("vdb");
    assert_eq!(reason(&[]), "nothing to boot: this machine has no disk");
    assert_eq!(
        reason(&[memory(Vec::new())]),
        "nothing to boot: disk vdb: its first block: 512 bytes at 0x0 lie beyond the end, which is at 0x0"
    );
    let mut luks = vec![0; 1 << 20];
    luks[..6].copy_from_slice(b"LUKS\xba\xbe");
    assert_eq!(
        reason(&[memory(luks)]),
        "nothing to boot: disk vdb: it is encrypted (LUKS), which is not read here"
    );
    root_tree(&shop);
    esp(&shop, &[("/loader/entries/a.conf", b"title A\n")]);
    let complete = disk(&shop);
    assert_eq!(
        reason(&[complete]),
        "nothing to boot: disk vda: /loader/entries/a.conf: it has no linux; disk vda: partition 1 is FAT32 but has neither \
         loader entries nor a vmlinuz; disk vda: partition 2 is ext4 but has neither loader entries nor a vmlinuz"
    );
    shop.run("sgdisk", &["-Z", "-n", "1:1M:+1M", "disk"]);
    let mut bytes = shop.bytes("disk");
    bytes[1 << 20..2 << 20].fill(0);
    let both = reason(&[
        MemoryDisk::new(bytes).into_disk("vda"),
        memory(vec![0; 4096]),
    ]);
    assert_eq!(
        both,
        "nothing to boot: disk vda: partition 1 has no FAT or ext4; disk vdb: it has neither partitions nor FAT or ext4"
    );
    shop.run("sgdisk", &["-Z", "-o", "disk"]);
    assert_eq!(
        reason(&[shop.disk("disk")]),
        "nothing to boot: disk vda: its GPT partition table is empty"
    );
}

#[test]
fn boot_params_say_what_the_protocol_asks_for() {
    let bytes = kernel(300_000);
    let Some(shop) = Workshop::with(&TOOLS) else {
        return;
    };
    root_tree(&shop);
    shop.write("tree/vmlinuz", &bytes);
    esp(&shop, &[]);
    let survey = Survey::of(&[disk(&shop)]);
    let kernel = program(&survey, None).kernel;
    let header = Header::read(&kernel).unwrap();
    assert_eq!(
        (header.kernel_offset, header.kernel_size),
        (1024, 300_000 - 1024)
    );
    assert_eq!(
        (header.memory_size, header.alignment),
        (0x40_0000, 0x100_0000)
    );
    assert_eq!(header.command_line("a b").unwrap(), b"a b\0");
    assert!(header.command_line(&"x".repeat(2048)).is_err());
    assert!(header.command_line("a\0b").is_err());
    let map = [MemoryRange {
        start: 0,
        len: 0x9_fc00,
        kind: 1,
    }; 200];
    let handover = Handover {
        kernel: 0x100_0000,
        cmdline: 0x1_2345_6789,
        initrd: (0x2_0000_1000, 0x1_0000_0005),
        rsdp: 0xe_0000,
        memory_map: &map,
    };
    let params = BootParams::new(&header, &handover);
    let u32_at = |at: usize| u32::from_le_bytes(params.as_bytes()[at..at + 4].try_into().unwrap());
    for (at, value) in [
        (0x70, 0xe_0000),
        (0xc0, 2),
        (0xc4, 1),
        (0xc8, 1),
        (0x202, u32::from_le_bytes(*b"HdrS")),
        (0x214, 0x100_0000),
        (0x218, 0x1000),
        (0x21c, 5),
        (0x228, 0x2345_6789),
        (0x260, 0x40_0000),
        (0x2d8, 0x9_fc00),
        (0x2e0, 1),
        (0x2d0 + 127 * 20 + 16, 1),
        (0x2d0 + 128 * 20 + 16, 0),
    ] {
        assert_eq!(u32_at(at), value, "{at:#x}");
    }
    assert_eq!(
        (params.as_bytes()[0x1e8], params.as_bytes()[0x210]),
        (128, 0xff)
    );
}

#[test]
fn kernels_that_cannot_be_started_are_refused_with_the_reason() {
    let Some(shop) = Workshop::with(&["mke2fs"]) else {
        return;
    };
    let cases: [(usize, &[u8], &str); 8] = [
        (
            0x202,
            b"Hdr?",
            "it is no bzImage: there is 0x3f726448 where HdrS should be",
        ),
        (
            0x206,
            &[0x0b, 2],
            "its boot protocol is 2.11, and 2.12 is needed",
        ),
        (
            0x236,
            &[0x3e],
            "it has no 64-bit entry point (its xloadflags are 0x3e)",
        ),
        (0x234, &[0], "it is not relocatable"),
        (
            0x230,
            &[1, 0, 0x20, 0],
            "its alignment is 0x200001, no power of two up to 1 GiB",
        ),
        (
            0x258,
            &[0, 0, 0, 0, 1, 0, 0, 0],
            "it prefers the address 0x100000000, above 1 GiB",
        ),
        (
            0x260,
            &[0, 0, 0, 0xff],
            "its init_size is 0xff000000, not between its size and 2 GiB",
        ),
        (
            0x201,
            &[0],
            "its header ends at 0x202, not between 0x264 and 0x290",
        ),
    ];
    for (at, bytes, expected) in cases {
        let mut image = kernel(20_000);
        image[at..at + bytes.len()].copy_from_slice(bytes);
        shop.write("tree/vmlinuz", image);
        shop.image("root", 4 << 10);
        shop.run("mke2fs", &["-q", "-F", "-t", "ext4", "-d", "tree", "root"]);
        let survey = Survey::of(&[shop.disk("root")]);
        let error = Header::read(&program(&survey, None).kernel).unwrap_err();
        assert_eq!(error.to_string(), expected);
    }
}
