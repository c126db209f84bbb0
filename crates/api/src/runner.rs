//! The machine that runs: on its process' main thread, while the API has another.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use goldcrest_boot::Image;
use goldcrest_monitor::{
    Control, DeviceAccessError, Inventory, Machine as Monitored, MachineConfig, Metrics, Mmds,
    MonitorError, Outcome, RestoreConfig, SnapshotFiles, SnapshotKind, StopReason,
};
use goldcrest_rate_limiter::RateConfig;
use goldcrest_vcpu::{Hypervisor, Vm};
use goldcrest_virtio_balloon::BalloonStatus;
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};

use crate::build::{self, Places, Surroundings};
use crate::model::{
    BootSource, Drive, InstanceState, SnapshotCreate, SnapshotLoad, SnapshotType, VmConfiguration,
};
use crate::restore;
use crate::{ApiError, Controller, Fault, Machine};

/// How long a machine may take to pause: its accesses that are being served are waited for.
const PAUSE: Duration = Duration::from_secs(10);

/// A machine whose start the API asks for, and the main thread does.
pub struct Runner {
    around: Surroundings,
    life: Arc<Mutex<Life>>,
    orders: SyncSender<Order>,
    wake: Arc<EventFd>,
    places: Places,
}

/// The main thread's end of a [`Runner`].
pub struct Launcher {
    control: Arc<Control>,
    life: Arc<Mutex<Life>>,
    orders: Receiver<Order>,
    wake: Arc<EventFd>,
}

/// A machine to be made, and who is told what it has, if it could be.
struct Order {
    from: Source,
    made: SyncSender<Result<Inventory, Fault>>,
}

/// What a machine is made from.
enum Source {
    Config(Box<MachineConfig>),
    Snapshot(Box<RestoreConfig>),
}

impl Source {
    fn make<H: Hypervisor>(&self, hypervisor: &H) -> Result<Monitored<H::Vm>, MonitorError> {
        match self {
            Self::Config(config) => Monitored::new(hypervisor, config),
            Self::Snapshot(config) => Monitored::restore(hypervisor, config),
        }
    }
}

#[derive(Debug, Default)]
struct Life {
    begun: Option<Instant>,
    paused: bool,
    outcome: Option<String>,
}

impl Runner {
    /// A machine in these surroundings, and the end for the thread that is to run it.
    ///
    /// # Errors
    ///
    /// If the process cannot have one more descriptor.
    pub fn new(around: Surroundings) -> io::Result<(Self, Launcher)> {
        let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
        let wake = Arc::new(EventFd::from_value_and_flags(0, flags)?);
        let life = Arc::<Mutex<Life>>::default();
        // One machine is asked for at a time.
        let (orders, taken) = sync_channel(1);
        let launcher = Launcher {
            control: around.control.clone(),
            life: life.clone(),
            orders: taken,
            wake: wake.clone(),
        };
        let runner = Self {
            around,
            life,
            orders,
            wake,
            places: Places::default(),
        };
        Ok((runner, launcher))
    }

    fn control(&self) -> &Control {
        &self.around.control
    }

    /// Has the main thread make a machine.
    fn order(&self, from: Source) -> Result<Inventory, Fault> {
        let ended = |_| Fault::new("the machine has ended");
        let (made, result) = sync_channel(1);
        self.orders
            .send(Order { from, made })
            .map_err(|_| Fault::new("the machine has ended"))?;
        // It cannot overflow: it is read before the next order.
        let _ = self.wake.write(1);
        result.recv().map_err(ended)?
    }
}

impl Controller<Runner> {
    /// The machine that is configured, for [`Launcher::run_prepared`]: it counts as started from now on.
    ///
    /// # Errors
    ///
    /// [`ApiError`] if it cannot be, as when it is started by a request.
    pub fn prepare(&mut self) -> Result<MachineConfig, ApiError> {
        self.check_start()?;
        let (config, runner, metadata) = self.parts()?;
        let (machine, places) = build::machine(config, metadata.as_ref(), &runner.around)?;
        runner.places = places;
        lock(&runner.life).begun = Some(Instant::now());
        Ok(machine)
    }
}

impl Launcher {
    /// Makes and runs a machine of which all is said already ([`Controller::prepare`]).
    ///
    /// # Errors
    ///
    /// [`MonitorError`] if it cannot be made, or the host fails it.
    pub fn run_prepared<H: Hypervisor>(
        self,
        hypervisor: &H,
        config: &MachineConfig,
    ) -> Result<Outcome, MonitorError> {
        self.finish(Monitored::new(hypervisor, config)?)
    }

    /// Waits until a machine is asked for, makes it and runs it to its end. None if it was stopped before.
    ///
    /// # Errors
    ///
    /// [`MonitorError`] if the host fails the machine, or it cannot be waited for.
    pub fn run<H: Hypervisor>(self, hypervisor: &H) -> Result<Option<Outcome>, MonitorError> {
        while let Some(order) = self.next()? {
            let machine = match order.from.make(hypervisor) {
                Ok(machine) => machine,
                Err(error) => {
                    let _ = order.made.send(Err(Fault::of(&error)));
                    continue;
                }
            };
            lock(&self.life).begun = Some(Instant::now());
            let _ = order.made.send(Ok(machine.inventory()));
            return self.finish(machine).map(Some);
        }
        Ok(None)
    }

    fn finish<V: Vm>(&self, machine: Monitored<V>) -> Result<Outcome, MonitorError> {
        let result = machine.run();
        lock(&self.life).outcome = Some(match &result {
            Ok(outcome) => outcome.to_string(),
            Err(error) => Fault::of(error).to_string(),
        });
        result
    }

    /// The next machine that is asked for.
    fn next(&self) -> Result<Option<Order>, MonitorError> {
        let failed = |source| MonitorError::Events {
            what: "wait for requests",
            source,
        };
        let stopped = self.control.interruption().map_err(failed)?;
        while self.control.stopped().is_none() {
            if let Ok(order) = self.orders.try_recv() {
                return Ok(Some(order));
            }
            wait(&[stopped.as_fd(), self.wake.as_fd()]).map_err(failed)?;
            let _ = self.wake.read();
        }
        Ok(None)
    }
}

/// Waits until one of these can be read.
fn wait(descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut polled: Vec<_> = descriptors
        .iter()
        .map(|fd| PollFd::new(*fd, PollFlags::POLLIN))
        .collect();
    match poll(&mut polled, PollTimeout::NONE) {
        Ok(_) | Err(Errno::EINTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

impl Machine for Runner {
    fn check_boot_source(&self, source: &BootSource) -> Result<(), Fault> {
        let paths = [Some(&source.kernel_image_path), source.initrd_path.as_ref()];
        for path in paths.into_iter().flatten() {
            Image::open(path).map_err(|error| Fault::of(&error))?;
        }
        Ok(())
    }

    fn check_drive(&self, drive: &Drive) -> Result<(), Fault> {
        let disk = build::disk(drive)?;
        let opened = std::fs::OpenOptions::new()
            .read(true)
            .write(!disk.read_only)
            // A named pipe would have the API wait for who writes to it.
            .custom_flags(OFlag::O_NONBLOCK.bits())
            .open(&disk.path)
            .and_then(|file| file.metadata());
        match opened {
            Ok(metadata) if metadata.is_file() || metadata.file_type().is_block_device() => Ok(()),
            Ok(_) => Err(Fault::new(format!(
                "{} is neither a regular file nor a block device",
                disk.path.display()
            ))),
            Err(error) => Err(Fault::new(format!(
                "cannot open {}: {error}",
                disk.path.display()
            ))),
        }
    }

    fn start(
        &mut self,
        config: &VmConfiguration,
        metadata: Option<&Arc<Mmds>>,
    ) -> Result<(), Fault> {
        let (machine, places) = build::machine(config, metadata, &self.around)?;
        self.order(Source::Config(Box::new(machine)))?;
        self.places = places;
        Ok(())
    }

    fn state(&self) -> InstanceState {
        let life = lock(&self.life);
        match (life.begun, life.paused) {
            (None, _) => InstanceState::NotStarted,
            (Some(_), false) => InstanceState::Running,
            (Some(_), true) => InstanceState::Paused,
        }
    }

    fn metrics(&self) -> Metrics {
        self.control().metrics()
    }

    fn life(&self) -> (Option<Duration>, Option<String>) {
        let life = lock(&self.life);
        (life.begun.map(|at| at.elapsed()), life.outcome.clone())
    }

    fn pause(&mut self) -> Result<(), Fault> {
        if !self.control().pause_within(PAUSE) {
            let seconds = PAUSE.as_secs();
            return Err(Fault::new(format!(
                "the machine does not pause: for {seconds} seconds it has waited for something, such as \
                 a reader of its output"
            )));
        }
        lock(&self.life).paused = true;
        Ok(())
    }

    fn resume(&mut self) -> Result<(), Fault> {
        self.control().resume();
        lock(&self.life).paused = false;
        Ok(())
    }

    fn stop(&mut self) {
        self.control().stop(StopReason::Request);
    }

    fn press_ctrl_alt_del(&mut self) -> Result<(), Fault> {
        self.control().press_ctrl_alt_del().map_err(fault)
    }

    fn create_snapshot(&mut self, request: &SnapshotCreate) -> Result<(), Fault> {
        let files = SnapshotFiles {
            state: request.snapshot_path.clone(),
            memory: request.mem_file_path.clone(),
        };
        let kind = match request.snapshot_type {
            SnapshotType::Full => SnapshotKind::Full,
            SnapshotType::Diff => SnapshotKind::Diff,
        };
        let taken = self.control().snapshot(&files, kind);
        taken.map(|_| ()).map_err(|error| Fault::of(&error))
    }

    fn load_snapshot(
        &mut self,
        request: &SnapshotLoad,
        metadata: &Arc<Mmds>,
    ) -> Result<VmConfiguration, Fault> {
        let config = restore::config(request, metadata, &self.around)?;
        // It is started paused, and let go when it is known what it is.
        let inventory = self.order(Source::Snapshot(Box::new(config)))?;
        lock(&self.life).paused = true;
        let (configuration, places) = restore::configuration(&inventory, request);
        self.places = places;
        if request.resume_vm {
            self.resume()?;
        }
        Ok(configuration)
    }

    fn update_drive(
        &mut self,
        index: usize,
        rate: Option<RateConfig>,
        path: Option<&Path>,
    ) -> Result<(), Fault> {
        let at = place(self.places.drives.get(index))?;
        if let Some(path) = path {
            self.control().set_disk_file(at, path).map_err(fault)?;
        }
        if let Some(rate) = rate {
            self.control().set_disk_rate(at, rate).map_err(fault)?;
        }
        Ok(())
    }

    fn update_network(
        &mut self,
        index: usize,
        receive: Option<RateConfig>,
        send: Option<RateConfig>,
    ) -> Result<(), Fault> {
        let at = place(self.places.cards.get(index))?;
        self.control()
            .set_network_rates(at, receive, send)
            .map_err(fault)
    }

    fn update_balloon(
        &mut self,
        target: Option<u64>,
        interval: Option<Duration>,
    ) -> Result<(), Fault> {
        let at = self.balloon_place()?;
        if let Some(target) = target {
            self.control()
                .set_balloon_target(at, target)
                .map_err(fault)?;
        }
        if let Some(interval) = interval {
            self.control()
                .set_statistics_interval(at, interval)
                .map_err(fault)?;
        }
        Ok(())
    }

    fn balloon(&mut self) -> Result<BalloonStatus, Fault> {
        let at = self.balloon_place()?;
        self.control().balloon_status(at).map_err(fault)
    }
}

impl Runner {
    fn balloon_place(&self) -> Result<usize, Fault> {
        let place = self.places.balloon;
        place.ok_or_else(|| Fault::new("the machine has no balloon"))
    }
}

fn place(place: Option<&usize>) -> Result<usize, Fault> {
    place
        .copied()
        .ok_or_else(|| Fault::new("the machine has no such device"))
}

fn fault(error: DeviceAccessError) -> Fault {
    Fault::of(&error)
}

fn lock(life: &Mutex<Life>) -> MutexGuard<'_, Life> {
    life.lock().unwrap_or_else(PoisonError::into_inner)
}
