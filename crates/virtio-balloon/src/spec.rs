//! Numbers of the specification: VIRTIO 1.3 §5.5.

/// Feature bits (§5.5.3), as masks.
pub mod feature {
    /// The driver tells the device before it uses pages from the balloon.
    pub const MUST_TELL_HOST: u64 = 1 << 0;
    /// There is a queue for statistics.
    pub const STATS_VQ: u64 = 1 << 1;
    /// The driver may take pages from the balloon when it is out of memory.
    pub const DEFLATE_ON_OOM: u64 = 1 << 2;
    /// There is a queue for hints of free pages; `free_page_hint_cmd_id` is valid.
    pub const FREE_PAGE_HINT: u64 = 1 << 3;
    /// The driver fills free pages with `poison_val`, which is valid.
    pub const PAGE_POISON: u64 = 1 << 4;
    /// There is a queue for reports of free pages.
    pub const PAGE_REPORTING: u64 = 1 << 5;
}

/// Queues (§5.5.2).
pub mod queue {
    /// Pages that go into the balloon.
    pub const INFLATE: u16 = 0;
    /// Pages that come out of it.
    pub const DEFLATE: u16 = 1;
    /// Statistics of the guest's memory.
    pub const STATISTICS: u16 = 2;
    /// Hints of free pages.
    pub const FREE_PAGE: u16 = 3;
    /// Reports of free pages.
    pub const REPORTING: u16 = 4;
    /// The greatest size of the first two, which is ours to choose. Drivers have one request under way.
    pub const SIZE: u16 = 16;
    /// The greatest size of the others: Linux reports up to 32 ranges in one request, and does not report at all by a
    /// queue that has no room for them.
    pub const OPTIONAL_SIZE: u16 = 32;
}

/// Offsets in the configuration (§5.5.4).
pub mod config {
    /// `le32 num_pages`: how many pages the device wants to have.
    pub const NUM_PAGES: usize = 0;
    /// `le32 actual`: how many it has, by the driver's word.
    pub const ACTUAL: usize = 4;
    /// `le32 free_page_hint_cmd_id`.
    pub const FREE_PAGE_HINT_CMD_ID: usize = 8;
    /// `le32 poison_val`: what free pages are filled with, by the driver's word.
    pub const POISON_VAL: usize = 12;
    /// Bytes.
    pub const SIZE: usize = 16;
}

/// Reserved values of `free_page_hint_cmd_id` (§5.5.6.5).
pub mod cmd_id {
    /// No hints, now; the driver keeps the pages that it has hinted at.
    pub const STOP: u32 = 0;
    /// No hints; the driver has the pages back.
    pub const DONE: u32 = 1;
    /// The first that asks for hints.
    pub const FIRST: u32 = 2;
}

/// Bytes of a page in the balloon, whatever pages the guest has.
pub const PAGE: u64 = 4096;
/// Bytes of a page's number (§5.5.6).
pub const NUMBER_SIZE: usize = 4;

/// Statistics (§5.5.6.3, §5.5.6.4): bytes, if nothing else is said.
pub mod statistic {
    /// Bytes of `struct virtio_balloon_stat`: `le16 tag`, `le64 val`.
    pub const SIZE: usize = 10;
    /// Swapped in.
    pub const SWAP_IN: u16 = 0;
    /// Swapped out.
    pub const SWAP_OUT: u16 = 1;
    /// Major page faults, a number.
    pub const MAJFLT: u16 = 2;
    /// Minor page faults, a number.
    pub const MINFLT: u16 = 3;
    /// Used for nothing.
    pub const MEMFREE: u16 = 4;
    /// All.
    pub const MEMTOT: u16 = 5;
    /// To be had without swapping.
    pub const AVAIL: u16 = 6;
    /// To be had without input or output.
    pub const CACHES: u16 = 7;
    /// Huge pages allocated, a number.
    pub const HTLB_PGALLOC: u16 = 8;
    /// Huge pages that could not be, a number.
    pub const HTLB_PGFAIL: u16 = 9;
    /// Processes ended for want of memory, a number. This and the following Linux has had since 6.12, and VIRTIO 1.3 has
    /// not.
    pub const OOM_KILL: u16 = 10;
    /// Allocations that had to wait, a number.
    pub const ALLOC_STALL: u16 = 11;
    /// Pages looked at in the background, a number.
    pub const ASYNC_SCAN: u16 = 12;
    /// Pages looked at by who needed memory, a number.
    pub const DIRECT_SCAN: u16 = 13;
    /// Pages reclaimed in the background, a number.
    pub const ASYNC_RECLAIM: u16 = 14;
    /// Pages reclaimed by who needed memory, a number.
    pub const DIRECT_RECLAIM: u16 = 15;
}
