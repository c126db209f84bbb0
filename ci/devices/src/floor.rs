//! The floor: a ring served without a check, by whoever believes the driver.

use std::ptr;
use std::sync::atomic::{Ordering, fence};

use goldcrest_virtio::QueueLayout;
use vm_memory::{GuestAddress, GuestMemoryBackend, GuestMemoryMmap};

/// A queue with all its addresses in this process.
pub struct Ring {
    /// Where guest-physical 0 is.
    ram: *mut u8,
    descriptors: *const Descriptor,
    available: *mut u16,
    used: *mut u16,
    size: u16,
    next: u16,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct Descriptor {
    address: u64,
    len: u32,
    flags: u16,
    next: u16,
}

impl Ring {
    pub fn new(memory: &GuestMemoryMmap, layout: &QueueLayout) -> Self {
        let ram = memory.get_host_address(GuestAddress(0)).unwrap();
        // SAFETY: the queue lies in the one region of memory, which outlives the ring here.
        let at = |address: u64| unsafe { ram.add(usize::try_from(address).unwrap()) };
        Self {
            ram,
            descriptors: at(layout.descriptors).cast(),
            available: at(layout.available).cast(),
            used: at(layout.used).cast(),
            size: u16::try_from(layout.size).unwrap(),
            next: 0,
        }
    }

    /// The driver's part: one more entry.
    #[inline]
    pub fn offer(&self, index: u32) {
        // SAFETY: the index is the second number of the available ring.
        unsafe { ptr::write_volatile(self.available.add(1), index as u16) };
    }

    pub fn available_index(&self) -> u16 {
        // SAFETY: as above.
        unsafe { ptr::read_volatile(self.available.add(1)) }
    }

    pub fn used_index(&self) -> u16 {
        // SAFETY: the index is the second number of the used ring.
        unsafe { ptr::read_volatile(self.used.add(1)) }
    }

    /// Looks whether there is something to do.
    #[inline(never)]
    pub fn look(&mut self) {
        assert_eq!(self.available_index(), self.next);
    }

    /// A disk: header, data, status.
    #[inline(never)]
    pub fn serve_block(&mut self, disk: &mut [u8]) {
        // SAFETY: the benchmark's own driver laid the ring and the chains, and nothing else writes to this memory.
        unsafe {
            while self.next != self.available_index() {
                let head = self.head();
                let header = *self.descriptors.add(usize::from(head));
                let data = *self.descriptors.add(usize::from(header.next));
                let status = *self.descriptors.add(usize::from(data.next));
                let request = self.ram.add(header.address as usize);
                let kind = request.cast::<u32>().read();
                let sector = request.add(8).cast::<u64>().read();
                let bytes = self.ram.add(data.address as usize);
                let place = disk.as_mut_ptr().add(sector as usize * 512);
                let written = if kind == 0 {
                    ptr::copy_nonoverlapping(place, bytes, data.len as usize);
                    data.len + 1
                } else {
                    ptr::copy_nonoverlapping(bytes, place, data.len as usize);
                    1
                };
                self.ram.add(status.address as usize).write(0);
                self.give_back(head, written);
            }
        }
    }

    /// A source of entropy.
    #[inline(never)]
    pub fn serve_entropy(&mut self, source: &[u8; 64]) {
        // SAFETY: as in `serve_block`.
        unsafe {
            while self.next != self.available_index() {
                let head = self.head();
                let data = *self.descriptors.add(usize::from(head));
                let to = self.ram.add(data.address as usize);
                ptr::copy_nonoverlapping(source.as_ptr(), to, data.len as usize);
                self.give_back(head, data.len);
            }
        }
    }

    /// A console's output.
    #[inline(never)]
    pub fn serve_console(&mut self, sink: &mut [u8; 64]) {
        // SAFETY: as in `serve_block`.
        unsafe {
            while self.next != self.available_index() {
                let head = self.head();
                let data = *self.descriptors.add(usize::from(head));
                let from = self.ram.add(data.address as usize);
                ptr::copy_nonoverlapping(from, sink.as_mut_ptr(), data.len as usize);
                self.give_back(head, 0);
            }
        }
    }

    /// A network's frames from the guest, with their headers.
    #[inline(never)]
    pub fn serve_transmit(&mut self, sink: &mut [u8; 2048]) {
        // SAFETY: as in `serve_block`; frames are shorter than the sink.
        unsafe {
            while self.next != self.available_index() {
                let head = self.head();
                let data = *self.descriptors.add(usize::from(head));
                let from = self.ram.add(data.address as usize);
                ptr::copy_nonoverlapping(from, sink.as_mut_ptr(), data.len as usize);
                self.give_back(head, 0);
            }
        }
    }

    /// A network's frames to the guest, with their headers, the number of whose buffers is set.
    #[inline(never)]
    pub fn serve_receive(&mut self, frame: &[u8]) {
        // SAFETY: as in `serve_block`; buffers are longer than the frame.
        unsafe {
            while self.next != self.available_index() {
                let head = self.head();
                let data = *self.descriptors.add(usize::from(head));
                let to = self.ram.add(data.address as usize);
                ptr::copy_nonoverlapping(frame.as_ptr(), to, frame.len());
                to.add(10).cast::<u16>().write(1);
                self.give_back(head, frame.len() as u32);
            }
        }
    }

    /// A socket device's packets from the guest: a header of 44 bytes, payload.
    #[inline(never)]
    pub fn serve_stream_out(&mut self, program: &mut [u8]) {
        // SAFETY: as in `serve_block`; the program has room for a packet.
        unsafe {
            while self.next != self.available_index() {
                let head = self.head();
                let header = *self.descriptors.add(usize::from(head));
                let data = *self.descriptors.add(usize::from(header.next));
                let header = self.ram.add(header.address as usize);
                let len = header.add(24).cast::<u32>().read();
                assert_eq!(header.add(30).cast::<u16>().read(), 5, "payload");
                let from = self.ram.add(data.address as usize);
                ptr::copy_nonoverlapping(from, program.as_mut_ptr(), len as usize);
                self.give_back(head, 0);
            }
        }
    }

    /// A socket device's packets to the guest.
    #[inline(never)]
    pub fn serve_stream_in(&mut self, program: &[u8]) {
        // SAFETY: as in `serve_block`; there is room for the packet.
        unsafe {
            while self.next != self.available_index() {
                let head = self.head();
                let header = *self.descriptors.add(usize::from(head));
                let data = *self.descriptors.add(usize::from(header.next));
                let to = self.ram.add(data.address as usize);
                ptr::copy_nonoverlapping(program.as_ptr(), to, program.len());
                let header = self.ram.add(header.address as usize).cast::<u32>();
                let len = program.len() as u32;
                for (word, value) in [2, 0, 3, 0, 52, 1000, len, 5 << 16 | 1, 0, 4096, 0]
                    .into_iter()
                    .enumerate()
                {
                    header.add(word).write(value);
                }
                self.give_back(head, 44 + len);
            }
        }
    }

    #[inline]
    unsafe fn head(&self) -> u16 {
        let slot = usize::from(self.next & (self.size - 1));
        // SAFETY: there are as many entries as the queue's size, behind flags and index.
        unsafe { self.available.add(2 + slot).read_volatile() }
    }

    #[inline]
    unsafe fn give_back(&mut self, head: u16, written: u32) {
        let slot = usize::from(self.next & (self.size - 1));
        self.next = self.next.wrapping_add(1);
        // SAFETY: there are as many entries as the queue's size, behind flags and index, and `avail_event` behind them.
        unsafe {
            let entry = self.used.add(2 + 4 * slot).cast::<u32>();
            entry.write_volatile(head.into());
            entry.add(1).write_volatile(written);
            fence(Ordering::Release);
            self.used.add(1).write_volatile(self.next);
            // What the driver must be told, it must be told with a bare loop, too.
            self.used
                .add(2 + 4 * usize::from(self.size))
                .write_volatile(self.next);
        }
    }
}
