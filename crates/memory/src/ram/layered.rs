//! RAM that is made from an image and the differences to it.

use std::collections::BinaryHeap;
use std::fs::File;
use std::io;
use std::sync::Arc;

use super::{Behind, GuestRam};
use crate::image::Layers;
use crate::{MemoryConfig, MemoryError, Region, mapping};

/// As many runs of pages are mapped at most, the longest; the others are copied. Each takes two mappings, of which the
/// host allows a process some ten thousand.
const MAPPED: usize = 128;

impl GuestRam {
    /// RAM with the contents of several [images](crate::image) of as many bytes: as [`from_image`](Self::from_image), with
    /// the pages of the later ones mapped over those of the first. Where they are scattered, the 128 longest runs are
    /// mapped, and the others copied.
    ///
    /// # Errors
    ///
    /// As for [`from_image`](Self::from_image); [`MemoryError::Size`] if the images are of other RAM.
    pub fn from_layers(config: &MemoryConfig, layers: &Layers) -> Result<Self, MemoryError> {
        if config.size != layers.size() {
            return Err(MemoryError::Size {
                size: layers.size(),
                limit: "the image is of another size",
            });
        }
        let ram = match Self::map_image(config, layers.base())? {
            Some(ram) => ram,
            None => {
                let ram = Self::new(config)?;
                ram.load_base(layers.base()).map_err(not_placed)?;
                ram
            }
        };
        ram.lay_over(layers, true)?;
        Ok(ram)
    }

    fn load_base(&self, file: &Arc<File>) -> io::Result<()> {
        let mut offset = 0;
        for region in self.regions() {
            self.load_image(region, file, offset)?;
            offset += region.len;
        }
        Ok(())
    }

    /// Puts what is not the first image's over it. `note` says whether it is the first time.
    pub(super) fn lay_over(&self, layers: &Layers, note: bool) -> Result<(), MemoryError> {
        let mut offset = 0;
        let least = shortest_mapped(layers.pieces(0, layers.size()).map(|piece| piece.len));
        for region in self.regions() {
            for piece in layers.pieces(offset, region.len) {
                let place = Region {
                    start: region.start + (piece.start - offset),
                    len: piece.len,
                };
                let map = piece.len >= least;
                self.place(place, (&piece.file, piece.start), map, note)
                    .map_err(not_placed)?;
            }
            offset += region.len;
        }
        Ok(())
    }

    /// Puts a part of a file at `at`, by mapping it if that is to be and can be done.
    fn place(
        &self,
        at: Region,
        (file, offset): (&Arc<File>, u64),
        map: bool,
        note: bool,
    ) -> io::Result<()> {
        let slice = self.slice(at.start, at.len).map_err(io::Error::other)?;
        if !map || !self.mappable {
            return mapping::read_into(&slice, file, offset);
        }
        match mapping::map_file_over(&slice, file, offset) {
            Ok(()) if note => {
                self.note(Behind {
                    start: at.start,
                    len: at.len,
                    file: Some((file.clone(), offset)),
                });
                Ok(())
            }
            // There are as many mappings as the host allows.
            Err(error) if error.raw_os_error() == Some(libc::ENOMEM) => {
                mapping::read_into(&slice, file, offset)
            }
            result => result,
        }
    }
}

/// The length from which on runs are mapped, so that not more than [`MAPPED`] are.
fn shortest_mapped(lengths: impl Iterator<Item = u64>) -> u64 {
    let mut longest = BinaryHeap::with_capacity(MAPPED + 2);
    for len in lengths {
        longest.push(std::cmp::Reverse(len));
        if longest.len() > MAPPED + 1 {
            longest.pop();
        }
    }
    match longest.peek() {
        // The longest of those that are one too many.
        Some(std::cmp::Reverse(len)) if longest.len() > MAPPED => len + 1,
        _ => 0,
    }
}

fn not_placed(source: io::Error) -> MemoryError {
    MemoryError::Image {
        what: "map",
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_runs_are_mapped_than_may_be() {
        let mapped = |lengths: &[u64]| {
            let least = shortest_mapped(lengths.iter().copied());
            lengths.iter().filter(|len| **len >= least).count()
        };
        assert_eq!(mapped(&[]), 0);
        assert_eq!(mapped(&[4096; MAPPED]), MAPPED);
        // None of those that are alike is better than the others.
        assert_eq!(mapped(&[4096; MAPPED + 1]), 0);
        let lengths: Vec<u64> = (1..1000).map(|pages| pages * 4096).collect();
        assert_eq!(mapped(&lengths), MAPPED);
    }
}
