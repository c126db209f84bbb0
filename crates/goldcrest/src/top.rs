//! `goldcrest top`: a live table of this host's machines.
//!
//! It is drawn by a few escape sequences: the crates that do so for every program would make this one 230 KiB larger.
//! Whatever machines and other processes say is clipped, and rid of what a terminal obeys.

mod ask;
mod process;
mod sample;
mod table;

use std::fs::File;
use std::io::{self, IsTerminal, Read};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use self::sample::{Row, Samples};
use crate::args::seconds;
use crate::failure::Failure;
use crate::terminal::{self, Stdin};
use crate::{print, run, signals};

/// How the table is shown.
#[derive(Debug, clap::Args)]
pub(crate) struct TopOptions {
    /// How often it is drawn anew, in seconds
    #[arg(long, short, value_name = "SECONDS", default_value = "1", value_parser = seconds)]
    pub(crate) interval: Duration,

    /// Draw it once, with rates over one interval
    #[arg(long)]
    pub(crate) once: bool,

    /// Print each table as an array of JSON on a line of its own
    #[arg(long)]
    pub(crate) json: bool,
}

/// Set by a signal, or by who sits at the keyboard.
static ENDS: AtomicBool = AtomicBool::new(false);

/// Shows the machines until somebody has seen enough.
pub(crate) fn top(options: &TopOptions) -> Result<u8, Failure> {
    let lives = io::stdout().is_terminal() && !options.once && !options.json;
    let once = options.once || !(lives || options.json);
    signals::call_at_end(|| ENDS.store(true, Ordering::SeqCst))?;
    let keyboard = match terminal::stdin_kind() {
        Stdin::Terminal if lives => {
            signals::guard_terminal()?;
            terminal::make_raw();
            Some(run::duplicate(io::stdin().as_fd(), "standard input")?)
        }
        _ => None,
    };
    let mut samples = Samples::default();
    samples.take();
    // What there is of rates is shown as soon as there are any, and all else at once.
    if lives {
        draw(&samples.rows())?;
    }
    loop {
        wait(options.interval, keyboard.as_ref());
        if ENDS.load(Ordering::SeqCst) {
            return Ok(0);
        }
        samples.take();
        let rows = samples.rows();
        match (lives, options.json) {
            (true, _) => draw(&rows)?,
            (false, true) => {
                let line = serde_json::to_string(&rows).unwrap_or_default();
                print(format!("{line}\n").as_bytes())?;
            }
            (false, false) => {
                print(table::text(&rows, None).as_bytes())?;
            }
        }
        if once {
            return Ok(0);
        }
    }
}

/// Fills the screen.
fn draw(rows: &[Row]) -> Result<(), Failure> {
    terminal::enter_screen();
    let size = terminal::size();
    let text = table::text(rows, size).replace('\n', "\x1b[K\r\n");
    print(format!("\x1b[H{text}\x1b[J").as_bytes()).map(|_| ())
}

/// Waits for the time for the next table, or until it is to end: by a signal, by `q` or by Ctrl-C.
fn wait(interval: Duration, keyboard: Option<&File>) {
    let until = Instant::now() + interval;
    while !ENDS.load(Ordering::SeqCst) {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return;
        }
        let Some(mut keyboard) = keyboard else {
            // A signal may come just before it: it is not slept through for long.
            sleep(left.min(Duration::from_millis(100)));
            continue;
        };
        let left =
            PollTimeout::try_from(left.min(Duration::from_secs(1))).unwrap_or(PollTimeout::ZERO);
        let mut ready = [PollFd::new(keyboard.as_fd(), PollFlags::POLLIN)];
        match poll(&mut ready, left) {
            Ok(0) | Err(Errno::EINTR) => continue,
            Ok(_) => {}
            Err(_) => return,
        }
        let mut keys = [0; 64];
        let count = match keyboard.read(&mut keys) {
            // The terminal is gone.
            Ok(0) | Err(_) => return ENDS.store(true, Ordering::SeqCst),
            Ok(count) => count,
        };
        let typed = keys.get(..count).unwrap_or_default();
        if typed.iter().any(|key| [b'q', b'Q', 3, 4].contains(key)) {
            ENDS.store(true, Ordering::SeqCst);
        }
    }
}
