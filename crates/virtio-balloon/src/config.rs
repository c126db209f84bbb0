//! What a person sets.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::BalloonError;
use crate::spec::{PAGE, feature};

/// The most bytes that a balloon can be asked to have: `num_pages` has 32 bits.
pub const MAX_TARGET: u64 = u32::MAX as u64 * PAGE;
/// Statistics are not asked for more often, so that they are no load.
pub const MIN_INTERVAL: Duration = Duration::from_millis(100);

/// What a balloon does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct BalloonConfig {
    /// How many bytes of its memory the guest is to put into the balloon: a multiple of 4 KiB.
    pub target: u64,
    /// The guest may take them back when it is out of memory (`VIRTIO_BALLOON_F_DEFLATE_ON_OOM`).
    pub deflate_on_oom: bool,
    /// The guest reports pages that it does not use, which the host gets at once and gives back when they are touched
    /// (`VIRTIO_BALLOON_F_PAGE_REPORTING`).
    pub free_page_reporting: bool,
    /// The guest can be asked for all of its free pages at once (`VIRTIO_BALLOON_F_FREE_PAGE_HINT`).
    pub free_page_hinting: bool,
    /// The guest tells statistics of its memory (`VIRTIO_BALLOON_F_STATS_VQ`), asked for so often, though not more than
    /// ten times a second; with zero, by [`BalloonHandle::ask_statistics`](crate::BalloonHandle::ask_statistics) alone.
    pub statistics: Option<Duration>,
}

impl Default for BalloonConfig {
    /// An empty balloon: what the guest reports as free goes back to the host, and nothing else happens.
    fn default() -> Self {
        Self {
            target: 0,
            deflate_on_oom: true,
            free_page_reporting: true,
            free_page_hinting: false,
            statistics: None,
        }
    }
}

/// The features that a balloon with this configuration offers.
pub(crate) fn offered(config: &BalloonConfig) -> u64 {
    let reporting = feature::PAGE_REPORTING | feature::PAGE_POISON;
    let flags = [
        (config.statistics.is_some(), feature::STATS_VQ),
        (config.deflate_on_oom, feature::DEFLATE_ON_OOM),
        (config.free_page_hinting, feature::FREE_PAGE_HINT),
        (config.free_page_reporting, reporting),
    ];
    let offered = flags.into_iter().filter(|(on, _)| *on);
    offered.fold(0, |all, (_, features)| all | features)
}

/// Bytes as `num_pages`.
///
/// # Errors
///
/// [`BalloonError::Target`].
pub(crate) fn pages(bytes: u64) -> Result<u32, BalloonError> {
    let whole = bytes.is_multiple_of(PAGE);
    u32::try_from(bytes / PAGE)
        .ok()
        .filter(|_| whole)
        .ok_or(BalloonError::Target(bytes))
}

/// How often statistics are asked for, if at all.
pub(crate) fn interval(wanted: Duration) -> Option<Duration> {
    (!wanted.is_zero()).then(|| wanted.max(MIN_INTERVAL))
}
