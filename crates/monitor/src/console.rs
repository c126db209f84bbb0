//! Virtio consoles, as a person sets them.

use std::fs::File;
use std::io;
use std::os::fd::{OwnedFd, RawFd};
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use goldcrest_virtio_console::{Console, FilePort, PortBackend, PortConfig, PtyPort, SocketPort};

use crate::input::Escape;
use crate::options::OptionError;
use crate::snapshot::{ConsoleEnd, Description};
use crate::{Control, DeviceFailure, Input, StopReason, VirtioConfig};

/// What is at the host's end of a virtio console.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConsoleConfig {
    /// This process's standard input and output.
    Stdio,
    /// A pseudo-terminal, for `screen` and the like.
    Pty,
    /// A file, for output only.
    File(PathBuf),
    /// A Unix socket that one client at a time connects to.
    Socket(PathBuf),
}

const FORM: &str = "stdio, pty, file:PATH or socket:PATH, for example socket:/run/guest.sock";

/// `stdio`, `pty`, `file:PATH` or `socket:PATH`.
impl FromStr for ConsoleConfig {
    type Err = OptionError;

    fn from_str(text: &str) -> Result<Self, OptionError> {
        match text.split_once(':') {
            None if text == "stdio" => Ok(Self::Stdio),
            None if text == "pty" => Ok(Self::Pty),
            Some((_, "")) => Err(OptionError::new("the console's path is missing", FORM)),
            Some(("file", path)) => Ok(Self::File(path.into())),
            Some(("socket", path)) => Ok(Self::Socket(path.into())),
            _ => {
                let what = format!("a console cannot be on {text:?}");
                Err(OptionError::new(what, FORM))
            }
        }
    }
}

/// What is behind a virtio console.
#[derive(Debug, Clone)]
pub enum ConsolePort {
    /// Descriptors of this process, such as standard input and output.
    Streams {
        /// Where the guest's input comes from.
        input: Option<Input>,
        /// Where its output goes. It is never waited for: a reader that is slow keeps the guest waiting alone.
        output: Arc<File>,
    },
    /// A new pseudo-terminal.
    Pty,
    /// A Unix socket at this path.
    Socket(PathBuf),
}

/// A device with a console for each of `ports`: `/dev/hvc0` and so on.
///
/// `control` is stopped by `Ctrl-a x` from an input that is a terminal. `notice` is called with what a person should
/// know: the path of a pseudo-terminal.
pub fn console_device(
    ports: Vec<ConsolePort>,
    control: Arc<Control>,
    notice: impl Fn(&str) + Send + Sync + 'static,
) -> VirtioConfig {
    let ends = ports.iter().map(ConsolePort::end).collect();
    VirtioConfig::described("console", Description::Console(ends), move || {
        let backends = ports.iter().map(|port| port.open(&control, &notice));
        Ok(Console::new(backends.collect::<Result<_, _>>()?)?)
    })
}

impl ConsolePort {
    /// What is saved of it.
    fn end(&self) -> ConsoleEnd {
        match self {
            Self::Streams { .. } => ConsoleEnd::Streams,
            Self::Pty => ConsoleEnd::Pty,
            Self::Socket(path) => ConsoleEnd::Socket(path.clone()),
        }
    }

    fn open(
        &self,
        control: &Arc<Control>,
        notice: &impl Fn(&str),
    ) -> Result<PortConfig, DeviceFailure> {
        Ok(match self {
            Self::Streams { input, output } => {
                let output = output.try_clone()?.into();
                PortConfig::console(Streams::open(input.as_ref(), output, control)?)
            }
            Self::Pty => {
                let pty = PtyPort::open()?;
                notice(&format!(
                    "the guest's console is on {}",
                    pty.path().display()
                ));
                PortConfig::console(pty)
            }
            Self::Socket(path) => PortConfig::console(SocketPort::listen(path)?),
        })
    }
}

/// A port on descriptors of this process. It says when the guest first listens.
struct Streams {
    port: FilePort,
    on_listen: Option<Arc<dyn Fn() + Send + Sync>>,
}

impl Streams {
    fn open(
        input: Option<&Input>,
        output: OwnedFd,
        control: &Arc<Control>,
    ) -> Result<Self, DeviceFailure> {
        let source = input.map(|input| input.source.try_clone()).transpose()?;
        let mut port = FilePort::new(source.map(OwnedFd::from), Some(output))?;
        if input.is_some_and(|input| input.escape) {
            let (control, mut escape) = (control.clone(), Escape::default());
            port = port.with_filter(Box::new(move |bytes, out| {
                if escape.filter(bytes, out) {
                    control.stop(StopReason::Escape);
                }
            }));
        }
        let on_listen = input.map(|input| input.on_listen.clone());
        Ok(Self { port, on_listen })
    }
}

impl PortBackend for Streams {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.port.write(bytes)
    }

    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        if let Some(on_listen) = self.on_listen.take() {
            on_listen();
        }
        self.port.read(bytes)
    }

    fn poll(&mut self) {
        self.port.poll();
    }

    fn is_open(&self) -> bool {
        self.port.is_open()
    }

    fn read_fd(&self) -> Option<RawFd> {
        self.port.read_fd()
    }

    fn write_fd(&self) -> Option<RawFd> {
        self.port.write_fd()
    }

    fn poll_fd(&self) -> Option<RawFd> {
        self.port.poll_fd()
    }

    fn poll_within(&self) -> Option<Duration> {
        self.port.poll_within()
    }

    fn size(&self) -> Option<(u16, u16)> {
        self.port.size()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn consoles_are_where_their_options_say() {
        let parse = |text: &str| text.parse::<ConsoleConfig>();
        assert_eq!(parse("stdio"), Ok(ConsoleConfig::Stdio));
        assert_eq!(parse("pty"), Ok(ConsoleConfig::Pty));
        assert_eq!(parse("file:a:b"), Ok(ConsoleConfig::File("a:b".into())));
        assert_eq!(parse("socket:x"), Ok(ConsoleConfig::Socket("x".into())));
        for text in ["", "tty", "file:", "socket:", "tcp:1"] {
            let error = parse(text).unwrap_err().to_string();
            assert!(error.contains("; write stdio, pty"), "{error}");
        }
    }
}
