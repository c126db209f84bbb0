//! Drives a machine by `fctools`, which others wrote for Firecracker, as it comes from the registry.
//!
//! The guest sends back what it is sent over its serial port, and begins with `>`. It is configured, started, asked,
//! changed, paused, saved and ended; then restored in another process, where it goes on, paused, resumed and ended.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::time::Duration;

use fctools::process_spawner::DirectProcessSpawner;
use fctools::runtime::tokio::TokioRuntime;
use fctools::vm::api::VmApi;
use fctools::vm::configuration::{InitMethod, VmConfiguration, VmConfigurationData};
use fctools::vm::models::{
    BalloonDevice, BootSource, CreateSnapshot, Drive, EntropyDevice, LoggerSystem,
    MachineConfiguration, MetricsSystem, NetworkInterface, RateLimiter, SnapshotType, TokenBucket,
    UpdateBalloonDevice, UpdateBalloonStatistics, UpdateDrive, UpdateNetworkInterface, VsockDevice,
};
use fctools::vm::shutdown::{VmShutdownAction, VmShutdownMethod};
use fctools::vm::snapshot::PrepareVmFromSnapshotOptions;
use fctools::vm::{Vm, VmState};
use fctools::vmm::arguments::{VmmApiSocket, VmmArguments};
use fctools::vmm::executor::unrestricted::UnrestrictedVmmExecutor;
use fctools::vmm::id::VmmId;
use fctools::vmm::installation::VmmInstallation;
use fctools::vmm::ownership::VmmOwnershipModel;
use fctools::vmm::resource::system::ResourceSystem;
use fctools::vmm::resource::{CreatedResourceType, MovedResourceType, Resource, ResourceType};
use futures_util::{AsyncReadExt, AsyncWriteExt};

type Machine = Vm<UnrestrictedVmmExecutor, DirectProcessSpawner, TokioRuntime>;
type Resources = ResourceSystem<DirectProcessSpawner, TokioRuntime>;
type Done<T = ()> = Result<T, Box<dyn Error>>;

const PATIENCE: Duration = Duration::from_secs(20);

fn main() -> Done {
    let mut arguments = std::env::args_os().skip(1).map(PathBuf::from);
    let mut next = || {
        arguments
            .next()
            .ok_or("usage: firecracker-client FIRECRACKER KERNEL DIRECTORY")
    };
    let (firecracker, kernel, directory) = (next()?, next()?, next()?);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let all = drive(&firecracker, &kernel, &directory);
        tokio::time::timeout(3 * PATIENCE, all).await?
    })
}

async fn drive(firecracker: &Path, kernel: &Path, directory: &Path) -> Done {
    let installation = VmmInstallation::new(firecracker, Path::new("/none"), Path::new("/none"));
    let mut resources = Resources::new(
        DirectProcessSpawner,
        TokioRuntime,
        VmmOwnershipModel::Shared,
    );
    let data = configuration(&mut resources, kernel, directory)?;
    let configuration = VmConfiguration::New {
        init_method: InitMethod::ViaApiCalls,
        data,
    };
    let executor = executor(&directory.join("first.sock"))?;
    let mut machine = Vm::prepare(executor, resources, installation, configuration).await?;
    machine.start(PATIENCE).await?;
    say("configured and started");

    let info = machine.get_info().await?;
    say(format_args!(
        "{} {}, version {}",
        info.app_name, info.id, info.vmm_version
    ));
    say(format_args!(
        "API of {}",
        machine.get_firecracker_version().await?
    ));
    let config = machine.get_machine_configuration().await?;
    assert_eq!((config.vcpu_count, config.mem_size_mib), (1, 32));
    let mut pipes = machine.take_pipes()?;
    expect(&mut pipes.stdout, b">").await?;
    echo(&mut pipes.stdin, &mut pipes.stdout, b"one").await?;
    change(&mut machine).await?;
    say("changed");

    machine.pause().await?;
    assert!(machine.get_info().await?.is_paused);
    machine.resume().await?;
    echo(&mut pipes.stdin, &mut pipes.stdout, b"two").await?;
    machine.pause().await?;
    say("paused, resumed and paused");
    let resources = machine.get_resource_system_mut();
    let state = resources.create_resource(directory.join("state"), ResourceType::Produced)?;
    let memory = resources.create_resource(directory.join("memory"), ResourceType::Produced)?;
    let snapshot = machine
        .create_snapshot(CreateSnapshot {
            snapshot_type: Some(SnapshotType::Full),
            snapshot: state,
            mem_file: memory,
        })
        .await?;
    say("saved");
    end(&mut machine).await?;
    say("ended");

    let options = PrepareVmFromSnapshotOptions {
        executor: self::executor(&directory.join("second.sock"))?,
        process_spawner: DirectProcessSpawner,
        runtime: TokioRuntime,
        moved_resource_type: MovedResourceType::Copied,
        ownership_model: VmmOwnershipModel::Shared,
        enable_diff_snapshots: None,
        resume_vm: Some(true),
    };
    let mut restored = snapshot.prepare_vm(&mut machine, options).await?;
    restored.start(PATIENCE).await?;
    let mut pipes = restored.take_pipes()?;
    echo(&mut pipes.stdin, &mut pipes.stdout, b"three").await?;
    say("restored: the guest goes on");
    assert!(!restored.get_info().await?.is_paused);
    restored.pause().await?;
    restored.resume().await?;
    echo(&mut pipes.stdin, &mut pipes.stdout, b"four").await?;
    end(&mut restored).await?;
    say("ended again");
    Ok(())
}

fn say(what: impl std::fmt::Display) {
    println!("{what}");
}

fn executor(socket: &Path) -> Done<UnrestrictedVmmExecutor> {
    let arguments = VmmArguments::new(VmmApiSocket::Enabled(socket.to_owned()));
    let id = VmmId::new("fctools-machine").map_err(|error| format!("{error:?}"))?;
    Ok(UnrestrictedVmmExecutor::new(arguments).id(id))
}

/// A machine with a device of each kind.
fn configuration(
    resources: &mut Resources,
    kernel: &Path,
    directory: &Path,
) -> Done<VmConfigurationData> {
    let disk = directory.join("disk.img");
    std::fs::File::create(&disk)?.set_len(1 << 20)?;
    let moved = ResourceType::Moved(MovedResourceType::Copied);
    let created = ResourceType::Created(CreatedResourceType::File);
    let mut resource =
        |path: PathBuf, kind| -> Done<Resource> { Ok(resources.create_resource(path, kind)?) };
    Ok(VmConfigurationData {
        boot_source: BootSource {
            kernel_image: resource(kernel.to_owned(), moved)?,
            boot_args: None,
            initrd: None,
        },
        drives: vec![Drive {
            drive_id: "data".into(),
            is_root_device: false,
            cache_type: None,
            partuuid: None,
            is_read_only: Some(false),
            block: Some(resource(disk, moved)?),
            rate_limiter: Some(limit(1 << 20)),
            io_engine: None,
            socket: None,
        }],
        machine_configuration: MachineConfiguration {
            vcpu_count: 1,
            mem_size_mib: 32,
            smt: Some(false),
            track_dirty_pages: Some(false),
            huge_pages: None,
        },
        cpu_template: None,
        network_interfaces: vec![NetworkInterface {
            iface_id: "eth0".into(),
            host_dev_name: "goldcrest:user".into(),
            guest_mac: Some("02:00:00:00:00:01".into()),
            rx_rate_limiter: None,
            tx_rate_limiter: None,
        }],
        balloon_device: Some(BalloonDevice {
            amount_mib: 0,
            deflate_on_oom: true,
            stats_polling_interval_s: Some(1),
        }),
        vsock_device: Some(VsockDevice {
            guest_cid: 3,
            uds: resource(directory.join("vsock"), ResourceType::Produced)?,
        }),
        logger_system: Some(LoggerSystem {
            logs: Some(resource(directory.join("log"), created)?),
            ..LoggerSystem::default()
        }),
        metrics_system: Some(MetricsSystem {
            metrics: resource(directory.join("metrics"), created)?,
        }),
        mmds_configuration: None,
        entropy_device: Some(EntropyDevice::default()),
    })
}

fn limit(size: u64) -> RateLimiter {
    let bucket = |size| TokenBucket {
        size,
        one_time_burst: None,
        refill_time: 1000,
    };
    RateLimiter {
        bandwidth: bucket(size),
        ops: bucket(1000),
    }
}

/// Changes what can be changed of a machine that runs.
async fn change(machine: &mut Machine) -> Done {
    machine
        .update_drive(UpdateDrive {
            drive_id: "data".into(),
            block: None,
            rate_limiter: Some(limit(2 << 20)),
        })
        .await?;
    machine
        .update_network_interface(UpdateNetworkInterface {
            iface_id: "eth0".into(),
            rx_rate_limiter: Some(limit(3 << 20)),
            tx_rate_limiter: None,
        })
        .await?;
    machine
        .update_balloon_device(UpdateBalloonDevice { amount_mib: 8 })
        .await?;
    assert_eq!(machine.get_balloon_device().await?.amount_mib, 8);
    let interval = UpdateBalloonStatistics {
        stats_polling_interval_s: 2,
    };
    machine.update_balloon_statistics(interval).await?;
    assert_eq!(machine.get_balloon_statistics().await?.target_mib, 8);
    machine.flush_metrics().await?;
    Ok(())
}

async fn echo(
    stdin: &mut (impl AsyncWriteExt + Unpin),
    stdout: &mut (impl AsyncReadExt + Unpin),
    bytes: &[u8],
) -> Done {
    stdin.write_all(bytes).await?;
    stdin.flush().await?;
    expect(stdout, bytes).await
}

async fn expect(stdout: &mut (impl AsyncReadExt + Unpin), bytes: &[u8]) -> Done {
    let mut read = vec![0; bytes.len()];
    tokio::time::timeout(PATIENCE, stdout.read_exact(&mut read)).await??;
    match read == bytes {
        true => Ok(()),
        false => Err(format!("the guest says {read:?}, not {bytes:?}").into()),
    }
}

async fn end(machine: &mut Machine) -> Done {
    let kill = VmShutdownAction {
        method: VmShutdownMethod::Kill,
        timeout: Some(PATIENCE),
        graceful: false,
    };
    machine.shutdown([kill]).await?;
    let state = machine.get_state();
    assert!(
        matches!(state, VmState::Exited | VmState::Crashed(_)),
        "{state}"
    );
    Ok(())
}
