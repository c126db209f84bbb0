//! From a state to a machine's devices, CPUs and clocks.

use std::borrow::Cow;
use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use goldcrest_memory::GuestRam;
use goldcrest_memory::image::Layers;
use goldcrest_snapshot::{Part, Snapshot};
use goldcrest_vcpu::{Vcpu, VcpuState, Vm};

use super::chain::Chain;
use super::state::{DeviceState, MachineState, MemoryState};
use super::store::{file_error, read_state};
use super::subject::{MSR_TSC, in_device, lock, wall_clock};
use super::{
    ConsoleEnd, Description, Lazy, MetadataState, Rebinding, RestoreConfig, SnapshotError,
    WallClock, load_working_set,
};
use crate::cpu::Board;
use crate::{
    CloneConfig, ConsolePort, Mmds, MmdsConfig, MonitorError, NetLink, VirtioConfig,
    balloon_device, console_device, entropy_device_with, vsock_device,
};

/// A snapshot, read and found to be possible.
pub(crate) struct Saved {
    pub(crate) state: MachineState,
    pub(crate) ram: GuestRam,
    /// Who has its pages, if it is not a file that is mapped.
    pub(crate) lazy: Option<Lazy>,
}

impl Saved {
    /// Reads the files, and maps the RAM.
    pub(crate) fn open(config: &RestoreConfig) -> Result<Self, SnapshotError> {
        let (mut state, layers) = match &config.page_server {
            None => {
                let chain = Chain::open(&config.files, &config.bases)?;
                (chain.state, Some(chain.layers))
            }
            Some(_) => (read_state(&config.files.state)?, None),
        };
        rebind(&mut state.devices, &config.machine.rebind)?;
        if config.machine.clock == WallClock::Now {
            advance(&mut state, wall_clock());
        }
        let memory = &state.memory.config;
        let lazy = config.page_server.as_ref();
        let lazy = lazy.map(|path| Lazy::connect(path, memory)).transpose()?;
        let ram = match (&lazy, layers) {
            (Some(lazy), _) => lazy.ram().clone(),
            (None, Some(layers)) => map(config, &state.memory, &layers)?,
            (None, None) => GuestRam::new(memory)?,
        };
        Ok(Self { state, ram, lazy })
    }
}

/// RAM that is the images', with the pages that a run before has touched.
fn map(
    config: &RestoreConfig,
    memory: &MemoryState,
    layers: &Layers,
) -> Result<GuestRam, SnapshotError> {
    let ram = GuestRam::from_layers(&memory.config, layers)?;
    // What is recorded is what the guest touches by itself.
    if config.use_working_set
        && !config.record_working_set
        && let Some(set) = load_working_set(&config.files, memory)?
    {
        ram.populate(&set);
    }
    Ok(ram)
}

/// Whether CPUs have run before they are restored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cpus {
    New,
    /// New, and others have taken the same state.
    Others,
    Used,
}

impl MachineState {
    /// The state with what is different in this machine.
    pub(crate) fn adapted(&self, config: &CloneConfig) -> Result<Cow<'_, Self>, SnapshotError> {
        let mut state = Cow::Borrowed(self);
        if !config.rebind.is_empty() {
            rebind(&mut state.to_mut().devices, &config.rebind)?;
        }
        if config.clock == WallClock::Now {
            advance(state.to_mut(), wall_clock());
        }
        Ok(state)
    }

    /// The virtio devices, to be made anew.
    pub(crate) fn virtio(&self, config: &CloneConfig) -> Result<Vec<VirtioConfig>, MonitorError> {
        let mut consoles = config.consoles.iter();
        let devices = self.devices.iter();
        devices
            .map(|device| make(device, config, &mut consoles))
            .collect()
    }

    /// Puts the devices' states back, then the CPUs', then the interrupt controllers': a device's line that rises does
    /// not interrupt a second time, and what interrupts then finds local APICs as they were.
    pub(crate) fn restore(
        &self,
        board: &Board,
        (vcpus, are): (&mut [impl Vcpu], Cpus),
        vm: &impl Vm,
        config: &CloneConfig,
    ) -> Result<(), MonitorError> {
        let Self {
            chipset,
            devices,
            cpus,
            clock,
            ..
        } = self;
        put("serial", &chipset.serial, &mut *lock(&board.serial))?;
        put("rtc", &chipset.rtc, &mut *lock(&board.rtc))?;
        put("i8042", &chipset.i8042, &mut *lock(&board.i8042))?;
        for (placed, saved) in board.virtio.iter().zip(devices) {
            if let Some((_, saver)) = &placed.saved {
                let restored = placed.slot.restore(*saver, &saved.state);
                restored.map_err(in_device(&saved.id))?;
            }
        }
        for (vcpu, state) in vcpus.iter_mut().zip(cpus) {
            let refused = match are {
                Cpus::New => vcpu.restore(state)?,
                Cpus::Others => vcpu.restore_taken(state)?,
                Cpus::Used => vcpu.revert(state)?,
            };
            say_refused(&refused, state, config);
        }
        vm.set_clock(*clock)?;
        put("pic", &chipset.pic, &mut board.pic.clone())?;
        put("ioapic", &chipset.ioapic, &mut board.ioapic.clone())?;
        Ok(())
    }
}

fn say_refused(refused: &[u32], state: &VcpuState, config: &CloneConfig) {
    for refused in refused {
        let value = state.msrs.iter().find(|msr| msr.0 == *refused);
        // A zero is what the register has after a reset, too.
        if let Some((index, value)) = value.filter(|msr| msr.1 != 0) {
            config.notice.say(&format!(
                "this KVM does not take MSR {index:#x} of the snapshot, which was {value:#x}"
            ));
        }
    }
}

fn put(name: &str, part: &Part, object: &mut impl Snapshot) -> Result<(), SnapshotError> {
    part.restore(object).map_err(in_device(name))
}

/// Puts the clocks forward by the time that has passed until `now`, if it has.
fn advance(state: &mut MachineState, now: u64) {
    let passed = now.saturating_sub(state.saved_at);
    state.clock = state.clock.saturating_add(passed);
    for cpu in &mut state.cpus {
        // At 2^30 kHz a counter overflows after 500 years of this.
        let ticks = u128::from(passed) * u128::from(cpu.tsc_khz) / 1_000_000;
        let ticks = u64::try_from(ticks).unwrap_or(0);
        for (_, value) in cpu.msrs.iter_mut().filter(|msr| msr.0 == MSR_TSC) {
            *value = value.saturating_add(ticks);
        }
    }
}

/// Has devices be bound to other ends.
fn rebind(devices: &mut [DeviceState], rebind: &[Rebinding]) -> Result<(), SnapshotError> {
    for binding in rebind {
        let found = match binding {
            Rebinding::Disk { id, path } => device(devices, id, |description| match description {
                Description::Disk { config, .. } => {
                    config.path.clone_from(path);
                    true
                }
                _ => false,
            }),
            Rebinding::Tap { id, name } => device(devices, id, |description| match description {
                Description::Net { config, .. } => match &mut config.link {
                    NetLink::Tap(tap) => {
                        tap.clone_from(name);
                        true
                    }
                    NetLink::User(_) => false,
                },
                _ => false,
            }),
            Rebinding::Vsock { path, cid } => devices.iter_mut().any(|device| {
                let Description::Vsock(sockets) = &mut device.description else {
                    return false;
                };
                sockets.path = path.clone().unwrap_or_else(|| sockets.path.clone());
                sockets.cid = cid.unwrap_or(sockets.cid);
                true
            }),
        };
        if !found {
            return Err(no_such_device(devices, binding));
        }
    }
    Ok(())
}

fn device(
    devices: &mut [DeviceState],
    id: &str,
    change: impl FnOnce(&mut Description) -> bool,
) -> bool {
    let device = devices.iter_mut().find(|device| device.id == id);
    device.is_some_and(|device| change(&mut device.description))
}

fn no_such_device(devices: &[DeviceState], binding: &Rebinding) -> SnapshotError {
    let (kind, id) = match binding {
        Rebinding::Disk { id, .. } => ("disk", id.as_str()),
        Rebinding::Tap { id, .. } => ("network card on a tap", id.as_str()),
        Rebinding::Vsock { .. } => ("vsock", "vsock"),
    };
    let ids: Vec<_> = devices.iter().map(|device| device.id.as_str()).collect();
    SnapshotError::NoSuchDevice {
        kind,
        id: id.to_owned(),
        has: match ids.is_empty() {
            true => "no devices".to_owned(),
            false => ids.join(", "),
        },
    }
}

/// The device, to be made anew with its ends.
fn make<'a>(
    device: &DeviceState,
    config: &'a CloneConfig,
    consoles: &mut impl Iterator<Item = &'a ConsolePort>,
) -> Result<VirtioConfig, MonitorError> {
    let notice = config.notice.clone();
    let device_notice = notice.clone();
    let notice = move |line: &str| notice.say(line);
    let made = match device.description.clone() {
        Description::Disk { config, queues } => config.device_with(queues, device_notice),
        Description::Net {
            config: mut card,
            metadata,
        } => {
            card.mmds = metadata.map(|state| serve(state, config)).transpose()?;
            card.device().map_err(|source| MonitorError::Device {
                name: device.id.clone(),
                source: source.into(),
            })?
        }
        Description::Vsock(sockets) => vsock_device(sockets.into()),
        Description::Balloon(config) => balloon_device(config),
        Description::Entropy(rate) => entropy_device_with(rate),
        Description::Console(ends) => {
            let ports = ends.into_iter().map(|end| port(end, consoles));
            let ports = ports.collect::<Result<_, _>>()?;
            console_device(ports, config.control.clone(), notice)
        }
    };
    Ok(made.with_id(device.id.clone()))
}

/// The metadata service, as it was when the machine was saved, but without contents.
fn serve(state: MetadataState, config: &CloneConfig) -> Result<Arc<Mmds>, SnapshotError> {
    let mmds = match &config.metadata {
        Some(mmds) => mmds.clone(),
        None => Arc::new(Mmds::new(MmdsConfig::default()).map_err(SnapshotError::Metadata)?),
    };
    mmds.set_config(state.config(mmds.config()))
        .map_err(SnapshotError::Metadata)?;
    Ok(mmds)
}

fn port<'a>(
    end: ConsoleEnd,
    consoles: &mut impl Iterator<Item = &'a ConsolePort>,
) -> Result<ConsolePort, SnapshotError> {
    Ok(match (end, consoles) {
        (ConsoleEnd::Pty, _) => ConsolePort::Pty,
        (ConsoleEnd::Socket(path), _) => ConsolePort::Socket(path),
        (ConsoleEnd::Streams, consoles) => match consoles.next() {
            Some(port) => port.clone(),
            None => nowhere()?,
        },
    })
}

/// No input, and output that nobody sees.
fn nowhere() -> Result<ConsolePort, SnapshotError> {
    let path = Path::new("/dev/null");
    let file = File::options().write(true).open(path);
    Ok(ConsolePort::Streams {
        input: None,
        output: Arc::new(file.map_err(file_error("open", path))?),
    })
}
