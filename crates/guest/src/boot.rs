//! What the host told the guest: command line, memory, initial RAM disk.
#![allow(unsafe_code, reason = "the boot information is found by address")]

use core::slice;
#[cfg(feature = "virtio")]
use core::sync::atomic::AtomicBool;
use core::sync::atomic::{AtomicPtr, AtomicU64, Ordering};

use goldcrest_abi::boot_info::{BootInfo, MAGIC, MemoryRegion, mark};
use goldcrest_abi::note::VERSION;

use crate::time;

/// The boot information, once it has been checked.
static INFO: AtomicPtr<BootInfo> = AtomicPtr::new(core::ptr::null_mut());

/// Address and entries of the map that a PVH host gave.
static MEMORY_MAP: [AtomicU64; 2] = [const { AtomicU64::new(0) }; 2];

/// Set if all addresses below 4 GiB are mapped, RAM or not.
#[cfg(feature = "virtio")]
static ALL_MAPPED: AtomicBool = AtomicBool::new(false);

/// Why boot information is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum BootError {
    /// It does not begin with the magic number; here is what it begins with.
    Magic(u64),
    /// It is of this version, which is not [`VERSION`].
    Version(u32),
    /// It has this many bytes, fewer than this version needs.
    Size(u32),
}

/// Checks that `info` is boot information that this runtime understands.
pub fn check(info: &BootInfo) -> Result<(), BootError> {
    if info.magic != MAGIC {
        Err(BootError::Magic(info.magic))
    } else if info.version != VERSION {
        Err(BootError::Version(info.version))
    } else if (info.size as usize) < size_of::<BootInfo>() {
        Err(BootError::Size(info.size))
    } else {
        Ok(())
    }
}

/// Checks the boot information at `info` and takes it into use.
///
/// # Safety
///
/// `info` is valid for reads and writes as long as the machine runs, and so is all that it refers to.
pub(crate) unsafe fn set_info(info: *mut BootInfo) -> Result<(), BootError> {
    // SAFETY: valid for reads by this function's own contract.
    check(unsafe { &*info })?;
    INFO.store(info, Ordering::Relaxed);
    Ok(())
}

/// A copy of the boot information; `None` before the runtime has taken it into use.
pub fn info() -> Option<BootInfo> {
    let info = INFO.load(Ordering::Relaxed);
    // SAFETY: a pointer that is set is valid for as long as the machine runs, by the contract of `set_info`.
    (!info.is_null()).then(|| unsafe { info.read() })
}

/// Leaves a reading of the time-stamp counter for the monitor.
pub(crate) fn set_mark(index: usize) {
    set_mark_at(index, time::tsc());
}

/// Leaves the reading `tsc` for the monitor.
pub(crate) fn set_mark_at(index: usize, tsc: u64) {
    let info = INFO.load(Ordering::Relaxed);
    if !info.is_null() && index < mark::COUNT {
        // SAFETY: a pointer that is set is valid for writes, by the contract of `set_info`; there is no reference to
        // the structure, only short reads of it, and the index is within the array.
        unsafe { (&raw mut (*info).marks).cast::<u64>().add(index).write(tsc) };
    }
}

/// The generation identifier as it is now: the host changes it while the program stands still.
pub(crate) fn generation_id() -> [u8; 16] {
    let info = INFO.load(Ordering::Relaxed);
    if info.is_null() {
        return [0; 16];
    }
    // SAFETY: a pointer that is set is valid for reads, by the contract of `set_info`.
    unsafe { (&raw const (*info).generation_id).read_volatile() }
}

/// Notes where a PVH host left its memory map.
///
/// # Safety
///
/// It stays there, unchanged, for as long as the machine runs.
pub(crate) unsafe fn set_memory_map(map: &[MemoryRegion]) {
    let address = map.as_ptr().expose_provenance() as u64;
    let values = [address, map.len() as u64];
    for (to, value) in MEMORY_MAP.iter().zip(values) {
        to.store(value, Ordering::Relaxed);
    }
}

/// The memory map as a PVH host gave it, with numbers as e820 has them: what a program that starts another one hands on.
/// Empty after direct entry.
pub fn memory_map() -> &'static [MemoryRegion] {
    let [address, count] = &MEMORY_MAP;
    let (address, count) = (
        address.load(Ordering::Relaxed),
        count.load(Ordering::Relaxed),
    );
    // SAFETY: it is there, by the contract of `set_memory_map`; the allocator keeps away from it.
    unsafe { slice_at(address, count) }
}

/// What is free of the memory, and what the program itself is in.
pub fn regions() -> &'static [MemoryRegion] {
    let (address, count) = info().map_or((0, 0), |info| (info.regions, info.region_count));
    // SAFETY: what the boot information refers to is there, by the contract of `set_info`; nobody writes to it.
    unsafe { slice_at(address, count) }
}

/// The initial RAM disk or module that the host was given; empty if there is none.
pub fn initrd() -> &'static [u8] {
    let (address, len) = info().map_or((0, 0), |info| (info.initrd, info.initrd_len));
    // SAFETY: as for `regions`; the allocator keeps away from it, as the host does not report it as usable.
    unsafe { slice_at(address, len) }
}

/// The flattened device tree; empty if there is none. It has the machine's virtio devices ([`abi`](crate::abi)).
pub fn device_tree() -> &'static [u8] {
    const HEADER: u64 = 8;
    let address = info().map_or(0, |info| info.fdt);
    // SAFETY: as for `regions`: a tree begins with its magic number and its size, both big-endian.
    let header: &[u32] = unsafe { slice_at(address, HEADER / 4) };
    match header {
        // SAFETY: as above, and the tree has this many bytes.
        [magic, size] if u32::from_be(*magic) == 0xd00d_feed => unsafe {
            slice_at(address, u32::from_be(*size).into())
        },
        _ => &[],
    }
}

/// Notes that all addresses below 4 GiB are mapped.
#[cfg(feature = "virtio")]
pub(crate) fn set_all_mapped() {
    ALL_MAPPED.store(true, Ordering::Relaxed);
}

/// Whether all addresses below 4 GiB are mapped.
#[cfg(feature = "virtio")]
pub(crate) fn is_all_mapped() -> bool {
    ALL_MAPPED.load(Ordering::Relaxed)
}

/// The command line; what is not UTF-8, and all that follows it, is left out.
pub fn command_line() -> &'static str {
    let (address, len) = info().map_or((0, 0), |info| (info.cmdline, info.cmdline_len));
    // SAFETY: as for `regions`.
    let bytes: &[u8] = unsafe { slice_at(address, len) };
    bytes.utf8_chunks().next().map_or("", |chunk| chunk.valid())
}

/// The words of the command line. There is no program name among them.
pub fn args() -> core::str::SplitAsciiWhitespace<'static> {
    command_line().split_ascii_whitespace()
}

/// `count` values at guest-physical `address`; none if that is 0 or unaligned.
///
/// # Safety
///
/// Else they are there, for good, and are not written to.
unsafe fn slice_at<T>(address: u64, count: u64) -> &'static [T] {
    let pointer =
        core::ptr::with_exposed_provenance::<T>(usize::try_from(address).unwrap_or_default());
    let fits = usize::try_from(count)
        .ok()
        .filter(|n| n.checked_mul(size_of::<T>()).is_some_and(|n| n < 1 << 47));
    match fits {
        // SAFETY: the caller's promise; alignment, non-nullness and size have been checked.
        Some(count) if !pointer.is_null() && pointer.is_aligned() => unsafe {
            slice::from_raw_parts(pointer, count)
        },
        _ => &[],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn valid() -> BootInfo {
        BootInfo {
            magic: MAGIC,
            version: VERSION,
            size: 160,
            cmdline: 0,
            cmdline_len: 0,
            regions: 0,
            region_count: 0,
            initrd: 0,
            initrd_len: 0,
            rsdp: 0,
            fdt: 0,
            pvclock: 0,
            tsc_khz: 0,
            wall_clock_ns: 0,
            cpus: 1,
            reserved: 0,
            marks: [0; mark::COUNT],
            generation_id: [0; 16],
        }
    }

    #[test]
    fn boot_information_is_checked() {
        assert_eq!(check(&valid()), Ok(()));
        assert_eq!(
            check(&BootInfo {
                size: 4096,
                ..valid()
            }),
            Ok(())
        );
        assert_eq!(
            check(&BootInfo {
                magic: 1,
                ..valid()
            }),
            Err(BootError::Magic(1))
        );
        assert_eq!(
            check(&BootInfo {
                version: 2,
                ..valid()
            }),
            Err(BootError::Version(2))
        );
        assert_eq!(
            check(&BootInfo {
                size: 143,
                ..valid()
            }),
            Err(BootError::Size(143))
        );
    }

    #[test]
    fn nothing_is_read_before_there_is_boot_information() {
        assert_eq!(info(), None);
        assert!(memory_map().is_empty());
        assert_eq!(
            (command_line(), regions(), initrd()),
            ("", [].as_slice(), [].as_slice())
        );
        assert_eq!(args().next(), None);
        assert!(device_tree().is_empty());
    }

    #[test]
    fn addresses_and_lengths_that_cannot_be_are_refused() {
        // SAFETY: all of these are refused before anything is read.
        unsafe {
            assert!(slice_at::<u8>(0, 5).is_empty());
            assert!(slice_at::<u64>(4097, 1).is_empty());
            assert!(slice_at::<u64>(4096, u64::MAX / 8).is_empty());
        }
    }
}
