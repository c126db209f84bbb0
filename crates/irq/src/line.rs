//! Interrupt lines.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The far end of interrupt lines: an interrupt controller's inputs, or a test.
///
/// Implementations are called from any thread, on changes only, in their order for each source. They must not set the
/// line that they are told of.
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
    /// Locked while the sink is told, so that it hears of changes in their order.
    level: Mutex<bool>,
}

impl IrqLine {
    /// A new source on input `pin` of `sink`, low.
    pub fn new(sink: Arc<dyn LineSink>, pin: u32) -> Self {
        Self(Arc::new(Source {
            sink: Some((sink, pin)),
            level: Mutex::new(false),
        }))
    }

    /// A line that leads nowhere but remembers its level, for tests and fuzzers.
    pub fn detached() -> Self {
        Self(Arc::new(Source {
            sink: None,
            level: Mutex::new(false),
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
        *self.0.lock()
    }
}

impl Source {
    fn set(&self, up: bool) {
        let mut level = self.lock();
        if std::mem::replace(&mut *level, up) != up
            && let Some((sink, pin)) = &self.sink
        {
            sink.set_source(*pin, up);
        }
    }

    fn lock(&self) -> MutexGuard<'_, bool> {
        self.level.lock().unwrap_or_else(PoisonError::into_inner)
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
    fn threads_that_pulse_one_source_leave_it_down_at_its_sink() {
        #[derive(Default)]
        struct Level(Mutex<bool>);
        impl LineSink for Level {
            fn set_source(&self, _: u32, up: bool) {
                *self.0.lock().unwrap() = up;
            }
        }
        for _ in 0..200 {
            let sink = Arc::new(Level::default());
            let line = IrqLine::new(sink.clone(), 0);
            std::thread::scope(|scope| {
                for _ in 0..2 {
                    scope.spawn(|| (0..200).for_each(|_| line.pulse()));
                }
            });
            assert!(!*sink.0.lock().unwrap());
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
