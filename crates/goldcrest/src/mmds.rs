//! The metadata service, from options: a JSON document that the guest reads at an address of its link.

use std::fs::File;
use std::io::{self, Read};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use goldcrest_monitor::{InventoryDevice, Machine, Mmds, MmdsConfig, MmdsVersion, NetConfig};
use goldcrest_vcpu::Vm;

use crate::failure::Failure;

#[derive(Debug, clap::Args)]
pub(crate) struct MmdsOptions {
    /// Let the guest read this JSON document at http://169.254.169.254/, as the metadata of clouds is read
    ///
    /// It is served on all network cards, or on those of --mmds-card. docs/mmds.md has examples.
    #[arg(long, value_name = "FILE", requires = "net")]
    mmds: Option<PathBuf>,

    /// How the guest reads it: with v2 only with a token, which it asks for first
    #[arg(long, value_name = "v1|v2", default_value = "v1", requires = "mmds")]
    mmds_version: MmdsVersion,

    /// Where the guest reads it instead: another link-local address
    #[arg(long, value_name = "ADDRESS", requires = "mmds")]
    mmds_address: Option<Ipv4Addr>,

    /// How long the document may be, without white space [default: 51200 bytes]
    #[arg(long, value_name = "SIZE", value_parser = goldcrest_monitor::memory::parse_size, requires = "mmds")]
    mmds_size_limit: Option<u64>,

    /// Serve it on this network card only, by its place among the options --net, the first being 0; may be repeated
    #[arg(long, value_name = "N", requires = "mmds")]
    mmds_card: Vec<usize>,
}

/// White space is not a part of the document, but of its file: so many bytes there may be for each that is allowed.
const SPACE: u64 = 64;

/// Gives the cards the service, if it is wanted.
pub(crate) fn serve(options: &MmdsOptions, cards: &mut [NetConfig]) -> Result<(), Failure> {
    let Some(path) = &options.mmds else {
        return Ok(());
    };
    let mmds = loaded(options.config(), path)?;
    if let Some(card) = options.mmds_card.iter().find(|card| **card >= cards.len()) {
        let count = cards.len();
        return Err(Failure::usage(
            format_args!("cannot serve metadata on network card {card}"),
            io::Error::other(format!("there are {count}, and the first is 0")),
        ));
    }
    for (index, card) in cards.iter_mut().enumerate() {
        if options.mmds_card.is_empty() || options.mmds_card.contains(&index) {
            card.mmds = Some(mmds.clone());
        }
    }
    Ok(())
}

/// What a machine serves that is made from a snapshot, which has how it is served.
pub(crate) fn read(path: &Path) -> Result<Arc<Mmds>, Failure> {
    loaded(MmdsConfig::default(), path)
}

/// A machine from a snapshot whose guest is to have metadata can ask for them.
pub(crate) fn check<V: Vm>(machine: &Machine<V>, wanted: bool) -> Result<(), Failure> {
    let serves = |device: &InventoryDevice| match device {
        InventoryDevice::Net(card) => card.mmds.is_some(),
        _ => false,
    };
    let mut devices = machine.inventory().virtio.into_iter();
    if !wanted || devices.any(|(_, device)| serves(&device)) {
        return Ok(());
    }
    Err(Failure::usage(
        "cannot serve metadata",
        io::Error::other("no network card of the snapshot had them"),
    ))
}

impl MmdsOptions {
    fn config(&self) -> MmdsConfig {
        let mut config = MmdsConfig {
            version: self.mmds_version,
            ..MmdsConfig::default()
        };
        if let Some(address) = self.mmds_address {
            config.address = address;
        }
        if let Some(limit) = self.mmds_size_limit {
            config.limit = usize::try_from(limit).unwrap_or(usize::MAX);
        }
        config
    }
}

fn loaded(config: MmdsConfig, path: &Path) -> Result<Arc<Mmds>, Failure> {
    let what = format_args!("cannot serve metadata from {}", path.display());
    let mmds = load(config, path).map_err(|error| Failure::usage(what, error))?;
    Ok(Arc::new(mmds))
}

fn load(config: MmdsConfig, path: &Path) -> io::Result<Mmds> {
    let mmds = Mmds::new(config).map_err(io::Error::other)?;
    let most = SPACE.saturating_mul(u64::try_from(config.limit).unwrap_or(u64::MAX));
    let mut text = String::new();
    let read = File::open(path)?.take(most).read_to_string(&mut text)?;
    if u64::try_from(read).unwrap_or(u64::MAX) >= most {
        let why = format!("{most} bytes are too many for {} of JSON", config.limit);
        return Err(io::Error::other(why));
    }
    let data = serde_json::from_str(&text)?;
    mmds.put(data).map_err(io::Error::other)?;
    Ok(mmds)
}
