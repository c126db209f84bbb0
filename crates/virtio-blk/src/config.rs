//! What a person sets of a disk, and the configuration that its driver sees (§5.2.4).

use goldcrest_rate_limiter::RateConfig;
use goldcrest_virtio::spec::device_id;
use goldcrest_virtio::{DeviceSpec, Features};

use crate::spec::{SECTOR_SIZE, config, feature, request};
use crate::{DiskError, Limits};

/// The most queues of a disk.
pub const MAX_QUEUES: u16 = 256;
/// The greatest size of a queue: the most descriptors of a request, for which memory is kept while it is under way.
pub const MAX_QUEUE_SIZE: u16 = 1024;
/// The least, so that a request has room for its header, data and status.
const MIN_QUEUE_SIZE: u16 = 4;
/// The most sectors of a range to discard or zero: 64 MiB, since zeros may have to be written while the caller waits.
const RANGE_SECTORS: u32 = 1 << 17;
/// Ranges to discard should begin at multiples of this many sectors: where the blocks of file systems do.
const DISCARD_ALIGNMENT: u32 = 8;
/// The greatest exponent of a physical block: 2 MiB.
const MAX_PHYSICAL_BLOCK_EXP: u8 = 12;

/// How a disk is shown to the guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlockConfig {
    /// How many queues, from 1 to [`MAX_QUEUES`]. Guests have one for each processor if they can; they are served one
    /// at a time.
    pub queues: u16,
    /// The greatest size of each queue: a power of two from 4 to [`MAX_QUEUE_SIZE`].
    pub queue_size: u16,
    /// The disk's name, by which guests find it (Linux: `/sys/block/vda/serial`): up to 20 bytes.
    pub id: String,
    /// What it may move, if there is a limit. Reads and writes count with their data, ranges that become zeros with
    /// their length, all else as an operation only.
    pub rate: Option<RateConfig>,
    /// What transfers suit it.
    pub topology: Topology,
}

impl Default for BlockConfig {
    /// One queue of 256 entries, no name, no limit.
    fn default() -> Self {
        Self {
            queues: 1,
            queue_size: 256,
            id: String::new(),
            rate: None,
            topology: Topology::default(),
        }
    }
}

/// What transfers suit a disk (§5.2.4, `topology`): hints that guests align their file systems by. Its logical blocks
/// are sectors of 512 bytes, in which the following is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Topology {
    /// The binary logarithm of a physical block's logical blocks; at most 12.
    pub physical_block_exp: u8,
    /// The first logical block that is aligned to a physical one.
    pub alignment_offset: u8,
    /// The least transfer that is not wasteful.
    pub min_io_size: u16,
    /// The best transfer, or 0 if there is none.
    pub opt_io_size: u32,
}

impl Default for Topology {
    /// Blocks of 4 KiB, as pages and most file systems have them.
    fn default() -> Self {
        Self {
            physical_block_exp: 3,
            alignment_offset: 0,
            min_io_size: 8,
            opt_io_size: 0,
        }
    }
}

impl BlockConfig {
    /// Checks what was set.
    pub(crate) fn check(&self) -> Result<(), DiskError> {
        if !(1..=MAX_QUEUES).contains(&self.queues) {
            return Err(DiskError::Queues(self.queues));
        }
        let size = self.queue_size;
        if !size.is_power_of_two() || !(MIN_QUEUE_SIZE..=MAX_QUEUE_SIZE).contains(&size) {
            return Err(DiskError::QueueSize(size));
        }
        if self.id.len() > request::ID_SIZE {
            return Err(DiskError::Id {
                id: self.id.clone(),
            });
        }
        let exponent = self.topology.physical_block_exp;
        if exponent > MAX_PHYSICAL_BLOCK_EXP {
            return Err(DiskError::PhysicalBlock {
                exponent,
                max: MAX_PHYSICAL_BLOCK_EXP,
            });
        }
        Ok(())
    }

    /// The name as a request for it is answered.
    pub(crate) fn id_bytes(&self) -> [u8; request::ID_SIZE] {
        let mut bytes = [0; request::ID_SIZE];
        for (to, from) in bytes.iter_mut().zip(self.id.bytes()) {
            *to = from;
        }
        bytes
    }

    /// What requests may touch on a disk of `capacity` bytes.
    pub(crate) fn limits(capacity: u64, read_only: bool) -> Limits {
        Limits {
            sectors: capacity / SECTOR_SIZE,
            read_only,
            range_sectors: if read_only { 0 } else { RANGE_SECTORS },
        }
    }

    /// What the device is.
    pub(crate) fn spec(&self, read_only: bool) -> DeviceSpec {
        let mut features = feature::SEG_MAX
            | feature::BLK_SIZE
            | feature::FLUSH
            | feature::TOPOLOGY
            | feature::CONFIG_WCE;
        features |= match read_only {
            true => feature::RO,
            false => feature::DISCARD | feature::WRITE_ZEROES,
        };
        if self.queues > 1 {
            features |= feature::MQ;
        }
        DeviceSpec {
            id: device_id::BLOCK,
            features,
            queue_sizes: vec![self.queue_size; self.queues.into()],
        }
    }
}

/// The configuration as the driver reads it.
#[derive(Debug, Clone)]
pub(crate) struct ConfigSpace([u8; config::SIZE]);

impl ConfigSpace {
    pub(crate) fn new(set: &BlockConfig, limits: &Limits) -> Self {
        let mut space = Self([0; config::SIZE]);
        let topology = &set.topology;
        // Header and status take descriptors of their own.
        let seg_max = u32::from(set.queue_size.saturating_sub(2));
        let block = u32::try_from(SECTOR_SIZE).unwrap_or(u32::MAX);
        space.put(config::CAPACITY, &limits.sectors.to_le_bytes());
        space.put(config::SEG_MAX, &seg_max.to_le_bytes());
        space.put(config::BLK_SIZE, &block.to_le_bytes());
        space.put(config::PHYSICAL_BLOCK_EXP, &[topology.physical_block_exp]);
        space.put(config::ALIGNMENT_OFFSET, &[topology.alignment_offset]);
        space.put(config::MIN_IO_SIZE, &topology.min_io_size.to_le_bytes());
        space.put(config::OPT_IO_SIZE, &topology.opt_io_size.to_le_bytes());
        space.put(config::NUM_QUEUES, &set.queues.to_le_bytes());
        if limits.range_sectors > 0 {
            let (sectors, one) = (limits.range_sectors.to_le_bytes(), 1_u32.to_le_bytes());
            space.put(config::MAX_DISCARD_SECTORS, &sectors);
            space.put(config::MAX_DISCARD_SEG, &one);
            let alignment = DISCARD_ALIGNMENT.to_le_bytes();
            space.put(config::DISCARD_SECTOR_ALIGNMENT, &alignment);
            space.put(config::MAX_WRITE_ZEROES_SECTORS, &sectors);
            space.put(config::MAX_WRITE_ZEROES_SEG, &one);
            space.put(config::WRITE_ZEROES_MAY_UNMAP, &[1]);
        }
        space
    }

    pub(crate) fn set_capacity(&mut self, limits: &Limits) {
        self.put(config::CAPACITY, &limits.sectors.to_le_bytes());
    }

    pub(crate) fn set_writeback(&mut self, writeback: bool) {
        self.put(config::WRITEBACK, &[writeback.into()]);
    }

    pub(crate) fn read(&self, offset: u64, data: &mut [u8]) {
        let rest = usize::try_from(offset).ok().and_then(|at| self.0.get(at..));
        for (to, from) in data.iter_mut().zip(rest.unwrap_or_default()) {
            *to = *from;
        }
    }

    fn put(&mut self, at: usize, bytes: &[u8]) {
        for (to, from) in self.0.iter_mut().skip(at).zip(bytes) {
            *to = *from;
        }
    }
}

/// What a write to the configuration sets `writeback` to, if it does; nothing else can be written.
pub(crate) fn written_writeback(offset: u64, data: &[u8]) -> Option<bool> {
    let at = (config::WRITEBACK as u64).checked_sub(offset)?;
    let byte = data.get(usize::try_from(at).ok()?)?;
    Some(*byte != 0)
}

/// Whether what is written may be durable after a flush only (§5.2.5.2, §5.2.6.2): not for a driver that has no
/// flushes.
pub(crate) fn is_writeback(features: Features, written: Option<bool>) -> bool {
    features.has(feature::FLUSH) && written.unwrap_or(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_is_shown_as_it_is_set_or_refused() {
        let good = BlockConfig::default();
        assert!(good.check().is_ok());
        let set = |change: fn(&mut BlockConfig)| {
            let mut config = BlockConfig::default();
            change(&mut config);
            config.check().map_err(|error| error.to_string())
        };
        assert!(set(|c| c.id = "x".repeat(20)).is_ok());
        for (change, expected) in [
            (
                (|c| c.queues = 0) as fn(&mut BlockConfig),
                "0 queues, not 1 to 256",
            ),
            (|c| c.queues = 257, "257 queues, not 1 to 256"),
            (
                |c| c.queue_size = 2,
                "queue size 2 is not a power of two from 4 to 1024",
            ),
            (
                |c| c.queue_size = 2048,
                "queue size 2048 is not a power of two from 4 to 1024",
            ),
            (
                |c| c.queue_size = 100,
                "queue size 100 is not a power of two from 4 to 1024",
            ),
            (
                |c| c.id = "x".repeat(21),
                "disk name \"xxxxxxxxxxxxxxxxxxxxx\" has 21 bytes, the limit is 20",
            ),
            (
                |c| c.topology.physical_block_exp = 13,
                "physical block of 2^13 logical blocks, the limit is 2^12",
            ),
        ] {
            let error = set(change).unwrap_err();
            assert!(error.ends_with(expected), "{error}");
        }
    }

    #[test]
    fn the_configuration_is_read_from_anywhere_and_ends() {
        let limits = BlockConfig::limits(1 << 20, false);
        let space = ConfigSpace::new(&BlockConfig::default(), &limits);
        let read = |offset, len| {
            let mut data = vec![0; len];
            space.read(offset, &mut data);
            data
        };
        let whole = read(0, 64);
        assert_eq!(whole[..8], 2048_u64.to_le_bytes());
        assert_eq!(whole[12..16], 254_u32.to_le_bytes());
        assert_eq!(whole[60..], [0; 4]);
        for offset in 0..64 {
            for len in [1, 2, 3, 4, 8] {
                let expected = whole.iter().copied().skip(offset).chain([0; 8]).take(len);
                assert_eq!(read(offset as u64, len), expected.collect::<Vec<_>>());
            }
        }
        assert_eq!(read(u64::MAX, 8), [0; 8]);
        for (offset, len, covers) in [(32, 1, true), (31, 1, false), (28, 8, true), (33, 1, false)]
        {
            assert_eq!(written_writeback(offset, &vec![7; len]).is_some(), covers);
        }
    }
}
