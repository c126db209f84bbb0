//! The terminal: raw while a guest listens to it, and as it was when the tool ends, however it ends.

use std::io::{IsTerminal, stdin};
use std::sync::Mutex;

use nix::sys::termios::{SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr};
use nix::unistd::{getpgrp, tcgetpgrp};

/// How the terminal was before it was made raw.
static SAVED: Mutex<Option<Termios>> = Mutex::new(None);

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

/// Makes the terminal raw: every key reaches the guest as it is.
pub(crate) fn make_raw() {
    let Ok(mut saved) = SAVED.lock() else { return };
    if saved.is_some() {
        return;
    }
    if let Ok(before) = tcgetattr(stdin()) {
        let mut raw = before.clone();
        cfmakeraw(&mut raw);
        // The guest's output is not raw: a newline still returns the cursor.
        raw.output_flags = before.output_flags;
        if tcsetattr(stdin(), SetArg::TCSANOW, &raw).is_ok() {
            *saved = Some(before);
        }
    }
}

/// Puts the terminal back as it was.
pub(crate) fn restore() {
    if let Ok(mut saved) = SAVED.try_lock()
        && let Some(before) = saved.take()
    {
        // Nothing can be done about a terminal that is gone.
        let _ = tcsetattr(stdin(), SetArg::TCSANOW, &before);
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
