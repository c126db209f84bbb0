//! Hermit guests, on `/dev/kvm`: the guest of `examples/guests/hermit` can lie anywhere, and checks from the inside what
//! it is given; here it is checked from the outside.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "tests"
)]

mod support;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use support::*;

/// The guest; nothing where no compiler can build it.
fn guest() -> Option<&'static Path> {
    static BUILT: OnceLock<Option<PathBuf>> = OnceLock::new();
    BUILT
        .get_or_init(|| build_guest("hermit", "hermit", &[]))
        .as_deref()
}

/// What the guest is told to do. It ends in any case.
fn with(image: &Path, what: &[&str]) -> Command {
    let mut command = boot(image);
    command.args(["--timeout", "50", "--"]).args(what);
    command
}

#[test]
fn the_guest_prints_its_arguments() {
    let Some(image) = guest() else { return };
    if skip_without_kvm() {
        return;
    }
    let ended = run(&mut with(image, &["hello", "-v", "one"])).expect(0);
    assert_eq!(ended.stdout, "hello\n-v\none\nto standard output\n");
    assert_eq!(ended.stderr, "");
}

#[test]
fn the_guest_starts_as_uhyve_starts_it_and_finds_no_files() {
    let Some(image) = guest() else { return };
    if skip_without_kvm() {
        return;
    }
    for memory in ["2M", "128M", "3G"] {
        let mut command = boot(image);
        command.args(["--timeout", "50", "--memory", memory, "--", "check"]);
        let ended = run(&mut command).expect(0);
        assert_eq!(ended.stdout, "all is well\n");
    }
}

#[test]
fn statuses_are_the_guests() {
    let Some(image) = guest() else { return };
    if skip_without_kvm() {
        return;
    }
    run(&mut with(image, &["exit", "0"])).expect(0);
    run(&mut with(image, &["exit", "7"])).expect(7);
    run(&mut with(image, &["exit"])).expect(255);
}

#[test]
fn what_has_no_answer_ends_the_guest_with_a_line() {
    let Some(image) = guest() else { return };
    if skip_without_kvm() {
        return;
    }
    for (what, why) in [
        (
            "bad-pointer",
            "the guest's hypercall SerialWriteBuffer names 1 bytes at 0x8000000, which are not RAM",
        ),
        (
            "bad-address",
            "the guest's hypercall FileWrite names the virtual address 0x10000000000, which its page tables do not map",
        ),
    ] {
        let complaint = run(&mut with(image, &[what])).complaint(1);
        assert_eq!(complaint, why);
    }
}

#[test]
fn what_the_guest_would_not_find_is_refused() {
    let Some(image) = guest() else { return };
    if skip_without_kvm() {
        return;
    }
    let disk = file([0; 512]);
    let disk = disk.to_str().unwrap();
    for (options, why) in [
        (
            ["--disk", disk],
            "a guest of hermit finds no virtio devices",
        ),
        (
            ["--initrd", disk],
            "a guest of hermit finds no initial RAM disk",
        ),
        (
            ["--solo5-net", "a=user"],
            "a guest of hermit finds no Solo5 devices",
        ),
        (["--cpus", "2"], "a guest of hermit finds no second CPU"),
        (
            ["--memory", "4G"],
            "guest memory of 4294967296 bytes: 262144 to 3221225472 are possible",
        ),
    ] {
        let complaint = run(boot(image).args(options)).complaint(2);
        assert!(complaint.ends_with(why), "{complaint}");
    }
}

#[test]
fn inspect_says_what_it_is() {
    let Some(image) = guest() else { return };
    let mut command = goldcrest();
    command.arg("inspect").arg(image);
    let ended = run(&mut command).expect(0);
    let parts = [
        "chosen: hermit, entry 0x40000 (a note named HERMIT of type 0x5a00 at ",
        "Hermit 0.11.0, put at 0x40000 and relocated",
    ];
    assert_contains(&ended.stdout, &parts);
}
