//! The guest firmware on `/dev/kvm`: it runs in ring 3, up to the kernel that it would start, on any KVM.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "tests"
)]

mod support;

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use support::*;

/// The firmware as an image, without the question whether ring 0 is the processor's.
fn by_firmware(disk: &Path, words: &[&str]) -> Command {
    let mut command = boot(&firmware());
    command.args(["--protocol", "pvh", "--announce", "both", "--timeout", "60"]);
    command.arg("--disk").arg(disk).arg("--").args(words);
    command
}

/// A root file system with this file as its kernel, if mke2fs is there.
fn root(dir: &Path, kernel: &[u8]) -> Option<std::path::PathBuf> {
    let tree = dir.join("tree");
    fs::create_dir_all(tree.join("boot")).unwrap();
    fs::create_dir_all(tree.join("etc")).unwrap();
    fs::create_dir_all(tree.join("usr")).unwrap();
    fs::write(tree.join("boot/vmlinuz-6.1"), kernel).unwrap();
    fs::write(tree.join("etc/os-release"), "PRETTY_NAME=\"A test\"\n").unwrap();
    let image = dir.join("root.img");
    let mut tool = Command::new("mke2fs");
    let path = std::env::var("PATH").unwrap_or_default();
    tool.env("PATH", format!("{path}:/usr/sbin:/sbin"));
    tool.args(["-q", "-F", "-t", "ext4", "-d"])
        .arg(&tree)
        .arg(&image)
        .arg("16M");
    match tool.output() {
        Ok(output) if output.status.success() => Some(image),
        Ok(output) => panic!("{output:?}"),
        Err(error) => {
            eprintln!("skipped: mke2fs: {error}");
            None
        }
    }
}

#[test]
fn a_disk_that_does_not_boot_says_why_and_ends_the_machine() {
    if skip_without_kvm() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let zeros = dir.path().join("zeros.img");
    fs::write(&zeros, vec![0; 1 << 20]).unwrap();
    let ended = run(&mut by_firmware(&zeros, &[])).expect(1);
    assert_eq!(
        ended.stdout,
        "firmware: nothing to boot: disk vda: it has neither partitions nor FAT or ext4\n"
    );
    let ended = run(&mut by_firmware(&zeros, &["firmware.colour"])).expect(1);
    assert_eq!(ended.stdout, "firmware: unknown word firmware.colour\n");

    let Some(root) = root(dir.path(), &[b'x'; 5000]) else {
        return;
    };
    let ended = run(&mut by_firmware(&root, &[])).expect(1);
    assert_eq!(
        ended.stdout,
        "firmware: boot/vmlinuz-6.1 (vda): it is no bzImage: there is 0x78787878 where HdrS should be\n"
    );
    let ended = run(&mut by_firmware(&root, &["firmware.list", "quiet"])).expect(0);
    assert_eq!(
        ended.stdout,
        "> boot/vmlinuz-6.1: A test (6.1, vda)\n    root=/dev/vda rw console=ttyS0\n"
    );
    let ended = run(&mut by_firmware(&root, &["firmware.entry=other"])).expect(1);
    assert_eq!(
        ended.stdout,
        "firmware: there is no entry other; there are: boot/vmlinuz-6.1\n"
    );
}

/// It is in every copy of the tool, and read by every start from a disk.
#[test]
fn the_firmware_is_small() {
    let size = fs::metadata(firmware()).unwrap().len();
    assert!(size < 256 << 10, "{size} bytes");
}

#[test]
fn the_menu_waits_for_a_key() {
    if skip_without_kvm() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let Some(root) = root(dir.path(), &[b'x'; 5000]) else {
        return;
    };
    let mut command = by_firmware(&root, &["firmware.timeout=menu-force"]);
    let mut child = command
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    std::thread::sleep(Duration::from_millis(500));
    assert!(child.try_wait().unwrap().is_none(), "it waits");
    child.stdin.take().unwrap().write_all(b"\x1b[B\r").unwrap();
    let output = child.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert_contains(
        &text,
        &["choose what to boot", "A test", "it is no bzImage"],
    );
}

#[test]
fn a_kernel_larger_than_memory_is_refused() {
    if skip_without_kvm() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let Some(root) = root(dir.path(), &kernel()) else {
        return;
    };
    let mut command = boot(&firmware());
    command.args(["--protocol", "pvh", "--announce", "both", "--memory", "32M"]);
    command.arg("--disk").arg(&root);
    let ended = run(&mut command).expect(1);
    assert_contains(
        &ended.stdout,
        &[
            "the kernel needs 67108864 bytes in one piece",
            "give the machine more memory",
        ],
    );
}

/// What begins like a bzImage that needs 64 MiB.
fn kernel() -> Vec<u8> {
    let mut kernel = vec![0; 5000];
    let fields: [(usize, &[u8]); 9] = [
        (0x1f1, &[1]),
        (0x201, &[0x6a]),
        (0x202, b"HdrS"),
        (0x206, &[0x0f, 2]),
        (0x230, &[0, 0, 0x20, 0]),
        (0x234, &[1]),
        (0x236, &[3]),
        (0x238, &[0xff, 7, 0, 0]),
        (0x260, &[0, 0, 0, 4]),
    ];
    for (at, bytes) in fields {
        kernel[at..at + bytes.len()].copy_from_slice(bytes);
    }
    kernel
}

#[test]
fn what_is_asked_for_wrongly_is_refused() {
    let disk = file([0; 4096]);
    let disk = disk.display().to_string();
    for (arguments, said) in [
        (
            &["--disk", &disk, "--initrd", "/etc/hostname"][..],
            "--initrd without a kernel",
        ),
        (
            &["--disk", &disk, "--module", "/etc/hostname"],
            "--module without a kernel",
        ),
        (
            &["--disk", &disk, "--protocol", "direct"],
            "the firmware is started by PVH",
        ),
        (
            &["--firmware", "/nowhere", "--disk", &disk],
            "cannot open /nowhere",
        ),
        (
            &["--firmware-entry", "a b", "--disk", &disk],
            "the name of an entry is one word",
        ),
        (&["--firmware", "x", "vmlinuz"], "cannot be used with"),
    ] {
        let mut command = goldcrest();
        let ended = run(command.arg("run").args(arguments)).expect(2);
        assert_contains(&ended.stderr, &[said]);
    }
}
