//! Snapshots of a guest that are packed into archives, unpacked elsewhere, and go on.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

mod support;

use std::fs::{self, File, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use goldcrest_monitor::{
    CloneConfig, Control, Image, Machine, MachineConfig, Output, RestoreConfig, SnapshotFiles,
    SnapshotKind, StopReason, run as run_machine,
};
use goldcrest_vcpu::kvm::Kvm;
use support::{Ended, assert_contains, file, goldcrest, run, skip_without_kvm, unikernel};

fn snapshot(arguments: &[&str]) -> Ended {
    run(goldcrest().arg("snapshot").args(arguments))
}

fn with<'a>(arguments: &[&'a str], options: &[&'a str]) -> Vec<&'a str> {
    [arguments, options].concat()
}

/// Saves the machine that `control` is of, and its disk as it is then, once it has run a while; and ends it.
fn save(control: &Control, disk: &Path, directory: &Path, kind: SnapshotKind) {
    thread::sleep(Duration::from_millis(60));
    fs::create_dir(directory).unwrap();
    control.pause();
    let files = SnapshotFiles::in_directory(directory);
    control.snapshot(&files, kind).unwrap();
    fs::copy(disk, directory.with_extension("disk")).unwrap();
    control.stop(StopReason::Escape);
}

/// The directories `full`, and `diff`, its difference, of a guest that works, and `full.disk` and `diff.disk`, what the
/// disk was that it works on. Gives the path of that disk.
fn saved(directory: &Path) -> PathBuf {
    let disk = directory.join("disk");
    fs::write(&disk, vec![0; 1 << 20]).unwrap();
    let option = disk.display().to_string();
    let (output, _capture) = Output::capture();
    let mut config = MachineConfig {
        cmdline: "3000".into(),
        output,
        virtio: vec![
            option
                .parse::<goldcrest_monitor::DiskConfig>()
                .unwrap()
                .device(1, |_| {}),
        ],
        ..MachineConfig::new(Image::open(unikernel("endure")).unwrap())
    };
    config.memory.size = 32 << 20;
    let control = config.control.clone();
    let machine = thread::spawn(move || run_machine(&Kvm::open().unwrap(), &config));
    save(&control, &disk, &directory.join("full"), SnapshotKind::Full);
    machine.join().unwrap().unwrap();

    let (output, _capture) = Output::capture();
    let full = SnapshotFiles::in_directory(directory.join("full"));
    let config = RestoreConfig {
        machine: CloneConfig {
            output,
            ..CloneConfig::default()
        },
        ..RestoreConfig::new(full)
    };
    let machine = Machine::restore(&Kvm::open().unwrap(), &config).unwrap();
    let machine = thread::spawn(move || machine.run());
    save(
        &config.machine.control,
        &disk,
        &directory.join("diff"),
        SnapshotKind::Diff,
    );
    machine.join().unwrap().unwrap();
    disk
}

fn key(directory: &Path, name: &str, byte: u8) -> String {
    let path = directory.join(name);
    fs::write(&path, [byte; 32]).unwrap();
    fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
    path.display().to_string()
}

#[test]
fn a_guest_goes_on_from_archives_as_from_what_they_were_made_of() {
    if skip_without_kvm() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let disk = saved(directory.path());
    let at = |name: &str| directory.path().join(name).display().to_string();
    let (right, wrong) = (
        key(directory.path(), "key", 7),
        key(directory.path(), "other", 8),
    );
    fs::create_dir(at("elsewhere")).unwrap();
    for (name, key) in [("full", None), ("diff", Some(&right))] {
        let options: Vec<&str> = key
            .iter()
            .flat_map(|key| ["--key-file", key.as_str()])
            .collect();
        let (from, archive) = (at(name), at(&format!("{name}.gca")));
        let to = at(&format!("elsewhere/{name}"));
        let packed = snapshot(&with(&["pack", &from, &archive], &options)).expect(0);
        assert_eq!(packed.stdout.contains("encrypted"), key.is_some());
        let len = fs::metadata(&archive).unwrap().len();
        assert!(len < 8 << 20, "{len}");
        let info = snapshot(&with(&["info", &archive], &options)).expect(0);
        assert_contains(
            &info.stdout,
            &["an archive of a machine", "CPUs      1", "32 MiB"],
        );
        let inspected = run(goldcrest().args(["inspect", &archive])).expect(0);
        assert_eq!(inspected.stdout.contains("encrypted"), key.is_some());
        assert_eq!(inspected.stdout.contains("32 MiB"), key.is_none());
        let verified = snapshot(&with(&["verify", &archive], &options)).expect(0);
        assert_contains(&verified.stdout, &["ok, "]);
        if key.is_some() {
            let refused = snapshot(&["unpack", &archive, &to]).complaint(1);
            assert_contains(&refused, &[&archive, "its key is needed"]);
            let refused = snapshot(&["unpack", &archive, &to, "--key-file", &wrong]).complaint(1);
            assert_contains(&refused, &["encrypted with another key"]);
            assert!(!Path::new(&to).exists());
        }
        snapshot(&with(&["unpack", &archive, &to], &options)).expect(0);
        for part in ["state", "memory"] {
            let read = |directory: &str| fs::read(Path::new(directory).join(part)).unwrap();
            assert!(read(&from) == read(&to), "{name}/{part}");
        }
    }
    let mut sums = Vec::new();
    for from in ["diff", "elsewhere/diff", "full", "elsewhere/full"] {
        let disk_then = directory
            .path()
            .join(from.trim_start_matches("elsewhere/"))
            .with_extension("disk");
        fs::copy(disk_then, &disk).unwrap();
        let ended = snapshot(&["restore", &at(from), "--timeout", "50"]);
        let ended = ended.expect(0);
        sums.push(ended.stdout.lines().last().unwrap().to_owned());
    }
    assert_contains(&sums[0], &["sum"]);
    assert!(sums.windows(2).all(|two| two[0] == two[1]), "{sums:?}");
    // The difference is not unpacked over what it needs, and finds that there.
    let refused = snapshot(&[
        "unpack",
        &at("diff.gca"),
        &at("elsewhere/full"),
        "--key-file",
        &right,
    ]);
    assert_contains(&refused.complaint(1), &["the new snapshot needs it"]);
    snapshot(&["verify", &at("elsewhere/diff")]).expect(0);
    // Through pipes.
    let mut pack = goldcrest();
    pack.args(["snapshot", "pack", &at("full"), "-"])
        .stdout(Stdio::piped());
    let mut pack = pack.spawn().unwrap();
    let mut unpack = goldcrest();
    unpack.args(["snapshot", "unpack", "-", &at("piped")]);
    unpack
        .stdin(pack.stdout.take().unwrap())
        .stdout(Stdio::null());
    assert!(unpack.status().unwrap().success() && pack.wait().unwrap().success());
    assert!(fs::read(at("piped/memory")).unwrap() == fs::read(at("full/memory")).unwrap());
    no_room(directory.path(), &at("full.gca"));
    damaged(&at("full.gca"), &at("new"));
}

/// Where the disk is full, nothing is left.
fn no_room(directory: &Path, archive: &str) {
    let mount = directory.join("small");
    fs::create_dir(&mount).unwrap();
    let script = "mount -t tmpfs -o size=64k none \"$1\" && \"$2\" snapshot unpack \"$3\" \"$1/to\"; \
                  status=$?; ls -A \"$1\"; exit $status";
    let mut command = Command::new("unshare");
    command.args(["-rm", "sh", "-c", script, "sh"]).arg(&mount);
    command.arg(goldcrest().get_program()).arg(archive);
    let output = command.stdin(Stdio::null()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    if said.contains("unshare") || said.contains("mount") {
        println!("skipped: no file system of one's own can be mounted here: {said}");
        return;
    }
    assert_eq!(output.status.code(), Some(1));
    assert_contains(&said, &["No space left on device"]);
    assert!(output.stdout.is_empty(), "{:?}", output.stdout);
}

fn damaged(archive: &str, to: &str) {
    let whole = fs::read(archive).unwrap();
    for (bytes, what) in [
        (&whole[..whole.len() - 1], "cut off"),
        (&whole[..60], "cut off"),
        (&[&whole[..], b"x"].concat(), "more bytes"),
        (
            &[&whole[..100], b"xxxx", &whole[104..]].concat(),
            "damaged in chunk 0",
        ),
    ] {
        fs::write(archive, bytes).unwrap();
        let complaint = snapshot(&["unpack", archive, to]).complaint(1);
        assert_contains(&complaint, &[archive, what]);
        assert!(!Path::new(to).exists());
        snapshot(&["verify", archive]).complaint(1);
    }
}

#[test]
fn keys_are_looked_at() {
    let directory = tempfile::tempdir().unwrap();
    let archive = directory.path().join("archive").display().to_string();
    let exposed = key(directory.path(), "exposed", 1);
    fs::set_permissions(&exposed, Permissions::from_mode(0o644)).unwrap();
    let pack = |key: &str| snapshot(&["pack", "/nowhere", &archive, "--key-file", key]);
    assert_contains(
        &pack(&exposed).complaint(2),
        &[&exposed, "mode 644", "chmod 600"],
    );
    let short = file([1; 31]);
    let complaint = pack(short.to_str().unwrap()).complaint(2);
    assert_contains(
        &complaint,
        &["32 bytes, or 64 hex", "head -c 32 /dev/urandom"],
    );
    assert_contains(
        &pack("/nowhere/key").complaint(2),
        &["cannot read the key file"],
    );
    // What is no archive has no key.
    let right = key(directory.path(), "key", 1);
    for command in ["info", "verify"] {
        let directory = directory.path().to_str().unwrap();
        let complaint = snapshot(&[command, directory, "--key-file", &right]).complaint(2);
        assert_contains(&complaint, &["is no archive"]);
    }
    assert!(!Path::new(&archive).exists());
    let complaint = snapshot(&["pack", "/nowhere", &archive]).complaint(1);
    assert_contains(&complaint, &["/nowhere/state"]);
    let text = file("no archive");
    let complaint = snapshot(&["unpack", text.to_str().unwrap(), &archive]).complaint(1);
    assert_contains(&complaint, &["does not begin with GCARCHIV"]);
    assert!(File::open(&archive).is_err());
}
