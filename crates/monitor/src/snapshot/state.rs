//! What is saved of a machine, but for its RAM.

use std::path::PathBuf;

use goldcrest_memory::MemoryConfig;
use goldcrest_memory::image::{CHUNK, Extents, ImageId};
use goldcrest_snapshot::{EnvelopeError, Part, open_state, seal_state};
use goldcrest_vcpu::VcpuState;
use serde::{Deserialize, Serialize};

use super::chain::parent;
use super::{Description, SnapshotError, SnapshotFiles, path_bytes};
use crate::MAX_VIRTIO_DEVICES;

/// What the envelope says that it has.
const KIND: &str = "machine";
/// The layout of [`MachineState`].
const VERSION: u16 = 2;

/// The most bytes of a state file: more than a machine with all CPUs and devices needs.
pub(super) const MAX_SIZE: u64 = 64 << 20;
/// As many as local APICs can be told apart.
const MAX_CPUS: usize = 254;
/// More model-specific registers than any KVM lists.
const MAX_MSRS: usize = 1024;
/// KVM counts nanoseconds in signed numbers.
const MAX_CLOCK: u64 = 1 << 62;

/// A machine, but for its RAM.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct MachineState {
    pub(crate) memory: MemoryState,
    /// When it was paused: nanoseconds since 1970.
    pub(crate) saved_at: u64,
    /// What the paravirtual clock showed then, in nanoseconds.
    pub(crate) clock: u64,
    /// Guest-physical address of the generation identifier, of guests that are told of it.
    pub(crate) generation_id: Option<u64>,
    pub(crate) cpus: Vec<VcpuState>,
    pub(crate) chipset: ChipsetState,
    /// The virtio devices, in the order in which the guest found them.
    pub(crate) devices: Vec<DeviceState>,
}

/// Which image the RAM is in.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct MemoryState {
    pub(crate) config: MemoryConfig,
    pub(crate) id: ImageId,
    /// Bytes that are not holes.
    pub(crate) written: u64,
    pub(crate) checksums: Vec<u32>,
    /// Of an image that has only what has changed.
    pub(crate) difference: Option<Difference>,
}

/// What an image is the difference to, and which pages it has.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Difference {
    pub(crate) base: ImageId,
    /// The [digest](MemoryState::digest) of the base.
    pub(crate) digest: u32,
    /// The base's files, from the directory of the state.
    #[serde(with = "path_bytes")]
    pub(crate) state: PathBuf,
    #[serde(with = "path_bytes")]
    pub(crate) memory: PathBuf,
    pub(crate) extents: Extents,
}

impl MemoryState {
    /// By which it is known that an image, and what it is the difference to, are still those that they were. Nothing for
    /// one that cannot be saved.
    pub(super) fn digest(&self) -> Option<u32> {
        let sealed = seal_state("image", VERSION, self).ok()?;
        sealed.last_chunk().map(|sum| u32::from_le_bytes(*sum))
    }

    /// Bytes that have changed; of a full image, those that are not zeros.
    pub(super) fn changed(&self) -> u64 {
        let difference = self.difference.as_ref();
        difference.map_or(self.written, |difference| difference.extents.bytes())
    }
}

impl Difference {
    /// Where the base is said to be by a snapshot in `files`.
    pub(super) fn files(&self, files: &SnapshotFiles) -> SnapshotFiles {
        let directory = parent(&files.state);
        SnapshotFiles {
            state: directory.join(&self.state),
            memory: directory.join(&self.memory),
        }
    }
}

/// The devices that every machine has.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct ChipsetState {
    pub(crate) serial: Part,
    pub(crate) rtc: Part,
    pub(crate) i8042: Part,
    pub(crate) pic: Part,
    pub(crate) ioapic: Part,
}

/// A virtio device.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct DeviceState {
    pub(crate) id: String,
    pub(crate) description: Description,
    pub(crate) state: Part,
}

impl MachineState {
    /// Its bytes in an envelope.
    pub(super) fn seal(&self) -> Result<Vec<u8>, EnvelopeError> {
        seal_state(KIND, VERSION, self)
    }

    /// Out of an envelope, and [checked](Self::check).
    pub(super) fn open(bytes: &[u8]) -> Result<Self, StateError> {
        let state: Self = open_state(KIND, VERSION, bytes)?;
        state.check()?;
        Ok(state)
    }

    /// Whether it is one that a machine can have, as far as that shows before there is one: the rest is for the
    /// hypervisor and the devices to say.
    fn check(&self) -> Result<(), SnapshotError> {
        let bounds = [
            ("number of CPUs", self.cpus.len(), 1, MAX_CPUS),
            (
                "number of devices",
                self.devices.len(),
                0,
                MAX_VIRTIO_DEVICES,
            ),
        ];
        for (what, value, least, most) in bounds {
            if !(least..=most).contains(&value) {
                return Err(impossible(
                    what,
                    value as u64,
                    "more or fewer than are possible",
                ));
            }
        }
        for cpu in &self.cpus {
            if cpu.msrs.len() > MAX_MSRS {
                let count = cpu.msrs.len() as u64;
                return Err(impossible("number of MSRs", count, "must be at most 1024"));
            }
        }
        if self.clock > MAX_CLOCK {
            return Err(impossible("clock", self.clock, "must be below 2^62 ns"));
        }
        for device in &self.devices {
            device.description.check(self.memory.config.size)?;
        }
        self.memory.config.validate()?;
        let checksums = self.memory.checksums.len() as u64;
        if checksums != self.memory.config.size.div_ceil(CHUNK) {
            return Err(impossible(
                "number of checksums",
                checksums,
                "must be one for each 16 MiB of RAM",
            ));
        }
        match &self.memory.difference {
            Some(difference) => Ok(difference.extents.check(self.memory.config.size)?),
            None => Ok(()),
        }
    }
}

/// Why bytes are not the state of a machine.
#[derive(Debug, thiserror::Error)]
pub(super) enum StateError {
    #[error(transparent)]
    Envelope(#[from] EnvelopeError),
    #[error(transparent)]
    Impossible(#[from] SnapshotError),
}

pub(super) fn impossible(what: &'static str, value: u64, limit: &'static str) -> SnapshotError {
    SnapshotError::Impossible { what, value, limit }
}
