//! Giving the pages of an image.

use std::collections::VecDeque;
use std::io;

use vm_memory::{GuestAddress, GuestMemoryBackend};

use super::{Claim, Event, Portion, ServedRange, Userfault};
use crate::image::{Layers, PageMap, mark_behind};
use crate::{GuestRam, MemoryConfig, MemoryError, PAGE_SIZE, Region};

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
    claim: Claim,
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
    /// [`Lost::Refused`] if the image does not have that ([`Claim::new`]).
    pub fn serve(&self, userfault: Userfault, ranges: Vec<ServedRange>) -> Result<Served, Lost> {
        Ok(Served {
            claim: Claim::new(ranges, self.ram.size())?,
            userfault,
            waiting: VecDeque::new(),
        })
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
        for portion in to.claim.portions(address)? {
            match portion.removed {
                true => self.pages(&to.userfault, portion.address, portion.len, None)?,
                false => self.portion(&to.userfault, portion)?,
            }
        }
        Ok(())
    }

    /// Gives pages that are missing and were not given back.
    fn portion(&self, to: &Userfault, portion: Portion) -> Result<(), Lost> {
        let mut at = 0;
        while at < portion.len {
            let (place, len) = self.place(portion.offset + at, portion.len - at)?;
            let mut pages = vec![false; usize::try_from(len / PAGE_SIZE).unwrap_or(0)];
            self.mark_data(place, &mut pages)?;
            let mut start = 0;
            for run in pages.chunk_by(|a, b| a == b) {
                let bytes = run.len() as u64 * PAGE_SIZE;
                let data = (run.first() == Some(&true)).then_some(place + start);
                self.pages(to, portion.address + at + start, bytes, data)?;
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

    /// Gives `len` bytes of pages from `address`: those at guest-physical `place` or, without one, zeros.
    fn pages(
        &self,
        to: &Userfault,
        address: u64,
        len: u64,
        place: Option<u64>,
    ) -> Result<(), Lost> {
        let mut done = 0;
        while done < len {
            let (address, more) = (address + done, len - done);
            let given = match place {
                Some(place) => self.copy(to, address, place + done, more),
                None => to.zero(address, more),
            };
            done += match given {
                Ok(given) => given.max(PAGE_SIZE),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                    to.wake(address, PAGE_SIZE)?;
                    PAGE_SIZE
                }
                Err(error) => return Err(error.into()),
            };
        }
        Ok(())
    }

    fn copy(&self, to: &Userfault, address: u64, place: u64, len: u64) -> io::Result<u64> {
        let count = usize::try_from(len).map_err(io::Error::other)?;
        let bytes = self.ram.memory().get_slice(GuestAddress(place), count);
        to.copy(address, &bytes.map_err(io::Error::other)?)
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
                Some(Event::Removed(start, end)) => self.claim.remove(start, end),
                Some(Event::Other(kind)) => {
                    return Err(Lost::Refused(format!(
                        "it tells of an event {kind:#x}, which has no answer"
                    )));
                }
            }
        }
        Ok(true)
    }
}
