//! Any bytes as an ELF image with Solo5's notes. The last byte chooses how it is loaded, and with which devices.

use std::sync::LazyLock;

use goldcrest_boot::{Hardware, Solo5Device, Solo5Properties};

/// The devices that seeds declare.
static DEVICES: LazyLock<[Solo5Device; 2]> = LazyLock::new(|| {
    let device = |name: &str, properties| Solo5Device {
        name: name.into(),
        properties,
    };
    let block = Solo5Properties::Block {
        capacity: 1 << 20,
        block_size: 512,
    };
    let net = Solo5Properties::Net {
        mac: [2, 0, 0, 0, 0, 1],
        mtu: 1500,
    };
    [device("storage", block), device("service", net)]
});

/// Runs the target.
pub fn run(data: &[u8]) {
    crate::guest::load_alone(data, |way| Hardware {
        solo5: DEVICES.get(usize::from(way & 3)..).unwrap_or_default(),
        ..Hardware::default()
    });
}
