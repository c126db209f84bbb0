//! Guest RAM, by physical and by virtual addresses.

use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryMmap};

use crate::Misuse;
use crate::spec::Params;

const PRESENT: u64 = 1 << 0;
const LARGE: u64 = 1 << 7;
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;

pub(crate) struct Memory {
    memory: GuestMemoryMmap,
    /// The root of the guest's page tables.
    page_tables: u64,
}

impl Memory {
    pub(crate) fn new(memory: GuestMemoryMmap) -> Self {
        Self {
            memory,
            page_tables: 0,
        }
    }

    pub(crate) fn set_page_tables(&mut self, root: u64) {
        self.page_tables = root;
    }

    /// The argument of a hypercall, read once.
    pub(crate) fn params<T: Params>(&self, at: u64) -> Result<T, Misuse> {
        let mut value = T::new_zeroed();
        self.read(T::NAME, at, value.as_mut_bytes())?;
        Ok(value)
    }

    pub(crate) fn read(&self, call: &'static str, at: u64, bytes: &mut [u8]) -> Result<(), Misuse> {
        let len = as_u64(bytes.len());
        self.memory
            .read_slice(bytes, GuestAddress(at))
            .map_err(|_| Misuse::NotRam { call, at, len })
    }

    /// Writes all of `bytes`, or nothing.
    pub(crate) fn write(&self, call: &'static str, at: u64, bytes: &[u8]) -> Result<(), Misuse> {
        self.check(call, at, as_u64(bytes.len()))?;
        let len = as_u64(bytes.len());
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

    /// Where a virtual address is, and how many bytes of its page begin there (SDM vol. 3A §4.5).
    pub(crate) fn translate(&self, call: &'static str, at: u64) -> Result<(u64, u64), Misuse> {
        let not_mapped = Misuse::NotMapped { call, at };
        let mut table = self.page_tables;
        for level in (0..4u32).rev() {
            let shift = 12 + 9 * level;
            let mut entry = [0; 8];
            let entry_at = table.saturating_add((at >> shift & 0x1ff) * 8);
            self.read(call, entry_at, &mut entry)
                .map_err(|_| not_mapped.clone())?;
            let entry = u64::from_le_bytes(entry);
            if entry & PRESENT == 0 {
                return Err(not_mapped);
            }
            if level == 0 || (level < 3 && entry & LARGE != 0) {
                let inside = (1 << shift) - 1;
                let physical = entry & ADDRESS & !inside | at & inside;
                return Ok((physical, inside + 1 - (at & inside)));
            }
            table = entry & ADDRESS;
        }
        Err(not_mapped)
    }
}

fn as_u64(len: usize) -> u64 {
    u64::try_from(len).unwrap_or(u64::MAX)
}
