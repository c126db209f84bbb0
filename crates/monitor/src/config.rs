//! What a person sets.

use std::fmt;
use std::fs::File;
use std::sync::Arc;
use std::time::Duration;

use goldcrest_boot::{Announce, Image, Module, Protocol};
use goldcrest_chipset::Output;
use goldcrest_memory::MemoryConfig;

use crate::{Control, CpuTemplate, CustomDevice, Solo5Config, Timeline, VirtioConfig};

/// A machine, before it exists.
#[derive(Debug)]
pub struct MachineConfig {
    /// The kernel or unikernel.
    pub image: Image,
    /// An initial RAM disk.
    pub initrd: Option<Image>,
    /// Modules, for protocols that have them.
    pub modules: Vec<Module>,
    /// The guest's command line.
    pub cmdline: String,
    /// How the image is started; None chooses by what it offers.
    pub protocol: Option<Protocol>,
    /// Guest RAM.
    pub memory: MemoryConfig,
    /// Whether guest RAM is watched from the first snapshot on, so that a [`Diff`](crate::SnapshotKind::Diff) need not
    /// look for what has changed by comparing. Until there is a snapshot, it costs nothing.
    pub track_dirty: bool,
    /// How many CPUs.
    pub cpus: u32,
    /// What of the host's processor the guest sees otherwise.
    pub cpu_template: CpuTemplate,
    /// Where the serial port's and the console's bytes go.
    pub output: Output,
    /// Where the serial port's input comes from.
    pub input: Option<Input>,
    /// Devices of one's own.
    pub devices: Vec<CustomDevice>,
    /// virtio devices, in the order in which the guest finds them.
    pub virtio: Vec<VirtioConfig>,
    /// Devices of a Solo5 guest, each of which its manifest must name.
    pub solo5: Vec<Solo5Config>,
    /// How a kernel is told of its virtio devices.
    pub announce: Announce,
    /// Which devices it has besides.
    pub machine: MachineKind,
    /// What a reset does.
    pub on_reset: OnReset,
    /// How long the machine may run, from its first start.
    pub timeout: Option<Duration>,
    /// Stops or pauses it.
    pub control: Arc<Control>,
    /// Records where start-up went.
    pub timeline: Option<Timeline>,
    /// Is told what a person should know.
    pub notice: Notice,
}

impl MachineConfig {
    /// A machine with 128 MiB and one CPU whose output nobody sees.
    pub fn new(image: Image) -> Self {
        Self {
            image,
            initrd: None,
            modules: Vec::new(),
            cmdline: String::new(),
            protocol: None,
            memory: MemoryConfig::default(),
            track_dirty: false,
            cpus: 1,
            cpu_template: CpuTemplate::default(),
            output: Output::discard(),
            input: None,
            devices: Vec::new(),
            virtio: Vec::new(),
            solo5: Vec::new(),
            announce: Announce::default(),
            machine: MachineKind::default(),
            on_reset: OnReset::default(),
            timeout: None,
            control: Arc::default(),
            timeline: None,
            notice: Notice::default(),
        }
    }
}

/// The kind of a machine: which devices it has beside those that are configured.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum MachineKind {
    /// Those that kernels and unikernels expect.
    #[default]
    Standard,
    /// Those that test kernels examine a machine by, too: what `kvm-unit-tests` needs of QEMU's `pc-testdev` and `fw_cfg`.
    Test,
}

/// What happens when the guest resets its machine.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum OnReset {
    /// The machine ends with [`Outcome::Reset`](crate::Outcome::Reset).
    #[default]
    Exit,
    /// It starts anew, with fresh memory; after a triple fault too, which resets a PC.
    Reboot,
}

/// Who is told, in a line, what a person should know.
#[derive(Clone)]
pub struct Notice(Arc<dyn Fn(&str) + Send + Sync>);

impl Notice {
    /// Has `told` called with each line.
    pub fn new(told: impl Fn(&str) + Send + Sync + 'static) -> Self {
        Self(Arc::new(told))
    }

    /// Tells a line.
    pub fn say(&self, line: &str) {
        tracing::warn!("{line}");
        (self.0)(line);
    }
}

impl Default for Notice {
    /// Nobody is.
    fn default() -> Self {
        Self::new(|_| {})
    }
}

impl fmt::Debug for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Notice")
    }
}

/// A source of input.
#[derive(Clone)]
pub struct Input {
    /// What is read: a terminal, a pipe, a file.
    pub source: Arc<File>,
    /// Whether `Ctrl-a x` ends the machine (and `Ctrl-a Ctrl-a` is one `Ctrl-a`), as on a terminal.
    pub escape: bool,
    /// Called once, when the guest first listens to its serial port: the time to make a terminal raw.
    pub on_listen: Arc<dyn Fn() + Send + Sync>,
}

impl fmt::Debug for Input {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Input")
            .field("source", &self.source)
            .field("escape", &self.escape)
            .finish_non_exhaustive()
    }
}
