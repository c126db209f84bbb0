//! `goldcrest snapshot`.

pub(crate) mod archive;

use std::fs::{self, File};
use std::io::{self, IsTerminal, Read};
use std::path::Path;
use std::time::UNIX_EPOCH;

use goldcrest_api::Socket;
use goldcrest_monitor::{
    CloneConfig, Input, Machine, MonitorError, Notice, Output, PageServer, Rebinding,
    RestoreConfig, SnapshotError, SnapshotFiles, SnapshotInfo, SnapshotReport,
};
use goldcrest_vcpu::kvm::Kvm;

use crate::api::DEFAULT_ID;
use crate::failure::Failure;
use crate::run::{serial, status_of};
use crate::snapshot_args::{Bases, RestoreCommand, RestoreOptions, SnapshotCommand};
use crate::{ctl, mmds, print, say, signals, terminal};

/// Does what is asked of a snapshot.
pub(crate) fn snapshot(command: &SnapshotCommand) -> Result<u8, Failure> {
    match command {
        SnapshotCommand::Create {
            api_sock,
            directory,
            diff,
        } => ctl::snapshot(api_sock, directory, *diff),
        SnapshotCommand::Restore(command) => restore(command),
        SnapshotCommand::Serve {
            directory,
            socket,
            bases,
        } => serve(directory, bases, socket),
        SnapshotCommand::Info { snapshot, key } if archive::is_archive(snapshot) => {
            archive::info(snapshot, key)
        }
        SnapshotCommand::Info { snapshot, key } => {
            archive::refuse_key(snapshot, key)?;
            match snapshot.is_dir() {
                true => info(&snapshot.join("state")),
                false => info(snapshot),
            }
        }
        SnapshotCommand::Verify { snapshot, key, .. } if archive::is_archive(snapshot) => {
            archive::verify(snapshot, key)
        }
        SnapshotCommand::Verify {
            snapshot,
            bases,
            key,
        } => {
            archive::refuse_key(snapshot, key)?;
            verify(snapshot, bases)
        }
        SnapshotCommand::Pack {
            directory,
            archive,
            key,
        } => archive::pack(directory, archive, key),
        SnapshotCommand::Unpack {
            archive,
            directory,
            key,
        } => archive::unpack(archive, directory, key),
        SnapshotCommand::Flatten {
            directory,
            output,
            bases,
        } => flatten(directory, output, bases),
    }
}

fn verify(directory: &Path, bases: &Bases) -> Result<u8, Failure> {
    let files = SnapshotFiles::in_directory(directory);
    let verified = SnapshotInfo::verify_with(&files, &bases.base);
    let (info, before) = verified.map_err(MonitorError::from)?;
    let more = match before {
        0 => String::new(),
        1 => ", with the snapshot that it is the difference to".to_owned(),
        _ => format!(", with {before} snapshots before it"),
    };
    print(format!("{}: ok, {}{more}\n", directory.display(), info.id).as_bytes())
}

fn flatten(directory: &Path, output: &Path, bases: &Bases) -> Result<u8, Failure> {
    make(output)?;
    let from = SnapshotFiles::in_directory(directory);
    let to = SnapshotFiles::in_directory(output);
    let made = with_progress(output, |progress| {
        goldcrest_monitor::flatten(&from, &bases.base, &to, progress)
    })?;
    print(made_of(output, &made).as_bytes())
}

/// Makes the directory of a snapshot.
fn make(directory: &Path) -> Result<(), Failure> {
    fs::create_dir_all(directory).map_err(|source| {
        Failure::failed(format_args!("cannot make {}", directory.display()), source)
    })
}

/// Does what takes long, and says how much of it is done if somebody looks on.
fn with_progress<T>(
    what: &Path,
    work: impl FnOnce(&mut dyn FnMut(u64, u64)) -> Result<T, SnapshotError>,
) -> Result<T, Failure> {
    let seen = io::stderr().is_terminal();
    let mut last = None;
    let done = work(&mut |done, all| {
        let percent = done.saturating_mul(100) / all.max(1);
        if seen && last.replace(percent) != Some(percent) {
            say(&format!("\r{}: {percent} %", what.display()));
        }
    });
    if seen {
        say("\n");
    }
    Ok(done.map_err(MonitorError::from)?)
}

fn made_of(path: &Path, made: &SnapshotReport) -> String {
    format!(
        "{}: {} MiB of memory, of which {} KiB are not zeros\n",
        path.display(),
        made.memory_size >> 20,
        made.memory_written >> 10
    )
}

fn restore(command: &RestoreCommand) -> Result<u8, Failure> {
    let options = &command.options;
    options.log.begin(DEFAULT_ID, &[])?;
    let (output, input) = serial(&options.serial, &[])?;
    let files = SnapshotFiles::in_directory(&options.directory);
    let config = RestoreConfig {
        page_server: command.memory_server.clone(),
        use_working_set: !options.no_working_set,
        record_working_set: command.record_working_set,
        bases: options.bases.base.clone(),
        machine: own(options, (output, input), String::new())?,
        ..RestoreConfig::new(files)
    };
    signals::stop_on_signals(&config.machine.control)?;
    let kvm = Kvm::open().map_err(MonitorError::from)?;
    let machine = Machine::restore(&kvm, &config)?;
    mmds::check(&machine, options.mmds.is_some())?;
    let outcome = machine.run()?;
    terminal::restore();
    Ok(status_of(outcome))
}

/// Serves a snapshot's memory until a signal comes.
fn serve(directory: &Path, bases: &Bases, path: &Path) -> Result<u8, Failure> {
    let files = SnapshotFiles::in_directory(directory);
    let server = PageServer::open_with(&files, &bases.base).map_err(MonitorError::from)?;
    let signals = signals::as_descriptor()?;
    let cannot_listen = format!("cannot listen at {}", path.display());
    let (_socket, listener) =
        Socket::listen(path).map_err(|source| Failure::failed(&cannot_listen, source))?;
    let notice = Notice::new(|text| say(&format!("goldcrest: {text}\n")));
    server
        .serve(&listener, &signals, &notice)
        .map_err(|source| Failure::failed("cannot serve memory", source))?;
    Ok(0)
}

/// What is a machine's own that has these ends of its serial port; lines about it begin with `whose`.
pub(crate) fn own(
    options: &RestoreOptions,
    (output, input): (Output, Option<Input>),
    whose: String,
) -> Result<CloneConfig, Failure> {
    let metadata = options.mmds.as_deref().map(mmds::read).transpose()?;
    Ok(CloneConfig {
        rebind: rebind(options),
        clock: options.clock.into(),
        paused: options.paused,
        output,
        input,
        metadata,
        timeout: options.timeout,
        notice: Notice::new(move |text| say(&format!("goldcrest: {whose}{text}\n"))),
        ..CloneConfig::default()
    })
}

fn rebind(options: &RestoreOptions) -> Vec<Rebinding> {
    let disks = options.disk.iter().map(|binding| Rebinding::Disk {
        id: binding.id.clone(),
        path: binding.end.clone().into(),
    });
    let taps = options.tap.iter().map(|binding| Rebinding::Tap {
        id: binding.id.clone(),
        name: binding.end.clone(),
    });
    let mut rebind: Vec<_> = disks.chain(taps).collect();
    if options.vsock_uds.is_some() || options.vsock_cid.is_some() {
        rebind.push(Rebinding::Vsock {
            path: options.vsock_uds.clone(),
            cid: options.vsock_cid,
        });
    }
    rebind
}

/// Whether a file is the state of a machine, by how it begins.
pub(crate) fn is_state(path: &Path) -> bool {
    begins::<4>(path) == Some(*b"GCS1")
}

/// What a regular file begins with.
fn begins<const N: usize>(path: &Path) -> Option<[u8; N]> {
    // A named pipe would have one wait for who writes to it.
    if !path.is_file() {
        return None;
    }
    let mut bytes = [0; N];
    let read = File::open(path).and_then(|mut file| file.read_exact(&mut bytes));
    read.is_ok().then_some(bytes)
}

/// Says what a state file has.
pub(crate) fn info(state: &Path) -> Result<u8, Failure> {
    let info = SnapshotInfo::read(state).map_err(MonitorError::from)?;
    let text = format!(
        "{}: a machine that was saved\n{}",
        state.display(),
        description(&info)
    );
    print(text.as_bytes())
}

/// What a snapshot has, in lines.
fn description(info: &SnapshotInfo) -> String {
    let since = info.saved_at.duration_since(UNIX_EPOCH);
    let (bytes, what) = match &info.base {
        None => (info.memory_written, "are not zeros"),
        Some(base) => (base.changed, "have changed"),
    };
    let mut text = format!(
        "  identity  {}\n  saved at  {} s after 1970\n  CPUs      {}\n  \
         memory    {} MiB, of which {} KiB {what}\n",
        info.id,
        since.map_or(0, |since| since.as_secs()),
        info.cpus,
        info.memory_size >> 20,
        bytes >> 10,
    );
    if let Some(base) = &info.base {
        text += &format!(
            "  {:<9} {}: {}\n",
            "base",
            base.id,
            base.state.display().to_string().escape_default()
        );
    }
    for device in &info.devices {
        text += &format!(
            "  {:<9} {}: {}\n",
            "device",
            device.id.escape_default(),
            device.end.escape_default()
        );
    }
    text
}
