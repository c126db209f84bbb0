//! Output that tells when its first byte came.

use std::io::{self, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// Takes output and forgets it. Clones share it.
#[derive(Clone)]
pub(crate) struct FirstByte(Arc<Shared>);

struct Shared {
    begun: Instant,
    state: Mutex<State>,
    changed: Condvar,
    then: Box<dyn Fn() + Send + Sync>,
}

#[derive(Default)]
struct State {
    came: Option<u128>,
    held: bool,
}

impl FirstByte {
    /// Counts from now, and calls `then` on the thread that writes.
    pub(crate) fn new(then: impl Fn() + Send + Sync + 'static) -> Self {
        Self(Arc::new(Shared {
            begun: Instant::now(),
            state: Mutex::default(),
            changed: Condvar::new(),
            then: Box::new(then),
        }))
    }

    /// Has whoever writes wait until it is [released](Self::release).
    pub(crate) fn hold(&self) {
        self.lock().held = true;
    }

    pub(crate) fn release(&self) {
        self.lock().held = false;
        self.0.changed.notify_all();
    }

    /// Nanoseconds until the first byte came, when it has.
    pub(crate) fn wait(&self) -> u128 {
        loop {
            let state = self.0.changed.wait_while(self.lock(), |s| s.came.is_none());
            if let Some(came) = state.unwrap_or_else(PoisonError::into_inner).came {
                return came;
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Write for FirstByte {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let now = self.0.begun.elapsed().as_nanos();
        let mut state = self.lock();
        if state.came.is_none() {
            state.came = Some(now);
            (self.0.then)();
            self.0.changed.notify_all();
        }
        drop(self.0.changed.wait_while(state, |state| state.held));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
