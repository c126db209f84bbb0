//! Saved state.

use goldcrest_snapshot::{RestoreError, Snapshot};
use serde::{Deserialize, Serialize};

use crate::interruption::Interruption;
use crate::spec::EPHEMERAL_PORTS;
use crate::{Backend, Vsock};

/// What is saved of a [`Vsock`]: nothing of its streams, whose other ends are programs that are not saved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct VsockState {
    /// The driver is ready, so that it must hear that its streams are gone.
    pub active: bool,
    /// The host's port for the next connection of a program's: the driver may remember those before.
    pub next_port: u32,
}

/// Goes on without its streams, in a device that may have another CID: the driver is told to look (§5.10.6.7).
impl<B: Backend> Snapshot for Vsock<B> {
    type State = VsockState;
    const KIND: &'static str = "virtio-vsock";
    const VERSION: u16 = 1;

    fn save(&self) -> VsockState {
        VsockState {
            active: self.active,
            next_port: self.next_port,
        }
    }

    fn restore(&mut self, state: VsockState) -> Result<(), RestoreError> {
        if !EPHEMERAL_PORTS.contains(&state.next_port) {
            return Err(RestoreError {
                kind: Self::KIND,
                what: "next port",
                value: state.next_port.into(),
                limit: "not one that a program's connection can have",
            });
        }
        self.active = state.active;
        self.next_port = state.next_port;
        self.interruption = match state.active {
            true => Interruption::new(),
            false => Interruption::default(),
        };
        Ok(())
    }
}
