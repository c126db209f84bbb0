//! Memory that is served to somebody: what it says of it, and what has become of it.

use super::{Lost, ServedRange};
use crate::PAGE_SIZE;

/// Bytes that are given at once where they are missing: neighbours are wanted soon, mostly.
const BLOCK: u64 = 64 << 10;
/// The most ranges that one machine's memory has.
const MAX_RANGES: usize = 64;
/// Pages that one word of bits tells of.
const WORD: u64 = u64::BITS as u64;

/// Where somebody's memory is, and which of its pages were given back.
///
/// Nothing that is said of it is believed before it was looked at. However much is said later, it takes one bit for each page
/// of the image at most.
///
/// ```
/// use goldcrest_memory::userfault::{Claim, ServedRange};
///
/// let range = ServedRange { address: 0x7000_0000, len: 0x20_0000, offset: 0 };
/// let mut claim = Claim::new(vec![range], 0x20_0000)?;
/// claim.remove(0x7000_3000, 0x7000_4000);
/// let given = claim.portions(0x7000_1000)?;
/// // First up to the page that was given back, then behind it, then what is before the page that is wanted.
/// let pages = given.iter().map(|portion| (portion.offset >> 12, portion.len >> 12));
/// assert_eq!(pages.collect::<Vec<_>>(), [(1, 2), (4, 12), (0, 1)]);
/// # Ok::<(), goldcrest_memory::userfault::Lost>(())
/// ```
#[derive(Debug, Clone)]
pub struct Claim {
    ranges: Vec<ServedRange>,
    /// For each range a bit for each page that was given back, once one was.
    removed: Vec<Vec<u64>>,
}

/// Pages that are to be given, as far as they are missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Portion {
    /// Where the first is, in the process that wants it.
    pub address: u64,
    /// Where their bytes are in the image.
    pub offset: u64,
    /// Bytes.
    pub len: u64,
    /// Whether they are zeros, whatever the image has: they were given back.
    pub removed: bool,
}

impl Claim {
    /// Memory in these ranges, of an image of `size` bytes.
    ///
    /// # Errors
    ///
    /// [`Lost::Refused`] if there are none or more than 64; if one is not of whole pages, or not in the image; if two
    /// overlap in the process that has them; or if they are more than the image together.
    pub fn new(ranges: Vec<ServedRange>, size: u64) -> Result<Self, Lost> {
        if ranges.is_empty() || ranges.len() > MAX_RANGES {
            let count = ranges.len();
            return Err(Lost::Refused(format!(
                "it has {count} ranges of memory: from 1 to {MAX_RANGES} are possible"
            )));
        }
        ranges.iter().try_for_each(|range| check(range, size))?;
        let mut sorted = ranges.clone();
        sorted.sort_unstable_by_key(|range| range.address);
        for (one, next) in sorted.iter().zip(sorted.iter().skip(1)) {
            if next.address - one.address < one.len {
                return Err(Lost::Refused(format!(
                    "it has {:#x} bytes of memory at {:#x} and others at {:#x}, which overlap",
                    one.len, one.address, next.address
                )));
            }
        }
        let all = ranges
            .iter()
            .fold(0, |sum: u64, range| sum.saturating_add(range.len));
        if all > size {
            return Err(Lost::Refused(format!(
                "it has {all:#x} bytes of memory, more than the image: {size:#x}"
            )));
        }
        Ok(Self {
            removed: vec![Vec::new(); ranges.len()],
            ranges,
        })
    }

    /// Pages were given back, from the first address to the one behind the last. Those that are none of this memory are
    /// not minded.
    pub fn remove(&mut self, start: u64, end: u64) {
        for (range, bits) in self.ranges.iter().zip(&mut self.removed) {
            let from = start.max(range.address);
            let to = end.min(range.address.saturating_add(range.len));
            if from >= to {
                continue;
            }
            if bits.is_empty() {
                let words = (range.len / PAGE_SIZE).div_ceil(WORD);
                bits.resize(usize::try_from(words).unwrap_or(0), 0);
            }
            set(
                bits,
                (from - range.address) / PAGE_SIZE,
                (to - range.address).div_ceil(PAGE_SIZE),
            );
        }
    }

    /// What is to be given to who waits for the page at `address`: that one first, and its neighbours, each of them once. A
    /// page that was given back comes alone.
    ///
    /// # Errors
    ///
    /// [`Lost::Refused`] if it is not in any range.
    pub fn portions(&self, address: u64) -> Result<Vec<Portion>, Lost> {
        let mut ranges = self.ranges.iter().zip(&self.removed);
        let found = ranges.find_map(|(range, bits)| Some((range, bits, range.within(address)?)));
        let Some((range, bits, within)) = found else {
            return Err(Lost::Refused(format!(
                "it wants memory at {address:#x}, where it said that it has none"
            )));
        };
        let page = within / PAGE_SIZE;
        let portion = |first: u64, pages: u64, removed| Portion {
            address: range.address + first * PAGE_SIZE,
            offset: range.offset + first * PAGE_SIZE,
            len: pages * PAGE_SIZE,
            removed,
        };
        if is_set(bits, page) {
            return Ok(vec![portion(page, 1, true)]);
        }
        let first = within / BLOCK * BLOCK;
        let end = (first + BLOCK).min(range.len);
        let mut portions = Vec::new();
        for pages in [page..end / PAGE_SIZE, first / PAGE_SIZE..page] {
            let pages: Vec<_> = pages.collect();
            // In a row as long as none was given back.
            for run in pages.chunk_by(|one, next| is_set(bits, *one) == is_set(bits, *next)) {
                let Some(first) = run.first().filter(|first| !is_set(bits, **first)) else {
                    continue;
                };
                portions.push(portion(*first, run.len() as u64, false));
            }
        }
        Ok(portions)
    }
}

impl ServedRange {
    /// How far behind its beginning `address` is, if it is in it.
    fn within(&self, address: u64) -> Option<u64> {
        let within = address.checked_sub(self.address)?;
        (within < self.len).then_some(within)
    }

    /// Where in the image the byte at `address` is, if it is in this range.
    pub fn offset_of(&self, address: u64) -> Option<u64> {
        self.offset.checked_add(self.within(address)?)
    }
}

/// Whether a range can be one of an image of `size` bytes.
fn check(range: &ServedRange, size: u64) -> Result<(), Lost> {
    let ServedRange {
        address,
        len,
        offset,
    } = *range;
    let whole = [address, len, offset]
        .iter()
        .all(|n| n.is_multiple_of(PAGE_SIZE));
    let in_image = offset.checked_add(len).is_some_and(|end| end <= size);
    if len == 0 || !whole || !in_image || address.checked_add(len).is_none() {
        return Err(Lost::Refused(format!(
            "it has {len:#x} bytes of memory at {address:#x} with the image's from {offset:#x}, which has {size:#x}"
        )));
    }
    Ok(())
}

/// Sets the bits of pages, a word at once: there can be many, again and again.
fn set(bits: &mut [u64], from: u64, to: u64) {
    let first = usize::try_from(from / WORD).unwrap_or(usize::MAX);
    let words = (from / WORD..to.div_ceil(WORD)).zip(bits.iter_mut().skip(first));
    for (number, word) in words {
        let start = number * WORD;
        let low = from.saturating_sub(start);
        let high = (to - start).min(WORD);
        *word |= (u64::MAX >> (WORD - (high - low))) << low;
    }
}

fn is_set(bits: &[u64], page: u64) -> bool {
    let word = usize::try_from(page / WORD).ok();
    let word = word.and_then(|word| bits.get(word));
    word.is_some_and(|word| word >> (page % WORD) & 1 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(address: u64, pages: u64, offset: u64) -> ServedRange {
        ServedRange {
            address,
            len: pages * PAGE_SIZE,
            offset,
        }
    }

    #[test]
    fn ranges_that_overlap_or_are_more_than_the_image_are_refused() {
        let size = 64 * PAGE_SIZE;
        let claim = |ranges: &[ServedRange]| Claim::new(ranges.to_vec(), size).map(drop);
        claim(&[range(0x9_0000, 32, 0), range(0x7_0000, 32, 32 * PAGE_SIZE)]).unwrap();
        let overlapping = [range(0x7_1000, 32, 0), range(0x7_0000, 2, 0)];
        let error = claim(&overlapping).unwrap_err().to_string();
        assert!(error.contains("overlap"), "{error}");
        let twice = [range(0x7_0000, 64, 0), range(0x70_0000, 1, 0)];
        let error = claim(&twice).unwrap_err().to_string();
        assert!(error.contains("more than the image"), "{error}");
    }

    proptest::proptest! {
        #[test]
        fn pages_that_were_given_back_are_those_and_no_others(
            runs in proptest::collection::vec((0_u64..200, 0_u64..200), 0..8),
        ) {
            let mut claim = Claim::new(vec![range(0x10_0000, 200, 0)], 200 * PAGE_SIZE).unwrap();
            let mut expected = [false; 200];
            for (from, pages) in runs {
                let to = (from + pages).min(220);
                claim.remove(0x10_0000 + from * PAGE_SIZE, 0x10_0000 + to * PAGE_SIZE);
                for page in from..to.min(200) {
                    expected[usize::try_from(page).unwrap()] = true;
                }
            }
            for (page, expected) in (0..).zip(expected) {
                let portions = claim.portions(0x10_0000 + page * PAGE_SIZE).unwrap();
                proptest::prop_assert_eq!(portions[0].removed, expected, "{}", page);
                proptest::prop_assert_eq!(portions[0].offset, page * PAGE_SIZE);
            }
        }
    }
}
