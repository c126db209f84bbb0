//! What is configured before a machine is started.

use crate::model::{
    Balloon, BootSource, Drive, MachineConfiguration, NetworkInterface, Serial, VmConfiguration,
    Vsock,
};
use crate::{ApiError, Call, Controller, Machine};

/// The most CPUs, as with Firecracker.
const MAX_CPUS: u32 = 32;
/// The longest name of an interface (`IFNAMSIZ`, with its zero).
const NAME_SIZE: usize = 16;
/// What stands before the options of a network in this process, where a tap's name would be.
pub(crate) const USER_NETWORK: &str = "goldcrest:";

impl<M: Machine> Controller<M> {
    pub(super) fn configure_part(&mut self, call: Call) -> Result<(), ApiError> {
        match call {
            Call::PutMachineConfig(config) => {
                self.before_start("to configure it")?;
                self.set_machine_config(config)
            }
            Call::PatchMachineConfig(update) => {
                self.before_start("to configure it")?;
                let config = update.apply(&self.machine_config());
                self.set_machine_config(config)
            }
            Call::PutBootSource(source) => self.set_boot_source(source),
            Call::PutCpuConfig(template) => {
                self.before_start("to configure its CPUs")?;
                template.template()?;
                self.config.cpu_config = Some(template);
                Ok(())
            }
            Call::PutDrive(drive) => self.set_drive(drive),
            Call::PutNetworkInterface(interface) => self.set_network(interface),
            Call::PutVsock(vsock) => self.set_vsock(vsock),
            Call::PutEntropy(entropy) => {
                self.before_start("to add a device")?;
                self.config.entropy = Some(entropy);
                Ok(())
            }
            Call::PutSerial(serial) => self.set_serial(serial),
            Call::PutBalloon(balloon) => self.set_balloon(balloon),
            Call::PutLogger(logger) => {
                let Some(logs) = &mut self.logs else {
                    return Err(ApiError::refused("this program has no log to be set"));
                };
                logs.set(&self.id, &logger)?;
                self.config.logger = Some(logger.over(self.config.logger.take()));
                Ok(())
            }
            Call::PutMetrics(metrics) => {
                self.before_start("to choose where metrics go")?;
                self.journal.set_metrics(&metrics.metrics_path)?;
                self.config.metrics = Some(metrics);
                Ok(())
            }
            // All others are answered by `call` and `change`.
            _ => Ok(()),
        }
    }

    /// What is configured of processors and memory, or what is if nothing is configured.
    pub(super) fn machine_config(&self) -> MachineConfiguration {
        self.config.machine_config.clone().unwrap_or_default()
    }

    pub(super) fn vm_config(&self) -> VmConfiguration {
        VmConfiguration {
            machine_config: Some(self.machine_config()),
            ..self.config.clone()
        }
    }

    fn set_machine_config(&mut self, config: MachineConfiguration) -> Result<(), ApiError> {
        check_machine_config(&config)?;
        if let Some(balloon) = &self.config.balloon {
            check_balloon(balloon, &config)?;
        }
        self.config.machine_config = Some(config);
        Ok(())
    }

    fn set_boot_source(&mut self, source: BootSource) -> Result<(), ApiError> {
        self.before_start("to choose what it boots")?;
        self.machine.check_boot_source(&source)?;
        self.config.boot_source = Some(source);
        Ok(())
    }

    fn set_drive(&mut self, drive: Drive) -> Result<(), ApiError> {
        self.before_start("to add a disk")?;
        check_drive(&drive)?;
        let others = || {
            self.config
                .drives
                .iter()
                .filter(|d| d.drive_id != drive.drive_id)
        };
        if let (true, Some(root)) = (drive.is_root_device, others().find(|d| d.is_root_device)) {
            return Err(ApiError::refused(format!(
                "the drive {:?} is the root device already",
                root.drive_id
            )));
        }
        self.machine.check_drive(&drive)?;
        let drives = &mut self.config.drives;
        match drives.iter_mut().find(|d| d.drive_id == drive.drive_id) {
            Some(known) => *known = drive,
            None => drives.push(drive),
        }
        // The guest's first disk is the root device, whenever it was named.
        drives.sort_by_key(|drive| !drive.is_root_device);
        Ok(())
    }

    fn set_network(&mut self, interface: NetworkInterface) -> Result<(), ApiError> {
        self.before_start("to add a network card")?;
        check_network(&interface)?;
        let cards = &mut self.config.network_interfaces;
        let is_same = |card: &&mut NetworkInterface| card.iface_id == interface.iface_id;
        let mac = interface.guest_mac.as_deref().map(str::to_ascii_lowercase);
        let taken = cards.iter().find(|card| {
            let other = card.guest_mac.as_deref().map(str::to_ascii_lowercase);
            card.iface_id != interface.iface_id && mac.is_some() && other == mac
        });
        if let Some(other) = taken {
            return Err(ApiError::refused(format!(
                "the network interface {:?} has the same guest_mac",
                other.iface_id
            )));
        }
        match cards.iter_mut().find(is_same) {
            Some(known) => *known = interface,
            None => cards.push(interface),
        }
        Ok(())
    }

    fn set_vsock(&mut self, vsock: Vsock) -> Result<(), ApiError> {
        self.before_start("to add a device")?;
        goldcrest_monitor::VsockConfig::new(vsock.guest_cid, &vsock.uds_path)
            .check()
            .map_err(|error| ApiError::refused(error.to_string()))?;
        self.config.vsock = Some(vsock);
        Ok(())
    }

    fn set_serial(&mut self, serial: Serial) -> Result<(), ApiError> {
        self.before_start("to choose where its serial port goes")?;
        if serial.rate_limiter.is_some() {
            return Err(ApiError::refused(
                "the serial port's output cannot be limited: leave rate_limiter out",
            ));
        }
        self.config.serial = Some(serial);
        Ok(())
    }

    fn set_balloon(&mut self, balloon: Balloon) -> Result<(), ApiError> {
        self.before_start("to add a balloon")?;
        check_balloon(&balloon, &self.machine_config())?;
        self.config.balloon = Some(balloon);
        Ok(())
    }
}

/// The first thing that is configured, which a machine from a snapshot must not have.
pub(super) fn first_part(config: &VmConfiguration) -> Option<&'static str> {
    let parts = [
        ("/boot-source", config.boot_source.is_some()),
        ("/machine-config", config.machine_config.is_some()),
        ("/cpu-config", config.cpu_config.is_some()),
        ("/drives", !config.drives.is_empty()),
        ("/network-interfaces", !config.network_interfaces.is_empty()),
        ("/vsock", config.vsock.is_some()),
        ("/balloon", config.balloon.is_some()),
        ("/entropy", config.entropy.is_some()),
        ("/mmds/config", config.mmds_config.is_some()),
    ];
    parts
        .into_iter()
        .find_map(|(name, is_set)| is_set.then_some(name))
}

fn check_machine_config(config: &MachineConfiguration) -> Result<(), ApiError> {
    let refuse = |why: String| Err(ApiError::Refused(why));
    if !(1..=MAX_CPUS).contains(&config.vcpu_count) {
        let count = config.vcpu_count;
        return refuse(format!("vcpu_count is {count}, not 1 to {MAX_CPUS}"));
    }
    if config.smt {
        return refuse("smt is not possible: each CPU is a core of its own".into());
    }
    if let Some(template) = config
        .cpu_template
        .as_deref()
        .filter(|name| *name != "None")
    {
        return refuse(format!(
            "there is no cpu_template {template:?}: guests see the host's processor"
        ));
    }
    let memory = crate::build::memory(config);
    match memory.map(|memory| memory.validate()) {
        Some(Ok(())) => Ok(()),
        Some(Err(error)) => refuse(format!("mem_size_mib: {error}")),
        None => refuse(format!(
            "mem_size_mib is {}, which is too much",
            config.mem_size_mib
        )),
    }
}

fn check_drive(drive: &Drive) -> Result<(), ApiError> {
    if drive.socket.is_some() {
        return Err(ApiError::refused(
            "vhost-user is not possible: name a file or block device (path_on_host) instead of a socket",
        ));
    }
    if drive.path_on_host.is_none() {
        return Err(ApiError::refused("path_on_host is missing"));
    }
    match drive.partuuid.as_deref() {
        Some(uuid)
            if !uuid
                .bytes()
                .all(|byte| byte.is_ascii_hexdigit() || byte == b'-') =>
        {
            Err(ApiError::refused(
                "partuuid is of hexadecimal digits and '-'",
            ))
        }
        _ => Ok(()),
    }
}

fn check_network(interface: &NetworkInterface) -> Result<(), ApiError> {
    let name = &interface.host_dev_name;
    if !name.starts_with(USER_NETWORK) && (name.is_empty() || name.len() >= NAME_SIZE) {
        return Err(ApiError::refused(format!(
            "host_dev_name has {} bytes, not 1 to {}",
            name.len(),
            NAME_SIZE - 1
        )));
    }
    crate::build::card(interface)?;
    Ok(())
}

pub(super) fn check_balloon(
    balloon: &Balloon,
    machine: &MachineConfiguration,
) -> Result<(), ApiError> {
    let (amount, all) = (balloon.amount_mib, machine.mem_size_mib);
    if u64::from(amount) > all {
        return Err(ApiError::refused(format!(
            "a balloon of {amount} MiB is more than all memory, which is {all} MiB"
        )));
    }
    if balloon.free_page_hinting {
        return Err(ApiError::refused(
            "free_page_hinting is not possible by this API: choose free_page_reporting",
        ));
    }
    Ok(())
}
