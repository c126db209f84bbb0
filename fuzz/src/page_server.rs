//! What a monitor says to a page server, by Firecracker's protocol: its memory's ranges, and which pages it asks for.

use std::collections::BTreeSet;

use arbitrary::{Result, Unstructured};
use goldcrest_memory::PAGE_SIZE;
use goldcrest_memory::userfault::{Claim, EVENT_LEN, Event, Lost, Portion, ServedRange};
use goldcrest_monitor::memory_message;

/// Neighbours of a page that are given with it lie in as many bytes, from the beginning of its range.
const BLOCK: u64 = 64 << 10;
/// Events of an input.
const MAX_EVENTS: usize = 256;
/// What the kernel calls its events (`UFFD_EVENT_PAGEFAULT`, `UFFD_EVENT_REMOVE`).
const PAGEFAULT: u8 = 0x12;
const REMOVE: u8 = 0x15;

/// Runs the target: a byte is the size of the image in 16 pages, two are the length of the message, and events follow.
/// If the length is 0, the ranges are made of the bytes that follow, and the message of them.
pub fn run(data: &[u8]) {
    let _ = drive(&mut Unstructured::new(data));
}

fn drive(input: &mut Unstructured<'_>) -> Result<()> {
    let size = (u64::from(input.arbitrary::<u8>()?) + 1) * 16 * PAGE_SIZE;
    let len = usize::from(input.arbitrary::<u16>()?);
    let said = match len {
        0 => said(&any_ranges(input, size)?),
        _ => input.bytes(len.min(input.len()))?.to_vec(),
    };
    let ranges = match memory_message::read(&said) {
        Ok(ranges) => ranges,
        Err(why) => return refused(&why),
    };
    // What was understood is what a monitor says that means it.
    assert_eq!(
        memory_message::read(&self::said(&ranges)).ok(),
        Some(ranges.clone())
    );
    let claim = match Claim::new(ranges.clone(), size) {
        Ok(claim) => claim,
        Err(why) => return refused(&why),
    };
    assert_possible(&ranges, size);
    let mut server = Server {
        claim,
        ranges,
        removed: BTreeSet::new(),
    };
    for _ in 0..MAX_EVENTS {
        if input.is_empty() {
            break;
        }
        let event = server.any_event(input)?;
        if !server.take(event) {
            break;
        }
    }
    Ok(())
}

fn said(ranges: &[ServedRange]) -> Vec<u8> {
    memory_message::write(ranges).expect("numbers can be written")
}

/// Ranges that are nearly right: one behind the other, in the image and in the process, but for what a byte moves.
fn any_ranges(input: &mut Unstructured<'_>, size: u64) -> Result<Vec<ServedRange>> {
    let count = input.int_in_range(0..=5)?;
    let (mut address, mut offset) = (input.arbitrary::<u64>()? / PAGE_SIZE * PAGE_SIZE, 0_u64);
    let mut ranges = Vec::new();
    for _ in 0..count {
        let len = (u64::from(input.arbitrary::<u8>()?) * PAGE_SIZE).min(size);
        let mut range = ServedRange {
            address,
            len,
            offset,
        };
        match input.arbitrary()? {
            0_u8 => range.address = input.arbitrary()?,
            1 => range.len = input.arbitrary()?,
            2 => range.offset = input.arbitrary()?,
            gap => address = address.wrapping_add(u64::from(gap / 8) * PAGE_SIZE),
        }
        address = address.wrapping_add(len);
        offset = offset.wrapping_add(len);
        ranges.push(range);
    }
    Ok(ranges)
}

/// A short reason, that has nothing in it which a terminal would obey.
fn refused(why: &Lost) -> Result<()> {
    let why = why.to_string();
    assert!(
        !why.is_empty() && !why.contains(char::is_control),
        "{why:?}"
    );
    assert!(why.len() < 500, "{why}");
    Ok(())
}

/// All is in the image, apart in the process, and no more than there is.
fn assert_possible(ranges: &[ServedRange], size: u64) {
    assert!((1..=64).contains(&ranges.len()));
    let mut sum = 0;
    for (at, range) in ranges.iter().enumerate() {
        assert!(range.len > 0 && range.offset + range.len <= size);
        let end = range.address.checked_add(range.len).expect("it ends");
        let apart = |other: &ServedRange| {
            other.address >= end || other.address + other.len <= range.address
        };
        assert!(ranges.iter().skip(at + 1).all(apart), "{ranges:?}");
        sum += range.len;
    }
    assert!(sum <= size);
}

/// A server, and what it should know.
struct Server {
    claim: Claim,
    ranges: Vec<ServedRange>,
    /// Addresses of pages that were given back.
    removed: BTreeSet<u64>,
}

impl Server {
    /// An event as the kernel writes it: about this memory, or any bytes.
    fn any_event(&self, input: &mut Unstructured<'_>) -> Result<Event> {
        let mut bytes = [0; EVENT_LEN];
        let kind: u8 = input.arbitrary()?;
        if kind >= 0xf0 {
            input.fill_buffer(&mut bytes)?;
        } else {
            let range = input.choose(&self.ranges)?;
            let address = range
                .address
                .wrapping_add(u64::from(input.arbitrary::<u16>()?) << 8);
            let end = address.wrapping_add(u64::from(kind / 2) * PAGE_SIZE);
            let (event, last) = match kind % 2 {
                0 => (PAGEFAULT, address),
                _ => (REMOVE, end),
            };
            bytes[0] = event;
            bytes[8..16].copy_from_slice(&address.to_ne_bytes());
            bytes[16..24].copy_from_slice(&last.to_ne_bytes());
        }
        let event = Event::read(&bytes);
        let number =
            |at: usize| u64::from_ne_bytes(*bytes[at..].first_chunk().expect("it has them"));
        match event {
            Event::Missing(address) => {
                assert_eq!(
                    (bytes[0], address),
                    (PAGEFAULT, number(16) & !(PAGE_SIZE - 1))
                );
            }
            Event::Removed(start, end) => {
                assert_eq!((bytes[0], start, end), (REMOVE, number(8), number(16)));
            }
            Event::Other(kind) => assert_eq!(kind, bytes[0]),
        }
        Ok(event)
    }

    /// Whether the monitor is served on.
    fn take(&mut self, event: Event) -> bool {
        match event {
            Event::Missing(address) => self.assert_given(address),
            Event::Removed(start, end) => {
                self.claim.remove(start, end);
                for range in &self.ranges {
                    let touched = pages(range)
                        .filter(|page| *page < end && page + PAGE_SIZE > start && start < end);
                    self.removed.extend(touched);
                }
                true
            }
            Event::Other(_) => false,
        }
    }

    /// What is given for a page: itself first, each of its neighbours once, from where the image has them.
    fn assert_given(&self, address: u64) -> bool {
        let mut ranges = self.ranges.iter();
        let range = ranges.find(|range| range.offset_of(address).is_some());
        let (portions, range) = match (self.claim.portions(address), range) {
            (Ok(portions), Some(range)) => (portions, range),
            (Err(why), None) => {
                let _ = refused(&why);
                return false;
            }
            (portions, range) => panic!("{portions:?} of {range:?} for {address:#x}"),
        };
        let page = address / PAGE_SIZE * PAGE_SIZE;
        assert_eq!(portions.first().map(|first| first.address), Some(page));
        if self.removed.contains(&page) {
            let offset = range.offset_of(page).expect("it is in the range");
            let zeros = Portion {
                address: page,
                offset,
                len: PAGE_SIZE,
                removed: true,
            };
            assert_eq!(portions, [zeros]);
            return true;
        }
        let block = (page - range.address) / BLOCK;
        let wanted = pages(range).filter(|page| (page - range.address) / BLOCK == block);
        let mut wanted: BTreeSet<_> = wanted.filter(|page| !self.removed.contains(page)).collect();
        for portion in &portions {
            assert!(!portion.removed && portion.len > 0);
            for at in (0..portion.len).step_by(4096) {
                let page = portion.address + at;
                assert!(
                    wanted.remove(&page),
                    "{page:#x} is given twice, or is not missing"
                );
                // Where the monitor, too, has it in the image.
                assert_eq!(range.offset_of(page), Some(portion.offset + at));
            }
        }
        assert_eq!(wanted, BTreeSet::new());
        true
    }
}

/// The addresses of a range's pages.
fn pages(range: &ServedRange) -> impl Iterator<Item = u64> + use<> {
    (range.address..range.address + range.len).step_by(4096)
}
