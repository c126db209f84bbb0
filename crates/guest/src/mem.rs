//! `memcpy` and its kin, which compiled Rust refers to and a C library would otherwise bring.
//!
//! [`main!`](crate::main) defines the symbols; here is what they do. The string instructions are the fastest way on
//! every processor of the last decade (SDM vol. 1 §7.3.9.3, "fast string operations") and the shortest.
#![allow(unsafe_code, reason = "raw memory and string instructions")]

use core::arch::asm;

/// Copies `len` bytes; the ranges do not overlap.
///
/// # Safety
///
/// As for C's `memcpy`.
#[inline(always)]
pub unsafe fn copy(to: *mut u8, from: *const u8, len: usize) {
    // SAFETY: reads and writes just the ranges that the caller vouches for; DF is clear by the ABI.
    unsafe {
        asm!("rep movsb", inout("rcx") len => _, inout("rdi") to => _, inout("rsi") from => _,
             options(nostack, preserves_flags));
    }
}

/// Copies `len` bytes; the ranges may overlap.
///
/// # Safety
///
/// As for C's `memmove`.
#[inline(always)]
pub unsafe fn copy_overlapping(to: *mut u8, from: *const u8, len: usize) {
    if to.addr().wrapping_sub(from.addr()) >= len {
        // SAFETY: the destination does not begin inside the source, so that copying upwards reads each byte before
        // it is overwritten; else as the caller vouches.
        return unsafe { copy(to, from, len) };
    }
    // SAFETY: downwards from the last byte, as the destination begins inside the source (which has a byte, then). DF
    // is set for just this instruction.
    unsafe {
        asm!("std", "rep movsb", "cld", inout("rcx") len => _,
             inout("rdi") to.wrapping_add(len).wrapping_sub(1) => _,
             inout("rsi") from.wrapping_add(len).wrapping_sub(1) => _, options(nostack));
    }
}

/// Sets `len` bytes to `value`.
///
/// # Safety
///
/// As for C's `memset`.
#[inline(always)]
pub unsafe fn fill(to: *mut u8, value: u8, len: usize) {
    // SAFETY: writes just the range that the caller vouches for; DF is clear by the ABI.
    unsafe {
        asm!("rep stosb", inout("rcx") len => _, inout("rdi") to => _, in("al") value,
             options(nostack, preserves_flags));
    }
}

/// Compares `len` bytes: negative, zero or positive as `left` is before, equal to or after `right`.
///
/// # Safety
///
/// As for C's `memcmp`.
#[inline(always)]
pub unsafe fn compare(left: *const u8, right: *const u8, len: usize) -> i32 {
    let mut at = 0;
    // SAFETY: `at + 8 <= len` and `at < len` keep every read inside the ranges that the caller vouches for.
    unsafe {
        while at + 8 <= len
            && left.add(at).cast::<u64>().read_unaligned()
                == right.add(at).cast::<u64>().read_unaligned()
        {
            at += 8;
        }
        while at < len {
            // Volatile, or the compiler would recognise the loop and call the very function it is part of.
            let (a, b) = (left.add(at).read_volatile(), right.add(at).read_volatile());
            if a != b {
                return i32::from(a) - i32::from(b);
            }
            at += 1;
        }
    }
    0
}

/// Defines the symbols; a part of [`main!`](crate::main).
#[doc(hidden)]
#[macro_export]
macro_rules! __memory_symbols {
    () => {
        #[unsafe(no_mangle)]
        unsafe extern "C" fn memcpy(to: *mut u8, from: *const u8, len: usize) -> *mut u8 {
            // SAFETY: the contract is the same.
            unsafe { $crate::mem::copy(to, from, len) };
            to
        }

        #[unsafe(no_mangle)]
        unsafe extern "C" fn memmove(to: *mut u8, from: *const u8, len: usize) -> *mut u8 {
            // SAFETY: the contract is the same.
            unsafe { $crate::mem::copy_overlapping(to, from, len) };
            to
        }

        #[unsafe(no_mangle)]
        unsafe extern "C" fn memset(to: *mut u8, value: i32, len: usize) -> *mut u8 {
            // SAFETY: the contract is the same; C takes the low byte of the value.
            unsafe { $crate::mem::fill(to, value.to_le_bytes()[0], len) };
            to
        }

        #[unsafe(no_mangle)]
        unsafe extern "C" fn memcmp(left: *const u8, right: *const u8, len: usize) -> i32 {
            // SAFETY: the contract is the same.
            unsafe { $crate::mem::compare(left, right, len) }
        }

        #[unsafe(no_mangle)]
        unsafe extern "C" fn bcmp(left: *const u8, right: *const u8, len: usize) -> i32 {
            // SAFETY: the contract is that of `memcmp`; only zero or not matters.
            unsafe { $crate::mem::compare(left, right, len) }
        }
    };
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use std::vec::Vec;

    use super::*;

    fn bytes() -> impl Strategy<Value = Vec<u8>> {
        prop::collection::vec(any::<u8>(), 1..300)
    }

    proptest! {
        #[test]
        fn copying_within_a_buffer_is_what_the_standard_library_does(
            mut buffer in bytes(), from in 0_usize..300, to in 0_usize..300, len in 0_usize..300
        ) {
            let (from, to) = (from.min(buffer.len()), to.min(buffer.len()));
            let len = len.min(buffer.len() - from.max(to));
            let mut expected = buffer.clone();
            expected.copy_within(from..from + len, to);
            let base = buffer.as_mut_ptr();
            // SAFETY: both ranges end within the buffer.
            unsafe { copy_overlapping(base.add(to), base.add(from), len) };
            prop_assert_eq!(buffer, expected);
        }

        #[test]
        fn copying_and_filling_touch_just_their_range(
            mut buffer in bytes(), source in bytes(), at in 0_usize..300, value: u8
        ) {
            let at = at.min(buffer.len());
            let len = source.len().min(buffer.len() - at);
            let mut expected = buffer.clone();
            expected[at..at + len].copy_from_slice(&source[..len]);
            // SAFETY: `len` bytes are in the source, and in the buffer from `at`.
            unsafe { copy(buffer.as_mut_ptr().add(at), source.as_ptr(), len) };
            prop_assert_eq!(&buffer, &expected);
            expected[at..at + len].fill(value);
            // SAFETY: as above.
            unsafe { fill(buffer.as_mut_ptr().add(at), value, len) };
            prop_assert_eq!(buffer, expected);
        }

        #[test]
        fn comparing_orders_as_slices_do(left in bytes(), change in 0_usize..300, by: u8) {
            let mut right = left.clone();
            let change = change % right.len();
            right[change] = right[change].wrapping_add(by);
            // SAFETY: both are of this length.
            let order = unsafe { compare(left.as_ptr(), right.as_ptr(), left.len()) };
            prop_assert_eq!(order.cmp(&0), left.cmp(&right));
        }
    }
}
