//! From what a driver names to what its host takes, counted.

use goldcrest_memory::Contents;
use goldcrest_virtio::{QueueError, Ram, Reader, Segment};
use vm_memory::{GuestMemoryBackend, GuestMemoryRegion};

use crate::spans::{self, Span};
use crate::spec::{NUMBER_SIZE, PAGE};
use crate::status::add;
use crate::{Pages, Totals};

/// A backend, and what it was given.
#[derive(Debug)]
pub(crate) struct Taker<P> {
    pub(crate) backend: P,
    pub(crate) totals: Totals,
    /// Pages of 4 KiB that the guest has.
    pub(crate) ram_pages: u64,
}

impl<P: Pages> Taker<P> {
    pub(crate) fn new(backend: P) -> Self {
        Self {
            backend,
            totals: Totals::default(),
            ram_pages: 0,
        }
    }

    /// The guest has this memory.
    pub(crate) fn begin(&mut self, ram: Ram<'_>) {
        let bytes = ram.memory().iter().map(GuestMemoryRegion::len);
        self.ram_pages = bytes.fold(0, u64::saturating_add) / PAGE;
    }

    /// Takes the pages whose numbers are in a buffer; the guest need not have them.
    pub(crate) fn take_numbers(
        &mut self,
        ram: Ram<'_>,
        buffer: &mut Reader<'_>,
    ) -> Result<(), QueueError> {
        let numbers = buffer.left() / NUMBER_SIZE as u64;
        let of = self.ram_pages;
        let looked_at = spans::of_numbers(buffer, |span| {
            let bytes = self.take(ram, span, Contents::Unneeded);
            self.totals.inflate(bytes / PAGE, of);
        })?;
        add(&mut self.totals.ignored, numbers.saturating_sub(looked_at));
        Ok(())
    }

    /// Takes what buffers lie on, or leaves it if it has no contents that it may have. Returns how many bytes of it are
    /// RAM.
    pub(crate) fn take_buffers(
        &mut self,
        ram: Ram<'_>,
        buffers: &[Segment],
        contents: Option<Contents>,
    ) -> u64 {
        let span = |buffer: &Segment| Span::new(buffer.address, buffer.len.into());
        let wrong = buffers.iter().filter(|buffer| span(buffer).is_none());
        add(&mut self.totals.ignored, wrong.count() as u64);
        let mut bytes = 0_u64;
        spans::joined(buffers.iter().filter_map(span), |span| {
            let some = match contents {
                Some(contents) => self.take(ram, span, contents),
                None => ram_in(ram, span),
            };
            bytes = bytes.saturating_add(some);
        });
        bytes
    }

    /// Takes a span. Returns how many bytes of it are RAM.
    fn take(&mut self, ram: Ram<'_>, span: Span, contents: Contents) -> u64 {
        let bytes = ram_in(ram, span);
        let outside = span.len().saturating_sub(bytes);
        add(&mut self.totals.ignored, outside.div_ceil(PAGE));
        if bytes > 0 {
            let taken = self.backend.discard(ram, span.start, span.len(), contents);
            match taken {
                Ok(taken) => add(&mut self.totals.returned, taken),
                Err(_) => add(&mut self.totals.failed, 1),
            }
        }
        bytes
    }
}

/// How many bytes of a span are RAM.
fn ram_in(ram: Ram<'_>, span: Span) -> u64 {
    let regions = ram.memory().iter();
    let parts = regions.map(|region| {
        let first = region.start_addr().0;
        let end = first.saturating_add(region.len()).min(span.end);
        end.saturating_sub(first.max(span.start))
    });
    parts.fold(0, u64::saturating_add)
}
