//! A file's io_uring.

use std::io;
use std::os::fd::BorrowedFd;

use vm_memory::GuestMemoryMmap;

use super::transfer::Step;

#[cfg(feature = "io-uring")]
pub(super) use with::FileRing;
#[cfg(not(feature = "io-uring"))]
pub(super) use without::FileRing;

/// How steps that are over ended; bytes, of transfers.
pub(super) type Ended = Vec<(u32, io::Result<usize>)>;

#[cfg(feature = "io-uring")]
mod with {
    use super::{BorrowedFd, Ended, GuestMemoryMmap, Step, io};
    use goldcrest_memory::io::{PrepareError, Ring};

    pub(in super::super) struct FileRing(Ring);

    impl FileRing {
        pub(in super::super) fn new(
            memory: &GuestMemoryMmap,
            depth: u32,
            files: &[BorrowedFd<'_>],
        ) -> io::Result<Self> {
            Ring::new(memory.clone(), depth, files).map(Self)
        }

        /// Prepares a step; false if there are as many as can be.
        pub(in super::super) fn prepare(
            &mut self,
            step: &Step<'_>,
            file: u32,
            token: u32,
        ) -> io::Result<bool> {
            let (ring, token) = (&mut self.0, u64::from(token));
            let prepared = match *step {
                Step::Read { offset, segments } => ring.prepare_read(file, segments, offset, token),
                Step::Write {
                    offset,
                    segments,
                    durability,
                } => ring.prepare_write(file, segments, offset, durability, token),
                Step::SyncData => ring.prepare_sync_data(file, token),
                Step::Deallocate { how, offset, len } => {
                    ring.prepare_deallocate(file, how, offset, len, token)
                }
                Step::WriteZeros { offset, len } => ring.prepare_zeros(file, offset, len, token),
            };
            match prepared {
                Ok(()) => Ok(true),
                Err(PrepareError::Full) => Ok(false),
                Err(error) => Err(io::Error::other(error)),
            }
        }

        /// Returns whether all that was prepared is under way.
        pub(in super::super) fn submit(&mut self) -> bool {
            matches!(self.0.submit(), Ok(0))
        }

        pub(in super::super) fn reap(&mut self, ended: &mut Ended) {
            self.0.clear_event();
            self.0
                .completions(|token, result| put(ended, token, result));
        }

        pub(in super::super) fn wait_all(&mut self, ended: &mut Ended) -> io::Result<()> {
            self.0.wait_all(|token, result| put(ended, token, result))
        }

        pub(in super::super) fn cancel_all(&mut self) -> io::Result<()> {
            self.0.cancel_all(|_, _| {})
        }

        pub(in super::super) fn event_fd(&self) -> BorrowedFd<'_> {
            self.0.event_fd()
        }
    }

    fn put(ended: &mut Ended, token: u64, result: io::Result<u32>) {
        // Tokens were u32s, and no transfer is longer than memory.
        if let Ok(token) = u32::try_from(token) {
            let result = result.map(|moved| usize::try_from(moved).unwrap_or(usize::MAX));
            ended.push((token, result));
        }
    }
}

#[cfg(not(feature = "io-uring"))]
mod without {
    use super::{BorrowedFd, Ended, GuestMemoryMmap, Step, io};

    /// There is none.
    pub(in super::super) enum FileRing {}

    impl FileRing {
        pub(in super::super) fn new(
            _memory: &GuestMemoryMmap,
            _depth: u32,
            _files: &[BorrowedFd<'_>],
        ) -> io::Result<Self> {
            let text = "built without io_uring";
            Err(io::Error::new(io::ErrorKind::Unsupported, text))
        }

        pub(in super::super) fn prepare(
            &mut self,
            _step: &Step<'_>,
            _file: u32,
            _token: u32,
        ) -> io::Result<bool> {
            match *self {}
        }

        pub(in super::super) fn submit(&mut self) -> bool {
            match *self {}
        }

        pub(in super::super) fn reap(&mut self, _ended: &mut Ended) {
            match *self {}
        }

        pub(in super::super) fn wait_all(&mut self, _ended: &mut Ended) -> io::Result<()> {
            match *self {}
        }

        pub(in super::super) fn cancel_all(&mut self) -> io::Result<()> {
            match *self {}
        }

        pub(in super::super) fn event_fd(&self) -> BorrowedFd<'_> {
            match *self {}
        }
    }
}
