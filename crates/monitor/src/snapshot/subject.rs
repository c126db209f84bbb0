//! What a snapshot is made of: a machine that runs, as it is seen from outside.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use goldcrest_chipset::Serial;
use goldcrest_memory::{GuestRam, MemoryConfig};
use goldcrest_snapshot::{EnvelopeError, Part, Snapshot};
use goldcrest_vcpu::{VcpuError, VcpuState};

use super::SnapshotError;
use super::lineage::Lineage;
use super::state::{ChipsetState, DeviceState, MachineState, MemoryState};
use crate::cpu::Board;
use crate::virtio::Held;

/// `IA32_TIME_STAMP_COUNTER`.
pub(crate) const MSR_TSC: u32 = 0x10;
/// `IA32_TSC_DEADLINE`.
const MSR_TSC_DEADLINE: u32 = 0x6e0;
/// Counters that differ by more than a second are set so by the guest.
const SAME_TSC_MS: u64 = 1000;

/// Asks for what the paravirtual clock shows.
type Clock = dyn Fn() -> Result<u64, VcpuError> + Send + Sync;

/// A machine that runs.
pub(crate) struct Subject {
    pub(crate) board: Arc<Board>,
    pub(crate) ram: GuestRam,
    pub(crate) memory: MemoryConfig,
    pub(crate) clock: Box<Clock>,
    pub(crate) cpus: usize,
    /// Guest-physical address of the generation identifier, of guests that are told of it.
    pub(crate) generation_id: Option<u64>,
    /// The snapshot that there is of it.
    pub(crate) lineage: Lineage,
    /// What the clocks showed when the CPUs stopped.
    pub(crate) stopped: Mutex<Stopped>,
}

/// What the clocks showed when the CPUs stopped: from there they go on, however long it takes until all is saved.
#[derive(Default)]
pub(crate) struct Stopped {
    /// The time-stamp counters of those CPUs that have noted them.
    counters: BTreeMap<u32, u64>,
    /// The paravirtual clock, and nanoseconds since 1970, when the last of them stopped.
    clocks: Option<(u64, u64)>,
}

/// The CPUs, and what the clocks showed at that moment.
pub(super) struct SavedCpus {
    states: Vec<VcpuState>,
    clock: u64,
    /// Nanoseconds since 1970.
    at: u64,
}

/// The devices, none of which does anything for as long as this lives.
pub(super) struct Quiet<'a> {
    serial: MutexGuard<'a, Serial>,
    virtio: Vec<Held<'a>>,
}

impl Subject {
    /// Whether all of it can be saved.
    pub(super) fn check(&self) -> Result<(), SnapshotError> {
        match self.board.unsaved.first() {
            Some(name) => Err(SnapshotError::Device(name.clone())),
            None => Ok(()),
        }
    }

    /// Has the devices finish what they have begun, and begin nothing else: they touch no RAM and interrupt nobody.
    pub(super) fn quiesce(&self) -> Quiet<'_> {
        let serial = self.board.serial.lock();
        Quiet {
            serial: serial.unwrap_or_else(PoisonError::into_inner),
            virtio: self
                .board
                .virtio
                .iter()
                .map(|device| device.slot.hold())
                .collect(),
        }
    }

    /// A CPU has stopped, whose time-stamp counter shows this.
    pub(crate) fn note_clocks(&self, cpu: u32, counter: u64) {
        let clocks = (self.clock)().ok().map(|clock| (clock, wall_clock()));
        let mut stopped = lock(&self.stopped);
        stopped.counters.insert(cpu, counter);
        stopped.clocks = clocks;
    }

    /// The CPUs' states, which they have just saved.
    pub(super) fn saved_cpus(&self) -> Result<SavedCpus, SnapshotError> {
        let mut saved = std::mem::take(&mut *lock(&self.board.saved));
        saved.sort_by_key(|(cpu, _)| *cpu);
        let states = saved
            .into_iter()
            .map(|(cpu, state)| state.map_err(|source| SnapshotError::Cpu { cpu, source }));
        let mut states: Vec<_> = states.collect::<Result<_, _>>()?;
        if states.len() != self.cpus {
            return Err(SnapshotError::Ended);
        }
        let stopped = lock(&self.stopped);
        for (cpu, state) in (0..).zip(&mut states) {
            if let Some(counter) = stopped.counters.get(&cpu) {
                set_back(state, *counter);
            }
        }
        align_counters(&mut states);
        let (clock, at) = match stopped.clocks {
            Some(clocks) => clocks,
            None => {
                let clock = (self.clock)().map_err(SnapshotError::Clock)?;
                (clock, wall_clock())
            }
        };
        Ok(SavedCpus { states, clock, at })
    }

    /// All but the RAM, which was written as `memory` says.
    pub(super) fn state(
        &self,
        cpus: SavedCpus,
        quiet: &Quiet<'_>,
        memory: MemoryState,
    ) -> Result<MachineState, SnapshotError> {
        let board = &self.board;
        let chipset = ChipsetState {
            serial: part("serial", &*quiet.serial)?,
            rtc: part("rtc", &*lock(&board.rtc))?,
            i8042: part("i8042", &*lock(&board.i8042))?,
            pic: part("pic", &board.pic)?,
            ioapic: part("ioapic", &board.ioapic)?,
        };
        let mut devices = Vec::new();
        for (device, held) in board.virtio.iter().zip(&quiet.virtio) {
            let (Some(description), Some((_, saver))) = (device.description(), &device.saved)
            else {
                return Err(SnapshotError::Device(device.id.clone()));
            };
            let state = held.save(*saver);
            devices.push(DeviceState {
                id: device.id.clone(),
                description,
                state: state.map_err(in_device(&device.id))?,
            });
        }
        Ok(MachineState {
            memory,
            saved_at: cpus.at,
            clock: cpus.clock,
            cpus: cpus.states,
            generation_id: self.generation_id,
            chipset,
            devices,
        })
    }
}

/// Has a CPU's counter show what it showed when the CPU stopped.
fn set_back(cpu: &mut VcpuState, stopped: u64) {
    let Some((_, counter)) = cpu.msrs.iter_mut().find(|msr| msr.0 == MSR_TSC) else {
        return;
    };
    let saved = std::mem::replace(counter, stopped);
    // A timer that has run out has its deadline now: it still has.
    let deadlines = cpu.msrs.iter_mut();
    for (_, deadline) in deadlines.filter(|msr| **msr == (MSR_TSC_DEADLINE, saved)) {
        *deadline = stopped;
    }
}

/// Has all counters show the same, which they were asked for one after the other: KVM takes counters that are set to
/// the same for synchronous ones.
fn align_counters(cpus: &mut [VcpuState]) {
    let counter = |cpu: &VcpuState| {
        cpu.msrs
            .iter()
            .find(|msr| msr.0 == MSR_TSC)
            .map(|msr| msr.1)
    };
    let Some(latest) = cpus.iter().filter_map(counter).max() else {
        return;
    };
    for cpu in cpus {
        let same = cpu.tsc_khz.saturating_mul(SAME_TSC_MS);
        for (_, value) in cpu.msrs.iter_mut().filter(|msr| msr.0 == MSR_TSC) {
            if latest - *value < same {
                *value = latest;
            }
        }
    }
}

fn part(name: &str, object: &impl Snapshot) -> Result<Part, SnapshotError> {
    Part::save(object).map_err(in_device(name))
}

pub(super) fn in_device(name: &str) -> impl FnOnce(EnvelopeError) -> SnapshotError {
    let device = name.to_owned();
    move |source| SnapshotError::DeviceState { device, source }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Nanoseconds since 1970.
pub(super) fn wall_clock() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    let nanoseconds = since.map_or(0, |since| since.as_nanos());
    u64::try_from(nanoseconds).unwrap_or(u64::MAX)
}
