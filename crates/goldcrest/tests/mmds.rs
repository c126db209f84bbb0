//! `--mmds`, on `/dev/kvm`: the unikernel `metadata` reads what the file has, by both versions, on networks of both
//! kinds; and bad options are refused.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "tests"
)]

mod support;

use std::fs::{self, File};
use std::io::Read;
use std::process::Command;

use nix::sched::{CloneFlags, unshare};
use support::*;
use tempfile::NamedTempFile;

const DOCUMENT: &str =
    r#"{ "latest": { "meta-data": { "local-hostname": "dipper", "count": 3, "network": {} } } }"#;

fn document(text: &str) -> NamedTempFile {
    let file = NamedTempFile::new().unwrap();
    fs::write(&file, text).unwrap();
    file
}

/// The unikernel, with a document and these words for it and for the tool.
fn read(net: &str, options: &[&str], words: &[&str]) -> Ended {
    let file = document(DOCUMENT);
    let mut command = boot(&unikernel("metadata"));
    command.args(["--timeout", "50", "--net", net, "--mmds"]);
    command.arg(file.path()).args(options).arg("--").args(words);
    run(&mut command)
}

#[test]
fn a_guest_reads_its_name_by_both_versions_beside_a_network_in_user_mode() {
    if skip_without_kvm() {
        return;
    }
    let name = "path=/latest/meta-data/local-hostname";
    let first = read("user", &[], &[name]).expect(0);
    assert_eq!(first.stdout, "dipper\n");
    let second = read("user", &["--mmds-version", "v2"], &[name, "token=60"]).expect(0);
    assert_eq!(second.stdout, "dipper\n");
    let refused = read("user", &["--mmds-version", "v2"], &[name]).expect(1);
    assert_contains(&refused.stdout, &["metadata: GET", "401"]);
    let elsewhere = ["--mmds-address", "169.254.170.2"];
    let words = ["path=/latest/meta-data/", "at=169.254.170.2"];
    let keys = read("user", &elsewhere, &words).expect(0);
    assert_eq!(keys.stdout, "count\nlocal-hostname\nnetwork/\n");
    let words = ["path=/latest/meta-data/count", "accept=application/json"];
    assert_eq!(read("user", &[], &words).expect(0).stdout, "3\n");
}

#[test]
fn only_the_cards_that_are_chosen_have_the_service() {
    if skip_without_kvm() {
        return;
    }
    // The guest uses the first.
    for (card, status) in [("0", 0), ("1", 1)] {
        let options = ["--net", "user", "--mmds-card", card];
        read("user", &options, &["path=/latest"]).expect(status);
    }
}

/// This thread is in a network of its own from now on; false, with a word of why, if it cannot be.
fn alone() -> bool {
    if let Err(error) = unshare(CloneFlags::CLONE_NEWNET) {
        println!("skipped: no network namespace: {error}");
        return false;
    }
    if Command::new("ip").arg("-V").output().is_err() {
        println!("skipped: there is no ip");
        return false;
    }
    true
}

fn ip(arguments: &str) {
    let arguments = arguments.split_whitespace();
    let output = Command::new("ip").args(arguments).output().unwrap();
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn on_a_tap_the_service_is_on_the_link_and_its_packets_never_reach_the_host() {
    if skip_without_kvm() || !alone() {
        return;
    }
    ip("tuntap add dev gc0 mode tap vnet_hdr");
    ip("addr add 10.78.0.1/24 dev gc0");
    // The host has a service at that address, too, which is not meant.
    ip("addr add 169.254.169.254/32 dev gc0");
    ip("link set gc0 up");
    let impostor = std::net::TcpListener::bind("169.254.169.254:80").unwrap();
    impostor.set_nonblocking(true).unwrap();
    let words = [
        "path=/latest/meta-data/local-hostname",
        "token=60",
        "ip=169.254.3.4/16",
    ];
    let options = ["--mmds-version", "v2"];
    let ended = read("tap=gc0", &options, &words).expect(0);
    assert_eq!(ended.stdout, "dipper\n");
    assert!(impostor.accept().is_err(), "the host was asked");
    let mut received = String::new();
    File::open("/proc/thread-self/net/dev")
        .unwrap()
        .read_to_string(&mut received)
        .unwrap();
    let card = received.lines().find(|line| line.contains("gc0:"));
    // What it counts as received is what the guest has sent.
    let frames: u64 = card
        .unwrap()
        .split_whitespace()
        .nth(2)
        .unwrap()
        .parse()
        .unwrap();
    assert_eq!(frames, 0, "{received}");
}

#[test]
fn documents_and_options_that_cannot_be_are_refused() {
    let refused = |text: &str, options: &[&str]| {
        let file = document(text);
        let mut command = goldcrest();
        command.args(["run", "--net", "user", "--mmds"]);
        run(command.arg(file.path()).args(options)).complaint(2)
    };
    assert_contains(&refused("{", &[]), &["cannot serve metadata from", "EOF"]);
    assert_contains(&refused("[\"\u{1}\"]", &[]), &["control character"]);
    let deep = "[".repeat(100_000);
    assert_contains(&refused(&deep, &[]), &["recursion limit"]);
    let long = format!("[{:?}]", "x".repeat(60_000));
    let limit = "metadata of 60004 bytes: the limit is 51200";
    assert_contains(&refused(&long, &[]), &[limit]);
    let space = " ".repeat(8000);
    let options = ["--mmds-size-limit", "100"];
    assert_contains(&refused(&space, &options), &["6400 bytes are too many"]);
    let options = ["--mmds-address", "10.0.0.1"];
    assert_contains(&refused("{}", &options), &["10.0.0.1", "link-local"]);
    let options = ["--mmds-card", "1"];
    assert_contains(&refused("{}", &options), &["network card 1: there are 1"]);
    let mut missing = goldcrest();
    missing.args(["run", "--net", "user", "--mmds", "/nowhere.json"]);
    let complaint = run(&mut missing).complaint(2);
    assert_contains(&complaint, &["/nowhere.json", "No such file"]);
    for options in [
        &["--mmds", "x.json"][..],
        &["--net", "user", "--mmds-version", "v2"],
        &["--net", "user", "--mmds", "x", "--mmds-version", "v3"],
        &["--net", "user", "--mmds", "x", "--mmds-address", "here"],
    ] {
        run(goldcrest().arg("run").args(options)).usage_error();
    }
}
