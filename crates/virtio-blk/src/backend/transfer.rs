//! An operation on a file, step by step.

use std::io;

use goldcrest_memory::io::{Deallocate, Durability, Segment};
use nix::libc;

use super::Operation;

/// How often a step is tried again that the host had no resources for, or that was interrupted.
const TRIES: u32 = 16;

/// What is left of an operation. It is kept when it is over, so that its list need not be allocated anew.
#[derive(Debug, Default)]
pub(super) struct Job {
    kind: Kind,
    /// Bytes in the file.
    offset: u64,
    /// Of a transfer, the rest.
    segments: Vec<Segment>,
    tries: u32,
}

#[derive(Debug, Clone, Copy, Default)]
enum Kind {
    #[default]
    SyncData,
    Read,
    Write(Durability),
    Discard {
        len: u64,
    },
    Zero {
        len: u64,
        method: ZeroMethod,
        durability: Durability,
    },
}

/// How zeros come to be: the first that the file system can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ZeroMethod {
    PunchHole,
    ZeroRange,
    Write,
}

/// What is to be done next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step<'a> {
    Read {
        offset: u64,
        segments: &'a [Segment],
    },
    Write {
        offset: u64,
        segments: &'a [Segment],
        durability: Durability,
    },
    SyncData,
    Deallocate {
        how: Deallocate,
        offset: u64,
        len: u64,
    },
    /// Zeros are to be written, for want of something better: as many as are written at a time.
    WriteZeros {
        offset: u64,
        len: u64,
    },
}

impl Job {
    /// Begins an operation; false if it is over with that, having nothing to do.
    pub(super) fn begin(&mut self, operation: &Operation<'_>) -> bool {
        self.tries = 0;
        self.segments.clear();
        let (kind, offset) = match *operation {
            Operation::Read { offset, segments } => {
                self.segments.extend_from_slice(segments);
                (Kind::Read, offset)
            }
            Operation::Write {
                offset,
                segments,
                durability,
            } => {
                self.segments.extend_from_slice(segments);
                (Kind::Write(durability), offset)
            }
            Operation::Flush => (Kind::SyncData, 0),
            Operation::Discard { offset, len } => (Kind::Discard { len }, offset),
            Operation::WriteZeroes {
                offset,
                len,
                unmap,
                durability,
            } => {
                let method = if unmap {
                    ZeroMethod::PunchHole
                } else {
                    ZeroMethod::ZeroRange
                };
                let kind = Kind::Zero {
                    len,
                    method,
                    durability,
                };
                (kind, offset)
            }
        };
        (self.kind, self.offset) = (kind, offset);
        match kind {
            Kind::SyncData => true,
            Kind::Read | Kind::Write(_) => {
                self.skip(0);
                !self.segments.is_empty()
            }
            Kind::Discard { len } | Kind::Zero { len, .. } => len > 0,
        }
    }

    /// What is to be done next.
    pub(super) fn step(&self) -> Step<'_> {
        let (offset, segments) = (self.offset, self.segments.as_slice());
        let deallocate = |how, len| Step::Deallocate { how, offset, len };
        match self.kind {
            Kind::SyncData => Step::SyncData,
            Kind::Read => Step::Read { offset, segments },
            Kind::Write(durability) => Step::Write {
                offset,
                segments,
                durability,
            },
            Kind::Discard { len } => deallocate(Deallocate::PunchHole, len),
            Kind::Zero { len, method, .. } => match method {
                ZeroMethod::PunchHole => deallocate(Deallocate::PunchHole, len),
                ZeroMethod::ZeroRange => deallocate(Deallocate::ZeroRange, len),
                ZeroMethod::Write => Step::WriteZeros { offset, len },
            },
        }
    }

    /// Takes note of how the step ended; of a transfer, with how many bytes. Returns how the operation ended if it is
    /// over; if not, there is another step.
    pub(super) fn advance(&mut self, result: io::Result<usize>) -> Option<io::Result<()>> {
        match (self.kind, result) {
            (_, Err(error)) if self.try_again(&error) => None,
            (Kind::Read | Kind::Write(_), Err(error)) => Some(Err(error)),
            (Kind::Read, Ok(0)) => Some(Err(io::ErrorKind::UnexpectedEof.into())),
            (Kind::Write(_), Ok(0)) => Some(Err(io::ErrorKind::WriteZero.into())),
            (Kind::Read | Kind::Write(_), Ok(moved)) => {
                self.tries = 0;
                self.skip(moved);
                self.segments.is_empty().then_some(Ok(()))
            }
            (Kind::SyncData, result) => Some(result.map(drop)),
            // It is a hint: where it cannot be taken, nothing happens.
            (Kind::Discard { .. }, Err(error)) if is_unsupported(&error) => Some(Ok(())),
            (Kind::Discard { .. }, result) => Some(result.map(drop)),
            (
                Kind::Zero {
                    len,
                    method: ZeroMethod::Write,
                    durability,
                },
                Ok(written),
            ) => {
                let written = written as u64;
                self.tries = 0;
                self.offset = self.offset.saturating_add(written);
                match len.saturating_sub(written) {
                    _ if written == 0 => Some(Err(io::ErrorKind::WriteZero.into())),
                    0 => self.all_zero(durability),
                    len => {
                        self.kind = Kind::Zero {
                            len,
                            method: ZeroMethod::Write,
                            durability,
                        };
                        None
                    }
                }
            }
            (Kind::Zero { durability, .. }, Ok(_)) => self.all_zero(durability),
            (
                Kind::Zero {
                    len,
                    method,
                    durability,
                },
                Err(error),
            ) => {
                let method = match method {
                    _ if !is_unsupported(&error) => return Some(Err(error)),
                    ZeroMethod::PunchHole => ZeroMethod::ZeroRange,
                    ZeroMethod::ZeroRange => ZeroMethod::Write,
                    ZeroMethod::Write => return Some(Err(error)),
                };
                self.kind = Kind::Zero {
                    len,
                    method,
                    durability,
                };
                None
            }
        }
    }

    /// What there is to do when all is zero.
    fn all_zero(&mut self, durability: Durability) -> Option<io::Result<()>> {
        match durability {
            Durability::WriteBack => Some(Ok(())),
            Durability::WriteThrough => {
                self.kind = Kind::SyncData;
                None
            }
        }
    }

    fn try_again(&mut self, error: &io::Error) -> bool {
        let passing = matches!(
            error.raw_os_error(),
            // The last: the thread that submitted it has ended.
            Some(libc::EAGAIN | libc::EINTR | libc::ECANCELED)
        );
        self.tries = self.tries.saturating_add(1);
        passing && self.tries <= TRIES
    }

    /// Takes `moved` bytes, and what is empty, from the front of the segments.
    fn skip(&mut self, moved: usize) {
        self.offset = self.offset.saturating_add(moved as u64);
        let mut rest = moved as u64;
        let mut whole = 0;
        for segment in &mut self.segments {
            if u64::from(segment.len) > rest {
                segment.address = segment.address.wrapping_add(rest);
                // `rest` is below `len`, so that it is a u32.
                segment.len -= u32::try_from(rest).unwrap_or(segment.len);
                break;
            }
            rest -= u64::from(segment.len);
            whole += 1;
        }
        self.segments.drain(..whole);
    }
}

fn is_unsupported(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EOPNOTSUPP | libc::ENOSYS | libc::ENODEV)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn os(errno: i32) -> io::Result<usize> {
        Err(io::Error::from_raw_os_error(errno))
    }

    fn segment(address: u64, len: u32) -> Segment {
        Segment { address, len }
    }

    #[test]
    fn a_short_transfer_goes_on_where_it_stopped() {
        let mut job = Job::default();
        let segments = [segment(0, 0), segment(100, 10), segment(50, 10)];
        let offset = 512;
        let read = Operation::Read {
            offset,
            segments: &segments,
        };
        assert!(job.begin(&read));
        for (moved, rest) in [
            (0, vec![segment(100, 10), segment(50, 10)]),
            (3, vec![segment(103, 7), segment(50, 10)]),
            (7, vec![segment(50, 10)]),
            (9, vec![segment(59, 1)]),
        ] {
            if moved > 0 {
                assert!(job.advance(Ok(moved)).is_none());
            }
            let Step::Read { segments, .. } = job.step() else {
                panic!("{job:?}");
            };
            assert_eq!(segments, rest);
        }
        assert_eq!(job.offset, 512 + 19);
        assert!(matches!(job.advance(Ok(1)), Some(Ok(()))));
    }

    #[test]
    fn a_transfer_that_does_not_move_ends() {
        let segments = [segment(0, 1)];
        let read = Operation::Read {
            offset: 0,
            segments: &segments,
        };
        let mut job = Job::default();
        job.begin(&read);
        assert!(job.advance(Ok(0)).unwrap().is_err());
        for errno in [libc::EAGAIN, libc::EINTR] {
            job.begin(&read);
            for _ in 0..TRIES {
                assert!(job.advance(os(errno)).is_none());
            }
            assert!(job.advance(os(errno)).unwrap().is_err());
        }
        assert!(!job.begin(&Operation::Read {
            offset: 0,
            segments: &[segment(7, 0)],
        }));
    }

    #[test]
    fn zeros_fall_back_to_what_the_file_system_can_and_are_durable_if_they_must() {
        let mut job = Job::default();
        let zeroes = |unmap, durability| Operation::WriteZeroes {
            offset: 0,
            len: 512,
            unmap,
            durability,
        };
        let deallocate = |how| Step::Deallocate {
            how,
            offset: 0,
            len: 512,
        };
        assert!(job.begin(&zeroes(true, Durability::WriteThrough)));
        assert_eq!(job.step(), deallocate(Deallocate::PunchHole));
        assert!(job.advance(os(libc::EOPNOTSUPP)).is_none());
        assert_eq!(job.step(), deallocate(Deallocate::ZeroRange));
        assert!(job.advance(os(libc::EOPNOTSUPP)).is_none());
        let write = Step::WriteZeros {
            offset: 0,
            len: 512,
        };
        assert_eq!(job.step(), write);
        assert!(job.advance(Ok(500)).is_none());
        let write = Step::WriteZeros {
            offset: 500,
            len: 12,
        };
        assert_eq!(job.step(), write);
        assert!(job.advance(Ok(12)).is_none());
        assert_eq!(job.step(), Step::SyncData);
        assert!(matches!(job.advance(Ok(0)), Some(Ok(()))));

        assert!(job.begin(&zeroes(false, Durability::WriteBack)));
        assert_eq!(job.step(), deallocate(Deallocate::ZeroRange));
        assert!(matches!(job.advance(Ok(0)), Some(Ok(()))));
        assert!(job.begin(&zeroes(false, Durability::WriteBack)));
        assert!(job.advance(os(libc::ENOSPC)).unwrap().is_err());
    }
}
