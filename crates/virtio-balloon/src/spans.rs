//! Ranges of guest-physical addresses, put together where they touch: each that is left is a system call.

use goldcrest_virtio::{QueueError, Reader};

use crate::spec::{NUMBER_SIZE, PAGE};

/// The most page numbers of one request that are looked at; drivers send 256, some 1024.
pub(crate) const MAX_NUMBERS: u32 = 1024;
/// As many are sorted at a time.
const SORTED: usize = 256;

/// Bytes from `start` to `end`, which is more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) start: u64,
    pub(crate) end: u64,
}

impl Span {
    /// Nothing if there are no bytes, or none with such addresses.
    pub(crate) fn new(start: u64, len: u64) -> Option<Self> {
        let end = start.checked_add(len)?;
        (end > start).then_some(Self { start, end })
    }

    pub(crate) const fn len(self) -> u64 {
        self.end - self.start
    }

    /// Adds what lies right behind or right before.
    fn join(&mut self, other: Self) -> bool {
        if other.start == self.end {
            self.end = other.end;
        } else if other.end == self.start {
            self.start = other.start;
        } else {
            return false;
        }
        true
    }
}

/// Calls `work` for spans, as few as there are without changing their order.
pub(crate) fn joined(spans: impl IntoIterator<Item = Span>, mut work: impl FnMut(Span)) {
    let mut last: Option<Span> = None;
    for span in spans {
        let joins = last.as_mut().is_some_and(|last| last.join(span));
        if !joins && let Some(whole) = last.replace(span) {
            work(whole);
        }
    }
    if let Some(whole) = last {
        work(whole);
    }
}

/// Calls `work` for the pages whose numbers a request has, in any order, and put together. Says how many numbers were
/// looked at; the rest of the buffer is left.
pub(crate) fn of_numbers(
    buffer: &mut Reader<'_>,
    mut work: impl FnMut(Span),
) -> Result<u64, QueueError> {
    let mut numbers = [0_u32; SORTED];
    let mut count = 0;
    while count < MAX_NUMBERS {
        let mut filled = 0;
        for place in &mut numbers {
            if buffer.left() < NUMBER_SIZE as u64 {
                break;
            }
            *place = u32::from_le_bytes(buffer.read_array()?);
            filled += 1;
        }
        let some = numbers.get_mut(..filled).unwrap_or_default();
        if some.is_empty() {
            break;
        }
        some.sort_unstable();
        // A page that comes twice goes once.
        let different = some.chunk_by(|a, b| a == b).filter_map(<[u32]>::first);
        let pages = different.filter_map(|number| Span::new(u64::from(*number) * PAGE, PAGE));
        joined(pages, &mut work);
        count += u32::try_from(filled).unwrap_or(MAX_NUMBERS);
    }
    Ok(count.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(spans: &[(u64, u64)]) -> Vec<(u64, u64)> {
        let mut all = Vec::new();
        let spans = spans.iter().map(|(start, end)| Span {
            start: *start,
            end: *end,
        });
        joined(spans, |span| all.push((span.start, span.end)));
        all
    }

    #[test]
    fn what_touches_is_put_together_in_both_directions() {
        assert_eq!(all(&[]), []);
        assert_eq!(all(&[(1, 2), (2, 3), (3, 9)]), [(1, 9)]);
        assert_eq!(all(&[(8, 9), (5, 8), (1, 5)]), [(1, 9)]);
        assert_eq!(all(&[(1, 2), (3, 4), (2, 3)]), [(1, 2), (2, 4)]);
        assert_eq!(all(&[(1, 3), (2, 4)]), [(1, 3), (2, 4)]);
    }

    #[test]
    fn a_span_has_bytes_that_can_be_addressed() {
        assert_eq!(Span::new(5, 0), None);
        assert_eq!(Span::new(u64::MAX, 1), None);
        assert_eq!(Span::new(u64::MAX - 4096, 4097), None);
        assert_eq!(Span::new(u64::MAX - 4096, 4096).map(Span::len), Some(4096));
    }
}
