//! Solo5 guests, on `/dev/kvm`: the guest of `examples/guests/solo5` checks what it is given, from the inside; here it is
//! checked from the outside. And what is refused, with the reason.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "tests"
)]

mod support;

use std::fs;
use std::net::UdpSocket;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::Signal;
use support::*;
use tempfile::TempPath;

/// The guest with a block device `storage` and a network card `service`; nothing where no compiler can build it.
fn guest() -> Option<&'static Path> {
    static BUILT: OnceLock<Option<PathBuf>> = OnceLock::new();
    BUILT.get_or_init(|| build("both", None)).as_deref()
}

/// The guest without devices.
fn lonely() -> Option<&'static Path> {
    static BUILT: OnceLock<Option<PathBuf>> = OnceLock::new();
    let built = BUILT.get_or_init(|| build("none", Some("")));
    built.as_deref()
}

/// The guest with network cards `first` and `second`.
fn two_nets() -> Option<&'static Path> {
    static BUILT: OnceLock<Option<PathBuf>> = OnceLock::new();
    let nets =
        "{ .name = \"first\", .type = NET_BASIC }, { .name = \"second\", .type = NET_BASIC },";
    BUILT.get_or_init(|| build("nets", Some(nets))).as_deref()
}

/// Builds the guest with these devices in its manifest.
fn build(name: &str, devices: Option<&str>) -> Option<PathBuf> {
    let devices = devices.map(|devices| format!("-DDEVICES={devices}"));
    let options: Vec<_> = devices.into_iter().collect();
    build_guest("solo5", &format!("solo5-{name}"), &options)
}

/// What the guest is told to do. It ends in any case.
fn with(image: &Path, what: &str) -> Command {
    let mut command = boot(image);
    command.args(["--timeout", "50", "--cmdline", what]);
    command
}

/// As [`with`], with both devices; the card on a network in the monitor's process.
fn with_devices(image: &Path, what: &str, disk: &Path) -> Command {
    let mut command = with(image, what);
    command.args(["--solo5-net", "service=user"]);
    command.arg(format!("--solo5-block=storage={}", disk.display()));
    command
}

/// 64 KiB that begin with a greeting.
fn disk() -> TempPath {
    let mut bytes = vec![0x5a; 65536];
    bytes[..16].copy_from_slice(b"hello from disk!");
    file(bytes)
}

/// Runs the guest with both devices; it has to be content.
fn content(what: &str) -> Option<Ended> {
    let image = guest()?;
    (!skip_without_kvm()).then(|| run(&mut with_devices(image, what, &disk())).expect(0))
}

#[test]
fn the_guest_prints_its_command_line_and_arguments() {
    let Some(image) = lonely() else { return };
    if skip_without_kvm() {
        return;
    }
    let ended = run(with(image, "hello --flag").args(["--", "one", "two"])).expect(0);
    assert_eq!(ended.stdout, "hello: hello --flag one two\n");
    assert_eq!(ended.stderr, "");
}

#[test]
fn the_guest_starts_just_as_hvt_starts_it() {
    let Some(image) = guest() else { return };
    if skip_without_kvm() {
        return;
    }
    // Memory comes in pieces of 2 MiB.
    let disk = disk();
    for (memory, size) in [("2M", 2), ("17M", 16), ("128M", 128)] {
        let mut command = with_devices(image, "entry", &disk);
        command.args(["--memory", memory]);
        let ended = run(&mut command).expect(0);
        let expected = format!(
            "mem_size={}\nstorage: capacity=65536\nservice: mtu=1500\n",
            size << 20
        );
        assert_eq!(ended.stdout, expected);
    }
}

#[test]
fn no_page_is_both_written_and_executed_and_low_memory_is_the_hosts() {
    content("pages");
}

#[test]
fn everything_is_printed() {
    let Some(ended) = content("much") else { return };
    let expected: String = ('a'..='z').cycle().take(65536).collect();
    assert!(ended.stdout == expected.repeat(4), "{}", ended.stdout.len());
}

#[test]
fn the_guest_tells_the_time_and_polls_with_a_time_out() {
    let begun = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let Some(ended) = content("time 300") else {
        return;
    };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let value = |name: &str| {
        let mut lines = ended.stdout.lines();
        let value = lines.find_map(|line| line.strip_prefix(name)).unwrap();
        Duration::from_nanos(value.parse().unwrap())
    };
    assert!((begun..=now).contains(&value("time=")), "{ended:?}");
    assert!(value("took=") < SOON, "{ended:?}");
}

#[test]
fn the_guest_reads_and_writes_a_block_device() {
    let Some(image) = guest() else { return };
    if skip_without_kvm() {
        return;
    }
    let disk = disk();
    let ended = run(&mut with_devices(image, "block", &disk)).expect(0);
    assert_eq!(ended.stdout, "first block: hello from disk!\n");
    let written: Vec<u8> = (0..4096u32)
        .map(|i| (i * 7 + i / 512).to_le_bytes()[0])
        .collect();
    let after = fs::read(&disk).unwrap();
    assert_eq!(after.len(), 65536);
    assert_eq!(after[512..1024], written[..512]);
    assert_eq!(after[61440..], written);
    assert!(after[1024..61440].iter().all(|byte| *byte == 0x5a));
}

#[test]
fn a_read_only_block_device_is_not_written() {
    let Some(image) = guest() else { return };
    if skip_without_kvm() {
        return;
    }
    let disk = disk();
    let before = fs::read(&disk).unwrap();
    let mut command = with(image, "read-only");
    command.args(["--solo5-net", "service=user"]);
    command.arg(format!("--solo5-block=storage={},ro", disk.display()));
    run(&mut command).expect(0);
    assert_eq!(fs::read(&disk).unwrap(), before);
}

#[test]
fn the_guest_sends_and_receives_frames_of_a_user_network() {
    let Some(ended) = content("net") else { return };
    assert_eq!(ended.stdout, "gateway found by service\n");
}

#[test]
fn poll_tells_networks_apart() {
    let Some(image) = two_nets() else { return };
    if skip_without_kvm() {
        return;
    }
    let mut command = with(image, "nets");
    // Not in the manifest's order.
    command.args(["--solo5-net", "second=user", "--solo5-net", "first=user"]);
    let ended = run(&mut command).expect(0);
    assert_eq!(
        ended.stdout,
        "gateway found by first\ngateway found by second\n"
    );
}

#[test]
fn statuses_are_the_guests_and_an_abort_is_255() {
    let Some(image) = lonely() else { return };
    if skip_without_kvm() {
        return;
    }
    for (status, code) in [("0", 0), ("1", 1), ("42", 42), ("256", 0), ("511", 255)] {
        let ended = run(&mut with(image, &format!("exit {status}"))).expect(code);
        let said = if code == 255 {
            "goldcrest: the guest aborted\n"
        } else {
            ""
        };
        assert_eq!(ended.stderr, said);
    }
    let ended = run(&mut with(image, "abort")).expect(255);
    let expected = "goldcrest: the guest aborted by a trap at rip 0x1234567, rsp 0x0, rflags 0x0, error code 0x0, cr2 0xbad\n";
    assert_eq!(ended.stderr, expected);
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
            "the guest's hypercall puts names 1 bytes at 0x8000000, which are not RAM",
        ),
        ("bad-call", "the guest made hypercall 0: there are 1 to 8"),
        (
            "bad-write",
            "the guest's hypercall block_read would write 512 bytes at 0x100000, which the guest cannot write",
        ),
    ] {
        let complaint = run(&mut with_devices(image, what, &disk())).complaint(1);
        assert_eq!(complaint, why);
    }
    let ended = run(&mut with_devices(image, "crash", &disk())).expect(1);
    assert_contains(&ended.stderr, &["goldcrest: ", "rip"]);
}

#[test]
fn a_guest_that_waits_is_stopped_at_once() {
    let Some(image) = guest() else { return };
    if skip_without_kvm() {
        return;
    }
    let disk = disk();
    let mut running = Running::start(&mut with_devices(image, "wait", &disk));
    running.wait_for("waiting");
    std::thread::sleep(Duration::from_millis(50));
    running.signal(Signal::SIGTERM);
    let ended = running.finish();
    assert!(ended.took < SOON, "{ended:?}");
    ended.expect(128 + 15);

    let mut command = boot(image);
    command.args(["--timeout", "0.3", "--cmdline", "wait"]);
    command.args(["--solo5-net", "service=user"]);
    command.arg(format!("--solo5-block=storage={}", disk.display()));
    run(&mut command).expect(124).soon();
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
    // No frames but ours.
    let _ = fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1");
    true
}

fn ip(arguments: &str) {
    let arguments = arguments.split_whitespace();
    let output = Command::new("ip").args(arguments).output().unwrap();
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn the_guest_sends_and_receives_plain_frames_of_a_tap() {
    let Some(image) = guest() else { return };
    if skip_without_kvm() || !alone() {
        return;
    }
    ip("tuntap add dev gc0 mode tap");
    ip("link set gc0 address 02:00:00:00:00:fe mtu 1400 up");
    ip("addr add 10.77.0.1/24 dev gc0");
    ip("neigh add 10.77.0.2 lladdr 02:00:00:00:00:01 dev gc0");
    let disk = disk();
    let mut command = with(image, "echo 20");
    command.args(["--solo5-net", "service=tap=gc0,mac=02:00:00:00:00:01"]);
    command.arg(format!("--solo5-block=storage={}", disk.display()));
    let mut running = Running::start(&mut command);
    running.wait_for("mtu=1400\n");

    let socket = UdpSocket::bind("10.77.0.1:4000").unwrap();
    socket.set_read_timeout(Some(SOON)).unwrap();
    socket.connect("10.77.0.2:4001").unwrap();
    let mut answer = [0; 2000];
    for number in 0..20u8 {
        // The last is as long as the interface allows.
        let len = if number == 19 {
            1372
        } else {
            18 + usize::from(number)
        };
        let sent = vec![number; len];
        assert_eq!(socket.send(&sent).unwrap(), len);
        assert_eq!(socket.recv(&mut answer).unwrap(), len);
        assert_eq!(answer[..len], sent);
    }
    running.finish().expect(0);
}

/// What is said of the guest with both devices and these options.
#[track_caller]
fn refused(image: &Path, options: &[&str]) -> String {
    let complaint = run(with(image, "hello").args(options)).complaint(2);
    let name = format!("{}: ", image.display());
    complaint
        .strip_prefix(&name)
        .unwrap_or(&complaint)
        .to_owned()
}

#[test]
fn devices_and_manifest_must_agree() {
    let (Some(both), Some(lonely)) = (guest(), lonely()) else {
        return;
    };
    if skip_without_kvm() {
        return;
    }
    let disk = disk();
    // Read-only, as a disk that is written belongs to one device.
    let block = |name| format!("--solo5-block={name}={},ro", disk.display());
    let (storage, service, other) = (&block("storage"), &block("service"), &block("other"));
    let net = "--solo5-net=service=user";
    let declared = "its manifest declares block device \"storage\", network card \"service\"";
    for (image, options, why) in [
        (
            both,
            vec![net],
            "its manifest declares block device \"storage\", which is not attached (--solo5-block storage=...)".to_owned(),
        ),
        (
            both,
            vec![storage],
            "its manifest declares network card \"service\", which is not attached (--solo5-net service=...)".to_owned(),
        ),
        (
            both,
            vec![storage, net, other],
            format!("block device \"other\" is attached, but {declared}"),
        ),
        (
            both,
            vec![storage, service],
            "\"service\" is a network card by its manifest, but is attached as a block device".to_owned(),
        ),
        (
            both,
            vec![storage, net, "--solo5-net=storage=user"],
            "\"storage\" is a block device by its manifest, but is attached as a network card".to_owned(),
        ),
        (
            lonely,
            vec![net],
            "network card \"service\" is attached, but its manifest declares no device".to_owned(),
        ),
    ] {
        assert_eq!(refused(image, &options), why);
    }
    let complaint = refused(both, &[storage, storage, net]);
    assert_eq!(complaint, "block device \"storage\" is attached twice");
}

#[test]
fn devices_that_cannot_be_are_named() {
    let Some(image) = guest() else { return };
    if skip_without_kvm() {
        return;
    }
    let odd = file([0; 1000]);
    let odd_disk = &format!("--solo5-block=storage={}", odd.display());
    for (options, why) in [
        (vec!["--solo5-block=storage=/no/such/file"], "/no/such/file"),
        (vec![odd_disk], "size 1000 is not a multiple of 512"),
        (vec!["--solo5-net=service=tap=a/b"], "tap name \"a/b\""),
    ] {
        let complaint = refused(image, &options);
        assert!(complaint.contains(why), "{complaint}");
    }
    for (option, why) in [
        ("--solo5-block=disk.img", "no name and"),
        (
            "--solo5-block=a-b=disk.img",
            "\"a-b\" is no name of a device",
        ),
        ("--solo5-net=service=bridge", "cannot be on \"bridge\""),
        ("--solo5-net=service=user,queues=2", "one queue"),
    ] {
        let message = run(with(image, "hello").arg(option)).usage_error();
        assert!(message.contains(why), "{message}");
    }
}

#[test]
fn what_the_guest_would_not_find_is_refused() {
    let Some(image) = lonely() else { return };
    if skip_without_kvm() {
        return;
    }
    let disk = disk();
    let disk = disk.to_str().unwrap();
    for (options, why) in [
        (
            vec!["--disk", disk],
            "a guest of solo5-hvt finds no virtio devices",
        ),
        (
            vec!["--initrd", disk],
            "a guest of solo5-hvt finds no initial RAM disk",
        ),
        (
            vec!["--cpus", "2"],
            "a guest of solo5-hvt finds no second CPU",
        ),
        (
            vec!["--memory", "4G"],
            "guest memory of 4294967296 bytes: 2097152 to 3221225472 are possible",
        ),
        (
            vec!["--memory", "1M"],
            "guest memory of 1048576 bytes: 2097152 to 3221225472 are possible",
        ),
    ] {
        assert_eq!(refused(image, &options), why);
    }
    let long = "x".repeat(8192);
    let complaint = run(boot(image).args(["--cmdline", &long])).complaint(2);
    assert!(
        complaint.contains("has 8192 bytes") && complaint.contains("at most 8191"),
        "{complaint}"
    );
    // And a guest that is no Solo5 guest would not find a Solo5 guest's devices.
    let spinning = guests::spinning();
    let complaint = run(boot(&spinning).args(["--solo5-net", "service=user"])).complaint(2);
    assert!(
        complaint.contains("a guest of direct finds no Solo5 devices"),
        "{complaint}"
    );
}

#[test]
fn inspect_names_the_devices() {
    let Some(image) = guest() else { return };
    let mut command = goldcrest();
    command.arg("inspect").arg(image);
    let ended = run(&mut command).expect(0);
    let parts = [
        "chosen: solo5-hvt, entry 0x1000",
        "notes named Solo5 of types ABI1 at ",
        "block device \"storage\" (--solo5-block storage=...)",
        "network card \"service\" (--solo5-net service=...)",
        "not linux-elf: ",
    ];
    assert_contains(&ended.stdout, &parts);
}
