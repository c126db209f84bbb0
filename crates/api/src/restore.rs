//! From a request to load a snapshot to a machine that goes on, and from that to how it is configured.

use std::path::PathBuf;
use std::sync::Arc;

use goldcrest_monitor::memory;
use goldcrest_monitor::{
    CloneConfig, DiskConfig, Inventory, InventoryDevice, Mmds, NetConfig, NetLink, Rebinding,
    RestoreConfig, SnapshotFiles, WallClock,
};
use goldcrest_rate_limiter::{Bucket, RateConfig};
use goldcrest_virtio_balloon::BalloonConfig;

use crate::Fault;
use crate::build::{Places, Surroundings};
use crate::controller::USER_NETWORK;
use crate::model::{
    BackendType, Balloon, CacheType, Drive, Entropy, HugePages, MachineConfiguration,
    MmdsConfiguration, NetworkInterface, RateLimiter, SnapshotLoad, TokenBucket, VmConfiguration,
    Vsock,
};

const MIB: u64 = 1 << 20;

/// How the machine is restored: paused.
pub(crate) fn config(
    request: &SnapshotLoad,
    metadata: &Arc<Mmds>,
    around: &Surroundings,
) -> Result<RestoreConfig, Fault> {
    let (memory, page_server) = match (&request.mem_backend, &request.mem_file_path) {
        (Some(backend), _) => match backend.backend_type {
            BackendType::File => (backend.backend_path.clone(), None),
            BackendType::Uffd => (PathBuf::new(), Some(backend.backend_path.clone())),
        },
        (None, Some(path)) => (path.clone(), None),
        (None, None) => return Err(Fault::new("where the memory is, is missing")),
    };
    let cards = request.network_overrides.iter();
    let mut rebind: Vec<_> = cards
        .map(|card| Rebinding::Tap {
            id: card.iface_id.clone(),
            name: card.host_dev_name.clone(),
        })
        .collect();
    rebind.extend(
        request
            .vsock_override
            .as_ref()
            .map(|vsock| Rebinding::Vsock {
                path: Some(vsock.uds_path.clone()),
                cid: None,
            }),
    );
    Ok(RestoreConfig {
        page_server,
        track_dirty: request.track_dirty_pages || request.enable_diff_snapshots,
        machine: CloneConfig {
            rebind,
            clock: match request.clock_realtime {
                true => WallClock::Now,
                false => WallClock::Frozen,
            },
            paused: true,
            metadata: Some(metadata.clone()),
            output: around.output.clone(),
            input: around.input.clone(),
            control: around.control.clone(),
            timeline: around.timeline.clone(),
            notice: around.notice.clone(),
            ..CloneConfig::default()
        },
        ..RestoreConfig::new(SnapshotFiles {
            state: request.snapshot_path.clone(),
            memory,
        })
    })
}

/// How a machine is configured that has this, and where its devices are.
pub(crate) fn configuration(
    inventory: &Inventory,
    request: &SnapshotLoad,
) -> (VmConfiguration, Places) {
    let mut config = VmConfiguration {
        machine_config: Some(MachineConfiguration {
            vcpu_count: u32::try_from(inventory.cpus).unwrap_or(u32::MAX),
            mem_size_mib: inventory.memory.size / MIB,
            track_dirty_pages: request.track_dirty_pages || request.enable_diff_snapshots,
            huge_pages: match inventory.memory.huge_pages {
                memory::HugePages::None => HugePages::None,
                memory::HugePages::Transparent => HugePages::Transparent,
                memory::HugePages::TwoMiB => HugePages::TwoMiB,
            },
            ..MachineConfiguration::default()
        }),
        ..VmConfiguration::default()
    };
    let mut places = Places::default();
    for (at, (id, device)) in inventory.virtio.iter().enumerate() {
        match device {
            InventoryDevice::Disk(disk) => {
                places.drives.push(at);
                config.drives.push(drive(id, disk));
            }
            InventoryDevice::Net(net) => {
                places.cards.push(at);
                config.network_interfaces.push(card(id, net));
                if let Some(mmds) = &net.mmds {
                    let of = || MmdsConfiguration::of(&mmds.config());
                    let set = config.mmds_config.get_or_insert_with(of);
                    set.network_interfaces.push(id.clone());
                }
            }
            InventoryDevice::Vsock(sockets) => {
                config.vsock = Some(Vsock {
                    vsock_id: None,
                    guest_cid: sockets.cid,
                    uds_path: sockets.path.clone(),
                });
            }
            InventoryDevice::Balloon(set) => {
                places.balloon = Some(at);
                config.balloon = Some(balloon(set));
            }
            InventoryDevice::Entropy(rate) => {
                config.entropy = Some(Entropy {
                    rate_limiter: limiter(rate),
                });
            }
            _ => {}
        }
    }
    (config, places)
}

fn drive(id: &str, disk: &DiskConfig) -> Drive {
    Drive {
        drive_id: id.to_owned(),
        partuuid: None,
        is_root_device: false,
        cache_type: CacheType::default(),
        is_read_only: Some(disk.read_only),
        path_on_host: Some(disk.path.clone()),
        rate_limiter: disk.rate.as_ref().and_then(limiter),
        io_engine: None,
        socket: None,
    }
}

fn card(id: &str, net: &NetConfig) -> NetworkInterface {
    NetworkInterface {
        iface_id: id.to_owned(),
        host_dev_name: match &net.link {
            NetLink::Tap(name) => name.clone(),
            NetLink::User(_) => format!("{USER_NETWORK}user"),
        },
        guest_mac: net.mac.map(|mac| mac.to_string()),
        mtu: net.mtu,
        rx_rate_limiter: limiter(&net.rx_rate),
        tx_rate_limiter: limiter(&net.tx_rate),
    }
}

fn balloon(config: &BalloonConfig) -> Balloon {
    let seconds = config.statistics.map_or(0, |interval| interval.as_secs());
    Balloon {
        amount_mib: u32::try_from(config.target / MIB).unwrap_or(u32::MAX),
        deflate_on_oom: config.deflate_on_oom,
        stats_polling_interval_s: u16::try_from(seconds).unwrap_or(u16::MAX),
        free_page_hinting: config.free_page_hinting,
        free_page_reporting: config.free_page_reporting,
    }
}

/// The same as token buckets; none if nothing is limited.
fn limiter(rate: &RateConfig) -> Option<RateLimiter> {
    let bucket = |bucket: Bucket| TokenBucket {
        size: bucket.burst,
        one_time_burst: Some(bucket.once).filter(|once| *once > 0),
        refill_time: refill_time(&bucket),
    };
    let limiter = RateLimiter {
        bandwidth: rate.bytes.map(bucket),
        ops: rate.operations.map(bucket),
    };
    (limiter != RateLimiter::default()).then_some(limiter)
}

/// Milliseconds in which a bucket is filled.
fn refill_time(bucket: &Bucket) -> u64 {
    let millis = u128::from(bucket.burst) * 1000 / u128::from(bucket.per_second.max(1));
    u64::try_from(millis).unwrap_or(u64::MAX).max(1)
}
