//! The menu on the serial port: a state machine of keys and time, and what it shows.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::Write;

use crate::entry::{Entry, Timeout};
use crate::file::Printable;

/// Lines of entries that are shown at most: a terminal has 24.
const LINES: usize = 16;
/// Characters of a line at most.
const COLUMNS: usize = 76;
/// How long after an escape what belongs to it may come, in nanoseconds.
const SECOND: u64 = 1_000_000_000;

/// The menu.
#[derive(Debug)]
pub struct Menu {
    titles: Vec<String>,
    selected: usize,
    /// When the selected entry is started, in nanoseconds; `None`: when a key says so.
    deadline: Option<u64>,
    /// The second that was last shown.
    shown: Option<u64>,
    escape: Escape,
}

/// How much of the sequence of an arrow key has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Escape {
    None,
    Begun,
    Bracket,
}

impl Menu {
    /// A menu in which `selected` is started when `timeout` has passed from `now` (nanoseconds) on; `None` if there is
    /// nothing to ask.
    pub fn new(entries: &[Entry], selected: usize, timeout: Timeout, now: u64) -> Option<Self> {
        let deadline = match timeout {
            Timeout::None => return None,
            Timeout::Seconds(seconds) => {
                Some(now.saturating_add(u64::from(seconds).saturating_mul(SECOND)))
            }
            Timeout::Forever => None,
        };
        Some(Self {
            titles: titles(entries),
            selected,
            deadline,
            shown: None,
            escape: Escape::None,
        })
    }

    /// What is shown at first.
    pub fn draw(&self) -> String {
        let mut text =
            String::from("\r\n  Goldcrest: choose what to boot (arrow keys, Enter)\r\n\r\n");
        self.draw_entries(&mut text);
        text
    }

    /// A key was pressed, of which this is a byte. Gives the entry to start, if it says so; else what to show.
    pub fn key(&mut self, byte: u8) -> Result<usize, String> {
        // Whoever presses a key wants to choose.
        self.deadline = None;
        let (escape, step) = match (self.escape, byte) {
            (_, 0x1b) => (Escape::Begun, 0),
            (Escape::Begun, b'[' | b'O') => (Escape::Bracket, 0),
            (Escape::Bracket, b'A') | (Escape::None, b'k') => (Escape::None, -1),
            (Escape::Bracket, b'B') | (Escape::None, b'j') => (Escape::None, 1),
            (Escape::None, b'\r' | b'\n') => return Ok(self.selected),
            _ => (Escape::None, 0),
        };
        self.escape = escape;
        let last = self.titles.len().saturating_sub(1);
        self.selected = self.selected.saturating_add_signed(step).min(last);
        Err(self.redraw())
    }

    /// Time has passed. Gives the entry to start if it was enough; else what to show, if that is something new.
    pub fn tick(&mut self, now: u64) -> Result<usize, Option<String>> {
        let Some(deadline) = self.deadline else {
            return Err(None);
        };
        if now >= deadline {
            return Ok(self.selected);
        }
        let left = Some((deadline - now).div_ceil(SECOND));
        if left == self.shown {
            return Err(None);
        }
        self.shown = left;
        Err(Some(self.redraw()))
    }

    /// The entries, over those that were shown before.
    fn redraw(&self) -> String {
        let mut text = format!("\x1b[{}A\r", self.lines().saturating_add(1));
        self.draw_entries(&mut text);
        text
    }

    /// Lines of entries.
    fn lines(&self) -> usize {
        self.titles.len().min(LINES)
    }

    fn draw_entries(&self, text: &mut String) {
        // Those around the selected one.
        let first = self
            .selected
            .saturating_sub(LINES / 2)
            .min(self.titles.len().saturating_sub(LINES));
        let titles = self.titles.iter().enumerate().skip(first).take(LINES);
        for (index, title) in titles {
            let (mark, on, off) = match index == self.selected {
                true => ('>', "\x1b[7m", "\x1b[m"),
                false => (' ', "", ""),
            };
            // Writing to a string does not fail.
            let _ = write!(text, "  {mark} {on}{title}{off}\x1b[K\r\n");
        }
        let _ = match self.shown.filter(|_| self.deadline.is_some()) {
            Some(seconds) => write!(text, "  in {seconds} s\x1b[K\r\n"),
            None => write!(text, "\x1b[K\r\n"),
        };
    }
}

/// What entries are called: where titles are the same, with what tells them apart.
fn titles(entries: &[Entry]) -> Vec<String> {
    let mut titles: Vec<String> = entries.iter().map(|entry| entry.name().into()).collect();
    for key in [
        (|entry: &Entry| entry.version.clone()) as fn(&Entry) -> Option<String>,
        |entry| entry.machine_id.clone(),
        |entry| Some(entry.id.clone()),
        |entry| Some(entry.place.clone()),
    ] {
        let before = titles.clone();
        for (title, entry) in titles.iter_mut().zip(entries) {
            let same = before.iter().filter(|other| *other == title).count() > 1;
            if let Some(value) = key(entry).filter(|_| same) {
                // Writing to a string does not fail.
                let _ = write!(title, " ({value})");
            }
        }
    }
    let bad = |entry: &Entry| if entry.is_bad() { " [failed]" } else { "" };
    let lines = titles.iter().zip(entries);
    lines
        .map(|(title, entry)| {
            let title = format!("{}{}", Printable(title), bad(entry));
            title.chars().take(COLUMNS).collect()
        })
        .collect()
}
