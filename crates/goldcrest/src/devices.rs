//! From options to virtio devices.

use std::fs::Metadata;
use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;

use goldcrest_boot::{Image, Protocol};
use goldcrest_monitor::{ConsoleConfig, ConsolePort, Control, VirtioConfig, console_device};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::args::RunOptions;
use crate::failure::Failure;
use crate::run::{create_log, duplicate, standard_input};
use crate::{mmds, say};

/// The virtio devices.
pub(crate) fn virtio(
    options: &RunOptions,
    image: &Image,
    taken: &[Metadata],
    control: &Arc<Control>,
) -> Result<Vec<VirtioConfig>, Failure> {
    let notice = |text: &str| say(&format!("goldcrest: {text}\n"));
    let disks = options.disk.iter().cloned();
    let mut virtio: Vec<_> = disks
        .map(|disk| disk.device(options.cpus, notice))
        .collect();
    if !options.console.is_empty() {
        let ports = console_ports(&options.console, taken)?;
        virtio.push(console_device(ports, control.clone(), notice));
    }
    let mut cards = options.net.clone();
    mmds::serve(&options.mmds, &mut cards)?;
    for net in cards {
        let card = net.device();
        virtio.push(card.map_err(|error| Failure::failed("network card", error))?);
    }
    if !options.net.is_empty() || !options.solo5_net.is_empty() || options.vsock.is_some() {
        raise_descriptor_limit();
    }
    let vsock = options.vsock.clone();
    virtio.extend(vsock.map(goldcrest_monitor::vsock_device));
    virtio.extend(options.balloon.map(goldcrest_monitor::balloon_device));
    if options.rng || (!options.no_rng && wants_entropy(options, image)?) {
        virtio.push(goldcrest_monitor::entropy_device());
    }
    Ok(virtio)
}

/// Each connection is a descriptor. What a shell gives is meant for programs that use `select`.
fn raise_descriptor_limit() {
    if let Ok((_, most)) = getrlimit(Resource::RLIMIT_NOFILE) {
        // With fewer there are fewer connections.
        let _ = setrlimit(Resource::RLIMIT_NOFILE, most, most);
    }
}

fn console_ports(
    consoles: &[ConsoleConfig],
    taken: &[Metadata],
) -> Result<Vec<ConsolePort>, Failure> {
    let on_stdio = |console: &&ConsoleConfig| **console == ConsoleConfig::Stdio;
    if consoles.iter().filter(on_stdio).count() > 1 {
        let advice = io::Error::other("--console stdio can be given once");
        return Err(Failure::usage(
            "two consoles want to read the same input",
            advice,
        ));
    }
    let ports = consoles.iter().map(|console| match console {
        ConsoleConfig::Stdio => Ok(ConsolePort::Streams {
            input: standard_input()?,
            output: Arc::new(duplicate(io::stdout().as_fd(), "standard output")?),
        }),
        ConsoleConfig::Pty => Ok(ConsolePort::Pty),
        ConsoleConfig::File(path) => Ok(ConsolePort::Streams {
            input: None,
            output: Arc::new(create_log(path, taken).map_err(|source| {
                Failure::usage(
                    format_args!("cannot create the console log {}", path.display()),
                    source,
                )
            })?),
        }),
        ConsoleConfig::Socket(path) => Ok(ConsolePort::Socket(path.clone())),
    });
    ports.collect()
}

/// Whether the guest expects a source of entropy: a kernel does, and a unikernel that has its own interface does not.
fn wants_entropy(options: &RunOptions, image: &Image) -> Result<bool, Failure> {
    // The demo does not, and is in a hurry.
    if options.image.is_none() {
        return Ok(crate::disk_boot::is_wanted(options));
    }
    let protocol = goldcrest_boot::protocol_of(image, options.format)?;
    Ok(!matches!(
        protocol,
        Protocol::Direct | Protocol::Solo5Hvt | Protocol::Hermit
    ))
}
