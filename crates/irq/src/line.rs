//! Interrupt lines.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// The far end of interrupt lines: an interrupt controller's inputs, or a test.
///
/// Implementations are called from any thread, on changes only.
pub trait LineSink: Send + Sync {
    /// One source on input `pin` went up (`true`) or down (`false`). Sources are wired-or: the input is up while at
    /// least one source is.
    fn set_source(&self, pin: u32, up: bool);
}

/// One source's end of an interrupt wire, held by a device.
///
/// Cloning gives another handle to the same source. Dropping the last handle lowers the line.
#[derive(Clone)]
pub struct IrqLine(Arc<Source>);

struct Source {
    /// None when nothing is connected.
    sink: Option<(Arc<dyn LineSink>, u32)>,
    level: AtomicBool,
}

impl IrqLine {
    /// A new source on input `pin` of `sink`, low.
    pub fn new(sink: Arc<dyn LineSink>, pin: u32) -> Self {
        Self(Arc::new(Source {
            sink: Some((sink, pin)),
            level: AtomicBool::new(false),
        }))
    }

    /// A line that leads nowhere but remembers its level, for tests and fuzzers.
    pub fn detached() -> Self {
        Self(Arc::new(Source {
            sink: None,
            level: AtomicBool::new(false),
        }))
    }

    /// Drives the line high or low. Setting the level that it has already does nothing.
    pub fn set(&self, up: bool) {
        self.0.set(up);
    }

    /// Raises and lowers the line: an edge.
    pub fn pulse(&self) {
        self.set(true);
        self.set(false);
    }

    /// The level that this source drives.
    pub fn level(&self) -> bool {
        self.0.level.load(Ordering::Acquire)
    }
}

impl Source {
    fn set(&self, up: bool) {
        if self.level.swap(up, Ordering::AcqRel) != up
            && let Some((sink, pin)) = &self.sink
        {
            sink.set_source(*pin, up);
        }
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        self.set(false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    #[derive(Default)]
    struct Log(Mutex<Vec<(u32, bool)>>);

    impl LineSink for Log {
        fn set_source(&self, pin: u32, up: bool) {
            self.0.lock().unwrap().push((pin, up));
        }
    }

    #[test]
    fn only_changes_reach_the_sink_and_dropping_lowers() {
        let log = Arc::new(Log::default());
        let line = IrqLine::new(log.clone(), 4);
        line.set(false);
        line.set(true);
        line.clone().set(true);
        line.pulse();
        line.set(true);
        drop(line);
        let seen = log.0.lock().unwrap().clone();
        assert_eq!(seen, [(4, true), (4, false), (4, true), (4, false)]);
    }
}
