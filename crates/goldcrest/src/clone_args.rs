//! The command line of `goldcrest clone`.

use std::path::{Path, PathBuf};

use crate::snapshot_args::{Binding, RestoreOptions};

/// Where a machine's number goes.
const NUMBER: &str = "{}";

const EXAMPLES: &str = "\
In the paths and names of --serial, --disk, --tap, --mmds and --vsock-uds, {} is the machine's number, from 0 on.
It is added to --vsock-cid.

Examples:
  goldcrest clone frozen --count 10                     ten processes; each line says whose it is
  goldcrest clone frozen --count 10 --in-process        ten machines in one process
  goldcrest clone frozen --count 3 --serial '{}.log' --disk 'disk0=copy-{}.img' --tap 'net0=tap{}'

Exit status: as for goldcrest run; of several machines, the highest.
";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct CloneOptions {
    #[command(flatten)]
    pub(crate) restore: RestoreOptions,

    /// How many machines
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(crate) count: u32,

    /// Have all in one process, with a thread or more for each, instead of a process for each
    #[arg(long)]
    pub(crate) in_process: bool,
}

impl CloneOptions {
    /// The options of one of them.
    pub(crate) fn numbered(&self, number: u32) -> RestoreOptions {
        let name = |text: &str| text.replace(NUMBER, &number.to_string());
        let path = |path: &Path| match path.to_str() {
            Some(text) => PathBuf::from(name(text)),
            None => path.to_owned(),
        };
        let bindings = |bindings: &[Binding]| {
            let numbered = bindings.iter().map(|binding| Binding {
                id: binding.id.clone(),
                end: name(&binding.end),
            });
            numbered.collect()
        };
        let options = &self.restore;
        RestoreOptions {
            disk: bindings(&options.disk),
            tap: bindings(&options.tap),
            vsock_uds: options.vsock_uds.as_deref().map(path),
            vsock_cid: options
                .vsock_cid
                .map(|cid| cid.saturating_add(number.into())),
            mmds: options.mmds.as_deref().map(path),
            serial: path(&options.serial),
            ..options.clone()
        }
    }
}
