//! The terminal: raw while a guest listens to it, and as it was when the tool ends, however it ends.

use std::io::{IsTerminal, stdin, stdout};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::sys::termios::{SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr};
use nix::unistd::{getpgrp, tcgetpgrp, write};
use vmm_sys_util::signal::block_signal;

/// How the terminal was before it was first made raw.
static SAVED: OnceLock<libc::termios> = OnceLock::new();
/// Whether it is raw now.
static RAW: AtomicBool = AtomicBool::new(false);

/// What standard input is to the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stdin {
    /// A terminal that this process may read.
    Terminal,
    /// A terminal that another job has: reading it would stop this process.
    Background,
    /// A pipe, a file.
    Stream,
}

pub(crate) fn stdin_kind() -> Stdin {
    if !stdin().is_terminal() {
        Stdin::Stream
    } else if tcgetpgrp(stdin()).is_ok_and(|group| group == getpgrp()) {
        Stdin::Terminal
    } else {
        Stdin::Background
    }
}

/// Makes the terminal raw: every key reaches the guest as it is. Takes no lock: a signal handler calls it too.
pub(crate) fn make_raw() {
    let Ok(before) = tcgetattr(stdin()) else {
        return;
    };
    let before = Termios::from(*SAVED.get_or_init(|| before.into()));
    let mut raw = before.clone();
    cfmakeraw(&mut raw);
    // The guest's output is not raw: a newline still returns the cursor.
    raw.output_flags = before.output_flags;
    RAW.store(
        tcsetattr(stdin(), SetArg::TCSANOW, &raw).is_ok(),
        Ordering::SeqCst,
    );
}

/// Whether the screen is another than what stands there before and afterwards.
static SCREEN: AtomicBool = AtomicBool::new(false);
/// The terminal's other screen, without a cursor; and back (xterm's private modes 1049 and 25).
const ENTER: &[u8] = b"\x1b[?1049h\x1b[?25l";
const LEAVE: &[u8] = b"\x1b[?25h\x1b[?1049l";

/// Has what is written fill a screen of its own, until the terminal is put back.
pub(crate) fn enter_screen() {
    if !SCREEN.swap(true, Ordering::SeqCst) {
        let _ = write(stdout(), ENTER);
    }
}

/// Columns and lines of the terminal.
pub(crate) fn size() -> Option<(usize, usize)> {
    let size = rustix::termios::tcgetwinsize(stdout()).ok()?;
    let known = size.ws_col > 0 && size.ws_row > 0;
    known.then_some((size.ws_col.into(), size.ws_row.into()))
}

/// Puts the terminal back as it was. Takes no lock: signal handlers call it too.
pub(crate) fn restore() {
    if SCREEN.swap(false, Ordering::SeqCst) {
        let _ = write(stdout(), LEAVE);
    }
    if RAW.swap(false, Ordering::SeqCst)
        && let Some(before) = SAVED.get()
    {
        // Or the process would be stopped where it has been moved to the background.
        let _ = block_signal(libc::SIGTTOU);
        // Nothing can be done about a terminal that is gone.
        let _ = tcsetattr(stdin(), SetArg::TCSANOW, &Termios::from(*before));
    }
}

/// A panic ends the process without unwinding, so the terminal is put back before.
pub(crate) fn restore_on_panic() {
    let print = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        restore();
        print(info);
    }));
}
