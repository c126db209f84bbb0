//! What a machine has, for those who did not make it from a configuration of their own.

use goldcrest_memory::MemoryConfig;
use goldcrest_rate_limiter::RateConfig;
use goldcrest_virtio_balloon::BalloonConfig;
use goldcrest_virtio_vsock::VsockConfig;

use crate::snapshot::{Description, Subject};
use crate::{DiskConfig, NetConfig};

/// What a machine has.
#[derive(Debug, Clone)]
pub struct Inventory {
    /// CPUs.
    pub cpus: usize,
    /// Guest RAM.
    pub memory: MemoryConfig,
    /// virtio devices by their names, in the order in which the guest found them.
    pub virtio: Vec<(String, InventoryDevice)>,
}

/// A virtio device.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum InventoryDevice {
    /// A disk.
    Disk(DiskConfig),
    /// A network card.
    Net(NetConfig),
    /// Sockets between guest and host.
    Vsock(VsockConfig),
    /// A balloon.
    Balloon(BalloonConfig),
    /// A source of entropy, with its limit.
    Entropy(RateConfig),
    /// A console.
    Console,
    /// Anything else.
    Other,
}

impl Inventory {
    pub(crate) fn of(subject: &Subject) -> Self {
        let devices = subject.board.virtio.iter();
        Self {
            cpus: subject.cpus,
            memory: subject.memory,
            virtio: devices
                .map(|device| (device.id.clone(), device.description().into()))
                .collect(),
        }
    }
}

impl From<Option<Description>> for InventoryDevice {
    fn from(description: Option<Description>) -> Self {
        match description {
            Some(Description::Disk { config, .. }) => Self::Disk(config),
            Some(Description::Net { config, .. }) => Self::Net(config),
            Some(Description::Vsock(sockets)) => Self::Vsock(sockets.into()),
            Some(Description::Balloon(config)) => Self::Balloon(config),
            Some(Description::Entropy(rate)) => Self::Entropy(rate),
            Some(Description::Console(_)) => Self::Console,
            None => Self::Other,
        }
    }
}
