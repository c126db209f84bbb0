//! Unikernels with devices that are saved while they work, and go on in other machines.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "tests"
)]

mod support;

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use goldcrest_memory::userfault::Userfault;
use goldcrest_monitor::{
    CloneConfig, Control, DiskConfig, Image, Machine, MachineConfig, MonitorError, NetConfig,
    Outcome, Output, Rebinding, RestoreConfig, SnapshotFiles, SnapshotKind, StopReason,
    VirtioConfig, WallClock, parse_vsock, run, vsock_device,
};
use goldcrest_vcpu::kvm::Kvm;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use support::guests::chatty;
use support::{SOON, assert_contains, boot, file, goldcrest, skip_without_kvm, unikernel};

/// A machine that runs on a thread of its own.
struct Running {
    control: Arc<Control>,
    output: Arc<dyn Fn() -> String + Send + Sync>,
    thread: JoinHandle<Result<Outcome, MonitorError>>,
}

fn capture() -> (Output, Arc<dyn Fn() -> String + Send + Sync>) {
    let (output, capture) = Output::capture();
    let all = Mutex::new(Vec::new());
    let text = move || {
        let mut all = all.lock().unwrap();
        all.extend(capture.take());
        String::from_utf8_lossy(&all).into_owned()
    };
    (output, Arc::new(text))
}

impl Running {
    fn start(name: &str, cmdline: &str, virtio: Vec<VirtioConfig>) -> Self {
        let (output, text) = capture();
        let mut config = MachineConfig {
            cmdline: cmdline.into(),
            output,
            virtio,
            timeout: Some(Duration::from_secs(50)),
            ..MachineConfig::new(Image::open(unikernel(name)).unwrap())
        };
        config.memory.size = 32 << 20;
        Self {
            control: config.control.clone(),
            output: text,
            thread: thread::spawn(move || run(&Kvm::open()?, &config)),
        }
    }

    fn restore(directory: &Path, change: impl FnOnce(&mut RestoreConfig)) -> Self {
        let (output, text) = capture();
        let mut config = RestoreConfig {
            machine: CloneConfig {
                output,
                timeout: Some(Duration::from_secs(50)),
                ..CloneConfig::default()
            },
            ..RestoreConfig::new(SnapshotFiles::in_directory(directory))
        };
        change(&mut config);
        let machine = Machine::restore(&Kvm::open().unwrap(), &config).unwrap();
        Self {
            control: config.machine.control.clone(),
            output: text,
            thread: thread::spawn(move || machine.run()),
        }
    }

    fn wait_for(&self, text: &str) {
        let begun = Instant::now();
        while !(self.output)().contains(text) {
            assert!(begun.elapsed() < SOON, "no {text:?}: {}", (self.output)());
            assert!(!self.thread.is_finished(), "{}", (self.output)());
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// Saves it, and ends it there.
    fn save(self, directory: &Path) {
        self.control.pause();
        let files = SnapshotFiles::in_directory(directory);
        self.control.snapshot(&files, SnapshotKind::Full).unwrap();
        self.control.stop(StopReason::Escape);
        let outcome = self.thread.join().unwrap().unwrap();
        assert!(matches!(outcome, Outcome::Stopped(_)), "{outcome}");
    }

    /// What it printed, once it has ended with status 0.
    fn finish(self) -> String {
        let outcome = self.thread.join().unwrap().unwrap();
        let text = (self.output)();
        assert!(matches!(outcome, Outcome::Exit(0)), "{outcome}: {text}");
        text
    }
}

fn disk(path: &Path) -> VirtioConfig {
    let text = path.display().to_string();
    text.parse::<DiskConfig>().unwrap().device(1, |_| {})
}

#[test]
fn disk_timer_clocks_and_memory_go_on_through_many_snapshots() {
    if skip_without_kvm() {
        return;
    }
    let image = file(vec![0; 1 << 20]);
    let directory = tempfile::tempdir().unwrap();
    let undisturbed = Running::start("endure", "3000", vec![disk(&image)]).finish();
    let sum = undisturbed.lines().find(|line| line.contains("sum"));
    let mut running = Running::start("endure", "3000", vec![disk(&image)]);
    running.wait_for("begins");
    for round in 0..20 {
        thread::sleep(Duration::from_millis(round % 7));
        if running.thread.is_finished() {
            assert!(round > 3, "only {round} snapshots were made");
            break;
        }
        running.save(directory.path());
        running = Running::restore(directory.path(), |config| {
            config.machine.clock = match round % 2 {
                0 => WallClock::Frozen,
                _ => WallClock::Now,
            };
        });
    }
    assert_contains(&running.finish(), &[sum.unwrap()]);
}

#[test]
fn a_clone_has_a_disk_of_its_own_and_the_others_are_not_disturbed() {
    if skip_without_kvm() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let image = file(vec![0; 1 << 20]);
    let running = Running::start("endure", "1500", vec![disk(&image).with_id("data")]);
    running.wait_for("begins");
    thread::sleep(Duration::from_millis(20));
    running.save(directory.path());
    let copies: Vec<_> = (0..4).map(|_| file(fs::read(&image).unwrap())).collect();
    let clones: Vec<_> = copies
        .iter()
        .map(|copy| {
            Running::restore(directory.path(), |config| {
                config.machine.rebind.push(Rebinding::Disk {
                    id: "data".into(),
                    path: copy.to_path_buf(),
                });
            })
        })
        .collect();
    let sums: Vec<_> = clones
        .into_iter()
        .map(|clone| clone.finish().lines().last().unwrap().to_owned())
        .collect();
    assert!(sums.windows(2).all(|two| two[0] == two[1]), "{sums:?}");
    let mut config = RestoreConfig::new(SnapshotFiles::in_directory(directory.path()));
    config.machine.rebind.push(Rebinding::Tap {
        id: "net0".into(),
        name: "tap0".into(),
    });
    let error = Machine::restore(&Kvm::open().unwrap(), &config).err();
    assert_contains(&error.unwrap().to_string(), &["\"net0\"", "it has data"]);
}

fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    listener.local_addr().unwrap().port()
}

/// The first line of the answer to a request.
fn get(port: u16) -> Option<String> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let mut stream = TcpStream::connect_timeout(&address, SOON).ok()?;
    stream.set_read_timeout(Some(SOON)).unwrap();
    stream
        .write_all(b"GET / HTTP/1.1\r\nHost: guest\r\nConnection: close\r\n\r\n")
        .ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    text.lines().next().map(str::to_owned)
}

fn get_patiently(port: u16) -> String {
    let tries = (0..200).map(|_| {
        thread::sleep(Duration::from_millis(20));
        get(port)
    });
    tries.flatten().next().unwrap()
}

#[test]
fn a_server_answers_after_it_was_restored() {
    if skip_without_kvm() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let port = free_port();
    let net: NetConfig = format!("user,fwd=tcp:{port}:80").parse().unwrap();
    let mut running = Running::start("http", "", vec![net.device().unwrap()]);
    assert_contains(&get_patiently(port), &["200"]);
    for _ in 0..3 {
        // A connection that the restored machine knows nothing of must not be in its way.
        let idle = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
        running.save(directory.path());
        drop(idle);
        running = Running::restore(directory.path(), |_| {});
        assert_contains(&get_patiently(port), &["200"]);
    }
    running.control.stop(StopReason::Escape);
    running.thread.join().unwrap().unwrap();
}

#[test]
fn sockets_of_the_guest_are_reset_and_new_ones_work_elsewhere() {
    if skip_without_kvm() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let socket = |name: &str| directory.path().join(name);
    let echo = |path: &Path| -> Option<String> {
        let mut stream = std::os::unix::net::UnixStream::connect(path).ok()?;
        stream.set_read_timeout(Some(SOON)).unwrap();
        stream.write_all(b"CONNECT 7\nhello").ok()?;
        let mut text = String::new();
        let mut bytes = [0; 64];
        while !text.contains("hello") {
            match stream.read(&mut bytes).ok()? {
                0 => return None,
                len => text += &String::from_utf8_lossy(&bytes[..len]),
            }
        }
        Some(text)
    };
    let patiently = |path: &Path| {
        let tries = (0..200).map(|_| {
            thread::sleep(Duration::from_millis(20));
            echo(path)
        });
        tries.flatten().next().unwrap()
    };
    let config = parse_vsock(&format!("cid=3,uds={}", socket("a").display())).unwrap();
    let running = Running::start("echo-vsock", "", vec![vsock_device(config)]);
    assert_contains(&patiently(&socket("a")), &["OK ", "hello"]);
    running.save(directory.path());
    let restored = Running::restore(directory.path(), |config| {
        config.machine.rebind.push(Rebinding::Vsock {
            path: Some(socket("b")),
            cid: Some(4),
        });
    });
    assert_contains(&patiently(&socket("b")), &["OK ", "hello"]);
    assert!(echo(&socket("a")).is_none());
    restored.control.stop(StopReason::Escape);
    restored.thread.join().unwrap().unwrap();
}

#[test]
fn the_tool_restores_describes_and_verifies_what_was_saved() {
    if skip_without_kvm() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let image = file(vec![0; 1 << 20]);
    let running = Running::start("endure", "1500", vec![disk(&image)]);
    running.wait_for("begins");
    thread::sleep(Duration::from_millis(20));
    running.save(directory.path());
    let path = directory.path().display().to_string();
    let tool = |args: &[&str]| support::run(goldcrest().args(args));
    let state = directory.path().join("state").display().to_string();
    for args in [
        ["snapshot", "info", &path].as_slice(),
        &["snapshot", "info", &state],
        &["inspect", &state],
    ] {
        let ended = tool(args);
        assert_contains(&ended.stdout, &["memory    32 MiB", "disk0: "]);
        assert_eq!(ended.code(), 0);
    }
    assert_contains(&tool(&["snapshot", "verify", &path]).stdout, &["ok, "]);
    let copy = file(fs::read(&image).unwrap());
    let ended = tool(&[
        "snapshot",
        "restore",
        &path,
        "--disk",
        &format!("disk0={}", copy.display()),
    ]);
    assert_contains(&ended.stdout, &["endure: sum "]);
    assert_eq!(ended.code(), 0, "{}", ended.stderr);
    // A page that is not what was written.
    let memory = directory.path().join("memory");
    let mut bytes = fs::read(&memory).unwrap();
    bytes[0x10_0000] ^= 1;
    fs::write(&memory, bytes).unwrap();
    let ended = tool(&["snapshot", "verify", &path]);
    assert_contains(&ended.stderr, &["is damaged between"]);
    assert_eq!(ended.code(), 1);
    fs::write(&state, b"GCS1 but nothing else").unwrap();
    let ended = tool(&["snapshot", "restore", &path]);
    assert_contains(&ended.stderr, &["goldcrest: ", "state: snapshot is"]);
    assert_eq!(ended.code(), 1);
}

/// Saves what has changed of a guest with a disk, again and again; the last directory.
fn save_changes(saved: &Path, image: &Path, track_dirty: bool) -> PathBuf {
    let mut running = Running::start("endure", "3000", vec![disk(image)]);
    running.wait_for("begins");
    for round in 0..6 {
        running.control.pause();
        let directory = saved.join(round.to_string());
        fs::create_dir(&directory).unwrap();
        let files = SnapshotFiles::in_directory(&directory);
        let kind = match round {
            0 => SnapshotKind::Full,
            _ => SnapshotKind::Diff,
        };
        let report = running.control.snapshot(&files, kind).unwrap();
        assert!(round == 0 || report.memory_written < 16 << 20, "{report:?}");
        if round % 2 == 1 {
            // In another process, as it were.
            running.control.stop(StopReason::Escape);
            running.thread.join().unwrap().unwrap();
            running = Running::restore(&directory, |config| config.track_dirty = track_dirty);
        } else {
            running.control.resume();
        }
        thread::sleep(Duration::from_millis(5));
    }
    running.control.stop(StopReason::Escape);
    running.thread.join().unwrap().unwrap();
    saved.join("5")
}

#[test]
fn a_guest_with_a_disk_goes_on_from_what_has_changed() {
    if skip_without_kvm() {
        return;
    }
    let image = file(vec![0; 1 << 20]);
    let undisturbed = Running::start("endure", "3000", vec![disk(&image)]).finish();
    let sum = undisturbed.lines().find(|line| line.contains("sum"));
    for track_dirty in [false, true] {
        let saved = tempfile::tempdir().unwrap();
        let image = file(vec![0; 1 << 20]);
        let last = save_changes(saved.path(), &image, track_dirty);
        // The disk is as it was at that moment only once.
        let copy = file(fs::read(&image).unwrap());
        let restored = Running::restore(&last, |_| {});
        assert_contains(&restored.finish(), &[sum.unwrap()]);
        fs::write(&image, fs::read(&copy).unwrap()).unwrap();

        let last = last.display().to_string();
        let flat = saved.path().join("flat").display().to_string();
        let tool = |args: &[&str]| support::run(goldcrest().args(args));
        let ended = tool(&["snapshot", "info", &last]);
        assert_contains(&ended.stdout, &["base      ", "../4/state"]);
        let ended = tool(&["snapshot", "verify", &last]);
        assert_contains(&ended.stdout, &["ok, ", "with 5 snapshots before it"]);
        let ended = tool(&["snapshot", "flatten", &last, &flat]);
        assert_contains(&ended.stdout, &["32 MiB of memory"]);
        // The full one needs none of the others.
        let aside = saved.path().join("aside");
        fs::rename(saved.path().join("0"), &aside).unwrap();
        let ended = tool(&["snapshot", "verify", &last]);
        assert_contains(&ended.stderr, &["that is not there"]);
        let base = aside.display().to_string();
        let ended = tool(&["snapshot", "verify", &last, "--base", &base]);
        assert_contains(&ended.stdout, &["ok, "]);
        let ended = tool(&["snapshot", "restore", &flat]);
        assert_contains(&ended.stdout, &[sum.unwrap()]);
        assert_eq!(ended.code(), 0, "{}", ended.stderr);
    }
}

#[test]
fn the_tool_restores_with_memory_that_another_process_of_it_serves() {
    if skip_without_kvm() {
        return;
    }
    if let Err(reason) = Userfault::new() {
        eprintln!("skipped: userfaultfd: {reason}");
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let image = file(vec![0; 1 << 20]);
    let running = Running::start("endure", "1500", vec![disk(&image)]);
    running.wait_for("begins");
    thread::sleep(Duration::from_millis(20));
    running.save(directory.path());
    let original = fs::read(&image).unwrap();
    let socket = directory.path().join("pages.sock");
    let mut command = goldcrest();
    command.args(["snapshot", "serve"]).arg(directory.path());
    let mut server = command.arg("--socket").arg(&socket).spawn().unwrap();
    let begun = Instant::now();
    while !socket.exists() {
        assert!(begun.elapsed() < SOON, "nobody listens");
        thread::sleep(Duration::from_millis(1));
    }
    // The state alone is here.
    let here = tempfile::tempdir().unwrap();
    fs::copy(directory.path().join("state"), here.path().join("state")).unwrap();
    let mut sums = Vec::new();
    for _ in 0..2 {
        fs::write(&image, &original).unwrap();
        let mut command = goldcrest();
        command.args(["snapshot", "restore"]).arg(here.path());
        let ended = support::run(command.arg("--memory-server").arg(&socket));
        assert_contains(&ended.stdout, &["endure: sum "]);
        assert_eq!(ended.code(), 0, "{}", ended.stderr);
        sums.push(ended.stdout.lines().last().unwrap().to_owned());
    }
    assert_eq!(sums[0], sums[1]);
    let pid = Pid::from_raw(i32::try_from(server.id()).unwrap());
    kill(pid, Signal::SIGTERM).unwrap();
    assert_eq!(server.wait().unwrap().code(), Some(0));
    assert!(!socket.exists());
}

#[test]
fn a_signal_pauses_a_guest_and_another_has_it_go_on() {
    if skip_without_kvm() {
        return;
    }
    let guest = chatty();
    let mut running = support::Running::start(&mut boot(&guest));
    for _ in 0..3 {
        let before = running.stdout().len();
        let begun = Instant::now();
        while running.stdout().len() <= before {
            assert!(begun.elapsed() < SOON, "it does not run");
            thread::sleep(Duration::from_millis(1));
        }
        running.signal(Signal::SIGUSR1);
        thread::sleep(Duration::from_millis(300));
        let before = running.stdout().len();
        thread::sleep(Duration::from_millis(100));
        assert_eq!(running.stdout().len(), before, "it runs while it is paused");
        running.signal(Signal::SIGUSR2);
    }
    running.wait_for("x");
    running.signal(Signal::SIGUSR1);
    running.signal(Signal::SIGTERM);
    running.finish().expect(143);
}
