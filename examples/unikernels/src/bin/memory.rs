//! Allocates all memory there is, writes to every page of it and looks whether it kept what was written.
#![no_std]
#![no_main]

extern crate alloc;

use alloc::vec::Vec;

use goldcrest_guest::{heap, println};

goldcrest_guest::main!(main);

/// Words in a page.
const PAGE: usize = 4096 / 8;
/// Pages in a block: ever smaller blocks fill what remains.
const BLOCKS: [usize; 3] = [256, 16, 1];

fn main() -> Result<(), &'static str> {
    let (first, second) = (fill(1)?, fill(2)?);
    if first != second {
        return Err("memory that was freed cannot be allocated again");
    }
    println!(
        "memory: {} MiB of {} MiB allocated, written and verified: ok",
        first >> 20,
        heap::free_bytes() >> 20
    );
    Ok(())
}

/// Allocates, writes and verifies all there is, and frees it. Gives the bytes.
fn fill(seed: u64) -> Result<usize, &'static str> {
    let mut blocks = allocate_all()?;
    for (index, block) in blocks.iter_mut().enumerate() {
        for (page, words) in block.chunks_mut(PAGE).enumerate() {
            words[0] = pattern(seed, index, page);
        }
    }
    for (index, block) in blocks.iter().enumerate() {
        for (page, words) in block.chunks(PAGE).enumerate() {
            if words[0] != pattern(seed, index, page) {
                return Err("memory does not keep what is written to it");
            }
        }
    }
    Ok(blocks.iter().map(|block| block.len() * 8).sum())
}

fn allocate_all() -> Result<Vec<Vec<u64>>, &'static str> {
    // The list itself must not grow when there is no memory left.
    let most = heap::free_bytes() as usize / (BLOCKS[0] * 4096) + 128;
    let mut blocks = Vec::new();
    blocks
        .try_reserve_exact(most)
        .map_err(|_| "there is no memory to allocate")?;
    for pages in BLOCKS {
        let mut block = Vec::new();
        while blocks.len() < most && block.try_reserve_exact(pages * PAGE).is_ok() {
            block.resize(pages * PAGE, 0);
            blocks.push(core::mem::take(&mut block));
        }
    }
    Ok(blocks)
}

/// A value that is different for each page.
fn pattern(seed: u64, block: usize, page: usize) -> u64 {
    ((seed << 56) | ((block as u64) << 24) | page as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}
