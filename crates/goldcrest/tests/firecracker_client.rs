//! A client that others wrote for Firecracker drives the tool, which it knows as `firecracker`. `ci/test-client` builds it.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "tests"
)]

mod support;

use std::process::Command;

use support::*;

#[test]
fn a_client_for_firecracker_drives_a_machine_from_its_start_to_its_end_and_again_from_a_snapshot() {
    if skip_without_kvm() {
        return;
    }
    let Some(client) = std::env::var_os("FIRECRACKER_CLIENT") else {
        println!("skipped: the client is not built: run ci/test-client");
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let firecracker = dir.path().join("firecracker");
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_goldcrest"), &firecracker).unwrap();
    let image = guests::echo();
    let mut command = Command::new(client);
    command.arg(&firecracker).arg(&*image).arg(dir.path());
    let ended = run(&mut command).expect(0);
    println!("{}", ended.stdout);
    assert!(ended.stdout.ends_with("ended again\n"), "{ended:?}");
}

#[test]
fn the_tool_by_the_name_of_firecracker_says_which_api_it_speaks() {
    let dir = tempfile::tempdir().unwrap();
    let firecracker = dir.path().join("firecracker");
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_goldcrest"), &firecracker).unwrap();
    let ended = run(Command::new(&firecracker).arg("--version")).expect(0);
    assert!(ended.stdout.starts_with("Firecracker v1."), "{ended:?}");
    let ended = run(Command::new(&firecracker).arg("--boot-timer"));
    assert_contains(&ended.usage_error(), &["--boot-timer"]);
}
