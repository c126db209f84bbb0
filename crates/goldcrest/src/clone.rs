//! `goldcrest clone`.

use std::sync::Arc;
use std::thread;

use goldcrest_monitor::{
    CloneConfig, Control, Machine, MonitorError, Output, SnapshotFiles, Template,
};
use goldcrest_vcpu::kvm::{Kvm, KvmVm};
use goldcrest_vcpu::{Forked, fork};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{Pid, getpid, getppid};

use crate::api::DEFAULT_ID;
use crate::clone_args::CloneOptions;
use crate::failure::Failure;
use crate::prefixed::Prefixed;
use crate::run::{serial, status_of};
use crate::snapshot::own;
use crate::{mmds, say, signals, terminal};

/// Added to the number of a signal that ended a process.
const SIGNALLED: i32 = 128;

/// Makes machines from a snapshot, and runs them to their ends.
pub(crate) fn clone(options: &CloneOptions) -> Result<u8, Failure> {
    options.restore.log.begin(DEFAULT_ID, &[])?;
    let files = SnapshotFiles::in_directory(&options.restore.directory);
    let template = Template::open_with(&files, &options.restore.bases.base);
    let mut template = template.map_err(MonitorError::from)?;
    if options.restore.no_working_set {
        template = template.without_working_set();
    }
    let kvm = Kvm::open().map_err(MonitorError::from)?;
    match (options.count, options.in_process) {
        (1, _) => run(&template, &kvm, config(options, 0)?),
        (_, true) => in_process(options, &template, &kvm),
        (_, false) => in_processes(options, &template, &kvm),
    }
}

/// A process for each, as copies of this one, which has the template.
fn in_processes(options: &CloneOptions, template: &Template, kvm: &Kvm) -> Result<u8, Failure> {
    let (zygote, mut children) = (getpid(), Vec::new());
    for number in 0..options.count {
        match fork() {
            Ok(Forked::Child) => {
                // When the first process ends, nobody waits for this one.
                let _ = set_pdeathsig(Signal::SIGTERM);
                if getppid() != zygote {
                    return Ok(1);
                }
                return run(template, kvm, config(options, number)?);
            }
            Ok(Forked::Parent { child }) => children.push(Pid::from_raw(child)),
            Err(source) => {
                let failed = format_args!("cannot make process {number}");
                say(&format!("goldcrest: {}\n", Failure::failed(failed, source)));
                break;
            }
        }
    }
    let all = u32::try_from(children.len()) == Ok(options.count);
    // Signals of a terminal reach all processes, and end those that have a machine.
    signals::stop_all_on_signals(Vec::new())?;
    let statuses = children.into_iter().map(wait_for);
    let highest = statuses.max().unwrap_or(0);
    Ok(if all { highest } else { highest.max(1) })
}

fn wait_for(child: Pid) -> u8 {
    loop {
        let status = match waitpid(child, None) {
            Err(nix::errno::Errno::EINTR) => continue,
            Ok(WaitStatus::Exited(_, status)) => status,
            Ok(WaitStatus::Signaled(_, signal, _)) => SIGNALLED + signal as i32,
            _ => 1,
        };
        return u8::try_from(status).unwrap_or(1);
    }
}

/// All in this process.
fn in_process(options: &CloneOptions, template: &Template, kvm: &Kvm) -> Result<u8, Failure> {
    let configs = (0..options.count).map(|number| config(options, number));
    let configs = configs.collect::<Result<Vec<_>, _>>()?;
    let controls: Vec<Arc<Control>> = configs.iter().map(|c| c.control.clone()).collect();
    signals::stop_all_on_signals(controls)?;
    thread::scope(|scope| {
        let machines: Vec<_> = configs
            .into_iter()
            .map(|config| {
                let name = thread::Builder::new().name("clone".into());
                name.spawn_scoped(scope, || Ok(status_of(make(template, kvm, config)?.run()?)))
            })
            .collect();
        let ends = machines.into_iter().map(|machine| {
            let machine = machine.map_err(|e| Failure::failed("cannot start a thread", e));
            let end = machine.and_then(|machine| machine.join().unwrap_or(Ok(1)));
            end.unwrap_or_else(|failure: Failure| {
                say(&format!("goldcrest: {failure}\n"));
                failure.status()
            })
        });
        Ok(ends.max().unwrap_or(0))
    })
}

fn run(template: &Template, kvm: &Kvm, config: CloneConfig) -> Result<u8, Failure> {
    signals::stop_on_signals(&config.control)?;
    let outcome = make(template, kvm, config)?.run()?;
    terminal::restore();
    Ok(status_of(outcome))
}

fn make(template: &Template, kvm: &Kvm, config: CloneConfig) -> Result<Machine<KvmVm>, Failure> {
    let has_metadata = config.metadata.is_some();
    let machine = template.clone_machine(kvm, config)?;
    mmds::check(&machine, has_metadata)?;
    Ok(machine)
}

/// The configuration of one of them.
fn config(options: &CloneOptions, number: u32) -> Result<CloneConfig, Failure> {
    let restore = options.numbered(number);
    let alone = options.count == 1;
    let (output, input) = match restore.serial.to_str() {
        Some("stdio") if !alone => {
            let lines = Prefixed::new(number, std::io::stdout());
            (Output::new(lines), None)
        }
        _ => serial(&restore.serial, &[])?,
    };
    let whose = if alone {
        String::new()
    } else {
        format!("{number}: ")
    };
    own(&restore, (output, input), whose)
}
