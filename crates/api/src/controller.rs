//! The order of things: what may be asked for before a machine is started, and what after.

mod configure;
mod drive;
mod metadata;

use std::sync::Arc;
use std::time::{Duration, Instant};

use goldcrest_monitor::Mmds;

pub(crate) use self::configure::USER_NETWORK;
use self::metadata::Metadata;
use serde::Serialize;

use crate::journal::Journal;
use crate::model::{
    ActionType, InstanceInfo, InstanceState, SnapshotCreate, SnapshotLoad, Status, Version, Vm,
    VmConfiguration, VmState,
};
use crate::{ApiError, Call, Logs, Machine};

/// The version of Firecracker whose API this is.
pub const FIRECRACKER_VERSION: &str = "1.14.0";
/// What the program calls itself.
const APP_NAME: &str = "Goldcrest";
/// What is served as a description of all this.
pub const OPENAPI: &str = include_str!("../openapi.json");

/// What is answered to a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// It is done: there is nothing to say.
    Done,
    /// What was asked for, as JSON.
    Json(String),
    /// What was asked for, as text.
    Text(String),
    /// The description of the API.
    Document(&'static str),
}

impl Answer {
    /// The status of the response.
    pub fn status(&self) -> u16 {
        match self {
            Self::Done => 204,
            Self::Json(_) | Self::Text(_) | Self::Document(_) => 200,
        }
    }
}

/// Does what is called for with a machine, in the order in which it may be.
pub struct Controller<M> {
    machine: M,
    id: String,
    config: VmConfiguration,
    journal: Journal,
    logs: Option<Box<dyn Logs>>,
    metadata: Metadata,
}

impl<M: Machine> Controller<M> {
    /// The controller of a machine of which nothing is configured, by this name.
    pub fn new(machine: M, id: impl Into<String>) -> Self {
        Self {
            machine,
            id: id.into(),
            config: VmConfiguration::default(),
            journal: Journal::default(),
            logs: None,
            metadata: Metadata::default(),
        }
    }

    /// Has clients set the program's log. Without, there is none that they could set.
    #[must_use]
    pub fn with_logs(self, logs: Box<dyn Logs>) -> Self {
        Self {
            logs: Some(logs),
            ..self
        }
    }

    /// Configures all that `config` names, as single calls would, in an order in which that is possible.
    ///
    /// # Errors
    ///
    /// The first that is refused.
    pub fn configure(&mut self, config: VmConfiguration) -> Result<(), ApiError> {
        let parts = [
            config.logger.map(Call::PutLogger),
            config.metrics.map(Call::PutMetrics),
            config.machine_config.map(Call::PutMachineConfig),
            config.cpu_config.map(Call::PutCpuConfig),
            config.boot_source.map(Call::PutBootSource),
            config.vsock.map(Call::PutVsock),
            config.balloon.map(Call::PutBalloon),
            config.entropy.map(Call::PutEntropy),
            config.serial.map(Call::PutSerial),
        ];
        let drives = config.drives.into_iter().map(Call::PutDrive);
        let cards = config.network_interfaces.into_iter();
        let cards = cards.map(Call::PutNetworkInterface);
        // It names cards.
        let last = config.mmds_config.map(Call::PutMmdsConfig);
        let calls = parts.into_iter().flatten().chain(drives).chain(cards);
        for call in calls.chain(last) {
            self.call(call)?;
        }
        Ok(())
    }

    /// Answers a request.
    ///
    /// # Errors
    ///
    /// [`ApiError`] if it is refused: nothing has changed then.
    pub fn request(&mut self, method: &str, path: &str, body: &[u8]) -> Result<Answer, ApiError> {
        let begun = Instant::now();
        let result = Call::read(method, path, body).and_then(|call| self.call(call));
        self.journal.request(method, path, &result, begun.elapsed());
        result
    }

    /// Answers a call.
    ///
    /// # Errors
    ///
    /// [`ApiError`] if it is refused: nothing has changed then.
    pub fn call(&mut self, call: Call) -> Result<Answer, ApiError> {
        match call {
            Call::DescribeInstance => json(&self.instance()),
            Call::GetVersion => json(&Version {
                firecracker_version: FIRECRACKER_VERSION.into(),
            }),
            Call::GetVmConfig => json(&self.vm_config()),
            Call::GetMachineConfig => json(&self.machine_config()),
            Call::GetBalloon => json(self.balloon_config()?),
            Call::GetBalloonStatistics => self.balloon_statistics(),
            Call::GetMmds => json(&self.metadata.get()),
            Call::GetStatus => json(&self.status()),
            Call::GetMetrics => Ok(Answer::Text(
                self.machine.metrics().prometheus() + &self.journal.prometheus(),
            )),
            Call::GetMetricsAsJson => Ok(Answer::Json(self.machine.metrics().json())),
            Call::GetOpenApi => Ok(Answer::Document(OPENAPI)),
            call => self.change(call).map(|()| Answer::Done),
        }
    }

    fn change(&mut self, call: Call) -> Result<(), ApiError> {
        match call {
            Call::PutAction(action) => self.act(action.action_type),
            Call::PatchVm(vm) => self.set_state(&vm),
            Call::CreateSnapshot(request) => self.create_snapshot(&request),
            Call::LoadSnapshot(request) => self.load_snapshot(&request),
            Call::Stop => {
                self.machine.stop();
                Ok(())
            }
            Call::PatchDrive(update) => self.patch_drive(update),
            Call::PatchNetworkInterface(update) => self.patch_network(update),
            Call::PatchBalloon(update) => self.patch_balloon(update.amount_mib),
            Call::PatchBalloonStatistics(update) => {
                self.patch_balloon_statistics(update.stats_polling_interval_s)
            }
            Call::PutMmds(contents) => Ok(self.metadata.put(contents)?),
            Call::PatchMmds(patch) => Ok(self.metadata.patch(&patch)?),
            Call::PutMmdsConfig(config) => self.set_metadata(config),
            call => self.configure_part(call),
        }
    }

    fn act(&mut self, action: ActionType) -> Result<(), ApiError> {
        match action {
            ActionType::InstanceStart => {
                self.check_start()?;
                let metadata = self.metadata.service()?;
                self.machine.start(&self.config, metadata.as_ref())?;
                Ok(())
            }
            ActionType::FlushMetrics => {
                self.after_start("to write metrics")?;
                let (uptime, _) = self.machine.life();
                let metrics = self.machine.metrics();
                let lost = self.logs.as_ref().map_or(0, |logs| logs.lost());
                Ok(self.journal.flush_metrics(uptime, &metrics, lost)?)
            }
            ActionType::SendCtrlAltDel => {
                self.after_start("to press Ctrl-Alt-Del")?;
                Ok(self.machine.press_ctrl_alt_del()?)
            }
        }
    }

    /// Whether the machine may be started.
    pub(crate) fn check_start(&self) -> Result<(), ApiError> {
        self.before_start("to start it again")?;
        match self.config.boot_source {
            Some(_) => Ok(()),
            None => Err(ApiError::refused(
                "nothing to boot is configured: say what first (PUT /boot-source)",
            )),
        }
    }

    /// The machine.
    pub fn machine(&self) -> &M {
        &self.machine
    }

    /// The machine, to be asked by others than clients.
    pub fn machine_mut(&mut self) -> &mut M {
        &mut self.machine
    }

    /// Sets how long metadata may be, in bytes.
    ///
    /// # Errors
    ///
    /// [`ApiError::Metadata`] if that is too much.
    pub fn limit_metadata(&mut self, bytes: usize) -> Result<(), ApiError> {
        Ok(self.metadata.limit(bytes)?)
    }

    /// What is configured, the machine, and the metadata service if there is one.
    pub(crate) fn parts(
        &mut self,
    ) -> Result<(&VmConfiguration, &mut M, Option<Arc<Mmds>>), ApiError> {
        let metadata = self.metadata.service()?;
        Ok((&self.config, &mut self.machine, metadata))
    }

    fn set_state(&mut self, vm: &Vm) -> Result<(), ApiError> {
        match vm.state {
            VmState::Paused => {
                self.after_start("to pause it")?;
                self.machine.pause()?;
            }
            VmState::Resumed => {
                self.after_start("to resume it")?;
                self.machine.resume()?;
            }
        }
        Ok(())
    }

    fn create_snapshot(&mut self, request: &SnapshotCreate) -> Result<(), ApiError> {
        self.after_start("a snapshot")?;
        if self.machine.state() != InstanceState::Paused {
            return Err(ApiError::NotPaused);
        }
        Ok(self.machine.create_snapshot(request)?)
    }

    fn load_snapshot(&mut self, request: &SnapshotLoad) -> Result<(), ApiError> {
        self.before_start("to load a snapshot")?;
        if let Some(what) = configure::first_part(&self.config) {
            return Err(ApiError::Configured(what));
        }
        if request.mem_file_path.is_some() == request.mem_backend.is_some() {
            return Err(ApiError::refused(
                "either mem_backend or mem_file_path says where the memory is, not both and not none",
            ));
        }
        let restored = self.with_metadata(|machine, metadata| {
            machine.load_snapshot(request, metadata).map_err(Into::into)
        })?;
        self.config = VmConfiguration {
            logger: self.config.logger.take(),
            metrics: self.config.metrics.take(),
            ..restored
        };
        Ok(())
    }

    fn before_start(&self, what: &'static str) -> Result<(), ApiError> {
        match self.machine.state() {
            InstanceState::NotStarted => Ok(()),
            _ => Err(ApiError::Started(what)),
        }
    }

    fn after_start(&self, what: &'static str) -> Result<(), ApiError> {
        match self.machine.state() {
            InstanceState::NotStarted => Err(ApiError::NotStarted(what)),
            _ => Ok(()),
        }
    }

    fn instance(&self) -> InstanceInfo {
        InstanceInfo {
            id: self.id.clone(),
            state: self.machine.state(),
            vmm_version: env!("CARGO_PKG_VERSION").into(),
            app_name: APP_NAME.into(),
        }
    }

    fn status(&self) -> Status {
        let (uptime, outcome) = self.machine.life();
        let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        Status {
            id: self.id.clone(),
            state: self.machine.state(),
            pid: std::process::id(),
            uptime_ms: uptime.map(millis),
            outcome,
        }
    }
}

fn json(value: &impl Serialize) -> Result<Answer, ApiError> {
    Ok(Answer::Json(serde_json::to_string(value)?))
}
