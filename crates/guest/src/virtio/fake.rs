//! A device for tests: registers without a machine, a queue read as a device reads it, and the ways to misbehave.
#![allow(
    unsafe_code,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::cast_possible_truncation,
    reason = "a test's device goes where it is told"
)]

use std::boxed::Box;
use std::vec::Vec;

use super::spec::{MAGIC, VERSION, feature, register, status};
use super::{Error, Registers};

/// Queues that the device has.
const QUEUES: usize = 3;

/// What the device does beside, or instead of, what it should.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Manner {
    /// Completes a request within its notification.
    AtOnce,
    /// Completes requests when they are waited for, the last first.
    Later,
    /// Completes a request that it was not given.
    WrongId,
    /// Completes the request 0 whatever it was given.
    Request0,
    /// Completes each request twice.
    Twice,
    /// Claims to have written a byte more than it could.
    TooLong,
    /// Advances the index of the used ring without bound.
    Runaway,
    /// Asks to be reset.
    NeedsReset,
    /// Resets itself.
    Forgets,
}

/// A request as the device sees it: what it may read, and what it may write.
pub(super) struct Request<'a> {
    pub(super) queue: u16,
    pub(super) readable: Vec<&'a [u8]>,
    pub(super) writable: Vec<&'a mut [u8]>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Ring {
    size: u32,
    ready: bool,
    /// Descriptor table, available ring, used ring.
    addresses: [u64; 3],
    seen: u16,
    used: u16,
}

/// A device of kind `id`, which serves requests by a function: it gives the bytes that were written.
pub(super) struct Fake {
    pub(super) id: u32,
    pub(super) offered: u64,
    pub(super) config: Vec<u8>,
    pub(super) manner: Manner,
    pub(super) notifications: u32,
    pub(super) waits: u32,
    pub(super) most_descriptors: u32,
    /// Requests of each queue that are served; the rest stay where they are.
    pub(super) budget: [u32; QUEUES],
    serve: Box<dyn FnMut(Request<'_>) -> u32>,
    accepted: u64,
    status: u32,
    selected: [u32; 3],
    rings: [Ring; QUEUES],
}

impl Fake {
    pub(super) fn new(id: u32, serve: impl FnMut(Request<'_>) -> u32 + 'static) -> Self {
        Self {
            id,
            offered: feature::VERSION_1 | feature::EVENT_IDX,
            config: Vec::new(),
            manner: Manner::AtOnce,
            notifications: 0,
            waits: 0,
            most_descriptors: 256,
            budget: [u32::MAX; QUEUES],
            serve: Box::new(serve),
            accepted: 0,
            status: 0,
            selected: [0; 3],
            rings: [Ring::default(); QUEUES],
        }
    }

    pub(super) fn is_running(&self) -> bool {
        self.status & status::DRIVER_OK != 0
    }

    fn ring(&mut self) -> &mut Ring {
        &mut self.rings[self.selected[2] as usize]
    }

    /// Serves all that is available in the queues.
    pub(super) fn work(&mut self) {
        for queue in 0..QUEUES {
            let mut heads = Vec::new();
            let (ring, budget) = (&mut self.rings[queue], &mut self.budget[queue]);
            while ring.ready && *budget != 0 && ring.seen != peek::<u16>(ring.addresses[1] + 2) {
                *budget -= 1;
                let slot = u64::from(ring.seen) % u64::from(ring.size);
                heads.push(peek::<u16>(ring.addresses[1] + 4 + 2 * slot));
                ring.seen = ring.seen.wrapping_add(1);
            }
            if self.manner == Manner::Later {
                heads.reverse();
            }
            for head in heads {
                self.serve(queue, head);
            }
            let (ring, size) = (self.rings[queue], u64::from(self.rings[queue].size));
            if ring.ready && self.accepted & feature::EVENT_IDX != 0 {
                poke(ring.addresses[2] + 4 + 8 * size, ring.seen);
            }
        }
    }

    fn serve(&mut self, queue: usize, head: u16) {
        let table = self.rings[queue].addresses[0];
        let mut request = Request {
            queue: queue as u16,
            readable: Vec::new(),
            writable: Vec::new(),
        };
        let (mut next, mut room) = (head, 0);
        loop {
            let at = table + 16 * u64::from(next);
            let address = core::ptr::with_exposed_provenance_mut(peek::<u64>(at) as usize);
            let (len, flags) = (peek::<u32>(at + 8), peek::<u16>(at + 12));
            // SAFETY: the driver lends this memory until the request is completed, which it is after these slices.
            unsafe {
                if flags & 2 != 0 {
                    room += len;
                    let slice = core::slice::from_raw_parts_mut(address, len as usize);
                    request.writable.push(slice);
                } else {
                    assert!(request.writable.is_empty(), "what is read comes first");
                    let slice = core::slice::from_raw_parts(address, len as usize);
                    request.readable.push(slice);
                }
            }
            if flags & 1 == 0 {
                break;
            }
            next = peek(at + 14);
        }
        let len = (self.serve)(request);
        match self.manner {
            Manner::WrongId => self.complete(queue, head + 1, len),
            Manner::Request0 => self.complete(queue, 0, len),
            Manner::TooLong => self.complete(queue, head, room + 1),
            Manner::Twice => (0..2).for_each(|_| self.complete(queue, head, len)),
            Manner::Runaway => (0..1000).for_each(|_| self.complete(queue, head, len)),
            Manner::NeedsReset => self.status |= status::NEEDS_RESET,
            Manner::Forgets => self.status = 0,
            Manner::AtOnce | Manner::Later => self.complete(queue, head, len),
        }
    }

    fn complete(&mut self, queue: usize, id: u16, len: u32) {
        let ring = &mut self.rings[queue];
        let slot = u64::from(ring.used) % u64::from(ring.size);
        poke(ring.addresses[2] + 4 + 8 * slot, u32::from(id));
        poke(ring.addresses[2] + 8 + 8 * slot, len);
        ring.used = ring.used.wrapping_add(1);
        poke(ring.addresses[2] + 2, ring.used);
    }
}

impl core::fmt::Debug for Fake {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Fake({})", self.id)
    }
}

impl Registers for Fake {
    fn read(&self, offset: u32) -> u32 {
        let ring = self.rings[self.selected[2] as usize % QUEUES];
        match offset {
            register::MAGIC_VALUE => MAGIC,
            register::VERSION => VERSION,
            register::DEVICE_ID => self.id,
            register::DEVICE_FEATURES => (self.offered >> (32 * self.selected[0])) as u32,
            register::QUEUE_NUM_MAX if self.selected[2] < QUEUES as u32 => self.most_descriptors,
            register::QUEUE_READY => ring.ready.into(),
            register::STATUS => self.status,
            register::CONFIG.. => {
                let at = (offset - register::CONFIG) as usize;
                let field = self.config.get(at..at + 4);
                field.map_or(0, |field| u32::from_le_bytes(field.try_into().unwrap()))
            }
            _ => 0,
        }
    }

    fn read_u8(&self, offset: u32) -> u8 {
        let at = (offset - register::CONFIG) as usize;
        self.config.get(at).copied().unwrap_or(0)
    }

    fn read_u16(&self, offset: u32) -> u16 {
        u16::from_le_bytes([self.read_u8(offset), self.read_u8(offset + 1)])
    }

    fn write(&mut self, offset: u32, value: u32) {
        match offset {
            register::DEVICE_FEATURES_SEL => self.selected[0] = value,
            register::DRIVER_FEATURES_SEL => self.selected[1] = value,
            register::DRIVER_FEATURES => {
                self.accepted |= u64::from(value) << (32 * self.selected[1]);
            }
            register::QUEUE_SEL => self.selected[2] = value,
            register::QUEUE_NUM => self.ring().size = value,
            register::QUEUE_READY => self.ring().ready = value == 1,
            register::QUEUE_DESC..=0xa4 => {
                let (which, high) = ((offset - 0x80) as usize / 16, !offset.is_multiple_of(16));
                let shift = if high { 32 } else { 0 };
                self.ring().addresses[which] |= u64::from(value) << shift;
            }
            register::QUEUE_NOTIFY => {
                assert!(self.is_running());
                self.notifications += 1;
                if self.manner != Manner::Later {
                    self.work();
                }
            }
            register::STATUS if value == 0 => {
                self.rings = [Ring::default(); QUEUES];
                (self.accepted, self.status) = (0, 0);
            }
            register::STATUS => {
                let refused = self.accepted & !self.offered != 0;
                let bits = if refused { status::FEATURES_OK } else { 0 };
                self.status = value & !bits;
            }
            _ => {}
        }
    }

    fn wait<T>(
        &mut self,
        deadline: Option<u64>,
        mut done: impl FnMut(&mut Self) -> Option<T>,
    ) -> Result<Option<T>, Error> {
        if let Some(result) = done(self) {
            return Ok(Some(result));
        }
        self.waits += 1;
        self.work();
        let result = done(self);
        assert!(
            result.is_some() || deadline.is_some(),
            "nothing ends this wait"
        );
        Ok(result)
    }
}

fn peek<T: Copy>(address: u64) -> T {
    // SAFETY: tests hand out addresses of memory that is there.
    unsafe { core::ptr::with_exposed_provenance::<T>(address as usize).read_volatile() }
}

fn poke<T>(address: u64, value: T) {
    // SAFETY: as in `peek`.
    unsafe { core::ptr::with_exposed_provenance_mut::<T>(address as usize).write_volatile(value) }
}
