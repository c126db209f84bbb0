//! Saved state.

use goldcrest_rate_limiter::RateState;
use goldcrest_snapshot::{RestoreError, Snapshot};
use serde::{Deserialize, Serialize};

use crate::{Backend, Block};

/// What is saved of a [`Block`]; its bytes stay on the disk, and its requests are over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlockState {
    /// Sectors of 512 bytes.
    pub sectors: u64,
    /// Whether it can only be read.
    pub read_only: bool,
    /// What the driver has set `writeback` to, if it has.
    pub writeback: Option<bool>,
    /// What it may still move.
    pub rate: RateState,
}

/// A disk must be quiesced before it is saved. It is restored into one that was just made, with a disk of the same
/// size and the same configuration.
impl<B: Backend> Snapshot for Block<B> {
    type State = BlockState;
    const KIND: &'static str = "virtio-blk";
    const VERSION: u16 = 1;

    fn save(&self) -> BlockState {
        BlockState {
            sectors: self.limits.sectors,
            read_only: self.limits.read_only,
            writeback: self.writeback,
            rate: self.limiter.save(self.clock.now()),
        }
    }

    fn restore(&mut self, state: BlockState) -> Result<(), RestoreError> {
        let refuse = |what, value, limit| RestoreError {
            kind: Self::KIND,
            what,
            value,
            limit,
        };
        if state.sectors != self.limits.sectors {
            let limit = "not the sectors of this disk";
            return Err(refuse("capacity", state.sectors, limit));
        }
        if state.read_only != self.limits.read_only {
            let limit = "not what this disk is";
            return Err(refuse("read-only", state.read_only.into(), limit));
        }
        let restored = self.limiter.restore(state.rate, self.clock.now());
        restored.map_err(|_| refuse("rate", 0, "not one that this disk's limit can have"))?;
        self.set_writeback(state.writeback);
        Ok(())
    }
}
