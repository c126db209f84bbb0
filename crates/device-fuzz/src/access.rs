//! Register accesses, as a bus lets them through to a device.

use arbitrary::{Result, Unstructured};
use goldcrest_bus::{Device, Effect};

/// A read or a write of 1 to 8 bytes that lies inside the device's registers.
#[derive(Debug, Clone, Copy)]
pub struct Access {
    /// Where, from the first register.
    pub offset: u64,
    len: usize,
    /// What is written; `None` for a read.
    written: Option<[u8; 8]>,
}

/// What came of an [`Access`].
#[derive(Debug)]
pub struct Outcome {
    /// What the machine must do; nothing for a read.
    pub effect: Effect,
    data: [u8; 8],
    len: usize,
}

impl Access {
    /// Takes the next access to `registers` bytes of registers from the input: one byte for its shape, one or four for
    /// the offset, and what it writes.
    ///
    /// # Errors
    ///
    /// Where the input ends.
    pub fn take(input: &mut Unstructured<'_>, registers: u64) -> Result<Self> {
        let shape: u8 = input.arbitrary()?;
        let offset = if registers <= 0x100 {
            u64::from(input.arbitrary::<u8>()?)
        } else {
            u64::from(input.arbitrary::<u32>()?)
        } % registers;
        let left = usize::try_from(registers - offset).unwrap_or(usize::MAX);
        let len = (usize::from(shape & 7) + 1).min(left);
        let written = if shape & 0x80 != 0 {
            let mut data = [0; 8];
            data[..len].copy_from_slice(input.bytes(len)?);
            Some(data)
        } else {
            None
        };
        Ok(Self {
            offset,
            len,
            written,
        })
    }

    /// The bytes that are written; none for a read.
    pub fn written(&self) -> &[u8] {
        self.written.as_ref().map_or(&[], |data| &data[..self.len])
    }

    /// The bytes that are written, each with the offset that it goes to.
    pub fn written_at(&self) -> impl Iterator<Item = (u64, u8)> {
        (self.offset..).zip(self.written().iter().copied())
    }

    /// Does the access.
    pub fn apply(&self, device: &mut dyn Device) -> Outcome {
        let mut data = [0xff; 8];
        let effect = if self.written.is_some() {
            device.write(self.offset, self.written())
        } else {
            device.read(self.offset, &mut data[..self.len]);
            Effect::None
        };
        self.outcome(effect, data)
    }

    /// Does the access by one of two functions.
    pub(crate) fn apply_by(
        &self,
        read: impl FnOnce(&mut [u8]),
        write: impl FnOnce(&[u8]) -> Effect,
    ) -> Outcome {
        let mut data = [0xff; 8];
        let effect = if self.written.is_some() {
            write(self.written())
        } else {
            read(&mut data[..self.len]);
            Effect::None
        };
        self.outcome(effect, data)
    }

    fn outcome(&self, effect: Effect, data: [u8; 8]) -> Outcome {
        let len = if self.written.is_some() { 0 } else { self.len };
        Outcome { effect, data, len }
    }
}

impl Outcome {
    /// The bytes that were read; none for a write.
    pub fn read(&self) -> &[u8] {
        &self.data[..self.len]
    }

    /// Fails unless the machine just goes on.
    ///
    /// # Panics
    ///
    /// If it does not.
    pub fn assert_goes_on(&self) {
        assert!(matches!(self.effect, Effect::None), "{:?}", self.effect);
    }
}
