//! Saved state.

use goldcrest_rate_limiter::{Clock, RateError, RateState};
use goldcrest_snapshot::{RestoreError, Snapshot};
use serde::{Deserialize, Serialize};

use crate::{Entropy, Source};

/// What is saved of an entropy device. A request that waits is still in its queue.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RngState {
    /// What is left of its rate.
    pub rate: RateState,
}

impl<S: Source, C: Clock> Snapshot for Entropy<S, C> {
    type State = RngState;
    const KIND: &'static str = "virtio-rng";
    const VERSION: u16 = 1;

    fn save(&self) -> RngState {
        RngState {
            rate: self.limiter.save(self.clock.now()),
        }
    }

    fn restore(&mut self, state: RngState) -> Result<(), RestoreError> {
        let now = self.clock.now();
        self.limiter
            .restore(state.rate, now)
            .map_err(|error| RestoreError {
                kind: Self::KIND,
                what: "rate",
                value: 0,
                limit: match error {
                    RateError::Level { .. } => "a bucket holds what it cannot",
                    _ => "the device has another one",
                },
            })
    }
}
