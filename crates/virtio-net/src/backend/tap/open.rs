//! Opening taps.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;

use libc::c_int;
use nix::fcntl::{FcntlArg, OFlag, fcntl};

use super::ioctl::{self, Name};
use super::link::Link;
use super::{Queue, Tap, TapError};
use crate::spec::{MAX_FRAME, header, queue::MAX_PAIRS};

const TUN: &str = "/dev/net/tun";
/// A tap whose frames have a virtio header and nothing before that.
const TAP: c_int = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR;

/// A tap, as it is to be opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TapConfig {
    /// The interface's name. If there is none of that name, it is made, which needs a privilege, for as long as it is
    /// open.
    pub name: String,
    /// How many queues, one for each pair of the device's.
    pub queues: u16,
}

impl TapConfig {
    /// A tap with one queue.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            queues: 1,
        }
    }
}

/// The name of an interface, if it can be one. What a name may have is more than is taken here, but not much more is ever
/// used, and `%` has a meaning.
pub(super) fn name_bytes(name: &str) -> Option<Name> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte);
    let possible = name.bytes().all(allowed) && name != "." && name != "..";
    let mut bytes: Name = [0; libc::IFNAMSIZ];
    let (_, rest) = bytes.split_last_mut()?;
    rest.get_mut(..name.len())
        .filter(|to| possible && !to.is_empty())?
        .copy_from_slice(name.as_bytes());
    Some(bytes)
}

fn name_text(name: &Name) -> String {
    let text = name.split(|byte| *byte == 0).next().unwrap_or_default();
    String::from_utf8_lossy(text).into_owned()
}

impl Tap {
    /// Opens a tap.
    ///
    /// # Errors
    ///
    /// [`TapError`], which says what to do where something can be done.
    pub fn open(config: &TapConfig) -> Result<Self, TapError> {
        let Some(name) = name_bytes(&config.name) else {
            return Err(TapError::Name(config.name.clone()));
        };
        if !(1..=MAX_PAIRS).contains(&config.queues) {
            return Err(TapError::Queues(config.queues.into()));
        }
        let mut multi_queue = config.queues > 1;
        let mut queues = Vec::new();
        for number in 0..config.queues {
            let mut opened = open_queue(config, name, flags(multi_queue));
            if let (0, false, Err(TapError::Other { .. })) = (number, multi_queue, &opened) {
                // One queue of a tap that may have several will do.
                multi_queue = true;
                opened = open_queue(config, name, flags(multi_queue));
            }
            queues.push(Queue::new(opened?));
        }
        let link = Link::new(&config.name);
        Self::new(config.name.clone(), queues, multi_queue, link)
    }

    /// A tap that somebody else has opened: a descriptor for each queue. What it needs more is set: not to block, and
    /// the size of the virtio header. Its link counts as up, since the interface may be in another network namespace.
    ///
    /// # Errors
    ///
    /// [`TapError`] if they are not queues of one tap that is as it must be.
    pub fn from_fds(fds: Vec<OwnedFd>) -> Result<Self, TapError> {
        let count = fds.len();
        if count == 0 || count > usize::from(MAX_PAIRS) {
            return Err(TapError::Queues(count));
        }
        let mut queues = Vec::new();
        let mut interface = None;
        for fd in fds {
            let number = fd.as_raw_fd();
            let file = File::from(fd);
            let found = set_not_to_block(&file).and_then(|()| ioctl::interface(&file));
            let (name, flags) = found.map_err(|_| TapError::Descriptor(number))?;
            let same = *interface.get_or_insert(name) == name;
            if !same || c_int::from(flags) & TAP != TAP {
                return Err(TapError::Descriptor(number));
            }
            queues.push(Queue::new(file));
        }
        let name = name_text(&interface.unwrap_or_default());
        Self::new(name, queues, count > 1, None)
    }

    fn new(
        name: String,
        queues: Vec<Queue>,
        multi_queue: bool,
        link: Option<Link>,
    ) -> Result<Self, TapError> {
        let mut tap = Self {
            name,
            queues,
            multi_queue,
            has_uso: false,
            link,
            busy: false,
            copy: vec![0; MAX_FRAME].into_boxed_slice(),
        };
        tap.set_up().map_err(|(what, source)| TapError::SetUp {
            name: tap.name.clone(),
            what,
            source,
        })?;
        Ok(tap)
    }

    fn set_up(&mut self) -> Result<(), (&'static str, io::Error)> {
        let size = c_int::try_from(header::SIZE).unwrap_or(0);
        for (number, queue) in self.queues.iter_mut().enumerate() {
            ioctl::set_header_size(&queue.file, size).map_err(|e| ("set the header size", e))?;
            // The driver begins with one pair.
            if self.multi_queue && number > 0 {
                queue.attach(false).map_err(|e| ("detach a queue", e))?;
            }
        }
        if let Some(queue) = self.queues.first() {
            let uso = libc::TUN_F_CSUM | libc::TUN_F_USO4 | libc::TUN_F_USO6;
            self.has_uso = ioctl::set_offload(&queue.file, uso).is_ok();
            ioctl::set_offload(&queue.file, 0).map_err(|e| ("set the offloads", e))?;
        }
        Ok(())
    }
}

fn set_not_to_block(file: &File) -> io::Result<()> {
    let flags = OFlag::from_bits_retain(fcntl(file, FcntlArg::F_GETFL)?);
    fcntl(file, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
    Ok(())
}

fn flags(multi_queue: bool) -> c_int {
    match multi_queue {
        true => TAP | libc::IFF_MULTI_QUEUE,
        false => TAP,
    }
}

/// A queue of the interface of this name, with flags of `TUNSETIFF`.
pub(super) fn open_queue(config: &TapConfig, name: Name, flags: c_int) -> Result<File, TapError> {
    let (name_text, queues) = (config.name.clone(), config.queues);
    let refused = |source: io::Error| {
        let name = name_text.clone();
        match source.raw_os_error() {
            Some(libc::EPERM | libc::EACCES) => TapError::Permission {
                name,
                queues,
                source,
            },
            Some(libc::EBUSY | libc::E2BIG) => TapError::Busy { name, source },
            Some(libc::EINVAL) => TapError::Other {
                name,
                queues,
                source,
            },
            _ => TapError::SetUp {
                name,
                what: "open a queue",
                source,
            },
        }
    };
    let opened = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(TUN);
    let file = opened.map_err(|source| match source.kind() {
        io::ErrorKind::PermissionDenied => refused(source),
        _ => TapError::NoTun(source),
    })?;
    let flags = u16::try_from(flags).unwrap_or(0);
    ioctl::set_interface(&file, name, flags).map_err(refused)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_no_interface_has_are_refused() {
        for name in [
            "",
            ".",
            "..",
            "a/b",
            "a b",
            "tap%d",
            "a:1",
            "sixteen-letters-",
            "é",
        ] {
            let error = Tap::open(&TapConfig::new(name)).unwrap_err();
            assert!(matches!(error, TapError::Name(_)), "{name}: {error}");
        }
        assert_eq!(name_bytes("tap0").unwrap()[..5], *b"tap0\0");
        assert!(name_bytes("fifteen-letters").is_some());
        for queues in [0, 9] {
            let config = TapConfig {
                queues,
                ..TapConfig::new("tap0")
            };
            assert!(matches!(Tap::open(&config), Err(TapError::Queues(_))));
        }
    }

    #[test]
    fn descriptors_that_are_not_a_taps_are_refused() {
        let file = File::open("/dev/null").unwrap();
        let error = Tap::from_fds(vec![file.into()]).unwrap_err();
        assert!(error.to_string().contains("is not one of a tap"), "{error}");
        assert!(matches!(
            Tap::from_fds(Vec::new()),
            Err(TapError::Queues(0))
        ));
    }
}
