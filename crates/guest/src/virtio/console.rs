//! Consoles (virtio 1.3 §5.3): port 0, which is there without any negotiation.
#![allow(unsafe_code, reason = "buffers are lent to the device")]

use core::fmt;

use super::memory::Shared;
use super::queue::{Queue, Segment, Used};
use super::transport::Transport;
use super::{Device, Error, Mmio, Registers, first, id};

/// The queues of port 0 (§5.3.2).
const RECEIVE: u16 = 0;
const TRANSMIT: u16 = 1;

/// Bytes that are received at once.
const BUFFER: u32 = 4096;

/// A console.
///
/// What is written goes to the host at once: lines that are put together first cost fewer exits. `write!` works too.
#[derive(Debug)]
pub struct Console<R: Registers = Mmio> {
    /// First, so that the device is reset before memory that it uses is freed.
    transport: Transport<R>,
    receive: Queue,
    transmit: Queue,
    /// What was received.
    buffer: Shared,
    /// The part of the buffer that has not been read.
    unread: core::ops::Range<u32>,
}

impl Console {
    /// Drives the machine's first console.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`], and those of [`new`](Self::new).
    pub fn first() -> Result<Self, Error> {
        Self::new(first(id::CONSOLE)?)
    }

    /// Drives a console. It is reset first.
    ///
    /// # Errors
    ///
    /// If the device is no console, or none that this driver can drive.
    pub fn new(device: Device) -> Result<Self, Error> {
        Self::with_registers(Mmio::new(device))
    }
}

impl<R: Registers> Console<R> {
    /// Drives the console with these registers.
    ///
    /// # Errors
    ///
    /// Those of [`Console::new`].
    pub fn with_registers(registers: R) -> Result<Self, Error> {
        let mut transport = Transport::start(registers, id::CONSOLE, 0)?;
        let receive = transport.queue(RECEIVE, 1)?;
        let transmit = transport.queue(TRANSMIT, 1)?;
        let buffer = Shared::new(BUFFER as usize)?;
        transport.run();
        let mut console = Self {
            transport,
            receive,
            transmit,
            buffer,
            unread: 0..0,
        };
        console.lend_buffer()?;
        Ok(console)
    }

    /// Writes all of `bytes`.
    ///
    /// # Errors
    ///
    /// If the device misbehaves.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        for part in bytes.chunks(1 << 20) {
            self.transport.check()?;
            // SAFETY: the part is borrowed until this returns, which is when the request is completed, or the device
            // was reset by `Transport::wait`.
            unsafe { self.transmit.add(&[Segment::to_read(part)])? };
            self.transport.publish(&mut self.transmit);
            self.transport.wait(&mut self.transmit)?;
        }
        Ok(())
    }

    /// Reads what there is, up to all of `bytes`; waits if there is nothing. Gives how many bytes, at least one unless
    /// `bytes` is empty.
    ///
    /// # Errors
    ///
    /// If the device misbehaves.
    pub fn read(&mut self, bytes: &mut [u8]) -> Result<usize, Error> {
        while self.unread.is_empty() && !bytes.is_empty() {
            let used = self.transport.wait(&mut self.receive)?;
            self.received(used)?;
        }
        self.take(bytes)
    }

    /// As [`read`](Self::read), but gives 0 if there is nothing.
    ///
    /// # Errors
    ///
    /// If the device misbehaves.
    pub fn try_read(&mut self, bytes: &mut [u8]) -> Result<usize, Error> {
        if self.unread.is_empty()
            && let Some(used) = self.transport.poll(&mut self.receive)?
        {
            self.received(used)?;
        }
        self.take(bytes)
    }

    fn received(&mut self, used: Used) -> Result<(), Error> {
        self.unread = 0..used.len;
        if used.len == 0 {
            self.lend_buffer()?;
        }
        Ok(())
    }

    /// Takes from the buffer, and lends it to the device again when it is empty.
    fn take(&mut self, bytes: &mut [u8]) -> Result<usize, Error> {
        let mut count = 0;
        for (to, from) in bytes.iter_mut().zip(self.unread.clone()) {
            *to = self.buffer.read(from as usize);
            count += 1;
        }
        self.unread.start += u32::try_from(count).unwrap_or(u32::MAX);
        if count > 0 && self.unread.is_empty() {
            self.lend_buffer()?;
        }
        Ok(count)
    }

    fn lend_buffer(&mut self) -> Result<(), Error> {
        let segment = Segment {
            address: self.buffer.address(0),
            len: BUFFER,
            write: true,
        };
        // SAFETY: the buffer is kept until the device is reset, as `transport` is dropped first, and is not read before
        // the device has given it back.
        unsafe { self.receive.add(&[segment])? };
        self.transport.publish(&mut self.receive);
        Ok(())
    }
}

impl<R: Registers> fmt::Write for Console<R> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.write(text.as_bytes()).map_err(|_| fmt::Error)
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::fmt::Write;
    use std::rc::Rc;
    use std::vec::Vec;

    use super::super::fake::{Fake, Manner};
    use super::*;

    type Output = Rc<RefCell<Vec<u8>>>;

    /// A console that has `input` sent to it, so much at a time.
    fn console(input: &'static [u8], at_a_time: usize) -> (Console<Fake>, Output) {
        let output = Output::default();
        let (sent, mut input) = (output.clone(), input.chunks(at_a_time));
        let mut fake = Fake::new(id::CONSOLE, move |mut request| match request.queue {
            RECEIVE => {
                let piece = input.next().unwrap_or_default();
                let buffer = request.writable.remove(0);
                for (to, from) in buffer.iter_mut().zip(piece) {
                    *to = *from;
                }
                u32::try_from(piece.len()).unwrap_or(0)
            }
            _ => {
                sent.borrow_mut().extend(request.readable.concat());
                0
            }
        });
        fake.manner = Manner::Later;
        let console = Console::with_registers(fake).expect("it can be driven");
        (console, output)
    }

    #[test]
    fn input_is_read_in_order_and_in_pieces_of_any_size() {
        for at_a_time in [1, 3, 100] {
            let (mut console, _) = console(b"some input", at_a_time);
            let (mut all, mut piece) = (Vec::<u8>::new(), [0; 4]);
            assert_eq!(console.try_read(&mut piece), Ok(0));
            assert_eq!(console.read(&mut []), Ok(0));
            while all.len() < 10 {
                let len = console.read(&mut piece).expect("there is more");
                assert!(len > 0);
                all.extend(piece.iter().take(len));
            }
            assert_eq!(all, b"some input");
        }
    }

    #[test]
    fn output_is_written_in_order() {
        let (mut console, output) = console(b"", 1);
        console.write(b"one ").expect("it is written");
        write!(console, "and {}", 2).expect("it is written");
        assert_eq!(*output.borrow(), b"one and 2");
    }
}
