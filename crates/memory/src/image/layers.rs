//! An image, and those that are differences to it, as one.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use super::extents::{Extents, MAX_EXTENTS};
use super::pages::{mark_data, mark_range};
use crate::{MemoryError, PAGE_SIZE};

/// The contents of RAM: what a full image has, but for the pages that later images have.
///
/// Offsets are those in each of the images. The files are what [`check`](super::check) has looked at.
#[derive(Debug, Clone)]
pub struct Layers {
    base: Arc<File>,
    size: u64,
    /// What is not the base's, ascending and apart.
    pieces: Vec<Piece>,
}

/// A range of an image, in bytes.
#[derive(Debug, Clone)]
pub(crate) struct Piece {
    pub(crate) start: u64,
    pub(crate) len: u64,
    pub(crate) file: Arc<File>,
}

impl Piece {
    pub(crate) fn end(&self) -> u64 {
        self.start.saturating_add(self.len)
    }

    /// What of it lies in a range, if anything does.
    fn within(&self, start: u64, end: u64) -> Option<Self> {
        let (start, end) = (self.start.max(start), self.end().min(end));
        let len = end.checked_sub(start).filter(|len| *len > 0)?;
        let file = self.file.clone();
        Some(Self { start, len, file })
    }
}

impl Layers {
    /// A full image of `size` bytes of RAM.
    pub fn new(base: Arc<File>, size: u64) -> Self {
        Self {
            base,
            size,
            pieces: Vec::new(),
        }
    }

    /// Puts an image over them that has these pages of its own.
    ///
    /// # Errors
    ///
    /// [`MemoryError::Extents`] if they are not all in RAM, or there would be more than [`MAX_EXTENTS`] ranges.
    pub fn add(&mut self, file: &Arc<File>, extents: &Extents) -> Result<(), MemoryError> {
        extents.check(self.size)?;
        let over: Vec<_> = extents.iter().collect();
        let mut pieces = Vec::new();
        let mut first = 0;
        for piece in std::mem::take(&mut self.pieces) {
            while over
                .get(first)
                .is_some_and(|over| over.end() <= piece.start)
            {
                first += 1;
            }
            let mut at = piece.start;
            let hidden = over.iter().skip(first);
            for extent in hidden.take_while(|extent| extent.start < piece.end()) {
                pieces.extend(piece.within(at, extent.start));
                at = extent.end();
            }
            pieces.extend(piece.within(at, u64::MAX));
        }
        pieces.extend(over.iter().map(|extent| Piece {
            start: extent.start,
            len: extent.len,
            file: file.clone(),
        }));
        pieces.sort_unstable_by_key(|piece| piece.start);
        if let (Some(last), true) = (over.last(), pieces.len() > MAX_EXTENTS) {
            return Err(MemoryError::Extents {
                start: last.start,
                len: last.len,
                limit: "are, with those of the images before, one run more than 1048576",
            });
        }
        self.pieces = pieces;
        Ok(())
    }

    /// Bytes of RAM.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The full image.
    pub(crate) fn base(&self) -> &Arc<File> {
        &self.base
    }

    /// What is not the base's and lies in `len` bytes from `start`.
    pub(crate) fn pieces(&self, start: u64, len: u64) -> impl Iterator<Item = Piece> {
        let end = start.saturating_add(len);
        let first = self.pieces.partition_point(|piece| piece.end() <= start);
        let from_first = self.pieces.iter().skip(first);
        from_first.map_while(move |piece| piece.within(start, end))
    }

    /// All of `len` bytes from `start`, by the image that has it.
    fn parts(&self, start: u64, len: u64) -> impl Iterator<Item = Piece> {
        let end = start.saturating_add(len);
        let mut at = start;
        let mut pieces = self.pieces(start, len).peekable();
        std::iter::from_fn(move || {
            let next = pieces.peek().map_or(end, |piece| piece.start);
            let part = match next.checked_sub(at).filter(|len| *len > 0) {
                Some(len) => Piece {
                    start: at,
                    len,
                    file: self.base.clone(),
                },
                None => pieces.next()?,
            };
            at = part.end();
            Some(part)
        })
    }

    /// Reads all of `bytes` from `offset`.
    pub(super) fn read(&self, offset: u64, bytes: &mut [u8]) -> io::Result<()> {
        let mut left = bytes;
        for part in self.parts(offset, left.len() as u64) {
            let len = usize::try_from(part.len).map_err(io::Error::other)?;
            let (now, rest) = left
                .split_at_mut_checked(len)
                .ok_or(io::ErrorKind::UnexpectedEof)?;
            part.file.read_exact_at(now, part.start)?;
            left = rest;
        }
        Ok(())
    }

    /// Marks those of the pages from `offset` that are not holes.
    pub(super) fn mark(&self, offset: u64, pages: &mut [bool]) -> io::Result<()> {
        let len = pages.len() as u64 * PAGE_SIZE;
        for part in self.parts(offset, len) {
            mark_data(&part.file, part.start..part.end(), |data| {
                mark_range(pages, data.start - offset, data.end - offset);
            })?;
        }
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::cast_possible_truncation, reason = "small numbers")]
mod tests {
    use super::*;

    const PAGES: u64 = 64;

    /// An image in which every page has the number `number`, but for holes where `holes` says so.
    fn image(number: u8, hole: impl Fn(u64) -> bool) -> Arc<File> {
        let file = tempfile::tempfile().unwrap();
        file.set_len((PAGES + 1) * PAGE_SIZE).unwrap();
        for page in (0..PAGES).filter(|page| !hole(*page)) {
            file.write_all_at(&[number; 4096], page * PAGE_SIZE)
                .unwrap();
        }
        Arc::new(file)
    }

    proptest::proptest! {
        /// Whatever runs are put over each other: each page is the last one's that has it.
        #[test]
        fn a_page_is_the_last_image_s_that_has_it(
            images in proptest::collection::vec(
                proptest::collection::vec(proptest::bool::weighted(0.3), PAGES as usize), 0..5),
            from in 0..PAGES, pages in 0..PAGES,
        ) {
            let mut layers = Layers::new(image(1, |page| page % 3 == 0), PAGES * PAGE_SIZE);
            let mut expected: Vec<u8> = (0..PAGES).map(|page| u8::from(page % 3 != 0)).collect();
            for (number, has) in (2..).zip(&images) {
                let mut extents = Extents::default();
                for (page, _) in (0..).zip(has).filter(|(_, has)| **has) {
                    extents.push(page * PAGE_SIZE, PAGE_SIZE).unwrap();
                }
                // Every fifth page that it has is a hole: zeros.
                layers.add(&image(number, |page| page % 5 == 0), &extents).unwrap();
                for (page, expected) in expected.iter_mut().enumerate().filter(|(page, _)| has[*page]) {
                    *expected = if page % 5 == 0 { 0 } else { number };
                }
            }
            let pages = pages.min(PAGES - from);
            let mut bytes = vec![9; (pages * PAGE_SIZE) as usize];
            layers.read(from * PAGE_SIZE, &mut bytes).unwrap();
            let mut marked = vec![false; pages as usize];
            layers.mark(from * PAGE_SIZE, &mut marked).unwrap();
            for (at, page) in bytes.chunks(4096).enumerate() {
                let expected = expected[from as usize + at];
                proptest::prop_assert_eq!(page, &[expected; 4096][..]);
                proptest::prop_assert!(marked[at] || expected == 0);
            }
            let pieces: Vec<_> = layers.pieces(0, u64::MAX).collect();
            proptest::prop_assert!(pieces.windows(2).all(|two| two[0].end() <= two[1].start));
        }
    }

    #[test]
    fn pages_behind_the_end_of_ram_are_refused() {
        let mut layers = Layers::new(image(1, |_| false), PAGES * PAGE_SIZE);
        let mut extents = Extents::default();
        extents.push(PAGES * PAGE_SIZE, PAGE_SIZE).unwrap();
        let error = layers.add(&image(2, |_| false), &extents).unwrap_err();
        assert!(error.to_string().contains("within RAM"), "{error}");
    }
}
