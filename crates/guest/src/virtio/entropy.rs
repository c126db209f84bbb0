//! Sources of entropy (virtio 1.3 §5.4).
#![allow(unsafe_code, reason = "buffers are lent to the device")]

use super::queue::{Queue, Segment};
use super::transport::Transport;
use super::{Device, Error, Mmio, Registers, first, id};

/// A source of entropy.
///
/// What it gives is as random as the host makes it. A program that needs secrets stirs it into a generator of its own.
#[derive(Debug)]
pub struct Entropy<R: Registers = Mmio> {
    /// First, so that the device is reset before memory that it uses is freed.
    transport: Transport<R>,
    queue: Queue,
}

impl Entropy {
    /// Drives the machine's first source.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`], and those of [`new`](Self::new).
    pub fn first() -> Result<Self, Error> {
        Self::new(first(id::ENTROPY)?)
    }

    /// Drives a source. It is reset first.
    ///
    /// # Errors
    ///
    /// If the device is no source of entropy, or none that this driver can drive.
    pub fn new(device: Device) -> Result<Self, Error> {
        Self::with_registers(Mmio::new(device))
    }
}

impl<R: Registers> Entropy<R> {
    /// Drives the source with these registers.
    ///
    /// # Errors
    ///
    /// Those of [`Entropy::new`].
    pub fn with_registers(registers: R) -> Result<Self, Error> {
        let mut transport = Transport::start(registers, id::ENTROPY, 0)?;
        let queue = transport.queue(0, 1)?;
        transport.run();
        Ok(Self { transport, queue })
    }

    /// Fills `buffer`, waiting as long as it takes.
    ///
    /// # Errors
    ///
    /// If the device misbehaves. A device that gives nothing does (§5.4.6.2).
    pub fn fill(&mut self, buffer: &mut [u8]) -> Result<(), Error> {
        let mut rest = buffer;
        while !rest.is_empty() {
            let given = self.request(rest)?;
            rest = rest.get_mut(given..).unwrap_or_default();
        }
        Ok(())
    }

    /// Has the device write to the buffer; gives how many bytes it did, at least one.
    fn request(&mut self, buffer: &mut [u8]) -> Result<usize, Error> {
        self.transport.check()?;
        let segment = Segment::to_write(buffer);
        // SAFETY: the buffer is borrowed until this returns, which is when the request is completed, or the device was
        // reset by `Transport::wait`.
        unsafe { self.queue.add(&[segment])? };
        self.transport.publish(&mut self.queue);
        match self.transport.wait(&mut self.queue)?.len {
            0 => Err(Error::Answer { found: 0 }),
            len => Ok(usize::try_from(len).unwrap_or(usize::MAX)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::fake::{Fake, Manner};
    use super::*;

    /// A source that gives at most `most` bytes at once, which count up.
    fn source(most: usize) -> Fake {
        let mut next = 0_u8;
        Fake::new(id::ENTROPY, move |mut request| {
            let buffer = request.writable.remove(0);
            let len = buffer.len().min(most);
            for byte in buffer.iter_mut().take(len) {
                *byte = next;
                next = next.wrapping_add(1);
            }
            u32::try_from(len).unwrap_or(0)
        })
    }

    #[test]
    fn a_buffer_is_filled_however_little_the_device_gives_at_once() {
        for manner in [Manner::AtOnce, Manner::Later] {
            for most in [1, 7, 300] {
                let mut fake = source(most);
                fake.manner = manner;
                let mut entropy = Entropy::with_registers(fake).expect("it can be driven");
                let mut bytes = [0xff; 200];
                assert_eq!(entropy.fill(&mut bytes), Ok(()));
                assert!(
                    bytes
                        .iter()
                        .zip(0..)
                        .all(|(byte, expected)| *byte == expected)
                );
            }
        }
    }

    #[test]
    fn a_source_that_gives_nothing_is_not_asked_without_end() {
        let mut entropy = Entropy::with_registers(source(0)).expect("it can be driven");
        assert_eq!(entropy.fill(&mut [0; 8]), Err(Error::Answer { found: 0 }));
        assert_eq!(entropy.fill(&mut []), Ok(()));
    }
}
