//! Statistics of the guest's memory (§5.5.6.3).

use goldcrest_virtio::{QueueError, Reader};

use crate::spec::statistic as tag;

/// The most entries of a buffer that are looked at.
const MAX_ENTRIES: usize = 64;

/// What the guest has told of its memory: bytes, if nothing else is said. It need not be true.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Statistics {
    /// Swapped in.
    pub swap_in: Option<u64>,
    /// Swapped out.
    pub swap_out: Option<u64>,
    /// How many page faults needed input.
    pub major_faults: Option<u64>,
    /// How many did not.
    pub minor_faults: Option<u64>,
    /// Used for nothing.
    pub free: Option<u64>,
    /// All.
    pub total: Option<u64>,
    /// What new programs could have without swapping.
    pub available: Option<u64>,
    /// What could be had at once: caches of files.
    pub caches: Option<u64>,
    /// How many huge pages were allocated.
    pub huge_allocations: Option<u64>,
    /// How many could not be.
    pub huge_failures: Option<u64>,
    /// How many processes were ended for want of memory.
    pub oom_kills: Option<u64>,
    /// How many allocations had to wait.
    pub stalls: Option<u64>,
    /// How many pages were looked at in the background.
    pub background_scans: Option<u64>,
    /// How many were looked at by who needed memory.
    pub direct_scans: Option<u64>,
    /// How many pages were reclaimed in the background.
    pub background_reclaims: Option<u64>,
    /// How many were reclaimed by who needed memory.
    pub direct_reclaims: Option<u64>,
}

impl Statistics {
    /// Takes them from a buffer of the driver's, in any order. Also says how many entries were not understood.
    pub(crate) fn read(buffer: &mut Reader<'_>) -> Result<(Self, u64), QueueError> {
        let (mut statistics, mut ignored) = (Self::default(), 0);
        for _ in 0..MAX_ENTRIES {
            if buffer.left() < tag::SIZE as u64 {
                break;
            }
            let [low, high, value @ ..] = buffer.read_array::<{ tag::SIZE }>()?;
            match statistics.field(u16::from_le_bytes([low, high])) {
                Some(field) => *field = Some(u64::from_le_bytes(value)),
                None => ignored += 1,
            }
        }
        ignored += u64::from(buffer.left() > 0);
        Ok((statistics, ignored))
    }

    fn field(&mut self, number: u16) -> Option<&mut Option<u64>> {
        Some(match number {
            tag::SWAP_IN => &mut self.swap_in,
            tag::SWAP_OUT => &mut self.swap_out,
            tag::MAJFLT => &mut self.major_faults,
            tag::MINFLT => &mut self.minor_faults,
            tag::MEMFREE => &mut self.free,
            tag::MEMTOT => &mut self.total,
            tag::AVAIL => &mut self.available,
            tag::CACHES => &mut self.caches,
            tag::HTLB_PGALLOC => &mut self.huge_allocations,
            tag::HTLB_PGFAIL => &mut self.huge_failures,
            tag::OOM_KILL => &mut self.oom_kills,
            tag::ALLOC_STALL => &mut self.stalls,
            tag::ASYNC_SCAN => &mut self.background_scans,
            tag::DIRECT_SCAN => &mut self.direct_scans,
            tag::ASYNC_RECLAIM => &mut self.background_reclaims,
            tag::DIRECT_RECLAIM => &mut self.direct_reclaims,
            _ => return None,
        })
    }
}
