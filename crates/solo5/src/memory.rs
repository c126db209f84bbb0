//! Guest RAM, as far as hypercalls may touch it.

use std::ops::Range;

use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryMmap};
use zerocopy::IntoBytes;

use crate::Misuse;
use crate::spec::Argument;

/// RAM, and the ranges of it that the guest cannot write.
pub(crate) struct Memory {
    memory: GuestMemoryMmap,
    read_only: Vec<Range<u64>>,
}

impl Memory {
    pub(crate) fn new(memory: GuestMemoryMmap) -> Self {
        Self {
            memory,
            read_only: Vec::new(),
        }
    }

    pub(crate) fn protect(&mut self, ranges: Vec<Range<u64>>) {
        self.read_only = ranges;
    }

    pub(crate) fn all(&self) -> &GuestMemoryMmap {
        &self.memory
    }

    /// The argument of a hypercall, read once.
    pub(crate) fn argument<T: Argument + IntoBytes>(&self, at: u64) -> Result<T, Misuse> {
        let mut value = T::new_zeroed();
        self.read(T::NAME, at, value.as_mut_bytes())?;
        Ok(value)
    }

    pub(crate) fn read(&self, call: &'static str, at: u64, bytes: &mut [u8]) -> Result<(), Misuse> {
        let len = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        self.memory
            .read_slice(bytes, GuestAddress(at))
            .map_err(|_| Misuse::NotRam { call, at, len })
    }

    /// Writes all of `bytes`, or nothing.
    pub(crate) fn write(&self, call: &'static str, at: u64, bytes: &[u8]) -> Result<(), Misuse> {
        let len = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        self.check_writable(call, at, len)?;
        self.memory
            .write_slice(bytes, GuestAddress(at))
            .map_err(|_| Misuse::NotRam { call, at, len })
    }

    /// Fails unless `len` bytes at `at` are RAM.
    pub(crate) fn check(&self, call: &'static str, at: u64, len: u64) -> Result<(), Misuse> {
        let is_ram = usize::try_from(len)
            .is_ok_and(|len| len == 0 || self.memory.check_range(GuestAddress(at), len));
        is_ram.then_some(()).ok_or(Misuse::NotRam { call, at, len })
    }

    /// Fails unless `len` bytes at `at` are RAM that the guest can write.
    pub(crate) fn check_writable(
        &self,
        call: &'static str,
        at: u64,
        len: u64,
    ) -> Result<(), Misuse> {
        self.check(call, at, len)?;
        let end = at.saturating_add(len);
        let overlaps = |range: &Range<u64>| range.start < end && at < range.end;
        if self.read_only.iter().any(overlaps) {
            return Err(Misuse::ReadOnly { call, at, len });
        }
        Ok(())
    }
}
