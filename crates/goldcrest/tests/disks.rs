//! `--disk`, on `/dev/kvm`: the unikernel `disk` finds what an earlier run wrote, and bad options are refused.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "tests"
)]

mod support;

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use nix::fcntl::{Flock, FlockArg};
use support::*;

/// A disk of `size` bytes, all zeros.
fn disk(dir: &Path, name: &str, size: u64) -> PathBuf {
    let path = dir.join(name);
    File::create(&path).unwrap().set_len(size).unwrap();
    path
}

/// The unikernel `disk`, with this disk.
fn with_disk(option: &str, arguments: &[&str]) -> Command {
    let mut command = boot(&unikernel("disk"));
    command.args(["--timeout", "60", "--disk", option, "--"]);
    command.args(arguments);
    command
}

#[test]
fn what_a_unikernel_writes_the_next_one_reads() {
    if skip_without_kvm() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let path = disk(dir.path(), "a,b.img", 8 << 20);
    let option = path.display().to_string().replace(',', ",,");
    for (options, arguments, status, said) in [
        (",id=mine", ["write", "7"], 0, "id \"mine\""),
        (",ro", ["verify", "7"], 0, "verified"),
        (",direct", ["verify", "7"], 0, "verified"),
        (",rate=1T+1000000ops", ["verify", "7"], 0, "verified"),
        ("", ["verify", "8"], 1, "sector"),
    ] {
        let option = format!("{option}{options}");
        let ended = run(&mut with_disk(&option, &arguments)).expect(status);
        assert_contains(&ended.stdout, &[said]);
    }
}

#[test]
fn a_disk_whose_monitor_was_killed_can_be_used_at_once() {
    if skip_without_kvm() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let path = disk(dir.path(), "disk.img", 8 << 20);
    let option = path.display().to_string();
    // The moment is another one each time, from before the disk is opened until after the guest has written to it.
    for moment in 0..20 {
        let mut killed = with_disk(&option, &["write", "7"]);
        let mut killed = killed.stdout(Stdio::null()).spawn().unwrap();
        thread::sleep(Duration::from_millis(2 * moment));
        killed.kill().unwrap();
        killed.wait().unwrap();
        let image = File::options().read(true).write(true).open(&path).unwrap();
        let lock = Flock::lock(image, FlockArg::LockExclusiveNonblock);
        assert!(lock.is_ok(), "in use, killed at {moment}");
    }
}

#[test]
fn a_unikernel_gets_entropy_on_request() {
    if skip_without_kvm() {
        return;
    }
    let given = run(boot(&unikernel("entropy")).arg("--rng")).expect(0);
    assert_contains(&given.stdout, &["entropy: ok"]);
    run(&mut boot(&unikernel("entropy"))).expect(1);
    run(boot(&unikernel("entropy")).args(["--rng", "--no-rng"])).expect(1);
}

#[test]
fn a_disk_that_cannot_be_is_refused_in_one_line() {
    if skip_without_kvm() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let good = disk(dir.path(), "good.img", 1 << 20);
    let odd = disk(dir.path(), "odd.img", 511);
    let empty = disk(dir.path(), "empty.img", 0);
    let closed = disk(dir.path(), "closed.img", 512);
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o000)).unwrap();
    let folder = dir.path().display().to_string();
    let missing = format!("{folder}/missing.img");
    for (option, what) in [
        (missing.as_str(), "No such file"),
        (&folder, "is a directory, not a file or a block device"),
        ("/dev/null", "not a file or a block device"),
        (odd.to_str().unwrap(), "size 511 is not a multiple of 512"),
        (empty.to_str().unwrap(), "is empty"),
    ] {
        let complaint = run(&mut with_disk(option, &["verify", "7"])).complaint(2);
        assert_contains(&complaint, &["disk image", option, what]);
    }
    // Nobody refuses root.
    if File::open(&closed).is_err() {
        let complaint = run(&mut with_disk(closed.to_str().unwrap(), &[])).complaint(2);
        assert_contains(&complaint, &["Permission denied"]);
    }
    let good = good.to_str().unwrap();
    let mut both = boot(&unikernel("disk"));
    both.args(["--disk", good, "--disk", &format!("{good},ro")]);
    let complaint = run(&mut both).complaint(2);
    assert_contains(&complaint, &[good, "in use"]);
    let mut shared = boot(&unikernel("disk"));
    let read_only = format!("{good},ro");
    shared.args([
        "--disk", &read_only, "--disk", &read_only, "--", "verify", "7",
    ]);
    run(&mut shared).expect(1);
}

#[test]
fn options_of_disks_are_checked() {
    for (option, what) in [
        ("", "the disk's path is missing"),
        ("x.img,rw", "a disk has no option \"rw\""),
        ("x.img,id=123456789012345678901", "at most 20"),
        ("x.img,rate=0", "rate"),
    ] {
        let mut command = boot(&unikernel("disk"));
        let ended = run(command.args(["--disk", option])).expect(2);
        assert_contains(&ended.stderr, &[what, "PATH[,ro]"]);
    }
}

#[test]
fn there_are_as_many_devices_as_there_is_room_for() {
    if skip_without_kvm() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let path = disk(dir.path(), "many.img", 1 << 20);
    let option = format!("{},ro", path.display());
    let with = |count: usize| {
        let mut command = boot(&unikernel("disk"));
        for _ in 0..count {
            command.args(["--disk", &option]);
        }
        command.args(["--", "verify", "7"]);
        run(&mut command)
    };
    // All zeros is not what seed 7 writes.
    with(17).expect(1);
    assert_contains(&with(18).complaint(2), &["18 virtio devices", "at most 17"]);
}
