//! Writes a pattern to the first disk and looks whether it is there, in this run or the next.
//!
//! `write [SEED] [MIB]` writes and verifies, `verify [SEED] [MIB]` only verifies what an earlier run wrote. Without
//! arguments it writes with seed 1; on a disk that is read-only it only reads. It ends with 0 if all is as it should be.
#![no_std]
#![no_main]

extern crate alloc;

use alloc::vec;
use alloc::vec::Vec;

use goldcrest_guest::virtio::{Block, Error, is_announcement};
use goldcrest_guest::{Options, args, println, time};

goldcrest_guest::main!(main, Options::new().clock());

const SECTOR: usize = Block::SECTOR as usize;
/// What a transfer moves: a sector, a page, and more.
const SIZES: [usize; 3] = [512, 4096, 65536];
/// Transfers that are under way at once where the queue is kept busy.
const DEPTH: usize = 8;

struct Job {
    write: bool,
    seed: u64,
    /// How much of the disk is used: sectors.
    sectors: u64,
}

fn main() -> u32 {
    match run() {
        Ok(()) => {
            println!("disk: ok");
            0
        }
        Err(Failure { step, error }) => {
            println!("disk: {step}: {error}");
            1
        }
    }
}

/// What did not work.
struct Failure {
    step: &'static str,
    error: alloc::string::String,
}

/// Names the step in which an error happened.
trait In<T> {
    fn when(self, step: &'static str) -> Result<T, Failure>;
}

impl<T, E: core::fmt::Display> In<T> for Result<T, E> {
    fn when(self, step: &'static str) -> Result<T, Failure> {
        self.map_err(|error| Failure {
            step,
            error: alloc::format!("{error}"),
        })
    }
}

fn run() -> Result<(), Failure> {
    let mut disk = Block::first().when("looking for a disk")?;
    introduce(&mut disk)?;
    let job = job(&disk).when("usage: disk [write|verify] [SEED] [MIB]")?;
    if job.write && !disk.is_read_only() {
        write(&mut disk, &job)?;
        verify(&mut disk, &job)?;
        refuse(&mut disk)?;
        zero(&mut disk, &job)?;
        // What was zeroed is written again, for the run that verifies.
        return write(&mut disk, &job);
    }
    if job.write {
        return read_only(&mut disk, &job);
    }
    verify(&mut disk, &job)?;
    refuse(&mut disk)
}

fn introduce(disk: &mut Block) -> Result<(), Failure> {
    let id = match disk.id() {
        Ok(id) => id,
        Err(Error::Unsupported) => [0; 20],
        Err(error) => return Err(error).when("asking for the id"),
    };
    let id = id.split(|byte| *byte == 0).next().unwrap_or_default();
    println!(
        "disk: {} sectors, blocks of {} bytes, id \"{}\"{}",
        disk.capacity(),
        disk.block_size(),
        id.escape_ascii(),
        if disk.is_read_only() {
            ", read-only"
        } else {
            ""
        }
    );
    Ok(())
}

/// What the arguments ask for, as far as the disk is large enough.
fn job(disk: &Block) -> Result<Job, &'static str> {
    let mut words = args().filter(|word| !is_announcement(word));
    let write = match words.next() {
        None | Some("write") => true,
        Some("verify") => false,
        Some(_) => return Err("unknown mode"),
    };
    let mut number = |default| match words.next() {
        Some(word) => word.parse::<u64>().map_err(|_| "not a number"),
        None => Ok(default),
    };
    let (seed, mib) = (number(1)?, number(4)?);
    let largest = (SIZES[2] / SECTOR) as u64;
    let sectors = mib.saturating_mul(2048).min(disk.capacity());
    match sectors / largest * largest {
        0 => Err("the disk is too small: 64 KiB are needed"),
        sectors => Ok(Job {
            write,
            seed,
            sectors,
        }),
    }
}

/// The bytes of a sector: its number and the seed, so that one that went elsewhere shows.
fn pattern(seed: u64, sector: u64, bytes: &mut [u8]) {
    let mut state = (sector + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ seed.rotate_left(32);
    for word in bytes.chunks_mut(8) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        word.copy_from_slice(&state.to_le_bytes()[..word.len()]);
    }
}

fn expected(job: &Job, sector: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    for (number, part) in (sector..).zip(bytes.chunks_mut(SECTOR)) {
        pattern(job.seed, number, part);
    }
    bytes
}

/// The parts of the disk: each of the sizes that are whole blocks gets its share, the largest the rest.
fn parts(disk: &Block, job: &Job) -> Vec<(u64, usize)> {
    let mut parts = Vec::new();
    let mut sector = 0;
    for size in SIZES {
        let fits = size.is_multiple_of(disk.block_size() as usize);
        let count = (size / SECTOR) as u64;
        let share = if size == SIZES[2] { 1 } else { 8 };
        while fits && sector + count <= job.sectors / share {
            parts.push((sector, size));
            sector += count;
        }
    }
    parts
}

fn write(disk: &mut Block, job: &Job) -> Result<(), Failure> {
    let start = time::monotonic_ns();
    let mut total = 0;
    for (at, (sector, size)) in parts(disk, job).into_iter().enumerate() {
        let data = expected(job, sector, size);
        // Every other buffer begins at an odd address.
        let mut odd = vec![0];
        odd.extend_from_slice(&data);
        let data = if at % 2 == 0 { &data[..] } else { &odd[1..] };
        disk.write(sector, data).when("writing")?;
        total += size;
    }
    disk.flush().when("flushing")?;
    report("written", total, start);
    Ok(())
}

fn verify(disk: &mut Block, job: &Job) -> Result<(), Failure> {
    let start = time::monotonic_ns();
    let mut total = 0;
    for (at, (sector, size)) in parts(disk, job).into_iter().enumerate() {
        let mut buffer = vec![0; size + 1];
        let buffer = &mut buffer[at % 2..][..size];
        disk.read(sector, buffer).when("reading")?;
        compare(job, sector, buffer)?;
        total += size;
    }
    report("verified", total, start);
    busy(disk, job)
}

/// Reads again with several requests under way.
fn busy(disk: &mut Block, job: &Job) -> Result<(), Failure> {
    let start = time::monotonic_ns();
    let size = SIZES[2];
    let step = (size / SECTOR) as u64;
    // A part smaller than the largest size begins anywhere: only the sectors count.
    let end = parts(disk, job)
        .last()
        .map_or(0, |(sector, size)| sector + (size / SECTOR) as u64);
    let mut waiting = Vec::new();
    let (mut next, mut total) = (0, 0);
    loop {
        while waiting.len() < DEPTH && next + step <= end {
            match disk.submit_read(next, vec![0; size]) {
                Ok(ticket) => waiting.push((ticket, next)),
                Err(rejected) if rejected.error == Error::Full && !waiting.is_empty() => break,
                Err(rejected) => return Err(rejected.error).when("submitting"),
            }
            next += step;
        }
        if waiting.is_empty() {
            break;
        }
        let done = disk.wait().when("waiting")?;
        done.result.when("reading several at once")?;
        let at = waiting
            .iter()
            .position(|(ticket, _)| *ticket == done.ticket);
        let (_, sector) = waiting.swap_remove(at.ok_or("unknown").when("waiting")?);
        compare(job, sector, &done.buffer)?;
        total += size;
    }
    report("verified, several at once,", total, start);
    Ok(())
}

fn compare(job: &Job, sector: u64, found: &[u8]) -> Result<(), Failure> {
    let expected = expected(job, sector, found.len());
    match expected.iter().zip(found).position(|(a, b)| a != b) {
        None => Ok(()),
        Some(at) => {
            let number = sector + (at / SECTOR) as u64;
            let error = alloc::format!(
                "sector {number} has {:#04x} at byte {}, not {:#04x}",
                found[at],
                at % SECTOR,
                expected[at]
            );
            Err(error).when("comparing")
        }
    }
}

/// Has requests beyond the end refused, and sees the disk go on.
fn refuse(disk: &mut Block) -> Result<(), Failure> {
    let block = disk.block_size() as usize;
    let capacity = disk.capacity();
    let mut buffer = vec![0; 2 * block];
    let last = capacity - (block / SECTOR) as u64;
    for sector in [
        last,
        capacity,
        u64::MAX - u64::MAX % (block / SECTOR) as u64,
    ] {
        if !matches!(
            disk.read(sector, &mut buffer),
            Err(Error::OutOfRange { .. })
        ) {
            return Err("read all the same").when("reading beyond the end");
        }
    }
    disk.read(last, &mut buffer[..block])
        .when("reading the end")?;
    println!("disk: what lies beyond the end is refused");
    Ok(())
}

/// Zeroes and discards a part of what was written, if the disk can.
fn zero(disk: &mut Block, job: &Job) -> Result<(), Failure> {
    let count = job.sectors / 2;
    if disk.can_write_zeroes() {
        for (unmap, start) in [(false, 0), (true, count)] {
            disk.write_zeroes(start, count, unmap).when("zeroing")?;
            let mut buffer = vec![1; SIZES[2]];
            for sector in (start..start + count).step_by(SIZES[2] / SECTOR) {
                let left = (start + count - sector) as usize * SECTOR;
                let part = &mut buffer[..left.min(SIZES[2])];
                disk.read(sector, part).when("reading zeroes")?;
                if part.iter().any(|byte| *byte != 0) {
                    return Err("not zero").when("reading zeroes");
                }
            }
        }
        println!("disk: {} sectors zeroed", 2 * count);
    }
    if disk.can_discard() {
        disk.discard(0, count).when("discarding")?;
        println!("disk: {count} sectors discarded");
    }
    Ok(())
}

/// Reads, and has a write refused.
fn read_only(disk: &mut Block, job: &Job) -> Result<(), Failure> {
    let block = vec![0; disk.block_size() as usize];
    if disk.write(0, &block) != Err(Error::ReadOnly) {
        return Err("written all the same").when("writing to a disk that is read-only");
    }
    let start = time::monotonic_ns();
    let (mut total, mut buffer) = (0, vec![0; SIZES[2]]);
    for sector in (0..job.sectors).step_by(SIZES[2] / SECTOR) {
        disk.read(sector, &mut buffer).when("reading")?;
        total += buffer.len();
    }
    report("read", total, start);
    refuse(disk)
}

fn report(what: &str, bytes: usize, start: Option<u64>) {
    let passed = start.zip(time::monotonic_ns()).map(|(a, b)| b - a);
    match passed {
        Some(ns) if ns > 0 => println!(
            "disk: {} KiB {what} in {} us, {} MiB/s",
            bytes >> 10,
            ns / 1000,
            (bytes as u128 * 1_000_000_000 / u128::from(ns)) >> 20
        ),
        _ => println!("disk: {} KiB {what}", bytes >> 10),
    }
}
