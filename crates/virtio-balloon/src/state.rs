//! Saved state.

use goldcrest_rate_limiter::Clock;
use goldcrest_snapshot::{RestoreError, Snapshot};
use goldcrest_virtio::VirtioDevice;
use serde::{Deserialize, Serialize};

use crate::configuration::Configuration;
use crate::hinting::Hinting;
use crate::spec::feature;
use crate::{Balloon, Pages};

/// What is saved of a balloon: its configuration as the driver reads it. The buffer for statistics is still in its queue,
/// and what was counted stays behind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BalloonState {
    /// `num_pages`: how many pages the guest is to put into the balloon.
    pub num_pages: u32,
    /// `actual`: how many it has there, by its own word.
    pub actual: u32,
    /// `free_page_hint_cmd_id`.
    pub cmd_id: u32,
    /// `poison_val`.
    pub poison_val: u32,
    /// The last `free_page_hint_cmd_id` that asked for hints; 1 if none has.
    pub last_cmd_id: u32,
}

impl<P: Pages, C: Clock> Snapshot for Balloon<P, C> {
    type State = BalloonState;
    const KIND: &'static str = "virtio-balloon";
    const VERSION: u16 = 1;

    fn save(&self) -> BalloonState {
        BalloonState {
            num_pages: self.configuration.num_pages,
            actual: self.configuration.actual,
            cmd_id: self.configuration.cmd_id,
            poison_val: self.configuration.poison,
            last_cmd_id: self.hinting.last(),
        }
    }

    fn restore(&mut self, state: BalloonState) -> Result<(), RestoreError> {
        let refuse = |what, value: u32, limit| RestoreError {
            kind: Self::KIND,
            what,
            value: value.into(),
            limit,
        };
        let hints = self.spec().features & feature::FREE_PAGE_HINT != 0;
        if state.cmd_id != 0 && !hints {
            return Err(refuse("command", state.cmd_id, "hints are not offered"));
        }
        if state.last_cmd_id == 0 || state.cmd_id > 1 && state.cmd_id != state.last_cmd_id {
            return Err(refuse("last command", state.last_cmd_id, "not the last"));
        }
        self.configuration = Configuration {
            num_pages: state.num_pages,
            actual: state.actual,
            cmd_id: state.cmd_id,
            poison: state.poison_val,
        };
        self.hinting = Hinting::resumed(state.last_cmd_id);
        Ok(())
    }
}
