//! What a person sets for one machine of those that are made from a snapshot.

use std::sync::Arc;
use std::time::Duration;

use goldcrest_chipset::Output;

use crate::{ConsolePort, Control, Input, Mmds, Notice, Rebinding, Timeline, WallClock};

/// What is a machine's own that is made from a snapshot, by a [`Template`](super::Template) or
/// [alone](crate::RestoreConfig::machine).
#[derive(Debug)]
pub struct CloneConfig {
    /// Ends of devices that are elsewhere than when the machine was saved. Machines that run at once cannot share a tap, a disk that
    /// is written to, or a vsock's socket.
    pub rebind: Vec<Rebinding>,
    /// What has become of the time since the snapshot was taken.
    pub clock: WallClock,
    /// Whether it waits, paused, until [`Control::resume`].
    pub paused: bool,
    /// Where the serial port's and the console's bytes go.
    pub output: Output,
    /// Where the serial port's input comes from.
    pub input: Option<Input>,
    /// The ends of virtio consoles that were on descriptors of the process, in their order. Those that are missing have no
    /// input, and nobody sees their output.
    pub consoles: Vec<ConsolePort>,
    /// The metadata service of those cards that had one, without which they have one each whose document is empty. It is
    /// set as it was when the machine was saved; what it serves is not saved. Machines that share one serve the same.
    pub metadata: Option<Arc<Mmds>>,
    /// How long the machine may run.
    pub timeout: Option<Duration>,
    /// Stops or pauses it, and saves it: one for each machine.
    pub control: Arc<Control>,
    /// Records where the time went.
    pub timeline: Option<Timeline>,
    /// Is told what a person should know.
    pub notice: Notice,
}

impl Default for CloneConfig {
    /// A machine whose output nobody sees, with its devices as they were.
    fn default() -> Self {
        Self {
            rebind: Vec::new(),
            clock: WallClock::default(),
            paused: false,
            output: Output::discard(),
            input: None,
            consoles: Vec::new(),
            metadata: None,
            timeout: None,
            control: Arc::default(),
            timeline: None,
            notice: Notice::default(),
        }
    }
}
