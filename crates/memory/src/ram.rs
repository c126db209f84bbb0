//! Guest RAM itself.

mod layered;
mod mapped;
mod revert;

use std::fs::File;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use vm_memory::mmap::{MmapRegionBuilder, MmapRegionError};
use vm_memory::{
    Bytes, FileOffset, GuestAddress, GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion,
    GuestRegionMmap, VolatileSlice,
};

use crate::image::Layers;
use crate::{Backing, GuestView, HugePages, MemoryConfig, MemoryError, PAGE_SIZE, layout, mapping};

/// A range of guest-physical addresses that is RAM.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Region {
    /// The first byte.
    pub start: u64,
    /// Bytes.
    pub len: u64,
}

/// How [`GuestRam::load_file`] placed bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Placed {
    /// Bytes mapped from the file.
    pub mapped: u64,
    /// Bytes copied.
    pub copied: u64,
}

/// The RAM of one guest. Clones share it; freed when the last is dropped.
#[derive(Debug, Clone)]
pub struct GuestRam {
    memory: GuestMemoryMmap,
    size: u64,
    /// Whether files can be mapped over it: private, small pages.
    mappable: bool,
    /// What pages have that nobody has touched, where that is not zeros.
    behind: Arc<Mutex<Vec<Behind>>>,
}

/// A range of RAM that is mapped from a file.
#[derive(Debug, Clone)]
pub(crate) struct Behind {
    /// Guest-physical address of the first byte.
    pub(crate) start: u64,
    /// Bytes.
    pub(crate) len: u64,
    /// The file, if it is known where its holes are, and where the range is in it.
    pub(crate) file: Option<(Arc<File>, u64)>,
}

impl GuestRam {
    /// Reserves RAM; it reads as zeros.
    ///
    /// # Errors
    ///
    /// [`MemoryError::Size`] for an impossible size, [`MemoryError::Host`] if the host refuses.
    pub fn new(config: &MemoryConfig) -> Result<Self, MemoryError> {
        config.validate()?;
        let regions = layout::regions(config.size)
            .map(|region| map_region(config, region))
            .collect::<Result<Vec<_>, _>>()?;
        let memory = GuestMemoryMmap::from_regions(regions)
            .map_err(|e| host_error("arrange", config.size, io::Error::other(e)))?;
        let ram = Self {
            memory,
            size: config.size,
            mappable: Self::mappable(config),
            behind: Arc::default(),
        };
        ram.note_shared();
        if config.huge_pages == HugePages::Transparent {
            ram.advise("use huge pages for", libc::MADV_HUGEPAGE)?;
        }
        if config.prefault {
            ram.advise("pre-fault", libc::MADV_POPULATE_WRITE)?;
        }
        Ok(ram)
    }

    /// Whether files can be mapped over it. Their pages come when they are touched: prefaulted memory has none.
    fn mappable(config: &MemoryConfig) -> bool {
        config.backing == Backing::Anonymous
            && config.huge_pages != HugePages::TwoMiB
            && !config.prefault
    }

    /// Bytes of RAM.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Where RAM lies, by ascending address.
    pub fn regions(&self) -> impl Iterator<Item = Region> {
        layout::regions(self.size)
    }

    /// The memory as rust-vmm's crates know it; clones share it.
    pub fn memory(&self) -> &GuestMemoryMmap {
        &self.memory
    }

    /// A read-only view.
    pub fn view(&self) -> GuestView {
        GuestView(self.memory.clone())
    }

    /// Writes `bytes` to guest-physical `at`.
    ///
    /// # Errors
    ///
    /// [`MemoryError::OutsideRam`] if not all of it is RAM; nothing has been written then.
    pub fn write(&self, at: u64, bytes: &[u8]) -> Result<(), MemoryError> {
        let len = bytes.len() as u64;
        if len == 0 {
            return Ok(());
        }
        self.slice(at, len)?
            .write_slice(bytes, 0)
            .map_err(|_| MemoryError::OutsideRam { start: at, len })
    }

    /// Puts `len` bytes of `file` from `offset` at guest-physical `at`.
    ///
    /// Whole pages are mapped privately where file offset and address are congruent modulo the page size, and copied
    /// otherwise; the bytes of a page that the range only touches are copied, so that nothing around it changes.
    ///
    /// # Errors
    ///
    /// [`MemoryError::OutsideRam`], or [`MemoryError::File`] if the file ends earlier or cannot be read. RAM in the
    /// range is undefined then.
    pub fn load_file(
        &self,
        file: &File,
        offset: u64,
        at: u64,
        len: u64,
    ) -> Result<Placed, MemoryError> {
        if len == 0 {
            return Ok(Placed::default());
        }
        let slice = self.slice(at, len)?;
        let file_error = |source| MemoryError::File {
            offset,
            len,
            source,
        };
        // Mapping past the end of a file succeeds and faults later: look now.
        let file_len = file.metadata().map_err(file_error)?.len();
        if offset.checked_add(len).is_none_or(|end| end > file_len) {
            return Err(file_error(io::ErrorKind::UnexpectedEof.into()));
        }
        let (head, mapped) = self.whole_pages(offset, at, len);
        let tail = len - head - mapped;
        let part = |from: u64, len: u64| subslice(&slice, from, len);
        mapping::read_into(&part(0, head)?, file, offset).map_err(file_error)?;
        if mapped > 0 {
            mapping::map_file_over(&part(head, mapped)?, file, offset + head)
                .map_err(file_error)?;
            self.note(Behind {
                start: at + head,
                len: mapped,
                file: None,
            });
        }
        mapping::read_into(&part(head + mapped, tail)?, file, offset + head + mapped)
            .map_err(file_error)?;
        Ok(Placed {
            mapped,
            copied: head + tail,
        })
    }

    /// RAM with the contents of an [image](crate::image) of as many bytes, which
    /// [`check`](crate::image::check) has looked at.
    ///
    /// It is mapped privately: pages come from the file when they are touched, the guest's writes stay its own, and all
    /// guests from one image share its page cache. With huge pages, prefaulted or shared RAM it is copied.
    ///
    /// # Errors
    ///
    /// As for [`new`](Self::new), and [`MemoryError::Image`] if the file cannot be mapped or read.
    pub fn from_image(config: &MemoryConfig, file: &Arc<File>) -> Result<Self, MemoryError> {
        Self::from_layers(config, &Layers::new(file.clone(), config.size))
    }

    fn load_image(&self, region: Region, file: &Arc<File>, offset: u64) -> io::Result<()> {
        let slice = self
            .slice(region.start, region.len)
            .map_err(io::Error::other)?;
        if self.mappable {
            mapping::map_file_over(&slice, file, offset)?;
            self.note(Behind {
                start: region.start,
                len: region.len,
                file: Some((file.clone(), offset)),
            });
            return Ok(());
        }
        let end = offset + region.len;
        let mut at = offset;
        while let Some(data) = mapping::seek(file, at, libc::SEEK_DATA)?.filter(|at| *at < end) {
            let hole = mapping::seek(file, data, libc::SEEK_HOLE)?.unwrap_or(end);
            let part = subslice(&slice, data - offset, hole.min(end) - data);
            mapping::read_into(&part.map_err(io::Error::other)?, file, data)?;
            at = hole;
            if at >= end {
                break;
            }
        }
        Ok(())
    }

    /// Whether all pages that are written to belong to this process alone, and are small ones.
    pub(crate) fn is_private(&self) -> bool {
        let other = libc::MAP_SHARED | libc::MAP_HUGETLB;
        let mut regions = self.memory.iter();
        regions.all(|region| region.flags() & other == 0 && region.is_hugetlbfs() != Some(true))
    }

    /// Pages of a memfd may be there without having been touched here.
    fn note_shared(&self) {
        for region in self.memory.iter() {
            if region.file_offset().is_some() {
                self.note(Behind {
                    start: region.start_addr().0,
                    len: region.len(),
                    file: None,
                });
            }
        }
    }

    fn note(&self, behind: Behind) {
        self.lock_behind().push(behind);
    }

    /// Files are copied to it, since what it is must stay.
    pub(crate) fn never_map(&mut self) {
        self.mappable = false;
    }

    /// Pages of a range that nobody has touched can have anything.
    pub(crate) fn note_unknown(&self, start: u64, len: u64) {
        self.note(Behind {
            start,
            len,
            file: None,
        });
    }

    /// What pages have that nobody has touched, where that is not zeros.
    pub(crate) fn behind(&self) -> Vec<Behind> {
        self.lock_behind().clone()
    }

    fn lock_behind(&self) -> MutexGuard<'_, Vec<Behind>> {
        self.behind.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many bytes come before the first mappable page, and how many whole pages' bytes follow.
    fn whole_pages(&self, offset: u64, at: u64, len: u64) -> (u64, u64) {
        let congruent = at % PAGE_SIZE == offset % PAGE_SIZE;
        let head = (PAGE_SIZE - at % PAGE_SIZE) % PAGE_SIZE;
        if !self.mappable || !congruent || head >= len {
            return (len, 0);
        }
        (head, (len - head) / PAGE_SIZE * PAGE_SIZE)
    }

    fn slice(&self, at: u64, len: u64) -> Result<VolatileSlice<'_>, MemoryError> {
        let outside = MemoryError::OutsideRam { start: at, len };
        match usize::try_from(len) {
            Ok(count) => self
                .memory
                .get_slice(GuestAddress(at), count)
                .map_err(|_| outside),
            Err(_) => Err(outside),
        }
    }

    fn advise(&self, what: &'static str, advice: libc::c_int) -> Result<(), MemoryError> {
        for region in self.memory.iter() {
            region
                .as_volatile_slice()
                .map_err(io::Error::other)
                .and_then(|slice| mapping::advise(&slice, advice))
                .map_err(|source| host_error(what, region.len(), source))?;
        }
        Ok(())
    }
}

fn subslice<'a>(
    slice: &VolatileSlice<'a>,
    from: u64,
    len: u64,
) -> Result<VolatileSlice<'a>, MemoryError> {
    let outside = || MemoryError::OutsideRam { start: from, len };
    let from = usize::try_from(from).map_err(|_| outside())?;
    let count = usize::try_from(len).map_err(|_| outside())?;
    slice.subslice(from, count).map_err(|_| outside())
}

fn map_region(config: &MemoryConfig, region: Region) -> Result<GuestRegionMmap, MemoryError> {
    let what = match config.huge_pages {
        HugePages::TwoMiB => "find reserved huge pages (/proc/sys/vm/nr_hugepages) for",
        _ => "map",
    };
    let error = |source| host_error(what, region.len, source);
    let size = usize::try_from(region.len).map_err(|_| error(io::ErrorKind::OutOfMemory.into()))?;
    let huge = config.huge_pages == HugePages::TwoMiB;
    // Small pages come when they are touched; huge ones must be there, or the guest would die of the first that is not.
    let reserve = if huge { 0 } else { libc::MAP_NORESERVE };
    let mut builder = MmapRegionBuilder::new(size)
        .with_mmap_prot(libc::PROT_READ | libc::PROT_WRITE)
        .with_hugetlbfs(huge);
    builder = match config.backing {
        Backing::Anonymous => {
            let huge_flags = libc::MAP_HUGETLB | libc::MAP_HUGE_2MB;
            builder.with_mmap_flags(
                libc::MAP_PRIVATE
                    | libc::MAP_ANONYMOUS
                    | reserve
                    | if huge { huge_flags } else { 0 },
            )
        }
        Backing::Memfd => {
            let huge_flags = libc::MFD_HUGETLB | libc::MFD_HUGE_2MB;
            let file =
                mapping::memfd(region.len, if huge { huge_flags } else { 0 }).map_err(error)?;
            builder
                .with_mmap_flags(libc::MAP_SHARED | reserve)
                .with_file_offset(FileOffset::new(file, 0))
        }
    };
    let mapping = builder.build().map_err(|e| match e {
        MmapRegionError::Mmap(source) => error(source),
        other => error(io::Error::other(other)),
    })?;
    GuestRegionMmap::new(mapping, GuestAddress(region.start))
        .ok_or_else(|| error(io::ErrorKind::InvalidInput.into()))
}

fn host_error(what: &'static str, size: u64, source: io::Error) -> MemoryError {
    MemoryError::Host { what, size, source }
}

#[cfg(test)]
#[allow(clippy::cast_possible_truncation, reason = "small numbers")]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::io::Write;

    fn ram(size: u64) -> GuestRam {
        GuestRam::new(&MemoryConfig {
            size,
            ..MemoryConfig::default()
        })
        .unwrap()
    }

    /// A file in which every byte differs from its neighbours, and from those a page away.
    fn file(len: usize) -> (File, Vec<u8>) {
        let bytes: Vec<u8> = (0..len).map(|i| (i % 251) as u8 | 1).collect();
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&bytes).unwrap();
        (file, bytes)
    }

    fn contents(ram: &GuestRam, at: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        ram.view().read(at, &mut bytes).unwrap();
        bytes
    }

    #[test]
    fn ram_lies_around_the_hole() {
        let ram = ram(5 << 30);
        let regions: Vec<_> = ram.regions().map(|r| (r.start, r.len)).collect();
        assert_eq!(regions, [(0, 3 << 30), (4 << 30, 2 << 30)]);
        assert!(ram.write((6 << 30) - 1, &[1]).is_ok());
        for at in [
            (3 << 30) - 1,
            3 << 30,
            (4 << 30) - 1,
            (6 << 30) - 1,
            u64::MAX,
        ] {
            assert!(ram.write(at, &[1, 2]).is_err(), "{at:#x}");
        }
        assert_eq!(
            contents(&ram, (3 << 30) - 1, 1),
            [0],
            "a refused write leaves no trace"
        );
    }

    #[test]
    fn whole_pages_are_mapped_and_the_guest_s_writes_stay_its_own() {
        let ram = ram(1 << 20);
        let (file, bytes) = file(3 * 4096 + 10);
        let placed = ram.load_file(&file, 0, 0x4000, bytes.len() as u64).unwrap();
        assert_eq!((placed.mapped, placed.copied), (3 * 4096, 10));
        assert_eq!(contents(&ram, 0x4000, bytes.len()), bytes);
        ram.write(0x4000, b"changed").unwrap();
        let mut first = [0; 7];
        std::os::unix::fs::FileExt::read_exact_at(&file, &mut first, 0).unwrap();
        assert_eq!(first, bytes[..7]);
    }

    #[test]
    fn shared_and_misaligned_ram_is_copied() {
        let (file, bytes) = file(8192);
        let placed = ram(1 << 20).load_file(&file, 0, 0x4010, 8192).unwrap();
        assert_eq!((placed.mapped, placed.copied), (0, 8192));

        let shared = GuestRam::new(&MemoryConfig {
            size: 1 << 20,
            backing: Backing::Memfd,
            ..MemoryConfig::default()
        })
        .unwrap();
        let placed = shared.load_file(&file, 0, 0x4000, 8192).unwrap();
        assert_eq!((placed.mapped, placed.copied), (0, 8192));
        assert_eq!(contents(&shared, 0x4000, 8192), bytes);
    }

    #[test]
    fn a_file_that_is_too_short_or_ram_that_is_not_there_is_refused() {
        let ram = ram(1 << 20);
        let (file, _) = file(4096);
        for (offset, at, len) in [
            (0, 0, 4097),
            (4096, 0, 1),
            (u64::MAX, 0, 2),
            (0, (1 << 20) - 1, 2),
            (0, u64::MAX, 2),
            (0, 0, u64::MAX),
        ] {
            assert!(ram.load_file(&file, offset, at, len).is_err());
        }
        assert_eq!(
            ram.load_file(&file, u64::MAX, u64::MAX, 0).unwrap(),
            Placed::default()
        );
    }

    #[test]
    fn prefaulted_and_huge_ram_works() {
        let ram = GuestRam::new(&MemoryConfig {
            size: 4 << 20,
            huge_pages: HugePages::Transparent,
            prefault: true,
            ..MemoryConfig::default()
        })
        .unwrap();
        assert_eq!(contents(&ram, 0x20_0000, 4), [0; 4]);
    }

    proptest! {
        /// Whatever the alignment: the range has the file's bytes, and nothing around it changed.
        #[test]
        fn load_file_places_exactly_the_range(
            offset in 0_u64..9000, at in 0_u64..20000, len in 0_u64..20000, same in any::<bool>(),
        ) {
            let ram = ram(1 << 20);
            let (file, bytes) = file(32 * 1024);
            let at = if same { at / 4096 * 4096 + offset % 4096 } else { at };
            let before = vec![0xee; 64 * 1024];
            ram.write(0, &before).unwrap();
            let placed = ram.load_file(&file, offset, at, len).unwrap();
            prop_assert_eq!(placed.mapped + placed.copied, len);
            let mut expected = before;
            let (o, a, l) = (offset as usize, at as usize, len as usize);
            expected[a..a + l].copy_from_slice(&bytes[o..o + l]);
            prop_assert_eq!(contents(&ram, 0, 64 * 1024), expected);
        }
    }
}
