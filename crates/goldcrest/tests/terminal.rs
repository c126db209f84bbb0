//! The tool on a terminal: raw exactly while a guest listens, and afterwards as it was, however the run ended.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "tests"
)]

mod support;

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::fcntl::OFlag;
use nix::pty::{PtyMaster, grantpt, posix_openpt, ptsname_r, unlockpt};
use nix::sys::signal::Signal;
use nix::sys::termios::{LocalFlags, OutputFlags, Termios, tcgetattr};
use support::guests::{FOR_EVER, echo, guest, impatient, listen, print};
use support::*;

const CTRL_A: &str = "\x01";

/// A pseudo terminal, whose keyboard and screen is the test.
struct Terminal {
    master: PtyMaster,
    /// Held open, so that the terminal outlives the tool and its settings can be looked at.
    slave: File,
    before: Termios,
    screen: String,
}

impl Terminal {
    fn new() -> Self {
        // Closed on exec, or the processes of other tests would hold it open.
        let flags = OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
        let master = posix_openpt(flags).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let slave = File::options()
            .read(true)
            .write(true)
            .custom_flags(OFlag::O_NOCTTY.bits())
            .open(ptsname_r(&master).unwrap())
            .unwrap();
        let terminal = Self {
            before: tcgetattr(&slave).unwrap(),
            master,
            slave,
            screen: String::new(),
        };
        assert!(!terminal.is_raw());
        terminal
    }

    /// Starts a command as the leader of a session that has this terminal. The process is the command's own.
    fn start(&self, tool: &Command) -> Running {
        let mut command = Command::new("setsid");
        command
            .arg("--ctty")
            .arg(tool.get_program())
            .args(tool.get_args());
        command
            .stdin(self.slave.try_clone().unwrap())
            .stdout(self.slave.try_clone().unwrap());
        Running::start_as_leader(&mut command)
    }

    /// Starts a guest, and waits for its first output and the terminal being raw.
    fn boot(&mut self, tool: &Command) -> Running {
        let running = self.start(tool);
        self.wait_for(">");
        self.wait_until("the terminal is raw", |terminal| terminal.is_raw());
        running
    }

    fn is_raw(&self) -> bool {
        let now = tcgetattr(&self.slave).unwrap();
        !now.local_flags
            .intersects(LocalFlags::ICANON | LocalFlags::ECHO | LocalFlags::ISIG)
    }

    fn is_as_before(&self) -> bool {
        tcgetattr(&self.slave).unwrap() == self.before
    }

    fn type_keys(&mut self, keys: &str) {
        self.master.write_all(keys.as_bytes()).unwrap();
    }

    /// Waits until the screen has shown `text`.
    fn wait_for(&mut self, text: &str) {
        self.wait_until(text, |terminal| terminal.screen.contains(text));
    }

    fn wait_until(&mut self, what: &str, reached: impl Fn(&Self) -> bool) {
        let begun = Instant::now();
        while !reached(self) {
            assert!(
                begun.elapsed() < SOON,
                "not reached: {what}; screen: {:?}",
                self.screen
            );
            self.read_screen();
            sleep(Duration::from_millis(1));
        }
    }

    fn read_screen(&mut self) {
        let mut bytes = [0; 4096];
        match self.master.read(&mut bytes) {
            Ok(count) => self.screen += &String::from_utf8_lossy(&bytes[..count]),
            Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
        }
    }
}

#[test]
fn keys_reach_the_guest_as_they_are_and_nothing_else_echoes_them() {
    if skip_without_kvm() {
        return;
    }
    let (mut terminal, image) = (Terminal::new(), echo());
    let running = terminal.boot(&boot(&image));
    // Ctrl-C, Ctrl-Z, Ctrl-D, Escape and Return are keys like others.
    terminal.type_keys("a\x03\x1a\x04\x1b\r!");
    terminal.wait_for(">a\x03\x1a\x04\x1b\r!");
    terminal.type_keys("q");
    let ended = running.finish().expect(3);
    assert_eq!(ended.stderr, "");
    assert!(terminal.is_as_before());
    assert_eq!(terminal.screen, ">a\x03\x1a\x04\x1b\r!");
}

#[test]
fn ctrl_a_x_ends_the_guest() {
    if skip_without_kvm() {
        return;
    }
    let (mut terminal, image) = (Terminal::new(), echo());
    let running = terminal.boot(&boot(&image));
    terminal.type_keys(CTRL_A);
    terminal.type_keys("x");
    assert_eq!(running.finish().soon().expect(0).stderr, "");
    assert!(terminal.is_as_before());
}

#[test]
fn ctrl_a_twice_is_one_ctrl_a_and_before_other_keys_it_is_itself() {
    if skip_without_kvm() {
        return;
    }
    let (mut terminal, image) = (Terminal::new(), echo());
    let running = terminal.boot(&boot(&image));
    terminal.type_keys(&[CTRL_A, CTRL_A, "x", CTRL_A, "b", "."].concat());
    terminal.wait_for(".");
    assert_eq!(terminal.screen, [">", CTRL_A, "x", CTRL_A, "b."].concat());
    terminal.type_keys("q");
    running.finish().expect(3);
}

#[test]
fn a_guest_that_does_not_listen_leaves_the_terminal_alone() {
    if skip_without_kvm() {
        return;
    }
    let (mut terminal, image) = (Terminal::new(), guests::spinning());
    let running = terminal.start(&boot(&image));
    terminal.wait_for(">");
    sleep(Duration::from_millis(50));
    assert!(terminal.is_as_before());
    // So Ctrl-C is the terminal's.
    terminal.type_keys("\x03");
    running.finish().soon().expect(130);
}

#[test]
fn a_guest_that_enables_the_interrupt_listens() {
    if skip_without_kvm() {
        return;
    }
    let (mut terminal, image) = (
        Terminal::new(),
        guest(&[&listen(), &print(b'>'), &FOR_EVER]),
    );
    let running = terminal.boot(&boot(&image));
    // More than the serial port holds: what the guest does not read must not keep us from seeing the end.
    terminal.type_keys(&"a".repeat(20));
    terminal.type_keys(&[CTRL_A, "x"].concat());
    running.finish().soon().expect(0);
    assert!(terminal.is_as_before());
}

#[test]
fn lines_of_a_guest_begin_at_the_left() {
    if skip_without_kvm() {
        return;
    }
    let (mut terminal, image) = (Terminal::new(), echo());
    let running = terminal.boot(&boot(&image));
    let flags = tcgetattr(&terminal.slave).unwrap().output_flags;
    assert!(flags.contains(OutputFlags::OPOST | OutputFlags::ONLCR));
    terminal.type_keys("\n.");
    terminal.wait_for(">\r\n.");
    terminal.type_keys("q");
    running.finish().expect(3);
}

#[test]
fn the_terminal_is_restored_after_signals() {
    if skip_without_kvm() {
        return;
    }
    let image = echo();
    for signal in [
        Signal::SIGINT,
        Signal::SIGTERM,
        Signal::SIGHUP,
        Signal::SIGQUIT,
    ] {
        let mut terminal = Terminal::new();
        let running = terminal.boot(&boot(&image));
        running.signal(signal);
        running.finish().soon().expect(128 + signal as i32);
        assert!(terminal.is_as_before(), "{signal}");
    }
}

#[test]
fn the_terminal_is_restored_when_time_is_up() {
    if skip_without_kvm() {
        return;
    }
    let (mut terminal, image) = (Terminal::new(), echo());
    let running = terminal.boot(boot(&image).args(["--timeout", "1"]));
    assert_eq!(
        running.finish().complaint(124),
        "time is up: the guest was stopped"
    );
    assert!(terminal.is_as_before());
}

#[test]
fn the_terminal_is_restored_when_the_guest_crashes() {
    if skip_without_kvm() {
        return;
    }
    let (mut terminal, image) = (Terminal::new(), echo());
    let running = terminal.boot(&boot(&image));
    terminal.type_keys("c");
    assert_contains(
        &running.finish().soon().expect(1).stderr,
        &["triple fault", "ud2"],
    );
    assert!(terminal.is_as_before());
}

#[test]
fn a_terminal_that_goes_away_ends_the_guest() {
    if skip_without_kvm() {
        return;
    }
    let (mut terminal, image) = (Terminal::new(), echo());
    let running = terminal.boot(&boot(&image));
    drop(terminal);
    running.finish().soon().expect(128 + Signal::SIGHUP as i32);
}

#[test]
fn in_the_background_a_guest_runs_without_input() {
    if skip_without_kvm() {
        return;
    }
    let (terminal, image) = (Terminal::new(), impatient());
    // With -m, a job has a process group of its own; reading the terminal would stop it.
    let mut shell = Command::new("sh");
    shell.args(["-mc", "\"$@\" & wait $!", "sh"]);
    let tool = boot(&image);
    shell.arg(tool.get_program()).args(tool.get_args());
    terminal.start(&shell).finish().soon().expect(5);
    assert!(terminal.is_as_before());
}

#[test]
fn a_live_table_leaves_the_terminal_as_it_was() {
    for how in ["q", "\x03", ""] {
        let mut terminal = Terminal::new();
        let mut tool = goldcrest();
        tool.arg("top");
        let running = terminal.start(&tool);
        terminal.wait_for("\x1b[?1049h");
        terminal.wait_for("PID");
        assert!(terminal.is_raw());
        match how {
            "" => running.signal(Signal::SIGTERM),
            keys => terminal.type_keys(keys),
        }
        terminal.wait_for("\x1b[?1049l");
        running.finish().expect(0);
        assert!(terminal.is_as_before(), "{how:?}");
    }
}
