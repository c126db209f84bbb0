//! Requests that own their buffers, so that several can be under way.
#![allow(unsafe_code, reason = "buffers are lent to the device")]

use alloc::vec::Vec;

use super::request::{self, Kind};
use super::{Block, Error, Registers};
use crate::virtio::queue::{Segment, Used};

/// Says which request was completed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ticket(pub(super) u64);

/// A request that was completed.
#[derive(Debug)]
pub struct Completion {
    /// Which.
    pub ticket: Ticket,
    /// The buffer that was handed over, filled if it was for reading.
    pub buffer: Vec<u8>,
    /// Whether the device did what it was asked.
    pub result: Result<(), Error>,
}

/// A request that was not handed to the device.
#[derive(Debug)]
pub struct Rejected {
    /// Why; [`Error::Full`] if another has to be completed first.
    pub error: Error,
    /// The buffer.
    pub buffer: Vec<u8>,
}

impl<R: Registers> Block<R> {
    /// Hands a buffer over to be filled from `sector` on, and does not wait for it.
    ///
    /// # Errors
    ///
    /// As for [`read`](Self::read); [`Error::Full`]; and if the buffer is more than one request can move, 1 MiB or
    /// less, by [`Error::Unaligned`].
    pub fn submit_read(&mut self, sector: u64, buffer: Vec<u8>) -> Result<Ticket, Rejected> {
        self.hand_over(Kind::In, sector, buffer)
    }

    /// Hands a buffer over to be written from `sector` on, and does not wait for it.
    ///
    /// # Errors
    ///
    /// As for [`submit_read`](Self::submit_read), and [`Error::ReadOnly`].
    pub fn submit_write(&mut self, sector: u64, buffer: Vec<u8>) -> Result<Ticket, Rejected> {
        match self.check_writable() {
            Ok(()) => self.hand_over(Kind::Out, sector, buffer),
            Err(error) => Err(Rejected { error, buffer }),
        }
    }

    /// A request of [`submit_read`](Self::submit_read) or [`submit_write`](Self::submit_write) that was completed, if
    /// there is one. Requests are completed in any order.
    ///
    /// # Errors
    ///
    /// If the device misbehaves: buffers that it has are lost then.
    pub fn poll(&mut self) -> Result<Option<Completion>, Error> {
        while self.completed.is_empty()
            && let Some(used) = self.transport.poll(&mut self.queue)?
        {
            self.collect(used);
        }
        Ok(self.completed.pop_front())
    }

    /// Waits until a request is completed.
    ///
    /// # Errors
    ///
    /// As for [`poll`](Self::poll), and [`Error::Nothing`] if no request is in flight.
    pub fn wait(&mut self) -> Result<Completion, Error> {
        loop {
            if let Some(completion) = self.completed.pop_front() {
                return Ok(completion);
            }
            if self.queue.in_flight() == 0 {
                self.transport.check()?;
                return Err(Error::Nothing);
            }
            let used = self.transport.wait(&mut self.queue)?;
            self.collect(used);
        }
    }

    fn hand_over(
        &mut self,
        kind: Kind,
        sector: u64,
        mut buffer: Vec<u8>,
    ) -> Result<Ticket, Rejected> {
        let data = Segment {
            write: kind == Kind::In,
            ..Segment::to_write(&mut buffer)
        };
        let checked = self.check(sector, buffer.len()).and_then(|()| {
            let (len, block) = (buffer.len(), self.max_request);
            if len == 0 || len > self.max_request() {
                return Err(Error::Unaligned { len, block });
            }
            // SAFETY: the buffer is kept, and not accessed, until the request is completed or the device is reset.
            unsafe { self.submit(kind, sector, Some(data)) }
        });
        match checked {
            Ok(number) => {
                let ticket = Ticket(self.next_ticket);
                self.next_ticket += 1;
                if let Some(slot) = self.lent.get_mut(usize::from(number)) {
                    *slot = Some((ticket, buffer));
                }
                self.transport.publish(&mut self.queue);
                Ok(ticket)
            }
            Err(error) => Err(Rejected { error, buffer }),
        }
    }

    /// Puts a completed request that owns its buffer where it is taken from.
    pub(super) fn collect(&mut self, used: Used) {
        let lent = self.lent.get_mut(usize::from(used.head));
        if let Some((ticket, buffer)) = lent.and_then(Option::take) {
            let result = request::result(&self.requests, used.head);
            self.completed.push_back(Completion {
                ticket,
                buffer,
                result,
            });
        }
    }
}
