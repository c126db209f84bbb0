//! `goldcrest run --api-sock`: a machine that programs configure, start and control.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use goldcrest_api::model::{Logger, Metrics, VmConfiguration};
use goldcrest_api::{Call, Controller, Limits, MAX_BODY, Runner, Server, Surroundings};
use goldcrest_monitor::{Control, MachineConfig, MonitorError, Notice, Outcome};
use goldcrest_vcpu::kvm::Kvm;

use crate::args::{ApiOptions, RunOptions};
use crate::failure::Failure;
use crate::log::ClientLog;
use crate::run;
use crate::{say, signals, terminal};

/// The most bytes of a file that is read.
const MAX_FILE: u64 = 1 << 20;

/// Whether a machine is to be described by requests or a file.
pub(crate) fn is_wanted(options: &RunOptions) -> bool {
    options.api.api_sock.is_some() || options.api.config_file.is_some()
}

/// The name of a machine that is given none.
pub(crate) const DEFAULT_ID: &str = "anonymous-instance";

/// How the API is served, and what of the machine is known before.
pub(crate) struct Start {
    pub(crate) api_sock: Option<PathBuf>,
    pub(crate) id: String,
    pub(crate) config_file: Option<PathBuf>,
    pub(crate) serial: PathBuf,
    pub(crate) logger: Option<Logger>,
    pub(crate) metrics: Option<Metrics>,
    pub(crate) max_body: usize,
    /// A file with metadata for the guest.
    pub(crate) metadata: Option<PathBuf>,
    /// The most bytes of metadata.
    pub(crate) metadata_limit: Option<usize>,
}

/// `goldcrest run --api-sock`.
pub(crate) fn run(options: &RunOptions) -> Result<u8, Failure> {
    options.log.begin(&options.api.id, &[])?;
    let ApiOptions {
        api_sock,
        id,
        config_file,
        ..
    } = &options.api;
    start(Start {
        api_sock: api_sock.clone(),
        id: id.clone(),
        config_file: config_file.clone(),
        serial: options.serial.clone(),
        logger: None,
        metrics: None,
        max_body: MAX_BODY,
        metadata: None,
        metadata_limit: None,
    })
}

/// Waits for a machine to be asked for, or makes the one of the file, and runs it to its end.
pub(crate) fn start(start: Start) -> Result<u8, Failure> {
    let control = Arc::<Control>::default();
    signals::stop_on_signals(&control)?;
    let (output, input) = run::serial(&start.serial, &[])?;
    let around = Surroundings {
        output,
        input,
        notice: Notice::new(|text| say(&format!("goldcrest: {text}\n"))),
        control: control.clone(),
        timeline: None,
    };
    let kvm = Kvm::open().map_err(MonitorError::from)?;
    let (runner, launcher) = Runner::new(around)
        .map_err(|source| Failure::failed("cannot wait for requests", source))?;
    let mut controller = Controller::new(runner, start.id.as_str()).with_logs(Box::new(ClientLog));
    let observed = VmConfiguration {
        logger: start.logger,
        metrics: start.metrics,
        ..VmConfiguration::default()
    };
    controller
        .configure(observed)
        .map_err(|source| Failure::usage("logs and metrics", source))?;
    if let Some(limit) = start.metadata_limit {
        let limited = controller.limit_metadata(limit);
        limited.map_err(|source| Failure::usage("metadata", source))?;
    }
    if let Some(path) = &start.metadata {
        let what = format!("metadata {}", path.display());
        let contents = serde_json::from_slice(&read(path, &what)?)
            .map_err(|source| Failure::usage(&what, source))?;
        let put = controller.call(Call::PutMmds(contents));
        put.map_err(|source| Failure::usage("metadata", source))?;
    }
    let prepared = match &start.config_file {
        Some(path) => Some(configure(&mut controller, path)?),
        None => None,
    };
    let server = match &start.api_sock {
        Some(path) => Some(serve(path, controller, start.max_body)?),
        None => None,
    };
    let outcome = match prepared {
        Some(config) => launcher.run_prepared(&kvm, &config).map(Some),
        None => launcher.run(&kvm),
    };
    // Answers that are on their way leave before the process ends.
    drop(server);
    terminal::restore();
    match outcome? {
        // As with Firecracker: guests reset a machine to end it.
        Some(Outcome::Reset) => Ok(0),
        Some(outcome) => Ok(run::status_of(outcome)),
        None => Ok(control
            .stopped()
            .map_or(0, |reason| run::status_of(Outcome::Stopped(reason)))),
    }
}

/// The machine that the file describes.
fn configure(controller: &mut Controller<Runner>, path: &Path) -> Result<MachineConfig, Failure> {
    let what = format!("configuration {}", path.display());
    let text = read(path, &what)?;
    let config = VmConfiguration::read(&text).map_err(|source| Failure::usage(&what, source))?;
    controller
        .configure(config)
        .and_then(|()| controller.prepare())
        .map_err(|source| Failure::usage(&what, source))
}

/// The bytes of a file that is not too long.
fn read(path: &Path, what: &str) -> Result<Vec<u8>, Failure> {
    let failed = |source| Failure::usage(format_args!("cannot read the {what}"), source);
    let length = fs::metadata(path).map_err(failed)?.len();
    if length > MAX_FILE {
        let why = format!("{what}: {length} bytes, the limit is {MAX_FILE}");
        return Err(Failure::asked_wrongly(why));
    }
    fs::read(path).map_err(failed)
}

fn serve(path: &Path, controller: Controller<Runner>, max_body: usize) -> Result<Server, Failure> {
    let failed = |source| {
        let what = format!("cannot serve the API at {}", path.display());
        Failure::usage(what, source)
    };
    let limits = Limits {
        body: max_body,
        ..Limits::default()
    };
    Server::start(path, controller, limits).map_err(failed)
}
