//! The tool as a process that cannot hang a test, and the guests that it is given.
#![allow(dead_code, unreachable_pub, reason = "each test file uses a part")]

pub mod guests;
#[path = "../../../boot/tests/images/mod.rs"]
pub mod images;
pub mod served;

use std::ffi::{c_int, c_void};
use std::fs::{self, File};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Once, OnceLock};
use std::thread::sleep;
use std::time::{Duration, Instant};

use goldcrest_vcpu::signal_is_ignored;
use libc::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, siginfo_t};
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;
use vmm_sys_util::signal::register_signal_handler;

/// After this time a run is ended, and its test fails. Machines that run tests are slow and busy.
pub const LIMIT: Duration = Duration::from_secs(60);
/// What "at once" may take.
pub const SOON: Duration = Duration::from_secs(5);

/// Whether the test has to be left out because guests cannot run; says so.
pub fn skip_without_kvm() -> bool {
    let kvm = File::options().read(true).write(true).open("/dev/kvm");
    if let Err(reason) = &kvm {
        println!("skipped: no /dev/kvm for us ({reason})");
    }
    kvm.is_err()
}

/// The tool, without input.
pub fn goldcrest() -> Command {
    without_input(Command::new(env!("CARGO_BIN_EXE_goldcrest")))
}

/// `goldcrest run IMAGE`, without input.
pub fn boot(image: &(impl AsRef<Path> + ?Sized)) -> Command {
    let mut command = goldcrest();
    command.arg("run").arg(image.as_ref());
    command
}

/// The tool, started by a shell script that finds it and its arguments in `"$@"`.
pub fn within(script: &str, tool: &Command) -> Command {
    let mut shell = Command::new("sh");
    shell.args(["-c", script, "sh"]);
    shell.arg(tool.get_program()).args(tool.get_args());
    without_input(shell)
}

fn without_input(mut command: Command) -> Command {
    command.stdin(Stdio::null());
    command
}

/// Runs to the end.
pub fn run(command: &mut Command) -> Ended {
    Running::start(command).finish()
}

/// A process in a group of its own, whose output goes to files. Dropping it ends it.
pub struct Running {
    child: Child,
    started: Instant,
    stdout: File,
    stderr: File,
}

impl Running {
    /// Starts it with both outputs captured.
    pub fn start(command: &mut Command) -> Self {
        let stdout = tempfile::tempfile().unwrap();
        command.stdout(stdout.try_clone().unwrap()).process_group(0);
        Self::spawn(command, stdout)
    }

    /// Starts it with standard output as `command` has it.
    pub fn start_with_stdout(command: &mut Command) -> Self {
        command.process_group(0);
        Self::spawn(command, tempfile::tempfile().unwrap())
    }

    /// As the last, for a command that makes its process group itself.
    pub fn start_as_leader(command: &mut Command) -> Self {
        Self::spawn(command, tempfile::tempfile().unwrap())
    }

    fn spawn(command: &mut Command, stdout: File) -> Self {
        start_with_default_signals();
        let stderr = tempfile::tempfile().unwrap();
        command.stderr(stderr.try_clone().unwrap());
        Self {
            started: Instant::now(),
            child: command.spawn().unwrap(),
            stdout,
            stderr,
        }
    }

    pub fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id().try_into().unwrap())
    }

    pub fn signal(&self, signal: Signal) {
        kill(self.pid(), signal).unwrap();
    }

    /// What standard output has so far.
    pub fn stdout(&self) -> String {
        contents(&self.stdout)
    }

    /// Waits until standard output has `text`.
    pub fn wait_for(&mut self, text: &str) {
        while !self.stdout().contains(text) {
            let ended = self.child.try_wait().unwrap();
            let stderr = contents(&self.stderr);
            assert!(ended.is_none(), "ended before {text:?}: {ended:?} {stderr}");
            assert!(self.started.elapsed() < LIMIT, "no {text:?} in {LIMIT:?}");
            sleep(Duration::from_millis(1));
        }
    }

    /// The names of its threads, but for those that KVM itself adds in the kernel.
    pub fn threads(&self) -> Vec<String> {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.child.id())).unwrap();
        tasks
            .map(|task| fs::read_to_string(task.unwrap().path().join("comm")).unwrap())
            .filter(|name| !name.starts_with("kvm-"))
            .collect()
    }

    /// Waits for the end. Whatever else a run is to show, it does not panic and leaves no process behind.
    pub fn finish(mut self) -> Ended {
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            let stderr = contents(&self.stderr);
            assert!(self.started.elapsed() < LIMIT, "hangs; stderr: {stderr}");
            sleep(Duration::from_millis(1));
        };
        let ended = Ended {
            status,
            stdout: self.stdout(),
            stderr: contents(&self.stderr),
            took: self.started.elapsed(),
        };
        assert!(!ended.stderr.contains("panicked"), "{ended:?}");
        let left = killpg(self.pid(), None);
        assert!(left.is_err(), "a process is left behind: {ended:?}");
        ended
    }
}

/// Shells start what runs in the background with signals ignored, and so does `nohup`: the tool would inherit that, and
/// leave it so. Signals that are caught here are the default for processes that are started.
fn start_with_default_signals() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        for signal in [SIGHUP, SIGINT, SIGQUIT, SIGTERM] {
            if signal_is_ignored(signal) {
                register_signal_handler(signal, nothing).unwrap();
            }
        }
    });
}

extern "C" fn nothing(_: c_int, _: *mut siginfo_t, _: *mut c_void) {}

impl Drop for Running {
    fn drop(&mut self) {
        // Fails if it has ended.
        let _ = killpg(self.pid(), Signal::SIGKILL);
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// From the beginning, without moving where the process appends.
fn contents(file: &File) -> String {
    use std::os::unix::fs::FileExt;
    let mut bytes = vec![0; file.metadata().unwrap().len().try_into().unwrap()];
    file.read_exact_at(&mut bytes, 0).unwrap();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// How a process ended, and what it said.
#[derive(Debug)]
pub struct Ended {
    status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
    pub took: Duration,
}

impl Ended {
    /// The status as shells give it: 128 and its number after a signal.
    pub fn code(&self) -> i32 {
        let by_signal = self.status.signal().map(|number| 128 + number);
        self.status.code().or(by_signal).unwrap()
    }

    /// Whether a signal killed it, rather than made it end in an orderly way.
    pub fn was_killed(&self) -> bool {
        self.status.signal().is_some()
    }

    #[track_caller]
    pub fn expect(self, code: i32) -> Self {
        assert_eq!(self.code(), code, "{self:?}");
        self
    }

    /// Ended soon.
    #[track_caller]
    pub fn soon(self) -> Self {
        assert!(self.took < SOON, "{self:?}");
        self
    }

    /// What the tool says on the one line that a person reads, when it ends with `code` and at once.
    #[track_caller]
    pub fn complaint(self, code: i32) -> String {
        let ended = self.expect(code).soon();
        let line = ended.stderr.strip_prefix("goldcrest: ").unwrap_or_default();
        assert_eq!(line.lines().count(), 1, "{ended:?}");
        line.trim_end().to_owned()
    }

    /// What is said of arguments that cannot be: status 2, a line with the reason, then where help is.
    #[track_caller]
    pub fn usage_error(self) -> String {
        let ended = self.expect(2).soon();
        assert!(ended.stderr.starts_with("error: "), "{ended:?}");
        assert!(ended.stderr.ends_with("'--help'.\n"), "{ended:?}");
        assert_eq!(ended.stdout, "");
        ended.stderr
    }
}

#[track_caller]
pub fn assert_contains(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "no {part:?} in {text:?}");
    }
}

/// The path of a program of `examples/unikernels`, which are built when one is first asked for.
pub fn unikernel(name: &str) -> PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    let built = || build_bare("examples/unikernels", "unikernels");
    BUILT.get_or_init(built).join(name)
}

/// The path of the guest firmware, which is built when it is first asked for.
pub fn firmware() -> PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    let built = || build_bare("firmware", "firmware");
    BUILT.get_or_init(built).join("firmware")
}

/// Builds the programs of a package without an operating system; Cargo sees to it that only one process at a time does.
/// Returns the folder that they are in.
fn build_bare(package: &str, folder: &str) -> PathBuf {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join(folder);
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let manifest = root.join(package).join("Cargo.toml");
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or("cargo".into()));
    cargo
        .args(["build", "--release", "--quiet", "--locked"])
        .arg("--manifest-path")
        .arg(manifest)
        .arg("--target-dir")
        .arg(&target);
    // As in build.rs: what is meant for these tests is not meant for programs without an operating system.
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy().into_owned();
        let for_this_build = name.starts_with("CARGO_") && name != "CARGO_HOME";
        if for_this_build || name.starts_with("RUSTC") || name.contains("RUSTFLAGS") {
            cargo.env_remove(name);
        }
    }
    assert!(
        cargo.status().unwrap().success(),
        "{package} does not build"
    );
    target.join("release")
}

/// Builds `examples/guests/KIND` with more options for the compiler, and gives the image `name`; nothing where there is no
/// compiler, and says so.
pub fn build_guest(kind: &str, name: &str, options: &[String]) -> Option<PathBuf> {
    let guests = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/guests");
    let source = guests.join(kind);
    let image = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("guest-{name}"));
    let flags = fs::read_to_string(source.join("flags")).unwrap();
    let mut gcc = Command::new("gcc");
    gcc.args(flags.split_whitespace()).args(options);
    gcc.arg("-T").arg(source.join("link.ld"));
    gcc.arg(source.join("guest.c")).arg("-o").arg(&image);
    match gcc.output() {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            println!("skipped: no gcc");
            None
        }
        output => {
            let output = output.unwrap();
            assert!(output.status.success(), "{output:?}");
            Some(image)
        }
    }
}

/// A file with these bytes, until it is dropped.
pub fn file(bytes: impl AsRef<[u8]>) -> tempfile::TempPath {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(&file, bytes).unwrap();
    file.into_temp_path()
}
