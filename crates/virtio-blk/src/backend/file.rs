//! A disk in a file or on a block device.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use goldcrest_memory::io as file_io;
use goldcrest_memory::io::{Deallocate, DirectAlignment, Segment};
use vm_memory::GuestMemoryMmap;

use super::image::Image;
use super::ring::{Ended, FileRing};
use super::transfer::{Job, Step};
use super::{Backend, Operation, Start};
use crate::DiskError;

pub use super::image::FileDiskConfig;

/// A disk whose bytes are in a file or on a block device.
///
/// With io_uring, which it makes ready when it is attached, operations are under way while the guest runs; what the
/// page cache has is over at once. Without, the caller waits for each.
///
/// The image is locked (`flock`): one that is written belongs to one disk. It is not looked at whether it grows or
/// shrinks; reading what has been cut off is an error for the guest.
pub struct FileDisk {
    image: Image,
    config: FileDiskConfig,
    engine: Engine,
    memory: Option<GuestMemoryMmap>,
    /// By token.
    jobs: Vec<Job>,
    ended: Ended,
}

/// How a [`FileDisk`] reaches its file.
#[derive(Debug, Clone, Copy)]
pub enum Access<'a> {
    /// Not yet: it is not attached.
    None,
    /// By io_uring.
    IoUring,
    /// By system calls that it waits for, because that was asked for, or else because of this.
    Waiting(Option<&'a io::Error>),
}

enum Engine {
    None,
    Ring(Box<FileRing>),
    Waiting(Option<io::Error>),
}

/// The number of the file that is buffered among the ring's files, and of the direct one.
const BUFFERED: u32 = 0;
const DIRECT: u32 = 1;

/// How many steps of an operation are done before others have a turn.
const STEPS: u32 = 8;

impl FileDisk {
    /// Opens and locks an image.
    ///
    /// # Errors
    ///
    /// [`DiskError`], with what to do where there is something.
    pub fn open(config: FileDiskConfig) -> Result<Self, DiskError> {
        Ok(Self {
            image: Image::open(&config)?,
            config,
            engine: Engine::None,
            memory: None,
            jobs: Vec::new(),
            ended: Ended::new(),
        })
    }

    /// Whether it is in the file at `path`, by whatever name.
    pub fn is_in(&self, path: &Path) -> bool {
        self.image.is_in(path)
    }

    /// Looks again how large its file is.
    ///
    /// # Errors
    ///
    /// [`DiskError`] if that is no size of a disk: it stays as it was.
    pub fn refresh(&mut self) -> Result<(), DiskError> {
        self.image.measure(&self.config.path)
    }

    /// How it reaches its file, and if by waiting, why.
    pub fn access(&self) -> Access<'_> {
        match &self.engine {
            Engine::None => Access::None,
            Engine::Ring(_) => Access::IoUring,
            Engine::Waiting(why) => Access::Waiting(why.as_ref()),
        }
    }

    /// Does the steps of a job that are to be done, or puts the first of them under way.
    fn go_on(&mut self, token: u32) -> Start {
        let Some(job) = job(&mut self.jobs, token) else {
            return Start::Done(Err(io::ErrorKind::InvalidInput.into()));
        };
        let Some(memory) = &self.memory else {
            return Start::Done(Err(io::ErrorKind::NotConnected.into()));
        };
        loop {
            let step = job.step();
            let file = choose_file(&self.image, &step);
            let result = match &mut self.engine {
                Engine::Ring(ring) => match ring.prepare(&step, file, token) {
                    Ok(true) => return Start::Pending,
                    Ok(false) => return Start::Full,
                    Err(error) => Err(error),
                },
                _ => perform(&self.image, file, memory, &step),
            };
            if let Some(result) = job.advance(result) {
                return Start::Done(result);
            }
        }
    }

    /// Tells of the jobs that are over, and goes on with those that are not. Returns whether there were such.
    fn tell(&mut self, complete: &mut dyn FnMut(u32, io::Result<()>)) -> bool {
        let mut again = false;
        let mut ended = std::mem::take(&mut self.ended);
        for (token, result) in ended.drain(..) {
            let over = job(&mut self.jobs, token).and_then(|job| job.advance(result));
            let over = over.map_or_else(|| self.go_on(token), Start::Done);
            match over {
                Start::Done(result) => complete(token, result),
                Start::Pending => again = true,
                // There is room for what has just made it.
                Start::Full => complete(token, Err(io::ErrorKind::WouldBlock.into())),
            }
        }
        self.ended = ended;
        again
    }
}

impl Backend for FileDisk {
    fn capacity(&self) -> u64 {
        self.image.capacity
    }

    fn read_only(&self) -> bool {
        self.config.read_only
    }

    fn attach(&mut self, memory: &GuestMemoryMmap, depth: u32) {
        let mut files = vec![self.image.file.as_fd()];
        files.extend(self.image.direct.as_ref().map(|(file, _)| file.as_fd()));
        self.engine = match self.config.io_uring {
            true => FileRing::new(memory, depth, &files).map_or_else(
                |error| Engine::Waiting(Some(error)),
                |ring| Engine::Ring(Box::new(ring)),
            ),
            false => Engine::Waiting(None),
        };
        self.memory = Some(memory.clone());
        let depth = usize::try_from(depth).unwrap_or(0);
        self.jobs.resize_with(depth, Job::default);
        self.ended.reserve(depth);
    }

    fn start(&mut self, operation: &Operation<'_>, token: u32) -> Start {
        let begun = job(&mut self.jobs, token).map(|job| job.begin(operation));
        match begun {
            Some(false) => Start::Done(Ok(())),
            _ => self.go_on(token),
        }
    }

    fn submit(&mut self) -> bool {
        match &mut self.engine {
            Engine::Ring(ring) => ring.submit(),
            _ => true,
        }
    }

    fn completions(&mut self, complete: &mut dyn FnMut(u32, io::Result<()>)) -> bool {
        for _ in 0..STEPS {
            let Engine::Ring(ring) = &mut self.engine else {
                return true;
            };
            ring.reap(&mut self.ended);
            if !self.tell(complete) {
                return true;
            }
            if !self.submit() {
                return false;
            }
        }
        // What goes on may have been over at once, and then signals nobody.
        false
    }

    fn event_fd(&self) -> Option<BorrowedFd<'_>> {
        match &self.engine {
            Engine::Ring(ring) => Some(ring.event_fd()),
            _ => None,
        }
    }

    fn wait_all(&mut self, complete: &mut dyn FnMut(u32, io::Result<()>)) -> io::Result<()> {
        while let Engine::Ring(ring) = &mut self.engine {
            ring.wait_all(&mut self.ended)?;
            if !self.tell(complete) {
                break;
            }
        }
        Ok(())
    }

    fn reset(&mut self) {
        if let Engine::Ring(ring) = &mut self.engine
            && let Err(error) = ring.cancel_all()
        {
            // Dropping the ring keeps guest RAM mapped for as long as the kernel may use it.
            self.engine = Engine::Waiting(Some(error));
        }
        self.ended.clear();
    }
}

fn job(jobs: &mut [Job], token: u32) -> Option<&mut Job> {
    jobs.get_mut(usize::try_from(token).ok()?)
}

/// The direct file for what is aligned for it, else the buffered one.
fn choose_file(image: &Image, step: &Step<'_>) -> u32 {
    let (Step::Read { offset, segments }
    | Step::Write {
        offset, segments, ..
    }) = *step
    else {
        return BUFFERED;
    };
    match &image.direct {
        Some((_, alignment)) if is_aligned(*alignment, offset, segments) => DIRECT,
        _ => BUFFERED,
    }
}

/// RAM begins at whole pages in both address spaces, so that what is aligned in the guest's is so in the host's.
fn is_aligned(alignment: DirectAlignment, offset: u64, segments: &[Segment]) -> bool {
    offset.is_multiple_of(alignment.offset.into())
        && segments.iter().all(|segment| {
            segment.address.is_multiple_of(alignment.memory.into())
                && segment.len.is_multiple_of(alignment.offset)
        })
}

/// Does a step and waits for it.
fn perform(
    image: &Image,
    file: u32,
    memory: &GuestMemoryMmap,
    step: &Step<'_>,
) -> io::Result<usize> {
    let file: &File = match &image.direct {
        Some((direct, _)) if file == DIRECT => direct,
        _ => &image.file,
    };
    match *step {
        Step::Read { offset, segments } => file_io::read_at(file, memory, segments, offset),
        Step::Write {
            offset,
            segments,
            durability,
        } => file_io::write_at(file, memory, segments, offset, durability),
        Step::SyncData => file_io::sync_data(file).map(|()| 0),
        Step::Deallocate { how, offset, len } => match how {
            Deallocate::PunchHole => file_io::punch_hole(file, offset, len),
            Deallocate::ZeroRange => file_io::zero_range(file, offset, len),
        }
        .map(|()| 0),
        Step::WriteZeros { offset, len } => file_io::write_zeros(file, offset, len),
    }
}
