//! A driver that plays the guest's part, for tests, fuzzers and benchmarks of devices.
//!
//! It does what the specification says, and lets its user do otherwise: every field of a ring can be written as one
//! likes. It panics where a test is wrong.
#![allow(
    clippy::unwrap_used,
    clippy::missing_panics_doc,
    reason = "what is used by tests alone reports by panicking"
)]

use goldcrest_bus::Device;
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use crate::spec::{mmio, ring, status};
use crate::{Queue, QueueLayout};

/// A part of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Buffer {
    /// For the device to read.
    Readable(u64, u32),
    /// For the device to write.
    Writable(u64, u32),
}

impl Buffer {
    const fn parts(self) -> (u64, u32, u16) {
        match self {
            Self::Readable(address, len) => (address, len, 0),
            Self::Writable(address, len) => (address, len, ring::DESC_F_WRITE),
        }
    }
}

/// A queue from the driver's side.
#[derive(Debug)]
pub struct DriverQueue {
    memory: GuestMemoryMmap,
    /// Where its parts are.
    pub layout: QueueLayout,
    size: u16,
    /// The next descriptor to use.
    next_descriptor: u16,
    /// What the available ring's index is.
    pub available: u16,
    /// How many used entries have been seen.
    pub seen: u16,
}

impl DriverQueue {
    /// A queue of `size` entries in `memory` from `at`, which must be aligned to 16 bytes.
    pub fn new(memory: &GuestMemoryMmap, at: u64, size: u16) -> Self {
        let available = at + u64::from(ring::DESCRIPTOR_SIZE) * u64::from(size);
        let used = (available + 6 + 2 * u64::from(size)).next_multiple_of(ring::USED_ALIGN);
        let queue = Self {
            memory: memory.clone(),
            layout: QueueLayout {
                size: size.into(),
                descriptors: at,
                available,
                used,
            },
            size,
            next_descriptor: 0,
            available: 0,
            seen: 0,
        };
        let end = used + 6 + 8 * u64::from(size);
        let zeros = vec![0; usize::try_from(end - at).unwrap()];
        memory.write_slice(&zeros, GuestAddress(at)).unwrap();
        queue
    }

    /// The first address behind it.
    pub fn end(&self) -> u64 {
        self.layout.used + 6 + 8 * u64::from(self.size)
    }

    /// Writes a descriptor.
    pub fn set_descriptor(&self, index: u16, address: u64, len: u32, flags: u16, next: u16) {
        let at = self.layout.descriptors + 16 * u64::from(index);
        write_descriptor(&self.memory, at, address, len, flags, next);
    }

    /// Writes a chain of descriptors, one a buffer, and says which is the first; it is not made available.
    pub fn describe(&mut self, buffers: &[Buffer]) -> u16 {
        let head = self.next_descriptor;
        for (number, buffer) in buffers.iter().enumerate() {
            let index = self.next_descriptor;
            self.next_descriptor = (index + 1) % self.size;
            let (address, len, flags) = buffer.parts();
            let more = number + 1 < buffers.len();
            let flags = flags | if more { ring::DESC_F_NEXT } else { 0 };
            self.set_descriptor(index, address, len, flags, self.next_descriptor);
        }
        head
    }

    /// As [`describe`](Self::describe), by one descriptor that refers to a table at `table`.
    pub fn describe_indirect(&mut self, table: u64, buffers: &[Buffer]) -> u16 {
        for (index, buffer) in (0_u16..).zip(buffers) {
            let (address, len, flags) = buffer.parts();
            let more = usize::from(index) + 1 < buffers.len();
            let flags = flags | if more { ring::DESC_F_NEXT } else { 0 };
            let at = table + 16 * u64::from(index);
            write_descriptor(&self.memory, at, address, len, flags, index + 1);
        }
        let head = self.next_descriptor;
        self.next_descriptor = (head + 1) % self.size;
        let len = 16 * u32::try_from(buffers.len()).unwrap();
        self.set_descriptor(head, table, len, ring::DESC_F_INDIRECT, 0);
        head
    }

    /// Makes the chain that begins with `head` available.
    pub fn offer(&mut self, head: u16) {
        let slot = u64::from(self.available % self.size);
        self.write_u16(self.layout.available + 4 + 2 * slot, head);
        self.set_available(self.available.wrapping_add(1));
    }

    /// Describes a chain and makes it available. Returns its head.
    pub fn add(&mut self, buffers: &[Buffer]) -> u16 {
        let head = self.describe(buffers);
        self.offer(head);
        head
    }

    /// Sets the available ring's index.
    pub fn set_available(&mut self, index: u16) {
        self.available = index;
        self.write_u16(self.layout.available + 2, index);
    }

    /// Sets the available ring's flags.
    pub fn set_flags(&self, flags: u16) {
        self.write_u16(self.layout.available, flags);
    }

    /// Asks for an interrupt when the used ring's index passes `index`.
    pub fn set_used_event(&self, index: u16) {
        self.write_u16(self.layout.available + 4 + 2 * u64::from(self.size), index);
    }

    /// Which available index the device wants to be notified of.
    pub fn available_event(&self) -> u16 {
        self.read_u16(self.layout.used + 4 + 8 * u64::from(self.size))
    }

    /// The used ring's index.
    pub fn used_index(&self) -> u16 {
        self.read_u16(self.layout.used + 2)
    }

    /// The next chain that the device has given back: its head, and how many bytes it has written.
    pub fn used(&mut self) -> Option<(u16, u32)> {
        if self.seen == self.used_index() {
            return None;
        }
        let slot = u64::from(self.seen % self.size);
        self.seen = self.seen.wrapping_add(1);
        let at = GuestAddress(self.layout.used + 4 + 8 * slot);
        let [a, b, _, _, len @ ..] = self.memory.read_obj::<[u8; 8]>(at).unwrap();
        Some((u16::from_le_bytes([a, b]), u32::from_le_bytes(len)))
    }

    fn write_u16(&self, at: u64, value: u16) {
        let bytes = value.to_le_bytes();
        self.memory.write_slice(&bytes, GuestAddress(at)).unwrap();
    }

    fn read_u16(&self, at: u64) -> u16 {
        u16::from_le_bytes(self.memory.read_obj(GuestAddress(at)).unwrap())
    }
}

/// How far the device is in a queue: which available entry it takes next, and which used entry it fills next.
pub const fn indexes(queue: &Queue) -> (u16, u16) {
    (queue.next_available, queue.next_used)
}

/// Writes a descriptor anywhere.
pub fn write_descriptor(
    memory: &GuestMemoryMmap,
    at: u64,
    address: u64,
    len: u32,
    flags: u16,
    next: u16,
) {
    let mut bytes = address.to_le_bytes().to_vec();
    bytes.extend(len.to_le_bytes());
    bytes.extend([flags, next].map(u16::to_le_bytes).as_flattened());
    memory.write_slice(&bytes, GuestAddress(at)).unwrap();
}

/// Reads a register of the MMIO transport.
pub fn read(device: &mut impl Device, register: u64) -> u32 {
    let mut data = [0xff; 4];
    device.read(register, &mut data);
    u32::from_le_bytes(data)
}

/// Writes a register of the MMIO transport.
pub fn write(device: &mut impl Device, register: u64, value: u32) {
    let _ = device.write(register, &value.to_le_bytes());
}

/// All that the device offers.
pub fn offered_features(device: &mut impl Device) -> u64 {
    let mut half = |number| {
        write(device, mmio::DEVICE_FEATURES_SEL, number);
        u64::from(read(device, mmio::DEVICE_FEATURES))
    };
    half(0) | half(1) << 32
}

/// Resets the device and agrees on `features`: up to FEATURES_OK (§3.1.1, steps 1 to 6). Returns whether it took them.
pub fn negotiate(device: &mut impl Device, features: u64) -> bool {
    let [low, high] =
        [features, features >> 32].map(|half| u32::try_from(half & u64::from(u32::MAX)).unwrap());
    write(device, mmio::STATUS, 0);
    let mut bits = 0;
    for bit in [status::ACKNOWLEDGE, status::DRIVER, status::FEATURES_OK] {
        if bit == status::FEATURES_OK {
            for (number, half) in [(0, low), (1, high)] {
                write(device, mmio::DRIVER_FEATURES_SEL, number);
                write(device, mmio::DRIVER_FEATURES, half);
            }
        }
        bits |= u32::from(bit);
        write(device, mmio::STATUS, bits);
    }
    read(device, mmio::STATUS) == bits
}

/// Sets a queue up and makes it ready (§4.2.3.2).
pub fn set_up(device: &mut impl Device, index: u16, layout: &QueueLayout) {
    write(device, mmio::QUEUE_SEL, index.into());
    write(device, mmio::QUEUE_SIZE, layout.size);
    for (register, address) in [
        (mmio::QUEUE_DESC_LOW, layout.descriptors),
        (mmio::QUEUE_DRIVER_LOW, layout.available),
        (mmio::QUEUE_DEVICE_LOW, layout.used),
    ] {
        let [low, high] =
            [address, address >> 32].map(|half| u32::try_from(half & u64::from(u32::MAX)).unwrap());
        write(device, register, low);
        write(device, register + 4, high);
    }
    write(device, mmio::QUEUE_READY, 1);
}

/// Sets DRIVER_OK: the device is live (§3.1.1, step 8).
pub fn start(device: &mut impl Device) {
    let bits = read(device, mmio::STATUS) | u32::from(status::DRIVER_OK);
    write(device, mmio::STATUS, bits);
}

/// All of the above, with `features` among those that are offered.
pub fn initialise(device: &mut impl Device, features: u64, queues: &[&DriverQueue]) {
    let agreed = negotiate(device, features);
    assert!(agreed, "the device does not take {features:#x}");
    for (index, queue) in (0_u16..).zip(queues) {
        set_up(device, index, &queue.layout);
    }
    start(device);
}

/// Tells the device that a queue has new buffers.
pub fn notify(device: &mut impl Device, index: u16) {
    write(device, mmio::QUEUE_NOTIFY, index.into());
}
