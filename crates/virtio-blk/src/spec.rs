//! Numbers of the specification: Virtual I/O Device (VIRTIO) Version 1.3, §5.2, whose subsections are named here.

/// Bytes of a sector, in which capacity and positions are counted whatever the block size (§5.2.6).
pub const SECTOR_SIZE: u64 = 512;

/// Feature bits (§5.2.3), as masks.
pub mod feature {
    /// `seg_max` is valid.
    pub const SEG_MAX: u64 = 1 << 2;
    /// The disk can only be read.
    pub const RO: u64 = 1 << 5;
    /// `blk_size` is valid.
    pub const BLK_SIZE: u64 = 1 << 6;
    /// There are flush requests.
    pub const FLUSH: u64 = 1 << 9;
    /// `topology` is valid.
    pub const TOPOLOGY: u64 = 1 << 10;
    /// `writeback` is valid and can be written.
    pub const CONFIG_WCE: u64 = 1 << 11;
    /// `num_queues` is valid.
    pub const MQ: u64 = 1 << 12;
    /// There are discard requests.
    pub const DISCARD: u64 = 1 << 13;
    /// There are write-zeroes requests.
    pub const WRITE_ZEROES: u64 = 1 << 14;
}

/// Offsets in the configuration (§5.2.4), in bytes; numbers are little-endian.
pub mod config {
    /// 64 bits: sectors.
    pub const CAPACITY: usize = 0;
    /// 32 bits: the most data descriptors of a request.
    pub const SEG_MAX: usize = 12;
    /// 32 bits: bytes of a block, the unit that is best to use.
    pub const BLK_SIZE: usize = 20;
    /// 8 bits: the exponent of the number of logical blocks in a physical one.
    pub const PHYSICAL_BLOCK_EXP: usize = 24;
    /// 8 bits: the first aligned logical block.
    pub const ALIGNMENT_OFFSET: usize = 25;
    /// 16 bits: the least good transfer, in logical blocks.
    pub const MIN_IO_SIZE: usize = 26;
    /// 32 bits: the best transfer, in logical blocks.
    pub const OPT_IO_SIZE: usize = 28;
    /// 8 bits: 1 if what is written is durable after a flush only, 0 if at once.
    pub const WRITEBACK: usize = 32;
    /// 16 bits.
    pub const NUM_QUEUES: usize = 34;
    /// 32 bits: the most sectors of a discard request.
    pub const MAX_DISCARD_SECTORS: usize = 36;
    /// 32 bits: the most ranges of a discard request.
    pub const MAX_DISCARD_SEG: usize = 40;
    /// 32 bits: the alignment of ranges, in sectors.
    pub const DISCARD_SECTOR_ALIGNMENT: usize = 44;
    /// 32 bits: the most sectors of a write-zeroes request.
    pub const MAX_WRITE_ZEROES_SECTORS: usize = 48;
    /// 32 bits: the most ranges of a write-zeroes request.
    pub const MAX_WRITE_ZEROES_SEG: usize = 52;
    /// 8 bits: 1 if a write-zeroes request may give space back.
    pub const WRITE_ZEROES_MAY_UNMAP: usize = 56;
    /// How much of it there is: what follows belongs to features that are not offered.
    pub const SIZE: usize = 60;
}

/// A request (§5.2.6): a header that the device reads, data, and a status byte that the device writes.
pub mod request {
    /// Bytes of the header: type, 32 bits reserved, sector.
    pub const HEADER_SIZE: usize = 16;
    /// Read sectors.
    pub const IN: u32 = 0;
    /// Write sectors.
    pub const OUT: u32 = 1;
    /// Make durable what completed before.
    pub const FLUSH: u32 = 4;
    /// Read the disk's name.
    pub const GET_ID: u32 = 8;
    /// Forget sectors.
    pub const DISCARD: u32 = 11;
    /// Turn sectors into zeros.
    pub const WRITE_ZEROES: u32 = 13;
    /// Bytes of the disk's name, padded with zeros.
    pub const ID_SIZE: usize = 20;
    /// Bytes of a range to discard or zero: sector, number of sectors, flags.
    pub const RANGE_SIZE: usize = 16;
    /// Flag of a range to zero: its space may be given back.
    pub const RANGE_UNMAP: u32 = 1;
}

/// What the status byte says (§5.2.6).
pub mod status {
    /// All was done.
    pub const OK: u8 = 0;
    /// An error of the device or of the driver.
    pub const IOERR: u8 = 1;
    /// A type of request, or a flag, that the device does not know.
    pub const UNSUPP: u8 = 2;
}
