//! The balloon.

use std::time::Duration;

use goldcrest_virtio_balloon::{BalloonConfig, BalloonStatus};
use serde::{Deserialize, Serialize};

const MIB: u64 = 1 << 20;
const PAGE: u64 = 4096;

/// `PUT /balloon`, and what `GET` answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Balloon {
    /// How much of its memory the guest is to give back, in MiB.
    pub amount_mib: u32,
    /// The guest may take it back when it is out of memory.
    pub deflate_on_oom: bool,
    /// How often statistics are asked for, in seconds; with 0 there are none.
    #[serde(default)]
    pub stats_polling_interval_s: u16,
    /// The guest can be asked for its free pages.
    #[serde(default)]
    pub free_page_hinting: bool,
    /// The guest reports its free pages.
    #[serde(default)]
    pub free_page_reporting: bool,
}

impl Balloon {
    /// The device's configuration.
    pub fn config(&self) -> BalloonConfig {
        let interval = u64::from(self.stats_polling_interval_s);
        BalloonConfig {
            target: u64::from(self.amount_mib) * MIB,
            deflate_on_oom: self.deflate_on_oom,
            free_page_reporting: self.free_page_reporting,
            free_page_hinting: self.free_page_hinting,
            statistics: (interval > 0).then(|| Duration::from_secs(interval)),
        }
    }
}

/// `PATCH /balloon`, of a machine that runs.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BalloonUpdate {
    /// How much of its memory the guest is to give back, in MiB.
    pub amount_mib: u32,
}

/// `PATCH /balloon/statistics`, of a machine that runs.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BalloonStatisticsUpdate {
    /// How often statistics are asked for, in seconds.
    pub stats_polling_interval_s: u16,
}

/// What `GET /balloon/statistics` answers: bytes, if nothing else is said. What the guest has not told is missing.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct BalloonStatistics {
    /// How many pages of 4 KiB the guest is to give back.
    pub target_pages: u64,
    /// How many it has given back.
    pub actual_pages: u64,
    /// The first in MiB.
    pub target_mib: u64,
    /// The second in MiB.
    pub actual_mib: u64,
    /// Swapped in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub swap_in: Option<u64>,
    /// Swapped out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub swap_out: Option<u64>,
    /// Page faults that needed input.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub major_faults: Option<u64>,
    /// Page faults that did not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub minor_faults: Option<u64>,
    /// Used for nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub free_memory: Option<u64>,
    /// All.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub total_memory: Option<u64>,
    /// What new programs could have without swapping.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub available_memory: Option<u64>,
    /// Caches of files.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disk_caches: Option<u64>,
    /// Huge pages that were allocated.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hugetlb_allocations: Option<u64>,
    /// Huge pages that could not be.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hugetlb_failures: Option<u64>,
    /// Processes that were ended for want of memory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oom_kill: Option<u64>,
    /// Allocations that had to wait.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub alloc_stall: Option<u64>,
    /// Pages that were looked at in the background.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub async_scan: Option<u64>,
    /// Pages that were looked at by who needed memory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub direct_scan: Option<u64>,
    /// Pages that were reclaimed in the background.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub async_reclaim: Option<u64>,
    /// Pages that were reclaimed by who needed memory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub direct_reclaim: Option<u64>,
}

impl From<BalloonStatus> for BalloonStatistics {
    fn from(status: BalloonStatus) -> Self {
        let told = status.statistics;
        Self {
            target_pages: status.target / PAGE,
            actual_pages: status.actual / PAGE,
            target_mib: status.target / MIB,
            actual_mib: status.actual / MIB,
            swap_in: told.swap_in,
            swap_out: told.swap_out,
            major_faults: told.major_faults,
            minor_faults: told.minor_faults,
            free_memory: told.free,
            total_memory: told.total,
            available_memory: told.available,
            disk_caches: told.caches,
            hugetlb_allocations: told.huge_allocations,
            hugetlb_failures: told.huge_failures,
            oom_kill: told.oom_kills,
            alloc_stall: told.stalls,
            async_scan: told.background_scans,
            direct_scan: told.direct_scans,
            async_reclaim: told.background_reclaims,
            direct_reclaim: told.direct_reclaims,
        }
    }
}
