//! Where a guest's console output goes.

use std::fmt;
use std::io::{self, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

/// How long a write waits for a non-blocking sink to take more, in all.
const PATIENCE: Duration = Duration::from_secs(10);
/// The first pause; each is twice as long as the one before, up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(1);
const LONGEST_PAUSE: Duration = Duration::from_millis(64);

/// The end that serial ports and console doorbells write to. Clones share one sink.
///
/// Nothing is buffered: when a write returns, the sink has the bytes, so that none are lost when the guest or the
/// monitor dies in the next instruction. Bytes of one [`write`](Self::write) are not mixed with those of another.
///
/// A sink should block. One that does not (a terminal that another process has made non-blocking) is tried again
/// after pauses that grow to 64 ms; after ten seconds without room for even one byte the write fails. A write that was
/// interrupted goes on, unless there is reason to [give up](Self::give_up_when).
#[derive(Clone)]
pub struct Output(Arc<Mutex<Shared>>);

struct Shared {
    sink: Box<dyn Write + Send>,
    first_byte: Option<Box<dyn FnOnce() + Send>>,
    gives_up: Box<dyn Fn() -> bool + Send>,
}

impl Output {
    /// Output to `sink`, which should block and not buffer.
    pub fn new(sink: impl Write + Send + 'static) -> Self {
        Self(Arc::new(Mutex::new(Shared {
            sink: Box::new(sink),
            first_byte: None,
            gives_up: Box::new(|| false),
        })))
    }

    /// Output that nobody wants.
    pub fn discard() -> Self {
        Self::new(io::sink())
    }

    /// Output that is collected in memory, without a bound: for tests.
    pub fn capture() -> (Self, Capture) {
        let capture = Capture::default();
        (Self::new(capture.clone()), capture)
    }

    /// Has `hook` called once, when the sink has taken the first bytes from now on; with the output locked, so `hook`
    /// must not write to it.
    pub fn on_first_byte(&self, hook: impl FnOnce() + Send + 'static) {
        self.lock().first_byte = Some(Box::new(hook));
    }

    /// Has a write that is interrupted, or waits for room, fail once `stopped` says so: without it, a sink that nobody
    /// reads would hold a machine that is to end.
    pub fn give_up_when(&self, stopped: impl Fn() -> bool + Send + 'static) {
        self.lock().gives_up = Box::new(stopped);
    }

    /// Writes all of `bytes` and flushes.
    ///
    /// # Errors
    ///
    /// What the sink says, also that it was interrupted; a part of `bytes` may have been written then.
    pub fn write(&self, bytes: &[u8]) -> io::Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        let mut shared = self.lock();
        let Shared { sink, gives_up, .. } = &mut *shared;
        write_all(&mut **sink, bytes, gives_up)?;
        if let Some(hook) = shared.first_byte.take() {
            hook();
        }
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What vm-superio's serial port writes to.
impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Self::write(self, bytes).map(|()| bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl fmt::Debug for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Output")
    }
}

fn write_all(
    sink: &mut dyn Write,
    mut bytes: &[u8],
    gives_up: &dyn Fn() -> bool,
) -> io::Result<()> {
    while !bytes.is_empty() {
        let written = patiently(|| sink.write(bytes), gives_up)?;
        if written == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        bytes = bytes.get(written..).unwrap_or_default();
    }
    patiently(|| sink.flush(), gives_up)
}

/// Does `action` again while it is interrupted or would block, sleeping in between, unless that is in vain.
fn patiently<T>(
    mut action: impl FnMut() -> io::Result<T>,
    gives_up: &dyn Fn() -> bool,
) -> io::Result<T> {
    let mut pause = FIRST_PAUSE;
    let mut waited = Duration::ZERO;
    loop {
        let error = match action() {
            Err(error) if is_passing(error.kind()) => error,
            result => return result,
        };
        if gives_up() {
            // Not as interrupted: `Write::write_all` of whoever is in between would try that again.
            return Err(io::Error::other(GivenUp));
        }
        if error.kind() == io::ErrorKind::WouldBlock {
            if waited >= PATIENCE {
                return Err(error);
            }
            thread::sleep(pause);
            waited = waited.saturating_add(pause);
            pause = pause.saturating_mul(2).min(LONGEST_PAUSE);
        }
    }
}

fn is_passing(kind: io::ErrorKind) -> bool {
    matches!(kind, io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock)
}

/// Why a write failed that was told to give up.
#[derive(Debug, thiserror::Error)]
#[error("the output is not read, and the machine is to end")]
struct GivenUp;

/// What an [`Output::capture`] has collected. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Capture(Arc<Mutex<Vec<u8>>>);

impl Capture {
    /// Takes what has been written since the last call.
    pub fn take(&self) -> Vec<u8> {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Write for Capture {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    /// Takes one byte at a time, and refuses first with each of `refusals`.
    struct Reluctant {
        refusals: Vec<io::ErrorKind>,
        taken: Capture,
    }

    impl Write for Reluctant {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            match self.refusals.pop() {
                Some(kind) => Err(kind.into()),
                None => self.taken.write(&bytes[..1]),
            }
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn reluctant(refusals: &[io::ErrorKind]) -> (Output, Capture) {
        let taken = Capture::default();
        let sink = Reluctant {
            refusals: refusals.to_vec(),
            taken: taken.clone(),
        };
        (Output::new(sink), taken)
    }

    #[test]
    fn short_writes_interruptions_and_would_block_lose_nothing() {
        use io::ErrorKind::{Interrupted, WouldBlock};
        let (output, taken) = reluctant(&[WouldBlock, Interrupted, WouldBlock, Interrupted]);
        output.write(b"hello").unwrap();
        assert_eq!(taken.take(), b"hello");
    }

    #[test]
    fn a_failure_is_reported() {
        let (output, taken) = reluctant(&[io::ErrorKind::BrokenPipe]);
        let error = output.write(b"hello").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
        assert_eq!(taken.take(), b"");

        let full: &mut [u8] = Box::leak(Box::new([0_u8; 2]));
        let error = Output::new(full).write(b"abc").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::WriteZero);
    }

    #[test]
    fn an_interrupted_write_gives_up_when_told() {
        use io::ErrorKind::{Interrupted, WouldBlock};
        for kind in [Interrupted, WouldBlock] {
            let (output, taken) = reluctant(&[kind; 100]);
            let asked = AtomicUsize::new(0);
            output.give_up_when(move || asked.fetch_add(1, Ordering::Relaxed) == 3);
            let error = output.write(b"x").unwrap_err();
            assert!(error.to_string().contains("is not read"), "{error}");
            assert_eq!(taken.take(), b"");
        }
    }

    #[test]
    fn the_first_byte_is_seen_once_and_only_when_written() {
        let (output, _taken) = reluctant(&[io::ErrorKind::BrokenPipe]);
        let seen = Arc::new(AtomicUsize::new(0));
        let hook = Arc::clone(&seen);
        output.on_first_byte(move || {
            hook.fetch_add(1, Ordering::Relaxed);
        });
        output.write(b"").unwrap();
        output.write(b"a").unwrap_err();
        assert_eq!(seen.load(Ordering::Relaxed), 0);
        output.clone().write(b"a").unwrap();
        output.write(b"b").unwrap();
        assert_eq!(seen.load(Ordering::Relaxed), 1);
    }
}
