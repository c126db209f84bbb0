//! What a person sets for one machine of many.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use goldcrest_chipset::Output;

use crate::{
    ConsolePort, Control, Input, Notice, Rebinding, RestoreConfig, SnapshotFiles, Timeline,
    WallClock,
};

/// A machine that is made from a [`Template`](super::Template): the fields are those of [`RestoreConfig`].
#[derive(Debug)]
pub struct CloneConfig {
    /// Ends of devices that are elsewhere than the template's. Machines that run at once cannot share a tap, a disk that
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
    /// The ends of virtio consoles that were on descriptors of the process, in their order.
    pub consoles: Vec<ConsolePort>,
    /// How long the machine may run.
    pub timeout: Option<Duration>,
    /// Stops or pauses it: one for each machine.
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
            timeout: None,
            control: Arc::default(),
            timeline: None,
            notice: Notice::default(),
        }
    }
}

impl CloneConfig {
    /// As that of a machine which is restored from `files`.
    pub(super) fn of(self, files: &SnapshotFiles, bases: &[PathBuf]) -> RestoreConfig {
        RestoreConfig {
            bases: bases.to_vec(),
            rebind: self.rebind,
            clock: self.clock,
            paused: self.paused,
            output: self.output,
            input: self.input,
            consoles: self.consoles,
            timeout: self.timeout,
            control: self.control,
            timeline: self.timeline,
            notice: self.notice,
            ..RestoreConfig::new(files.clone())
        }
    }
}
