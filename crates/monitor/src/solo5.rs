//! Devices of Solo5 guests, as a person sets them: attached by the names that a guest's manifest has.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use goldcrest_boot::{Solo5Device, Solo5Properties};
use goldcrest_memory::io::{Durability, Segment};
use goldcrest_rate_limiter::RateConfig;
use goldcrest_solo5::{Attached, Link, Net, Storage};
use goldcrest_usernet::{Network, RxOffload, TxOffload};
use goldcrest_virtio_blk::{Backend, FileDisk, FileDiskConfig, Operation, Start};
use goldcrest_virtio_net::{MacAddress, PlainTap};
use vm_memory::GuestMemoryMmap;

use crate::options::{OptionError, parts};
use crate::{DeviceFailure, MonitorError, NetConfig, NetLink};

/// A device of a Solo5 guest.
#[derive(Debug, Clone)]
pub struct Solo5Config {
    /// The name that the guest's manifest has.
    pub name: String,
    /// What it is.
    pub device: Solo5Backing,
}

/// What is behind a device of a Solo5 guest.
#[derive(Debug, Clone)]
pub enum Solo5Backing {
    /// A block device: a file or a block device of the host, of blocks of 512 bytes.
    Block {
        /// The file.
        path: PathBuf,
        /// The guest can only read it.
        read_only: bool,
    },
    /// A network card. Of its options, queues and rates have no meaning here.
    Net(NetConfig),
}

/// Bytes of a block.
const BLOCK_SIZE: u16 = 512;
/// Characters of a name.
const NAME_MAX: usize = 67;

const BLOCK_FORM: &str = "NAME=PATH[,ro], for example storage=disk.img";
const NET_FORM: &str = "NAME=tap=TAP or NAME=user[,fwd=tcp:HOST:GUEST]..., then [,mac=MAC][,mtu=BYTES], for example \
                        service=tap=tap0";

/// Reads `NAME=PATH[,ro]`; a comma in the path is written twice.
///
/// # Errors
///
/// [`OptionError`] if it is something else, or cannot be.
pub fn parse_solo5_block(text: &str) -> Result<Solo5Config, OptionError> {
    let refuse = |what: String| OptionError::new(what, BLOCK_FORM);
    let (name, text) = named(text, BLOCK_FORM)?;
    let mut parts = parts(text).into_iter();
    let path = parts.next().unwrap_or_default();
    if path.is_empty() {
        return Err(refuse(format!(
            "the path of block device {name} is missing"
        )));
    }
    let mut read_only = false;
    for part in parts {
        match part.as_str() {
            "ro" => read_only = true,
            _ => return Err(refuse(format!("a block device has no option {part:?}"))),
        }
    }
    Ok(Solo5Config {
        name,
        device: Solo5Backing::Block {
            path: path.into(),
            read_only,
        },
    })
}

/// Reads `NAME=` and what a network card is connected to.
///
/// # Errors
///
/// [`OptionError`] if it is something else, or cannot be.
pub fn parse_solo5_net(text: &str) -> Result<Solo5Config, OptionError> {
    let (name, text) = named(text, NET_FORM)?;
    let net: NetConfig = text.parse()?;
    let rates = [&net.rx_rate, &net.tx_rate];
    if net.queues != 1 || rates.iter().any(|rate| **rate != RateConfig::default()) {
        let what = "a Solo5 guest's network card has neither queues nor rates";
        return Err(OptionError::new(what, NET_FORM));
    }
    Ok(Solo5Config {
        name,
        device: Solo5Backing::Net(net),
    })
}

/// A name as manifests have them, and what follows it.
fn named<'t>(text: &'t str, form: &'static str) -> Result<(String, &'t str), OptionError> {
    let refuse = |what: String| OptionError::new(what, form);
    let (name, rest) = text
        .split_once('=')
        .ok_or_else(|| refuse(format!("no name and \"=\" in {text:?}")))?;
    let valid = name.bytes().all(|byte| byte.is_ascii_alphanumeric());
    if !valid || name.is_empty() || name.len() > NAME_MAX {
        return Err(refuse(format!(
            "{name:?} is no name of a device: it has 1 to {NAME_MAX} letters and digits"
        )));
    }
    Ok((name.into(), rest))
}

/// Opens the devices: what a guest is told of each, and the device.
pub(crate) fn open(
    configs: &[Solo5Config],
) -> Result<(Vec<Solo5Device>, Vec<Attached>), MonitorError> {
    let mut devices = (Vec::new(), Vec::new());
    for config in configs {
        let opened = match &config.device {
            Solo5Backing::Block { path, read_only } => open_block(path, *read_only),
            Solo5Backing::Net(net) => open_net(net),
        };
        let (properties, attached) = opened.map_err(|source| MonitorError::Device {
            name: config.name.clone(),
            source,
        })?;
        devices.0.push(Solo5Device {
            name: config.name.clone(),
            properties,
        });
        devices.1.push(attached);
    }
    Ok(devices)
}

/// The devices by handle; `handles` says which are whose.
pub(crate) fn by_handle(handles: &[Option<usize>], devices: Vec<Attached>) -> Vec<Attached> {
    let mut devices: Vec<_> = devices.into_iter().map(Some).collect();
    let mut take = |index: usize| devices.get_mut(index).and_then(Option::take);
    handles
        .iter()
        .map(|index| index.and_then(&mut take).unwrap_or(Attached::None))
        .collect()
}

fn open_block(
    path: &PathBuf,
    read_only: bool,
) -> Result<(Solo5Properties, Attached), DeviceFailure> {
    let disk = FileDisk::open(FileDiskConfig {
        read_only,
        // The guest waits for each transfer in any case.
        io_uring: false,
        ..FileDiskConfig::new(path)
    })?;
    let properties = Solo5Properties::Block {
        capacity: disk.capacity(),
        block_size: BLOCK_SIZE,
    };
    let storage = FileStorage {
        disk,
        attached: false,
    };
    Ok((properties, Attached::Block(Box::new(storage))))
}

fn open_net(net: &NetConfig) -> Result<(Solo5Properties, Attached), DeviceFailure> {
    let mac = match net.mac {
        Some(mac) => mac,
        None => MacAddress::random()?,
    };
    let (card, mtu) = match &net.link {
        NetLink::Tap(name) => {
            let tap = PlainTap::open(name)?;
            let mtu = net.mtu.unwrap_or(tap.mtu());
            (Net::new(TapLink(tap), mtu), mtu)
        }
        NetLink::User(network) => {
            let mut network = (**network).clone();
            network.mtu = net.mtu.unwrap_or(network.mtu);
            let mtu = network.mtu;
            (Net::new(UserLink::new(Network::new(network)?), mtu), mtu)
        }
    };
    let properties = Solo5Properties::Net {
        mac: mac.bytes(),
        mtu,
    };
    Ok((properties, Attached::Net(card)))
}

/// A disk whose transfers are waited for.
struct FileStorage {
    disk: FileDisk,
    attached: bool,
}

impl FileStorage {
    fn transfer(&mut self, memory: &GuestMemoryMmap, operation: &Operation<'_>) -> io::Result<()> {
        if !self.attached {
            self.disk.attach(memory, 1);
            self.attached = true;
        }
        match self.disk.start(operation, 0) {
            Start::Done(result) => result,
            Start::Pending | Start::Full => Err(io::ErrorKind::Unsupported.into()),
        }
    }
}

impl Storage for FileStorage {
    fn capacity(&self) -> u64 {
        self.disk.capacity()
    }

    fn block_size(&self) -> u16 {
        BLOCK_SIZE
    }

    fn read(&mut self, memory: &GuestMemoryMmap, segment: Segment, offset: u64) -> io::Result<()> {
        let segments = &[segment];
        self.transfer(memory, &Operation::Read { offset, segments })
    }

    fn write(&mut self, memory: &GuestMemoryMmap, segment: Segment, offset: u64) -> io::Result<()> {
        if self.disk.read_only() {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        let operation = Operation::Write {
            offset,
            segments: &[segment],
            durability: Durability::WriteBack,
        };
        self.transfer(memory, &operation)
    }
}

/// A tap.
struct TapLink(PlainTap);

impl Link for TapLink {
    fn send(&mut self, frame: &[u8]) -> io::Result<()> {
        self.0.send(frame)
    }

    fn receive(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.receive(buffer)
    }

    fn fd(&self) -> Option<BorrowedFd<'_>> {
        Some(self.0.as_fd())
    }
}

/// The network in this process.
struct UserLink {
    network: Network,
    begun: Instant,
}

impl UserLink {
    fn new(network: Network) -> Self {
        Self {
            network,
            begun: Instant::now(),
        }
    }

    fn now(&self) -> Duration {
        self.begun.elapsed()
    }
}

impl Link for UserLink {
    fn send(&mut self, mut frame: &[u8]) -> io::Result<()> {
        self.network.advance(self.now());
        self.network
            .send(frame.len(), &mut frame, TxOffload::default());
        self.network.flush();
        Ok(())
    }

    fn receive(&mut self, mut buffer: &mut [u8]) -> io::Result<usize> {
        self.network.process(self.now());
        let most = buffer.len();
        let frame = self
            .network
            .receive(most, RxOffload::default(), &mut buffer);
        frame
            .map(|info| info.len)
            .ok_or_else(|| io::ErrorKind::WouldBlock.into())
    }

    fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.network.fd()
    }

    fn timeout(&self) -> Option<Duration> {
        self.network.timeout(self.now())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn block_devices_are_what_their_options_say() {
        let parse = |text| match parse_solo5_block(text).map(|c| (c.name, c.device)) {
            Ok((name, Solo5Backing::Block { path, read_only })) => Ok((name, path, read_only)),
            Ok(other) => panic!("{other:?}"),
            Err(error) => Err(error.to_string()),
        };
        let expected = ("a1".to_owned(), "x=y,z.img".into(), false);
        assert_eq!(parse("a1=x=y,,z.img"), Ok(expected.clone()));
        assert_eq!(
            parse("a1=x=y,,z.img,ro"),
            Ok((expected.0, expected.1, true))
        );
        let long = format!("{}=x", "a".repeat(68));
        for (text, why) in [
            ("", "no name"),
            ("disk.img", "no name"),
            ("=disk.img", "\"\" is no name"),
            ("a-b=disk.img", "\"a-b\" is no name"),
            (&long, "1 to 67 letters"),
            ("a=", "path of block device a is missing"),
            ("a=x,rw", "no option \"rw\""),
        ] {
            let error = parse(text).unwrap_err();
            assert!(
                error.contains(why) && error.contains("; write NAME=PATH"),
                "{error}"
            );
        }
    }

    #[test]
    fn network_cards_are_what_their_options_say() {
        let parse = |text| match parse_solo5_net(text).map(|c| (c.name, c.device)) {
            Ok((name, Solo5Backing::Net(net))) => Ok((name, net)),
            Ok(other) => panic!("{other:?}"),
            Err(error) => Err(error.to_string()),
        };
        let (name, net) = parse("service=tap=gc0,mac=02:00:00:00:00:01").unwrap();
        assert_eq!(name, "service");
        assert!(matches!(net.link, NetLink::Tap(tap) if tap == "gc0"));
        assert_eq!(net.mac, "02:00:00:00:00:01".parse().ok());
        let (_, net) = parse("n=user,fwd=tcp:8080:80").unwrap();
        assert!(matches!(net.link, NetLink::User(network) if network.forwards.len() == 1));
        for (text, why) in [
            ("user", "no name"),
            ("a=", "cannot be on \"\""),
            ("a b=user", "is no name"),
            ("a=tap=", "name is missing"),
            ("a=tap=t,queues=2", "neither queues nor rates"),
            ("a=user,rx-rate=1M", "neither queues nor rates"),
            ("a=user,speed=1", "no option \"speed=1\""),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(why) && error.contains("; write "), "{error}");
        }
    }

    #[test]
    fn a_user_network_answers_frame_by_frame() {
        let network = goldcrest_usernet::NetworkConfig {
            dns: goldcrest_usernet::DnsConfig::None,
            ..Default::default()
        };
        let mut link = UserLink::new(Network::new(network).unwrap());
        let mut buffer = [0; 1514];
        let none = link.receive(&mut buffer).unwrap_err();
        assert_eq!(none.kind(), io::ErrorKind::WouldBlock);
        // Who has 10.0.2.2? Tell 10.0.2.15.
        let mac = [2, 0, 0, 0, 0, 1];
        let question = [
            &[0xff; 6][..],
            &mac,
            &[0x08, 0x06, 0, 1, 8, 0, 6, 4, 0, 1],
            &mac,
            &[10, 0, 2, 15, 0, 0, 0, 0, 0, 0, 10, 0, 2, 2],
        ]
        .concat();
        link.send(&question).unwrap();
        assert_eq!(link.receive(&mut buffer).unwrap(), 42);
        assert_eq!(buffer[..6], mac);
        assert!(link.receive(&mut buffer).is_err());
    }
}
