//! From chains to operations on the disk, and back to answers (§5.2.6).

use std::io;

use goldcrest_virtio::{
    ActiveQueue, Chain, DeviceError, DeviceIo, QueueError, Reader, Segment, Writer,
};

use crate::device::Limited;
use crate::slots::{Reply, Slots};
use crate::spec::{request, status};
use crate::{Backend, Block, Operation, Range, Refusal, Request, Start};

/// What became of a request.
enum Begun {
    /// It is over, with this status.
    Over(u8),
    /// It is under way, with the next token.
    Pending,
    /// It cannot begin yet.
    Stalled,
}

impl<B: Backend> Block<B> {
    /// Serves a queue until it is empty, its turn is over or it has to wait.
    #[inline]
    pub(crate) fn serve(&mut self, index: u16, io: &mut DeviceIo<'_>) -> Result<(), DeviceError> {
        if self.limited.is_some_and(|limited| limited.queue != index) {
            self.set_stalled(index, true);
            return Ok(());
        }
        self.limited = None;
        self.set_stalled(index, false);
        let Some(mut queue) = io.queue(index) else {
            return Ok(());
        };
        let error = |source| DeviceError::Queue {
            queue: index,
            source,
        };
        loop {
            let chain = match queue.pop() {
                Ok(Some(chain)) => chain,
                Ok(None) => return Ok(()),
                Err(source) => return Err(error(source)),
            };
            let head = chain.head;
            match self.begin(index, chain) {
                Ok((reply, Begun::Over(status))) => answer(&mut queue, &reply, status)?,
                Ok((reply, Begun::Pending)) => self.slots.occupy(reply),
                Ok((_, Begun::Stalled)) => {
                    queue.undo_pop(head);
                    self.set_stalled(index, true);
                    return Ok(());
                }
                Err(source) => return Err(error(source)),
            }
        }
    }

    /// Gets on with what has been started, and answers what is over.
    #[inline(never)]
    pub(crate) fn settle(&mut self, io: &mut DeviceIo<'_>) -> Result<(), DeviceError> {
        let mut outcome = self.answer_over(io);
        let submitted = self.backend.submit();
        let slots = &mut self.slots;
        let went_on = self.backend.completions(&mut |token, result| {
            let finished = finish(slots, io, token, &result);
            if outcome.is_ok() {
                outcome = finished;
            }
        });
        self.retry = !(self.slots.is_empty() || submitted && went_on);
        outcome
    }

    /// Answers what was over when nothing could be answered.
    pub(crate) fn answer_over(&mut self, io: &mut DeviceIo<'_>) -> Result<(), DeviceError> {
        while let Some((reply, status)) = self.over.pop() {
            if let Some(mut queue) = io.queue(reply.queue) {
                answer(&mut queue, &reply, status)?;
            }
        }
        Ok(())
    }

    fn set_stalled(&mut self, index: u16, is_stalled: bool) {
        if let Some(stalled) = self.stalled.get_mut(usize::from(index)) {
            *stalled = is_stalled;
        }
    }

    /// Begins the request that a chain holds, and says how it is to be answered. The header is the first of what is
    /// readable, the status the last byte of what is writable, however they are divided into descriptors (§2.7.4.2).
    ///
    /// # Errors
    ///
    /// [`QueueError`] if it cannot be answered, for want of a header or of a status byte.
    #[inline(always)]
    fn begin(&mut self, index: u16, chain: Chain<'_>) -> Result<(Reply, Begun), QueueError> {
        let (mut readable, mut writable) = (chain.readable, chain.writable);
        let header = readable.read_array::<{ request::HEADER_SIZE }>()?;
        let Some(status_at) = writable.take_last_byte() else {
            return Err(QueueError::TooShort { missing: 1 });
        };
        let mut reply = Reply {
            queue: index,
            head: chain.head,
            status_at,
            written: 1,
        };
        let request = Request::parse(&header, readable.left(), writable.left(), &self.limits);
        let (operation, len) = match request {
            Ok(Request::Read { offset }) => {
                let (len, segments) = (writable.left(), data(writable.segments()));
                // A chain is 4 GiB at most, and the header was a part of it.
                reply.written = u32::try_from(len + 1).unwrap_or(u32::MAX);
                (Operation::Read { offset, segments }, len)
            }
            Ok(Request::Write { offset }) => {
                let write = Operation::Write {
                    offset,
                    segments: data(readable.segments()),
                    durability: self.durability,
                };
                (write, readable.left())
            }
            Ok(Request::GetId) => {
                let begun = self.give_id(index, writable);
                reply.written = 1 + 20;
                return Ok((reply, begun));
            }
            Ok(request) => return Ok((reply, self.begin_rare(index, request, readable))),
            Err(refusal) => return Ok((reply, self.refuse(index, refusal))),
        };
        Ok((reply, self.start(index, &operation, len)))
    }

    /// What is refused counts as an operation, too.
    #[cold]
    fn refuse(&mut self, index: u16, refusal: Refusal) -> Begun {
        match self.may_go(index, 0) {
            true => Begun::Over(refusal.status()),
            false => Begun::Stalled,
        }
    }

    #[cold]
    fn give_id(&mut self, index: u16, mut writable: Writer<'_>) -> Begun {
        if !self.may_go(index, 0) {
            return Begun::Stalled;
        }
        Begun::Over(match writable.write(&self.id) {
            Ok(()) => status::OK,
            Err(_) => status::IOERR,
        })
    }

    #[cold]
    fn begin_rare(&mut self, index: u16, request: Request, readable: Reader<'_>) -> Begun {
        let range = match request {
            Request::Discard => self.range(readable, false),
            Request::WriteZeroes => self.range(readable, true),
            // The others have been begun.
            _ => return self.start(index, &Operation::Flush, 0),
        };
        let Range { offset, len, unmap } = match range {
            Ok(range) => range,
            Err(refusal) => return self.refuse(index, refusal),
        };
        if request == Request::Discard {
            return self.start(index, &Operation::Discard { offset, len }, 0);
        }
        let zeroes = Operation::WriteZeroes {
            offset,
            len,
            unmap,
            durability: self.durability,
        };
        self.start(index, &zeroes, len)
    }

    fn range(&self, mut readable: Reader<'_>, zeroes: bool) -> Result<Range, Refusal> {
        let bytes = readable.read_array::<{ request::RANGE_SIZE }>();
        let bytes = bytes.map_err(|_| Refusal::IoError)?;
        Range::parse(&bytes, zeroes, &self.limits)
    }

    /// Starts an operation that counts as `bytes`, if there is room and the limit allows.
    #[inline(always)]
    fn start(&mut self, index: u16, operation: &Operation<'_>, bytes: u64) -> Begun {
        let Some(token) = self.slots.next() else {
            return Begun::Stalled;
        };
        if self.limiter.is_limited() {
            return self.start_limited(index, operation, bytes, token);
        }
        self.start_now(operation, token)
    }

    #[cold]
    fn start_limited(
        &mut self,
        index: u16,
        operation: &Operation<'_>,
        bytes: u64,
        token: u32,
    ) -> Begun {
        let before = self.limiter.clone();
        if !self.may_go(index, bytes) {
            return Begun::Stalled;
        }
        let begun = self.start_now(operation, token);
        if matches!(begun, Begun::Stalled) {
            // It will be counted when it begins.
            self.limiter = before;
        }
        begun
    }

    /// Whether the limit allows an operation, which is counted if so.
    fn may_go(&mut self, queue: u16, bytes: u64) -> bool {
        if !self.limiter.is_limited() {
            return true;
        }
        match self.limiter.take(self.clock.now(), 1, bytes) {
            Ok(()) => true,
            Err(at) => {
                self.limited = Some(Limited { queue, at });
                false
            }
        }
    }

    #[inline(always)]
    fn start_now(&mut self, operation: &Operation<'_>, token: u32) -> Begun {
        match self.backend.start(operation, token) {
            Start::Done(result) => Begun::Over(status_of(&result)),
            Start::Pending => Begun::Pending,
            Start::Full => {
                // With nothing under way, nothing will tell when there is room.
                self.retry = self.retry || self.slots.is_empty();
                Begun::Stalled
            }
        }
    }
}

/// Answers the request whose operation is over. A token that is not in use is no request's.
pub(crate) fn finish(
    slots: &mut Slots,
    io: &mut DeviceIo<'_>,
    token: u32,
    result: &io::Result<()>,
) -> Result<(), DeviceError> {
    let Some(reply) = slots.release(token) else {
        return Ok(());
    };
    match io.queue(reply.queue) {
        Some(mut queue) => answer(&mut queue, &reply, status_of(result)),
        None => Ok(()),
    }
}

/// The status byte of a request that ended so: a buffer that is not RAM is an error of its own request only.
#[inline]
pub(crate) fn status_of(result: &io::Result<()>) -> u8 {
    match result {
        Ok(()) => status::OK,
        Err(_) => status::IOERR,
    }
}

/// Writes the status byte and gives the chain back. Of data that did not all arrive, none counts as written.
#[inline(always)]
fn answer(queue: &mut ActiveQueue<'_>, reply: &Reply, status: u8) -> Result<(), DeviceError> {
    let written = match status {
        status::OK => reply.written,
        _ => 1,
    };
    let stored = queue.ram().write_byte(reply.status_at, status);
    stored.map_err(|source| DeviceError::Queue {
        queue: reply.queue,
        source,
    })?;
    queue.push(reply.head, written);
    Ok(())
}

/// Without what is empty at the end, such as the segment of a status byte that was alone: its address does not matter.
#[inline]
fn data(mut segments: &[Segment]) -> &[Segment] {
    while let [rest @ .., Segment { len: 0, .. }] = segments {
        segments = rest;
    }
    segments
}
