//! From what is configured to a machine's configuration.

use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::sync::Arc;

use goldcrest_boot::{Image, Protocol};
use goldcrest_monitor::memory::{self, MemoryConfig};
use goldcrest_monitor::{
    Control, CpuTemplate, DiskConfig, Input, MachineConfig, Mmds, NetConfig, NetLink, Notice,
    Output, Timeline, VirtioConfig, VsockConfig, balloon_device, entropy_device_with, vsock_device,
};

use crate::Fault;
use crate::controller::USER_NETWORK;
use crate::model::{
    BootSource, Drive, HugePages, MachineConfiguration, MmdsConfiguration, NetworkInterface,
    RateLimiter, VmConfiguration,
};
use nix::fcntl::OFlag;

/// A kernel's command line if none is given: Firecracker's, by its documentation.
const DEFAULT_BOOT_ARGS: &str = "reboot=k panic=1 nomodule 8250.nr_uarts=0 i8042.noaux i8042.nomux \
                                 i8042.dumbkbd swiotlb=noforce";
/// The longest name of a disk that its guest sees.
const DISK_ID: usize = 20;

/// What a machine has from the process that it is in.
#[derive(Debug, Clone)]
pub struct Surroundings {
    /// Where the serial port's output goes.
    pub output: Output,
    /// Where its input comes from.
    pub input: Option<Input>,
    /// Who is told what a person should know.
    pub notice: Notice,
    /// Stops and pauses the machine.
    pub control: Arc<Control>,
    /// Records where start-up went.
    pub timeline: Option<Timeline>,
}

/// Where in a machine's list of devices the disks and the network cards are.
#[derive(Debug, Clone, Default)]
pub(crate) struct Places {
    pub(crate) drives: Vec<usize>,
    pub(crate) cards: Vec<usize>,
    pub(crate) balloon: Option<usize>,
}

/// The machine that `config` describes.
pub(crate) fn machine(
    config: &VmConfiguration,
    metadata: Option<&Arc<Mmds>>,
    around: &Surroundings,
) -> Result<(MachineConfig, Places), Fault> {
    let machine = config.machine_config.clone().unwrap_or_default();
    let source = config.boot_source.as_ref();
    let source = source.ok_or_else(|| Fault::new("there is nothing to boot"))?;
    let image = image(&source.kernel_image_path)?;
    let initrd = source.initrd_path.as_ref();
    let initrd = initrd.map(Image::open).transpose();
    let initrd = initrd.map_err(|error| Fault::of(&error))?;
    let cmdline = cmdline(source, &config.drives, is_kernel(&image));
    let (virtio, places) = devices(config, &machine, metadata, around)?;
    let output = match config
        .serial
        .as_ref()
        .and_then(|s| s.serial_out_path.as_ref())
    {
        Some(path) => serial_file(path)?,
        None => around.output.clone(),
    };
    let built = MachineConfig {
        initrd,
        cmdline,
        memory: memory(&machine).ok_or_else(|| Fault::new("mem_size_mib is too much"))?,
        track_dirty: machine.track_dirty_pages,
        cpus: machine.vcpu_count,
        cpu_template: match &config.cpu_config {
            Some(template) => template.template()?,
            None => CpuTemplate::default(),
        },
        output,
        input: around.input.clone(),
        virtio,
        control: around.control.clone(),
        timeline: around.timeline.clone(),
        notice: around.notice.clone(),
        ..MachineConfig::new(image)
    };
    Ok((built, places))
}

fn image(path: &PathBuf) -> Result<Image, Fault> {
    Image::open(path).map_err(|error| Fault::of(&error))
}

/// Whether it is started as Linux is, which reads a command line of a known form.
fn is_kernel(image: &Image) -> bool {
    let protocol = goldcrest_boot::protocol_of(image, None);
    matches!(
        protocol,
        Ok(Protocol::Pvh | Protocol::LinuxElf | Protocol::LinuxBzImage)
    )
}

/// The command line, with the root device for a kernel.
fn cmdline(source: &BootSource, drives: &[Drive], is_kernel: bool) -> String {
    let mut words = Vec::new();
    match &source.boot_args {
        Some(args) => words.push(args.clone()),
        None if is_kernel => words.push(DEFAULT_BOOT_ARGS.into()),
        None => {}
    }
    if let (true, Some(root)) = (is_kernel, drives.iter().find(|drive| drive.is_root_device)) {
        words.push(match &root.partuuid {
            Some(uuid) => format!("root=PARTUUID={uuid}"),
            None => "root=/dev/vda".into(),
        });
        let read_only = root.is_read_only.unwrap_or(false);
        words.push(if read_only { "ro" } else { "rw" }.into());
    }
    words.retain(|word| !word.is_empty());
    words.join(" ")
}

/// Guest RAM; none if the size is no number of bytes.
pub(crate) fn memory(config: &MachineConfiguration) -> Option<MemoryConfig> {
    Some(MemoryConfig {
        size: config.mem_size_mib.checked_mul(1 << 20)?,
        huge_pages: match config.huge_pages {
            HugePages::None => memory::HugePages::None,
            HugePages::Transparent => memory::HugePages::Transparent,
            HugePages::TwoMiB => memory::HugePages::TwoMiB,
        },
        ..MemoryConfig::default()
    })
}

fn devices(
    config: &VmConfiguration,
    machine: &MachineConfiguration,
    metadata: Option<&Arc<Mmds>>,
    around: &Surroundings,
) -> Result<(Vec<VirtioConfig>, Places), Fault> {
    let mut virtio = Vec::new();
    let mut places = Places::default();
    for drive in &config.drives {
        let notice = around.notice.clone();
        let device = disk(drive)?.device(machine.vcpu_count, move |line| notice.say(line));
        places.drives.push(virtio.len());
        virtio.push(device.with_id(&drive.drive_id));
    }
    for interface in &config.network_interfaces {
        let mut card = card(interface)?;
        let has_metadata =
            |set: &MmdsConfiguration| set.network_interfaces.contains(&interface.iface_id);
        if config.mmds_config.as_ref().is_some_and(has_metadata) {
            card.mmds = metadata.cloned();
        }
        let device = card.device();
        let device = device.map_err(|error| Fault::of(&error))?;
        places.cards.push(virtio.len());
        virtio.push(device.with_id(&interface.iface_id));
    }
    if let Some(vsock) = &config.vsock {
        let config = VsockConfig::new(vsock.guest_cid, &vsock.uds_path);
        virtio.push(vsock_device(config));
    }
    if let Some(balloon) = &config.balloon {
        places.balloon = Some(virtio.len());
        virtio.push(balloon_device(balloon.config()));
    }
    if let Some(entropy) = &config.entropy {
        let rate = entropy.rate_limiter.as_ref().map(RateLimiter::config);
        virtio.push(entropy_device_with(rate.unwrap_or_default()));
    }
    Ok((virtio, places))
}

/// A disk as the monitor has it.
pub(crate) fn disk(drive: &Drive) -> Result<DiskConfig, Fault> {
    let path = drive.path_on_host.clone();
    let mut id = drive.drive_id.clone();
    while id.len() > DISK_ID {
        id.pop();
    }
    Ok(DiskConfig {
        path: path.ok_or_else(|| Fault::new("path_on_host is missing"))?,
        read_only: drive.is_read_only.unwrap_or(false),
        direct: false,
        id,
        rate: drive.rate_limiter.as_ref().map(RateLimiter::config),
    })
}

/// A network card as the monitor has it.
pub(crate) fn card(interface: &NetworkInterface) -> Result<NetConfig, Fault> {
    let name = &interface.host_dev_name;
    let refuse = |error: &dyn std::error::Error| Fault::of(error);
    let mut card = match name.strip_prefix(USER_NETWORK) {
        Some(text) => text.parse().map_err(|error| refuse(&error))?,
        None => NetConfig {
            link: NetLink::Tap(name.clone()),
            mac: None,
            mtu: None,
            queues: 1,
            rx_rate: RateLimiter::default().config(),
            tx_rate: RateLimiter::default().config(),
            mmds: None,
        },
    };
    if let Some(mac) = &interface.guest_mac {
        card.mac = Some(mac.parse().map_err(|error| refuse(&error))?);
    }
    card.mtu = interface.mtu.or(card.mtu);
    if let Some(rate) = &interface.rx_rate_limiter {
        card.rx_rate = rate.config();
    }
    if let Some(rate) = &interface.tx_rate_limiter {
        card.tx_rate = rate.config();
    }
    Ok(card)
}

fn serial_file(path: &PathBuf) -> Result<Output, Fault> {
    let opened = std::fs::OpenOptions::new()
        .append(true)
        .create(true)
        // A named pipe that nobody reads is refused, not waited for.
        .custom_flags(OFlag::O_NONBLOCK.bits())
        .open(path);
    match opened {
        Ok(file) => Ok(Output::new(file)),
        Err(error) => Err(Fault::new(format!(
            "cannot open {} for the serial port: {error}",
            path.display()
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(args: Option<&str>, root: &str, is_kernel: bool) -> String {
        let source = BootSource {
            kernel_image_path: "k".into(),
            initrd_path: None,
            boot_args: args.map(str::to_owned),
        };
        let drives: Vec<Drive> = serde_json::from_str(root).unwrap();
        cmdline(&source, &drives, is_kernel)
    }

    #[test]
    fn kernels_are_told_of_their_root_device() {
        let plain = r#"[{"drive_id":"a","is_root_device":true}]"#;
        let part = r#"[{"drive_id":"b","is_root_device":false},
            {"drive_id":"a","is_root_device":true,"is_read_only":true,"partuuid":"0eaa91a0-01"}]"#;
        assert_eq!(line(Some("quiet"), plain, true), "quiet root=/dev/vda rw");
        assert_eq!(
            line(Some("quiet"), part, true),
            "quiet root=PARTUUID=0eaa91a0-01 ro"
        );
        assert_eq!(line(Some("quiet"), "[]", true), "quiet");
        assert_eq!(line(None, "[]", true), DEFAULT_BOOT_ARGS);
        assert_eq!(line(Some("--port 80"), plain, false), "--port 80");
        assert_eq!(line(None, plain, false), "");
        assert_eq!(line(Some(""), plain, true), "root=/dev/vda rw");
    }

    #[test]
    fn cards_are_taps_or_networks_of_this_process() {
        let card = |name: &str| {
            let text = format!(
                r#"{{"iface_id":"e","host_dev_name":"{name}","guest_mac":"02:00:00:00:00:01"}}"#
            );
            card(&serde_json::from_str(&text).unwrap())
        };
        assert!(matches!(card("tap0").unwrap().link, NetLink::Tap(name) if name == "tap0"));
        let user = card("goldcrest:user,fwd=tcp:8080:80").unwrap();
        assert!(matches!(user.link, NetLink::User(network) if network.forwards.len() == 1));
        assert!(
            card("goldcrest:bridge")
                .unwrap_err()
                .to_string()
                .contains("bridge")
        );
    }
}
