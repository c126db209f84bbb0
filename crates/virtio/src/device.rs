//! What a device is to a transport.

use std::os::fd::RawFd;
use std::time::Duration;

use crate::queue::{ActiveQueue, Queue};
use crate::{ActivateError, DeviceError, Ram};

/// What a device is, for as long as it exists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceSpec {
    /// Its type (§5, [`device_id`](crate::spec::device_id)).
    pub id: u32,
    /// The features of its type that it offers, as a mask.
    pub features: u64,
    /// The greatest size of each of its queues: powers of two.
    pub queue_sizes: Vec<u16>,
}

/// The features that driver and device have agreed on, as a mask.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Features(pub u64);

impl Features {
    /// Whether all of `mask` are among them.
    pub const fn has(self, mask: u64) -> bool {
        self.0 & mask == mask
    }
}

/// A virtio device: a state machine that its transport calls, from one thread at a time.
///
/// It has no thread, no loop and no knowledge of its transport. What it waits for on the host's side it says in
/// [`waits`](Self::waits); whoever runs the machine then calls [`process_events`](Self::process_events).
pub trait VirtioDevice: Send {
    /// What it is.
    fn spec(&self) -> DeviceSpec;

    /// Reads its configuration from `offset`. What lies beyond its end stays as `data` is: zeros.
    fn read_config(&self, offset: u64, data: &mut [u8]);

    /// Writes to its configuration.
    fn write_config(&mut self, offset: u64, data: &[u8]) {
        let _ = (offset, data);
    }

    /// Whether a driver may take these features of those that are offered: not if one of them needs another that is
    /// missing. What it may not is not agreed to (§2.2.2).
    fn accepts(&self, features: Features) -> bool {
        let _ = features;
        true
    }

    /// The driver is ready, and has agreed to these features.
    ///
    /// # Errors
    ///
    /// [`ActivateError`] if the host does not let the device begin.
    fn activate(&mut self, features: Features, ram: Ram<'_>) -> Result<(), ActivateError> {
        let _ = (features, ram);
        Ok(())
    }

    /// The driver has added buffers to the queue with this number.
    ///
    /// # Errors
    ///
    /// [`DeviceError`] if the device cannot go on: it is not called again before it is reset.
    fn process_queue(&mut self, index: u16, io: &mut DeviceIo<'_>) -> Result<(), DeviceError>;

    /// Something that it waits for may have happened.
    ///
    /// # Errors
    ///
    /// As for [`process_queue`](Self::process_queue).
    fn process_events(&mut self, io: &mut DeviceIo<'_>) -> Result<(), DeviceError> {
        let _ = io;
        Ok(())
    }

    /// How much work in a queue, found at once, is better done by another thread than the notifying CPU's: if requests
    /// take the host some time, while the guest could make others. Either number is enough. Nothing if there never is so
    /// much.
    fn batches(&self, index: u16) -> Option<Work> {
        let _ = index;
        None
    }

    /// Adds to `waits` what it waits for now. Asked after each of the calls above.
    fn waits(&self, waits: &mut Waits) {
        let _ = waits;
    }

    /// Finishes what it has begun, so that its state is whole: before it is saved.
    ///
    /// # Errors
    ///
    /// As for [`process_queue`](Self::process_queue).
    fn quiesce(&mut self, io: &mut DeviceIo<'_>) -> Result<(), DeviceError> {
        let _ = io;
        Ok(())
    }

    /// Gives up what it has begun on one queue: it touches none of its buffers after this.
    fn reset_queue(&mut self, index: u16) {
        let _ = index;
    }

    /// Back to the start: it touches no guest RAM after this.
    fn reset(&mut self);
}

/// What a device did in a queue when it was called, or is to do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Work {
    /// How many chains.
    pub chains: u16,
    /// How many bytes these had, in all buffers.
    pub bytes: u64,
}

/// What was done in queues since their device was made, also before a reset.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Served {
    /// Chains that were given back.
    pub chains: u64,
    /// Bytes that the device was given to read, as often as it has taken them.
    pub bytes_read: u64,
    /// Bytes that it has written.
    pub bytes_written: u64,
}

/// What a device works on: its queues and guest RAM.
#[derive(Debug)]
pub struct DeviceIo<'a> {
    pub(crate) ram: Ram<'a>,
    pub(crate) queues: &'a mut [Queue],
    pub(crate) config_changed: bool,
}

impl<'a> DeviceIo<'a> {
    /// Guest RAM.
    #[inline]
    pub fn ram(&self) -> Ram<'a> {
        self.ram
    }

    /// A queue, if the driver has made it ready.
    #[inline]
    pub fn queue(&mut self, index: u16) -> Option<ActiveQueue<'_>> {
        let queue = self.queues.get_mut(usize::from(index))?;
        ActiveQueue::new(queue, self.ram)
    }

    /// How many queues there are, ready or not.
    pub fn queue_count(&self) -> u16 {
        u16::try_from(self.queues.len()).unwrap_or(u16::MAX)
    }

    /// The configuration has changed, and the driver is to be told.
    pub fn config_changed(&mut self) {
        self.config_changed = true;
    }
}

/// What a device waits for on the host's side.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Waits {
    /// Descriptors that are to become readable.
    pub readable: Vec<RawFd>,
    /// Descriptors that are to become writable.
    pub writable: Vec<RawFd>,
    /// Descriptors of which it is told once whenever they become readable or writable: it has used them until they
    /// would block, or knows that it has not. So a device says the same whether or not its driver has room.
    pub edges: Vec<RawFd>,
    /// The time until it wants to be called in any case.
    pub delay: Option<Duration>,
}

impl Waits {
    /// Forgets all.
    pub fn clear(&mut self) {
        self.readable.clear();
        self.writable.clear();
        self.edges.clear();
        self.delay = None;
    }

    /// Whether there is nothing to wait for.
    pub fn is_empty(&self) -> bool {
        self.readable.is_empty()
            && self.writable.is_empty()
            && self.edges.is_empty()
            && self.delay.is_none()
    }

    /// To be called after `delay`, or sooner.
    pub fn within(&mut self, delay: Duration) {
        self.delay = Some(self.delay.map_or(delay, |other| other.min(delay)));
    }
}
