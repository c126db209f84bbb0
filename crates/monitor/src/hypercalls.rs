//! The hypercalls of guests that are made for other monitors.

use goldcrest_boot::{Hypercalls, Loaded};
use goldcrest_bus::{Range, SharedDevice, shared};
use goldcrest_hermit::Hypercalls as HermitHypercalls;
use goldcrest_memory::GuestRam;
use goldcrest_solo5::{Attached, Hypercalls as Solo5Hypercalls, SystemHost, spec};

use crate::solo5::by_handle;
use crate::{MachineConfig, MonitorError};

/// A device at its ports.
pub(crate) struct HypercallPort {
    pub(crate) name: &'static str,
    pub(crate) range: Range,
    pub(crate) device: SharedDevice,
}

/// The hypercalls that the guest expects; `attached` are a Solo5 guest's devices.
pub(crate) fn devices(
    config: &MachineConfig,
    ram: &GuestRam,
    loaded: &Loaded,
    attached: Vec<Attached>,
) -> Result<Vec<HypercallPort>, MonitorError> {
    let (memory, output) = (ram.memory().clone(), config.output.clone());
    let control = config.control.clone();
    let stopped = move || control.stopped().is_some();
    Ok(match &loaded.hypercalls {
        Hypercalls::None => Vec::new(),
        Hypercalls::Solo5 { handles, read_only } => {
            let interruption = config.control.interruption();
            let interruption = interruption.map_err(|source| MonitorError::Events {
                what: "make an eventfd",
                source,
            })?;
            let notice = config.notice.clone();
            let host = SystemHost::new(stopped, Some(interruption));
            let hypercalls = Solo5Hypercalls::new(memory, output, host)
                .with_devices(by_handle(handles, attached))
                .with_read_only(read_only.clone())
                .on_abort(move |line| notice.say(line));
            vec![HypercallPort {
                name: "solo5",
                range: spec::RANGE,
                device: shared(hypercalls),
            }]
        }
        Hypercalls::Hermit { args } => {
            let hypercalls = HermitHypercalls::new(memory, output)
                .with_args(args.iter().cloned())
                .with_page_tables(loaded.system.cr3)
                .give_up_when(stopped);
            let mut ports = Vec::new();
            for (range, device) in hypercalls.ports() {
                ports.push(HypercallPort {
                    name: "hermit",
                    range,
                    device,
                });
            }
            ports
        }
    })
}
