//! Saved state.

use goldcrest_snapshot::{RestoreError, Snapshot};
use serde::{Deserialize, Serialize};

use crate::Console;
use crate::control::{Owed, Size};
use crate::port::{Flow, PortControl};

/// What is saved of a port. Buffers that wait are still in their queues, and what the host has not handed over stays
/// with the host.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortState {
    /// How many bytes of the first output buffer in the queue have been put out.
    pub sent: u64,
    /// A bit for each control message that is owed to the driver.
    pub owed: u8,
    /// The driver is ready to use the port.
    pub ready: bool,
    /// It is open in the guest.
    pub open: bool,
    /// What the driver was told last of the host's end.
    pub told_open: bool,
}

/// What is saved of a console.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConsoleState {
    /// Characters in a line.
    pub cols: u16,
    /// Lines.
    pub rows: u16,
    /// The driver is ready to be told of ports.
    pub ready: bool,
    /// The ports.
    pub ports: Vec<PortState>,
}

/// The longest chain (§2.7.5.1 has 2^32 bytes).
const MAX_SENT: u64 = 1 << 32;

fn refuse(what: &'static str, value: u64, limit: &'static str) -> RestoreError {
    RestoreError {
        kind: Console::KIND,
        what,
        value,
        limit,
    }
}

impl Snapshot for Console {
    type State = ConsoleState;
    const KIND: &'static str = "virtio-console";
    const VERSION: u16 = 1;

    fn save(&self) -> ConsoleState {
        let ports = self.ports.iter().map(|port| PortState {
            sent: port.flow.sent,
            owed: port.control.owed.bits(),
            ready: port.control.ready,
            open: port.control.open,
            told_open: port.control.told_open,
        });
        ConsoleState {
            cols: self.size.cols,
            rows: self.size.rows,
            ready: self.ready,
            ports: ports.collect(),
        }
    }

    fn restore(&mut self, state: ConsoleState) -> Result<(), RestoreError> {
        if state.ports.len() != self.ports.len() {
            let count = state.ports.len() as u64;
            return Err(refuse("ports", count, "not as many as the device has"));
        }
        let controls: Vec<PortControl> = state
            .ports
            .iter()
            .map(|port| check(port, state.ready))
            .collect::<Result<_, _>>()?;
        self.size = Size {
            cols: state.cols,
            rows: state.rows,
        };
        self.ready = state.ready;
        for ((port, saved), control) in self.ports.iter_mut().zip(&state.ports).zip(controls) {
            port.flow = Flow::resumed(saved.sent);
            port.control = control;
        }
        Ok(())
    }
}

fn check(port: &PortState, device_ready: bool) -> Result<PortControl, RestoreError> {
    if port.sent > MAX_SENT {
        return Err(refuse("sent", port.sent, "longer than a chain can be"));
    }
    let Some(owed) = Owed::from_bits(port.owed) else {
        return Err(refuse("owed", port.owed.into(), "has reserved bits"));
    };
    if !device_ready && (port.ready || port.owed != 0) || !port.ready && port.open {
        return Err(refuse("ready", 0, "must be 1 for what the driver has done"));
    }
    Ok(PortControl {
        owed,
        ready: port.ready,
        open: port.open,
        told_open: port.told_open,
    })
}
