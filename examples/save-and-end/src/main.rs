//! Runs a guest until it prints a certain text, saves its machine then, and ends it: what comes of it is made to go on by
//! `goldcrest snapshot restore DIRECTORY`, as often as one likes.
//!
//! ```sh
//! cargo run -p save-and-end -- 'login:' warm vmlinuz initrd 'console=ttyS0 quiet' 2 root.img
//! goldcrest snapshot restore warm
//! ```
//!
//! What the guest prints goes to standard output, and what it reads comes from standard input.

use std::collections::VecDeque;
use std::error::Error;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::process::ExitCode;
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, mpsc::Receiver};
use std::{env, fs, thread};

use goldcrest_monitor::{
    Control, DiskConfig, Image, Input, MachineConfig, Output, SnapshotFiles, SnapshotKind,
    StopReason, entropy_device, run,
};
use goldcrest_vcpu::kvm::Kvm;

fn main() -> ExitCode {
    match save() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("save-and-end: {error}");
            ExitCode::FAILURE
        }
    }
}

fn save() -> Result<(), Box<dyn Error>> {
    let args: Vec<_> = env::args().skip(1).collect();
    let [text, directory, image, initrd, cmdline, cpus, disks @ ..] = args.as_slice() else {
        return Err(
            "usage: save-and-end TEXT DIRECTORY IMAGE INITRD|- CMDLINE CPUS [DISK]...".into(),
        );
    };
    let cpus = cpus.parse()?;
    let mut virtio = Vec::new();
    for disk in disks {
        let disk: DiskConfig = disk.parse()?;
        virtio.push(disk.device(cpus, |notice| eprintln!("{notice}")));
    }
    if initrd != "-" {
        virtio.push(entropy_device());
    }
    let (found, is_found) = channel();
    let mut config = MachineConfig {
        initrd: match initrd.as_str() {
            "-" => None,
            path => Some(Image::open(path)?),
        },
        cmdline: cmdline.clone(),
        cpus,
        virtio,
        output: Output::new(Watch {
            text: text.clone().into_bytes(),
            last: VecDeque::new(),
            found: Some(found),
        }),
        input: Some(Input {
            source: Arc::new(io::stdin().as_fd().try_clone_to_owned()?.into()),
            escape: false,
            on_listen: Arc::new(|| {}),
        }),
        ..MachineConfig::new(Image::open(image)?)
    };
    config.memory.size = 256 << 20;
    fs::create_dir_all(directory)?;
    let (control, files) = (
        config.control.clone(),
        SnapshotFiles::in_directory(directory),
    );
    let saver = thread::spawn(move || save_when(&is_found, &control, &files));
    let outcome = run(&Kvm::open()?, &config)?;
    // Without the output, nothing can be found any more.
    drop(config);
    let saved = saver.join().map_err(|_| "the thread that saves ended")?;
    saved.map_err(|error| format!("{error} ({outcome})").into())
}

/// Waits for the text, and saves the machine.
fn save_when(
    is_found: &Receiver<()>,
    control: &Control,
    files: &SnapshotFiles,
) -> Result<(), String> {
    is_found
        .recv()
        .map_err(|_| "the guest ended without having printed the text")?;
    control.pause();
    let report = control.snapshot(files, SnapshotKind::Full);
    control.stop(StopReason::Escape);
    let report = report.map_err(|error| error.to_string())?;
    eprintln!(
        "save-and-end: {} KiB of {} MiB saved in {} ms",
        report.memory_written >> 10,
        report.memory_size >> 20,
        report.took.as_millis(),
    );
    Ok(())
}

/// Standard output, and a look at what goes there.
struct Watch {
    text: Vec<u8>,
    /// As many bytes as the text has, at most.
    last: VecDeque<u8>,
    found: Option<Sender<()>>,
}

impl Write for Watch {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        for byte in bytes {
            self.last.push_back(*byte);
            if self.last.len() > self.text.len() {
                self.last.pop_front();
            }
            if self.last == self.text
                && let Some(found) = self.found.take()
            {
                // Nobody waits for it if the machine has ended.
                let _ = found.send(());
            }
        }
        io::stdout().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stdout().flush()
    }
}
