//! Giving the pages of an image.

use std::collections::VecDeque;
use std::io;

use vm_memory::{GuestAddress, GuestMemoryBackend};

use super::{Event, ServedRange, Userfault};
use crate::image::{Layers, PageMap, mark_behind};
use crate::{GuestRam, MemoryConfig, MemoryError, PAGE_SIZE, Region};

/// Bytes that are given at once where they are missing: neighbours are wanted soon, mostly.
const BLOCK: u64 = 64 << 10;
/// The most ranges that one machine's memory has.
const MAX_RANGES: usize = 64;
/// Events that are read before answers are given: more than a machine has threads.
const MAX_EVENTS: usize = 4096;
/// How often a page is tried to be given while the other process changes its memory.
const MAX_TRIES: u32 = 100_000;

/// An image, mapped to be given page by page.
#[derive(Debug)]
pub struct PageSource {
    ram: GuestRam,
    /// Tells which pages were copied, not mapped.
    map: PageMap,
}

/// One who is given pages, and what has become of them.
#[derive(Debug)]
pub struct Served {
    userfault: Userfault,
    ranges: Vec<ServedRange>,
    /// For each range a bit for each page that was given back, once one was.
    removed: Vec<Vec<u64>>,
    /// Addresses that are waited for.
    waiting: VecDeque<u64>,
}

/// Why somebody is given no pages any more.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Lost {
    /// What it wants cannot be given.
    #[error("{0}")]
    Refused(String),
    /// The kernel refuses.
    #[error("its pages cannot be served")]
    Failed(#[from] io::Error),
}

impl PageSource {
    /// The pages of images.
    ///
    /// # Errors
    ///
    /// [`MemoryError`] if they cannot be mapped.
    pub fn new(layers: &Layers) -> Result<Self, MemoryError> {
        let config = MemoryConfig {
            size: layers.size(),
            ..MemoryConfig::default()
        };
        Ok(Self {
            ram: GuestRam::from_layers(&config, layers)?,
            map: PageMap::open(),
        })
    }

    /// Somebody who wants pages: its descriptor, and the ranges that it has said are served.
    ///
    /// # Errors
    ///
    /// [`Lost::Refused`] if the image does not have that.
    pub fn serve(&self, userfault: Userfault, ranges: Vec<ServedRange>) -> Result<Served, Lost> {
        if ranges.is_empty() || ranges.len() > MAX_RANGES {
            let count = ranges.len();
            return Err(Lost::Refused(format!(
                "it has {count} ranges of memory: from 1 to {MAX_RANGES} are possible"
            )));
        }
        ranges.iter().try_for_each(|range| self.check(range))?;
        Ok(Served {
            removed: vec![Vec::new(); ranges.len()],
            userfault,
            ranges,
            waiting: VecDeque::new(),
        })
    }

    fn check(&self, range: &ServedRange) -> Result<(), Lost> {
        let ServedRange {
            address,
            len,
            offset,
        } = *range;
        let whole = [address, len, offset]
            .iter()
            .all(|n| n.is_multiple_of(PAGE_SIZE));
        let in_image = offset
            .checked_add(len)
            .is_some_and(|end| end <= self.ram.size());
        if len == 0 || !whole || !in_image || address.checked_add(len).is_none() {
            return Err(Lost::Refused(format!(
                "it has {len:#x} bytes of memory at {address:#x} with the image's from {offset:#x}, which has {:#x}",
                self.ram.size()
            )));
        }
        Ok(())
    }

    /// Reads what `to` asks for, and gives it. Waits for nothing but the image's bytes.
    ///
    /// # Errors
    ///
    /// [`Lost`] if it is not to be asked again.
    pub fn answer(&self, to: &mut Served) -> Result<(), Lost> {
        to.read()?;
        let mut tries = 0;
        while let Some(address) = to.waiting.pop_front() {
            match self.give(to, address) {
                // Something was given back meanwhile, which is known only when it is read.
                Err(Lost::Failed(error)) if error.kind() == io::ErrorKind::WouldBlock => {
                    tries += 1;
                    if tries > MAX_TRIES {
                        return Err(error.into());
                    }
                    to.waiting.push_front(address);
                    if !to.read()? {
                        std::thread::yield_now();
                    }
                }
                result => result?,
            }
        }
        Ok(())
    }

    /// Gives the page at `address`, and its neighbours that are missing.
    fn give(&self, to: &Served, address: u64) -> Result<(), Lost> {
        let Some((index, range)) = to.range(address) else {
            return Err(Lost::Refused(format!(
                "it wants memory at {address:#x}, where it said that it has none"
            )));
        };
        let within = address - range.address;
        if to.is_removed(index, within) {
            return given(to.userfault.zero(address, PAGE_SIZE), to, address);
        }
        let first = within / BLOCK * BLOCK;
        let end = (first + BLOCK).min(range.len);
        // The page that is waited for is the first to be given.
        self.run(to, index, within, end)?;
        self.run(to, index, first, within)
    }

    /// Gives the pages from `from` to `end` of a range that are missing and were not given back.
    fn run(&self, to: &Served, index: usize, from: u64, end: u64) -> Result<(), Lost> {
        let Some(range) = to.ranges.get(index) else {
            return Ok(());
        };
        let mut at = from;
        while at < end {
            let (place, len) = self.place(range.offset + at, end - at)?;
            let mut pages = vec![false; usize::try_from(len / PAGE_SIZE).unwrap_or(0)];
            self.mark_data(place, &mut pages)?;
            let mut start = 0;
            for run in pages.chunk_by(|a, b| a == b) {
                let bytes = run.len() as u64 * PAGE_SIZE;
                let data = run.first() == Some(&true);
                self.pages(to, index, (at + start, bytes), (place + start, data))?;
                start += bytes;
            }
            at += len;
        }
        Ok(())
    }

    /// Marks those of the pages from guest-physical `place` that can be anything but zeros.
    fn mark_data(&self, place: u64, pages: &mut [bool]) -> io::Result<()> {
        let host = self.ram.memory().get_host_address(GuestAddress(place));
        let host = host.map_err(io::Error::other)?.addr() as u64;
        if !self.map.mark(host, pages) {
            pages.fill(true);
            return Ok(());
        }
        let behind = self.ram.behind();
        behind
            .iter()
            .try_for_each(|behind| mark_behind(behind, place, pages))
    }

    /// Gives `len` bytes of pages from `at` of a range: those at guest-physical `place` or, without `data`, zeros.
    fn pages(
        &self,
        to: &Served,
        index: usize,
        (at, len): (u64, u64),
        (place, data): (u64, bool),
    ) -> Result<(), Lost> {
        let Some(range) = to.ranges.get(index) else {
            return Ok(());
        };
        let mut done = 0;
        while done < len {
            let address = range.address + at + done;
            if to.is_removed(index, at + done) {
                done += PAGE_SIZE;
                continue;
            }
            let more = to.unremoved(index, at + done, len - done);
            let given = match data {
                true => self.copy(to, address, place + done, more),
                false => to.userfault.zero(address, more),
            };
            done += match given {
                Ok(given) => given.max(PAGE_SIZE),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                    to.userfault.wake(address, PAGE_SIZE)?;
                    PAGE_SIZE
                }
                Err(error) => return Err(error.into()),
            };
        }
        Ok(())
    }

    fn copy(&self, to: &Served, address: u64, place: u64, len: u64) -> io::Result<u64> {
        let count = usize::try_from(len).map_err(io::Error::other)?;
        let bytes = self.ram.memory().get_slice(GuestAddress(place), count);
        to.userfault
            .copy(address, &bytes.map_err(io::Error::other)?)
    }

    /// Where the image's bytes from `offset` are in guest-physical memory, and how many of at most `len` are there
    /// together.
    fn place(&self, offset: u64, len: u64) -> io::Result<(u64, u64)> {
        let mut before = 0;
        for Region { start, len: has } in self.ram.regions() {
            if let Some(within) = offset.checked_sub(before).filter(|within| *within < has) {
                return Ok((start + within, len.min(has - within)));
            }
            before += has;
        }
        Err(io::ErrorKind::InvalidInput.into())
    }
}

/// What became of one page.
fn given(result: io::Result<u64>, to: &Served, address: u64) -> Result<(), Lost> {
    match result {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            Ok(to.userfault.wake(address, PAGE_SIZE)?)
        }
        Err(error) => Err(error.into()),
    }
}

impl Served {
    /// The descriptor, which can be read when there is something to be [answered](PageSource::answer).
    pub fn userfault(&self) -> &Userfault {
        &self.userfault
    }

    /// Reads what there is; whether there was anything.
    fn read(&mut self) -> Result<bool, Lost> {
        for count in 0..MAX_EVENTS {
            match self.userfault.event()? {
                None => return Ok(count > 0),
                Some(Event::Missing(address)) => self.waiting.push_back(address),
                Some(Event::Removed(start, end)) => self.remove(start, end),
                Some(Event::Other(kind)) => {
                    return Err(Lost::Refused(format!(
                        "it tells of an event {kind:#x}, which has no answer"
                    )));
                }
            }
        }
        Ok(true)
    }

    fn range(&self, address: u64) -> Option<(usize, ServedRange)> {
        let has = |range: &ServedRange| {
            address
                .checked_sub(range.address)
                .is_some_and(|within| within < range.len)
        };
        let index = self.ranges.iter().position(has)?;
        Some((index, *self.ranges.get(index)?))
    }

    /// Remembers that pages were given back.
    fn remove(&mut self, start: u64, end: u64) {
        for (range, bits) in self.ranges.iter().zip(&mut self.removed) {
            let from = start.max(range.address);
            let to = end.min(range.address.saturating_add(range.len));
            if from >= to {
                continue;
            }
            if bits.is_empty() {
                let words = (range.len / PAGE_SIZE).div_ceil(u64::BITS.into());
                bits.resize(usize::try_from(words).unwrap_or(0), 0);
            }
            for page in (from - range.address) / PAGE_SIZE..(to - range.address).div_ceil(PAGE_SIZE)
            {
                let (word, bit) = place_of(page);
                if let Some(word) = bits.get_mut(word) {
                    *word |= bit;
                }
            }
        }
    }

    fn is_removed(&self, index: usize, within: u64) -> bool {
        let (word, bit) = place_of(within / PAGE_SIZE);
        let bits = self.removed.get(index).and_then(|bits| bits.get(word));
        bits.is_some_and(|word| word & bit != 0)
    }

    /// How many bytes from `within` on, of `len` at most, were not given back; the first page was not.
    fn unremoved(&self, index: usize, within: u64, len: u64) -> u64 {
        if self.removed.get(index).is_none_or(Vec::is_empty) {
            return len;
        }
        let mut more = PAGE_SIZE;
        while more < len && !self.is_removed(index, within + more) {
            more += PAGE_SIZE;
        }
        more.min(len)
    }
}

/// The word with the bit of a page, and that bit.
fn place_of(page: u64) -> (usize, u64) {
    let bits = u64::from(u64::BITS);
    let word = usize::try_from(page / bits).unwrap_or(usize::MAX);
    (word, 1 << (page % bits))
}
