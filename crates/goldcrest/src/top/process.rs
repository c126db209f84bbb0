//! Which processes have machines, and what the kernel says of them.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use crate::api::DEFAULT_ID;
use crate::args::{Args, Command};
use crate::firecracker;
use crate::snapshot_args::SnapshotCommand;
use clap::Parser;

/// The most bytes that are read of a process' arguments, or of what the kernel says of it.
const MAX: u64 = 64 << 10;

/// A process that has a machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Process {
    pub(super) pid: i32,
    /// When it began, in the kernel's ticks: a number is used again by another process.
    pub(super) began: u64,
    /// Processor time, in the kernel's ticks.
    pub(super) ticks: u64,
    /// Pages of memory that it has.
    pub(super) pages: u64,
    pub(super) machine: Machine,
}

/// What a command line says of a machine.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Machine {
    pub(super) name: String,
    pub(super) cpus: Option<u64>,
    /// Bytes.
    pub(super) memory: Option<u64>,
    pub(super) socket: Option<PathBuf>,
}

/// All that can be seen, by their numbers.
pub(super) fn all() -> Vec<Process> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let mut found: Vec<Process> = entries
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter_map(one)
        .collect();
    found.sort_by_key(|process| process.pid);
    found
}

fn one(pid: i32) -> Option<Process> {
    let dir = PathBuf::from(format!("/proc/{pid}"));
    // Of processes of others, this cannot be read: they are not shown.
    let program = fs::read_link(dir.join("exe")).ok()?;
    if !is_tool(&program) {
        return None;
    }
    let arguments = read(&dir.join("cmdline"))?;
    let arguments = arguments.split(|byte| *byte == 0);
    let mut arguments: Vec<_> = arguments.map(|a| OsString::from_vec(a.to_vec())).collect();
    arguments.pop();
    let mut machine = machine(&arguments)?;
    if let Some(socket) = &mut machine.socket {
        *socket = fs::read_link(dir.join("cwd")).ok()?.join(&socket);
    }
    let (began, ticks) = times(&read(&dir.join("stat"))?)?;
    let pages = read(&dir.join("statm"))?;
    let pages = String::from_utf8(pages).ok()?;
    Some(Process {
        pid,
        began,
        ticks,
        pages: pages.split(' ').nth(1)?.parse().ok()?,
        machine,
    })
}

fn read(path: &Path) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)
        .ok()?
        .take(MAX)
        .read_to_end(&mut bytes)
        .ok()?;
    Some(bytes)
}

/// Whether a program is this tool, also if its file was replaced since.
fn is_tool(program: &Path) -> bool {
    let name = program.file_name().map(OsStrExt::as_bytes);
    matches!(name, Some(b"goldcrest" | b"goldcrest (deleted)"))
}

/// When a process began, and its processor time: fields 22, 14 and 15 of `/proc/PID/stat` (proc_pid_stat(5)). The second
/// is the program's name in parentheses, which may have anything in it.
fn times(stat: &[u8]) -> Option<(u64, u64)> {
    let text = String::from_utf8_lossy(stat);
    let (_, after) = text.rsplit_once(')')?;
    let field = |number: usize| -> Option<u64> {
        // The first one after the name is the third.
        after.split_ascii_whitespace().nth(number - 3)?.parse().ok()
    };
    Some((field(22)?, field(14)?.checked_add(field(15)?)?))
}

/// What arguments of the tool say of its machine; nothing if they are for something else.
fn machine(arguments: &[OsString]) -> Option<Machine> {
    if firecracker::is_called(arguments.first().map(OsString::as_os_str)) {
        let (id, socket) = firecracker::machine(arguments)?;
        return Some(Machine {
            name: id,
            socket,
            ..Machine::default()
        });
    }
    match Args::try_parse_from(arguments).ok()?.command {
        None => Some(named("demo")),
        Some(Command::Run(options)) => {
            let described = options.api.api_sock.is_some() || options.api.config_file.is_some();
            let image = options
                .image
                .as_deref()
                .or(options.disk.first().map(|d| d.path.as_path()));
            let name = match options.api.id.as_str() {
                DEFAULT_ID if !described => image.map_or("demo".into(), file_name),
                id => id.to_owned(),
            };
            Some(Machine {
                name,
                cpus: (!described).then_some(options.cpus.into()),
                memory: (!described).then(|| crate::run::memory_config(&options).size),
                socket: options.api.api_sock,
            })
        }
        Some(Command::Snapshot {
            command: SnapshotCommand::Restore(options),
        }) => Some(named(&file_name(&options.options.directory))),
        Some(Command::Clone(options)) => Some(named(&file_name(&options.restore.directory))),
        Some(_) => None,
    }
}

fn named(name: &str) -> Machine {
    Machine {
        name: name.to_owned(),
        ..Machine::default()
    }
}

fn file_name(path: &Path) -> String {
    let name = path.file_name().unwrap_or(path.as_os_str());
    name.to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_say_which_machine_it_is() {
        let machine = |line: &str| {
            let arguments: Vec<_> = line.split(' ').map(OsString::from).collect();
            let found = machine(&arguments)?;
            Some((found.name, found.cpus, found.memory, found.socket))
        };
        let mib = |mib: u64| Some(mib << 20);
        for (line, name, cpus, memory, socket) in [
            ("goldcrest", "demo", None, None, None),
            (
                "goldcrest run a/vmlinuz --cpus 2",
                "vmlinuz",
                Some(2),
                mib(128),
                None,
            ),
            (
                "goldcrest run --disk b/root.img",
                "root.img",
                Some(1),
                mib(512),
                None,
            ),
            (
                "goldcrest run x --id one -m 1G",
                "one",
                Some(1),
                mib(1024),
                None,
            ),
            (
                "goldcrest run --api-sock s",
                DEFAULT_ID,
                None,
                None,
                Some("s"),
            ),
            (
                "goldcrest snapshot restore a/warm",
                "warm",
                None,
                None,
                None,
            ),
            ("goldcrest clone warm --count 3", "warm", None, None, None),
            (
                "/x/firecracker --api-sock /s --id f",
                "f",
                None,
                None,
                Some("/s"),
            ),
        ] {
            let wanted = (name.to_owned(), cpus, memory, socket.map(PathBuf::from));
            assert_eq!(machine(line), Some(wanted), "{line}");
        }
        for line in [
            "goldcrest top",
            "goldcrest ctl -s x status",
            "goldcrest what",
            "goldcrest run --what",
        ] {
            assert_eq!(machine(line), None, "{line}");
        }
        assert_eq!(super::machine(&[]), Some(named("demo")));
    }

    #[test]
    fn a_programs_name_does_not_confuse_its_times() {
        let rest = " R 1 1 1 0 -1 0 0 0 0 0 700 42 0 0 20 0 1 0 9000 1 1";
        let times = |name: &str| super::times(format!("7 ({name}){rest}").as_bytes());
        assert_eq!(times("goldcrest"), Some((9000, 742)));
        assert_eq!(times("a) R 1 (b"), Some((9000, 742)));
        for stat in [
            "",
            "7 (a) R",
            "7 a R 1",
            "7 (a) R 1 1 1 0 -1 0 0 0 0 0 x 42 0 0 20 0 1 0 9",
        ] {
            assert_eq!(super::times(stat.as_bytes()), None, "{stat}");
        }
    }

    #[test]
    fn only_the_tool_is_the_tool() {
        for (path, is) in [
            ("/usr/bin/goldcrest", true),
            ("/x/goldcrest (deleted)", true),
            ("/x/goldcrest-9", false),
            ("/", false),
        ] {
            assert_eq!(is_tool(Path::new(path)), is, "{path}");
        }
    }
}
