//! From events to lines.
//!
//! There is a crate that does this for every program; it would make this one 160 KiB larger, and its lines would still
//! have to be formatted here to be as clients of Firecracker's API set them.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use goldcrest_monitor::GUEST;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tracing::level_filters::LevelFilter;
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

use super::limits::Limits;
use super::line::{Content, Style};

/// The log of a process.
#[derive(Default)]
pub(super) struct Log {
    /// What is written at least is of this level: an index of [`LEVELS`].
    level: AtomicUsize,
    lost: AtomicU64,
    state: Mutex<State>,
}

const LEVELS: [LevelFilter; 6] = [
    LevelFilter::OFF,
    LevelFilter::ERROR,
    LevelFilter::WARN,
    LevelFilter::INFO,
    LevelFilter::DEBUG,
    LevelFilter::TRACE,
];

#[derive(Default)]
struct State {
    settings: Settings,
    style: Style,
    limits: Limits,
}

/// What is written, and where.
pub(super) struct Settings {
    pub(super) sink: Sink,
    pub(super) level: LevelFilter,
    /// Events of modules whose path begins so, and no others.
    pub(super) module: Option<String>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            sink: Sink::StandardError,
            level: LevelFilter::OFF,
            module: None,
        }
    }
}

/// Where lines go.
pub(super) enum Sink {
    StandardError,
    /// Writing to it waits for nobody.
    File(File),
}

impl Sink {
    /// Writes a line in one piece, or not at all.
    fn write(&mut self, line: &[u8]) -> io::Result<()> {
        match self {
            Self::File(file) => file.write_all(line),
            Self::StandardError => {
                let stderr = io::stderr();
                let mut ready = [PollFd::new(stderr.as_fd(), PollFlags::POLLOUT)];
                // What has room has room for a line.
                if poll(&mut ready, PollTimeout::ZERO)? == 0 {
                    return Err(io::ErrorKind::WouldBlock.into());
                }
                stderr.lock().write_all(line)
            }
        }
    }
}

impl Log {
    /// Changes how and where lines are written.
    pub(super) fn set(&self, change: impl FnOnce(&mut Settings, &mut Style)) {
        let mut state = self.state();
        let State {
            settings, style, ..
        } = &mut *state;
        change(settings, style);
        let level = LEVELS.iter().position(|level| *level == settings.level);
        self.level.store(level.unwrap_or(0), Ordering::Relaxed);
        drop(state);
        tracing::callsite::rebuild_interest_cache();
    }

    /// How many lines could not be written.
    pub(super) fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    /// Says how many lines were left out of which nothing has been said.
    pub(super) fn end(&self) {
        let untold = self.state().limits.untold();
        for (place, left_out) in untold {
            tracing::warn!(place, left_out, "more of this was left out");
        }
    }

    fn level(&self) -> LevelFilter {
        let level = LEVELS.get(self.level.load(Ordering::Relaxed));
        level.copied().unwrap_or(LevelFilter::OFF)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// The line of an event, if it is to be written.
    fn line(&mut self, event: &Event<'_>) -> Option<String> {
        let metadata = event.metadata();
        let module = metadata.module_path().unwrap_or_default();
        let wanted = self.settings.module.as_deref();
        if wanted.is_some_and(|wanted| !module.starts_with(wanted)) {
            return None;
        }
        let left_out = match metadata.target() == GUEST {
            true => {
                let place = metadata.callsite();
                self.limits.admit(place, metadata.name(), Instant::now())?
            }
            false => 0,
        };
        let mut content = Content::default();
        event.record(&mut content);
        if left_out > 0 {
            content.add("left_out", left_out.into());
        }
        Some(self.style.line(metadata, &content))
    }
}

impl Subscriber for Log {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.is_event() && *metadata.level() <= self.level()
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(self.level())
    }

    fn event(&self, event: &Event<'_>) {
        let mut state = self.state();
        let Some(line) = state.line(event) else {
            return;
        };
        if state.settings.sink.write(line.as_bytes()).is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Nothing here has spans.
    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}
