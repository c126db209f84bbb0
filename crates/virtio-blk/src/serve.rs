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
    Over(Reply, u8),
    /// It is under way.
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
            // Chains are large: they are looked at where they are.
            let mut chain = match queue.pop() {
                Ok(Some(chain)) => chain,
                Ok(None) => return Ok(()),
                Err(source) => return Err(error(source)),
            };
            let head = chain.head;
            match self.begin(index, &mut chain) {
                Ok(Begun::Over(reply, status)) => answer(&mut queue, &reply, status)?,
                Ok(Begun::Pending) => {}
                Ok(Begun::Stalled) => {
                    queue.undo_pop(head);
                    self.set_stalled(index, true);
                    return Ok(());
                }
                Err(source) => return Err(error(source)),
            }
        }
    }

    /// Gets on with what has been started, and answers what is over.
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

    /// Begins the request that a chain holds. The header is the first of what is readable, the status the last byte of
    /// what is writable, however they are divided into descriptors (§2.7.4.2).
    ///
    /// # Errors
    ///
    /// [`QueueError`] if it cannot be answered, for want of a header or of a status byte.
    #[inline]
    fn begin(&mut self, index: u16, chain: &mut Chain<'_>) -> Result<Begun, QueueError> {
        let (readable, writable) = (&mut chain.readable, &mut chain.writable);
        let mut header = [0; request::HEADER_SIZE];
        readable.read(&mut header)?;
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
        Ok(match request {
            Ok(Request::Read { offset }) => {
                let (len, segments) = (writable.left(), data(writable.segments()));
                // A chain is 4 GiB at most, and the header was a part of it.
                reply.written = u32::try_from(len + 1).unwrap_or(u32::MAX);
                self.start(&Operation::Read { offset, segments }, len, reply)
            }
            Ok(Request::Write { offset }) => {
                let write = Operation::Write {
                    offset,
                    segments: data(readable.segments()),
                    durability: self.durability,
                };
                self.start(&write, readable.left(), reply)
            }
            Ok(request) => self.begin_rare(request, readable, writable, reply),
            Err(refusal) => Begun::Over(reply, refusal.status()),
        })
    }

    #[cold]
    fn begin_rare(
        &mut self,
        request: Request,
        readable: &mut Reader<'_>,
        writable: &mut Writer<'_>,
        mut reply: Reply,
    ) -> Begun {
        let range = match request {
            Request::GetId => {
                if !self.may_go(reply.queue, 0) {
                    return Begun::Stalled;
                }
                if writable.write(&self.id).is_err() {
                    return Begun::Over(reply, status::IOERR);
                }
                reply.written = 1 + 20;
                return Begun::Over(reply, status::OK);
            }
            Request::Discard => self.range(readable, false),
            Request::WriteZeroes => self.range(readable, true),
            // Reads and writes have been begun.
            Request::Flush | Request::Read { .. } | Request::Write { .. } => {
                return self.start(&Operation::Flush, 0, reply);
            }
        };
        let Range { offset, len, unmap } = match range {
            Ok(range) => range,
            Err(refusal) => return Begun::Over(reply, refusal.status()),
        };
        if request == Request::Discard {
            return self.start(&Operation::Discard { offset, len }, 0, reply);
        }
        let zeroes = Operation::WriteZeroes {
            offset,
            len,
            unmap,
            durability: self.durability,
        };
        self.start(&zeroes, len, reply)
    }

    fn range(&self, readable: &mut Reader<'_>, zeroes: bool) -> Result<Range, Refusal> {
        let mut bytes = [0; request::RANGE_SIZE];
        readable.read(&mut bytes).map_err(|_| Refusal::IoError)?;
        Range::parse(&bytes, zeroes, &self.limits)
    }

    /// Starts an operation that counts as `bytes`, if there is room and the limit allows.
    #[inline]
    fn start(&mut self, operation: &Operation<'_>, bytes: u64, reply: Reply) -> Begun {
        let Some(token) = self.slots.next() else {
            return Begun::Stalled;
        };
        if self.limiter.is_limited() {
            return self.start_limited(operation, bytes, reply, token);
        }
        self.start_now(operation, reply, token)
    }

    #[cold]
    fn start_limited(
        &mut self,
        operation: &Operation<'_>,
        bytes: u64,
        reply: Reply,
        token: u32,
    ) -> Begun {
        let before = self.limiter.clone();
        if !self.may_go(reply.queue, bytes) {
            return Begun::Stalled;
        }
        let begun = self.start_now(operation, reply, token);
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

    #[inline]
    fn start_now(&mut self, operation: &Operation<'_>, reply: Reply, token: u32) -> Begun {
        match self.backend.start(operation, token) {
            Start::Done(result) => Begun::Over(reply, status_of(&result)),
            Start::Pending => {
                self.slots.occupy(reply);
                Begun::Pending
            }
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
#[inline]
fn answer(queue: &mut ActiveQueue<'_>, reply: &Reply, status: u8) -> Result<(), DeviceError> {
    let written = match status {
        status::OK => reply.written,
        _ => 1,
    };
    let stored = queue.ram().write(reply.status_at, &[status]);
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
