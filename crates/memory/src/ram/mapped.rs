//! RAM that is a mapping of an image from the beginning.

use std::fs::File;
use std::io;
use std::sync::Arc;

use vm_memory::mmap::MmapRegionBuilder;
use vm_memory::{FileOffset, GuestAddress, GuestMemoryMmap, GuestRegionMmap};

use super::{Behind, GuestRam, host_error};
use crate::{HugePages, MemoryConfig, MemoryError, Region, layout};

impl GuestRam {
    /// As [`from_image`](Self::from_image), by one call for each region; nothing if it must be copied.
    ///
    /// Mapping it over a mapping would have the hypervisor look at each of the process's machines, whose RAM that could
    /// be.
    pub(super) fn map_image(
        config: &MemoryConfig,
        file: &Arc<File>,
    ) -> Result<Option<Self>, MemoryError> {
        config.validate()?;
        if !Self::mappable(config) || config.huge_pages == HugePages::Transparent {
            return Ok(None);
        }
        let (mut regions, mut behind, mut offset) = (Vec::new(), Vec::new(), 0);
        for region in layout::regions(config.size) {
            regions.push(
                map(region, file, offset).map_err(|source| MemoryError::Image {
                    what: "map",
                    source,
                })?,
            );
            behind.push(Behind {
                start: region.start,
                len: region.len,
                file: Some((file.clone(), offset)),
            });
            offset += region.len;
        }
        let memory = GuestMemoryMmap::from_regions(regions)
            .map_err(|e| host_error("arrange", config.size, io::Error::other(e)))?;
        let ram = Self {
            memory,
            size: config.size,
            mappable: true,
            behind: Arc::default(),
        };
        *ram.lock_behind() = behind;
        Ok(Some(ram))
    }
}

fn map(region: Region, file: &Arc<File>, offset: u64) -> io::Result<GuestRegionMmap> {
    let len = usize::try_from(region.len).map_err(io::Error::other)?;
    let mapping = MmapRegionBuilder::new(len)
        .with_mmap_prot(libc::PROT_READ | libc::PROT_WRITE)
        .with_mmap_flags(libc::MAP_PRIVATE | libc::MAP_NORESERVE)
        .with_file_offset(FileOffset::from_arc(file.clone(), offset))
        .build()
        .map_err(io::Error::other)?;
    GuestRegionMmap::new(mapping, GuestAddress(region.start))
        .ok_or_else(|| io::ErrorKind::InvalidInput.into())
}
